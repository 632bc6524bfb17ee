/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads that the fast path leaves: metadata to load, compressed clusters, backing files, filters.
 *
 * A read looks up a run, pins it, and reads with no lock held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

/* Looks up a run and pins it where its data lie in the file (*ret_cookie then). */
static int qcow2_read_lookup(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *run,
                             uint64_t *ret_cookie)
{
    pthread_mutex_lock(&q->map_lock);
    int rc = qcow2_map_peek(q, offset, len, run);
    if (rc == 0) {
        *ret_cookie = qcow2_free_enter(q);
    }
    pthread_mutex_unlock(&q->map_lock);
    if (rc == 0) {
        return 0;
    }
    pthread_mutex_lock(&q->meta_lock);
    rc = qcow2_map_load(q, offset, len, run);
    if (rc == 0) {
        pthread_mutex_lock(&q->map_lock);
        *ret_cookie = qcow2_free_enter(q);
        pthread_mutex_unlock(&q->map_lock);
    }
    pthread_mutex_unlock(&q->meta_lock);
    return rc;
}

static void qcow2_read_unpin(struct qcow2 *q, uint64_t cookie)
{
    pthread_mutex_lock(&q->map_lock);
    qcow2_free_leave(q, cookie);
    pthread_mutex_unlock(&q->map_lock);
}

/* Part [in, in + len) of a compressed cluster; the last one decompressed is kept. */
static int qcow2_read_compressed(struct qcow2 *q, uint64_t entry, uint64_t in,
                                 const struct iovec *iov, int niov, uint64_t len)
{
    pthread_mutex_lock(&q->comp_lock);
    bool hit = q->comp_data != NULL && q->comp_entry == entry;
    if (hit) {
        blk_iov_from_buf(iov, niov, 0, q->comp_data + in, len);
    }
    pthread_mutex_unlock(&q->comp_lock);
    if (hit) {
        return 0;
    }
    CLEANUP_FREE uint8_t *out = malloc(q->cluster_size);
    if (out == NULL) {
        return -ENOMEM;
    }
    int rc = qcow2_unpack(q, entry, out);
    if (rc < 0) {
        return rc;
    }
    blk_iov_from_buf(iov, niov, 0, out + in, len);
    pthread_mutex_lock(&q->comp_lock);
    uint8_t *old = q->comp_data;
    q->comp_data = out;
    q->comp_entry = entry;
    out = old;
    pthread_mutex_unlock(&q->comp_lock);
    return 0;
}

static int qcow2_read_run(struct qcow2 *q, const struct qcow2_run *run, uint64_t offset,
                          const struct iovec *iov, int niov)
{
    switch (run->kind) {
    case QCOW2_NORMAL:
        return qcow2_data_read(q, run->host, iov, niov);
    case QCOW2_COMPRESSED:
        return qcow2_read_compressed(q, run->host, offset & (q->cluster_size - 1), iov, niov,
                                     run->len);
    case QCOW2_UNALLOCATED:
        return blk_backing_preadv(q->blk, offset, iov, niov);
    default:
        blk_iov_zero(iov, niov, 0, run->len);
        return 0;
    }
}

int qcow2_read(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov, uint64_t len)
{
    struct qcow2 *q = qcow2_of(blk);
    struct iovec few[8];
    CLEANUP_FREE struct iovec *many = NULL;
    struct iovec *part = few;
    if (niov > (int)ARRAY_LEN(few)) {
        many = malloc((size_t)niov * sizeof(*many));
        if (many == NULL) {
            return -ENOMEM;
        }
        part = many;
    }
    for (uint64_t done = 0; done < len;) {
        struct qcow2_run run;
        uint64_t cookie = 0;
        int rc = qcow2_read_lookup(q, offset + done, len - done, &run, &cookie);
        if (rc < 0) {
            return rc;
        }
        int n = blk_iov_slice(part, iov, niov, done, run.len);
        rc = qcow2_read_run(q, &run, offset + done, part, n);
        qcow2_read_unpin(q, cookie);
        if (rc < 0) {
            return rc;
        }
        done += run.len;
    }
    return 0;
}

int qcow2_read_buf(struct qcow2 *q, uint64_t offset, void *buf, uint64_t len)
{
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    return len == 0 ? 0 : qcow2_read(q->blk, offset, &iov, 1, len);
}

uint64_t qcow2_read_backed(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t size = q->blk->backing == NULL ? 0 : blk_size(q->blk->backing);
    return offset >= size ? 0 : MIN(len, size - offset);
}

int qcow2_read_status(struct blk *blk, uint64_t offset, uint64_t len, struct blk_extent *ret_extent)
{
    struct qcow2 *q = qcow2_of(blk);
    struct qcow2_run run;
    pthread_mutex_lock(&q->meta_lock);
    int rc = qcow2_map_load(q, offset, len, &run);
    pthread_mutex_unlock(&q->meta_lock);
    if (rc < 0) {
        return rc;
    }
    ret_extent->len = run.len;
    switch (run.kind) {
    case QCOW2_UNALLOCATED:
        ret_extent->kind = BLK_EXTENT_BACKING;
        break;
    case QCOW2_ZERO_PLAIN:
    case QCOW2_ZERO_ALLOC:
        ret_extent->kind = BLK_EXTENT_ZERO;
        break;
    default:
        ret_extent->kind = BLK_EXTENT_DATA;
        break;
    }
    return 0;
}
