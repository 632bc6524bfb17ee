/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Frames between a queue pair and a descriptor of the back end (virtio 1.2 §5.1.6).
 *
 * Receive: a frame is read into net->buf, then copied into as many buffers as it takes; a frame
 * that finds too few waits in pair->frame and nothing more is read (the back end holds or drops
 * the rest). Transmit: straight from guest memory, but for the header, which is copied and checked.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/virtio/virtio_net_int.h"

#define VIRTIO_NET_IOV_MAX 1024 /* of writev(2) */

void virtio_net_drop(struct virtio_net_pair *pair)
{
    for (unsigned i = 0; i < pair->nheld; i++) {
        virtq_elem_free(pair->held[i]);
    }
    pair->nheld = 0;
    pair->held_len = 0;
    free(pair->frame);
    pair->frame = NULL;
}

void virtio_net_watch(struct virtio_net_pair *pair)
{
    struct virtio_net *net = pair->net;
    bool rx = virtio_net_running(net) && net->link && !pair->rx_parked;
    uint32_t events = (rx ? EPOLLIN : 0) | (pair->tx_blocked ? EPOLLOUT : 0);
    if (pair->w != NULL && events != pair->events) {
        pair->events = events;
        loop_fd_set_events(pair->w, events);
    }
}

/* Pops until `len` bytes are held. 1 = they are, 0 = the guest has no more buffers (it will kick),
 * -EMSGSIZE = the frame can never fit, -EPROTO = broken. */
static int virtio_net_collect(struct virtio_net_pair *pair, uint64_t len, bool merge)
{
    struct virtq *vq = virtio_net_rxq(pair);
    unsigned limit = merge ? VIRTIO_NET_MAX_MERGE : 1;
    while (pair->nheld == 0 || (pair->held_len < len && pair->nheld < limit)) {
        struct virtq_elem *e = NULL;
        int rc = virtq_pop(vq, &e);
        if (rc == 0 && virtq_set_kicks(vq, true)) {
            continue; /* some came in between; each turn of this loop takes one */
        }
        if (rc <= 0) {
            return rc == -ENOMEM ? 0 : rc;
        }
        pair->held[pair->nheld++] = e;
        pair->held_len += e->in_len;
    }
    return pair->held_len >= len ? 1 : -EMSGSIZE;
}

/* Copies header and frame into the oldest held buffers, which are enough. */
static void virtio_net_fill(struct virtio_net_pair *pair, uint8_t *buf, size_t len, bool merge)
{
    unsigned n = 0;
    for (uint64_t room = 0; room < len; n++) {
        room += pair->held[n]->in_len;
    }
    n = merge ? n : 1;
    le16_put(buf + offsetof(struct virtio_net_hdr, num_buffers), (uint16_t)n);
    size_t done = 0;
    for (unsigned i = 0; i < n; i++) {
        struct virtq_elem *e = pair->held[i];
        uint64_t room = e->in_len;
        size_t part = virtq_in_copy(e, 0, buf + done, (size_t)MIN(room, len - done));
        virtq_push(virtio_net_rxq(pair), e, (uint32_t)part);
        done += part;
        pair->held_len -= room;
    }
    memmove(pair->held, pair->held + n, (pair->nheld - n) * sizeof(pair->held[0]));
    pair->nheld -= n;
}

/* Gives one frame to the guest. False = it has to wait (or the ring is broken). */
static bool virtio_net_give(struct virtio_net_pair *pair, uint8_t *buf, size_t len)
{
    struct virtio_net *net = pair->net;
    bool merge = virtio_has(&net->vdev, VIRTIO_NET_F_MRG_RXBUF);
    int rc = virtio_net_collect(pair, len, merge);
    if (rc == -EMSGSIZE) {
        net->stats.rx_dropped++;
        return true;
    }
    if (rc <= 0) {
        return false;
    }
    virtio_net_fill(pair, buf, len, merge);
    net->stats.rx_frames++;
    net->stats.rx_bytes += len - VIRTIO_NET_HDR_LEN;
    return true;
}

/* Keeps a frame until the guest has buffers. Without memory it is dropped. */
static void virtio_net_keep(struct virtio_net_pair *pair, const uint8_t *buf, size_t len)
{
    pair->frame = malloc(len);
    if (pair->frame == NULL) {
        pair->net->stats.rx_dropped++;
        return;
    }
    memcpy(pair->frame, buf, len);
    pair->frame_len = len;
}

static void virtio_net_park(struct virtio_net_pair *pair)
{
    pair->rx_parked = true;
    pair->net->stats.rx_stalls++;
}

/* Reads a frame into net->buf behind its header. Bytes of both, 0 = none there, -EPIPE = gone. */
static ssize_t virtio_net_read(struct virtio_net_pair *pair)
{
    struct virtio_net *net = pair->net;
    size_t skip = net->be->vnet_hdr ? 0 : VIRTIO_NET_HDR_LEN;
    memset(net->buf, 0, skip);
    ssize_t n = read(net->be->fd[pair->index], net->buf + skip, sizeof(net->buf) - skip);
    if (n > 0) {
        return n + (ssize_t)skip;
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOMEM) ? 0 : -EPIPE;
}

