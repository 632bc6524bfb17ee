/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Task switches (SDM 3A chapter 8, 2023-12), 16- and 32-bit TSS. Once the new state is loaded,
 * faults belong to the new task: insn_rip moves along.
 */
#include "softkvm/x86/flags.h"
#include "softkvm/x86/seg.h"

/* The dynamic fields in the order of the segment register numbers. */
struct task_state {
    uint32_t cr3, eip, eflags;
    uint32_t r[8];
    uint16_t sel[6];
    uint16_t ldt;
    bool trap;
};

static void task_load(struct sk_vcpu *c, uint64_t base, bool wide, struct task_state *t)
{
    *t = (struct task_state){ 0 };
    if (wide) {
        t->cr3 = sk_ld_sys32(c, base + 0x1c);
        t->eip = sk_ld_sys32(c, base + 0x20);
        t->eflags = sk_ld_sys32(c, base + 0x24);
        for (unsigned i = 0; i < 8; i++) {
            t->r[i] = sk_ld_sys32(c, base + 0x28 + 4 * i);
        }
        for (unsigned i = 0; i < 6; i++) {
            t->sel[i] = sk_ld_sys16(c, base + 0x48 + 4 * i);
        }
        t->ldt = sk_ld_sys16(c, base + 0x60);
        t->trap = sk_ld_sys16(c, base + 0x64) & 1;
        return;
    }
    t->eip = sk_ld_sys16(c, base + 0x0e);
    t->eflags = sk_ld_sys16(c, base + 0x10);
    for (unsigned i = 0; i < 8; i++) {
        t->r[i] = sk_ld_sys16(c, base + 0x12 + 2 * i) | 0xffff0000;
    }
    for (unsigned i = 0; i < 4; i++) {
        t->sel[i] = sk_ld_sys16(c, base + 0x22 + 2 * i);
    }
    t->ldt = sk_ld_sys16(c, base + 0x2a);
}

