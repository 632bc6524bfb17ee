/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/virtio/virtio_attack.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "spec/virtio_defs.h"

#define VIRTIO_ATTACK_RAM    (8 * MIB)
#define VIRTIO_ATTACK_QUEUE  16
#define VIRTIO_ATTACK_CANARY 4096
#define VIRTIO_ATTACK_BYTE   0xc5

const struct virtio_attack virtio_attacks[] = {
#define ATTACK(name, rings, end)                                                                   \
    { #name, VIRTIO_ATTACK_##rings, VIRTIO_ATTACK_##end, virtio_attack_##name },
#include "vmm/virtio/virtio_attacks.def"
#undef ATTACK
};
const unsigned virtio_attack_count = ARRAY_LEN(virtio_attacks);

static uint64_t virtio_attack_cpu_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void virtio_attack_poll(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < 8; i++) {
        uint64_t before = virtio_attack_cpu_ms();
        if (loop_run_once(c->vh->h.env.loop, 0) < 0) {
            abort();
        }
        uint64_t took = virtio_attack_cpu_ms() - before;
        if (took > VIRTIO_ATTACK_MAX_MS) {
            fprintf(stderr, "virtio_attack: a round took %llu ms\n", (unsigned long long)took);
            c->step = UINT32_MAX; /* counted as a failure */
        }
    }
}

void virtio_attack_kick(struct virtio_attack_ctx *c)
{
    virtio_hq_ring(c->q);
    virtio_attack_poll(c);
}

void virtio_attack_entry(struct virtio_attack_ctx *c, uint64_t table, unsigned i, uint64_t addr,
                         uint32_t len, uint16_t flags, uint16_t next)
{
    uint8_t *p = virtio_harness_ptr(c->vh, table + 16 * (uint64_t)i);
    le64_put(p, addr);
    le32_put(p + 8, len);
    le16_put(p + 12, c->q->packed ? next : flags);
    le16_put(p + 14, c->q->packed ? flags : next);
}

void virtio_attack_desc(struct virtio_attack_ctx *c, unsigned slot, uint64_t addr, uint32_t len,
                        uint16_t flags, uint16_t next)
{
    if (c->q->packed) {
        flags |= c->q->avail_wrap ? VIRTIO_PACKED_F_AVAIL : VIRTIO_PACKED_F_USED;
    }
    virtio_attack_entry(c, c->q->desc, slot, addr, len, flags, next);
}

void virtio_attack_go(struct virtio_attack_ctx *c, unsigned slot)
{
    struct virtio_hq *q = c->q;
    if (!q->packed) {
        le16_put(virtio_harness_ptr(c->vh, q->driver + 4 + 2 * (uint64_t)(q->avail % q->size)),
                 (uint16_t)slot);
        q->avail++;
        le16_put(virtio_harness_ptr(c->vh, q->driver + 2), q->avail);
    }
    virtio_attack_kick(c);
}

static uint64_t virtio_attack_features(unsigned ring)
{
    uint64_t packed = BIT64(VIRTIO_F_RING_PACKED);
    return ring == VIRTIO_ATTACK_PACKED ? UINT64_MAX : ~packed;
}

/* Everything started, and the queue free of what an activated device has taken. */
static void virtio_attack_start(struct virtio_attack_ctx *c, struct virtio_harness *vh,
                                unsigned queue, uint64_t features)
{
    virtio_harness_start(vh, features, VIRTIO_ATTACK_QUEUE);
    *c = (struct virtio_attack_ctx){ .vh = vh, .q = vh->queue[queue] };
    c->buf = virtio_harness_alloc(vh, VIRTIO_ATTACK_BUF, 4096);
    virtio_attack_poll(c);
}

static const char *virtio_attack_verdict(const struct virtio_attack *a,
                                         const struct virtio_attack_target *t,
                                         struct virtio_attack_ctx *c, const uint8_t *canary)
{
    bool broken = (virtio_harness_status(c->vh) & VIRTIO_STATUS_NEEDS_RESET) != 0;
    if (a->end == VIRTIO_ATTACK_BREAKS && !broken && !t->idle) {
        return "the device does not need a reset";
    }
    if (a->end == VIRTIO_ATTACK_SHRUGS && broken) {
        return "the device needs a reset";
    }
    if (c->step == UINT32_MAX) {
        return "it took too long";
    }
    for (unsigned i = 0; i < VIRTIO_ATTACK_CANARY; i++) {
        if (canary[i] != VIRTIO_ATTACK_BYTE) {
            return "memory that was never given to the device has changed";
        }
    }
    return NULL;
}

/* Waits until a reset is over, as drivers do. */
static bool virtio_attack_reset(struct virtio_harness *vh)
{
    dev_reset(vh->dev); /* also the PCI function: an attack may have moved its BARs */
    virtio_harness_find(vh);
    for (unsigned i = 0; i < 200 && virtio_harness_status(vh) != 0; i++) {
        if (loop_run_once(vh->h.env.loop, 10) < 0) {
            abort();
        }
    }
    return virtio_harness_status(vh) == 0;
}

static bool virtio_attack_recovers(const struct virtio_attack_target *t, struct virtio_harness *vh,
                                   uint64_t features)
{
    if (!virtio_attack_reset(vh)) {
        return false;
    }
    virtio_harness_start(vh, features, VIRTIO_ATTACK_QUEUE);
    uint8_t status = virtio_harness_status(vh);
    if ((status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) !=
        VIRTIO_STATUS_DRIVER_OK) {
        return false;
    }
    return t->works == NULL || t->works(vh, t->opaque);
}

static bool virtio_attack_one(const struct virtio_attack *a, const struct virtio_attack_target *t,
                              unsigned ring)
{
    struct virtio_harness vh;
    struct virtio_attack_ctx c;
    uint64_t features = virtio_attack_features(ring);
    const void *params = t->open != NULL ? t->open(t->opaque) : t->params;
    virtio_harness_init(&vh, VIRTIO_ATTACK_RAM);
    (void)virtio_harness_add(&vh, t->cls, params);
    uint8_t *canary = vh.h.ram + VIRTIO_ATTACK_RAM - VIRTIO_ATTACK_CANARY;
    memset(canary, VIRTIO_ATTACK_BYTE, VIRTIO_ATTACK_CANARY);
    virtio_attack_start(&c, &vh, t->queue, features);
    a->run(&c);
    virtio_attack_poll(&c);
    const char *wrong = virtio_attack_verdict(a, t, &c, canary);
    if (wrong == NULL && !virtio_attack_recovers(t, &vh, features)) {
        wrong = "it does not work after a reset";
    }
    if (wrong != NULL) {
        fprintf(stderr, "virtio_attack: %s, %s, %s ring: %s\n", t->cls->name, a->name,
                ring == VIRTIO_ATTACK_PACKED ? "packed" : "split", wrong);
    }
    virtio_harness_done(&vh);
    if (t->close != NULL) {
        t->close(t->opaque);
    }
    return wrong == NULL;
}

unsigned virtio_attack_all(const struct virtio_attack_target *target)
{
    unsigned failed = 0;
    enum log_level level = log_get_level();
    log_set_level(LOG_ERROR); /* hundreds of guest errors are what this is about */
    for (unsigned i = 0; i < virtio_attack_count; i++) {
        for (unsigned ring = VIRTIO_ATTACK_SPLIT; ring <= VIRTIO_ATTACK_PACKED; ring <<= 1) {
            if ((virtio_attacks[i].rings & ring) != 0) {
                failed += virtio_attack_one(&virtio_attacks[i], target, ring) ? 0 : 1;
            }
        }
    }
    log_set_level(level);
    return failed;
}
