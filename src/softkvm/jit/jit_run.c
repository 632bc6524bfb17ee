/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the run loop and translated code: entries, links, tokens.
 */
#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "softkvm/jit/jit_int.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mmu_int.h"

/* The gs base is the vCPU's as long as the thread runs it. Where the kernel knows FSGSBASE (the
 * instructions may work without it, but then a context switch loses the value) it is set and given
 * back by instructions; elsewhere by a system call that is worth avoiding, so it stays, and the
 * thread remembers whose it is. */
static _Thread_local const struct sk_vcpu *gs_owner;
static _Thread_local uint64_t gs_before; /* what it was before the first one */

uint64_t sk_jit_enter(struct sk_vcpu *c)
{
    uint64_t old = 0;

    if (!c->jit.jit) {
        return 0;
    }
    if (c->jit.jit->fsgsbase) {
        __asm__ volatile("rdgsbase %0" : "=r"(old));
        __asm__ volatile("wrgsbase %0" : : "r"(c));
    } else if (gs_owner != c) {
        if (!gs_owner) {
            (void)syscall(SYS_arch_prctl, ARCH_GET_GS, &gs_before);
        }
        if (syscall(SYS_arch_prctl, ARCH_SET_GS, c) != 0) {
            sk_jit_done(c);
            return 0;
        }
        gs_owner = c;
    }
    return old;
}

void sk_jit_leave(struct sk_vcpu *c, uint64_t old)
{
    if (c->jit.jit && c->jit.jit->fsgsbase) {
        __asm__ volatile("wrgsbase %0" : : "r"(old));
    }
}

void sk_jit_detach(void)
{
    if (gs_owner) {
        (void)syscall(SYS_arch_prctl, ARCH_SET_GS, gs_before);
        gs_owner = NULL;
    }
}

static unsigned run_set(const struct sk_vcpu *c)
{
    return (c->jit.mode >> JM_SET_SHIFT) & 3;
}

/* Tokens of a set count for one mode and one CS base. */
static void run_set_mode(struct sk_vcpu *c)
{
    struct sk_jit *j = c->jit.jit;
    unsigned s = run_set(c);

    if (j->set_mode[s] != c->jit.mode || j->set_base[s] != c->seg[SK_CS].ebase) {
        sk_jit_forget(c);
        j->set_mode[s] = c->jit.mode;
        j->set_base[s] = c->seg[SK_CS].ebase;
    }
}

/* The view of the page at CS:rip, its token set; NULL if there is none (yet). Faults as a fetch of
 * the instruction at `insn`. */
static struct jit_view *run_view(struct sk_vcpu *c, uint64_t rip, uint64_t insn)
{
    uint64_t gpa, lin = (c->seg[SK_CS].ebase + rip) & c->linmask;
    const uint8_t *host;
    struct jit_view *v;

    c->insn_rip = insn;
    host = sk_fetch_ptr(c, lin, &gpa);
    v = host ? jit_view_find(c, lin, gpa) : NULL;
    if (!v || !jit_page_check(c, v->page, host - (lin & 4095))) {
        return NULL;
    }
    jit_token_set(c, v);
    return v;
}

/* At the start of an epoch most views are still what they were: mapped as before, with the bytes as
 * before. True: `v`, of code at `rip`, is in force again. */
static bool run_view_again(struct sk_vcpu *c, const struct jit_view *v, uint64_t rip)
{
    uint64_t gpa, lin = (c->seg[SK_CS].ebase + rip) & c->linmask;
    const uint8_t *host;

    if (!jit_view_fits(c, v)) {
        return false;
    }
    c->insn_rip = rip;
    host = sk_fetch_ptr(c, lin, &gpa);
    if (!host || (gpa ^ v->page->gpa) >= 4096 || !jit_page_check(c, v->page, host - (lin & 4095))) {
        return false;
    }
    jit_token_set(c, v);
    return true;
}

/* The region at CS:RIP, ready to be entered. */
static struct jit_region *run_find(struct sk_vcpu *c, uint64_t rip)
{
    struct sk_jit *j = c->jit.jit;
    struct jit_view *v = run_view(c, rip, rip);
    struct jit_region *r = v ? jit_region_find(j, v, rip) : NULL;

    if (UNLIKELY(j->replay != NULL)) {
        return r; /* nothing gets from region to region by itself */
    }
    /* Nothing found: an address that belongs elsewhere in the table matches nobody. */
    c->jit.jump[run_set(c)][rip % SK_JIT_JUMPS] =
        (struct sk_jit_jump){ .rip = r ? rip : rip ^ 1, .code = r ? r->checked + j->rx : NULL };
    return r;
}

