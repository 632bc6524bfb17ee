/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/fmt_qcow2/qcow2_refmap.h"

#include <errno.h>
#include <inttypes.h>
#include <libintl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* L1 tables are read in pieces of this many entries. */
#define QCOW2_REFMAP_PIECE 8192

int qcow2_refmap_init(struct qcow2_refmap *m, struct qcow2 *q, struct blk_check *check)
{
    *m = (struct qcow2_refmap){ .q = q, .check = check, .first_pass = true };
    m->end = (q->file->size + q->cluster_size - 1) >> q->hdr.cluster_bits;
    m->count = calloc(MIN(QCOW2_REFMAP_WINDOW, m->end + 1), sizeof(*m->count));
    return m->count == NULL ? -ENOMEM : 0;
}

void qcow2_refmap_done(struct qcow2_refmap *m)
{
    free(m->count);
}

void qcow2_refmap_report(struct qcow2_refmap *m, const char *fmt, ...)
{
    char text[256];
    if (m->check->report == NULL || m->reports > QCOW2_REFMAP_MAX_REPORTS) {
        return;
    }
    if (m->reports++ == QCOW2_REFMAP_MAX_REPORTS) {
        m->check->report(m->check->opaque, gettext("more was found, which is only counted"));
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), gettext(fmt), ap);
    va_end(ap);
    m->check->report(m->check->opaque, text);
}

static void qcow2_refmap_error(struct qcow2_refmap *m, const char *what, uint64_t value)
{
    if (m->first_pass) {
        m->check->errors++;
        qcow2_refmap_report(m, "error: %s: 0x%" PRIx64, what, value);
    }
}

/* One more reference to each cluster of [offset, offset + len). */
static void qcow2_refmap_add(struct qcow2_refmap *m, const char *what, uint64_t offset,
                             uint64_t len)
{
    const struct qcow2 *q = m->q;
    if (len == 0) {
        return;
    }
    uint64_t first = offset >> q->hdr.cluster_bits;
    uint64_t last = (offset + len - 1) >> q->hdr.cluster_bits;
    if (last >= m->end) {
        if (m->first_pass) {
            m->check->errors++;
            qcow2_refmap_report(m, "error: %s lies past the end of the file: 0x%" PRIx64, what,
                                offset);
        }
        return;
    }
    for (uint64_t c = first; c <= last; c++) {
        if (c >= m->first && c - m->first < QCOW2_REFMAP_WINDOW &&
            m->count[c - m->first] < UINT32_MAX) {
            m->count[c - m->first]++;
        }
    }
}

static int qcow2_refmap_spend(struct qcow2_refmap *m, uint64_t bytes, struct err *err)
{
    m->work += MAX(bytes, UINT64_C(4096));
    if (m->work > QCOW2_REFMAP_MAX_WORK) {
        return err_set(err, -EFBIG, "the tables to check are more than %" PRIu64 " bytes",
                       QCOW2_REFMAP_MAX_WORK);
    }
    return 0;
}

static void qcow2_refmap_entry(struct qcow2_refmap *m, const uint64_t *p, bool active)
{
    const struct qcow2 *q = m->q;
    uint64_t entry = p[0];
    enum qcow2_kind kind;
    if (qcow2_sub(q)) {
        struct qcow2_sub_entry e = { .desc = p[0], .bits = p[1] };
        if (qcow2_sub_check(q, &e) < 0 && qcow2_map_kind(q, entry, &kind) == 0) {
            qcow2_refmap_error(m, "malformed subclusters of level 2 entry", entry);
        }
    }
    if (qcow2_map_kind(q, entry, &kind) < 0) {
        qcow2_refmap_error(m, "malformed level 2 entry", entry);
        return;
    }
    if (kind == QCOW2_UNALLOCATED || kind == QCOW2_ZERO_PLAIN) {
        return;
    }
    if (m->first_pass && active) {
        m->check->clusters_allocated++;
    }
    if (qcow2_data_external(q)) {
        return; /* the cluster is not in this file */
    }
    if (kind == QCOW2_COMPRESSED) {
        uint64_t offset;
        uint64_t len;
        qcow2_map_compressed(q, entry, &offset, &len);
        if (offset > QCOW2_MAX_HOST_OFFSET) {
            qcow2_refmap_error(m, "malformed level 2 entry", entry);
            return;
        }
        qcow2_refmap_add(m, "compressed cluster", offset, len);
        return;
    }
    qcow2_refmap_add(m, "data cluster", entry & QCOW2_OFFSET_MASK, q->cluster_size);
}

