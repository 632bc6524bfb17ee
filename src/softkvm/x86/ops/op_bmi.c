/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BMI1 and BMI2 (VEX-encoded, general registers; 32 or 64 bits).
 */
#include "softkvm/x86/ops/ops.h"

static uint64_t bmi_src(struct sk_vcpu *c, const struct sk_insn *in)
{
    if (in->osize == 8) {
        return in->flags & SK_IN_MEM ? sk_ld64(c, in) : c->r[in->rm];
    }
    return in->flags & SK_IN_MEM ? sk_ld32(c, in) : (uint32_t)c->r[in->rm];
}

static uint64_t bmi_vreg(struct sk_vcpu *c, const struct sk_insn *in)
{
    return in->osize == 8 ? c->r[in->vreg] : (uint32_t)c->r[in->vreg];
}

/* SF, ZF from the result, OF clear, CF as given; AF and PF are undefined and come out clear. */
static void bmi_flags(struct sk_vcpu *c, const struct sk_insn *in, uint64_t v, bool cf)
{
    v <<= 64 - in->osize * 8;
    c->af = (uint16_t)((v == 0 ? SK_AF_ZF : 0) | (v >> 63 ? SK_AF_SF : 0) | (cf ? SK_AF_CF : 0));
}

OP(op_andn)
{
    uint64_t v = ~bmi_vreg(c, in) & bmi_src(c, in);

    sk_set_reg(c, in->reg, in->osize, v);
    bmi_flags(c, in, v, false);
}
SK_HANDLER1(andn, op_andn);

OP(op_blsr)
{
    uint64_t s = bmi_src(c, in), v = s & (s - 1);

    sk_set_reg(c, in->vreg, in->osize, v);
    bmi_flags(c, in, v, s == 0);
}
SK_HANDLER1(blsr, op_blsr);

OP(op_blsmsk)
{
    uint64_t s = bmi_src(c, in), v = s ^ (s - 1);

    sk_set_reg(c, in->vreg, in->osize, v);
    bmi_flags(c, in, v, s == 0);
}
SK_HANDLER1(blsmsk, op_blsmsk);

OP(op_blsi)
{
    uint64_t s = bmi_src(c, in), v = s & -s;

    sk_set_reg(c, in->vreg, in->osize, v);
    bmi_flags(c, in, v, s != 0);
}
SK_HANDLER1(blsi, op_blsi);

OP(op_bzhi)
{
    uint64_t s = bmi_src(c, in);
    unsigned n = (uint8_t)c->r[in->vreg], bits = in->osize * 8u;

    if (n < bits) {
        s &= BIT64(n) - 1;
    }
    sk_set_reg(c, in->reg, in->osize, s);
    bmi_flags(c, in, s, n >= bits);
}
SK_HANDLER1(bzhi, op_bzhi);

OP(op_bextr)
{
    uint64_t s = bmi_src(c, in);
    unsigned start = (uint8_t)c->r[in->vreg], len = (uint8_t)(c->r[in->vreg] >> 8);

    s = start < 64 ? s >> start : 0;
    if (len < 64) {
        s &= BIT64(len) - 1;
    }
    sk_set_reg(c, in->reg, in->osize, s);
    bmi_flags(c, in, s, false);
}
SK_HANDLER1(bextr, op_bextr);

OP(op_pext)
{
    uint64_t m = bmi_src(c, in), s = bmi_vreg(c, in), v = 0;

    for (unsigned k = 0; m; m &= m - 1, k++) {
        v |= ((s >> __builtin_ctzll(m)) & 1) << k;
    }
    sk_set_reg(c, in->reg, in->osize, v);
}
SK_HANDLER1(pext, op_pext);

OP(op_pdep)
{
    uint64_t m = bmi_src(c, in), s = bmi_vreg(c, in), v = 0;

    for (unsigned k = 0; m; m &= m - 1, k++) {
        v |= ((s >> k) & 1) << __builtin_ctzll(m);
    }
    sk_set_reg(c, in->reg, in->osize, v);
}
SK_HANDLER1(pdep, op_pdep);

/* The low half is written first: if both destinations are one register, the high half stays. */
OP(op_mulx)
{
    uint64_t s = bmi_src(c, in);

    if (in->osize == 8) {
        unsigned __int128 v = (unsigned __int128)c->r[SK_RDX] * s;

        c->r[in->vreg] = (uint64_t)v;
        c->r[in->reg] = (uint64_t)(v >> 64);
    } else {
        uint64_t v = (uint64_t)(uint32_t)c->r[SK_RDX] * s;

        c->r[in->vreg] = (uint32_t)v;
        c->r[in->reg] = v >> 32;
    }
}
SK_HANDLER1(mulx, op_mulx);

OP(op_shlx)
{
    unsigned n = (unsigned)c->r[in->vreg] & (in->osize * 8u - 1);

    sk_set_reg(c, in->reg, in->osize, bmi_src(c, in) << n);
}
SK_HANDLER1(shlx, op_shlx);

OP(op_shrx)
{
    unsigned n = (unsigned)c->r[in->vreg] & (in->osize * 8u - 1);

    sk_set_reg(c, in->reg, in->osize, bmi_src(c, in) >> n);
}
SK_HANDLER1(shrx, op_shrx);

OP(op_sarx)
{
    unsigned n = (unsigned)c->r[in->vreg] & (in->osize * 8u - 1);
    uint64_t s = bmi_src(c, in);
    int64_t v = in->osize == 8 ? (int64_t)s : (int32_t)s;

    sk_set_reg(c, in->reg, in->osize, (uint64_t)(v >> n));
}
SK_HANDLER1(sarx, op_sarx);

OP(op_rorx)
{
    unsigned bits = in->osize * 8u, n = (unsigned)in->imm & (bits - 1);
    uint64_t s = bmi_src(c, in);

    sk_set_reg(c, in->reg, in->osize, n ? s >> n | s << (bits - n) : s);
}
SK_HANDLER1(rorx, op_rorx);
