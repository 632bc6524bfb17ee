/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared by virtio_net.c (the device, its configuration and control queue) and virtio_net_queue.c
 * (frames). All of it under the device's lock; watches are touched on the loop thread only.
 */
#ifndef VIRTIO_VIRTIO_NET_INT_H
#define VIRTIO_VIRTIO_NET_INT_H

#include "spec/virtio_net_defs.h"
#include "vmm/virtio/virtio.h"
#include "vmm/virtio/virtio_net.h"

#define VIRTIO_NET_HDR_LEN   sizeof(struct virtio_net_hdr)
#define VIRTIO_NET_FRAME_MIN 14               /* an Ethernet header */
#define VIRTIO_NET_FRAME_MAX (65535 + 14 + 4) /* the longest IP packet, with a VLAN tag */
#define VIRTIO_NET_BUF       (VIRTIO_NET_HDR_LEN + VIRTIO_NET_FRAME_MAX)
#define VIRTIO_NET_MAX_MERGE 64  /* buffers of one frame: 64 KiB in buffers of 1 KiB */
#define VIRTIO_NET_BATCH     256 /* frames of one turn: some ms even when they are long */

/* A receive queue, a transmit queue and a descriptor of the back end. */
struct virtio_net_pair {
    struct virtio_net *net;
    unsigned index;
    struct loop_fd *w; /* NULL: the back end has no such queue now, or is gone */
    uint32_t events;
    bool rx_parked;  /* the guest has no buffer: its kick goes on */
    bool tx_blocked; /* the back end is full: EPOLLOUT goes on */

    /* Receive buffers popped but not filled yet, oldest first, and a frame that waits for more. */
    struct virtq_elem *held[VIRTIO_NET_MAX_MERGE];
    unsigned nheld;
    uint64_t held_len;
    uint8_t *frame; /* header and frame; NULL = none */
    size_t frame_len;
};

struct virtio_net {
    struct virtio_dev vdev;
    struct dev *dev;
    struct netbe *be;
    unsigned npairs;        /* that there are */
    unsigned active;        /* that the driver asked for */
    unsigned attached;      /* that the back end was told of; 0 = not yet */
    bool link;              /* as the user set it */
    bool stale;             /* the back end does not yet have the offloads of the driver */
    bool gone;              /* the back end is: no link any more */
    struct loop_timer turn; /* work for the loop thread */
    struct virtio_net_stats stats;
    struct virtio_net_pair pair[NETBE_MAX_QUEUES];
    uint8_t buf[VIRTIO_NET_BUF];
};

static inline struct virtq *virtio_net_rxq(struct virtio_net_pair *pair)
{
    return &pair->net->vdev.queue[2 * pair->index];
}

static inline struct virtq *virtio_net_txq(struct virtio_net_pair *pair)
{
    return &pair->net->vdev.queue[2 * pair->index + 1];
}

static inline bool virtio_net_running(const struct virtio_net *net)
{
    return net->vdev.live && !net->vdev.stopped;
}

/* Moves up to VIRTIO_NET_BATCH frames. Loop thread. */
void virtio_net_rx(struct virtio_net_pair *pair);
void virtio_net_tx(struct virtio_net_pair *pair);
/* Makes the watch agree with what the pair waits for. Loop thread. */
void virtio_net_watch(struct virtio_net_pair *pair);
/* Frees what the pair holds of the guest's. */
void virtio_net_drop(struct virtio_net_pair *pair);
/* The back end broke: no more frames, link down. Loop thread. */
void virtio_net_gone(struct virtio_net *net);
void virtio_net_on_fd(void *opaque, uint32_t events);

#endif
