/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/jit/jit_emit.h"

#include <string.h>

#include "softkvm/x86/operands.h"

void jit_put(struct jit_buf *b, const void *bytes, size_t n)
{
    memcpy(b->p, bytes, n);
    b->p += n;
}

void jit_put32(struct jit_buf *b, uint32_t v)
{
    jit_put(b, &v, 4);
}

void jit_put64(struct jit_buf *b, uint64_t v)
{
    jit_put(b, &v, 8);
}

struct jit_rm jit_rm_reg(unsigned reg)
{
    return (struct jit_rm){ .kind = RM_REG, .reg = (uint8_t)reg };
}

struct jit_rm jit_rm_gs(size_t disp)
{
    return (struct jit_rm){ .kind = RM_GS, .index = H_NONE, .disp = (int32_t)disp };
}

struct jit_rm jit_rm_gsx(unsigned index, size_t disp)
{
    return (struct jit_rm){ .kind = RM_GS, .index = (uint8_t)index, .disp = (int32_t)disp };
}

struct jit_rm jit_rm_mem(unsigned base, unsigned index, int32_t disp)
{
    return (struct jit_rm){
        .kind = RM_MEM, .base = (uint8_t)base, .index = (uint8_t)index, .disp = disp
    };
}

static unsigned enc_x(const struct jit_rm *rm)
{
    return rm->kind == RM_REG || rm->index == H_NONE ? 0 : rm->index >> 3;
}

static unsigned enc_b(const struct jit_rm *rm)
{
    if (rm->kind == RM_REG) {
        return rm->reg >> 3;
    }
    return rm->kind == RM_GS || rm->base == H_NONE ? 0 : rm->base >> 3;
}

static void enc_vex(struct jit_buf *b, const struct jit_enc *e)
{
    unsigned pp = e->pfx == 0x66 ? 1 : e->pfx == 0xf3 ? 2 : e->pfx == 0xf2 ? 3 : 0;
    unsigned x = enc_x(&e->rm), rb = e->no_modrm ? 0 : enc_b(&e->rm), r = e->reg >> 3;
    unsigned low = (~(unsigned)e->vvvv & 15) << 3 | (e->l ? 4u : 0) | pp;

    if (e->map == M_V1 && !e->w && !x && !rb) {
        jit_put8(b, 0xc5);
        jit_put8(b, (r ? 0 : 0x80u) | low);
        return;
    }
    jit_put8(b, 0xc4);
    jit_put8(b,
             (r ? 0 : 0x80u) | (x ? 0 : 0x40u) | (rb ? 0 : 0x20u) | (unsigned)(e->map - M_V1 + 1));
    jit_put8(b, (e->w ? 0x80u : 0) | low);
}

static void enc_prefixes(struct jit_buf *b, const struct jit_enc *e)
{
    unsigned rex;

    if (e->rm.kind == RM_GS && !e->no_modrm) {
        jit_put8(b, 0x65);
    }
    if (e->map >= M_V1) {
        enc_vex(b, e);
        return;
    }
    if (e->lock) {
        jit_put8(b, 0xf0);
    }
    if (e->o16) {
        jit_put8(b, 0x66);
    }
    if (e->pfx) {
        jit_put8(b, e->pfx);
    }
    rex = (e->w ? 8u : 0);
    if (e->no_modrm) {
        rex |= e->reg >> 3; /* register in the opcode */
    } else {
        rex |= (unsigned)(e->reg >> 3) << 2 | enc_x(&e->rm) << 1 | enc_b(&e->rm);
    }
    if (rex || e->low8) {
        jit_put8(b, 0x40 | rex);
    }
    if (e->map != M_1) {
        jit_put8(b, 0x0f);
        if (e->map != M_0F) {
            jit_put8(b, e->map == M_0F38 ? 0x38 : 0x3a);
        }
    }
}

static void enc_disp(struct jit_buf *b, unsigned mod, int32_t disp)
{
    if (mod == 1) {
        jit_put8(b, (uint8_t)disp);
    } else if (mod == 2) {
        jit_put32(b, (uint32_t)disp);
    }
}

