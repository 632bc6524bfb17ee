/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Instructions that run as themselves: the form is encoded anew with registers renamed and the
 * memory operand replaced by [T0 + T1].
 *
 * Guest registers without a host register (R9 to R11) are fetched into T0 and T1, or T1 alone when
 * T0 holds the memory operand, and put back afterwards. AH, CH, DH and BH cannot stand beside a
 * REX prefix: beside a memory operand the two bytes of the register change places around the
 * instruction.
 */
#include "softkvm/jit/jit_tr.h"
#include "softkvm/x86/cpuid.h"

enum { F_REG, F_RM, F_V, F_OPC, F_N }; /* fields that can hold a general register */

struct field {
    bool used, byte, high, rd, wr;
    uint8_t guest; /* register number, byte selection removed */
    uint8_t host;
    bool slot;
};

struct gen {
    struct field f[F_N];
    bool mem, mem_wr;
    unsigned mem_size, align;
    unsigned imm_n;
    uint64_t imm;
    bool mmx, vecreg, x87, gpr;
};

static unsigned gen_letter_size(const struct jit_tr *t, const struct jit_op *o, unsigned letter)
{
    const struct sk_insn *in = &o->in;
    bool vec = o->row->attr & A_VEC;
    unsigned full = in->flags & SK_IN_L ? 32 : 16;

    switch (letter) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'd':
        return 4;
    case 'q':
        return 8;
    case 't':
        return 10;
    case 'y':
        return vec ? ((in->flags & SK_IN_W) && t->code64 ? 8 : 4) : in->osize == 8 ? 8 : 4;
    case 'z':
        return MIN(in->osize, 4);
    case 'v':
        return in->osize;
    case 'o':
        return 16;
    case 'Q':
        return 32;
    case 'h':
        return full / 2;
    case 'F':
        return full / 4;
    case 'e':
        return full / 8;
    case 'x':
        return full;
    default:
        return 0;
    }
}

static void gen_field(struct gen *g, unsigned f, unsigned num, bool byte, bool rd, bool wr)
{
    struct field *p = &g->f[f];

    p->used = true;
    p->byte = byte;
    p->high = byte && (num & 7);
    p->guest = (uint8_t)(byte ? num >> 3 : num);
    p->rd = rd;
    p->wr = wr;
    p->slot = jit_is_slot(p->guest);
    p->host = (uint8_t)jit_host(p->guest);
    g->gpr = true;
}

/* One operand of the row. `rd`, `wr`: what happens to it. */
static bool gen_operand(const struct jit_tr *t, const struct jit_op *o, struct gen *g, unsigned op,
                        bool rd, bool wr)
{
    const struct sk_insn *in = &o->in;
    unsigned kind = op & 0xff00, letter = op & 0xff;
    bool mem = in->flags & SK_IN_MEM, byte = letter == 'b' && !(o->row->attr & A_VEC);

    switch (kind) {
    case K_G:
        gen_field(g, F_REG, in->reg, byte, rd, wr);
        return true;
    case K_E:
    case K_R:
    case K_M:
    case K_W:
    case K_U:
    case K_Q:
    case K_N:
        g->mmx |= kind == K_Q || kind == K_N;
        g->vecreg |= kind == K_W || kind == K_U;
        if (mem) {
            g->mem = true;
            g->mem_wr = wr;
            g->mem_size = gen_letter_size(t, o, letter);
            return g->mem_size != 0;
        }
        if (kind == K_E || kind == K_R) {
            gen_field(g, F_RM, in->rm, byte, rd, wr);
        }
        return kind != K_M;
    case K_B:
        gen_field(g, F_V, in->vreg, false, rd, wr);
        return true;
    case K_Z:
        gen_field(g, F_OPC, in->rm, byte, rd, wr);
        return true;
    case K_V:
    case K_H:
        g->vecreg = true;
        return true;
    case K_P:
        g->mmx = true;
        return true;
    case K_L:
        g->imm_n = 1;
        g->imm = (uint8_t)in->imm2;
        return true;
    case K_I:
    case K_IS:
        g->imm_n = gen_letter_size(t, o, letter);
        g->imm = in->imm;
        return true;
    case K_FIX:
    case K_ST:
        return true;
    default:
        return false;
    }
}

