/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Raising faults, and delivery of exceptions and interrupts (SDM 3A chapter 6, 2023-12).
 */
#include "softkvm/x86/flags.h"
#include "softkvm/x86/seg.h"

/* Values given to longjmp; sk_run() is at the other end. */
enum { JB_RAISE = 1, JB_LEAVE = 2 };

static _Noreturn void except_raise(struct sk_vcpu *c, uint8_t vec, bool has_err, uint32_t err,
                                   uint64_t payload)
{
    c->exc =
        (struct sk_exception){ .vec = vec, .has_err = has_err, .err = err, .payload = payload };
    longjmp(c->jb, JB_RAISE);
}

/* EXT of an error code: while an event from outside the program is being delivered. */
static uint32_t except_ext(const struct sk_vcpu *c)
{
    return c->delivering && c->deliver_kind != SK_EV_SOFT && c->deliver_kind != SK_EV_SOFT_EXC;
}

void sk_raise(struct sk_vcpu *c, enum sk_vec vec)
{
    except_raise(c, (uint8_t)vec, false, 0, 0);
}

void sk_raise_err(struct sk_vcpu *c, enum sk_vec vec, uint32_t err)
{
    except_raise(c, (uint8_t)vec, true, vec == SK_AC ? 0 : err | except_ext(c), 0);
}

void sk_raise_pf(struct sk_vcpu *c, uint64_t lin, uint32_t err)
{
    except_raise(c, SK_PF, true, err, lin);
}

void sk_raise_db(struct sk_vcpu *c, uint64_t dr6)
{
    except_raise(c, SK_DB, false, 0, dr6);
}

void sk_gp(struct sk_vcpu *c)
{
    sk_raise_err(c, SK_GP, 0);
}

void sk_ud(struct sk_vcpu *c)
{
    sk_raise(c, SK_UD);
}

void sk_leave_unfinished(struct sk_vcpu *c)
{
    longjmp(c->jb, JB_LEAVE);
}

enum { CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR4_OSFXSR = 0x200, CR4_OSXSAVE = 0x40000 };

void sk_x87_settle(struct sk_xsave *x)
{
    unsigned fsw = x->fsw & 0x7f7f;

    x->fcw = (x->fcw & 0x1f3f) | 0x40;
    x->fsw = (uint16_t)(fsw & ~(unsigned)x->fcw & 0x3f ? fsw | 0x8080 : fsw);
    for (unsigned i = 0; i < 8; i++) {
        memset(x->st[i] + 10, 0, 6);
    }
}

void sk_check_x87(struct sk_vcpu *c)
{
    if (UNLIKELY(c->cr0 & (CR0_EM | CR0_TS))) {
        sk_raise(c, SK_NM);
    }
}

void sk_check_mmx(struct sk_vcpu *c)
{
    if (UNLIKELY(c->cr0 & (CR0_EM | CR0_TS))) {
        sk_raise(c, c->cr0 & CR0_EM ? SK_UD : SK_NM);
    }
    if (UNLIKELY(c->xs.fsw & 0x80)) {
        sk_raise(c, SK_MF);
    }
}

void sk_check_sse(struct sk_vcpu *c)
{
    if (UNLIKELY((c->cr0 & CR0_EM) || !(c->cr4 & CR4_OSFXSR))) {
        sk_raise(c, SK_UD);
    }
    if (UNLIKELY(c->cr0 & CR0_TS)) {
        sk_raise(c, SK_NM);
    }
}

void sk_check_avx(struct sk_vcpu *c)
{
    if (UNLIKELY(!(c->cr4 & CR4_OSXSAVE) || (c->xcr0 & 6) != 6)) {
        sk_raise(c, SK_UD);
    }
    if (UNLIKELY(c->cr0 & CR0_TS)) {
        sk_raise(c, SK_NM);
    }
}

struct event {
    enum sk_event_kind kind;
    uint8_t vec;
    bool has_err;
    uint32_t err;
    uint64_t rip;
    uint32_t flags; /* image to push */
    unsigned ext;
};

static bool event_soft(const struct event *e)
{
    return e->kind == SK_EV_SOFT || e->kind == SK_EV_SOFT_EXC;
}

static uint32_t event_idt_err(const struct event *e)
{
    return e->vec * 8u + 2u + e->ext;
}