static void enc_mem(struct jit_buf *b, unsigned reg, const struct jit_rm *rm)
{
    unsigned idx = rm->index == H_NONE ? 4 : rm->index & 7u, mod;

    if (rm->kind == RM_GS || rm->base == H_NONE) { /* SIB without base: disp32 */
        jit_put8(b, reg << 3 | 4);
        jit_put8(b, (unsigned)rm->scale << 6 | idx << 3 | 5);
        jit_put32(b, (uint32_t)rm->disp);
        return;
    }
    mod = rm->disp == 0 && (rm->base & 7) != 5 ? 0 : rm->disp == (int8_t)rm->disp ? 1 : 2;
    if (rm->index == H_NONE && (rm->base & 7) != 4) {
        jit_put8(b, mod << 6 | reg << 3 | (rm->base & 7u));
    } else {
        jit_put8(b, mod << 6 | reg << 3 | 4);
        jit_put8(b, (unsigned)rm->scale << 6 | idx << 3 | (rm->base & 7u));
    }
    enc_disp(b, mod, rm->disp);
}

void jit_enc(struct jit_buf *b, const struct jit_enc *e)
{
    enc_prefixes(b, e);
    if (e->no_modrm) {
        jit_put8(b, e->op | (e->reg & 7u));
    } else {
        jit_put8(b, e->op);
        if (e->rm.kind == RM_REG) {
            jit_put8(b, 0xc0 | (e->reg & 7u) << 3 | (e->rm.reg & 7u));
        } else {
            enc_mem(b, e->reg & 7, &e->rm);
        }
    }
    jit_put(b, &e->imm, e->imm_n);
}

void jit_op(struct jit_buf *b, unsigned size, uint8_t op, unsigned reg, struct jit_rm rm)
{
    struct jit_enc e = { .op = op, .w = size == 8, .reg = (uint8_t)reg, .rm = rm };

    jit_enc(b, &e);
}

void jit_opi(struct jit_buf *b, unsigned size, uint8_t op, unsigned digit, struct jit_rm rm,
             unsigned imm_n, uint64_t imm)
{
    struct jit_enc e = { .op = op,
                         .w = size == 8,
                         .reg = (uint8_t)digit,
                         .rm = rm,
                         .imm_n = (uint8_t)imm_n,
                         .imm = imm };

    jit_enc(b, &e);
}

void jit_mov_rr(struct jit_buf *b, unsigned size, unsigned to, unsigned from)
{
    jit_op(b, size, 0x89, from, jit_rm_reg(to));
}

void jit_mov_ri(struct jit_buf *b, unsigned to, uint64_t v)
{
    struct jit_enc e = { .op = 0xb8, .no_modrm = true, .reg = (uint8_t)to };

    if (v == (uint32_t)v) {
        e.imm_n = 4;
    } else if (v == (uint64_t)(int64_t)(int32_t)v) {
        jit_opi(b, 8, 0xc7, 0, jit_rm_reg(to), 4, v);
        return;
    } else {
        e.w = true;
        e.imm_n = 8;
    }
    e.imm = v;
    jit_enc(b, &e);
}

void jit_ld(struct jit_buf *b, unsigned size, unsigned to, struct jit_rm rm)
{
    jit_op(b, size, 0x8b, to, rm);
}

void jit_st(struct jit_buf *b, unsigned size, unsigned from, struct jit_rm rm)
{
    jit_op(b, size, 0x89, from, rm);
}

void jit_lea(struct jit_buf *b, unsigned size, unsigned to, struct jit_rm rm)
{
    jit_op(b, size, 0x8d, to, rm);
}

void jit_alu_i(struct jit_buf *b, unsigned size, unsigned alu, struct jit_rm rm, int32_t imm)
{
    if (imm == (int8_t)imm) {
        jit_opi(b, size, 0x83, alu, rm, 1, (uint8_t)imm);
    } else {
        jit_opi(b, size, 0x81, alu, rm, 4, (uint32_t)imm);
    }
}

static uint8_t *emit_rel(struct jit_buf *b)
{
    jit_put32(b, 0);
    return b->p - 4;
}

uint8_t *jit_jcc(struct jit_buf *b, unsigned cc)
{
    jit_put8(b, 0x0f);
    jit_put8(b, 0x80 | cc);
    return emit_rel(b);
}

uint8_t *jit_jmp(struct jit_buf *b)
{
    jit_put8(b, 0xe9);
    return emit_rel(b);
}

uint8_t *jit_call(struct jit_buf *b)
{
    jit_put8(b, 0xe8);
    return emit_rel(b);
}

void jit_fix(uint8_t *site, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (site + 4));

    memcpy(site, &rel, 4);
}
