/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Queues on both engines: each request ends once, with the right data or error. */
#include "block/blk_test.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define DEPTH 8

static const char *const engines[] = { "threads", "uring" };

struct op {
    struct blk_req req;
    struct iovec iov[4];
    int ended;
    int rc;
    struct blk_queue *resubmit;
};

static void on_done(struct blk_req *req, int rc)
{
    struct op *op = req->opaque;
    op->ended++;
    op->rc = rc;
    if (op->resubmit != NULL) {
        struct blk_queue *q = op->resubmit;
        op->resubmit = NULL;
        blk_queue_submit(q, req);
        blk_queue_kick(q);
    }
}

static void op_init(struct op *op, enum blk_op kind, uint64_t offset, uint64_t len, void *buf)
{
    *op = (struct op){ 0 };
    op->iov[0] = (struct iovec){ .iov_base = buf, .iov_len = len };
    op->req = (struct blk_req){
        .op = kind,
        .offset = offset,
        .len = len,
        .iov = op->iov,
        .niov = buf == NULL ? 0 : 1,
        .done = on_done,
        .opaque = op,
    };
}

/* NULL where the host forbids the engine. */
static struct blk_queue *queue(struct blk *blk, const char *engine)
{
    struct err err = ERR_INIT;
    struct blk_queue *q = NULL;
    struct blk_queue_opts opts = { .depth = DEPTH, .engine = engine };
    if (blk_queue_new(blk, &opts, &q, &err) < 0) {
        print_message("engine %s: %s\n", engine, err.msg);
        return NULL;
    }
    assert_string_equal(blk_queue_engine_name(q), engine);
    return q;
}

static int one(struct blk_queue *q, enum blk_op kind, uint64_t offset, uint64_t len, void *buf)
{
    struct op op;
    op_init(&op, kind, offset, len, buf);
    blk_queue_submit(q, &op.req);
    blk_queue_drain(q);
    assert_int_equal(op.ended, 1);
    return op.rc;
}

/* Random reads and writes against a copy in memory. */
static void run_random(struct blk *blk, struct blk_queue *q)
{
    enum { SECTORS = 512, ROUNDS = 40 };
    static char model[SECTORS * 512];
    static char bufs[DEPTH * 3][64 * 512];
    static struct op ops[DEPTH * 3];
    unsigned seed = 7;
    memset(model, 0, sizeof(model));
    assert_int_equal(blk_pwrite(blk, 0, model, sizeof(model)), 0);
    for (int round = 0; round < ROUNDS; round++) {
        /* Each request has its own part of the disk, so that their order does not matter. */
        for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
            unsigned room = SECTORS / ARRAY_LEN(ops);
            unsigned first = (unsigned)rand_r(&seed) % room;
            unsigned n = 1 + (unsigned)rand_r(&seed) % (room - first);
            uint64_t at = (i * room + first) * UINT64_C(512);
            bool write = rand_r(&seed) & 1;
            op_init(&ops[i], write ? BLK_OP_WRITE : BLK_OP_READ, at, n * 512, bufs[i]);
            size_t cut = 1 + (size_t)rand_r(&seed) % (n * 512 - 1);
            ops[i].iov[0].iov_len = cut;
            ops[i].iov[1] = (struct iovec){ bufs[i] + cut, n * 512 - cut };
            ops[i].req.niov = 2;
            memset(bufs[i], rand_r(&seed), n * 512);
            if (write) {
                memcpy(model + at, bufs[i], n * 512);
            }
            blk_queue_submit(q, &ops[i].req);
        }
        blk_queue_kick(q);
        blk_queue_drain(q);
        for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
            assert_int_equal(ops[i].ended, 1);
            assert_int_equal(ops[i].rc, 0);
            assert_memory_equal(bufs[i], model + ops[i].req.offset, ops[i].req.len);
        }
    }
    static char back[sizeof(model)];
    assert_int_equal(blk_pread(blk, 0, back, sizeof(back)), 0);
    assert_memory_equal(back, model, sizeof(model));
}

