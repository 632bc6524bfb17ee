/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The device side of a virtqueue: split and packed rings, indirect descriptors, event index
 * (virtio 1.2 §2.6 to §2.8). The ring is hostile: each descriptor is read once, checked and copied
 * into a virtq_elem; a chain has at most the queue's size of descriptors in the ring, an indirect
 * table at most VIRTQ_MAX_IOV, and all of it at most VIRTQ_MAX_IOV host pieces.
 *
 *     struct virtq_elem *e;
 *     while ((rc = virtq_pop(vq, &e)) > 0) {
 *         ... use e->out[], fill e->in[] ...
 *         virtq_push(vq, e, written);
 *     }
 *     virtq_flush(vq);   // publish used entries, interrupt where the driver wants one
 *
 * A broken ring makes virtq_pop() return -EPROTO once it has marked the device DEVICE_NEEDS_RESET;
 * the device stops touching its queues until reset. Runs under the device's lock.
 */
#ifndef VIRTIO_VIRTQ_H
#define VIRTIO_VIRTQ_H

#include <sys/uio.h>

#include "base/bits.h"
#include "vmm/mem/gmem.h"

struct virtio_dev;

#define VIRTQ_MAX_SIZE 1024 /* we offer no larger ring; virtio 1.2 §2.6 allows 32768 */
#define VIRTQ_MAX_IOV  1024 /* host pieces of one chain: IOV_MAX of readv(2) */

/* One popped chain. Owned by the queue's user from pop to push/detach. Every popped element is
 * pushed exactly once, or dropped by virtq_elem_free() after a reset. */
struct virtq_elem {
    uint16_t id;    /* head index (split) or buffer id (packed) */
    uint16_t ndesc; /* ring slots used (packed) */
    unsigned nout;  /* pieces the driver wrote for us */
    unsigned nin;   /* pieces we may write */
    uint64_t out_len;
    uint64_t in_len;
    uint32_t generation; /* of the queue when popped: a push after a reset only frees */
    struct virtq *vq;    /* where it came from; outlives it */
    struct iovec *out;
    struct iovec *in;
};

struct virtq {
    struct virtio_dev *vdev;
    unsigned index;
    uint16_t size; /* entries; set by the driver, power of two for split */
    uint16_t max_size;
    bool ready;
    bool broken;
    bool resetting; /* reset on its own, and not enabled again yet */
    uint16_t msix_vector;
    gpa_t desc, driver, device; /* the three areas */
    uint32_t generation;
    unsigned outstanding;    /* elements alive, of this and of earlier generations */
    struct virtq_ring *ring; /* private to virtq*.c; NULL while not ready */
};

/* True while the element's buffers are still the driver's request: no reset came in between. */
static inline bool virtq_elem_current(const struct virtq_elem *elem)
{
    return elem->generation == elem->vq->generation;
}

/* 1 = *ret_elem, 0 = the ring is empty (or the device is not live, or stopped), -EPROTO = broken
 * ring (reported already). -ENOMEM. */
MUST_USE int virtq_pop(struct virtq *vq, struct virtq_elem **ret_elem);
/* Puts back the newest popped element(s), as if not popped (a net device without room). */
void virtq_unpop(struct virtq *vq, struct virtq_elem *take_elem);
/* Marks as used with `written` bytes in e->in and frees it. In the order the device finishes. */
void virtq_push(struct virtq *vq, struct virtq_elem *take_elem, uint32_t written);
/* Publishes what was pushed and interrupts the driver if it asked for it. */
void virtq_flush(struct virtq *vq);
void virtq_elem_free(struct virtq_elem *elem);

/* Kick suppression: with `on` = false the driver is asked not to kick. After turning it on, pop
 * again: true = buffers came in between. */
bool virtq_set_kicks(struct virtq *vq, bool on);
bool virtq_empty(struct virtq *vq);

/* Copies between a flat buffer and the pieces of a chain; return the bytes copied. */
size_t virtq_out_copy(const struct virtq_elem *e, uint64_t offset, void *buf, size_t len);
size_t virtq_in_copy(struct virtq_elem *e, uint64_t offset, const void *buf, size_t len);

#endif
