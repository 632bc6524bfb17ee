/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System instructions: descriptor tables, SYSCALL and SYSENTER, MSRs, CPUID, TSC, halts, fences.
 */
#include <sys/random.h>
#include <x86intrin.h>

#include "softkvm/run/blocks.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/crs.h"
#include "softkvm/x86/msr.h"
#include "softkvm/x86/ops/ops.h"
#include "softkvm/x86/seg.h"
#include "softkvm/x86/smm.h"
#include "softkvm/x86/tsc.h"

static void need_cpl0(struct sk_vcpu *c)
{
    if (c->cpl != 0) {
        sk_gp(c);
    }
}

static void need_umip(struct sk_vcpu *c)
{
    if (c->cpl != 0 && (c->cr4 & SK_CR4_UMIP)) {
        sk_gp(c);
    }
}

static uint16_t sys_sel(struct sk_vcpu *c, const struct sk_insn *in)
{
    return in->flags & SK_IN_MEM ? sk_ld16(c, in) : (uint16_t)c->r[in->rm];
}

/* SLDT, STR, SMSW: 16 bits to memory, the operand size to a register. */
static void sys_store(struct sk_vcpu *c, const struct sk_insn *in, uint64_t v)
{
    if (in->flags & SK_IN_MEM) {
        sk_st16(c, in, (uint16_t)v);
    } else {
        sk_set_reg(c, in->rm, in->osize, v);
    }
}

OP(op_sldt)
{
    need_umip(c);
    sys_store(c, in, c->seg[SK_LDTR].sel);
}
SK_HANDLER1(sldt, op_sldt);

OP(op_str)
{
    need_umip(c);
    sys_store(c, in, c->seg[SK_TR].sel);
}
SK_HANDLER1(str, op_str);

OP(op_lldt)
{
    need_cpl0(c);
    sk_seg_lldt(c, sys_sel(c, in), SK_GP);
    sk_blocks_serialise(c);
}
SK_HANDLER1(lldt, op_lldt);

OP(op_ltr)
{
    need_cpl0(c);
    sk_seg_ltr(c, sys_sel(c, in));
    sk_blocks_serialise(c);
}
SK_HANDLER1(ltr, op_ltr);

static void sys_zf(struct sk_vcpu *c, bool set)
{
    c->af = (uint16_t)((c->af & ~SK_AF_ZF) | (set ? SK_AF_ZF : 0));
}

/* Privilege part of LAR, LSL, VERR, VERW. */
static bool sys_visible(const struct sk_vcpu *c, const struct sk_desc *d, uint16_t sel)
{
    if (sk_desc_s(d) && sk_desc_code(d) && sk_desc_conforming(d)) {
        return true;
    }
    return sk_desc_dpl(d) >= c->cpl && sk_desc_dpl(d) >= (sel & 3u);
}

OP(op_verr)
{
    uint16_t sel = sys_sel(c, in);
    struct sk_desc d;
    bool ok = (sel & ~3u) && sk_desc_read(c, sel, &d) && sk_desc_s(&d) && sys_visible(c, &d, sel);

    if (ok && (in->reg & 7) == 5) { /* VERW */
        ok = !sk_desc_code(&d) && (sk_desc_type(&d) & 2);
    } else if (ok) {
        ok = !sk_desc_code(&d) || (sk_desc_type(&d) & 2);
    }
    sys_zf(c, ok);
}
SK_HANDLER1(verr, op_verr);

/* Types LAR accepts among system descriptors; LSL those of them with a limit. */
static bool sys_type_ok(const struct sk_vcpu *c, unsigned type, bool lsl)
{
    unsigned ok = sk_lma(c) ? (lsl ? 0x0a04u : 0x1a04u) : (lsl ? 0x0a0eu : 0x1a3eu);

    return (ok >> type) & 1;
}

OP(op_lar)
{
    uint16_t sel = sys_sel(c, in);
    struct sk_desc d;
    bool ok = (sel & ~3u) && sk_desc_read(c, sel, &d) &&
              (sk_desc_s(&d) || sys_type_ok(c, sk_desc_type(&d), false)) && sys_visible(c, &d, sel);

    if (ok) {
        sk_set_reg(c, in->reg, in->osize, d.hi & 0x00ffff00);
    }
    sys_zf(c, ok);
}
SK_HANDLER1(lar, op_lar);

