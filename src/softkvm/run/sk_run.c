/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sk_run(): the loop around blocks. Between two blocks: pending exceptions, poll word, special
 * conditions. Faults and exits arrive here by longjmp.
 */
#include "softkvm/jit/jit.h"
#include "softkvm/run/blocks.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/pio.h"
#include "softkvm/x86/seg.h"
#include "softkvm/x86/smm.h"

enum { JB_RAISE = 1, JB_LEAVE = 2 };
enum { SHADOW = SK_SPECIAL_SHADOW_STI | SK_SPECIAL_SHADOW_SS };

static bool run_contributory(uint8_t vec)
{
    return vec == SK_DE || (vec >= SK_TS && vec <= SK_GP);
}

/* A fault while an event was being delivered: SDM 3A table 6-5. False: triple fault. */
static bool run_combine(struct sk_vcpu *c)
{
    uint8_t first = c->deliver_vec, second = c->exc.vec;
    bool first_exc = c->deliver_kind == SK_EV_EXC;

    c->delivering = false;
    if (!first_exc) {
        return true; /* interrupts, NMI and INT n are benign */
    }
    if (first == SK_DF) {
        return !(run_contributory(second) || second == SK_PF);
    }
    if ((run_contributory(first) && run_contributory(second)) ||
        (first == SK_PF && (run_contributory(second) || second == SK_PF))) {
        c->exc = (struct sk_exception){ .vec = SK_DF, .has_err = true };
    }
    return true;
}

/* Puts what an exception reports besides its error code where the guest looks for it. */
static void run_payload(struct sk_vcpu *c)
{
    if (c->exc.applied) {
        return;
    }
    c->exc.applied = true;
    if (c->exc.vec == SK_PF) {
        c->cr2 = c->exc.payload;
    } else if (c->exc.vec == SK_DB) {
        c->dr[6] = (c->dr[6] & ~UINT64_C(0xf)) | c->exc.payload;
        c->dr[7] &= ~UINT64_C(0x2000); /* GD */
    }
}

/* KVM_GUESTDBG: a debug exception the client claims. */
static bool run_debug_exit(struct sk_vcpu *c)
{
    bool bp = c->exc.vec == SK_BP && (c->guest_debug & 0x10000);
    bool db = c->exc.vec == SK_DB && (c->guest_debug & 0x20002);

    if (!bp && !db) {
        return false;
    }
    c->exit.kind = SK_EXIT_DEBUG;
    c->exit.debug.exception = c->exc.vec;
    c->exit.debug.pc = c->seg[SK_CS].ebase + c->insn_rip;
    c->exit.debug.dr6 = c->exc.payload | UINT64_C(0xffff0ff0);
    c->exit.debug.dr7 = c->guest_debug & 0x20000 ? c->guest_dr[7] : c->dr[7];
    return true;
}

/* Handles c->exc. True: leave sk_run(). */
static bool run_exception(struct sk_vcpu *c)
{
    if (c->delivering && !run_combine(c)) {
        c->exc_pending = false;
        c->delivering = false;
        c->exit.kind = SK_EXIT_SHUTDOWN;
        return true;
    }
    c->exc_pending = false;
    if (c->guest_debug && run_debug_exit(c)) {
        return true;
    }
    run_payload(c);
    sk_deliver(c, SK_EV_EXC, c->exc.vec, c->exc.has_err, c->exc.err, c->r[SK_RIP]);
    return false;
}

static void run_init(struct sk_vcpu *c)
{
    sk_vcpu_reset(c, true);
    if (c->vm->ops->init_reset) {
        c->vm->ops->init_reset(c);
    }
    c->mp_state = c->apic_base & 0x100 ? SK_MP_RUNNABLE : SK_MP_INIT_RECEIVED;
}

static void run_sipi(struct sk_vcpu *c)
{
    uint32_t vec = atomic_load_explicit(&c->ev_sipi, memory_order_acquire);

    if (c->mp_state != SK_MP_INIT_RECEIVED) {
        return;
    }
    c->seg[SK_CS].sel = (uint16_t)(vec << 8);
    c->seg[SK_CS].base = (uint64_t)vec << 12;
    c->r[SK_RIP] = 0;
    c->mp_state = SK_MP_RUNNABLE;
    sk_vcpu_changed(c);
}

