/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening by every bad name, bounds, the format rules, raw images' tails, creation. */
#include "block/blk_test.h"

#include <errno.h>
#include <fcntl.h>

static void test_bad_names(void **state)
{
    open_fails(&(struct blk_opts){ .path = "" }, -EINVAL, "name is empty");
    open_fails(&(struct blk_opts){ .path = "/nonexistent/x" }, -ENOENT, "/nonexistent/x");
    open_fails(&(struct blk_opts){ .path = "/var/tmp" }, -EISDIR, "is a directory");
    open_fails(&(struct blk_opts){ .path = "/dev/null" }, -EINVAL, "character device");
    const char *fifo = scratch_path(state, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    open_fails(&(struct blk_opts){ .path = fifo }, -EINVAL, "named pipe");
    open_fails(&(struct blk_opts){ .path = "x", .format = "vm\x1b" }, -EINVAL,
               "unknown format 'vm\\x1b' (there are: raw");
}

static void test_magic_is_refused_not_followed(void **state)
{
    const char *path = scratch_file(state, "evil.img", "QFI\xfb", 65536);
    open_fails(&(struct blk_opts){ .path = path }, -EINVAL, "looks like qcow2");
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path, .format = "raw" });
    char head[4];
    assert_int_equal(blk_pread(blk, 0, head, 4), 0);
    assert_memory_equal(head, "QFI\xfb", 4);
    blk_close(blk);
}

static void test_bounds(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    char buf[1024] = { 1 };
    assert_int_equal(blk_size(blk), 8192);
    assert_int_equal(blk_pread(blk, 7168, buf, 1024), 0);
    assert_int_equal(blk_pread(blk, 7169, buf, 1024), -EINVAL);
    assert_int_equal(blk_pwrite(blk, 8192, buf, 1), -EINVAL);
    assert_int_equal(blk_pwrite(blk, 8192, buf, 0), 0);
    assert_int_equal(blk_pread(blk, UINT64_MAX - 100, buf, 1024), -EINVAL);
    assert_int_equal(blk_discard(blk, 4096, UINT64_MAX - 4000), -EINVAL);
    assert_int_equal(blk_write_zeroes(blk, 4096, 4097, true), -EINVAL);
    struct blk_extent ext;
    assert_int_equal(blk_status(blk, 8192, 1, &ext), -EINVAL);
    assert_int_equal(blk_status(blk, 0, 0, &ext), -EINVAL);
    blk_close(blk);
}

static void test_read_only(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path, .read_only = true });
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), -EROFS);
    assert_int_equal(blk_discard(blk, 0, 512), -EROFS);
    assert_int_equal(blk_write_zeroes(blk, 0, 512, false), -EROFS);
    struct err err = ERR_INIT;
    assert_int_equal(blk_resize(blk, 16384, &err), -EROFS);
    assert_int_equal(blk_flush(blk), 0);
    blk_close(blk);
}

static void test_raw_tail(void **state)
{
    const char *path = scratch_file(state, "tail", "", 1000);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    char buf[512];
    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(blk_size(blk), 1024);
    assert_int_equal(blk_pread(blk, 512, buf, 512), 0);
    assert_true(blk_iov_buf_is_zero(buf, 512));
    memset(buf, 0x5a, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 512, buf, 512), 0);
    blk_close(blk);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1024);
}

static void test_empty_file(void **state)
{
    const char *path = scratch_file(state, "empty", "", 0);
    open_fails(&(struct blk_opts){ .path = path }, -EINVAL, "is empty");
}

static void test_create(void **state)
{
    struct err err = ERR_INIT;
    const char *path = scratch_path(state, "new.img");
    struct blk_create_opts opts = { .path = path, .format = "raw", .size = 1 * MIB };
    assert_int_equal(blk_create(&opts, &err), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, MIB);
    assert_int_equal(blk_create(&opts, &err), -EEXIST);
    assert_non_null(strstr(err.msg, path));
    opts.force = true;
    opts.size = 2 * MIB;
    assert_int_equal(blk_create(&opts, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 2 * MIB);
    opts.size = 0;
    assert_int_equal(blk_create(&opts, &err), -EINVAL);
    opts.size = 1000;
    assert_int_equal(blk_create(&opts, &err), -EINVAL);
    /* In use: not even by force. */
    opts.size = MIB;
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    assert_int_equal(blk_create(&opts, &err), -EBUSY);
    blk_close(blk);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 2 * MIB);
}

static void test_create_abort_leaves_nothing(void **state)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    const char *path = scratch_path(state, "aborted.img");
    struct blk_create_opts opts = { .path = path, .format = "raw", .size = 1 * MIB };
    assert_int_equal(blk_create_begin(&opts, &blk, &err), 0);
    assert_int_equal(access(path, F_OK), -1);
    blk_create_abort(&opts, blk);
    assert_int_equal(access(path, F_OK), -1);
    char partial[4300];
    (void)snprintf(partial, sizeof(partial), "%s.posada-partial-%d", path, (int)getpid());
    assert_int_equal(access(partial, F_OK), -1);
}

