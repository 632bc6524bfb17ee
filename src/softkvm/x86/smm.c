/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Into and out of system management mode.
 *
 * The save area has one of two layouts. A guest with long mode in its CPUID gets AMD's 64-bit one
 * (APM 2 table 10-1), whichever vendor it is told: KVM's choice, and firmware for KVM knows it. Any
 * other gets the 32-bit one of the P6 family (SDM 3C table 32-1) with the hidden parts of segments
 * where KVM keeps them. Both begin 512 bytes below SMBASE + 10000h, and offsets are counted from
 * SMBASE + 8000h, as in those tables.
 */
#include "softkvm/x86/smm.h"

#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/crs.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mem.h"
#include "softkvm/x86/phys.h"

#define AREA 0x7e00
#define SIZE 512

enum { REVISION_64 = 0x20064, REVISION_32 = 0x20000 }; /* bit 17: SMBASE can be moved */

struct area {
    uint8_t b[SIZE];
};

static void put16(struct area *a, unsigned off, uint16_t v)
{
    le16_put(a->b + off - AREA, v);
}

static void put32(struct area *a, unsigned off, uint64_t v)
{
    le32_put(a->b + off - AREA, (uint32_t)v);
}

static void put64(struct area *a, unsigned off, uint64_t v)
{
    le64_put(a->b + off - AREA, v);
}

static uint16_t get16(const struct area *a, unsigned off)
{
    return le16_get(a->b + off - AREA);
}

static uint32_t get32(const struct area *a, unsigned off)
{
    return le32_get(a->b + off - AREA);
}

static uint64_t get64(const struct area *a, unsigned off)
{
    return le64_get(a->b + off - AREA);
}

/* A segment that cannot be used is one that is not present there. */
static uint16_t seg_attr(const struct sk_seg *s)
{
    uint32_t drop = s->attr & SK_ATTR_NULL ? (uint32_t)SK_ATTR_P : 0;

    return (uint16_t)(s->attr & 0xf0ff & ~drop);
}

static struct sk_seg seg_of(uint16_t sel, uint32_t attr, uint32_t limit, uint64_t base)
{
    attr &= 0xf0ff;
    return (struct sk_seg){ .sel = sel,
                            .attr = attr | (attr & SK_ATTR_P ? 0u : (uint32_t)SK_ATTR_NULL),
                            .limit = limit,
                            .base = base };
}

/* --- the 64-bit layout --- */

enum {
    L_SEG = 0x7e00, /* ES, CS, SS, DS, FS, GS: 16 bytes each */
    L_GDTR = 0x7e60,
    L_LDTR = 0x7e70,
    L_IDTR = 0x7e80,
    L_TR = 0x7e90,
    L_EFER = 0x7ed0,
    L_REVISION = 0x7efc,
    L_SMBASE = 0x7f00,
    L_CR4 = 0x7f48,
    L_CR3 = 0x7f50,
    L_CR0 = 0x7f58,
    L_DR7 = 0x7f60,
    L_DR6 = 0x7f68,
    L_RFLAGS = 0x7f70,
    L_RIP = 0x7f78,
    L_RAX = 0x7ff8 /* the others below it, R15 last */
};

static void put_seg64(struct area *a, unsigned off, const struct sk_seg *s)
{
    put16(a, off, s->sel);
    put16(a, off + 2, seg_attr(s));
    put32(a, off + 4, s->limit);
    put64(a, off + 8, s->base);
}

static struct sk_seg get_seg64(const struct area *a, unsigned off)
{
    return seg_of(get16(a, off), get16(a, off + 2), get32(a, off + 4), get64(a, off + 8));
}

static void put_table64(struct area *a, unsigned off, const struct sk_dtable *t)
{
    put32(a, off + 4, t->limit);
    put64(a, off + 8, t->base);
}

static struct sk_dtable get_table64(const struct area *a, unsigned off)
{
    return (struct sk_dtable){ .base = get64(a, off + 8), .limit = (uint16_t)get32(a, off + 4) };
}

static void save64(const struct sk_vcpu *c, struct area *a)
{
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        put_seg64(a, L_SEG + 16 * i, &c->seg[i]);
    }
    put_seg64(a, L_LDTR, &c->seg[SK_LDTR]);
    put_seg64(a, L_TR, &c->seg[SK_TR]);
    put_table64(a, L_GDTR, &c->gdtr);
    put_table64(a, L_IDTR, &c->idtr);
    put64(a, L_EFER, c->efer);
    put32(a, L_REVISION, REVISION_64);
    put32(a, L_SMBASE, c->smbase);
    put64(a, L_CR4, c->cr4);
    put64(a, L_CR3, c->cr3);
    put64(a, L_CR0, c->cr0);
    put64(a, L_DR7, c->dr[7]);
    put64(a, L_DR6, c->dr[6]);
    put32(a, L_RFLAGS, sk_flags_get(c));
    put64(a, L_RIP, c->r[SK_RIP]);
    for (unsigned i = 0; i < 16; i++) {
        put64(a, L_RAX - 8 * i, c->r[i]);
    }
}

