/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The device core: status, features, configuration space, reset (virtio 1.2 §2.1 to §2.5, §3).
 *
 *   reset --ACKNOWLEDGE, DRIVER--> features --FEATURES_OK--> set up --DRIVER_OK--> live
 *     ^                                                                             |
 *     +------------------------- status 0 ------------- NEEDS_RESET <-- guest error-+
 *
 * A reset detaches buffers that a back end is still using; the status register does not read 0
 * before the last of them is back (§2.4.2, §4.1.4.3.1), so that a driver which waits as it must
 * never sees its memory written late.
 */
#include "vmm/virtio/virtio_int.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtq_int.h"

#define VIRTIO_RING_FEATURES                                                                       \
    (BIT64(VIRTIO_F_INDIRECT_DESC) | BIT64(VIRTIO_F_EVENT_IDX) | BIT64(VIRTIO_F_VERSION_1) |       \
     BIT64(VIRTIO_F_RING_PACKED))

int virtio_dev_init(struct virtio_dev *vdev, struct dev *dev, const struct virtio_type *type,
                    unsigned nqueues, uint16_t queue_size, uint64_t features, struct err *err)
{
    assert(nqueues >= 1 && nqueues <= VIRTIO_MAX_QUEUES);
    assert(queue_size >= 1 && queue_size <= VIRTQ_MAX_SIZE && bits_is_pow2(queue_size));
    assert((features & ~type->features) == 0);
    vdev->dev = dev;
    vdev->type = type;
    vdev->device_features = features | VIRTIO_RING_FEATURES;
    if (type->queue_reset != NULL) {
        vdev->device_features |= BIT64(VIRTIO_F_RING_RESET);
    }
    vdev->nqueues = nqueues;
    vdev->queue = calloc(nqueues, sizeof(vdev->queue[0]));
    vdev->config = calloc(1, MAX(type->config_size, (size_t)1));
    if (vdev->queue == NULL || vdev->config == NULL) {
        virtio_dev_done(vdev);
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < nqueues; i++) {
        vdev->queue[i].vdev = vdev;
        vdev->queue[i].index = i;
        vdev->queue[i].max_size = queue_size;
        virtq_reset(&vdev->queue[i]);
    }
    int rc = virtio_pci_init(vdev, err);
    if (rc < 0) {
        virtio_dev_done(vdev);
    }
    return rc;
}

void virtio_dev_done(struct virtio_dev *vdev)
{
    vdev->live = false;
    virtio_pci_done(vdev);
    for (unsigned i = 0; vdev->queue != NULL && i < vdev->nqueues; i++) {
        assert(vdev->queue[i].outstanding == 0);
        virtq_reset(&vdev->queue[i]);
    }
    free(vdev->queue);
    free(vdev->config);
    vdev->queue = NULL;
    vdev->config = NULL;
}

static unsigned virtio_outstanding(const struct virtio_dev *vdev)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < vdev->nqueues; i++) {
        sum += vdev->queue[i].outstanding;
    }
    return sum;
}

static void virtio_reset(struct virtio_dev *vdev)
{
    vdev->live = false;
    if (vdev->status != 0) {
        vdev->old_status = vdev->status;
    }
    vdev->status = 0;
    vdev->driver_features = 0;
    if (vdev->type->reset != NULL) {
        vdev->type->reset(vdev);
    }
    for (unsigned i = 0; i < vdev->nqueues; i++) {
        virtq_reset(&vdev->queue[i]);
    }
    virtio_pci_reset(vdev);
}

void virtio_dev_reset(struct virtio_dev *vdev)
{
    virtio_reset(vdev);
    pci_dev_reset(&vdev->pci);
}

void virtio_dev_stop(struct virtio_dev *vdev)
{
    vdev->stopped = true;
}

void virtio_dev_start(struct virtio_dev *vdev)
{
    vdev->stopped = false;
    virtio_pci_ring_all(vdev);
}

uint8_t virtio_get_status(const struct virtio_dev *vdev)
{
    if (vdev->status == 0 && virtio_outstanding(vdev) > 0) {
        return vdev->old_status;
    }
    return vdev->status;
}

static bool virtio_features_acceptable(struct virtio_dev *vdev)
{
    uint64_t f = vdev->driver_features;
    if ((f & ~vdev->device_features) != 0) {
        dev_guest_bug(vdev->dev, "features 0x%llx accepted that were not offered",
                      (unsigned long long)(f & ~vdev->device_features));
        return false;
    }
    /* There is no legacy interface to fall back to (§6.2: the device may refuse). */
    if (!virtio_has(vdev, VIRTIO_F_VERSION_1)) {
        dev_guest_bug(vdev->dev, "driver does not accept VIRTIO_F_VERSION_1");
        return false;
    }
    return vdev->type->features_ok == NULL || vdev->type->features_ok(vdev);
}

