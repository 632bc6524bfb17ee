/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packages: mmdebstrap, where it gets them from, and the cache of those downloaded before.
 *
 * The cache is STORE/debs/DIGEST_NAME.deb. apt has checked a package by its signed index when it
 * comes in; the digest is checked again each time it goes out, since apt itself looks at the size
 * alone of what it finds in its folder.
 */
#include <errno.h>
#include <inttypes.h>
#include <libintl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/build_int.h"
#include "image/store_int.h"

#define DEBIAN_MIRROR   "http://deb.debian.org/debian"
#define DEBIAN_SECURITY "http://deb.debian.org/debian-security"
#define DEBIAN_MAX_TEXT 262144

/* ---- Where packages come from ---- */

/* The first URI of the host's own sources with that label. */
static bool debian_host_uri(const char *targets, const char *label, char *uri, size_t len)
{
    size_t n = strlen(label);
    for (const char *line = targets; *line != '\0'; line = strchrnul(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, label, n) == 0 && line[n] == '\t') {
            size_t url = strcspn(line + n + 1, "\n");
            while (url > 0 && line[n + url] == '/') {
                url--;
            }
            (void)snprintf(uri, len, "%.*s", (int)url, line + n + 1);
            return url > 0;
        }
    }
    return false;
}

struct debian_sources {
    char mirror[512];
    char security[512];
    char proxy[600]; /* "http_proxy=URL", or "" */
};

/* What apt on this machine is configured with; a machine without apt has mmdebstrap's needs unmet
 * anyway, so a failure here only means Debian's own host. */
static void debian_ask_host(const struct build *b, struct debian_sources *s)
{
    const char *targets[] = {
        "apt-get", "indextargets", "--format", "$(LABEL)\t$(REPO_URI)", "Created-By: Packages", NULL
    };
    const char *proxy[] = { "apt-config", "shell", "P", "Acquire::http::Proxy", NULL };
    struct err ignored = ERR_INIT;
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE char *config = NULL;
    (void)snprintf(s->mirror, sizeof(s->mirror), "%s", DEBIAN_MIRROR);
    (void)snprintf(s->security, sizeof(s->security), "%s", DEBIAN_SECURITY);
    if (child_output(&(struct child_opts){ .argv = targets, .stop = b->opts->stop },
                     DEBIAN_MAX_TEXT, &text, &ignored) == 0) {
        (void)debian_host_uri(text, "Debian", s->mirror, sizeof(s->mirror));
        (void)debian_host_uri(text, "Debian-Security", s->security, sizeof(s->security));
    }
    s->proxy[0] = '\0';
    if (child_output(&(struct child_opts){ .argv = proxy, .stop = b->opts->stop }, DEBIAN_MAX_TEXT,
                     &config, &ignored) == 0 &&
        strncmp(config, "P='", 3) == 0) {
        (void)snprintf(s->proxy, sizeof(s->proxy), "http_proxy=%.*s",
                       (int)strcspn(config + 3, "'\n"), config + 3);
    }
}

static int debian_write_sources(const struct build *b, const struct debian_sources *s,
                                const char *path, struct err *err)
{
    const char *suite = recipe_suite_of(b->recipe->suite);
    const char *mirror = b->opts->mirror != NULL ? b->opts->mirror : s->mirror;
    FILE *f = fopen(path, "we");
    bool ok = f != NULL && fprintf(f, "deb %s %s main\n", mirror, suite) > 0;
    if (ok && b->opts->mirror == NULL && strcmp(suite, "sid") != 0 &&
        strcmp(suite, "unstable") != 0) {
        ok = fprintf(f, "deb %s %s-updates main\ndeb %s %s-security main\n", mirror, suite,
                     s->security, suite) > 0;
    }
    if (f != NULL && fclose(f) != 0) {
        ok = false;
    }
    return ok ? 0 : err_set_errno(err, -errno, "cannot write '%s'", path);
}

/* ---- The cache ---- */

