/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device for the tests of queues and transport: what the driver writes comes back in the same
 * chain. On request it holds a chain as a slow back end would.
 */
#ifndef VIRTIO_VIRTIO_ECHO_H
#define VIRTIO_VIRTIO_ECHO_H

#include "vmm/virtio/virtio.h"

#define VIRTIO_ECHO_QUEUES 2
#define VIRTIO_ECHO_SIZE   256

struct virtio_echo {
    struct virtio_dev vdev;
    struct virtq_elem *held; /* the next chain, while `hold` */
    bool hold;
    bool keep_kicks; /* do not suppress kicks while working */
    unsigned served;
    unsigned resets;
};

extern const struct dev_class virtio_echo_class;

/* Gives the held chain back, if any: served (pushed and flushed), or put back unpopped. Under the
 * device's lock. */
void virtio_echo_release(struct virtio_echo *s, bool serve);

#endif
