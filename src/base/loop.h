/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One epoll loop: file descriptors, timers, and work posted from other threads.
 *
 * A loop is run by one thread, the loop thread. Callbacks run there, one at a time, with no lock
 * of the loop held. Unless a function says "any thread", call it from the loop thread or before
 * loop_run().
 *
 *     struct loop *loop;
 *     loop_new(&loop, &err);
 *     struct loop_fd *w = loop_fd_add(loop, fd, EPOLLIN, on_readable, dev);
 *     struct loop_timer t;
 *     loop_timer_init(&t, loop, on_timeout, dev);
 *     loop_timer_set(&t, loop_now_ns() + 5000000);
 *     loop_run(loop);
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <sys/epoll.h>
#include <sys/queue.h>

#include "base/bits.h"
#include "base/err.h"

struct loop;
struct loop_fd;

typedef void loop_fd_fn(void *opaque, uint32_t events);
typedef void loop_fn(void *opaque);

struct loop_timer {
    struct loop *loop;
    loop_fn *fn;
    void *opaque;
    uint64_t deadline_ns; /* CLOCK_MONOTONIC */
    bool armed;
    TAILQ_ENTRY(loop_timer) link; /* sorted by deadline; under the loop's lock */
};

/* Returns 0, or a negative errno with `err` filled. */
MUST_USE int loop_new(struct loop **ret_loop, struct err *err);
/* Accepts NULL. No thread may be in loop_run(). Watches still there are dropped. */
void loop_free(struct loop *loop);

/* Runs until loop_stop(). Returns 0, or the negative errno of epoll. */
int loop_run(struct loop *loop);
/* One round: waits at most `timeout_ms` (-1 = for ever) and runs what is ready. For tests. */
int loop_run_once(struct loop *loop, int timeout_ms);
/* Makes loop_run() return after the present round. Any thread, and from a signal handler. */
void loop_stop(struct loop *loop);

/* Watches `fd` (not owned) for EPOLLIN/EPOLLOUT/.... Returns NULL when epoll refuses (errno set).
 */
MUST_USE struct loop_fd *loop_fd_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn,
                                     void *opaque);
void loop_fd_set_events(struct loop_fd *w, uint32_t events);
/* Ends the watch; its callback will not run again, not even for events already fetched.
 * Accepts NULL. Call before closing the descriptor. */
void loop_fd_del(struct loop_fd *w);

/* CLOCK_MONOTONIC in nanoseconds. Any thread. */
uint64_t loop_now_ns(void);

void loop_timer_init(struct loop_timer *t, struct loop *loop, loop_fn *fn, void *opaque);
/* (Re)arms for an absolute time; one shot. Any thread. */
void loop_timer_set(struct loop_timer *t, uint64_t deadline_ns);
/* Disarms. Any thread; from another thread the callback may just be running: the callback must
 * look at its object's state under the object's lock. */
void loop_timer_cancel(struct loop_timer *t);

/* Runs fn(opaque) on the loop thread soon, in the order posted. Any thread. Aborts on no memory. */
void loop_post(struct loop *loop, loop_fn *fn, void *opaque);

#endif
