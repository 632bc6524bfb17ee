/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The 8254 timer at ports 40h-43h, with the speaker port 61h (Intel 8254 data sheet 231164-005).
 *
 * Counters are computed from the clock when they are read; only channel 0 has a timer, which
 * pulses GSI 0. With reinjection on (the default, KVM_REINJECT_CONTROL) ticks that the guest could
 * not take in time are kept and sent as it acknowledges the ones before.
 */
#include <errno.h>
#include <stdlib.h>

#include "softkvm/irqchip/irqchip_int.h"

#define PIT_HZ UINT64_C(1193182)
#define NSEC   UINT64_C(1000000000)

/* The mode of a counter that was never programmed, as KVM reports it: no output changes. */
#define MODE_NONE 0xff

enum { RW_LSB = 1, RW_MSB, RW_WORD0, RW_WORD1 };

static uint64_t ticks_to_ns(uint64_t ticks)
{
    return ticks * NSEC / PIT_HZ;
}

/* Input clocks since the channel was loaded. */
static uint64_t pit_elapsed(const struct sk_pit_channel *ch, uint64_t now)
{
    uint64_t ns = now > ch->load_ns ? now - ch->load_ns : 0;
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NSEC);
}

static bool pit_periodic(const struct sk_pit_channel *ch)
{
    return ch->mode == 2 || ch->mode == 3;
}

static uint16_t pit_to_bcd(uint32_t v)
{
    v %= 10000;
    return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12);
}

