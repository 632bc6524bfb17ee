/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/blk_int.h"

#define COPY_SIZE (2 * MIB)
/* One page of the host and of most file systems: below that no space is saved. */
#define ZERO_UNIT (4 * KIB)

/* Makes a range of the target read as zeroes, where it does not yet. */
static int put_zeroes(struct blk *dst, uint64_t offset, uint64_t len)
{
    while (len > 0) {
        struct blk_extent ext;
        int rc = blk_status(dst, offset, len, &ext);
        if (rc == 0 && ext.kind != BLK_EXTENT_ZERO) {
            rc = blk_write_zeroes(dst, offset, ext.len, true);
        }
        if (rc < 0) {
            return rc;
        }
        offset += ext.len;
        len -= ext.len;
    }
    return 0;
}

/* The end of the run at `at` that is all zero, or all not, in units. */
static size_t run_end(const char *buf, size_t at, size_t len, bool *ret_zero)
{
    *ret_zero = blk_iov_buf_is_zero(buf + at, MIN(len - at, (size_t)ZERO_UNIT));
    size_t end = at;
    while (end < len) {
        size_t part = MIN(len - end, (size_t)ZERO_UNIT);
        if (blk_iov_buf_is_zero(buf + end, part) != *ret_zero) {
            break;
        }
        end += part;
    }
    return end;
}

static int put_data(struct blk *dst, uint64_t offset, const char *buf, size_t len)
{
    for (size_t at = 0; at < len;) {
        bool zero;
        size_t end = run_end(buf, at, len, &zero);
        int rc = zero ? put_zeroes(dst, offset + at, end - at)
                      : blk_pwrite(dst, offset + at, buf + at, end - at);
        if (rc < 0) {
            return rc;
        }
        at = end;
    }
    return 0;
}

/* Copies at most COPY_SIZE bytes of data, or a whole range of zeroes; tells how many and, when it
 * fails, whether reading or writing did. */
static int copy_step(struct blk *src, struct blk *dst, uint64_t offset, char *buf,
                     uint64_t *ret_len, bool *ret_writing)
{
    struct blk_extent ext;
    *ret_writing = false;
    int rc = blk_status(src, offset, blk_size(src) - offset, &ext);
    if (rc < 0) {
        return rc;
    }
    if (ext.kind == BLK_EXTENT_ZERO) {
        *ret_len = ext.len;
        *ret_writing = true;
        return put_zeroes(dst, offset, ext.len);
    }
    /* Steps end on multiples of COPY_SIZE, so that they fit clusters and pages. */
    size_t len = MIN(ext.len, COPY_SIZE - offset % COPY_SIZE);
    rc = blk_pread(src, offset, buf, len);
    if (rc < 0) {
        return rc;
    }
    *ret_len = len;
    *ret_writing = true;
    return put_data(dst, offset, buf, len);
}

/* `name`: what the user calls the target, which may have a temporary name yet. */
static int copy(struct blk *src, struct blk *dst, const char *name,
                const struct blk_convert_opts *opts, struct err *err)
{
    CLEANUP_FREE void *buf = NULL;
    uint64_t total = blk_size(src);
    uint64_t offset = 0;
    if (blk_size(dst) < total) { /* a device keeps its own size */
        return err_set(err, -ENOSPC, "image '%s': has %" PRIu64 " bytes, the source needs %" PRIu64,
                       name, blk_size(dst), total);
    }
    if (posix_memalign(&buf, ZERO_UNIT, COPY_SIZE) != 0) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (;;) {
        if (opts->progress != NULL && !opts->progress(opts->opaque, offset, total)) {
            return err_set(err, -EINTR, "interrupted; nothing was written to '%s'", name);
        }
        if (offset >= total) {
            return 0;
        }
        uint64_t len = 0;
        bool writing;
        int rc = copy_step(src, dst, offset, buf, &len, &writing);
        if (rc < 0) {
            return writing ? err_set_errno(err, rc, "image '%s': writing at offset %" PRIu64, name,
                                           offset)
                           : err_set_errno(err, rc, "image '%s': reading at offset %" PRIu64,
                                           src->path, offset);
        }
        offset += len;
    }
}

int blk_convert_copy(struct blk *src, struct blk *dst, const struct blk_convert_opts *opts,
                     struct err *err)
{
    return copy(src, dst, dst->path, opts, err);
}

int blk_convert_from(struct blk *src, const struct blk_create_opts *dst,
                     const struct blk_convert_opts *opts, struct err *err)
{
    struct blk_create_opts create = *dst;
    struct blk *blk = NULL;
    create.size = create.size == 0 ? blk_size(src) : create.size;
    int rc = blk_create_begin(&create, &blk, err);
    if (rc < 0) {
        return rc;
    }
    rc = copy(src, blk, create.path, opts, err);
    if (rc < 0) {
        blk_create_abort(&create, blk);
        return rc;
    }
    return blk_create_commit(&create, blk, err);
}

int blk_convert(const struct blk_opts *src, const struct blk_create_opts *dst,
                const struct blk_convert_opts *opts, struct err *err)
{
    struct blk_opts open = *src;
    struct blk *blk = NULL;
    open.read_only = true;
    int rc = blk_open(&open, &blk, err);
    if (rc == 0) {
        rc = blk_convert_from(blk, dst, opts, err);
        blk_close(blk);
    }
    return rc;
}
