/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/tarball.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define TARBALL_READ_SIZE   262144
#define TARBALL_MAX_XATTR   4096
#define TARBALL_MAX_ENTRIES 4000000

/* ---- Files of our own ---- */

void tarball_files_add(struct tarball_files *f, const char *path, mode_t mode, const void *data,
                       size_t len)
{
    struct tarball_file *file = NULL;
    while (*path == '/') {
        path++;
    }
    for (size_t i = 0; i < f->count && file == NULL; i++) {
        if (strcmp(f->file[i].path, path) == 0) {
            file = &f->file[i];
            free(file->path);
            free(file->data);
        }
    }
    if (file == NULL) {
        f->file = realloc(f->file, (f->count + 1) * sizeof(*f->file));
        if (f->file == NULL) {
            abort();
        }
        file = &f->file[f->count++];
    }
    *file = (struct tarball_file){
        .path = strdup(path), .mode = mode, .data = malloc(len + 1), .len = len
    };
    if (file->path == NULL || file->data == NULL) {
        abort();
    }
    memcpy(file->data, data, len);
    file->data[len] = '\0';
}

void tarball_files_print(struct tarball_files *f, const char *path, mode_t mode, const char *fmt,
                         ...)
{
    CLEANUP_FREE char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        abort();
    }
    tarball_files_add(f, path, S_IFREG | mode, text, (size_t)n);
}

void tarball_files_link(struct tarball_files *f, const char *path, const char *target)
{
    tarball_files_add(f, path, S_IFLNK | 0777, target, strlen(target));
}

void tarball_files_done(struct tarball_files *f)
{
    for (size_t i = 0; i < f->count; i++) {
        free(f->file[i].path);
        free(f->file[i].data);
    }
    free(f->file);
    *f = (struct tarball_files){ 0 };
}

int tarball_files_tar(const struct tarball_files *f, int64_t epoch, const char *path,
                      struct err *err)
{
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    if (a == NULL || e == NULL) {
        abort();
    }
    int rc = archive_write_set_format_pax_restricted(a);
    rc = rc == ARCHIVE_OK ? archive_write_open_filename(a, path) : rc;
    for (size_t i = 0; i < f->count && rc == ARCHIVE_OK; i++) {
        const struct tarball_file *file = &f->file[i];
        archive_entry_clear(e);
        archive_entry_set_pathname(e, file->path);
        archive_entry_set_mode(e, file->mode);
        archive_entry_set_mtime(e, epoch, 0);
        if (S_ISLNK(file->mode)) {
            archive_entry_set_symlink(e, file->data);
        } else {
            archive_entry_set_size(e, (int64_t)file->len);
        }
        rc = archive_write_header(a, e);
        if (rc == ARCHIVE_OK && S_ISREG(file->mode) &&
            archive_write_data(a, file->data, file->len) != (ssize_t)file->len) {
            rc = ARCHIVE_FATAL;
        }
    }
    rc = rc == ARCHIVE_OK ? archive_write_close(a) : rc;
    if (rc != ARCHIVE_OK) {
        (void)err_set(err, archive_errno(a) > 0 ? -archive_errno(a) : -EIO, "cannot write '%s': %s",
                      path, archive_error_string(a));
    }
    archive_entry_free(e);
    archive_write_free(a);
    return rc == ARCHIVE_OK ? 0 : err->code;
}

struct tarball_mem {
    const char *data;
    size_t left;
};

static ssize_t tarball_mem_read(void *opaque, void *buf, size_t len, struct err *err)
{
    struct tarball_mem *m = opaque;
    size_t n = MIN(len, m->left);
    (void)err;
    memcpy(buf, m->data, n);
    m->data += n;
    m->left -= n;
    return (ssize_t)n;
}

int tarball_files_fill(const struct tarball_files *f, int64_t epoch, struct rootfs *fs,
                       struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < f->count && rc == 0; i++) {
        const struct tarball_file *file = &f->file[i];
        struct tarball_mem mem = { file->data, file->len };
        struct rootfs_entry e = {
            .path = file->path,
            .mode = file->mode,
            .mtime = epoch,
            .target = S_ISLNK(file->mode) ? file->data : NULL,
        };
        rc = rootfs_add(fs, &e, S_ISREG(file->mode) ? tarball_mem_read : NULL, &mem, err);
    }
    return rc;
}

/* ---- Sources ---- */

struct tarball_job {
    const struct tarball_source *src;
    struct archive *a;
    char buf[TARBALL_READ_SIZE];
    struct err err; /* of the child, behind libarchive's back */
    uint64_t bytes;
};

static ssize_t tarball_child_read(struct archive *a, void *opaque, const void **buf)
{
    struct tarball_job *job = opaque;
    ssize_t n = child_read(job->src->child, job->buf, sizeof(job->buf), &job->err);
    *buf = job->buf;
    if (n < 0) {
        archive_set_error(a, (int)-n, "%s", job->err.msg);
        return ARCHIVE_FATAL;
    }
    return n;
}

static int tarball_fail(struct tarball_job *job, struct err *err)
{
    if (job->err.code != 0) {
        *err = job->err;
        return err->code;
    }
    return err_set(err, -EINVAL, "the archive cannot be read: %s", archive_error_string(job->a));
}

