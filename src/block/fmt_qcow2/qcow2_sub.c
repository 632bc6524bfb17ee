/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended L2 entries: each has, behind the descriptor of its cluster, two bits for each of 32
 * subclusters.
 *
 *      has data  reads zero   kind (with / without a cluster)
 *         0          0        unallocated: what lies below shows
 *         1          0        normal / malformed
 *         0          1        zero, cluster allocated / zero
 *         1          1        malformed
 *
 * So a write to a part of a cluster fills no more than its subclusters, and one to a cluster that
 * is there but has no data for it allocates nothing. An entry of 16 bytes lies in one sector: a
 * power loss keeps its halves together.
 *
 * Spec: qcow2.txt of QEMU 7.2, "Extended L2 Entries". The zero flag of the descriptor is reserved
 * there; compressed clusters have no subclusters, all bits are 0.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

static struct qcow2_sub_entry qcow2_sub_get(const struct qcow2_slice *s, uint64_t index)
{
    return (struct qcow2_sub_entry){ .desc = be64_get(s->data + index * 16),
                                     .bits = be64_get(s->data + index * 16 + 8) };
}

/* The first cluster of an external file lies at 0: that it is there is told by the flag. */
static bool qcow2_sub_has_host(const struct qcow2_sub_entry *e)
{
    return (e->desc & QCOW2_L2_COMPRESSED) == 0 &&
           (e->desc & (QCOW2_OFFSET_MASK | QCOW2_COPIED)) != 0;
}

int qcow2_sub_check(const struct qcow2 *q, const struct qcow2_sub_entry *e)
{
    enum qcow2_kind kind;
    uint32_t data = QCOW2_SUB_ALLOC(e->bits);
    if (qcow2_map_kind(q, e->desc, &kind) < 0 || (data & QCOW2_SUB_ZERO(e->bits)) != 0 ||
        (kind == QCOW2_COMPRESSED && e->bits != 0) || (kind == QCOW2_UNALLOCATED && data != 0)) {
        return -EUCLEAN;
    }
    return 0;
}