OP(op_lsl)
{
    uint16_t sel = sys_sel(c, in);
    struct sk_desc d;
    struct sk_seg s;
    bool ok = (sel & ~3u) && sk_desc_read(c, sel, &d) &&
              (sk_desc_s(&d) || sys_type_ok(c, sk_desc_type(&d), true)) && sys_visible(c, &d, sel);

    if (ok) {
        sk_desc_to_seg(&d, sel, &s);
        sk_set_reg(c, in->reg, in->osize, s.limit);
    }
    sys_zf(c, ok);
}
SK_HANDLER1(lsl, op_lsl);

OP(op_arpl)
{
    uint16_t d = sys_sel(c, in), rpl = c->r[in->reg] & 3;
    bool adjust = (d & 3) < rpl;

    if (in->flags & SK_IN_MEM) {
        sk_st16(c, in, (uint16_t)(adjust ? (d & ~3) | rpl : d));
    } else if (adjust) {
        *sk_r16(c, in->rm) = (uint16_t)((d & ~3) | rpl);
    }
    sys_zf(c, adjust);
}
SK_HANDLER1(arpl, op_arpl);

static void sys_store_table(struct sk_vcpu *c, const struct sk_insn *in, const struct sk_dtable *t)
{
    uint8_t b[10];

    need_umip(c);
    memcpy(b, &t->limit, 2);
    memcpy(b + 2, &t->base, 8);
    sk_st_bytes(c, in, b, sk_code64(c) ? 10 : 6);
}

OP(op_sgdt)
{
    sys_store_table(c, in, &c->gdtr);
}
SK_HANDLER1(sgdt, op_sgdt);

OP(op_sidt)
{
    sys_store_table(c, in, &c->idtr);
}
SK_HANDLER1(sidt, op_sidt);

static void sys_load_table(struct sk_vcpu *c, const struct sk_insn *in, struct sk_dtable *t)
{
    uint8_t b[10] = { 0 };
    uint64_t base;

    need_cpl0(c);
    sk_ld_bytes(c, in, b, sk_code64(c) ? 10 : 6);
    memcpy(&base, b + 2, 8);
    if (sk_code64(c)) {
        if ((uint64_t)((int64_t)(base << 16) >> 16) != base) {
            sk_gp(c);
        }
    } else if (in->osize == 2) {
        base &= 0xffffff;
    }
    t->base = base;
    memcpy(&t->limit, b, 2);
    sk_blocks_serialise(c);
}

OP(op_lgdt)
{
    sys_load_table(c, in, &c->gdtr);
}
SK_HANDLER1(lgdt, op_lgdt);

OP(op_lidt)
{
    sys_load_table(c, in, &c->idtr);
}
SK_HANDLER1(lidt, op_lidt);

OP(op_smsw)
{
    need_umip(c);
    sys_store(c, in, c->cr0);
}
SK_HANDLER1(smsw, op_smsw);

OP(op_lmsw)
{
    uint64_t v;

    need_cpl0(c);
    v = sys_sel(c, in);
    /* PE can be set but not cleared. */
    sk_cr0_write(c, (c->cr0 & ~UINT64_C(14)) | (v & 15));
    sk_blocks_serialise(c);
}
SK_HANDLER1(lmsw, op_lmsw);

OP(op_clts)
{
    (void)in;
    need_cpl0(c);
    c->cr0 &= ~UINT64_C(8);
    sk_mode_update(c);
}
SK_HANDLER1(clts, op_clts);

OP(op_mov_R_C)
{
    uint64_t v;

    need_cpl0(c);
    switch (in->reg) {
    case 0:
        v = c->cr0;
        break;
    case 2:
        v = c->cr2;
        break;
    case 3:
        v = c->cr3;
        break;
    case 4:
        v = c->cr4;
        break;
    default:
        v = sk_cr8_read(c);
        break;
    }
    sk_set_reg(c, in->rm, in->osize, v);
}
SK_HANDLER1(mov_R_C, op_mov_R_C);

