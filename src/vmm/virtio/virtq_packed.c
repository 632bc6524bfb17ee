/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The packed ring (virtio 1.2 §2.8). */
#include <errno.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio.h"
#include "vmm/virtio/virtq_int.h"

static uint8_t *virtq_packed_slot(const struct virtq *vq, unsigned idx)
{
    return vq->ring->desc + 16 * (size_t)idx;
}

static uint8_t *virtq_packed_flags(const struct virtq *vq, unsigned idx)
{
    return virtq_packed_slot(vq, idx) + offsetof(struct virtio_packed_desc, flags);
}

static struct virtio_packed_desc virtq_packed_decode(const uint8_t *raw)
{
    return (struct virtio_packed_desc){
        .addr = le64_get(raw + offsetof(struct virtio_packed_desc, addr)),
        .len = le32_get(raw + offsetof(struct virtio_packed_desc, len)),
        .id = le16_get(raw + offsetof(struct virtio_packed_desc, id)),
        .flags = le16_get(raw + offsetof(struct virtio_packed_desc, flags)),
    };
}

static struct virtio_packed_desc virtq_packed_read(const struct virtq *vq, unsigned idx)
{
    const uint8_t *at = virtq_packed_slot(vq, idx);
    uint8_t raw[16];
    le64_put(raw, virtq_load64(at));
    le64_put(raw + 8, virtq_load64(at + 8));
    return virtq_packed_decode(raw);
}

/* Moves a ring position on by `step` <= size slots, turning the wrap counter at the end. */
static void virtq_packed_forward(const struct virtq *vq, uint16_t *pos, bool *wrap, unsigned step)
{
    unsigned next = *pos + step;
    if (next >= vq->size) {
        next -= vq->size;
        *wrap = !*wrap;
    }
    *pos = (uint16_t)next;
}

/* A slot is available when its AVAIL bit equals our wrap counter and its USED bit does not
 * (§2.8.1). Acquire: the rest of the descriptor is read after it. */
static bool virtq_packed_available(const struct virtq *vq)
{
    uint16_t flags = virtq_load16(virtq_packed_flags(vq, vq->ring->avail), memory_order_acquire);
    bool avail = (flags & VIRTIO_PACKED_F_AVAIL) != 0;
    bool used = (flags & VIRTIO_PACKED_F_USED) != 0;
    return avail == vq->ring->avail_wrap && used != avail;
}

static bool virtq_packed_empty(struct virtq *vq)
{
    return !virtq_packed_available(vq);
}

static void virtq_packed_set_kicks(struct virtq *vq, bool on)
{
    struct virtq_ring *r = vq->ring;
    uint16_t flags = VIRTIO_PACKED_EVENT_DISABLE;
    uint16_t off_wrap = 0;
    if (on && r->event_idx) {
        flags = VIRTIO_PACKED_EVENT_DESC;
        off_wrap = (uint16_t)(r->avail | (r->avail_wrap ? 0x8000 : 0));
    } else if (on) {
        flags = VIRTIO_PACKED_EVENT_ENABLE;
    }
    /* One store, so that the driver never sees a new offset with old flags. */
    virtq_store32(r->device, off_wrap | (uint32_t)flags << 16);
    virtq_mark(vq, r->device, 4);
    if (on) {
        atomic_thread_fence(memory_order_seq_cst); /* see virtq_int.h "kicks" */
    }
}

/* An indirect table is a plain array here: order, not `next`, links it (§2.8.7).
 * QUIRK: it may be longer than the ring, which Linux relies on. */
