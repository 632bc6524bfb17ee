/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reliability S13: what a hostile image may name, and what of it is opened. */
#include "block/blk_test.h"

#include <errno.h>

/* Scratch: vm/disk.img (the image), vm/base.img, vm/sub/deep.img, other/secret.img. */
static int tree_setup(void **state)
{
    if (scratch_setup(state) < 0) {
        return -1;
    }
    static const char *const dirs[] = { "vm", "vm/sub", "other" };
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        if (mkdir(scratch_path(state, dirs[i]), 0700) < 0) {
            return -1;
        }
    }
    scratch_file(state, "vm/disk.img", "disk", 65536);
    scratch_file(state, "vm/base.img", "base", 4096);
    scratch_file(state, "vm/sub/deep.img", "deep", 4096);
    scratch_file(state, "other/secret.img", "secret", 4096);
    return 0;
}

/* Opens vm/disk.img as if its header named `name`; returns what blk_backing_open() says. */
static int follow(void **state, const struct blk_opts *extra, const char *name, const char *format,
                  struct blk **ret_blk, struct err *err)
{
    struct blk_opts opts = *extra;
    opts.path = scratch_path(state, "vm/disk.img");
    opts.format = "raw";
    *ret_blk = open_ok(&opts);
    return blk_backing_open(*ret_blk, &opts, name, format, err);
}

static void refused(void **state, const char *name, const char *format, int code, const char *text)
{
    struct err err = ERR_INIT;
    struct blk *blk;
    int rc = follow(state, &(struct blk_opts){ 0 }, name, format, &blk, &err);
    if (rc != code || strstr(err.msg, text) == NULL) {
        fail_msg("'%s': got %d '%s', expected %d '%s'", name, rc, err.msg, code, text);
    }
    assert_null(blk->backing);
    blk_close(blk);
}

static void accepted(void **state, const struct blk_opts *extra, const char *name,
                     const char *content)
{
    struct err err = ERR_INIT;
    struct blk *blk;
    char head[16] = "";
    if (follow(state, extra, name, "raw", &blk, &err) < 0) {
        fail_msg("'%s': %s", name, err.msg);
    }
    assert_true(blk_read_only(blk->backing));
    assert_int_equal(blk_pread(blk->backing, 0, head, strlen(content)), 0);
    assert_string_equal(head, content);
    blk_close(blk);
}

static void test_plain_names(void **state)
{
    static const struct blk_opts none;
    accepted(state, &none, "base.img", "base");
    accepted(state, &none, "./base.img", "base");
    accepted(state, &none, "sub/deep.img", "deep");
    accepted(state, &none, "sub/../base.img", "base");
    accepted(state, &none, scratch_path(state, "vm/base.img"), "base");
}

static void test_colon_in_a_path_is_no_protocol(void **state)
{
    static const struct blk_opts none;
    scratch_file(state, "vm/a:b.img", "colon", 4096);
    accepted(state, &none, "./a:b.img", "colon");
    refused(state, "a:b.img", "raw", -EACCES, "'a:' names a protocol");
}

static void test_protocols(void **state)
{
    static const char *const names[] = {
        "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}}",
        "nbd:localhost:10809",
        "nbd://localhost/x",
        "nbd+unix:///x?socket=/run/x",
        "ssh://root@host/x",
        "http://example.org/x.img",
        "rbd:pool/image",
        "iscsi://host/iqn/0",
        "fat:/etc",
        "blkdebug:rules:/etc/passwd",
        "file:base.img",
        "file:///etc/passwd",
        "host_device:/dev/sda",
        ":",
        "null-co://",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        refused(state, names[i], "raw", -EACCES, "names a protocol");
    }
}

static void test_format_is_never_guessed(void **state)
{
    refused(state, "base.img", NULL, -EACCES, "does not record its format");
    refused(state, "base.img", "", -EACCES, "qemu-img rebase");
    refused(state, "base.img", "file", -EINVAL, "unknown format 'file'");
    refused(state, "base.img", "host_device", -EINVAL, "unknown format");
    refused(state, "base.img", "raw\n\x1b[2J", -EINVAL, "raw\\x0a\\x1b[2J");
}

static void test_escapes(void **state)
{
    refused(state, "../other/secret.img", "raw", -EACCES, "lies outside");
    refused(state, "sub/../../other/secret.img", "raw", -EACCES, "lies outside");
    refused(state, "/etc/passwd", "raw", -EACCES, "lies outside");
    refused(state, "/proc/self/mem", "raw", -EACCES, "lies outside");
    refused(state, scratch_path(state, "other/secret.img"), "raw", -EACCES, "explicitly");
    /* "vm" is a prefix of "vm-evil", but not its parent. */
    assert_int_equal(mkdir(scratch_path(state, "vm-evil"), 0700), 0);
    scratch_file(state, "vm-evil/x.img", "x", 4096);
    refused(state, "../vm-evil/x.img", "raw", -EACCES, "lies outside");
}

