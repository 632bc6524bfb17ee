/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes that the fast path leaves.
 *
 *   look up --> ours alone --> pin, write in place
 *      |
 *      '-----> anything else: allocate up to as many clusters as the write covers
 *                 -> enter them as busy (later writers of the same guest clusters wait)
 *                 -> no lock held: fill what the write does not cover from the old contents,
 *                    write all in one piece
 *                 -> link: set the L2 entries, free what they referred to, wake the waiters
 *
 * A failure before the link gives the clusters back, and the guest sees the old contents.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

/* One allocating write. */
struct qcow2_write_job {
    uint64_t start; /* guest offset of the first cluster */
    uint64_t n;     /* clusters */
    uint64_t lead;  /* bytes of the first cluster that stay as they are (subclusters) */
    uint64_t head;  /* bytes between those and the write: old contents go there */
    uint64_t len;   /* bytes of the write that this job covers */
    uint64_t tail;  /* bytes of old contents after it */
    uint64_t host;
    bool fresh;     /* the clusters read zero */
    bool reused;    /* the guest cluster's own one: reads zero by its flag, or external */
    bool head_zero; /* old contents are known to be zeroes without reading */
    bool tail_zero;
};

static struct qcow2_busy *qcow2_write_overlap(struct qcow2 *q, uint64_t first, uint64_t last)
{
    struct qcow2_busy *b;
    TAILQ_FOREACH(b, &q->busy, link)
    {
        if (b->first <= last && first <= b->last) {
            return b;
        }
    }
    return NULL;
}

void qcow2_write_wait(struct qcow2 *q, uint64_t first, uint64_t last)
{
    while (qcow2_write_overlap(q, first, last) != NULL) {
        pthread_cond_wait(&q->busy_cond, &q->meta_lock);
    }
}

static bool qcow2_write_in_place(const struct qcow2_run *run)
{
    return run->kind == QCOW2_NORMAL && run->copied;
}

/* Does what lies there read as zeroes, by the metadata alone? */
static bool qcow2_write_reads_zero(const struct qcow2 *q, enum qcow2_kind kind, uint64_t offset)
{
    return kind == QCOW2_ZERO_PLAIN || kind == QCOW2_ZERO_ALLOC ||
           (kind == QCOW2_UNALLOCATED && qcow2_read_backed(q, offset, 1) == 0);
}

/* How far from `offset` on does the write need new clusters? Up to the end of the L2 slice, the
 * first busy cluster, or `end`. meta_lock. */
static int qcow2_write_measure(struct qcow2 *q, uint64_t offset, uint64_t end, uint64_t *ret_end,
                               enum qcow2_kind *ret_last)
{
    uint64_t reach = qcow2_l2_slice_entries(q) << q->hdr.cluster_bits;
    uint64_t limit = MIN(end, bits_align_down(offset, reach) + reach);
    uint64_t at = offset;
    while (at < limit) {
        struct qcow2_run run;
        int rc = qcow2_map_load(q, at, limit - at, &run);
        if (rc < 0) {
            return rc;
        }
        bool reuse = run.kind == QCOW2_ZERO_ALLOC && run.copied;
        if (at > offset && (qcow2_write_in_place(&run) || reuse)) {
            break;
        }
        *ret_last = run.kind;
        at += run.len;
        if (reuse) {
            break;
        }
    }
    *ret_end = at;
    struct qcow2_busy *b;
    TAILQ_FOREACH(b, &q->busy, link)
    {
        /* None has the cluster of `offset`: the caller has waited for that. */
        uint64_t busy = b->first << q->hdr.cluster_bits;
        if (busy > offset && busy < *ret_end) {
            *ret_end = busy;
        }
    }
    return 0;
}

