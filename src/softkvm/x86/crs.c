/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/x86/crs.h"

#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/fault.h"
#include "softkvm/x86/mem.h"

/* Entering or leaving IA-32e mode with CR0.PG; #GP where the order is wrong. */
static uint64_t cr0_new_efer(struct sk_vcpu *c, uint64_t v)
{
    bool cs_l = c->seg[SK_CS].attr & 0x2000;
    uint64_t efer = c->efer;

    if ((v & SK_CR0_PG) && !(c->cr0 & SK_CR0_PG) && (efer & SK_EFER_LME)) {
        if (!(c->cr4 & SK_CR4_PAE) || cs_l) {
            sk_gp(c);
        }
        efer |= SK_EFER_LMA;
    }
    if (!(v & SK_CR0_PG) && (c->cr0 & SK_CR0_PG)) {
        if (sk_code64(c) || (c->cr4 & SK_CR4_PCIDE)) {
            sk_gp(c);
        }
        efer &= ~(uint64_t)SK_EFER_LMA;
    }
    return efer;
}

void sk_cr0_write(struct sk_vcpu *c, uint64_t v)
{
    uint64_t old = c->cr0, diff, efer;

    if ((v >> 32) || ((v & SK_CR0_PG) && !(v & SK_CR0_PE)) ||
        ((v & SK_CR0_NW) && !(v & SK_CR0_CD))) {
        sk_gp(c);
    }
    v = (v & 0xe005003f) | SK_CR0_ET;
    efer = cr0_new_efer(c, v);
    diff = old ^ v;
    if ((v & SK_CR0_PG) && (c->cr4 & SK_CR4_PAE) && !(efer & SK_EFER_LMA) &&
        (diff & (SK_CR0_PG | SK_CR0_CD | SK_CR0_NW)) && !sk_load_pdptes(c, c->cr3)) {
        sk_gp(c);
    }
    c->cr0 = v;
    c->efer = efer;
    if (diff & (SK_CR0_PG | SK_CR0_WP | SK_CR0_PE)) {
        sk_tlb_flush_all(c);
    }
    sk_mode_update(c);
    if (diff & ~(uint64_t)(SK_CR0_TS | SK_CR0_MP)) {
        c->leave = 1;
    }
}

void sk_cr3_write(struct sk_vcpu *c, uint64_t v)
{
    bool keep = false;

    if (sk_lma(c)) {
        if (c->cr4 & SK_CR4_PCIDE) {
            keep = v >> 63;
            v &= ~BIT64(63);
        }
        if (v >> c->maxphyaddr) {
            sk_gp(c);
        }
    }
    if (!sk_lma(c) && (c->cr0 & SK_CR0_PG) && (c->cr4 & SK_CR4_PAE) && !sk_load_pdptes(c, v)) {
        sk_gp(c);
    }
    (void)keep; /* translations are not tagged by PCID: dropping them is always allowed */
    c->cr3 = v;
    sk_tlb_flush_nonglobal(c);
}

uint64_t sk_cr4_allowed(const struct sk_vcpu *c)
{
    uint64_t v = SK_CR4_TSD | SK_CR4_PCE;
    static const struct {
        uint32_t bit;
        uint16_t feature;
    } by[] = {
        {SK_CR4_DE,          SK_F_DE      },
        { SK_CR4_PSE,        SK_F_PSE     },
        { SK_CR4_PAE,        SK_F_PAE     },
        { SK_CR4_MCE,        SK_F_MCE     },
        { SK_CR4_PGE,        SK_F_PGE     },
        { SK_CR4_OSFXSR,     SK_F_FXSR    },
        { SK_CR4_OSXMMEXCPT, SK_F_SSE     },
        { SK_CR4_UMIP,       SK_F_UMIP    },
        { SK_CR4_FSGSBASE,   SK_F_FSGSBASE},
        { SK_CR4_PCIDE,      SK_F_PCID    },
        { SK_CR4_OSXSAVE,    SK_F_XSAVE   },
        { SK_CR4_SMEP,       SK_F_SMEP    },
        { SK_CR4_SMAP,       SK_F_SMAP    },
        { 3,                 SK_F_VME     },
    };

    for (unsigned i = 0; i < ARRAY_LEN(by); i++) {
        if (sk_has(c, by[i].feature)) {
            v |= by[i].bit;
        }
    }
    return v;
}

void sk_cr4_write(struct sk_vcpu *c, uint64_t v)
{
    uint64_t diff = c->cr4 ^ v;

    if (v & ~sk_cr4_allowed(c)) {
        sk_gp(c);
    }
    if (sk_lma(c) && !(v & SK_CR4_PAE)) {
        sk_gp(c);
    }
    if ((v & SK_CR4_PCIDE) && (diff & SK_CR4_PCIDE) && (!sk_lma(c) || (c->cr3 & 0xfff))) {
        sk_gp(c);
    }
    if (!sk_lma(c) && (c->cr0 & SK_CR0_PG) && (v & SK_CR4_PAE) &&
        (diff & (SK_CR4_PAE | SK_CR4_PGE | SK_CR4_PSE | SK_CR4_SMEP))) {
        uint64_t old = c->cr4;

        c->cr4 = v;
        if (!sk_load_pdptes(c, c->cr3)) {
            c->cr4 = old;
            sk_gp(c);
        }
    }
    c->cr4 = v;
    if (diff & (SK_CR4_PAE | SK_CR4_PGE | SK_CR4_PSE | SK_CR4_SMEP | SK_CR4_SMAP | SK_CR4_PCIDE)) {
        sk_tlb_flush_all(c);
    }
    sk_mode_update(c);
}

uint64_t sk_cr8_read(struct sk_vcpu *c)
{
    return c->vm->ops->get_cr8 ? c->vm->ops->get_cr8(c) : c->cr8;
}

void sk_cr8_write(struct sk_vcpu *c, uint64_t v)
{
    if (v > 15) {
        sk_gp(c);
    }
    c->cr8 = v;
    if (c->vm->ops->set_cr8) {
        c->vm->ops->set_cr8(c, (uint8_t)v);
    }
    sk_poll_set(c, SK_POLL_INTR);
}

bool sk_xcr0_valid(const struct sk_vcpu *c, uint64_t v)
{
    uint64_t known = 3 | (sk_has(c, SK_F_AVX) ? 4u : 0u);

    return (v & 1) && !(v & ~known) && !((v & 4) && !(v & 2));
}

bool sk_efer_write(struct sk_vcpu *c, uint64_t v)
{
    uint64_t known = (sk_has(c, SK_F_SYSCALL) ? SK_EFER_SCE : 0u) |
                     (sk_has(c, SK_F_LM) ? SK_EFER_LME | SK_EFER_LMA : 0u) |
                     (sk_has(c, SK_F_NX) ? (uint64_t)SK_EFER_NXE : 0u);

    if (v & ~known) {
        return false;
    }
    if ((c->cr0 & SK_CR0_PG) && ((v ^ c->efer) & SK_EFER_LME)) {
        return false;
    }
    v = (v & ~(uint64_t)SK_EFER_LMA) | (c->efer & SK_EFER_LMA);
    if ((v ^ c->efer) & SK_EFER_NXE) {
        c->efer = v;
        sk_tlb_flush_all(c);
    }
    c->efer = v;
    return true;
}
