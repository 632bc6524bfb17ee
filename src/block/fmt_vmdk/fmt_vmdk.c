/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_vmdk/vmdk_int.h"

#define DESC_MARK "# Disk DescriptorFile"

/* A file that is a descriptor. */
static int open_descriptor(struct blk *blk, const struct blk_opts *opts, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    uint64_t len = blk->file->size;
    if (len > VMDK_DESC_MAX) {
        return err_set(err, -EFBIG, "descriptor: the file has %llu bytes, the limit is %llu",
                       (unsigned long long)len, (unsigned long long)VMDK_DESC_MAX);
    }
    CLEANUP_FREE char *text = malloc(len);
    if (text == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = blk_pread(blk->file, 0, text, len);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the descriptor");
    }
    rc = vmdk_desc_parse(text, len, true, &v->desc, err);
    return rc < 0 ? rc : vmdk_extent_open(blk, opts, err);
}

/* `arg`: NULL for any kind; "sparse": one file with grain tables, as in an archive; "extent": the
 * same, as part of a disk, whose own descriptor does not matter. */
static int vmdk_open(struct blk *blk, const struct blk_opts *opts, const char *arg, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    uint8_t head[VMDK_SECTOR];
    blk_place_init(&v->place, NULL);
    /* The default attributes cannot fail (pthread_mutex_init(3)). */
    (void)pthread_mutex_init(&v->pack_lock, NULL);
    v->packed_block = UINT64_MAX;
    int rc = blk_refuse_snapshot(blk, opts, err);
    if (rc < 0) {
        return rc;
    }
    if (!blk->read_only && (blk->open_flags & BLK_OPEN_CREATE) == 0) {
        return err_set(err, -EROFS,
                       "VMDK images are only read; open it read-only, or convert it to qcow2 to "
                       "write to it");
    }
    rc = blk_pread(blk->file, 0, head, sizeof(head));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    if (arg == NULL && memcmp(head, DESC_MARK, sizeof(DESC_MARK) - 1) == 0) {
        return open_descriptor(blk, opts, err);
    }
    if (le32_get(head) == VMDK_MAGIC_ESX) {
        return err_set(err, -ENOTSUP, "sparse extents of ESX (COWD) are not supported");
    }
    return vmdk_sparse_open(blk, head, arg != NULL && strcmp(arg, "extent") == 0, err);
}

static int vmdk_close(struct blk *blk)
{
    struct vmdk *v = vmdk_of(blk);
    vmdk_extent_close(v);
    vmdk_stream_free(v->stream);
    free(v->packed);
    free(v->gd);
    free(v->rgd);
    pthread_mutex_destroy(&v->pack_lock);
    blk_place_done(&v->place);
    return 0;
}

static int vmdk_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                       uint64_t len)
{
    const struct vmdk *v = blk->state;
    if (v->stream != NULL) {
        return -ENOTSUP;
    }
    return v->desc.nextents > 0 ? vmdk_extent_preadv(blk, offset, iov, niov, len)
                                : blk_place_preadv(blk, offset, iov, niov, len);
}

static int vmdk_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                        uint64_t len)
{
    const struct vmdk *v = blk->state;
    return v->stream != NULL ? vmdk_stream_pwritev(blk, offset, iov, niov, len)
                             : blk_place_pwritev(blk, offset, iov, niov, len);
}

static int vmdk_flush(struct blk *blk)
{
    const struct vmdk *v = blk->state;
    return v->stream != NULL ? vmdk_stream_flush(blk) : blk_place_flush(blk);
}

static int vmdk_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    const struct vmdk *v = blk->state;
    return v->stream != NULL ? -ENOTSUP : blk_place_write_zeroes(blk, offset, len, may_unmap);
}

static int vmdk_status(struct blk *blk, uint64_t offset, uint64_t len,
                       struct blk_extent *ret_extent)
{
    const struct vmdk *v = blk->state;
    return v->desc.nextents > 0 ? vmdk_extent_status(blk, offset, len, ret_extent)
                                : blk_place_status(blk, offset, len, ret_extent);
}

static int vmdk_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                    struct blk_map *ret_map)
{
    const struct vmdk *v = blk->state;
    return v->desc.nextents > 0 ? vmdk_extent_map(blk, write, offset, len, ret_map)
                                : blk_place_map(blk, write, offset, len, ret_map);
}

static int vmdk_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err)
{
    const struct vmdk *v = blk->state;
    char cid[9];
    (void)err;
    (void)snprintf(cid, sizeof(cid), "%08x", v->desc.cid);
    struct blk_info_item item = { .type = BLK_INFO_STRING };
    item.key = "subformat";
    item.string = v->desc.type;
    fn(opaque, &item);
    item.key = "cid";
    item.string = cid;
    fn(opaque, &item);
    for (unsigned i = 0; i < v->desc.nextents; i++) {
        struct blk_info_item extent = { .list = "extents", .index = i };
        extent.key = "file";
        extent.type = BLK_INFO_STRING;
        extent.string = v->desc.extents[i].name;
        fn(opaque, &extent);
        extent.key = "size";
        extent.type = BLK_INFO_BYTES;
        extent.number = v->desc.extents[i].len;
        fn(opaque, &extent);
    }
    if (v->desc.nextents == 0) {
        item = (struct blk_info_item){ .key = "grain_size", .type = BLK_INFO_BYTES };
        item.number = vmdk_grain_bytes(v);
        fn(opaque, &item);
        item = (struct blk_info_item){ .key = "grains_used", .type = BLK_INFO_NUMBER };
        item.number = v->place.allocated;
        fn(opaque, &item);
    }
    return 0;
}

static int vmdk_check(struct blk *blk, unsigned fix, struct blk_check *check, struct err *err)
{
    const struct vmdk *v = blk->state;
    if (v->desc.nextents > 0) {
        return err_set(err, -ENOTSUP, "an image of this kind has nothing to check");
    }
    return blk_place_check(blk, fix, check, err);
}

const struct blk_class fmt_vmdk_class = {
    .name = "vmdk",
    .help = "VMware's disk images",
    .suffix = ".vmdk",
    .kind = BLK_KIND_FORMAT,
    .state_size = sizeof(struct vmdk),
    .open = vmdk_open,
    .close = vmdk_close,
    .preadv = vmdk_preadv,
    .pwritev = vmdk_pwritev,
    .flush = vmdk_flush,
    .write_zeroes = vmdk_write_zeroes,
    .status = vmdk_status,
    .map = vmdk_map,
    .create = vmdk_create,
    .info = vmdk_info,
    .check = vmdk_check,
};
