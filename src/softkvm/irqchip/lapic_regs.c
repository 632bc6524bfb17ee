/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The local APIC's register file as the guest sees it: the 4 KiB page of xAPIC mode, the MSRs
 * 0x800 to 0x8ff of x2APIC mode, and the MSRs APIC_BASE and TSC_DEADLINE
 * (SDM 3A §11.4, §11.12; 2023-12).
 */
#include "softkvm/irqchip/irqchip_int.h"
#include "softkvm/x86/cpuid.h"

#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC_FIRST 0x800
#define MSR_X2APIC_LAST  0x8ff

/* What a guest may set in each register; 0 for read-only ones. LVT bit 12 (delivery status) and
 * bit 14 (remote IRR) are the hardware's. */
static uint32_t reg_writable(unsigned reg)
{
    switch (reg) {
    case SK_LAPIC_TPR:
        return 0xff;
    case SK_LAPIC_SVR:
        return 0x1ff;
    case SK_LAPIC_LVT_TIMER:
        return 0x700ff;
    case SK_LAPIC_LVT_THERMAL:
    case SK_LAPIC_LVT_PERF:
        return 0x107ff;
    case SK_LAPIC_LVT_LINT0:
    case SK_LAPIC_LVT_LINT1:
        return 0x1a7ff;
    case SK_LAPIC_LVT_ERROR:
        return 0x100ff;
    case SK_LAPIC_TIMER_INIT:
        return 0xffffffff;
    case SK_LAPIC_TIMER_DIV:
        return 0xb;
    case SK_LAPIC_ICR:
        return 0xccfff;
    default:
        return 0;
    }
}

static bool reg_readable(unsigned reg, bool x2apic)
{
    switch (reg) {
    case SK_LAPIC_ID:
    case SK_LAPIC_VERSION:
    case SK_LAPIC_TPR:
    case SK_LAPIC_PPR:
    case SK_LAPIC_LDR:
    case SK_LAPIC_SVR:
    case SK_LAPIC_ESR:
    case SK_LAPIC_ICR:
    case SK_LAPIC_TIMER_INIT:
    case SK_LAPIC_TIMER_CUR:
    case SK_LAPIC_TIMER_DIV:
        return true;
    case SK_LAPIC_APR:
    case SK_LAPIC_DFR:
    case SK_LAPIC_ICR2:
        return !x2apic;
    default:
        return (reg >= SK_LAPIC_ISR && reg < SK_LAPIC_ESR) ||
               (reg >= SK_LAPIC_LVT_TIMER && reg <= SK_LAPIC_LVT_ERROR);
    }
}

int sk_lapic_reg_read(struct sk_lapic *l, unsigned reg, uint64_t *ret)
{
    bool x2apic = sk_lapic_x2apic(l);
    if (!reg_readable(reg, x2apic)) {
        *ret = 0;
        return 1;
    }
    sk_lapic_pv_settle(l);
    *ret = sk_lapic_get(l, reg);
    if (reg == SK_LAPIC_TIMER_CUR) {
        *ret = sk_lapic_timer_current(l);
    } else if (reg == SK_LAPIC_ID && x2apic) {
        *ret = l->c->id;
    } else if (reg == SK_LAPIC_ICR && x2apic) {
        *ret |= (uint64_t)sk_lapic_get(l, SK_LAPIC_ICR2) << 32;
    } else if (reg == SK_LAPIC_PPR) {
        *ret = sk_lapic_ppr(l);
    }
    return 0;
}

static void write_svr(struct sk_lapic *l, uint32_t value)
{
    bool was_enabled = sk_lapic_sw_enabled(l);
    sk_lapic_put(l, SK_LAPIC_SVR, value);
    if (was_enabled && (value & SK_SVR_ENABLE) == 0) {
        /* Software disable masks all LVT entries (SDM 3A §11.4.7.2). */
        for (unsigned i = SK_LAPIC_LVT_TIMER; i <= SK_LAPIC_LVT_ERROR; i++) {
            sk_lapic_put(l, i, sk_lapic_get(l, i) | SK_LVT_MASKED);
        }
    }
}

static void write_lvt(struct sk_lapic *l, unsigned reg, uint32_t value)
{
    uint32_t old = sk_lapic_get(l, reg);
    if (!sk_lapic_sw_enabled(l)) {
        value |= SK_LVT_MASKED; /* stays masked while software-disabled */
    }
    if (reg == SK_LAPIC_LVT_TIMER && (value & SK_LVT_TIMER_MODE) == SK_LVT_TIMER_MODE) {
        value &= ~(uint32_t)SK_LVT_TIMER_MODE; /* reserved mode */
    }
    sk_lapic_put(l, reg, value);
    if (reg == SK_LAPIC_LVT_TIMER) {
        sk_lapic_timer_mode_changed(l, old);
    } else if (reg == SK_LAPIC_LVT_LINT0) {
        /* The PIC may reach this CPU now; where it is the client's, he must look again. */
        sk_poll_set(l->c, l->chip->split ? SK_POLL_EXIT : SK_POLL_INTR);
    }
}