OP(op_mov_C_R)
{
    uint64_t v = in->osize == 8 ? c->r[in->rm] : (uint32_t)c->r[in->rm];

    need_cpl0(c);
    switch (in->reg) {
    case 0:
        sk_cr0_write(c, v);
        break;
    case 2:
        c->cr2 = v;
        break;
    case 3:
        sk_cr3_write(c, v);
        break;
    case 4:
        sk_cr4_write(c, v);
        break;
    default:
        sk_cr8_write(c, v);
        return; /* the one that does not serialise */
    }
    sk_blocks_serialise(c);
}
SK_HANDLER1(mov_C_R, op_mov_C_R);

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE; GD traps every access (SDM 3B §17.2). */
static unsigned sys_dr(struct sk_vcpu *c, const struct sk_insn *in)
{
    unsigned n = in->reg;

    if ((n == 4 || n == 5) && (c->cr4 & SK_CR4_DE)) {
        sk_ud(c);
    }
    need_cpl0(c);
    if (sk_debug_regs(c)[7] & 0x2000) {
        sk_raise_db(c, BIT(13));
    }
    return n == 4 || n == 5 ? n + 2 : n;
}

OP(op_mov_R_D)
{
    unsigned n = sys_dr(c, in);

    sk_set_reg(c, in->rm, in->osize, c->dr[n]);
}
SK_HANDLER1(mov_R_D, op_mov_R_D);

OP(op_mov_D_R)
{
    unsigned n = sys_dr(c, in);
    uint64_t v = in->osize == 8 ? c->r[in->rm] : (uint32_t)c->r[in->rm];

    if (n >= 6 && (v >> 32)) {
        sk_gp(c);
    }
    if (n == 6) {
        v = (v & 0xe00f) | 0xffff0ff0;
    } else if (n == 7) {
        v = (v & 0xffff2bff) | 0x400;
    }
    c->dr[n] = v;
    sk_blocks_serialise(c);
    if (n == 7) {
        sk_special_update(c);
        sk_mode_update(c);
    }
}
SK_HANDLER1(mov_D_R, op_mov_D_R);

OP(op_invlpg)
{
    need_cpl0(c);
    sk_tlb_flush_page(c, (c->seg[in->seg].ebase + sk_ea(c, in)) & c->linmask);
}
SK_HANDLER1(invlpg, op_invlpg);

/* INVPCID (SDM 2A). Translations are not tagged, so the coarse answers are right. */
OP(op_invpcid)
{
    uint64_t d[2], type = in->osize == 8 ? c->r[in->reg] : (uint32_t)c->r[in->reg];

    need_cpl0(c);
    sk_ld_bytes(c, in, d, 16);
    if (type > 3 || (type <= 1 && (d[0] >> 12)) ||
        (type <= 1 && !(c->cr4 & SK_CR4_PCIDE) && (d[0] & 0xfff)) ||
        (type == 0 && (uint64_t)((int64_t)(d[1] << 16) >> 16) != d[1])) {
        sk_gp(c);
    }
    if (type == 0) {
        sk_tlb_flush_page(c, d[1]);
    } else {
        sk_tlb_flush_all(c);
    }
}
SK_HANDLER1(invpcid, op_invpcid);

OP(op_wbinvd)
{
    (void)in;
    need_cpl0(c);
    sk_blocks_serialise(c);
}
SK_HANDLER1(wbinvd, op_wbinvd);

/* Faults as a load of the byte would; nothing to write back. */
OP(op_clflush)
{
    (void)sk_ld8(c, in);
}
SK_HANDLER1(clflush, op_clflush);

OP(op_clzero)
{
    static const uint8_t zero[64];
    uint64_t off = (c->r[SK_RAX] << in->ash >> in->ash) & ~UINT64_C(63);

    sk_st_slow(c, sk_seg_lin(c, in->seg, off, 64, true), zero, 64, SK_ACC_WRITE);
}
SK_HANDLER1(clzero, op_clzero);

OP(op_serialize)
{
    (void)in;
    sk_blocks_serialise(c);
}
SK_HANDLER1(serialize, op_serialize);

