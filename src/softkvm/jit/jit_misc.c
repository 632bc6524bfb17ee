/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Templates that are neither a renamed host instruction nor control flow.
 */
#include "softkvm/jit/jit_tr.h"

static void misc_put(struct jit_tr *t, unsigned guest, unsigned size, unsigned from)
{
    if (jit_is_slot(guest)) {
        jit_st(&t->b, 8, from, jit_rm_gs(JIT_R(guest)));
    } else {
        jit_mov_rr(&t->b, size, jit_host(guest), from);
    }
}

void jit_t_lea(struct jit_tr *t, struct jit_op *o)
{
    const struct sk_insn *in = &o->in;
    unsigned to = jit_is_slot(in->reg) ? H_T0 : jit_host(in->reg);

    if (in->osize == 2) {
        jit_interp(t, o);
        return;
    }
    if (in->osize == 4 && in->ash == 0) { /* the low half of a 64-bit sum */
        jit_offset(t, o, H_T1);
        jit_mov_rr(&t->b, 4, to, H_T1);
    } else {
        jit_offset(t, o, to);
    }
    if (to == H_T0) {
        misc_put(t, in->reg, 8, H_T0);
    }
}

void jit_t_nop(struct jit_tr *t, struct jit_op *o)
{
    (void)t;
    (void)o;
}

void jit_t_xchg_z(struct jit_tr *t, struct jit_op *o)
{
    const struct sk_insn *in = &o->in;

    if (in->rm == SK_RAX) {
        if (in->flags & SK_IN_REP) {
            jit_put(&t->b, "\xf3\x90", 2);
        }
        return; /* NOP, whatever its operand size */
    }
    if (in->osize == 2 || jit_is_slot(in->rm)) {
        jit_interp(t, o);
        return;
    }
    jit_op(&t->b, in->osize, 0x87, H_RAX, jit_rm_reg(jit_host(in->rm)));
}

/* MOV between the accumulator and an absolute address. */
void jit_t_moffs(struct jit_tr *t, struct jit_op *o)
{
    const struct sk_insn *in = &o->in;
    struct jit_op abs = *o; /* the same as a ModRM operand */
    struct jit_stub *s;
    bool store = o->row->opcode & 2;
    struct jit_enc e = { .op = (uint8_t)((store ? 0x88 : 0x8a) | (in->osize != 1)),
                         .o16 = in->osize == 2,
                         .w = in->osize == 8,
                         .reg = H_RAX };

    if (in->ash == 0 && in->imm != (uint64_t)(int64_t)(int32_t)in->imm) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    abs.in.base = abs.in.index = SK_RZERO;
    abs.in.disp = (int32_t)in->imm;
    e.rm = jit_mem(t, &abs, in->osize, store, 0, s);
    jit_enc(&t->b, &e);
    jit_stub_resume(t, s);
}

/* The divisor in T0, or in its own register. */
static unsigned div_operand(struct jit_tr *t, struct jit_op *o, struct jit_stub *s)
{
    const struct sk_insn *in = &o->in;

    if (in->flags & SK_IN_MEM) {
        jit_ld(&t->b, in->osize, H_T0, jit_mem(t, o, in->osize, false, 0, s));
        return H_T0;
    }
    jit_flags_kill(t, jit_live_before(o));
    if (jit_is_slot(in->rm)) {
        jit_ld(&t->b, in->osize, H_T0, jit_rm_gs(JIT_R(in->rm)));
        return H_T0;
    }
    return jit_host(in->rm);
}

/* DIV and IDIV that cannot fault; the others are the interpreter's. DIV: high half below the
 * divisor. IDIV: dividend is a sign-extended single, divisor neither 0 nor -1. */
void jit_t_div(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;
    unsigned size = o->in.osize, d;
    bool is_signed = (o->row->ext & 7) == 7;
    struct jit_stub *s;

    if (size < 4) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    d = div_operand(t, o, s);
    if (is_signed) {
        jit_mov_rr(b, size, H_T1, H_RAX);
        jit_opi(b, size, 0xc1, 7, jit_rm_reg(H_T1), 1, size * 8 - 1); /* sar */
        jit_op(b, size, 0x3b, H_T1, jit_rm_reg(H_RDX));
        jit_stub_site(s, jit_jcc(b, CC_NE));
        jit_lea(b, size, H_T1, jit_rm_mem(d, H_NONE, 1));
        jit_alu_i(b, size, ALU_CMP, jit_rm_reg(H_T1), 1);
        jit_stub_site(s, jit_jcc(b, 6)); /* be: 0 or -1 */
    } else {
        jit_op(b, size, 0x3b, H_RDX, jit_rm_reg(d));
        jit_stub_site(s, jit_jcc(b, CC_AE));
    }
    jit_op(b, size, 0xf7, is_signed ? 7 : 6, jit_rm_reg(d));
    jit_flags_done(t, o);
    jit_stub_resume(t, s);
}

void jit_t_fence(struct jit_tr *t, struct jit_op *o)
{
    uint8_t code[3] = { 0x0f, 0xae, (uint8_t)(0xc0 | (o->row->ext & 7) << 3) };

    jit_put(&t->b, code, 3);
}

void jit_t_vzeroupper(struct jit_tr *t, struct jit_op *o)
{
    if (!t->code64 || !(t->mode & JM_AVX)) {
        jit_interp(t, o); /* outside 64-bit mode registers 8 to 15 stay as they are */
        return;
    }
    jit_need_vec(t, o);
    jit_put(&t->b, "\xc5\xf8\x77", 3);
}

void jit_t_emms(struct jit_tr *t, struct jit_op *o)
{
    if (!(t->mode & JM_MMX)) {
        jit_interp(t, o);
        return;
    }
    jit_need_x87(t, o);
    jit_put(&t->b, "\x0f\x77", 2);
}
