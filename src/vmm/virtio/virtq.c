/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtqueues: what both ring layouts have in common (virtio 1.2 §2.6).
 *
 * Life of an element: pop -> (device works) -> push or unpop or elem_free. Invariants:
 *   1. vq->outstanding is the number of elements alive; a queue is freed only at zero.
 *   2. A popped element of the present generation is accounted in ring->inflight, which never
 *      exceeds the queue's size, whatever the driver writes: a driver cannot make us hold more.
 *   3. An element of an earlier generation never touches the ring.
 */
#include "vmm/virtio/virtq_int.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio.h"

/* A chain's buffers sum up to at most 2^32 bytes (virtio 1.2 §2.7.5.3.1 and §2.8.5). */
#define VIRTQ_MAX_BYTES BIT64(32)

int virtq_fail(struct virtq *vq, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    vq->broken = true;
    virtio_broken(vq->vdev, "queue %u: %s", vq->index, text);
    return -EPROTO;
}

void virtq_mark(struct virtq *vq, const void *host, uint64_t len)
{
    gmem_mark_written(vq->vdev->dev->env->mem, host, len);
}

int virtq_chain_add(struct virtq *vq, struct virtq_chain *chain, uint64_t addr, uint32_t len,
                    bool writable)
{
    if (!writable && chain->writable_seen) {
        return virtq_fail(vq, "readable buffer behind a writable one");
    }
    chain->writable_seen = writable;
    unsigned used = chain->nout + chain->nin;
    /* QUIRK: a length of zero adds no piece, and is no error. */
    int n = gmem_iov(vq->vdev->dev->env->mem, GPA(addr), len, writable, chain->iov + used,
                     VIRTQ_MAX_IOV - used);
    if (n < 0) {
        return virtq_fail(vq, "buffer 0x%" PRIx64 " of %" PRIu32 " bytes: %s", addr, len,
                          n == -ENOSPC ? "chain of too many pieces" : "not in RAM");
    }
    if (writable) {
        chain->nin += (unsigned)n;
        chain->in_len += len;
    } else {
        chain->nout += (unsigned)n;
        chain->out_len += len;
    }
    if (chain->in_len + chain->out_len > VIRTQ_MAX_BYTES) {
        return virtq_fail(vq, "chain longer than 2^32 bytes");
    }
    return 0;
}

static bool virtq_usable(const struct virtq *vq)
{
    return vq->ring != NULL && !vq->broken && vq->vdev->live;
}

int virtq_pop(struct virtq *vq, struct virtq_elem **ret_elem)
{
    struct virtq_chain chain; /* 16 KiB; fields set below, pieces as they come */
    if (vq->broken) {
        return -EPROTO;
    }
    if (!virtq_usable(vq) || vq->vdev->stopped) {
        return 0;
    }
    chain.id = 0;
    chain.ndesc = 0;
    chain.nout = 0;
    chain.nin = 0;
    chain.writable_seen = false;
    chain.out_len = 0;
    chain.in_len = 0;
    int rc = vq->ring->kind->pop(vq, &chain);
    if (rc <= 0) {
        return rc;
    }
    unsigned pieces = chain.nout + chain.nin;
    struct virtq_elem *e = malloc(sizeof(*e) + pieces * sizeof(struct iovec));
    if (e == NULL) {
        struct virtq_elem undo = { .ndesc = chain.ndesc };
        vq->ring->kind->unpop(vq, &undo);
        return -ENOMEM;
    }
    struct iovec *iov = (struct iovec *)(void *)(e + 1);
    memcpy(iov, chain.iov, pieces * sizeof(struct iovec));
    *e = (struct virtq_elem){
        .id = chain.id,
        .ndesc = chain.ndesc,
        .nout = chain.nout,
        .nin = chain.nin,
        .out_len = chain.out_len,
        .in_len = chain.in_len,
        .generation = vq->generation,
        .vq = vq,
        .out = iov,
        .in = iov + chain.nout,
    };
    vq->outstanding++;
    *ret_elem = e;
    return 1;
}

void virtq_elem_free(struct virtq_elem *elem)
{
    if (elem == NULL) {
        return;
    }
    assert(elem->vq->outstanding > 0);
    elem->vq->outstanding--;
    free(elem);
}

void virtq_unpop(struct virtq *vq, struct virtq_elem *take_elem)
{
    if (virtq_usable(vq) && virtq_elem_current(take_elem)) {
        vq->ring->kind->unpop(vq, take_elem);
    }
    virtq_elem_free(take_elem);
}

/* Tells the dirty log of the first `written` bytes of the writable pieces. */
static void virtq_mark_in(struct virtq *vq, const struct virtq_elem *e, uint64_t written)
{
    for (unsigned i = 0; i < e->nin && written > 0; i++) {
        uint64_t n = MIN(written, e->in[i].iov_len);
        virtq_mark(vq, e->in[i].iov_base, n);
        written -= n;
    }
}

void virtq_push(struct virtq *vq, struct virtq_elem *take_elem, uint32_t written)
{
    assert(take_elem->vq == vq);
    virtq_mark_in(vq, take_elem, written);
    if (virtq_usable(vq) && virtq_elem_current(take_elem)) {
        vq->ring->kind->push(vq, take_elem, written);
    }
    virtq_elem_free(take_elem);
}