/* Registers whose write does more than store. `value` holds only writable bits. */
static void write_effect(struct sk_lapic *l, unsigned reg, uint32_t value)
{
    switch (reg) {
    case SK_LAPIC_SVR:
        write_svr(l, value);
        break;
    case SK_LAPIC_LVT_TIMER:
    case SK_LAPIC_LVT_THERMAL:
    case SK_LAPIC_LVT_PERF:
    case SK_LAPIC_LVT_LINT0:
    case SK_LAPIC_LVT_LINT1:
    case SK_LAPIC_LVT_ERROR:
        write_lvt(l, reg, value);
        break;
    case SK_LAPIC_TIMER_INIT:
        if ((sk_lapic_get(l, SK_LAPIC_LVT_TIMER) & SK_LVT_TIMER_MODE) != SK_LVT_TIMER_DEADLINE) {
            sk_lapic_put(l, reg, value);
            sk_lapic_timer_restart(l);
        }
        break;
    case SK_LAPIC_TIMER_DIV:
        sk_lapic_put(l, reg, value);
        break;
    default: /* TPR */
        sk_lapic_put(l, reg, value);
        sk_poll_set(l->c, SK_POLL_INTR);
        break;
    }
}

/* Writes that only one of the two modes has, or that differ. 0 done, 1 #GP, -1 the common way. */
static int write_by_mode(struct sk_lapic *l, unsigned reg, uint64_t value, bool x2apic)
{
    switch (reg) {
    case SK_LAPIC_EOI:
        if (x2apic && value != 0) {
            return 1;
        }
        sk_lapic_eoi(l);
        return 0;
    case SK_LAPIC_ESR:
        if (x2apic && value != 0) {
            return 1;
        }
        sk_lapic_put(l, reg, atomic_exchange_explicit(&l->esr_pending, 0, memory_order_relaxed));
        return 0;
    case SK_LAPIC_ICR:
        value &= ~BIT64(12); /* delivery status: always idle */
        if (x2apic) {
            if ((value & 0xffffffff & ~(uint64_t)(reg_writable(reg))) != 0) {
                return 1;
            }
            sk_lapic_put(l, SK_LAPIC_ICR2, (uint32_t)(value >> 32));
        }
        sk_lapic_put(l, reg, (uint32_t)value);
        sk_lapic_send_ipi(l, (uint32_t)value,
                          x2apic ? sk_lapic_get(l, SK_LAPIC_ICR2)
                                 : sk_lapic_get(l, SK_LAPIC_ICR2) >> 24);
        return 0;
    case SK_LAPIC_SELF_IPI:
        if (!x2apic || value > 0xff) {
            return 1;
        }
        sk_lapic_send_ipi(l, (uint32_t)value | 1 << 18, 0);
        return 0;
    case SK_LAPIC_ID:
    case SK_LAPIC_LDR:
        if (x2apic) {
            return 1;
        }
        sk_lapic_put(l, reg, (uint32_t)value & 0xff000000);
        return 0;
    case SK_LAPIC_DFR:
        if (x2apic) {
            return 1;
        }
        sk_lapic_put(l, reg, (uint32_t)value | 0x0fffffff);
        return 0;
    case SK_LAPIC_ICR2:
        if (x2apic) {
            return 1;
        }
        sk_lapic_put(l, reg, (uint32_t)value & 0xff000000);
        return 0;
    default:
        return -1;
    }
}

int sk_lapic_reg_write(struct sk_lapic *l, unsigned reg, uint64_t value, bool x2apic)
{
    int rc = write_by_mode(l, reg, value, x2apic);
    if (rc >= 0) {
        return rc;
    }
    uint32_t writable = reg_writable(reg);
    bool lvt = reg >= SK_LAPIC_LVT_TIMER && reg <= SK_LAPIC_LVT_ERROR;
    /* Delivery status and remote IRR of an LVT entry are read-only, not reserved: Linux writes back
     * what it read. */
    uint64_t harmless = writable | (lvt ? BIT(12) | BIT(14) : 0);
    if (writable == 0 || (x2apic && (value & ~harmless) != 0)) {
        return 1;
    }
    write_effect(l, reg, (uint32_t)value & writable);
    return 0;
}

