/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk of several files, one behind the other. Their names come from the descriptor and are
 * followed by the rules for backing files (blk_backing.c): inside the image's folder, or listed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/fmt_vmdk/vmdk_int.h"

static int check_size(const struct vmdk_extent *e, const struct blk *node, struct err *err)
{
    uint64_t size = blk_size(node);
    if (size < e->offset || size - e->offset < e->len) {
        return err_set(err, -EINVAL,
                       "has %" PRIu64 " bytes; the descriptor needs %" PRIu64 " at %" PRIu64, size,
                       e->len, e->offset);
    }
    return 0;
}

static int open_one(struct blk *blk, const struct blk_opts *opts, struct vmdk_extent *e,
                    struct err *err)
{
    struct blk *file = NULL;
    char printable[VMDK_NAME_MAX];
    int rc = blk_extent_open(blk, opts, e->name, &file, err);
    if (rc == 0 && e->kind == VMDK_EXTENT_SPARSE) {
        struct blk_opts below = { .path = file->path, .read_only = true, .cache = opts->cache };
        rc = blk_node_new(&fmt_vmdk_class, &below, "extent", file, NULL, 0, &e->node, err);
    } else if (rc == 0) {
        e->node = file;
    }
    if (rc == 0) {
        rc = check_size(e, e->node, err);
    }
    return rc < 0 ? err_prefix(
                        err, "extent '%s': ", blk_printable(e->name, printable, sizeof(printable)))
                  : 0;
}

int vmdk_extent_open(struct blk *blk, const struct blk_opts *opts, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    struct vmdk_extent *last = &v->desc.extents[v->desc.nextents - 1];
    uint64_t grains = 0;
    blk->size = last->start + last->len;
    for (unsigned i = 0; i < v->desc.nextents && !opts->no_backing; i++) {
        struct vmdk_extent *e = &v->desc.extents[i];
        int rc = e->kind == VMDK_EXTENT_ZERO ? 0 : open_one(blk, opts, e, err);
        if (rc < 0) {
            return rc;
        }
        grains += e->kind == VMDK_EXTENT_SPARSE ? vmdk_of(e->node)->place.nblocks : 0;
        if (grains > BLK_PLACE_MAX_BLOCKS) { /* the limit of memory holds for all together */
            return blk_place_bad(err, "number of grains", grains, "up to 33554432");
        }
    }
    return 0;
}

void vmdk_extent_close(struct vmdk *v)
{
    for (unsigned i = 0; i < v->desc.nextents; i++) {
        blk_close(v->desc.extents[i].node);
    }
    free(v->desc.extents);
}

/* The extent at `offset`, and how much of `len` it has. */
static const struct vmdk_extent *find(const struct vmdk *v, uint64_t offset, uint64_t *len)
{
    unsigned low = 0;
    unsigned high = v->desc.nextents - 1;
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (v->desc.extents[middle].start <= offset) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    const struct vmdk_extent *e = &v->desc.extents[low];
    *len = MIN(*len, e->start + e->len - offset);
    return e;
}

int vmdk_extent_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                       uint64_t len)
{
    const struct vmdk *v = blk->state;
    CLEANUP_FREE struct iovec *part = calloc((size_t)niov, sizeof(*part));
    if (part == NULL) {
        return -ENOMEM;
    }
    uint64_t n;
    for (uint64_t done = 0; done < len; done += n) {
        n = len - done;
        const struct vmdk_extent *e = find(v, offset + done, &n);
        int count = blk_iov_slice(part, iov, niov, done, n);
        int rc = 0;
        if (e->node == NULL) {
            blk_iov_zero(part, count, 0, n);
        } else {
            rc = blk_preadv(e->node, e->offset + offset + done - e->start, part, count);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

int vmdk_extent_status(struct blk *blk, uint64_t offset, uint64_t len,
                       struct blk_extent *ret_extent)
{
    const struct vmdk_extent *e = find(blk->state, offset, &len);
    *ret_extent = (struct blk_extent){ .kind = BLK_EXTENT_ZERO, .len = len };
    if (e->node == NULL) {
        return 0;
    }
    return blk_status(e->node, e->offset + offset - e->start, len, ret_extent);
}

int vmdk_extent_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                    struct blk_map *ret_map)
{
    const struct vmdk_extent *e = find(blk->state, offset, &len);
    if (e->node == NULL) {
        *ret_map = (struct blk_map){ .kind = BLK_MAP_ZERO, .fd = -1, .len = len };
        return 0;
    }
    return blk_map(e->node, write, e->offset + offset - e->start, len, ret_map);
}