static void run_event(struct sk_vcpu *c, enum sk_event_kind kind, uint8_t vec)
{
    c->mp_state = SK_MP_RUNNABLE;
    c->insn_rip = c->r[SK_RIP]; /* where a fault of the delivery goes back to */
    sk_blocks_epoch(c);         /* whatever the event announces may have rewritten code */
    sk_deliver(c, kind, vec, false, 0, c->r[SK_RIP]);
}

/* KVM_GUESTDBG_BLOCKIRQ: the client steps and wants no handler in between. */
static bool run_events_blocked(const struct sk_vcpu *c)
{
    return c->guest_debug & 0x100000;
}

/* An SMI that waits, if it can be taken: behind what was begun, and not inside of SMM. */
static bool run_smi(struct sk_vcpu *c)
{
    if (c->in_smm) {
        return false; /* RSM comes back to it */
    }
    if ((c->special & SHADOW) || run_events_blocked(c) || c->nmi_injected ||
        (c->intr_injected && (c->eflags & SK_FL_IF))) {
        sk_poll_set(c, SK_POLL_SMI); /* the next instruction comes back to it */
        return false;
    }
    c->smi_pending = false;
    c->mp_state = SK_MP_RUNNABLE;
    c->insn_rip = c->r[SK_RIP];
    sk_smm_enter(c);
    return true;
}

static bool run_nmi(struct sk_vcpu *c)
{
    if (c->nmi_injected) { /* its delivery was begun before the client took the state */
        c->nmi_injected = false;
    } else if (c->nmi_masked) {
        sk_nmi_merge(c); /* IRET comes back to it */
        return false;
    } else if ((c->special & SHADOW) || run_events_blocked(c)) {
        sk_poll_set(c, SK_POLL_NMI); /* the next instruction comes back to it */
        return false;
    } else if (atomic_load_explicit(&c->ev_nmi, memory_order_acquire) == 0) {
        return false;
    } else {
        atomic_fetch_sub_explicit(&c->ev_nmi, 1, memory_order_acq_rel);
    }
    c->nmi_masked = true;
    run_event(c, SK_EV_NMI, SK_NMI);
    return true;
}

/* An interrupt from the controller, if one can be taken. */
static bool run_intr(struct sk_vcpu *c)
{
    int vec;

    if ((c->special & SHADOW) || run_events_blocked(c)) {
        sk_poll_set(c, SK_POLL_INTR);
        return false;
    }
    if (!(c->eflags & SK_FL_IF)) {
        c->intr_held = true;
        return false; /* what sets IF sets SK_POLL_INTR again */
    }
    if (c->intr_injected) {
        c->intr_injected = false;
        run_event(c, SK_EV_EXT, c->intr_vec);
        return true;
    }
    if (!c->vm->ops->intr_pending || !c->vm->ops->intr_pending(c)) {
        return false;
    }
    vec = c->vm->ops->intr_ack(c);
    if (vec < 0) {
        return false;
    }
    sk_poll_set(c, SK_POLL_INTR); /* there may be more */
    run_event(c, SK_EV_EXT, (uint8_t)vec);
    return true;
}

/* SMI, INIT and SIPI out of the poll word. True: nothing else counts after an INIT. */
static bool run_signals(struct sk_vcpu *c, uint32_t p)
{
    if (p & SK_POLL_SMI) {
        c->smi_pending = true;
    }
    if ((p & SK_POLL_INIT) && c->in_smm) {
        c->init_latched = true; /* and a SIPI finds nobody who waits for one */
    } else if (p & SK_POLL_INIT) {
        run_init(c);
        sk_poll_set(c, p & SK_POLL_SIPI);
        return true;
    }
    if (p & SK_POLL_SIPI) {
        run_sipi(c);
    }
    return false;
}

