/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The network device: features, configuration, control queue, and the life of its queue pairs.
 *
 *   activate -> the core kicks every queue -> virtio_net_notify -> frames, watches
 *   control queue: number of pairs -> virtio_net_turn (loop thread) -> back end, watches
 *   reset -> nothing held of the guest's, one pair, offloads off
 *
 * Receive filters (§5.1.6.5.1, .2) are accepted and not applied: the specification makes them best
 * effort, and behind a back end there is only what is meant for this guest, or the administrator's
 * bridge, which filters itself.
 */
#include "vmm/virtio/virtio_net.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_net_int.h"

#define VIRTIO_NET_QUEUE_SIZE 256
#define VIRTIO_NET_CTRL_BATCH 64       /* commands of one turn; each is cheap */
#define VIRTIO_NET_CLASS      0x020000 /* network controller, Ethernet */
#define VIRTIO_NET_MTU_MIN    68       /* §5.1.4.1 */

/* Offloads: feature bits by the TUN_F_* of the back end that they need. */
static const struct virtio_net_offload {
    unsigned tun;
    unsigned guest; /* the guest accepts it (frames to it) */
    unsigned host;  /* the guest asks for it (frames from it) */
} virtio_net_offloads[] = {
    {TUN_F_CSUM,     VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_CSUM     },
    { TUN_F_TSO4,    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4},
    { TUN_F_TSO6,    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO6},
    { TUN_F_TSO_ECN, VIRTIO_NET_F_GUEST_ECN,  VIRTIO_NET_F_HOST_ECN },
    { TUN_F_UFO,     VIRTIO_NET_F_GUEST_UFO,  VIRTIO_NET_F_HOST_UFO },
};

/* Each feature of the left column needs one of the right (§5.1.3.1). */
static const struct virtio_net_need {
    unsigned feature;
    uint64_t needs;
} virtio_net_needs[] = {
    {VIRTIO_NET_F_GUEST_TSO4,     BIT64(VIRTIO_NET_F_GUEST_CSUM)                                 },
    { VIRTIO_NET_F_GUEST_TSO6,    BIT64(VIRTIO_NET_F_GUEST_CSUM)                                 },
    { VIRTIO_NET_F_GUEST_ECN,     BIT64(VIRTIO_NET_F_GUEST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO6)},
    { VIRTIO_NET_F_GUEST_UFO,     BIT64(VIRTIO_NET_F_GUEST_CSUM)                                 },
    { VIRTIO_NET_F_HOST_TSO4,     BIT64(VIRTIO_NET_F_CSUM)                                       },
    { VIRTIO_NET_F_HOST_TSO6,     BIT64(VIRTIO_NET_F_CSUM)                                       },
    { VIRTIO_NET_F_HOST_ECN,      BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6)  },
    { VIRTIO_NET_F_HOST_UFO,      BIT64(VIRTIO_NET_F_CSUM)                                       },
    { VIRTIO_NET_F_CTRL_RX,       BIT64(VIRTIO_NET_F_CTRL_VQ)                                    },
    { VIRTIO_NET_F_MQ,            BIT64(VIRTIO_NET_F_CTRL_VQ)                                    },
    { VIRTIO_NET_F_CTRL_MAC_ADDR, BIT64(VIRTIO_NET_F_CTRL_VQ)                                    },
};

void virtio_net_default_mac(const char *vm_name, unsigned index, uint8_t mac[VIRTIO_NET_MAC_LEN])
{
    /* FNV-1a, 32 bits, folded to 24. */
    uint32_t h = 2166136261U;
    for (const char *p = vm_name;; p++) {
        h = (h ^ (uint8_t)*p) * 16777619U;
        if (*p == '\0') {
            break;
        }
    }
    h = (h ^ (uint8_t)index) * 16777619U;
    h = (h >> 24) ^ (h & 0xffffff);
    const uint8_t out[VIRTIO_NET_MAC_LEN] = {
        0x52, 0x54, 0x00, (uint8_t)(h >> 16), (uint8_t)(h >> 8), (uint8_t)h
    };
    memcpy(mac, out, sizeof(out));
}

