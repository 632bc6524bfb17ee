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

/* What apt on this machine is configured with; a machine without apt has mmdebstrap's needs unmet
 * anyway, so a failure here only means Debian's own host. */
static void debian_ask_host(struct build *b, char *mirror, char *security, size_t len)
{
    const char *targets[] = {
        "apt-get", "indextargets", "--format", "$(LABEL)\t$(REPO_URI)", "Created-By: Packages", NULL
    };
    const char *proxy[] = { "apt-config", "shell", "P", "Acquire::http::Proxy", NULL };
    struct err ignored = ERR_INIT;
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE char *config = NULL;
    (void)snprintf(mirror, len, "%s", DEBIAN_MIRROR);
    (void)snprintf(security, len, "%s", DEBIAN_SECURITY);
    if (child_output(&(struct child_opts){ .argv = targets, .stop = b->opts->stop },
                     DEBIAN_MAX_TEXT, &text, &ignored) == 0) {
        (void)debian_host_uri(text, "Debian", mirror, len);
        (void)debian_host_uri(text, "Debian-Security", security, len);
    }
    if (child_output(&(struct child_opts){ .argv = proxy, .stop = b->opts->stop }, DEBIAN_MAX_TEXT,
                     &config, &ignored) == 0 &&
        strncmp(config, "P='", 3) == 0) {
        (void)snprintf(b->proxy, sizeof(b->proxy), "http_proxy=%.*s",
                       (int)strcspn(config + 3, "'\n"), config + 3);
    }
}