/* Hard links (or nothing, where the file system has none) of the good packages into `to`. */
static int debian_cache_out(const struct build *b, const char *to, struct err *err)
{
    char path[STORE_PATH_MAX];
    char link_path[STORE_PATH_MAX + 400];
    if (mkdir(to, 0755) < 0) {
        return err_set_errno(err, -errno, "cannot make the folder '%s'", to);
    }
    char **names = store_names(store_path(b->store, path, "debs"));
    int rc = 0;
    for (char **n = names; *n != NULL && rc == 0; n++) {
        char hex[DIGEST_HEX + 1];
        struct err ignored = ERR_INIT;
        store_path(b->store, path, "debs/%s", *n);
        if (strlen(*n) > DIGEST_HEX + 1 && digest_file(path, hex, &ignored) == 0 &&
            strncmp(*n, hex, DIGEST_HEX) == 0) {
            (void)snprintf(link_path, sizeof(link_path), "%s/%s", to, *n + DIGEST_HEX + 1);
            if (link(path, link_path) < 0 && errno != EEXIST) {
                break; /* no hard links here: all are downloaded */
            }
        } else {
            (void)unlink(path); /* damaged: it is downloaded again */
        }
        rc = child_stop_check(b->opts->stop, err);
    }
    store_names_free(names);
    return rc;
}

/* Takes what apt has downloaded. Only a cache: what fails is downloaded again. */
static void debian_cache_in(const struct build *b, const char *from)
{
    char path[STORE_PATH_MAX + 300];
    char cached[STORE_PATH_MAX];
    char **names = store_names(from);
    for (char **n = names; *n != NULL; n++) {
        char hex[DIGEST_HEX + 1];
        struct err ignored = ERR_INIT;
        size_t len = strlen(*n);
        (void)snprintf(path, sizeof(path), "%s/%s", from, *n);
        if (len > 4 && len < 180 && strcmp(*n + len - 4, ".deb") == 0 &&
            digest_file(path, hex, &ignored) == 0) {
            (void)rename(path, store_path(b->store, cached, "debs/%s_%s", hex, *n));
        }
    }
    store_names_free(names);
}

/* ---- mmdebstrap ---- */

#define PHASE(text, phase)                                                                         \
    {                                                                                              \
        text, phase                                                                                \
    }

/* Its messages that begin a phase of ours. */
static const struct {
    const char *text;
    const char *phase;
} debian_phases[] = {
    PHASE("I: running apt-get update", "reading the package lists"),
    PHASE("I: downloading packages", "downloading packages"),
    PHASE("I: extracting archives", "unpacking the base system"),
    PHASE("I: installing essential packages", "installing the base system"),
    PHASE("I: installing remaining packages", "installing packages"),
    PHASE("I: running --customize-hook", "setting up the system"),
    PHASE("I: cleaning package lists", "writing the file system"),
};

static void debian_tick(void *opaque)
{
    const struct build *b = opaque;
    if (b->opts->watch.tick != NULL) {
        b->opts->watch.tick(b->opts->watch.opaque);
    }
}

#define CAUSE(said, text)                                                                          \
    {                                                                                              \
        said, text                                                                                 \
    }

/* What apt and dpkg say in the cases that a user can do something about, and what we say then. */
static const struct {
    const char *said;
    const char *text;
} debian_causes[] = {
    CAUSE("No space left", "no space left on the device"),
    CAUSE("Unable to locate package", "a package does not exist in this suite"),
    CAUSE("has no installation candidate", "a package does not exist in this suite"),
    CAUSE("does not have a Release file", "the mirror has no such suite"),
    CAUSE("Could not resolve", "no network, or the mirror's name is wrong"),
    CAUSE("Could not connect", "the mirror does not answer: no network?"),
    CAUSE("Temporary failure resolving", "no network, or the mirror's name is wrong"),
    CAUSE("Hash Sum mismatch", "the mirror gave a file with a wrong hash"),
    CAUSE("is not signed", "the mirror's signature is missing or not trusted"),
};

/* Keeps the first such line, since what comes after it are consequences; but one of apt's closing
 * lines ("E: ...") has the name of the file as well. */
