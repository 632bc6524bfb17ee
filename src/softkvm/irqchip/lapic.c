/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The local APIC, first part: acceptance of interrupts, priorities, acknowledge, state
 * (SDM 3A §11.8, 2023-12).
 *
 * IRR and TMR are set by any thread, ISR only by the vCPU's own. sk_lapic_post() sets IRR, then
 * the poll word (release); the vCPU clears the poll bit first and looks at IRR after (acquire), so
 * no interrupt is lost between the two.
 */
#include <errno.h>
#include <stdlib.h>

#include "softkvm/irqchip/irqchip_int.h"
#include "softkvm/x86/phys.h"

#define LAPIC_VERSION 0x00050014 /* six LVT entries, an integrated APIC */

uint32_t sk_lapic_get(const struct sk_lapic *l, unsigned reg)
{
    return atomic_load_explicit(&l->reg[reg], memory_order_relaxed);
}

void sk_lapic_put(struct sk_lapic *l, unsigned reg, uint32_t value)
{
    atomic_store_explicit(&l->reg[reg], value, memory_order_relaxed);
}

bool sk_lapic_hw_enabled(const struct sk_lapic *l)
{
    return (l->c->apic_base & SK_APIC_BASE_ENABLE) != 0;
}

bool sk_lapic_sw_enabled(const struct sk_lapic *l)
{
    return (sk_lapic_get(l, SK_LAPIC_SVR) & SK_SVR_ENABLE) != 0;
}

bool sk_lapic_x2apic(const struct sk_lapic *l)
{
    const uint64_t both = SK_APIC_BASE_ENABLE | SK_APIC_BASE_EXTD;
    return (l->c->apic_base & both) == both;
}

/* Highest set bit of the 256-bit register that starts at `reg`, or -1. */
static int lapic_highest(const struct sk_lapic *l, unsigned reg)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t word = atomic_load_explicit(&l->reg[reg + (unsigned)i], memory_order_acquire);
        if (word != 0) {
            return i * 32 + 31 - __builtin_clz(word);
        }
    }
    return -1;
}

static uint32_t lapic_set_bit(struct sk_lapic *l, unsigned reg, uint8_t vector)
{
    uint32_t bit = BIT(vector & 31);
    return atomic_fetch_or_explicit(&l->reg[reg + (vector >> 5)], bit, memory_order_release) & bit;
}

static uint32_t lapic_clear_bit(struct sk_lapic *l, unsigned reg, uint8_t vector)
{
    uint32_t bit = BIT(vector & 31);
    return atomic_fetch_and_explicit(&l->reg[reg + (vector >> 5)], ~bit, memory_order_acq_rel) &
           bit;
}

/* Processor priority: SDM 3A §11.8.3.1. */
uint32_t sk_lapic_ppr(struct sk_lapic *l)
{
    uint32_t tpr = sk_lapic_get(l, SK_LAPIC_TPR) & 0xff;
    int isr = lapic_highest(l, SK_LAPIC_ISR);
    uint32_t in_service = isr < 0 ? 0 : (uint32_t)isr & 0xf0;
    uint32_t ppr = (tpr & 0xf0) >= in_service ? tpr : in_service;
    sk_lapic_put(l, SK_LAPIC_PPR, ppr);
    return ppr;
}

/* The vector that the APIC would hand over now, or -1. */
static int lapic_deliverable(struct sk_lapic *l)
{
    if (!sk_lapic_hw_enabled(l)) {
        return -1;
    }
    int irr = lapic_highest(l, SK_LAPIC_IRR);
    uint32_t ppr = sk_lapic_ppr(l);
    return irr >= 0 && ((uint32_t)irr & 0xf0) > (ppr & 0xf0) ? irr : -1;
}

int sk_lapic_post(struct sk_lapic *l, uint8_t vector, bool level)
{
    if (!sk_lapic_hw_enabled(l) || !sk_lapic_sw_enabled(l)) {
        return -1;
    }
    if (vector < 16) {
        sk_lapic_error(l, BIT(6)); /* received illegal vector: SDM 3A §11.5.3 */
        return -1;
    }
    if (level) {
        (void)lapic_set_bit(l, SK_LAPIC_TMR, vector);
    } else {
        (void)lapic_clear_bit(l, SK_LAPIC_TMR, vector);
    }
    bool coalesced = lapic_set_bit(l, SK_LAPIC_IRR, vector) != 0;
    sk_poll_set(l->c, SK_POLL_INTR);
    return coalesced ? 0 : 1;
}

