/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the device core and its PCI transport call of each other. All under the device's lock. */
#ifndef VIRTIO_VIRTIO_INT_H
#define VIRTIO_VIRTIO_INT_H

#include "vmm/virtio/virtio.h"

/* ---- virtio.c, for the transport ---- */

/* The status register: 0 only once no buffer of before the reset is in use any more. */
uint8_t virtio_get_status(const struct virtio_dev *vdev);
void virtio_set_status(struct virtio_dev *vdev, uint8_t value);
/* Half of the driver's feature bits: `word` 0 = bits 0-31, 1 = bits 32-63, others ignored. */
void virtio_set_features(struct virtio_dev *vdev, uint32_t word, uint32_t value);
uint32_t virtio_config_read(struct virtio_dev *vdev, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio_dev *vdev, uint64_t offset, unsigned size, uint64_t value);
void virtio_queue_enable(struct virtio_dev *vdev, struct virtq *vq);
void virtio_queue_reset(struct virtio_dev *vdev, struct virtq *vq);
/* The doorbell of `vq` was rung. */
void virtio_queue_kicked(struct virtio_dev *vdev, struct virtq *vq);

/* ---- virtio_pci.c, for the core ---- */

MUST_USE int virtio_pci_init(struct virtio_dev *vdev, struct err *err);
void virtio_pci_done(struct virtio_dev *vdev);
/* Registers of the transport to their reset values; the function itself by virtio_dev_reset(). */
void virtio_pci_reset(struct virtio_dev *vdev);
void virtio_pci_queue_interrupt(struct virtio_dev *vdev, struct virtq *vq);
void virtio_pci_config_interrupt(struct virtio_dev *vdev);
/* Rings a queue's doorbell from our side. */
void virtio_pci_ring(struct virtio_dev *vdev, const struct virtq *vq);
/* Rings all doorbells, so that the loop thread looks at every queue. */
void virtio_pci_ring_all(struct virtio_dev *vdev);

#endif
