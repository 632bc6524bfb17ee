/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Templates of jumps, calls, returns and the stack.
 *
 * An indirect target is looked up in c->jit.jump by its address. Found, it is an address code has
 * been entered at before, so it needs no further check; not found, the interpreter does the whole
 * instruction, with every check, before anything has changed.
 */
#include "softkvm/jit/jit_tr.h"

enum { NO_CC = 16 };

/* The stack is as templates have it: no 16-bit pointer, flat. */
static bool ctl_stack_ok(const struct jit_tr *t, unsigned size)
{
    if (t->code64) {
        return size == 8;
    }
    return size == 4 && (t->mode & JM_SS_BIG) && (t->mode & (1u << (JM_FLAT_SHIFT + SK_SS)));
}

static unsigned ctl_word(const struct jit_tr *t)
{
    return t->code64 ? 8 : 4;
}

/* [T0 + T1] = where a push goes (write) or a pop comes from; RSP is not moved yet. */
static struct jit_rm ctl_stack(struct jit_tr *t, bool write, struct jit_stub *s)
{
    unsigned w = ctl_word(t);

    if (write) {
        jit_lea(&t->b, w, H_T1, jit_rm_mem(H_GSP, H_NONE, -(int32_t)w));
    } else {
        jit_mov_rr(&t->b, w, H_T1, H_GSP);
    }
    return jit_tlb(t, w, write, 0, s);
}

static void ctl_move_sp(struct jit_tr *t, int32_t by)
{
    jit_lea(&t->b, ctl_word(t), H_GSP, jit_rm_mem(H_GSP, H_NONE, by));
}

/* Stores a constant through [T0 + T1]. */
static void ctl_store_const(struct jit_tr *t, struct jit_rm m, uint64_t v)
{
    unsigned w = ctl_word(t);

    if (w == 4 || v == (uint64_t)(int64_t)(int32_t)v) {
        jit_opi(&t->b, w, 0xc7, 0, m, 4, (uint32_t)v);
        return;
    }
    jit_lea(&t->b, 8, H_T0, m);
    jit_mov_ri(&t->b, H_T1, v);
    jit_st(&t->b, 8, H_T1, jit_rm_mem(H_T0, H_NONE, 0));
}

/* T0 = target. Compares it with its place in the jump cache, and the poll word with 0; T1 = offset
 * of the entry. */
static void ctl_probe(struct jit_tr *t, struct jit_stub *s)
{
    struct jit_buf *b = &t->b;
    size_t at = JIT_OFF(jit.jump) + t->set * sizeof(t->c->jit.jump[0]);

    jit_poll(t, H_T1, s);
    jit_mov_rr(b, 4, H_T1, H_T0);
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T1), SK_JIT_JUMPS - 1);
    jit_opi(b, 4, 0xc1, 4, jit_rm_reg(H_T1), 1, 4); /* shl */
    jit_op(b, 8, 0x3b, H_T0, jit_rm_gsx(H_T1, at + offsetof(struct sk_jit_jump, rip)));
    jit_stub_site(s, jit_jcc(b, CC_NE));
}

static struct jit_rm ctl_jump_code(const struct jit_tr *t)
{
    return jit_rm_gsx(H_T1, JIT_OFF(jit.jump) + t->set * sizeof(t->c->jit.jump[0]) +
                                offsetof(struct sk_jit_jump, code));
}

void jit_t_jcc(struct jit_tr *t, struct jit_op *o)
{
    if (!jit_direct_ok(t, o)) {
        jit_interp(t, o);
        return;
    }
    jit_flags_load(t);
    jit_exit_to(t, o->in.imm2 & 15, jit_target(t, o), o->exit_live != 0);
    /* A jump backwards has the poll on its own way; on the way through, EFLAGS are as before. */
}

void jit_t_jmp(struct jit_tr *t, struct jit_op *o)
{
    if (!jit_direct_ok(t, o)) {
        jit_interp(t, o);
        return;
    }
    jit_flags_kill(t, o->live);
    jit_exit_to(t, NO_CC, jit_target(t, o), false);
}

void jit_t_call(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;

    if (!ctl_stack_ok(t, o->in.osize) || !jit_direct_ok(t, o)) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP_END, o);
    jit_flags_kill(t, o->live);
    ctl_store_const(t, ctl_stack(t, true, s), o->next);
    ctl_move_sp(t, -(int32_t)ctl_word(t));
    jit_exit_to(t, NO_CC, jit_target(t, o), false);
}

