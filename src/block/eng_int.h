/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What carries the pieces of queued requests: io_uring for plain reads and writes of a descriptor,
 * worker threads for these too, and for all that needs the synchronous functions. Both report by
 * the same eventfd.
 *
 * Except for the workers' own threads, all functions run on the queue's thread.
 */
#ifndef BLOCK_ENG_INT_H
#define BLOCK_ENG_INT_H

#include "block/blk_int.h"

/* eng_piece.rc: a plain read or write ended early; the synchronous functions must do the rest. */
#define ENG_REROUTE 1

/* A part of a request (or all of it) that one engine carries. */
struct eng_piece {
    STAILQ_ENTRY(eng_piece) link;
    struct blk_req *req;
    enum blk_op op;
    bool may_unmap;
    uint64_t offset; /* in the node, of what is still to be done; len likewise */
    uint64_t len;
    struct blk_map map; /* BLK_MAP_DATA: a plain read or write; BLK_MAP_SLOW: all else */
    int rc;
    int niov;
    struct iovec *iov; /* into iov_buf */
    struct iovec iov_buf[];
};
STAILQ_HEAD(eng_list, eng_piece);

/* The end of a plain read or write of `p` with the result of the system call: sets rc to 0, a
 * negative errno, or ENG_REROUTE with offset, len and iov on what is left. */
void eng_piece_conclude(struct eng_piece *p, int64_t res);

struct eng_thread;
struct eng_uring;

/* Up to `max` workers for `blk`; they start when there is work, and call `opts->worker_init`. 0 or
 * a negative errno. */
MUST_USE int eng_thread_new(struct blk *blk, const struct blk_queue_opts *opts, unsigned max,
                            int event_fd, struct eng_thread **ret_eng);
/* Starts all of them now and returns when each waits for work. */
void eng_thread_start_all(struct eng_thread *eng);
/* Nothing may be in flight. Accepts NULL. */
void eng_thread_free(struct eng_thread *eng);
/* Takes `piece` over until it comes back from eng_thread_reap(), its rc set. */
void eng_thread_push(struct eng_thread *eng, struct eng_piece *piece);
/* Appends what has finished to `out` (plain reads and writes: concluded). */
void eng_thread_reap(struct eng_thread *eng, struct eng_list *out);

/* A ring for `depth` (1 to 1024) pieces at a time. 0 or the negative errno of io_uring_setup(2). */
MUST_USE int eng_uring_new(unsigned depth, int event_fd, struct eng_uring **ret_eng);
/* Nothing may be in flight. Accepts NULL. */
void eng_uring_free(struct eng_uring *eng);
/* Takes `piece` (a read or write, BLK_MAP_DATA, at most 1024 entries) over; eng_uring_kick() starts
 * it. */
void eng_uring_push(struct eng_uring *eng, struct eng_piece *piece);
void eng_uring_kick(struct eng_uring *eng);
/* Appends what has ended to `out`, concluded. */
void eng_uring_reap(struct eng_uring *eng, struct eng_list *out);

#endif
