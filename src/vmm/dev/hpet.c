/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HPET.
 *
 *     0x000 capabilities (u64)      0x100 + 0x20 n  timer n: configuration and capabilities (u64)
 *     0x010 configuration           0x108 + 0x20 n  timer n: comparator
 *     0x020 interrupt status
 *     0x0f0 main counter
 *
 * The counter is guest time in units of 10 ns, plus an offset. A timer is due when the counter has
 * passed its comparator since the last look; looks happen at each access and by the loop's timer.
 *
 * Left out on purpose: legacy replacement (the engine's timer keeps IRQ 0) and message interrupts.
 * Timers can be routed to GSI 10 and 11, which nothing else drives.
 */
#include "vmm/dev/hpet.h"

#include "vmm/acpi/aml.h"
#include "vmm/layout.h"

#define R_CAP     0x000
#define R_CONFIG  0x010
#define R_STATUS  0x020
#define R_COUNTER 0x0f0
#define R_TIMER   0x100
#define TIMER_LEN 0x20
#define T_CONFIG  0x00
#define T_COMPARE 0x08

#define TICK_NS   UINT64_C(10)
#define PERIOD_FS UINT64_C(10000000)
#define ENABLE    UINT64_C(1)

/* Timer configuration, §2.3.8 */
#define TN_LEVEL       BIT64(1)
#define TN_INT         BIT64(2)
#define TN_PERIODIC    BIT64(3)
#define TN_CAPS        (BIT64(4) | BIT64(5)) /* periodic, 64 bits */
#define TN_VAL_SET     BIT64(6)
#define TN_32BIT       BIT64(8)
#define TN_ROUTE_SHIFT 9
#define TN_ROUTE       (UINT64_C(0x1f) << TN_ROUTE_SHIFT)
#define TN_WRITABLE    (TN_LEVEL | TN_INT | TN_PERIODIC | TN_VAL_SET | TN_32BIT | TN_ROUTE)
#define ROUTES         (BIT64(10) | BIT64(11))

/* A guest that programs a shorter period gets its interrupts late, not us out of breath. */
#define MIN_WAIT_NS 50000

struct hpet_timer {
    uint64_t config; /* writable bits */
    uint64_t compare;
    uint64_t period;
    bool armed; /* the comparator lies ahead of the counter */
};

struct hpet {
    struct dev *dev;
    struct bus_region region;
    uint64_t config;
    uint64_t status;
    uint64_t offset; /* counter = offset + guest time in ticks, while enabled; else the counter */
    uint64_t looked; /* the counter at the last look */
    struct hpet_timer timer[HPET_TIMERS];
    struct loop_timer wake;
    bool stopped;
};

static uint64_t hpet_ticks(const struct hpet *s)
{
    return s->dev->env->ops->now_ns(s->dev->env) / TICK_NS;
}

static bool hpet_on(const struct hpet *s)
{
    return (s->config & ENABLE) != 0;
}

static uint64_t hpet_counter(const struct hpet *s)
{
    return s->offset + (hpet_on(s) ? hpet_ticks(s) : 0);
}

static uint64_t timer_mask(const struct hpet_timer *t)
{
    return (t->config & TN_32BIT) != 0 ? UINT32_MAX : UINT64_MAX;
}

/* Ticks from `from` to the comparator; 0 becomes a full round. */
static uint64_t timer_distance(const struct hpet_timer *t, uint64_t from)
{
    uint64_t mask = timer_mask(t);
    uint64_t d = (t->compare - from) & mask;
    return d != 0 ? d : mask;
}

static void timer_line(struct hpet *s, unsigned n, int level)
{
    unsigned gsi = (unsigned)((s->timer[n].config & TN_ROUTE) >> TN_ROUTE_SHIFT);
    if ((ROUTES & BIT64(gsi)) != 0) {
        dev_irq(s->dev, gsi, level);
    }
}

static void timer_fire(struct hpet *s, unsigned n)
{
    struct hpet_timer *t = &s->timer[n];
    if ((t->config & TN_LEVEL) != 0) {
        s->status |= BIT64(n); /* §2.3.6: also while its interrupt is off */
        timer_line(s, n, (t->config & TN_INT) != 0);
    } else if ((t->config & TN_INT) != 0) {
        timer_line(s, n, 1);
        timer_line(s, n, 0);
    }
}

/* Fires what became due since the last look. A periodic timer that was due several times fires
 * once, and its comparator moves beyond the counter. */
static void hpet_look(struct hpet *s)
{
    uint64_t now = hpet_counter(s);
    uint64_t passed = now - s->looked;
    for (unsigned n = 0; n < HPET_TIMERS && passed != 0; n++) {
        struct hpet_timer *t = &s->timer[n];
        uint64_t distance = timer_distance(t, s->looked);
        if (!t->armed || passed < distance) {
            continue;
        }
        if ((t->config & TN_PERIODIC) != 0 && t->period != 0) {
            uint64_t late = passed - distance;
            t->compare = (t->compare + (late / t->period + 1) * t->period) & timer_mask(t);
        } else {
            /* A 64-bit comparator meets the counter once; a 32-bit one again each round. */
            t->armed = (t->config & TN_32BIT) != 0;
        }
        timer_fire(s, n);
    }
    s->looked = now;
}

static void hpet_arm(struct hpet *s)
{
    uint64_t next = UINT64_MAX;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        const struct hpet_timer *t = &s->timer[n];
        if (hpet_on(s) && t->armed && (t->config & TN_INT) != 0) {
            uint64_t distance = timer_distance(t, s->looked);
            next = MIN(next, distance);
        }
    }
    if (next == UINT64_MAX || s->stopped) {
        loop_timer_cancel(&s->wake);
        return;
    }
    /* Further away than a day: look again then. */
    uint64_t wait_ns = MIN(next, UINT64_C(86400) * 1000000000 / TICK_NS) * TICK_NS;
    loop_timer_set(&s->wake, loop_now_ns() + MAX(wait_ns, (uint64_t)MIN_WAIT_NS));
}

