/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file protocol: unaligned O_DIRECT, growth, holes, zeroes, rights. */
#include "block/blk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

static struct blk *open_node(const char *path, enum blk_cache cache)
{
    struct err err = ERR_INIT;
    struct blk *node = NULL;
    struct blk_opts opts = { .path = path, .cache = cache };
    if (blk_open_file(&opts, NULL, 0, &node, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return node;
}

static uint64_t blocks_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Any offset, any length, any buffer address: all cache modes read and write alike. */
static void test_unaligned(void **state)
{
    enum { SIZE = 1 << 20, ROUNDS = 400 };
    static char model[SIZE];
    static char buf[SIZE];
    for (int cache = BLK_CACHE_WRITEBACK; cache <= BLK_CACHE_UNSAFE; cache++) {
        struct blk *node = open_node(scratch_file(state, "disk", "", SIZE), cache);
        unsigned seed = 3;
        memset(model, 0, sizeof(model));
        for (int i = 0; i < ROUNDS; i++) {
            size_t at = (size_t)rand_r(&seed) % (SIZE - 1);
            size_t max = rand_r(&seed) & 7 ? 6000 : SIZE;
            size_t len = 1 + (size_t)rand_r(&seed) % MIN(SIZE - at, max);
            size_t skew = MIN((size_t)rand_r(&seed) % 64, SIZE - len);
            if (rand_r(&seed) & 1) {
                memset(buf + skew, rand_r(&seed), len);
                memcpy(model + at, buf + skew, len);
                assert_int_equal(blk_pwrite(node, at, buf + skew, len), 0);
            } else {
                memset(buf + skew, 0xcc, len);
                assert_int_equal(blk_pread(node, at, buf + skew, len), 0);
                assert_memory_equal(buf + skew, model + at, len);
            }
        }
        assert_int_equal(blk_pread(node, 0, buf, SIZE), 0);
        assert_memory_equal(buf, model, SIZE);
        blk_close(node);
    }
}

struct stripe {
    struct blk *node;
    unsigned index;
};

enum { STRIPES = 8, STRIPE_LEN = 100, STRIPE_ROUNDS = 50 };

static void *write_stripe(void *opaque)
{
    struct stripe *s = opaque;
    char buf[STRIPE_LEN];
    for (int i = 1; i <= STRIPE_ROUNDS; i++) {
        memset(buf, i, sizeof(buf));
        if (blk_pwrite(s->node, s->index * STRIPE_LEN, buf, sizeof(buf)) != 0) {
            return s;
        }
    }
    return NULL;
}

/* Parts of one sector, written by several threads with O_DIRECT: none loses its bytes. */
static void test_neighbours_in_a_sector(void **state)
{
    struct blk *node = open_node(scratch_file(state, "disk", "", 8192), BLK_CACHE_NONE);
    pthread_t threads[STRIPES];
    struct stripe stripes[STRIPES];
    char back[STRIPES * STRIPE_LEN];
    for (unsigned i = 0; i < STRIPES; i++) {
        stripes[i] = (struct stripe){ node, i };
        assert_int_equal(pthread_create(&threads[i], NULL, write_stripe, &stripes[i]), 0);
    }
    for (unsigned i = 0; i < STRIPES; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(blk_pread(node, 0, back, sizeof(back)), 0);
    for (size_t i = 0; i < sizeof(back); i++) {
        assert_int_equal(back[i], STRIPE_ROUNDS);
    }
    blk_close(node);
}

static void test_growth(void **state)
{
    for (int cache = BLK_CACHE_WRITEBACK; cache <= BLK_CACHE_NONE; cache++) {
        const char *path = scratch_file(state, "disk", "", 0);
        struct blk *node = open_node(path, cache);
        char buf[3000];
        memset(buf, 0x31, sizeof(buf));
        assert_int_equal(blk_pwrite(node, 10000, buf, 100), 0);
        assert_int_equal(blk_size(node), 10100);
        assert_int_equal(blk_pread(node, 9000, buf, sizeof(buf)), 0);
        assert_true(blk_iov_buf_is_zero(buf, 1000));
        assert_int_equal(buf[1000], 0x31);
        assert_int_equal(buf[1099], 0x31);
        assert_true(blk_iov_buf_is_zero(buf + 1100, sizeof(buf) - 1100));
        assert_int_equal(blk_pread(node, UINT64_C(1) << 40, buf, 100), 0);
        assert_true(blk_iov_buf_is_zero(buf, 100));
        /* Both ways of zeroing move the end. */
        assert_int_equal(blk_write_zeroes(node, 20000, 5000, true), 0);
        assert_int_equal(blk_size(node), 25000);
        assert_int_equal(blk_write_zeroes(node, 30000, 5000, false), 0);
        assert_int_equal(blk_size(node), 35000);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size >= 35000);
        assert_int_equal(blk_pwrite(node, BLK_MAX_SIZE, buf, 1), -EINVAL);
        blk_close(node);
    }
}

static void test_discard_gives_space_back(void **state)
{
    static char buf[1 << 20];
    const char *path = scratch_file(state, "disk", "", sizeof(buf));
    struct blk *node = open_node(path, BLK_CACHE_WRITEBACK);
    memset(buf, 0x99, sizeof(buf));
    assert_int_equal(blk_pwrite(node, 0, buf, sizeof(buf)), 0);
    assert_int_equal(blk_flush(node), 0);
    uint64_t before = blocks_of(path);
    assert_true(before >= sizeof(buf));
    assert_int_equal(blk_discard(node, 0, sizeof(buf) / 2), 0);
    assert_true(blocks_of(path) <= before - sizeof(buf) / 2 + 65536);
    assert_int_equal(blk_write_zeroes(node, sizeof(buf) / 2, sizeof(buf) / 4, true), 0);
    assert_true(blocks_of(path) <= before - sizeof(buf) * 3 / 4 + 65536);
    /* Without may_unmap the space stays. */
    uint64_t now = blocks_of(path);
    assert_int_equal(blk_write_zeroes(node, sizeof(buf) * 3 / 4, 65536, false), 0);
    assert_true(blocks_of(path) >= now);
    assert_int_equal(blk_pread(node, 0, buf, sizeof(buf)), 0);
    assert_true(blk_iov_buf_is_zero(buf, sizeof(buf) * 3 / 4 + 65536));
    assert_int_equal((unsigned char)buf[sizeof(buf) - 1], 0x99);
    blk_close(node);
}

static void test_status(void **state)
{
    static char buf[65536];
    const char *path = scratch_file(state, "disk", "", 4 << 20);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    struct blk_extent ext;
    memset(buf, 1, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, MIB, buf, sizeof(buf)), 0);
    assert_int_equal(blk_status(blk, 0, 4 * MIB, &ext), 0);
    assert_int_equal(ext.kind, BLK_EXTENT_ZERO);
    assert_int_equal(ext.len, MIB);
    assert_int_equal(blk_status(blk, MIB, 3 * MIB, &ext), 0);
    assert_int_equal(ext.kind, BLK_EXTENT_DATA);
    assert_int_equal(ext.len, sizeof(buf));
    assert_int_equal(blk_status(blk, MIB + sizeof(buf), 512, &ext), 0);
    assert_int_equal(ext.kind, BLK_EXTENT_ZERO);
    assert_int_equal(ext.len, 512);
    blk_close(blk);
}

/* tmpfs has no FALLOC_FL_ZERO_RANGE: zeroes are written instead. */
static void test_zeroes_without_zero_range(void **state)
{
    (void)state;
    char path[] = "/dev/shm/posada-blk-XXXXXX";
    static char buf[600000];
    int fd = mkstemp(path);
    if (fd < 0) {
        print_message("no tmpfs at /dev/shm\n");
        skip();
    }
    close(fd);
    struct blk *node = open_node(path, BLK_CACHE_WRITEBACK);
    memset(buf, 5, sizeof(buf));
    assert_int_equal(blk_pwrite(node, 0, buf, sizeof(buf)), 0);
    assert_int_equal(blk_write_zeroes(node, 1000, 590000, false), 0);
    assert_int_equal(blk_write_zeroes(node, 700000, 1000, true), 0);
    assert_int_equal(blk_size(node), 701000);
    assert_int_equal(blk_pread(node, 0, buf, sizeof(buf)), 0);
    assert_int_equal(buf[999], 5);
    assert_true(blk_iov_buf_is_zero(buf + 1000, 590000));
    assert_int_equal(buf[591000], 5);
    blk_close(node);
    assert_int_equal(unlink(path), 0);
}

/* As an ordinary user: a file that may not be read, or only read. */
static void test_rights(void **state)
{
    assert_int_equal(chmod(*state, 0755), 0);
    const char *none = scratch_file(state, "none", "", 8192);
    const char *readable = scratch_file(state, "readable", "", 8192);
    assert_int_equal(chmod(none, 0600), 0);
    assert_int_equal(chmod(readable, 0644), 0);
    if (geteuid() != 0) {
        print_message("needs root, to become another user\n");
        skip();
    }
    assert_int_equal(seteuid(65534), 0);
    open_fails(&(struct blk_opts){ .path = none }, -EACCES, "no permission");
    open_fails(&(struct blk_opts){ .path = none, .read_only = true }, -EACCES, "for reading");
    open_fails(&(struct blk_opts){ .path = readable }, -EACCES, "for writing");
    blk_close(open_ok(&(struct blk_opts){ .path = readable, .read_only = true }));
    assert_int_equal(seteuid(0), 0);
}

/* More list entries than the kernel takes at once (IOV_MAX, 1024), and than fit a small array. */
static void test_long_lists(void **state)
{
    enum { N = 3000 };
    static char mem[N * 16];
    static char back[N * 8];
    struct iovec *iov = calloc(N, sizeof(*iov));
    assert_non_null(iov);
    for (int cache = BLK_CACHE_WRITEBACK; cache <= BLK_CACHE_NONE; cache++) {
        struct blk *node = open_node(scratch_file(state, "disk", "", 1 << 20), cache);
        for (size_t i = 0; i < N; i++) {
            iov[i] = (struct iovec){ mem + i * 16, 8 };
            memset(mem + i * 16, (int)i, 16);
        }
        assert_int_equal(blk_pwritev(node, 5000, iov, N), 0);
        assert_int_equal(blk_pread(node, 5000, back, sizeof(back)), 0);
        for (size_t i = 0; i < sizeof(back); i++) {
            assert_int_equal(back[i], (char)(i / 8));
        }
        memset(mem, 0xee, sizeof(mem));
        assert_int_equal(blk_preadv(node, 5000, iov, N), 0);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(mem[i * 16 + 7], (char)i);
            assert_int_equal(mem[i * 16 + 8], (char)0xee); /* nothing beside the entries */
        }
        blk_close(node);
    }
    free(iov);
}