void virtio_net_rx(struct virtio_net_pair *pair)
{
    struct virtio_net *net = pair->net;
    struct virtq *vq = virtio_net_rxq(pair);
    if (!virtio_net_running(net) || !vq->ready || pair->w == NULL) {
        return;
    }
    if (pair->frame != NULL) {
        if (!virtio_net_give(pair, pair->frame, pair->frame_len)) {
            virtio_net_park(pair);
            virtq_flush(vq);
            return;
        }
        free(pair->frame);
        pair->frame = NULL;
    }
    for (unsigned i = 0; i < VIRTIO_NET_BATCH; i++) {
        /* Nothing is read that the guest has not a buffer for, at least for its beginning. */
        if (pair->nheld == 0 && virtq_empty(vq) && !virtq_set_kicks(vq, true)) {
            virtio_net_park(pair);
            break;
        }
        ssize_t n = virtio_net_read(pair);
        if (n == -EPIPE) {
            virtio_net_gone(net);
            break;
        }
        if (n == 0) {
            break;
        }
        if (n < (ssize_t)(VIRTIO_NET_HDR_LEN + VIRTIO_NET_FRAME_MIN)) {
            net->stats.rx_dropped++;
        } else if (!virtio_net_give(pair, net->buf, (size_t)n)) {
            virtio_net_keep(pair, net->buf, (size_t)n);
            virtio_net_park(pair);
            break;
        }
    }
    virtq_flush(vq);
}

/* Whether the driver may ask for this (§5.1.6.2.1). */
static bool virtio_net_hdr_ok(const struct virtio_dev *vdev, const struct virtio_net_hdr *hdr)
{
    bool csum = (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
    if (csum && !virtio_has(vdev, VIRTIO_NET_F_CSUM)) {
        return false;
    }
    if ((hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0 && !virtio_has(vdev, VIRTIO_NET_F_HOST_ECN)) {
        return false;
    }
    switch (hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        return true;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        return csum && virtio_has(vdev, VIRTIO_NET_F_HOST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
        return csum && virtio_has(vdev, VIRTIO_NET_F_HOST_TSO6);
    case VIRTIO_NET_HDR_GSO_UDP:
        return csum && virtio_has(vdev, VIRTIO_NET_F_HOST_UFO);
    default:
        return false;
    }
}

/* The pieces of the frame behind the driver's header, after `hdr` where the back end wants one.
 * More pieces than the kernel takes are copied into net->buf. */
static unsigned virtio_net_pieces(struct virtio_net *net, const struct virtq_elem *e,
                                  struct virtio_net_hdr *hdr, struct iovec *iov)
{
    unsigned n = 0;
    if (net->be->vnet_hdr) {
        iov[n++] = (struct iovec){ hdr, sizeof(*hdr) };
    }
    if (n + e->nout > VIRTIO_NET_IOV_MAX) {
        size_t len = virtq_out_copy(e, VIRTIO_NET_HDR_LEN, net->buf, sizeof(net->buf));
        iov[n++] = (struct iovec){ net->buf, len };
        return n;
    }
    size_t skip = VIRTIO_NET_HDR_LEN;
    for (unsigned i = 0; i < e->nout; i++) {
        size_t cut = MIN(skip, e->out[i].iov_len);
        skip -= cut;
        if (e->out[i].iov_len > cut) {
            iov[n++] =
                (struct iovec){ (uint8_t *)e->out[i].iov_base + cut, e->out[i].iov_len - cut };
        }
    }
    return n;
}

/* 1 = done with it (sent or dropped), 0 = the back end is full, -EPIPE = it is gone. */
static int virtio_net_send(struct virtio_net_pair *pair, const struct virtq_elem *e)
{
    struct virtio_net *net = pair->net;
    struct virtio_net_hdr hdr;
    uint64_t len = e->out_len - MIN(e->out_len, VIRTIO_NET_HDR_LEN);
    (void)virtq_out_copy(e, 0, &hdr, sizeof(hdr)); /* short: refused by `len` */
    if (len < VIRTIO_NET_FRAME_MIN || len > VIRTIO_NET_FRAME_MAX ||
        !virtio_net_hdr_ok(&net->vdev, &hdr)) {
        dev_guest_bug(net->dev, "frame of %llu bytes refused, or its header",
                      (unsigned long long)len);
        net->stats.tx_dropped++;
        return 1;
    }
    int fd = net->be->fd[pair->index];
    if (fd < 0 || !net->link || net->gone) {
        net->stats.tx_dropped++;
        return 1;
    }
    struct iovec iov[VIRTIO_NET_IOV_MAX];
    hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
    hdr.num_buffers = 0;
    struct msghdr msg = { .msg_iov = iov };
    msg.msg_iovlen = virtio_net_pieces(net, e, &hdr, iov);
    ssize_t n = net->be->sock ? sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT)
                              : writev(fd, iov, (int)msg.msg_iovlen);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (n < 0) {
        net->stats.tx_dropped++;
        return errno == EPIPE || errno == ECONNRESET ? -EPIPE : 1;
    }
    net->stats.tx_frames++;
    net->stats.tx_bytes += len;
    return 1;
}

void virtio_net_tx(struct virtio_net_pair *pair)
{
    struct virtio_net *net = pair->net;
    struct virtq *vq = virtio_net_txq(pair);
    if (!virtio_net_running(net) || !vq->ready || pair->tx_blocked) {
        return;
    }
    (void)virtq_set_kicks(vq, false); /* without `on` there is nothing to look at again */
    unsigned i;
    for (i = 0; i < VIRTIO_NET_BATCH; i++) {
        struct virtq_elem *e = NULL;
        int rc = virtq_pop(vq, &e);
        if (rc == 0 && virtq_set_kicks(vq, true)) {
            continue;
        }
        if (rc <= 0) {
            break;
        }
        rc = virtio_net_send(pair, e);
        if (rc == 0) {
            virtq_unpop(vq, e);
            pair->tx_blocked = true;
            net->stats.tx_stalls++;
            break;
        }
        virtq_push(vq, e, 0);
        if (rc == -EPIPE) {
            virtio_net_gone(net);
        }
    }
    virtq_flush(vq);
    if (i == VIRTIO_NET_BATCH) {
        loop_timer_set(&net->turn, loop_now_ns()); /* others have their turn first */
    }
}