void sk_lapic_error(struct sk_lapic *l, uint32_t bits)
{
    uint32_t old = atomic_fetch_or_explicit(&l->esr_pending, bits, memory_order_relaxed);
    /* Only the first error since the last look at ESR interrupts (SDM 3A §11.5.3). */
    if ((old & bits) != bits && (sk_lapic_get(l, SK_LAPIC_LVT_ERROR) & 0xff) >= 16) {
        sk_lapic_fire_lvt(l, SK_LAPIC_LVT_ERROR);
    }
}

void sk_lapic_fire_lvt(struct sk_lapic *l, unsigned reg)
{
    uint32_t lvt = sk_lapic_get(l, reg);
    if ((lvt & SK_LVT_MASKED) != 0 || !sk_lapic_hw_enabled(l)) {
        return;
    }
    switch ((lvt >> 8) & 7) {
    case SK_DM_FIXED:
        (void)sk_lapic_post(l, (uint8_t)lvt, false);
        break;
    case SK_DM_NMI:
        sk_nmi_post(l->c);
        break;
    case SK_DM_SMI:
        sk_poll_set(l->c, SK_POLL_SMI);
        break;
    default:
        break;
    }
}

bool sk_lapic_takes_pic(const struct sk_lapic *l)
{
    uint32_t lvt0 = sk_lapic_get(l, SK_LAPIC_LVT_LINT0);
    return !sk_lapic_hw_enabled(l) ||
           ((lvt0 & SK_LVT_MASKED) == 0 && ((lvt0 >> 8) & 7) == SK_DM_EXTINT);
}

void sk_lapic_pic_raised(struct sk_irqchip *chip)
{
    unsigned n = atomic_load_explicit(&chip->ncpus, memory_order_acquire);
    for (unsigned i = 0; i < n; i++) {
        struct sk_lapic *l = atomic_load_explicit(&chip->lapic[i], memory_order_acquire);
        if (l != NULL && sk_lapic_takes_pic(l)) {
            sk_poll_set(l->c, SK_POLL_INTR);
        }
    }
}

static bool lapic_pic_pending(struct sk_lapic *l)
{
    if (l->chip->split || !sk_lapic_takes_pic(l)) {
        return false;
    }
    pthread_mutex_lock(&l->chip->lock);
    bool pending = l->chip->pic_output;
    pthread_mutex_unlock(&l->chip->lock);
    return pending;
}

/* PV EOI (msr.rst, MSR_KVM_PV_EOI_EN): when a vector is taken and nothing waits behind it, bit 0 of
 * a word of the guest's is set. A guest that finds it set clears it instead of writing the EOI
 * register; that it has is found out when somebody next looks at the APIC. If it has not by then,
 * the bit is taken back and the register must be written. */
static void lapic_pv_offer(struct sk_lapic *l, uint8_t vector)
{
    uint32_t tmr = sk_lapic_get(l, SK_LAPIC_TMR + (vector >> 5));
    if ((l->pv_eoi & 1) == 0 || (tmr & BIT(vector & 31)) != 0 ||
        lapic_highest(l, SK_LAPIC_IRR) >= 0) {
        return;
    }
    uint8_t *word = sk_phys_ptr_normal(l->c, l->pv_eoi & ~UINT64_C(1), true);
    if (word != NULL) {
        *word |= 1;
        l->pv_eoi_offered = true;
    }
}

static void lapic_eoi(struct sk_lapic *l);

void sk_lapic_pv_settle(struct sk_lapic *l)
{
    if (!l->pv_eoi_offered) {
        return;
    }
    l->pv_eoi_offered = false;
    uint8_t *word = sk_phys_ptr_normal(l->c, l->pv_eoi & ~UINT64_C(1), true);
    if (word == NULL) {
        return;
    }
    bool untouched = (*word & 1) != 0;
    *word &= (uint8_t)~1u;
    if (!untouched) {
        lapic_eoi(l);
    }
}

int sk_lapic_set_pv_eoi(struct sk_vcpu *c, uint64_t val)
{
    if ((val & 2) != 0) { /* the word is aligned */
        return 1;
    }
    if (c->lapic != NULL) {
        sk_lapic_pv_settle(c->lapic);
        c->lapic->pv_eoi = val;
    }
    return 0;
}