static void debian_note_cause(struct build *b, const char *line)
{
    bool closing = strncmp(line, "E: ", 3) == 0;
    for (size_t i = 0; i < ARRAY_LEN(debian_causes); i++) {
        bool better =
            b->cause == NULL || (b->cause == debian_causes[i].text && closing && !b->cause_closing);
        if (better && strstr(line, debian_causes[i].said) != NULL) {
            b->cause = debian_causes[i].text;
            b->cause_closing = closing;
            (void)snprintf(b->cause_line, sizeof(b->cause_line), "%s",
                           line + (closing ? 3 : strspn(line, " ")));
            return;
        }
    }
}

static int debian_explain(const struct build *b, struct err *err)
{
    return b->cause == NULL
               ? err->code
               : err_set(err, err->code, "suite '%s': %s (%s)", recipe_suite_of(b->recipe->suite),
                         gettext(b->cause), b->cause_line);
}

static void debian_line(void *opaque, const char *line)
{
    struct build *b = opaque;
    debian_note_cause(b, line);
    for (size_t i = 0; i < ARRAY_LEN(debian_phases); i++) {
        if (strncmp(line, debian_phases[i].text, strlen(debian_phases[i].text)) == 0) {
            build_phase(b, debian_phases[i].phase);
        }
    }
}

/* No manual pages, translations and documentation. As options of dpkg these rules would put a
 * filter in Python behind each package of the base system, so they come once that is unpacked. */
static const char debian_exclude[] =
    "--extract-hook=d=\"$1\"/usr/share; "
    "printf 'path-exclude=/usr/share/%s/*\\n' doc man locale info "
    ">\"$1\"/etc/dpkg/dpkg.cfg.d/posada && "
    "echo 'path-include=/usr/share/doc/*/copyright' >>\"$1\"/etc/dpkg/dpkg.cfg.d/posada && "
    "rm -rf \"$d\"/man/* \"$d\"/locale/* \"$d\"/info/* && "
    "find \"$d\"/doc ! -type d ! -name copyright -delete && "
    "find \"$d\"/doc -mindepth 1 -type d -empty -delete";

/* Asks apt, once it has the lists, whether it can install the recipe's own packages: the answer
 * would come minutes later otherwise. */
static const char debian_ask[] = "--extract-hook=APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" "
                                 "apt-get -qq --simulate --no-install-recommends install ";

/* The recipe's packages with spaces between, behind debian_ask; "--extract-hook=true" for none:
 * mmdebstrap starts a word without a shell's characters as a program, which ":" is not. */
static void debian_ask_for(const struct build *b, char *buf, size_t len)
{
    char *const *names = b->recipe->packages.items;
    size_t n = (size_t)snprintf(buf, len, "%s",
                                b->recipe->packages.count > 0 ? debian_ask : "--extract-hook=true");
    for (size_t i = 0; i < b->recipe->packages.count && n + strlen(names[i]) + 16 < len; i++) {
        n += (size_t)snprintf(buf + n, len - n, "%s ", names[i]);
    }
    if (b->recipe->packages.count > 0) {
        (void)snprintf(buf + n, len - n, ">/dev/null");
    }
}

