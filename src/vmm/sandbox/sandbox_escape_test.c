/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What code that took over a thread of a VM process would try: none may succeed, from any kind of
 * thread. Each attempt returns true when it got what it wanted. To see that an attempt is one at
 * all, each is made outside of the jail, too, where most succeed (as root).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "vmm/sandbox/sandbox_int.h"
#include "vmm/sandbox/sandbox_test.h"

static pid_t victim;    /* another process of this machine */
static int folder = -1; /* a descriptor that was left open */
static int tty = -1;
static char self_path[4096];
static long target = 1; /* what is read and written in the victim */

#define CALL(...)       (syscall(__VA_ARGS__) >= 0)
#define ATTEMPT(name)   static bool name(void)
#define AT_ETC_PASSWORD "etc/passwd"

ATTEMPT(open_a_file)
{
    return CALL(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}
ATTEMPT(open_by_the_old_call)
{
    return CALL(SYS_open, "/etc/passwd", O_RDONLY);
}
ATTEMPT(open_below_a_left_folder)
{
    return CALL(SYS_openat, folder, AT_ETC_PASSWORD, O_RDONLY);
}
ATTEMPT(openat2_below_a_left_folder)
{
    uint64_t how[3] = { O_RDONLY, 0, 0 };
    return CALL(SYS_openat2, folder, AT_ETC_PASSWORD, how, sizeof(how));
}
ATTEMPT(open_own_memory)
{
    return CALL(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR);
}
ATTEMPT(create_a_file)
{
    return CALL(SYS_openat, AT_FDCWD, "/tmp", O_RDWR | O_TMPFILE, 0600);
}
ATTEMPT(make_a_folder)
{
    bool done = CALL(SYS_mkdirat, folder, "tmp/posada-escape", 0700);
    return CALL(SYS_unlinkat, folder, "tmp/posada-escape", AT_REMOVEDIR) || done;
}
ATTEMPT(make_a_device)
{
    bool done = CALL(SYS_mknodat, folder, "tmp/posada-escape-node", S_IFIFO | 0600, 0);
    return CALL(SYS_unlinkat, folder, "tmp/posada-escape-node", 0) || done;
}
ATTEMPT(link_a_file)
{
    bool done = CALL(SYS_symlinkat, "/etc/shadow", folder, "tmp/posada-escape-link");
    return CALL(SYS_unlinkat, folder, "tmp/posada-escape-link", 0) || done;
}
ATTEMPT(change_times)
{
    struct timespec none[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
    return CALL(SYS_utimensat, folder, "tmp", none, 0);
}
ATTEMPT(look_for_a_file)
{
    struct stat st;
    return CALL(SYS_newfstatat, AT_FDCWD, "/etc", &st, 0);
}
ATTEMPT(remove_a_file)
{
    return syscall(SYS_unlink, "/nonexistent") == 0 || errno == ENOENT;
}
ATTEMPT(leave_the_root)
{
    return CALL(SYS_chroot, "/");
}
ATTEMPT(mount_something)
{
    return CALL(SYS_mount, "/mnt", "/mnt", NULL, MS_BIND, NULL);
}
ATTEMPT(watch_files)
{
    return CALL(SYS_inotify_init1, 0);
}
ATTEMPT(run_a_program)
{
    char *argv[] = { self_path, NULL };
    syscall(SYS_execve, "/bin/true", argv, NULL);
    return false; /* a program that runs says so by its exit code */
}
ATTEMPT(run_a_memory_file)
{
    int fd = (int)syscall(SYS_memfd_create, "x", 0);
    return fd >= 0 && write(fd, "#!", 2) == 2;
}
ATTEMPT(run_a_descriptor)
{
    char *argv[] = { self_path, NULL };
    syscall(SYS_execveat, folder, "bin/true", argv, NULL, 0);
    return false;
}
ATTEMPT(fork_a_process)
{
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        syscall(SYS_exit_group, 0);
    }
    return pid > 0;
}
ATTEMPT(fork_by_clone3)
{
    uint64_t args[8] = { 0, 0, 0, 0, SIGCHLD };
    long pid = syscall(SYS_clone3, args, sizeof(args));
    if (pid == 0) {
        syscall(SYS_exit_group, 0);
    }
    return pid > 0;
}
ATTEMPT(open_an_internet_socket)
{
    return CALL(SYS_socket, AF_INET, SOCK_STREAM, 0);
}
ATTEMPT(open_a_netlink_socket)
{
    return CALL(SYS_socket, AF_NETLINK, SOCK_RAW, 0);
}
ATTEMPT(open_a_packet_socket)
{
    return CALL(SYS_socket, AF_PACKET, SOCK_RAW, 0);
}
ATTEMPT(bind_an_abstract_socket)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "\0posada-escape" };
    long fd = syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    return fd >= 0 && CALL(SYS_bind, fd, &sa, sizeof(sa));
}
ATTEMPT(make_a_socket_pair)
{
    int pair[2];
    return CALL(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
}
ATTEMPT(trace_a_process)
{
    return CALL(SYS_ptrace, PTRACE_SEIZE, victim, NULL, NULL);
}
ATTEMPT(read_another_memory)
{
    long copy;
    struct iovec to = { &copy, sizeof(copy) };
    struct iovec from = { &target, sizeof(target) };
    return syscall(SYS_process_vm_readv, victim, &to, 1, &from, 1, 0) == sizeof(copy);
}
ATTEMPT(write_another_memory)
{
    long copy = 1;
    struct iovec from = { &copy, sizeof(copy) };
    struct iovec to = { &target, sizeof(target) };
    return syscall(SYS_process_vm_writev, victim, &from, 1, &to, 1, 0) == sizeof(copy);
}
ATTEMPT(take_a_descriptor)
{
    long fd = syscall(SYS_pidfd_open, victim, 0);
    return fd >= 0 && CALL(SYS_pidfd_getfd, fd, 0, 0);
}
ATTEMPT(signal_a_process)
{
    return CALL(SYS_kill, victim, 0);
}
ATTEMPT(signal_a_thread)
{
    return CALL(SYS_tgkill, victim, victim, 0);
}
ATTEMPT(queue_a_signal)
{
    siginfo_t info = { .si_code = SI_QUEUE };
    return CALL(SYS_rt_sigqueueinfo, victim, SIGCONT, &info);
}
ATTEMPT(signal_by_a_descriptor)
{
    return CALL(SYS_fcntl, STDERR_FILENO, F_SETOWN, victim);
}
ATTEMPT(change_priority)
{
    return CALL(SYS_setpriority, PRIO_PROCESS, victim, 5);
}
ATTEMPT(become_root)
{
    return CALL(SYS_setuid, 0);
}
ATTEMPT(take_capabilities)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct all[2] = {
        {.effective = 1, .permitted = 1, .inheritable = 0}
    };
    return CALL(SYS_capset, &head, all);
}
ATTEMPT(be_traceable)
{
    return CALL(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}
ATTEMPT(make_a_user_namespace)
{
    return CALL(SYS_unshare, CLONE_NEWUSER);
}
ATTEMPT(enter_a_namespace)
{
    long fd = syscall(SYS_pidfd_open, victim, 0);
    return fd >= 0 && CALL(SYS_setns, fd, CLONE_NEWNET);
}
ATTEMPT(load_bpf)
{
    uint32_t attr[16] = { BPF_MAP_TYPE_ARRAY, 4, 4, 1 };
    return CALL(SYS_bpf, BPF_MAP_CREATE, attr, sizeof(attr));
}
ATTEMPT(count_events)
{
    struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr) };
    return CALL(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}