static void deliver_real(struct sk_vcpu *c, const struct event *e)
{
    struct sk_stack s;
    uint32_t v;

    if (e->vec * 4u + 3 > c->idtr.limit) {
        sk_raise_err(c, SK_GP, event_idt_err(e));
    }
    v = sk_ld_sys32(c, (c->idtr.base + e->vec * 4u) & 0xffffffff);
    sk_stack_current(c, &s);
    sk_stack_push(c, &s, 2, e->flags);
    sk_stack_push(c, &s, 2, c->seg[SK_CS].sel);
    sk_stack_push(c, &s, 2, e->rip);
    sk_stack_commit_sp(c, &s);
    sk_flags_set(c, sk_flags_get(c) & ~(uint32_t)(SK_FL_IF | SK_FL_TF | SK_FL_AC | SK_FL_RF));
    sk_seg_load_real(c, SK_CS, (uint16_t)(v >> 16));
    c->r[SK_RIP] = v & 0xffff;
    sk_mode_update(c);
}

struct gate {
    uint16_t sel;
    uint64_t off;
    uint8_t type;
    uint8_t ist;
};

/* Reads and checks the IDT entry. */
static void event_gate(struct sk_vcpu *c, const struct event *e, struct gate *ret)
{
    bool lm = sk_lma(c);
    uint64_t at = c->idtr.base + e->vec * (lm ? 16u : 8u), v;
    unsigned type;

    if (e->vec * (lm ? 16u : 8u) + (lm ? 15u : 7u) > c->idtr.limit) {
        sk_raise_err(c, SK_GP, event_idt_err(e));
    }
    v = sk_ld_sys64(c, lm ? at : at & 0xffffffff);
    type = (v >> 40) & 31;
    if (lm ? type != SK_T_INT32 && type != SK_T_TRAP32
           : type != SK_T_TASK && type != SK_T_INT16 && type != SK_T_TRAP16 && type != SK_T_INT32 &&
                 type != SK_T_TRAP32) {
        sk_raise_err(c, SK_GP, event_idt_err(e));
    }
    if (event_soft(e) && ((v >> 45) & 3) < c->cpl) {
        sk_raise_err(c, SK_GP, event_idt_err(e));
    }
    if (!((v >> 47) & 1)) {
        sk_raise_err(c, SK_NP, event_idt_err(e));
    }
    ret->sel = (uint16_t)(v >> 16);
    ret->type = (uint8_t)type;
    ret->off = (v & 0xffff) | ((v >> 32) & 0xffff0000);
    ret->ist = (v >> 32) & 7;
    if (type == SK_T_INT16 || type == SK_T_TRAP16) {
        ret->off &= 0xffff;
    }
    if (lm) {
        ret->off |= (uint64_t)sk_ld_sys32(c, at + 8) << 32;
    }
}

/* Reads and checks the handler's code segment; the new CPL. */
static unsigned event_cs(struct sk_vcpu *c, const struct event *e, const struct gate *g,
                         struct sk_desc *d)
{
    uint32_t err = (g->sel & 0xfffcu) | e->ext;
    unsigned cpl;

    if ((g->sel & ~3u) == 0) {
        sk_raise_err(c, SK_GP, e->ext);
    }
    if (!sk_desc_read(c, g->sel, d) || !sk_desc_s(d) || !sk_desc_code(d) ||
        sk_desc_dpl(d) > c->cpl) {
        sk_raise_err(c, SK_GP, err);
    }
    if (!sk_desc_p(d)) {
        sk_raise_err(c, SK_NP, err);
    }
    if (sk_lma(c) && (!sk_desc_l(d) || sk_desc_db(d))) {
        sk_raise_err(c, SK_GP, err);
    }
    cpl = sk_desc_conforming(d) ? c->cpl : sk_desc_dpl(d);
    if (sk_v86(c) && (sk_desc_conforming(d) || cpl != 0)) {
        sk_raise_err(c, SK_GP, err);
    }
    return cpl;
}

static void event_enter(struct sk_vcpu *c, const struct gate *g, struct sk_desc *d, unsigned cpl)
{
    uint32_t clear = SK_FL_TF | SK_FL_NT | SK_FL_RF | SK_FL_VM;
    struct sk_seg cs;

    if (g->type == SK_T_INT16 || g->type == SK_T_INT32) {
        clear |= SK_FL_IF;
    }
    sk_desc_to_seg(d, (uint16_t)((g->sel & ~3u) | cpl), &cs);
    sk_flags_set(c, sk_flags_get(c) & ~clear);
    sk_far_commit_cs(c, &cs, cpl, g->off);
}