static ssize_t tarball_data(void *opaque, void *buf, size_t len, struct err *err)
{
    struct tarball_job *job = opaque;
    ssize_t n = archive_read_data(job->a, buf, len);
    if (n < 0) {
        return tarball_fail(job, err);
    }
    job->bytes += (uint64_t)n;
    return n;
}

static int tarball_xattrs(struct archive_entry *e, struct rootfs *fs, struct err *err)
{
    const char *name;
    const void *value;
    size_t len;
    int rc = 0;
    (void)archive_entry_xattr_reset(e);
    while (rc == 0 && archive_entry_xattr_next(e, &name, &value, &len) == ARCHIVE_OK) {
        if ((strncmp(name, "security.capability", 19) == 0 || strncmp(name, "user.", 5) == 0) &&
            len <= TARBALL_MAX_XATTR) {
            rc = rootfs_set_xattr(fs, name, value, len, err);
        }
    }
    return rc;
}

/* "./usr/bin/" becomes "usr/bin". False: a path that leaves the root. */
static bool tarball_clean(const char *path, char *buf, size_t size)
{
    size_t n = 0;
    while (*path != '\0') {
        size_t len = strcspn(path, "/");
        if (len == 2 && strncmp(path, "..", 2) == 0) {
            return false;
        }
        if (len > 0 && !(len == 1 && path[0] == '.')) {
            if (n + len + 2 > size) {
                return false;
            }
            n += (size_t)snprintf(buf + n, size - n, "%s%.*s", n > 0 ? "/" : "", (int)len, path);
        }
        path += len + (path[len] == '/');
    }
    buf[n] = '\0';
    return true;
}

static int tarball_entry_fill(struct tarball_job *job, struct archive_entry *e, struct rootfs *fs,
                              struct err *err)
{
    char path[4096];
    char hardlink[4096];
    const char *raw = archive_entry_pathname(e);
    const char *other = archive_entry_hardlink(e);
    mode_t mode = archive_entry_mode(e);
    if (raw == NULL || !tarball_clean(raw, path, sizeof(path)) ||
        (other != NULL && !tarball_clean(other, hardlink, sizeof(hardlink)))) {
        return err_set(err, -EINVAL, "the archive has an entry outside of its root");
    }
    mode = other != NULL ? S_IFREG : mode;
    if (!(S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode)) ||
        (job->src->skip != NULL && job->src->skip(job->src->opaque, path))) {
        return 0;
    }
    struct rootfs_entry entry = {
        .path = path,
        .mode = mode,
        .uid = (uint32_t)archive_entry_uid(e),
        .gid = (uint32_t)archive_entry_gid(e),
        .mtime = MIN((int64_t)archive_entry_mtime(e), job->src->epoch),
        .target = S_ISLNK(mode) ? archive_entry_symlink(e) : NULL,
        .hardlink = other != NULL ? hardlink : NULL,
    };
    if (S_ISLNK(mode) && entry.target == NULL) {
        return err_set(err, -EINVAL, "'%s': a link without a target", path);
    }
    int rc = rootfs_add(fs, &entry, S_ISREG(mode) && other == NULL ? tarball_data : NULL, job, err);
    if (rc == -EEXIST) { /* a file of ours that was put there first */
        err_clear(err);
        return 0;
    }
    return rc == 0 && other == NULL ? tarball_xattrs(e, fs, err) : rc;
}

static int tarball_walk(struct tarball_job *job, struct rootfs *fs, struct err *err)
{
    struct archive_entry *e = archive_entry_new();
    if (e == NULL) {
        abort();
    }
    int rc = 0;
    int got = ARCHIVE_OK;
    for (unsigned n = 0; rc == 0; n++) {
        got = archive_read_next_header2(job->a, e);
        if (got == ARCHIVE_EOF) {
            break;
        }
        if ((got != ARCHIVE_OK && got != ARCHIVE_WARN) || n == TARBALL_MAX_ENTRIES) {
            rc = tarball_fail(job, err);
            break;
        }
        rc = tarball_entry_fill(job, e, fs, err);
        rc = rc < 0 ? rc : child_stop_check(job->src->stop, err);
        if (job->src->step != NULL) {
            job->src->step(job->src->opaque, job->bytes);
        }
    }
    archive_entry_free(e);
    return rc;
}

int tarball_fill(const struct tarball_source *src, struct rootfs *fs, struct err *err)
{
    struct tarball_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    job->src = src;
    job->a = archive_read_new();
    if (job->a == NULL) {
        abort();
    }
    (void)archive_read_support_filter_all(job->a);
    (void)archive_read_support_format_tar(job->a);
    int opened = src->tar != NULL ? archive_read_open_filename(job->a, src->tar, TARBALL_READ_SIZE)
                                  : archive_read_open(job->a, job, NULL, tarball_child_read, NULL);
    int rc = opened == ARCHIVE_OK ? tarball_walk(job, fs, err) : tarball_fail(job, err);
    archive_read_free(job->a);
    free(job);
    return rc;
}
