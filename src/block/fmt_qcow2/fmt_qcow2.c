/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The qcow2 format, versions 2 and 3: opening and closing an image. See qcow2_int.h for the map of
 * the files, qcow2_flush.c for what makes it safe, docs/block/qcow2.md for what is supported.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

int fmt_qcow2_load_reftable(struct qcow2 *q)
{
    if (q->rt != NULL) {
        return 0;
    }
    uint32_t n = (uint32_t)(((uint64_t)q->hdr.rt_clusters << q->hdr.cluster_bits) / 8);
    uint64_t *rt = calloc(n, 8);
    if (rt == NULL) {
        return -ENOMEM;
    }
    int rc = qcow2_io_read_table(q, q->hdr.rt_offset, rt, n);
    if (rc < 0) {
        free(rt);
        return rc;
    }
    /* Reserved bits are dropped here, once: each entry is an offset or 0 from here on. */
    for (uint32_t i = 0; i < n; i++) {
        rt[i] &= QCOW2_REFTABLE_MASK;
    }
    q->rt = rt;
    q->rt_size = n;
    return 0;
}

static int fmt_qcow2_read_header(struct qcow2 *q, struct err *err)
{
    size_t len = 0;
    int rc = qcow2_io_read(q, 0, q->hdr_sector, sizeof(q->hdr_sector));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    rc = qcow2_hdr_probe_len(q->hdr_sector, sizeof(q->hdr_sector), &len, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE uint8_t *head = qcow2_io_buf(len);
    if (head == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    rc = qcow2_io_read(q, 0, head, len);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    rc = qcow2_hdr_parse(head, len, &q->hdr, err);
    if (rc < 0) {
        return rc;
    }
    q->cluster_size = UINT64_C(1) << q->hdr.cluster_bits;
    q->sub_bits = q->hdr.cluster_bits - (qcow2_sub(q) ? 5 : 0);
    q->l2_shift = qcow2_sub(q) ? 4 : 3;
    q->l2_bits = q->hdr.cluster_bits - q->l2_shift;
    q->rb_bits = q->hdr.cluster_bits + 3 - q->hdr.refcount_order;
    return 0;
}

/* What the header says about its own state, against what is asked of the image. */
static int fmt_qcow2_check_state(struct qcow2 *q, const struct blk_opts *opts, struct err *err)
{
    if (opts->snapshot != NULL && !q->read_only) {
        return err_set(err, -EINVAL, "snapshot '%s' can only be opened read-only", opts->snapshot);
    }
    if ((q->hdr.incompat & QCOW2_INCOMPAT_CORRUPT) != 0 && !q->read_only) {
        /* Repair opens images without their backing files. */
        q->corrupt = true;
        if (!opts->no_backing) {
            return err_set(err, -EIO,
                           "the image is marked corrupt; open it read-only, or mend it with "
                           "`posada image check --repair all`");
        }
    }
    return 0;
}

/* Which L1 table, and the size of the disk that it maps. */
static int fmt_qcow2_load_l1(struct qcow2 *q, const struct blk_opts *opts, struct err *err)
{
    uint64_t offset = q->hdr.l1_offset;
    q->l1_size = q->hdr.l1_size;
    q->blk->size = q->hdr.size;
    if (opts->snapshot != NULL) {
        struct qcow2_snap snap;
        int rc = qcow2_snap_find(q, opts->snapshot, &snap, err);
        if (rc < 0) {
            return rc;
        }
        offset = snap.l1_offset;
        q->l1_size = snap.l1_size;
        q->blk->size = snap.disk_size == UINT64_MAX ? q->hdr.size : snap.disk_size;
        uint64_t reach = (uint64_t)snap.l1_size << (q->hdr.cluster_bits + q->l2_bits);
        if (q->blk->size > reach) {
            return err_set(err, -EINVAL,
                           "snapshot '%s': its level 1 table maps %" PRIu64
                           " bytes, its disk has %" PRIu64,
                           opts->snapshot, reach, (uint64_t)q->blk->size);
        }
    }
    q->l1 = calloc(MAX(q->l1_size, 1U), 8);
    if (q->l1 == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = q->l1_size == 0 ? 0 : qcow2_io_read_table(q, offset, q->l1, q->l1_size);
    return rc < 0 ? err_set_errno(err, rc, "cannot read the level 1 table") : 0;
}

/* A writer's part of opening: guards, features that a change of the image ends, the dirty bit. */
static int fmt_qcow2_open_rw(struct qcow2 *q, struct err *err)
{
    int rc = qcow2_snap_protect(q, err);
    if (rc < 0) {
        return rc;
    }
    rc = fmt_qcow2_load_reftable(q);
    if (rc == 0) {
        rc = qcow2_io_init_meta(q);
    }
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the refcount table");
    }
    q->free_hint = 1;
    q->file_end = (q->file->size + q->cluster_size - 1) >> q->hdr.cluster_bits;
    if (q->corrupt) {
        return 0;
    }
    uint64_t kept = qcow2_data_external(q) ? q->hdr.autoclear & QCOW2_AUTOCLEAR_DATA_RAW : 0;
    if (q->hdr.autoclear != kept) {
        /* Bitmaps do not follow what is written here: say so before the first write. */
        q->hdr.autoclear = kept;
        rc = qcow2_hdr_update(q);
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot write the header");
        }
    }
    if ((q->hdr.incompat & QCOW2_INCOMPAT_DIRTY) == 0) {
        return 0;
    }
    log_debug("qcow2", "not closed properly, refcounts are computed anew", "path='%s'",
              q->blk->path);
    struct blk_check check = { 0 };
    rc = qcow2_check_locked(q, BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS, &check, err);
    if (rc == 0 && check.errors > check.errors_fixed) {
        rc = err_set(err, -EIO,
                     "the image was not closed properly and has %" PRIu64
                     " errors that cannot be mended",
                     check.errors - check.errors_fixed);
    }
    return rc;
}

static int fmt_qcow2_init(struct qcow2 *q)
{
    uint32_t slice = (uint32_t)MIN(q->cluster_size, (uint64_t)QCOW2_SLICE_BYTES);
    int rc = qcow2_cache_init(&q->l2c, QCOW2_L2_CACHE_BYTES, slice, true);
    if (rc == 0) {
        rc = qcow2_cache_init(&q->rbc, QCOW2_REF_CACHE_BYTES, slice, false);
    }
    return rc;
}

static int fmt_qcow2_open(struct blk *blk, const struct blk_opts *opts, const char *arg,
                          struct err *err)
{
    struct qcow2 *q = blk->state;
    (void)arg;
    q->blk = blk;
    q->file = blk->file;
    q->read_only = blk->read_only;
    /* The default attributes cannot fail (pthread_mutex_init(3)). */
    (void)pthread_mutex_init(&q->meta_lock, NULL);
    (void)pthread_mutex_init(&q->map_lock, NULL);
    (void)pthread_mutex_init(&q->comp_lock, NULL);
    (void)pthread_cond_init(&q->busy_cond, NULL);
    TAILQ_INIT(&q->busy);
    int rc = fmt_qcow2_read_header(q, err);
    if (rc == 0) {
        rc = fmt_qcow2_check_state(q, opts, err);
    }
    if (rc == 0 && fmt_qcow2_init(q) < 0) {
        rc = err_set(err, -ENOMEM, "out of memory");
    }
    if (rc == 0) {
        rc = fmt_qcow2_load_l1(q, opts, err);
    }
    if (rc == 0) {
        rc = qcow2_data_open(q, opts, err);
    }
    if (rc == 0 && q->hdr.backing_name[0] != '\0' && !opts->no_backing) {
        rc = blk_backing_open(blk, opts, q->hdr.backing_name, q->hdr.backing_fmt, err);
    }
    if (rc == 0 && !q->read_only) {
        pthread_mutex_lock(&q->meta_lock);
        rc = fmt_qcow2_open_rw(q, err);
        pthread_mutex_unlock(&q->meta_lock);
    }
    blk->discard_align = (uint32_t)q->cluster_size;
    q->opened = rc == 0;
    return rc;
}

/* Everything to the disk, and the marks of use taken off. */
static int fmt_qcow2_write_back(struct qcow2 *q)
{
    pthread_mutex_lock(&q->meta_lock);
    int rc = qcow2_flush_all(q);
    if (rc == 0 && (q->hdr.incompat & QCOW2_INCOMPAT_DIRTY) != 0) {
        q->hdr.incompat &= ~QCOW2_INCOMPAT_DIRTY;
        rc = qcow2_hdr_update(q);
    }
    pthread_mutex_unlock(&q->meta_lock);
    return rc;
}

static int fmt_qcow2_close(struct blk *blk)
{
    struct qcow2 *q = blk->state;
    int rc = q->opened && !q->read_only && !q->corrupt ? fmt_qcow2_write_back(q) : 0;
    qcow2_data_close(q);
    qcow2_cache_done(&q->l2c);
    qcow2_cache_done(&q->rbc);
    free(q->l1);
    free(q->rt);
    free(q->freed);
    free(q->filter);
    free(q->snap_meta);
    free(q->comp_data);
    pthread_mutex_destroy(&q->meta_lock);
    pthread_mutex_destroy(&q->map_lock);
    pthread_mutex_destroy(&q->comp_lock);
    pthread_cond_destroy(&q->busy_cond);
    return rc;
}

const struct blk_class fmt_qcow2_class = {
    .name = "qcow2",
    .help = "QEMU's copy-on-write format, versions 2 and 3",
    .suffix = ".qcow2",
    .kind = BLK_KIND_FORMAT,
    .state_size = sizeof(struct qcow2),
    .open = fmt_qcow2_open,
    .close = fmt_qcow2_close,
    .preadv = qcow2_read,
    .pwritev = qcow2_write,
    .flush = qcow2_flush,
    .discard = qcow2_zero_discard,
    .write_zeroes = qcow2_zero,
    .truncate = qcow2_resize,
    .status = qcow2_read_status,
    .map = qcow2_map,
    .unmap = qcow2_unmap,
    .create = qcow2_create,
    .info = qcow2_info,
    .check = qcow2_check,
};