int virtio_net_parse_mac(const char *text, uint8_t mac[VIRTIO_NET_MAC_LEN], struct err *err)
{
    uint8_t out[VIRTIO_NET_MAC_LEN] = { 0 };
    static const char digits[] = "0123456789abcdef";
    bool ok = strlen(text) == 17;
    for (unsigned i = 0; ok && i < 17; i++) {
        const char *d = i % 3 == 2 ? NULL : strchr(digits, text[i] | 0x20);
        ok = i % 3 == 2 ? text[i] == ':' : d != NULL && text[i] != '\0';
        if (ok && d != NULL) {
            out[i / 3] = (uint8_t)(out[i / 3] << 4 | (d - digits));
        }
    }
    static const uint8_t zero[VIRTIO_NET_MAC_LEN];
    if (!ok || memcmp(out, zero, sizeof(out)) == 0) {
        return err_set(err, -EINVAL, "MAC address '%s': write six bytes, such as 52:54:00:12:34:56",
                       text);
    }
    if ((out[0] & 1) != 0) {
        return err_set(err, -EINVAL,
                       "MAC address '%s' is a group address: the first byte has to be even", text);
    }
    memcpy(mac, out, sizeof(out));
    return 0;
}

static void virtio_net_set_status(struct virtio_net *net)
{
    bool up = net->link && !net->gone;
    uint8_t *status = net->vdev.config + VIRTIO_NET_CFG_STATUS;
    if (le16_get(status) == (up ? VIRTIO_NET_S_LINK_UP : 0)) {
        return;
    }
    le16_put(status, up ? VIRTIO_NET_S_LINK_UP : 0);
    virtio_config_changed(&net->vdev);
}

void virtio_net_gone(struct virtio_net *net)
{
    if (net->gone) {
        return;
    }
    log_warn(net->dev->id, "network back end ended: link down", "kind='%s'", net->be->cls->name);
    net->gone = true;
    for (unsigned i = 0; i < net->npairs; i++) {
        loop_fd_del(net->pair[i].w);
        net->pair[i].w = NULL;
        net->pair[i].tx_blocked = false;
    }
    virtio_net_set_status(net);
    loop_timer_set(&net->turn, loop_now_ns()); /* frames that waited for EPOLLOUT are dropped now */
}

/* Loop thread: the sandbox leaves vCPU threads no ioctl of a tap. */
static void virtio_net_offload(struct virtio_net *net)
{
    unsigned tun = 0;
    net->stale = false;
    for (size_t i = 0; i < ARRAY_LEN(virtio_net_offloads); i++) {
        if (virtio_has(&net->vdev, virtio_net_offloads[i].guest)) {
            tun |= virtio_net_offloads[i].tun;
        }
    }
    if (net->be->cls->set_offload != NULL && !net->gone) {
        int rc = net->be->cls->set_offload(net->be, tun);
        if (rc < 0) {
            log_warn(net->dev->id, "back end refuses offloads", "flags='%u' errno='%d'", tun, -rc);
        }
    }
}

/* Brings the back end to the number of pairs that the driver asked for. Queues that are not used
 * are not watched: a detached tap queue reports an error for ever. */
static void virtio_net_attach(struct virtio_net *net)
{
    unsigned want = net->active;
    if (net->stale) {
        virtio_net_offload(net);
    }
    if (want == net->attached || net->gone) {
        return;
    }
    for (unsigned i = want; i < net->npairs; i++) {
        loop_fd_del(net->pair[i].w);
        net->pair[i].w = NULL;
    }
    if (net->be->cls->set_queues != NULL) {
        int rc = net->be->cls->set_queues(net->be, want);
        if (rc < 0) {
            log_warn(net->dev->id, "back end refuses the number of queues",
                     "queues='%u' errno='%d'", want, -rc);
        }
    }
    net->attached = want;
    for (unsigned i = 0; i < want; i++) {
        struct virtio_net_pair *pair = &net->pair[i];
        if (pair->w == NULL && net->be->fd[i] >= 0) {
            pair->events = 0;
            pair->w = loop_fd_add(net->dev->env->loop, net->be->fd[i], 0, virtio_net_on_fd, pair);
            if (pair->w == NULL) {
                log_warn(net->dev->id, "cannot watch the back end", "errno='%d'", errno);
            }
        }
    }
}

