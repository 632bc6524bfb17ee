/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From guest bytes to a region: decode, find out which flags live, write the code, then the stubs
 * behind it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "softkvm/jit/jit_tr.h"
#include "softkvm/x86/mmu_int.h"

enum { LOOK_INSNS = 12, LOOK_DEPTH = 3, NO_CC = 16 };

static uint64_t tr_lines(unsigned off, unsigned len)
{
    unsigned first = off >> 6, last = (off + len - 1) >> 6;

    return (~UINT64_C(0) >> (63 - (last - first))) << first;
}

static void tr_env(const struct jit_tr *t, struct sk_decode_env *env)
{
    env->code_size = t->c->code_size;
    env->real_or_v86 = t->mode & JM_REAL;
    env->features = t->c->features;
}

static uint64_t tr_rip_mask(const struct jit_tr *t)
{
    return t->code64 ? ~UINT64_C(0) : t->mode & SK_MODE_32 ? 0xffffffff : 0xffff;
}

static uint64_t tr_lin(const struct jit_tr *t, uint64_t rip)
{
    return (t->view->csbase + rip) & t->c->linmask;
}

static void tr_op(struct jit_op *o, uint64_t rip)
{
    o->row = &sk_rows[o->in.row];
    o->form = jit_form(o->in.row);
    o->rip = rip;
    o->next = rip + o->in.len;
    o->rec = NULL;
    jit_flags_of(o);
}

uint64_t jit_target(const struct jit_tr *t, const struct jit_op *o)
{
    uint64_t to = o->next + o->in.imm;

    (void)t;
    return o->in.osize == 8 ? to : o->in.osize == 4 ? (uint32_t)to : (uint16_t)to;
}

bool jit_direct_ok(const struct jit_tr *t, const struct jit_op *o)
{
    uint64_t to = jit_target(t, o);

    return t->code64 ? (uint64_t)((int64_t)(to << 16) >> 16) == to : to <= tr_rip_mask(t);
}

/* Flags that code from `rip` on may read before writing them; all if it is on another page. The
 * lines looked at become part of what the page's token stands for. */
static uint16_t tr_look(struct jit_tr *t, uint64_t rip, unsigned depth)
{
    uint16_t need = 0, open = SK_FL_ARITH;
    struct sk_decode_env env;
    struct jit_op o;

    tr_env(t, &env);
    for (unsigned i = 0; i < LOOK_INSNS && open; i++) {
        uint64_t lin = tr_lin(t, rip);
        unsigned off = lin & 4095;
        int len;

        if (depth == 0 || (lin & ~UINT64_C(4095)) != t->view->lin || rip > tr_rip_mask(t)) {
            break;
        }
        len = sk_decode(&o.in, t->view->page->copy + off, 4096 - off, &env);
        if (len < 0) {
            break;
        }
        t->view->page->lines |= tr_lines(off, (unsigned)len);
        tr_op(&o, rip);
        need |= open & o.reads;
        open &= (uint16_t) ~(o.reads | o.must);
        rip = o.next;
        if (o.form->fn == jit_t_jcc && jit_direct_ok(t, &o)) {
            need |= open & tr_look(t, jit_target(t, &o), depth - 1);
        } else if (o.form->fn == jit_t_jmp && jit_direct_ok(t, &o)) {
            rip = jit_target(t, &o);
        } else if (o.form->ends || (o.in.flags & SK_IN_END)) {
            break;
        }
    }
    return need | open;
}

static void tr_liveness(struct jit_tr *t)
{
    uint16_t live = SK_FL_ARITH;
    struct jit_op *last = &t->op[t->n - 1];

    if (t->j->replay) {
        /* lock-step compares them all at every exit */
    } else if (last->form->fn == jit_t_jmp && jit_direct_ok(t, last)) {
        live = tr_look(t, jit_target(t, last), LOOK_DEPTH);
    } else if (!last->form->ends) {
        live = tr_look(t, last->next, LOOK_DEPTH);
    }
    for (unsigned i = t->n; i-- > 0;) {
        struct jit_op *o = &t->op[i];

        if (o->form->fn == jit_t_jcc || o->form->fn == jit_t_loop) {
            o->exit_live = jit_direct_ok(t, o) && !t->j->replay
                               ? tr_look(t, jit_target(t, o), LOOK_DEPTH)
                               : SK_FL_ARITH;
            live |= o->exit_live;
        }
        o->live = live;
        live = jit_live_before(o);
    }
}

/* --- stubs --- */

struct jit_stub *jit_stub(struct jit_tr *t, enum jit_stubkind kind, struct jit_op *o)
{
    struct jit_stub *s = &t->stub[t->nstubs++];

