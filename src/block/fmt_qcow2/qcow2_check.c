/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Consistency check and repair.
 *
 *   1. count all references (qcow2_refmap.c) and compare with the refcounts:
 *        more references than the refcount: error; fewer: leak
 *   2. where the refcount structures themselves are broken: build new ones behind the end of the
 *      file, switch the header over; otherwise set the counts that are wrong
 *   3. compare the "refcount is one" flags of the active tables with the refcounts
 *
 * What cannot be mended is a malformed entry: nobody knows where its data are. It stays an error,
 * and the image stays marked corrupt when it was.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_refmap.h"

/* New refcount blocks that a rebuild may write. */
#define QCOW2_CHECK_MAX_REBUILD GIB

static uint64_t qcow2_check_max_count(const struct qcow2 *q)
{
    return ~UINT64_C(0) >> (64 - (1U << q->hdr.refcount_order));
}

/* Compares one cluster; mends the refcount in `fix` mode. */
static int qcow2_check_cluster(struct qcow2_refmap *m, unsigned fix, uint64_t cluster,
                               uint64_t refs, uint64_t counted)
{
    struct qcow2 *q = m->q;
    if (refs == counted) {
        return 0;
    }
    bool leak = counted > refs;
    *(leak ? &m->check->leaks : &m->check->errors) += 1;
    qcow2_refmap_report(m, "%s: cluster %" PRIu64 ": refcount %" PRIu64 ", references %" PRIu64,
                        leak ? "leak" : "error", cluster, counted, refs);
    if ((fix & (leak ? BLK_CHECK_FIX_LEAKS : BLK_CHECK_FIX_ERRORS)) == 0 ||
        refs > qcow2_check_max_count(q)) {
        return 0;
    }
    int rc = qcow2_ref_set(q, cluster, refs);
    if (rc == 0) {
        *(leak ? &m->check->leaks_fixed : &m->check->errors_fixed) += 1;
    }
    return rc;
}

/* Compares the clusters of one refcount block, as far as they are in the window and the file. */
static int qcow2_check_block(struct qcow2_refmap *m, unsigned fix, uint64_t index, uint8_t *buf,
                             struct err *err)
{
    struct qcow2 *q = m->q;
    uint64_t block = index < q->rt_size ? q->rt[index] : 0;
    bool usable =
        block != 0 && (block & (q->cluster_size - 1)) == 0 && block >> q->hdr.cluster_bits < m->end;
    if (usable) {
        int rc = qcow2_io_read(q, block, buf, q->cluster_size);
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot read a refcount block");
        }
        uint64_t self = block >> q->hdr.cluster_bits;
        if (self >= m->first && self - m->first < QCOW2_REFMAP_WINDOW &&
            m->count[self - m->first] > 1) {
            m->bad_refs = true; /* something else lies in the same place */
        }
    }
    uint64_t base = index << q->rb_bits;
    uint64_t n = BIT64(q->rb_bits);
    for (uint64_t i = 0; i < n && (usable || base + i < m->end); i++) {
        uint64_t c = base + i;
        uint64_t refs = c < m->end ? m->count[c - m->first] : 0;
        uint64_t counted = usable ? qcow2_ref_load(buf, q->hdr.refcount_order, i) : 0;
        m->bad_refs = m->bad_refs || (!usable && refs > 0);
        /* Without a block there is nothing to set: a rebuild mends it. */
        int rc = qcow2_check_cluster(m, usable ? fix : 0, c, refs, counted);
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot set a refcount");
        }
    }
    return 0;
}

