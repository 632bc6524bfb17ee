/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/net/unixsock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define UNIXSOCK_BACKLOG 16

static int unixsock_addr(const char *path, struct sockaddr_un *sa)
{
    *sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) > UNIXSOCK_PATH_MAX) {
        return -ENAMETOOLONG;
    }
    memcpy(sa->sun_path, path, strlen(path));
    return 0;
}

int unixsock_connect(const char *path)
{
    struct sockaddr_un sa;
    int rc = unixsock_addr(path, &sa);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
        return -errno;
    }
    return take_fd(&fd);
}

/* Removes what a dead process of our user left behind; anything else is an error. */
static int unixsock_remove_stale(const char *path, struct err *err)
{
    struct stat st;
    if (lstat(path, &st) < 0) {
        return errno == ENOENT ? 0 : err_set_errno(err, -errno, "cannot look at '%s'", path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return err_set(err, -EEXIST, "'%s' exists and is no socket: remove it or choose another",
                       path);
    }
    int fd = unixsock_connect(path);
    if (fd >= 0 || fd == -EAGAIN) {
        if (fd >= 0) {
            close(fd);
        }
        return err_set(err, -EADDRINUSE, "'%s' is in use by a running process: choose another",
                       path);
    }
    if (fd != -ECONNREFUSED || st.st_uid != geteuid()) {
        return err_set(err, -EEXIST, "'%s' exists and belongs to another user: choose another",
                       path);
    }
    if (unlink(path) < 0) {
        return err_set_errno(err, -errno, "cannot remove the stale socket '%s'", path);
    }
    return 0;
}

int unixsock_listen(struct unixsock *s, const char *path, struct err *err)
{
    struct sockaddr_un sa;
    if (path[0] == '\0' || unixsock_addr(path, &sa) < 0) {
        return err_set(err, -ENAMETOOLONG, "socket path '%s' has %zu bytes, allowed are 1 to %d",
                       path, strlen(path), UNIXSOCK_PATH_MAX);
    }
    int rc = unixsock_remove_stale(path, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot make a socket");
    }
    /* bind(2) gives the file the mode of the socket's inode, so it never exists with a wider one.
     */
    struct stat st;
    if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
        return err_set_errno(err, -errno, "cannot make the socket '%s'", path);
    }
    if (lstat(path, &st) < 0 || listen(fd, UNIXSOCK_BACKLOG) < 0) {
        rc = -errno;
        (void)unlink(path); /* ours: just made */
        return err_set_errno(err, rc, "cannot listen on '%s'", path);
    }
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    (void)snprintf(s->path, sizeof(s->path), "%s", path);
    s->fd = take_fd(&fd);
    return 0;
}

void unixsock_close(struct unixsock *s)
{
    struct stat st;
    if (s->fd < 0) {
        return;
    }
    close(s->fd);
    s->fd = -1;
    if (lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino) {
        (void)unlink(s->path); /* may be forbidden by the sandbox: then it stays as a stale one */
    }
}
