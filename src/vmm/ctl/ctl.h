/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The server of the control socket (docs/control-protocol.md).
 *
 * Clients are the user's own processes (socket mode 0600, SO_PEERCRED checked: our user or root),
 * yet nothing they send can hurt: a request has at most WIRE_REQUEST_MAX bytes, a client has one
 * request at a time and no more is read while its reply is not taken, CTL_MAX_CLIENTS are served,
 * and what breaks the protocol is cut off. All on the loop of the main thread.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "base/err.h"
#include "base/loop.h"
#include "proto/wire.h"

#define CTL_MAX_CLIENTS 16

struct ctl;

/* Answers `msg` in place (any reply type). The serial is kept by the server. */
typedef void ctl_handler(void *opaque, struct wire_msg *msg);

/* Listens at `path`. Errors as unixsock_listen(). */
MUST_USE int ctl_new(const char *path, struct loop *loop, ctl_handler *handler, void *opaque,
                     struct ctl **ret_ctl, struct err *err);
/* Cuts all clients and removes the socket. Accepts NULL. */
void ctl_free(struct ctl *ctl);

/* Clients connected now. */
unsigned ctl_clients(const struct ctl *ctl);

/* Makes an error reply of `msg`. */
void ctl_error(struct wire_msg *msg, int code, const char *text);

#endif