OP(op_hlt)
{
    (void)in;
    need_cpl0(c);
    c->leave = 1;
    if (c->vm->ops->halt) {
        c->mp_state = SK_MP_HALTED;
        sk_poll_set(c, SK_POLL_INTR); /* one more look before sleeping */
    } else {
        c->exit.kind = SK_EXIT_HLT;
    }
}
SK_HANDLER1(hlt, op_hlt);

OP(op_cli)
{
    (void)in;
    if (sk_pe(c) && c->cpl > sk_iopl(c)) {
        sk_gp(c);
    }
    c->eflags &= ~(uint32_t)SK_FL_IF;
}
SK_HANDLER1(cli, op_cli);

OP(op_sti)
{
    (void)in;
    if (sk_pe(c) && c->cpl > sk_iopl(c)) {
        sk_gp(c);
    }
    if (!(c->eflags & SK_FL_IF)) {
        c->eflags |= SK_FL_IF;
        c->special |= SK_SPECIAL_SHADOW_STI;
        sk_poll_set(c, SK_POLL_INTR);
    }
}
SK_HANDLER1(sti, op_sti);

static void sys_set_ac(struct sk_vcpu *c, uint32_t ac)
{
    if (c->cpl != 0) {
        sk_ud(c);
    }
    c->eflags = (c->eflags & ~(uint32_t)SK_FL_AC) | ac;
    sk_mode_update(c);
}

OP(op_clac)
{
    (void)in;
    sys_set_ac(c, 0);
}
SK_HANDLER1(clac, op_clac);

OP(op_stac)
{
    (void)in;
    sys_set_ac(c, SK_FL_AC);
}
SK_HANDLER1(stac, op_stac);

OP(op_cpuid)
{
    uint32_t r[4];

    (void)in;
    if ((c->misc_features & 1) && c->cpl != 0) {
        sk_gp(c); /* CPUID faulting */
    }
    sk_cpuid_get(c, (uint32_t)c->r[SK_RAX], (uint32_t)c->r[SK_RCX], r);
    sk_set32(c, SK_RAX, r[0]);
    sk_set32(c, SK_RBX, r[1]);
    sk_set32(c, SK_RCX, r[2]);
    sk_set32(c, SK_RDX, r[3]);
    sk_blocks_serialise(c); /* serialising */
}
SK_HANDLER1(cpuid, op_cpuid);

static void sys_edx_eax(struct sk_vcpu *c, uint64_t v)
{
    sk_set32(c, SK_RAX, (uint32_t)v);
    sk_set32(c, SK_RDX, (uint32_t)(v >> 32));
}

static uint64_t sys_get_edx_eax(const struct sk_vcpu *c)
{
    return c->r[SK_RDX] << 32 | (uint32_t)c->r[SK_RAX];
}

OP(op_rdtsc)
{
    (void)in;
    if (c->cpl != 0 && (c->cr4 & SK_CR4_TSD)) {
        sk_gp(c);
    }
    _mm_lfence(); /* not before the guest's earlier loads: two CPUs compare what they read */
    sys_edx_eax(c, sk_tsc_now(c));
}
SK_HANDLER1(rdtsc, op_rdtsc);

OP(op_rdtscp)
{
    op_rdtsc(c, in);
    sk_set32(c, SK_RCX, (uint32_t)c->tsc_aux);
}
SK_HANDLER1(rdtscp, op_rdtscp);

OP(op_rdpid)
{
    c->r[in->rm] = (uint32_t)c->tsc_aux;
}
SK_HANDLER1(rdpid, op_rdpid);

/* No performance counters exist. */
OP(op_rdpmc)
{
    (void)in;
    sk_gp(c);
}
SK_HANDLER1(rdpmc, op_rdpmc);

/* Leaves for the client with c->msr filled, or faults. */
static void sys_msr_result(struct sk_vcpu *c, int r)
{
    if (r == 2) {
        c->exit.kind = SK_EXIT_MSR;
        c->msr_len = c->cur->len;
        sk_leave_unfinished(c);
    }
    if (r != 0) {
        sk_gp(c);
    }
}

