/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MOVs in a row at one base register share one check. If it fails, each goes its own way (JS_EACH),
 * so faults, devices and page borders are as without groups.
 */
#include "softkvm/jit/jit_tr.h"

#define GROUP_SPAN 256 /* bytes: few groups then reach over a page's end */

extern const struct sk_handler sk_h_mov_E_G, sk_h_mov_G_E, sk_h_mov_E_I;

struct span {
    int64_t lo, hi; /* displacements */
    bool write;
};

static bool group_loads(const struct jit_op *o)
{
    return sk_row_handlers[o->in.row] == &sk_h_mov_G_E;
}

/* A MOV of 4 or 8 bytes with nothing but a base register and a displacement, in a flat segment. */
static bool group_fits(const struct jit_tr *t, const struct jit_op *o)
{
    const struct sk_insn *in = &o->in;

    return t->code64 && (in->flags & SK_IN_MEM) && in->osize >= 4 && in->ash == 0 &&
           in->index == SK_RZERO && in->base < 16 && in->seg != SK_FS && in->seg != SK_GS &&
           (group_loads(o) || sk_row_handlers[o->in.row] == &sk_h_mov_E_G ||
            sk_row_handlers[o->in.row] == &sk_h_mov_E_I);
}

/* The span with one more access; false if it grows too large. */
static bool group_add(struct span *s, const struct jit_op *o)
{
    int64_t lo = MIN(s->lo, (int64_t)o->in.disp);
    int64_t hi = MAX(s->hi, (int64_t)o->in.disp + o->in.osize);

    if (hi - lo > GROUP_SPAN) {
        return false;
    }
    s->lo = lo;
    s->hi = hi;
    s->write |= !group_loads(o);
    return true;
}

static unsigned group_count(const struct jit_tr *t, const struct jit_op *o, unsigned max,
                            struct span *s)
{
    unsigned n = 0;

    while (n < max && group_fits(t, &o[n]) && o[n].in.base == o->in.base && group_add(s, &o[n])) {
        n++;
        if (group_loads(&o[n - 1]) && o[n - 1].in.reg == o->in.base) {
            break; /* the base is another from here on */
        }
    }
    return n;
}

/* `at` is relative to T0; T1 is free. */
static void group_move(struct jit_tr *t, const struct jit_op *o, struct jit_rm at)
{
    const struct sk_insn *in = &o->in;
    bool slot = jit_is_slot(in->reg);
    unsigned host = slot ? H_T1 : jit_host(in->reg);

    if (sk_row_handlers[o->in.row] == &sk_h_mov_E_I) {
        jit_opi(&t->b, in->osize, 0xc7, 0, at, 4, (uint32_t)in->imm);
    } else if (group_loads(o)) {
        jit_ld(&t->b, in->osize, host, at);
        if (slot) {
            jit_st(&t->b, 8, H_T1, jit_rm_gs(JIT_R(in->reg)));
        }
    } else {
        if (slot) {
            jit_ld(&t->b, 8, H_T1, jit_rm_gs(JIT_R(in->reg)));
        }
        jit_st(&t->b, in->osize, host, at);
    }
}

unsigned jit_mov_group(struct jit_tr *t, struct jit_op *o, unsigned max)
{
    struct span span = { .lo = o->in.disp, .hi = o->in.disp };
    unsigned n = group_count(t, o, max, &span), base;
    struct jit_stub *s;

    if (n < 2) {
        return 0;
    }
    s = jit_stub(t, JS_EACH, o);
    s->n = n;
    jit_flags_kill(t, jit_live_before(o));
    base = jit_host(o->in.base);
    if (jit_is_slot(o->in.base)) {
        jit_ld(&t->b, 8, H_T1, jit_rm_gs(JIT_R(o->in.base)));
        base = H_T1;
    }
    jit_lea(&t->b, 8, H_T1, jit_rm_mem(base, H_NONE, (int32_t)span.lo));
    jit_lea(&t->b, 8, H_T0, jit_tlb(t, (unsigned)(span.hi - span.lo), span.write, 0, s));
    for (unsigned i = 0; i < n; i++) {
        group_move(t, &o[i], jit_rm_mem(H_T0, H_NONE, (int32_t)(o[i].in.disp - span.lo)));
    }
    jit_stub_resume(t, s);
    return n;
}
