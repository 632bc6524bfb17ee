/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The order in which changes reach the disk.
 *
 * A power loss may keep any part of the writes since the last successful flush of the file, torn at
 * 512 bytes. Whatever it keeps, the image must be readable, flushed guest data must be there, each
 * unflushed sector must be either old or new, and the only damage allowed is a leak: a cluster that
 * is counted and not referred to. That follows from these invariants of the bytes on the disk:
 *
 *   1. A cluster that an L2 entry refers to holds the data (guest's, or copied for it) that made
 *      the entry. So: data are written, and the file is flushed, before the L2 entry is written.
 *   2. A cluster that is referred to has at least the refcount that the references need. So:
 *      refcount blocks are written, and the file is flushed, before the L2 entry is written.
 *      (Not with the dirty bit set, see 7.)
 *   3. A refcount is lowered only after the reference has gone from the disk. So: a removed
 *      reference waits in q->freed until the L2 entry was written and the file flushed
 *      (qcow2_free.c); only then the cluster's count goes down, and only then it can be punched or
 *      allocated again.
 *   4. An L1 entry points to a table whose every entry is valid. So: a new table is written whole,
 *      empty or copied, and the file flushed, before the L1 entry is written.
 *   5. A refcount table entry points to a block that is valid as a whole. So: a new block is
 *      written whole, and the file flushed, before the table's entry is written; and that entry is
 *      flushed before any L2 entry that refers to a cluster which the block counts.
 *   6. The header changes by single sectors, which are atomic: a new L1 or refcount table is
 *      written and flushed before the header names it, and the old one is freed by rule 3.
 *   7. Lazy refcounts: the dirty bit is on the disk before the first L2 entry that was written
 *      without rule 2, and goes only after all refcounts are on the disk. Whoever opens an image
 *      with the dirty bit for writing computes the refcounts anew first.
 *
 * A writeback obeys them with one flush in the common case:
 *
 *      data of guests        ─┐
 *      new L2 tables, whole   │
 *      refcount blocks        ├─ flush ─> L2 slices, L1 entries ─ flush ─> refcounts lowered in
 *      [flush, refcount table]┘  (1)                              (2)      memory, written next
 * time
 *
 * Flush (2) is the guest's own; evicting a dirty L2 slice from the cache needs only (1). Nothing
 * waits for a timer: without a guest's flush nothing is promised, and nothing is lost but the
 * unflushed.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

/* Rounds of flush and decrement in qcow2_flush_all(): what the last one freed is counted down in
 * memory after the second, and written by the third. */
#define QCOW2_FLUSH_ROUNDS 3

static bool qcow2_flush_span_empty(const struct qcow2_span *s)
{
    return s->lo >= s->hi;
}

static bool qcow2_flush_lazy(const struct qcow2 *q)
{
    return (q->hdr.incompat & QCOW2_INCOMPAT_DIRTY) != 0;
}

/* Writes the sectors of the table at `offset` that hold the entries of the span. */
static int qcow2_flush_span(struct qcow2 *q, const uint64_t *table, uint32_t size, uint64_t offset,
                            struct qcow2_span *span)
{
    uint32_t per = QCOW2_COMPRESSED_UNIT / 8;
    if (qcow2_flush_span_empty(span)) {
        return 0;
    }
    uint32_t lo = span->lo / per * per;
    uint32_t hi = (uint32_t)bits_align_up(span->hi, per); /* inside the table's last cluster */
    CLEANUP_FREE uint8_t *buf = qcow2_io_buf((size_t)(hi - lo) * 8);
    if (buf == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = lo; i < hi; i++) {
        be64_put(buf + (size_t)(i - lo) * 8, i < size ? table[i] : 0);
    }
    int rc = qcow2_io_write(q, offset + (uint64_t)lo * 8, buf, (uint64_t)(hi - lo) * 8);
    if (rc == 0) {
        *span = (struct qcow2_span){ 0 };
    }
    return rc;
}

/* Rules 2 and 5, up to the flush that both L2 entries and the refcount table need. */
static int qcow2_flush_refcounts(struct qcow2 *q)
{
    int rc = qcow2_cache_write(q, &q->rbc);
    if (rc == 0 && !qcow2_flush_span_empty(&q->rt_dirty)) {
        rc = qcow2_io_flush(q);
        if (rc == 0) {
            rc = qcow2_flush_span(q, q->rt, q->rt_size, q->hdr.rt_offset, &q->rt_dirty);
        }
    }
    return rc;
}

int qcow2_flush_writeback(struct qcow2 *q)
{
    int rc = qcow2_flush_lazy(q) ? 0 : qcow2_flush_refcounts(q);
    bool mapping = q->l2c.ndirty > 0 || !qcow2_flush_span_empty(&q->l1_dirty);
    q->flush_gen++;
    if (rc < 0 || !mapping) {
        return rc;
    }
    rc = qcow2_io_flush(q);
    if (rc == 0) {
        rc = qcow2_cache_write(q, &q->l2c);
    }
    if (rc == 0) {
        rc = qcow2_flush_span(q, q->l1, q->l1_size, q->hdr.l1_offset, &q->l1_dirty);
    }
    return rc;
}

static bool qcow2_flush_needed(const struct qcow2 *q)
{
    bool refs = q->rbc.ndirty > 0 || !qcow2_flush_span_empty(&q->rt_dirty);
    return q->l2c.ndirty > 0 || !qcow2_flush_span_empty(&q->l1_dirty) || q->nfreed > 0 ||
           (refs && !qcow2_flush_lazy(q));
}

int qcow2_flush(struct blk *blk)
{
    struct qcow2 *q = qcow2_of(blk);
    pthread_mutex_lock(&q->meta_lock);
    bool needed = qcow2_flush_needed(q);
    int rc = !needed ? 0 : q->corrupt ? -EIO : qcow2_flush_writeback(q);
    uint64_t gen = q->flush_gen;
    pthread_mutex_unlock(&q->meta_lock);
    if (rc == 0) {
        rc = qcow2_io_flush(q);
    }
    if (rc == 0 && needed) {
        pthread_mutex_lock(&q->meta_lock);
        q->durable_gen = MAX(q->durable_gen, gen);
        qcow2_free_apply(q);
        pthread_mutex_unlock(&q->meta_lock);
    }
    return rc;
}

int qcow2_flush_all(struct qcow2 *q)
{
    int rc = q->corrupt ? -EIO : 0;
    for (int i = 0; rc == 0 && i < QCOW2_FLUSH_ROUNDS; i++) {
        rc = qcow2_flush_writeback(q);
        if (rc == 0) {
            rc = qcow2_flush_refcounts(q); /* lazy ones too */
        }
        if (rc == 0) {
            rc = qcow2_io_flush(q);
        }
        if (rc == 0) {
            q->durable_gen = q->flush_gen;
            qcow2_free_apply(q);
        }
        if (q->nfreed == 0 && q->rbc.ndirty == 0 && q->l2c.ndirty == 0) {
            break;
        }
    }
    return rc;
}
