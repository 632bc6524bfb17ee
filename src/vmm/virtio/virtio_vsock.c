/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The socket device: queues and packets. Connections are in virtio_vsock_conn.c, the model is in
 * virtio_vsock_int.h.
 */
#include "vmm/virtio/virtio_vsock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_vsock_int.h"

#define VIRTIO_VSOCK_QUEUES     3
#define VIRTIO_VSOCK_QUEUE_SIZE 128
#define VIRTIO_VSOCK_RX         0
#define VIRTIO_VSOCK_TX         1 /* queue 2, events, is for a moved machine's lost connections */
#define VIRTIO_VSOCK_CLASS      0x028000 /* network controller, other */

struct virtq_elem *virtio_vsock_buffer(struct virtio_vsock *vs)
{
    struct virtq *vq = &vs->vdev.queue[VIRTIO_VSOCK_RX];
    for (unsigned i = 0; i < VIRTIO_VSOCK_TURN && vq->ready; i++) {
        struct virtq_elem *e = NULL;
        int rc = virtq_pop(vq, &e);
        if (rc == 0 && virtq_set_kicks(vq, true)) {
            continue;
        }
        if (rc <= 0) {
            break;
        }
        if (e->in_len >= VIRTIO_VSOCK_HDR_SIZE) {
            return e;
        }
        dev_guest_bug(vs->dev, "receive buffer of %llu bytes", (unsigned long long)e->in_len);
        virtq_push(vq, e, 0);
    }
    vs->rx_parked = true;
    return NULL;
}

static void virtio_vsock_put(struct virtio_vsock *vs, struct virtq_elem *take_elem,
                             const struct virtio_vsock_hdr *hdr, const uint8_t *data)
{
    uint8_t head[VIRTIO_VSOCK_HDR_SIZE];
    le64_put(head + VIRTIO_VSOCK_HDR_SRC_CID, VIRTIO_VSOCK_CID_HOST);
    le64_put(head + VIRTIO_VSOCK_HDR_DST_CID, vs->cid);
    le32_put(head + VIRTIO_VSOCK_HDR_SRC_PORT, hdr->src_port);
    le32_put(head + VIRTIO_VSOCK_HDR_DST_PORT, hdr->dst_port);
    le32_put(head + VIRTIO_VSOCK_HDR_LEN, hdr->len);
    le16_put(head + VIRTIO_VSOCK_HDR_TYPE, VIRTIO_VSOCK_TYPE_STREAM);
    le16_put(head + VIRTIO_VSOCK_HDR_OP, hdr->op);
    le32_put(head + VIRTIO_VSOCK_HDR_FLAGS, hdr->flags);
    le32_put(head + VIRTIO_VSOCK_HDR_BUF_ALLOC, hdr->buf_alloc);
    le32_put(head + VIRTIO_VSOCK_HDR_FWD_CNT, hdr->fwd_cnt);
    size_t n = virtq_in_copy(take_elem, 0, head, sizeof(head));
    n += virtq_in_copy(take_elem, sizeof(head), data, hdr->len);
    virtq_push(&vs->vdev.queue[VIRTIO_VSOCK_RX], take_elem, (uint32_t)n);
}

