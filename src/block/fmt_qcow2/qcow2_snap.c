/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots: the table of them, read only. Spec: qcow2.txt of QEMU 7.2, "Snapshots".
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/fmt_qcow2/qcow2_int.h"

void qcow2_snap_free(struct qcow2_snap *snaps, uint32_t n)
{
    for (uint32_t i = 0; snaps != NULL && i < n; i++) {
        free(snaps[i].id);
        free(snaps[i].name);
    }
    free(snaps);
}

static int qcow2_snap_string(struct qcow2 *q, uint64_t offset, uint16_t len, char **ret)
{
    char *s = calloc(1, (size_t)len + 1);
    if (s == NULL) {
        return -ENOMEM;
    }
    *ret = s;
    return len == 0 ? 0 : qcow2_io_read(q, offset, s, len);
}

/* Reads the entry at *at and moves *at to the next. */
static int qcow2_snap_entry(struct qcow2 *q, uint64_t *at, struct qcow2_snap *s, struct err *err)
{
    uint8_t fix[QCOW2_SN_X_DISK_SIZE + 8] = { 0 };
    int rc = qcow2_io_read(q, *at, fix, QCOW2_SN_LEN);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the snapshot table");
    }
    s->l1_offset = be64_get(fix + QCOW2_SN_L1_OFFSET);
    s->l1_size = be32_get(fix + QCOW2_SN_L1_SIZE);
    s->date_sec = be32_get(fix + QCOW2_SN_DATE_SEC);
    s->vm_state_size = be32_get(fix + QCOW2_SN_VM_STATE_SIZE);
    s->disk_size = UINT64_MAX;
    uint16_t id_len = be16_get(fix + QCOW2_SN_ID_SIZE);
    uint16_t name_len = be16_get(fix + QCOW2_SN_NAME_SIZE);
    uint32_t extra = be32_get(fix + QCOW2_SN_EXTRA_SIZE);
    if (extra > QCOW2_MAX_SNAP_EXTRA) {
        return err_set(err, -EINVAL, "a snapshot has %" PRIu32 " bytes of extra data, at most %d",
                       extra, QCOW2_MAX_SNAP_EXTRA);
    }
    if ((uint64_t)s->l1_size * 8 > QCOW2_MAX_L1_BYTES ||
        (s->l1_size > 0 && (s->l1_offset == 0 || (s->l1_offset & (q->cluster_size - 1)) != 0 ||
                            s->l1_offset > (uint64_t)INT64_MAX - QCOW2_MAX_L1_BYTES))) {
        return err_set(err, -EINVAL,
                       "a snapshot's level 1 table (%" PRIu32 " entries at offset %" PRIu64
                       ") is malformed",
                       s->l1_size, s->l1_offset);
    }
    uint32_t known = MIN(extra, (uint32_t)(sizeof(fix) - QCOW2_SN_LEN));
    if (known > 0) {
        rc = qcow2_io_read(q, *at + QCOW2_SN_LEN, fix + QCOW2_SN_LEN, known);
    }
    if (known >= QCOW2_SN_X_VM_STATE + 8 - QCOW2_SN_LEN) {
        s->vm_state_size = be64_get(fix + QCOW2_SN_X_VM_STATE);
    }
    if (known >= QCOW2_SN_X_DISK_SIZE + 8 - QCOW2_SN_LEN) {
        s->disk_size = be64_get(fix + QCOW2_SN_X_DISK_SIZE);
    }
    uint64_t text = *at + QCOW2_SN_LEN + extra;
    if (rc == 0) {
        rc = qcow2_snap_string(q, text, id_len, &s->id);
    }
    if (rc == 0) {
        rc = qcow2_snap_string(q, text + id_len, name_len, &s->name);
    }
    *at = bits_align_up(text + id_len + name_len, 8);
    return rc < 0 ? err_set_errno(err, rc, "cannot read the snapshot table") : 0;
}

int qcow2_snap_read(struct qcow2 *q, struct qcow2_snap **ret_snaps, uint64_t *ret_bytes,
                    struct err *err)
{
    uint32_t n = q->hdr.nb_snapshots;
    uint64_t at = q->hdr.snap_offset;
    struct qcow2_snap *snaps = calloc(MAX(n, 1U), sizeof(*snaps));
    if (snaps == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < n; i++) {
        int rc = qcow2_snap_entry(q, &at, &snaps[i], err);
        if (rc == 0 && at - q->hdr.snap_offset > QCOW2_MAX_SNAPTABLE_BYTES) {
            rc = err_set(err, -EFBIG, "the snapshot table is longer than %" PRIu64 " bytes",
                         QCOW2_MAX_SNAPTABLE_BYTES);
        }
        if (rc < 0) {
            qcow2_snap_free(snaps, n);
            return rc;
        }
    }
    if (ret_bytes != NULL) {
        *ret_bytes = at - q->hdr.snap_offset;
    }
    *ret_snaps = snaps;
    return 0;
}

int qcow2_snap_find(struct qcow2 *q, const char *which, struct qcow2_snap *ret_snap,
                    struct err *err)
{
    struct qcow2_snap *snaps;
    int rc = qcow2_snap_read(q, &snaps, NULL, err);
    if (rc < 0) {
        return rc;
    }
    const struct qcow2_snap *found = NULL;
    for (uint32_t i = 0; found == NULL && i < q->hdr.nb_snapshots; i++) {
        found = strcmp(snaps[i].id, which) == 0 ? &snaps[i] : NULL;
    }
    for (uint32_t i = 0; found == NULL && i < q->hdr.nb_snapshots; i++) {
        found = strcmp(snaps[i].name, which) == 0 ? &snaps[i] : NULL;
    }
    if (found == NULL) {
        rc = err_set(err, -ENOENT, "there is no snapshot '%s' among the image's %" PRIu32, which,
                     q->hdr.nb_snapshots);
    } else {
        *ret_snap = *found;
        ret_snap->id = NULL;
        ret_snap->name = NULL;
    }
    qcow2_snap_free(snaps, q->hdr.nb_snapshots);
    return rc;
}

int qcow2_snap_protect(struct qcow2 *q, struct err *err)
{
    uint32_t n = q->hdr.nb_snapshots;
    if (n == 0) {
        return 0;
    }
    struct qcow2_snap *snaps;
    uint64_t bytes;
    int rc = qcow2_snap_read(q, &snaps, &bytes, err);
    if (rc < 0) {
        return rc;
    }
    q->snap_meta = calloc((size_t)n + 1, sizeof(*q->snap_meta));
    if (q->snap_meta == NULL) {
        rc = err_set(err, -ENOMEM, "out of memory");
    } else {
        q->snap_meta[0] = (struct qcow2_meta_range){ q->hdr.snap_offset, bytes };
        for (uint32_t i = 0; i < n; i++) {
            q->snap_meta[i + 1] =
                (struct qcow2_meta_range){ snaps[i].l1_offset, (uint64_t)snaps[i].l1_size * 8 };
        }
        q->nsnap_meta = (size_t)n + 1;
    }
    qcow2_snap_free(snaps, n);
    return rc;
}
