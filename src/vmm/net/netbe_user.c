/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * User networking: the program posada-net, one process a NIC, holds the TCP/IP stack; a frame is a
 * packet of a seqpacket socket to it. Its first packet says how the start went: "K", or "E" and a
 * message. It ends when our end of the socket is closed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/net/hostfwd.h"
#include "vmm/net/netbe_int.h"

#define NETBE_USER_HELPER     "posada-net"
#define NETBE_USER_FD         3     /* of the socket in the helper */
#define NETBE_USER_START_MS   10000 /* it needs a few ms; more means that the host is in trouble */
#define NETBE_USER_END_MS     2000
#define NETBE_USER_SNDBUF     (1024 * 1024) /* some 600 full frames */
#define NETBE_USER_FIXED_ARGS 5

struct netbe_user {
    pid_t pid;
};

/* Path of the helper: as given, or beside the running program. */
static int netbe_user_path(const struct netbe_opts *opts, char *path, size_t size, struct err *err)
{
    if (opts->helper != NULL) {
        (void)snprintf(path, size, "%s", opts->helper);
        return 0;
    }
    ssize_t n = readlink("/proc/self/exe", path, size - sizeof(NETBE_USER_HELPER));
    char *slash = NULL;
    if (n > 0) {
        path[n] = '\0';
        slash = strrchr(path, '/');
    }
    if (slash == NULL) {
        return err_set(err, -ENOENT, "network 'user': cannot tell where %s is", NETBE_USER_HELPER);
    }
    memcpy(slash + 1, NETBE_USER_HELPER, sizeof(NETBE_USER_HELPER));
    return 0;
}

static int netbe_user_count(const struct netbe_opts *opts, size_t *ret_n, struct err *err)
{
    size_t n = 0;
    for (; opts->hostfwd != NULL && opts->hostfwd[n] != NULL; n++) {
        struct hostfwd fwd;
        int rc = hostfwd_parse(opts->hostfwd[n], &fwd, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (n > HOSTFWD_MAX) {
        return err_set(err, -EINVAL, "network 'user': %zu host forwards; at most %d are allowed", n,
                       HOSTFWD_MAX);
    }
    *ret_n = n;
    return 0;
}

/* Starts the helper with `fd` as its descriptor 3, no signal blocked. Returns its pid. */
static int netbe_user_spawn(const char *path, const struct netbe_opts *opts, size_t nfwd, int fd,
                            pid_t *ret_pid)
{
    char parent[16];
    (void)snprintf(parent, sizeof(parent), "%d", (int)getpid());
    char *argv[NETBE_USER_FIXED_ARGS + 2 * HOSTFWD_MAX] = { (char *)path, (char *)"--parent",
                                                            parent };
    for (size_t i = 0; i < nfwd; i++) {
        argv[3 + 2 * i] = (char *)"--hostfwd";
        argv[4 + 2 * i] = (char *)opts->hostfwd[i];
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
    rc = rc != 0 ? rc : posix_spawn_file_actions_adddup2(&actions, fd, NETBE_USER_FD);
    char *env[] = { NULL };
    rc = rc != 0 ? rc : posix_spawn(ret_pid, path, &actions, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return -rc;
}

/* Waits until the helper has ended; kills it when it does not by itself. */
static int netbe_user_reap(pid_t pid)
{
    int status = 0;
    for (int ms = 0; ms < NETBE_USER_END_MS; ms++) {
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
static int netbe_user_greet(int fd, struct err *err)
{
    char buf[ERR_MSG_MAX];
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int rc;
    do {
        rc = poll(&p, 1, NETBE_USER_START_MS);
    } while (rc < 0 && errno == EINTR);
    if (rc <= 0) {
        return err_set(err, -ETIMEDOUT, "network 'user': the helper did not start within %d s",
                       NETBE_USER_START_MS / 1000);
    }
    ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);
    if (n > 0 && buf[0] == 'K') {
        return 0;
    }
    if (n > 1 && buf[0] == 'E') {
        buf[n] = '\0';
        return err_set(err, -EADDRNOTAVAIL, "network 'user': %s", buf + 1);
    }
    return err_set(err, -EPIPE, "network 'user': the helper ended at once");
}

static void netbe_user_close(struct netbe *be)
{
    struct netbe_user *s = be->state;
    close(be->fd[0]);
    be->fd[0] = -1;
    (void)netbe_user_reap(s->pid);
    free(s);
}

static int netbe_user_open(struct netbe *be, struct err *err)
{
    char path[4096];
    size_t nfwd = 0;
    int rc = netbe_user_count(&be->opts, &nfwd, err);
    rc = rc < 0 ? rc : netbe_user_path(&be->opts, path, sizeof(path), err);
    if (rc < 0) {
        return rc;
    }
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_set_errno(err, -errno, "network 'user': cannot make a socket");
    }
    CLEANUP_FD int ours = pair[0];
    CLEANUP_FD int theirs = pair[1];
    int size = NETBE_USER_SNDBUF;
    /* The host may allow less: then there is more waiting, not a fault. */
    (void)setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    (void)setsockopt(theirs, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    CLEANUP_FREE struct netbe_user *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(err, -ENOMEM, "network 'user': out of memory");
    }
    rc = netbe_user_spawn(path, &be->opts, nfwd, theirs, &s->pid);
    if (rc < 0) {
        return err_set_errno(err, rc, "network 'user': cannot start the helper '%s'", path);
    }
    close(take_fd(&theirs));
    rc = netbe_user_greet(ours, err);
    if (rc < 0) {
        close(take_fd(&ours));
        int status = netbe_user_reap(s->pid);
        if (rc == -EPIPE) {
            return err_set(err, rc, "network 'user': the helper '%s' ended at once (%s %d)", path,
                           WIFSIGNALED(status) ? "signal" : "exit code",
                           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        }
        return rc;
    }
    be->nqueues = 1;
    be->sock = true;
    be->fd[0] = take_fd(&ours);
    be->state = take_ptr(&s);
    return 0;
}

const struct netbe_class netbe_user_class = {
    .name = "user",
    .help = "the host's network through a helper process; needs no right",
    .open = netbe_user_open,
    .close = netbe_user_close,
};