void virtio_net_on_fd(void *opaque, uint32_t events)
{
    struct virtio_net_pair *pair = opaque;
    struct virtio_net *net = pair->net;
    dev_lock(net->dev);
    virtio_net_attach(net);
    if ((events & EPOLLIN) != 0) {
        virtio_net_rx(pair);
    } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        virtio_net_gone(net);
    }
    if ((events & EPOLLOUT) != 0) {
        pair->tx_blocked = false;
        virtio_net_tx(pair);
    }
    virtio_net_watch(pair);
    dev_unlock(net->dev);
}

/* On the loop thread, after a reset, a change of pairs, or a full batch. */
static void virtio_net_on_turn(void *opaque)
{
    struct virtio_net *net = opaque;
    dev_lock(net->dev);
    virtio_net_attach(net);
    for (unsigned i = 0; i < net->active; i++) {
        struct virtio_net_pair *pair = &net->pair[i];
        pair->rx_parked = false;
        virtio_net_rx(pair);
        virtio_net_tx(pair);
        virtio_net_watch(pair);
    }
    dev_unlock(net->dev);
}

static uint8_t virtio_net_mac_command(struct virtio_net *net, uint8_t cmd,
                                      const struct virtq_elem *e)
{
    uint8_t mac[VIRTIO_NET_MAC_LEN];
    if (cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET && virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_RX)) {
        return VIRTIO_NET_CTRL_OK; /* no filter, see above */
    }
    if (cmd != VIRTIO_NET_CTRL_MAC_ADDR_SET ||
        !virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
        virtq_out_copy(e, 2, mac, sizeof(mac)) != sizeof(mac)) {
        return VIRTIO_NET_CTRL_ERR;
    }
    memcpy(net->vdev.config + VIRTIO_NET_CFG_MAC, mac, sizeof(mac));
    return VIRTIO_NET_CTRL_OK;
}

static uint8_t virtio_net_mq_command(struct virtio_net *net, uint8_t cmd,
                                     const struct virtq_elem *e)
{
    uint8_t data[2];
    if (cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !virtio_has(&net->vdev, VIRTIO_NET_F_MQ) ||
        virtq_out_copy(e, 2, data, sizeof(data)) != sizeof(data)) {
        return VIRTIO_NET_CTRL_ERR;
    }
    unsigned n = le16_get(data);
    if (n < 1 || n > net->npairs) {
        return VIRTIO_NET_CTRL_ERR;
    }
    net->active = n;
    loop_timer_set(&net->turn, loop_now_ns());
    return VIRTIO_NET_CTRL_OK;
}

static uint8_t virtio_net_command(struct virtio_net *net, const struct virtq_elem *e)
{
    uint8_t head[2];
    uint8_t on;
    if (virtq_out_copy(e, 0, head, sizeof(head)) != sizeof(head)) {
        return VIRTIO_NET_CTRL_ERR;
    }
    switch (head[0]) {
    case VIRTIO_NET_CTRL_RX:
        return virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_RX) &&
                       head[1] <= VIRTIO_NET_CTRL_RX_ALLMULTI && virtq_out_copy(e, 2, &on, 1) == 1
                   ? VIRTIO_NET_CTRL_OK
                   : VIRTIO_NET_CTRL_ERR;
    case VIRTIO_NET_CTRL_MAC:
        return virtio_net_mac_command(net, head[1], e);
    case VIRTIO_NET_CTRL_MQ:
        return virtio_net_mq_command(net, head[1], e);
    default:
        return VIRTIO_NET_CTRL_ERR;
    }
}

