/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Privileges: capabilities, limits, the file system. */
#include "vmm/sandbox/sandbox_int.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SANDBOX_NOFILE 1024

/* Rights by the version that brought them; the header of an older kernel lacks the later ones
 * (Linux Documentation/userspace-api/landlock.rst, 6.12). */
#define SANDBOX_FS_ABI1    (BIT64(13) - 1)
#define SANDBOX_FS_ABI2    BIT64(13)      /* refer */
#define SANDBOX_FS_ABI3    BIT64(14)      /* truncate, of files opened later */
#define SANDBOX_FS_ABI5    BIT64(15)      /* ioctl of devices opened later */
#define SANDBOX_NET_ABI4   (BIT64(2) - 1) /* TCP: bind, connect */
#define SANDBOX_SCOPE_ABI6 (BIT64(2) - 1) /* abstract Unix sockets, signals */

struct sandbox_ruleset {
    uint64_t fs;
    uint64_t net;   /* since ABI 4 */
    uint64_t scope; /* since ABI 6 */
};

int sandbox_landlock_abi(void)
{
    long abi =
        syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi > 0 ? (int)abi : 0;
}

/* A rule set that handles all rights and grants none. Descriptors that are open keep working. */
static int sandbox_no_files(struct err *err)
{
    int abi = sandbox_landlock_abi();
    if (abi == 0) {
        return 0; /* the system call filter has no open() either */
    }
    const struct sandbox_ruleset attr = {
        .fs = SANDBOX_FS_ABI1 | (abi >= 2 ? SANDBOX_FS_ABI2 : 0) |
              (abi >= 3 ? SANDBOX_FS_ABI3 : 0) | (abi >= 5 ? SANDBOX_FS_ABI5 : 0),
        .net = SANDBOX_NET_ABI4,
        .scope = SANDBOX_SCOPE_ABI6,
    };
    size_t size = abi >= 6 ? sizeof(attr) : abi >= 4 ? 2 * sizeof(attr.fs) : sizeof(attr.fs);
    CLEANUP_FD int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0) {
        return err_set_errno(err, -errno, "jail: Landlock");
    }
    return 0;
}

/* The bounding set can only be cut by who has CAP_SETPCAP; without it nothing can be gained either,
 * since no_new_privs is set. */
void sandbox_bound(void)
{
    for (int cap = 0; cap <= CAP_LAST_CAP && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++) {
    }
}

static int sandbox_no_capabilities(struct err *err)
{
    sandbox_bound();
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { { 0 } };
    if (syscall(SYS_capset, &head, none) < 0) {
        return err_set_errno(err, -errno, "jail: cannot drop capabilities");
    }
    return 0;
}

static int sandbox_limit(int resource, rlim_t max, const char *name, struct err *err)
{
    struct rlimit lim;
    if (getrlimit((__rlimit_resource_t)resource, &lim) == 0 && lim.rlim_max > max) {
        lim = (struct rlimit){ .rlim_cur = max, .rlim_max = max };
        if (setrlimit((__rlimit_resource_t)resource, &lim) < 0) {
            return err_set_errno(err, -errno, "jail: limit %s", name);
        }
    }
    return 0;
}

int sandbox_limits(struct err *err)
{
    int rc = sandbox_limit(RLIMIT_CORE, 0, "RLIMIT_CORE", err);
    return rc == 0 ? sandbox_limit(RLIMIT_NOFILE, SANDBOX_NOFILE, "RLIMIT_NOFILE", err) : rc;
}

int sandbox_drop(struct err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return err_set_errno(err, -errno, "jail: no_new_privs");
    }
    int rc = sandbox_no_files(err);
    return rc == 0 ? sandbox_no_capabilities(err) : rc;
}
