/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio socket device (virtio 1.2 §5.10), joined to Unix stream sockets in the manner of
 * Firecracker:
 *
 *   host to guest: connect to PATH, send "CONNECT <port>\n"; the answer is "OK <host port>\n"
 *                  when the guest accepted, else the connection is closed;
 *   guest to host: a connection to CID 2, port P becomes a connection to the socket PATH_P.
 */
#ifndef VIRTIO_VIRTIO_VSOCK_H
#define VIRTIO_VIRTIO_VSOCK_H

#include "vmm/dev/dev.h"

struct unixsock;

#define VIRTIO_VSOCK_MAX_CONNS 256

struct virtio_vsock_params {
    uint64_t cid;     /* of the guest: 3 to 4294967294 */
    const char *path; /* the listening socket is made here, mode 0600; copied */
    /* A socket that listens already, taken over; NULL = make it. */
    struct unixsock *take_listen;
};

extern const struct dev_class virtio_vsock_class;

/* Connections now open, for statistics. Any thread. */
unsigned virtio_vsock_conns(struct dev *dev);

#endif
