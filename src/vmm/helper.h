/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A helper process of a VM (posada-net, posada-fs): a program beside ours, joined to us by a
 * seqpacket socket that is its descriptor 3. Its first packet says how the start went: "K", or "E"
 * and why not. It ends when our end of the socket is closed.
 */
#ifndef VMM_HELPER_H
#define VMM_HELPER_H

#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

#define HELPER_FD 3 /* of the socket in the helper */

struct helper_opts {
    const char *name;        /* of the program */
    const char *path;        /* NULL: beside the running program */
    const char *const *args; /* behind "--parent PID"; NULL-terminated */
    int send_buffer;         /* bytes each way */
};

struct helper {
    pid_t pid;
    int fd; /* non-blocking */
};

#define HELPER_MAX_ARGS 160

/* Starts it and waits until it serves, at most 10 s. -E2BIG, -ETIMEDOUT, -EPIPE (it ended at
 * once), -EADDRNOTAVAIL (what it said), or what the host said. Any thread. */
MUST_USE int helper_start(const struct helper_opts *o, struct helper *ret_helper, struct err *err);
/* Closes the socket, waits; kills it when it does not end by itself. */
void helper_end(struct helper *h);

#endif
