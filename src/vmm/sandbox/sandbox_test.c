/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/blk.h"
#include "vmm/sandbox/sandbox_int.h"
#include "vmm/sandbox/sandbox_test.h"

/* A child under the filter of `kind`; how it ended as wait status. */
static int in_sandbox(enum sandbox_kind kind, bool vsock, void (*fn)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct err err = ERR_INIT;
        if (sandbox_drop(&err) < 0 || sandbox_filter_process(vsock, &err) < 0 ||
            sandbox_filter_thread(kind, vsock, &err) < 0) {
            _exit(99);
        }
        fn();
        syscall(SYS_exit, 0); /* exit_group() is the main thread's alone */
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

#define ASSERT_LIVES(kind, fn)                                                                     \
    do {                                                                                           \
        int status_ = in_sandbox(kind, false, fn);                                                 \
        assert_true(WIFEXITED(status_));                                                           \
        assert_int_equal(WEXITSTATUS(status_), 0);                                                 \
    } while (0)
#define ASSERT_KILLED(kind, fn)                                                                    \
    do {                                                                                           \
        int status_ = in_sandbox(kind, false, fn);                                                 \
        assert_true(WIFSIGNALED(status_));                                                         \
        assert_int_equal(WTERMSIG(status_), SIGSYS);                                               \
    } while (0)

static void do_nothing(void)
{
}

static void do_malloc(void)
{
    for (size_t n = 16; n < 64 * MIB; n *= 3) {
        char *volatile p = malloc(n);
        if (p == NULL) {
            _exit(1);
        }
        p[n - 1] = 1;
        free(p);
    }
}

/* Gives the heap of a thread back, at which glibc looks at the host's policy the first time. */
static void *trim(void *opaque)
{
    sem_wait(opaque);
    char *volatile piece[32];
    for (unsigned i = 0; i < ARRAY_LEN(piece); i++) {
        piece[i] = malloc(90000);
    }
    for (unsigned i = ARRAY_LEN(piece); i > 0; i--) {
        free(piece[i - 1]);
    }
    return NULL;
}

static void do_open(void)
{
    (void)!open("/etc/passwd", O_RDONLY);
}

static void do_exec(void)
{
    char *argv[] = { NULL };
    execve("/bin/true", argv, argv);
}

static void do_fork(void)
{
    (void)!fork();
}

static void do_socket_inet(void)
{
    (void)!socket(AF_INET, SOCK_STREAM, 0);
}

static void do_socket_unix(void)
{
    (void)!socket(AF_UNIX, SOCK_STREAM, 0);
}

static void do_ptrace(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static void do_exec_memory(void)
{
    (void)!mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_make_executable(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)!mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static void do_kvm_run(void)
{
    (void)!ioctl(-1, KVM_RUN, 0);
}

static void do_tiocsti(void)
{
    (void)!ioctl(-1, TIOCSTI, "x");
}

static void do_pread(void)
{
    char c;
    (void)!pread(-1, &c, 1, 0);
}

static void do_fstat(void)
{
    struct stat st;
    if (fstat(2, &st) < 0 || stat("/etc", &st) == 0 || errno != EPERM) {
        _exit(1);
    }
}

static void do_unlink(void)
{
    if (unlink("/nonexistent") == 0 || errno != EPERM) {
        _exit(1);
    }
}

static void do_syscall_32(void)
{
    /* The x32 number space. */
    syscall(0x40000000 + SYS_getpid);
}

static void allowed_work_goes_on(void **state)
{
    (void)state;
    ASSERT_LIVES(SANDBOX_MAIN, do_nothing);
    ASSERT_LIVES(SANDBOX_IO, do_malloc);
    ASSERT_LIVES(SANDBOX_VCPU, do_malloc);
    ASSERT_LIVES(SANDBOX_WORKER, do_pread);
    ASSERT_LIVES(SANDBOX_VCPU, do_kvm_run);
    ASSERT_LIVES(SANDBOX_MAIN, do_unlink);
    ASSERT_LIVES(SANDBOX_WORKER, do_fstat);
}

/* A thread from before the filter, as a block worker is, gives its heap back behind it. */
static void heaps_are_given_back(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the sanitizer's allocator has other calls to make than the C library's */
#endif
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct err err = ERR_INIT;
        sem_t go;
        pthread_t thread;
        sem_init(&go, 0, 0);
        sandbox_one_heap();
        sandbox_warm();
        if (pthread_create(&thread, NULL, trim, &go) != 0 || sandbox_drop(&err) < 0 ||
            sandbox_filter_process(false, &err) < 0) {
            _exit(99);
        }
        sem_post(&go);
        pthread_join(thread, NULL);
        syscall(SYS_exit_group, 0);
    }
    sandbox_assert_succeeds(pid);
}

static void on_read(struct blk_req *req, int rc)
{
    *(int *)req->opaque = rc;
}

/* A VM that stops waits for the requests that its disks still have in flight. */
static void drain_behind_the_filter(const char *path, enum sandbox_kind kind)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct blk_queue *q = NULL;
    struct blk_queue_opts opts = { .depth = 4, .workers_now = true };
    const char *const slow[] = { "fault:read=delay:20", NULL };
    if (blk_open(&(struct blk_opts){ .path = path, .filters = slow }, &blk, &err) < 0 ||
        blk_queue_new(blk, &opts, &q, &err) < 0 || sandbox_drop(&err) < 0 ||
        sandbox_filter_process(false, &err) < 0 || sandbox_filter_thread(kind, false, &err) < 0) {
        _exit(99);
    }
    static char buf[4096];
    int result = 1;
    struct iovec iov = { .iov_base = buf, .iov_len = sizeof(buf) };
    struct blk_req req = { .op = BLK_OP_READ,
                           .len = sizeof(buf),
                           .iov = &iov,
                           .niov = 1,
                           .done = on_read,
                           .opaque = &result };
    blk_queue_submit(q, &req);
    blk_queue_drain(q);
    blk_queue_free(q); /* ends the workers: exit_group() is the main thread's alone */
    syscall(SYS_exit, result == 0 ? 0 : 1);
}

static void disks_are_drained(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* at a thread's end the sanitizer gives its signal stack back */
#endif
    char path[] = "/tmp/posada-sandbox-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 65536), 0);
    for (unsigned kind = SANDBOX_MAIN; kind <= SANDBOX_IO; kind++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            drain_behind_the_filter(path, (enum sandbox_kind)kind);
        }
        sandbox_assert_succeeds(pid);
    }
    close(fd);
    unlink(path);
}

