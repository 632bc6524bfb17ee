/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many requests of all kinds at once on qcow2 over a backing file, on both engines: the fast path,
 * the workers and the format's locks against each other. The disk must equal a model in memory, the
 * image must check clean, and a full file must lose nothing.
 */
#include "block/blk_test.h"

#include <errno.h>

enum {
    SECTORS = 4096, /* 2 MiB */
    SLOTS = 24,     /* requests at once, each on its own stripe of the disk */
    STRIPE = SECTORS / SLOTS,
    ROUNDS = 15,
};

struct slot {
    struct blk_req req;
    struct iovec iov[3];
    unsigned first, n; /* sectors */
    int ended;
    int rc;
    char buf[STRIPE * 512];
};

struct stress {
    struct slot slots[SLOTS];
    char model[SECTORS * 512];
    bool unknown[SECTORS]; /* discarded: any content is right */
    char back[SECTORS * 512];
    unsigned seed;
};

static unsigned dice(struct stress *s, unsigned n)
{
    return (unsigned)rand_r(&s->seed) % n;
}

static void on_done(struct blk_req *req, int rc)
{
    struct slot *slot = req->opaque;
    slot->ended++;
    slot->rc = rc;
}

static void check_sectors(const struct stress *s, const char *got, unsigned first, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!s->unknown[first + i] &&
            memcmp(got + i * 512, s->model + (first + i) * 512, 512) != 0) {
            fail_msg("sector %u differs", first + i);
        }
    }
}

static void prepare(struct stress *s, unsigned index)
{
    static const enum blk_op ops[] = { BLK_OP_READ,    BLK_OP_READ,         BLK_OP_WRITE,
                                       BLK_OP_WRITE,   BLK_OP_WRITE,        BLK_OP_FLUSH,
                                       BLK_OP_DISCARD, BLK_OP_WRITE_ZEROES, BLK_OP_WRITE_ZEROES };
    struct slot *slot = &s->slots[index];
    unsigned at = dice(s, STRIPE);
    slot->first = index * STRIPE + at;
    slot->n = 1 + dice(s, STRIPE - at);
    slot->ended = 0;
    size_t len = slot->n * 512;
    size_t cut = 512 + dice(s, (unsigned)len - 511);
    cut = MIN(cut, len);
    slot->iov[0] = (struct iovec){ slot->buf, cut };
    slot->iov[1] = (struct iovec){ NULL, 0 };
    slot->iov[2] = (struct iovec){ slot->buf + cut, len - cut };
    slot->req = (struct blk_req){
        .op = ops[dice(s, ARRAY_LEN(ops))],
        .flags = dice(s, 2) != 0 ? BLK_REQ_MAY_UNMAP : 0,
        .offset = slot->first * UINT64_C(512),
        .len = len,
        .iov = slot->iov,
        .niov = 3,
        .done = on_done,
        .opaque = slot,
    };
    memset(slot->buf, (int)dice(s, 256), len);
}

/* What a request that succeeded has made of the model; checks what it has read. */
static void account(struct stress *s, const struct slot *slot)
{
    char *model = s->model + slot->first * 512;
    size_t len = slot->n * 512;
    switch (slot->req.op) {
    case BLK_OP_READ:
        check_sectors(s, slot->buf, slot->first, slot->n);
        return;
    case BLK_OP_WRITE:
        memcpy(model, slot->buf, len);
        break;
    case BLK_OP_WRITE_ZEROES:
        memset(model, 0, len);
        break;
    case BLK_OP_DISCARD:
        memset(s->unknown + slot->first, true, slot->n);
        return;
    case BLK_OP_FLUSH:
        return;
    }
    memset(s->unknown + slot->first, false, slot->n);
}

/* Rounds of SLOTS requests; one that fails with `tolerated` is submitted again until it succeeds.
 */