enum qcow2_kind qcow2_sub_kind(const struct qcow2_sub_entry *e, unsigned n)
{
    if ((e->desc & QCOW2_L2_COMPRESSED) != 0) {
        return QCOW2_COMPRESSED;
    }
    if ((QCOW2_SUB_ZERO(e->bits) & BIT(n)) != 0) {
        return qcow2_sub_has_host(e) ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    return (QCOW2_SUB_ALLOC(e->bits) & BIT(n)) != 0 ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
}

int qcow2_sub_run(const struct qcow2 *q, const struct qcow2_slice *slice, uint32_t index,
                  uint64_t offset, uint64_t len, struct qcow2_run *ret)
{
    uint64_t unit = BIT64(q->sub_bits);
    uint64_t in = offset & (q->cluster_size - 1);
    struct qcow2_sub_entry e = qcow2_sub_get(slice, index);
    const uint64_t first = e.desc;
    ret->host = first;
    if (qcow2_sub_check(q, &e) < 0) {
        return -EUCLEAN;
    }
    unsigned n = (unsigned)(in / unit);
    ret->kind = qcow2_sub_kind(&e, n);
    if (ret->kind == QCOW2_COMPRESSED) {
        ret->copied = false;
        ret->len = MIN(q->cluster_size - in, len);
        return 0;
    }
    bool has_host = qcow2_sub_has_host(&e);
    if (has_host && qcow2_data_external(q) && (first & QCOW2_OFFSET_MASK) != offset - in) {
        return -EUCLEAN;
    }
    uint64_t step = has_host ? q->cluster_size : 0;
    uint64_t end = q->l2c.slice_size / 16;
    uint64_t run = unit - offset % unit;
    for (uint64_t i = index; run < len;) {
        if (++n == QCOW2_SUBCLUSTERS) {
            n = 0;
            if (++i == end) {
                break;
            }
            e = qcow2_sub_get(slice, i);
            if (e.desc != first + (i - index) * step || qcow2_sub_check(q, &e) < 0) {
                break;
            }
        }
        if (qcow2_sub_kind(&e, n) != ret->kind) {
            break;
        }
        run += unit;
    }
    ret->copied = (first & QCOW2_COPIED) != 0;
    ret->host = ret->kind == QCOW2_NORMAL || ret->kind == QCOW2_ZERO_ALLOC
                    ? (first & QCOW2_OFFSET_MASK) + in
                    : 0;
    ret->len = MIN(run, len);
    return 0;
}

int qcow2_sub_load(struct qcow2 *q, uint64_t offset, struct qcow2_sub_entry *ret, bool *ret_ours)
{
    *ret = (struct qcow2_sub_entry){ 0 };
    *ret_ours = false;
    uint64_t i = offset >> (q->hdr.cluster_bits + q->l2_bits);
    uint64_t l1 = i < q->l1_size ? q->l1[i] : 0;
    if ((l1 & QCOW2_OFFSET_MASK) == 0) {
        return 0;
    }
    uint64_t byte = ((offset >> q->hdr.cluster_bits) & (BIT64(q->l2_bits) - 1)) * 16;
    uint64_t at = (l1 & QCOW2_OFFSET_MASK) + bits_align_down(byte, q->l2c.slice_size);
    struct qcow2_slice *s;
    int rc = qcow2_cache_get(q, &q->l2c, at, &s);
    if (rc < 0) {
        return rc;
    }
    *ret = qcow2_sub_get(s, (byte & (q->l2c.slice_size - 1)) / 16);
    qcow2_cache_put(s);
    *ret_ours = qcow2_sub_has_host(ret) && (l1 & ret->desc & QCOW2_COPIED) != 0;
    return 0;
}

/* The new entry of the cluster at guest `start`, of which c->host is the `nth` one. */
static struct qcow2_sub_entry qcow2_sub_next(const struct qcow2 *q,
                                             const struct qcow2_sub_change *c, uint64_t start,
                                             uint64_t nth, const struct qcow2_sub_entry *old)
{
    uint64_t from = MAX(c->from, start) - start;
    uint64_t to = MIN(c->to, start + q->cluster_size) - start;
    unsigned lo = (unsigned)(from >> q->sub_bits);
    unsigned hi = (unsigned)((to - 1) >> q->sub_bits);
    uint32_t mask = (UINT32_MAX << lo) & (UINT32_MAX >> (QCOW2_SUBCLUSTERS - 1 - hi));
    uint32_t data = QCOW2_SUB_ALLOC(old->bits);
    uint32_t zero = QCOW2_SUB_ZERO(old->bits) & ~mask;
    struct qcow2_sub_entry e = *old;
    if (c->link) {
        e.desc = c->host + nth * q->cluster_size;
        bool same = ((e.desc ^ old->desc) & QCOW2_OFFSET_MASK) == 0;
        data = (same ? data : 0) | mask;
    } else {
        data &= ~mask;
        zero |= c->zero ? mask : 0;
        if ((e.desc & QCOW2_L2_COMPRESSED) != 0 || (data == 0 && c->drop)) {
            e.desc = 0;
        }
    }
    e.bits = (uint64_t)zero << 32 | data;
    return e;
}

int qcow2_sub_set(struct qcow2 *q, const struct qcow2_sub_change *c, bool punch)
{
    uint64_t start = bits_align_down(c->from, q->cluster_size);
    uint64_t n = (c->to - start + q->cluster_size - 1) >> q->hdr.cluster_bits;
    struct qcow2_slice *s;
    uint32_t index;
    int rc = qcow2_l2_get(q, c->from, &s, &index);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE uint64_t *was = malloc(n * 16);
    if (was == NULL) {
        qcow2_cache_put(s);
        return -ENOMEM;
    }
    pthread_mutex_lock(&q->map_lock);
    for (uint64_t i = 0; i < n; i++) {
        struct qcow2_sub_entry old = qcow2_sub_get(s, index + i);
        struct qcow2_sub_entry now =
            qcow2_sub_next(q, c, start + (i << q->hdr.cluster_bits), i, &old);
        was[2 * i] = old.desc;
        was[2 * i + 1] = now.desc;
        be64_put(s->data + (index + i) * 16, now.desc);
        be64_put(s->data + (index + i) * 16 + 8, now.bits);
    }
    pthread_mutex_unlock(&q->map_lock);
    qcow2_cache_dirty(&q->l2c, s);
    qcow2_cache_put(s);
    for (uint64_t i = 0; i < n; i++) {
        qcow2_l2_release(q, was[2 * i], was[2 * i + 1], punch);
    }
    return 0;
}
