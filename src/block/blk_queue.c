/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Queues: from requests to pieces and back.
 *
 *   submit ──> waiting ──start()──> pieces: plain I/O, uring_takes() ──> io_uring ─┐
 *                 (depth reached)           all the rest ──> worker threads ─────┤ eventfd
 *                                           nothing to do, or refused ──> done_list
 *                                                                                v
 *   done() <── done_list <── last piece of the request ended <───────────────── reap
 *
 * Invariants
 *   1. A request is in `waiting`, has pieces in flight, or is in `done_list`; it leaves the last by
 *      its done(), once.
 *   2. Its pieces are all made before the first is handed to an engine, so that it cannot end while
 *      it is being cut.
 *   3. A pinned place is unpinned before its piece ends or goes another way.
 *   4. The descriptor is readable whenever `done_list` is not empty outside of reap.
 *
 * All functions run on the queue's thread (one at a time); done() may submit and kick, nothing
 * else.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/eng_int.h"

#define SECTOR 512U

/* Workers beside io_uring do the rare things; alone, they set how much is in flight. */
#define WORKERS_BESIDE_URING 4U
#define WORKERS_ALONE        16U

STAILQ_HEAD(req_list, blk_req);

struct blk_queue {
    struct blk *blk;
    int event_fd;
    unsigned depth;
    unsigned inflight; /* started, done() not called */
    struct req_list waiting;
    struct req_list done_list;
    bool reaping;
    struct eng_thread *threads;
    struct eng_uring *uring; /* NULL: threads only */
};

/* In blk_req.priv. */
struct req_state {
    unsigned pending; /* pieces that have not ended */
    int rc;           /* the first failure */
};
static_assert(sizeof(struct req_state) <= sizeof(((struct blk_req *)0)->priv), "too large");

static struct req_state *state_of(struct blk_req *req)
{
    return (struct req_state *)(void *)req->priv;
}

static int start_uring(struct blk_queue *q, const struct blk_queue_opts *opts, struct err *err)
{
    if (opts->engine != NULL && strcmp(opts->engine, "threads") == 0) {
        return 0;
    }
    if (opts->engine != NULL && strcmp(opts->engine, "uring") != 0) {
        return err_set(err, -EINVAL, "block engine '%s' is unknown (there are: uring, threads)",
                       opts->engine);
    }
    int rc = eng_uring_new(opts->depth, q->event_fd, &q->uring);
    if (rc < 0 && opts->engine != NULL) {
        return err_set_errno(err, rc, "block engine 'uring': io_uring_setup");
    }
    if (rc < 0) {
        log_debug("block", "no io_uring, using threads", "errno='%d'", -rc);
    }
    return 0;
}

int blk_queue_new(struct blk *blk, const struct blk_queue_opts *opts, struct blk_queue **ret_queue,
                  struct err *err)
{
    if (opts->depth < 1 || opts->depth > 1024) {
        return err_set(err, -EINVAL, "queue depth %u is out of range (1 to 1024)", opts->depth);
    }
    struct blk_queue *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    q->blk = blk;
    q->depth = opts->depth;
    STAILQ_INIT(&q->waiting);
    STAILQ_INIT(&q->done_list);
    q->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = 0;
    if (q->event_fd < 0) {
        int code = -errno;
        rc = err_set_errno(err, code, "eventfd");
    }
    if (rc == 0) {
        rc = start_uring(q, opts, err);
    }
    if (rc == 0) {
        unsigned max = MIN(opts->depth, q->uring ? WORKERS_BESIDE_URING : WORKERS_ALONE);
        rc = eng_thread_new(blk, opts, max, q->event_fd, &q->threads);
        if (rc < 0) {
            rc = err_set_errno(err, rc, "block workers");
        } else if (opts->workers_now) {
            eng_thread_start_all(q->threads);
        }
    }
    if (rc < 0) {
        blk_queue_free(q);
        return rc;
    }
    *ret_queue = q;
    return 0;
}

void blk_queue_free(struct blk_queue *q)
{
    if (q == NULL) {
        return;
    }
    if (q->threads != NULL) {
        blk_queue_drain(q);
    }
    eng_thread_free(q->threads);
    eng_uring_free(q->uring);
    if (q->event_fd >= 0) {
        close(q->event_fd);
    }
    free(q);
}

int blk_queue_fd(const struct blk_queue *q)
{
    return q->event_fd;
}

const char *blk_queue_engine_name(const struct blk_queue *q)
{
    return q->uring != NULL ? "uring" : "threads";
}

/* Ends. */

static void signal_self(const struct blk_queue *q)
{
    static const uint64_t one = 1;
    (void)!write(q->event_fd, &one, sizeof(one)); /* only full at 2^64 - 2: still readable */
}

