/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Facts about a qcow2 image, for `posada image info`. */
#include <errno.h>

#include "block/fmt_qcow2/qcow2_int.h"

struct qcow2_info_sink {
    blk_info_fn *fn;
    void *opaque;
    const char *list;
    unsigned index;
};

static void qcow2_info_put(const struct qcow2_info_sink *sink, const char *key,
                           enum blk_info_type type, const char *string, uint64_t number)
{
    struct blk_info_item item = {
        .list = sink->list,
        .index = sink->index,
        .key = key,
        .type = type,
        .string = string,
        .number = number,
    };
    sink->fn(sink->opaque, &item);
}

static int qcow2_info_snapshots(struct qcow2 *q, struct qcow2_info_sink *sink, struct err *err)
{
    struct qcow2_snap *snaps;
    int rc = qcow2_snap_read(q, &snaps, NULL, err);
    if (rc < 0) {
        return rc;
    }
    sink->list = "snapshots";
    for (uint32_t i = 0; i < q->hdr.nb_snapshots; i++) {
        const struct qcow2_snap *s = &snaps[i];
        uint64_t size = s->disk_size == UINT64_MAX ? q->hdr.size : s->disk_size;
        sink->index = i;
        qcow2_info_put(sink, "id", BLK_INFO_STRING, s->id, 0);
        qcow2_info_put(sink, "name", BLK_INFO_STRING, s->name, 0);
        qcow2_info_put(sink, "date", BLK_INFO_NUMBER, NULL, s->date_sec);
        qcow2_info_put(sink, "disk_size", BLK_INFO_BYTES, NULL, size);
        qcow2_info_put(sink, "vm_state_size", BLK_INFO_BYTES, NULL, s->vm_state_size);
    }
    sink->list = NULL;
    qcow2_snap_free(snaps, q->hdr.nb_snapshots);
    return 0;
}

int qcow2_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err)
{
    struct qcow2 *q = qcow2_of(blk);
    const struct qcow2_hdr *h = &q->hdr;
    struct qcow2_info_sink sink = { .fn = fn, .opaque = opaque };
    qcow2_info_put(&sink, "cluster_size", BLK_INFO_BYTES, NULL, q->cluster_size);
    qcow2_info_put(&sink, "compat", BLK_INFO_STRING, h->version >= 3 ? "1.1" : "0.10", 0);
    qcow2_info_put(&sink, "refcount_bits", BLK_INFO_NUMBER, NULL, BIT(h->refcount_order));
    qcow2_info_put(&sink, "lazy_refcounts", BLK_INFO_BOOL, NULL,
                   (h->compat & QCOW2_COMPAT_LAZY_REFCOUNTS) != 0);
    qcow2_info_put(&sink, "extended_l2", BLK_INFO_BOOL, NULL, qcow2_sub(q));
    qcow2_info_put(&sink, "compression_type", BLK_INFO_STRING,
                   h->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib", 0);
    qcow2_info_put(&sink, "dirty", BLK_INFO_BOOL, NULL, (h->incompat & QCOW2_INCOMPAT_DIRTY) != 0);
    qcow2_info_put(&sink, "corrupt", BLK_INFO_BOOL, NULL,
                   (h->incompat & QCOW2_INCOMPAT_CORRUPT) != 0);
    if (h->has_bitmaps) {
        qcow2_info_put(&sink, "bitmaps", BLK_INFO_NUMBER, NULL, h->nb_bitmaps);
        qcow2_info_put(&sink, "bitmaps_valid", BLK_INFO_BOOL, NULL,
                       (h->autoclear & QCOW2_AUTOCLEAR_BITMAPS) != 0);
    }
    if (h->backing_name[0] != '\0') {
        qcow2_info_put(&sink, "backing_file", BLK_INFO_STRING, h->backing_name, 0);
        qcow2_info_put(&sink, "backing_format", BLK_INFO_STRING, h->backing_fmt, 0);
    }
    if (qcow2_data_external(q)) {
        qcow2_info_put(&sink, "data_file", BLK_INFO_STRING, h->data_name, 0);
        qcow2_info_put(&sink, "data_file_raw", BLK_INFO_BOOL, NULL, qcow2_data_raw(q));
    }
    return h->nb_snapshots > 0 ? qcow2_info_snapshots(q, &sink, err) : 0;
}
