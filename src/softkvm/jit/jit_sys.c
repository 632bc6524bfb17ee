/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Templates of the few system instructions that kernels run all the time. What they look at of
 * privilege is compared when they run; any doubt is the interpreter's.
 */
#include "softkvm/jit/jit_tr.h"
#include "softkvm/x86/crs.h"

/* Goes to the stub unless CPL is 0. */
static void sys_cpl0(struct jit_tr *t, struct jit_stub *s)
{
    jit_opi(&t->b, 4, 0x80, ALU_CMP, jit_rm_gs(JIT_OFF(cpl)), 1, 0);
    jit_stub_site(s, jit_jcc(&t->b, CC_NE));
}

/* STI with an instruction behind it in the region. If an interrupt may be waiting, it is taken
 * after exactly one more; one that comes later is seen at the next poll, or at the next STI if IF
 * is clear again by then. Nothing looks at the poll word between the two instructions. */
static void sys_sti(struct sk_vcpu *c, const struct sk_insn *in)
{
    (void)in;
    if (sk_pe(c) && c->cpl > sk_iopl(c)) {
        sk_raise_err(c, SK_GP, 0);
    }
    if ((c->eflags & SK_FL_IF) == 0 &&
        (c->intr_held || c->intr_injected ||
         atomic_load_explicit(&c->poll, memory_order_relaxed) != 0)) {
        c->intr_held = false;
        c->special |= SK_SPECIAL_SHADOW_STI; /* one at a time from here */
        sk_poll_set(c, SK_POLL_INTR);
    }
    c->eflags |= SK_FL_IF;
}

void jit_t_sti(struct jit_tr *t, struct jit_op *o)
{
    if (o != &t->op[t->n - 1]) {
        o->in.fn = sys_sti;
        o->in.flags &= (uint16_t)~SK_IN_END;
    }
    jit_interp(t, o);
}

void jit_t_cli(struct jit_tr *t, struct jit_op *o)
{
    struct jit_stub *s;

    if (t->mode & JM_USER) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_flags_kill(t, o->live);
    sys_cpl0(t, s);
    jit_alu_i(&t->b, 4, ALU_AND, jit_rm_gs(JIT_OFF(eflags)), ~SK_FL_IF);
    jit_stub_resume(t, s);
}

/* The image in T0. Its flags come from c->af. */
void jit_t_pushf(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;
    struct jit_enc lo = { .map = M_0F, .op = 0xb6, .reg = H_T1, .rm = jit_rm_gs(JIT_OFF(af)) };
    struct jit_enc hi = { .map = M_0F, .op = 0xb6, .reg = H_T0, .rm = jit_rm_gs(JIT_OFF(af) + 1) };
    struct jit_stub *s;
    struct jit_rm m;

    if (!t->code64 || o->in.osize != 8) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_flags_kill(t, SK_FL_ARITH);
    jit_enc(b, &hi);
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T0), 0xd5);
    jit_enc(b, &lo);
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T1), 1);
    jit_opi(b, 4, 0xc1, 4, jit_rm_reg(H_T1), 1, 11); /* shl */
    jit_op(b, 4, 0x0b, H_T0, jit_rm_reg(H_T1));
    jit_op(b, 4, 0x0b, H_T0, jit_rm_gs(JIT_OFF(eflags)));
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T0), ~(SK_FL_VM | SK_FL_RF));
    jit_st(b, 8, H_T0, jit_rm_gs(JIT_OFF(jit.tmp)));
    jit_lea(b, 8, H_T1, jit_rm_mem(H_GSP, H_NONE, -8));
    m = jit_tlb(t, 8, true, 0, s);
    jit_lea(b, 8, H_T0, m);
    jit_ld(b, 8, H_T1, jit_rm_gs(JIT_OFF(jit.tmp)));
    jit_st(b, 8, H_T1, jit_rm_mem(H_T0, H_NONE, 0));
    jit_lea(b, 8, H_GSP, jit_rm_mem(H_GSP, H_NONE, -8));
    jit_stub_resume(t, s);
}

void jit_t_swapgs(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;
    struct jit_stub *s;

    if (t->mode & JM_USER) {
        jit_interp(t, o);
        return;
    }
    s = jit_stub(t, JS_INTERP, o);
    jit_flags_kill(t, o->live);
    sys_cpl0(t, s);
    jit_ld(b, 8, H_T0, jit_rm_gs(JIT_OFF(seg[SK_GS].base)));
    jit_ld(b, 8, H_T1, jit_rm_gs(JIT_OFF(kernel_gs_base)));
    jit_st(b, 8, H_T0, jit_rm_gs(JIT_OFF(kernel_gs_base)));
    jit_st(b, 8, H_T1, jit_rm_gs(JIT_OFF(seg[SK_GS].base)));
    jit_st(b, 8, H_T1, jit_rm_gs(JIT_OFF(seg[SK_GS].ebase)));
    jit_stub_resume(t, s);
}

/* RDTSC and RDTSCP, if the guest's TSC runs as the host's and CR4.TSD does not matter. */
void jit_t_rdtsc(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;
    struct jit_stub *s = jit_stub(t, JS_INTERP, o);

    jit_flags_kill(t, o->live);
    jit_alu_i(b, 8, ALU_CMP, jit_rm_gs(JIT_OFF(tsc_ratio)), 0);
    jit_stub_site(s, jit_jcc(b, CC_NE));
    jit_opi(b, 4, 0xf7, 0, jit_rm_gs(JIT_OFF(cr4)), 4, SK_CR4_TSD); /* test */
    jit_stub_site(s, jit_jcc(b, CC_NE));
    jit_put(b, "\x0f\xae\xe8\x0f\x31", 5);            /* lfence; rdtsc */
    jit_opi(b, 8, 0xc1, 4, jit_rm_reg(H_RDX), 1, 32); /* shl */
    jit_op(b, 8, 0x0b, H_RAX, jit_rm_reg(H_RDX));
    jit_op(b, 8, 0x03, H_RAX, jit_rm_gs(JIT_OFF(tsc_offset)));
    jit_mov_rr(b, 8, H_RDX, H_RAX);
    jit_opi(b, 8, 0xc1, 5, jit_rm_reg(H_RDX), 1, 32); /* shr */
    jit_mov_rr(b, 4, H_RAX, H_RAX);
    if (o->row->opcode == 0x01) {
        jit_ld(b, 4, H_RCX, jit_rm_gs(JIT_OFF(tsc_aux)));
    }
    jit_stub_resume(t, s);
}
