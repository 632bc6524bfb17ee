/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lock-step: before a region runs, the interpreter runs its instructions from the same state. What
 * it stores is logged and taken back; then the region runs, and registers, flags, vector and x87
 * state and the stored bytes must be the same.
 *
 * Switched on by SOFTKVM_JIT_LOCKSTEP, for one vCPU. Regions are not linked then and the jump cache
 * stays empty, so each comes back here; all arithmetic flags live at their ends; and they end
 * before any instruction that cannot be done twice, which is never compared.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "softkvm/jit/jit_tr.h"
#include "softkvm/x86/mmu_int.h"

enum { LOG_MAX = 256 };

struct entry {
    uint8_t *at;
    unsigned size;
    uint8_t before[64], after[64];
};

/* State that instructions which are replayed may change. */
struct state {
    uint64_t r[SK_NREGS];
    uint16_t af;
    uint32_t eflags;
    uint64_t gs_base, gs_ebase, kernel_gs_base;
    struct sk_xsave xs;
};

struct jit_replay {
    bool on; /* the interpreter is running ahead */
    unsigned n, ops;
    uint32_t undef; /* flags that the instructions left undefined */
    struct entry log[LOG_MAX];
    struct state before, expect;
    jmp_buf jb;
};

bool jit_replay_twice(const struct jit_tr *t, const struct jit_op *o)
{
    jit_template *fn = o->form->kind == JK_FN ? o->form->fn : NULL;

    if (o->form->kind == JK_INTERP || fn == jit_t_sti || fn == jit_t_rdtsc) {
        return false;
    }
    return o->form->kind == JK_FN || jit_gen_fits(t, o);
}

static void state_get(const struct sk_vcpu *c, struct state *s)
{
    memcpy(s->r, c->r, sizeof(s->r));
    s->af = c->af;
    s->eflags = c->eflags;
    s->gs_base = c->seg[SK_GS].base;
    s->gs_ebase = c->seg[SK_GS].ebase;
    s->kernel_gs_base = c->kernel_gs_base;
    s->xs = c->xs;
}

static void state_put(struct sk_vcpu *c, const struct state *s)
{
    memcpy(c->r, s->r, sizeof(s->r));
    c->af = s->af;
    c->eflags = s->eflags;
    c->seg[SK_GS].base = s->gs_base;
    c->seg[SK_GS].ebase = s->gs_ebase;
    c->kernel_gs_base = s->kernel_gs_base;
    c->xs = s->xs;
}

void sk_jit_logged(struct sk_vcpu *c, uint8_t *at, unsigned size)
{
    struct jit_replay *p = c->jit.jit->replay;

    if (p->n == LOG_MAX || size > sizeof(p->log[0].before)) {
        sk_jit_unlogged(c);
    }
    p->log[p->n] = (struct entry){ .at = at, .size = size };
    memcpy(p->log[p->n++].before, at, size);
}

void sk_jit_unlogged(struct sk_vcpu *c)
{
    longjmp(c->jb, 1);
}

static bool replay_insns(struct sk_vcpu *c, struct jit_replay *p, const struct jit_region *r)
{
    for (unsigned i = 0; i < r->n; i++) {
        const struct jit_rec *rec = r->rec[i];
        const struct sk_row *row = &sk_rows[rec->in.row];

        c->cur = &rec->in;
        c->insn_rip = rec->rip;
        c->r[SK_RIP] = rec->rip + rec->in.len;
        rec->in.fn(c, &rec->in);
        p->ops++;
        p->undef = (p->undef & ~row->fl_written) | row->fl_undef;
        if (c->leave || c->special || c->exit.kind != SK_EXIT_NONE) {
            return c->r[SK_RIP] != rec->rip + rec->in.len || i + 1 == r->n;
        }
        if (c->r[SK_RIP] != rec->rip + rec->in.len) {
            break;
        }
    }
    return true;
}

/* Runs ahead and takes it back. False: nothing to compare with. */
static bool replay_ahead(struct sk_vcpu *c, struct jit_replay *p, const struct jit_region *r)
{
    struct sk_tlb *wtlb = c->wtlb;
    uint64_t drops = c->jit.st.drops, flushes = c->jit.st.flushes;
    uint32_t special = c->special;
    volatile bool ok = false;

    p->n = p->ops = 0;
    p->undef = 0;
    state_get(c, &p->before);
    memcpy(p->jb, c->jb, sizeof(p->jb));
    c->wtlb = &c->tlb_w[SK_TLB_EMPTY]; /* every store comes by sk_jit_logged() */
    c->jit.replaying = true;
    c->leave = 0;
    if (_setjmp(c->jb) == 0) {
        ok = replay_insns(c, p, r);
    } else {
        sk_split_unlock(c);
    }
    c->jit.replaying = false;
    memcpy(c->jb, p->jb, sizeof(p->jb));
    c->wtlb = wtlb;
    c->leave = 0;
    c->special = special;
    state_get(c, &p->expect);
    for (unsigned i = 0; i < p->n; i++) {
        memcpy(p->log[i].after, p->log[i].at, p->log[i].size);
    }
    for (unsigned i = p->n; i-- > 0;) {
        memcpy(p->log[i].at, p->log[i].before, p->log[i].size);
    }
    state_put(c, &p->before);
    return ok && drops == c->jit.st.drops && flushes == c->jit.st.flushes;
}

