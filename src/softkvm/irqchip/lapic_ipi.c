/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who gets an interrupt message: destination matching and delivery (SDM 3A §11.6.2, §11.12.10).
 */
#include <stdlib.h>

#include "softkvm/irqchip/irqchip_int.h"

static uint32_t lapic_id(const struct sk_lapic *l)
{
    return sk_lapic_x2apic(l) ? l->c->id : sk_lapic_get(l, SK_LAPIC_ID) >> 24;
}

static bool lapic_match_logical(const struct sk_lapic *l, uint32_t dest)
{
    uint32_t ldr = sk_lapic_get(l, SK_LAPIC_LDR);
    if (sk_lapic_x2apic(l)) {
        return (ldr >> 16) == (dest >> 16) && (ldr & dest & 0xffff) != 0;
    }
    ldr >>= 24;
    dest &= 0xff;
    if (sk_lapic_get(l, SK_LAPIC_DFR) == 0xffffffff) { /* flat model */
        return (ldr & dest) != 0;
    }
    return (ldr >> 4) == (dest >> 4) && (ldr & dest & 15) != 0; /* cluster model */
}

static bool lapic_matches(const struct sk_lapic *l, const struct sk_msg *m)
{
    /* A message of 8 destination bits (MSI, IOAPIC, xAPIC) says "all" by 0xff to an x2APIC too,
     * unless the client turned that reading off (KVM api.rst 7.7). */
    bool broadcast = m->wide
                         ? m->dest == 0xffffffff
                         : m->dest == 0xff && !(l->chip->no_broadcast_quirk && sk_lapic_x2apic(l));
    if (broadcast) {
        return true;
    }
    return m->logical ? lapic_match_logical(l, m->dest) : lapic_id(l) == m->dest;
}

/* 1 newly accepted, 0 coalesced, -1 refused. */
static int lapic_accept(struct sk_lapic *l, const struct sk_msg *m)
{
    struct sk_vcpu *c = l->c;
    switch (m->mode) {
    case SK_DM_FIXED:
    case SK_DM_LOWEST:
        return sk_lapic_post(l, m->vector, m->level);
    case SK_DM_SMI:
        sk_poll_set(c, SK_POLL_SMI);
        return 1;
    case SK_DM_NMI:
        sk_nmi_post(c);
        return 1;
    case SK_DM_INIT:
        if (!m->level || m->assert_) {
            sk_poll_set(c, SK_POLL_INIT);
        }
        return 1;
    case SK_DM_SIPI:
        atomic_store_explicit(&c->ev_sipi, m->vector, memory_order_relaxed);
        sk_poll_set(c, SK_POLL_SIPI);
        return 1;
    default:
        return -1; /* ExtINT by message: the PIC's line does that here */
    }
}

/* Lowest priority: the lowest task priority wins, among equals each in turn. */
static struct sk_lapic *lapic_lowest(struct sk_irqchip *chip, const struct sk_msg *m)
{
    unsigned n = atomic_load_explicit(&chip->ncpus, memory_order_acquire);
    unsigned turn = atomic_fetch_add_explicit(&chip->lowest_turn, 1, memory_order_relaxed);
    struct sk_lapic *best = NULL;
    for (unsigned i = 0; i < n; i++) {
        struct sk_lapic *l =
            atomic_load_explicit(&chip->lapic[(turn + i) % n], memory_order_acquire);
        if (l == NULL || !sk_lapic_hw_enabled(l) || !sk_lapic_sw_enabled(l) ||
            !lapic_matches(l, m)) {
            continue;
        }
        if (best == NULL || sk_lapic_get(l, SK_LAPIC_TPR) < sk_lapic_get(best, SK_LAPIC_TPR)) {
            best = l;
        }
    }
    return best;
}

int sk_lapic_deliver(struct sk_irqchip *chip, const struct sk_msg *m)
{
    if (m->mode == SK_DM_LOWEST) {
        struct sk_lapic *l = lapic_lowest(chip, m);
        return l != NULL ? lapic_accept(l, m) : -1;
    }
    unsigned n = atomic_load_explicit(&chip->ncpus, memory_order_acquire);
    int result = -1;
    for (unsigned i = 0; i < n; i++) {
        struct sk_lapic *l = atomic_load_explicit(&chip->lapic[i], memory_order_acquire);
        if (l == NULL || !sk_lapic_hw_enabled(l) || !lapic_matches(l, m)) {
            continue;
        }
        int rc = lapic_accept(l, m);
        if (rc >= 0) {
            result = (result < 0 ? 0 : result) + rc;
        }
    }
    return result;
}

/* Destination shorthands of the interrupt command register (SDM 3A §11.6.1). */
enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

void sk_lapic_send_ipi(struct sk_lapic *l, uint32_t icr_low, uint32_t dest)
{
    struct sk_msg m = {
        .dest = dest,
        .vector = (uint8_t)icr_low,
        .mode = (icr_low >> 8) & 7,
        .logical = (icr_low & BIT(11)) != 0,
        .level = (icr_low & BIT(15)) != 0,
        .assert_ = (icr_low & BIT(14)) != 0,
        .wide = sk_lapic_x2apic(l),
    };
    if (m.mode <= SK_DM_LOWEST && m.vector < 16) {
        sk_lapic_error(l, BIT(5)); /* send illegal vector: SDM 3A §11.5.3 */
        return;
    }
    if (m.mode <= SK_DM_LOWEST) {
        m.level = false; /* IPIs are edge triggered whatever the bit says: SDM 3A §11.6.1 */
    }
    unsigned shorthand = (icr_low >> 18) & 3;
    if (shorthand == SHORTHAND_NONE) {
        (void)sk_lapic_deliver(l->chip, &m); /* nobody there: no error on current CPUs */
        return;
    }
    if (shorthand == SHORTHAND_SELF) {
        if (m.mode != SK_DM_INIT && m.mode != SK_DM_SIPI) { /* others than fixed: as under KVM */
            (void)lapic_accept(l, &m);
        }
        return;
    }
    unsigned n = atomic_load_explicit(&l->chip->ncpus, memory_order_acquire);
    for (unsigned i = 0; i < n; i++) {
        struct sk_lapic *to = atomic_load_explicit(&l->chip->lapic[i], memory_order_acquire);
        if (to != NULL && sk_lapic_hw_enabled(to) && (to != l || shorthand == SHORTHAND_ALL)) {
            (void)lapic_accept(to, &m);
        }
    }
}

int sk_irqchip_msi(struct sk_irqchip *chip, uint64_t addr, uint32_t data)
{
    uint32_t dest = (uint32_t)(addr >> 12) & 0xff;
    bool wide = false;
    if (chip->wide_ids && (addr >> 32) != 0) {
        dest |= (uint32_t)(addr >> 32) & 0xffffff00;
        wide = true;
    }
    struct sk_msg m = {
        .dest = dest,
        .vector = (uint8_t)data,
        .mode = (data >> 8) & 7,
        .logical = (addr & BIT(2)) != 0,
        .level = (data & BIT(15)) != 0,
        .assert_ = true,
        .wide = wide,
    };
    /* Redirection hint with a logical destination means lowest priority (SDM 3A §11.11.1). */
    if ((addr & BIT(3)) != 0 && m.logical && m.mode == SK_DM_FIXED) {
        m.mode = SK_DM_LOWEST;
    }
    return sk_lapic_deliver(chip, &m);
}