static void test_random(void **state)
{
    for (int cache = BLK_CACHE_WRITEBACK; cache <= BLK_CACHE_UNSAFE; cache++) {
        const char *path = scratch_file(state, "disk", "", MIB);
        struct blk *blk = open_ok(&(struct blk_opts){ .path = path, .cache = cache });
        for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
            struct blk_queue *q = queue(blk, engines[e]);
            if (q != NULL) {
                run_random(blk, q);
            }
            blk_queue_free(q);
        }
        blk_close(blk);
    }
}

/* A list that is longer than io_uring takes goes by the workers. */
static void test_long_list(void **state)
{
    enum { N = 2048 };
    static char mem[N * 512];
    static struct iovec iov[N];
    struct blk *blk =
        open_ok(&(struct blk_opts){ .path = scratch_file(state, "disk", "", 2 << 20) });
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        struct blk_queue *q = queue(blk, engines[e]);
        if (q == NULL) {
            continue;
        }
        for (size_t i = 0; i < N; i++) {
            iov[i] = (struct iovec){ mem + i * 512, 512 };
            memset(mem + i * 512, (int)(i + e), 512);
        }
        for (int op = BLK_OP_WRITE; op >= BLK_OP_READ; op--) {
            struct op o;
            op_init(&o, (enum blk_op)op, 4096, sizeof(mem), mem);
            o.req.iov = iov;
            o.req.niov = N;
            blk_queue_submit(q, &o.req);
            blk_queue_drain(q);
            assert_int_equal(o.ended, 1);
            assert_int_equal(o.rc, 0);
            for (size_t i = 0; i < N; i++) {
                assert_int_equal(mem[i * 512 + 511], (char)(i + e));
            }
            memset(mem, 0, op == BLK_OP_WRITE ? sizeof(mem) : 0);
        }
        blk_queue_free(q);
    }
    blk_close(blk);
}

static void test_bad_requests(void **state)
{
    static char buf[2048];
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        struct blk_queue *q = queue(blk, engines[e]);
        if (q == NULL) {
            continue;
        }
        assert_int_equal(one(q, BLK_OP_READ, 8192, 512, buf), -EINVAL);
        assert_int_equal(one(q, BLK_OP_READ, 7680, 1024, buf), -EINVAL);
        assert_int_equal(one(q, BLK_OP_WRITE, 100, 512, buf), -EINVAL);
        assert_int_equal(one(q, BLK_OP_WRITE, 0, 100, buf), -EINVAL);
        assert_int_equal(one(q, BLK_OP_WRITE, UINT64_MAX - 511, 1024, buf), -EINVAL);
        assert_int_equal(one(q, BLK_OP_DISCARD, 0, UINT64_MAX - 511, NULL), -EINVAL);
        assert_int_equal(one(q, BLK_OP_WRITE_ZEROES, 8192, 512, NULL), -EINVAL);
        assert_int_equal(one(q, (enum blk_op)77, 0, 512, buf), -EINVAL);
        assert_int_equal(one(q, BLK_OP_READ, 0, 512, NULL), -EINVAL); /* no iov for 512 bytes */
        assert_int_equal(one(q, BLK_OP_READ, 0, 0, buf), 0);
        assert_int_equal(one(q, BLK_OP_FLUSH, 0, 0, NULL), 0);
        blk_queue_free(q);
    }
    blk_close(blk);
    blk = open_ok(&(struct blk_opts){ .path = path, .read_only = true });
    struct blk_queue *q = queue(blk, "threads");
    assert_int_equal(one(q, BLK_OP_WRITE, 0, 512, buf), -EROFS);
    assert_int_equal(one(q, BLK_OP_DISCARD, 0, 512, NULL), -EROFS);
    assert_int_equal(one(q, BLK_OP_FLUSH, 0, 0, NULL), 0);
    blk_queue_free(q);
    blk_close(blk);
}