OP(op_rdmsr)
{
    uint64_t v = 0;

    (void)in;
    need_cpl0(c);
    sys_msr_result(c, sk_msr_read(c, (uint32_t)c->r[SK_RCX], &v, false));
    sys_edx_eax(c, v);
}
SK_HANDLER1(rdmsr, op_rdmsr);

/* SPEC_CTRL, PRED_CMD, TSC_DEADLINE, x2APIC: SDM 3A §8.3 (2023-12). */
static bool sys_wrmsr_serialises(uint32_t index)
{
    return index != 0x48 && index != 0x49 && index != 0x6e0 && (index & ~0x3fu) != 0x800;
}

OP(op_wrmsr)
{
    uint32_t index = (uint32_t)c->r[SK_RCX];

    (void)in;
    need_cpl0(c);
    sys_msr_result(c, sk_msr_write(c, index, sys_get_edx_eax(c), false));
    if (sys_wrmsr_serialises(index)) {
        sk_blocks_serialise(c);
    }
}
SK_HANDLER1(wrmsr, op_wrmsr);

OP(op_xgetbv)
{
    uint32_t n = (uint32_t)c->r[SK_RCX];

    (void)in;
    if (!(c->cr4 & SK_CR4_OSXSAVE)) {
        sk_ud(c);
    }
    if (n == 0) {
        sys_edx_eax(c, c->xcr0);
    } else if (n == 1 && sk_has(c, SK_F_XGETBV1)) {
        sys_edx_eax(c, c->xcr0 & c->xs.xstate_bv);
    } else {
        sk_gp(c);
    }
}
SK_HANDLER1(xgetbv, op_xgetbv);

OP(op_xsetbv)
{
    uint64_t v = sys_get_edx_eax(c);

    (void)in;
    if (!(c->cr4 & SK_CR4_OSXSAVE)) {
        sk_ud(c);
    }
    need_cpl0(c);
    if ((uint32_t)c->r[SK_RCX] != 0 || !sk_xcr0_valid(c, v)) {
        sk_gp(c);
    }
    c->xcr0 = v;
    sk_mode_update(c);
}
SK_HANDLER1(xsetbv, op_xsetbv);

OP(op_swapgs)
{
    uint64_t t = c->seg[SK_GS].base;

    (void)in;
    need_cpl0(c);
    c->seg[SK_GS].base = c->kernel_gs_base;
    c->seg[SK_GS].ebase = c->kernel_gs_base;
    c->kernel_gs_base = t;
}
SK_HANDLER1(swapgs, op_swapgs);

static void sys_fsgsbase(struct sk_vcpu *c)
{
    if (!(c->cr4 & SK_CR4_FSGSBASE)) {
        sk_ud(c);
    }
}

