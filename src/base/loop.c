/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define LOOP_BATCH 64

struct loop_fd {
    struct loop *loop;
    int fd;
    bool dead; /* deleted while its event may already be fetched; freed after the round */
    loop_fd_fn *fn;
    void *opaque;
    TAILQ_ENTRY(loop_fd) link;
};

struct loop_task {
    loop_fn *fn;
    void *opaque;
    STAILQ_ENTRY(loop_task) link;
};

TAILQ_HEAD(loop_fd_list, loop_fd);
STAILQ_HEAD(loop_task_list, loop_task);

struct loop {
    int epoll_fd;
    int wake_fd;
    atomic_bool stop;
    struct loop_fd_list fds;
    struct loop_fd_list dead;

    pthread_mutex_t lock; /* covers timers and tasks */
    TAILQ_HEAD(, loop_timer) timers;
    struct loop_task_list tasks;
};

uint64_t loop_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

int loop_new(struct loop **ret_loop, struct err *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) {
        return err_set(err, -ENOMEM, "event loop: out of memory");
    }
    pthread_mutex_init(&loop->lock, NULL);
    TAILQ_INIT(&loop->fds);
    TAILQ_INIT(&loop->dead);
    TAILQ_INIT(&loop->timers);
    STAILQ_INIT(&loop->tasks);
    loop->wake_fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        goto fail;
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        goto fail;
    }
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0) {
        goto fail;
    }
    *ret_loop = loop;
    return 0;
fail:;
    int code = -errno;
    loop_free(loop);
    return err_set_errno(err, code, "event loop");
}

static void loop_bury(struct loop *loop)
{
    struct loop_fd *w;
    while ((w = TAILQ_FIRST(&loop->dead)) != NULL) {
        TAILQ_REMOVE(&loop->dead, w, link);
        free(w);
    }
}

void loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    struct loop_fd *w;
    while ((w = TAILQ_FIRST(&loop->fds)) != NULL) {
        loop_fd_del(w);
    }
    loop_bury(loop);
    struct loop_task *task;
    while ((task = STAILQ_FIRST(&loop->tasks)) != NULL) {
        STAILQ_REMOVE_HEAD(&loop->tasks, link);
        free(task);
    }
    if (loop->wake_fd >= 0) {
        close(loop->wake_fd);
    }
    if (loop->epoll_fd >= 0) {
        close(loop->epoll_fd);
    }
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

static void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    /* EAGAIN means the counter is full: the loop is awake already. */
    (void)!write(loop->wake_fd, &one, sizeof(one));
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stop, true, memory_order_release);
    loop_wake(loop);
}

struct loop_fd *loop_fd_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn,
                            void *opaque)
{
    struct loop_fd *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return NULL;
    }
    w->loop = loop;
    w->fd = fd;
    w->fn = fn;
    w->opaque = opaque;
    struct epoll_event ev = { .events = events, .data.ptr = w };
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        free(w);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&loop->fds, w, link);
    return w;
}

void loop_fd_set_events(struct loop_fd *w, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = w };
    int rc = epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
    assert(rc == 0);
}

void loop_fd_del(struct loop_fd *w)
{
    if (w == NULL || w->dead) {
        return;
    }
    /* Fails only if the descriptor was closed first, which has the same effect. */
    (void)epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->dead = true;
    TAILQ_REMOVE(&w->loop->fds, w, link);
    TAILQ_INSERT_TAIL(&w->loop->dead, w, link);
}

void loop_timer_init(struct loop_timer *t, struct loop *loop, loop_fn *fn, void *opaque)
{
    *t = (struct loop_timer){ .loop = loop, .fn = fn, .opaque = opaque };
}

void loop_timer_set(struct loop_timer *t, uint64_t deadline_ns)
{
    struct loop *loop = t->loop;
    pthread_mutex_lock(&loop->lock);
    if (t->armed) {
        TAILQ_REMOVE(&loop->timers, t, link);
    }
    t->armed = true;
    t->deadline_ns = deadline_ns;
    struct loop_timer *at;
    TAILQ_FOREACH(at, &loop->timers, link)
    {
        if (at->deadline_ns > deadline_ns) {
            break;
        }
    }
    if (at != NULL) {
        TAILQ_INSERT_BEFORE(at, t, link);
    } else {
        TAILQ_INSERT_TAIL(&loop->timers, t, link);
    }
    bool first = TAILQ_FIRST(&loop->timers) == t;
    pthread_mutex_unlock(&loop->lock);
    if (first) {
        loop_wake(loop);
    }
}