static void hpet_on_wake(void *opaque)
{
    struct hpet *s = opaque;
    dev_lock(s->dev);
    if (!s->stopped) {
        hpet_look(s);
        hpet_arm(s);
    }
    dev_unlock(s->dev);
}

/* The 64-bit register that holds `offset`. */
static uint64_t hpet_reg(const struct hpet *s, uint64_t offset)
{
    uint64_t reg = offset & ~UINT64_C(7);
    switch (reg) {
    case R_CAP:
        return PERIOD_FS << 32 | HPET_ID;
    case R_CONFIG:
        return s->config;
    case R_STATUS:
        return s->status;
    case R_COUNTER:
        return hpet_counter(s);
    default:
        break;
    }
    if (reg < R_TIMER || reg >= R_TIMER + HPET_TIMERS * TIMER_LEN) {
        return 0;
    }
    const struct hpet_timer *t = &s->timer[(reg - R_TIMER) / TIMER_LEN];
    switch (reg % TIMER_LEN) {
    case T_CONFIG:
        return t->config | TN_CAPS | ROUTES << 32;
    case T_COMPARE:
        return t->compare;
    default:
        return 0; /* message interrupts: not there */
    }
}

static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size)
{
    struct hpet *s = opaque;
    if (offset % size != 0) {
        return 0; /* §2.3.2: accesses are aligned */
    }
    hpet_look(s);
    return hpet_reg(s, offset) >> (8 * (offset % 8)) & bits_mask_bytes(size);
}

static void write_config(struct hpet *s, uint64_t value)
{
    uint64_t counter = hpet_counter(s);
    s->config = value & ENABLE;
    s->offset = counter - (hpet_on(s) ? hpet_ticks(s) : 0);
}

static void write_status(struct hpet *s, uint64_t value)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        if ((s->status & value & BIT64(n)) != 0) {
            s->status &= ~BIT64(n);
            timer_line(s, n, 0);
        }
    }
}

static void write_counter(struct hpet *s, uint64_t value)
{
    s->offset = value - (hpet_on(s) ? hpet_ticks(s) : 0);
    s->looked = value;
}

static void write_timer_config(struct hpet *s, unsigned n, uint64_t value)
{
    struct hpet_timer *t = &s->timer[n];
    if ((s->status & BIT64(n)) != 0) {
        timer_line(s, n, 0); /* the route may change */
    }
    t->config = value & TN_WRITABLE;
    t->compare &= timer_mask(t);
    if ((t->config & TN_LEVEL) == 0) {
        s->status &= ~BIT64(n);
    } else if ((s->status & BIT64(n)) != 0 && (t->config & TN_INT) != 0) {
        timer_line(s, n, 1);
    }
}

