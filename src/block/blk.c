/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes: building and tearing down, and the checked synchronous functions that all I/O on them
 * passes through. The rules for backing files are in blk_backing.c, queues in blk_queue.c.
 */
#include "block/blk.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/blk_int.h"

/* What a fallback writes at a time. */
#define ZERO_CHUNK (256 * KIB)

static const struct blk_class *const classes[] = {
#define BLK_CLASS(name) &name,
#include "block/blk_classes.def"
#undef BLK_CLASS
};

const struct blk_class *blk_class_find(enum blk_kind kind, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
        if (classes[i]->kind == kind && strcmp(classes[i]->name, name) == 0) {
            return classes[i];
        }
    }
    return NULL;
}

void blk_format_names(char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(classes) && used < size; i++) {
        if (classes[i]->kind == BLK_KIND_FORMAT) {
            used += (size_t)snprintf(buf + used, size - used, "%s%s", used > 0 ? ", " : "",
                                     classes[i]->name);
        }
    }
}

const char *blk_format_of_name(const char *path)
{
    size_t len = strlen(path);
    for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
        const char *suffix = classes[i]->suffix;
        size_t n = suffix == NULL ? 0 : strlen(suffix);
        if (n > 0 && len > n && strcmp(path + len - n, suffix) == 0) {
            return classes[i]->name;
        }
    }
    return "raw";
}

const char *blk_printable(const char *text, char *buf, size_t size)
{
    size_t used = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && used + 5 < size; p++) {
        if (*p >= 0x20 && *p < 0x7f) {
            buf[used++] = (char)*p;
        } else {
            used += (size_t)snprintf(buf + used, size - used, "\\x%02x", *p);
        }
    }
    buf[used] = '\0';
    return buf;
}

/* Open and close. */

static void node_free(struct blk *blk)
{
    if (blk == NULL) {
        return;
    }
    bool opened = blk->path != NULL && blk->state != NULL; /* or tried to */
    if (opened && blk->cls->close != NULL) {
        int rc = blk->cls->close(blk);
        if (rc < 0) {
            log_debug("block", "close failed", "path='%s' errno='%d'", blk->path, -rc);
        }
    }
    node_free(blk->backing);
    node_free(blk->file);
    free(blk->state);
    free(blk->path);
    free(blk);
}

int blk_node_new(const struct blk_class *cls, const struct blk_opts *opts, const char *arg,
                 struct blk *take_file, struct blk *overlay, uint32_t open_flags,
                 struct blk **ret_node, struct err *err)
{
    struct blk *blk = calloc(1, sizeof(*blk));
    if (blk == NULL) {
        blk_close(take_file);
        return err_set(err, -ENOMEM, "out of memory");
    }
    blk->cls = cls;
    blk->file = take_file;
    blk->overlay = overlay;
    blk->open_flags = open_flags;
    blk->read_only = opts->read_only;
    blk->cache = opts->cache;
    blk->discard_align = 512;
    if (take_file != NULL) {
        blk->dev = take_file->dev;
        blk->ino = take_file->ino;
        blk->regular = take_file->regular;
        blk->discard_align = take_file->discard_align;
        blk->size = take_file->size;
    }
    blk->path = strdup(opts->path);
    blk->state = calloc(1, MAX(cls->state_size, (size_t)1));
    int rc;
    if (blk->path == NULL || blk->state == NULL) {
        rc = err_set(err, -ENOMEM, "out of memory");
    } else {
        rc = cls->open(blk, opts, arg, err);
    }
    if (rc < 0) {
        node_free(blk);
        return rc;
    }
    *ret_node = blk;
    return 0;
}

int blk_open_file(const struct blk_opts *opts, struct blk *overlay, uint32_t open_flags,
                  struct blk **ret_node, struct err *err)
{
    const struct blk_class *cls = blk_class_find(BLK_KIND_PROTOCOL, "file");
    return blk_node_new(cls, opts, NULL, NULL, overlay, open_flags, ret_node, err);
}

/* Puts the filters of `opts` over *node, the last named first. On failure *node is closed. */
static int open_filters(const struct blk_opts *opts, struct blk **node, struct err *err)
{
    size_t n = 0;
    while (opts->filters != NULL && opts->filters[n] != NULL) {
        n++;
    }
    while (n > 0) {
        const char *spec = opts->filters[--n];
        const char *colon = strchrnul(spec, ':');
        CLEANUP_FREE char *name = strndup(spec, (size_t)(colon - spec));
        const struct blk_class *cls = name == NULL ? NULL : blk_class_find(BLK_KIND_FILTER, name);
        if (cls == NULL) {
            blk_close(*node);
            *node = NULL;
            return err_set(err, -EINVAL, "unknown filter in '%s'", spec);
        }
        struct blk *file = *node;
        *node = NULL;
        int rc = blk_node_new(cls, opts, *colon == ':' ? colon + 1 : "", file, NULL, 0, node, err);
        if (rc < 0) {
            return err_prefix(err, "filter '%s': ", spec);
        }
    }
    return 0;
}

