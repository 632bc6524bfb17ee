/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The base: what every image of a suite and architecture consists of, installed once and kept in
 * the store as a tar archive, STORE/bases/KEY_DIGEST.tar.
 *
 * KEY is the digest of all that decides what is in it but for the packages' versions. Whether those
 * are still the newest is for who uses it to ask (build_debian.c), once apt has the lists of today;
 * the lists of the base's day are in it, so that apt fetches what has changed since. DIGEST is that
 * of the file, checked each time it is used.
 *
 * A base is made in the build's own folder and gets its name in one step; who uses it has a link of
 * his own, so others may remove it meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/build_int.h"
#include "image/store_int.h"

/* No manual pages, translations and documentation. As options of dpkg these rules would put a
 * filter in Python behind each package of the base system, so they come once that is unpacked. */
static const char base_exclude[] =
    "--extract-hook=d=\"$1\"/usr/share; "
    "printf 'path-exclude=/usr/share/%s/*\\n' doc man locale info "
    ">\"$1\"/etc/dpkg/dpkg.cfg.d/posada && "
    "echo 'path-include=/usr/share/doc/*/copyright' >>\"$1\"/etc/dpkg/dpkg.cfg.d/posada && "
    "rm -rf \"$d\"/man/* \"$d\"/locale/* \"$d\"/info/* && "
    "find \"$d\"/doc ! -type d ! -name copyright -delete && "
    "find \"$d\"/doc -mindepth 1 -type d -empty -delete";

static int base_key(const struct build *b, char key[DIGEST_HEX + 1], struct err *err)
{
    struct digest *d = NULL;
    uint8_t raw[DIGEST_BYTES];
    char epoch[32];
    int rc = digest_new(&d, err);
    if (rc < 0) {
        return rc;
    }
    (void)snprintf(epoch, sizeof(epoch), "%lld", (long long)b->opts->epoch);
    digest_add_text(d, "posada base 1");
    digest_add_text(d, recipe_suite_of(b->recipe->suite));
    digest_add_text(d, b->recipe->arch);
    digest_add_text(d, b->base_packages);
    digest_add_text(d, b->sources);
    digest_add_text(d, epoch);
    digest_add_text(d, base_exclude);
    digest_end(d, raw);
    digest_free(d);
    digest_hex(raw, key);
    return 0;
}

/* The first base of that key into `path`, with its digest. */
static bool base_find(const struct build *b, const char *key, char path[STORE_PATH_MAX],
                      char digest[DIGEST_HEX + 1])
{
    char **names = store_names(store_path(b->store, path, "bases"));
    bool found = false;
    for (char **n = names; *n != NULL && !found; n++) {
        found = strlen(*n) == 2 * DIGEST_HEX + 5 && strncmp(*n, key, DIGEST_HEX) == 0;
        if (found) {
            (void)snprintf(digest, DIGEST_HEX + 1, "%s", *n + DIGEST_HEX + 1);
            store_path(b->store, path, "bases/%s", *n);
        }
    }
    store_names_free(names);
    return found;
}

void build_base_drop(struct build *b)
{
    char key[DIGEST_HEX + 1];
    char path[STORE_PATH_MAX];
    char digest[DIGEST_HEX + 1];
    struct err ignored = ERR_INIT;
    if (base_key(b, key, &ignored) == 0) {
        while (base_find(b, key, path, digest) && unlink(path) == 0) {
        }
    }
    (void)unlink(b->base);
}

/* Our link to a base that is there and whole. */
static bool base_take(const struct build *b, const char *key)
{
    char path[STORE_PATH_MAX];
    char digest[DIGEST_HEX + 1];
    char found[DIGEST_HEX + 1];
    struct err ignored = ERR_INIT;
    if (!base_find(b, key, path, digest) || link(path, b->base) < 0) {
        return false;
    }
    build_phase(b, "checking the base system");
    if (digest_file(b->base, found, &ignored) == 0 && strcmp(found, digest) == 0) {
        return true;
    }
    (void)unlink(path);
    (void)unlink(b->base);
    return false;
}

/* Gives it its name. Only a cache: where that fails, the next build makes its own. */
static void base_keep(struct build *b, const char *key)
{
    char path[STORE_PATH_MAX];
    char digest[DIGEST_HEX + 1];
    struct err ignored = ERR_INIT;
    build_phase(b, "keeping the base system");
    if (digest_file(b->base, digest, &ignored) < 0) {
        return;
    }
    (void)store_path(b->store, path, "bases/%s_%s.tar", key, digest);
    if (link(b->base, path) < 0 && errno != EEXIST) {
        log_info("image", "the base system is not kept", "path='%s' errno='%d'", path, errno);
    }
}

int build_base(struct build *b, struct err *err)
{
    char key[DIGEST_HEX + 1];
    char include[8192];
    char ask[8192];
    const char *args[] = { "--variant=minbase",
                           include,
                           ask,
                           base_exclude,
                           "--skip=essential/unlink,cleanup/apt/lists",
                           NULL };
    struct child *child = NULL;
    (void)snprintf(b->base, sizeof(b->base), "%s/base.tar", b->tmp.path);
    int rc = base_key(b, key, err);
    if (rc < 0 || base_take(b, key)) {
        return rc;
    }
    (void)snprintf(include, sizeof(include), "--include=%s", b->base_packages);
    /* Asks apt, once it has the lists, whether it can install the recipe's own packages: the answer
     * would come minutes later otherwise. None: an option that is there anyway. */
    (void)snprintf(ask, sizeof(ask), "--format=tar");
    if (b->packages[0] != '\0') {
        (void)snprintf(ask, sizeof(ask),
                       "--extract-hook=APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" "
                       "apt-get -qq --simulate --no-install-recommends install %s >/dev/null",
                       b->packages);
    }
    rc = build_mmdebstrap(b, args, b->base, NULL, &child, err);
    rc = rc < 0 ? rc : build_mmdebstrap_end(b, child, 0, err);
    if (rc == 0) {
        base_keep(b, key);
    }
    return rc;
}
