/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside of the virtqueues: what virtq.c and the two ring layouts share, and what the transport
 * calls.
 *
 * Shared memory is accessed by relaxed or ordered atomics of the field's width, never through a
 * plain struct, so that a value is read once. Order, on both layouts:
 *
 *   pop    load-acquire of the index (split) or head flags (packed), then the rest: pairs with the
 *          driver's write barrier before it publishes.
 *   flush  entries, then store-release of the index or of the first flags: pairs with the driver's
 *          read barrier. Then a full fence, then the driver's event word: either we see its wish
 *          for an interrupt or it sees our entry.
 *   kicks  our event word, a full fence, then the ring again: the same the other way round.
 */
#ifndef VIRTIO_VIRTQ_INT_H
#define VIRTIO_VIRTQ_INT_H

#include <stdatomic.h>

#include "vmm/virtio/virtq.h"

/* A chain being collected, on the stack of virtq_pop(): readable pieces first, then writable. */
struct virtq_chain {
    uint16_t id;
    uint16_t ndesc;
    unsigned nout;
    unsigned nin;
    bool writable_seen;
    uint64_t out_len;
    uint64_t in_len;
    struct iovec iov[VIRTQ_MAX_IOV];
};

/* What the split and the packed layout do differently. */
struct virtq_kind {
    /* 1 = chain, 0 = empty, -EPROTO after virtq_fail(). */
    int (*pop)(struct virtq *vq, struct virtq_chain *chain);
    void (*unpop)(struct virtq *vq, const struct virtq_elem *elem);
    void (*push)(struct virtq *vq, const struct virtq_elem *elem, uint32_t written);
    /* Makes pushed entries visible. true: the driver wants an interrupt. */
    bool (*publish)(struct virtq *vq);
    void (*set_kicks)(struct virtq *vq, bool on);
    bool (*empty)(struct virtq *vq);
};

struct virtq_ring {
    const struct virtq_kind *kind;
    uint8_t *desc;     /* the three areas in host memory */
    uint8_t *driver;   /* split: available ring; packed: driver event suppression */
    uint8_t *device;   /* split: used ring; packed: device event suppression */
    bool indirect;     /* negotiated */
    bool event_idx;    /* negotiated */
    bool kicks;        /* we want to be kicked */
    unsigned inflight; /* ring slots taken by popped chains (split: heads) */
    unsigned batch;    /* ring slots pushed since the last flush */

    uint16_t avail;      /* next entry to pop */
    uint16_t avail_seen; /* split: the driver's index when last read */
    uint16_t used;       /* next entry to push */
    bool avail_wrap;     /* packed: wrap counters */
    bool used_wrap;
    uint16_t first; /* packed: first slot of the batch, whose flags are written last */
    uint16_t first_flags;
};

extern const struct virtq_kind virtq_split_kind;
extern const struct virtq_kind virtq_packed_kind;

/* Marks the queue broken and the device DEVICE_NEEDS_RESET. Returns -EPROTO. */
int virtq_fail(struct virtq *vq, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Adds one buffer to the chain. 0, or -EPROTO after virtq_fail(). */
MUST_USE int virtq_chain_add(struct virtq *vq, struct virtq_chain *chain, uint64_t addr,
                             uint32_t len, bool writable);
void virtq_mark(struct virtq *vq, const void *host, uint64_t len);

/* For the transport. Sizes and addresses are set; checks them and maps the areas. A guest error
 * leaves the device broken. -EPROTO, -ENOMEM. */
MUST_USE int virtq_enable(struct virtq *vq, uint64_t features);
/* Back to the state after device reset; elements still out become detached. */
void virtq_reset(struct virtq *vq);

static inline uint16_t virtq_load16(const void *p, memory_order order)
{
    return le16toh(__atomic_load_n((const uint16_t *)p, (int)order));
}

static inline uint32_t virtq_load32(const void *p)
{
    return le32toh(__atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED));
}

static inline uint64_t virtq_load64(const void *p)
{
    return le64toh(__atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED));
}

static inline void virtq_store16(void *p, uint16_t v, memory_order order)
{
    __atomic_store_n((uint16_t *)p, htole16(v), (int)order);
}

static inline void virtq_store32(void *p, uint32_t v)
{
    __atomic_store_n((uint32_t *)p, htole32(v), __ATOMIC_RELAXED);
}

/* virtio 1.2 §2.7.10: does the step from `old` to `now` pass `event`? All modulo 65536. */
static inline bool virtq_event_passed(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

#endif
