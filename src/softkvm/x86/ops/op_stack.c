/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PUSH, POP, ENTER, LEAVE, PUSHF, POPF. The store (load) comes before the change of rSP.
 */
#include "softkvm/x86/ops/op_stack.h"

#include "softkvm/x86/seg.h"

OP(op_push_Z)
{
    stack_push(c, in->osize, c->r[in->rm]);
}
SK_HANDLER1(push_Z, op_push_Z);

OP(op_push_I)
{
    stack_push(c, in->osize, in->imm);
}
SK_HANDLER1(push_I, op_push_I);

OP(op_push_E_m)
{
    uint64_t v = in->osize == 8 ? sk_ld64(c, in) : in->osize == 4 ? sk_ld32(c, in) : sk_ld16(c, in);

    stack_push(c, in->osize, v);
}
SK_HANDLER_RM(push_E, op_push_Z, op_push_E_m);

OP(op_pop_Z)
{
    uint64_t v = stack_pop(c, in->osize);

    sk_set_reg(c, in->rm, in->osize, v);
}
SK_HANDLER1(pop_Z, op_pop_Z);

/* POP to memory addresses with rSP already moved. */
OP(op_pop_E_m)
{
    uint64_t old = c->r[SK_RSP], v = stack_pop(c, in->osize), rsp = c->r[SK_RSP];
    uint64_t off = sk_ea(c, in);

    c->r[SK_RSP] = old;
    if (in->osize == 8) {
        sk_st_seg64(c, in->seg, off, v);
    } else if (in->osize == 4) {
        sk_st_seg32(c, in->seg, off, (uint32_t)v);
    } else {
        sk_st_seg16(c, in->seg, off, (uint16_t)v);
    }
    c->r[SK_RSP] = rsp;
}
SK_HANDLER_RM(pop_E, op_pop_Z, op_pop_E_m);

OP(op_push_seg)
{
    stack_push(c, in->osize, c->seg[(in->imm2 >> 3) & 7].sel);
}
SK_HANDLER1(push_seg, op_push_seg);

OP(op_pop_seg)
{
    unsigned seg = (in->imm2 >> 3) & 7;
    uint64_t old = c->r[SK_RSP], rsp;
    uint16_t sel = (uint16_t)stack_pop(c, in->osize);

    rsp = c->r[SK_RSP];
    c->r[SK_RSP] = old; /* the load may fault */
    sk_seg_load(c, seg, sel);
    stack_set_sp(c, rsp);
    if (seg == SK_SS) {
        c->special |= SK_SPECIAL_SHADOW_SS;
    }
}
SK_HANDLER1(pop_seg, op_pop_seg);

OP(op_pusha)
{
    uint64_t sp = c->r[SK_RSP];
    unsigned size = in->osize;

    for (unsigned i = 0; i < 8; i++) {
        uint64_t off = (sp - (i + 1) * size) & c->spmask;

        if (size == 4) {
            sk_st_seg32(c, SK_SS, off, (uint32_t)c->r[i]);
        } else {
            sk_st_seg16(c, SK_SS, off, (uint16_t)c->r[i]);
        }
    }
    stack_set_sp(c, sp - 8 * size);
}
SK_HANDLER1(pusha, op_pusha);

OP(op_popa)
{
    uint64_t sp = c->r[SK_RSP], v[8];
    unsigned size = in->osize;

    for (unsigned i = 0; i < 8; i++) {
        uint64_t off = (sp + i * size) & c->spmask;

        v[7 - i] = size == 4 ? sk_ld_seg32(c, SK_SS, off) : sk_ld_seg16(c, SK_SS, off);
    }
    for (unsigned i = 0; i < 8; i++) {
        if (i != SK_RSP) {
            sk_set_reg(c, i, size, v[i]);
        }
    }
    stack_set_sp(c, sp + 8 * size);
}
SK_HANDLER1(popa, op_popa);

OP(op_enter)
{
    unsigned size = in->osize, level = in->imm2 & 31;
    uint64_t sp = (c->r[SK_RSP] - size) & c->spmask, bp = c->r[SK_RBP], frame = sp;
    unsigned left;

    stack_store(c, sp, size, bp);
    for (unsigned i = 1; i < level; i++) {
        uint64_t v;

        bp -= size;
        v = stack_load(c, bp & c->spmask, size);
        sp = (sp - size) & c->spmask;
        stack_store(c, sp, size, v);
    }
    if (level > 0) {
        sp = (sp - size) & c->spmask;
        stack_store(c, sp, size, frame);
    }
    sp -= (uint16_t)in->imm;
    /* The new top must be writable (SDM 2A ENTER: #SS, #PF). */
    (void)sk_ptr(c, sk_seg_lin(c, SK_SS, sp & c->spmask, 1, true), 1, true, &left);
    sk_set_reg(c, SK_RBP, size, size == 2 ? frame : (c->r[SK_RBP] & ~c->spmask) | frame);
    stack_set_sp(c, sp);
}
SK_HANDLER1(enter, op_enter);

OP(op_leave)
{
    uint64_t sp = c->r[SK_RBP] & c->spmask, v = stack_load(c, sp, in->osize);

    stack_set_sp(c, sp + in->osize);
    sk_set_reg(c, SK_RBP, in->osize, v);
}
SK_HANDLER1(leave, op_leave);

OP(op_pushf)
{
    if (sk_v86(c) && sk_iopl(c) < 3) {
        sk_gp(c);
    }
    stack_push(c, in->osize, sk_flags_get(c) & ~(uint32_t)(SK_FL_VM | SK_FL_RF));
}
SK_HANDLER1(pushf, op_pushf);

OP(op_popf)
{
    if (sk_v86(c) && sk_iopl(c) < 3) {
        sk_gp(c);
    }
    sk_flags_pop(c, (uint32_t)stack_pop(c, in->osize), in->osize == 2 ? 0xffff : ~0u);
}
SK_HANDLER1(popf, op_popf);
