/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The split ring (virtio 1.2 §2.7). */
#include <errno.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio.h"
#include "vmm/virtio/virtq_int.h"

static uint8_t *virtq_split_used_event(const struct virtq *vq)
{
    return vq->ring->driver + offsetof(struct virtio_avail, ring) + 2 * (size_t)vq->size;
}

static uint8_t *virtq_split_avail_event(const struct virtq *vq)
{
    return vq->ring->device + offsetof(struct virtio_used, ring) + 8 * (size_t)vq->size;
}

static uint16_t virtq_split_avail_idx(const struct virtq *vq)
{
    return virtq_load16(vq->ring->driver + offsetof(struct virtio_avail, idx),
                        memory_order_acquire);
}

static struct virtio_desc virtq_split_decode(const uint8_t *raw)
{
    return (struct virtio_desc){
        .addr = le64_get(raw + offsetof(struct virtio_desc, addr)),
        .len = le32_get(raw + offsetof(struct virtio_desc, len)),
        .flags = le16_get(raw + offsetof(struct virtio_desc, flags)),
        .next = le16_get(raw + offsetof(struct virtio_desc, next)),
    };
}

static struct virtio_desc virtq_split_read(const struct virtq *vq, unsigned idx)
{
    const uint8_t *at = vq->ring->desc + 16 * (size_t)idx;
    uint8_t raw[16];
    le64_put(raw, virtq_load64(at));
    le64_put(raw + 8, virtq_load64(at + 8));
    return virtq_split_decode(raw);
}

/* Walks an indirect table (§2.7.5.3). Its entries are linked by `next` as those of the ring.
 * QUIRK: it may be longer than the ring, which Linux relies on. */
static int virtq_split_indirect(struct virtq *vq, struct virtq_chain *chain, uint64_t table,
                                uint32_t len)
{
    unsigned count = len / sizeof(struct virtio_desc);
    if (count == 0 || len % sizeof(struct virtio_desc) != 0 || count > VIRTQ_MAX_IOV) {
        return virtq_fail(vq, "indirect table of %u bytes (16 to %u, a multiple of 16)", len,
                          VIRTQ_MAX_IOV * 16);
    }
    unsigned idx = 0;
    for (unsigned steps = 0;; steps++) {
        uint8_t raw[16];
        uint64_t at;
        if (steps == count) {
            return virtq_fail(vq, "loop in an indirect table");
        }
        if (ckd_add(&at, table, 16 * (uint64_t)idx) ||
            gmem_read(vq->vdev->dev->env->mem, GPA(at), raw, sizeof(raw)) < 0) {
            return virtq_fail(vq, "indirect table not in RAM");
        }
        struct virtio_desc d = virtq_split_decode(raw);
        if ((d.flags & VIRTIO_DESC_F_INDIRECT) != 0) {
            return virtq_fail(vq, "indirect descriptor inside an indirect table");
        }
        int rc = virtq_chain_add(vq, chain, d.addr, d.len, (d.flags & VIRTIO_DESC_F_WRITE) != 0);
        if (rc < 0 || (d.flags & VIRTIO_DESC_F_NEXT) == 0) {
            return rc;
        }
        if (d.next >= count) {
            return virtq_fail(vq, "next %u in an indirect table of %u", d.next, count);
        }
        idx = d.next;
    }
}

static int virtq_split_walk(struct virtq *vq, struct virtq_chain *chain, unsigned idx)
{
    for (unsigned steps = 0;; steps++) {
        if (steps == vq->size) {
            return virtq_fail(vq, "loop in a descriptor chain");
        }
        struct virtio_desc d = virtq_split_read(vq, idx);
        bool next = (d.flags & VIRTIO_DESC_F_NEXT) != 0;
        if ((d.flags & VIRTIO_DESC_F_INDIRECT) != 0) {
            if (!vq->ring->indirect || next) {
                return virtq_fail(vq, next ? "indirect descriptor with NEXT"
                                           : "indirect descriptor not negotiated");
            }
            return virtq_split_indirect(vq, chain, d.addr, d.len);
        }
        int rc = virtq_chain_add(vq, chain, d.addr, d.len, (d.flags & VIRTIO_DESC_F_WRITE) != 0);
        if (rc < 0 || !next) {
            return rc;
        }
        if (d.next >= vq->size) {
            return virtq_fail(vq, "next %u in a ring of %u", d.next, vq->size);
        }
        idx = d.next;
    }
}

