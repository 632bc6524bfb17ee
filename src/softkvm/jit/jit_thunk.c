/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The routines around translated code, generated once per vCPU:
 *
 *   enter       C -> translated code: host registers saved, guest registers loaded
 *   exit[n]     translated code -> C, jumped to with T0 = argument: the other way round
 *   interp      called with T0 = record: the instruction's body in C, then back, or out if the
 *               body asks for it
 *   interp_end  jumped to with T0 = record: the same, and always out
 *   vec_load, x87_load   called: guest's vector (x87) state into the registers; T0 = 0 if done,
 *               else it has exceptions unmasked and must stay with the interpreter
 *
 * While translated code runs, RSP is a multiple of 16.
 */
#include "softkvm/jit/jit_int.h"
#include "softkvm/x86/operands.h"

enum { FRAME = 56 }; /* with six pushes and the return address: a multiple of 16 */

static const uint8_t pinned[] = { H_RAX, H_RCX, H_RDX, H_RBX, H_RBP, H_RSI,
                                  H_RDI, H_R8,  H_R12, H_R13, H_R14, H_R15 };
static const uint8_t saved[] = { H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15 };

/* Called by generated code: runs the record's instruction. Nonzero: leave. */
static unsigned thunk_interp_c(struct sk_vcpu *c, const struct jit_rec *rec)
{
    uint32_t mode = c->jit.mode;

    c->cur = &rec->in;
    c->insn_rip = rec->rip;
    c->r[SK_RIP] = rec->rip + rec->in.len;
    sk_jit_count(&c->jit.st.bodies, 1);
    rec->in.fn(c, &rec->in);
    return c->leave | c->special | c->mmio_n | (unsigned)c->exit.kind | (mode ^ c->jit.mode) |
           (unsigned)(c->exc_pending);
}

static void spill(struct jit_buf *b, bool load)
{
    for (unsigned i = 0; i < ARRAY_LEN(pinned); i++) {
        jit_op(b, 8, load ? 0x8b : 0x89, pinned[i], jit_rm_gs(JIT_R(pinned[i])));
    }
    jit_op(b, 8, load ? 0x8b : 0x89, H_GSP, jit_rm_gs(JIT_R(SK_RSP)));
}

static void vec_mov(struct jit_buf *b, bool avx, bool load, unsigned n)
{
    struct jit_enc e = { .map = avx ? M_V1 : M_0F,
                         .pfx = 0xf3,
                         .op = load ? 0x6f : 0x7f, /* (v)movdqu */
                         .reg = (uint8_t)n,
                         .rm = jit_rm_gs(JIT_OFF(xs.xmm) + 16u * n) };

    jit_enc(b, &e);
    if (avx) { /* vinsertf128 ymm,ymm,[ymmh],1; vextractf128 [ymmh],ymm,1 */
        struct jit_enc h = { .map = M_V3,
                             .pfx = 0x66,
                             .op = load ? 0x18 : 0x19,
                             .l = true,
                             .reg = (uint8_t)n,
                             .vvvv = load ? (uint8_t)n : 0,
                             .rm = jit_rm_gs(JIT_OFF(xs.ymmh) + 16u * n),
                             .imm_n = 1,
                             .imm = 1 };

        jit_enc(b, &h);
    }
}

/* ldmxcsr (digit 2), stmxcsr (3), xsave64 (4, W), xrstor64 (5, W). */
static void op_0fae(struct jit_buf *b, unsigned digit, bool w, size_t disp)
{
    struct jit_enc e = {
        .map = M_0F, .op = 0xae, .w = w, .reg = (uint8_t)digit, .rm = jit_rm_gs(disp)
    };

    jit_enc(b, &e);
}

static void set_live(struct jit_buf *b, size_t disp, unsigned v)
{
    jit_opi(b, 4, 0xc6, 0, jit_rm_gs(disp), 1, v);
}

/* Stores what is live and gives the host its MXCSR and an empty x87 stack. Uses RAX, RDX, T0,
 * which are saved already. */
