/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the block layer: what a protocol, a format or a filter provides.
 *
 * To add one: a file exporting `NAME_class`, a row in blk_classes.def, a page in docs/block/.
 */
#ifndef BLOCK_BLK_INT_H
#define BLOCK_BLK_INT_H

#include "block/blk.h"

/* Where a piece of a node's data lies, for I/O that needs no metadata work. */
enum blk_map_kind {
    BLK_MAP_DATA, /* at `offset` of descriptor `fd` */
    BLK_MAP_ZERO, /* reads as zeroes */
    BLK_MAP_SLOW, /* needs preadv()/pwritev(): allocation, decompression, a filter ... */
};

struct blk_map {
    enum blk_map_kind kind;
    int fd;
    uint64_t offset;
    uint64_t len;       /* the answer holds for this many bytes from the asked offset, > 0 */
    struct blk *pinned; /* whose unmap() must be called once the I/O has ended, or NULL */
    uint64_t cookie;
};

enum blk_kind {
    BLK_KIND_PROTOCOL,
    BLK_KIND_FORMAT,
    BLK_KIND_FILTER,
};

/*
 * One kind of node. Functions may be called from several threads at once; each class has its own
 * lock. They return 0 or a negative errno. Ranges are already checked against the virtual size.
 */
struct blk_class {
    const char *name;
    const char *help;
    enum blk_kind kind;
    size_t state_size;

    /* blk->file (the child below) is open; fills blk->size and blk->state. */
    int (*open)(struct blk *blk, const struct blk_opts *opts, struct err *err);
    void (*close)(struct blk *blk);

    /* Synchronous; may block. */
    int (*preadv)(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                  uint64_t len);
    int (*pwritev)(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                   uint64_t len);
    int (*flush)(struct blk *blk);
    int (*discard)(struct blk *blk, uint64_t offset, uint64_t len);
    int (*write_zeroes)(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap);
    int (*truncate)(struct blk *blk, uint64_t size, struct err *err);

    /*
     * The fast path of queues: where do [offset, offset+len) lie, for a read or for an in-place
     * write? Never blocks on I/O (metadata not in memory: BLK_MAP_SLOW). A BLK_MAP_DATA answer pins
     * the place: it is not freed or reused before unmap(). NULL = always slow.
     */
    int (*map)(struct blk *blk, bool write, uint64_t offset, uint64_t len, struct blk_map *ret_map);
    void (*unmap)(struct blk *blk, const struct blk_map *map);
};

struct blk {
    const struct blk_class *cls;
    char *path;
    uint64_t size; /* virtual size, bytes */
    bool read_only;
    enum blk_cache cache;
    uint32_t discard_align;
    struct blk *file;    /* the node below; NULL for a protocol */
    struct blk *backing; /* read-only node for what is not allocated here, or NULL */
    void *state;
};

#endif
