/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clusters on their way to being free.
 *
 *   reference removed in memory --> waits --> (1) its removal is on the disk   --> refcount - 1,
 *   (qcow2_free_later)                        (2) no I/O can still go there        perhaps punched
 *
 * (1) is told by generations: each writeback has a number, an entry remembers the number of the
 * last writeback before it, and is durable when a later one has been flushed. (2) is told by
 * epochs: I/O on a mapped place counts in the epoch in which it began; an epoch begins only when
 * the I/O of the one before the last has ended. What was freed in epoch e can have I/O of e or
 * older, so it is free in e + 2. A crash in between leaks the clusters, nothing worse.
 */
#include <stdlib.h>
#include <string.h>

#include "block/fmt_qcow2/qcow2_int.h"

uint64_t qcow2_free_enter(struct qcow2 *q)
{
    uint64_t cookie = q->epoch & 1;
    q->in_io[cookie]++;
    return cookie;
}

void qcow2_free_leave(struct qcow2 *q, uint64_t cookie)
{
    q->in_io[cookie]--;
}

void qcow2_free_later(struct qcow2 *q, uint64_t cluster, uint64_t count, bool punch)
{
    pthread_mutex_lock(&q->map_lock);
    uint64_t epoch = q->epoch;
    pthread_mutex_unlock(&q->map_lock);
    struct qcow2_freed *last = q->nfreed > 0 ? &q->freed[q->nfreed - 1] : NULL;
    if (last != NULL && last->first + last->count == cluster && last->epoch == epoch &&
        last->gen == q->flush_gen && last->punch == punch) {
        last->count += count;
        return;
    }
    if (q->nfreed == q->cap_freed) {
        size_t cap = MAX(q->cap_freed * 2, (size_t)16);
        struct qcow2_freed *bigger = realloc(q->freed, cap * sizeof(*bigger));
        if (bigger == NULL) {
            return; /* leaked; a check finds them */
        }
        q->freed = bigger;
        q->cap_freed = cap;
    }
    q->freed[q->nfreed++] = (struct qcow2_freed){
        .first = cluster,
        .count = count,
        .epoch = epoch,
        .gen = q->flush_gen,
        .punch = punch,
    };
}

void qcow2_free_apply(struct qcow2 *q)
{
    if (q->nfreed == 0) {
        return;
    }
    pthread_mutex_lock(&q->map_lock);
    for (int i = 0; i < 2 && q->in_io[(q->epoch + 1) & 1] == 0; i++) {
        q->epoch++;
    }
    uint64_t epoch = q->epoch;
    pthread_mutex_unlock(&q->map_lock);
    size_t n = q->nfreed;
    struct qcow2_freed *list = q->freed;
    /* Dropping references never frees anything later: the list stays as it is meanwhile. */
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct qcow2_freed f = list[i];
        if (f.gen >= q->durable_gen || f.epoch + 2 > epoch) {
            list[kept++] = f;
        } else {
            uint64_t done = 0;
            if (qcow2_ref_drop(q, f.first, f.count, f.punch, &done) < 0) {
                /* The disk is full, say: the rest is tried again after the next flush. */
                f.first += done;
                f.count -= done;
                list[kept++] = f;
            }
        }
    }
    q->nfreed = kept;
}