static void put_vec_save(struct jit_buf *b, bool avx)
{
    uint8_t *no_vec, *no_x87;

    jit_opi(b, 4, 0x80, ALU_CMP, jit_rm_gs(JIT_OFF(jit.vec_live)), 1, 0);
    no_vec = jit_jcc(b, CC_E);
    for (unsigned i = 0; i < 16; i++) {
        vec_mov(b, avx, false, i);
    }
    if (avx) {
        jit_put(b, "\xc5\xf8\x77", 3); /* vzeroupper */
    }
    op_0fae(b, 3, false, JIT_OFF(xs.mxcsr));
    op_0fae(b, 2, false, JIT_OFF(jit.host_mxcsr));
    set_live(b, JIT_OFF(jit.vec_live), 0);
    jit_fix(no_vec, b->p);
    jit_opi(b, 4, 0x80, ALU_CMP, jit_rm_gs(JIT_OFF(jit.x87_live)), 1, 0);
    no_x87 = jit_jcc(b, CC_E);
    jit_mov_ri(b, H_RAX, 1);
    jit_mov_ri(b, H_RDX, 0);
    op_0fae(b, 4, true, JIT_OFF(xs));
    jit_put(b, "\xdb\xe3", 2); /* fninit */
    jit_ld(b, 8, H_RAX, jit_rm_gs(JIT_OFF(jit.fip)));
    jit_st(b, 8, H_RAX, jit_rm_gs(JIT_OFF(xs.fip)));
    jit_ld(b, 8, H_RAX, jit_rm_gs(JIT_OFF(jit.fdp)));
    jit_st(b, 8, H_RAX, jit_rm_gs(JIT_OFF(xs.fdp)));
    jit_alu_i(b, 8, ALU_OR, jit_rm_gs(JIT_OFF(xs.xstate_bv)), 1);
    set_live(b, JIT_OFF(jit.x87_live), 0);
    jit_fix(no_x87, b->p);
}

static void put_vec_load(struct jit_buf *b, bool avx)
{
    uint8_t *bad;

    jit_ld(b, 4, H_T0, jit_rm_gs(JIT_OFF(xs.mxcsr)));
    jit_op(b, 4, 0xf7, 2, jit_rm_reg(H_T0)); /* not */
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T0), 0x1f80);
    bad = jit_jcc(b, CC_NE);
    for (unsigned i = 0; i < 16; i++) {
        vec_mov(b, avx, true, i);
    }
    op_0fae(b, 2, false, JIT_OFF(xs.mxcsr));
    jit_alu_i(b, 8, ALU_OR, jit_rm_gs(JIT_OFF(xs.xstate_bv)), avx ? 6 : 2);
    set_live(b, JIT_OFF(jit.vec_live), 1);
    jit_fix(bad, b->p);
    jit_put8(b, 0xc3);
}

static void put_x87_load(struct jit_buf *b)
{
    uint8_t *bad, *bad2;

    jit_ld(b, 4, H_T0, jit_rm_gs(JIT_OFF(xs.fcw))); /* FSW in the upper half */
    jit_op(b, 4, 0xf7, 2, jit_rm_reg(H_T0));
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T0), 0x3f);
    bad = jit_jcc(b, CC_NE);
    jit_ld(b, 4, H_T0, jit_rm_gs(JIT_OFF(xs.fcw)));
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T0), 0x800000); /* ES */
    bad2 = jit_jcc(b, CC_NE);
    jit_st(b, 8, H_RAX, jit_rm_gs(JIT_R(SK_RAX)));
    jit_st(b, 8, H_RDX, jit_rm_gs(JIT_R(SK_RDX)));
    jit_ld(b, 8, H_RAX, jit_rm_gs(JIT_OFF(xs.fip)));
    jit_st(b, 8, H_RAX, jit_rm_gs(JIT_OFF(jit.fip)));
    jit_ld(b, 8, H_RAX, jit_rm_gs(JIT_OFF(xs.fdp)));
    jit_st(b, 8, H_RAX, jit_rm_gs(JIT_OFF(jit.fdp)));
    jit_mov_ri(b, H_RAX, 1);
    jit_mov_ri(b, H_RDX, 0);
    jit_alu_i(b, 8, ALU_OR, jit_rm_gs(JIT_OFF(xs.xstate_bv)), 1);
    op_0fae(b, 5, true, JIT_OFF(xs));
    jit_ld(b, 8, H_RAX, jit_rm_gs(JIT_R(SK_RAX)));
    jit_ld(b, 8, H_RDX, jit_rm_gs(JIT_R(SK_RDX)));
    set_live(b, JIT_OFF(jit.x87_live), 1);
    jit_mov_ri(b, H_T0, 0);
    jit_fix(bad, b->p);
    jit_fix(bad2, b->p);
    jit_put8(b, 0xc3);
}

static void push(struct jit_buf *b, bool pop, unsigned reg)
{
    struct jit_enc e = { .op = pop ? 0x58 : 0x50, .no_modrm = true, .reg = (uint8_t)reg };

    jit_enc(b, &e);
}

static void put_enter(struct jit_buf *b)
{
    for (unsigned i = 0; i < ARRAY_LEN(saved); i++) {
        push(b, false, saved[i]);
    }
    jit_alu_i(b, 8, ALU_SUB, jit_rm_reg(H_RSP), FRAME);
    jit_mov_rr(b, 8, H_T0, H_RSI);
    spill(b, true);
    jit_op(b, 4, 0xff, 4, jit_rm_reg(H_T0));
}

/* Back to C with EAX = why; guest registers are in c->r. */
static void put_return(struct jit_buf *b)
{
    jit_alu_i(b, 8, ALU_ADD, jit_rm_reg(H_RSP), FRAME);
    for (unsigned i = ARRAY_LEN(saved); i-- > 0;) {
        push(b, true, saved[i]);
    }
    jit_put8(b, 0xc3);
}