ATTEMPT(add_a_key)
{
    return CALL(SYS_add_key, "user", "posada-escape", "x", 1, -2 /* the process's keyring */);
}
ATTEMPT(search_keys)
{
    return CALL(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -3, 1);
}
ATTEMPT(handle_page_faults)
{
    return CALL(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
}
ATTEMPT(make_a_ring)
{
    uint32_t params[30] = { 0 };
    return CALL(SYS_io_uring_setup, 1, params);
}
ATTEMPT(unlock_a_ring)
{
    return syscall(SYS_io_uring_register, folder, IORING_REGISTER_PROBE, NULL, 0) >= 0 ||
           errno == EOPNOTSUPP;
}
ATTEMPT(map_code)
{
    return syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                   0) != -1;
}
ATTEMPT(turn_data_into_code)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return CALL(SYS_mprotect, p, 4096, PROT_READ | PROT_EXEC);
}
ATTEMPT(turn_data_into_code_by_key)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return CALL(SYS_pkey_mprotect, p, 4096, PROT_READ | PROT_EXEC, -1);
}
ATTEMPT(map_shared_code)
{
    long id = syscall(SYS_shmget, IPC_PRIVATE, 4096, 0700);
    void *p = id >= 0 ? shmat((int)id, NULL, SHM_EXEC) : MAP_FAILED;
    (void)shmctl((int)id, IPC_RMID, NULL);
    return p != MAP_FAILED;
}
ATTEMPT(make_all_memory_code)
{
    return CALL(SYS_personality, READ_IMPLIES_EXEC);
}
ATTEMPT(open_a_message_queue)
{
    long id = syscall(SYS_msgget, IPC_PRIVATE, 0600);
    (void)msgctl((int)id, IPC_RMID, NULL);
    return id >= 0;
}
ATTEMPT(type_on_the_terminal)
{
    /* Not allowed even before the jail where this is not our terminal: the call is what counts. */
    return ioctl(tty, TIOCSTI, "x") == 0 || errno == EPERM || errno == EIO;
}
ATTEMPT(raise_a_limit)
{
    struct rlimit lim = { 2048, 2048 };
    return CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, &lim, NULL);
}
ATTEMPT(limit_another)
{
    struct rlimit old;
    return CALL(SYS_prlimit64, victim, RLIMIT_NOFILE, NULL, &old);
}
ATTEMPT(call_as_x32)
{
    return syscall(0x40000000 + SYS_getpid) > 0;
}
ATTEMPT(call_as_i386)
{
    int rc;
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20) : "memory"); /* getpid */
    return rc > 0;
}
ATTEMPT(be_init)
{
    return CALL(SYS_setsid);
}