/* Allocates for [offset, end). meta_lock. */
static int qcow2_write_plan(struct qcow2 *q, uint64_t offset, uint64_t end,
                            const struct qcow2_run *run, struct qcow2_write_job *job)
{
    uint64_t cs = q->cluster_size;
    uint64_t to = 0;
    enum qcow2_kind last = run->kind;
    int rc = qcow2_write_measure(q, offset, end, &to, &last);
    if (rc < 0) {
        return rc;
    }
    *job = (struct qcow2_write_job){ .start = bits_align_down(offset, cs) };
    job->head = offset - job->start;
    job->n = (to - job->start + cs - 1) >> q->hdr.cluster_bits;
    if (qcow2_data_external(q)) {
        job->host = job->start;
        job->reused = true;
    } else if (run->kind == QCOW2_ZERO_ALLOC && run->copied) {
        job->host = run->host - job->head;
        job->reused = true;
        if (qcow2_io_is_meta(q, job->host, job->n * cs)) {
            return qcow2_io_corrupt(q, "data cluster in metadata", job->host);
        }
    } else {
        rc = qcow2_ref_alloc(q, job->n, false, &job->host, &job->n, &job->fresh);
        if (rc < 0) {
            return rc;
        }
    }
    uint64_t stop = job->start + job->n * cs;
    bool whole = to > stop; /* fewer clusters than asked for */
    job->len = MIN(to, stop) - offset;
    /* An external file does not get longer than the disk. */
    uint64_t fill = qcow2_data_external(q) ? MIN(stop, MAX(to, q->hdr.size)) : stop;
    job->tail = whole ? 0 : fill - to;
    job->head_zero = qcow2_write_reads_zero(q, run->kind, job->start);
    job->tail_zero = qcow2_write_reads_zero(q, last, stop - cs);
    return 0;
}

/* The part of a write that lies in the cluster of `offset`, with extended L2 entries: into a
 * cluster of its own, or into the one that is there. Only subclusters that get data are filled, all
 * of them where the old cluster has data. meta_lock. */
static int qcow2_write_plan_part(struct qcow2 *q, uint64_t offset, uint64_t end,
                                 struct qcow2_write_job *job)
{
    uint64_t cs = q->cluster_size;
    uint64_t unit = BIT64(q->sub_bits);
    struct qcow2_sub_entry old;
    bool ours;
    int rc = qcow2_sub_load(q, offset, &old, &ours);
    if (rc < 0) {
        return rc;
    }
    *job = (struct qcow2_write_job){ .start = bits_align_down(offset, cs), .n = 1 };
    uint64_t to = MIN(end, job->start + cs);
    uint64_t from = bits_align_down(offset, unit);
    uint64_t upto = bits_align_up(to, unit);
    enum qcow2_kind first = qcow2_sub_kind(&old, (unsigned)((offset - job->start) / unit));
    enum qcow2_kind last = qcow2_sub_kind(&old, (unsigned)((to - 1 - job->start) / unit));
    job->head_zero = qcow2_write_reads_zero(q, first, from);
    job->tail_zero = qcow2_write_reads_zero(q, last, upto - unit);
    job->reused = qcow2_data_external(q) || ours;
    if (job->reused) {
        job->host = qcow2_data_external(q) ? job->start : old.desc & QCOW2_OFFSET_MASK;
        from = first == QCOW2_NORMAL ? offset : from;
        upto = last == QCOW2_NORMAL ? to : upto;
    }
    if (qcow2_data_external(q)) {
        upto = MIN(upto, MAX(to, q->hdr.size)); /* it does not get longer than the disk */
    } else if (ours && qcow2_io_is_meta(q, job->host, cs)) {
        return qcow2_io_corrupt(q, "data cluster in metadata", job->host);
    } else if (!ours) {
        rc = qcow2_ref_alloc(q, 1, true, &job->host, NULL, &job->fresh);
        if ((old.desc & QCOW2_L2_COMPRESSED) != 0 || QCOW2_SUB_ALLOC(old.bits) != 0) {
            from = job->start;
            upto = job->start + cs;
            job->head_zero = false;
            job->tail_zero = false;
        }
    }
    job->lead = from - job->start;
    job->head = offset - from;
    job->len = to - offset;
    job->tail = upto - to;
    return rc;
}

