/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The translator's working state and its parts.
 *
 * Flags. Where the guest's arithmetic flags are while a region runs is known at each point of the
 * translation: in EFLAGS, in c->af, or in both (`fl`). Between regions they are in c->af, or
 * nobody will read them. A check of an access destroys EFLAGS, so what is alive is saved before.
 */
#ifndef SOFTKVM_JIT_JIT_TR_H
#define SOFTKVM_JIT_JIT_TR_H

#include "softkvm/jit/jit_int.h"
#include "softkvm/x86/fault.h"
#include "softkvm/x86/flags.h"

enum jit_fl { FL_MEM = 1, FL_HOST = 2, FL_BOTH = 3 };

struct jit_tr;
struct jit_op;

/* How a form is translated. */
enum jit_kind {
    JK_INTERP, /* by the interpreter's body */
    JK_GEN,    /* the host's instruction, operands renamed (jit_gen.c) */
    JK_VEC,    /* the same with vector registers */
    JK_X87,
    JK_FN /* a template of its own */
};

/* What an instruction does to its first operand (and second, if it is written too). */
enum jit_access { JA_R = 1, JA_W = 2, JA_RW = 3, JA_2W = 4 };

typedef void jit_template(struct jit_tr *t, struct jit_op *o);

struct jit_form {
    uint8_t kind;
    uint8_t access;
    bool ends;        /* the region stops behind it */
    jit_template *fn; /* JK_FN */
};

struct jit_op {
    struct sk_insn in;
    const struct sk_row *row;
    const struct jit_form *form;
    uint64_t rip, next;
    uint16_t reads, must, may; /* flags read; written in any case; perhaps written */
    uint16_t live;             /* flags somebody may read after it */
    uint16_t exit_live;        /* conditional jump: the same of its target alone */
    struct jit_rec *rec;
};

enum jit_stubkind {
    JS_INTERP,     /* the interpreter does it, then on at `resume` */
    JS_INTERP_END, /* the same, then out */
    JS_EXIT,       /* jump to th_exit[why] with T0 = arg */
    JS_VEC,        /* load vector state, then on */
    JS_X87,
    JS_EACH,      /* a group: its instructions one by one, then on */
    JS_TRAMPOLINE /* saves the flags, then the link `arg` */
};

#define JIT_STUBS 512
#define JIT_SITES 8

struct jit_stub {
    enum jit_stubkind kind;
    struct jit_op *op;
    void *arg;
    unsigned why;
    unsigned n; /* JS_EACH: instructions from `op` on */
    uint8_t *site[JIT_SITES];
    unsigned sites;
    uint8_t *resume;
    bool fl_host, vec, x87; /* what the code at `resume` counts on */
};

struct jit_tr {
    struct sk_vcpu *c;
    struct sk_jit *j;
    struct jit_buf b;
    struct jit_view *view;
    struct jit_region *region;
    uint32_t mode;
    unsigned set;
    bool code64;
    enum jit_fl fl;
    bool vec, x87; /* guest's state is in the registers here */
    struct jit_op *cur;
    unsigned n, nstubs;
    struct jit_op op[JIT_REGION_MAX];
    struct jit_stub stub[JIT_STUBS];
};

/* --- jit_form.c --- */

const struct jit_form *jit_form(unsigned row);
/* Fills reads, must, may. */
void jit_flags_of(struct jit_op *o);
uint16_t jit_cond_flags(unsigned cc);

/* --- jit_mem.c --- */

static inline bool jit_is_slot(unsigned guest)
{
    return guest >= 9 && guest <= 11;
}

/* Host register of a guest register that has one. */
static inline unsigned jit_host(unsigned guest)
{
    return guest == SK_RSP ? H_GSP : guest;
}

