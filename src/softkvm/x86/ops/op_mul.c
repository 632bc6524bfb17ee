/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MUL IMUL DIV IDIV, and the decimal adjustments. Of the flags of multiplications only CF and OF
 * are defined, of those of divisions none: they stay.
 */
#include "softkvm/x86/ops/ops.h"

#define W_8  16
#define W_16 32
#define W_32 64

static void mul_flags(struct sk_vcpu *c, bool over)
{
    c->af = (uint16_t)((c->af & ~(SK_AF_CF | SK_AF_OF)) | (over ? SK_AF_CF | SK_AF_OF : 0));
}

/* Double-width accumulator: AX, DX:AX, EDX:EAX, RDX:RAX. */
#define ACC_PUT_8(v)  (*sk_r16(c, SK_RAX) = (uint16_t)(v))
#define ACC_PUT_16(v) (WR_16(SK_RAX, v), WR_16(SK_RDX, (v) >> 16))
#define ACC_PUT_32(v) (WR_32(SK_RAX, v), WR_32(SK_RDX, (v) >> 32))
#define ACC_PUT_64(v) (WR_64(SK_RAX, (uint64_t)(v)), WR_64(SK_RDX, (uint64_t)((v) >> 64)))
#define ACC_GET_8     ((uint16_t)c->r[SK_RAX])
#define ACC_GET_16    ((uint32_t)RD_16(SK_RDX) << 16 | RD_16(SK_RAX))
#define ACC_GET_32    ((uint64_t)RD_32(SK_RDX) << 32 | RD_32(SK_RAX))
#define ACC_GET_64    ((unsigned __int128)c->r[SK_RDX] << 64 | c->r[SK_RAX])

#define MUL_BODIES(S, UW, SW)                                                                      \
    static void do_mul_##S(struct sk_vcpu *c, T_(S) s)                                             \
    {                                                                                              \
        UW v = (UW)(T_(S))c->r[SK_RAX] * s;                                                        \
                                                                                                   \
        ACC_PUT_##S(v);                                                                            \
        mul_flags(c, v >> S != 0);                                                                 \
    }                                                                                              \
    static void do_imul_##S(struct sk_vcpu *c, T_(S) s)                                            \
    {                                                                                              \
        SW v = (SW)(ST_(S))c->r[SK_RAX] * (ST_(S))s;                                               \
                                                                                                   \
        ACC_PUT_##S((UW)v);                                                                        \
        mul_flags(c, v != (ST_(S))v);                                                              \
    }                                                                                              \
    static void do_div_##S(struct sk_vcpu *c, T_(S) s)                                             \
    {                                                                                              \
        UW a = ACC_GET_##S;                                                                        \
                                                                                                   \
        if (s == 0 || (a >> S) >= s) {                                                             \
            sk_raise(c, SK_DE);                                                                    \
        }                                                                                          \
        div_put_##S(c, (T_(S))(a / s), (T_(S))(a % s));                                            \
    }                                                                                              \
    static void do_idiv_##S(struct sk_vcpu *c, T_(S) s)                                            \
    {                                                                                              \
        UW a = ACC_GET_##S, q;                                                                     \
        bool na = (SW)a < 0, ns = (ST_(S))s < 0;                                                   \
        T_(S) d = ns ? (T_(S)) - s : s, r;                                                         \
                                                                                                   \
        if (na) {                                                                                  \
            a = (UW)-a;                                                                            \
        }                                                                                          \
        if (d == 0 || (a >> S) >= d) {                                                             \
            sk_raise(c, SK_DE);                                                                    \
        }                                                                                          \
        q = a / d;                                                                                 \
        r = (T_(S))(a % d);                                                                        \
        if (q > ((UW)1 << (S - 1)) - (na == ns)) {                                                 \
            sk_raise(c, SK_DE);                                                                    \
        }                                                                                          \
        div_put_##S(c, na != ns ? (T_(S)) - q : (T_(S))q, na ? (T_(S)) - r : r);                   \
    }

static void div_put_8(struct sk_vcpu *c, uint8_t q, uint8_t r)
{
    *sk_r16(c, SK_RAX) = (uint16_t)(r << 8 | q);
}

#define DIV_PUT(S)                                                                                 \
    static void div_put_##S(struct sk_vcpu *c, T_(S) q, T_(S) r)                                   \
    {                                                                                              \
        WR_##S(SK_RAX, q);                                                                         \
        WR_##S(SK_RDX, r);                                                                         \
    }
DIV_PUT(16)
DIV_PUT(32)
DIV_PUT(64)

MUL_BODIES(8, uint16_t, int16_t)
MUL_BODIES(16, uint32_t, int32_t)
MUL_BODIES(32, uint64_t, int64_t)
MUL_BODIES(64, unsigned __int128, __int128)

