/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A virtio device type, apart from its transport (virtio 1.2 §2, §3).
 *
 * A type is one file NAME exporting `virtio_NAME_class` (a struct dev_class whose init calls
 * virtio_dev_init with its struct virtio_type). The PCI transport (virtio_pci.c) or the harness
 * drives it: feature negotiation, status, queues, configuration space.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include "vmm/bus/pci.h"
#include "vmm/dev/dev.h"
#include "vmm/virtio/virtq.h"

#define VIRTIO_MAX_QUEUES 64

struct virtio_dev;

struct virtio_type {
    const char *name;
    uint16_t device_id; /* virtio 1.2 §5: 1 net, 2 block, ... */
    uint32_t pci_class_code;
    uint64_t features; /* of the type; ring features are added by the core */
    size_t config_size;

    /* Reads of the device configuration are answered from vdev->config; a type that computes
     * fields refreshes them here first. Writes are applied to no copy: they come here. */
    void (*config_reading)(struct virtio_dev *vdev);
    void (*config_write)(struct virtio_dev *vdev, unsigned offset, unsigned size, uint64_t value);
    /* The driver set FEATURES_OK: false refuses the set in vdev->driver_features. NULL = any. */
    bool (*features_ok)(struct virtio_dev *vdev);
    /* DRIVER_OK: queues are live. */
    void (*activate)(struct virtio_dev *vdev);
    /* The driver kicked queue `q`, or the device restarts after a pause. On the loop thread, under
     * the device's lock, only while live and not stopped. */
    void (*notify)(struct virtio_dev *vdev, struct virtq *vq);
    /* Status 0, a system reset, or done: drop all popped elements (requests still in a back end
     * are detached and complete into nothing). */
    void (*reset)(struct virtio_dev *vdev);
    /* The driver resets one queue (VIRTIO_F_RING_RESET): as reset(), for that queue's elements.
     * NULL: the feature is not offered. */
    void (*queue_reset)(struct virtio_dev *vdev, struct virtq *vq);
};

struct virtio_pci;

struct virtio_dev {
    struct dev *dev;
    const struct virtio_type *type;
    uint64_t device_features; /* offered */
    uint64_t driver_features; /* accepted */
    uint8_t status;
    uint8_t old_status; /* shown while a reset waits for buffers still in a back end */
    bool live;          /* DRIVER_OK and not NEEDS_RESET */
    bool stopped;       /* the VM is paused: no queue is touched */
    unsigned nqueues;
    struct virtq *queue;
    uint8_t *config;
    uint32_t config_generation;
    struct pci_dev pci;
    struct virtio_pci *transport; /* private to virtio_pci.c */
};

/* Builds the device with `nqueues` queues of `queue_size` entries and its PCI transport (modern,
 * one MSI-X vector a queue and one for configuration). `features` are type features to offer. */
MUST_USE int virtio_dev_init(struct virtio_dev *vdev, struct dev *dev,
                             const struct virtio_type *type, unsigned nqueues, uint16_t queue_size,
                             uint64_t features, struct err *err);
/* Frees the queues: every popped element must have been freed. Accepts one whose init failed. */
void virtio_dev_done(struct virtio_dev *vdev);
/* For dev_class.reset: power-on state, including the PCI function. The machine stops its devices
 * before it resets them, so that no back end writes into the new guest's memory. */
void virtio_dev_reset(struct virtio_dev *vdev);
/* For dev_class.stop / .start: after stop no queue is touched; start looks at all queues. */
void virtio_dev_stop(struct virtio_dev *vdev);
void virtio_dev_start(struct virtio_dev *vdev);

static inline bool virtio_has(const struct virtio_dev *vdev, unsigned feature_bit)
{
    return (vdev->driver_features & BIT64(feature_bit)) != 0;
}

/* Has notify() called again soon, for a device that leaves a queue before it is empty, so that one
 * guest cannot hold the loop thread. */
void virtio_notify_again(struct virtio_dev *vdev, struct virtq *vq);

/* The device changed its configuration: new generation, configuration interrupt. */
void virtio_config_changed(struct virtio_dev *vdev);
/* A guest bug that only a reset can mend (virtio 1.2 §2.1.2): text as for dev_guest_bug(). */
void virtio_broken(struct virtio_dev *vdev, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Used-buffer interrupt of a queue; virtq_flush() decides when. */
void virtio_interrupt(struct virtio_dev *vdev, struct virtq *vq);

#endif
