/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RTC. The clock is not stepped: the time registers are worked out from the host's wall clock when
 * they are read, plus an offset that the guest's writes make.
 *
 *     running   registers <- wall clock + offset         (index 0 to 9 and 0x32)
 *     held      registers are bytes in cmos[]            register B SET, or divider in reset
 *     held -> running   offset <- registers - wall clock
 *
 * Flags of register C are brought up to date on each access (rtc_update), and by a timer while one
 * of their interrupts is enabled. Periodic ticks run on guest time, the rest on wall time.
 */
#include "vmm/dev/rtc.h"

#include <errno.h>
#include <time.h>

#include "vmm/acpi/aml.h"
#include "vmm/layout.h"

#define CMOS_SIZE 128
#define SEC_NS    UINT64_C(1000000000)
#define DAY_S     86400

enum {
    R_SEC = 0,
    R_SEC_ALARM = 1,
    R_MIN = 2,
    R_MIN_ALARM = 3,
    R_HOUR = 4,
    R_HOUR_ALARM = 5,
    R_WEEKDAY = 6, /* 1 = Sunday */
    R_DAY = 7,
    R_MONTH = 8,
    R_YEAR = 9,
    R_A = 10,
    R_B = 11,
    R_C = 12,
    R_D = 13,
    R_EQUIPMENT = 0x14,
    R_BASE_MEM = 0x15, /* KiB, u16 */
    R_EXT_MEM = 0x17,  /* KiB above 1 MiB, u16 */
    R_CHECKSUM = 0x2e, /* big-endian sum of 0x10 to 0x2d */
    R_EXT_MEM2 = 0x30,
    R_CENTURY = 0x32,
    R_MEM_16M = 0x34,  /* 64 KiB above 16 MiB, u16 */
    R_HIGH_MEM = 0x5b, /* 64 KiB above 4 GiB, u24 */
    R_CPUS = 0x5f,     /* CPUs - 1, for firmware */
};

#define A_UIP     0x80
#define A_DIV     0x70
#define A_RATE    0x0f
#define A_INIT    0x26 /* 32768 Hz, 1024 Hz */
#define B_SET     0x80
#define B_PIE     0x40
#define B_AIE     0x20
#define B_UIE     0x10
#define B_SQWE    0x08
#define B_BINARY  0x04
#define B_24H     0x02
#define C_IRQF    0x80
#define C_PF      0x40
#define C_AF      0x20
#define C_UF      0x10
#define D_VRT     0x80
#define HOUR_PM   0x80
#define DONT_CARE 0xc0 /* both top bits set: the alarm field matches always */

#define EQUIPMENT 0x06   /* coprocessor, PS/2 pointing device */
#define UIP_NS    244000 /* the flag is up this long before the registers change */
#define XTAL_HZ   32768
#define HALF_S    (SEC_NS / 2)

struct rtc {
    struct dev *dev;
    struct bus_region region;
    uint8_t cmos[CMOS_SIZE];
    uint8_t index;
    uint8_t flags;     /* register C without IRQF */
    int64_t offset_s;  /* clock = wall clock + phase, in whole seconds, + offset */
    uint64_t phase_ns; /* 0 to SEC_NS - 1 */
    int64_t last_s;    /* clock when the flags were last brought up to date */
    uint64_t last_tick;
    int level;
    bool stopped;
    struct loop_timer timer;
};

static bool rtc_held(const struct rtc *s)
{
    /* Divider values 110 and 111 hold the chain in reset. */
    return (s->cmos[R_B] & B_SET) != 0 || (s->cmos[R_A] & 0x60) == 0x60;
}

/* The clock: seconds since 1970 and the part of the second. */
static int64_t rtc_now(const struct rtc *s, uint64_t *ret_ns)
{
    uint64_t ns = s->dev->env->ops->wall_ns(s->dev->env) + s->phase_ns;
    *ret_ns = ns % SEC_NS;
    return (int64_t)(ns / SEC_NS) + s->offset_s;
}