    *s = (struct jit_stub){ .kind = kind, .op = o };
    return s;
}

void jit_stub_site(struct jit_stub *s, uint8_t *site)
{
    s->site[s->sites++] = site;
}

void jit_stub_resume(struct jit_tr *t, struct jit_stub *s)
{
    s->resume = t->b.p;
    s->fl_host = t->fl != FL_MEM;
    s->vec = t->vec;
    s->x87 = t->x87;
}

static struct jit_rec *tr_rec(struct jit_tr *t, struct jit_op *o)
{
    if (!o->rec) {
        o->rec = jit_data(t->j, sizeof(*o->rec));
        *o->rec = (struct jit_rec){ .in = o->in, .rip = o->rip };
    }
    return o->rec;
}

static struct jit_link *tr_link(struct jit_tr *t, uint64_t rip)
{
    struct jit_link *l = jit_data(t->j, sizeof(*l));

    *l = (struct jit_link){ .rip = rip, .view = t->view };
    return l;
}

static void tr_jump_exit(struct jit_tr *t, unsigned why, const void *arg)
{
    jit_mov_ri(&t->b, H_T0, (uintptr_t)arg);
    jit_fix(jit_jmp(&t->b), t->j->th_exit[why]);
}

/* Calls th_vec_load or th_x87_load; out to the interpreter at `rip` if refused. */
static void tr_load_state(struct jit_tr *t, const uint8_t *thunk, uint64_t rip)
{
    struct jit_buf *b = &t->b;
    uint8_t *ok;

    jit_fix(jit_call(b), thunk);
    jit_op(b, 8, 0x85, H_T0, jit_rm_reg(H_T0));
    ok = jit_jcc(b, CC_E);
    tr_jump_exit(t, JX_T0, tr_link(t, rip));
    jit_fix(ok, b->p);
}

static void tr_stub_interp(struct jit_tr *t, struct jit_stub *s)
{
    struct jit_buf *b = &t->b;

    jit_mov_ri(b, H_T0, (uintptr_t)tr_rec(t, s->op));
    if (s->kind == JS_INTERP_END) {
        jit_fix(jit_jmp(b), t->j->th_interp_end);
        return;
    }
    jit_fix(jit_call(b), t->j->th_interp);
    if (s->vec) {
        tr_load_state(t, t->j->th_vec_load, s->op->next);
    }
    if (s->x87) {
        tr_load_state(t, t->j->th_x87_load, s->op->next);
    }
    if (s->fl_host) {
        t->fl = FL_MEM;
        jit_flags_load(t);
    }
    jit_fix(jit_jmp(b), s->resume);
}

static void tr_link_site(struct jit_tr *t, struct jit_link *l, uint8_t *site);
static void tr_emit_op(struct jit_tr *t, struct jit_op *o);

static void tr_stub_each(struct jit_tr *t, const struct jit_stub *s)
{
    t->fl = FL_MEM;
    t->vec = s->vec;
    t->x87 = s->x87;
    for (unsigned i = 0; i < s->n; i++) {
        tr_emit_op(t, &s->op[i]);
    }
    jit_fix(jit_jmp(&t->b), s->resume);
}

static void tr_stubs(struct jit_tr *t)
{
    for (unsigned i = 0; i < t->nstubs; i++) {
        struct jit_stub *s = &t->stub[i];

        if (s->sites == 0) {
            continue;
        }
        for (unsigned k = 0; k < s->sites; k++) {
            jit_fix(s->site[k], t->b.p);
        }
        switch (s->kind) {
        case JS_EXIT:
            tr_jump_exit(t, s->why, s->arg);
            break;
        case JS_VEC:
            tr_load_state(t, t->j->th_vec_load, s->op->rip);
            jit_fix(jit_jmp(&t->b), s->resume);
            break;
        case JS_TRAMPOLINE:
            t->fl = FL_HOST;
            jit_flags_save(t);
            tr_link_site(t, s->arg, jit_jmp(&t->b));
            break;
        case JS_EACH:
            tr_stub_each(t, s);
            break;
        case JS_X87:
            tr_load_state(t, t->j->th_x87_load, s->op->rip);
            jit_fix(jit_jmp(&t->b), s->resume);
            break;
        default:
            tr_stub_interp(t, s);
            break;
        }
    }
}

static void tr_exit_stub(struct jit_tr *t, unsigned why, void *arg, uint8_t *site)
{
    struct jit_stub *s = jit_stub(t, JS_EXIT, NULL);

    s->why = why;
    s->arg = arg;
    jit_stub_site(s, site);
}