static void task_save(struct sk_vcpu *c, bool wide, uint32_t fl, uint64_t rip)
{
    uint64_t base = c->seg[SK_TR].base;

    if (wide) {
        sk_st_sys32(c, base + 0x20, (uint32_t)rip);
        sk_st_sys32(c, base + 0x24, fl);
        for (unsigned i = 0; i < 8; i++) {
            sk_st_sys32(c, base + 0x28 + 4 * i, (uint32_t)c->r[i]);
        }
        for (unsigned i = 0; i < 6; i++) {
            sk_st_sys16(c, base + 0x48 + 4 * i, c->seg[i].sel);
        }
        return;
    }
    sk_st_sys16(c, base + 0x0e, (uint16_t)rip);
    sk_st_sys16(c, base + 0x10, (uint16_t)fl);
    for (unsigned i = 0; i < 8; i++) {
        sk_st_sys16(c, base + 0x12 + 2 * i, (uint16_t)c->r[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        sk_st_sys16(c, base + 0x22 + 2 * i, c->seg[i].sel);
    }
}

/* Checks the descriptor of the new TSS. */
static void task_check(struct sk_vcpu *c, uint16_t sel, enum sk_task_why why, unsigned ext,
                       struct sk_desc *d)
{
    enum sk_vec vec = why == SK_TASK_IRET ? SK_TS : SK_GP;
    unsigned type, want = why == SK_TASK_IRET ? SK_T_TSS16_BUSY : SK_T_TSS16;
    uint32_t err = (sel & 0xfffcu) | ext;

    if ((sel & 4) || (sel & ~3u) == 0 || !sk_desc_read(c, sel, d)) {
        sk_raise_err(c, vec, err);
    }
    type = sk_desc_type(d);
    if (sk_desc_s(d) || (type & 7) != want) {
        sk_raise_err(c, vec, err);
    }
    if (!sk_desc_p(d)) {
        sk_raise_err(c, SK_NP, err);
    }
}

/* Segment registers of the new task, in its context. */
static void task_segments(struct sk_vcpu *c, const struct task_state *t, unsigned ext)
{
    struct sk_desc d;
    struct sk_seg cs, ss;
    static const uint8_t data[] = { SK_ES, SK_DS, SK_FS, SK_GS };
    unsigned rpl = t->sel[SK_CS] & 3;
    uint32_t err = (t->sel[SK_CS] & 0xfffcu) | ext;

    sk_seg_lldt(c, t->ldt, SK_TS);
    if (c->eflags & SK_FL_VM) {
        for (unsigned i = 0; i < SK_NSEGS; i++) {
            sk_seg_load_real(c, i, t->sel[i]);
        }
        c->cpl = 3;
        return;
    }
    if ((t->sel[SK_CS] & ~3u) == 0 || !sk_desc_read(c, t->sel[SK_CS], &d) || !sk_desc_s(&d) ||
        !sk_desc_code(&d) ||
        (sk_desc_conforming(&d) ? sk_desc_dpl(&d) > rpl : sk_desc_dpl(&d) != rpl)) {
        sk_raise_err(c, SK_TS, err);
    }
    if (!sk_desc_p(&d)) {
        sk_raise_err(c, SK_NP, err);
    }
    sk_desc_accessed(c, &d);
    sk_desc_to_seg(&d, t->sel[SK_CS], &cs);
    c->cpl = (uint8_t)rpl;
    c->seg[SK_CS] = cs;
    sk_seg_check_ss(c, t->sel[SK_SS], rpl, SK_TS, ext, &ss, &d);
    sk_desc_accessed(c, &d);
    c->seg[SK_SS] = ss;
    for (unsigned i = 0; i < 4; i++) {
        uint16_t sel = t->sel[data[i]];
        unsigned type;

        if ((sel & ~3u) == 0) {
            continue;
        }
        err = (sel & 0xfffcu) | ext;
        if (!sk_desc_read(c, sel, &d)) {
            sk_raise_err(c, SK_TS, err);
        }
        type = sk_desc_type(&d);
        if (!sk_desc_s(&d) || ((type & 8) && !(type & 2)) ||
            ((type & 0xc) != 0xc && (sk_desc_dpl(&d) < rpl || sk_desc_dpl(&d) < (sel & 3u)))) {
            sk_raise_err(c, SK_TS, err);
        }
        if (!sk_desc_p(&d)) {
            sk_raise_err(c, SK_NP, err);
        }
        sk_desc_accessed(c, &d);
        sk_desc_to_seg(&d, sel, &c->seg[data[i]]);
    }
}

/* Registers of the new task; from here on faults are its own. */
static void task_commit(struct sk_vcpu *c, const struct task_state *t, bool wide)
{
    for (unsigned i = 0; i < 8; i++) {
        c->r[i] = t->r[i];
    }
    sk_flags_set(c, t->eflags);
    c->r[SK_RIP] = t->eip;
    c->insn_rip = t->eip;
    c->cpl = t->sel[SK_CS] & 3;
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        c->seg[i] = (struct sk_seg){ .sel = t->sel[i], .attr = SK_ATTR_NULL };
    }
    c->seg[SK_LDTR] = (struct sk_seg){ .sel = t->ldt, .attr = SK_ATTR_NULL };
    if (wide && (c->cr0 & BIT(31)) && t->cr3 != c->cr3) {
        c->cr3 = t->cr3;
        if ((c->cr4 & 0x20) && !sk_load_pdptes(c, c->cr3)) {
            sk_raise_err(c, SK_TS, c->seg[SK_TR].sel & 0xfffcu);
        }
        sk_tlb_flush_nonglobal(c);
    }
}

void sk_task_switch(struct sk_vcpu *c, uint16_t sel, enum sk_task_why why, bool has_err,
                    uint32_t err, uint64_t rip, unsigned ext)
{
    struct sk_seg tr, old = c->seg[SK_TR];
    bool wide, old_wide = old.attr & 8;
    uint32_t fl = sk_flags_get(c);
    struct task_state t;
    struct sk_desc d, od = { .lin = c->gdtr.base + (old.sel & ~7u) };
    struct sk_stack s;

    task_check(c, sel, why, ext, &d);
    sk_desc_to_seg(&d, sel, &tr);
    wide = tr.attr & 8;
    if (tr.limit < (wide ? 0x67u : 0x2bu)) {
        sk_raise_err(c, SK_TS, (sel & 0xfffcu) | ext);
    }
    task_load(c, tr.base, wide, &t);
    if (why == SK_TASK_IRET) {
        fl &= ~(uint32_t)SK_FL_NT;
    }
    task_save(c, old_wide, fl, rip);
    if (why == SK_TASK_JMP || why == SK_TASK_IRET) {
        sk_desc_busy(c, &od, false);
    }
    if (why != SK_TASK_IRET) {
        sk_desc_busy(c, &d, true);
    }
    if (why == SK_TASK_CALL || why == SK_TASK_INT) {
        sk_st_sys16(c, tr.base, old.sel);
        t.eflags |= SK_FL_NT;
    }
    tr.attr |= 2;
    c->seg[SK_TR] = tr;
    c->cr0 |= 8; /* TS */
    task_commit(c, &t, wide);
    task_segments(c, &t, ext);
    sk_vcpu_changed(c);
    if (has_err) {
        sk_stack_current(c, &s);
        sk_stack_push(c, &s, wide ? 4 : 2, err);
        sk_stack_commit_sp(c, &s);
    }
    sk_far_check_rip(c, &c->seg[SK_CS], t.eip);
    if (t.trap) {
        c->db_pending |= BIT(15); /* BT: taken before the first instruction */
        c->special |= SK_SPECIAL_DB;
    }
}