static void virtio_net_ctrl(struct virtio_net *net, struct virtq *vq)
{
    struct virtq_elem *e = NULL;
    unsigned i;
    for (i = 0; i < VIRTIO_NET_CTRL_BATCH && virtq_pop(vq, &e) > 0; i++) {
        uint8_t ack = virtio_net_command(net, e);
        if (e->in_len == 0) {
            dev_guest_bug(net->dev, "control command without room for the answer");
        }
        virtq_push(vq, e, (uint32_t)virtq_in_copy(e, 0, &ack, 1));
    }
    virtq_flush(vq);
}

/* The control queue follows the pairs that the driver knows of (§5.1.2). */
static unsigned virtio_net_ctrl_index(const struct virtio_net *net)
{
    return virtio_has(&net->vdev, VIRTIO_NET_F_MQ) ? 2 * net->npairs : 2;
}

static void virtio_net_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);
    if (vq->index == virtio_net_ctrl_index(net)) {
        if (virtio_has(vdev, VIRTIO_NET_F_CTRL_VQ)) {
            virtio_net_ctrl(net, vq);
        }
        return;
    }
    if (vq->index >= 2 * net->active) {
        return; /* looked at when the driver asks for that pair */
    }
    struct virtio_net_pair *pair = &net->pair[vq->index / 2];
    virtio_net_attach(net);
    if (vq->index % 2 == 0) {
        pair->rx_parked = false;
        virtio_net_rx(pair);
    } else {
        virtio_net_tx(pair);
    }
    virtio_net_watch(pair);
}

static bool virtio_net_features_ok(struct virtio_dev *vdev)
{
    for (size_t i = 0; i < ARRAY_LEN(virtio_net_needs); i++) {
        const struct virtio_net_need *need = &virtio_net_needs[i];
        if (virtio_has(vdev, need->feature) && (vdev->driver_features & need->needs) == 0) {
            dev_guest_bug(vdev->dev, "feature %u without what it needs", need->feature);
            return false;
        }
    }
    return true;
}

static void virtio_net_activate(struct virtio_dev *vdev)
{
    struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);
    net->stale = true;
    loop_timer_set(&net->turn, loop_now_ns());
}

static void virtio_net_type_reset(struct virtio_dev *vdev)
{
    struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);
    for (unsigned i = 0; i < net->npairs; i++) {
        virtio_net_drop(&net->pair[i]);
        net->pair[i].rx_parked = false;
        net->pair[i].tx_blocked = false;
    }
    net->active = 1;
    net->stale = true;
    loop_timer_set(&net->turn, loop_now_ns());
}

static const struct virtio_type virtio_net_type = {
    .name = "net",
    .device_id = VIRTIO_ID_NET,
    .pci_class_code = VIRTIO_NET_CLASS,
    .features = UINT64_C(0xffffff), /* every type feature of this file is below bit 24 */
    .config_size = VIRTIO_NET_CFG_SIZE,
    .features_ok = virtio_net_features_ok,
    .activate = virtio_net_activate,
    .notify = virtio_net_notify,
    .reset = virtio_net_type_reset,
};

static uint64_t virtio_net_offer(const struct virtio_net *net, const struct virtio_net_params *p)
{
    uint64_t f = BIT64(VIRTIO_NET_F_MAC) | BIT64(VIRTIO_NET_F_STATUS) |
                 BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_NET_F_CTRL_VQ) |
                 BIT64(VIRTIO_NET_F_CTRL_RX) | BIT64(VIRTIO_NET_F_CTRL_MAC_ADDR);
    if (net->npairs > 1) {
        f |= BIT64(VIRTIO_NET_F_MQ);
    }
    if (p->mtu != 0) {
        f |= BIT64(VIRTIO_NET_F_MTU);
    }
    for (size_t i = 0; i < ARRAY_LEN(virtio_net_offloads); i++) {
        if (net->be->vnet_hdr && (net->be->offloads & virtio_net_offloads[i].tun) != 0) {
            f |= BIT64(virtio_net_offloads[i].guest) | BIT64(virtio_net_offloads[i].host);
        }
    }
    return f;
}

