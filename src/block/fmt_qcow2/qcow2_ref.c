/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Refcounts: look up, change, and find free clusters.
 *
 * The search goes upwards from `free_hint`, below which nothing is free, and takes the first free
 * run it meets, so that sequential writes get contiguous clusters and freed space is reused before
 * the file grows. All functions need meta_lock. Spec: qcow2.txt of QEMU 7.2, "Host cluster
 * management".
 */
#include <errno.h>

#include "block/fmt_qcow2/qcow2_int.h"

uint64_t qcow2_ref_load(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned bits = 1U << order;
        uint64_t bit = index * bits;
        return (uint64_t)(block[bit / 8] >> (bit % 8)) & (BIT(bits) - 1);
    }
    case 3:
        return block[index];
    case 4:
        return be16_get(block + index * 2);
    case 5:
        return be32_get(block + index * 4);
    default:
        return be64_get(block + index * 8);
    }
}

void qcow2_ref_store(uint8_t *block, unsigned order, uint64_t index, uint64_t count)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned bits = 1U << order;
        uint64_t bit = index * bits;
        unsigned mask = (BIT(bits) - 1) << (bit % 8);
        block[bit / 8] =
            (uint8_t)((block[bit / 8] & ~mask) | (((unsigned)count << (bit % 8)) & mask));
        break;
    }
    case 3:
        block[index] = (uint8_t)count;
        break;
    case 4:
        be16_put(block + index * 2, (uint16_t)count);
        break;
    case 5:
        be32_put(block + index * 4, (uint32_t)count);
        break;
    default:
        be64_put(block + index * 8, count);
        break;
    }
}

/* The slice that holds the refcount of `cluster`, pinned, or NULL where no block covers it. */
static int qcow2_ref_slice(struct qcow2 *q, uint64_t cluster, struct qcow2_slice **ret_slice)
{
    uint64_t i = cluster >> q->rb_bits;
    *ret_slice = NULL;
    if (i >= q->rt_size || q->rt[i] == 0) {
        return 0;
    }
    uint64_t block = q->rt[i];
    if ((block & (q->cluster_size - 1)) != 0 || block > (uint64_t)INT64_MAX - q->cluster_size) {
        return qcow2_io_corrupt(q, "refcount block offset", block);
    }
    uint64_t index = cluster & (BIT64(q->rb_bits) - 1);
    uint64_t byte = (index << q->hdr.refcount_order) / 8;
    return qcow2_cache_get(q, &q->rbc, block + bits_align_down(byte, q->rbc.slice_size), ret_slice);
}

/* Refcounts in one slice. */
static uint64_t qcow2_ref_per_slice(const struct qcow2 *q)
{
    return ((uint64_t)q->rbc.slice_size * 8) >> q->hdr.refcount_order;
}

int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret_count)
{
    struct qcow2_slice *s;
    int rc = qcow2_ref_slice(q, cluster, &s);
    if (rc < 0) {
        return rc;
    }
    *ret_count = 0;
    if (s != NULL) {
        *ret_count =
            qcow2_ref_load(s->data, q->hdr.refcount_order, cluster & (qcow2_ref_per_slice(q) - 1));
        qcow2_cache_put(s);
    }
    return 0;
}

int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    struct qcow2_slice *s;
    int rc = qcow2_ref_slice(q, cluster, &s);
    if (rc < 0) {
        return rc;
    }
    if (s == NULL) {
        return -ENOENT;
    }
    qcow2_ref_store(s->data, q->hdr.refcount_order, cluster & (qcow2_ref_per_slice(q) - 1), count);
    qcow2_cache_dirty(&q->rbc, s);
    qcow2_cache_put(s);
    if (count == 0) {
        q->free_hint = MIN(q->free_hint, cluster);
    }
    return 0;
}

int qcow2_ref_drop(struct qcow2 *q, uint64_t cluster, uint64_t count, bool punch,
                   uint64_t *ret_done)
{
    uint64_t run = 0; /* clusters before `c` that have just become free, not punched yet */
    int rc = 0;
    for (uint64_t c = cluster; c < cluster + count; c++) {
        uint64_t now = 0;
        rc = qcow2_ref_get(q, c, &now);
        if (rc == 0 && now == 0) {
            rc = qcow2_io_corrupt(q, "refcount below zero", c << q->hdr.cluster_bits);
        }
        if (rc == 0) {
            rc = qcow2_ref_set(q, c, now - 1);
        }
        if (rc == 0 && now == 1 && punch) {
            run++;
            continue;
        }
        if (run > 0) {
            /* A hint to the host, whose failure changes nothing. */
            (void)blk_discard(q->file, (c - run) << q->hdr.cluster_bits,
                              run << q->hdr.cluster_bits);
            run = 0;
        }
        if (rc < 0) {
            *ret_done = c - cluster;
            return rc;
        }
    }
    *ret_done = count;
    if (run > 0) {
        (void)blk_discard(q->file, (cluster + count - run) << q->hdr.cluster_bits,
                          run << q->hdr.cluster_bits);
    }
    return 0;
}