#define ONE_OPERAND(S, name)                                                                       \
    OP(name##_E_r_##S)                                                                             \
    {                                                                                              \
        do_##name##_##S(c, RD_##S(in->rm));                                                        \
    }                                                                                              \
    OP(name##_E_m_##S)                                                                             \
    {                                                                                              \
        do_##name##_##S(c, LD_(S));                                                                \
    }
FOR_SIZES(ONE_OPERAND, mul)
FOR_SIZES(ONE_OPERAND, imul)
FOR_SIZES(ONE_OPERAND, div)
FOR_SIZES(ONE_OPERAND, idiv)
SK_HANDLER_SZ(mul_E, mul_E_r, mul_E_m);
SK_HANDLER_SZ(imul_E, imul_E_r, imul_E_m);
SK_HANDLER_SZ(div_E, div_E_r, div_E_m);
SK_HANDLER_SZ(idiv_E, idiv_E_r, idiv_E_m);

#define IMUL2(S)                                                                                   \
    static void do_imul2_##S(struct sk_vcpu *c, unsigned reg, T_(S) a, T_(S) b)                    \
    {                                                                                              \
        ST_(S) v;                                                                                  \
                                                                                                   \
        mul_flags(c, __builtin_mul_overflow((ST_(S))a, (ST_(S))b, &v));                            \
        WR_##S(reg, (T_(S))v);                                                                     \
    }                                                                                              \
    OP(imul_G_E_r_##S)                                                                             \
    {                                                                                              \
        do_imul2_##S(c, in->reg, RD_##S(in->reg), RD_##S(in->rm));                                 \
    }                                                                                              \
    OP(imul_G_E_m_##S)                                                                             \
    {                                                                                              \
        T_(S) s = LD_(S);                                                                          \
                                                                                                   \
        do_imul2_##S(c, in->reg, RD_##S(in->reg), s);                                              \
    }                                                                                              \
    OP(imul_G_E_I_r_##S)                                                                           \
    {                                                                                              \
        do_imul2_##S(c, in->reg, RD_##S(in->rm), (T_(S))in->imm);                                  \
    }                                                                                              \
    OP(imul_G_E_I_m_##S)                                                                           \
    {                                                                                              \
        do_imul2_##S(c, in->reg, LD_(S), (T_(S))in->imm);                                          \
    }
IMUL2(16)
IMUL2(32)
IMUL2(64)
SK_HANDLER4(imul_G_E, NULL, imul_G_E_r_16, imul_G_E_r_32, imul_G_E_r_64, NULL, imul_G_E_m_16,
            imul_G_E_m_32, imul_G_E_m_64);
SK_HANDLER4(imul_G_E_I, NULL, imul_G_E_I_r_16, imul_G_E_I_r_32, imul_G_E_I_r_64, NULL,
            imul_G_E_I_m_16, imul_G_E_I_m_32, imul_G_E_I_m_64);

/* SF, ZF, PF of a byte; AF, CF as given; OF clear. */
static void bcd_flags(struct sk_vcpu *c, uint8_t v, bool aux, bool carry)
{
    uint16_t f;

    HOST2("test", 8, v, v, f);
    c->af = (uint16_t)((f & (SK_AF_SF | SK_AF_ZF | SK_AF_PF)) | (aux ? SK_AF_AF : 0) |
                       (carry ? SK_AF_CF : 0));
}

/* SDM 2: DAA and DAS; `sign` is 1 or -1. */
static void bcd_das(struct sk_vcpu *c, int sign)
{
    uint8_t al = (uint8_t)c->r[SK_RAX], old = al;
    bool cf = c->af & SK_AF_CF, carry = false, aux = false;

    if ((al & 15) > 9 || (c->af & SK_AF_AF)) {
        carry = cf || (sign > 0 ? old > 0xf9 : old < 6);
        al = (uint8_t)(al + 6 * sign);
        aux = true;
    }
    if (old > 0x99 || cf) {
        al = (uint8_t)(al + 0x60 * sign);
        carry = true;
    } else if (sign > 0) {
        carry = false;
    }
    WR_8(0, al);
    bcd_flags(c, al, aux, carry);
}

OP(op_daa)
{
    (void)in;
    bcd_das(c, 1);
}
SK_HANDLER1(daa, op_daa);

OP(op_das)
{
    (void)in;
    bcd_das(c, -1);
}
SK_HANDLER1(das, op_das);

static void bcd_aas(struct sk_vcpu *c, int sign)
{
    bool adjust = (c->r[SK_RAX] & 15) > 9 || (c->af & SK_AF_AF);

    if (adjust) {
        WR_16(SK_RAX, c->r[SK_RAX] + (uint64_t)(int64_t)(0x106 * sign));
    }
    WR_8(0, c->r[SK_RAX] & 15);
    bcd_flags(c, (uint8_t)c->r[SK_RAX], adjust, adjust);
}

OP(op_aaa)
{
    (void)in;
    bcd_aas(c, 1);
}
SK_HANDLER1(aaa, op_aaa);

OP(op_aas)
{
    (void)in;
    bcd_aas(c, -1);
}
SK_HANDLER1(aas, op_aas);

OP(op_aam)
{
    uint8_t al = (uint8_t)c->r[SK_RAX], base = (uint8_t)in->imm;

    if (base == 0) {
        sk_raise(c, SK_DE);
    }
    WR_16(SK_RAX, (unsigned)(al / base) << 8 | al % base);
    bcd_flags(c, al % base, false, false);
}
SK_HANDLER1(aam, op_aam);

OP(op_aad)
{
    uint8_t v = (uint8_t)(c->r[SK_RAX] + (c->r[SK_RAX] >> 8 & 0xff) * (uint8_t)in->imm);

    WR_16(SK_RAX, v);
    bcd_flags(c, v, false, false);
}
SK_HANDLER1(aad, op_aad);