static void escapes_end_the_process(void **state)
{
    (void)state;
    void (*const escapes[])(void) = {
        do_open,        do_exec,       do_fork,        do_socket_inet,
        do_socket_unix, do_ptrace,     do_exec_memory, do_make_executable,
        do_tiocsti,     do_syscall_32,
    };
    for (unsigned kind = SANDBOX_MAIN; kind <= SANDBOX_WORKER; kind++) {
        for (size_t i = 0; i < ARRAY_LEN(escapes); i++) {
            ASSERT_KILLED((enum sandbox_kind)kind, escapes[i]);
        }
    }
}

static void kinds_differ(void **state)
{
    (void)state;
    ASSERT_KILLED(SANDBOX_MAIN, do_kvm_run);
    ASSERT_KILLED(SANDBOX_IO, do_kvm_run);
    ASSERT_KILLED(SANDBOX_VCPU, do_pread);
}

static void a_vsock_device_may_connect_locally(void **state)
{
    (void)state;
    int status = in_sandbox(SANDBOX_IO, true, do_socket_unix);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    status = in_sandbox(SANDBOX_IO, true, do_socket_inet);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static void privileges_are_gone(void)
{
    /* Closed by the filter otherwise: look before it, after the drop. */
    struct err err = ERR_INIT;
    if (sandbox_drop(&err) < 0) {
        _exit(1);
    }
    if (sandbox_landlock_abi() > 0 && (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)) {
        _exit(2);
    }
    if (chroot("/") == 0 || setuid(12345) == 0) {
        _exit(3);
    }
    _exit(0);
}

static void dropping_takes_files_and_capabilities(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        privileges_are_gone();
    }
    sandbox_assert_succeeds(pid);
}

static void lists_stay_short(void **state)
{
    (void)state;
    assert_true(sandbox_count_syscalls(BIT(SANDBOX_VCPU)) <= 20);
    assert_true(sandbox_count_syscalls(BIT(SANDBOX_IO)) <= 30);
    assert_true(sandbox_count_syscalls(BIT(SANDBOX_MAIN)) <= 48);
    assert_true(sandbox_count_syscalls(SANDBOX_ALL_KINDS) <= 65);
    struct sock_filter prog[SANDBOX_MAX_INSNS];
    assert_true(sandbox_build(SANDBOX_ALL_KINDS, true, prog) < SANDBOX_MAX_INSNS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allowed_work_goes_on),
        cmocka_unit_test(heaps_are_given_back),
        cmocka_unit_test(disks_are_drained),
        cmocka_unit_test(escapes_end_the_process),
        cmocka_unit_test(kinds_differ),
        cmocka_unit_test(a_vsock_device_may_connect_locally),
        cmocka_unit_test(dropping_takes_files_and_capabilities),
        cmocka_unit_test(lists_stay_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
