/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared by virtio_vsock.c (the device and its packets) and virtio_vsock_conn.c (connections and
 * their Unix sockets).
 *
 *   host asks:   LINE --"CONNECT n"--> REQUESTED --RESPONSE--> OPEN
 *   guest asks:                              REQUEST, connect(2) --> OPEN
 *   any state --RST from the guest, reset--> buried (freed on the loop thread)
 *   any state --we give up--> DYING (socket closed, RST is due) --RST sent--> buried
 *
 * Invariants, all under the device's lock:
 *  1. Watches are made, changed and deleted on the loop thread; others bury and arm `turn`.
 *  2. A packet is sent only into a buffer of the receive queue; what is due is a bit set a
 *     connection, and RSTs to no connection wait in a short ring. While that ring is full the
 *     transmit queue is not read: the driver cannot make us keep more.
 *  3. buf_len <= VIRTIO_VSOCK_BUF: a driver that sends beyond its credit loses the connection.
 */
#ifndef VIRTIO_VIRTIO_VSOCK_INT_H
#define VIRTIO_VIRTIO_VSOCK_INT_H

#include <sys/queue.h>

#include "spec/virtio_vsock_defs.h"
#include "vmm/net/unixsock.h"
#include "vmm/virtio/virtio.h"
#include "vmm/virtio/virtio_vsock.h"

#define VIRTIO_VSOCK_BUF      65536 /* credit of a connection: bytes the host may leave unread */
#define VIRTIO_VSOCK_PACKET   65536 /* the longest payload to the guest */
#define VIRTIO_VSOCK_RSTS     64
#define VIRTIO_VSOCK_TURN     256 /* chains of one turn */
#define VIRTIO_VSOCK_READS    16  /* packets of one connection before others have their turn */
#define VIRTIO_VSOCK_LINE_MAX 32  /* "CONNECT 4294967295\n" and some blanks */
#define VIRTIO_VSOCK_PORT     0x40000000 /* host ports of our own connections begin here */

enum virtio_vsock_state {
    VIRTIO_VSOCK_LINE,
    VIRTIO_VSOCK_REQUESTED,
    VIRTIO_VSOCK_OPEN,
    VIRTIO_VSOCK_DYING,
};

struct virtio_vsock_conn {
    struct virtio_vsock *vs;
    TAILQ_ENTRY(virtio_vsock_conn) link;
    enum virtio_vsock_state state;
    bool buried;
    int fd;
    struct loop_fd *w; /* NULL: closed, or hung up with input left to read */
    uint32_t events;
    uint32_t host_port, guest_port;

    uint32_t due;                  /* bit n: operation n is to be sent */
    uint32_t peer_alloc, peer_fwd; /* the guest's credit */
    uint32_t sent;                 /* bytes, of which it has forwarded peer_fwd */
    uint32_t fwd;                  /* bytes of the guest's that the socket took */
    uint32_t fwd_told;
    bool asked;        /* CREDIT_REQUEST is on its way */
    uint8_t host_done; /* VIRTIO_VSOCK_SHUTDOWN_* of the host's end */
    uint8_t guest_done;
    bool half_closed; /* shutdown(2) of our end is done */

    unsigned line_len;
    char line[VIRTIO_VSOCK_LINE_MAX + 1];
    uint32_t buf_at, buf_len; /* from the guest, not yet taken by the socket */
    uint8_t buf[VIRTIO_VSOCK_BUF];
};

TAILQ_HEAD(virtio_vsock_list, virtio_vsock_conn);

struct virtio_vsock_rst {
    uint32_t host_port, guest_port;
};

struct virtio_vsock {
    struct virtio_dev vdev;
    struct dev *dev;
    uint64_t cid;
    struct unixsock listen;
    char path[UNIXSOCK_PATH_MAX + 1]; /* from where we are: before _PORT of what is connected to */
    struct loop_fd *listen_w;
    struct loop_timer turn;
    struct virtio_vsock_list conns, graves;
    unsigned nconns;
    uint32_t next_port;
    bool rx_parked; /* the driver has no receive buffer: its kick goes on */
    bool tx_parked; /* the ring of RSTs is full */
    unsigned rst_at, rst_len;
    struct virtio_vsock_rst rst[VIRTIO_VSOCK_RSTS];
    uint8_t bounce[VIRTIO_VSOCK_PACKET];
};

/* A packet's header as numbers. */
struct virtio_vsock_hdr {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
};

static inline bool virtio_vsock_running(const struct virtio_vsock *vs)
{
    return vs->vdev.live && !vs->vdev.stopped;
}

static inline uint32_t virtio_vsock_credit(const struct virtio_vsock_conn *c)
{
    uint32_t flying = c->sent - c->peer_fwd;
    return flying < c->peer_alloc ? c->peer_alloc - flying : 0;
}

/* virtio_vsock.c */

/* Pops a receive buffer with room for a header. NULL: there is none; receiving is parked. */
struct virtq_elem *virtio_vsock_buffer(struct virtio_vsock *vs);
/* Fills it with a packet of connection `c` and pushes it. */
void virtio_vsock_send(struct virtio_vsock_conn *c, struct virtq_elem *take_elem, uint16_t op,
                       const uint8_t *data, uint32_t len);
/* Sends what is due as far as there are buffers, brings watches up to date. Loop thread. */
void virtio_vsock_pump(struct virtio_vsock *vs);

/* virtio_vsock_conn.c */

struct virtio_vsock_conn *virtio_vsock_find(struct virtio_vsock *vs, uint32_t host_port,
                                            uint32_t guest_port);
/* A packet of the guest's for a connection; `e` holds the payload. */
void virtio_vsock_packet(struct virtio_vsock_conn *c, const struct virtio_vsock_hdr *hdr,
                         const struct virtq_elem *e);
/* The guest asks for a connection. False: refused. */
bool virtio_vsock_connect(struct virtio_vsock *vs, const struct virtio_vsock_hdr *hdr);
/* One operation that is due was sent. */
void virtio_vsock_told(struct virtio_vsock_conn *c, uint16_t op);
/* Reads from the socket into receive buffers. Loop thread. */
void virtio_vsock_read(struct virtio_vsock_conn *c);
void virtio_vsock_watch(struct virtio_vsock_conn *c);
bool virtio_vsock_wants(const struct virtio_vsock_conn *c);
/* Takes it out of the table; the loop thread frees it. */
void virtio_vsock_bury(struct virtio_vsock_conn *c);
/* Frees what is buried. Loop thread. */
void virtio_vsock_dig(struct virtio_vsock *vs);
void virtio_vsock_on_accept(void *opaque, uint32_t events);

#endif