static void test_read_only_file_system(void **state)
{
    char path[4300];
    const char *dir = scratch_path(state, "ro");
    assert_int_equal(mkdir(dir, 0700), 0);
    if (mount("tmpfs", dir, "tmpfs", 0, "size=1m") < 0) {
        print_message("mounting a tmpfs is not permitted here: %s\n", strerror(errno));
        skip();
    }
    (void)snprintf(path, sizeof(path), "%s/disk", dir);
    assert_int_equal(close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
    assert_int_equal(truncate(path, 8192), 0);
    assert_int_equal(mount("tmpfs", dir, "tmpfs", MS_REMOUNT | MS_RDONLY, ""), 0);
    open_fails(&(struct blk_opts){ .path = path }, -EROFS, "open it read-only");
    blk_close(open_ok(&(struct blk_opts){ .path = path, .read_only = true }));
    assert_int_equal(umount(dir), 0);
}

static void test_running_program(void **state)
{
    char cmd[4500];
    const char *path = scratch_path(state, "program");
    (void)snprintf(cmd, sizeof(cmd), "cp /bin/sleep '%s'", path);
    assert_int_equal(system(cmd), 0);
    int started[2];
    char c;
    assert_int_equal(pipe2(started, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl(path, path, "20", (char *)NULL);
        _exit(1);
    }
    close(started[1]);
    assert_int_equal(read(started[0], &c, 1), 0); /* closed by its exec */
    close(started[0]);
    open_fails(&(struct blk_opts){ .path = path, .format = "raw" }, -ETXTBSY, "running program");
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_resize(void **state)
{
    struct err err = ERR_INIT;
    struct stat st;
    const char *path = scratch_file(state, "disk", "x", 8192);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path });
    assert_int_equal(blk_resize(blk, 65536, &err), 0);
    assert_int_equal(blk_size(blk), 65536);
    assert_int_equal(blk_resize(blk, 1000, &err), -EINVAL);
    assert_int_equal(blk_resize(blk, UINT64_MAX - 511, &err), -EFBIG);
    assert_int_equal(blk_resize(blk, 512, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 512);
    blk_close(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unaligned),
        cmocka_unit_test(test_neighbours_in_a_sector),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_discard_gives_space_back),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_zeroes_without_zero_range),
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_read_only_file_system),
        cmocka_unit_test(test_running_program),
        cmocka_unit_test(test_resize),
    };
    return cmocka_run_group_tests_name("prot_file", tests, scratch_setup, scratch_teardown);
}