static void req_end(struct blk_queue *q, struct blk_req *req)
{
    STAILQ_INSERT_TAIL(&q->done_list, req, link);
    if (!q->reaping) {
        signal_self(q);
    }
}

static void unpin(struct eng_piece *p)
{
    if (p->map.pinned != NULL) {
        p->map.pinned->cls->unmap(p->map.pinned, &p->map);
        p->map.pinned = NULL;
    }
}

static void piece_end(struct blk_queue *q, struct eng_piece *p)
{
    struct blk_req *req = p->req;
    struct req_state *rs = state_of(req);
    unpin(p);
    if (p->rc == ENG_REROUTE) {
        p->map.kind = BLK_MAP_SLOW;
        eng_thread_push(q->threads, p);
        return;
    }
    if (p->rc < 0 && rs->rc == 0) {
        rs->rc = p->rc;
    }
    free(p);
    if (--rs->pending == 0) {
        req_end(q, req);
    }
}

/* Beginnings. */

static int check_request(const struct blk_queue *q, const struct blk_req *req)
{
    bool data = req->op == BLK_OP_READ || req->op == BLK_OP_WRITE;
    if (req->op > BLK_OP_WRITE_ZEROES) {
        return -EINVAL;
    }
    if (req->op == BLK_OP_FLUSH) {
        return 0;
    }
    uint64_t end;
    uint64_t sum = 0;
    if ((req->offset | req->len) % SECTOR != 0 || ckd_add(&end, req->offset, req->len) ||
        end > blk_size(q->blk)) {
        return -EINVAL;
    }
    for (int i = 0; data && i < req->niov; i++) {
        if (ckd_add(&sum, sum, req->iov[i].iov_len)) {
            return -EINVAL;
        }
    }
    if (data && sum != req->len) {
        return -EINVAL;
    }
    return req->op != BLK_OP_READ && q->blk->read_only ? -EROFS : 0;
}

/* A piece for [skip, skip + len) of the request; NULL on no memory. */
static struct eng_piece *piece_new(struct blk_req *req, uint64_t skip, uint64_t len,
                                   const struct blk_map *map)
{
    bool data = req->op == BLK_OP_READ || req->op == BLK_OP_WRITE;
    size_t niov = data ? (size_t)req->niov : 0;
    struct eng_piece *p = malloc(sizeof(*p) + niov * sizeof(struct iovec));
    if (p == NULL) {
        return NULL;
    }
    *p = (struct eng_piece){
        .req = req,
        .op = req->op,
        .may_unmap = (req->flags & BLK_REQ_MAY_UNMAP) != 0,
        .offset = req->offset + skip,
        .len = len,
        .map = *map,
    };
    p->iov = p->iov_buf;
    p->niov = data ? blk_iov_slice(p->iov, req->iov, req->niov, skip, len) : 0;
    state_of(req)->pending++;
    return p;
}

/* What cannot be one system call on the descriptor takes the slow path. */
static void demote(struct eng_piece *p)
{
    bool fits = p->niov <= IOV_MAX && p->len <= INT_MAX &&
                (p->map.mem_align <= 1 || blk_iov_aligned(p->iov, p->niov, p->map.mem_align));
    if (p->map.kind == BLK_MAP_DATA && !fits) {
        unpin(p);
        p->map.kind = BLK_MAP_SLOW;
    }
}

/* Cuts a read or write along the map of the node. Returns 0, or a negative errno with the pieces
 * made so far in `out`. */
static int cut(struct blk_queue *q, struct blk_req *req, struct eng_list *out)
{
    bool write = req->op == BLK_OP_WRITE;
    struct eng_piece *last = NULL;
    uint64_t skip = 0;
    while (skip < req->len) {
        struct blk_map map;
        int rc = blk_map(q->blk, write, req->offset + skip, req->len - skip, &map);
        if (rc < 0) {
            return rc;
        }
        assert(map.len > 0 && map.len <= req->len - skip);
        if (map.kind == BLK_MAP_ZERO && !write) {
            blk_iov_zero(req->iov, req->niov, skip, map.len);
            last = NULL;
        } else if (map.kind != BLK_MAP_DATA && last != NULL && last->map.kind != BLK_MAP_DATA) {
            /* Slow next to slow: one call lets the class see the whole range. */
            last->len += map.len;
            last->niov = blk_iov_slice(last->iov, req->iov, req->niov, last->offset - req->offset,
                                       last->len);
        } else {
            struct eng_piece *p = piece_new(req, skip, map.len, &map);
            if (p == NULL) {
                struct eng_piece lost = { .map = map };
                unpin(&lost);
                return -ENOMEM;
            }
            demote(p);
            STAILQ_INSERT_TAIL(out, p, link);
            last = p;
        }
        skip += map.len;
    }
    return 0;
}

