/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decoding: bytes -> struct sk_insn, driven by the rows of insns.def (SDM 2, 2023-12, chapter 2
 * and appendix A).
 *
 * To add an instruction: write a row (insns.def explains the columns) naming a handler, and
 * define that handler in ops/op_FAMILY.c:
 *
 *     static void op_foo(struct sk_vcpu *c, const struct sk_insn *in) { ... }
 *     SK_HANDLER1(foo, op_foo);
 *
 * A handler is a table of bodies by [memory operand?][size]: SK_HANDLER1 fills all with one body,
 * SK_HANDLER_RM gives one for registers and one for memory. The size index is log2 of the operand
 * size in bytes (0..3) for general instructions; for rows with attribute VEC it is 2 * W + L.
 *
 * When a body runs: RIP (c->r[SK_RIP]) is already behind the instruction; CPUID bit, mode, LOCK and
 * VEX conditions of the row have been checked; nothing else has (CPL, CR0.TS and so on are the
 * body's). in->reg, in->rm, in->vreg are register numbers with REX/VEX bits included, except that a
 * byte register is a byte offset into c->r: use sk_r8(). A body that changes RIP, privilege, mode,
 * or anything later instructions are decoded by, has the attribute END in its row, so that the
 * block stops behind it.
 *
 * x87 to AVX2: rows in insns_x87.def, insns_sse.def, insns_vex.def; memory operand by sk_ld_bytes
 * or sk_ptr; state in c->xs. Those bodies may run the very host instruction on values loaded from
 * there.
 */
#ifndef SOFTKVM_X86_DECODE_H
#define SOFTKVM_X86_DECODE_H

#include "softkvm/x86/cpu.h"
#include "softkvm/x86/operands.h"

typedef void sk_op_fn(struct sk_vcpu *c, const struct sk_insn *in);

struct sk_handler {
    sk_op_fn *fn[2][4]; /* [memory operand][size index] */
};

#define SK_HANDLER1(name, f)                                                                       \
    extern const struct sk_handler sk_h_##name;                                                    \
    const struct sk_handler sk_h_##name = {                                                        \
        {{ f, f, f, f }, { f, f, f, f }}                                                         \
    }
#define SK_HANDLER_RM(name, r, m)                                                                  \
    extern const struct sk_handler sk_h_##name;                                                    \
    const struct sk_handler sk_h_##name = {                                                        \
        {{ r, r, r, r }, { m, m, m, m }}                                                         \
    }
/* Bodies P_8, P_16, P_32, P_64 for registers, Q_8.. for memory. */
#define SK_HANDLER_SZ(name, p, q)                                                                  \
    extern const struct sk_handler sk_h_##name;                                                    \
    const struct sk_handler sk_h_##name = {                                                        \
        {{ p##_8, p##_16, p##_32, p##_64 }, { q##_8, q##_16, q##_32, q##_64 }}                   \
    }
/* Any four (SSE and AVX by 2 * W + L, or sizes of which some do not exist). */
#define SK_HANDLER4(name, r0, r1, r2, r3, m0, m1, m2, m3)                                          \
    extern const struct sk_handler sk_h_##name;                                                    \
    const struct sk_handler sk_h_##name = {                                                        \
        {{ r0, r1, r2, r3 }, { m0, m1, m2, m3 }}                                                 \
    }

/* Bits of sk_insn.flags. */
enum {
    SK_IN_MEM = 0x0001, /* has a memory operand */
    SK_IN_LOCK = 0x0002,
    SK_IN_REP = 0x0004,   /* F3 */
    SK_IN_REPNE = 0x0008, /* F2 */
    SK_IN_OSIZE = 0x0010, /* 66 */
    SK_IN_REX = 0x0020,
    SK_IN_W = 0x0040, /* REX.W or VEX.W */
    SK_IN_L = 0x0080, /* VEX.L: 256 bit */
    SK_IN_END = 0x0100,
    SK_IN_KEEPRF = 0x0400, /* IRET, task switches: what they load into RF stays */
    SK_IN_SEGPFX = 0x0200  /* a segment override is in force */
};

struct sk_insn {
    sk_op_fn *fn;
    uint64_t imm; /* sign-extended as the form asks; far pointer: offset; moffs in disp/imm */
    int32_t disp;
    uint8_t len;
    uint8_t base; /* register numbers, SK_RZERO if absent, SK_RIP for RIP-relative */
    uint8_t index;
    uint8_t scale; /* 0..3 */
    uint8_t ash;   /* 64 - address size in bits: 0, 32, 48 */
    uint8_t seg;   /* enum sk_segno of the memory operand */
    uint8_t reg;   /* ModRM.reg; for +r forms and implied registers see rm */
    uint8_t rm;    /* ModRM.rm if a register; the +r register of the opcode */
    uint8_t vreg;  /* VEX.vvvv */
    uint8_t osize; /* operand size in bytes: 1, 2, 4, 8 */
    uint16_t flags;
    uint16_t row;
    uint16_t imm2; /* ENTER's second, far pointer's selector, is4, condition code in the opcode */
};
static_assert(sizeof(struct sk_insn) == 40, "40 bytes an instruction in the block cache");

enum sk_decode_err {
    SK_DEC_UD = -1,    /* no such instruction here: #UD */
    SK_DEC_SHORT = -2, /* more bytes needed than given */
    SK_DEC_LONG = -3   /* longer than 15 bytes: #GP(0) */
};

/* What decides how bytes decode. */
struct sk_decode_env {
    uint8_t code_size;        /* 2, 4, 8 */
    bool real_or_v86;         /* then VEX is LES/LDS and some rows are #UD */
    const uint32_t *features; /* guest CPUID words (cpuid.h), or NULL: everything */
};

/* Decodes one instruction from p[0..n-1]. Returns its length (1 to 15) or enum sk_decode_err. Pure
 * function; any thread. */
int sk_decode(struct sk_insn *ret, const uint8_t *p, unsigned n, const struct sk_decode_env *env);

#define SK_ROW_NAME 20

/* One row of insns.def. Without pointers: the loader of a position-independent program writes each
 * page that has one. */
struct sk_row {
    uint8_t map; /* enum sk_map */
    uint8_t opcode;
    uint8_t nops;  /* how many opcodes from `opcode` on: 8 for +r, 16 for conditions */
    uint8_t pfx;   /* enum sk_pfx */
    uint16_t ext;  /* X_* */
    uint16_t vex;  /* V_* */
    uint32_t attr; /* A_* */
    uint16_t op[4];
    uint16_t feature;
    uint32_t fl_read, fl_written, fl_undef;
    char name[SK_ROW_NAME];
};

extern const struct sk_row sk_rows[];
extern const struct sk_handler *const sk_row_handlers[]; /* by row */
extern const unsigned sk_rows_n;

/* Register operand accessors. */
static inline uint8_t *sk_r8(struct sk_vcpu *c, unsigned off)
{
    return (uint8_t *)c->r + off;
}

static inline uint16_t *sk_r16(struct sk_vcpu *c, unsigned n)
{
    return (uint16_t *)&c->r[n];
}

static inline void sk_set32(struct sk_vcpu *c, unsigned n, uint32_t v)
{
    c->r[n] = v;
}

/* Writes a register operand of `size` bytes (2, 4, 8) with the rule for the upper half. */
static inline void sk_set_reg(struct sk_vcpu *c, unsigned n, unsigned size, uint64_t v)
{
    if (size == 2) {
        *sk_r16(c, n) = (uint16_t)v;
    } else {
        c->r[n] = size == 4 ? (uint32_t)v : v;
    }
}

#endif
