/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying one disk into another, whatever their formats, for image tools.
 *
 * Memory is 2 MiB whatever the size. What the source knows to be zero is not read, and what turns
 * out to be zero (in units of 4 KiB) is not written where the target reads as zero already. The
 * target is written from its beginning to its end, so that formats that can only be appended to
 * (stream-optimised VMDK) are targets like others.
 *
 *     struct blk_create_opts dst = { .path = "a.vmdk", .format = "vmdk" };
 *     struct blk_opts src = { .path = "a.qcow2", .format = "qcow2" };
 *     rc = blk_convert(&src, &dst, &(struct blk_convert_opts){ 0 }, &err);
 *
 * Any thread; may block for as long as the disks are large.
 */
#ifndef BLOCK_BLK_CONVERT_H
#define BLOCK_BLK_CONVERT_H

#include "block/blk.h"

struct blk_convert_opts {
    /* Called before the first step and after each, at least every 2 MiB of data read, with bytes of
     * the virtual disk. False ends the copy with -EINTR. May be NULL. */
    bool (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

/* Copies `src` over the beginning of `dst`, which is at least as large (-ENOSPC) and writable. What
 * `dst` has behind the end of `src` is left as it is. Does not flush. Errors name the image, the
 * direction and the offset. */
MUST_USE int blk_convert_copy(struct blk *src, struct blk *dst, const struct blk_convert_opts *opts,
                              struct err *err);

/* Makes the image `dst` with the content of the open disk `src`: blk_create_begin(), copy,
 * blk_create_commit(). dst->size 0 means the source's size, smaller is -ENOSPC. Nothing is left of
 * the target when it fails. */
MUST_USE int blk_convert_from(struct blk *src, const struct blk_create_opts *dst,
                              const struct blk_convert_opts *opts, struct err *err);

/* The same with a source to be opened (read-only, whatever src->read_only says). */
MUST_USE int blk_convert(const struct blk_opts *src, const struct blk_create_opts *dst,
                         const struct blk_convert_opts *opts, struct err *err);

#endif
