/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encoder of host instructions (always 64-bit mode). It knows nothing of the guest.
 *
 * jit_enc() writes one instruction of any form the opcode maps have; the small functions below it
 * are the ones templates use all the time.
 */
#ifndef SOFTKVM_JIT_JIT_EMIT_H
#define SOFTKVM_JIT_JIT_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum jit_hreg {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15,
    H_NONE = 255
};

/* Where code is written; `rx` added to an address gives the place where it will run. */
struct jit_buf {
    uint8_t *p;
    uint8_t *end;
    ptrdiff_t rx;
};

/* The ModRM.rm operand. */
enum jit_rmkind {
    RM_REG,
    RM_MEM, /* [base + index * 2^scale + disp], base and index may be H_NONE */
    RM_GS   /* gs:[index + disp], index may be H_NONE */
};

struct jit_rm {
    enum jit_rmkind kind;
    uint8_t reg; /* RM_REG */
    uint8_t base, index, scale;
    int32_t disp;
};

struct jit_enc {
    bool lock;
    bool o16;    /* 66 as operand size */
    uint8_t pfx; /* mandatory prefix: 0, 66, F2, F3 */
    uint8_t map; /* enum sk_map */
    uint8_t op;
    bool no_modrm;
    bool w, l;
    bool low8; /* a byte register 4..7 means SPL..DIL: force REX */
    uint8_t reg, vvvv;
    struct jit_rm rm;
    uint8_t imm_n;
    uint64_t imm;
};

void jit_enc(struct jit_buf *b, const struct jit_enc *e);

static inline void jit_put8(struct jit_buf *b, unsigned v)
{
    *b->p++ = (uint8_t)v;
}

void jit_put32(struct jit_buf *b, uint32_t v);
void jit_put64(struct jit_buf *b, uint64_t v);
void jit_put(struct jit_buf *b, const void *bytes, size_t n);

/* Operand makers. */
struct jit_rm jit_rm_reg(unsigned reg);
struct jit_rm jit_rm_gs(size_t disp);
struct jit_rm jit_rm_gsx(unsigned index, size_t disp);
struct jit_rm jit_rm_mem(unsigned base, unsigned index, int32_t disp);

/* One-byte opcode with ModRM; size 4 or 8 (8: REX.W). */
void jit_op(struct jit_buf *b, unsigned size, uint8_t op, unsigned reg, struct jit_rm rm);
/* The same with an immediate of imm_n bytes. */
void jit_opi(struct jit_buf *b, unsigned size, uint8_t op, unsigned digit, struct jit_rm rm,
             unsigned imm_n, uint64_t imm);

void jit_mov_rr(struct jit_buf *b, unsigned size, unsigned to, unsigned from);
void jit_mov_ri(struct jit_buf *b, unsigned to, uint64_t v); /* shortest form, no flags touched */
void jit_ld(struct jit_buf *b, unsigned size, unsigned to, struct jit_rm rm);
void jit_st(struct jit_buf *b, unsigned size, unsigned from, struct jit_rm rm);
void jit_lea(struct jit_buf *b, unsigned size, unsigned to, struct jit_rm rm);
/* add, or, adc, sbb, and, sub, xor, cmp by number 0..7 with an immediate. */
void jit_alu_i(struct jit_buf *b, unsigned size, unsigned alu, struct jit_rm rm, int32_t imm);

/* Jumps with a 32-bit displacement to be set by jit_fix(); they return where it stands. */
uint8_t *jit_jcc(struct jit_buf *b, unsigned cc);
uint8_t *jit_jmp(struct jit_buf *b);
uint8_t *jit_call(struct jit_buf *b);
/* Points the displacement at `site` to `target`; both in the writable view. */
void jit_fix(uint8_t *site, const uint8_t *target);

enum { CC_B = 2, CC_AE = 3, CC_E = 4, CC_NE = 5, CC_A = 7 };
enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

#endif