/* Looks at the poll word. True: leave sk_run(). */
static bool run_poll(struct sk_vcpu *c)
{
    uint32_t p = atomic_exchange_explicit(&c->poll, 0, memory_order_acq_rel);

    if (p & (SK_POLL_WINDOW | SK_POLL_LIMIT)) { /* until who set them takes them back */
        sk_poll_set(c, p & (SK_POLL_WINDOW | SK_POLL_LIMIT));
    }
    if (p & SK_POLL_TLB) {
        sk_tlb_flush_all(c);
    }
    if ((p & SK_POLL_EXIT) || *c->immediate_exit) {
        sk_poll_set(c, p & ~(uint32_t)(SK_POLL_EXIT | SK_POLL_TLB));
        c->exit.kind = SK_EXIT_INTR;
        return true;
    }
    if (run_signals(c, p) || c->mp_state == SK_MP_UNINITIALIZED ||
        c->mp_state == SK_MP_INIT_RECEIVED) {
        return false;
    }
    if (c->smi_pending && run_smi(c)) {
        sk_poll_set(c, p & (SK_POLL_NMI | SK_POLL_INTR));
        return false;
    }
    if ((p & SK_POLL_NMI) && run_nmi(c)) {
        sk_poll_set(c, p & SK_POLL_INTR);
        return false;
    }
    if ((p & SK_POLL_INTR) && run_intr(c)) {
        return false;
    }
    if ((p & SK_POLL_WINDOW) && (c->eflags & SK_FL_IF) && !(c->special & SHADOW) &&
        !c->intr_injected) {
        c->exit.kind = SK_EXIT_IRQ_WINDOW;
        return true;
    }
    return false;
}

static void run_one(struct sk_vcpu *c, const struct sk_insn *in)
{
    c->cur = in;
    c->insn_rip = c->r[SK_RIP];
    c->r[SK_RIP] += in->len;
    in->fn(c, in);
}

/* A block the interpreter has run often goes to the JIT: again for each address it is seen at, and
 * after its translation was dropped. True: it is there now. */
static bool run_promote(struct sk_vcpu *c, struct sk_block *blk)
{
    if (++blk->heat < c->jit.hot || blk->host == NULL) {
        return false; /* host NULL: valid for this once only */
    }
    if (!sk_jit_translate(c)) {
        blk->heat = 0;
        return false;
    }
    blk->heat--;
    return true;
}

static void run_insns(struct sk_vcpu *c, struct sk_block *blk)
{
    const struct sk_insn *in = blk->insn, *end = in + blk->n;

    c->cur_block = blk;
    c->leave = 0;
    c->insn_count += blk->n;
    do {
        run_one(c, in);
    } while (++in < end && LIKELY(!c->leave));
    c->insn_count -= (uint64_t)(end - in);
}

static void run_block(struct sk_vcpu *c)
{
    struct sk_block *blk = sk_blocks_get(c, false);

    if (c->jit.jit) {
        if (UNLIKELY(run_promote(c, blk))) {
            return;
        }
        sk_jit_count(&c->jit.st.blocks, 1);
    }
    run_insns(c, blk);
}

/* Instruction breakpoints of DR0 to DR3 at the next instruction. */
static uint64_t run_insn_bp(const struct sk_vcpu *c, const uint64_t *dr)
{
    uint64_t lin = (c->seg[SK_CS].ebase + c->r[SK_RIP]) & c->linmask, hit = 0;

    for (unsigned i = 0; i < 4; i++) {
        if (((dr[7] >> (2 * i)) & 3) && ((dr[7] >> (16 + 4 * i)) & 3) == 0 && dr[i] == lin) {
            hit |= BIT64(i);
        }
    }
    return hit;
}

static void run_raise_db(struct sk_vcpu *c, uint64_t dr6)
{
    c->db_pending = 0;
    c->special &= ~(uint32_t)SK_SPECIAL_DB;
    if (c->mp_state == SK_MP_HALTED) {
        c->mp_state = SK_MP_RUNNABLE; /* the trap behind HLT ends it */
    }
    c->exc = (struct sk_exception){ .vec = SK_DB, .payload = dr6 };
    c->insn_rip = c->r[SK_RIP];
    c->exc_pending = true;
}

