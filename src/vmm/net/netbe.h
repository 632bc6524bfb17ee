/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Network back ends: what a NIC sends frames to. Each is a pair of packet descriptors per queue:
 * a tap queue, or one end of a seqpacket socket to the user-networking helper process. A frame is
 * preceded by a virtio_net_hdr of `hdr_len` bytes when `vnet_hdr`.
 *
 * To add one: a file exporting NAME_netbe_class and a row in netbes.def.
 */
#ifndef NET_NETBE_H
#define NET_NETBE_H

#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"

#define NETBE_MAX_QUEUES   8
#define NETBE_VNET_HDR_LEN 12

struct netbe;

struct netbe_class {
    const char *name; /* "user", "tap", "none" */
    const char *help;
    /* Fills nqueues, fd, vnet_hdr, offloads, state. be->opts holds the options during the call. */
    int (*open)(struct netbe *be, struct err *err);
    void (*close)(struct netbe *be);
    /* Tells the back end which offloads the guest accepts (TUN_F_*). NULL = none can be had. */
    int (*set_offload)(struct netbe *be, unsigned tun_flags);
    /* Tells the back end that the guest uses the first `n` queues (1 to nqueues): frames must not
     * go to the others. NULL = has one queue. */
    int (*set_queues)(struct netbe *be, unsigned n);
};

/* The parsed value of one --net option; what it points to is used only within netbe_open(). */
struct netbe_opts {
    const char *kind;           /* "user", "tap", "none" */
    const char *ifname;         /* tap */
    unsigned queues;            /* tap: 1 to NETBE_MAX_QUEUES */
    const char *const *hostfwd; /* user: "tcp:127.0.0.1:2222-:22" ..., NULL-terminated, or NULL */
    const char *helper;         /* user: path of the posada-net program */
};

struct netbe {
    const struct netbe_class *cls;
    struct netbe_opts opts;
    unsigned nqueues;
    int fd[NETBE_MAX_QUEUES]; /* non-blocking; one frame a read/write; -1 = frames go nowhere */
    bool vnet_hdr;            /* 12 bytes, little-endian (struct virtio_net_hdr_mrg_rxbuf) */
    bool sock;                /* fd are sockets: sendmsg(2) with MSG_NOSIGNAL */
    unsigned offloads;        /* TUN_F_* that set_offload() can turn on */
    void *state;
};

/* Opens a back end; for "user" starts the helper and waits until it serves. Blocks up to 10 s.
 * Returns 0; -EINVAL for bad options, or what the host said, with the object named. Any thread. */
MUST_USE int netbe_open(const struct netbe_opts *opts, struct netbe **ret_be, struct err *err);
void netbe_close(struct netbe *be); /* accepts NULL; ends a helper process and waits for it */

#endif
