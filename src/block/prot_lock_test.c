/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who may have an image open at the same time, across processes, and QEMU's lock bytes. */
#include "block/blk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

/* A child that opens `path` and holds it until it is killed. Returns when it has it open. */
static pid_t holder(const char *path, bool read_only)
{
    int ready[2];
    char c;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct err err = ERR_INIT;
        struct blk *blk = NULL;
        struct blk_opts opts = { .path = path, .read_only = read_only };
        if (blk_open(&opts, &blk, &err) < 0 || write(ready[1], "x", 1) != 1) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}

static void kill_holder(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_writer_against_writer(void **state)
{
    char text[64];
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk_opts opts = { .path = path };
    pid_t pid = holder(path, false);
    (void)snprintf(text, sizeof(text), "disk': is in use: process %d (", (int)pid);
    open_fails(&opts, -EBUSY, text);
    /* A stale lock goes with its process. */
    kill_holder(pid);
    blk_close(open_ok(&opts));
}

static void test_readers(void **state)
{
    char text[64];
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk_opts reader = { .path = path, .read_only = true };
    struct blk_opts writer = { .path = path };
    pid_t pid = holder(path, true);
    struct blk *blk = open_ok(&reader); /* readers share */
    (void)snprintf(text, sizeof(text), "process %d", (int)pid);
    open_fails(&writer, -EBUSY, "is in use");
    blk_close(blk);
    open_fails(&writer, -EBUSY, text);
    kill_holder(pid);
    pid = holder(path, false);
    (void)snprintf(text, sizeof(text), "is in use by a writer: process %d", (int)pid);
    open_fails(&reader, -EBUSY, text);
    kill_holder(pid);
    blk_close(open_ok(&writer));
}

static void test_within_one_process(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    struct blk_opts opts = { .path = path };
    struct blk *blk = open_ok(&opts);
    open_fails(&opts, -EBUSY, "already open in this process");
    blk_close(blk);
    blk_close(open_ok(&opts));
}

/* Locks of QEMU's kind, set by hand on a descriptor of our own (they conflict as any other's). */
static void foreign_lock(int fd, off_t byte)
{
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
}

/* What QEMU asks before it takes `byte` into its hands: does anybody hold it? */
static bool foreign_sees(int fd, off_t byte)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    return lock.l_type != F_UNLCK;
}

static void test_qemu_writer_first(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    foreign_lock(fd, 100);
    foreign_lock(fd, 101);
    foreign_lock(fd, 201);
    open_fails(&(struct blk_opts){ .path = path }, -EBUSY, "is in use");
    open_fails(&(struct blk_opts){ .path = path, .read_only = true }, -EBUSY, "by a writer");
    close(fd);
    blk_close(open_ok(&(struct blk_opts){ .path = path }));
}

static void test_qemu_reader_first(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    foreign_lock(fd, 100);
    foreign_lock(fd, 201);
    foreign_lock(fd, 203);
    open_fails(&(struct blk_opts){ .path = path }, -EBUSY, "is in use");
    blk_close(open_ok(&(struct blk_opts){ .path = path, .read_only = true }));
    close(fd);
}

static void test_qemu_second(void **state)
{
    const char *path = scratch_file(state, "disk", "", 8192);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path, .read_only = true });
    assert_true(foreign_sees(fd, 201));  /* a QEMU writer is refused */
    assert_false(foreign_sees(fd, 101)); /* a QEMU reader is not */
    assert_false(foreign_sees(fd, 200));
    blk_close(blk);
    blk = open_ok(&(struct blk_opts){ .path = path });
    assert_true(foreign_sees(fd, 101));
    assert_true(foreign_sees(fd, 200));
    blk_close(blk);
    assert_false(foreign_sees(fd, 201));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writer_against_writer), cmocka_unit_test(test_readers),
        cmocka_unit_test(test_within_one_process),    cmocka_unit_test(test_qemu_writer_first),
        cmocka_unit_test(test_qemu_reader_first),     cmocka_unit_test(test_qemu_second),
    };
    return cmocka_run_group_tests_name("prot_lock", tests, scratch_setup, scratch_teardown);
}
