/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Moves, extensions, exchanges, conditional moves and sets, LEA, flags to and from AH.
 */
#include "softkvm/x86/ops/ops.h"

#define MOV_BODIES(S)                                                                              \
    OP(mov_E_G_r_##S)                                                                              \
    {                                                                                              \
        WR_##S(in->rm, RD_##S(in->reg));                                                           \
    }                                                                                              \
    OP(mov_E_G_m_##S)                                                                              \
    {                                                                                              \
        ST_M(S, RD_##S(in->reg));                                                                  \
    }                                                                                              \
    OP(mov_G_E_r_##S)                                                                              \
    {                                                                                              \
        WR_##S(in->reg, RD_##S(in->rm));                                                           \
    }                                                                                              \
    OP(mov_G_E_m_##S)                                                                              \
    {                                                                                              \
        WR_##S(in->reg, LD_(S));                                                                   \
    }                                                                                              \
    OP(mov_E_I_r_##S)                                                                              \
    {                                                                                              \
        WR_##S(in->rm, (T_(S))in->imm);                                                            \
    }                                                                                              \
    OP(mov_E_I_m_##S)                                                                              \
    {                                                                                              \
        ST_M(S, (T_(S))in->imm);                                                                   \
    }                                                                                              \
    OP(mov_A_O_##S)                                                                                \
    {                                                                                              \
        WR_##S(0, sk_ld_seg##S(c, in->seg, in->imm));                                              \
    }                                                                                              \
    OP(mov_O_A_##S)                                                                                \
    {                                                                                              \
        sk_st_seg##S(c, in->seg, in->imm, RD_##S(0));                                              \
    }                                                                                              \
    OP(xchg_E_G_r_##S)                                                                             \
    {                                                                                              \
        T_(S) a = RD_##S(in->rm), b = RD_##S(in->reg);                                             \
                                                                                                   \
        WR_##S(in->rm, b);                                                                         \
        WR_##S(in->reg, a);                                                                        \
    }                                                                                              \
    OP(xchg_E_G_m_##S)                                                                             \
    {                                                                                              \
        T_(S) v = RD_##S(in->reg), *p = sk_rmw(c, in, S / 8);                                      \
                                                                                                   \
        if (LIKELY(p)) { /* XCHG with memory is always locked */                                   \
            v = __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                       \
        } else {                                                                                   \
            T_(S) old;                                                                             \
                                                                                                   \
            sk_split_lock(c);                                                                      \
            old = LD_(S);                                                                          \
            ST_M(S, v);                                                                            \
            sk_split_unlock(c);                                                                    \
            v = old;                                                                               \
        }                                                                                          \
        WR_##S(in->reg, v);                                                                        \
    }
FOR_SIZES(MOV_BODIES)

SK_HANDLER_SZ(mov_E_G, mov_E_G_r, mov_E_G_m);
SK_HANDLER_SZ(mov_G_E, mov_G_E_r, mov_G_E_m);
SK_HANDLER_SZ(mov_E_I, mov_E_I_r, mov_E_I_m);
SK_HANDLER_SZ(mov_A_O, mov_A_O, mov_A_O);
SK_HANDLER_SZ(mov_O_A, mov_O_A, mov_O_A);
SK_HANDLER_SZ(xchg_E_G, xchg_E_G_r, xchg_E_G_m);

OP(op_xchg_Z)
{
    uint64_t a = c->r[SK_RAX];

    if (in->rm == SK_RAX) {
        return; /* 90 is NOP, F3 90 is PAUSE: not even the upper half is cleared */
    }
    sk_set_reg(c, SK_RAX, in->osize, c->r[in->rm]);
    sk_set_reg(c, in->rm, in->osize, a);
}
SK_HANDLER1(xchg_Z, op_xchg_Z);

OP(op_nop)
{
    (void)c;
    (void)in;
}
SK_HANDLER1(nop, op_nop);

OP(op_lea)
{
    sk_set_reg(c, in->reg, in->osize, sk_ea(c, in));
}
SK_HANDLER1(lea, op_lea);

#define EXTEND(name, S, from, cast)                                                                \
    OP(name##_r_##S)                                                                               \
    {                                                                                              \
        WR_##S(in->reg, (T_(S))(cast)RD_##from(in->rm));                                           \
    }                                                                                              \
    OP(name##_m_##S)                                                                               \
    {                                                                                              \
        WR_##S(in->reg, (T_(S))(cast)LD_(from));                                                   \
    }
#define EXTEND_ALL(name, from, cast)                                                               \
    EXTEND(name, 16, from, cast)                                                                   \
    EXTEND(name, 32, from, cast)                                                                   \
    EXTEND(name, 64, from, cast)                                                                   \
    SK_HANDLER4(name, NULL, name##_r_16, name##_r_32, name##_r_64, NULL, name##_m_16, name##_m_32, \
                name##_m_64)
EXTEND_ALL(movzx_G_Eb, 8, uint8_t);
EXTEND_ALL(movzx_G_Ew, 16, uint16_t);
EXTEND_ALL(movsx_G_Eb, 8, int8_t);
EXTEND_ALL(movsx_G_Ew, 16, int16_t);
EXTEND(movsxd, 16, 32, int32_t) /* reads four bytes, as processors do; the rest is cut off */
EXTEND(movsxd, 32, 32, int32_t)
EXTEND(movsxd, 64, 32, int32_t)
SK_HANDLER4(movsxd, NULL, movsxd_r_16, movsxd_r_32, movsxd_r_64, NULL, movsxd_m_16, movsxd_m_32,
            movsxd_m_64);

/* The load happens, and may fault, whatever the condition says; a 32-bit destination loses its
 * upper half in any case. */
#define CMOV(S)                                                                                    \
    OP(cmov_r_##S)                                                                                 \
    {                                                                                              \
        WR_##S(in->reg, sk_cond(c, in->imm2 & 15) ? RD_##S(in->rm) : RD_##S(in->reg));             \
    }                                                                                              \
    OP(cmov_m_##S)                                                                                 \
    {                                                                                              \
        T_(S) v = LD_(S);                                                                          \
                                                                                                   \
        WR_##S(in->reg, sk_cond(c, in->imm2 & 15) ? v : RD_##S(in->reg));                          \
    }
CMOV(16)
CMOV(32)
CMOV(64)
SK_HANDLER4(cmov, NULL, cmov_r_16, cmov_r_32, cmov_r_64, NULL, cmov_m_16, cmov_m_32, cmov_m_64);

OP(op_setcc_r)
{
    *sk_r8(c, in->rm) = sk_cond(c, in->imm2 & 15);
}
OP(op_setcc_m)
{
    sk_st8(c, in, sk_cond(c, in->imm2 & 15));
}
SK_HANDLER_RM(setcc, op_setcc_r, op_setcc_m);

OP(op_cbw)
{
    uint64_t *a = &c->r[SK_RAX];

    if (in->osize == 2) {
        *sk_r16(c, SK_RAX) = (uint16_t)(int8_t)*a;
    } else if (in->osize == 4) {
        *a = (uint32_t)(int16_t)*a;
    } else {
        *a = (uint64_t)(int32_t)*a;
    }
}
SK_HANDLER1(cbw, op_cbw);

OP(op_cwd)
{
    unsigned bits = in->osize * 8u;

    sk_set_reg(c, SK_RDX, in->osize, (uint64_t)((int64_t)(c->r[SK_RAX] << (64 - bits)) >> 63));
}
SK_HANDLER1(cwd, op_cwd);

OP(op_lahf)
{
    (void)in;
    *sk_r8(c, 1) = (uint8_t)(sk_af_to_eflags(c->af) | SK_FL_ONE);
}
SK_HANDLER1(lahf, op_lahf);

OP(op_sahf)
{
    (void)in;
    c->af = (uint16_t)((c->af & SK_AF_OF) | ((*sk_r8(c, 1) & 0xd5) << 8));
}
SK_HANDLER1(sahf, op_sahf);

OP(op_xlat)
{
    uint64_t off = c->r[SK_RBX] + (uint8_t)c->r[SK_RAX];

    *sk_r8(c, 0) = sk_ld_seg8(c, in->seg, off << in->ash >> in->ash);
}
SK_HANDLER1(xlat, op_xlat);

OP(op_bswap)
{
    if (in->osize == 8) {
        c->r[in->rm] = __builtin_bswap64(c->r[in->rm]);
    } else if (in->osize == 4) {
        c->r[in->rm] = __builtin_bswap32((uint32_t)c->r[in->rm]);
    } else {
        *sk_r16(c, in->rm) = 0; /* undefined by the manual; processors clear it */
    }
}
SK_HANDLER1(bswap, op_bswap);

OP(op_movbe_G_M)
{
    if (in->osize == 8) {
        c->r[in->reg] = __builtin_bswap64(sk_ld64(c, in));
    } else if (in->osize == 4) {
        c->r[in->reg] = __builtin_bswap32(sk_ld32(c, in));
    } else {
        *sk_r16(c, in->reg) = __builtin_bswap16(sk_ld16(c, in));
    }
}
SK_HANDLER1(movbe_G_M, op_movbe_G_M);

OP(op_movbe_M_G)
{
    if (in->osize == 8) {
        sk_st64(c, in, __builtin_bswap64(c->r[in->reg]));
    } else if (in->osize == 4) {
        sk_st32(c, in, __builtin_bswap32((uint32_t)c->r[in->reg]));
    } else {
        sk_st16(c, in, __builtin_bswap16((uint16_t)c->r[in->reg]));
    }
}
SK_HANDLER1(movbe_M_G, op_movbe_M_G);

#define FLAG_OP(name, stmt)                                                                        \
    OP(op_##name)                                                                                  \
    {                                                                                              \
        (void)c, (void)in;                                                                         \
        stmt;                                                                                      \
    }                                                                                              \
    SK_HANDLER1(name, op_##name)
FLAG_OP(cmc, c->af ^= SK_AF_CF);
FLAG_OP(clc, c->af &= (uint16_t)~SK_AF_CF);
FLAG_OP(stc, c->af |= SK_AF_CF);
FLAG_OP(cld, c->eflags &= ~(uint32_t)SK_FL_DF);
FLAG_OP(std, c->eflags |= SK_FL_DF);
FLAG_OP(salc, *sk_r8(c, 0) = c->af & SK_AF_CF ? 0xff : 0);
FLAG_OP(fence, __atomic_thread_fence(__ATOMIC_SEQ_CST));