static uint32_t pit_from_bcd(uint32_t v)
{
    return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

static uint16_t pit_count(const struct sk_pit_channel *ch, uint64_t now)
{
    uint64_t d = pit_elapsed(ch, now);
    uint32_t v;
    switch (ch->mode) {
    case 0:
    case 1:
    case 4:
    case 5:
        v = (uint32_t)(ch->count - d) & 0xffff; /* goes on below zero */
        break;
    case 3:
        v = ch->count - (uint32_t)((2 * d) % ch->count); /* counts by two */
        break;
    default:
        v = ch->count - (uint32_t)(d % ch->count);
        break;
    }
    return ch->bcd ? pit_to_bcd(v) : (uint16_t)v;
}

static bool pit_output(const struct sk_pit_channel *ch, uint64_t now)
{
    uint64_t d = pit_elapsed(ch, now);
    switch (ch->mode) {
    case 0:
    case 1:
        return d >= ch->count;
    case 3:
        return d % ch->count < (ch->count + 1) / 2;
    case 4:
    case 5:
        return d != ch->count;
    default:
        return d % ch->count != 0 || d == 0;
    }
}

/* --- channel 0's interrupt --- */

static void pit_pulse(struct sk_pit *pit)
{
    pit->acked = false;
    (void)sk_gsi_set_irq(pit->chip, 0, SK_SOURCE_PIT, true);
    (void)sk_gsi_set_irq(pit->chip, 0, SK_SOURCE_PIT, false);
}

static void pit_arm(struct sk_pit *pit, uint64_t now)
{
    const struct sk_pit_channel *ch = &pit->ch[0];
    pit->next_ns = UINT64_MAX;
    /* Old ticks are void, and so is the wait for the end of the last one: the guest may have reset
     * the PIC in the meantime. */
    pit->pending = 0;
    pit->acked = true;
    if (pit_periodic(ch) || ch->mode == 0 || ch->mode == 4) {
        pit->next_ns = now + ticks_to_ns(ch->count);
    }
    sk_irqchip_timer_set(pit->chip, &pit->timer, pit->next_ns);
}

static void pit_tick(struct sk_timer *t, uint64_t now)
{
    struct sk_pit *pit = container_of(t, struct sk_pit, timer);
    pthread_mutex_lock(&pit->chip->lock);
    if (pit->next_ns > now) { /* re-armed meanwhile */
        pthread_mutex_unlock(&pit->chip->lock);
        return;
    }
    const struct sk_pit_channel *ch = &pit->ch[0];
    uint64_t ticks = 1;
    if (pit_periodic(ch)) {
        /* From the load time, so that rounding never adds up to a drift. */
        uint64_t n = pit_elapsed(ch, now) / ch->count;
        uint64_t before = pit_elapsed(ch, pit->next_ns) / ch->count;
        ticks = n >= before ? n - before + 1 : 1;
        pit->next_ns = ch->load_ns + ticks_to_ns((MAX(n, before) + 1) * ch->count);
        sk_irqchip_timer_set(pit->chip, &pit->timer, pit->next_ns);
    } else {
        pit->next_ns = UINT64_MAX;
    }
    if (pit->reinject) {
        pit->pending += (uint32_t)MIN(ticks, UINT64_C(1000));
        if (pit->acked) {
            pit->pending--;
            pit_pulse(pit);
        }
    } else {
        pit_pulse(pit);
    }
    pthread_mutex_unlock(&pit->chip->lock);
}

/* The guest ended a tick: send the next one that waits. Runs with the chip's lock. */
static void pit_acked(struct sk_ack_notifier *n)
{
    struct sk_pit *pit = container_of(n, struct sk_pit, notifier);
    pit->acked = true;
    if (pit->reinject && pit->pending > 0) {
        pit->pending--;
        pit_pulse(pit);
    }
}

/* --- registers --- */

static void pit_load(struct sk_pit *pit, unsigned n, uint32_t value)
{
    struct sk_pit_channel *ch = &pit->ch[n];
    uint64_t now = sk_irqchip_now_ns();
    if (ch->bcd) {
        value = pit_from_bcd(value);
        ch->count = value == 0 ? 10000 : value;
    } else {
        ch->count = value == 0 ? 0x10000 : value;
    }
    ch->load_ns = now;
    if (n == 0) {
        pit_arm(pit, now);
    }
}

static void pit_latch_count(struct sk_pit_channel *ch)
{
    if (ch->count_latched == 0) {
        ch->latched_count = pit_count(ch, sk_irqchip_now_ns());
        ch->count_latched = ch->rw_mode;
    }
}

static void pit_latch_status(struct sk_pit_channel *ch)
{
    if (!ch->status_latched) {
        unsigned out = pit_output(ch, sk_irqchip_now_ns()) ? 0x80 : 0;
        ch->status = (uint8_t)(out | (unsigned)MIN(ch->rw_mode, (uint8_t)3) << 4 |
                               (unsigned)ch->mode << 1 | ch->bcd);
        ch->status_latched = true;
    }
}

static void pit_control(struct sk_pit *pit, uint8_t v)
{
    unsigned n = v >> 6;
    if (n == 3) { /* read-back command */
        for (unsigned i = 0; i < 3; i++) {
            if ((v & (2u << i)) != 0) {
                if ((v & 0x20) == 0) {
                    pit_latch_count(&pit->ch[i]);
                }
                if ((v & 0x10) == 0) {
                    pit_latch_status(&pit->ch[i]);
                }
            }
        }
        return;
    }
    struct sk_pit_channel *ch = &pit->ch[n];
    uint8_t access = (v >> 4) & 3;
    if (access == 0) {
        pit_latch_count(ch);
        return;
    }
    ch->rw_mode = access;
    ch->read_state = access;
    ch->write_state = access;
    ch->mode = (v >> 1) & 7;
    if (ch->mode > 5) {
        ch->mode -= 4; /* 6 and 7 are 2 and 3 */
    }
    ch->bcd = (v & 1) != 0;
    ch->count_latched = 0;
    ch->status_latched = false;
    if (n == 0) {
        /* A control word stops the counter until a count is written. */
        pit->next_ns = UINT64_MAX;
        sk_irqchip_timer_set(pit->chip, &pit->timer, UINT64_MAX);
    }
}

static void pit_write(struct sk_pit *pit, unsigned n, uint8_t v)
{
    struct sk_pit_channel *ch = &pit->ch[n];
    switch (ch->write_state) {
    case RW_MSB:
        pit_load(pit, n, (uint32_t)v << 8);
        break;
    case RW_WORD0:
        ch->write_latch = v;
        ch->write_state = RW_WORD1;
        break;
    case RW_WORD1:
        ch->write_state = RW_WORD0;
        pit_load(pit, n, ch->write_latch | (uint32_t)v << 8);
        break;
    default:
        pit_load(pit, n, v);
        break;
    }
}

static uint8_t pit_read(struct sk_pit_channel *ch)
{
    if (ch->status_latched) {
        ch->status_latched = false;
        return ch->status;
    }
    if (ch->count_latched != 0) {
        switch (ch->count_latched) {
        case RW_MSB:
            ch->count_latched = 0;
            return (uint8_t)(ch->latched_count >> 8);
        case RW_WORD0:
            ch->count_latched = RW_MSB;
            return (uint8_t)ch->latched_count;
        default:
            ch->count_latched = 0;
            return (uint8_t)ch->latched_count;
        }
    }
    uint16_t count = pit_count(ch, sk_irqchip_now_ns());
    switch (ch->read_state) {
    case RW_MSB:
        return (uint8_t)(count >> 8);
    case RW_WORD0:
        ch->read_state = RW_WORD1;
        return (uint8_t)count;
    case RW_WORD1:
        ch->read_state = RW_WORD0;
        return (uint8_t)(count >> 8);
    default:
        return (uint8_t)count;
    }
}

/* Port 61h: gate of channel 2, speaker, its output, and the refresh toggle that old code polls. */
static uint8_t pit_port61(const struct sk_pit *pit)
{
    uint64_t now = sk_irqchip_now_ns();
    unsigned refresh = (now / 15085) & 1; /* 66.3 kHz */
    return (uint8_t)((pit->ch[2].gate ? 1u : 0u) | (pit->speaker_on ? 2u : 0u) | refresh << 4 |
                     (pit_output(&pit->ch[2], now) ? 0x20u : 0u));
}

static void pit_port61_write(struct sk_pit *pit, uint8_t v)
{
    struct sk_pit_channel *ch = &pit->ch[2];
    bool gate = (v & 1) != 0;
    pit->speaker_on = (v & 2) != 0;
    if (gate && !ch->gate) {
        ch->load_ns = sk_irqchip_now_ns(); /* a rising gate restarts modes 1, 2, 3, 5 */
    }
    ch->gate = gate;
}

bool sk_pit_pio(struct sk_pit *pit, uint16_t port, uint8_t *data, bool write)
{
    if (port == 0x61) {
        if (!pit->speaker_dummy) {
            return false;
        }
        if (write) {
            pit_port61_write(pit, *data);
        } else {
            *data = pit_port61(pit);
        }
        return true;
    }
    if (port < 0x40 || port > 0x43) {
        return false;
    }
    if (port == 0x43) {
        if (write) {
            pit_control(pit, *data);
        } else {
            *data = 0;
        }
    } else if (write) {
        pit_write(pit, port & 3, *data);
    } else {
        *data = pit_read(&pit->ch[port & 3]);
    }
    return true;
}

int sk_pit_create(struct sk_irqchip *chip, uint32_t flags)
{
    if (chip == NULL || chip->split) {
        return -ENOENT;
    }
    struct sk_pit *pit = calloc(1, sizeof(*pit));
    if (pit == NULL) {
        return -ENOMEM;
    }
    pit->chip = chip;
    pit->speaker_dummy = (flags & KVM_PIT_SPEAKER_DUMMY) != 0;
    pit->reinject = true;
    pit->acked = true;
    pit->next_ns = UINT64_MAX;
    pit->timer = (struct sk_timer){ .deadline_ns = UINT64_MAX, .fn = pit_tick };
    pit->notifier = (struct sk_ack_notifier){ .gsi = 0, .fn = pit_acked };
    uint64_t now = sk_irqchip_now_ns();
    for (unsigned i = 0; i < 3; i++) {
        pit->ch[i] = (struct sk_pit_channel){
            .count = 0x10000,
            .mode = MODE_NONE,
            .gate = i != 2,
            .load_ns = now,
            .rw_mode = RW_WORD0,
            .read_state = RW_WORD0,
            .write_state = RW_WORD0,
        };
    }
    pthread_mutex_lock(&chip->lock);
    bool exists = chip->pit != NULL;
    if (!exists) {
        chip->pit = pit;
        TAILQ_INSERT_TAIL(&chip->notifiers, &pit->notifier, link);
        pit_arm(pit, now);
    }
    pthread_mutex_unlock(&chip->lock);
    if (exists) {
        free(pit);
        return -EEXIST;
    }
    return 0;
}

void sk_pit_free(struct sk_pit *pit)
{
    if (pit != NULL) {
        sk_irqchip_timer_off(pit->chip, &pit->timer);
        free(pit);
    }
}

int sk_pit_get_state(struct sk_irqchip *chip, struct kvm_pit_state2 *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (chip == NULL || chip->pit == NULL) {
        return -ENXIO;
    }
    pthread_mutex_lock(&chip->lock);
    for (unsigned i = 0; i < 3; i++) {
        const struct sk_pit_channel *ch = &chip->pit->ch[i];
        ret->channels[i] = (struct kvm_pit_channel_state){
            .count = ch->count,
            .latched_count = ch->latched_count,
            .count_latched = ch->count_latched,
            .status_latched = ch->status_latched,
            .status = ch->status,
            .read_state = ch->read_state,
            .write_state = ch->write_state,
            .write_latch = ch->write_latch,
            .rw_mode = ch->rw_mode,
            .mode = ch->mode,
            .bcd = ch->bcd,
            .gate = ch->gate,
            .count_load_time = (int64_t)ch->load_ns,
        };
    }
    ret->flags = chip->pit->flags & ~(uint32_t)KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    ret->flags |= chip->pit->speaker_on ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0;
    pthread_mutex_unlock(&chip->lock);
    return 0;
}

int sk_pit_set_state(struct sk_irqchip *chip, const struct kvm_pit_state2 *s)
{
    if (chip == NULL || chip->pit == NULL) {
        return -ENXIO;
    }
    for (unsigned i = 0; i < 3; i++) {
        if ((s->channels[i].mode > 5 && s->channels[i].mode != MODE_NONE) ||
            s->channels[i].rw_mode > RW_WORD1 || s->channels[i].count > 0x10000) {
            return -EINVAL;
        }
    }
    pthread_mutex_lock(&chip->lock);
    struct sk_pit *pit = chip->pit;
    uint64_t now = sk_irqchip_now_ns();
    for (unsigned i = 0; i < 3; i++) {
        const struct kvm_pit_channel_state *from = &s->channels[i];
        pit->ch[i] = (struct sk_pit_channel){
            .count = from->count == 0 ? 0x10000 : from->count,
            .latched_count = from->latched_count,
            .count_latched = from->count_latched,
            .status_latched = from->status_latched != 0,
            .status = from->status,
            .read_state = from->read_state,
            .write_state = from->write_state,
            .write_latch = from->write_latch,
            .rw_mode = from->rw_mode,
            .mode = from->mode,
            .bcd = from->bcd != 0,
            .gate = from->gate != 0,
            .load_ns = now,
        };
    }
    pit->flags = s->flags;
    pit->speaker_on = (s->flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0;
    if ((s->flags & KVM_PIT_FLAGS_HPET_LEGACY) != 0) {
        pit->next_ns = UINT64_MAX; /* the HPET owns GSI 0 now */
        sk_irqchip_timer_set(chip, &pit->timer, UINT64_MAX);
    } else {
        pit_arm(pit, now);
    }
    pthread_mutex_unlock(&chip->lock);
    return 0;
}

int sk_pit_set_reinject(struct sk_irqchip *chip, bool on)
{
    if (chip == NULL || chip->pit == NULL) {
        return -ENXIO;
    }
    pthread_mutex_lock(&chip->lock);
    chip->pit->reinject = on;
    chip->pit->pending = 0;
    pthread_mutex_unlock(&chip->lock);
    return 0;
}