/* --- the 32-bit layout --- */

enum {
    P_SMBASE = 0x7ef8,
    P_REVISION = 0x7efc,
    P_CR4 = 0x7f14,
    P_IDTR = 0x7f54, /* limit, base */
    P_TR = 0x7f5c,   /* attributes, limit, base; and so the others */
    P_GDTR = 0x7f70,
    P_LDTR = 0x7f78,
    P_SEL = 0x7fa8, /* ES, CS, SS, DS, FS, GS */
    P_LDTR_SEL = 0x7fc0,
    P_TR_SEL = 0x7fc4,
    P_DR7 = 0x7fc8,
    P_DR6 = 0x7fcc,
    P_EAX = 0x7fd0, /* the others above it, EDI last */
    P_EIP = 0x7ff0,
    P_EFLAGS = 0x7ff4,
    P_CR3 = 0x7ff8,
    P_CR0 = 0x7ffc
};

static unsigned seg_off32(unsigned i)
{
    return i < SK_DS ? 0x7f84 + 12 * i : 0x7f2c + 12 * (i - SK_DS);
}

static void put_seg32(struct area *a, unsigned sel_off, unsigned off, const struct sk_seg *s)
{
    put32(a, sel_off, s->sel);
    put32(a, off, (uint32_t)seg_attr(s) << 8);
    put32(a, off + 4, s->limit);
    put32(a, off + 8, s->base);
}

static struct sk_seg get_seg32(const struct area *a, unsigned sel_off, unsigned off)
{
    return seg_of((uint16_t)get32(a, sel_off), get32(a, off) >> 8, get32(a, off + 4),
                  get32(a, off + 8));
}

static void save32(const struct sk_vcpu *c, struct area *a)
{
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        put_seg32(a, P_SEL + 4 * i, seg_off32(i), &c->seg[i]);
    }
    put_seg32(a, P_LDTR_SEL, P_LDTR, &c->seg[SK_LDTR]);
    put_seg32(a, P_TR_SEL, P_TR, &c->seg[SK_TR]);
    put32(a, P_GDTR, c->gdtr.limit);
    put32(a, P_GDTR + 4, c->gdtr.base);
    put32(a, P_IDTR, c->idtr.limit);
    put32(a, P_IDTR + 4, c->idtr.base);
    put32(a, P_SMBASE, c->smbase);
    put32(a, P_REVISION, REVISION_32);
    put32(a, P_CR4, c->cr4);
    put32(a, P_DR7, c->dr[7]);
    put32(a, P_DR6, c->dr[6]);
    for (unsigned i = 0; i < 8; i++) {
        put32(a, P_EAX + 4 * i, c->r[i]);
    }
    put32(a, P_EIP, c->r[SK_RIP]);
    put32(a, P_EFLAGS, sk_flags_get(c));
    put32(a, P_CR3, c->cr3);
    put32(a, P_CR0, c->cr0);
}

/* --- in --- */

static void enter_segments(struct sk_vcpu *c)
{
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        c->seg[i] = (struct sk_seg){ .limit = 0xffffffff,
                                     .attr = SK_ATTR_G | SK_ATTR_P | SK_ATTR_S | SK_ATTR_WRITABLE |
                                             SK_ATTR_ACCESSED };
    }
    c->seg[SK_CS].sel = (uint16_t)(c->smbase >> 4);
    c->seg[SK_CS].base = c->smbase;
}

void sk_smm_enter(struct sk_vcpu *c)
{
    struct area a = { { 0 } };
    bool guarded = c->guarded;

    if (sk_has(c, SK_F_LM)) {
        save64(c, &a);
    } else {
        save32(c, &a);
    }
    c->in_smm = true;
    c->guarded = false; /* where there is no memory, the state is lost: the client's doing */
    sk_phys_write(c, c->smbase + 0x8000 + AREA, a.b, SIZE);
    c->guarded = guarded;
    c->smi_count++;
    c->smm_inside_nmi = c->nmi_masked;
    c->nmi_masked = true;
    c->special &= ~(uint32_t)(SK_SPECIAL_SHADOW_STI | SK_SPECIAL_SHADOW_SS);
    sk_flags_set(c, SK_FL_ONE);
    c->r[SK_RIP] = c->insn_rip = 0x8000;
    c->cpl = 0;
    c->cr0 &= ~(uint64_t)(SK_CR0_PE | SK_CR0_EM | SK_CR0_TS | SK_CR0_PG);
    c->cr4 = 0;
    c->dr[7] = 0x400;
    c->idtr = (struct sk_dtable){ 0 };
    enter_segments(c);
    if (sk_has(c, SK_F_LM)) {
        c->efer = 0;
    }
    sk_vcpu_changed(c); /* another mode, another address space */
}

/* --- out --- */

