/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The server opens nothing outside of its folder by itself (share.h). These walls are for the day
 * on which it is wrong.
 */
#include "vmm/fs/posada_fs_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/fs/share.h"
#include "vmm/helper_jail.h"

/* Rights by the version that brought them; the header of an older kernel lacks the later ones
 * (Linux Documentation/userspace-api/landlock.rst, 6.12). */
#define FS_ALL_ABI1 (BIT64(13) - 1)
#define FS_REFER    BIT64(13) /* ABI 2; before it, nothing is moved from folder to folder */
#define FS_TRUNCATE BIT64(14) /* ABI 3 */
#define FS_READS    ((uint64_t)(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR))
#define FS_WRITES                                                                                  \
    ((uint64_t)(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                    \
                LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |                     \
                LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SYM | FS_REFER |             \
                FS_TRUNCATE))

static int fs_landlock(int dir_fd, bool writable)
{
    long abi =
        syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi <= 0) {
        return 0; /* an old kernel: openat2() alone keeps us in the folder */
    }
    struct landlock_ruleset_attr attr = {
        .handled_access_fs = FS_ALL_ABI1 | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0),
    };
    CLEANUP_FD int set =
        (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0U);
    if (set < 0) {
        return -errno;
    }
    struct landlock_path_beneath_attr rule = {
        .allowed_access = (FS_READS | (writable ? FS_WRITES : 0)) & attr.handled_access_fs,
        .parent_fd = dir_fd,
    };
    if (syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule, 0U) != 0) {
        return -errno;
    }
    return syscall(SYS_landlock_restrict_self, set, 0U) != 0 ? -errno : 0;
}

/* Only root may; for others the other walls have to do. */
static int fs_root(int dir_fd)
{
    if (fchdir(dir_fd) < 0) {
        return -errno;
    }
    return chroot(".") < 0 && errno != EPERM ? -errno : 0;
}

static int fs_no_capabilities(void)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { { 0 } };
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

static const int fs_reads[] = {
    SCMP_SYS(openat2),    SCMP_SYS(pread64), SCMP_SYS(getdents64),
    SCMP_SYS(readlinkat), SCMP_SYS(fstatfs), SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),  SCMP_SYS(geteuid), SCMP_SYS(getegid),
};

/* Of a share that may be written, beyond those. */
static const int fs_writes[] = {
    SCMP_SYS(pwrite64),  SCMP_SYS(ftruncate), SCMP_SYS(fchmod),
    SCMP_SYS(utimensat), SCMP_SYS(mkdirat),   SCMP_SYS(unlinkat),
    SCMP_SYS(renameat2), SCMP_SYS(symlinkat), SCMP_SYS(linkat),
};

static int fs_allow_writes(void *ctx)
{
    int rc = 0;
    for (size_t i = 0; i < ARRAY_LEN(fs_writes) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, fs_writes[i], 0);
    }
    return rc;
}

int posada_fs_jail(pid_t parent, int dir_fd, bool writable, struct err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return err_set_errno(err, -errno, "cannot give up privileges");
    }
    int rc = helper_jail_limits(SHARE_MAX_HANDLES + 32);
    const char *what = "resource limits";
    if (rc == 0) {
        what = "the file rules";
        rc = fs_landlock(dir_fd, writable);
    }
    if (rc == 0) {
        what = "the new root";
        rc = fs_root(dir_fd);
    }
    if (rc == 0) {
        what = "capabilities";
        rc = fs_no_capabilities();
    }
    if (rc == 0) {
        rc = helper_jail_follow(parent, err);
        if (rc < 0) {
            return rc;
        }
        what = "the system call filter"; /* last: it forbids the others */
        rc = helper_jail_filter(fs_reads, ARRAY_LEN(fs_reads), writable ? fs_allow_writes : NULL);
    }
    return rc < 0 ? err_set_errno(err, rc, "cannot set up %s", what) : 0;
}