/* One instruction with all that TF, RF, debug registers and shadows ask for. */
static void run_special(struct sk_vcpu *c)
{
    uint32_t sp = c->special;
    uint64_t hit;
    struct sk_block *blk;

    if (sp & SK_SPECIAL_DB) {
        run_raise_db(c, c->db_pending);
        return;
    }
    if ((sp & SK_SPECIAL_DR) && !(sp & SK_SPECIAL_RF) &&
        (!(sp & SK_SPECIAL_SHADOW_SS) || sk_cpuid_amd(c))) { /* AMD's are not held back by MOV SS */
        hit = run_insn_bp(c, sk_debug_regs(c));
        if (hit) {
            run_raise_db(c, hit);
            return;
        }
    }
    blk = sk_blocks_get(c, true);
    c->cur_block = NULL;
    c->leave = 0;
    c->special &= ~(uint32_t)SHADOW;
    c->delivered = false;
    if (!(sp & SK_SPECIAL_SHADOW_SS)) { /* a data breakpoint of MOV SS itself still waits */
        c->db_pending = 0;
    }
    c->insn_count++;
    run_one(c, &blk->insn[0]);
    if ((sp & SK_SPECIAL_RF) && c->cur && !(c->cur->flags & SK_IN_KEEPRF)) {
        c->eflags &= ~(uint32_t)SK_FL_RF;
        c->special &= ~(uint32_t)SK_SPECIAL_RF;
    }
    if (c->special & SK_SPECIAL_SHADOW_SS) {
        return; /* traps wait for the instruction after MOV SS */
    }
    if ((sp & SK_SPECIAL_GUESTDBG_STEP) || ((sp & SK_SPECIAL_TF) && !c->delivered)) {
        c->db_pending |= BIT(14);
    }
    if (c->db_pending) {
        run_raise_db(c, c->db_pending);
    }
}

void sk_settle_events(struct sk_vcpu *c)
{
    uint32_t p = atomic_fetch_and(&c->poll, ~(uint32_t)(SK_POLL_INIT | SK_POLL_SIPI));

    if (run_signals(c, p)) {
        (void)run_signals(c, atomic_fetch_and(&c->poll, ~(uint32_t)SK_POLL_SIPI) & SK_POLL_SIPI);
    }
    if (!c->exc_pending && (c->special & SK_SPECIAL_DB)) {
        run_raise_db(c, c->db_pending);
    }
    if (c->exc_pending) {
        run_payload(c);
    }
}

/* The next queued device write goes to the client, if there is one. */
static bool run_mmio_out(struct sk_vcpu *c)
{
    while (c->mmio_pos < c->mmio_n) {
        struct sk_mmio *m = &c->mmio[c->mmio_pos++];

        if (m->write && !m->done) {
            c->exit.kind = SK_EXIT_MMIO;
            c->exit.mmio = m;
            m->done = true;
            return true;
        }
    }
    c->mmio_n = c->mmio_pos = 0;
    return false;
}

/* An instruction touched device memory and is complete. */
static bool run_mmio_done(struct sk_vcpu *c)
{
    c->mmio_pos = 0;
    c->mmio_draining = run_mmio_out(c);
    return c->mmio_draining;
}

/* Not running: true to leave, false to look again. */
static bool run_halted(struct sk_vcpu *c)
{
    if (c->mp_state == SK_MP_HALTED && (c->eflags & SK_FL_IF) && c->intr_injected) {
        c->mp_state = SK_MP_RUNNABLE;
        sk_poll_set(c, SK_POLL_INTR);
        return false;
    }
    if (!c->vm->ops->halt) {
        c->exit.kind = SK_EXIT_HLT;
        if (c->mp_state == SK_MP_HALTED) {
            c->mp_state = SK_MP_RUNNABLE;
        }
        return true;
    }
    c->vm->ops->halt(c);
    return false;
}

/* What was left over at the last exit. True: there is more to leave for. */
static bool run_resume(struct sk_vcpu *c)
{
    if (c->mmio_draining) {
        if (run_mmio_out(c)) {
            return true;
        }
        c->mmio_draining = false;
    } else if (c->mmio_n > 0) { /* a read: the instruction runs again with the answer */
        c->mmio[c->mmio_n - 1].done = true;
        c->mmio_pos = 0;
    }
    return false;
}

/* An instruction (of REP INS or OUTS: an iteration) that the client has completed is a step, too,
 * and may have met a breakpoint. */
static void run_step_trap(struct sk_vcpu *c)
{
    uint64_t dr6 = c->special & SK_SPECIAL_DR ? c->db_pending & 0xf : 0;

    if (c->special & (SK_SPECIAL_TF | SK_SPECIAL_GUESTDBG_STEP)) {
        dr6 |= BIT(14);
    }
    if (dr6 != 0) {
        run_raise_db(c, dr6);
    }
}

