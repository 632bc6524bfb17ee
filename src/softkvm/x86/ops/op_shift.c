/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shifts and rotates, SHLD and SHRD. Counts are masked to 5 bits (6 for 64-bit operands); a masked
 * count of 0 changes neither value nor flags. Rotates change only CF and OF.
 */
#include "softkvm/x86/ops/ops.h"

#define CNT_8(n)  ((n)&31)
#define CNT_16(n) ((n)&31)
#define CNT_32(n) ((n)&31)
#define CNT_64(n) ((n)&63)

#define ROT_FLAGS  (SK_AF_CF | SK_AF_OF)
#define SET_ALL(f) (f)
#define SET_ROT(f) ((uint16_t)((c->af & ~ROT_FLAGS) | ((f)&ROT_FLAGS)))

#define SHIFT_BODIES(S, name, insn, SET)                                                           \
    static T_(S) do_##name##_##S(struct sk_vcpu *c, T_(S) v, uint8_t n)                            \
    {                                                                                              \
        uint16_t f;                                                                                \
                                                                                                   \
        __asm__("btw $8,%[af]\n\t" insn SFX_##S " %%cl,%[d]\n\tlahf\n\tseto %%al"                  \
                : [d] "+&r"(v), "=&a"(f)                                                           \
                : "c"(n), [af] "r"(c->af)                                                          \
                : "cc");                                                                           \
        c->af = SET(f);                                                                            \
        return v;                                                                                  \
    }                                                                                              \
    static inline void name##_reg_##S(struct sk_vcpu *c, const struct sk_insn *in, uint8_t n)      \
    {                                                                                              \
        T_(S) v = RD_##S(in->rm);                                                                  \
                                                                                                   \
        if (CNT_##S(n)) {                                                                          \
            v = do_##name##_##S(c, v, n);                                                          \
        }                                                                                          \
        WR_##S(in->rm, v);                                                                         \
    }                                                                                              \
    static inline void name##_mem_##S(struct sk_vcpu *c, const struct sk_insn *in, uint8_t n)      \
    {                                                                                              \
        WITH_MEM(                                                                                  \
            S, if (CNT_##S(n)) { *p = do_##name##_##S(c, *p, n); });                               \
    }                                                                                              \
    OP(name##_E_I_r_##S)                                                                           \
    {                                                                                              \
        name##_reg_##S(c, in, (uint8_t)in->imm);                                                   \
    }                                                                                              \
    OP(name##_E_I_m_##S)                                                                           \
    {                                                                                              \
        name##_mem_##S(c, in, (uint8_t)in->imm);                                                   \
    }                                                                                              \
    OP(name##_E_CL_r_##S)                                                                          \
    {                                                                                              \
        name##_reg_##S(c, in, (uint8_t)c->r[SK_RCX]);                                              \
    }                                                                                              \
    OP(name##_E_CL_m_##S)                                                                          \
    {                                                                                              \
        name##_mem_##S(c, in, (uint8_t)c->r[SK_RCX]);                                              \
    }

#define SHIFT_OP(name, insn, SET)                                                                  \
    FOR_SIZES(SHIFT_BODIES, name, insn, SET)                                                       \
    SK_HANDLER_SZ(name##_E_I, name##_E_I_r, name##_E_I_m);                                         \
    SK_HANDLER_SZ(name##_E_CL, name##_E_CL_r, name##_E_CL_m);

SHIFT_OP(rol, "rol", SET_ROT)
SHIFT_OP(ror, "ror", SET_ROT)
SHIFT_OP(rcl, "rcl", SET_ROT)
SHIFT_OP(rcr, "rcr", SET_ROT)
SHIFT_OP(shl, "shl", SET_ALL)
SHIFT_OP(shr, "shr", SET_ALL)
SHIFT_OP(sar, "sar", SET_ALL)

#define SHD_BODIES(S, name, insn)                                                                  \
    static T_(S) do_##name##_##S(struct sk_vcpu *c, T_(S) v, T_(S) s, uint8_t n)                   \
    {                                                                                              \
        uint16_t f;                                                                                \
                                                                                                   \
        __asm__(insn SFX_##S " %%cl,%[s],%[d]\n\tlahf\n\tseto %%al"                                \
                : [d] "+&r"(v), "=&a"(f)                                                           \
                : "c"(n), [s] "r"(s)                                                               \
                : "cc");                                                                           \
        c->af = f;                                                                                 \
        return v;                                                                                  \
    }                                                                                              \
    static inline void name##_reg_##S(struct sk_vcpu *c, const struct sk_insn *in, uint8_t n)      \
    {                                                                                              \
        T_(S) v = RD_##S(in->rm);                                                                  \
                                                                                                   \
        if (CNT_##S(n)) {                                                                          \
            v = do_##name##_##S(c, v, RD_##S(in->reg), n);                                         \
        }                                                                                          \
        WR_##S(in->rm, v);                                                                         \
    }                                                                                              \
    static inline void name##_mem_##S(struct sk_vcpu *c, const struct sk_insn *in, uint8_t n)      \
    {                                                                                              \
        T_(S) s = RD_##S(in->reg);                                                                 \
                                                                                                   \
        WITH_MEM(                                                                                  \
            S, if (CNT_##S(n)) { *p = do_##name##_##S(c, *p, s, n); });                            \
    }                                                                                              \
    OP(name##_I_r_##S)                                                                             \
    {                                                                                              \
        name##_reg_##S(c, in, (uint8_t)in->imm);                                                   \
    }                                                                                              \
    OP(name##_I_m_##S)                                                                             \
    {                                                                                              \
        name##_mem_##S(c, in, (uint8_t)in->imm);                                                   \
    }                                                                                              \
    OP(name##_CL_r_##S)                                                                            \
    {                                                                                              \
        name##_reg_##S(c, in, (uint8_t)c->r[SK_RCX]);                                              \
    }                                                                                              \
    OP(name##_CL_m_##S)                                                                            \
    {                                                                                              \
        name##_mem_##S(c, in, (uint8_t)c->r[SK_RCX]);                                              \
    }

#define SHD_OP(name, insn)                                                                         \
    SHD_BODIES(16, name, insn)                                                                     \
    SHD_BODIES(32, name, insn)                                                                     \
    SHD_BODIES(64, name, insn)                                                                     \
    SK_HANDLER4(name##_I, NULL, name##_I_r_16, name##_I_r_32, name##_I_r_64, NULL, name##_I_m_16,  \
                name##_I_m_32, name##_I_m_64);                                                     \
    SK_HANDLER4(name##_CL, NULL, name##_CL_r_16, name##_CL_r_32, name##_CL_r_64, NULL,             \
                name##_CL_m_16, name##_CL_m_32, name##_CL_m_64);

SHD_OP(shld, "shld")
SHD_OP(shrd, "shrd")
