/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block devices, on a loop device with sectors of 4096 bytes: the alignment that ordinary files do
 * not ask for. Needs root and free loop devices.
 */
#include "block/blk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

enum { SIZE = 1 << 20 };

static char device[32];
static int device_fd = -1;

/* Makes a loop device of the file; it goes when the returned descriptor (and all others) is closed.
 * -1 with errno where that is not possible. */
static int attach(const char *path, uint32_t block_size, char *name, size_t size)
{
    int fd = -1;
    int file = open(path, O_RDWR | O_CLOEXEC);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int index = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (index >= 0) {
        struct loop_config config = {
            .fd = (uint32_t)file,
            .block_size = block_size,
            .info = { .lo_flags = LO_FLAGS_AUTOCLEAR },
        };
        (void)snprintf(name, size, "/dev/loop%d", index);
        fd = open(name, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) < 0) {
            close(fd);
            fd = -1;
        }
    }
    if (control >= 0) {
        close(control);
    }
    close(file);
    return fd;
}

static int device_setup(void **state)
{
    if (scratch_setup(state) < 0) {
        return -1;
    }
    device_fd = attach(scratch_file(state, "file", "", SIZE), 4096, device, sizeof(device));
    if (device_fd < 0) {
        print_message("no loop device can be made here: %s\n", strerror(errno));
    }
    return 0;
}

static int device_teardown(void **state)
{
    if (device_fd >= 0) {
        close(device_fd); /* autoclear */
    }
    return scratch_teardown(state);
}

static void need_device(void)
{
    if (device_fd < 0) {
        skip();
    }
}

static void test_facts(void **state)
{
    (void)state;
    need_device();
    struct err err = ERR_INIT;
    struct blk *blk = open_ok(&(struct blk_opts){ .path = device });
    assert_int_equal(blk_size(blk), SIZE);
    assert_int_equal(blk_resize(blk, 2 * SIZE, &err), -ENOSPC);
    assert_int_equal(blk_resize(blk, SIZE / 2, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "device"));
    assert_int_equal(blk_resize(blk, SIZE, &err), 0);
    open_fails(&(struct blk_opts){ .path = device }, -EBUSY, device);
    blk_close(blk);
}

/* Whoever holds the device exclusively (a mount does) keeps us out; reading stays possible. */
static void test_used_by_the_host(void **state)
{
    (void)state;
    need_device();
    int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);
    assert_true(fd >= 0);
    open_fails(&(struct blk_opts){ .path = device }, -EBUSY, "in use by the host");
    blk_close(open_ok(&(struct blk_opts){ .path = device, .read_only = true }));
    close(fd);
    blk_close(open_ok(&(struct blk_opts){ .path = device }));
}

static void test_unaligned(void **state)
{
    (void)state;
    need_device();
    static char model[SIZE];
    static char buf[SIZE];
    struct blk *blk = open_ok(&(struct blk_opts){ .path = device, .cache = BLK_CACHE_NONE });
    unsigned seed = 17;
    assert_int_equal(blk_pwrite(blk, 0, model, SIZE), 0);
    for (int i = 0; i < 200; i++) {
        size_t at = (size_t)rand_r(&seed) % (SIZE - 1);
        size_t len = 1 + (size_t)rand_r(&seed) % MIN((size_t)SIZE - at, (size_t)20000);
        size_t skew = (size_t)rand_r(&seed) % 100;
        memset(buf + skew, rand_r(&seed), len);
        memcpy(model + at, buf + skew, len);
        assert_int_equal(blk_pwrite(blk, at, buf + skew, len), 0);
        at = (size_t)rand_r(&seed) % (SIZE - 20000);
        assert_int_equal(blk_pread(blk, at, buf + skew, len), 0);
        assert_memory_equal(buf + skew, model + at, len);
    }
    assert_int_equal(blk_write_zeroes(blk, 1000, 9000, false), 0);
    memset(model + 1000, 0, 9000);
    assert_int_equal(blk_write_zeroes(blk, 100001, 7777, true), 0);
    memset(model + 100001, 0, 7777);
    assert_int_equal(blk_pread(blk, 0, buf, SIZE), 0);
    assert_memory_equal(buf, model, SIZE);
    blk_close(blk);
}

struct one {
    struct blk_req req;
    struct iovec iov;
    int ended;
    int rc;
};

static void on_done(struct blk_req *req, int rc)
{
    struct one *one = req->opaque;
    one->ended++;
    one->rc = rc;
}