/* Before the exit for a token: the quick way, which spares guest registers that C preserves, and
 * the vector state. EFLAGS hold nothing at the entry of a region. */
static void put_fast_token(struct jit_buf *b)
{
    static const uint8_t scratch[] = { H_RAX, H_RCX, H_RDX, H_RSI, H_RDI, H_R8 };
    uint8_t *slow;

    jit_st(b, 8, H_T0, jit_rm_gs(JIT_OFF(jit.arg)));
    for (unsigned i = 0; i < ARRAY_LEN(scratch); i++) {
        jit_st(b, 8, scratch[i], jit_rm_gs(JIT_R(scratch[i])));
    }
    jit_st(b, 8, H_GSP, jit_rm_gs(JIT_R(SK_RSP)));
    jit_ld(b, 8, H_RDI, jit_rm_gs(JIT_OFF(jit.self)));
    jit_mov_rr(b, 8, H_RSI, H_T0);
    jit_mov_ri(b, H_RAX, (uintptr_t)jit_fast_token);
    jit_op(b, 4, 0xff, 2, jit_rm_reg(H_RAX));
    jit_mov_rr(b, 8, H_T0, H_RAX);
    for (unsigned i = 0; i < ARRAY_LEN(scratch); i++) {
        jit_ld(b, 8, scratch[i], jit_rm_gs(JIT_R(scratch[i])));
    }
    jit_ld(b, 8, H_GSP, jit_rm_gs(JIT_R(SK_RSP)));
    jit_op(b, 8, 0x85, H_T0, jit_rm_reg(H_T0));
    slow = jit_jcc(b, CC_E);
    jit_op(b, 4, 0xff, 4, jit_rm_reg(H_T0));
    jit_fix(slow, b->p);
    jit_ld(b, 8, H_T0, jit_rm_gs(JIT_OFF(jit.arg)));
}

static void put_exit(struct jit_buf *b, bool avx, unsigned why)
{
    if (why == JX_TOKEN) {
        put_fast_token(b);
    }
    spill(b, false);
    jit_st(b, 8, H_T0, jit_rm_gs(JIT_OFF(jit.arg)));
    put_vec_save(b, avx);
    jit_mov_ri(b, H_RAX, why);
    put_return(b);
}

/* RSP is 16 n at entry for `end`, 16 n + 8 (a return address) else. */
static void put_interp(struct jit_buf *b, bool avx, bool end)
{
    uint8_t *leave;

    spill(b, false);
    put_vec_save(b, avx);
    jit_ld(b, 8, H_RDI, jit_rm_gs(JIT_OFF(jit.self)));
    jit_mov_rr(b, 8, H_RSI, H_T0);
    jit_mov_ri(b, H_RAX, (uintptr_t)thunk_interp_c);
    if (end) {
        jit_op(b, 4, 0xff, 2, jit_rm_reg(H_RAX));
    } else {
        jit_alu_i(b, 8, ALU_SUB, jit_rm_reg(H_RSP), 8);
        jit_op(b, 4, 0xff, 2, jit_rm_reg(H_RAX));
        jit_alu_i(b, 8, ALU_ADD, jit_rm_reg(H_RSP), 8);
        jit_op(b, 4, 0x85, H_RAX, jit_rm_reg(H_RAX));
        leave = jit_jcc(b, CC_NE);
        spill(b, true);
        jit_put8(b, 0xc3);
        jit_fix(leave, b->p);
        jit_alu_i(b, 8, ALU_ADD, jit_rm_reg(H_RSP), 8);
    }
    jit_mov_ri(b, H_RAX, JX_LEAVE);
    put_return(b);
}

static uint8_t *thunk_start(struct jit_buf *b)
{
    while ((uintptr_t)b->p & 15) {
        jit_put8(b, 0xcc);
    }
    return b->p;
}

void jit_thunks(struct sk_jit *j)
{
    struct jit_buf b = { .p = j->code_p, .end = j->rw + JIT_CODE_SIZE, .rx = j->rx };

    j->enter = (jit_enter_fn *)(uintptr_t)(thunk_start(&b) + j->rx);
    put_enter(&b);
    for (unsigned i = 0; i <= JX_T0; i++) {
        j->th_exit[i] = thunk_start(&b);
        put_exit(&b, j->avx, i);
    }
    j->th_interp = thunk_start(&b);
    put_interp(&b, j->avx, false);
    j->th_interp_end = thunk_start(&b);
    put_interp(&b, j->avx, true);
    j->th_vec_load = thunk_start(&b);
    put_vec_load(&b, j->avx);
    j->th_x87_load = thunk_start(&b);
    put_x87_load(&b);
    j->code_p = thunk_start(&b);
}