void qcow2_ref_undo(struct qcow2 *q, uint64_t offset, uint64_t n)
{
    uint64_t first = offset >> q->hdr.cluster_bits;
    uint64_t done = 0;
    if (qcow2_ref_drop(q, first, n, false, &done) < 0) {
        qcow2_free_later(q, first + done, n - done, false); /* the disk may have room by then */
    }
}

struct qcow2_ref_search {
    uint64_t want;
    bool exact;
    uint64_t at;    /* next cluster to look at */
    uint64_t first; /* the run so far is [first, first + run) */
    uint64_t run;
    uint64_t lowest; /* first free cluster met; UINT64_MAX = none yet */
};

/* Looks at one slice from s->at on. Returns true when the search has ended. */
static bool qcow2_ref_scan(const struct qcow2 *q, struct qcow2_ref_search *s, const uint8_t *data)
{
    uint64_t per = qcow2_ref_per_slice(q);
    for (uint64_t i = s->at & (per - 1); i < per; i++, s->at++) {
        if (qcow2_ref_load(data, q->hdr.refcount_order, i) != 0) {
            if (s->run > 0 && !s->exact) {
                return true;
            }
            s->run = 0;
            continue;
        }
        if (s->run == 0) {
            s->first = s->at;
            s->lowest = MIN(s->lowest, s->at);
        }
        if (++s->run == s->want) {
            return true;
        }
    }
    return false;
}

/* The search has come to clusters that no refcount block covers. Returns 1 when it has ended. */
static int qcow2_ref_beyond(struct qcow2 *q, struct qcow2_ref_search *s)
{
    if (s->run > 0 && !s->exact) {
        return 1;
    }
    if (s->exact && s->want >= BIT64(q->rb_bits)) {
        int rc = qcow2_grow_area(q, s->want, &s->first);
        s->run = s->want;
        return rc < 0 ? rc : 2; /* it has set the refcounts already */
    }
    if ((s->at >> q->rb_bits) >= q->rt_size) {
        uint64_t none;
        return qcow2_grow_area(q, 0, &none);
    }
    int rc = qcow2_grow_block(q, s->at);
    s->run = 0;
    s->at++; /* the new block has taken the place */
    return rc;
}

/* Returns 0 with a run in *s whose refcounts are 0, or 2 with one whose refcounts are set. */
static int qcow2_ref_find(struct qcow2 *q, struct qcow2_ref_search *s)
{
    for (;;) {
        if (s->at >= QCOW2_MAX_HOST_OFFSET >> q->hdr.cluster_bits) {
            return -EFBIG;
        }
        struct qcow2_slice *slice;
        int rc = qcow2_ref_slice(q, s->at, &slice);
        if (rc < 0) {
            return rc;
        }
        if (slice == NULL) {
            rc = qcow2_ref_beyond(q, s);
            if (rc != 0) {
                return rc == 1 ? 0 : rc;
            }
            continue;
        }
        bool end = qcow2_ref_scan(q, s, slice->data);
        qcow2_cache_put(slice);
        if (end) {
            return 0;
        }
    }
}

/* 0 -> 1 for clusters whose blocks exist. */
static int qcow2_ref_take(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t per = qcow2_ref_per_slice(q);
    for (uint64_t c = first; c < first + n;) {
        struct qcow2_slice *s;
        int rc = qcow2_ref_slice(q, c, &s);
        if (rc < 0) {
            qcow2_ref_undo(q, first << q->hdr.cluster_bits, c - first);
            return rc;
        }
        do {
            qcow2_ref_store(s->data, q->hdr.refcount_order, c & (per - 1), 1);
            c++;
        } while (c < first + n && (c & (per - 1)) != 0);
        qcow2_cache_dirty(&q->rbc, s);
        qcow2_cache_put(s);
    }
    return 0;
}

int qcow2_ref_alloc(struct qcow2 *q, uint64_t want, bool exact, uint64_t *ret_offset,
                    uint64_t *ret_n, bool *ret_fresh)
{
    struct qcow2_ref_search s = {
        .want = want,
        .exact = exact,
        .at = q->free_hint,
        .lowest = UINT64_MAX,
    };
    int found = qcow2_ref_find(q, &s);
    if (found < 0) {
        return found;
    }
    unsigned bits = q->hdr.cluster_bits;
    if (found == 0) {
        /* Refcount 0 and yet in use by a table: taking it would destroy the table. */
        if (qcow2_io_is_meta(q, s.first << bits, s.run << bits)) {
            return qcow2_io_corrupt(q, "metadata with refcount 0", s.first << bits);
        }
        int rc = qcow2_ref_take(q, s.first, s.run);
        if (rc < 0) {
            return rc;
        }
        q->free_hint = s.lowest == s.first ? s.first + s.run : s.lowest;
    }
    if (ret_fresh != NULL) {
        *ret_fresh = s.first >= q->file_end && q->file->regular;
    }
    q->file_end = MAX((uint64_t)q->file_end, s.first + s.run);
    *ret_offset = s.first << bits;
    if (ret_n != NULL) {
        *ret_n = s.run;
    }
    return 0;
}