static int qcow2_refmap_l2(struct qcow2_refmap *m, uint64_t entry, uint64_t *table, bool active,
                           struct err *err)
{
    struct qcow2 *q = m->q;
    uint64_t offset = entry & QCOW2_OFFSET_MASK;
    if ((entry & QCOW2_L1_RESERVED) != 0 || (offset & (q->cluster_size - 1)) != 0) {
        qcow2_refmap_error(m, "malformed level 1 entry", entry);
        return 0;
    }
    if (offset == 0) {
        return 0;
    }
    qcow2_refmap_add(m, "level 2 table", offset, q->cluster_size);
    if (offset >> q->hdr.cluster_bits >= m->end) {
        return 0;
    }
    int rc = qcow2_refmap_spend(m, q->cluster_size, err);
    if (rc < 0) {
        return rc;
    }
    uint32_t n = (uint32_t)(q->cluster_size / 8);
    rc = qcow2_io_read_table(q, offset, table, n);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read a level 2 table");
    }
    uint32_t step = BIT(q->l2_shift) / 8;
    for (uint32_t i = 0; i < n; i += step) {
        if (table[i] != 0 || table[i + step - 1] != 0) {
            qcow2_refmap_entry(m, &table[i], active);
        }
    }
    return 0;
}

static int qcow2_refmap_l1(struct qcow2_refmap *m, uint64_t offset, uint32_t size, bool active,
                           struct err *err)
{
    struct qcow2 *q = m->q;
    CLEANUP_FREE uint64_t *piece = qcow2_io_buf(QCOW2_REFMAP_PIECE * 8);
    CLEANUP_FREE uint64_t *table = qcow2_io_buf(q->cluster_size);
    if (piece == NULL || table == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    qcow2_refmap_add(m, "level 1 table", offset, (uint64_t)size * 8);
    /* What lies past the end has been reported, and reads as zeroes. */
    uint64_t inside = q->file->size > offset ? (q->file->size - offset + 7) / 8 : 0;
    size = (uint32_t)MIN((uint64_t)size, inside);
    for (uint32_t at = 0; at < size; at += QCOW2_REFMAP_PIECE) {
        uint32_t n = MIN(size - at, (uint32_t)QCOW2_REFMAP_PIECE);
        int rc = qcow2_refmap_spend(m, (uint64_t)n * 8, err);
        if (rc < 0) {
            return rc;
        }
        rc = qcow2_io_read_table(q, offset + (uint64_t)at * 8, piece, n);
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot read a level 1 table");
        }
        for (uint32_t i = 0; i < n; i++) {
            rc = piece[i] == 0 ? 0 : qcow2_refmap_l2(m, piece[i], table, active, err);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

static void qcow2_refmap_refs(struct qcow2_refmap *m)
{
    const struct qcow2 *q = m->q;
    qcow2_refmap_add(m, "refcount table", q->hdr.rt_offset,
                     (uint64_t)q->hdr.rt_clusters << q->hdr.cluster_bits);
    for (uint32_t i = 0; i < q->rt_size; i++) {
        uint64_t block = q->rt[i];
        if (block == 0) {
            continue;
        }
        if ((block & (q->cluster_size - 1)) != 0 || block >> q->hdr.cluster_bits >= m->end) {
            qcow2_refmap_error(m, "malformed refcount table entry", block);
            m->bad_refs = true;
            continue;
        }
        qcow2_refmap_add(m, "refcount block", block, q->cluster_size);
    }
}

static int qcow2_refmap_snapshots(struct qcow2_refmap *m, struct err *err)
{
    struct qcow2 *q = m->q;
    struct qcow2_snap *snaps;
    uint64_t bytes = 0;
    if (q->hdr.nb_snapshots == 0) {
        return 0;
    }
    int rc = qcow2_snap_read(q, &snaps, &bytes, err);
    if (rc < 0) {
        return rc;
    }
    qcow2_refmap_add(m, "snapshot table", q->hdr.snap_offset, bytes);
    for (uint32_t i = 0; rc == 0 && i < q->hdr.nb_snapshots; i++) {
        rc = qcow2_refmap_l1(m, snaps[i].l1_offset, snaps[i].l1_size, false, err);
    }
    qcow2_snap_free(snaps, q->hdr.nb_snapshots);
    return rc;
}

/* The table of one bitmap and the clusters with its bits. */
static int qcow2_refmap_bitmap(struct qcow2_refmap *m, uint64_t offset, uint32_t size,
                               struct err *err)
{
    struct qcow2 *q = m->q;
    if ((offset & (q->cluster_size - 1)) != 0 || (uint64_t)size * 8 > QCOW2_MAX_BITMAP_TABLE ||
        offset > (uint64_t)INT64_MAX - QCOW2_MAX_BITMAP_TABLE) {
        qcow2_refmap_error(m, "malformed bitmap table", offset);
        return 0;
    }
    int rc = qcow2_refmap_spend(m, (uint64_t)size * 8, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE uint64_t *table = qcow2_io_buf(MAX((size_t)size * 8, (size_t)8));
    if (table == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    rc = size == 0 ? 0 : qcow2_io_read_table(q, offset, table, size);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read a bitmap table");
    }
    qcow2_refmap_add(m, "bitmap table", offset, (uint64_t)size * 8);
    for (uint32_t i = 0; i < size; i++) {
        uint64_t data = table[i] & QCOW2_OFFSET_MASK;
        if ((data & (q->cluster_size - 1)) != 0) {
            qcow2_refmap_error(m, "malformed bitmap table entry", table[i]);
        } else if (data != 0) {
            qcow2_refmap_add(m, "bitmap data", data, q->cluster_size);
        }
    }
    return 0;
}

static int qcow2_refmap_bitmaps(struct qcow2_refmap *m, struct err *err)
{
    struct qcow2 *q = m->q;
    /* Without the bit they are not valid, and their clusters are nobody's. */
    if (!q->hdr.has_bitmaps || (q->hdr.autoclear & QCOW2_AUTOCLEAR_BITMAPS) == 0) {
        return 0;
    }
    uint64_t at = 0;
    uint64_t size = q->hdr.bm_dir_size;
    qcow2_refmap_add(m, "bitmap directory", q->hdr.bm_dir_offset, size);
    for (uint32_t i = 0; i < MIN(q->hdr.nb_bitmaps, (uint32_t)QCOW2_MAX_BITMAPS); i++) {
        uint8_t dir[QCOW2_BM_DIR_LEN];
        if (size < sizeof(dir) || at > size - sizeof(dir)) {
            qcow2_refmap_error(m, "bitmap directory is too short", size);
            return 0;
        }
        int rc = qcow2_io_read(q, q->hdr.bm_dir_offset + at, dir, sizeof(dir));
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot read the bitmap directory");
        }
        rc = qcow2_refmap_bitmap(m, be64_get(dir + QCOW2_BM_DIR_TABLE),
                                 be32_get(dir + QCOW2_BM_DIR_TABLE_SIZE), err);
        if (rc < 0) {
            return rc;
        }
        at += bits_align_up((uint64_t)QCOW2_BM_DIR_LEN + be16_get(dir + QCOW2_BM_DIR_NAME_SIZE) +
                                be32_get(dir + QCOW2_BM_DIR_EXTRA_SIZE),
                            8);
    }
    return 0;
}

int qcow2_refmap_walk(struct qcow2_refmap *m, uint64_t first, struct err *err)
{
    struct qcow2 *q = m->q;
    m->first = first;
    memset(m->count, 0, MIN(QCOW2_REFMAP_WINDOW, m->end + 1) * sizeof(*m->count));
    qcow2_refmap_add(m, "header", 0, q->cluster_size);
    if (!m->skip_refs) {
        qcow2_refmap_refs(m);
    }
    int rc = qcow2_refmap_l1(m, q->hdr.l1_offset, q->hdr.l1_size, true, err);
    if (rc == 0) {
        rc = qcow2_refmap_snapshots(m, err);
    }
    if (rc == 0) {
        rc = qcow2_refmap_bitmaps(m, err);
    }
    m->first_pass = false;
    return rc;
}
