/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing L2 entries, and with them the L1 table: a table that does not exist is allocated, one
 * that a snapshot shares is copied first. All functions need meta_lock.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

uint64_t qcow2_l2_slice_entries(const struct qcow2 *q)
{
    return q->l2c.slice_size >> q->l2_shift;
}

int qcow2_l2_begin(struct qcow2 *q)
{
    if (q->corrupt) {
        return -EIO;
    }
    /* Freed clusters pile up when nobody flushes. */
    if (q->nfreed >= QCOW2_MAX_PENDING) {
        int rc = qcow2_flush_all(q);
        if (rc < 0) {
            return rc;
        }
    }
    bool lazy = q->hdr.version >= 3 && (q->hdr.compat & QCOW2_COMPAT_LAZY_REFCOUNTS) != 0;
    if (!lazy || (q->hdr.incompat & QCOW2_INCOMPAT_DIRTY) != 0) {
        return 0;
    }
    q->hdr.incompat |= QCOW2_INCOMPAT_DIRTY;
    int rc = qcow2_hdr_update(q);
    if (rc < 0) {
        q->hdr.incompat &= ~QCOW2_INCOMPAT_DIRTY;
    }
    return rc;
}

/* A table of our own in place of l1[index]: empty, or a copy of the shared one. */
static int qcow2_l2_new_table(struct qcow2 *q, uint32_t index)
{
    uint64_t cs = q->cluster_size;
    uint64_t old = q->l1[index] & QCOW2_OFFSET_MASK;
    uint64_t at;
    CLEANUP_FREE uint8_t *buf = qcow2_io_buf(cs);
    if (buf == NULL) {
        return -ENOMEM;
    }
    int rc = 0;
    if (old == 0) {
        memset(buf, 0, cs);
    } else {
        rc = qcow2_io_read(q, old, buf, cs); /* shared tables are never changed: no dirty slice */
    }
    if (rc == 0) {
        rc = qcow2_ref_alloc(q, 1, true, &at, NULL, NULL);
    }
    if (rc < 0) {
        return rc;
    }
    qcow2_cache_drop(q, at, cs);
    rc = qcow2_io_write(q, at, buf, cs);
    if (rc < 0) {
        qcow2_ref_undo(q, at, 1);
        return rc;
    }
    pthread_mutex_lock(&q->map_lock);
    q->l1[index] = at | QCOW2_COPIED;
    qcow2_io_add_meta(q, at, cs);
    pthread_mutex_unlock(&q->map_lock);
    if (q->l1_dirty.lo >= q->l1_dirty.hi) {
        q->l1_dirty = (struct qcow2_span){ .lo = index, .hi = index + 1 };
    } else {
        q->l1_dirty.lo = MIN(q->l1_dirty.lo, index);
        q->l1_dirty.hi = MAX(q->l1_dirty.hi, index + 1);
    }
    if (old != 0) {
        qcow2_free_later(q, old >> q->hdr.cluster_bits, 1, false);
    }
    return 0;
}

int qcow2_l2_get(struct qcow2 *q, uint64_t offset, struct qcow2_slice **ret_slice,
                 uint32_t *ret_index)
{
    uint64_t l1_index = offset >> (q->hdr.cluster_bits + q->l2_bits);
    if (l1_index >= q->l1_size) {
        return -EINVAL;
    }
    uint64_t entry = q->l1[l1_index];
    uint64_t table = entry & QCOW2_OFFSET_MASK;
    if ((entry & QCOW2_L1_RESERVED) != 0 || (table & (q->cluster_size - 1)) != 0) {
        return qcow2_io_corrupt(q, "level 1 entry", entry);
    }
    if (table == 0 || (entry & QCOW2_COPIED) == 0) {
        int rc = qcow2_l2_new_table(q, (uint32_t)l1_index);
        if (rc < 0) {
            return rc;
        }
        table = q->l1[l1_index] & QCOW2_OFFSET_MASK;
    }
    uint64_t byte = ((offset >> q->hdr.cluster_bits) & (BIT64(q->l2_bits) - 1)) << q->l2_shift;
    *ret_index = (uint32_t)((byte & (q->l2c.slice_size - 1)) >> q->l2_shift);
    return qcow2_cache_get(q, &q->l2c, table + bits_align_down(byte, q->l2c.slice_size), ret_slice);
}

void qcow2_l2_release(struct qcow2 *q, uint64_t old, uint64_t now, bool punch)
{
    enum qcow2_kind kind;
    if (qcow2_map_kind(q, old, &kind) < 0) {
        return; /* corrupt, so that nobody knows what it refers to */
    }
    if (kind == QCOW2_COMPRESSED) {
        uint64_t offset;
        uint64_t len;
        qcow2_map_compressed(q, old, &offset, &len);
        uint64_t first = offset >> q->hdr.cluster_bits;
        uint64_t last = (offset + len - 1) >> q->hdr.cluster_bits;
        qcow2_free_later(q, first, last - first + 1, punch);
        return;
    }
    uint64_t host = old & QCOW2_OFFSET_MASK;
    if (qcow2_data_external(q)) {
        if (punch && kind != QCOW2_UNALLOCATED && kind != QCOW2_ZERO_PLAIN &&
            (now & QCOW2_COPIED) == 0) {
            qcow2_data_release(q, host);
        }
        return;
    }
    if (host != 0 && host != (now & QCOW2_OFFSET_MASK)) {
        qcow2_free_later(q, host >> q->hdr.cluster_bits, 1, punch);
    }
}

int qcow2_l2_set(struct qcow2 *q, uint64_t offset, uint64_t n, uint64_t entry, uint64_t step,
                 bool punch)
{
    struct qcow2_slice *s;
    uint32_t index;
    int rc = qcow2_l2_get(q, offset, &s, &index);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE uint64_t *old = malloc(n * 8);
    if (old == NULL) {
        qcow2_cache_put(s);
        return -ENOMEM;
    }
    pthread_mutex_lock(&q->map_lock);
    for (uint64_t i = 0; i < n; i++) {
        uint8_t *p = s->data + (index + i) * 8;
        old[i] = be64_get(p);
        be64_put(p, entry + i * step);
    }
    pthread_mutex_unlock(&q->map_lock);
    qcow2_cache_dirty(&q->l2c, s);
    qcow2_cache_put(s);
    for (uint64_t i = 0; i < n; i++) {
        qcow2_l2_release(q, old[i], entry + i * step, punch);
    }
    return 0;
}
