/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slices of L2 tables and refcount blocks in memory: a hash by file offset and an LRU list.
 *
 * A slice and not a whole table is the unit, so that 2 MiB clusters do not mean 2 MiB of cache for
 * each place that a guest touches. Buffers are allocated when a slot is first used: an idle disk
 * costs the slots only. All functions need meta_lock; the index of the L2 cache is changed under
 * map_lock too, since the fast path looks things up in it with that lock alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/fmt_qcow2/qcow2_int.h"

int qcow2_cache_init(struct qcow2_cache *c, uint64_t bytes, uint32_t slice_size, bool is_l2)
{
    c->slice_size = slice_size;
    c->nslots = (uint32_t)(bytes / slice_size);
    c->nbuckets = 1;
    while (c->nbuckets < c->nslots) {
        c->nbuckets *= 2;
    }
    c->is_l2 = is_l2;
    TAILQ_INIT(&c->lru);
    c->slots = calloc(c->nslots, sizeof(*c->slots));
    c->buckets = calloc(c->nbuckets, sizeof(*c->buckets));
    if (c->slots == NULL || c->buckets == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < c->nslots; i++) {
        TAILQ_INSERT_TAIL(&c->lru, &c->slots[i], lru_link);
    }
    return 0;
}

void qcow2_cache_done(struct qcow2_cache *c)
{
    for (uint32_t i = 0; c->slots != NULL && i < c->nslots; i++) {
        free(c->slots[i].data);
    }
    free(c->slots);
    free(c->buckets);
    c->slots = NULL;
    c->buckets = NULL;
}

static struct qcow2_slice_list *qcow2_cache_bucket(struct qcow2_cache *c, uint64_t offset)
{
    uint64_t h = (offset / c->slice_size) * UINT64_C(0x9e3779b97f4a7c15);
    return &c->buckets[(h >> 32) & (c->nbuckets - 1)];
}

struct qcow2_slice *qcow2_cache_peek(struct qcow2_cache *c, uint64_t offset)
{
    struct qcow2_slice *s;
    LIST_FOREACH (s, qcow2_cache_bucket(c, offset), hash_link) {
        if (s->offset == offset) {
            return s;
        }
    }
    return NULL;
}

void qcow2_cache_touch(struct qcow2_cache *c, struct qcow2_slice *slice)
{
    if (TAILQ_LAST(&c->lru, qcow2_slice_tailq) != slice) {
        TAILQ_REMOVE(&c->lru, slice, lru_link);
        TAILQ_INSERT_TAIL(&c->lru, slice, lru_link);
    }
}

void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slice *slice)
{
    if (!slice->dirty) {
        slice->dirty = true;
        c->ndirty++;
    }
}

/* Takes a slot out of the index. map_lock for the L2 cache. */
static void qcow2_cache_unlink(struct qcow2_cache *c, struct qcow2_slice *s)
{
    if (s->offset != 0) {
        LIST_REMOVE(s, hash_link);
        s->offset = 0;
    }
    if (s->dirty) {
        s->dirty = false;
        c->ndirty--;
    }
    TAILQ_REMOVE(&c->lru, s, lru_link);
    TAILQ_INSERT_HEAD(&c->lru, s, lru_link);
}

/* A clean slot outside the index. The LRU order can change under us only by touches of the fast
 * path, which move slices away from the head: a look at the head under map_lock is enough. */
static int qcow2_cache_evict(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_slice **ret_slot)
{
    for (int pass = 0; pass < 2; pass++) {
        pthread_mutex_lock(&q->map_lock);
        struct qcow2_slice *s;
        TAILQ_FOREACH(s, &c->lru, lru_link)
        {
            if (s->pins == 0 && !s->dirty) {
                break;
            }
            if (s->pins == 0 && pass == 0) {
                s = NULL; /* the oldest is dirty: bring all to the file, then take it */
                break;
            }
        }
        if (s != NULL) {
            qcow2_cache_unlink(c, s);
            pthread_mutex_unlock(&q->map_lock);
            *ret_slot = s;
            return 0;
        }
        pthread_mutex_unlock(&q->map_lock);
        int rc = c->is_l2 ? qcow2_flush_writeback(q) : qcow2_cache_write(q, c);
        if (rc < 0) {
            return rc;
        }
    }
    return -ENOMEM; /* all pinned: cannot be, the slots outnumber what one thread pins */
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset,
                    struct qcow2_slice **ret_slice)
{
    struct qcow2_slice *s = qcow2_cache_peek(c, offset);
    if (s == NULL) {
        int rc = qcow2_cache_evict(q, c, &s);
        if (rc < 0) {
            return rc;
        }
        if (s->data == NULL) {
            s->data = qcow2_io_buf(c->slice_size);
            if (s->data == NULL) {
                return -ENOMEM;
            }
        }
        rc = qcow2_io_read(q, offset, s->data, c->slice_size);
        if (rc < 0) {
            return rc;
        }
        pthread_mutex_lock(&q->map_lock);
        s->offset = offset;
        LIST_INSERT_HEAD(qcow2_cache_bucket(c, offset), s, hash_link);
        pthread_mutex_unlock(&q->map_lock);
    }
    s->pins++;
    pthread_mutex_lock(&q->map_lock);
    qcow2_cache_touch(c, s);
    pthread_mutex_unlock(&q->map_lock);
    *ret_slice = s;
    return 0;
}

void qcow2_cache_put(struct qcow2_slice *slice)
{
    slice->pins--;
}

void qcow2_cache_drop(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    struct qcow2_cache *caches[] = { &q->l2c, &q->rbc };
    pthread_mutex_lock(&q->map_lock);
    for (size_t i = 0; i < ARRAY_LEN(caches); i++) {
        for (uint64_t at = offset; at < offset + len; at += caches[i]->slice_size) {
            struct qcow2_slice *s = qcow2_cache_peek(caches[i], at);
            if (s != NULL) {
                qcow2_cache_unlink(caches[i], s);
            }
        }
    }
    pthread_mutex_unlock(&q->map_lock);
}

static int qcow2_cache_by_offset(const void *a, const void *b)
{
    uint64_t x = (*(struct qcow2_slice *const *)a)->offset;
    uint64_t y = (*(struct qcow2_slice *const *)b)->offset;
    return x < y ? -1 : x > y;
}

int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *c)
{
    if (c->ndirty == 0) {
        return 0;
    }
    struct qcow2_slice **list = malloc(c->ndirty * sizeof(*list));
    if (list == NULL) {
        return -ENOMEM;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->nslots; i++) {
        if (c->slots[i].dirty) {
            list[n++] = &c->slots[i];
        }
    }
    qsort(list, n, sizeof(*list), qcow2_cache_by_offset);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        rc = qcow2_io_write(q, list[i]->offset, list[i]->data, c->slice_size);
        if (rc == 0) {
            list[i]->dirty = false;
            c->ndirty--;
        }
    }
    free(list);
    return rc;
}