/* RDMSR or WRMSR has been answered by the client. */
static void run_msr_answered(struct sk_vcpu *c)
{
    uint8_t len = c->msr_len;

    c->msr_len = 0;
    c->insn_rip = c->r[SK_RIP];
    if (c->msr.error) {
        sk_gp(c);
    }
    if (!c->msr.write) {
        c->r[SK_RAX] = (uint32_t)c->msr.data;
        c->r[SK_RDX] = c->msr.data >> 32;
    }
    c->r[SK_RIP] += len;
    c->insn_count++;
    run_step_trap(c);
}

static void run_next(struct sk_vcpu *c)
{
    if (UNLIKELY(c->special)) {
        run_special(c);
    } else if (!c->jit.jit || !sk_jit_run(c)) {
        run_block(c);
    } else {
        c->insn_count++; /* unknown, but a limit must be reached */
    }
}

/* The instruction whose read of device memory has been answered, by the interpreter, which looks
 * at the answer. */
static void run_again(struct sk_vcpu *c)
{
    if (UNLIKELY(c->special)) {
        run_special(c);
    } else {
        run_insns(c, sk_blocks_get(c, false));
    }
}

static void run_loop(struct sk_vcpu *c, uint64_t limit)
{
    for (;;) {
        if (UNLIKELY(c->exc_pending) && run_exception(c)) {
            return;
        }
        if (UNLIKELY(atomic_load_explicit(&c->poll, memory_order_relaxed) | *c->immediate_exit) &&
            run_poll(c)) {
            return;
        }
        if (UNLIKELY(c->mp_state != SK_MP_RUNNABLE)) {
            if (run_halted(c)) {
                return;
            }
            continue;
        }
        run_next(c);
        if (UNLIKELY(c->mmio_n) && run_mmio_done(c)) {
            return;
        }
        if (UNLIKELY(c->exit.kind != SK_EXIT_NONE) || UNLIKELY(c->insn_count >= limit)) {
            return;
        }
    }
}

static void run_setjmp(struct sk_vcpu *c)
{
    c->exit.kind = SK_EXIT_NONE;
    sk_blocks_epoch(c);                        /* the client may have written memory */
    if (atomic_load(&c->poll) & SK_POLL_TLB) { /* before what is left over touches memory */
        atomic_fetch_and(&c->poll, ~(uint32_t)SK_POLL_TLB);
        sk_tlb_flush_all(c);
    }
    if (run_resume(c)) {
        return;
    }
    c->guarded = true;
    switch (_setjmp(c->jb)) {
    case JB_RAISE:
        sk_split_unlock(c);
        c->r[SK_RIP] = c->insn_rip;
        c->mmio_n = c->mmio_pos = 0;
        c->exc_pending = true;
        break;
    case JB_LEAVE:
        sk_split_unlock(c);
        c->r[SK_RIP] = c->insn_rip;
        return;
    default:
        if (c->pio_pending && sk_pio_complete(c)) {
            run_step_trap(c);
            if (c->mmio_n > 0 && run_mmio_done(c)) { /* INS to device memory */
                return;
            }
        }
        if (c->msr_len != 0) {
            run_msr_answered(c);
        }
        if (c->mmio_n >
            0) { /* a read was answered: nothing may come before the instruction's end */
            run_again(c);
            if (c->mmio_n > 0 && run_mmio_done(c)) {
                return;
            }
        }
        break;
    }
    run_loop(c, c->insn_limit);
}

void sk_run(struct sk_vcpu *c, uint64_t max_insns)
{
    uint64_t gs = sk_jit_enter(c);

    if (max_insns) {
        sk_poll_set(c, SK_POLL_LIMIT);
    }
    c->insn_limit = max_insns ? c->insn_count + max_insns : ~UINT64_C(0);
    sk_mode_update(c); /* the client may have changed anything */
    run_setjmp(c);
    c->guarded = false;
    atomic_fetch_and_explicit(&c->poll, ~(uint32_t)SK_POLL_LIMIT, memory_order_relaxed);
    sk_jit_leave(c, gs);
}