/* Step 1 for all windows. Clusters past the last window are only counted where blocks are. */
static int qcow2_check_counts(struct qcow2_refmap *m, unsigned fix, struct err *err)
{
    const struct qcow2 *q = m->q;
    CLEANUP_FREE uint8_t *buf = qcow2_io_buf(q->cluster_size);
    if (buf == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    uint64_t blocks = MAX((uint64_t)q->rt_size, ((m->end - 1) >> q->rb_bits) + 1);
    uint64_t per_window = QCOW2_REFMAP_WINDOW >> q->rb_bits;
    for (uint64_t b = 0; b < blocks; b++) {
        if (b >= q->rt_size && b << q->rb_bits >= m->end) {
            break;
        }
        if (b % per_window == 0 && (b == 0 || b << q->rb_bits < m->end)) {
            int rc = qcow2_refmap_walk(m, b << q->rb_bits, err);
            if (rc < 0) {
                return rc;
            }
        }
        int rc = qcow2_check_block(m, fix, b, buf, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Fills the block for `index` from the counts, with the new area [end, end + area) counted once. */
static void qcow2_check_fill(const struct qcow2_refmap *m, uint64_t index, uint64_t area,
                             uint8_t *buf)
{
    const struct qcow2 *q = m->q;
    uint64_t base = index << q->rb_bits;
    memset(buf, 0, q->cluster_size);
    for (uint64_t i = 0; i < BIT64(q->rb_bits); i++) {
        uint64_t c = base + i;
        uint64_t refs = c < m->end ? m->count[c - m->first] : c < m->end + area;
        if (refs > 0) {
            qcow2_ref_store(buf, q->hdr.refcount_order, i, MIN(refs, qcow2_check_max_count(q)));
        }
    }
}

/* Makes the header point to the new table, and forgets the old one. */
static int qcow2_check_switch(struct qcow2 *q, uint64_t *take_table, uint32_t size, uint64_t at,
                              uint64_t clusters, uint64_t end)
{
    int rc = qcow2_io_flush(q);
    if (rc == 0) {
        q->hdr.rt_offset = at;
        q->hdr.rt_clusters = (uint32_t)clusters;
        rc = qcow2_hdr_update(q);
    }
    if (rc < 0) {
        q->corrupt = true; /* the header may name either */
        free(take_table);
        return rc;
    }
    for (uint32_t i = 0; i < q->rt_size; i++) {
        if (q->rt[i] != 0) {
            qcow2_cache_drop(q, bits_align_down(q->rt[i], q->cluster_size), q->cluster_size);
        }
    }
    pthread_mutex_lock(&q->map_lock);
    uint64_t *old = q->rt;
    q->rt = take_table;
    q->rt_size = size;
    q->rt_dirty = (struct qcow2_span){ 0 };
    qcow2_io_add_meta(q, at, (end << q->hdr.cluster_bits) - at);
    pthread_mutex_unlock(&q->map_lock);
    free(old);
    q->free_hint = 1;
    q->file_end = end;
    return 0;
}

/* Step 2, the large way. */
static int qcow2_check_rebuild(struct qcow2_refmap *m, struct err *err)
{
    struct qcow2 *q = m->q;
    uint64_t cs = q->cluster_size;
    uint64_t table = 1;
    uint64_t blocks = 1;
    for (;;) {
        uint64_t b = (m->end + table + blocks + BIT64(q->rb_bits) - 1) >> q->rb_bits;
        uint64_t t = (b * 8 + cs - 1) >> q->hdr.cluster_bits;
        if (b <= blocks && t <= table) {
            break;
        }
        blocks = MAX(b, blocks);
        table = MAX(t, table);
    }
    if (blocks * cs > QCOW2_CHECK_MAX_REBUILD || table * cs > MAX(QCOW2_MAX_REFTABLE_BYTES, cs)) {
        return err_set(err, -EFBIG, "new refcount blocks would take %" PRIu64 " bytes",
                       blocks * cs);
    }
    uint32_t size = (uint32_t)(table * cs / 8);
    uint64_t *rt = calloc(size, 8);
    CLEANUP_FREE uint8_t *buf = qcow2_io_buf(MAX(table, UINT64_C(1)) * cs);
    if (rt == NULL || buf == NULL) {
        free(rt);
        return err_set(err, -ENOMEM, "out of memory");
    }
    m->skip_refs = true;
    int rc = 0;
    uint64_t per_window = QCOW2_REFMAP_WINDOW >> q->rb_bits;
    for (uint64_t b = 0; rc == 0 && b < blocks; b++) {
        if (b % per_window == 0 && (b == 0 || b << q->rb_bits < m->end)) {
            rc = qcow2_refmap_walk(m, b << q->rb_bits, err);
            if (rc < 0) {
                free(rt);
                return rc;
            }
        }
        rt[b] = (m->end + table + b) << q->hdr.cluster_bits;
        qcow2_check_fill(m, b, table + blocks, buf);
        rc = qcow2_io_write(q, rt[b], buf, cs);
    }
    for (uint32_t i = 0; i < size; i++) {
        be64_put(buf + (size_t)i * 8, rt[i]);
    }
    if (rc == 0) {
        rc = qcow2_io_write(q, m->end << q->hdr.cluster_bits, buf, table * cs);
    }
    if (rc < 0) {
        free(rt);
        return err_set_errno(err, rc, "cannot write new refcounts");
    }
    rc = qcow2_check_switch(q, rt, size, m->end << q->hdr.cluster_bits, table,
                            m->end + table + blocks);
    return rc < 0 ? err_set_errno(err, rc, "cannot write new refcounts") : 0;
}

/* Should `entry` carry the flag, and does it? Returns 1 when that is to be changed. */
static int qcow2_check_flag(struct qcow2_refmap *m, uint64_t entry, bool compressed,
                            const char *what)
{
    uint64_t count = 0;
    if (!compressed) {
        int rc = qcow2_ref_get(m->q, (entry & QCOW2_OFFSET_MASK) >> m->q->hdr.cluster_bits, &count);
        if (rc < 0) {
            return rc;
        }
    }
    if ((count == 1) == ((entry & QCOW2_COPIED) != 0)) {
        return 0;
    }
    m->check->errors++;
    qcow2_refmap_report(m, "error: %s 0x%" PRIx64 ": refcount %" PRIu64 " and its flag contradict",
                        what, entry, count);
    return 1;
}

/* Step 3 for one L2 table. */
static int qcow2_check_l2_flags(struct qcow2_refmap *m, unsigned fix, uint64_t offset,
                                uint64_t *table)
{
    struct qcow2 *q = m->q;
    uint64_t fixed = 0;
    uint32_t n = (uint32_t)(q->cluster_size / 8);
    int rc = qcow2_io_read(q, offset, table, q->cluster_size);
    for (uint32_t i = 0; rc == 0 && i < n; i += BIT(q->l2_shift) / 8) {
        enum qcow2_kind kind;
        uint64_t entry = be64_get(&table[i]);
        if (entry == 0 || qcow2_map_kind(q, entry, &kind) < 0 || kind == QCOW2_ZERO_PLAIN) {
            continue;
        }
        rc = qcow2_check_flag(m, entry, kind == QCOW2_COMPRESSED, "level 2 entry");
        if (rc == 1) {
            be64_put(&table[i], entry ^ QCOW2_COPIED);
            fixed++;
            rc = 0;
        }
    }
    if (rc == 0 && fixed > 0 && (fix & BLK_CHECK_FIX_ERRORS) != 0) {
        qcow2_cache_drop(q, offset, q->cluster_size);
        rc = qcow2_io_write(q, offset, table, q->cluster_size);
        m->check->errors_fixed += rc == 0 ? fixed : 0;
    }
    return rc;
}

/* Step 3. Only of the active L1 table, which is in memory. */
static int qcow2_check_flags(struct qcow2_refmap *m, unsigned fix, struct err *err)
{
    struct qcow2 *q = m->q;
    CLEANUP_FREE uint64_t *table = qcow2_io_buf(q->cluster_size);
    if (table == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < q->l1_size; i++) {
        uint64_t entry = q->l1[i];
        uint64_t offset = entry & QCOW2_OFFSET_MASK;
        if (offset == 0 || (entry & QCOW2_L1_RESERVED) != 0 ||
            (offset & (q->cluster_size - 1)) != 0 || offset >> q->hdr.cluster_bits >= m->end) {
            continue; /* reported by the walk */
        }
        rc = qcow2_check_flag(m, entry, false, "level 1 entry");
        if (rc == 1 && (fix & BLK_CHECK_FIX_ERRORS) != 0) {
            pthread_mutex_lock(&q->map_lock);
            q->l1[i] = entry ^ QCOW2_COPIED;
            pthread_mutex_unlock(&q->map_lock);
            q->l1_dirty.lo = q->l1_dirty.lo >= q->l1_dirty.hi ? i : q->l1_dirty.lo;
            q->l1_dirty.hi = i + 1;
            m->check->errors_fixed++;
        }
        if (rc >= 0 && !qcow2_data_external(q)) {
            rc = qcow2_check_l2_flags(m, fix, offset, table);
        }
    }
    return rc < 0 ? err_set_errno(err, rc, "cannot check the tables' flags") : 0;
}

/* The whole check; the image is flushed. */
static int qcow2_check_run(struct qcow2_refmap *m, unsigned fix, struct err *err)
{
    struct qcow2 *q = m->q;
    int rc = qcow2_check_counts(m, fix, err);
    if (rc == 0 && m->bad_refs && (fix & BLK_CHECK_FIX_ERRORS) != 0) {
        uint64_t malformed = 0; /* found again by nobody: a rebuild ends these */
        rc = qcow2_check_rebuild(m, err);
        if (rc == 0) {
            /* Look again, with nothing left to mend there: what remains was not about refcounts. */
            struct blk_check after = { 0 };
            struct qcow2_refmap again;
            if (qcow2_refmap_init(&again, q, &after) < 0) {
                return err_set(err, -ENOMEM, "out of memory");
            }
            rc = qcow2_check_counts(&again, 0, err);
            qcow2_refmap_done(&again);
            malformed = after.errors;
            m->check->errors_fixed = m->check->errors - MIN(malformed, m->check->errors);
            m->check->leaks_fixed = m->check->leaks;
        }
    }
    if (rc == 0 && fix != 0) {
        rc = qcow2_flush_all(q);
        rc = rc < 0 ? err_set_errno(err, rc, "cannot write the refcounts") : 0;
    }
    return rc == 0 ? qcow2_check_flags(m, fix, err) : rc;
}

/* After a repair: the marks in the header. */
static int qcow2_check_finish(struct qcow2 *q, const struct blk_check *check, bool was_corrupt,
                              struct err *err)
{
    int rc = qcow2_flush_all(q);
    if (rc == 0 && check->errors == check->errors_fixed) {
        uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
        if ((q->hdr.incompat & marks) != 0) {
            q->hdr.incompat &= ~marks;
            rc = qcow2_hdr_update(q);
        }
    } else {
        q->corrupt = q->corrupt || was_corrupt;
    }
    return rc < 0 ? err_set_errno(err, rc, "cannot complete the repair") : 0;
}

int qcow2_check_locked(struct qcow2 *q, unsigned fix, struct blk_check *check, struct err *err)
{
    struct qcow2_refmap m;
    bool was_corrupt = q->corrupt;
    int rc = fmt_qcow2_load_reftable(q);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the refcount table");
    }
    if (fix != 0 && was_corrupt && (fix & BLK_CHECK_FIX_ERRORS) == 0) {
        return err_set(err, -EIO, "the image is marked corrupt: only `--repair all` can mend it");
    }
    if (qcow2_refmap_init(&m, q, check) < 0) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    if (fix != 0) {
        q->corrupt = false;
    }
    check->clusters_total = (q->hdr.size + q->cluster_size - 1) >> q->hdr.cluster_bits;
    rc = qcow2_check_run(&m, fix, err);
    qcow2_refmap_done(&m);
    if (rc == 0 && fix != 0) {
        rc = qcow2_check_finish(q, check, was_corrupt, err);
    } else {
        q->corrupt = q->corrupt || was_corrupt;
    }
    return rc;
}

int qcow2_check(struct blk *blk, unsigned fix, struct blk_check *check, struct err *err)
{
    struct qcow2 *q = qcow2_of(blk);
    if (fix != 0 && q->read_only) {
        return err_set(err, -EROFS, "the image is open read-only and cannot be mended");
    }
    pthread_mutex_lock(&q->meta_lock);
    qcow2_write_wait(q, 0, UINT64_MAX);
    int rc = q->read_only || q->corrupt ? 0 : qcow2_flush_all(q);
    if (rc < 0) {
        rc = err_set_errno(err, rc, "cannot flush before the check");
    } else {
        rc = qcow2_check_locked(q, fix, check, err);
    }
    pthread_mutex_unlock(&q->meta_lock);
    return rc;
}
