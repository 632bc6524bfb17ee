/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file below a qcow2 image, the guard around its metadata, and what happens when an image
 * turns out to be corrupt.
 *
 * The guard: before guest data is written anywhere, the place is compared with the clusters that
 * hold metadata. A Bloom filter over their numbers answers nearly always at once; when it says
 * "perhaps", the tables are searched. Clusters that stop being metadata stay in the filter, which
 * costs a search now and then and never a wrong answer.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/fmt_qcow2/qcow2_int.h"

#define QCOW2_IO_FILTER_MIN_BITS 65536
#define QCOW2_IO_FILTER_MAX_BITS (8 * MIB)

int qcow2_io_read(struct qcow2 *q, uint64_t offset, void *buf, uint64_t len)
{
    return blk_pread(q->file, offset, buf, len);
}

int qcow2_io_write(struct qcow2 *q, uint64_t offset, const void *buf, uint64_t len)
{
    return blk_pwrite(q->file, offset, buf, len);
}

int qcow2_io_flush(struct qcow2 *q)
{
    int rc = q->data != NULL && q->data != q->file ? blk_flush(q->data) : 0;
    return rc == 0 ? blk_flush(q->file) : rc;
}

int qcow2_io_read_table(struct qcow2 *q, uint64_t offset, uint64_t *table, uint32_t n)
{
    int rc = qcow2_io_read(q, offset, table, (uint64_t)n * 8);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        table[i] = be64_get(&table[i]);
    }
    return rc;
}

void *qcow2_io_buf(size_t len)
{
    void *buf = NULL;
    return posix_memalign(&buf, 4096, len) == 0 ? buf : NULL;
}

int qcow2_io_corrupt(struct qcow2 *q, const char *what, uint64_t offset)
{
    log_limited(&q->log_limit, LOG_ERROR, "qcow2", "image is corrupt",
                "path='%s' what='%s' offset='0x%" PRIx64 "'", q->blk->path, what, offset);
    if (q->read_only || q->corrupt) {
        return -EIO;
    }
    q->corrupt = true;
    if (q->hdr.version >= 3) {
        q->hdr.incompat |= QCOW2_INCOMPAT_CORRUPT;
        /* Should the mark not get to the file, writes are refused all the same while it is open. */
        (void)qcow2_hdr_update(q);
    }
    return -EIO;
}

static uint64_t qcow2_io_hash(uint64_t cluster)
{
    return (cluster * UINT64_C(0x9e3779b97f4a7c15)) >> 20;
}

static bool qcow2_io_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

/* The exact answer. Linear: see the head comment for why that is rare. */
static bool qcow2_io_search(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t cs = q->cluster_size;
    if (offset < cs ||
        qcow2_io_overlap(offset, len, q->hdr.l1_offset, (uint64_t)q->hdr.l1_size * 8) ||
        qcow2_io_overlap(offset, len, q->hdr.rt_offset, (uint64_t)q->hdr.rt_clusters * cs)) {
        return true;
    }
    for (uint32_t i = 0; i < q->l1_size; i++) {
        uint64_t l2 = q->l1[i] & QCOW2_OFFSET_MASK;
        if (l2 != 0 && qcow2_io_overlap(offset, len, l2, cs)) {
            return true;
        }
    }
    for (uint32_t i = 0; i < q->rt_size; i++) {
        uint64_t rb = q->rt[i] & QCOW2_REFTABLE_MASK;
        if (rb != 0 && qcow2_io_overlap(offset, len, rb, cs)) {
            return true;
        }
    }
    for (size_t i = 0; i < q->nsnap_meta; i++) {
        if (qcow2_io_overlap(offset, len, q->snap_meta[i].offset, q->snap_meta[i].len)) {
            return true;
        }
    }
    return false;
}

bool qcow2_io_is_meta(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t first = offset >> q->hdr.cluster_bits;
    uint64_t last = (offset + len - 1) >> q->hdr.cluster_bits;
    for (uint64_t c = first; c <= last; c++) {
        uint64_t h = qcow2_io_hash(c) & q->filter_mask;
        if ((q->filter[h / 8] & BIT(h % 8)) != 0) {
            return qcow2_io_search(q, offset, len);
        }
    }
    return false;
}

void qcow2_io_add_meta(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t first = offset >> q->hdr.cluster_bits;
    uint64_t last = len == 0 ? first : (offset + len - 1) >> q->hdr.cluster_bits;
    for (uint64_t c = first; c <= last; c++) {
        uint64_t h = qcow2_io_hash(c) & q->filter_mask;
        q->filter[h / 8] = (uint8_t)(q->filter[h / 8] | BIT(h % 8));
    }
}

int qcow2_io_init_meta(struct qcow2 *q)
{
    uint64_t cs = q->cluster_size;
    uint64_t n = q->hdr.rt_clusters;
    for (uint32_t i = 0; i < q->l1_size; i++) {
        n += (q->l1[i] & QCOW2_OFFSET_MASK) != 0;
    }
    for (uint32_t i = 0; i < q->rt_size; i++) {
        n += (q->rt[i] & QCOW2_REFTABLE_MASK) != 0;
    }
    uint64_t bits = QCOW2_IO_FILTER_MIN_BITS;
    while (bits < n * 32 && bits < QCOW2_IO_FILTER_MAX_BITS) {
        bits *= 2;
    }
    q->filter = calloc(1, bits / 8);
    if (q->filter == NULL) {
        return -ENOMEM;
    }
    q->filter_mask = bits - 1;
    qcow2_io_add_meta(q, 0, cs);
    qcow2_io_add_meta(q, q->hdr.l1_offset, (uint64_t)q->hdr.l1_size * 8);
    qcow2_io_add_meta(q, q->hdr.rt_offset, (uint64_t)q->hdr.rt_clusters * cs);
    for (uint32_t i = 0; i < q->l1_size; i++) {
        qcow2_io_add_meta(q, q->l1[i] & QCOW2_OFFSET_MASK, cs);
    }
    for (uint32_t i = 0; i < q->rt_size; i++) {
        qcow2_io_add_meta(q, q->rt[i] & QCOW2_REFTABLE_MASK, cs);
    }
    for (size_t i = 0; i < q->nsnap_meta; i++) {
        qcow2_io_add_meta(q, q->snap_meta[i].offset, q->snap_meta[i].len);
    }
    return 0;
}
