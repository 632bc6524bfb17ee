/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which files an image may name (reliability S13).
 *
 * The header of an image is hostile: whoever could write to the image chose the names in it. A
 * backing file is opened only when
 *   1. its format is recorded too (a guessed format would let a guest turn its raw disk into an
 *      image that names more files);
 *   2. the name is a plain path: nothing before a ':' that could be a protocol ("nbd:", "json:");
 *   3. its canonical path, all symbolic links and ".." resolved, lies in the directory of the
 *      topmost image (or blk_opts.backing_dir) and is a regular file, or is exactly one of the
 *      canonical paths of blk_opts.backing_allow;
 *   4. the chain stays under BLK_MAX_CHAIN and meets no file twice.
 * It is opened read-only, by the canonical path with RESOLVE_NO_SYMLINKS (openat2(2)), so that a
 * link swapped in after the check makes the open fail instead of leading elsewhere.
 *
 * A relative name starts at the directory of the image that holds it.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "block/blk_int.h"

/* Room for a name in a message. */
#define PRINTABLE_MAX 256

/* The directory part of `path`, allocated; NULL on no memory. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return strdup(".");
    }
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static bool is_inside(const char *dir, const char *path)
{
    size_t len = strlen(dir);
    if (len == 1) { /* "/" */
        return true;
    }
    return strncmp(dir, path, len) == 0 && path[len] == '/';
}

static bool is_allowed(const struct blk_opts *opts, const char *canonical)
{
    for (size_t i = 0; opts->backing_allow != NULL && opts->backing_allow[i] != NULL; i++) {
        CLEANUP_FREE char *entry = realpath(opts->backing_allow[i], NULL);
        if (entry != NULL && strcmp(entry, canonical) == 0) {
            return true;
        }
    }
    return false;
}

/* Rules 1 and 2. */
static int check_name(const char *name, const char *format, struct err *err)
{
    char printable[PRINTABLE_MAX];
    blk_printable(name, printable, sizeof(printable));
    const char *colon = strchr(name, ':');
    const char *slash = strchrnul(name, '/');
    if (name[0] == '\0') {
        return err_set(err, -EINVAL, "the backing file name is empty");
    }
    if (colon != NULL && colon < slash) {
        return err_set(err, -EACCES,
                       "backing file '%s' refused: '%.*s' names a protocol, only plain files are "
                       "followed (a file of that name can be written './NAME')",
                       printable, (int)MIN(colon - name + 1, 32), printable);
    }
    if (format == NULL || format[0] == '\0') {
        return err_set(err, -EACCES,
                       "backing file '%s' refused: the image does not record its format, and "
                       "formats are never guessed; record it with 'qemu-img rebase -u -F FORMAT "
                       "-b NAME IMAGE'",
                       printable);
    }
    if (strlen(name) >= PATH_MAX) {
        return err_set(err, -ENAMETOOLONG, "the backing file name is longer than %d bytes",
                       PATH_MAX - 1);
    }
    return 0;
}

/* Rule 3: the canonical path of `name`, seen from `blk`; allocated. */
static int resolve(const struct blk *blk, const char *root, const char *name,
                   const struct blk_opts *opts, char **ret_path, struct err *err)
{
    char printable[PRINTABLE_MAX];
    blk_printable(name, printable, sizeof(printable));
    CLEANUP_FREE char *dir = dir_of(blk->path);
    CLEANUP_FREE char *joined = NULL;
    if (dir == NULL || asprintf(&joined, "%s%s%s", name[0] == '/' ? "" : dir,
                                name[0] == '/' ? "" : "/", name) < 0) {
        joined = NULL;
        return err_set(err, -ENOMEM, "out of memory");
    }
    CLEANUP_FREE char *canonical = realpath(joined, NULL);
    if (canonical == NULL) {
        int code = -errno;
        return err_set_errno(err, code, "backing file '%s'", printable);
    }
    if (!is_allowed(opts, canonical)) {
        struct stat st;
        if (!is_inside(root, canonical)) {
            return err_set(err, -EACCES,
                           "backing file '%s' refused: it lies outside '%s'; if the name is "
                           "right, allow this file explicitly",
                           printable, root);
        }
        if (stat(canonical, &st) < 0 || !S_ISREG(st.st_mode)) {
            return err_set(err, -EACCES,
                           "backing file '%s' refused: not a regular file; if the name is right, "
                           "allow it explicitly",
                           printable);
        }
    }
    *ret_path = take_ptr(&canonical);
    return 0;
}

