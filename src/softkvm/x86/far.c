/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Far jumps, calls, returns and IRET. Everything is checked and every stack access made before the
 * first register changes.
 */
#include "softkvm/x86/flags.h"
#include "softkvm/x86/seg.h"

void sk_far_check_rip(struct sk_vcpu *c, const struct sk_seg *cs, uint64_t off)
{
    if (sk_lma(c) && (cs->attr & SK_ATTR_L)) {
        if ((uint64_t)((int64_t)(off << 16) >> 16) != off) {
            sk_gp(c);
        }
    } else if (off > cs->limit) {
        sk_gp(c);
    }
}

void sk_far_commit_cs(struct sk_vcpu *c, const struct sk_seg *cs, unsigned cpl, uint64_t rip)
{
    c->seg[SK_CS] = *cs;
    c->seg[SK_CS].attr |= SK_ATTR_ACCESSED;
    c->cpl = (uint8_t)cpl;
    c->r[SK_RIP] = rip;
    sk_mode_update(c);
}

/* Real and virtual 8086 mode: new CS = sel * 16. */
static void far_real(struct sk_vcpu *c, uint16_t sel, uint64_t off)
{
    if (off > c->seg[SK_CS].limit) {
        sk_gp(c);
    }
    sk_seg_load_real(c, SK_CS, sel);
    c->r[SK_RIP] = off;
    sk_mode_update(c);
}

static uint64_t far_cut(uint64_t off, unsigned osize)
{
    return osize == 2 ? (uint16_t)off : osize == 4 ? (uint32_t)off : off;
}