void virtio_vsock_send(struct virtio_vsock_conn *c, struct virtq_elem *take_elem, uint16_t op,
                       const uint8_t *data, uint32_t len)
{
    const struct virtio_vsock_hdr hdr = {
        .src_port = c->host_port,
        .dst_port = c->guest_port,
        .len = len,
        .op = op,
        .flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? c->host_done : 0,
        .buf_alloc = VIRTIO_VSOCK_BUF,
        .fwd_cnt = c->fwd,
    };
    virtio_vsock_put(c->vs, take_elem, &hdr, data);
    c->sent += len;
    c->fwd_told = c->fwd;
    c->due &= ~BIT(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
}

/* Sends one thing that is due, the lowest number first: REQUEST or RESPONSE before SHUTDOWN. */
static bool virtio_vsock_send_due(struct virtio_vsock_conn *c)
{
    if ((c->due & BIT(VIRTIO_VSOCK_OP_RST)) != 0) {
        c->due = BIT(VIRTIO_VSOCK_OP_RST);
    }
    struct virtq_elem *e = virtio_vsock_buffer(c->vs);
    if (e == NULL) {
        return false;
    }
    uint16_t op = (uint16_t)__builtin_ctz(c->due);
    c->due &= ~BIT(op);
    virtio_vsock_send(c, e, op, NULL, 0);
    virtio_vsock_told(c, op);
    return true;
}

static bool virtio_vsock_send_rsts(struct virtio_vsock *vs)
{
    while (vs->rst_len > 0) {
        struct virtq_elem *e = virtio_vsock_buffer(vs);
        if (e == NULL) {
            return false;
        }
        const struct virtio_vsock_rst *rst = &vs->rst[vs->rst_at];
        const struct virtio_vsock_hdr hdr = {
            .src_port = rst->host_port,
            .dst_port = rst->guest_port,
            .op = VIRTIO_VSOCK_OP_RST,
        };
        virtio_vsock_put(vs, e, &hdr, NULL);
        vs->rst_at = (vs->rst_at + 1) % VIRTIO_VSOCK_RSTS;
        vs->rst_len--;
    }
    return true;
}

/* Moves one connection on. False: the driver has no more buffers. */
static bool virtio_vsock_move(struct virtio_vsock_conn *c, bool more)
{
    while (more && c->due != 0 && !c->buried) {
        more = virtio_vsock_send_due(c);
    }
    /* A socket that hung up has no watch to tell that something is left to read. */
    if (more && !c->buried && c->w == NULL && virtio_vsock_wants(c)) {
        virtio_vsock_read(c);
        loop_timer_set(&c->vs->turn, loop_now_ns());
    }
    if (!c->buried) {
        virtio_vsock_watch(c);
    }
    return more;
}

void virtio_vsock_pump(struct virtio_vsock *vs)
{
    struct virtio_vsock_conn *c;
    struct virtio_vsock_conn *next;
    bool more = virtio_vsock_running(vs) && virtio_vsock_send_rsts(vs);
    for (c = TAILQ_FIRST(&vs->conns); c != NULL; c = next) {
        next = TAILQ_NEXT(c, link);
        more = virtio_vsock_move(c, more);
    }
    virtq_flush(&vs->vdev.queue[VIRTIO_VSOCK_RX]);
    if (vs->tx_parked && vs->rst_len < VIRTIO_VSOCK_RSTS) {
        loop_timer_set(&vs->turn, loop_now_ns());
    }
}

static void virtio_vsock_refuse(struct virtio_vsock *vs, const struct virtio_vsock_hdr *hdr)
{
    if (hdr->op == VIRTIO_VSOCK_OP_RST) {
        return; /* never an RST for an RST */
    }
    unsigned at = (vs->rst_at + vs->rst_len) % VIRTIO_VSOCK_RSTS;
    vs->rst[at] = (struct virtio_vsock_rst){ hdr->dst_port, hdr->src_port };
    vs->rst_len++; /* the caller has looked that there is room */
}

static void virtio_vsock_take(struct virtio_vsock *vs, const struct virtq_elem *e)
{
    uint8_t head[VIRTIO_VSOCK_HDR_SIZE];
    if (virtq_out_copy(e, 0, head, sizeof(head)) != sizeof(head)) {
        dev_guest_bug(vs->dev, "packet of %llu bytes", (unsigned long long)e->out_len);
        return;
    }
    const struct virtio_vsock_hdr hdr = {
        .src_cid = le64_get(head + VIRTIO_VSOCK_HDR_SRC_CID),
        .dst_cid = le64_get(head + VIRTIO_VSOCK_HDR_DST_CID),
        .src_port = le32_get(head + VIRTIO_VSOCK_HDR_SRC_PORT),
        .dst_port = le32_get(head + VIRTIO_VSOCK_HDR_DST_PORT),
        .len = le32_get(head + VIRTIO_VSOCK_HDR_LEN),
        .type = le16_get(head + VIRTIO_VSOCK_HDR_TYPE),
        .op = le16_get(head + VIRTIO_VSOCK_HDR_OP),
        .flags = le32_get(head + VIRTIO_VSOCK_HDR_FLAGS),
        .buf_alloc = le32_get(head + VIRTIO_VSOCK_HDR_BUF_ALLOC),
        .fwd_cnt = le32_get(head + VIRTIO_VSOCK_HDR_FWD_CNT),
    };
    if (hdr.src_cid != vs->cid || hdr.len > e->out_len - sizeof(head)) {
        dev_guest_bug(vs->dev, "packet from CID %llu with %u bytes of payload in a chain of %llu",
                      (unsigned long long)hdr.src_cid, hdr.len, (unsigned long long)e->out_len);
        return;
    }
    struct virtio_vsock_conn *c = virtio_vsock_find(vs, hdr.dst_port, hdr.src_port);
    if (hdr.dst_cid != VIRTIO_VSOCK_CID_HOST || hdr.type != VIRTIO_VSOCK_TYPE_STREAM) {
        virtio_vsock_refuse(vs, &hdr); /* §5.10.6.4: nobody there, or an unknown type */
    } else if (c != NULL) {
        virtio_vsock_packet(c, &hdr, e);
    } else if (hdr.op != VIRTIO_VSOCK_OP_REQUEST || !virtio_vsock_connect(vs, &hdr)) {
        virtio_vsock_refuse(vs, &hdr);
    }
}

static void virtio_vsock_tx(struct virtio_vsock *vs)
{
    struct virtq *vq = &vs->vdev.queue[VIRTIO_VSOCK_TX];
    struct virtq_elem *e = NULL;
    unsigned i;
    vs->tx_parked = false;
    for (i = 0; i < VIRTIO_VSOCK_TURN; i++) {
        if (vs->rst_len == VIRTIO_VSOCK_RSTS) {
            vs->tx_parked = true;
            break;
        }
        if (virtq_pop(vq, &e) <= 0) {
            break;
        }
        virtio_vsock_take(vs, e);
        virtq_push(vq, e, 0);
    }
    virtq_flush(vq);
    vs->tx_parked |= i == VIRTIO_VSOCK_TURN;
}

static void virtio_vsock_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_vsock *vs = container_of(vdev, struct virtio_vsock, vdev);
    if (vq->index == VIRTIO_VSOCK_RX) {
        vs->rx_parked = false;
    } else if (vq->index == VIRTIO_VSOCK_TX) {
        virtio_vsock_tx(vs);
    } else {
        return;
    }
    virtio_vsock_pump(vs);
}

