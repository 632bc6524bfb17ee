/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Creating images. A new image is written under a temporary name beside its place and gets its name
 * by rename(2) when all of it is on the disk: under the final name there is never half an image,
 * whatever happens. After a kill -9 "NAME.posada-partial-PID" is left and can be deleted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/blk_int.h"

static bool is_device(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

/* Where the image is written; allocated. */
static char *work_path(const struct blk_create_opts *opts)
{
    char *path = NULL;
    if (is_device(opts->path)) {
        return strdup(opts->path);
    }
    return asprintf(&path, "%s.posada-partial-%d", opts->path, (int)getpid()) < 0 ? NULL : path;
}

/* May opts->path be (over)written? An image that somebody has open may not, even with `force`. */
static int check_target(const struct blk_create_opts *opts, struct err *err)
{
    struct stat st;
    if (stat(opts->path, &st) < 0) {
        return 0; /* what is wrong with the directory shows when the file is created */
    }
    if (S_ISREG(st.st_mode) && !opts->force) {
        return err_set(err, -EEXIST, "exists already; --force replaces it");
    }
    if (S_ISBLK(st.st_mode) && !opts->force) {
        return err_set(err, -EEXIST, "is a device; --force overwrites what is on it");
    }
    struct blk *old = NULL;
    struct blk_opts probe = { .path = opts->path };
    int rc = blk_open_file(&probe, NULL, 0, &old, err);
    blk_close(old);
    return rc;
}

/* The backing file must be there and usable now: an image over nothing helps nobody. */
static int backing_size(const struct blk_create_opts *opts, uint64_t *ret_size, struct err *err)
{
    if (opts->backing_format == NULL) {
        return err_set(err, -EINVAL,
                       "backing file '%s': its format must be given, it is never guessed",
                       opts->backing);
    }
    const char *slash = strrchr(opts->path, '/');
    int dir_len = slash == NULL || opts->backing[0] == '/' ? 0 : (int)(slash + 1 - opts->path);
    CLEANUP_FREE char *path = NULL;
    if (asprintf(&path, "%.*s%s", dir_len, opts->path, opts->backing) < 0) {
        path = NULL;
        return err_set(err, -ENOMEM, "out of memory");
    }
    struct blk_opts below = {
        .path = path,
        .format = opts->backing_format,
        .read_only = true,
        .no_backing = true,
    };
    struct blk *blk = NULL;
    int rc = blk_open_chain(&below, NULL, 0, &blk, err);
    if (rc < 0) {
        return err_prefix(err, "backing file '%s': ", path);
    }
    *ret_size = blk_size(blk);
    blk_close(blk);
    return 0;
}

static int settle_size(const struct blk_create_opts *opts, uint64_t *size, struct err *err)
{
    if (opts->backing != NULL) {
        uint64_t below = 0;
        int rc = backing_size(opts, &below, err);
        if (rc < 0) {
            return rc;
        }
        *size = *size == 0 ? below : *size;
    }
    if (*size == 0 || *size > BLK_MAX_SIZE) {
        return err_set(err, -EINVAL, "size %llu is not between 1 and 2^62 bytes",
                       (unsigned long long)*size);
    }
    return 0;
}

static int begin(const struct blk_create_opts *opts, const struct blk_class *cls, const char *work,
                 struct blk **ret_blk, struct err *err)
{
    struct blk_opts work_opts = { .path = work, .format = opts->format, .no_backing = true };
    struct blk *file = NULL;
    bool device = is_device(opts->path);
    int rc = blk_open_file(&work_opts, NULL, device ? 0 : BLK_OPEN_CREATE, &file, err);
    if (rc < 0) {
        return rc == -EEXIST ? err_set(err, rc, "temporary file '%s' exists already", work) : rc;
    }
    rc = cls->create(file, opts, err);
    if (rc < 0) {
        blk_close(file);
    } else {
        rc = blk_node_new(cls, &work_opts, NULL, file, NULL, BLK_OPEN_CREATE, ret_blk, err);
    }
    if (rc < 0 && !device) {
        (void)unlink(work); /* it is ours; nothing more can be done if that fails */
    }
    return rc;
}

int blk_create_begin(const struct blk_create_opts *opts, struct blk **ret_blk, struct err *err)
{
    struct blk_create_opts settled = *opts;
    const struct blk_class *cls = blk_class_find(BLK_KIND_FORMAT, opts->format);
    CLEANUP_FREE char *work = work_path(opts);
    int rc = 0;
    if (cls != NULL && cls->create == NULL) {
        return err_set(err, -ENOTSUP, "image '%s': images of format %s can only be read",
                       opts->path, opts->format);
    }
    if (cls == NULL) {
        char names[128];
        blk_format_names(names, sizeof(names));
        return err_set(err, -EINVAL, "unknown format '%s' (there are: %s)", opts->format, names);
    }
    if (work == NULL) {
        rc = err_set(err, -ENOMEM, "out of memory");
    }
    if (rc == 0) {
        rc = check_target(opts, err);
    }
    if (rc == 0) {
        rc = settle_size(opts, &settled.size, err);
    }
    if (rc == 0) {
        rc = begin(&settled, cls, work, ret_blk, err);
    }
    return rc < 0 ? err_prefix(err, "image '%s': ", opts->path) : 0;
}

int blk_create_begin_file(const struct blk_create_opts *opts, struct blk **ret_file,
                          struct err *err)
{
    CLEANUP_FREE char *work = work_path(opts);
    struct blk_opts work_opts = { .path = work };
    if (work == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = check_target(opts, err);
    if (rc == 0) {
        rc = blk_open_file(&work_opts, NULL, is_device(opts->path) ? 0 : BLK_OPEN_CREATE, ret_file,
                           err);
    }
    return rc < 0 ? err_prefix(err, "image '%s': ", opts->path) : 0;
}

/* Makes the new name durable; the file itself is. */
static int sync_dir(const char *path)
{
    CLEANUP_FREE char *copy = strdup(path);
    if (copy == NULL) {
        return -ENOMEM;
    }
    char *slash = strrchr(copy, '/');
    const char *dir = slash == NULL ? "." : slash == copy ? "/" : copy;
    if (slash != NULL && slash != copy) {
        *slash = '\0';
    }
    CLEANUP_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int give_name(const struct blk_create_opts *opts, const char *work)
{
    int rc = renameat2(AT_FDCWD, work, AT_FDCWD, opts->path, opts->force ? 0 : RENAME_NOREPLACE);
    if (rc < 0 && errno == EINVAL && !opts->force) {
        /* A file system without that flag: a link does not replace, either. */
        rc = link(work, opts->path);
        if (rc == 0) {
            (void)unlink(work); /* a second name of a good image, no loss */
        }
    }
    return rc < 0 ? -errno : 0;
}

int blk_create_commit(const struct blk_create_opts *opts, struct blk *take_blk, struct err *err)
{
    CLEANUP_FREE char *work = work_path(opts);
    int rc = work == NULL ? -ENOMEM : blk_flush(take_blk);
    blk_close(take_blk);
    if (rc == 0 && !is_device(opts->path)) {
        rc = give_name(opts, work);
        if (rc == 0) {
            rc = sync_dir(opts->path);
        }
    }
    if (rc == 0) {
        return 0;
    }
    if (work != NULL && !is_device(opts->path)) {
        (void)unlink(work); /* gone already if the rename happened */
    }
    return err_set_errno(err, rc, "image '%s': cannot complete the new image", opts->path);
}

void blk_create_abort(const struct blk_create_opts *opts, struct blk *take_blk)
{
    CLEANUP_FREE char *work = work_path(opts);
    blk_close(take_blk);
    if (work != NULL && !is_device(opts->path)) {
        (void)unlink(work); /* nothing more can be done if that fails */
    }
}

int blk_create(const struct blk_create_opts *opts, struct err *err)
{
    struct blk *blk = NULL;
    int rc = blk_create_begin(opts, &blk, err);
    return rc < 0 ? rc : blk_create_commit(opts, blk, err);
}
