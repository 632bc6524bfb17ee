/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Near jumps, calls and returns, loops, software interrupts, BOUND, and the far forms' operands.
 */
#include "softkvm/run/blocks.h"
#include "softkvm/x86/ops/op_stack.h"
#include "softkvm/x86/seg.h"

/* The new RIP by operand size, checked against the segment or for canonical form. */
static inline uint64_t ctl_target(struct sk_vcpu *c, unsigned osize, uint64_t rip)
{
    if (LIKELY(osize == 8)) {
        if (UNLIKELY((uint64_t)((int64_t)(rip << 16) >> 16) != rip)) {
            sk_gp(c);
        }
        return rip;
    }
    rip = osize == 2 ? (uint16_t)rip : (uint32_t)rip;
    if (!sk_code64(c) && UNLIKELY(rip > c->seg[SK_CS].limit)) {
        sk_gp(c);
    }
    return rip;
}

#define CC_0(f) ((f)&SK_AF_OF)
#define CC_1(f) ((f)&SK_AF_CF)
#define CC_2(f) ((f)&SK_AF_ZF)
#define CC_3(f) ((f) & (SK_AF_CF | SK_AF_ZF))
#define CC_4(f) ((f)&SK_AF_SF)
#define CC_5(f) ((f)&SK_AF_PF)
#define CC_6(f) ((((f) >> 15) ^ (f)) & 1)
#define CC_7(f) (CC_2(f) | CC_6(f))