/* The topmost image's directory, canonical. Deeper images get it as opts->backing_dir. */
static int find_root(const struct blk *blk, const struct blk_opts *opts, char **ret_root,
                     struct err *err)
{
    CLEANUP_FREE char *dir =
        opts->backing_dir != NULL ? strdup(opts->backing_dir) : dir_of(blk->path);
    if (dir == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    *ret_root = realpath(dir, NULL);
    if (*ret_root == NULL) {
        int code = -errno;
        return err_set_errno(err, code, "directory '%s' for backing files", dir);
    }
    return 0;
}

/* Rule 4, before the open: how deep is a backing node of `blk`? */
static int check_depth(const struct blk *blk, struct err *err)
{
    int depth = 1;
    for (const struct blk *up = blk; up != NULL; up = up->overlay) {
        depth++;
    }
    if (depth > BLK_MAX_CHAIN) {
        return err_set(err, -ELOOP, "the backing chain is longer than %d images", BLK_MAX_CHAIN);
    }
    return 0;
}

/* Rule 4, in prot_file's place of knowledge: is this the file of an image above? */
static int check_loop(const struct blk *blk, const char *canonical, struct err *err)
{
    struct stat st;
    if (stat(canonical, &st) < 0) {
        int code = -errno;
        return err_set_errno(err, code, "backing file '%s'", canonical);
    }
    for (const struct blk *up = blk; up != NULL; up = up->overlay) {
        if (up->dev == st.st_dev && up->ino == st.st_ino) {
            return err_set(err, -ELOOP, "backing file '%s' refused: the chain is a loop",
                           canonical);
        }
    }
    return 0;
}

int blk_backing_open(struct blk *blk, const struct blk_opts *opts, const char *name,
                     const char *format, struct err *err)
{
    CLEANUP_FREE char *root = NULL;
    CLEANUP_FREE char *path = NULL;
    int rc = check_name(name, format, err);
    if (rc == 0) {
        rc = check_depth(blk, err);
    }
    if (rc == 0) {
        rc = find_root(blk, opts, &root, err);
    }
    if (rc == 0) {
        rc = resolve(blk, root, name, opts, &path, err);
    }
    if (rc == 0) {
        rc = check_loop(blk, path, err);
    }
    if (rc < 0) {
        return rc;
    }
    struct blk_opts below = {
        .path = path,
        .format = format,
        .read_only = true,
        .cache = opts->cache,
        .backing_dir = root,
        .backing_allow = opts->backing_allow,
    };
    rc = blk_open_chain(&below, blk, BLK_OPEN_BENEATH, &blk->backing, err);
    if (rc < 0) {
        char printable[PRINTABLE_MAX];
        return err_prefix(err,
                          "backing file '%s': ", blk_printable(path, printable, sizeof(printable)));
    }
    return 0;
}

int blk_extent_open(struct blk *blk, const struct blk_opts *opts, const char *name,
                    struct blk **ret_node, struct err *err)
{
    CLEANUP_FREE char *root = NULL;
    CLEANUP_FREE char *path = NULL;
    int rc = check_name(name, "raw", err); /* the descriptor says what it is */
    if (rc == 0) {
        rc = find_root(blk, opts, &root, err);
    }
    if (rc == 0) {
        rc = resolve(blk, root, name, opts, &path, err);
    }
    if (rc == 0) {
        rc = check_loop(blk, path, err);
    }
    if (rc < 0) {
        return rc;
    }
    struct blk_opts below = { .path = path, .read_only = true, .cache = opts->cache };
    return blk_open_file(&below, NULL, BLK_OPEN_BENEATH, ret_node, err);
}

int blk_backing_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov)
{
    uint64_t len = blk_iov_len(iov, niov);
    uint64_t size = blk->backing == NULL ? 0 : blk_size(blk->backing);
    uint64_t inside = offset >= size ? 0 : MIN(len, size - offset);
    if (inside == len) {
        return len == 0 ? 0 : blk_preadv(blk->backing, offset, iov, niov);
    }
    blk_iov_zero(iov, niov, inside, len - inside);
    if (inside == 0) {
        return 0;
    }
    CLEANUP_FREE struct iovec *part = calloc((size_t)niov, sizeof(*part));
    if (part == NULL) {
        return -ENOMEM;
    }
    int n = blk_iov_slice(part, iov, niov, 0, inside);
    return blk_preadv(blk->backing, offset, part, n);
}

int blk_data_file_open(struct blk *blk, const struct blk_opts *opts, struct blk **ret_node,
                       struct err *err)
{
    if (opts->data_file == NULL) {
        return err_set(err, -EACCES,
                       "the image keeps its data in another file; the name in the image is not "
                       "followed, name the file explicitly");
    }
    struct blk_opts data = {
        .path = opts->data_file,
        .read_only = blk->read_only,
        .cache = opts->cache,
    };
    int rc = blk_open_file(&data, NULL, 0, ret_node, err);
    return rc < 0 ? err_prefix(err, "data file '%s': ", opts->data_file) : 0;
}