/* --- exits --- */

/* A link's jump: straight to the target if it is there, else to a stub. */
static void tr_link_site(struct jit_tr *t, struct jit_link *l, uint8_t *site)
{
    bool same = (tr_lin(t, l->rip) & ~UINT64_C(4095)) == t->view->lin;
    struct jit_region *r = l->rip == t->region->rip ? t->region
                           : same                   ? jit_region_find(t->j, t->view, l->rip)
                                                    : NULL;

    if (r && !t->j->replay) {
        jit_fix(site, r->entry);
        return;
    }
    l->site = site;
    tr_exit_stub(t, JX_LINK, l, site);
}

void jit_poll(struct jit_tr *t, unsigned tmp, struct jit_stub *s)
{
    struct jit_buf *b = &t->b;

    jit_alu_i(b, 4, ALU_CMP, jit_rm_gs(JIT_OFF(poll)), 0);
    jit_stub_site(s, jit_jcc(b, CC_NE));
    jit_ld(b, 8, tmp, jit_rm_gs(JIT_OFF(immediate_exit)));
    jit_opi(b, 4, 0x80, ALU_CMP, jit_rm_mem(tmp, H_NONE, 0), 1, 0);
    jit_stub_site(s, jit_jcc(b, CC_NE));
}

void jit_exit_to(struct jit_tr *t, unsigned cc, uint64_t rip, bool save)
{
    struct jit_buf *b = &t->b;
    struct jit_link *l = tr_link(t, rip);
    bool back = rip <= t->cur->rip;
    uint8_t *skip = NULL;

    if (!back && cc < NO_CC) {
        if (save && t->fl == FL_HOST) {
            struct jit_stub *s = jit_stub(t, JS_TRAMPOLINE, t->cur);

            s->arg = l;
            jit_stub_site(s, jit_jcc(b, cc));
        } else {
            tr_link_site(t, l, jit_jcc(b, cc));
        }
        return;
    }
    if (cc < NO_CC) {
        skip = jit_jcc(b, cc ^ 1);
    }
    if (save) {
        enum jit_fl old = t->fl;

        jit_flags_save(t);
        t->fl = old; /* not on the way that does not leave */
    }
    if (back) { /* every loop has a jump backwards */
        struct jit_stub *s = jit_stub(t, JS_EXIT, NULL);

        s->why = JX_POLL;
        s->arg = l;
        jit_poll(t, H_T0, s);
    }
    tr_link_site(t, l, jit_jmp(b));
    if (skip) {
        jit_fix(skip, b->p);
    }
}

void jit_interp(struct jit_tr *t, struct jit_op *o)
{
    struct jit_buf *b = &t->b;

    jit_flags_kill(t, jit_live_before(o));
    jit_mov_ri(b, H_T0, (uintptr_t)tr_rec(t, o));
    if (o->in.flags & SK_IN_END) {
        jit_fix(jit_jmp(b), t->j->th_interp_end);
        return;
    }
    jit_fix(jit_call(b), t->j->th_interp);
    t->vec = t->x87 = false;
}

static void tr_need(struct jit_tr *t, struct jit_op *o, enum jit_stubkind kind, size_t live)
{
    struct jit_stub *s = jit_stub(t, kind, o);

    jit_flags_kill(t, jit_live_before(o));
    jit_opi(&t->b, 4, 0x80, ALU_CMP, jit_rm_gs(live), 1, 0);
    jit_stub_site(s, jit_jcc(&t->b, CC_E));
    jit_stub_resume(t, s);
}

void jit_need_vec(struct jit_tr *t, struct jit_op *o)
{
    if (!t->vec) {
        tr_need(t, o, JS_VEC, JIT_OFF(jit.vec_live));
        t->vec = true;
    }
}

void jit_need_x87(struct jit_tr *t, struct jit_op *o)
{
    if (!t->x87) {
        tr_need(t, o, JS_X87, JIT_OFF(jit.x87_live));
        t->x87 = true;
    }
}

/* --- the region --- */

/* The token of view `v`, compared. Where to jump if it is another. */
static uint8_t *tr_check_token(struct jit_tr *t, const struct jit_view *v)
{
    size_t at = JIT_OFF(jit.token) + 4 * (t->set * SK_JIT_TOKENS + jit_slot(v->lin));

    jit_opi(&t->b, 4, 0x81, ALU_CMP, jit_rm_gs(at), 4, v->token);
    return jit_jcc(&t->b, CC_NE);
}