/* Vector forms: the first operand is written, unless the result goes to flags; general registers
 * are written whole. */
static unsigned gen_access(const struct jit_op *o)
{
    if (o->form->kind == JK_GEN) {
        return o->form->access;
    }
    return o->row->attr & A_CMP ? JA_R : JA_W;
}

static bool gen_plan(const struct jit_tr *t, const struct jit_op *o, struct gen *g)
{
    unsigned access = gen_access(o);

    memset(g, 0, sizeof(*g));
    for (unsigned i = 0; i < 4 && o->row->op[i]; i++) {
        bool wr = i == 0 ? (access & JA_W) != 0 : i == 1 && (access & JA_2W);
        bool rd = i != 0 || (access & JA_R);

        if (!gen_operand(t, o, g, o->row->op[i], rd, wr)) {
            return false;
        }
    }
    if (o->form->kind == JK_GEN && (o->row->map == M_0F && o->row->opcode == 0xc7)) {
        g->mem_size = o->in.osize == 8 ? 16 : 8; /* CMPXCHG8B, CMPXCHG16B */
        g->align = o->in.osize == 8 ? 16 : 0;
    }
    return true;
}

static bool gen_x87_named(const struct jit_op *o, const char *prefix)
{
    return strncmp(o->row->name, prefix, strlen(prefix)) == 0;
}

static bool x87_stores(const struct jit_op *o)
{
    return gen_x87_named(o, "FST") || gen_x87_named(o, "FIST") || gen_x87_named(o, "FBSTP") ||
           gen_x87_named(o, "FNST");
}

/* Forms that unmask exceptions, show pointers or do nothing stay with the interpreter. */
static bool x87_plan(const struct jit_tr *t, const struct jit_op *o, struct gen *g)
{
    memset(g, 0, sizeof(*g));
    g->x87 = true;
    if ((o->row->attr & A_ENV) || gen_x87_named(o, "FLDCW") || gen_x87_named(o, "FENI") ||
        gen_x87_named(o, "FDISI") || gen_x87_named(o, "FSETPM")) {
        return false;
    }
    if (o->in.flags & SK_IN_MEM) {
        g->mem = true;
        g->mem_wr = x87_stores(o);
        g->mem_size = gen_letter_size(t, o, o->row->op[0] & 0xff);
        return g->mem_size != 0;
    }
    return true;
}

static bool gen_make(const struct jit_tr *t, const struct jit_op *o, struct gen *g)
{
    return o->form->kind == JK_X87 ? x87_plan(t, o, g) : gen_plan(t, o, g);
}

static bool gen_mode_ok(const struct jit_tr *t, const struct jit_op *o, const struct gen *g)
{
    bool vex = o->row->map >= M_V1;

    if (o->form->kind == JK_X87) {
        return t->mode & JM_X87;
    }
    if (o->form->kind != JK_VEC) {
        return true;
    }
    if (!t->code64 && g->gpr && (o->in.flags & SK_IN_W)) {
        return false; /* W is ignored there, but not by the host */
    }
    return t->mode & (vex ? JM_AVX : g->mmx ? JM_MMX : JM_SSE);
}

/* An earlier field with the same register: it must be one register for the host too. */
static const struct field *gen_same(const struct gen *g, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (g->f[i].used && g->f[i].slot && g->f[i].guest == g->f[n].guest) {
            return &g->f[i];
        }
    }
    return NULL;
}