static void test_links(void **state)
{
    static const struct blk_opts none;
    assert_int_equal(symlink("../other/secret.img", scratch_path(state, "vm/out.img")), 0);
    assert_int_equal(symlink("../other", scratch_path(state, "vm/outdir")), 0);
    assert_int_equal(symlink("base.img", scratch_path(state, "vm/in.img")), 0);
    assert_int_equal(symlink("turning.img", scratch_path(state, "vm/turning.img")), 0);
    refused(state, "out.img", "raw", -EACCES, "lies outside");
    refused(state, "outdir/secret.img", "raw", -EACCES, "lies outside");
    refused(state, "turning.img", "raw", -ELOOP, "turning.img");
    accepted(state, &none, "in.img", "base");
}

/* A link that takes the file's place after the check is not followed. */
static void test_late_link(void **state)
{
    struct err err = ERR_INIT;
    struct blk *node = NULL;
    const char *path = scratch_path(state, "vm/late.img");
    assert_int_equal(symlink("base.img", path), 0);
    struct blk_opts opts = { .path = path, .read_only = true };
    assert_int_equal(blk_open_file(&opts, NULL, BLK_OPEN_BENEATH, &node, &err), -ELOOP);
    assert_int_equal(blk_open_file(&opts, NULL, 0, &node, &err), 0);
    blk_close(node);
}

static void test_not_files(void **state)
{
    assert_int_equal(mkfifo(scratch_path(state, "vm/fifo"), 0600), 0);
    refused(state, "", "raw", -EINVAL, "empty");
    refused(state, "missing.img", "raw", -ENOENT, "missing.img");
    refused(state, "sub", "raw", -EACCES, "not a regular file");
    refused(state, "fifo", "raw", -EACCES, "not a regular file");
    refused(state, "\x01\x02\xff", "raw", -ENOENT, "\\x01\\x02\\xff");
    char *name = malloc(70000);
    assert_non_null(name);
    memset(name, 'a', 69999);
    name[69999] = '\0';
    refused(state, name, "raw", -ENAMETOOLONG, "longer than");
    free(name);
}

static void test_allow_list(void **state)
{
    const char *secret = scratch_path(state, "other/secret.img");
    const char *const allow[] = { "/nonexistent", secret, NULL };
    struct blk_opts opts = { .backing_allow = allow };
    accepted(state, &opts, "../other/secret.img", "secret");
    accepted(state, &opts, secret, "secret");
    accepted(state, &opts, "base.img", "base");
    struct blk_opts dir = { .backing_dir = scratch_path(state, "other") };
    accepted(state, &dir, "../other/secret.img", "secret");
    struct err err = ERR_INIT;
    struct blk *blk;
    assert_int_equal(follow(state, &dir, "base.img", "raw", &blk, &err), -EACCES);
    blk_close(blk);
}

static void test_loops_and_depth(void **state)
{
    struct err err = ERR_INIT;
    struct blk *top;
    struct blk_opts opts = { .read_only = true };
    refused(state, "disk.img", "raw", -ELOOP, "loop");
    assert_int_equal(link(scratch_path(state, "vm/disk.img"), scratch_path(state, "vm/hard.img")),
                     0);
    refused(state, "hard.img", "raw", -ELOOP, "loop");
    /* disk -> base -> disk */
    assert_int_equal(follow(state, &opts, "base.img", "raw", &top, &err), 0);
    assert_int_equal(blk_backing_open(top->backing, &opts, "disk.img", "raw", &err), -ELOOP);
    blk_close(top);
    /* 63 backing images under one are the limit. */
    assert_int_equal(follow(state, &opts, "base.img", "raw", &top, &err), 0);
    struct blk *node = top->backing;
    int depth = 2;
    int rc = 0;
    while (rc == 0 && depth < 100) {
        char name[32];
        (void)snprintf(name, sizeof(name), "vm/n%d.img", depth);
        scratch_file(state, name, "", 512);
        rc = blk_backing_open(node, &opts, name + 3, "raw", &err);
        node = rc == 0 ? node->backing : node;
        depth += rc == 0;
    }
    assert_int_equal(rc, -ELOOP);
    assert_int_equal(depth, BLK_MAX_CHAIN);
    blk_close(top);
}