void jit_flags_save(struct jit_tr *t);
void jit_flags_load(struct jit_tr *t);
/* Before code that destroys EFLAGS: saves them if any of `need` counts. */
void jit_flags_kill(struct jit_tr *t, uint16_t need);
/* Before the instruction itself: has them in EFLAGS if it reads some or leaves live ones alone. */
void jit_flags_ready(struct jit_tr *t, const struct jit_op *o);
void jit_flags_done(struct jit_tr *t, const struct jit_op *o);
/* Alive before the instruction. */
static inline uint16_t jit_live_before(const struct jit_op *o)
{
    return (uint16_t)(o->reads | (o->live & ~o->must));
}

/* T1 = linear address of the memory operand. `stub` collects the jumps of failed checks. */
void jit_ea(struct jit_tr *t, struct jit_op *o, unsigned size, bool write, struct jit_stub *stub);
/* From T1 to a host operand: checks and translates; uses T0, T1. */
struct jit_rm jit_tlb(struct jit_tr *t, unsigned size, bool write, unsigned align,
                      struct jit_stub *stub);
/* Both; flags are saved before, as needed. */
struct jit_rm jit_mem(struct jit_tr *t, struct jit_op *o, unsigned size, bool write, unsigned align,
                      struct jit_stub *stub);
/* T1 = offset part of the operand, cut to `size` 4 or 8 (LEA); or straight to `to`. */
void jit_offset(struct jit_tr *t, const struct jit_op *o, unsigned to);

/* --- jit_translate.c --- */

struct jit_stub *jit_stub(struct jit_tr *t, enum jit_stubkind kind, struct jit_op *o);
void jit_stub_site(struct jit_stub *s, uint8_t *site);
/* The stub's way back is here, with the state that holds here. */
void jit_stub_resume(struct jit_tr *t, struct jit_stub *s);
/* Jump (cc < 16: conditional) to an instruction address; made a link. With `save` the flags are
 * saved on the way, and only there. */
void jit_exit_to(struct jit_tr *t, unsigned cc, uint64_t rip, bool save);
/* Looks at the poll word and at the client's immediate_exit; to the stub if one is set. */
void jit_poll(struct jit_tr *t, unsigned tmp, struct jit_stub *s);
/* The interpreter does it; then on, or out. */
void jit_interp(struct jit_tr *t, struct jit_op *o);
/* Address of the target of a direct jump, cut to the operand size. */
uint64_t jit_target(const struct jit_tr *t, const struct jit_op *o);
/* No limit or canonical check of a direct jump's target can fail. */
bool jit_direct_ok(const struct jit_tr *t, const struct jit_op *o);
void jit_need_vec(struct jit_tr *t, struct jit_op *o);
void jit_need_x87(struct jit_tr *t, struct jit_op *o);

/* --- jit_replay.c --- */

/* The instruction can be run twice: nothing but registers and memory changes. */
bool jit_replay_twice(const struct jit_tr *t, const struct jit_op *o);

/* --- jit_gen.c --- */

void jit_gen(struct jit_tr *t, struct jit_op *o);
bool jit_gen_fits(const struct jit_tr *t, const struct jit_op *o);

/* Pushes or pops in a row, from `o` on, at most `max`: their number, and the code for them under
 * one check. 0: `o` does not begin a group. */
unsigned jit_stack_group(struct jit_tr *t, struct jit_op *o, unsigned max);
/* The same of MOVs between registers and memory at one base register (jit_group.c). */
unsigned jit_mov_group(struct jit_tr *t, struct jit_op *o, unsigned max);

/* --- templates: jit_ctl.c, jit_int.c --- */

jit_template jit_t_jcc, jit_t_jmp, jit_t_call, jit_t_jmp_e, jit_t_call_e, jit_t_ret, jit_t_loop;
jit_template jit_t_push, jit_t_push_i, jit_t_push_e, jit_t_pop, jit_t_leave;
jit_template jit_t_lea, jit_t_nop, jit_t_xchg_z, jit_t_moffs, jit_t_div, jit_t_cwd, jit_t_fence,
    jit_t_vzeroupper, jit_t_emms;
jit_template jit_t_sti, jit_t_cli, jit_t_pushf, jit_t_swapgs, jit_t_rdtsc; /* jit_sys.c */

#endif
