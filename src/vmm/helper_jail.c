/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/helper_jail.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"

#define HELPER_JAIL_MAX_MEMORY (UINT64_C(1) << 30) /* of address space; helpers use some MiB */

int helper_jail_follow(pid_t parent, struct err *err)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
        return err_set_errno(err, -errno, "cannot follow the parent process");
    }
    if (parent != 0 && getppid() != parent) {
        return err_set(err, -ESRCH, "the parent process is gone");
    }
    return 0;
}

int helper_jail_limits(rlim_t max_files)
{
    const struct {
        __rlimit_resource_t what;
        rlim_t value;
    } limits[] = {
        {RLIMIT_NOFILE,   max_files             },
        { RLIMIT_CORE,    0                     },
        { RLIMIT_NPROC,   0                     },
        { RLIMIT_MEMLOCK, 0                     },
        { RLIMIT_AS,      HELPER_JAIL_MAX_MEMORY},
    };
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        if (HELPER_JAIL_SANITIZED && limits[i].what == RLIMIT_AS) {
            continue;
        }
        struct rlimit old;
        if (getrlimit(limits[i].what, &old) < 0) {
            return -errno;
        }
        rlim_t value = MIN(limits[i].value, old.rlim_max);
        struct rlimit rl = { .rlim_cur = value, .rlim_max = value };
        if (setrlimit(limits[i].what, &rl) < 0) {
            return -errno;
        }
    }
    return 0;
}

static const int helper_jail_calls[] = {
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(close),
    SCMP_SYS(fcntl),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fstat),
    SCMP_SYS(lseek),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(brk),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(getrandom),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(tgkill),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(restart_syscall),
};

static int helper_jail_rules(scmp_filter_ctx ctx, const int *calls, size_t n)
{
    int rc = 0;
    for (size_t i = 0; i < ARRAY_LEN(helper_jail_calls) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, helper_jail_calls[i], 0);
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    }
    /* Memory is never executable. */
    rc = rc != 0 ? rc
                 : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    rc = rc != 0 ? rc
                 : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                                    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return rc;
}

int helper_jail_filter(const int *calls, size_t n, int (*more)(void *ctx))
{
    if (HELPER_JAIL_SANITIZED) {
        return 0;
    }
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (ctx == NULL) {
        return -ENOMEM;
    }
    int rc = helper_jail_rules(ctx, calls, n);
    rc = rc == 0 && more != NULL ? more(ctx) : rc;
    rc = rc != 0 ? rc : seccomp_load(ctx);
    seccomp_release(ctx);
    return rc;
}