/* Which format was asked for; `ret_guessed` tells that nobody said. */
static int pick_format(const struct blk_opts *opts, const struct blk_class **ret_cls,
                       bool *ret_guessed, struct err *err)
{
    const char *name = opts->format;
    *ret_guessed = name == NULL;
    if (name == NULL) {
        name = blk_format_of_name(opts->path);
    }
    *ret_cls = blk_class_find(BLK_KIND_FORMAT, name);
    if (*ret_cls == NULL) {
        char names[128];
        char printable[64];
        blk_format_names(names, sizeof(names));
        return err_set(err, -EINVAL, "unknown format '%s' (there are: %s)",
                       blk_printable(name, printable, sizeof(printable)), names);
    }
    return 0;
}

/* A guest can write any header it likes into a raw disk. So a format is never guessed from the
 * content; content only makes a guess from the name be refused. */
static int refuse_magic(struct blk *file, struct err *err)
{
    const char *format;
    int rc = blk_probe_node(file, &format);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the first sector");
    }
    if (format != NULL) {
        return err_set(err, -EINVAL,
                       "no format was given and the content looks like %s; state the format "
                       "(format=raw if the guest is meant to see these bytes)",
                       format);
    }
    return 0;
}

int blk_open_chain(const struct blk_opts *opts, struct blk *overlay, uint32_t open_flags,
                   struct blk **ret_blk, struct err *err)
{
    const struct blk_class *cls;
    bool guessed;
    int rc = pick_format(opts, &cls, &guessed, err);
    if (rc < 0) {
        return rc;
    }
    struct blk *node = NULL;
    rc = blk_open_file(opts, overlay, open_flags, &node, err);
    if (rc < 0) {
        return rc;
    }
    if (guessed && strcmp(cls->name, "raw") == 0) {
        rc = refuse_magic(node, err);
        if (rc < 0) {
            blk_close(node);
            return rc;
        }
    }
    rc = open_filters(opts, &node, err);
    if (rc < 0) {
        return rc;
    }
    return blk_node_new(cls, opts, NULL, node, overlay, 0, ret_blk, err);
}

int blk_open(const struct blk_opts *opts, struct blk **ret_blk, struct err *err)
{
    char printable[256];
    if (opts->path == NULL || opts->path[0] == '\0') {
        return err_set(err, -EINVAL, "image: the file name is empty");
    }
    int rc = blk_open_chain(opts, NULL, 0, ret_blk, err);
    if (rc < 0) {
        return err_prefix(err,
                          "image '%s': ", blk_printable(opts->path, printable, sizeof(printable)));
    }
    return 0;
}

void blk_close(struct blk *blk)
{
    if (blk != NULL && !blk->read_only) {
        int rc = blk_flush(blk);
        if (rc < 0) {
            log_debug("block", "flush at close failed", "path='%s' errno='%d'", blk->path, -rc);
        }
    }
    node_free(blk);
}

uint64_t blk_size(const struct blk *blk)
{
    return blk->size;
}

bool blk_read_only(const struct blk *blk)
{
    return blk->read_only;
}

const char *blk_format_name(const struct blk *blk)
{
    return blk->cls->name;
}

uint32_t blk_discard_align(const struct blk *blk)
{
    return blk->discard_align;
}

int blk_refuse_snapshot(const struct blk *blk, const struct blk_opts *opts, struct err *err)
{
    if (opts->snapshot == NULL) {
        return 0;
    }
    return err_set(err, -EINVAL, "snapshot '%s': the format %s has no snapshots", opts->snapshot,
                   blk->cls->name);
}

/* I/O. */

static bool growable(const struct blk *blk)
{
    return blk->cls->kind != BLK_KIND_FORMAT;
}

static int check_range(const struct blk *blk, uint64_t offset, uint64_t len)
{
    uint64_t end;
    if (ckd_add(&end, offset, len)) {
        return -EINVAL;
    }
    return end <= (growable(blk) ? BLK_MAX_SIZE : blk->size) ? 0 : -EINVAL;
}

static int check_write(const struct blk *blk, uint64_t offset, uint64_t len)
{
    return blk->read_only ? -EROFS : check_range(blk, offset, len);
}

/* After a write up to `end`. */
static void grow(struct blk *blk, uint64_t end)
{
    if (!growable(blk)) {
        return;
    }
    uint64_t old = blk->size;
    while (old < end && !atomic_compare_exchange_weak(&blk->size, &old, end)) {
    }
}

int blk_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov)
{
    uint64_t len = blk_iov_len(iov, niov);
    int rc = check_range(blk, offset, len);
    return rc < 0 || len == 0 ? rc : blk->cls->preadv(blk, offset, iov, niov, len);
}