/* The same store may be logged twice: what counts is the last one. */
static const struct entry *replay_stores(const struct jit_replay *p)
{
    uint8_t now[64];

    for (unsigned i = p->n; i-- > 0;) {
        const struct entry *e = &p->log[i];
        bool again = false;

        for (unsigned k = i + 1; k < p->n; k++) {
            again |= e->at < p->log[k].at + p->log[k].size && p->log[k].at < e->at + e->size;
        }
        memcpy(now, e->at, e->size);
        if (!again && memcmp(now, e->after, e->size) != 0) {
            return e;
        }
    }
    return NULL;
}

static const char *replay_differs(struct sk_vcpu *m, const struct jit_replay *p)
{
    const struct state *s = &p->expect;
    const struct sk_vcpu *c = m;
    uint32_t want, got;
    uint16_t af = m->af;

    if (memcmp(s->r, c->r, 16 * sizeof(s->r[0])) != 0 || s->r[SK_RIP] != c->r[SK_RIP]) {
        return "registers";
    }
    got = sk_flags_get(m);
    m->af = s->af;
    want = sk_flags_get(m);
    m->af = af;
    if ((got ^ want) & SK_FL_ARITH & ~p->undef) {
        return "flags";
    }
    if (((s->eflags ^ c->eflags) & SK_FL_IF) || s->gs_base != c->seg[SK_GS].base ||
        s->kernel_gs_base != c->kernel_gs_base) {
        return "system state";
    }
    if (memcmp(s->xs.xmm, c->xs.xmm, sizeof(c->xs.xmm)) != 0 ||
        memcmp(s->xs.ymmh, c->xs.ymmh, sizeof(c->xs.ymmh)) != 0 || s->xs.mxcsr != c->xs.mxcsr) {
        return "vector state";
    }
    for (unsigned i = 0; i < 8; i++) {
        if (memcmp(s->xs.st[i], c->xs.st[i], 10) != 0) {
            return "x87 registers";
        }
    }
    if (s->xs.fcw != c->xs.fcw || s->xs.fsw != c->xs.fsw || s->xs.ftw != c->xs.ftw) {
        return "x87 state";
    }
    return replay_stores(p) ? "memory" : NULL;
}

static _Noreturn void replay_stop(const struct sk_vcpu *c, const struct jit_replay *p,
                                  const struct jit_region *r, const char *what)
{
    const struct entry *e = replay_stores(p);

    fprintf(stderr, "softkvm: lock-step: %s differ behind %" PRIx64 " (%u of %u instructions)\n",
            what, r->rip, p->ops, r->n);
    for (unsigned i = 0; i < SK_NREGS; i++) {
        fprintf(stderr,
                "  r%u before %016" PRIx64 " interpreter %016" PRIx64 " here %016" PRIx64 "\n", i,
                p->before.r[i], p->expect.r[i], c->r[i]);
    }
    fprintf(stderr, "  flags: undefined %x\n", p->undef);
    if (e) {
        fprintf(stderr, "  %u bytes stored at %p\n", e->size, (void *)e->at);
    }
    for (unsigned i = 0; i < r->n; i++) {
        fprintf(stderr, "  %" PRIx64 " %s\n", r->rec[i]->rip, sk_rows[r->rec[i]->in.row].name);
    }
    abort();
}

unsigned jit_replay_enter(struct sk_vcpu *c, const struct jit_region *r)
{
    struct sk_jit *j = c->jit.jit;
    bool compare = r->n && replay_ahead(c, j->replay, r);
    uint64_t bodies;
    unsigned why;
    const char *what;

    c->leave = 0;
    bodies = c->jit.st.drops;
    why = j->enter(c, r->entry + j->rx);
    if (why == JX_LINK || why == JX_POLL || why == JX_T0) {
        c->r[SK_RIP] = ((const struct jit_link *)(uintptr_t)c->jit.arg)->rip;
    }
    if (!compare || why == JX_T0 || why == JX_TOKEN || c->special || c->mmio_n ||
        bodies != c->jit.st.drops || c->exit.kind != SK_EXIT_NONE) {
        return why;
    }
    what = replay_differs(c, j->replay);
    if (what) {
        replay_stop(c, j->replay, r, what);
    }
    sk_jit_count(&c->jit.st.compared, 1);
    return why;
}

void jit_replay_init(struct sk_jit *j)
{
    if (getenv("SOFTKVM_JIT_LOCKSTEP")) {
        j->replay = calloc(1, sizeof(*j->replay));
    }
}
