/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entropy device (virtio 1.2 §5.4): fills the driver's buffers with random bytes of the host, at a
 * bounded rate.
 */
#ifndef VIRTIO_VIRTIO_RNG_H
#define VIRTIO_VIRTIO_RNG_H

#include "vmm/dev/dev.h"

#define VIRTIO_RNG_DEFAULT_RATE UINT64_C(1048576)
#define VIRTIO_RNG_MIN_RATE     UINT64_C(1024)

struct virtio_rng_params {
    uint64_t bytes_per_second; /* VIRTIO_RNG_MIN_RATE or more; 0 = VIRTIO_RNG_DEFAULT_RATE */
};

/* Parameters may be NULL. */
extern const struct dev_class virtio_rng_class;

/* Bytes given to the guest since the VM began. Any thread. */
uint64_t virtio_rng_served(struct dev *dev);

#endif