static const uint8_t *run_code(struct sk_vcpu *c, uint64_t rip)
{
    const struct sk_jit_jump *e = &c->jit.jump[run_set(c)][rip % SK_JIT_JUMPS];
    struct jit_region *r;

    if (e->rip == rip) {
        return e->code; /* looks at the token itself */
    }
    r = run_find(c, rip);
    return r ? r->entry + c->jit.jit->rx : NULL;
}

/* Generated code came to an exit that is not linked. The code to go on with, or NULL. */
static const uint8_t *run_link(struct sk_vcpu *c, struct jit_link *l)
{
    struct sk_jit *j = c->jit.jit;
    uint64_t gen = j->flush_gen;
    struct jit_region *r;

    c->r[SK_RIP] = l->rip;
    r = run_find(c, l->rip);
    if (!r || gen != j->flush_gen) {
        return NULL;
    }
    if (l->site && !l->view->dead) {
        jit_fix(l->site, r->view == l->view ? r->entry : r->checked);
        sk_jit_count(&c->jit.st.links, 1);
    }
    return r->entry + j->rx;
}

/* The token of a region was not the one in force. */
static const uint8_t *run_token(struct sk_vcpu *c, struct jit_region *old)
{
    struct jit_region *r;

    c->r[SK_RIP] = old->rip;
    if (run_view_again(c, old->view, old->rip)) {
        return old->entry + c->jit.jit->rx;
    }
    r = run_find(c, old->rip);
    if (r && r != old && old->view->dead) { /* jumps to the old one go on to the new one */
        *old->checked = 0xe9;
        jit_fix(old->checked + 1, r->checked);
    }
    return r ? r->entry + c->jit.jit->rx : NULL;
}

/* An instruction must be done by the interpreter; if only because a token was missing, not again.
 */
static void run_t0(struct sk_vcpu *c, const struct jit_link *l)
{
    c->r[SK_RIP] = l->rip;
    if (l->cross) {
        (void)run_view(c, l->cross->lin - l->cross->csbase, l->rip);
    }
}

static _Atomic uint64_t *exit_count(struct sk_vcpu *c, unsigned why)
{
    return &c->jit.st.exit_leave + why; /* in the enum's order */
}

/* sk_jit_run() in lock-step. */
static bool run_lockstep(struct sk_vcpu *c)
{
    struct jit_region *r;
    unsigned why;

    while ((r = run_find(c, c->r[SK_RIP])) != NULL) {
        c->cur_block = NULL;
        sk_jit_count(&c->jit.st.enters, 1);
        why = jit_replay_enter(c, r);
        sk_jit_count(exit_count(c, why), 1);
        if (why == JX_T0) {
            run_t0(c, (const struct jit_link *)(uintptr_t)c->jit.arg);
            return false;
        }
        if (why != JX_LINK || atomic_load_explicit(&c->poll, memory_order_relaxed) != 0 ||
            *c->immediate_exit) {
            return true;
        }
    }
    return false;
}

bool sk_jit_run(struct sk_vcpu *c)
{
    struct sk_jit *j = c->jit.jit;
    const uint8_t *code;
    unsigned why;

    if (!(c->jit.mode & JM_FIT)) {
        return false;
    }
    run_set_mode(c);
    if (UNLIKELY(j->replay != NULL)) {
        return run_lockstep(c);
    }
    code = run_code(c, c->r[SK_RIP]);
    while (code) {
        c->leave = 0;
        c->cur_block = NULL;
        sk_jit_count(&c->jit.st.enters, 1);
        why = j->enter(c, code);
        sk_jit_count(exit_count(c, why), 1);
        switch (why) {
        case JX_LINK:
            code = run_link(c, (struct jit_link *)(uintptr_t)c->jit.arg);
            break;
        case JX_TOKEN:
            code = run_token(c, (struct jit_region *)(uintptr_t)c->jit.arg);
            break;
        case JX_POLL:
            c->r[SK_RIP] = ((struct jit_link *)(uintptr_t)c->jit.arg)->rip;
            return true;
        case JX_T0:
            run_t0(c, (const struct jit_link *)(uintptr_t)c->jit.arg);
            return false;
        default:
            return true;
        }
        if (code &&
            UNLIKELY(atomic_load_explicit(&c->poll, memory_order_relaxed) | *c->immediate_exit)) {
            return true;
        }
    }
    return false;
}