/* In the order of the file. `soft`: fails, and kills nobody. */
static const struct {
    const char *name;
    bool (*fn)(void);
    bool soft;
} attempts[] = {
#define A(fn)                                                                                      \
    {                                                                                              \
#fn, fn, false                                                                             \
    }
#define SOFT(fn)                                                                                   \
    {                                                                                              \
#fn, fn, true                                                                              \
    }
    A(open_a_file),
    A(open_by_the_old_call),
    A(open_below_a_left_folder),
    A(openat2_below_a_left_folder),
    A(open_own_memory),
    A(create_a_file),
    A(make_a_folder),
    A(make_a_device),
    A(link_a_file),
    A(change_times),
    SOFT(look_for_a_file),
    SOFT(remove_a_file),
    A(leave_the_root),
    A(mount_something),
    A(watch_files),
    A(run_a_program),
    A(run_a_memory_file),
    A(run_a_descriptor),
    A(fork_a_process),
    A(fork_by_clone3),
    A(open_an_internet_socket),
    A(open_a_netlink_socket),
    A(open_a_packet_socket),
    A(bind_an_abstract_socket),
    A(make_a_socket_pair),
    A(trace_a_process),
    A(read_another_memory),
    A(write_another_memory),
    A(take_a_descriptor),
    SOFT(signal_a_process),
    A(signal_a_thread),
    A(queue_a_signal),
    A(signal_by_a_descriptor),
    A(change_priority),
    A(become_root),
    A(take_capabilities),
    A(be_traceable),
    A(make_a_user_namespace),
    A(enter_a_namespace),
    A(load_bpf),
    A(count_events),
    A(add_a_key),
    A(search_keys),
    A(handle_page_faults),
    A(make_a_ring),
    A(unlock_a_ring),
    A(map_code),
    A(turn_data_into_code),
    A(turn_data_into_code_by_key),
    A(map_shared_code),
    A(make_all_memory_code),
    A(open_a_message_queue),
    A(type_on_the_terminal),
    A(raise_a_limit),
    A(limit_another),
    A(call_as_x32),
    A(call_as_i386),
    A(be_init),
#undef A
#undef SOFT
};

