/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The walls around the whole process: namespaces, an empty root, a user of its own.
 *
 * All of it is for a process that was started as root; another one cannot, and has root's rights
 * to lose neither. A wall that the host refuses (a container) is named in `missing`; the others
 * stand all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/sandbox/sandbox_int.h"

/* Above what distributions, containers and systemd hand out (systemd's UIDS-GIDS.md calls
 * 1879048192 to 2147483647 unused); a pid is below 2^22, so each living VM has another one. */
#define SANDBOX_FIRST_UID 1879048192u

static void sandbox_lacks(struct sandbox_jail *jail, const char *what, int error)
{
    size_t used = strlen(jail->missing);
    (void)snprintf(jail->missing + used, sizeof(jail->missing) - used, "%s%s (%s)",
                   used > 0 ? ", " : "", what, strerror(error));
}

/* One call for all costs the least, but does not tell which one the host refuses. */
static void sandbox_unshare(struct sandbox_jail *jail)
{
    static const struct {
        int flag;
        const char *what;
    } spaces[] = {
        {CLONE_NEWNET,  "network namespace"},
        { CLONE_NEWIPC, "IPC namespace"    },
        { CLONE_NEWUTS, "UTS namespace"    },
    };
    int all = 0;
    for (size_t i = 0; i < ARRAY_LEN(spaces); i++) {
        all |= spaces[i].flag;
    }
    if (unshare(all) == 0) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(spaces); i++) {
        if (unshare(spaces[i].flag) < 0) {
            sandbox_lacks(jail, spaces[i].what, errno);
        }
    }
}

/* Makes the current folder, a mount point of our own, the root and takes all else away. */
static int sandbox_pivot(void)
{
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        /* The old root now lies on top of the new one (pivot_root(2), NOTES). */
        return umount2(".", MNT_DETACH) < 0 || chdir("/") < 0 ? -errno : 0;
    }
    /* A host that still runs from its initial RAM disk: its root cannot be exchanged. */
    if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0) {
        return -errno;
    }
    return 0;
}

/* A root with nothing in it, or with the folder that the VM connects to sockets in. */
static int sandbox_root(const char *folder)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    const char *place = folder != NULL ? folder : "/tmp";
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        return -errno;
    }
    int rc = folder != NULL ? mount(folder, folder, NULL, MS_BIND, NULL)
                            : mount("empty", place, "tmpfs", flags, "mode=555,nr_inodes=1");
    if (rc < 0 || chdir(place) < 0) {
        return -errno;
    }
    rc = sandbox_pivot();
    if (rc < 0) {
        return rc;
    }
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0 ? -errno : 0;
}

/* By the C library's functions: they change all threads. */
static int sandbox_user(void)
{
    int signo = 0;
    uid_t id = SANDBOX_FIRST_UID + (uid_t)getpid();
    sandbox_bound();
    (void)prctl(PR_GET_PDEATHSIG, &signo, 0, 0, 0);
    if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0) {
        return -errno;
    }
    /* The kernel forgets it with the old user (prctl(2)). */
    return prctl(PR_SET_PDEATHSIG, signo, 0, 0, 0) < 0 ? -errno : 0;
}

int sandbox_enter(struct sandbox_jail *jail, struct err *err)
{
    jail->missing[0] = '\0';
    sandbox_forget_environment();
    if (jail->folder != NULL && chdir(jail->folder) < 0) {
        return err_set_errno(err, -errno, "jail: folder '%s'", jail->folder);
    }
    if (geteuid() == 0) {
        sandbox_unshare(jail);
        int rc = sandbox_root(jail->folder);
        if (rc < 0) {
            sandbox_lacks(jail, "empty root", -rc);
        }
        rc = jail->folder != NULL ? 0 : sandbox_user();
        if (rc < 0) {
            sandbox_lacks(jail, "user of its own", -rc);
        }
    }
    return sandbox_drop(err);
}

bool sandbox_survey(char ret_missing[SANDBOX_MISSING_MAX])
{
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC) < 0) {
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        struct err err = ERR_INIT;
        struct sandbox_jail jail = { .folder = NULL };
        bool in = sandbox_enter(&jail, &err) == 0 &&
                  write(pipe_fd[1], jail.missing, sizeof(jail.missing)) == sizeof(jail.missing);
        _exit(in ? 0 : 1);
    }
    close(pipe_fd[1]);
    bool told = read(pipe_fd[0], ret_missing, SANDBOX_MISSING_MAX) == SANDBOX_MISSING_MAX;
    close(pipe_fd[0]);
    return pid > 0 && waitpid(pid, NULL, 0) == pid && told;
}
