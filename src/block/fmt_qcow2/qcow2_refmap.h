/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How often each host cluster is referred to, counted from the tables of an image.
 *
 * Counted is one window of clusters at a time, so that memory is bounded whatever the file's size;
 * for files beyond a window's reach all tables are walked once for each window.
 */
#ifndef BLOCK_FMT_QCOW2_QCOW2_REFMAP_H
#define BLOCK_FMT_QCOW2_QCOW2_REFMAP_H

#include "block/fmt_qcow2/qcow2_int.h"

/* Clusters in a window: 64 MiB of counts, and a multiple of what any refcount block covers. */
#define QCOW2_REFMAP_WINDOW (UINT64_C(16) << 20)
/* Bytes of tables that a check reads before it gives up: snapshots of snapshots of a hostile image
 * can refer to the same tables any number of times. 16 GiB is seconds of work, and the tables of a
 * 128 TiB disk at 64 KiB clusters, or of a 2 TiB disk and 63 snapshots that are full. */
#define QCOW2_REFMAP_MAX_WORK (16 * GIB)
/* Findings that are put into words; the rest is only counted. */
#define QCOW2_REFMAP_MAX_REPORTS 1000

struct qcow2_refmap {
    struct qcow2 *q;
    struct blk_check *check;
    uint64_t first; /* the window is [first, first + QCOW2_REFMAP_WINDOW) */
    uint32_t *count;
    uint64_t end;    /* clusters of the file, the last one perhaps not whole */
    bool first_pass; /* findings about the tables themselves are counted */
    bool skip_refs;  /* the refcount table and its blocks are about to be replaced: not counted */
    bool bad_refs;   /* they are malformed or missing */
    uint64_t reports;
    uint64_t work;
};

MUST_USE int qcow2_refmap_init(struct qcow2_refmap *m, struct qcow2 *q, struct blk_check *check);
void qcow2_refmap_done(struct qcow2_refmap *m);
/* Counts the references to the window at `first`. meta_lock; what is cached has been written. */
MUST_USE int qcow2_refmap_walk(struct qcow2_refmap *m, uint64_t first, struct err *err);
/* A finding in words. */
void qcow2_refmap_report(struct qcow2_refmap *m, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
