/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMDK, VMware's disk images (spec/vmdk_disk.h, docs/block/vmdk.md). The files:
 *
 *      fmt_vmdk.c     the class: which of the kinds below an image is
 *      vmdk_sparse.c  one file with grain tables: monolithicSparse, streamOptimized, extents
 *      vmdk_pack.c    compressed grains, read
 *      vmdk_stream.c  a stream-optimised image while it is written, from its beginning to its end
 *      vmdk_desc.c    the descriptor: a text with the kind, the parent, the extents
 *      vmdk_extent.c  a disk made of several files that a descriptor names
 *      vmdk_create.c  new images
 *
 * Images are written only while they are made (BLK_OPEN_CREATE); later they are read-only.
 */
#ifndef BLOCK_FMT_VMDK_VMDK_INT_H
#define BLOCK_FMT_VMDK_VMDK_INT_H

#include "block/blk_place.h"
#include "spec/vmdk_disk.h"

/* Longest descriptor: 512 extents, each with a name of 200 bytes. */
#define VMDK_DESC_MAX (128 * KIB)
/* Files of one disk: each costs a descriptor of the process, of which there are often 1024. */
#define VMDK_MAX_EXTENTS 512
#define VMDK_NAME_MAX    256

#define VMDK_GRAIN_MIN 8    /* sectors; the least that the specification allows */
#define VMDK_GRAIN_MAX 4096 /* 2 MiB: what one compressed grain may cost in memory */

/* What a header says, once checked. */
struct vmdk_header {
    uint32_t flags;
    uint64_t capacity; /* sectors */
    uint32_t grain;    /* sectors */
    uint64_t desc_offset, desc_size;
    uint64_t gd_offset, rgd_offset; /* sectors */
    uint64_t overhead;              /* sectors */
};

enum vmdk_extent_kind {
    VMDK_EXTENT_ZERO,
    VMDK_EXTENT_FLAT,
    VMDK_EXTENT_SPARSE,
};

struct vmdk_extent {
    enum vmdk_extent_kind kind;
    uint64_t start, len; /* bytes of the disk */
    uint64_t offset;     /* FLAT: where in the file, bytes */
    char name[VMDK_NAME_MAX];
    struct blk *node; /* the file, or the sparse image; NULL = not opened (no_backing), or ZERO */
};

struct vmdk_desc {
    char type[32]; /* createType */
    uint32_t cid, parent_cid;
    struct vmdk_extent *extents; /* with `want_extents` only */
    unsigned nextents;
};

struct vmdk_stream;

struct vmdk {
    struct blk_place place; /* not used when there are extents */
    struct vmdk_header hdr;
    struct vmdk_desc desc;
    uint32_t *gd; /* offsets of the grain tables, sectors; the entries of the directory */
    uint32_t *rgd;
    pthread_mutex_t pack_lock; /* covers the next two */
    uint8_t *packed;           /* the grain that was unpacked last */
    uint64_t packed_block;     /* UINT64_MAX: none */
    struct vmdk_stream *stream;
};

static inline struct vmdk *vmdk_of(const struct blk *blk)
{
    return blk->state;
}

/* Bytes of a grain. */
static inline uint32_t vmdk_grain_bytes(const struct vmdk *v)
{
    return v->hdr.grain * VMDK_SECTOR;
}

/* Entries of the grain directory. */
static inline uint64_t vmdk_tables(const struct vmdk *v)
{
    return (v->place.nblocks + VMDK_GT_ENTRIES - 1) / VMDK_GT_ENTRIES;
}

/* vmdk_sparse.c: opens blk->file, whose first sector is `head`, as a sparse extent. */
MUST_USE int vmdk_sparse_open(struct blk *blk, const uint8_t *head, bool extent, struct err *err);

/* vmdk_pack.c: struct blk_place_ops.read_odd. */
MUST_USE int vmdk_pack_read(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                            uint64_t len);

/* vmdk_stream.c. An image that vmdk_create() has just made. */
MUST_USE int vmdk_stream_begin(struct blk *blk, struct err *err);
MUST_USE int vmdk_stream_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov,
                                 int niov, uint64_t len);
MUST_USE int vmdk_stream_flush(struct blk *blk);
void vmdk_stream_free(struct vmdk_stream *s);

/* vmdk_desc.c: parses `len` bytes of text into `desc`; extents only if asked for, and at least one
 * then. On failure desc->extents may be set, too. */
MUST_USE int vmdk_desc_parse(const char *text, size_t len, bool want_extents,
                             struct vmdk_desc *desc, struct err *err);

/* vmdk_extent.c. */
MUST_USE int vmdk_extent_open(struct blk *blk, const struct blk_opts *opts, struct err *err);
void vmdk_extent_close(struct vmdk *v);
MUST_USE int vmdk_extent_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                                uint64_t len);
MUST_USE int vmdk_extent_status(struct blk *blk, uint64_t offset, uint64_t len,
                                struct blk_extent *ret_extent);
MUST_USE int vmdk_extent_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                             struct blk_map *ret_map);

/* vmdk_create.c: the class's create(). */
MUST_USE int vmdk_create(struct blk *file, const struct blk_create_opts *opts, struct err *err);

#endif
