/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The raw format: the file is the disk.
 *
 * A file whose size is no multiple of 512 is shown with the last sector filled up by zeroes (a
 * guest sees whole sectors); a write there makes the file whole.
 */
#include <errno.h>

#include "block/blk_int.h"

#define SECTOR 512

static int raw_open(struct blk *blk, const struct blk_opts *opts, const char *arg, struct err *err)
{
    (void)arg;
    int rc = blk_refuse_snapshot(blk, opts, err);
    if (rc < 0) {
        return rc;
    }
    if (blk->file->size == 0) {
        return err_set(err, -EINVAL,
                       "the file is empty; a disk has at least one sector of 512 bytes");
    }
    blk->size = bits_align_up(blk->file->size, SECTOR);
    return 0;
}

static int raw_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                      uint64_t len)
{
    (void)len;
    return blk_preadv(blk->file, offset, iov, niov);
}

static int raw_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                       uint64_t len)
{
    (void)len;
    return blk_pwritev(blk->file, offset, iov, niov);
}

static int raw_flush(struct blk *blk)
{
    return blk_flush(blk->file);
}

static int raw_discard(struct blk *blk, uint64_t offset, uint64_t len)
{
    return blk_discard(blk->file, offset, len);
}

static int raw_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    return blk_write_zeroes(blk->file, offset, len, may_unmap);
}

static int raw_truncate(struct blk *blk, uint64_t size, struct err *err)
{
    if (size % SECTOR != 0) {
        return err_set(err, -EINVAL, "size %llu is not a multiple of %d", (unsigned long long)size,
                       SECTOR);
    }
    int rc = blk->file->cls->truncate(blk->file, size, err);
    if (rc == 0) {
        blk->size = size;
    }
    return rc;
}

static int raw_status(struct blk *blk, uint64_t offset, uint64_t len, struct blk_extent *ret_extent)
{
    return blk_status(blk->file, offset, len, ret_extent);
}

static int raw_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                   struct blk_map *ret_map)
{
    return blk_map(blk->file, write, offset, len, ret_map);
}

static int raw_create(struct blk *file, const struct blk_create_opts *opts, struct err *err)
{
    if (opts->backing != NULL) {
        return err_set(err, -EINVAL, "a raw image cannot have a backing file");
    }
    if (opts->params != NULL && opts->params[0] != NULL) {
        return err_set(err, -EINVAL, "unknown option '%s': raw has no options", opts->params[0]);
    }
    if (opts->size % SECTOR != 0) {
        return err_set(err, -EINVAL, "size %llu is not a multiple of %d",
                       (unsigned long long)opts->size, SECTOR);
    }
    return file->cls->truncate(file, opts->size, err);
}

const struct blk_class fmt_raw_class = {
    .name = "raw",
    .help = "the file is the disk",
    .kind = BLK_KIND_FORMAT,
    .open = raw_open,
    .preadv = raw_preadv,
    .pwritev = raw_pwritev,
    .flush = raw_flush,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .truncate = raw_truncate,
    .status = raw_status,
    .map = raw_map,
    .create = raw_create,
};