/* Control registers together: what MOV would accept one by one. `efer` without LMA. */
static bool leave_crs(struct sk_vcpu *c, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer)
{
    bool pg = cr0 & SK_CR0_PG, lm = pg && (efer & SK_EFER_LME);

    if ((cr0 >> 32) || (pg && !(cr0 & SK_CR0_PE)) || ((cr0 & SK_CR0_NW) && !(cr0 & SK_CR0_CD)) ||
        (cr4 & ~(sk_cr4_allowed(c) | 3)) || /* VME and PVI: a client may have set them */
        (lm && (!(cr4 & SK_CR4_PAE) || (cr3 & ~BIT64(63)) >> c->maxphyaddr)) ||
        (!lm && (cr4 & SK_CR4_PCIDE))) {
        return false;
    }
    c->cr0 &= ~(uint64_t)(SK_CR0_PG | SK_CR0_PE);
    c->efer &= ~(uint64_t)(SK_EFER_LME | SK_EFER_LMA);
    if (!sk_efer_write(c, efer)) {
        return false;
    }
    c->efer |= lm ? (uint64_t)SK_EFER_LMA : 0;
    c->cr0 = cr0 | SK_CR0_ET;
    c->cr3 = lm ? cr3 & ~BIT64(63) : cr3;
    c->cr4 = cr4;
    return !pg || lm || !(cr4 & SK_CR4_PAE) || sk_load_pdptes(c, cr3);
}

static bool leave_debug(struct sk_vcpu *c, uint64_t dr6, uint64_t dr7)
{
    if ((dr6 >> 32) || (dr7 >> 32)) {
        return false;
    }
    c->dr[6] = dr6 | 0xffff0ff0;
    c->dr[7] = dr7 | 0x400;
    return true;
}

static bool load64(struct sk_vcpu *c, const struct area *a)
{
    for (unsigned i = 0; i < 16; i++) {
        c->r[i] = get64(a, L_RAX - 8 * i);
    }
    c->r[SK_RIP] = get64(a, L_RIP);
    sk_flags_set(c, get32(a, L_RFLAGS));
    c->smbase = get32(a, L_SMBASE);
    c->seg[SK_TR] = get_seg64(a, L_TR);
    c->seg[SK_LDTR] = get_seg64(a, L_LDTR);
    c->gdtr = get_table64(a, L_GDTR);
    c->idtr = get_table64(a, L_IDTR);
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        c->seg[i] = get_seg64(a, L_SEG + 16 * i);
    }
    return leave_debug(c, get64(a, L_DR6), get64(a, L_DR7)) &&
           leave_crs(c, get64(a, L_CR0), get64(a, L_CR3), get64(a, L_CR4),
                     get64(a, L_EFER) & ~(uint64_t)SK_EFER_LMA);
}

static bool load32(struct sk_vcpu *c, const struct area *a)
{
    for (unsigned i = 0; i < 8; i++) {
        c->r[i] = get32(a, P_EAX + 4 * i);
    }
    c->r[SK_RIP] = get32(a, P_EIP);
    sk_flags_set(c, get32(a, P_EFLAGS));
    c->smbase = get32(a, P_SMBASE);
    c->seg[SK_TR] = get_seg32(a, P_TR_SEL, P_TR);
    c->seg[SK_LDTR] = get_seg32(a, P_LDTR_SEL, P_LDTR);
    c->gdtr =
        (struct sk_dtable){ .base = get32(a, P_GDTR + 4), .limit = (uint16_t)get32(a, P_GDTR) };
    c->idtr =
        (struct sk_dtable){ .base = get32(a, P_IDTR + 4), .limit = (uint16_t)get32(a, P_IDTR) };
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        c->seg[i] = get_seg32(a, P_SEL + 4 * i, seg_off32(i));
    }
    return leave_debug(c, get32(a, P_DR6), get32(a, P_DR7)) &&
           leave_crs(c, get32(a, P_CR0), get32(a, P_CR3), get32(a, P_CR4), c->efer);
}

static uint8_t leave_cpl(const struct sk_vcpu *c)
{
    return !sk_pe(c) ? 0 : sk_v86(c) ? 3 : (c->seg[SK_SS].attr >> SK_ATTR_DPL_SHIFT) & 3;
}

void sk_smm_leave(struct sk_vcpu *c)
{
    struct area a;
    bool ok;

    sk_phys_read(c, c->smbase + 0x8000 + AREA, a.b, SIZE);
    if (!c->smm_inside_nmi) {
        c->nmi_masked = false;
    }
    c->in_smm = c->smm_inside_nmi = false;
    ok = sk_has(c, SK_F_LM) ? load64(c, &a) : load32(c, &a);
    c->cpl = leave_cpl(c);
    sk_vcpu_changed(c);
    if (!ok) {
        c->exit.kind = SK_EXIT_SHUTDOWN;
        return;
    }
    /* What waited for the end of it. */
    sk_poll_set(c, SK_POLL_NMI | SK_POLL_INTR | (c->smi_pending ? (uint32_t)SK_POLL_SMI : 0) |
                       (c->init_latched ? (uint32_t)SK_POLL_INIT : 0));
    c->init_latched = false;
}