static int make_pieces(struct blk_queue *q, struct blk_req *req, struct eng_list *out)
{
    int rc = check_request(q, req);
    bool data = req->op == BLK_OP_READ || req->op == BLK_OP_WRITE;
    if (rc < 0 || (req->len == 0 && req->op != BLK_OP_FLUSH)) {
        return rc;
    }
    if (data) {
        return cut(q, req, out);
    }
    struct blk_map slow = { .kind = BLK_MAP_SLOW, .fd = -1 };
    struct eng_piece *p = piece_new(req, 0, req->op == BLK_OP_FLUSH ? 0 : req->len, &slow);
    if (p == NULL) {
        return -ENOMEM;
    }
    STAILQ_INSERT_TAIL(out, p, link);
    return 0;
}

/* Buffered writes are left to the workers: where a file system cannot do them without waiting
 * (ext4), the kernel hands them to threads of its own, one at a time for each file. */
static bool uring_takes(const struct blk_queue *q, const struct eng_piece *p)
{
    return q->uring != NULL && p->map.kind == BLK_MAP_DATA &&
           (p->op == BLK_OP_READ || p->map.direct);
}

static void start(struct blk_queue *q, struct blk_req *req)
{
    struct eng_list pieces = STAILQ_HEAD_INITIALIZER(pieces);
    struct req_state *rs = state_of(req);
    *rs = (struct req_state){ 0 };
    q->inflight++;
    int rc = make_pieces(q, req, &pieces);
    bool none = STAILQ_EMPTY(&pieces);
    if (rc < 0) {
        rs->rc = rc;
    }
    struct eng_piece *p;
    while ((p = STAILQ_FIRST(&pieces)) != NULL) {
        STAILQ_REMOVE_HEAD(&pieces, link);
        if (rc < 0) { /* none has been started: drop them */
            unpin(p);
            free(p);
        } else if (uring_takes(q, p)) {
            eng_uring_push(q->uring, p);
        } else {
            eng_thread_push(q->threads, p);
        }
    }
    if (rc < 0 || none) {
        req_end(q, req);
    }
}

static void start_waiting(struct blk_queue *q)
{
    while (q->inflight < q->depth && !STAILQ_EMPTY(&q->waiting)) {
        struct blk_req *req = STAILQ_FIRST(&q->waiting);
        STAILQ_REMOVE_HEAD(&q->waiting, link);
        start(q, req);
    }
}

void blk_queue_submit(struct blk_queue *q, struct blk_req *req)
{
    STAILQ_INSERT_TAIL(&q->waiting, req, link);
    start_waiting(q);
}

void blk_queue_kick(struct blk_queue *q)
{
    start_waiting(q);
    if (q->uring != NULL) {
        eng_uring_kick(q->uring);
    }
}

unsigned blk_queue_reap(struct blk_queue *q)
{
    struct eng_list ended = STAILQ_HEAD_INITIALIZER(ended);
    struct req_list now = STAILQ_HEAD_INITIALIZER(now);
    struct eng_piece *p;
    struct blk_req *req;
    uint64_t count;
    unsigned n = 0;
    assert(!q->reaping);
    (void)!read(q->event_fd, &count, sizeof(count)); /* EAGAIN: called without cause, no harm */
    q->reaping = true;
    if (q->uring != NULL) {
        eng_uring_reap(q->uring, &ended);
    }
    eng_thread_reap(q->threads, &ended);
    while ((p = STAILQ_FIRST(&ended)) != NULL) {
        STAILQ_REMOVE_HEAD(&ended, link);
        piece_end(q, p);
    }
    /* A done() that submits may end more at once; that waits for the next round, so that a guest
     * cannot keep us here. */
    STAILQ_CONCAT(&now, &q->done_list);
    while ((req = STAILQ_FIRST(&now)) != NULL) {
        STAILQ_REMOVE_HEAD(&now, link);
        q->inflight--;
        n++;
        req->done(req, state_of(req)->rc);
    }
    blk_queue_kick(q);
    q->reaping = false;
    if (!STAILQ_EMPTY(&q->done_list)) {
        signal_self(q);
    }
    return n;
}

void blk_queue_drain(struct blk_queue *q)
{
    blk_queue_kick(q);
    while (q->inflight > 0 || !STAILQ_EMPTY(&q->waiting)) {
        struct pollfd pfd = { .fd = q->event_fd, .events = POLLIN };
        (void)ppoll(&pfd, 1, NULL, NULL); /* EINTR: reap finds nothing, and we are back */
        (void)blk_queue_reap(q);          /* the number does not matter here */
    }
}
