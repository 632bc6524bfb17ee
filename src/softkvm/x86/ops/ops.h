/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared by the instruction bodies: operands by size, and the host instruction that does the work
 * and leaves its flags (flags.h).
 *
 * Bodies are written once with a size parameter S (8, 16, 32, 64) and instantiated for all four;
 * NAME_r works on registers, NAME_m on memory.
 */
#ifndef SOFTKVM_X86_OPS_H
#define SOFTKVM_X86_OPS_H

#include "softkvm/x86/flags.h"
#include "softkvm/x86/mem.h"

#define T_(S)  uint##S##_t
#define ST_(S) int##S##_t

/* Instruction suffixes. */
#define SFX_8  "b"
#define SFX_16 "w"
#define SFX_32 "l"
#define SFX_64 "q"

/* Register operand n as it stands in struct sk_insn. */
#define RD_8(n)     (*sk_r8(c, n))
#define RD_16(n)    ((uint16_t)c->r[n])
#define RD_32(n)    ((uint32_t)c->r[n])
#define RD_64(n)    (c->r[n])
#define WR_8(n, v)  (*sk_r8(c, n) = (uint8_t)(v))
#define WR_16(n, v) (*sk_r16(c, n) = (uint16_t)(v))
#define WR_32(n, v) (c->r[n] = (uint32_t)(v))
#define WR_64(n, v) (c->r[n] = (v))

/* At any address: the guest's operands need not be aligned. */
typedef uint8_t sk_any8;
typedef uint16_t sk_any16 __attribute__((aligned(1)));
typedef uint32_t sk_any32 __attribute__((aligned(1)));
typedef uint64_t sk_any64 __attribute__((aligned(1)));
#define T_ANY_(S) sk_any##S

#define LD_(S)     sk_ld##S(c, in)
#define ST_M(S, v) sk_st##S(c, in, v)

/* dst = dst INSN src, flags to f (uint16_t). */
#define HOST2(insn, S, dst, src, f)                                                                \
    __asm__(insn SFX_##S " %[s],%[d]\n\tlahf\n\tseto %%al"                                         \
            : [d] "+&r"(dst), "=&a"(f)                                                             \
            : [s] "r"((T_(S))(src))                                                                \
            : "cc")

/* The same with CF taken from the guest's flags first. */
#define HOST2C(insn, S, dst, src, f)                                                               \
    __asm__("btw $8,%[af]\n\t" insn SFX_##S " %[s],%[d]\n\tlahf\n\tseto %%al"                      \
            : [d] "+&r"(dst), "=&a"(f)                                                             \
            : [s] "r"((T_(S))(src)), [af] "r"(c->af)                                               \
            : "cc")

/* The same on memory, plain or locked. */
#define HOST2_MEM(insn, S, p, src, f)                                                              \
    __asm__ volatile(insn SFX_##S " %[s],%[d]\n\tlahf\n\tseto %%al"                                \
                     : [d] "+m"(*(p)), "=&a"(f)                                                    \
                     : [s] "r"((T_(S))(src))                                                       \
                     : "cc", "memory")
#define HOST2C_MEM(pre, insn, S, p, src, f)                                                        \
    __asm__ volatile("btw $8,%[af]\n\t" pre insn SFX_##S " %[s],%[d]\n\tlahf\n\tseto %%al"         \
                     : [d] "+m"(*(p)), "=&a"(f)                                                    \
                     : [s] "r"((T_(S))(src)), [af] "r"(c->af)                                      \
                     : "cc", "memory")

#define HOST1(insn, S, dst, f)                                                                     \
    __asm__(insn SFX_##S " %[d]\n\tlahf\n\tseto %%al" : [d] "+&r"(dst), "=&a"(f) : : "cc")
#define HOST1_MEM(insn, S, p, f)                                                                   \
    __asm__ volatile(insn SFX_##S " %[d]\n\tlahf\n\tseto %%al"                                     \
                     : [d] "+m"(*(p)), "=&a"(f)                                                    \
                     :                                                                             \
                     : "cc", "memory")

/* Runs CODE with `p` a host pointer to the memory operand; when there is none (device memory, page
 * border), on a copy that is written back. */
#define WITH_MEM(S, CODE)                                                                          \
    do {                                                                                           \
        T_ANY_(S) *p = sk_rmw(c, in, S / 8);                                                       \
        if (LIKELY(p)) {                                                                           \
            CODE;                                                                                  \
        } else {                                                                                   \
            T_(S) tmp_;                                                                            \
            if (in->flags & SK_IN_LOCK) {                                                          \
                sk_split_lock(c);                                                                  \
            }                                                                                      \
            tmp_ = LD_(S);                                                                         \
            p = &tmp_;                                                                             \
            CODE;                                                                                  \
            ST_M(S, tmp_);                                                                         \
            if (in->flags & SK_IN_LOCK) {                                                          \
                sk_split_unlock(c);                                                                \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#define FOR_SIZES(X, ...)                                                                          \
    X(8, ##__VA_ARGS__)                                                                            \
    X(16, ##__VA_ARGS__)                                                                           \
    X(32, ##__VA_ARGS__)                                                                           \
    X(64, ##__VA_ARGS__)

#define OP(name) static void name(struct sk_vcpu *c, const struct sk_insn *in)

#endif