/* T0 = the operand of an indirect jump. */
static void ctl_operand(struct jit_tr *t, struct jit_op *o, struct jit_stub *s)
{
    unsigned w = ctl_word(t);

    if (o->in.flags & SK_IN_MEM) {
        struct jit_rm m = jit_mem(t, o, w, false, 0, s);

        jit_ld(&t->b, w, H_T0, m);
    } else if (jit_is_slot(o->in.rm)) {
        jit_ld(&t->b, w, H_T0, jit_rm_gs(JIT_R(o->in.rm)));
    } else {
        jit_mov_rr(&t->b, w, H_T0, jit_host(o->in.rm));
    }
}

void jit_t_jmp_e(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;

    if (o->in.osize != ctl_word(t) || !(t->code64 || (t->mode & SK_MODE_32))) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP_END, o);
    jit_flags_kill(t, o->live);
    ctl_operand(t, o, s);
    ctl_probe(t, s);
    jit_op(&t->b, 4, 0xff, 4, ctl_jump_code(t));
}

void jit_t_call_e(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;
    struct jit_stub *s;

    if (!ctl_stack_ok(t, o->in.osize) || !(t->code64 || (t->mode & SK_MODE_32))) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP_END, o);
    jit_flags_kill(t, o->live);
    ctl_operand(t, o, s);
    ctl_probe(t, s);
    jit_ld(b, 8, H_T0, ctl_jump_code(t));
    jit_st(b, 8, H_T0, jit_rm_gs(JIT_OFF(jit.tmp)));
    ctl_store_const(t, ctl_stack(t, true, s), o->next);
    ctl_move_sp(t, -(int32_t)ctl_word(t));
    jit_op(b, 4, 0xff, 4, jit_rm_gs(JIT_OFF(jit.tmp)));
}

void jit_t_ret(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;
    unsigned w = ctl_word(t);
    bool imm = o->row->opcode == 0xc2;

    if (!ctl_stack_ok(t, o->in.osize) || !(t->code64 || (t->mode & SK_MODE_32))) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP_END, o);
    jit_flags_kill(t, o->live);
    jit_ld(&t->b, w, H_T0, ctl_stack(t, false, s));
    ctl_probe(t, s);
    ctl_move_sp(t, (int32_t)(w + (imm ? (uint16_t)o->in.imm : 0)));
    jit_op(&t->b, 4, 0xff, 4, ctl_jump_code(t));
}

/* LOOP, LOOPE, LOOPNE, JCXZ, without touching flags that live: these change none. */
void jit_t_loop(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;
    unsigned w = o->in.ash ? 4 : 8;

    if (o->in.ash == 48 || (o->in.imm2 != 0xe2 && o->in.imm2 != 0xe3) || !jit_direct_ok(t, o)) {
        jit_interp(t, o);
        return;
    }
    jit_flags_kill(t, o->live);
    if (o->in.imm2 == 0xe2) {
        jit_lea(b, w, H_RCX, jit_rm_mem(H_RCX, H_NONE, -1));
    }
    jit_op(b, w, 0x85, H_RCX, jit_rm_reg(H_RCX));
    jit_exit_to(t, o->in.imm2 == 0xe2 ? CC_NE : CC_E, jit_target(t, o), false);
}

/* --- the stack --- */

static void ctl_push_reg(struct jit_tr *t, struct jit_rm m, unsigned guest)
{
    if (jit_is_slot(guest)) {
        jit_lea(&t->b, 8, H_T0, m);
        jit_ld(&t->b, 8, H_T1, jit_rm_gs(JIT_R(guest)));
        jit_st(&t->b, 8, H_T1, jit_rm_mem(H_T0, H_NONE, 0));
    } else {
        jit_st(&t->b, ctl_word(t), jit_host(guest), m);
    }
}

void jit_t_push(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;

    if (!ctl_stack_ok(t, o->in.osize)) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_flags_kill(t, o->live);
    ctl_push_reg(t, ctl_stack(t, true, s), o->in.rm);
    ctl_move_sp(t, -(int32_t)ctl_word(t));
    jit_stub_resume(t, s);
}

void jit_t_push_i(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;

    if (!ctl_stack_ok(t, o->in.osize)) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_flags_kill(t, o->live);
    ctl_store_const(t, ctl_stack(t, true, s), o->in.imm);
    ctl_move_sp(t, -(int32_t)ctl_word(t));
    jit_stub_resume(t, s);
}