/* The last instruction reaches into the next page, seen as `cross`. */
static void tr_check_cross(struct jit_tr *t, struct jit_op *o, struct jit_view *cross)
{
    struct jit_link *l = tr_link(t, o->rip);

    l->cross = cross;
    jit_flags_kill(t, jit_live_before(o));
    tr_exit_stub(t, JX_T0, l, tr_check_token(t, cross));
}

static void tr_emit_op(struct jit_tr *t, struct jit_op *o)
{
    switch (o->form->kind) {
    case JK_FN:
        o->form->fn(t, o);
        break;
    case JK_INTERP:
        jit_interp(t, o);
        break;
    default:
        if (jit_gen_fits(t, o)) {
            jit_gen(t, o);
        } else {
            jit_interp(t, o);
        }
        break;
    }
}

static void tr_emit(struct jit_tr *t, struct jit_view *cross)
{
    struct jit_op *last = &t->op[t->n - 1];
    unsigned group, left;

    t->region->checked = t->b.p;
    tr_exit_stub(t, JX_TOKEN, t->region, tr_check_token(t, t->view));
    t->region->entry = t->b.p;
    t->fl = FL_MEM;
    for (unsigned i = 0; i < t->n; i++) {
        if (cross && i == t->n - 1) {
            tr_check_cross(t, &t->op[i], cross);
        }
        t->cur = &t->op[i];
        left = (cross ? t->n - 1 : t->n) - i;
        group = jit_stack_group(t, t->cur, left);
        group = group ? group : jit_mov_group(t, t->cur, left);
        if (group) {
            i += group - 1;
        } else {
            tr_emit_op(t, t->cur);
        }
    }
    if (!last->form->ends && !(last->form->kind == JK_INTERP && (last->in.flags & SK_IN_END))) {
        jit_flags_kill(t, last->live);
        jit_exit_to(t, NO_CC, last->next & tr_rip_mask(t), false);
    }
    tr_stubs(t);
}

/* The page after the view's, for an instruction that begins at `off` of the first and ends there.
 * Its view, or NULL. Nothing faults. */
static struct jit_view *tr_cross(struct jit_tr *t, unsigned off, uint64_t rip)
{
    struct sk_vcpu *c = t->c;
    struct sk_decode_env env;
    struct sk_xlat x;
    struct jit_page *p;
    uint8_t buf[16], *host;
    unsigned n1 = 4096 - off;
    int len;

    if (!t->code64 || sk_walk_probe(c, t->view->lin + 4096, SK_ACC_EXEC, c->cpl == 3, &x) != 0) {
        return NULL;
    }
    host = sk_phys_ptr(c, x.gpa, false);
    if (!host) {
        return NULL;
    }
    memcpy(buf, t->view->page->copy + off, n1);
    memcpy(buf + n1, host, 15 - n1);
    tr_env(t, &env);
    len = sk_decode(&t->op[t->n].in, buf, 15, &env);
    if (len <= (int)n1) {
        return NULL;
    }
    p = jit_page_get(t->j, x.gpa);
    if (p->lines == 0) {
        sk_tlb_protect(c, p->gpa);
        p->epoch = c->jit.epoch;
    } else if (!jit_page_check(c, p, host)) {
        return NULL;
    }
    if (!(p->lines & 1)) {
        memcpy(p->copy, host, 64);
        p->lines |= 1;
    }
    tr_op(&t->op[t->n++], rip);
    return jit_view_get(c, t->view->lin + 4096, p);
}

/* Fills t->op. Returns the view of the second page if the last instruction needs one. */
static struct jit_view *tr_decode(struct jit_tr *t, uint64_t rip)
{
    struct sk_decode_env env;
    unsigned off = tr_lin(t, rip) & 4095;

    tr_env(t, &env);
    while (t->n < JIT_REGION_MAX) {
        struct jit_op *o = &t->op[t->n];
        int len = sk_decode(&o->in, t->view->page->copy + off, 4096 - off, &env);

        if (len == SK_DEC_SHORT) {
            return tr_cross(t, off, rip);
        }
        if (len < 0 || rip + (unsigned)len - 1 > tr_rip_mask(t)) {
            break;
        }
        t->view->page->lines |= tr_lines(off, (unsigned)len);
        tr_op(o, rip);
        t->n++;
        if (t->j->replay && !jit_replay_twice(t, o)) {
            t->n -= t->n > 1; /* a region of its own */
            break;
        }
        off += (unsigned)len;
        rip = o->next;
        if (o->form->ends || ((o->in.flags & SK_IN_END) && !jit_direct_ok(t, o)) || off == 4096) {
            break;
        }
    }
    return NULL;
}

