/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Workers that run plain reads and writes and the synchronous functions of a node, first come,
 * first served.
 *
 * Locks: `lock` covers all fields below it. A worker holds no lock while it runs a piece.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "block/eng_int.h"

#define MAX_THREADS 16U

struct eng_thread {
    struct blk *blk;
    void (*init)(void *opaque);
    void *init_opaque;
    int event_fd;
    unsigned max;

    pthread_mutex_t lock;
    pthread_cond_t work;
    struct eng_list todo;
    struct eng_list finished;
    unsigned ntodo;
    unsigned idle;
    unsigned nthreads;
    bool stop;
    pthread_t threads[MAX_THREADS];
};

/* One system call, as io_uring would do it. */
static void run_plain(struct eng_piece *p)
{
    off_t at = (off_t)p->map.offset;
    ssize_t res = p->op == BLK_OP_WRITE ? pwritev(p->map.fd, p->iov, p->niov, at)
                                        : preadv(p->map.fd, p->iov, p->niov, at);
    eng_piece_conclude(p, res < 0 ? -errno : res);
}

static int run_slow(struct blk *blk, const struct eng_piece *p)
{
    switch (p->op) {
    case BLK_OP_READ:
        return blk_preadv(blk, p->offset, p->iov, p->niov);
    case BLK_OP_WRITE:
        return blk_pwritev(blk, p->offset, p->iov, p->niov);
    case BLK_OP_FLUSH:
        return blk_flush(blk);
    case BLK_OP_DISCARD:
        return blk_discard(blk, p->offset, p->len);
    case BLK_OP_WRITE_ZEROES:
        return blk_write_zeroes(blk, p->offset, p->len, p->may_unmap);
    }
    return -EINVAL;
}

static void run(struct eng_thread *eng, struct eng_piece *p)
{
    if (p->map.kind == BLK_MAP_DATA) {
        run_plain(p);
    } else {
        p->rc = run_slow(eng->blk, p);
    }
}

/* Called with the lock held. */
static void finish(struct eng_thread *eng, struct eng_piece *p)
{
    static const uint64_t one = 1;
    bool first = STAILQ_EMPTY(&eng->finished);
    STAILQ_INSERT_TAIL(&eng->finished, p, link);
    if (first) {
        (void)!write(eng->event_fd, &one, sizeof(one)); /* only full at 2^64 - 2: still readable */
    }
}

static void *worker(void *opaque)
{
    struct eng_thread *eng = opaque;
    bool fresh = eng->init != NULL;
    pthread_mutex_lock(&eng->lock);
    for (;;) {
        while (eng->ntodo == 0 && !eng->stop) {
            eng->idle++;
            pthread_cond_wait(&eng->work, &eng->lock);
            eng->idle--;
        }
        if (eng->ntodo == 0) {
            break;
        }
        struct eng_piece *p = STAILQ_FIRST(&eng->todo);
        STAILQ_REMOVE_HEAD(&eng->todo, link);
        eng->ntodo--;
        pthread_mutex_unlock(&eng->lock);
        if (fresh) {
            eng->init(eng->init_opaque);
            fresh = false;
        }
        run(eng, p);
        pthread_mutex_lock(&eng->lock);
        finish(eng, p);
    }
    pthread_mutex_unlock(&eng->lock);
    return NULL;
}

int eng_thread_new(struct blk *blk, const struct blk_queue_opts *opts, unsigned max, int event_fd,
                   struct eng_thread **ret_eng)
{
    struct eng_thread *eng = calloc(1, sizeof(*eng));
    if (eng == NULL) {
        return -ENOMEM;
    }
    eng->blk = blk;
    eng->init = opts->worker_init;
    eng->init_opaque = opts->worker_opaque;
    eng->max = MIN(MAX(max, 1U), MAX_THREADS);
    eng->event_fd = event_fd;
    STAILQ_INIT(&eng->todo);
    STAILQ_INIT(&eng->finished);
    pthread_mutex_init(&eng->lock, NULL);
    pthread_cond_init(&eng->work, NULL);
    *ret_eng = eng;
    return 0;
}

void eng_thread_free(struct eng_thread *eng)
{
    if (eng == NULL) {
        return;
    }
    pthread_mutex_lock(&eng->lock);
    eng->stop = true;
    pthread_cond_broadcast(&eng->work);
    pthread_mutex_unlock(&eng->lock);
    for (unsigned i = 0; i < eng->nthreads; i++) {
        pthread_join(eng->threads[i], NULL);
    }
    pthread_cond_destroy(&eng->work);
    pthread_mutex_destroy(&eng->lock);
    free(eng);
}

/* Called with the lock held. */
static void start_worker(struct eng_thread *eng)
{
    struct err err = ERR_INIT;
    if (thread_start(&eng->threads[eng->nthreads], "posada-block", -1, worker, eng, &err) == 0) {
        eng->nthreads++;
    } else {
        log_debug("block", "no further worker", "why='%s'", err.msg);
    }
}

void eng_thread_start_all(struct eng_thread *eng)
{
    pthread_mutex_lock(&eng->lock);
    while (eng->nthreads < eng->max) {
        unsigned before = eng->nthreads;
        start_worker(eng);
        if (eng->nthreads == before) {
            eng->max = before; /* the host gives no more: do not try later, behind a filter */
        }
    }
    while (eng->idle < eng->nthreads) {
        pthread_mutex_unlock(&eng->lock);
        sched_yield();
        pthread_mutex_lock(&eng->lock);
    }
    pthread_mutex_unlock(&eng->lock);
}

void eng_thread_push(struct eng_thread *eng, struct eng_piece *piece)
{
    pthread_mutex_lock(&eng->lock);
    if (eng->ntodo >= eng->idle && eng->nthreads < eng->max) {
        start_worker(eng);
    }
    if (eng->nthreads == 0) {
        /* The host gives us no thread at all: slow, but it must not be lost. */
        run(eng, piece);
        finish(eng, piece);
    } else {
        STAILQ_INSERT_TAIL(&eng->todo, piece, link);
        eng->ntodo++;
        pthread_cond_signal(&eng->work);
    }
    pthread_mutex_unlock(&eng->lock);
}

void eng_thread_reap(struct eng_thread *eng, struct eng_list *out)
{
    pthread_mutex_lock(&eng->lock);
    STAILQ_CONCAT(out, &eng->finished);
    pthread_mutex_unlock(&eng->lock);
}
