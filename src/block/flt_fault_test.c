/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fault filter: each kind of rule does what it says, and no bad rule is accepted. */
#include "block/blk_test.h"

#include <errno.h>
#include <time.h>

static struct blk *with(void **state, const char *spec)
{
    const char *const filters[] = { spec, NULL };
    const char *path = scratch_file(state, "disk", "", 65536);
    return open_ok(&(struct blk_opts){ .path = path, .filters = filters });
}

static void test_nth(void **state)
{
    char buf[512] = { 1 };
    struct blk *blk = with(state, "fault:write.3=EIO,read.2+=EROFS,flush.1-2=ENOSPC");
    assert_int_equal(blk_pwrite(blk, 0, buf, 512), 0);
    assert_int_equal(blk_pwrite(blk, 0, buf, 512), 0);
    assert_int_equal(blk_pwrite(blk, 512, buf, 512), -EIO);
    assert_int_equal(blk_pwrite(blk, 0, buf, 512), 0);
    assert_int_equal(blk_pread(blk, 512, buf, 512), 0);
    assert_true(blk_iov_buf_is_zero(buf, 512)); /* the failed write has done nothing */
    assert_int_equal(blk_pread(blk, 0, buf, 512), -EROFS);
    assert_int_equal(blk_pread(blk, 0, buf, 512), -EROFS);
    assert_int_equal(blk_flush(blk), -ENOSPC);
    assert_int_equal(blk_flush(blk), -ENOSPC);
    assert_int_equal(blk_flush(blk), 0);
    blk_close(blk);
}

static void test_each_and_any(void **state)
{
    char buf[512];
    struct blk *blk = with(state, "fault:discard=ENOMEM,zero.*=EINTR,any.5=ETIMEDOUT");
    assert_int_equal(blk_discard(blk, 0, 512), -ENOMEM);
    assert_int_equal(blk_discard(blk, 0, 512), -ENOMEM);
    assert_int_equal(blk_write_zeroes(blk, 0, 512, false), -EINTR);
    assert_int_equal(blk_pread(blk, 0, buf, 512), 0);
    assert_int_equal(blk_pread(blk, 0, buf, 512), -ETIMEDOUT);
    assert_int_equal(blk_pread(blk, 0, buf, 512), 0);
    blk_close(blk);
}

static void test_torn(void **state)
{
    char buf[2048];
    struct blk *blk = with(state, "fault:write.1=torn:700");
    memset(buf, 7, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 0, buf, sizeof(buf)), -EIO);
    assert_int_equal(blk_pread(blk, 0, buf, sizeof(buf)), 0);
    assert_int_equal(buf[699], 7);
    assert_true(blk_iov_buf_is_zero(buf + 700, sizeof(buf) - 700));
    blk_close(blk);
}

static void test_space(void **state)
{
    char buf[4096];
    struct blk *blk = with(state, "fault:space=5000");
    memset(buf, 9, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 0, buf, 4096), 0);
    assert_int_equal(blk_pwrite(blk, 4096, buf, 4096), -ENOSPC);
    assert_int_equal(blk_pwrite(blk, 0, buf, 512), -ENOSPC);
    assert_int_equal(blk_pread(blk, 4096, buf, 4096), 0);
    assert_int_equal(buf[903], 9);
    assert_true(blk_iov_buf_is_zero(buf + 904, 4096 - 904));
    blk_close(blk);
}

static void test_delay(void **state)
{
    struct timespec a;
    struct timespec b;
    char buf[512];
    struct blk *blk = with(state, "fault:read.1=delay:30,read.1=EIO");
    (void)clock_gettime(CLOCK_MONOTONIC, &a);
    assert_int_equal(blk_pread(blk, 0, buf, 512), -EIO); /* late, and failed all the same */
    (void)clock_gettime(CLOCK_MONOTONIC, &b);
    assert_true((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec >= 30000000);
    blk_close(blk);
}

struct answer {
    int count;
    int rc;
};

static void on_done(struct blk_req *req, int rc)
{
    struct answer *a = req->opaque;
    a->count++;
    a->rc = rc;
}

/* A fault reaches done() of a queued request; the rest of the queue goes on. */
static void test_queued(void **state)
{
    static char buf[4][512];
    struct err err = ERR_INIT;
    struct blk_queue *q = NULL;
    struct blk *blk = with(state, "fault:write.2=ENOSPC");
    struct blk_req reqs[4];
    struct iovec iov[4];
    struct answer answers[4] = { 0 };
    int failed = 0;
    assert_int_equal(blk_queue_new(blk, &(struct blk_queue_opts){ .depth = 4 }, &q, &err), 0);
    for (unsigned i = 0; i < 4; i++) {
        iov[i] = (struct iovec){ buf[i], 512 };
        reqs[i] = (struct blk_req){
            .op = BLK_OP_WRITE,
            .offset = i * 512,
            .len = 512,
            .iov = &iov[i],
            .niov = 1,
            .done = on_done,
            .opaque = &answers[i],
        };
        blk_queue_submit(q, &reqs[i]);
    }
    blk_queue_drain(q);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(answers[i].count, 1);
        failed += answers[i].rc == -ENOSPC;
        assert_true(answers[i].rc == 0 || answers[i].rc == -ENOSPC);
    }
    assert_int_equal(failed, 1);
    blk_queue_free(q);
    blk_close(blk);
}

static void test_bad_rules(void **state)
{
    static const char *const bad[] = {
        "",
        "write",
        "write.=EIO",
        "write.0=EIO",
        "write.3-2=EIO",
        "write.x=EIO",
        "write.3=",
        "write.3=EWHAT",
        "scribble.1=EIO",
        "read.1=torn:5",
        "write.1=torn:",
        "write.1=delay:x",
        "space=lots",
        "space=99999999999999999999",
        "write.99999999999999999999=EIO",
        "write.1=EIO,",
        "write.1=EIO;read.1=EIO",
    };
    const char *path = scratch_file(state, "disk", "", 65536);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char spec[128];
        (void)snprintf(spec, sizeof(spec), "fault:%s", bad[i]);
        const char *const filters[] = { spec, NULL };
        open_fails(&(struct blk_opts){ .path = path, .filters = filters }, -EINVAL, "bad rule");
    }
    char many[1024] = "fault:";
    for (int i = 0; i < 33; i++) {
        strcat(many, i == 0 ? "read.1=EIO" : ",read.1=EIO");
    }
    const char *const filters[] = { many, NULL };
    open_fails(&(struct blk_opts){ .path = path, .filters = filters }, -EINVAL, "bad rule");
    const char *const unknown[] = { "mirror:x", NULL };
    open_fails(&(struct blk_opts){ .path = path, .filters = unknown }, -EINVAL, "unknown filter");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nth),       cmocka_unit_test(test_each_and_any),
        cmocka_unit_test(test_torn),      cmocka_unit_test(test_space),
        cmocka_unit_test(test_delay),     cmocka_unit_test(test_queued),
        cmocka_unit_test(test_bad_rules),
    };
    return cmocka_run_group_tests_name("flt_fault", tests, scratch_setup, scratch_teardown);
}