static void test_bad_options(void **state)
{
    struct err err = ERR_INIT;
    struct blk_queue *q = NULL;
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    struct blk_queue_opts opts = { .depth = 0 };
    assert_int_equal(blk_queue_new(blk, &opts, &q, &err), -EINVAL);
    opts.depth = 1025;
    assert_int_equal(blk_queue_new(blk, &opts, &q, &err), -EINVAL);
    opts = (struct blk_queue_opts){ .depth = 1, .engine = "steam" };
    assert_int_equal(blk_queue_new(blk, &opts, &q, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "'steam'"));
    blk_queue_free(NULL);
    blk_close(blk);
}

static void test_zeroes_and_discard(void **state)
{
    static char buf[65536];
    const char *path = scratch_file(state, "disk", "", 65536);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        struct blk_queue *q = queue(blk, engines[e]);
        if (q == NULL) {
            continue;
        }
        memset(buf, 0x77, sizeof(buf));
        assert_int_equal(one(q, BLK_OP_WRITE, 0, sizeof(buf), buf), 0);
        assert_int_equal(one(q, BLK_OP_WRITE_ZEROES, 512, 4096, NULL), 0);
        assert_int_equal(one(q, BLK_OP_DISCARD, 16384, 16384, NULL), 0);
        assert_int_equal(one(q, BLK_OP_READ, 0, sizeof(buf), buf), 0);
        assert_int_equal(buf[511], 0x77);
        assert_true(blk_iov_buf_is_zero(buf + 512, 4096));
        assert_int_equal(buf[4608], 0x77);
        assert_int_equal(buf[16383], 0x77);
        assert_int_equal(buf[32768], 0x77);
        blk_queue_free(q);
    }
    blk_close(blk);
}

/* A request that is refused at once still makes the descriptor readable, and only reap ends it. */
static void test_refusal_is_signalled(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    struct blk_queue *q = queue(blk, "threads");
    struct op op;
    op_init(&op, BLK_OP_DISCARD, 8192, 512, NULL);
    blk_queue_submit(q, &op.req);
    assert_int_equal(op.ended, 0);
    struct pollfd pfd = { .fd = blk_queue_fd(q), .events = POLLIN };
    assert_int_equal(poll(&pfd, 1, 0), 1);
    assert_int_equal(blk_queue_reap(q), 1);
    assert_int_equal(op.ended, 1);
    assert_int_equal(poll(&pfd, 1, 0), 0);
    assert_int_equal(blk_queue_reap(q), 0);
    blk_queue_free(q);
    blk_close(blk);
}

static void test_resubmit_from_done(void **state)
{
    static char buf[512];
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        struct blk_queue *q = queue(blk, engines[e]);
        struct op ops[3];
        if (q == NULL) {
            continue;
        }
        op_init(&ops[0], BLK_OP_READ, 0, 512, buf);
        op_init(&ops[1], BLK_OP_DISCARD, 8192, 512, NULL); /* refused */
        op_init(&ops[2], BLK_OP_FLUSH, 0, 0, NULL);
        for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
            ops[i].resubmit = q;
            blk_queue_submit(q, &ops[i].req);
        }
        blk_queue_free(q); /* drains */
        for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
            assert_int_equal(ops[i].ended, 2);
        }
    }
    blk_close(blk);
}

/* The file has become shorter behind our back: the missing part reads as zeroes. */
static void test_short_read(void **state)
{
    static char buf[8192];
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        struct blk_queue *q = queue(blk, engines[e]);
        if (q == NULL) {
            continue;
        }
        memset(buf, 0x11, sizeof(buf));
        assert_int_equal(blk_pwrite(blk, 0, buf, sizeof(buf)), 0);
        assert_int_equal(truncate(path, 3000), 0);
        memset(buf, 0x22, sizeof(buf));
        assert_int_equal(one(q, BLK_OP_READ, 0, sizeof(buf), buf), 0);
        assert_int_equal(buf[2999], 0x11);
        assert_true(blk_iov_buf_is_zero(buf + 3000, sizeof(buf) - 3000));
        blk_queue_free(q);
    }
    blk_close(blk);
}