static int virtio_net_init(struct dev *dev, const void *params, struct err *err)
{
    struct virtio_net *net = dev->state;
    const struct virtio_net_params *p = params;
    static const uint8_t zero[VIRTIO_NET_MAC_LEN];
    if (p->mtu != 0 && p->mtu < VIRTIO_NET_MTU_MIN) {
        return err_set(err, -EINVAL, "MTU %u: allowed are %d to 65535", p->mtu, VIRTIO_NET_MTU_MIN);
    }
    net->dev = dev;
    net->be = p->be;
    net->npairs = p->be->nqueues;
    net->active = 1;
    net->link = true;
    for (unsigned i = 0; i < NETBE_MAX_QUEUES; i++) {
        net->pair[i].net = net;
        net->pair[i].index = i;
    }
    uint16_t size = p->queue_size != 0 ? p->queue_size : VIRTIO_NET_QUEUE_SIZE;
    int rc = virtio_dev_init(&net->vdev, dev, &virtio_net_type, 2 * net->npairs + 1, size,
                             virtio_net_offer(net, p), err);
    if (rc < 0) {
        return rc;
    }
    uint8_t *config = net->vdev.config;
    memcpy(config + VIRTIO_NET_CFG_MAC, p->mac, sizeof(p->mac));
    if (memcmp(p->mac, zero, sizeof(zero)) == 0) {
        virtio_net_default_mac("", 0, config + VIRTIO_NET_CFG_MAC);
    }
    le16_put(config + VIRTIO_NET_CFG_STATUS, VIRTIO_NET_S_LINK_UP);
    le16_put(config + VIRTIO_NET_CFG_MAX_PAIRS, (uint16_t)net->npairs);
    le16_put(config + VIRTIO_NET_CFG_MTU, p->mtu);
    loop_timer_init(&net->turn, dev->env->loop, virtio_net_on_turn, net);
    loop_timer_set(&net->turn, loop_now_ns());
    return 0;
}

static void virtio_net_done(struct dev *dev)
{
    struct virtio_net *net = dev->state;
    loop_timer_cancel(&net->turn);
    for (unsigned i = 0; i < net->npairs; i++) {
        loop_fd_del(net->pair[i].w);
        virtio_net_drop(&net->pair[i]);
    }
    virtio_dev_done(&net->vdev);
}

static void virtio_net_reset(struct dev *dev)
{
    virtio_dev_reset(&((struct virtio_net *)dev->state)->vdev);
}

static void virtio_net_stop(struct dev *dev)
{
    virtio_dev_stop(&((struct virtio_net *)dev->state)->vdev);
}

static void virtio_net_start(struct dev *dev)
{
    virtio_dev_start(&((struct virtio_net *)dev->state)->vdev);
}

void virtio_net_set_link(struct dev *dev, bool up)
{
    struct virtio_net *net = dev->state;
    dev_lock(dev);
    net->link = up;
    virtio_net_set_status(net);
    loop_timer_set(&net->turn, loop_now_ns());
    dev_unlock(dev);
}

bool virtio_net_link(struct dev *dev)
{
    struct virtio_net *net = dev->state;
    dev_lock(dev);
    bool up = net->link && !net->gone;
    dev_unlock(dev);
    return up;
}

void virtio_net_get_mac(struct dev *dev, uint8_t mac[VIRTIO_NET_MAC_LEN])
{
    struct virtio_net *net = dev->state;
    dev_lock(dev);
    memcpy(mac, net->vdev.config + VIRTIO_NET_CFG_MAC, VIRTIO_NET_MAC_LEN);
    dev_unlock(dev);
}

void virtio_net_get_stats(struct dev *dev, struct virtio_net_stats *ret_stats)
{
    struct virtio_net *net = dev->state;
    dev_lock(dev);
    *ret_stats = net->stats;
    dev_unlock(dev);
}

const struct dev_class virtio_net_class = {
    .name = "virtio-net",
    .help = "network device",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct virtio_net),
    .init = virtio_net_init,
    .done = virtio_net_done,
    .reset = virtio_net_reset,
    .stop = virtio_net_stop,
    .start = virtio_net_start,
};
