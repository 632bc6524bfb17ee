/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client's end of a VM's control socket, for `posada ctl` and the manager. One call at a time;
 * a client object belongs to one thread.
 *
 *     struct ctl_client *c;
 *     ctl_client_open("/run/vm1.sock", &c, &err);
 *     struct wire_msg *m = ctl_client_msg(c);
 *     m->type = WIRE_STATUS;
 *     ctl_client_call(c, WIRE_STATUS_REPLY, 5000, &err);
 *     puts(m->status_reply.state);
 *     ctl_client_close(c);
 */
#ifndef PROTO_CTL_CLIENT_H
#define PROTO_CTL_CLIENT_H

#include "base/err.h"
#include "proto/wire.h"

struct ctl_client;

/* Connects to the socket at `path`. -ENOENT, -ECONNREFUSED (no VM behind it), -EACCES,
 * -ENAMETOOLONG. */
MUST_USE int ctl_client_open(const char *path, struct ctl_client **ret_client, struct err *err);
void ctl_client_close(struct ctl_client *c); /* accepts NULL */

/* The message buffer: the request is written into it, the reply is found there. */
struct wire_msg *ctl_client_msg(struct ctl_client *c);

/* Sends the request and waits for its reply. 0 when the reply is of type `expect`; for an error
 * reply its errno and text; -ETIMEDOUT after `timeout_ms`; -ECONNRESET when the VM went away;
 * -EPROTO for anything else. After a failure other than an error reply the client is of no more
 * use. */
MUST_USE int ctl_client_call(struct ctl_client *c, uint16_t expect, int timeout_ms,
                             struct err *err);

#endif