/* The lines of sources.list, kept and written into a file of our folder. */
static int debian_sources(struct build *b, struct err *err)
{
    const char *suite = recipe_suite_of(b->recipe->suite);
    char path[STORE_PATH_MAX + 32];
    char mirror[512];
    char security[512];
    bool rolling = strcmp(suite, "sid") == 0 || strcmp(suite, "unstable") == 0;
    debian_ask_host(b, mirror, security, sizeof(mirror));
    if (b->opts->mirror != NULL || rolling) {
        (void)snprintf(b->sources, sizeof(b->sources), "deb %s %s main\n",
                       b->opts->mirror != NULL ? b->opts->mirror : mirror, suite);
    } else {
        (void)snprintf(b->sources, sizeof(b->sources),
                       "deb %s %s main\ndeb %s %s-updates main\ndeb %s %s-security main\n", mirror,
                       suite, mirror, suite, security, suite);
    }
    (void)snprintf(path, sizeof(path), "%s/sources.list", b->tmp.path);
    FILE *f = fopen(path, "we");
    bool ok = f != NULL && fputs(b->sources, f) >= 0;
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
    PHASE("I: running --customize-hook in shell: sh -c 'APT_CONFIG", "installing packages"),
    PHASE("I: cleaning apt cache", "keeping the base system"),
    PHASE("I: running --setup-hook in shell: sh -c 'tar ", "unpacking the base system"),
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
    CAUSE("Mirror sync in progress", "the mirror gave a file with a wrong hash"),
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

/* apt's answer to whether a base has the packages of today. */
#define DEBIAN_STALE "posada: the base has old packages"

static void debian_line(void *opaque, const char *line)
{
    struct build *b = opaque;
    b->stale = b->stale || strcmp(line, DEBIAN_STALE) == 0;
    debian_note_cause(b, line);
    for (size_t i = 0; i < ARRAY_LEN(debian_phases); i++) {
        if (strncmp(line, debian_phases[i].text, strlen(debian_phases[i].text)) == 0) {
            build_phase(b, debian_phases[i].phase);
        }
    }
}

int build_mmdebstrap(struct build *b, const char *const *args, const char *target,
                     const char *input, struct child **ret_child, struct err *err)
{
    bool i386 = strcmp(b->recipe->arch, "i386") == 0;
    char in[2 * STORE_PATH_MAX + 400];
    char out[2 * STORE_PATH_MAX + 400];
    char list[STORE_PATH_MAX + 32];
    char epoch[64];
    char tmpdir[STORE_PATH_MAX + 32];
    /* check/qemu would ask for the package arch-test: our processors run 32-bit programs. */
    const char *argv[32] = { "mmdebstrap", "--format=tar",
                             i386 ? "--architectures=i386,amd64" : "--architectures=amd64",
                             "--skip=check/qemu", "--dpkgopt=force-unsafe-io" };
    size_t n = 5;
    (void)snprintf(
        in, sizeof(in),
        "--setup-hook=cp -l '%s'/debs-in/. -r \"$1\"/var/cache/apt/archives 2>/dev/null || "
        "cp -r '%s'/debs-in/. \"$1\"/var/cache/apt/archives",
        b->tmp.path, b->tmp.path);
    (void)snprintf(out, sizeof(out),
                   "--customize-hook=cd \"$1\"/var/cache/apt/archives && for f in *.deb; do "
                   "test -e '%s/debs-in/'\"$f\" || test ! -e \"$f\" || cp \"$f\" '%s/debs-out/'; "
                   "done",
                   b->tmp.path, b->tmp.path);
    if (geteuid() != 0) {
        /* Hooks run as other users than we, who cannot reach our folder; these carry all packages
         * through tar, there and back. */
        (void)snprintf(in, sizeof(in), "--setup-hook=sync-in '%s/debs-in' /var/cache/apt/archives",
                       b->tmp.path);
        (void)snprintf(out, sizeof(out),
                       "--customize-hook=sync-out /var/cache/apt/archives '%s/debs-out'",
                       b->tmp.path);
    }
    (void)snprintf(list, sizeof(list), "%s/sources.list", b->tmp.path);
    (void)snprintf(epoch, sizeof(epoch), "SOURCE_DATE_EPOCH=%" PRId64, b->opts->epoch);
    /* Under root the work may be in our folder, where a later sweep finds what a kill left. */
    (void)snprintf(tmpdir, sizeof(tmpdir), "TMPDIR=%s", geteuid() == 0 ? b->tmp.path : "/tmp");
    for (const char *const *a = args; *a != NULL && n < ARRAY_LEN(argv) - 7; a++) {
        argv[n++] = *a;
    }
    const char *last[] = { "--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives",
                           in,
                           out,
                           recipe_suite_of(b->recipe->suite),
                           target,
                           list };
    for (size_t i = 0; i < ARRAY_LEN(last); i++) {
        argv[n++] = last[i];
    }
    const char *env[] = { epoch, tmpdir, b->proxy[0] != '\0' ? b->proxy : NULL, NULL };
    struct child_opts o = { .argv = argv,
                            .env = env,
                            .input = input,
                            .private_mounts = geteuid() == 0,
                            .package = "mmdebstrap",
                            .stop = b->opts->stop,
                            .line = debian_line,
                            .tick = debian_tick,
                            .opaque = b };
    return child_start(&o, ret_child, err);
}

int build_mmdebstrap_end(struct build *b, struct child *take_child, int rc, struct err *err)
{
    rc = build_child_end(take_child, rc, err);
    return rc < 0 && rc != -EINTR && rc != -ENOSPC ? debian_explain(b, err) : rc;
}

/* The image's own part: on top of the base, in a fresh copy of it. */
static int debian_system(struct build *b, struct rootfs *fs, struct err *err)
{
    char overlay[STORE_PATH_MAX + 400];
    char install[8192];
    struct child *child = NULL;
    const char *args[] = {
        "--variant=custom",
        "--setup-hook=tar --extract --numeric-owner --xattrs --xattrs-include='*' "
        "--exclude='./dev/*' --directory=\"$1\"",
        "--customize-hook=if APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get -qq --simulate "
        "dist-upgrade | grep -qE '^(Inst|Remv) '; then echo '" DEBIAN_STALE "' >&2; exit 1; fi",
        "--customize-hook=r=\"$1\"/run/systemd/resolve; mkdir -p \"$r\" && "
        "cp /etc/resolv.conf \"$r\"/stub-resolv.conf",
        install,
        overlay,
        "--customize-hook=chroot \"$1\" /bin/sh /posada-setup",
        NULL,
    };
    /* None: an option that is there anyway. */
    (void)snprintf(install, sizeof(install), "--format=tar");
    if (b->packages[0] != '\0') {
        (void)snprintf(install, sizeof(install),
                       "--customize-hook=APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" "
                       "apt-get --yes -o Dir::Bin::dpkg=env -o DPkg::Options::=--unset=TMPDIR "
                       "-o DPkg::Options::=dpkg -o DPkg::Chroot-Directory=\"$1\" install %s",
                       b->packages);
    }
    (void)snprintf(overlay, sizeof(overlay), "--customize-hook=tar-in '%s/overlay.tar' /",
                   b->tmp.path);
    int rc = build_mmdebstrap(b, args, "-", b->base, &child, err);
    if (rc < 0) {
        return rc;
    }
    rc = build_fill(b, child, NULL, fs, err);
    return build_mmdebstrap_end(b, child, rc, err);
}

int build_debian(struct build *b, const struct tarball_files *early, struct rootfs *fs,
                 struct err *err)
{
    char path[STORE_PATH_MAX + 32];
    if (strlen(b->packages) > 3500) {
        return err_set(err, -E2BIG, "the recipe has too many packages");
    }
    build_phase(b, "preparing");
    int rc = debian_sources(b, err);
    (void)snprintf(path, sizeof(path), "%s/overlay.tar", b->tmp.path);
    rc = rc < 0 ? rc : tarball_files_tar(early, b->opts->epoch, path, err);
    (void)snprintf(path, sizeof(path), "%s/debs-out", b->tmp.path);
    if (rc == 0 && mkdir(path, 0755) < 0) {
        rc = err_set_errno(err, -errno, "cannot make the folder '%s'", path);
    }
    (void)snprintf(path, sizeof(path), "%s/debs-in", b->tmp.path);
    rc = rc < 0 ? rc : debian_cache_out(b, path, err);
    rc = rc < 0 ? rc : build_base(b, err);
    rc = rc < 0 ? rc : debian_system(b, fs, err);
    if (rc < 0 && b->stale) {
        err_clear(err);
        build_base_drop(b);
        rc = build_base(b, err);
        rc = rc < 0 ? rc : debian_system(b, fs, err);
    }
    if (rc == 0) {
        (void)snprintf(path, sizeof(path), "%s/debs-out", b->tmp.path);
        debian_cache_in(b, path);
    }
    return rc;
}