uint64_t sk_lapic_get_pv_eoi(const struct sk_vcpu *c)
{
    return c->lapic != NULL ? c->lapic->pv_eoi : 0;
}

bool sk_lapic_pending(struct sk_vcpu *c)
{
    sk_lapic_pv_settle(c->lapic);
    return lapic_pic_pending(c->lapic) || lapic_deliverable(c->lapic) >= 0;
}

int sk_lapic_ack(struct sk_vcpu *c)
{
    struct sk_lapic *l = c->lapic;
    sk_lapic_pv_settle(l);
    if (lapic_pic_pending(l)) {
        pthread_mutex_lock(&l->chip->lock);
        int vector = l->chip->pic_output ? sk_pic_inta(l->chip) : -1;
        pthread_mutex_unlock(&l->chip->lock);
        if (vector >= 0) {
            return vector;
        }
    }
    int vector = lapic_deliverable(l);
    if (vector < 0) {
        return -1;
    }
    (void)lapic_clear_bit(l, SK_LAPIC_IRR, (uint8_t)vector);
    (void)lapic_set_bit(l, SK_LAPIC_ISR, (uint8_t)vector);
    (void)sk_lapic_ppr(l);
    lapic_pv_offer(l, (uint8_t)vector);
    return vector;
}

static void lapic_eoi(struct sk_lapic *l)
{
    int vector = lapic_highest(l, SK_LAPIC_ISR);
    if (vector < 0) {
        return;
    }
    (void)lapic_clear_bit(l, SK_LAPIC_ISR, (uint8_t)vector);
    (void)sk_lapic_ppr(l);
    if (!l->chip->split) {
        sk_ioapic_eoi(l->chip, (uint8_t)vector);
    } else {
        uint32_t tmr = sk_lapic_get(l, SK_LAPIC_TMR + ((unsigned)vector >> 5));
        if ((tmr & BIT((unsigned)vector & 31)) != 0 &&
            sk_gsi_vector_routed(l->chip, (uint8_t)vector)) {
            atomic_store_explicit(&l->eoi_exit, vector, memory_order_relaxed);
            sk_poll_set(l->c, SK_POLL_EXIT);
        }
    }
    sk_poll_set(l->c, SK_POLL_INTR); /* a lower one may be deliverable now */
}

void sk_lapic_eoi(struct sk_lapic *l)
{
    sk_lapic_pv_settle(l); /* the EOI of what came in between */
    lapic_eoi(l);
}

int sk_lapic_take_eoi_exit(struct sk_vcpu *c)
{
    return c->lapic == NULL
               ? -1
               : atomic_exchange_explicit(&c->lapic->eoi_exit, -1, memory_order_relaxed);
}

bool sk_lapic_has_eoi_exit(const struct sk_vcpu *c)
{
    return c->lapic != NULL && atomic_load_explicit(&c->lapic->eoi_exit, memory_order_relaxed) >= 0;
}

uint8_t sk_lapic_get_cr8(struct sk_vcpu *c)
{
    return (uint8_t)((sk_lapic_get(c->lapic, SK_LAPIC_TPR) >> 4) & 15);
}

void sk_lapic_set_cr8(struct sk_vcpu *c, uint8_t tpr)
{
    sk_lapic_put(c->lapic, SK_LAPIC_TPR, (uint32_t)(tpr & 15) << 4);
    sk_poll_set(c, SK_POLL_INTR);
}

void sk_lapic_power_on(struct sk_lapic *l)
{
    uint32_t id = sk_lapic_get(l, SK_LAPIC_ID);
    sk_lapic_timer_stop(l);
    for (unsigned i = 0; i < SK_LAPIC_NREGS; i++) {
        sk_lapic_put(l, i, 0);
    }
    atomic_store_explicit(&l->esr_pending, 0, memory_order_relaxed);
    sk_lapic_put(l, SK_LAPIC_ID, id);
    sk_lapic_put(l, SK_LAPIC_VERSION, LAPIC_VERSION);
    sk_lapic_put(l, SK_LAPIC_DFR, 0xffffffff);
    sk_lapic_put(l, SK_LAPIC_SVR, 0xff);
    for (unsigned i = SK_LAPIC_LVT_TIMER; i <= SK_LAPIC_LVT_ERROR; i++) {
        sk_lapic_put(l, i, SK_LVT_MASKED);
    }
    if (sk_lapic_x2apic(l)) {
        uint32_t x2id = l->c->id;
        sk_lapic_put(l, SK_LAPIC_LDR, (x2id >> 4) << 16 | BIT(x2id & 15));
    }
    /* BSP: LINT0 as ExtINT, so that the PIC works without any set-up: a quirk of KVM's. */
    if ((l->c->apic_base & 0x100) != 0 &&
        (atomic_load_explicit(&l->c->vm->quirks_off, memory_order_relaxed) &
         SK_QUIRK_LINT0_REENABLED) == 0) {
        sk_lapic_put(l, SK_LAPIC_LVT_LINT0, SK_DM_EXTINT << 8);
    }
}

