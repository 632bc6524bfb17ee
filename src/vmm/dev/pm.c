/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power management block:
 *
 *     0x00 PM1_STS (write 1 to clear)   0x20 GPE0_STS, 8 bytes (write 1 to clear)
 *     0x02 PM1_EN                       0x28 GPE0_EN, 8 bytes
 *     0x04 PM1_CNT                      0x30 SMI_EN
 *     0x08 PM_TMR, 3.579545 MHz, 32 bits
 *
 * The registers act byte by byte, so an access of any size is the sum of its bytes. There is no
 * system management mode: SCI_EN is always set, and SMI_EN reads as set up, so that firmware
 * leaves SMM alone.
 */
#include "vmm/dev/pm.h"

#include <errno.h>

#include "spec/acpi_defs.h"
#include "vmm/layout.h"

#define REG_PM1_STS  0x00
#define REG_PM1_EN   0x02
#define REG_PM1_CNT  0x04
#define REG_PM_TMR   0x08
#define REG_GPE0_STS 0x20
#define REG_GPE0_EN  0x28
#define REG_SMI_EN   0x30
#define SMI_EN_APMC  0x20u /* ICH9 §13.8.3.9 */

#define PM1_EVENTS (ACPI_PM1_TMR_STS | ACPI_PM1_GBL_STS | ACPI_PM1_PWRBTN_STS | ACPI_PM1_RTC_STS)
#define SEC_NS     UINT64_C(1000000000)
#define TMR_HALF   31 /* TMR_STS is set when this bit of the count changes (32-bit timer) */

struct pm {
    struct dev *dev;
    struct bus_region region;
    uint16_t pm1_sts;
    uint16_t pm1_en;
    uint16_t pm1_cnt;
    uint64_t gpe_sts;
    uint64_t gpe_en;
    uint64_t tmr_halves; /* half periods of the timer that TMR_STS knows of */
    struct loop_timer timer;
    int sci;
    bool stopped;
};

static uint64_t pm_ticks(const struct pm *s)
{
    uint64_t ns = s->dev->env->ops->now_ns(s->dev->env);
    return ns / SEC_NS * ACPI_PM_TIMER_HZ + ns % SEC_NS * ACPI_PM_TIMER_HZ / SEC_NS;
}

/* Notes a carry of the timer in PM1_STS. */
static void pm_update_tmr(struct pm *s)
{
    uint64_t halves = pm_ticks(s) >> TMR_HALF;
    if (halves != s->tmr_halves) {
        s->tmr_halves = halves;
        s->pm1_sts |= ACPI_PM1_TMR_STS;
    }
}

/* The carry needs a wake-up only while its interrupt is wanted. */
static void pm_arm(struct pm *s)
{
    if (s->stopped || (s->pm1_en & ACPI_PM1_TMR_STS) == 0) {
        loop_timer_cancel(&s->timer);
        return;
    }
    uint64_t ticks = pm_ticks(s);
    uint64_t left = (((ticks >> TMR_HALF) + 1) << TMR_HALF) - ticks;
    /* One microsecond late rather than early: early would look like "no carry yet". */
    loop_timer_set(&s->timer, loop_now_ns() + left * SEC_NS / ACPI_PM_TIMER_HZ + 1000);
}

static void pm_update_sci(struct pm *s)
{
    int level = (s->pm1_sts & s->pm1_en & PM1_EVENTS) != 0 || (s->gpe_sts & s->gpe_en) != 0;
    if (level != s->sci) {
        s->sci = level;
        dev_irq(s->dev, LAYOUT_GSI_SCI, level);
    }
}

static void pm_on_timer(void *opaque)
{
    struct pm *s = opaque;
    dev_lock(s->dev);
    if (!s->stopped) {
        pm_update_tmr(s);
        pm_update_sci(s);
        pm_arm(s);
    }
    dev_unlock(s->dev);
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pm *s = opaque;
    uint8_t image[LAYOUT_PORT_PM_SIZE + 8] = { 0 };
    pm_update_tmr(s);
    le16_put(image + REG_PM1_STS, s->pm1_sts);
    le16_put(image + REG_PM1_EN, s->pm1_en);
    le16_put(image + REG_PM1_CNT, s->pm1_cnt);
    le32_put(image + REG_PM_TMR, (uint32_t)pm_ticks(s));
    le64_put(image + REG_GPE0_STS, s->gpe_sts);
    le64_put(image + REG_GPE0_EN, s->gpe_en);
    le32_put(image + REG_SMI_EN, SMI_EN_APMC);
    return le64_get(image + offset) & bits_mask_bytes(size);
}

static void pm_write_cnt_high(struct pm *s, uint8_t value)
{
    uint16_t typ = (value << 8 >> ACPI_PM1_CNT_SLP_TYP) & 7;
    s->pm1_cnt = (uint16_t)((s->pm1_cnt & 0xff) | typ << ACPI_PM1_CNT_SLP_TYP);
    if ((value << 8 & ACPI_PM1_CNT_SLP_EN) == 0) {
        return;
    }
    /* QUIRK: firmware for virtual q35 boards writes type 0 for soft off. */
    if (typ == PM_SLP_TYP_S5 || typ == 0) {
        dev_event(s->dev, DEV_EVENT_POWEROFF, 0, "ACPI S5");
    } else {
        dev_guest_bug(s->dev, "sleep type %u does not exist here", typ);
    }
}

