/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A malicious driver: the attacks of virtio_attacks.def run against any virtio device in the
 * harness (test only; reliability goal S7).
 *
 *     const struct virtio_attack_target target = { .cls = &virtio_rng_class, .works = rng_works };
 *     assert_int_equal(virtio_attack_all(&target), 0);
 *
 * Each attack meets a fresh device, on the ring layouts that it is for. Afterwards: the device is
 * broken where it had to be, what was never given to it is unchanged, no round of the loop took
 * longer than VIRTIO_ATTACK_MAX_MS of CPU time, and after a reset the device works. That no memory
 * of ours is touched is for the sanitizer builds to see.
 */
#ifndef VIRTIO_VIRTIO_ATTACK_H
#define VIRTIO_VIRTIO_ATTACK_H

#include "vmm/virtio/virtio_harness.h"

/* reliability S8: no guest input holds an I/O thread longer. Sanitizers cost a factor of 5. */
#define VIRTIO_ATTACK_MAX_MS 500

struct virtio_attack_target {
    const struct dev_class *cls;
    /* Makes the parameters and what they refer to; NULL = dev_new() with `params`. */
    const void *(*open)(void *opaque);
    void (*close)(void *opaque); /* after the device is gone */
    void *opaque;
    const void *params;
    unsigned queue; /* which one is attacked */
    /* The device looks at that queue when kicked. false: no ring attack has to break it. */
    bool idle;
    /* After a reset and a new start with every queue: does it do its work? NULL = not asked. */
    bool (*works)(struct virtio_harness *vh, void *opaque);
};

#define VIRTIO_ATTACK_SPLIT  BIT(0)
#define VIRTIO_ATTACK_PACKED BIT(1)
#define VIRTIO_ATTACK_BOTH   (VIRTIO_ATTACK_SPLIT | VIRTIO_ATTACK_PACKED)

enum virtio_attack_end {
    VIRTIO_ATTACK_BREAKS,   /* DEVICE_NEEDS_RESET is set */
    VIRTIO_ATTACK_SURVIVES, /* broken or not */
    VIRTIO_ATTACK_SHRUGS,   /* not broken */
};

/* What an attack works with: the device started with every feature, its queue empty. */
struct virtio_attack_ctx {
    struct virtio_harness *vh;
    struct virtio_hq *q;
    uint64_t buf; /* 64 KiB that the device may touch */
    unsigned step;
};

#define VIRTIO_ATTACK_BUF (64 * KIB)

struct virtio_attack {
    const char *name;
    unsigned rings;
    enum virtio_attack_end end;
    void (*run)(struct virtio_attack_ctx *c);
};

extern const struct virtio_attack virtio_attacks[];
extern const unsigned virtio_attack_count;

/* Runs all; prints what failed to stderr. Returns the number of failures. */
unsigned virtio_attack_all(const struct virtio_attack_target *target);

/* For the attacks. Ring entries in the layout of the queue: `flags` are VIRTIO_DESC_F_*; `next` is
 * the next field (split) or the buffer id (packed, where the AVAIL bit is added). */
void virtio_attack_desc(struct virtio_attack_ctx *c, unsigned slot, uint64_t addr, uint32_t len,
                        uint16_t flags, uint16_t next);
/* An entry of an indirect table at guest address `table`. */
void virtio_attack_entry(struct virtio_attack_ctx *c, uint64_t table, unsigned i, uint64_t addr,
                         uint32_t len, uint16_t flags, uint16_t next);
/* Makes head `slot` available (packed rings have it so by its flags), rings, runs the loop. */
void virtio_attack_go(struct virtio_attack_ctx *c, unsigned slot);
/* Rings and runs the loop, timed. */
void virtio_attack_kick(struct virtio_attack_ctx *c);
void virtio_attack_poll(struct virtio_attack_ctx *c);

#define ATTACK(name, rings, end) void virtio_attack_##name(struct virtio_attack_ctx *c);
#include "vmm/virtio/virtio_attacks.def"
#undef ATTACK

#endif