static int debian_start(struct build *b, const struct debian_sources *sources, struct child **ret,
                        struct err *err)
{
    char in[2 * STORE_PATH_MAX + 400];
    char out[2 * STORE_PATH_MAX + 400];
    char overlay[STORE_PATH_MAX + 400];
    char include[8192];
    char ask[8192];
    char list[STORE_PATH_MAX + 32];
    char epoch[64];
    char tmpdir[STORE_PATH_MAX + 32];
    bool i386 = strcmp(b->recipe->arch, "i386") == 0;
    /* The hooks sync-in and sync-out would carry all packages through tar, there and back. */
    (void)snprintf(in, sizeof(in),
                   "--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives && "
                   "cp -l '%s'/debs-in/. -r \"$1\"/var/cache/apt/archives 2>/dev/null || "
                   "cp -r '%s'/debs-in/. \"$1\"/var/cache/apt/archives",
                   b->tmp.path, b->tmp.path);
    (void)snprintf(out, sizeof(out),
                   "--customize-hook=cd \"$1\"/var/cache/apt/archives && for f in *.deb; do "
                   "test -e '%s/debs-in/'\"$f\" || cp \"$f\" '%s/debs-out/'; done",
                   b->tmp.path, b->tmp.path);
    (void)snprintf(overlay, sizeof(overlay), "--customize-hook=tar-in '%s/overlay.tar' /",
                   b->tmp.path);
    (void)snprintf(list, sizeof(list), "%s/sources.list", b->tmp.path);
    (void)snprintf(include, sizeof(include), "--include=%s", b->packages);
    debian_ask_for(b, ask, sizeof(ask));
    (void)snprintf(epoch, sizeof(epoch), "SOURCE_DATE_EPOCH=%" PRId64, b->opts->epoch);
    /* Under root the work may be in our folder, where a later sweep finds what a kill left. */
    (void)snprintf(tmpdir, sizeof(tmpdir), "TMPDIR=%s", geteuid() == 0 ? b->tmp.path : "/tmp");
    const char *argv[] = {
        "mmdebstrap",
        "--variant=minbase",
        "--format=tar",
        include,
        i386 ? "--architectures=i386,amd64" : "--architectures=amd64",
        "--dpkgopt=force-unsafe-io",
        in,
        ask,
        debian_exclude,
        "--skip=essential/unlink",
        out,
        overlay,
        "--customize-hook=chroot \"$1\" /bin/sh /posada-setup",
        recipe_suite_of(b->recipe->suite),
        "-",
        list,
        NULL,
    };
    const char *env[] = { epoch, tmpdir, sources->proxy[0] != '\0' ? sources->proxy : NULL, NULL };
    struct child_opts o = { .argv = argv,
                            .env = env,
                            .package = "mmdebstrap",
                            .stop = b->opts->stop,
                            .line = debian_line,
                            .tick = debian_tick,
                            .opaque = b };
    if (strlen(b->packages) + 16 > sizeof(include)) {
        return err_set(err, -E2BIG, "the recipe has too many packages");
    }
    return child_start(&o, ret, err);
}

int build_debian(struct build *b, const struct tarball_files *early, struct rootfs *fs,
                 struct err *err)
{
    struct debian_sources sources;
    struct child *child = NULL;
    char path[STORE_PATH_MAX + 32];
    build_phase(b, "preparing");
    debian_ask_host(b, &sources);
    (void)snprintf(path, sizeof(path), "%s/sources.list", b->tmp.path);
    int rc = debian_write_sources(b, &sources, path, err);
    (void)snprintf(path, sizeof(path), "%s/overlay.tar", b->tmp.path);
    rc = rc < 0 ? rc : tarball_files_tar(early, b->opts->epoch, path, err);
    (void)snprintf(path, sizeof(path), "%s/debs-out", b->tmp.path);
    if (rc == 0 && mkdir(path, 0755) < 0) {
        rc = err_set_errno(err, -errno, "cannot make the folder '%s'", path);
    }
    (void)snprintf(path, sizeof(path), "%s/debs-in", b->tmp.path);
    rc = rc < 0 ? rc : debian_cache_out(b, path, err);
    rc = rc < 0 ? rc : debian_start(b, &sources, &child, err);
    if (rc < 0) {
        return rc;
    }
    rc = build_fill(b, child, NULL, fs, err);
    struct err end = ERR_INIT;
    /* A stream that broke off has its cause in the program, which has ended then. */
    int finish = child_finish(child, rc == -EINTR || rc == -ENOSPC, &end);
    if (finish < 0 && rc != -EINTR && rc != -ENOSPC) {
        *err = end;
        rc = finish == -EINTR ? finish : debian_explain(b, err);
    }
    if (rc == 0) {
        (void)snprintf(path, sizeof(path), "%s/debs-out", b->tmp.path);
        debian_cache_in(b, path);
    }
    return rc;
}