#define JCC(n, test)                                                                               \
    OP(op_jcc##n)                                                                                  \
    {                                                                                              \
        if (test) {                                                                                \
            c->r[SK_RIP] = ctl_target(c, in->osize, c->r[SK_RIP] + in->imm);                       \
        }                                                                                          \
    }                                                                                              \
    SK_HANDLER1(jcc##n, op_jcc##n)
JCC(0, CC_0(c->af));
JCC(1, !CC_0(c->af));
JCC(2, CC_1(c->af));
JCC(3, !CC_1(c->af));
JCC(4, CC_2(c->af));
JCC(5, !CC_2(c->af));
JCC(6, CC_3(c->af));
JCC(7, !CC_3(c->af));
JCC(8, CC_4(c->af));
JCC(9, !CC_4(c->af));
JCC(10, CC_5(c->af));
JCC(11, !CC_5(c->af));
JCC(12, CC_6(c->af));
JCC(13, !CC_6(c->af));
JCC(14, CC_7(c->af));
JCC(15, !CC_7(c->af));

OP(op_jmp_J)
{
    c->r[SK_RIP] = ctl_target(c, in->osize, c->r[SK_RIP] + in->imm);
}
SK_HANDLER1(jmp_J, op_jmp_J);

OP(op_call_J)
{
    uint64_t to = ctl_target(c, in->osize, c->r[SK_RIP] + in->imm);

    stack_push(c, in->osize, c->r[SK_RIP]);
    c->r[SK_RIP] = to;
}
SK_HANDLER1(call_J, op_call_J);

static inline uint64_t ctl_operand(struct sk_vcpu *c, const struct sk_insn *in)
{
    if (!(in->flags & SK_IN_MEM)) {
        return c->r[in->rm];
    }
    return in->osize == 8 ? sk_ld64(c, in) : in->osize == 4 ? sk_ld32(c, in) : sk_ld16(c, in);
}

OP(op_jmp_E)
{
    c->r[SK_RIP] = ctl_target(c, in->osize, ctl_operand(c, in));
}
SK_HANDLER1(jmp_E, op_jmp_E);

OP(op_call_E)
{
    uint64_t to = ctl_target(c, in->osize, ctl_operand(c, in));

    stack_push(c, in->osize, c->r[SK_RIP]);
    c->r[SK_RIP] = to;
}
SK_HANDLER1(call_E, op_call_E);

OP(op_ret)
{
    uint64_t to = ctl_target(c, in->osize, stack_load(c, c->r[SK_RSP] & c->spmask, in->osize));

    stack_set_sp(c, c->r[SK_RSP] + in->osize);
    c->r[SK_RIP] = to;
}
SK_HANDLER1(ret, op_ret);

OP(op_ret_I)
{
    uint64_t to = ctl_target(c, in->osize, stack_load(c, c->r[SK_RSP] & c->spmask, in->osize));

    stack_set_sp(c, c->r[SK_RSP] + in->osize + (uint16_t)in->imm);
    c->r[SK_RIP] = to;
}
SK_HANDLER1(ret_I, op_ret_I);

/* rCX by address size. */
static inline uint64_t ctl_count(const struct sk_vcpu *c, const struct sk_insn *in)
{
    return c->r[SK_RCX] << in->ash >> in->ash;
}

OP(op_loop)
{
    uint64_t n = (ctl_count(c, in) - 1) << in->ash >> in->ash;
    bool go = n != 0, zf = c->af & SK_AF_ZF;

    if (in->imm2 != 0xe2) {
        go &= in->imm2 == 0xe1 ? zf : !zf;
    }
    if (go) {
        uint64_t to = ctl_target(c, in->osize, c->r[SK_RIP] + in->imm);

        c->r[SK_RIP] = to;
    }
    sk_set_reg(c, SK_RCX, in->ash == 48 ? 2 : in->ash == 32 ? 4 : 8, n);
}
SK_HANDLER1(loop, op_loop);

OP(op_jcxz)
{
    if (ctl_count(c, in) == 0) {
        c->r[SK_RIP] = ctl_target(c, in->osize, c->r[SK_RIP] + in->imm);
    }
}
SK_HANDLER1(jcxz, op_jcxz);

OP(op_int_n)
{
    if (sk_v86(c) && sk_iopl(c) < 3) {
        sk_gp(c);
    }
    sk_deliver(c, SK_EV_SOFT, (uint8_t)in->imm, false, 0, c->r[SK_RIP]);
}
SK_HANDLER1(int_n, op_int_n);

OP(op_int3)
{
    (void)in;
    if (c->guest_debug & 0x10000) { /* KVM_GUESTDBG_USE_SW_BP: the client's */
        sk_raise(c, SK_BP);
    }
    sk_deliver(c, SK_EV_SOFT_EXC, SK_BP, false, 0, c->r[SK_RIP]);
}
SK_HANDLER1(int3, op_int3);

OP(op_into)
{
    (void)in;
    if (c->af & SK_AF_OF) {
        sk_deliver(c, SK_EV_SOFT_EXC, SK_OF, false, 0, c->r[SK_RIP]);
    }
}
SK_HANDLER1(into, op_into);

OP(op_int1)
{
    (void)in;
    sk_deliver(c, SK_EV_ICEBP, SK_DB, false, 0, c->r[SK_RIP]);
    c->db_pending = 0; /* this is the #DB that was waiting behind MOV SS */
}
SK_HANDLER1(int1, op_int1);

OP(op_iret)
{
    if (c->nmi_masked) {
        sk_nmi_merge(c);
        c->nmi_masked = false; /* even if it faults (SDM 3A §6.7.1) */
        if (atomic_load_explicit(&c->ev_nmi, memory_order_relaxed)) {
            sk_poll_set(c, SK_POLL_NMI);
        }
    }
    sk_blocks_serialise(c); /* serialising */
    sk_iret(c, in->osize);
}
SK_HANDLER1(iret, op_iret);

OP(op_bound)
{
    int64_t lo, hi, v;

    if (in->osize == 2) {
        uint32_t m = sk_ld32(c, in);

        lo = (int16_t)m;
        hi = (int16_t)(m >> 16);
        v = (int16_t)c->r[in->reg];
    } else {
        uint64_t m = sk_ld64(c, in);

        lo = (int32_t)m;
        hi = (int32_t)(m >> 32);
        v = (int32_t)c->r[in->reg];
    }
    if (v < lo || v > hi) {
        sk_raise(c, SK_BR);
    }
}
SK_HANDLER1(bound, op_bound);

/* Offset and selector of a far pointer in memory. */
static uint64_t ctl_far_pointer(struct sk_vcpu *c, const struct sk_insn *in, uint16_t *ret_sel)
{
    uint8_t b[10];
    uint64_t off = 0;

    sk_ld_bytes(c, in, b, in->osize + 2u);
    memcpy(&off, b, in->osize);
    memcpy(ret_sel, b + in->osize, 2);
    return off;
}

OP(op_jmp_far_A)
{
    sk_far_jmp(c, in->imm2, in->imm, in->osize);
}
SK_HANDLER1(jmp_far_A, op_jmp_far_A);

OP(op_jmp_far_M)
{
    uint16_t sel;
    uint64_t off = ctl_far_pointer(c, in, &sel);

    sk_far_jmp(c, sel, off, in->osize);
}
SK_HANDLER1(jmp_far_M, op_jmp_far_M);

OP(op_call_far_A)
{
    sk_far_call(c, in->imm2, in->imm, in->osize);
}
SK_HANDLER1(call_far_A, op_call_far_A);

OP(op_call_far_M)
{
    uint16_t sel;
    uint64_t off = ctl_far_pointer(c, in, &sel);

    sk_far_call(c, sel, off, in->osize);
}
SK_HANDLER1(call_far_M, op_call_far_M);

OP(op_ret_far)
{
    sk_far_ret(c, in->osize, in->imm2 == 0xca ? (uint16_t)in->imm : 0);
}
SK_HANDLER1(ret_far, op_ret_far);

/* LES LDS LSS LFS LGS. */
OP(op_lseg)
{
    uint16_t sel;
    uint64_t off = ctl_far_pointer(c, in, &sel);
    unsigned seg = in->imm2 == 0xc4 ? SK_ES : in->imm2 == 0xc5 ? SK_DS : in->imm2 & 7;

    sk_seg_load(c, seg, sel);
    sk_set_reg(c, in->reg, in->osize, off);
}
SK_HANDLER1(lseg, op_lseg);

OP(op_mov_S_E)
{
    uint16_t sel = in->flags & SK_IN_MEM ? sk_ld16(c, in) : (uint16_t)c->r[in->rm];

    sk_seg_load(c, in->reg, sel);
    if (in->reg == SK_SS) {
        c->special |= SK_SPECIAL_SHADOW_SS;
    }
}
SK_HANDLER1(mov_S_E, op_mov_S_E);

OP(op_mov_E_S)
{
    if (in->flags & SK_IN_MEM) {
        sk_st16(c, in, c->seg[in->reg].sel);
    } else {
        sk_set_reg(c, in->rm, in->osize, c->seg[in->reg].sel);
    }
}
SK_HANDLER1(mov_E_S, op_mov_E_S);
