/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

struct probe {
    struct loop *loop;
    struct loop_fd *other;
    int hits;
    int order[8];
};

static struct loop *new_loop(void)
{
    struct err err = ERR_INIT;
    struct loop *loop = NULL;
    assert_int_equal(loop_new(&loop, &err), 0);
    return loop;
}

static void on_fd_delete_other(void *opaque, uint32_t events)
{
    struct probe *p = opaque;
    assert_true(events & EPOLLIN);
    p->hits++;
    loop_fd_del(p->other);
    p->other = NULL;
}

static void on_fd_must_not_run(void *opaque, uint32_t events)
{
    (void)opaque;
    (void)events;
    fail();
}

/* Both are readable in one round; the first callback deletes the second. */
static void watch_deleted_in_same_round_does_not_run(void **state)
{
    (void)state;
    struct probe p = { .loop = new_loop() };
    int a[2];
    int b[2];
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    assert_int_equal(write(a[1], "x", 1), 1);
    struct loop_fd *w = loop_fd_add(p.loop, a[0], EPOLLIN, on_fd_delete_other, &p);
    assert_non_null(w);
    assert_int_equal(write(b[1], "x", 1), 1);
    p.other = loop_fd_add(p.loop, b[0], EPOLLIN, on_fd_must_not_run, &p);
    assert_non_null(p.other);
    assert_int_equal(loop_run_once(p.loop, 1000), 0);
    assert_int_equal(p.hits, 1);
    loop_free(p.loop);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void on_timer_stop(void *opaque)
{
    struct probe *p = opaque;
    p->order[p->hits++] = 99;
    loop_stop(p->loop);
}

static void on_timer_count(void *opaque)
{
    struct probe *p = opaque;
    p->order[p->hits++] = 1;
}

static void timers_fire_in_deadline_order_and_cancel(void **state)
{
    (void)state;
    struct probe p = { .loop = new_loop() };
    struct loop_timer early;
    struct loop_timer late;
    struct loop_timer never;
    loop_timer_init(&early, p.loop, on_timer_count, &p);
    loop_timer_init(&late, p.loop, on_timer_stop, &p);
    loop_timer_init(&never, p.loop, on_timer_count, &p);
    uint64_t now = loop_now_ns();
    loop_timer_set(&late, now + 3000000);
    loop_timer_set(&never, now + 2000000);
    loop_timer_set(&early, now + 1000000);
    loop_timer_cancel(&never);
    assert_int_equal(loop_run(p.loop), 0);
    assert_true(loop_now_ns() - now >= 3000000);
    assert_int_equal(p.hits, 2);
    assert_int_equal(p.order[0], 1);
    assert_int_equal(p.order[1], 99);
    loop_free(p.loop);
}

static void *post_from_thread(void *opaque)
{
    struct probe *p = opaque;
    for (int i = 0; i < 3; i++) {
        loop_post(p->loop, on_timer_count, p);
    }
    loop_post(p->loop, on_timer_stop, p);
    return NULL;
}

static void posts_from_another_thread_keep_order(void **state)
{
    (void)state;
    struct probe p = { .loop = new_loop() };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_from_thread, &p), 0);
    assert_int_equal(loop_run(p.loop), 0);
    pthread_join(thread, NULL);
    assert_int_equal(p.hits, 4);
    assert_int_equal(p.order[3], 99);
    loop_free(p.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watch_deleted_in_same_round_does_not_run),
        cmocka_unit_test(timers_fire_in_deadline_order_and_cancel),
        cmocka_unit_test(posts_from_another_thread_keep_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
