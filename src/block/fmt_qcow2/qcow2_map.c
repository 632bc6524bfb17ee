/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a guest offset to the place of its data, and the fast path of queues.
 *
 * Spec: qcow2.txt of QEMU 7.2, "Cluster mapping". An entry with reserved bits, or an offset that is
 * not on a cluster boundary, is corrupt and not guessed at.
 */
#include <errno.h>

#include "block/fmt_qcow2/qcow2_int.h"

int qcow2_map_kind(const struct qcow2 *q, uint64_t entry, enum qcow2_kind *ret_kind)
{
    bool external = qcow2_data_external(q);
    if ((entry & QCOW2_L2_COMPRESSED) != 0) {
        *ret_kind = QCOW2_COMPRESSED;
        return external ? -EUCLEAN : 0;
    }
    uint64_t host = entry & QCOW2_OFFSET_MASK;
    bool zero = (entry & QCOW2_L2_ZERO) != 0;
    if ((entry & QCOW2_L2_RESERVED) != 0 || (host & (q->cluster_size - 1)) != 0 ||
        (zero && (q->hdr.version < 3 || qcow2_sub(q))) ||
        (host == 0 && (entry & QCOW2_COPIED) != 0 && !external)) {
        return -EUCLEAN;
    }
    /* In an external file the first cluster lies at 0; that it is there is told by the flag. */
    if (host == 0 && (entry & QCOW2_COPIED) == 0) {
        *ret_kind = zero ? QCOW2_ZERO_PLAIN : QCOW2_UNALLOCATED;
    } else {
        *ret_kind = zero ? QCOW2_ZERO_ALLOC : QCOW2_NORMAL;
    }
    return 0;
}

void qcow2_map_compressed(const struct qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                          uint64_t *ret_len)
{
    unsigned x = 62 - (q->hdr.cluster_bits - 8);
    uint64_t offset = entry & (BIT64(x) - 1);
    uint64_t sectors = ((entry & (QCOW2_L2_COMPRESSED - 1)) >> x) + 1;
    *ret_offset = offset;
    *ret_len = sectors * QCOW2_COMPRESSED_UNIT - offset % QCOW2_COMPRESSED_UNIT;
}

/* The L2 table for guest `offset`: 0 = none. *ret_reach: bytes from offset to the end of what the
 * table maps. */
static int qcow2_map_table(const struct qcow2 *q, uint64_t offset, uint64_t *ret_entry,
                           uint64_t *ret_reach)
{
    unsigned bits = q->hdr.cluster_bits + q->l2_bits;
    uint64_t i = offset >> bits;
    uint64_t entry = i < q->l1_size ? q->l1[i] : 0;
    *ret_reach = BIT64(bits) - (offset & (BIT64(bits) - 1));
    *ret_entry = entry;
    uint64_t table = entry & QCOW2_OFFSET_MASK;
    return (entry & QCOW2_L1_RESERVED) != 0 || (table & (q->cluster_size - 1)) != 0 ? -EUCLEAN : 0;
}

/* The run that begins with entry `index` of the slice. */
static int qcow2_map_run(const struct qcow2 *q, const struct qcow2_slice *slice, uint32_t index,
                         uint64_t offset, uint64_t len, struct qcow2_run *ret)
{
    if (qcow2_sub(q)) {
        return qcow2_sub_run(q, slice, index, offset, len, ret);
    }
    uint64_t in = offset & (q->cluster_size - 1);
    uint64_t first = be64_get(slice->data + (size_t)index * 8);
    int rc = qcow2_map_kind(q, first, &ret->kind);
    ret->host = first;
    if (rc < 0) {
        return rc;
    }
    uint64_t run = q->cluster_size - in;
    if (ret->kind == QCOW2_COMPRESSED) {
        ret->copied = false;
        ret->len = MIN(run, len);
        return 0;
    }
    bool has_host = ret->kind == QCOW2_NORMAL || ret->kind == QCOW2_ZERO_ALLOC;
    if (has_host && qcow2_data_external(q) && (first & QCOW2_OFFSET_MASK) != offset - in) {
        return -EUCLEAN;
    }
    uint64_t step = has_host ? q->cluster_size : 0;
    for (uint32_t i = index + 1; run < len && i < q->l2c.slice_size / 8; i++) {
        if (be64_get(slice->data + (size_t)i * 8) != first + (i - index) * step) {
            break;
        }
        run += q->cluster_size;
    }
    ret->copied = (first & QCOW2_COPIED) != 0;
    ret->host = has_host ? (first & QCOW2_OFFSET_MASK) + in : 0;
    ret->len = MIN(run, len);
    return 0;
}

/* Where the entry of guest `offset` is: the slice's place in the file, the entry's index in it. */
static uint64_t qcow2_map_slice(const struct qcow2 *q, uint64_t l1_entry, uint64_t offset,
                                uint32_t *ret_index)
{
    uint64_t l2_index = (offset >> q->hdr.cluster_bits) & (BIT64(q->l2_bits) - 1);
    uint64_t byte = l2_index << q->l2_shift;
    *ret_index = (uint32_t)((byte & (q->l2c.slice_size - 1)) >> q->l2_shift);
    return (l1_entry & QCOW2_OFFSET_MASK) + bits_align_down(byte, q->l2c.slice_size);
}

