/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio network device (virtio 1.2 §5.1): multi-queue, mergeable receive buffers, checksum and
 * segmentation offloads where the back end has them.
 *
 *     uint8_t mac[6];
 *     virtio_net_default_mac("web1", 0, mac);
 *     struct virtio_net_params p = { .be = be };
 *     memcpy(p.mac, mac, sizeof(mac));
 *     dev_new(env, &virtio_net_class, "net0", &p, &dev, &err);
 */
#ifndef VIRTIO_VIRTIO_NET_H
#define VIRTIO_VIRTIO_NET_H

#include "vmm/dev/dev.h"
#include "vmm/net/netbe.h"

#define VIRTIO_NET_MAC_LEN 6

struct virtio_net_params {
    struct netbe *be;                /* not owned; stays open until the device is freed */
    uint8_t mac[VIRTIO_NET_MAC_LEN]; /* all zero: virtio_net_default_mac("", 0) */
    uint16_t mtu;                    /* 68 to 65535 offered to the driver; 0 = not offered */
    uint16_t queue_size;             /* power of two, at most VIRTQ_MAX_SIZE; 0 = 256 */
};

struct virtio_net_stats {
    uint64_t rx_frames, rx_bytes;  /* to the guest */
    uint64_t tx_frames, tx_bytes;  /* from the guest */
    uint64_t rx_dropped;           /* did not fit the guest's buffers, or malformed */
    uint64_t tx_dropped;           /* malformed, or refused by the back end */
    uint64_t rx_stalls, tx_stalls; /* times the guest had no buffer / the back end was full */
};

extern const struct dev_class virtio_net_class;

/* 52:54:00 and 24 bits of FNV-1a over the VM's name and the index of the NIC: the same in every
 * run, so that a guest that names its interfaces by MAC keeps them. */
void virtio_net_default_mac(const char *vm_name, unsigned index, uint8_t mac[VIRTIO_NET_MAC_LEN]);

/* Parses "52:54:00:12:34:56". -EINVAL: not of that form, multicast, or all zero. */
MUST_USE int virtio_net_parse_mac(const char *text, uint8_t mac[VIRTIO_NET_MAC_LEN],
                                  struct err *err);

/* Any thread. The driver is told by a configuration interrupt. */
void virtio_net_set_link(struct dev *dev, bool up);
bool virtio_net_link(struct dev *dev);
void virtio_net_get_mac(struct dev *dev, uint8_t mac[VIRTIO_NET_MAC_LEN]);
void virtio_net_get_stats(struct dev *dev, struct virtio_net_stats *ret_stats);

#endif