/* A full file system: -ENOSPC reaches done(), and after room is made the same write succeeds. */
static void test_enospc(void **state)
{
    enum { SIZE = 4 << 20 };
    const char *dir = scratch_path(state, "small");
    char path[4300];
    char filler[4300];
    assert_int_equal(mkdir(dir, 0700), 0);
    if (mount("tmpfs", dir, "tmpfs", 0, "size=2m") < 0) {
        print_message("mounting a tmpfs is not permitted here: %s\n", strerror(errno));
        skip();
    }
    (void)snprintf(path, sizeof(path), "%s/disk", dir);
    (void)snprintf(filler, sizeof(filler), "%s/filler", dir);
    char *buf = malloc(SIZE);
    assert_non_null(buf);
    memset(buf, 0x42, SIZE);
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        (void)fclose(f);
        assert_int_equal(truncate(path, SIZE), 0);
        struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
        struct blk_queue *q = queue(blk, engines[e]);
        if (q != NULL) {
            assert_int_equal(one(q, BLK_OP_WRITE, 0, SIZE, buf), -ENOSPC);
            assert_int_equal(mount("tmpfs", dir, "tmpfs", MS_REMOUNT, "size=6m"), 0);
            assert_int_equal(one(q, BLK_OP_WRITE, 0, SIZE, buf), 0);
            memset(buf, 0, SIZE);
            assert_int_equal(one(q, BLK_OP_READ, 0, SIZE, buf), 0);
            assert_int_equal(buf[0], 0x42);
            assert_int_equal(memcmp(buf, buf + 1, SIZE - 1), 0);
            blk_queue_free(q);
        }
        blk_close(blk);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mount("tmpfs", dir, "tmpfs", MS_REMOUNT, "size=2m"), 0);
    }
    free(buf);
    assert_int_equal(umount(dir), 0);
}

static void forbid_io_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { .len = ARRAY_LEN(code), .filter = code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0) {
        _exit(77);
    }
}

static void test_fallback_where_io_uring_is_forbidden(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct err err = ERR_INIT;
        struct blk *blk = NULL;
        struct blk_queue *q = NULL;
        char buf[512];
        forbid_io_uring();
        if (blk_open(&(struct blk_opts){ .path = path }, &blk, &err) < 0 ||
            blk_queue_new(blk, &(struct blk_queue_opts){ .depth = 4 }, &q, &err) < 0) {
            _exit(1);
        }
        if (strcmp(blk_queue_engine_name(q), "threads") != 0) {
            _exit(2);
        }
        struct op op;
        op_init(&op, BLK_OP_READ, 0, 512, buf);
        blk_queue_submit(q, &op.req);
        blk_queue_drain(q);
        struct blk_queue *forced = NULL;
        struct blk_queue_opts uring = { .depth = 4, .engine = "uring" };
        if (op.ended != 1 || op.rc != 0 || blk_queue_new(blk, &uring, &forced, &err) != -EPERM) {
            _exit(3);
        }
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("seccomp filters are not permitted here\n");
        skip();
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_long_list),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_zeroes_and_discard),
        cmocka_unit_test(test_refusal_is_signalled),
        cmocka_unit_test(test_resubmit_from_done),
        cmocka_unit_test(test_short_read),
        cmocka_unit_test(test_enospc),
        cmocka_unit_test(test_fallback_where_io_uring_is_forbidden),
    };
    return cmocka_run_group_tests_name("blk_queue", tests, scratch_setup, scratch_teardown);
}