#define SUCCEEDED 7

/* How the attempt ended, as wait status, under the filters of `kind` or (-1) under none. */
static int try_it(size_t i, int kind, bool vsock)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct err err = ERR_INIT;
        if (kind >= 0 && (sandbox_filter_process(vsock, &err) < 0 ||
                          sandbox_filter_thread((enum sandbox_kind)kind, vsock, &err) < 0)) {
            _exit(99);
        }
        (void)signal(SIGSEGV, SIG_DFL); /* the test library's would go on in the child */
        bool done = attempts[i].fn();
        /* Only the main thread may end the process: the others tell by the end of the thread. */
        syscall(SYS_exit, done ? SUCCEEDED : 0);
    }
    int status = -1;
    (void)waitpid(pid, &status, 0);
    return status;
}

/* Runs in the jail; returns the number of attempts that did not end as they should. */
static int jailed(int kind, bool vsock)
{
    int wrong = 0;
    struct err err = ERR_INIT;
    struct sandbox_jail jail = { .folder = NULL };
    if (sandbox_enter(&jail, &err) < 0 || sandbox_limits(&err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return 100;
    }
    for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
        int status = try_it(i, kind, vsock);
        /* A kernel without 32-bit calls answers them with SIGSEGV. */
        bool killed =
            WIFSIGNALED(status) && (WTERMSIG(status) == SIGSYS || attempts[i].fn == call_as_i386);
        bool failed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (attempts[i].soft ? !failed && !killed : !killed) {
            fprintf(stderr, "kind %d: %s: status %x\n", kind, attempts[i].name, status);
            wrong++;
        }
    }
    return wrong;
}

static void none_of(int kind, bool vsock)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit(jailed(kind, vsock));
    }
    sandbox_assert_succeeds(pid);
}

static void no_escape_from_the_main_thread(void **state)
{
    (void)state;
    none_of(SANDBOX_MAIN, false);
}

static void no_escape_from_the_io_thread(void **state)
{
    (void)state;
    none_of(SANDBOX_IO, false);
}

static void no_escape_from_a_vcpu_thread(void **state)
{
    (void)state;
    none_of(SANDBOX_VCPU, false);
}

static void no_escape_from_a_worker(void **state)
{
    (void)state;
    none_of(SANDBOX_WORKER, false);
}

/* Returns 0 when at least half did what they say; a container refuses many. */
static int unjailed(void)
{
    unsigned done = 0;
    /* What one of them mounts must not be seen by anybody else. */
    bool own_mounts =
        unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
        int status = try_it(i, -1, false);
        if (attempts[i].fn == mount_something && !own_mounts) {
            continue;
        }
        bool ran = attempts[i].fn == run_a_program || attempts[i].fn == run_a_descriptor;
        bool yes = WIFEXITED(status) && WEXITSTATUS(status) == (ran ? 0 : SUCCEEDED);
        if (!yes) {
            print_message("refused without a jail, too: %s\n", attempts[i].name);
        }
        done += yes;
    }
    return done >= ARRAY_LEN(attempts) / 2 ? 0 : 1;
}

/* The control: outside of the jail they are no empty words. */
static void outside_they_succeed(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit(unjailed());
    }
    sandbox_assert_succeeds(pid);
}

static int start_victim(void **state)
{
    (void)state;
    static_assert(ARRAY_LEN(attempts) >= 40, "the goal");
    folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    tty = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    victim = fork();
    if (victim == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            pause();
        }
    }
    return victim > 0 && folder >= 0 ? 0 : -1;
}

static int end_victim(void **state)
{
    (void)state;
    (void)kill(victim, SIGKILL);
    (void)waitpid(victim, NULL, 0);
    close(folder);
    if (tty >= 0) {
        close(tty);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_escape_from_the_main_thread),
        cmocka_unit_test(no_escape_from_the_io_thread),
        cmocka_unit_test(no_escape_from_a_vcpu_thread),
        cmocka_unit_test(no_escape_from_a_worker),
        cmocka_unit_test(outside_they_succeed),
    };
    return cmocka_run_group_tests(tests, start_victim, end_victim);
}