bool sk_lapic_mmio(struct sk_lapic *l, uint64_t gpa, void *data, unsigned len, bool write)
{
    uint64_t base = l->c->apic_base & ~UINT64_C(0xfff);
    if (gpa - base >= 0x1000) {
        return false;
    }
    unsigned offset = (unsigned)(gpa - base);
    if (!sk_lapic_hw_enabled(l) || sk_lapic_x2apic(l)) {
        /* The page is not decoded then; KVM answers for the hole, unless the client says no. */
        if ((atomic_load_explicit(&l->c->vm->quirks_off, memory_order_relaxed) &
             SK_QUIRK_LAPIC_MMIO_HOLE) != 0) {
            return false;
        }
        if (!write) {
            memset(data, 0xff, len);
        }
        return true;
    }
    unsigned reg = offset >> 4;
    bool known = offset < 0x400;
    if (write) {
        uint32_t value = 0;
        memcpy(&value, data, MIN(len, 4u));
        /* Only whole aligned registers can be written (SDM 3A §11.4.1). */
        if (len < 4 || (offset & 15) != 0) {
            return true;
        }
        known = known && sk_lapic_reg_write(l, reg, value, false) == 0;
    } else {
        uint64_t value = 0;
        known = known && sk_lapic_reg_read(l, reg, &value) == 0;
        value = (offset & 15) < 4 ? value >> (8 * (offset & 3)) : 0;
        memcpy(data, &value, len);
    }
    if (!known) {
        sk_lapic_error(l, BIT(7)); /* illegal register address */
    }
    return true;
}

/* Transitions of the two enable bits: SDM 3A §11.12.5, figure 11-27. */
int sk_lapic_set_base(struct sk_vcpu *c, uint64_t value, bool host)
{
    struct sk_lapic *l = c->lapic;
    const uint64_t mode = SK_APIC_BASE_ENABLE | SK_APIC_BASE_EXTD;
    uint64_t reserved = ~((BIT64(c->maxphyaddr != 0 ? c->maxphyaddr : 36) - 1) & ~UINT64_C(0xfff));
    reserved &= ~(uint64_t)(SK_APIC_BASE_BSP | SK_APIC_BASE_ENABLE);
    if (sk_has(c, SK_F_X2APIC) || host) {
        reserved &= ~(uint64_t)SK_APIC_BASE_EXTD;
    }
    uint64_t from = c->apic_base & mode;
    uint64_t to = value & mode;
    if ((value & reserved) != 0 || to == SK_APIC_BASE_EXTD) {
        return 1;
    }
    if (!host && ((from == mode && to == SK_APIC_BASE_ENABLE) || (from == 0 && to == mode))) {
        return 1;
    }
    c->apic_base = value;
    if (from != to) {
        if (to == 0) {
            sk_lapic_power_on(l);
        } else if (to == mode) {
            sk_lapic_put(l, SK_LAPIC_LDR, (c->id >> 4) << 16 | BIT(c->id & 15));
        } else {
            sk_lapic_put(l, SK_LAPIC_ID, c->id << 24);
        }
        sk_poll_set(c, SK_POLL_INTR);
    }
    return 0;
}

int sk_lapic_rdmsr(struct sk_vcpu *c, uint32_t index, uint64_t *ret)
{
    struct sk_lapic *l = c->lapic;
    if (index == MSR_APIC_BASE) {
        *ret = c->apic_base;
        return 0;
    }
    if (index == MSR_TSC_DEADLINE) {
        *ret = sk_lapic_timer_deadline(l);
        return 0;
    }
    if (index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST) {
        return -1;
    }
    unsigned reg = index - MSR_X2APIC_FIRST;
    return !sk_lapic_x2apic(l) || reg >= SK_LAPIC_NREGS ? 1 : sk_lapic_reg_read(l, reg, ret);
}

int sk_lapic_wrmsr(struct sk_vcpu *c, uint32_t index, uint64_t val, bool host)
{
    struct sk_lapic *l = c->lapic;
    if (index == MSR_APIC_BASE) {
        return sk_lapic_set_base(c, val, host);
    }
    if (index == MSR_TSC_DEADLINE) {
        sk_lapic_timer_set_deadline(l, val);
        return 0;
    }
    if (index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST) {
        return -1;
    }
    unsigned reg = index - MSR_X2APIC_FIRST;
    if (!sk_lapic_x2apic(l) || reg >= SK_LAPIC_NREGS) {
        return 1;
    }
    /* Only the ICR is 64 bits wide. */
    if (reg != SK_LAPIC_ICR && (val >> 32) != 0) {
        return 1;
    }
    return sk_lapic_reg_write(l, reg, val, true);
}