/* Direct transfer to a code segment by JMP or CALL: privilege rules; the hidden part. */
static void far_direct(struct sk_vcpu *c, struct sk_desc *d, uint16_t sel, struct sk_seg *ret)
{
    bool conf = sk_desc_conforming(d);
    unsigned dpl = sk_desc_dpl(d);

    if (conf ? dpl > c->cpl : ((sel & 3u) > c->cpl || dpl != c->cpl)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (sk_lma(c) && sk_desc_l(d) && sk_desc_db(d)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (!sk_desc_p(d)) {
        sk_raise_err(c, SK_NP, sel & 0xfffcu);
    }
    sk_desc_to_seg(d, (uint16_t)((sel & ~3u) | c->cpl), ret);
}

struct far_gate {
    uint16_t sel;
    uint64_t off;
    unsigned size; /* of pushes */
    unsigned params;
    struct sk_desc cs;
};

/* A call gate and the code segment behind it. */
static void far_read_gate(struct sk_vcpu *c, struct sk_desc *d, uint16_t sel, struct far_gate *ret)
{
    unsigned type = sk_desc_type(d), dpl = sk_desc_dpl(d);

    if (dpl < c->cpl || dpl < (sel & 3u)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (!sk_desc_p(d)) {
        sk_raise_err(c, SK_NP, sel & 0xfffcu);
    }
    ret->sel = (uint16_t)(d->lo >> 16);
    ret->off = (d->lo & 0xffff) | (type == SK_T_CALL32 ? d->hi & 0xffff0000 : 0);
    ret->params = d->hi & 31;
    ret->size = type == SK_T_CALL32 ? 4 : 2;
    if (sk_lma(c)) {
        if (!sk_desc_read_high(c, sel, d)) {
            sk_raise_err(c, SK_GP, sel & 0xfffcu);
        }
        ret->off |= (uint64_t)d->base_hi << 32;
        ret->size = 8;
        ret->params = 0;
    }
    if ((ret->sel & ~3u) == 0) {
        sk_gp(c);
    }
    if (!sk_desc_read(c, ret->sel, &ret->cs) || !sk_desc_s(&ret->cs) || !sk_desc_code(&ret->cs) ||
        sk_desc_dpl(&ret->cs) > c->cpl ||
        (sk_lma(c) && (!sk_desc_l(&ret->cs) || sk_desc_db(&ret->cs)))) {
        sk_raise_err(c, SK_GP, ret->sel & 0xfffcu);
    }
    if (!sk_desc_p(&ret->cs)) {
        sk_raise_err(c, SK_NP, ret->sel & 0xfffcu);
    }
}

/* What a system descriptor named by a far JMP or CALL leads to; #GP for the rest. */
static unsigned far_system_type(struct sk_vcpu *c, const struct sk_desc *d, uint16_t sel)
{
    unsigned type = sk_desc_type(d);

    if (sk_lma(c) ? type == SK_T_CALL32
                  : type == SK_T_CALL16 || type == SK_T_CALL32 || type == SK_T_TASK ||
                        type == SK_T_TSS16 || type == SK_T_TSS32) {
        return type;
    }
    sk_raise_err(c, SK_GP, sel & 0xfffcu);
}

/* JMP or CALL through a task gate or to a TSS. */
static void far_task(struct sk_vcpu *c, const struct sk_desc *d, uint16_t sel, bool call)
{
    unsigned dpl = sk_desc_dpl(d);
    uint16_t tss = sel;

    if (dpl < c->cpl || dpl < (sel & 3u)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (sk_desc_type(d) == SK_T_TASK) {
        if (!sk_desc_p(d)) {
            sk_raise_err(c, SK_NP, sel & 0xfffcu);
        }
        tss = (uint16_t)(d->lo >> 16);
    }
    sk_task_switch(c, tss, call ? SK_TASK_CALL : SK_TASK_JMP, false, 0, c->r[SK_RIP], 0);
}

static void far_read_target(struct sk_vcpu *c, uint16_t sel, struct sk_desc *d)
{
    if ((sel & ~3u) == 0) {
        sk_gp(c);
    }
    if (!sk_desc_read(c, sel, d)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
}

void sk_far_jmp(struct sk_vcpu *c, uint16_t sel, uint64_t off, unsigned osize)
{
    struct sk_desc d;
    struct sk_seg cs;
    struct far_gate g;
    unsigned type;

    off = far_cut(off, osize);
    if (!sk_protected(c)) {
        far_real(c, sel, off);
        return;
    }
    far_read_target(c, sel, &d);
    if (sk_desc_s(&d)) {
        if (!sk_desc_code(&d)) {
            sk_raise_err(c, SK_GP, sel & 0xfffcu);
        }
        far_direct(c, &d, sel, &cs);
        sk_far_check_rip(c, &cs, off);
        sk_desc_accessed(c, &d);
        sk_far_commit_cs(c, &cs, c->cpl, off);
        return;
    }
    type = far_system_type(c, &d, sel);
    if (type != SK_T_CALL16 && type != SK_T_CALL32) {
        far_task(c, &d, sel, false);
        return;
    }
    far_read_gate(c, &d, sel, &g);
    if (!sk_desc_conforming(&g.cs) && sk_desc_dpl(&g.cs) != c->cpl) {
        sk_raise_err(c, SK_GP, g.sel & 0xfffcu);
    }
    sk_desc_to_seg(&g.cs, (uint16_t)((g.sel & ~3u) | c->cpl), &cs);
    sk_far_check_rip(c, &cs, g.off);
    sk_desc_accessed(c, &g.cs);
    sk_far_commit_cs(c, &cs, c->cpl, g.off);
}

/* CALL through a gate to an inner level. */
static void far_call_inner(struct sk_vcpu *c, struct far_gate *g)
{
    unsigned cpl = sk_desc_dpl(&g->cs);
    struct sk_stack s = { .mask = ~UINT64_C(0), .acc = SK_ACC_SYS, .flat = true }, old;
    struct sk_desc ssd;
    struct sk_seg cs;
    uint64_t params[32];

    sk_desc_to_seg(&g->cs, (uint16_t)((g->sel & ~3u) | cpl), &cs);
    if (sk_lma(c)) {
        unsigned off = 4 + 8 * cpl;

        if (off + 7 > c->seg[SK_TR].limit) {
            sk_raise_err(c, SK_TS, c->seg[SK_TR].sel & 0xfffcu);
        }
        s.sp = sk_ld_sys64(c, c->seg[SK_TR].base + off);
        s.seg = (struct sk_seg){ .sel = (uint16_t)cpl,
                                 .attr = SK_ATTR_NULL | cpl << SK_ATTR_DPL_SHIFT };
    } else {
        sk_stack_inner(c, cpl, 0, &s, &ssd);
    }
    sk_far_check_rip(c, &cs, g->off);
    sk_stack_current(c, &old);
    for (unsigned i = 0; i < g->params; i++) {
        params[i] = sk_stack_pop(c, &old, g->size);
    }
    sk_stack_push(c, &s, g->size, c->seg[SK_SS].sel);
    sk_stack_push(c, &s, g->size, c->r[SK_RSP]);
    for (unsigned i = g->params; i-- > 0;) {
        sk_stack_push(c, &s, g->size, params[i]);
    }
    sk_stack_push(c, &s, g->size, c->seg[SK_CS].sel);
    sk_stack_push(c, &s, g->size, c->r[SK_RIP]);
    sk_desc_accessed(c, &g->cs);
    if (!s.flat) {
        sk_desc_accessed(c, &ssd);
    }
    c->seg[SK_SS] = s.seg;
    sk_far_commit_cs(c, &cs, cpl, g->off);
    sk_stack_commit_sp(c, &s);
}

static void far_call_same(struct sk_vcpu *c, struct sk_desc *d, const struct sk_seg *cs,
                          uint64_t off, unsigned size)
{
    struct sk_stack s;

    sk_stack_current(c, &s);
    sk_stack_push(c, &s, size, c->seg[SK_CS].sel);
    sk_stack_push(c, &s, size, c->r[SK_RIP]);
    sk_far_check_rip(c, cs, off);
    sk_desc_accessed(c, d);
    sk_stack_commit_sp(c, &s);
    sk_far_commit_cs(c, cs, c->cpl, off);
}

void sk_far_call(struct sk_vcpu *c, uint16_t sel, uint64_t off, unsigned osize)
{
    struct sk_desc d;
    struct sk_seg cs;
    struct far_gate g;
    struct sk_stack s;
    unsigned type;

    off = far_cut(off, osize);
    if (!sk_protected(c)) {
        sk_stack_current(c, &s);
        sk_stack_push(c, &s, osize, c->seg[SK_CS].sel);
        sk_stack_push(c, &s, osize, c->r[SK_RIP]);
        if (off > c->seg[SK_CS].limit) {
            sk_gp(c);
        }
        sk_stack_commit_sp(c, &s);
        far_real(c, sel, off);
        return;
    }
    far_read_target(c, sel, &d);
    if (sk_desc_s(&d)) {
        if (!sk_desc_code(&d)) {
            sk_raise_err(c, SK_GP, sel & 0xfffcu);
        }
        far_direct(c, &d, sel, &cs);
        far_call_same(c, &d, &cs, off, osize);
        return;
    }
    type = far_system_type(c, &d, sel);
    if (type != SK_T_CALL16 && type != SK_T_CALL32) {
        far_task(c, &d, sel, true);
        return;
    }
    far_read_gate(c, &d, sel, &g);
    if (!sk_desc_conforming(&g.cs) && sk_desc_dpl(&g.cs) < c->cpl) {
        far_call_inner(c, &g);
        return;
    }
    sk_desc_to_seg(&g.cs, (uint16_t)((g.sel & ~3u) | c->cpl), &cs);
    far_call_same(c, &g.cs, &cs, g.off, g.size);
}

/* CS popped by RETF or IRET: checks common to both; the hidden part. */
static void far_ret_cs(struct sk_vcpu *c, uint16_t sel, uint64_t rip, struct sk_desc *d,
                       struct sk_seg *ret)
{
    unsigned rpl = sel & 3;

    if ((sel & ~3u) == 0) {
        sk_gp(c);
    }
    if (!sk_desc_read(c, sel, d) || !sk_desc_s(d) || !sk_desc_code(d) || (sel & 3u) < c->cpl) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (sk_desc_conforming(d) ? sk_desc_dpl(d) > rpl : sk_desc_dpl(d) != rpl) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (sk_lma(c) && sk_desc_l(d) && sk_desc_db(d)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (!sk_desc_p(d)) {
        sk_raise_err(c, SK_NP, sel & 0xfffcu);
    }
    sk_desc_to_seg(d, sel, ret);
    sk_far_check_rip(c, ret, rip);
}

/* After a return to an outer level: data segments that are too privileged become null. */
static void far_ret_nullify(struct sk_vcpu *c)
{
    static const uint8_t segs[] = { SK_ES, SK_DS, SK_FS, SK_GS };

    for (unsigned i = 0; i < 4; i++) {
        struct sk_seg *s = &c->seg[segs[i]];
        bool conf =
            (s->attr & (SK_ATTR_CODE | SK_ATTR_EXPDOWN)) == (SK_ATTR_CODE | SK_ATTR_EXPDOWN);

        if (!(s->attr & SK_ATTR_NULL) && !conf && ((s->attr >> SK_ATTR_DPL_SHIFT) & 3) < c->cpl) {
            s->sel = 0;
            s->attr |= SK_ATTR_NULL;
        }
        if ((s->attr & SK_ATTR_NULL) && (s->sel & ~3u) == 0) {
            s->sel = 0;
        }
    }
}

/* SS popped on the way to level rpl; a null selector is fine for 64-bit code below level 3. */
static void far_ret_ss(struct sk_vcpu *c, uint16_t ss, unsigned rpl, const struct sk_seg *cs,
                       struct sk_seg *ret, struct sk_desc *d)
{
    if ((ss & ~3u) == 0 && sk_lma(c) && (cs->attr & SK_ATTR_L) && rpl != 3 && (ss & 3u) == rpl) {
        *ret = (struct sk_seg){ .sel = ss, .attr = SK_ATTR_NULL | rpl << SK_ATTR_DPL_SHIFT };
        return;
    }
    sk_seg_check_ss(c, ss, rpl, SK_GP, 0, ret, d);
    sk_desc_accessed(c, d);
}

static void far_set_sp(struct sk_vcpu *c, uint64_t rsp)
{
    if (c->spmask == 0xffff) {
        *sk_r16(c, SK_RSP) = (uint16_t)rsp;
    } else {
        c->r[SK_RSP] = rsp & c->spmask;
    }
}

void sk_far_ret(struct sk_vcpu *c, unsigned osize, uint16_t release)
{
    struct sk_stack s;
    struct sk_desc d, ssd;
    struct sk_seg cs, ss;
    uint64_t rip, rsp;
    uint16_t sel, sssel;

    sk_stack_current(c, &s);
    rip = sk_stack_pop(c, &s, osize);
    sel = (uint16_t)sk_stack_pop(c, &s, osize);
    if (!sk_protected(c)) {
        s.sp = (s.sp & ~s.mask) | ((s.sp + release) & s.mask);
        far_real(c, sel, rip);
        sk_stack_commit_sp(c, &s);
        return;
    }
    far_ret_cs(c, sel, rip, &d, &cs);
    s.sp = (s.sp & ~s.mask) | ((s.sp + release) & s.mask);
    if ((sel & 3u) == c->cpl) {
        sk_desc_accessed(c, &d);
        sk_stack_commit_sp(c, &s);
        sk_far_commit_cs(c, &cs, c->cpl, rip);
        return;
    }
    rsp = sk_stack_pop(c, &s, osize);
    sssel = (uint16_t)sk_stack_pop(c, &s, osize);
    far_ret_ss(c, sssel, sel & 3, &cs, &ss, &ssd);
    sk_desc_accessed(c, &d);
    c->seg[SK_SS] = ss;
    sk_far_commit_cs(c, &cs, sel & 3, rip);
    far_set_sp(c, rsp);
    far_set_sp(c, c->r[SK_RSP] + release);
    far_ret_nullify(c);
    sk_mode_update(c);
}

void sk_flags_pop(struct sk_vcpu *c, uint32_t fl, uint32_t mask)
{
    uint32_t old = sk_flags_get(c), m = SK_FL_ALL & mask & ~(uint32_t)(SK_FL_VM | SK_FL_RF);

    if (c->cpl > 0 && sk_pe(c)) {
        m &= ~(uint32_t)SK_FL_IOPL;
        if (c->cpl > sk_iopl(c)) {
            m &= ~(uint32_t)SK_FL_IF;
        }
    }
    m &= ~(uint32_t)(SK_FL_VIF | SK_FL_VIP);
    sk_flags_set(c, (old & ~m & ~(uint32_t)SK_FL_RF) | (fl & m));
    if (!(old & SK_FL_IF) && (c->eflags & SK_FL_IF)) {
        sk_poll_set(c, SK_POLL_INTR);
    }
}

static void iret_real(struct sk_vcpu *c, unsigned osize)
{
    struct sk_stack s;
    uint64_t rip;
    uint16_t sel;
    uint32_t fl;

    if (sk_v86(c) && sk_iopl(c) < 3) {
        sk_gp(c);
    }
    sk_stack_current(c, &s);
    rip = sk_stack_pop(c, &s, osize);
    sel = (uint16_t)sk_stack_pop(c, &s, osize);
    fl = (uint32_t)sk_stack_pop(c, &s, osize);
    far_real(c, sel, rip);
    sk_stack_commit_sp(c, &s);
    sk_flags_pop(c, fl, osize == 2 ? 0xffff : 0x257fd5);
    if (osize != 2 && (fl & SK_FL_RF)) {
        c->eflags |= SK_FL_RF;
        c->special |= SK_SPECIAL_RF;
    }
}

static void iret_to_v86(struct sk_vcpu *c, struct sk_stack *s, uint64_t rip, uint16_t cs,
                        uint32_t fl)
{
    uint32_t rsp = (uint32_t)sk_stack_pop(c, s, 4);
    uint16_t sel[SK_NSEGS];
    static const uint8_t order[] = { SK_SS, SK_ES, SK_DS, SK_FS, SK_GS };

    for (unsigned i = 0; i < 5; i++) {
        sel[order[i]] = (uint16_t)sk_stack_pop(c, s, 4);
    }
    sel[SK_CS] = cs;
    if (rip > 0xffff) {
        sk_gp(c);
    }
    sk_flags_set(c, fl & ~(uint32_t)(SK_FL_VIF | SK_FL_VIP));
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        sk_seg_load_real(c, i, sel[i]);
    }
    c->cpl = 3;
    c->r[SK_RIP] = rip & 0xffff;
    c->r[SK_RSP] = rsp;
    sk_mode_update(c);
    if (fl & SK_FL_IF) {
        sk_poll_set(c, SK_POLL_INTR);
    }
}

static void iret_task(struct sk_vcpu *c)
{
    uint16_t link = sk_ld_sys16(c, c->seg[SK_TR].base);

    sk_task_switch(c, link, SK_TASK_IRET, false, 0, c->r[SK_RIP], 0);
}

/* Flags by the CPL before the return; RF always, VM never. */
static void iret_flags(struct sk_vcpu *c, uint32_t fl, unsigned osize)
{
    sk_flags_pop(c, fl, osize == 2 ? 0xffff : ~0u);
    if (osize != 2 && (fl & SK_FL_RF)) {
        c->eflags |= SK_FL_RF;
        c->special |= SK_SPECIAL_RF;
    }
}

void sk_iret(struct sk_vcpu *c, unsigned osize)
{
    struct sk_stack s;
    struct sk_desc d, ssd;
    struct sk_seg cs, ss;
    uint64_t rip, rsp;
    uint16_t sel, sssel;
    uint32_t fl;
    unsigned rpl;
    bool outer;

    if (!sk_protected(c)) {
        iret_real(c, osize);
        return;
    }
    if (c->eflags & SK_FL_NT) {
        if (sk_lma(c)) {
            sk_gp(c);
        }
        iret_task(c);
        return;
    }
    sk_stack_current(c, &s);
    rip = sk_stack_pop(c, &s, osize);
    sel = (uint16_t)sk_stack_pop(c, &s, osize);
    fl = (uint32_t)sk_stack_pop(c, &s, osize);
    if (osize == 4 && (fl & SK_FL_VM) && c->cpl == 0 && !sk_lma(c)) {
        iret_to_v86(c, &s, rip, sel, fl);
        return;
    }
    far_ret_cs(c, sel, rip, &d, &cs);
    rpl = sel & 3;
    outer = rpl > c->cpl;
    if (rpl == c->cpl && !sk_code64(c)) {
        sk_desc_accessed(c, &d);
        iret_flags(c, fl, osize);
        sk_stack_commit_sp(c, &s);
        sk_far_commit_cs(c, &cs, rpl, rip);
        return;
    }
    rsp = sk_stack_pop(c, &s, osize);
    sssel = (uint16_t)sk_stack_pop(c, &s, osize);
    far_ret_ss(c, sssel, rpl, &cs, &ss, &ssd);
    sk_desc_accessed(c, &d);
    iret_flags(c, fl, osize);
    c->seg[SK_SS] = ss;
    sk_far_commit_cs(c, &cs, rpl, rip);
    far_set_sp(c, rsp);
    if (outer) {
        far_ret_nullify(c);
    }
    sk_mode_update(c);
}