void loop_timer_cancel(struct loop_timer *t)
{
    if (t->loop == NULL) {
        return;
    }
    pthread_mutex_lock(&t->loop->lock);
    if (t->armed) {
        TAILQ_REMOVE(&t->loop->timers, t, link);
        t->armed = false;
    }
    pthread_mutex_unlock(&t->loop->lock);
}

void loop_post(struct loop *loop, loop_fn *fn, void *opaque)
{
    struct loop_task *task = malloc(sizeof(*task));
    if (task == NULL) {
        abort();
    }
    *task = (struct loop_task){ .fn = fn, .opaque = opaque };
    pthread_mutex_lock(&loop->lock);
    bool first = STAILQ_EMPTY(&loop->tasks);
    STAILQ_INSERT_TAIL(&loop->tasks, task, link);
    pthread_mutex_unlock(&loop->lock);
    if (first) {
        loop_wake(loop);
    }
}

/* Runs the timers that are due now; one armed by a callback for now waits for the next round. */
static void loop_run_timers(struct loop *loop)
{
    uint64_t now = loop_now_ns();
    for (;;) {
        pthread_mutex_lock(&loop->lock);
        struct loop_timer *t = TAILQ_FIRST(&loop->timers);
        if (t == NULL || t->deadline_ns > now) {
            pthread_mutex_unlock(&loop->lock);
            return;
        }
        TAILQ_REMOVE(&loop->timers, t, link);
        t->armed = false;
        loop_fn *fn = t->fn;
        void *opaque = t->opaque;
        pthread_mutex_unlock(&loop->lock);
        fn(opaque);
    }
}

/* Runs what was posted before this round; what the tasks post waits for the next. */
static void loop_run_tasks(struct loop *loop)
{
    struct loop_task_list tasks = STAILQ_HEAD_INITIALIZER(tasks);
    pthread_mutex_lock(&loop->lock);
    STAILQ_CONCAT(&tasks, &loop->tasks);
    pthread_mutex_unlock(&loop->lock);
    struct loop_task *task;
    while ((task = STAILQ_FIRST(&tasks)) != NULL) {
        STAILQ_REMOVE_HEAD(&tasks, link);
        task->fn(task->opaque);
        free(task);
    }
}

/* Time to wait in ns: the smaller of the caller's limit and the next timer. -1 = for ever. */
static int64_t loop_wait_ns(struct loop *loop, int timeout_ms)
{
    int64_t wait = timeout_ms < 0 ? -1 : (int64_t)timeout_ms * 1000000;
    pthread_mutex_lock(&loop->lock);
    const struct loop_timer *t = TAILQ_FIRST(&loop->timers);
    if (t != NULL) {
        uint64_t now = loop_now_ns();
        int64_t due = t->deadline_ns <= now ? 0 : (int64_t)(t->deadline_ns - now);
        wait = wait < 0 ? due : MIN(wait, due);
    }
    if (!STAILQ_EMPTY(&loop->tasks)) {
        wait = 0;
    }
    pthread_mutex_unlock(&loop->lock);
    return wait;
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
    struct epoll_event events[LOOP_BATCH];
    int64_t wait = loop_wait_ns(loop, timeout_ms);
    struct timespec ts = { .tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000 };
    int n = epoll_pwait2(loop->epoll_fd, events, LOOP_BATCH, wait < 0 ? NULL : &ts, NULL);
    if (n < 0 && errno != EINTR) {
        return -errno;
    }
    for (int i = 0; i < n; i++) {
        struct loop_fd *w = events[i].data.ptr;
        if (w == NULL) {
            uint64_t count;
            (void)!read(loop->wake_fd, &count, sizeof(count));
        } else if (!w->dead) {
            w->fn(w->opaque, events[i].events);
        }
    }
    loop_run_timers(loop);
    loop_run_tasks(loop);
    loop_bury(loop);
    return 0;
}

int loop_run(struct loop *loop)
{
    while (!atomic_load_explicit(&loop->stop, memory_order_acquire)) {
        int rc = loop_run_once(loop, -1);
        if (rc < 0) {
            return rc;
        }
    }
    atomic_store_explicit(&loop->stop, false, memory_order_relaxed);
    return 0;
}