void virtq_flush(struct virtq *vq)
{
    if (!virtq_usable(vq) || vq->ring->batch == 0) {
        return;
    }
    if (vq->ring->kind->publish(vq)) {
        virtio_interrupt(vq->vdev, vq);
    }
}

bool virtq_set_kicks(struct virtq *vq, bool on)
{
    if (!virtq_usable(vq)) {
        return false;
    }
    vq->ring->kicks = on;
    vq->ring->kind->set_kicks(vq, on);
    return on && !vq->ring->kind->empty(vq);
}

bool virtq_empty(struct virtq *vq)
{
    return !virtq_usable(vq) || vq->ring->kind->empty(vq);
}

size_t virtq_out_copy(const struct virtq_elem *e, uint64_t offset, void *buf, size_t len)
{
    uint8_t *to = buf;
    size_t done = 0;
    for (unsigned i = 0; i < e->nout && done < len; i++) {
        size_t have = e->out[i].iov_len;
        if (offset >= have) {
            offset -= have;
            continue;
        }
        size_t n = MIN(have - (size_t)offset, len - done);
        memcpy(to + done, (const uint8_t *)e->out[i].iov_base + offset, n);
        done += n;
        offset = 0;
    }
    /* The compiler must not read the guest's bytes again later. */
    atomic_signal_fence(memory_order_seq_cst);
    return done;
}

size_t virtq_in_copy(struct virtq_elem *e, uint64_t offset, const void *buf, size_t len)
{
    const uint8_t *from = buf;
    size_t done = 0;
    for (unsigned i = 0; i < e->nin && done < len; i++) {
        size_t room = e->in[i].iov_len;
        if (offset >= room) {
            offset -= room;
            continue;
        }
        size_t n = MIN(room - (size_t)offset, len - done);
        memcpy((uint8_t *)e->in[i].iov_base + offset, from + done, n);
        done += n;
        offset = 0;
    }
    return done;
}

struct virtq_area {
    const char *what;
    gpa_t gpa;
    uint64_t size;
    uint64_t align;
    bool write;
    uint8_t *host;
};

int virtq_enable(struct virtq *vq, uint64_t features)
{
    uint64_t n = vq->size;
    bool packed = (features & BIT64(VIRTIO_F_RING_PACKED)) != 0;
    struct virtq_area split_areas[] = {
        {"descriptor table", vq->desc,   16 * n,    VIRTIO_ALIGN_DESC,  false, NULL},
        { "available ring",  vq->driver, 6 + 2 * n, VIRTIO_ALIGN_AVAIL, false, NULL},
        { "used ring",       vq->device, 6 + 8 * n, VIRTIO_ALIGN_USED,  true,  NULL},
    };
    struct virtq_area packed_areas[] = {
        {"descriptor ring",    vq->desc,   16 * n, VIRTIO_ALIGN_DESC,         true,  NULL},
        { "driver event area", vq->driver, 4,      VIRTIO_ALIGN_PACKED_EVENT, false, NULL},
        { "device event area", vq->device, 4,      VIRTIO_ALIGN_PACKED_EVENT, true,  NULL},
    };
    struct virtq_area *area = packed ? packed_areas : split_areas;
    assert(vq->ring == NULL);
    if (n == 0 || n > vq->max_size || (!packed && !bits_is_pow2(n))) {
        return virtq_fail(vq, "size %u (1 to %u%s)", vq->size, vq->max_size,
                          packed ? "" : ", a power of two");
    }
    for (int i = 0; i < 3; i++) {
        area[i].host = gmem_ptr(vq->vdev->dev->env->mem, area[i].gpa, area[i].size, area[i].write);
        /* The host address too: our atomics need it, and RAM need not begin on a page there. */
        if (area[i].host == NULL || area[i].gpa.v % area[i].align != 0 ||
            (uintptr_t)area[i].host % area[i].align != 0) {
            return virtq_fail(vq,
                              "%s at 0x%" PRIx64 " of %" PRIu64 " bytes: not in RAM or unaligned",
                              area[i].what, area[i].gpa.v, area[i].size);
        }
    }
    vq->ring = calloc(1, sizeof(*vq->ring));
    if (vq->ring == NULL) {
        return -ENOMEM;
    }
    *vq->ring = (struct virtq_ring){
        .kind = packed ? &virtq_packed_kind : &virtq_split_kind,
        .desc = area[0].host,
        .driver = area[1].host,
        .device = area[2].host,
        .indirect = (features & BIT64(VIRTIO_F_INDIRECT_DESC)) != 0,
        .event_idx = (features & BIT64(VIRTIO_F_EVENT_IDX)) != 0,
        .kicks = true,
        .avail_wrap = true,
        .used_wrap = true,
    };
    vq->ready = true;
    vq->resetting = false;
    return 0;
}

void virtq_reset(struct virtq *vq)
{
    free(vq->ring);
    vq->ring = NULL;
    vq->generation++;
    vq->ready = false;
    vq->broken = false;
    vq->resetting = false;
    vq->size = vq->max_size;
    vq->msix_vector = VIRTIO_MSI_NO_VECTOR;
    vq->desc = GPA(0);
    vq->driver = GPA(0);
    vq->device = GPA(0);
}
