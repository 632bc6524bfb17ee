/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What formats have in common that cut the disk into blocks of one size and keep, in one table, the
 * place of each in the file: VDI, VHD, VHDX, sparse VMDK.
 *
 *      disk    | block 0 | block 1 | block 2 | block 3 |
 *      table        7        0          9        0           0 = not there: reads as zeroes
 *      file    | header, table | ... 7: | head | block 0 | ... 9: | head | block 2 |
 *
 * The struct is the first member of the format's state, so that the functions below can stand in
 * its class. The whole table is in memory (BLK_PLACE_MAX_BLOCKS), checked when the image is opened:
 * each place lies inside the file, behind the metadata, and no two overlap.
 *
 * Writing
 *   1. A block gets a place at the end of the file, never moves and is never given back.
 *   2. Its data are durable before the table that names it is written (flush), so that after a
 * power loss the table has old entries or new ones, and each leads to a block that is complete as
 * of the last flush. Readers of the table take no lock; `lock` covers allocation and flush.
 */
#ifndef BLOCK_BLK_PLACE_H
#define BLOCK_BLK_PLACE_H

#include <pthread.h>

#include "block/blk_int.h"

/* 128 MiB of table: 2 TiB of disk in blocks of 64 KiB, 32 TiB in blocks of 1 MiB. With the copy
 * that the check for overlaps makes that is as much memory as one image may cost. */
#define BLK_PLACE_MAX_BLOCKS (UINT64_C(32) << 20)
/* Entries that are marked as changed together; a grain table of VMDK. */
#define BLK_PLACE_CHUNK 512

/* Entries of the table. */
#define BLK_PLACE_NONE  0U /* reads as zeroes */
#define BLK_PLACE_ZERO  1U /* the same, said explicitly; kept apart for rewriting the table */
#define BLK_PLACE_FIRST 2U /* n + 2: at bias + n * unit */

struct blk_place_ops {
    /*
     * May the data of `block` be read (written) where they lie? 0 = yes; 1 = not like that, reads
     * go through read_odd() (only for reads); -EAGAIN when finding out needs I/O and `wait` is
     * false; another errno. After a success for writing the answer is 0 from then on. Optional:
     * NULL = yes.
     */
    int (*prepare)(struct blk *blk, uint64_t block, bool write, bool wait);
    /* Reads inside one block for which prepare() said 1; `offset` is that of the disk. */
    int (*read_odd)(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                    uint64_t len);
    /* Writes the entries [first, first + n) of the table to the file. NULL: read-only. */
    int (*store)(struct blk *blk, uint64_t first, uint32_t n);
    /* Writes what else depends on the number of blocks and the end of the file. Optional. */
    int (*finish)(struct blk *blk);
};

struct blk_place {
    const struct blk_place_ops *ops;
    bool linear; /* no table: the disk lies at `bias` in one piece */
    unsigned block_bits;
    uint32_t unit;
    uint64_t bias;
    uint32_t head;      /* bytes of metadata before the data of each block ... */
    uint8_t head_fill;  /* ... and the byte that fills them in a new one */
    uint32_t align;     /* of a new block's data, from `bias` on; a multiple of `unit` */
    uint64_t nblocks;   /* entries */
    uint64_t allocated; /* entries that have a place */
    _Atomic uint32_t *table;
    uint8_t *dirty; /* a byte for each chunk */
    bool any_dirty;
    uint64_t end; /* nothing of use lies behind; where the next block goes */
    pthread_mutex_t lock;
    bool lock_made;
};

/* First thing in open(): makes the lock. `ops` is constant. */
void blk_place_init(struct blk_place *p, const struct blk_place_ops *ops);
/* Makes the table for the disk's blk->size in blocks of 1 << block_bits bytes, all entries NONE.
 * -EFBIG when there would be too many. */
MUST_USE int blk_place_make_table(struct blk *blk, unsigned block_bits, struct err *err);
/* Checks all entries: each place lies in [low, high) of the file, no two overlap. Where `least` is
 * not 0 a block takes at least that many bytes (compressed), else its whole length. Sets `end` (to
 * `low` at least) and `allocated`. */
MUST_USE int blk_place_check_table(struct blk *blk, uint64_t low, uint64_t high, uint32_t least,
                                   struct err *err);
/* In close(). */
void blk_place_done(struct blk_place *p);

static inline uint64_t blk_place_offset(const struct blk_place *p, uint32_t entry)
{
    return p->bias + (uint64_t)(entry - BLK_PLACE_FIRST) * p->unit;
}

/* Functions for the class. */
MUST_USE int blk_place_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                              uint64_t len);
MUST_USE int blk_place_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                               uint64_t len);
MUST_USE int blk_place_flush(struct blk *blk);
MUST_USE int blk_place_discard(struct blk *blk, uint64_t offset, uint64_t len);
MUST_USE int blk_place_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap);
MUST_USE int blk_place_status(struct blk *blk, uint64_t offset, uint64_t len,
                              struct blk_extent *ret_extent);
MUST_USE int blk_place_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                           struct blk_map *ret_map);
/* The tables were checked by the opening: counts blocks. */
MUST_USE int blk_place_check(struct blk *blk, unsigned fix, struct blk_check *check,
                             struct err *err);

/* A header's number that is not allowed: "FIELD is VALUE; allowed: ALLOWED". Returns -EINVAL. */
int blk_place_bad(struct err *err, const char *field, uint64_t value, const char *allowed);

#endif