static void run(struct stress *s, struct blk *blk, const char *engine, int tolerated)
{
    struct err err = ERR_INIT;
    struct blk_queue *q = NULL;
    struct blk_queue_opts opts = { .depth = 16, .engine = engine };
    if (blk_queue_new(blk, &opts, &q, &err) < 0) {
        print_message("%s\n", err.msg);
        return;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < SLOTS; i++) {
            prepare(s, i);
            blk_queue_submit(q, &s->slots[i].req);
        }
        blk_queue_drain(q);
        for (unsigned i = 0; i < SLOTS; i++) {
            struct slot *slot = &s->slots[i];
            for (int again = 0; slot->rc != 0 && slot->rc == tolerated && again < 1000; again++) {
                slot->ended = 0;
                blk_queue_submit(q, &slot->req);
                blk_queue_drain(q);
            }
            assert_int_equal(slot->ended, 1);
            assert_int_equal(slot->rc, 0);
            account(s, slot);
        }
    }
    blk_queue_free(q);
    /* What the format still holds back must reach the file, too, before it is closed. */
    /* What one flush frees is counted down by the next. */
    int rc = 0;
    for (int good = 0, again = 0; good < 3 && again < 1000; again++) {
        rc = blk_flush(blk);
        good = rc == 0 ? good + 1 : 0;
        if (rc != 0 && rc != tolerated) {
            break;
        }
    }
    assert_int_equal(rc, 0);
}

static void report(void *opaque, const char *text)
{
    (void)opaque;
    print_message("check: %s\n", text);
}

static void verify(struct stress *s, const char *path)
{
    struct err err = ERR_INIT;
    struct blk_check check = { .report = report };
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path, .read_only = true });
    assert_int_equal(blk_pread(blk, 0, s->back, sizeof(s->back)), 0);
    check_sectors(s, s->back, 0, SECTORS);
    assert_int_equal(blk_check(blk, 0, &check, &err), 0);
    assert_int_equal(check.errors, 0);
    assert_int_equal(check.leaks, 0);
    blk_close(blk);
}

/* An image over half of a backing file, whose content the model takes over. */
static const char *make_image(void **state, struct stress *s, const char *cluster_size)
{
    struct err err = ERR_INIT;
    const char *base = scratch_file(state, "base.raw", "", SECTORS * 256);
    const char *path = scratch_path(state, "disk.qcow2");
    char param[64];
    (void)snprintf(param, sizeof(param), "cluster_size=%s", cluster_size);
    const char *const params[] = { param, NULL };
    memset(s->model, 0, sizeof(s->model));
    memset(s->unknown, 0, sizeof(s->unknown));
    for (size_t i = 0; i < SECTORS * 256; i++) {
        s->model[i] = (char)(i * 7 + i / 512);
    }
    struct blk *blk = open_ok(&(struct blk_opts){ .path = base });
    assert_int_equal(blk_pwrite(blk, 0, s->model, SECTORS * 256), 0);
    blk_close(blk);
    struct blk_create_opts opts = {
        .path = path,
        .format = "qcow2",
        .size = sizeof(s->model),
        .force = true,
        .backing = "base.raw",
        .backing_format = "raw",
        .params = params,
    };
    if (blk_create(&opts, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return path;
}

static void run_all(void **state, enum blk_cache cache, const char *filter, int tolerated)
{
    static const char *const engines[] = { "threads", "uring" };
    static const char *const cluster_sizes[] = { "512", "4K", "64K" };
    struct stress *s = calloc(1, sizeof(*s));
    const char *const filters[] = { filter, NULL };
    assert_non_null(s);
    for (size_t c = 0; c < ARRAY_LEN(cluster_sizes); c++) {
        const char *path = make_image(state, s, cluster_sizes[c]);
        for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
            struct blk_opts opts = {
                .path = path,
                .cache = cache,
                .filters = filter != NULL ? filters : NULL,
            };
            struct blk *blk = open_ok(&opts);
            run(s, blk, engines[e], tolerated);
            blk_close(blk);
            verify(s, path);
        }
    }
    free(s);
}

static void test_writeback(void **state)
{
    run_all(state, BLK_CACHE_WRITEBACK, NULL, 0);
}

static void test_direct(void **state)
{
    run_all(state, BLK_CACHE_NONE, NULL, 0);
}

/* Now and then the file is full for a while: paused requests, submitted again, lose nothing. */
static void test_full_now_and_then(void **state)
{
    run_all(state, BLK_CACHE_UNSAFE,
            "fault:write.40-60=ENOSPC,write.200-203=ENOSPC,write.900-950=ENOSPC", -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writeback),
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_full_now_and_then),
    };
    return cmocka_run_group_tests_name("blk_stress", tests, scratch_setup, scratch_teardown);
}
