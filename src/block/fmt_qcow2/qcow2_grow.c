/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New refcount blocks and a larger refcount table.
 *
 * The clusters of a range that no block covers are all free, so a new block lies inside its own
 * range and counts itself: there is no recursion. A new area past everything looks so:
 *
 *      start (a multiple of a block's range)
 *      | n clusters for the caller | larger table, if needed | blocks for all of this |
 *
 * Blocks are written whole before the table names them (qcow2_flush.c, invariant 5).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

static void qcow2_grow_span(struct qcow2_span *span, uint32_t index)
{
    if (span->lo >= span->hi) {
        *span = (struct qcow2_span){ .lo = index, .hi = index + 1 };
    } else {
        span->lo = MIN(span->lo, index);
        span->hi = MAX(span->hi, index + 1);
    }
}

/* Enters a block that has been written into the table in memory. */
static void qcow2_grow_enter(struct qcow2 *q, uint32_t index, uint64_t offset)
{
    pthread_mutex_lock(&q->map_lock);
    q->rt[index] = offset;
    qcow2_io_add_meta(q, offset, q->cluster_size);
    pthread_mutex_unlock(&q->map_lock);
    qcow2_grow_span(&q->rt_dirty, index);
    uint64_t end = (offset >> q->hdr.cluster_bits) + 1;
    q->file_end = MAX((uint64_t)q->file_end, end);
}

/* Writes a block at host cluster `at` that counts 1 for entries [from, to). */
static int qcow2_grow_write_block(struct qcow2 *q, uint64_t at, uint64_t from, uint64_t to)
{
    CLEANUP_FREE uint8_t *buf = qcow2_io_buf(q->cluster_size);
    if (buf == NULL) {
        return -ENOMEM;
    }
    memset(buf, 0, q->cluster_size);
    for (uint64_t i = from; i < to; i++) {
        qcow2_ref_store(buf, q->hdr.refcount_order, i, 1);
    }
    qcow2_cache_drop(q, at << q->hdr.cluster_bits, q->cluster_size);
    return qcow2_io_write(q, at << q->hdr.cluster_bits, buf, q->cluster_size);
}

int qcow2_grow_block(struct qcow2 *q, uint64_t cluster)
{
    uint64_t offset = cluster << q->hdr.cluster_bits;
    uint64_t index = cluster & (BIT64(q->rb_bits) - 1);
    if (qcow2_io_is_meta(q, offset, q->cluster_size)) {
        return qcow2_io_corrupt(q, "metadata with refcount 0", offset);
    }
    int rc = qcow2_grow_write_block(q, cluster, index, index + 1);
    if (rc == 0) {
        qcow2_grow_enter(q, (uint32_t)(cluster >> q->rb_bits), offset);
    }
    return rc;
}

struct qcow2_grow_plan {
    uint64_t start; /* host clusters */
    uint64_t n;
    uint64_t table; /* clusters of the new table; 0 = the present one has room */
    uint64_t blocks;
    uint32_t top; /* first table entry for the new blocks */
};

static int qcow2_grow_make_plan(const struct qcow2 *q, uint64_t n, struct qcow2_grow_plan *p)
{
    uint64_t per_block = BIT64(q->rb_bits);
    p->top = q->rt_size;
    while (p->top > 0 && q->rt[p->top - 1] == 0) {
        p->top--;
    }
    p->n = n;
    p->start = (uint64_t)p->top << q->rb_bits;
    p->table = n == 0; /* who wants nothing wants room in the table */
    p->blocks = 1;
    for (;;) {
        uint64_t blocks = (n + p->table + p->blocks + per_block - 1) / per_block;
        uint64_t entries = p->top + blocks;
        uint64_t table = p->table;
        if (entries > q->rt_size || table > 0) {
            /* Half as much again, so that growing to any size costs few moves. */
            uint64_t bytes = bits_align_up((entries + entries / 2 + 1) * 8, q->cluster_size);
            bytes = MIN(bytes, MAX(QCOW2_MAX_REFTABLE_BYTES, q->cluster_size));
            if (entries * 8 > bytes) {
                return -EFBIG;
            }
            table = MAX(table, bytes >> q->hdr.cluster_bits);
        }
        if (blocks <= p->blocks && table == p->table) {
            break;
        }
        p->blocks = MAX(blocks, p->blocks);
        p->table = table;
    }
    uint64_t end = p->start + n + p->table + p->blocks;
    return end > QCOW2_MAX_HOST_OFFSET >> q->hdr.cluster_bits ? -EFBIG : 0;
}

/* The header may name either table on the disk now: put the old one back, or stop writing. */
static void qcow2_grow_revert(struct qcow2 *q, const struct qcow2_hdr *old)
{
    if (q->hdr.rt_offset == old->rt_offset) {
        return; /* the header has not been touched */
    }
    pthread_mutex_lock(&q->map_lock);
    q->hdr.rt_offset = old->rt_offset;
    q->hdr.rt_clusters = old->rt_clusters;
    pthread_mutex_unlock(&q->map_lock);
    if (qcow2_hdr_update(q) < 0) {
        q->corrupt = true;
    }
}

/* Writes the table of the plan and makes the header point to it. */
static int qcow2_grow_move_table(struct qcow2 *q, const struct qcow2_grow_plan *p)
{
    uint32_t size = (uint32_t)((p->table << q->hdr.cluster_bits) / 8);
    uint64_t bytes = (uint64_t)size * 8;
    uint64_t *table = calloc(size, 8);
    CLEANUP_FREE uint8_t *disk = qcow2_io_buf(bytes);
    if (table == NULL || disk == NULL) {
        free(table);
        return -ENOMEM;
    }
    memcpy(table, q->rt, (uint64_t)q->rt_size * 8);
    for (uint64_t i = 0; i < p->blocks; i++) {
        table[p->top + i] = (p->start + p->n + p->table + i) << q->hdr.cluster_bits;
    }
    for (uint32_t i = 0; i < size; i++) {
        be64_put(disk + (uint64_t)i * 8, table[i]);
    }
    struct qcow2_hdr old = q->hdr;
    uint64_t at = (p->start + p->n) << q->hdr.cluster_bits;
    int rc = qcow2_io_write(q, at, disk, bytes);
    if (rc == 0) {
        rc = qcow2_io_flush(q);
    }
    if (rc == 0) {
        pthread_mutex_lock(&q->map_lock);
        q->hdr.rt_offset = at;
        q->hdr.rt_clusters = (uint32_t)p->table;
        pthread_mutex_unlock(&q->map_lock);
        rc = qcow2_hdr_update(q);
    }
    if (rc < 0) {
        free(table);
        qcow2_grow_revert(q, &old);
        return rc;
    }
    uint64_t *old_table = q->rt;
    pthread_mutex_lock(&q->map_lock);
    q->rt = table;
    q->rt_size = size;
    qcow2_io_add_meta(q, at, bytes);
    pthread_mutex_unlock(&q->map_lock);
    free(old_table);
    q->rt_dirty = (struct qcow2_span){ 0 };
    qcow2_free_later(q, old.rt_offset >> q->hdr.cluster_bits, old.rt_clusters, false);
    return 0;
}

int qcow2_grow_area(struct qcow2 *q, uint64_t n, uint64_t *ret_first)
{
    struct qcow2_grow_plan p;
    int rc = qcow2_grow_make_plan(q, n, &p);
    if (rc < 0) {
        return rc;
    }
    uint64_t used = p.n + p.table + p.blocks;
    if (qcow2_io_is_meta(q, p.start << q->hdr.cluster_bits, used << q->hdr.cluster_bits)) {
        return qcow2_io_corrupt(q, "metadata with refcount 0", p.start << q->hdr.cluster_bits);
    }
    uint64_t block = p.start + p.n + p.table;
    for (uint64_t i = 0; rc == 0 && i < p.blocks; i++) {
        uint64_t base = i << q->rb_bits;
        uint64_t count = used <= base ? 0 : MIN(used - base, BIT64(q->rb_bits));
        rc = qcow2_grow_write_block(q, block + i, 0, count);
    }
    q->file_end = MAX((uint64_t)q->file_end, p.start + used);
    if (rc == 0 && p.table > 0) {
        rc = qcow2_grow_move_table(q, &p);
    }
    for (uint64_t i = 0; rc == 0 && i < p.blocks; i++) {
        qcow2_grow_enter(q, p.top + (uint32_t)i, (block + i) << q->hdr.cluster_bits);
    }
    if (rc == 0 && p.table > 0) {
        q->rt_dirty = (struct qcow2_span){ 0 }; /* the new table was written with them */
    }
    *ret_first = p.start;
    return rc;
}
