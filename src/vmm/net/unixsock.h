/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unix stream sockets by path, non-blocking, for consoles and vsock.
 */
#ifndef NET_UNIXSOCK_H
#define NET_UNIXSOCK_H

#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

#define UNIXSOCK_PATH_MAX 107 /* of sockaddr_un, less the final 0 */

struct unixsock {
    int fd;
    char path[UNIXSOCK_PATH_MAX + 1];
    dev_t dev;
    ino_t ino; /* to remove at the end only what we made */
};

/* Makes a listening socket of mode 0600 at `path`. One left behind by a dead process of our user
 * is removed first. Returns 0; -ENAMETOOLONG; -EADDRINUSE when somebody serves it; -EEXIST when
 * the path is no socket or not ours; or what the host said. */
MUST_USE int unixsock_listen(struct unixsock *s, const char *path, struct err *err);
/* Closes it and removes the path, if it still is the one that was made. */
void unixsock_close(struct unixsock *s);

/* Starts a connection. Returns the descriptor, or a negative errno. A Unix connect ends at once:
 * -ECONNREFUSED or -ENOENT when nobody listens, -EAGAIN when the listener's queue is full. */
MUST_USE int unixsock_connect(const char *path);

#endif