int qcow2_map_peek(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *ret_run)
{
    uint64_t entry;
    uint64_t reach;
    uint32_t index;
    int rc = qcow2_map_table(q, offset, &entry, &reach);
    *ret_run = (struct qcow2_run){ .kind = QCOW2_UNALLOCATED, .host = entry };
    if (rc < 0) {
        return rc;
    }
    if ((entry & QCOW2_OFFSET_MASK) == 0) {
        ret_run->host = 0;
        ret_run->len = MIN(reach, len);
        return 0;
    }
    struct qcow2_slice *s = qcow2_cache_peek(&q->l2c, qcow2_map_slice(q, entry, offset, &index));
    if (s == NULL) {
        return -EAGAIN;
    }
    qcow2_cache_touch(&q->l2c, s);
    rc = qcow2_map_run(q, s, index, offset, len, ret_run);
    /* A table that is shared with a snapshot makes all in it shared. */
    ret_run->copied = ret_run->copied && (entry & QCOW2_COPIED) != 0;
    return rc;
}

int qcow2_map_load(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *ret_run)
{
    pthread_mutex_lock(&q->map_lock);
    int rc = qcow2_map_peek(q, offset, len, ret_run);
    pthread_mutex_unlock(&q->map_lock);
    if (rc == -EAGAIN) {
        uint64_t entry;
        uint64_t reach;
        uint32_t index;
        struct qcow2_slice *s;
        rc = qcow2_map_table(q, offset, &entry, &reach);
        if (rc == 0) {
            rc = qcow2_cache_get(q, &q->l2c, qcow2_map_slice(q, entry, offset, &index), &s);
            if (rc < 0) {
                return rc;
            }
            rc = qcow2_map_run(q, s, index, offset, len, ret_run);
            ret_run->copied = ret_run->copied && (entry & QCOW2_COPIED) != 0;
            qcow2_cache_put(s);
        }
    }
    return rc == -EUCLEAN ? qcow2_io_corrupt(q, "cluster mapping entry", ret_run->host) : rc;
}

/* The answer for what is not allocated here. */
static int qcow2_map_backing(struct blk *blk, uint64_t offset, uint64_t len,
                             struct blk_map *ret_map)
{
    uint64_t size = blk->backing == NULL ? 0 : blk_size(blk->backing);
    if (offset >= size) {
        *ret_map = (struct blk_map){ .kind = BLK_MAP_ZERO, .fd = -1, .len = len };
        return 0;
    }
    return blk_map(blk->backing, false, offset, MIN(len, size - offset), ret_map);
}

/* May a run be used without more ado? Pins it when its data are in the file. map_lock. */
static bool qcow2_map_fast(struct qcow2 *q, bool write, const struct qcow2_run *run,
                           uint64_t *ret_cookie)
{
    if (write && (run->kind != QCOW2_NORMAL || !run->copied || q->corrupt)) {
        return false;
    }
    if (write && !qcow2_data_external(q) &&
        ((run->host + run->len - 1) >> q->hdr.cluster_bits >= q->file_end ||
         qcow2_io_is_meta(q, run->host, run->len))) {
        return false;
    }
    if (run->kind == QCOW2_NORMAL) {
        *ret_cookie = qcow2_free_enter(q);
    }
    return run->kind != QCOW2_COMPRESSED;
}

int qcow2_map(struct blk *blk, bool write, uint64_t offset, uint64_t len, struct blk_map *ret_map)
{
    struct qcow2 *q = qcow2_of(blk);
    struct qcow2_run run;
    uint64_t cookie = 0;
    pthread_mutex_lock(&q->map_lock);
    int rc = qcow2_map_peek(q, offset, len, &run);
    bool fast = rc == 0 && qcow2_map_fast(q, write, &run, &cookie);
    pthread_mutex_unlock(&q->map_lock);
    *ret_map = (struct blk_map){ .kind = BLK_MAP_SLOW, .fd = -1, .len = rc == 0 ? run.len : len };
    if (!fast) {
        return 0; /* the slow path meets a corrupt entry again and reports it */
    }
    if (run.kind == QCOW2_UNALLOCATED) {
        return qcow2_map_backing(blk, offset, run.len, ret_map);
    }
    if (run.kind != QCOW2_NORMAL) {
        ret_map->kind = BLK_MAP_ZERO;
        return 0;
    }
    rc = q->data == NULL ? -EACCES : blk_map(q->data, write, run.host, run.len, ret_map);
    if (rc < 0 || ret_map->kind != BLK_MAP_DATA || ret_map->pinned != NULL) {
        /* A zero range of the file may become data; and nobody below pins (blk_int.h). */
        struct blk_map undo = { .cookie = cookie };
        qcow2_unmap(blk, &undo);
        ret_map->kind = BLK_MAP_SLOW;
        return rc;
    }
    ret_map->pinned = blk;
    ret_map->cookie = cookie;
    return 0;
}

void qcow2_unmap(struct blk *blk, const struct blk_map *map)
{
    struct qcow2 *q = qcow2_of(blk);
    pthread_mutex_lock(&q->map_lock);
    qcow2_free_leave(q, map->cookie);
    pthread_mutex_unlock(&q->map_lock);
}