/* On the loop thread: frees what is buried, goes on with what waited. */
static void virtio_vsock_on_turn(void *opaque)
{
    struct virtio_vsock *vs = opaque;
    dev_lock(vs->dev);
    virtio_vsock_dig(vs);
    if (vs->tx_parked && vs->rst_len < VIRTIO_VSOCK_RSTS && virtio_vsock_running(vs)) {
        virtio_vsock_tx(vs);
    }
    virtio_vsock_pump(vs);
    dev_unlock(vs->dev);
}

static void virtio_vsock_type_reset(struct virtio_dev *vdev)
{
    struct virtio_vsock *vs = container_of(vdev, struct virtio_vsock, vdev);
    while (!TAILQ_EMPTY(&vs->conns)) {
        virtio_vsock_bury(TAILQ_FIRST(&vs->conns));
    }
    vs->rst_len = 0;
    vs->rx_parked = false;
    vs->tx_parked = false;
}

static const struct virtio_type virtio_vsock_type = {
    .name = "vsock",
    .device_id = VIRTIO_ID_VSOCK,
    .pci_class_code = VIRTIO_VSOCK_CLASS,
    .config_size = VIRTIO_VSOCK_CFG_SIZE,
    .notify = virtio_vsock_notify,
    .reset = virtio_vsock_type_reset,
};