/* All sectors of 512 bytes of a few units at once, each its own request: none is lost. */
static void test_queued_sectors(void **state)
{
    (void)state;
    need_device();
    enum { N = 64 };
    static const char *const engines[] = { "threads", "uring" };
    static char bufs[N][512];
    static struct one ones[N];
    char back[512];
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        struct err err = ERR_INIT;
        struct blk_queue *q = NULL;
        struct blk_queue_opts opts = { .depth = N, .engine = engines[e] };
        struct blk *blk = open_ok(&(struct blk_opts){ .path = device, .cache = BLK_CACHE_NONE });
        if (blk_queue_new(blk, &opts, &q, &err) < 0) {
            print_message("%s\n", err.msg);
            blk_close(blk);
            continue;
        }
        for (unsigned i = 0; i < N; i++) {
            memset(bufs[i], (int)(i + 1 + e), 512);
            ones[i] = (struct one){
                .iov = {bufs[i], 512}
            };
            ones[i].req = (struct blk_req){
                .op = BLK_OP_WRITE,
                .offset = 8192 + i * 512,
                .len = 512,
                .iov = &ones[i].iov,
                .niov = 1,
                .done = on_done,
                .opaque = &ones[i],
            };
            blk_queue_submit(q, &ones[i].req);
        }
        blk_queue_drain(q);
        for (unsigned i = 0; i < N; i++) {
            assert_int_equal(ones[i].ended, 1);
            assert_int_equal(ones[i].rc, 0);
            assert_int_equal(blk_pread(blk, 8192 + i * 512, back, 512), 0);
            assert_memory_equal(back, bufs[i], 512);
        }
        blk_queue_free(q);
        blk_close(blk);
    }
}

/* Creating on a device happens in place, and only when forced. */
static void test_create_in_place(void **state)
{
    (void)state;
    need_device();
    struct err err = ERR_INIT;
    struct blk_create_opts opts = { .path = device, .format = "raw", .size = SIZE };
    assert_int_equal(blk_create(&opts, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "--force"));
    opts.force = true;
    assert_int_equal(blk_create(&opts, &err), 0);
    struct stat st;
    assert_int_equal(stat(device, &st), 0);
    assert_true(S_ISBLK(st.st_mode));
    opts.size = 2 * SIZE;
    assert_int_equal(blk_create(&opts, &err), -ENOSPC);
}

/* With O_DIRECT the write itself fails, on both engines. */
static void direct_write_fails(const char *name, char *buf, size_t len)
{
    static const char *const engines[] = { "threads", "uring" };
    struct blk *blk = open_ok(&(struct blk_opts){ .path = name, .cache = BLK_CACHE_NONE });
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        struct err err = ERR_INIT;
        struct blk_queue *q = NULL;
        struct blk_queue_opts opts = { .depth = 1, .engine = engines[e] };
        if (blk_queue_new(blk, &opts, &q, &err) < 0) {
            print_message("%s\n", err.msg);
            continue;
        }
        struct one one = {
            .iov = {buf, len}
        };
        one.req = (struct blk_req){
            .op = BLK_OP_WRITE,
            .len = len,
            .iov = &one.iov,
            .niov = 1,
            .done = on_done,
            .opaque = &one,
        };
        blk_queue_submit(q, &one.req);
        blk_queue_free(q);
        assert_int_equal(one.ended, 1);
        assert_true(one.rc == -EIO || one.rc == -ENOSPC);
    }
    blk_close(blk);
}

/* A device that loses writes: the failed flush is reported, and no later one claims success. */
static void test_lost_writes(void **state)
{
    need_device();
    _Alignas(4096) static char buf[3 << 20];
    char file[4300];
    char name[32];
    const char *dir = scratch_path(state, "small");
    assert_int_equal(mkdir(dir, 0700), 0);
    if (mount("tmpfs", dir, "tmpfs", 0, "size=1m") < 0) {
        print_message("mounting a tmpfs is not permitted here: %s\n", strerror(errno));
        skip();
    }
    (void)snprintf(file, sizeof(file), "%s/file", dir);
    assert_int_equal(close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
    assert_int_equal(truncate(file, 4 << 20), 0);
    int fd = attach(file, 512, name, sizeof(name));
    assert_true(fd >= 0);
    memset(buf, 0x11, sizeof(buf));
    direct_write_fails(name, buf, sizeof(buf));
    struct blk *blk = open_ok(&(struct blk_opts){ .path = name });
    int rc = blk_pwrite(blk, 0, buf, sizeof(buf));
    assert_int_equal(rc, 0); /* into the page cache */
    rc = blk_flush(blk);
    assert_true(rc == -EIO || rc == -ENOSPC);
    assert_int_equal(mount("tmpfs", dir, "tmpfs", MS_REMOUNT, "size=8m"), 0);
    assert_int_equal(fdatasync(fd), -1); /* each descriptor is told once ... */
    assert_int_equal(fdatasync(fd), 0);  /* ... and then all is said to be well */
    assert_int_equal(blk_flush(blk), -EIO);
    assert_int_equal(blk_flush(blk), -EIO);
    blk_close(blk);
    close(fd);
    assert_int_equal(umount2(dir, MNT_DETACH), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),           cmocka_unit_test(test_used_by_the_host),
        cmocka_unit_test(test_unaligned),       cmocka_unit_test(test_queued_sectors),
        cmocka_unit_test(test_create_in_place), cmocka_unit_test(test_lost_writes),
    };
    return cmocka_run_group_tests_name("prot_device", tests, device_setup, device_teardown);
}
