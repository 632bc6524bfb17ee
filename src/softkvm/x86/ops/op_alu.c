/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT, ADCX ADOX.
 */
#include "softkvm/x86/ops/ops.h"

/* H and HM name the host macros for registers and memory. */
#define ALU_BODIES(S, name, insn, H)                                                               \
    OP(name##_E_G_r_##S)                                                                           \
    {                                                                                              \
        T_(S) d = RD_##S(in->rm);                                                                  \
                                                                                                   \
        H(insn, S, d, RD_##S(in->reg), c->af);                                                     \
        WR_##S(in->rm, d);                                                                         \
    }                                                                                              \
    OP(name##_G_E_r_##S)                                                                           \
    {                                                                                              \
        T_(S) d = RD_##S(in->reg);                                                                 \
                                                                                                   \
        H(insn, S, d, RD_##S(in->rm), c->af);                                                      \
        WR_##S(in->reg, d);                                                                        \
    }                                                                                              \
    OP(name##_G_E_m_##S)                                                                           \
    {                                                                                              \
        T_(S) s = LD_(S), d = RD_##S(in->reg);                                                     \
                                                                                                   \
        H(insn, S, d, s, c->af);                                                                   \
        WR_##S(in->reg, d);                                                                        \
    }                                                                                              \
    OP(name##_E_I_r_##S)                                                                           \
    {                                                                                              \
        T_(S) d = RD_##S(in->rm);                                                                  \
                                                                                                   \
        H(insn, S, d, in->imm, c->af);                                                             \
        WR_##S(in->rm, d);                                                                         \
    }

#define ALU_MEM(S, name, insn)                                                                     \
    OP(name##_E_G_m_##S)                                                                           \
    {                                                                                              \
        T_(S) s = RD_##S(in->reg);                                                                 \
                                                                                                   \
        if (UNLIKELY(in->flags & SK_IN_LOCK)) {                                                    \
            WITH_MEM(S, HOST2_MEM("lock; " insn, S, p, s, c->af));                                 \
        } else {                                                                                   \
            WITH_MEM(S, HOST2_MEM(insn, S, p, s, c->af));                                          \
        }                                                                                          \
    }                                                                                              \
    OP(name##_E_I_m_##S)                                                                           \
    {                                                                                              \
        T_(S) s = (T_(S))in->imm;                                                                  \
                                                                                                   \
        if (UNLIKELY(in->flags & SK_IN_LOCK)) {                                                    \
            WITH_MEM(S, HOST2_MEM("lock; " insn, S, p, s, c->af));                                 \
        } else {                                                                                   \
            WITH_MEM(S, HOST2_MEM(insn, S, p, s, c->af));                                          \
        }                                                                                          \
    }

#define ALU_MEM_C(S, name, insn)                                                                   \
    OP(name##_E_G_m_##S)                                                                           \
    {                                                                                              \
        T_(S) s = RD_##S(in->reg);                                                                 \
        uint16_t f;                                                                                \
                                                                                                   \
        if (UNLIKELY(in->flags & SK_IN_LOCK)) {                                                    \
            WITH_MEM(S, HOST2C_MEM("lock; ", insn, S, p, s, f));                                   \
        } else {                                                                                   \
            WITH_MEM(S, HOST2C_MEM("", insn, S, p, s, f));                                         \
        }                                                                                          \
        c->af = f;                                                                                 \
    }                                                                                              \
    OP(name##_E_I_m_##S)                                                                           \
    {                                                                                              \
        T_(S) s = (T_(S))in->imm;                                                                  \
        uint16_t f;                                                                                \
                                                                                                   \
        if (UNLIKELY(in->flags & SK_IN_LOCK)) {                                                    \
            WITH_MEM(S, HOST2C_MEM("lock; ", insn, S, p, s, f));                                   \
        } else {                                                                                   \
            WITH_MEM(S, HOST2C_MEM("", insn, S, p, s, f));                                         \
        }                                                                                          \
        c->af = f;                                                                                 \
    }

#define ALU_HANDLERS(name)                                                                         \
    SK_HANDLER_SZ(name##_E_G, name##_E_G_r, name##_E_G_m);                                         \
    SK_HANDLER_SZ(name##_G_E, name##_G_E_r, name##_G_E_m);                                         \
    SK_HANDLER_SZ(name##_E_I, name##_E_I_r, name##_E_I_m)

#define ALU_OP(name, insn)                                                                         \
    FOR_SIZES(ALU_BODIES, name, insn, HOST2)                                                       \
    FOR_SIZES(ALU_MEM, name, insn)                                                                 \
    ALU_HANDLERS(name);
#define ALU_OP_C(name, insn)                                                                       \
    FOR_SIZES(ALU_BODIES, name, insn, HOST2C)                                                      \
    FOR_SIZES(ALU_MEM_C, name, insn)                                                               \
    ALU_HANDLERS(name);

ALU_OP(add, "add")
ALU_OP(or, "or")
ALU_OP_C(adc, "adc")
ALU_OP_C(sbb, "sbb")
ALU_OP(and, "and")
ALU_OP(sub, "sub")
ALU_OP(xor, "xor")

/* CMP and TEST: no result. */
#define NORES_BODIES(S, name, insn)                                                                \
    OP(name##_E_G_r_##S)                                                                           \
    {                                                                                              \
        T_(S) d = RD_##S(in->rm);                                                                  \
                                                                                                   \
        HOST2(insn, S, d, RD_##S(in->reg), c->af);                                                 \
    }                                                                                              \
    OP(name##_E_G_m_##S)                                                                           \
    {                                                                                              \
        T_(S) d = LD_(S);                                                                          \
                                                                                                   \
        HOST2(insn, S, d, RD_##S(in->reg), c->af);                                                 \
    }                                                                                              \
    OP(name##_E_I_r_##S)                                                                           \
    {                                                                                              \
        T_(S) d = RD_##S(in->rm);                                                                  \
                                                                                                   \
        HOST2(insn, S, d, in->imm, c->af);                                                         \
    }                                                                                              \
    OP(name##_E_I_m_##S)                                                                           \
    {                                                                                              \
        T_(S) d = LD_(S);                                                                          \
                                                                                                   \
        HOST2(insn, S, d, in->imm, c->af);                                                         \
    }

FOR_SIZES(NORES_BODIES, cmp, "cmp")
FOR_SIZES(NORES_BODIES, test, "test")

#define CMP_G_E(S)                                                                                 \
    OP(cmp_G_E_r_##S)                                                                              \
    {                                                                                              \
        T_(S) d = RD_##S(in->reg);                                                                 \
                                                                                                   \
        HOST2("cmp", S, d, RD_##S(in->rm), c->af);                                                 \
    }                                                                                              \
    OP(cmp_G_E_m_##S)                                                                              \
    {                                                                                              \
        T_(S) s = LD_(S), d = RD_##S(in->reg);                                                     \
                                                                                                   \
        HOST2("cmp", S, d, s, c->af);                                                              \
    }
FOR_SIZES(CMP_G_E)

ALU_HANDLERS(cmp);
SK_HANDLER_SZ(test_E_G, test_E_G_r, test_E_G_m);
SK_HANDLER_SZ(test_E_I, test_E_I_r, test_E_I_m);

/* INC and DEC keep CF. */
#define KEEP_CF(f) ((uint16_t)((c->af & SK_AF_CF) | ((f) & ~SK_AF_CF)))
#define UNARY_BODIES(S, name, insn, SETF)                                                          \
    OP(name##_E_r_##S)                                                                             \
    {                                                                                              \
        T_(S) d = RD_##S(in->rm);                                                                  \
        uint16_t f;                                                                                \
                                                                                                   \
        HOST1(insn, S, d, f);                                                                      \
        WR_##S(in->rm, d);                                                                         \
        SETF;                                                                                      \
    }                                                                                              \
    OP(name##_E_m_##S)                                                                             \
    {                                                                                              \
        uint16_t f;                                                                                \
                                                                                                   \
        if (UNLIKELY(in->flags & SK_IN_LOCK)) {                                                    \
            WITH_MEM(S, HOST1_MEM("lock; " insn, S, p, f));                                        \
        } else {                                                                                   \
            WITH_MEM(S, HOST1_MEM(insn, S, p, f));                                                 \
        }                                                                                          \
        SETF;                                                                                      \
    }

FOR_SIZES(UNARY_BODIES, inc, "inc", c->af = KEEP_CF(f))
FOR_SIZES(UNARY_BODIES, dec, "dec", c->af = KEEP_CF(f))
FOR_SIZES(UNARY_BODIES, neg, "neg", c->af = f)
FOR_SIZES(UNARY_BODIES, not, "not", (void)f)
SK_HANDLER_SZ(inc_E, inc_E_r, inc_E_m);
SK_HANDLER_SZ(dec_E, dec_E_r, dec_E_m);
SK_HANDLER_SZ(neg_E, neg_E_r, neg_E_m);
SK_HANDLER_SZ(not_E, not_E_r, not_E_m);

/* ADCX uses and sets CF alone, ADOX OF alone. */
#define ADX(S, name, bit, SRC, sfx)                                                                \
    OP(name##_##sfx##_##S)                                                                         \
    {                                                                                              \
        T_(S) s = SRC, d = RD_##S(in->reg), t;                                                     \
        bool carry = __builtin_add_overflow(d, s, &t);                                             \
                                                                                                   \
        carry |= __builtin_add_overflow(t, (T_(S))((c->af & (bit)) != 0), &t);                     \
        WR_##S(in->reg, t);                                                                        \
        c->af = (uint16_t)((c->af & ~(bit)) | (carry ? (bit) : 0));                                \
    }
ADX(32, adcx, SK_AF_CF, RD_32(in->rm), r)
ADX(64, adcx, SK_AF_CF, RD_64(in->rm), r)
ADX(32, adcx, SK_AF_CF, LD_(32), m)
ADX(64, adcx, SK_AF_CF, LD_(64), m)
ADX(32, adox, SK_AF_OF, RD_32(in->rm), r)
ADX(64, adox, SK_AF_OF, RD_64(in->rm), r)
ADX(32, adox, SK_AF_OF, LD_(32), m)
ADX(64, adox, SK_AF_OF, LD_(64), m)
SK_HANDLER4(adcx, NULL, NULL, adcx_r_32, adcx_r_64, NULL, NULL, adcx_m_32, adcx_m_64);
SK_HANDLER4(adox, NULL, NULL, adox_r_32, adox_r_64, NULL, NULL, adox_m_32, adox_m_64);