static void virtq_split_set_kicks(struct virtq *vq, bool on)
{
    struct virtq_ring *r = vq->ring;
    if (r->event_idx) {
        /* Off: an event half the index space away, which no batch of the driver passes. */
        uint8_t *event = virtq_split_avail_event(vq);
        virtq_store16(event, on ? r->avail : r->avail ^ 0x8000, memory_order_relaxed);
        virtq_mark(vq, event, 2);
    } else {
        virtq_store16(r->device, on ? 0 : VIRTIO_USED_F_NO_NOTIFY, memory_order_relaxed);
        virtq_mark(vq, r->device, 2);
    }
    if (on) {
        atomic_thread_fence(memory_order_seq_cst); /* see virtq_int.h "kicks" */
    }
}

/* Number of entries ready, reading the driver's index only when what we know of is used up. */
static int virtq_split_ready(struct virtq *vq)
{
    struct virtq_ring *r = vq->ring;
    if (r->avail_seen == r->avail) {
        r->avail_seen = virtq_split_avail_idx(vq);
    }
    if (r->avail_seen == r->avail && r->event_idx && r->kicks) {
        virtq_split_set_kicks(vq, true);
        r->avail_seen = virtq_split_avail_idx(vq);
    }
    unsigned ready = (uint16_t)(r->avail_seen - r->avail);
    if (ready > vq->size) {
        return virtq_fail(vq, "available index jumps by %u in a ring of %u", ready, vq->size);
    }
    return (int)ready;
}

static int virtq_split_pop(struct virtq *vq, struct virtq_chain *chain)
{
    struct virtq_ring *r = vq->ring;
    int rc = virtq_split_ready(vq);
    if (rc <= 0) {
        return rc;
    }
    if (r->inflight >= vq->size) {
        return virtq_fail(vq, "more than %u buffers outstanding", vq->size);
    }
    const uint8_t *entry =
        r->driver + offsetof(struct virtio_avail, ring) + 2 * (size_t)(r->avail & (vq->size - 1));
    unsigned head = virtq_load16(entry, memory_order_relaxed);
    if (head >= vq->size) {
        return virtq_fail(vq, "head %u in a ring of %u", head, vq->size);
    }
    rc = virtq_split_walk(vq, chain, head);
    if (rc < 0) {
        return rc;
    }
    chain->id = (uint16_t)head;
    chain->ndesc = 1;
    r->avail++;
    r->inflight++;
    return 1;
}

static void virtq_split_unpop(struct virtq *vq, const struct virtq_elem *elem)
{
    (void)elem;
    vq->ring->avail--;
    vq->ring->inflight--;
}

static void virtq_split_push(struct virtq *vq, const struct virtq_elem *elem, uint32_t written)
{
    struct virtq_ring *r = vq->ring;
    uint8_t *entry =
        r->device + offsetof(struct virtio_used, ring) + 8 * (size_t)(r->used & (vq->size - 1));
    virtq_store32(entry + offsetof(struct virtio_used_elem, id), elem->id);
    virtq_store32(entry + offsetof(struct virtio_used_elem, len), written);
    virtq_mark(vq, entry, 8);
    r->used++;
    r->batch++;
    r->inflight--;
}

static bool virtq_split_publish(struct virtq *vq)
{
    struct virtq_ring *r = vq->ring;
    uint8_t *idx = r->device + offsetof(struct virtio_used, idx);
    uint16_t old = (uint16_t)(r->used - r->batch);
    virtq_store16(idx, r->used, memory_order_release);
    virtq_mark(vq, idx, 2);
    r->batch = 0;
    atomic_thread_fence(memory_order_seq_cst); /* see virtq_int.h "flush" */
    if (r->event_idx) {
        uint16_t event = virtq_load16(virtq_split_used_event(vq), memory_order_relaxed);
        return virtq_event_passed(event, r->used, old);
    }
    return (virtq_load16(r->driver, memory_order_relaxed) & VIRTIO_AVAIL_F_NO_INTERRUPT) == 0;
}

static bool virtq_split_empty(struct virtq *vq)
{
    return virtq_split_avail_idx(vq) == vq->ring->avail;
}

const struct virtq_kind virtq_split_kind = {
    .pop = virtq_split_pop,
    .unpop = virtq_split_unpop,
    .push = virtq_split_push,
    .publish = virtq_split_publish,
    .set_kicks = virtq_split_set_kicks,
    .empty = virtq_split_empty,
};