/* A relative name starts at the image that holds it; the root stays the topmost image's. */
static void test_nested_directories(void **state)
{
    struct err err = ERR_INIT;
    struct blk *top;
    struct blk_opts opts = { .read_only = true };
    scratch_file(state, "vm/sub/deeper.img", "deeper", 4096);
    assert_int_equal(follow(state, &opts, "sub/deep.img", "raw", &top, &err), 0);
    assert_int_equal(blk_backing_open(top->backing, &opts, "deeper.img", "raw", &err), 0);
    blk_close(top);
    /* An allowed image elsewhere does not open its own directory. */
    const char *secret = scratch_path(state, "other/secret.img");
    const char *const allow[] = { secret, NULL };
    scratch_file(state, "other/more.img", "more", 4096);
    opts.backing_allow = allow;
    assert_int_equal(follow(state, &opts, "../other/secret.img", "raw", &top, &err), 0);
    opts.backing_dir = scratch_path(state, "vm"); /* what the nested open gets */
    assert_int_equal(blk_backing_open(top->backing, &opts, "more.img", "raw", &err), -EACCES);
    blk_close(top);
}

static void test_reads_past_the_end(void **state)
{
    struct err err = ERR_INIT;
    struct blk *blk;
    char a[3000];
    char b[3000];
    struct iovec iov[2] = {
        {a,  sizeof(a)},
        { b, sizeof(b)}
    };
    memset(a, 0xee, sizeof(a));
    memset(b, 0xee, sizeof(b));
    assert_int_equal(follow(state, &(struct blk_opts){ 0 }, "base.img", "raw", &blk, &err), 0);
    assert_int_equal(blk_backing_preadv(blk, 0, iov, 2), 0);
    assert_memory_equal(a, "base", 4);
    assert_true(blk_iov_buf_is_zero(a + 4, sizeof(a) - 4));
    assert_true(blk_iov_buf_is_zero(b, sizeof(b)));
    memset(a, 0xee, sizeof(a));
    assert_int_equal(blk_backing_preadv(blk, UINT64_MAX - 10, iov, 2), 0);
    assert_true(blk_iov_buf_is_zero(a, sizeof(a)));
    blk_close(blk);
}

static void test_backing_in_use(void **state)
{
    struct err err = ERR_INIT;
    struct blk *first;
    struct blk *second = NULL;
    /* Two overlays share a base; a writer of the base is refused, and the other way round. */
    struct blk_opts opts = { .path = scratch_path(state, "vm/sub/deep.img"), .format = "raw" };
    assert_int_equal(follow(state, &(struct blk_opts){ 0 }, "base.img", "raw", &first, &err), 0);
    second = open_ok(&opts);
    opts.backing_dir = scratch_path(state, "vm");
    assert_int_equal(blk_backing_open(second, &opts, "../base.img", "raw", &err), 0);
    struct blk_opts writer = { .path = scratch_path(state, "vm/base.img") };
    open_fails(&writer, -EBUSY, "base.img': is in use");
    blk_close(first);
    blk_close(second);
    struct blk *blk = open_ok(&writer);
    refused(state, "base.img", "raw", -EBUSY, "in use by a writer");
    blk_close(blk);
}

static void test_data_file(void **state)
{
    struct err err = ERR_INIT;
    struct blk *node = NULL;
    struct blk_opts opts = { .path = scratch_path(state, "vm/disk.img") };
    struct blk *blk = open_ok(&opts);
    assert_int_equal(blk_data_file_open(blk, &opts, &node, &err), -EACCES);
    assert_non_null(strstr(err.msg, "not followed"));
    opts.data_file = scratch_path(state, "other/secret.img");
    assert_int_equal(blk_data_file_open(blk, &opts, &node, &err), 0);
    assert_false(blk_read_only(node));
    blk_close(node);
    blk_close(blk);
}

int main(void)
{
#define TREE_TEST(f) cmocka_unit_test_setup_teardown(f, tree_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TREE_TEST(test_plain_names),
        TREE_TEST(test_colon_in_a_path_is_no_protocol),
        TREE_TEST(test_protocols),
        TREE_TEST(test_format_is_never_guessed),
        TREE_TEST(test_escapes),
        TREE_TEST(test_links),
        TREE_TEST(test_late_link),
        TREE_TEST(test_not_files),
        TREE_TEST(test_allow_list),
        TREE_TEST(test_loops_and_depth),
        TREE_TEST(test_nested_directories),
        TREE_TEST(test_reads_past_the_end),
        TREE_TEST(test_backing_in_use),
        TREE_TEST(test_data_file),
    };
    return cmocka_run_group_tests_name("blk_backing", tests, NULL, NULL);
}