/* As qcow2_write_plan() with extended L2 entries. */
static int qcow2_write_plan_sub(struct qcow2 *q, uint64_t offset, uint64_t end,
                                const struct qcow2_run *run, struct qcow2_write_job *job)
{
    uint64_t cs = q->cluster_size;
    uint64_t whole = bits_align_down(end, cs);
    uint64_t to = 0;
    enum qcow2_kind last;
    int rc = 0;
    if (offset % cs == 0 && whole > offset && !(run->kind == QCOW2_ZERO_ALLOC && run->copied)) {
        rc = qcow2_write_measure(q, offset, whole, &to, &last);
        to = bits_align_down(to, cs);
    }
    if (rc < 0) {
        return rc;
    }
    return to > offset ? qcow2_write_plan(q, offset, to, run, job)
                       : qcow2_write_plan_part(q, offset, end, job);
}

/* Old contents of [offset, offset + len); *ret_buf stays NULL where they need not be written. */
static int qcow2_write_old(struct qcow2 *q, const struct qcow2_write_job *job, bool known_zero,
                           uint64_t offset, uint64_t len, void **ret_buf)
{
    if (len == 0 || (known_zero && job->fresh)) {
        return 0;
    }
    void *buf = qcow2_io_buf(len);
    if (buf == NULL) {
        return -ENOMEM;
    }
    int rc = 0;
    if (known_zero) {
        memset(buf, 0, len);
    } else {
        rc = qcow2_read_buf(q, offset, buf, len);
    }
    if (rc < 0 || (job->fresh && blk_iov_buf_is_zero(buf, len))) {
        free(buf);
        return rc;
    }
    *ret_buf = buf;
    return 0;
}

/* The I/O of a job; no lock held. `skip`: where its data begin in the iov. */
static int qcow2_write_fill(struct qcow2 *q, const struct qcow2_write_job *job,
                            const struct iovec *iov, int niov, uint64_t skip)
{
    CLEANUP_FREE void *head = NULL;
    CLEANUP_FREE void *tail = NULL;
    uint64_t first = job->start + job->lead;
    uint64_t data = first + job->head;
    int rc = qcow2_write_old(q, job, job->head_zero, first, job->head, &head);
    if (rc == 0) {
        rc = qcow2_write_old(q, job, job->tail_zero, data + job->len, job->tail, &tail);
    }
    CLEANUP_FREE struct iovec *all = malloc(((size_t)niov + 2) * sizeof(*all));
    if (rc < 0 || all == NULL) {
        return rc < 0 ? rc : -ENOMEM;
    }
    int n = 0;
    if (head != NULL) {
        all[n++] = (struct iovec){ .iov_base = head, .iov_len = job->head };
    }
    n += blk_iov_slice(all + n, iov, niov, skip, job->len);
    if (tail != NULL) {
        all[n++] = (struct iovec){ .iov_base = tail, .iov_len = job->tail };
    }
    return qcow2_data_write(q, job->host + job->lead + (head != NULL ? 0 : job->head), all, n);
}

/* meta_lock. */
static int qcow2_write_link(struct qcow2 *q, const struct qcow2_write_job *job)
{
    uint64_t entry = job->host | QCOW2_COPIED;
    if (!qcow2_sub(q)) {
        return qcow2_l2_set(q, job->start, job->n, entry, q->cluster_size, true);
    }
    uint64_t from = job->start + job->lead;
    struct qcow2_sub_change change = {
        .from = from,
        .to = from + job->head + job->len + job->tail,
        .link = true,
        .host = entry,
    };
    return qcow2_sub_set(q, &change, true);
}