static void deliver_legacy(struct sk_vcpu *c, const struct event *e)
{
    struct gate g;
    struct sk_desc d, ssd;
    struct sk_stack s;
    struct sk_seg probe;
    unsigned cpl, size;
    bool inner, v86 = sk_v86(c);

    event_gate(c, e, &g);
    if (g.type == SK_T_TASK) {
        sk_task_switch(c, g.sel, SK_TASK_INT, e->has_err, e->err, e->rip, e->ext);
        return;
    }
    cpl = event_cs(c, e, &g, &d);
    inner = cpl < c->cpl;
    size = g.type & 8 ? 4 : 2;
    if (inner) {
        sk_stack_inner(c, cpl, e->ext, &s, &ssd);
    } else {
        sk_stack_current(c, &s);
        s.err_sel = (uint16_t)e->ext;
    }
    sk_desc_to_seg(&d, g.sel, &probe);
    sk_far_check_rip(c, &probe, g.off);
    if (inner) {
        if (v86) {
            static const uint8_t order[] = { SK_GS, SK_FS, SK_DS, SK_ES };

            for (unsigned i = 0; i < 4; i++) {
                sk_stack_push(c, &s, size, c->seg[order[i]].sel);
            }
        }
        sk_stack_push(c, &s, size, c->seg[SK_SS].sel);
        sk_stack_push(c, &s, size, c->r[SK_RSP]);
    }
    sk_stack_push(c, &s, size, e->flags);
    sk_stack_push(c, &s, size, c->seg[SK_CS].sel);
    sk_stack_push(c, &s, size, e->rip);
    if (e->has_err) {
        sk_stack_push(c, &s, size, e->err);
    }
    sk_desc_accessed(c, &d);
    if (inner) {
        sk_desc_accessed(c, &ssd);
        c->seg[SK_SS] = s.seg;
        if (v86) {
            for (unsigned i = 0; i < SK_NSEGS; i++) {
                if (i != SK_CS && i != SK_SS) {
                    c->seg[i] = (struct sk_seg){ .attr = SK_ATTR_NULL };
                }
            }
        }
    }
    event_enter(c, &g, &d, cpl);
    sk_stack_commit_sp(c, &s);
}

static uint64_t event_tss64(struct sk_vcpu *c, const struct event *e, unsigned off)
{
    if (off + 7 > c->seg[SK_TR].limit) {
        sk_raise_err(c, SK_TS, (c->seg[SK_TR].sel & 0xfffcu) | e->ext);
    }
    return sk_ld_sys64(c, c->seg[SK_TR].base + off);
}

static void deliver_long(struct sk_vcpu *c, const struct event *e)
{
    struct gate g;
    struct sk_desc d;
    struct sk_stack s = { .mask = ~UINT64_C(0), .flat = true };
    unsigned cpl;
    bool inner;

    event_gate(c, e, &g);
    cpl = event_cs(c, e, &g, &d);
    inner = cpl < c->cpl;
    if (g.ist) {
        s.sp = event_tss64(c, e, 28 + 8u * g.ist);
    } else if (inner) {
        s.sp = event_tss64(c, e, 4 + 8 * cpl);
    } else {
        s.sp = c->r[SK_RSP];
    }
    s.acc = inner ? SK_ACC_SYS : 0;
    s.err_sel = (uint16_t)e->ext;
    s.sp &= ~UINT64_C(15);
    if ((uint64_t)((int64_t)(g.off << 16) >> 16) != g.off) {
        sk_raise_err(c, SK_GP, e->ext);
    }
    sk_stack_push(c, &s, 8, c->seg[SK_SS].sel);
    sk_stack_push(c, &s, 8, c->r[SK_RSP]);
    sk_stack_push(c, &s, 8, e->flags);
    sk_stack_push(c, &s, 8, c->seg[SK_CS].sel);
    sk_stack_push(c, &s, 8, e->rip);
    if (e->has_err) {
        sk_stack_push(c, &s, 8, e->err);
    }
    sk_desc_accessed(c, &d);
    if (inner) {
        c->seg[SK_SS] = (struct sk_seg){ .sel = (uint16_t)cpl,
                                         .attr = SK_ATTR_NULL | cpl << SK_ATTR_DPL_SHIFT };
    }
    event_enter(c, &g, &d, cpl);
    c->r[SK_RSP] = s.sp;
}

/* RF in the pushed image: set for faults other than instruction breakpoints (SDM 3B §17.3.1.1). */
static bool event_pushes_rf(const struct event *e)
{
    return e->kind == SK_EV_EXC && e->vec != SK_DB && e->vec != SK_DF && e->vec != SK_MC;
}

void sk_deliver(struct sk_vcpu *c, enum sk_event_kind kind, uint8_t vec, bool has_err, uint32_t err,
                uint64_t rip)
{
    struct event e = { .kind = kind, .vec = vec, .has_err = has_err, .err = err, .rip = rip };

    c->delivering = true;
    c->deliver_vec = vec;
    c->deliver_kind = kind;
    e.ext = except_ext(c);
    e.flags = sk_flags_get(c) | (event_pushes_rf(&e) ? SK_FL_RF : 0);
    if (!sk_pe(c)) {
        deliver_real(c, &e);
    } else if (sk_lma(c)) {
        deliver_long(c, &e);
    } else {
        deliver_legacy(c, &e);
    }
    c->delivering = false;
    c->delivered = true;
    c->insn_rip = c->r[SK_RIP];
}