bool jit_gen_fits(const struct jit_tr *t, const struct jit_op *o)
{
    const struct sk_insn *in = &o->in;
    const struct sk_row *r = o->row;
    struct gen g;
    unsigned slots = 0, high = 0, rex = 0;

    if (!gen_make(t, o, &g) || !gen_mode_ok(t, o, &g)) {
        return false;
    }
    if (((r->attr & A_DATA) && g.mem) || (in->osize == 2 && r->map == M_0F && r->opcode == 0xc8)) {
        return false; /* bit strings in memory; BSWAP of 16 bits */
    }
    if (g.mem && r->map == M_0F && r->opcode == 0xb0 && (in->reg & 7)) {
        return false; /* CMPXCHG of AH: AL, which is implied, must not change places with it */
    }
    for (unsigned i = 0; i < F_N; i++) {
        const struct field *f = &g.f[i];

        slots += f->used && f->slot && !gen_same(&g, i);
        high += f->used && f->high;
        rex += f->used && !f->high && (f->slot || f->host >= 8);
    }
    return slots <= (g.mem ? 1u : 2u) && !(high && rex) && high <= (g.mem ? 1u : 2u);
}

/* Partial writes keep the rest of the register. */
static bool gen_needs_old(const struct jit_op *o, const struct field *f)
{
    return f->rd || f->byte || (o->form->kind == JK_GEN && o->in.osize < 4);
}

/* Slot registers into temporaries. */
static void gen_fetch(struct jit_tr *t, const struct jit_op *o, struct gen *g, struct jit_rm *mem)
{
    unsigned tmp = g->mem ? H_T1 : H_T0;
    const struct field *same;

    for (unsigned i = 0; i < F_N; i++) {
        struct field *f = &g->f[i];

        if (!f->used || !f->slot) {
            continue;
        }
        if (g->mem && mem->index == H_T1) { /* frees T1 */
            jit_lea(&t->b, 8, H_T0, *mem);
            *mem = jit_rm_mem(H_T0, H_NONE, 0);
        }
        same = gen_same(g, i);
        f->host = same ? same->host : (uint8_t)tmp++;
        if (gen_needs_old(o, f)) {
            jit_ld(&t->b, 8, f->host, jit_rm_gs(JIT_R(f->guest)));
        }
    }
}

static void gen_put(struct jit_tr *t, const struct gen *g)
{
    for (unsigned i = 0; i < F_N; i++) {
        const struct field *f = &g->f[i];

        if (f->used && f->slot && f->wr) {
            jit_st(&t->b, 8, f->host, jit_rm_gs(JIT_R(f->guest)));
        }
    }
}

static void gen_swap(struct jit_tr *t, unsigned reg)
{
    struct jit_enc e = { .op = 0x86, .reg = (uint8_t)reg, .rm = jit_rm_reg(reg | 4) };

    jit_enc(&t->b, &e);
}

static uint8_t gen_number(const struct gen *g, unsigned f, unsigned dflt, bool swapped)
{
    const struct field *p = &g->f[f];

    if (!p->used) {
        return (uint8_t)dflt;
    }
    return p->high && !swapped ? (uint8_t)(p->host | 4) : p->host;
}

static bool gen_low8(const struct gen *g)
{
    for (unsigned i = 0; i < F_N; i++) {
        if (g->f[i].used && g->f[i].byte && !g->f[i].high && g->f[i].host >= 4) {
            return true;
        }
    }
    return false;
}

static void gen_prefix(const struct jit_op *o, struct jit_enc *e)
{
    static const uint8_t mandatory[] = {
        [P_66] = 0x66, [P_F3] = 0xf3, [P_F2] = 0xf2, [P_F3S] = 0xf3, [P_F2S] = 0xf2, [P_NF] = 0
    };
    uint8_t p = o->row->pfx;

    e->pfx = p < sizeof(mandatory) ? mandatory[p] : 0;
    if (o->form->kind == JK_GEN) {
        e->w = o->in.osize == 8;
        e->o16 = o->in.osize == 2 && (p == P_ANY || p >= P_NF) && o->row->map < M_V1;
    } else if (o->form->kind == JK_VEC) {
        e->w = o->in.flags & SK_IN_W;
    }
    e->l = o->in.flags & SK_IN_L;
}

