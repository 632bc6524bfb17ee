/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write zeroes and discard: by the L2 entries where the format can say it, else by writing zeroes.
 *
 *   kind of cluster       KEEP               UNMAP            DISCARD               CUT
 *   unallocated           zero / -           zero / -         -                     -
 *   zero, no cluster      -                  -                -                     none
 *   zero, cluster         -                  zero / none      zero / none           none
 *   data, ours            zero with cluster  zero / none      zero / none           none
 *   data, shared; packed  zero               zero / none      zero / none           none
 *
 * "a / b": with a backing file below there / without. "-": nothing to do; "none": entry 0. Version
 * 2 has no zero flag: instead of it, zeroes are written (KEEP, UNMAP), or nothing is done
 * (DISCARD). So it is where an external data file must show the disk by itself, and for a part of a
 * compressed cluster.
 *
 * With extended L2 entries, "cluster" is a subcluster; a cluster itself is given up when none of
 * its subclusters has data (never by KEEP).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

enum qcow2_zero_act {
    QCOW2_ZERO_ACT_NOTHING,
    QCOW2_ZERO_ACT_SET,   /* the entry */
    QCOW2_ZERO_ACT_WRITE, /* zeroes as data */
};

static enum qcow2_zero_act qcow2_zero_decide(const struct qcow2 *q, const struct qcow2_run *run,
                                             bool backed, enum qcow2_zero_mode mode,
                                             uint64_t *ret_entry, uint64_t *ret_step)
{
    *ret_entry = 0;
    *ret_step = 0;
    if (run->kind == QCOW2_UNALLOCATED &&
        (!backed || mode == QCOW2_ZERO_DISCARD || mode == QCOW2_ZERO_CUT)) {
        return QCOW2_ZERO_ACT_NOTHING;
    }
    if (mode == QCOW2_ZERO_CUT) {
        return QCOW2_ZERO_ACT_SET;
    }
    if (run->kind == QCOW2_ZERO_PLAIN ||
        (run->kind == QCOW2_ZERO_ALLOC && mode == QCOW2_ZERO_KEEP)) {
        return QCOW2_ZERO_ACT_NOTHING;
    }
    bool raw = qcow2_data_raw(q);
    if (!backed && mode != QCOW2_ZERO_KEEP && !raw) {
        return QCOW2_ZERO_ACT_SET; /* none: reads zero */
    }
    if (q->hdr.version < 3 || raw) {
        return mode == QCOW2_ZERO_DISCARD ? QCOW2_ZERO_ACT_NOTHING : QCOW2_ZERO_ACT_WRITE;
    }
    *ret_entry = QCOW2_L2_ZERO;
    if (mode == QCOW2_ZERO_KEEP && run->kind == QCOW2_NORMAL && run->copied) {
        *ret_entry |= run->host | QCOW2_COPIED;
        *ret_step = q->cluster_size;
    }
    return QCOW2_ZERO_ACT_SET;
}

static int qcow2_zero_write(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    size_t chunk = MIN(len, MIB);
    CLEANUP_FREE void *zeroes = qcow2_io_buf(chunk);
    if (zeroes == NULL) {
        return -ENOMEM;
    }
    memset(zeroes, 0, chunk);
    while (len > 0) {
        struct iovec iov = { .iov_base = zeroes, .iov_len = MIN(len, (uint64_t)chunk) };
        int rc = qcow2_write(q->blk, offset, &iov, 1, iov.iov_len);
        if (rc < 0) {
            return rc;
        }
        offset += iov.iov_len;
        len -= iov.iov_len;
    }
    return 0;
}

