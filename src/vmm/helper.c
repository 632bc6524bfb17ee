/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/helper.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define HELPER_START_MS 10000 /* it needs a few ms; more means that the host is in trouble */
#define HELPER_END_MS   2000

/* Path of the program: as given, or beside the running one. */
static int helper_path(const struct helper_opts *o, char path[PATH_MAX], struct err *err)
{
    if (o->path != NULL) {
        (void)snprintf(path, PATH_MAX, "%s", o->path);
        return 0;
    }
    size_t len = strlen(o->name) + 1;
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - len);
    char *slash = NULL;
    if (n > 0) {
        path[n] = '\0';
        slash = strrchr(path, '/');
    }
    if (slash == NULL) {
        return err_set(err, -ENOENT, "cannot tell where %s is", o->name);
    }
    memcpy(slash + 1, o->name, len);
    return 0;
}

/* Starts the program with `fd` as its descriptor 3, no signal blocked. */
static int helper_spawn(const char *path, const char *const *args, int fd, pid_t *ret_pid)
{
    char parent[16];
    (void)snprintf(parent, sizeof(parent), "%d", (int)getpid());
    char *argv[HELPER_MAX_ARGS + 4] = { (char *)(uintptr_t)path, (char *)(uintptr_t) "--parent",
                                        parent };
    for (size_t i = 0; args[i] != NULL; i++) {
        if (i == HELPER_MAX_ARGS) {
            return -E2BIG;
        }
        argv[3 + i] = (char *)(uintptr_t)args[i];
    }
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    sigset_t dflt;
    sigemptyset(&none);
    sigemptyset(&dflt);
    sigaddset(&dflt, SIGPIPE);
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc != 0) {
        return -rc;
    }
    rc = posix_spawnattr_init(&attr);
    if (rc != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -rc;
    }
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &dflt);
    rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", 0, 0);
    rc = rc != 0 ? rc : posix_spawn_file_actions_adddup2(&actions, fd, HELPER_FD);
    char *env[] = { NULL };
    rc = rc != 0 ? rc : posix_spawn(ret_pid, path, &actions, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return -rc;
}

/* Waits until it has ended; kills it when it does not by itself. */
static int helper_reap(pid_t pid)
{
    int status = 0;
    for (int ms = 0; ms < HELPER_END_MS; ms++) {
        pid_t done = waitpid(pid, &status, WNOHANG);
        if (done != 0) {
            return done < 0 ? 0 : status; /* somebody else has waited for it */
        }
        (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
    return status;
}

/* The first packet. 0, or an error with what the helper says. */
static int helper_greet(int fd, struct err *err)
{
    char buf[ERR_MSG_MAX];
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int rc;
    do {
        rc = poll(&p, 1, HELPER_START_MS);
    } while (rc < 0 && errno == EINTR);
    if (rc <= 0) {
        return err_set(err, -ETIMEDOUT, "the helper did not start within %d s",
                       HELPER_START_MS / 1000);
    }
    ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);
    if (n > 0 && buf[0] == 'K') {
        return 0;
    }
    if (n > 1 && buf[0] == 'E') {
        buf[n] = '\0';
        return err_set(err, -EADDRNOTAVAIL, "%s", buf + 1);
    }
    return err_set(err, -EPIPE, "the helper ended at once");
}

void helper_end(struct helper *h)
{
    close(h->fd);
    h->fd = -1;
    (void)helper_reap(h->pid);
}

int helper_start(const struct helper_opts *o, struct helper *ret_helper, struct err *err)
{
    char path[PATH_MAX];
    struct helper h;
    int rc = helper_path(o, path, err);
    if (rc < 0) {
        return rc;
    }
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_set_errno(err, -errno, "cannot make a socket");
    }
    CLEANUP_FD int ours = pair[0];
    CLEANUP_FD int theirs = pair[1];
    int size = o->send_buffer;
    /* The host may allow less: then there is more waiting, not a fault. */
    (void)setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    (void)setsockopt(theirs, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    rc = helper_spawn(path, o->args, theirs, &h.pid);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot start the helper '%s'", path);
    }
    close(take_fd(&theirs));
    rc = helper_greet(ours, err);
    if (rc < 0) {
        close(take_fd(&ours));
        int status = helper_reap(h.pid);
        if (rc == -EPIPE) {
            return err_set(err, rc, "the helper '%s' ended at once (%s %d)", path,
                           WIFSIGNALED(status) ? "signal" : "exit code",
                           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        }
        return rc;
    }
    h.fd = take_fd(&ours);
    *ret_helper = h;
    return 0;
}