/* INC and DEC of the one-byte forms have another encoding in 64-bit mode. */
static void gen_incdec(const struct jit_op *o, struct gen *g, struct jit_enc *e)
{
    if (o->row->map == M_1 && (o->row->opcode & 0xf0) == 0x40) {
        e->op = 0xff;
        e->no_modrm = false;
        e->reg = o->row->opcode & 8 ? 1 : 0;
        e->rm = jit_rm_reg(g->f[F_OPC].host);
    }
}

static void gen_encode(struct jit_tr *t, const struct jit_op *o, struct gen *g, struct jit_rm mem,
                       bool swapped)
{
    const struct sk_row *r = o->row;
    struct jit_enc e = { .map = r->map, .op = r->opcode, .imm_n = (uint8_t)g->imm_n };

    gen_prefix(o, &e);
    e.imm = g->imm;
    e.lock = o->in.flags & SK_IN_LOCK;
    e.low8 = gen_low8(g);
    if (r->nops == 16) { /* condition codes */
        e.op = (uint8_t)o->in.imm2;
    }
    if (o->form->kind == JK_X87) {
        e.op = r->opcode;
    }
    if (r->ext) {
        e.reg = r->ext & X_DIGIT && !(r->ext & X_EXACT) ? r->ext & 7 : o->in.reg;
        e.reg = gen_number(g, F_REG, e.reg, swapped);
        e.rm = g->mem ? mem : jit_rm_reg(gen_number(g, F_RM, o->in.rm, swapped));
        if (o->form->kind == JK_X87) {
            e.reg &= 7;
            e.rm.reg &= 7;
        }
    } else {
        e.no_modrm = true;
        e.reg = gen_number(g, F_OPC, 0, swapped);
    }
    e.vvvv = gen_number(g, F_V, g->vecreg || r->map < M_V1 ? o->in.vreg : 0, false);
    gen_incdec(o, g, &e);
    jit_enc(&t->b, &e);
}

/* Alignment that the form demands of its memory operand, or 0. */
static unsigned gen_align(const struct jit_op *o, const struct gen *g)
{
    if (o->form->kind == JK_GEN) {
        return g->align;
    }
    if (o->form->kind != JK_VEC) {
        return 0;
    }
    if (o->row->map >= M_V1) {
        return o->row->attr & A_ALIGN ? g->mem_size : 0;
    }
    return g->mem_size == 16 && !(o->row->attr & A_UNAL) ? 16 : 0;
}

static unsigned gen_high(const struct gen *g)
{
    for (unsigned i = 0; i < F_N; i++) {
        if (g->f[i].used && g->f[i].high) {
            return g->f[i].host;
        }
    }
    return H_NONE;
}

void jit_gen(struct jit_tr *t, struct jit_op *o)
{
    struct jit_rm mem = { 0 };
    struct jit_stub *s = NULL;
    unsigned swap = H_NONE;
    struct gen g;

    (void)gen_make(t, o, &g);
    if (g.mmx || g.x87) {
        jit_need_x87(t, o);
    }
    if (o->form->kind == JK_VEC && (g.vecreg || (o->row->attr & A_FP))) {
        jit_need_vec(t, o);
    }
    if (g.mem) {
        s = jit_stub(t, JS_INTERP, o);
        mem = jit_mem(t, o, g.mem_size, g.mem_wr, gen_align(o, &g), s);
        swap = gen_high(&g);
    }
    jit_flags_ready(t, o);
    gen_fetch(t, o, &g, &mem);
    if (swap != H_NONE) {
        gen_swap(t, swap);
    }
    gen_encode(t, o, &g, mem, swap != H_NONE);
    if (swap != H_NONE) {
        gen_swap(t, swap);
    }
    gen_put(t, &g);
    jit_flags_done(t, o);
    if (s) {
        jit_stub_resume(t, s);
    }
}