/* The page's copy, with lines no translation stands on yet brought up to date. */
static struct jit_page *tr_page(struct jit_tr *t, const uint8_t *host, uint64_t gpa)
{
    struct jit_page *p = jit_page_get(t->j, gpa);

    if (p->lines == 0) {
        sk_tlb_protect(t->c, p->gpa);
        p->epoch = t->c->jit.epoch;
    } else if (!jit_page_check(t->c, p, host)) {
        p->epoch = t->c->jit.epoch;
    }
    for (unsigned i = 0; i < 64; i++) {
        if (!(p->lines & BIT64(i))) {
            memcpy(p->copy + 64 * i, host + 64 * i, 64);
        }
    }
    return p;
}

static void tr_room(struct sk_vcpu *c)
{
    struct sk_jit *j = c->jit.jit;
    size_t share = jit_share(c);

    if (j->code_p + JIT_ROOM > j->rw + share || j->data_p + JIT_DATA_ROOM > j->data + share) {
        sk_jit_flush(c);
    }
}

static bool tr_known(const struct sk_vcpu *c, uint64_t lin, uint64_t gpa)
{
    const struct jit_view *v = jit_view_find(c, lin, gpa);

    return v && jit_region_find(c->jit.jit, v, c->r[SK_RIP]);
}

/* Code that the verifier refuses is a mistake of the translator: nothing may run it. */
static void tr_verify(const struct jit_tr *t)
{
    const uint8_t *at;
    const char *why = jit_verify(t->j, t->region->checked, t->b.p, &at);

    if (!why) {
        return;
    }
    fprintf(stderr,
            "softkvm: translation of %" PRIx64 " refused at +%tx: %s\ncode:", t->region->rip,
            at - t->region->checked, why);
    for (const uint8_t *p = t->region->checked; p < t->b.p; p++) {
        fprintf(stderr, p == at ? " *%02x" : " %02x", *p);
    }
    fputc('\n', stderr);
    abort();
}

/* Keeps the instructions for lock-step. */
static void tr_replay(struct jit_tr *t)
{
    struct jit_region *r = t->region;

    r->rec = jit_data(t->j, t->n * sizeof(struct jit_rec *));
    r->n = t->n == 1 && !jit_replay_twice(t, &t->op[0]) ? 0 : t->n;
    for (unsigned i = 0; i < t->n; i++) {
        r->rec[i] = tr_rec(t, &t->op[i]);
    }
}

bool sk_jit_translate(struct sk_vcpu *c)
{
    struct sk_jit *j = c->jit.jit;
    struct jit_tr *t = j->tr;
    uint64_t rip = c->r[SK_RIP], lin = (c->seg[SK_CS].ebase + rip) & c->linmask, gpa;
    struct jit_view *cross;
    const uint8_t *host;

    if (!(c->jit.mode & JM_FIT)) {
        return false;
    }
    if (!t) {
        t = j->tr = calloc(1, sizeof(*t));
        if (!t) {
            return false;
        }
    }
    c->insn_rip = rip;
    host = sk_fetch_ptr(c, lin, &gpa);
    if (!host) {
        return false;
    }
    if (tr_known(c, lin, gpa)) {
        return false; /* what keeps running there is beyond it */
    }
    tr_room(c);
    t->c = c;
    t->j = j;
    t->mode = c->jit.mode;
    t->set = (t->mode >> JM_SET_SHIFT) & 3;
    t->code64 = t->mode & SK_MODE_64;
    t->n = t->nstubs = 0;
    t->vec = t->x87 = false;
    t->b = (struct jit_buf){ .p = j->code_p, .end = j->rw + JIT_CODE_SIZE, .rx = j->rx };
    t->view = jit_view_get(c, lin, tr_page(t, host - (lin & 4095), gpa));
    cross = tr_decode(t, rip);
    if (t->n == 0) {
        return false;
    }
    t->region = jit_data(j, sizeof(*t->region));
    *t->region = (struct jit_region){ .rip = rip, .view = t->view };
    tr_liveness(t);
    tr_emit(t, cross);
    if (j->replay) {
        tr_replay(t);
    }
    if (UNLIKELY(j->verify)) {
        tr_verify(t);
    }
    sk_jit_count(&c->jit.st.translations, 1);
    sk_jit_count(&c->jit.st.instructions, t->n);
    sk_jit_count(&c->jit.st.bytes, (uint64_t)(t->b.p - j->code_p));
    jit_perf_code(j->code_p + j->rx, (size_t)(t->b.p - j->code_p),
                  t->mode & JM_USER ? "guest_user" : "guest_kernel", rip);
    j->code_p = t->b.p;
    jit_region_add(j, t->region);
    return true;
}
