/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing the virtual size. No I/O of a guest is under way (blk_resize()).
 *
 * Growing: what appears must read as zeroes. So the rest of the old last cluster is zeroed, and
 * clusters that a longer backing file would shine through get the zero flag, all of it durable
 * before the header has the new size. Shrinking: the header first, then the clusters are freed. The
 * L1 table never gets shorter, which the format allows.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

/* Writes the L1 table with `size` entries to a new place and makes the header point there. */
static int qcow2_resize_move_l1(struct qcow2 *q, uint32_t size)
{
    uint64_t bytes = bits_align_up((uint64_t)size * 8, q->cluster_size);
    uint64_t clusters = bytes >> q->hdr.cluster_bits;
    struct qcow2_hdr old = q->hdr;
    uint64_t at = 0;
    CLEANUP_FREE uint64_t *l1 = calloc(size, 8);
    CLEANUP_FREE uint8_t *disk = qcow2_io_buf(bytes);
    if (l1 == NULL || disk == NULL) {
        return -ENOMEM;
    }
    int rc = qcow2_ref_alloc(q, clusters, true, &at, NULL, NULL);
    if (rc == 0) {
        rc = qcow2_flush_all(q); /* what the entries point to, and the table's own refcounts */
    }
    if (rc < 0) {
        return rc;
    }
    memcpy(l1, q->l1, (size_t)q->l1_size * 8);
    memset(disk, 0, bytes);
    for (uint32_t i = 0; i < size; i++) {
        be64_put(disk + (size_t)i * 8, l1[i]);
    }
    rc = qcow2_io_write(q, at, disk, bytes);
    if (rc == 0) {
        rc = qcow2_io_flush(q);
    }
    if (rc < 0) {
        qcow2_ref_undo(q, at, clusters);
        return rc;
    }
    pthread_mutex_lock(&q->map_lock);
    q->hdr.l1_offset = at;
    q->hdr.l1_size = size;
    qcow2_io_add_meta(q, at, bytes);
    pthread_mutex_unlock(&q->map_lock);
    rc = qcow2_hdr_update(q);
    if (rc < 0) {
        /* Which table the disk has is not known: leave both alone and stop writing. */
        q->corrupt = true;
        return rc;
    }
    pthread_mutex_lock(&q->map_lock);
    uint64_t *old_l1 = q->l1;
    q->l1 = take_ptr(&l1);
    q->l1_size = size;
    pthread_mutex_unlock(&q->map_lock);
    free(old_l1);
    if (old.l1_size > 0) {
        uint64_t n = ((uint64_t)old.l1_size * 8 + q->cluster_size - 1) >> q->hdr.cluster_bits;
        qcow2_free_later(q, old.l1_offset >> q->hdr.cluster_bits, n, false);
    }
    return 0;
}

static int qcow2_resize_header(struct qcow2 *q, uint64_t size)
{
    uint64_t old = q->hdr.size;
    pthread_mutex_lock(&q->meta_lock);
    int rc = qcow2_flush_all(q);
    if (rc == 0) {
        q->hdr.size = size;
        rc = qcow2_hdr_update(q);
        if (rc < 0) {
            q->hdr.size = old;
        }
    }
    pthread_mutex_unlock(&q->meta_lock);
    return rc;
}

static int qcow2_resize_grow(struct qcow2 *q, uint64_t size, uint32_t l1_need)
{
    uint64_t old_end = bits_align_up(q->hdr.size, q->cluster_size);
    int rc = 0;
    if (l1_need > q->l1_size) {
        pthread_mutex_lock(&q->meta_lock);
        rc = qcow2_l2_begin(q);
        if (rc == 0) {
            rc = qcow2_resize_move_l1(q, l1_need);
        }
        pthread_mutex_unlock(&q->meta_lock);
    }
    if (rc == 0 && old_end > q->hdr.size) {
        rc = qcow2_zero_part(q, q->hdr.size, old_end - q->hdr.size);
    }
    if (rc == 0 && size > old_end) {
        /* Clusters left over from a larger past, and the backing file where that is longer. */
        uint64_t end = bits_align_up(size, q->cluster_size);
        rc = qcow2_zero_clusters(q, old_end, end - old_end, QCOW2_ZERO_UNMAP);
    }
    return rc == 0 ? qcow2_resize_header(q, size) : rc;
}

static int qcow2_resize_shrink(struct qcow2 *q, uint64_t size)
{
    uint64_t from = bits_align_up(size, q->cluster_size);
    uint64_t to = bits_align_up(q->hdr.size, q->cluster_size);
    int rc = qcow2_resize_header(q, size);
    if (rc == 0 && to > from) {
        rc = qcow2_zero_clusters(q, from, to - from, QCOW2_ZERO_CUT);
    }
    return rc == 0 ? qcow2_flush(q->blk) : rc;
}

int qcow2_resize(struct blk *blk, uint64_t size, struct err *err)
{
    struct qcow2 *q = qcow2_of(blk);
    unsigned reach_bits = q->hdr.cluster_bits + q->l2_bits;
    if (size % 512 != 0) {
        return err_set(err, -EINVAL, "size %" PRIu64 " is not a multiple of 512", size);
    }
    if (q->hdr.version < 3 && q->hdr.nb_snapshots > 0) {
        return err_set(err, -ENOTSUP,
                       "a version 2 image with snapshots cannot be resized: its snapshots do not "
                       "record their size; delete them, or convert the image");
    }
    uint64_t l1_need = size == 0 ? 0 : ((size - 1) >> reach_bits) + 1;
    if (l1_need > QCOW2_MAX_L1_BYTES / 8) {
        return err_set(err, -EFBIG,
                       "size %" PRIu64 " is over what clusters of %" PRIu64 " bytes allow (%" PRIu64
                       ")",
                       size, q->cluster_size, (QCOW2_MAX_L1_BYTES / 8) << reach_bits);
    }
    int rc = size >= q->hdr.size ? qcow2_resize_grow(q, size, (uint32_t)l1_need)
                                 : qcow2_resize_shrink(q, size);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot change the size to %" PRIu64, size);
    }
    blk->size = size;
    return qcow2_data_resize(q, size, err);
}