/* Takes meta_lock held, gives it up, returns without it. */
static int qcow2_write_alloc(struct qcow2 *q, uint64_t offset, uint64_t end,
                             const struct qcow2_run *run, const struct iovec *iov, int niov,
                             uint64_t skip, uint64_t *ret_len)
{
    struct qcow2_write_job job;
    int rc = qcow2_sub(q) ? qcow2_write_plan_sub(q, offset, end, run, &job)
                          : qcow2_write_plan(q, offset, end, run, &job);
    if (rc < 0) {
        pthread_mutex_unlock(&q->meta_lock);
        return rc;
    }
    struct qcow2_busy busy = {
        .first = job.start >> q->hdr.cluster_bits,
        .last = (job.start >> q->hdr.cluster_bits) + job.n - 1,
    };
    TAILQ_INSERT_TAIL(&q->busy, &busy, link);
    pthread_mutex_unlock(&q->meta_lock);
    rc = qcow2_write_fill(q, &job, iov, niov, skip);
    pthread_mutex_lock(&q->meta_lock);
    if (rc == 0) {
        rc = q->corrupt ? -EIO : qcow2_write_link(q, &job);
    }
    if (rc < 0 && !job.reused) {
        qcow2_ref_undo(q, job.host, job.n);
    }
    TAILQ_REMOVE(&q->busy, &busy, link);
    pthread_cond_broadcast(&q->busy_cond);
    pthread_mutex_unlock(&q->meta_lock);
    *ret_len = job.len;
    return rc;
}

/* Is the place that an entry names for writing possible? meta_lock. */
static int qcow2_write_check(struct qcow2 *q, const struct qcow2_run *run)
{
    uint64_t last = (run->host + run->len - 1) >> q->hdr.cluster_bits;
    if (qcow2_data_external(q)) {
        return 0; /* at its guest offset, or the entry would be corrupt */
    }
    if (qcow2_io_is_meta(q, run->host, run->len)) {
        return qcow2_io_corrupt(q, "data cluster in metadata", run->host);
    }
    if (last >= q->file_end) {
        /* After a power loss a file can be shorter than what other programs had mapped. It is no
         * place out of the blue when it is counted. */
        uint64_t count = 0;
        int rc = qcow2_ref_get(q, last, &count);
        if (rc < 0) {
            return rc;
        }
        if (count == 0) {
            return qcow2_io_corrupt(q, "data cluster past the end", run->host);
        }
    }
    return 0;
}

/* Takes meta_lock held, returns without it. */
static int qcow2_write_over(struct qcow2 *q, const struct qcow2_run *run, const struct iovec *iov,
                            int niov, uint64_t skip)
{
    int rc = qcow2_write_check(q, run);
    if (rc < 0) {
        pthread_mutex_unlock(&q->meta_lock);
        return rc;
    }
    pthread_mutex_lock(&q->map_lock);
    uint64_t cookie = qcow2_free_enter(q);
    pthread_mutex_unlock(&q->map_lock);
    pthread_mutex_unlock(&q->meta_lock);
    CLEANUP_FREE struct iovec *part = malloc((size_t)niov * sizeof(*part));
    rc = -ENOMEM;
    if (part != NULL) {
        int n = blk_iov_slice(part, iov, niov, skip, run->len);
        rc = qcow2_data_write(q, run->host, part, n);
    }
    pthread_mutex_lock(&q->map_lock);
    qcow2_free_leave(q, cookie);
    pthread_mutex_unlock(&q->map_lock);
    return rc;
}

int qcow2_write(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov, uint64_t len)
{
    struct qcow2 *q = qcow2_of(blk);
    for (uint64_t done = 0; done < len;) {
        uint64_t at = offset + done;
        uint64_t cluster = at >> q->hdr.cluster_bits;
        struct qcow2_run run;
        pthread_mutex_lock(&q->meta_lock);
        qcow2_write_wait(q, cluster, cluster);
        int rc = qcow2_l2_begin(q);
        if (rc == 0) {
            rc = qcow2_map_load(q, at, len - done, &run);
        }
        if (rc < 0) {
            pthread_mutex_unlock(&q->meta_lock);
            return rc;
        }
        if (qcow2_write_in_place(&run)) {
            rc = qcow2_write_over(q, &run, iov, niov, done);
            done += run.len;
        } else {
            uint64_t part = 0;
            rc = qcow2_write_alloc(q, at, offset + len, &run, iov, niov, done, &part);
            done += part;
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}