static uint8_t encode(const struct rtc *s, int value)
{
    if ((s->cmos[R_B] & B_BINARY) != 0) {
        return (uint8_t)value;
    }
    return (uint8_t)(value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *s, uint8_t value)
{
    return (s->cmos[R_B] & B_BINARY) != 0 ? value : (value >> 4) * 10 + (value & 0x0f);
}

static uint8_t encode_hour(const struct rtc *s, int hour)
{
    if ((s->cmos[R_B] & B_24H) != 0) {
        return encode(s, hour);
    }
    return (uint8_t)(encode(s, hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? HOUR_PM : 0));
}

static int decode_hour(const struct rtc *s, uint8_t value)
{
    if ((s->cmos[R_B] & B_24H) != 0) {
        return decode(s, value);
    }
    return decode(s, value & 0x7f) % 12 + ((value & HOUR_PM) != 0 ? 12 : 0);
}

/* Writes the clock into the time registers. */
static void rtc_latch(struct rtc *s)
{
    uint64_t ns;
    time_t t = (time_t)rtc_now(s, &ns);
    struct tm tm = { 0 };
    (void)gmtime_r(&t, &tm); /* fails only for years beyond 2^31: the guest then reads 1900 */
    int year = tm.tm_year + 1900;
    s->cmos[R_SEC] = encode(s, tm.tm_sec);
    s->cmos[R_MIN] = encode(s, tm.tm_min);
    s->cmos[R_HOUR] = encode_hour(s, tm.tm_hour);
    s->cmos[R_WEEKDAY] = encode(s, tm.tm_wday + 1);
    s->cmos[R_DAY] = encode(s, tm.tm_mday);
    s->cmos[R_MONTH] = encode(s, tm.tm_mon + 1);
    s->cmos[R_YEAR] = encode(s, (year % 100 + 100) % 100);
    s->cmos[R_CENTURY] = encode(s, year / 100 % 100);
}

/* Makes the clock go on from the time registers; out-of-range fields carry over as in mktime().
 * `into_ns`: how much of the second is over; UINT64_MAX keeps the phase. */
static void rtc_set_clock(struct rtc *s, uint64_t into_ns)
{
    struct tm tm = {
        .tm_sec = decode(s, s->cmos[R_SEC]),
        .tm_min = decode(s, s->cmos[R_MIN]),
        .tm_hour = decode_hour(s, s->cmos[R_HOUR]),
        .tm_mday = decode(s, s->cmos[R_DAY]),
        .tm_mon = decode(s, s->cmos[R_MONTH]) - 1,
        .tm_year = decode(s, s->cmos[R_CENTURY]) * 100 + decode(s, s->cmos[R_YEAR]) - 1900,
    };
    uint64_t wall = s->dev->env->ops->wall_ns(s->dev->env);
    if (into_ns != UINT64_MAX) {
        s->phase_ns = (into_ns + SEC_NS - wall % SEC_NS) % SEC_NS;
    }
    s->offset_s = (int64_t)timegm(&tm) - (int64_t)((wall + s->phase_ns) / SEC_NS);
    uint64_t ns;
    s->last_s = rtc_now(s, &ns);
}

static bool alarm_field(const struct rtc *s, unsigned reg, int value)
{
    uint8_t raw = s->cmos[reg];
    if ((raw & DONT_CARE) == DONT_CARE) {
        return true;
    }
    return (reg == R_HOUR_ALARM ? decode_hour(s, raw) : decode(s, raw)) == value;
}

/* The first second after `after` (seconds of the clock) at which the alarm goes off, or
 * INT64_MAX. At most 2 x (24 + 60 + 60) comparisons. */
static int64_t rtc_next_alarm(const struct rtc *s, int64_t after)
{
    int64_t first = after + 1;
    int64_t in_day = ((first % DAY_S) + DAY_S) % DAY_S;
    int64_t day = first - in_day;
    for (int h = (int)(in_day / 3600), m = (int)(in_day / 60 % 60), sec = (int)(in_day % 60), d = 0;
         d < 2;) {
        if (h == 24) {
            h = 0, m = 0, sec = 0, d++;
        } else if (!alarm_field(s, R_HOUR_ALARM, h)) {
            h++, m = 0, sec = 0;
        } else if (m == 60) {
            h++, m = 0, sec = 0;
        } else if (!alarm_field(s, R_MIN_ALARM, m)) {
            m++, sec = 0;
        } else if (sec == 60) {
            m++, sec = 0;
        } else if (!alarm_field(s, R_SEC_ALARM, sec)) {
            sec++;
        } else {
            return day + (int64_t)d * DAY_S + h * 3600 + m * 60 + sec;
        }
    }
    return INT64_MAX;
}

/* Length of a periodic tick in crystal cycles; 0 = off (datasheet table 5). */
static unsigned rtc_period(const struct rtc *s)
{
    unsigned rate = s->cmos[R_A] & A_RATE;
    if (rate == 0 || (s->cmos[R_A] & A_DIV & 0x60) == 0x60) {
        return 0;
    }
    return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

/* Periodic ticks since the epoch of guest time. */
static uint64_t rtc_tick(const struct rtc *s, unsigned period)
{
    uint64_t ns = s->dev->env->ops->now_ns(s->dev->env);
    return (ns / SEC_NS * XTAL_HZ + ns % SEC_NS * XTAL_HZ / SEC_NS) / period;
}

static void rtc_update(struct rtc *s)
{
    unsigned period = rtc_period(s);
    if (period != 0) {
        uint64_t tick = rtc_tick(s, period);
        s->flags |= tick != s->last_tick ? C_PF : 0;
        s->last_tick = tick;
    }
    if (!rtc_held(s)) {
        uint64_t ns;
        int64_t now = rtc_now(s, &ns);
        if (now > s->last_s) {
            s->flags |= C_UF;
            s->flags |= rtc_next_alarm(s, s->last_s) <= now ? C_AF : 0;
        }
        s->last_s = now;
    }
    int level = (s->flags & s->cmos[R_B] & (C_PF | C_AF | C_UF)) != 0;
    if (level != s->level) {
        s->level = level;
        dev_irq(s->dev, LAYOUT_GSI_RTC, level);
    }
}

/* Nanoseconds until the next interrupt that is enabled; UINT64_MAX = none. */
static uint64_t rtc_next_event(const struct rtc *s)
{
    uint64_t next = UINT64_MAX;
    unsigned period = rtc_period(s);
    if ((s->cmos[R_B] & B_PIE) != 0 && period != 0) {
        uint64_t ns = s->dev->env->ops->now_ns(s->dev->env);
        uint64_t cycles = (rtc_tick(s, period) + 1) * period;
        uint64_t at = cycles / XTAL_HZ * SEC_NS + cycles % XTAL_HZ * SEC_NS / XTAL_HZ + 1;
        next = at > ns ? at - ns : 0;
    }
    if ((s->cmos[R_B] & (B_AIE | B_UIE)) != 0 && !rtc_held(s)) {
        uint64_t ns;
        int64_t now = rtc_now(s, &ns);
        int64_t at = (s->cmos[R_B] & B_UIE) != 0 ? now + 1 : rtc_next_alarm(s, now);
        /* No alarm ever: look again after a day, since the host's clock may be set. */
        int64_t wait_s = at != INT64_MAX ? at - now : DAY_S;
        uint64_t left = (uint64_t)wait_s * SEC_NS - ns;
        next = MIN(next, left);
    }
    return next;
}

static void rtc_arm(struct rtc *s)
{
    uint64_t next = s->stopped ? UINT64_MAX : rtc_next_event(s);
    if (next == UINT64_MAX) {
        loop_timer_cancel(&s->timer);
    } else {
        loop_timer_set(&s->timer, loop_now_ns() + next);
    }
}

static void rtc_on_timer(void *opaque)
{
    struct rtc *s = opaque;
    dev_lock(s->dev);
    if (!s->stopped) {
        rtc_update(s);
        rtc_arm(s);
    }
    dev_unlock(s->dev);
}

static bool is_time(unsigned reg)
{
    return reg == R_CENTURY ||
           (reg <= R_YEAR && reg != R_SEC_ALARM && reg != R_MIN_ALARM && reg != R_HOUR_ALARM);
}

static uint8_t rtc_read_reg(struct rtc *s, unsigned reg)
{
    uint64_t ns;
    uint8_t value;
    switch (reg) {
    case R_A:
        (void)rtc_now(s, &ns);
        return (uint8_t)(s->cmos[R_A] | (!rtc_held(s) && ns >= SEC_NS - UIP_NS ? A_UIP : 0));
    case R_C:
        value = (uint8_t)(s->flags | (s->level != 0 ? C_IRQF : 0));
        s->flags = 0;
        rtc_update(s);
        rtc_arm(s);
        return value;
    default:
        if (is_time(reg) && !rtc_held(s)) {
            rtc_latch(s);
        }
        return s->cmos[reg];
    }
}

/* Register A or B changed: the clock may have been stopped or let go. */
static void rtc_write_control(struct rtc *s, unsigned reg, uint8_t value)
{
    bool held = rtc_held(s);
    bool divider_held = (s->cmos[R_A] & 0x60) == 0x60;
    if (!held) {
        rtc_latch(s);
    }
    s->cmos[reg] = reg == R_A ? value & (A_DIV | A_RATE) : value;
    if (reg == R_B && (value & B_SET) != 0) {
        s->cmos[R_B] &= (uint8_t)~B_UIE; /* datasheet: SET clears UIE */
    }
    if (held && !rtc_held(s)) {
        /* The first update comes half a second after the divider is let go. */
        rtc_set_clock(s, divider_held ? HALF_S : UINT64_MAX);
    }
    unsigned period = rtc_period(s);
    s->last_tick = period != 0 ? rtc_tick(s, period) : 0;
}

static void rtc_write_reg(struct rtc *s, unsigned reg, uint8_t value)
{
    switch (reg) {
    case R_A:
    case R_B:
        rtc_write_control(s, reg, value);
        break;
    case R_C:
    case R_D:
        break; /* read-only */
    default:
        if (is_time(reg) && !rtc_held(s)) {
            rtc_latch(s);
            s->cmos[reg] = value;
            rtc_set_clock(s, UINT64_MAX);
        } else {
            s->cmos[reg] = value;
        }
        break;
    }
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *s = opaque;
    (void)size;
    if (offset == 0) {
        return 0xff; /* the index is write-only */
    }
    rtc_update(s);
    return rtc_read_reg(s, s->index);
}

static void rtc_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *s = opaque;
    (void)size;
    if (offset == 0) {
        s->index = value & (CMOS_SIZE - 1); /* bit 7 masks NMIs, which nothing here raises */
        return;
    }
    rtc_update(s);
    rtc_write_reg(s, s->index, (uint8_t)value);
    rtc_update(s);
    rtc_arm(s);
}

static const struct bus_ops rtc_ops = { .read = rtc_read, .write = rtc_write, .max_size = 1 };

static void put16(struct rtc *s, unsigned reg, uint64_t value)
{
    le16_put(s->cmos + reg, (uint16_t)MIN(value, UINT64_C(0xffff)));
}

/* The bytes that PC firmware keeps or looks for in the CMOS. */
static void rtc_fill_cmos(struct rtc *s, const struct rtc_params *p)
{
    uint64_t above_1m = p->low_ram > MIB ? p->low_ram - MIB : 0;
    uint64_t above_16m = p->low_ram > 16 * MIB ? p->low_ram - 16 * MIB : 0;
    s->cmos[R_A] = A_INIT;
    s->cmos[R_B] = B_24H;
    s->cmos[R_D] = D_VRT;
    s->cmos[R_EQUIPMENT] = EQUIPMENT;
    put16(s, R_BASE_MEM, 640);
    put16(s, R_EXT_MEM, above_1m / KIB);
    put16(s, R_EXT_MEM2, above_1m / KIB);
    put16(s, R_MEM_16M, above_16m / (64 * KIB));
    uint64_t high = MIN(p->high_ram / (64 * KIB), UINT64_C(0xffffff));
    put16(s, R_HIGH_MEM, high & 0xffff);
    s->cmos[R_HIGH_MEM + 2] = (uint8_t)(high >> 16);
    s->cmos[R_CPUS] = (uint8_t)MIN(p->ncpus - 1, 255u);
    uint16_t sum = 0;
    for (unsigned i = 0x10; i < R_CHECKSUM; i++) {
        sum = (uint16_t)(sum + s->cmos[i]);
    }
    be16_put(s->cmos + R_CHECKSUM, sum);
}

/* The battery keeps clock and memory; only interrupts are turned off. */
static void rtc_reset(struct dev *dev)
{
    struct rtc *s = dev->state;
    s->index = 0;
    s->cmos[R_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    s->flags = 0;
    rtc_update(s);
    rtc_arm(s);
}

static int rtc_init(struct dev *dev, const void *params, struct err *err)
{
    struct rtc *s = dev->state;
    uint64_t ns;
    s->dev = dev;
    rtc_fill_cmos(s, params);
    s->last_s = rtc_now(s, &ns);
    s->last_tick = rtc_tick(s, rtc_period(s));
    loop_timer_init(&s->timer, dev->env->loop, rtc_on_timer, s);
    s->region =
        (struct bus_region){ .name = "rtc", .size = 2, .ops = &rtc_ops, .opaque = s, .owner = dev };
    return bus_map(dev->env->pio, &s->region, LAYOUT_PORT_RTC, err);
}

static void rtc_done(struct dev *dev)
{
    struct rtc *s = dev->state;
    bus_unmap(&s->region);
    loop_timer_cancel(&s->timer);
}

static void rtc_stop(struct dev *dev)
{
    struct rtc *s = dev->state;
    s->stopped = true;
    rtc_arm(s);
}

static void rtc_start(struct dev *dev)
{
    struct rtc *s = dev->state;
    s->stopped = false;
    rtc_update(s);
    rtc_arm(s);
}

static int rtc_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    (void)dev, (void)err;
    aml_scope(a, "\\_SB.PCI0.ISA"), aml_device(a, "RTC");
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0B00");
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_io(a, LAYOUT_PORT_RTC, LAYOUT_PORT_RTC, 1, 2);
    aml_res_irq(a, LAYOUT_GSI_RTC);
    aml_res_end(a);
    aml_end(a), aml_end(a);
    return 0;
}

const struct dev_class rtc_class = {
    .name = "rtc",
    .help = "MC146818 real-time clock and CMOS memory",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct rtc),
    .init = rtc_init,
    .done = rtc_done,
    .reset = rtc_reset,
    .stop = rtc_stop,
    .start = rtc_start,
    .acpi = rtc_acpi,
};