/* Somebody takes the name between begin and commit: his file stays, ours goes. */
static void test_create_race(void **state)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct stat st;
    char partial[4300];
    const char *path = scratch_path(state, "raced.img");
    struct blk_create_opts opts = { .path = path, .format = "raw", .size = 1 * MIB };
    (void)snprintf(partial, sizeof(partial), "%s.posada-partial-%d", path, (int)getpid());
    assert_int_equal(blk_create_begin(&opts, &blk, &err), 0);
    assert_int_equal(access(partial, F_OK), 0);
    scratch_file(state, "raced.img", "his", 512);
    assert_int_equal(blk_create_commit(&opts, blk, &err), -EEXIST);
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(access(partial, F_OK), -1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 512);
    /* A temporary file that is left over is named, and not touched. */
    opts.path = scratch_path(state, "other.img");
    (void)snprintf(partial, sizeof(partial), "other.img.posada-partial-%d", (int)getpid());
    scratch_file(state, partial, "left over", 512);
    assert_int_equal(blk_create_begin(&opts, &blk, &err), -EEXIST);
    assert_non_null(strstr(err.msg, partial));
    assert_int_equal(access(scratch_path(state, partial), F_OK), 0);
}

static void test_create_bad_options(void **state)
{
    struct err err = ERR_INIT;
    const char *base = scratch_file(state, "base.img", "", 8192);
    struct blk_create_opts opts = { .path = scratch_path(state, "x"),
                                    .format = "qed",
                                    .size = MIB };
    assert_int_equal(blk_create(&opts, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "unknown format 'qed' (there are: raw, qcow2, "));
    opts.format = "qcow2";
    opts.backing = base;
    assert_int_equal(blk_create(&opts, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "never guessed"));
    opts.backing_format = "raw";
    opts.backing = "missing.img";
    assert_int_equal(blk_create(&opts, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "missing.img"));
    opts.backing = base;
    opts.format = "raw";
    assert_int_equal(blk_create(&opts, &err), -EINVAL);
    opts.backing = NULL;
    opts.size = BLK_MAX_SIZE + 512;
    assert_int_equal(blk_create(&opts, &err), -EINVAL);
    opts.size = MIB;
    opts.path = "/nonexistent/dir/x";
    assert_int_equal(blk_create(&opts, &err), -ENOENT);
    assert_int_equal(access(scratch_path(state, "x"), F_OK), -1);
}

/* A size of 0 over a backing file is its size. */
static void test_create_takes_the_backing_size(void **state)
{
    struct err err = ERR_INIT;
    scratch_file(state, "base.img", "", 1 << 20);
    struct blk_create_opts opts = {
        .path = scratch_path(state, "top.qcow2"),
        .format = "qcow2",
        .backing = "base.img",
        .backing_format = "raw",
    };
    assert_int_equal(blk_create(&opts, &err), 0);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = opts.path });
    assert_int_equal(blk_size(blk), 1 << 20);
    assert_string_equal(blk_format_name(blk), "qcow2");
    blk_close(blk);
}

struct facts {
    uint64_t virtual_size, file_size, allocated_size;
    char format[16];
    int count;
};

static void on_fact(void *opaque, const struct blk_info_item *item)
{
    struct facts *f = opaque;
    f->count++;
    if (strcmp(item->key, "virtual_size") == 0) {
        assert_int_equal(item->type, BLK_INFO_BYTES);
        f->virtual_size = item->number;
    } else if (strcmp(item->key, "file_size") == 0) {
        f->file_size = item->number;
    } else if (strcmp(item->key, "allocated_size") == 0) {
        f->allocated_size = item->number;
    } else if (strcmp(item->key, "format") == 0) {
        (void)snprintf(f->format, sizeof(f->format), "%s", item->string);
    }
}

static void test_info(void **state)
{
    struct err err = ERR_INIT;
    struct facts f = { 0 };
    struct blk *blk = open_ok(&(struct blk_opts){ .path = scratch_file(state, "i", "x", 1000) });
    assert_int_equal(blk_info(blk, on_fact, &f, &err), 0);
    assert_int_equal(f.virtual_size, 1024);
    assert_int_equal(f.file_size, 1000);
    assert_true(f.allocated_size >= 512);
    assert_string_equal(f.format, "raw");
    assert_int_equal(f.count, 5);
    struct blk_check check = { 0 };
    assert_int_equal(blk_check(blk, 0, &check, &err), -ENOTSUP);
    blk_close(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_names),
        cmocka_unit_test(test_magic_is_refused_not_followed),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_raw_tail),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_create_abort_leaves_nothing),
        cmocka_unit_test(test_create_race),
        cmocka_unit_test(test_create_bad_options),
        cmocka_unit_test(test_create_takes_the_backing_size),
        cmocka_unit_test(test_info),
    };
    return cmocka_run_group_tests_name("blk", tests, scratch_setup, scratch_teardown);
}
