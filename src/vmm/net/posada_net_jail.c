/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The helper parses what the guest and the network send, so it keeps only what a TCP/IP stack
 * needs: inet sockets, memory, time, and reading the host's resolv.conf (the stack looks at it
 * again when it changes, so a descriptor would not do).
 */
#include "vmm/net/posada_net_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/helper_jail.h"

#define POSADA_NET_NOBODY 65534 /* Debian's nobody:nogroup; no file is theirs */

static int posada_net_limits(void)
{
    const struct rlimit no_file = { 0 };
    if (setrlimit(RLIMIT_FSIZE, &no_file) < 0) {
        return -errno;
    }
    return helper_jail_limits(POSADA_NET_MAX_FILES);
}

static int posada_net_drop_user(void)
{
    if (geteuid() != 0) {
        return 0;
    }
    if (setgroups(0, NULL) < 0 ||
        setresgid(POSADA_NET_NOBODY, POSADA_NET_NOBODY, POSADA_NET_NOBODY) < 0 ||
        setresuid(POSADA_NET_NOBODY, POSADA_NET_NOBODY, POSADA_NET_NOBODY) < 0) {
        return -errno;
    }
    return 0;
}

/* Landlock ABI 1 (Linux 5.13): files may only be read, below /etc and /run. */
static int posada_net_files(void)
{
    static const char *const dirs[] = { "/etc", "/run" };
    struct landlock_ruleset_attr attr = {
        .handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                             LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
                             LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                             LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
                             LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                             LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                             LANDLOCK_ACCESS_FS_MAKE_SYM,
    };
    CLEANUP_FD int set = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0U);
    if (set < 0) {
        return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
    }
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        CLEANUP_FD int dir = open(dirs[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct landlock_path_beneath_attr rule = {
            .allowed_access = LANDLOCK_ACCESS_FS_READ_FILE,
            .parent_fd = dir,
        };
        if (dir >= 0 &&
            syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule, 0U)) {
            return -errno;
        }
    }
    return syscall(SYS_landlock_restrict_self, set, 0U) != 0 ? -errno : 0;
}

/* Beyond those of every helper; without a condition on their arguments. */
static const int posada_net_calls[] = {
    SCMP_SYS(readv),      SCMP_SYS(writev),      SCMP_SYS(bind),        SCMP_SYS(listen),
    SCMP_SYS(accept),     SCMP_SYS(accept4),     SCMP_SYS(connect),     SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(shutdown),
};

static int posada_net_rules(void *ctx)
{
    int rc = 0;
    static const int domains[] = { AF_INET, AF_INET6 };
    for (size_t i = 0; i < ARRAY_LEN(domains) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                              SCMP_A0(SCMP_CMP_EQ, (uint64_t)domains[i]));
    }
    static const unsigned long requests[] = { FIONBIO, FIONREAD, SIOCATMARK };
    for (size_t i = 0; i < ARRAY_LEN(requests) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                              SCMP_A1(SCMP_CMP_EQ, requests[i]));
    }
    /* Reading only. */
    return rc != 0 ? rc
                   : seccomp_rule_add(
                         ctx, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                         SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
}

static int posada_net_filter(void)
{
    return helper_jail_filter(posada_net_calls, ARRAY_LEN(posada_net_calls), posada_net_rules);
}

static const struct posada_net_step {
    const char *what;
    int (*fn)(void);
} posada_net_steps[] = {
    {"resource limits",         posada_net_limits   },
    { "the change of user",     posada_net_drop_user},
    { "the file rules",         posada_net_files    },
    { "the system call filter", posada_net_filter   }, /* last: it forbids the others */
};

int posada_net_jail(pid_t parent, struct err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return err_set_errno(err, -errno, "cannot give up privileges");
    }
    for (size_t i = 0; i < ARRAY_LEN(posada_net_steps); i++) {
        bool last = i + 1 == ARRAY_LEN(posada_net_steps);
        int rc = last ? helper_jail_follow(parent, err) : 0;
        if (rc < 0) {
            return rc;
        }
        rc = posada_net_steps[i].fn();
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot set up %s", posada_net_steps[i].what);
        }
    }
    return 0;
}