/* One run at the beginning of the range. *ret_done: its bytes. */
static int qcow2_zero_run(struct qcow2 *q, uint64_t offset, uint64_t len, enum qcow2_zero_mode mode,
                          uint64_t *ret_done)
{
    uint64_t reach = qcow2_l2_slice_entries(q) << q->hdr.cluster_bits;
    uint64_t in_slice = bits_align_down(offset, reach) + reach - offset;
    struct qcow2_run run;
    enum qcow2_zero_act act = QCOW2_ZERO_ACT_NOTHING;
    pthread_mutex_lock(&q->meta_lock);
    qcow2_write_wait(q, offset >> q->hdr.cluster_bits,
                     (offset + MIN(len, in_slice) - 1) >> q->hdr.cluster_bits);
    int rc = qcow2_l2_begin(q);
    if (rc == 0) {
        rc = qcow2_map_load(q, offset, len, &run);
    }
    if (rc == 0) {
        uint64_t entry;
        uint64_t step;
        uint64_t backed = qcow2_read_backed(q, offset, run.len);
        uint64_t done = backed > 0 ? bits_align_up(backed, BIT64(q->sub_bits)) : run.len;
        act = qcow2_zero_decide(q, &run, backed > 0, mode, &entry, &step);
        if (act != QCOW2_ZERO_ACT_NOTHING) {
            done = MIN(done, in_slice); /* nothing may be busy, and entries are set by the slice */
        }
        *ret_done = MIN(done, run.len);
        if (qcow2_sub(q) && run.kind == QCOW2_COMPRESSED && *ret_done < q->cluster_size) {
            act = mode == QCOW2_ZERO_DISCARD ? QCOW2_ZERO_ACT_NOTHING : QCOW2_ZERO_ACT_WRITE;
        }
        if (act == QCOW2_ZERO_ACT_SET && qcow2_sub(q)) {
            struct qcow2_sub_change change = {
                .from = offset,
                .to = offset + *ret_done,
                .zero = (entry & QCOW2_L2_ZERO) != 0,
                .drop = mode != QCOW2_ZERO_KEEP,
            };
            rc = qcow2_sub_set(q, &change, mode != QCOW2_ZERO_KEEP);
        } else if (act == QCOW2_ZERO_ACT_SET) {
            rc = qcow2_l2_set(q, offset, *ret_done >> q->hdr.cluster_bits, entry, step,
                              mode != QCOW2_ZERO_KEEP);
        }
    }
    pthread_mutex_unlock(&q->meta_lock);
    if (rc == 0 && act == QCOW2_ZERO_ACT_WRITE) {
        rc = qcow2_zero_write(q, offset, *ret_done);
    }
    return rc;
}

int qcow2_zero_clusters(struct qcow2 *q, uint64_t offset, uint64_t len, enum qcow2_zero_mode mode)
{
    while (len > 0) {
        uint64_t done = 0;
        int rc = qcow2_zero_run(q, offset, len, mode, &done);
        if (rc < 0) {
            return rc;
        }
        offset += done;
        len -= done;
    }
    return 0;
}

int qcow2_zero_part(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    while (len > 0) {
        struct qcow2_run run;
        pthread_mutex_lock(&q->meta_lock);
        int rc = qcow2_map_load(q, offset, len, &run);
        pthread_mutex_unlock(&q->meta_lock);
        if (rc < 0) {
            return rc;
        }
        uint64_t n = run.len;
        bool zero = run.kind == QCOW2_ZERO_PLAIN || run.kind == QCOW2_ZERO_ALLOC;
        if (run.kind == QCOW2_UNALLOCATED) {
            uint64_t backed = qcow2_read_backed(q, offset, n);
            zero = backed == 0;
            n = zero ? n : backed;
        }
        if (!zero) {
            rc = qcow2_zero_write(q, offset, n);
        }
        if (rc < 0) {
            return rc;
        }
        offset += n;
        len -= n;
    }
    return 0;
}

/* The whole (sub)clusters of [offset, offset + len); the last one of the disk counts as whole. */
static void qcow2_zero_inner(const struct qcow2 *q, uint64_t offset, uint64_t len,
                             uint64_t *ret_from, uint64_t *ret_to)
{
    uint64_t end = offset + len;
    uint64_t unit = BIT64(q->sub_bits);
    *ret_from = bits_align_up(offset, unit);
    *ret_to = end == q->blk->size ? bits_align_up(end, unit) : bits_align_down(end, unit);
}

int qcow2_zero(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct qcow2 *q = qcow2_of(blk);
    uint64_t from;
    uint64_t to;
    qcow2_zero_inner(q, offset, len, &from, &to);
    if (from >= to) {
        return qcow2_zero_part(q, offset, len);
    }
    int rc = qcow2_zero_part(q, offset, from - offset);
    if (rc == 0) {
        rc =
            qcow2_zero_clusters(q, from, to - from, may_unmap ? QCOW2_ZERO_UNMAP : QCOW2_ZERO_KEEP);
    }
    if (rc == 0 && offset + len > to) {
        rc = qcow2_zero_part(q, to, offset + len - to);
    }
    return rc;
}

int qcow2_zero_discard(struct blk *blk, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = qcow2_of(blk);
    uint64_t from;
    uint64_t to;
    qcow2_zero_inner(q, offset, len, &from, &to);
    return from >= to ? 0 : qcow2_zero_clusters(q, from, to - from, QCOW2_ZERO_DISCARD);
}