static int virtq_packed_indirect(struct virtq *vq, struct virtq_chain *chain, uint64_t table,
                                 uint32_t len)
{
    unsigned count = len / sizeof(struct virtio_packed_desc);
    if (count == 0 || len % sizeof(struct virtio_packed_desc) != 0 || count > VIRTQ_MAX_IOV) {
        return virtq_fail(vq, "indirect table of %u bytes (16 to %u, a multiple of 16)", len,
                          VIRTQ_MAX_IOV * 16);
    }
    for (unsigned i = 0; i < count; i++) {
        uint8_t raw[16];
        uint64_t at;
        if (ckd_add(&at, table, 16 * (uint64_t)i) ||
            gmem_read(vq->vdev->dev->env->mem, GPA(at), raw, sizeof(raw)) < 0) {
            return virtq_fail(vq, "indirect table not in RAM");
        }
        struct virtio_packed_desc d = virtq_packed_decode(raw);
        if ((d.flags & VIRTIO_DESC_F_INDIRECT) != 0) {
            return virtq_fail(vq, "indirect descriptor inside an indirect table");
        }
        int rc = virtq_chain_add(vq, chain, d.addr, d.len, (d.flags & VIRTIO_DESC_F_WRITE) != 0);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int virtq_packed_walk(struct virtq *vq, struct virtq_chain *chain)
{
    struct virtq_ring *r = vq->ring;
    unsigned idx = r->avail;
    for (;;) {
        if (r->inflight + chain->ndesc >= vq->size) {
            return virtq_fail(vq, "more than %u descriptors outstanding", vq->size);
        }
        struct virtio_packed_desc d = virtq_packed_read(vq, idx);
        bool next = (d.flags & VIRTIO_DESC_F_NEXT) != 0;
        int rc;
        chain->ndesc++;
        chain->id = d.id; /* the last one's counts (§2.8.6) */
        if ((d.flags & VIRTIO_DESC_F_INDIRECT) != 0) {
            if (!r->indirect || next) {
                return virtq_fail(vq, next ? "indirect descriptor with NEXT"
                                           : "indirect descriptor not negotiated");
            }
            rc = virtq_packed_indirect(vq, chain, d.addr, d.len);
        } else {
            rc = virtq_chain_add(vq, chain, d.addr, d.len, (d.flags & VIRTIO_DESC_F_WRITE) != 0);
        }
        if (rc < 0 || !next) {
            return rc;
        }
        idx = idx + 1 == vq->size ? 0 : idx + 1;
    }
}

static int virtq_packed_pop(struct virtq *vq, struct virtq_chain *chain)
{
    struct virtq_ring *r = vq->ring;
    if (!virtq_packed_available(vq)) {
        if (!r->event_idx || !r->kicks) {
            return 0;
        }
        virtq_packed_set_kicks(vq, true);
        if (!virtq_packed_available(vq)) {
            return 0;
        }
    }
    int rc = virtq_packed_walk(vq, chain);
    if (rc < 0) {
        return rc;
    }
    virtq_packed_forward(vq, &r->avail, &r->avail_wrap, chain->ndesc);
    r->inflight += chain->ndesc;
    return 1;
}

static void virtq_packed_unpop(struct virtq *vq, const struct virtq_elem *elem)
{
    struct virtq_ring *r = vq->ring;
    r->inflight -= elem->ndesc;
    if (r->avail < elem->ndesc) {
        r->avail = (uint16_t)(r->avail + vq->size);
        r->avail_wrap = !r->avail_wrap;
    }
    r->avail = (uint16_t)(r->avail - elem->ndesc);
}

static void virtq_packed_push(struct virtq *vq, const struct virtq_elem *elem, uint32_t written)
{
    struct virtq_ring *r = vq->ring;
    uint8_t *slot = virtq_packed_slot(vq, r->used);
    uint16_t flags = r->used_wrap ? VIRTIO_PACKED_F_AVAIL | VIRTIO_PACKED_F_USED : 0;
    flags |= written > 0 ? VIRTIO_DESC_F_WRITE : 0;
    virtq_store32(slot + offsetof(struct virtio_packed_desc, len), written);
    virtq_store16(slot + offsetof(struct virtio_packed_desc, id), elem->id, memory_order_relaxed);
    if (r->batch == 0) {
        r->first = r->used;
        r->first_flags = flags;
    } else {
        virtq_store16(virtq_packed_flags(vq, r->used), flags, memory_order_release);
    }
    virtq_mark(vq, slot, 16);
    virtq_packed_forward(vq, &r->used, &r->used_wrap, elem->ndesc);
    r->batch += elem->ndesc;
    r->inflight -= elem->ndesc;
}

static bool virtq_packed_publish(struct virtq *vq)
{
    struct virtq_ring *r = vq->ring;
    /* The driver reads used slots in order, so the first one's flags open the whole batch. */
    virtq_store16(virtq_packed_flags(vq, r->first), r->first_flags, memory_order_release);
    virtq_mark(vq, virtq_packed_slot(vq, r->first), 16);
    uint16_t old = (uint16_t)(r->used - r->batch);
    r->batch = 0;
    atomic_thread_fence(memory_order_seq_cst); /* see virtq_int.h "flush" */
    uint32_t word = virtq_load32(r->driver);
    uint16_t off_wrap = (uint16_t)word;
    unsigned flags = (word >> 16) & 3;
    if (flags == VIRTIO_PACKED_EVENT_DESC && r->event_idx) {
        /* An event of the other lap lies one ring size back (§2.8.10). */
        uint16_t event = off_wrap & 0x7fff;
        if ((off_wrap >> 15 != 0) != r->used_wrap) {
            event = (uint16_t)(event - vq->size);
        }
        return virtq_event_passed(event, r->used, old);
    }
    return flags != VIRTIO_PACKED_EVENT_DISABLE;
}

const struct virtq_kind virtq_packed_kind = {
    .pop = virtq_packed_pop,
    .unpop = virtq_packed_unpop,
    .push = virtq_packed_push,
    .publish = virtq_packed_publish,
    .set_kicks = virtq_packed_set_kicks,
    .empty = virtq_packed_empty,
};