#define FSGSBASE(name, seg_)                                                                       \
    OP(op_rd##name)                                                                                \
    {                                                                                              \
        sys_fsgsbase(c);                                                                           \
        sk_set_reg(c, in->rm, in->osize == 8 ? 8 : 4, c->seg[seg_].base);                          \
    }                                                                                              \
    SK_HANDLER1(rd##name, op_rd##name);                                                            \
    OP(op_wr##name)                                                                                \
    {                                                                                              \
        uint64_t v = in->osize == 8 ? c->r[in->rm] : (uint32_t)c->r[in->rm];                       \
                                                                                                   \
        sys_fsgsbase(c);                                                                           \
        if ((uint64_t)((int64_t)(v << 16) >> 16) != v) {                                           \
            sk_gp(c);                                                                              \
        }                                                                                          \
        c->seg[seg_].base = c->seg[seg_].ebase = v;                                                \
    }                                                                                              \
    SK_HANDLER1(wr##name, op_wr##name)
FSGSBASE(fsbase, SK_FS);
FSGSBASE(gsbase, SK_GS);

/* Flat segments that SYSCALL, SYSRET, SYSENTER and SYSEXIT load. */
static void sys_flat(struct sk_vcpu *c, uint16_t cs, uint16_t ss, unsigned cpl, bool l)
{
    uint32_t dpl = cpl << SK_ATTR_DPL_SHIFT;

    c->seg[SK_CS] =
        (struct sk_seg){ .sel = (uint16_t)((cs & ~3u) | cpl),
                         .limit = 0xffffffff,
                         .attr = 0x9b | dpl | SK_ATTR_G | (l ? SK_ATTR_L : SK_ATTR_DB) };
    c->seg[SK_SS] = (struct sk_seg){ .sel = (uint16_t)((ss & ~3u) | cpl),
                                     .limit = 0xffffffff,
                                     .attr = 0x93 | dpl | SK_ATTR_G | SK_ATTR_DB };
    c->cpl = (uint8_t)cpl;
}

OP(op_syscall)
{
    uint32_t fl = sk_flags_get(c) & ~(uint32_t)SK_FL_RF;

    (void)in;
    if (!(c->efer & 1) || !sk_protected(c)) {
        sk_ud(c);
    }
    if (sk_lma(c)) {
        bool from64 = sk_code64(c);

        c->r[SK_RCX] = c->r[SK_RIP];
        c->r[11] = fl;
        c->r[SK_RIP] = from64 ? c->lstar : c->cstar;
        sys_flat(c, (uint16_t)(c->star >> 32), (uint16_t)((c->star >> 32) + 8), 0, true);
        sk_flags_set(c, fl & ~(uint32_t)c->sfmask);
    } else {
        c->r[SK_RCX] = (uint32_t)c->r[SK_RIP];
        c->r[SK_RIP] = (uint32_t)c->star;
        sys_flat(c, (uint16_t)(c->star >> 32), (uint16_t)((c->star >> 32) + 8), 0, false);
        sk_flags_set(c, fl & ~(uint32_t)(SK_FL_IF | SK_FL_VM));
    }
    if ((c->eflags & SK_FL_TF) == 0) {
        c->delivered = true; /* the trap goes by TF as SYSCALL leaves it */
    }
    c->special |= c->eflags & SK_FL_TF ? SK_SPECIAL_TF : 0;
    sk_mode_update(c);
}
SK_HANDLER1(syscall, op_syscall);

OP(op_sysret)
{
    uint16_t sel = (uint16_t)(c->star >> 48);
    uint32_t old = c->eflags;

    if (!(c->efer & 1) || !sk_protected(c)) {
        sk_ud(c);
    }
    need_cpl0(c);
    if (sk_lma(c)) {
        if (in->flags & SK_IN_W) {
            if ((uint64_t)((int64_t)(c->r[SK_RCX] << 16) >> 16) != c->r[SK_RCX]) {
                sk_gp(c);
            }
            c->r[SK_RIP] = c->r[SK_RCX];
            sys_flat(c, (uint16_t)(sel + 16), (uint16_t)(sel + 8), 3, true);
        } else {
            c->r[SK_RIP] = (uint32_t)c->r[SK_RCX];
            sys_flat(c, sel, (uint16_t)(sel + 8), 3, false);
        }
        sk_flags_set(c, ((uint32_t)c->r[11] & 0x3c7fd7) | SK_FL_ONE);
    } else {
        c->r[SK_RIP] = (uint32_t)c->r[SK_RCX];
        sys_flat(c, sel, (uint16_t)(sel + 8), 3, false);
        c->eflags |= SK_FL_IF;
    }
    if (!(old & SK_FL_IF) && (c->eflags & SK_FL_IF)) {
        sk_poll_set(c, SK_POLL_INTR);
    }
    sk_mode_update(c);
    if (c->eflags & SK_FL_TF) { /* traps at once, unlike POPF: TF as SYSRET leaves it */
        c->db_pending |= BIT(14);
        c->special |= SK_SPECIAL_DB;
    }
}
SK_HANDLER1(sysret, op_sysret);

OP(op_sysenter)
{
    uint16_t cs = (uint16_t)(c->sysenter_cs & 0xfffc);

    (void)in;
    if (!sk_pe(c) || cs == 0) {
        sk_gp(c);
    }
    sk_flags_set(c, sk_flags_get(c) & ~(uint32_t)(SK_FL_VM | SK_FL_IF | SK_FL_RF));
    sys_flat(c, cs, (uint16_t)(cs + 8), 0, sk_lma(c));
    c->r[SK_RSP] = sk_lma(c) ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
    c->r[SK_RIP] = sk_lma(c) ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
    sk_mode_update(c);
}
SK_HANDLER1(sysenter, op_sysenter);

OP(op_sysexit)
{
    uint16_t cs = (uint16_t)(c->sysenter_cs & 0xfffc);
    bool wide = in->flags & SK_IN_W;

    if (!sk_pe(c) || c->cpl != 0 || cs == 0) {
        sk_gp(c);
    }
    if (wide) {
        if ((uint64_t)((int64_t)(c->r[SK_RCX] << 16) >> 16) != c->r[SK_RCX] ||
            (uint64_t)((int64_t)(c->r[SK_RDX] << 16) >> 16) != c->r[SK_RDX]) {
            sk_gp(c);
        }
        sys_flat(c, (uint16_t)(cs + 32), (uint16_t)(cs + 40), 3, true);
        c->r[SK_RIP] = c->r[SK_RDX];
        c->r[SK_RSP] = c->r[SK_RCX];
    } else {
        sys_flat(c, (uint16_t)(cs + 16), (uint16_t)(cs + 24), 3, false);
        c->r[SK_RIP] = (uint32_t)c->r[SK_RDX];
        c->r[SK_RSP] = (uint32_t)c->r[SK_RCX];
    }
    sk_mode_update(c);
}
SK_HANDLER1(sysexit, op_sysexit);

/* Where CPUID hides them, MONITOR and MWAIT do nothing, as under KVM; or, if the client says so,
 * they raise #UD. True: nothing to do. */
static bool sys_mwait_hidden(struct sk_vcpu *c)
{
    if (sk_cpuid_has_mwait(c)) {
        return false;
    }
    if (atomic_load_explicit(&c->vm->quirks_off, memory_order_relaxed) & SK_QUIRK_MWAIT_NEVER_UD) {
        sk_ud(c);
    }
    return true;
}

/* Arms nothing: MWAIT returns at once, which the manual allows. */
OP(op_monitor)
{
    if (sys_mwait_hidden(c)) {
        return;
    }
    if (c->cpl != 0) {
        sk_ud(c);
    }
    if ((uint32_t)c->r[SK_RCX] != 0) {
        sk_gp(c);
    }
    (void)sk_ld_seg8(c, in->seg, c->r[SK_RAX] << in->ash >> in->ash);
}
SK_HANDLER1(monitor, op_monitor);

OP(op_mwait)
{
    (void)in;
    if (!sys_mwait_hidden(c) && c->cpl != 0) {
        sk_ud(c);
    }
}
SK_HANDLER1(mwait, op_mwait);

OP(op_vmcall)
{
    (void)in;
    if (c->vm->ops->hypercall && c->vm->ops->hypercall(c)) {
        return;
    }
    if (c->exit.kind == SK_EXIT_HYPERCALL) {
        return; /* RAX comes from the client */
    }
    c->r[SK_RAX] = (uint64_t)-1000; /* -KVM_ENOSYS */
}
SK_HANDLER1(vmcall, op_vmcall);

OP(op_rsm)
{
    (void)in;
    if (!c->in_smm) {
        sk_ud(c);
    }
    sk_smm_leave(c);
}
SK_HANDLER1(rsm, op_rsm);

OP(op_fwait)
{
    (void)in;
    if ((c->cr0 & 10) == 10) { /* MP and TS */
        sk_raise(c, SK_NM);
    }
    if (c->xs.fsw & 0x80) {
        sk_raise(c, SK_MF);
    }
}
SK_HANDLER1(fwait, op_fwait);

/* RDRAND and RDSEED: the host kernel's generator. It can fail only before it is seeded; then CF
 * says so. */
OP(op_rdrand)
{
    uint64_t v = 0;

    if (getrandom(&v, sizeof(v), GRND_NONBLOCK) != sizeof(v)) {
        c->af = 0;
        sk_set_reg(c, in->rm, in->osize, 0);
        return;
    }
    sk_set_reg(c, in->rm, in->osize, v);
    c->af = SK_AF_CF;
}
SK_HANDLER1(rdrand, op_rdrand);