void sk_lapic_init_reset(struct sk_vcpu *c)
{
    c->lapic->pv_eoi = 0;
    c->lapic->pv_eoi_offered = false;
    sk_lapic_power_on(c->lapic);
}

bool sk_lapic_new(struct sk_vcpu *c, struct sk_irqchip *chip)
{
    if (c->id >= SK_IRQCHIP_CPUS) {
        return false;
    }
    struct sk_lapic *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return false;
    }
    l->c = c;
    l->chip = chip;
    atomic_store_explicit(&l->eoi_exit, -1, memory_order_relaxed);
    sk_lapic_timer_init(l);
    sk_lapic_put(l, SK_LAPIC_ID, c->id << 24);
    sk_lapic_power_on(l);
    c->lapic = l;
    atomic_store_explicit(&chip->lapic[c->id], l, memory_order_release);
    unsigned n = atomic_load_explicit(&chip->ncpus, memory_order_relaxed);
    while (n <= c->id &&
           !atomic_compare_exchange_weak_explicit(&chip->ncpus, &n, c->id + 1, memory_order_release,
                                                  memory_order_relaxed)) {
    }
    return true;
}

void sk_lapic_free(struct sk_vcpu *c)
{
    struct sk_lapic *l = c->lapic;
    if (l == NULL) {
        return;
    }
    atomic_store_explicit(&l->chip->lapic[c->id], NULL, memory_order_release);
    sk_irqchip_timer_off(l->chip, &l->timer);
    c->lapic = NULL;
    pthread_mutex_destroy(&l->timer_lock);
    free(l);
}

/* In the state image the id of an x2APIC is in the top byte unless the client asked for 32 bits
 * (KVM api.rst 4.57). */
void sk_lapic_get_state(struct sk_vcpu *c, struct kvm_lapic_state *ret)
{
    struct sk_lapic *l = c->lapic;
    memset(ret, 0, sizeof(*ret));
    sk_lapic_pv_settle(l);
    (void)sk_lapic_ppr(l);
    for (unsigned i = 0; i < SK_LAPIC_NREGS; i++) {
        le32_put(ret->regs + i * 16, sk_lapic_get(l, i));
    }
    le32_put(ret->regs + SK_LAPIC_TIMER_CUR * 16, sk_lapic_timer_current(l));
    if (sk_lapic_x2apic(l)) {
        le32_put(ret->regs + SK_LAPIC_ID * 16, l->chip->wide_ids ? c->id : c->id << 24);
    }
}

int sk_lapic_set_state(struct sk_vcpu *c, const struct kvm_lapic_state *s)
{
    struct sk_lapic *l = c->lapic;
    uint32_t id = le32_get(s->regs + SK_LAPIC_ID * 16);
    if (sk_lapic_x2apic(l) && id != (l->chip->wide_ids ? c->id : c->id << 24)) {
        return -EINVAL;
    }
    sk_lapic_timer_stop(l);
    sk_lapic_pv_settle(l);
    for (unsigned i = 0; i < SK_LAPIC_NREGS; i++) {
        if (i != SK_LAPIC_VERSION && i != SK_LAPIC_ID) {
            sk_lapic_put(l, i, le32_get(s->regs + i * 16));
        }
    }
    if (!sk_lapic_x2apic(l)) {
        sk_lapic_put(l, SK_LAPIC_ID, id);
    }
    sk_lapic_timer_set_state(l, le32_get(s->regs + SK_LAPIC_TIMER_CUR * 16));
    sk_poll_set(c, SK_POLL_INTR);
    return 0;
}