static void pm_write_byte(struct pm *s, uint64_t offset, uint8_t value)
{
    unsigned shift = (unsigned)offset % 8 * 8;
    switch (offset) {
    case REG_PM1_STS:
    case REG_PM1_STS + 1:
        s->pm1_sts = (uint16_t)(s->pm1_sts & ~(value << (offset - REG_PM1_STS) * 8));
        break;
    case REG_PM1_EN:
        s->pm1_en = (uint16_t)((s->pm1_en & 0xff00) | (value & PM1_EVENTS));
        pm_arm(s);
        break;
    case REG_PM1_EN + 1:
        s->pm1_en = (uint16_t)((s->pm1_en & 0xff) | (value << 8 & PM1_EVENTS));
        break;
    case REG_PM1_CNT: /* SCI_EN stays; GBL_RLS would ask a firmware handler that does not exist */
        s->pm1_cnt =
            (uint16_t)((s->pm1_cnt & 0xff00) | (value & ACPI_PM1_CNT_BM_RLD) | ACPI_PM1_CNT_SCI_EN);
        break;
    case REG_PM1_CNT + 1:
        pm_write_cnt_high(s, value);
        break;
    case REG_GPE0_STS ... REG_GPE0_STS + 7:
        s->gpe_sts &= ~((uint64_t)value << shift);
        break;
    case REG_GPE0_EN ... REG_GPE0_EN + 7:
        s->gpe_en = (s->gpe_en & ~(UINT64_C(0xff) << shift)) | (uint64_t)value << shift;
        break;
    default:
        break; /* the rest is read-only or reserved */
    }
}

static void pm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *s = opaque;
    pm_update_tmr(s);
    for (unsigned i = 0; i < size; i++) {
        pm_write_byte(s, offset + i, (uint8_t)(value >> (8 * i)));
    }
    pm_update_sci(s);
}

static const struct bus_ops pm_ops = { .read = pm_read, .write = pm_write, .max_size = 4 };

bool pm_power_button(struct dev *pm)
{
    struct pm *s = pm->state;
    dev_lock(pm);
    s->pm1_sts |= ACPI_PM1_PWRBTN_STS;
    bool enabled = (s->pm1_en & ACPI_PM1_PWRBTN_STS) != 0;
    pm_update_sci(s);
    dev_unlock(pm);
    return enabled;
}

void pm_gpe_raise(struct dev *pm, unsigned bit)
{
    struct pm *s = pm->state;
    dev_lock(pm);
    s->gpe_sts |= BIT64(bit % PM_GPE_COUNT);
    pm_update_sci(s);
    dev_unlock(pm);
}

void pm_move(struct dev *pm, uint16_t base, bool enabled)
{
    struct pm *s = pm->state;
    struct err err = ERR_INIT;
    dev_lock(pm);
    if (s->region.bus == NULL || !enabled || s->region.base != base) {
        bus_unmap(&s->region);
        if (enabled && bus_map(pm->env->pio, &s->region, base, &err) < 0) {
            dev_guest_bug(pm, "cannot move the ACPI block: %s", err.msg);
        }
    }
    dev_unlock(pm);
}

static void pm_reset(struct dev *dev)
{
    struct pm *s = dev->state;
    s->pm1_sts = 0;
    s->pm1_en = 0;
    s->pm1_cnt = ACPI_PM1_CNT_SCI_EN;
    s->gpe_sts = 0;
    s->gpe_en = 0;
    s->tmr_halves = pm_ticks(s) >> TMR_HALF;
    pm_arm(s);
    pm_update_sci(s);
    pm_move(dev, LAYOUT_PORT_PM, true);
}

static int pm_init(struct dev *dev, const void *params, struct err *err)
{
    struct pm *s = dev->state;
    (void)params;
    s->dev = dev;
    s->pm1_cnt = ACPI_PM1_CNT_SCI_EN;
    s->tmr_halves = pm_ticks(s) >> TMR_HALF;
    loop_timer_init(&s->timer, dev->env->loop, pm_on_timer, s);
    s->region = (struct bus_region){
        .name = "pm", .size = LAYOUT_PORT_PM_SIZE, .ops = &pm_ops, .opaque = s, .owner = dev
    };
    return bus_map(dev->env->pio, &s->region, LAYOUT_PORT_PM, err);
}

static void pm_done(struct dev *dev)
{
    struct pm *s = dev->state;
    bus_unmap(&s->region);
    loop_timer_cancel(&s->timer);
}

static void pm_stop(struct dev *dev)
{
    struct pm *s = dev->state;
    s->stopped = true;
    loop_timer_cancel(&s->timer);
}

static void pm_start(struct dev *dev)
{
    struct pm *s = dev->state;
    s->stopped = false;
    pm_arm(s);
}

const struct dev_class pm_class = {
    .name = "pm",
    .help = "ACPI power management block (PM timer, power button, S5, GPE)",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct pm),
    .init = pm_init,
    .done = pm_done,
    .reset = pm_reset,
    .stop = pm_stop,
    .start = pm_start,
};