void virtio_set_status(struct virtio_dev *vdev, uint8_t value)
{
    if (value == 0) {
        virtio_reset(vdev);
        return;
    }
    if ((vdev->status & ~value & ~VIRTIO_STATUS_NEEDS_RESET) != 0) {
        dev_guest_bug(vdev->dev, "status 0x%02x cleared to 0x%02x", vdev->status, value);
    }
    uint8_t fresh = (uint8_t)(value & ~vdev->status & ~VIRTIO_STATUS_NEEDS_RESET);
    if ((fresh & VIRTIO_STATUS_FEATURES_OK) != 0 && !virtio_features_acceptable(vdev)) {
        fresh &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
    }
    if ((fresh & VIRTIO_STATUS_DRIVER_OK) != 0 &&
        ((vdev->status | fresh) & VIRTIO_STATUS_FEATURES_OK) == 0) {
        dev_guest_bug(vdev->dev, "DRIVER_OK before FEATURES_OK");
        fresh &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
    }
    vdev->status |= fresh;
    if ((fresh & VIRTIO_STATUS_DRIVER_OK) == 0 || (vdev->status & VIRTIO_STATUS_NEEDS_RESET) != 0) {
        return;
    }
    vdev->live = true;
    if (vdev->type->activate != NULL) {
        vdev->type->activate(vdev);
    }
    /* A kick that came too early was not served (§3.1.1: a driver should not; it costs little). */
    virtio_pci_ring_all(vdev);
}

void virtio_set_features(struct virtio_dev *vdev, uint32_t word, uint32_t value)
{
    if ((vdev->status & VIRTIO_STATUS_FEATURES_OK) != 0) {
        dev_guest_bug(vdev->dev, "features written after FEATURES_OK");
        return;
    }
    if (word > 1) {
        return;
    }
    uint64_t keep = word == 0 ? ~(uint64_t)UINT32_MAX : UINT32_MAX;
    vdev->driver_features = (vdev->driver_features & keep) | (uint64_t)value << (32 * word);
}

uint32_t virtio_config_read(struct virtio_dev *vdev, uint64_t offset, unsigned size)
{
    if (vdev->type->config_reading != NULL) {
        vdev->type->config_reading(vdev);
    }
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        /* What lies behind the end reads as zeroes, as do fields of features not there. */
        if (offset + i < vdev->type->config_size) {
            value |= (uint32_t)vdev->config[offset + i] << (8 * i);
        }
    }
    return value;
}

void virtio_config_write(struct virtio_dev *vdev, uint64_t offset, unsigned size, uint64_t value)
{
    if (vdev->type->config_write != NULL && offset + size <= vdev->type->config_size) {
        vdev->type->config_write(vdev, (unsigned)offset, size, value);
    }
}

void virtio_queue_enable(struct virtio_dev *vdev, struct virtq *vq)
{
    if (vq->ready || (vdev->status & VIRTIO_STATUS_FEATURES_OK) == 0) {
        dev_guest_bug(vdev->dev, "queue %u enabled %s", vq->index,
                      vq->ready ? "twice" : "before FEATURES_OK");
        return;
    }
    if (virtq_enable(vq, vdev->driver_features) == -ENOMEM) {
        virtio_broken(vdev, "queue %u: out of memory", vq->index);
    }
}

void virtio_queue_reset(struct virtio_dev *vdev, struct virtq *vq)
{
    if (!virtio_has(vdev, VIRTIO_F_RING_RESET) || !vq->ready) {
        dev_guest_bug(vdev->dev, "reset of queue %u, which is not enabled or cannot", vq->index);
        return;
    }
    vdev->type->queue_reset(vdev, vq);
    virtq_reset(vq);
    vq->resetting = true;
}

void virtio_queue_kicked(struct virtio_dev *vdev, struct virtq *vq)
{
    if (vdev->live && !vdev->stopped && vq->ready && !vq->broken) {
        vdev->type->notify(vdev, vq);
    }
}

void virtio_notify_again(struct virtio_dev *vdev, struct virtq *vq)
{
    virtio_pci_ring(vdev, vq);
}

void virtio_config_changed(struct virtio_dev *vdev)
{
    vdev->config_generation++;
    if ((vdev->status & VIRTIO_STATUS_DRIVER_OK) != 0) {
        virtio_pci_config_interrupt(vdev);
    }
}

void virtio_broken(struct virtio_dev *vdev, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    dev_guest_bug(vdev->dev, "%s; device needs reset", text);
    if ((vdev->status & VIRTIO_STATUS_NEEDS_RESET) != 0) {
        return;
    }
    vdev->live = false;
    vdev->status |= VIRTIO_STATUS_NEEDS_RESET;
    if ((vdev->status & VIRTIO_STATUS_DRIVER_OK) != 0) {
        virtio_pci_config_interrupt(vdev);
    }
}

void virtio_interrupt(struct virtio_dev *vdev, struct virtq *vq)
{
    virtio_pci_queue_interrupt(vdev, vq);
}