/* §2.3.9.2.2: in periodic mode a write sets the period, and the comparator too if VAL_SET was set
 * before, which it clears. */
static void write_comparator(struct hpet *s, unsigned n, uint64_t value)
{
    struct hpet_timer *t = &s->timer[n];
    value &= timer_mask(t);
    if ((t->config & TN_PERIODIC) != 0) {
        t->period = value;
    }
    if ((t->config & TN_PERIODIC) == 0 || (t->config & TN_VAL_SET) != 0) {
        t->compare = value;
    }
    t->config &= ~TN_VAL_SET;
    t->armed = true;
}

static void hpet_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct hpet *s = opaque;
    if (offset % size != 0) {
        return;
    }
    hpet_look(s);
    uint64_t reg = offset & ~UINT64_C(7);
    if (size == 4) { /* the other half stays, but what a written 1 clears does not read as 1 */
        uint64_t old = reg == R_STATUS ? 0 : hpet_reg(s, offset);
        unsigned shift = 8 * (unsigned)(offset % 8);
        value = (old & ~(UINT64_C(0xffffffff) << shift)) | value << shift;
    }
    if (reg == R_CONFIG) {
        write_config(s, value);
    } else if (reg == R_STATUS) {
        write_status(s, value);
    } else if (reg == R_COUNTER) {
        write_counter(s, value);
    } else if (reg >= R_TIMER && reg < R_TIMER + HPET_TIMERS * TIMER_LEN) {
        unsigned n = (unsigned)(reg - R_TIMER) / TIMER_LEN;
        if (reg % TIMER_LEN == T_CONFIG) {
            write_timer_config(s, n, value);
        } else if (reg % TIMER_LEN == T_COMPARE) {
            write_comparator(s, n, value);
        }
    }
    hpet_arm(s);
}

static const struct bus_ops hpet_ops = {
    .read = hpet_read,
    .write = hpet_write,
    .min_size = 4,
    .max_size = 8,
};

static void hpet_reset(struct dev *dev)
{
    struct hpet *s = dev->state;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        if ((s->status & BIT64(n)) != 0) {
            timer_line(s, n, 0);
        }
        s->timer[n] = (struct hpet_timer){ .compare = UINT64_MAX };
    }
    s->config = s->status = s->offset = s->looked = 0;
    hpet_arm(s);
}

static int hpet_init(struct dev *dev, const void *params, struct err *err)
{
    struct hpet *s = dev->state;
    (void)params;
    s->dev = dev;
    loop_timer_init(&s->wake, dev->env->loop, hpet_on_wake, s);
    s->region = (struct bus_region){
        .name = "hpet", .size = LAYOUT_HPET_SIZE, .ops = &hpet_ops, .opaque = s, .owner = dev
    };
    hpet_reset(dev);
    return bus_map(dev->env->mmio, &s->region, LAYOUT_HPET_BASE, err);
}

static void hpet_done(struct dev *dev)
{
    struct hpet *s = dev->state;
    bus_unmap(&s->region);
    loop_timer_cancel(&s->wake);
}

static void hpet_stop(struct dev *dev)
{
    struct hpet *s = dev->state;
    s->stopped = true;
    hpet_arm(s);
}

static void hpet_start(struct dev *dev)
{
    struct hpet *s = dev->state;
    s->stopped = false;
    hpet_look(s);
    hpet_arm(s);
}

static int hpet_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    (void)dev, (void)err;
    aml_scope(a, "\\_SB"), aml_device(a, "HPET");
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0103");
    aml_name(a, "_UID"), aml_int(a, 0);
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_mem32(a, (uint32_t)LAYOUT_HPET_BASE, (uint32_t)LAYOUT_HPET_SIZE);
    aml_res_end(a);
    aml_end(a), aml_end(a);
    return 0;
}

const struct dev_class hpet_class = {
    .name = "hpet",
    .help = "high precision event timer",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct hpet),
    .init = hpet_init,
    .done = hpet_done,
    .reset = hpet_reset,
    .stop = hpet_stop,
    .start = hpet_start,
    .acpi = hpet_acpi,
};