void jit_t_push_e(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;
    struct jit_stub *s;
    struct jit_rm m;

    if (!(o->in.flags & SK_IN_MEM)) {
        jit_t_push(t, o);
        return;
    }
    if (!ctl_stack_ok(t, o->in.osize)) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_ld(b, ctl_word(t), H_T0, jit_mem(t, o, ctl_word(t), false, 0, s));
    jit_st(b, 8, H_T0, jit_rm_gs(JIT_OFF(jit.tmp)));
    m = ctl_stack(t, true, s);
    jit_lea(b, 8, H_T0, m);
    jit_ld(b, 8, H_T1, jit_rm_gs(JIT_OFF(jit.tmp)));
    jit_st(b, ctl_word(t), H_T1, jit_rm_mem(H_T0, H_NONE, 0));
    ctl_move_sp(t, -(int32_t)ctl_word(t));
    jit_stub_resume(t, s);
}

void jit_t_pop(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;
    struct jit_rm m;
    unsigned w = ctl_word(t);

    if (!ctl_stack_ok(t, o->in.osize)) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_flags_kill(t, o->live);
    m = ctl_stack(t, false, s);
    if (o->in.rm == SK_RSP) {
        jit_ld(&t->b, w, H_GSP, m);
    } else if (jit_is_slot(o->in.rm)) {
        jit_ld(&t->b, w, H_T0, m);
        ctl_move_sp(t, (int32_t)w);
        jit_st(&t->b, 8, H_T0, jit_rm_gs(JIT_R(o->in.rm)));
    } else {
        jit_ld(&t->b, w, o->in.rm, m);
        ctl_move_sp(t, (int32_t)w);
    }
    jit_stub_resume(t, s);
}

/* Groups. The check of one access covers them all; if it fails, each goes its own way. */
static bool ctl_groups(const struct jit_tr *t, const struct jit_op *o, jit_template *fn)
{
    return o->form->fn == fn && t->code64 && o->in.osize == 8 && o->in.rm != SK_RSP;
}

static void ctl_group_move(struct jit_tr *t, const struct jit_op *o, bool push, struct jit_rm at)
{
    unsigned guest = o->in.rm, host = jit_is_slot(guest) ? H_T1 : jit_host(guest);

    if (push) {
        if (host == H_T1) {
            jit_ld(&t->b, 8, H_T1, jit_rm_gs(JIT_R(guest)));
        }
        jit_st(&t->b, 8, host, at);
    } else {
        jit_ld(&t->b, 8, host, at);
        if (host == H_T1) {
            jit_st(&t->b, 8, H_T1, jit_rm_gs(JIT_R(guest)));
        }
    }
}

unsigned jit_stack_group(struct jit_tr *t, struct jit_op *o, unsigned max)
{
    bool push = o->form->fn == jit_t_push;
    jit_template *fn = push ? jit_t_push : jit_t_pop;
    struct jit_stub *s;
    struct jit_rm m;
    unsigned n = 0;

    while (n < max && ctl_groups(t, &o[n], fn)) {
        n++;
    }
    if (n < 2) {
        return 0;
    }
    s = jit_stub(t, JS_EACH, o);
    s->n = n;
    jit_flags_kill(t, o->live);
    jit_lea(&t->b, 8, H_T1, jit_rm_mem(H_GSP, H_NONE, push ? -8 * (int32_t)n : 0));
    m = jit_tlb(t, 8 * n, push, 0, s);
    jit_lea(&t->b, 8, H_T0, m);
    for (unsigned i = 0; i < n; i++) {
        int32_t at = 8 * (int32_t)(push ? n - 1 - i : i);

        ctl_group_move(t, &o[i], push, jit_rm_mem(H_T0, H_NONE, at));
    }
    ctl_move_sp(t, push ? -8 * (int32_t)n : 8 * (int32_t)n);
    jit_stub_resume(t, s);
    return n;
}

void jit_t_leave(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;
    struct jit_rm m;
    unsigned w = ctl_word(t);

    if (!ctl_stack_ok(t, o->in.osize)) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_flags_kill(t, o->live);
    jit_mov_rr(&t->b, w, H_T1, H_RBP);
    m = jit_tlb(t, w, false, 0, s);
    jit_ld(&t->b, w, H_T0, m);
    jit_lea(&t->b, w, H_GSP, jit_rm_mem(H_RBP, H_NONE, (int32_t)w));
    jit_mov_rr(&t->b, w, H_RBP, H_T0);
    jit_stub_resume(t, s);
}