int blk_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov)
{
    uint64_t len = blk_iov_len(iov, niov);
    int rc = check_write(blk, offset, len);
    if (rc < 0 || len == 0) {
        return rc;
    }
    rc = blk->cls->pwritev(blk, offset, iov, niov, len);
    if (rc == 0) {
        grow(blk, offset + len);
    }
    return rc;
}

int blk_pread(struct blk *blk, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    return blk_preadv(blk, offset, &iov, 1);
}

int blk_pwrite(struct blk *blk, uint64_t offset, const void *buf, size_t len)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
    return blk_pwritev(blk, offset, &iov, 1);
}

static int write_zero_buffers(struct blk *blk, uint64_t offset, uint64_t len)
{
    size_t chunk = MIN(len, ZERO_CHUNK);
    CLEANUP_FREE void *zeroes = calloc(1, chunk);
    if (zeroes == NULL) {
        return -ENOMEM;
    }
    while (len > 0) {
        struct iovec iov = { .iov_base = zeroes, .iov_len = MIN(len, chunk) };
        int rc = blk->cls->pwritev(blk, offset, &iov, 1, iov.iov_len);
        if (rc < 0) {
            return rc;
        }
        offset += iov.iov_len;
        len -= iov.iov_len;
    }
    return 0;
}

int blk_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    int rc = check_write(blk, offset, len);
    if (rc < 0 || len == 0) {
        return rc;
    }
    rc = -ENOTSUP;
    if (blk->cls->write_zeroes != NULL) {
        rc = blk->cls->write_zeroes(blk, offset, len, may_unmap);
    }
    if (rc == -ENOTSUP) {
        rc = write_zero_buffers(blk, offset, len);
    }
    if (rc == 0) {
        grow(blk, offset + len);
    }
    return rc;
}

int blk_discard(struct blk *blk, uint64_t offset, uint64_t len)
{
    int rc = check_write(blk, offset, len);
    if (rc < 0 || len == 0 || blk->cls->discard == NULL) {
        return rc;
    }
    return blk->cls->discard(blk, offset, len);
}

int blk_flush(struct blk *blk)
{
    return blk->read_only ? 0 : blk->cls->flush(blk);
}

int blk_status(struct blk *blk, uint64_t offset, uint64_t len, struct blk_extent *ret_extent)
{
    int rc = check_range(blk, offset, len);
    if (rc < 0 || len == 0) {
        return rc < 0 ? rc : -EINVAL;
    }
    struct blk_extent ext = { .kind = BLK_EXTENT_BACKING, .len = len };
    for (; blk != NULL && ext.kind == BLK_EXTENT_BACKING; blk = blk->backing) {
        if (!growable(blk) && offset >= blk->size) {
            break; /* a backing file that is shorter: zeroes */
        }
        uint64_t here = growable(blk) ? ext.len : MIN(ext.len, blk->size - offset);
        ext = (struct blk_extent){ .kind = BLK_EXTENT_DATA, .len = here };
        if (blk->cls->status != NULL) {
            rc = blk->cls->status(blk, offset, here, &ext);
            if (rc < 0) {
                return rc;
            }
            assert(ext.len > 0 && ext.len <= here);
        }
    }
    if (ext.kind == BLK_EXTENT_BACKING) {
        ext.kind = BLK_EXTENT_ZERO;
    }
    *ret_extent = ext;
    return 0;
}

int blk_map(struct blk *blk, bool write, uint64_t offset, uint64_t len, struct blk_map *ret_map)
{
    *ret_map = (struct blk_map){ .kind = BLK_MAP_SLOW, .fd = -1, .len = len };
    if (blk->cls->map == NULL) {
        return 0;
    }
    return blk->cls->map(blk, write, offset, len, ret_map);
}

int blk_resize(struct blk *blk, uint64_t size, struct err *err)
{
    if (blk->read_only) {
        return err_set(err, -EROFS, "image '%s': opened read-only", blk->path);
    }
    if (blk->cls->truncate == NULL) {
        return err_set(err, -ENOTSUP, "image '%s': the format %s cannot change the size", blk->path,
                       blk->cls->name);
    }
    if (size > BLK_MAX_SIZE) {
        return err_set(err, -EFBIG, "image '%s': size %llu is above the limit of 2^62 bytes",
                       blk->path, (unsigned long long)size);
    }
    int rc = blk->cls->truncate(blk, size, err);
    return rc < 0 ? err_prefix(err, "image '%s': ", blk->path) : 0;
}

int blk_check(struct blk *blk, unsigned fix, struct blk_check *check, struct err *err)
{
    if (blk->cls->check == NULL) {
        return err_set(err, -ENOTSUP, "image '%s': the format %s has nothing to check", blk->path,
                       blk->cls->name);
    }
    int rc = blk->cls->check(blk, fix, check, err);
    return rc < 0 ? err_prefix(err, "image '%s': ", blk->path) : 0;
}