static int virtio_vsock_init(struct dev *dev, const void *params, struct err *err)
{
    struct virtio_vsock *vs = dev->state;
    const struct virtio_vsock_params *p = params;
    if (p->cid < VIRTIO_VSOCK_CID_MIN || p->cid > VIRTIO_VSOCK_CID_MAX) {
        return err_set(err, -EINVAL, "CID %llu: allowed are %d to %u", (unsigned long long)p->cid,
                       VIRTIO_VSOCK_CID_MIN, VIRTIO_VSOCK_CID_MAX);
    }
    vs->dev = dev;
    vs->cid = p->cid;
    vs->next_port = VIRTIO_VSOCK_PORT;
    TAILQ_INIT(&vs->conns);
    TAILQ_INIT(&vs->graves);
    loop_timer_init(&vs->turn, dev->env->loop, virtio_vsock_on_turn, vs);
    int rc = 0;
    if (p->take_listen != NULL) {
        vs->listen = *p->take_listen;
        p->take_listen->fd = -1;
    } else {
        rc = unixsock_listen(&vs->listen, p->path, err);
    }
    if (rc < 0) {
        return rc;
    }
    (void)snprintf(vs->path, sizeof(vs->path), "%s", p->path);
    vs->listen_w = loop_fd_add(dev->env->loop, vs->listen.fd, EPOLLIN, virtio_vsock_on_accept, vs);
    if (vs->listen_w == NULL) {
        rc = err_set_errno(err, -errno, "cannot watch '%s'", p->path);
        unixsock_close(&vs->listen);
        return rc;
    }
    rc = virtio_dev_init(&vs->vdev, dev, &virtio_vsock_type, VIRTIO_VSOCK_QUEUES,
                         VIRTIO_VSOCK_QUEUE_SIZE, 0, err);
    if (rc < 0) {
        loop_fd_del(vs->listen_w);
        unixsock_close(&vs->listen);
        return rc;
    }
    le64_put(vs->vdev.config + VIRTIO_VSOCK_CFG_GUEST_CID, p->cid);
    return 0;
}

static void virtio_vsock_done(struct dev *dev)
{
    struct virtio_vsock *vs = dev->state;
    virtio_vsock_type_reset(&vs->vdev);
    virtio_vsock_dig(vs);
    loop_timer_cancel(&vs->turn);
    loop_fd_del(vs->listen_w);
    unixsock_close(&vs->listen);
    virtio_dev_done(&vs->vdev);
}

static void virtio_vsock_reset(struct dev *dev)
{
    virtio_dev_reset(&((struct virtio_vsock *)dev->state)->vdev);
}

static void virtio_vsock_stop(struct dev *dev)
{
    virtio_dev_stop(&((struct virtio_vsock *)dev->state)->vdev);
}

static void virtio_vsock_start(struct dev *dev)
{
    virtio_dev_start(&((struct virtio_vsock *)dev->state)->vdev);
}

unsigned virtio_vsock_conns(struct dev *dev)
{
    struct virtio_vsock *vs = dev->state;
    dev_lock(dev);
    unsigned n = vs->nconns;
    dev_unlock(dev);
    return n;
}

const struct dev_class virtio_vsock_class = {
    .name = "virtio-vsock",
    .help = "sockets between host and guest",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct virtio_vsock),
    .init = virtio_vsock_init,
    .done = virtio_vsock_done,
    .reset = virtio_vsock_reset,
    .stop = virtio_vsock_stop,
    .start = virtio_vsock_start,
};
