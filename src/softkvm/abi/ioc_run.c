/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * KVM_RUN (KVM api.rst 4.10, 5): into the engine, and what made it come back, in kvm_run's terms.
 */
#include <errno.h>
#include <time.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/irqchip/irqchip_int.h"
#include "softkvm/x86/flags.h"

/* The vCPU whose KVM_RUN this thread is in. */
static _Thread_local struct sk_vcpu *volatile running __attribute__((tls_model("initial-exec")));
/* A handler of the client has run during it. */
static _Thread_local volatile bool caught __attribute__((tls_model("initial-exec")));
/* The signal mask outside KVM_RUN, while another one is in force. */
static _Thread_local const sigset_t *volatile outer __attribute__((tls_model("initial-exec")));

bool abi_signal_held(int sig)
{
    const sigset_t *mask = outer;
    return mask != NULL && sigismember(mask, sig) == 1;
}

void abi_signal_caught(void)
{
    struct sk_vcpu *c = running;
    if (c != NULL) {
        caught = true;
        sk_poll_set(c, SK_POLL_EXIT);
    }
}

static uint8_t get_cr8(struct sk_vcpu *c)
{
    return c->lapic != NULL ? sk_lapic_get_cr8(c) : (uint8_t)c->cr8;
}

/* --- register synchronisation (KVM_CAP_SYNC_REGS) --- */

static int sync_in(struct abi_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint64_t dirty = run->kvm_dirty_regs;
    int rc = 0;
    if (((run->kvm_valid_regs | dirty) & ~(uint64_t)KVM_SYNC_X86_VALID_FIELDS) != 0) {
        return -EINVAL;
    }
    if ((dirty & KVM_SYNC_X86_REGS) != 0) {
        struct kvm_regs r = run->s.regs.regs; /* once: the page is shared */
        abi_regs_set(v->c, &r);
    }
    if ((dirty & KVM_SYNC_X86_SREGS) != 0) {
        struct kvm_sregs s = run->s.regs.sregs;
        rc = abi_sregs_set(v, &s);
    }
    if (rc == 0 && (dirty & KVM_SYNC_X86_EVENTS) != 0) {
        struct kvm_vcpu_events e = run->s.regs.events;
        rc = abi_events_set(v->c, &e);
    }
    run->kvm_dirty_regs = 0;
    return rc;
}

static void sync_out(struct abi_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint64_t valid = run->kvm_valid_regs;
    if ((valid & KVM_SYNC_X86_REGS) != 0) {
        struct kvm_regs r;
        abi_regs_get(v->c, &r);
        run->s.regs.regs = r;
    }
    if ((valid & KVM_SYNC_X86_SREGS) != 0) {
        struct kvm_sregs s;
        abi_sregs_get(v->c, &s);
        run->s.regs.sregs = s;
    }
    if ((valid & KVM_SYNC_X86_EVENTS) != 0) {
        struct kvm_vcpu_events e;
        abi_events_get(v->c, &e);
        run->s.regs.events = e;
    }
}

/* --- the way in --- */

/* What the client answered to the last exit. */
static void answer_in(struct abi_vcpu *v)
{
    struct sk_vcpu *c = v->c;
    struct kvm_run *run = v->run;
    if (v->mmio_read && c->exit.kind == SK_EXIT_MMIO && !c->exit.mmio->write) {
        memcpy(c->exit.mmio->data, run->mmio.data, 8);
    } else if (c->exit.kind == SK_EXIT_MSR) {
        c->msr.data = run->msr.data;
        c->msr.error = run->msr.error != 0;
    } else if (c->exit.kind == SK_EXIT_HYPERCALL) {
        c->exit.hypercall.ret = run->hypercall.ret;
    }
    v->mmio_read = false;
}

static void window_in(struct abi_vcpu *v)
{
    struct sk_vcpu *c = v->c;
    if (abi_has_pic(v->vm)) {
        return;
    }
    if (c->lapic == NULL) {
        c->cr8 = v->run->cr8 & 15;
    }
    /* With a split irqchip a window is one only while LINT0 lets the client's PIC through. */
    if (v->run->request_interrupt_window != 0 &&
        (c->lapic == NULL || sk_lapic_takes_pic(c->lapic))) {
        sk_poll_set(c, SK_POLL_WINDOW);
    } else {
        atomic_fetch_and(&c->poll, ~(uint32_t)SK_POLL_WINDOW);
    }
}

/* --- the way out --- */

static void put_io(struct kvm_run *run, const struct sk_vcpu *c)
{
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = c->exit.io.in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
    run->io.size = c->exit.io.size;
    run->io.port = c->exit.io.port;
    run->io.count = c->exit.io.count;
    run->io.data_offset = ABI_PAGE;
}

static void put_mmio(struct abi_vcpu *v)
{
    struct kvm_run *run = v->run;
    const struct sk_mmio *m = v->c->exit.mmio;
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = m->gpa;
    run->mmio.len = m->len;
    run->mmio.is_write = m->write;
    if (m->write) {
        memcpy(run->mmio.data, m->data, sizeof(m->data));
    } else {
        memset(run->mmio.data, 0, sizeof(run->mmio.data));
        v->mmio_read = true;
    }
}

static void put_msr(struct kvm_run *run, const struct sk_vcpu *c)
{
    run->exit_reason = c->msr.write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
    run->msr.error = 0;
    memset(run->msr.pad, 0, sizeof(run->msr.pad));
    run->msr.reason = c->msr.reason;
    run->msr.index = c->msr.index;
    run->msr.data = c->msr.write ? c->msr.data : 0;
}

static void put_internal(struct kvm_run *run, const struct sk_vcpu *c)
{
    run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run->emulation_failure.suberror = c->exit.internal.suberror;
    run->emulation_failure.ndata = 3;
    run->emulation_failure.flags =
        c->exit.internal.insn_len != 0 ? KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES : 0;
    run->emulation_failure.insn_size = c->exit.internal.insn_len;
    memcpy(run->emulation_failure.insn_bytes, c->exit.internal.insn, sizeof(c->exit.internal.insn));
}

static bool ring_full(const struct abi_vcpu *v)
{
    uint32_t entries = v->vm->dirty_ring_size / (uint32_t)sizeof(struct kvm_dirty_gfn);
    return v->dirty_gfn != NULL &&
           atomic_load_explicit(&v->dirty_head, memory_order_relaxed) -
                   atomic_load_explicit(&v->dirty_reset, memory_order_relaxed) >=
               entries - 64;
}

/* SK_POLL_EXIT, immediate_exit or a caught signal. */
static int put_intr(struct abi_vcpu *v)
{
    int vector = sk_lapic_take_eoi_exit(v->c);
    if (vector >= 0) {
        v->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
        v->run->eoi.vector = (uint8_t)vector;
        return 0;
    }
    if (ring_full(v)) {
        v->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
        return 0;
    }
    v->run->exit_reason = KVM_EXIT_INTR;
    return -EINTR;
}

static int put_exit(struct abi_vcpu *v)
{
    struct kvm_run *run = v->run;
    struct sk_vcpu *c = v->c;
    switch (c->exit.kind) {
    case SK_EXIT_IO:
        put_io(run, c);
        return 0;
    case SK_EXIT_MMIO:
        put_mmio(v);
        return 0;
    case SK_EXIT_HLT:
        run->exit_reason = KVM_EXIT_HLT;
        return 0;
    case SK_EXIT_BAD_MEMORY:
        return -EFAULT;
    case SK_EXIT_SHUTDOWN:
        run->exit_reason = KVM_EXIT_SHUTDOWN;
        return 0;
    case SK_EXIT_IRQ_WINDOW:
        run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
        return 0;
    case SK_EXIT_DEBUG:
        run->exit_reason = KVM_EXIT_DEBUG;
        run->debug.arch = (struct kvm_debug_exit_arch){ .exception = c->exit.debug.exception,
                                                        .pc = c->exit.debug.pc,
                                                        .dr6 = c->exit.debug.dr6,
                                                        .dr7 = c->exit.debug.dr7 };
        return 0;
    case SK_EXIT_MSR:
        put_msr(run, c);
        return 0;
    case SK_EXIT_INTERNAL_ERROR:
        put_internal(run, c);
        return 0;
    case SK_EXIT_SET_TPR:
        run->exit_reason = KVM_EXIT_SET_TPR;
        return 0;
    default:
        return put_intr(v);
    }
}

static void put_common(struct abi_vcpu *v)
{
    struct kvm_run *run = v->run;
    struct sk_vcpu *c = v->c;
    bool open = (c->eflags & SK_FL_IF) != 0 && !c->intr_injected && !c->exc_pending &&
                (c->special & (SK_SPECIAL_SHADOW_STI | SK_SPECIAL_SHADOW_SS)) == 0;
    run->if_flag = (c->eflags & SK_FL_IF) != 0;
    run->cr8 = get_cr8(c);
    run->apic_base = c->apic_base;
    run->ready_for_interrupt_injection =
        abi_has_pic(v->vm) || (open && (c->lapic == NULL || sk_lapic_takes_pic(c->lapic)));
    run->flags = c->in_smm ? KVM_RUN_X86_SMM : 0;
    sync_out(v);
}

static int run_engine(struct abi_vcpu *v)
{
    struct sk_vcpu *c = v->c;
    window_in(v);
    answer_in(v);
    if (atomic_exchange_explicit(&v->clock_stale, false, memory_order_acquire)) {
        pv_clock_refresh(c, &v->vm->clock, &v->clock);
    }
    pv_steal_refresh(c, &v->clock);
    if (ring_full(v)) {
        v->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
        return 0;
    }
    bool at_once = v->run->immediate_exit != 0;
    uint32_t reason = v->run->exit_reason;
    v->run->exit_reason = KVM_EXIT_UNKNOWN;
    atomic_store_explicit(&v->in_run, true, memory_order_seq_cst);
    sk_run(c, 0);
    atomic_store_explicit(&v->in_run, false, memory_order_release);
    int rc = put_exit(v);
    if (rc == -EINTR && at_once) {
        v->run->exit_reason = reason; /* KVM_RUN only completed what was pending (5): no new exit */
    }
    return rc;
}

static int run_masked(struct abi_vcpu *v)
{
    if (!v->sigmask_set) {
        return run_engine(v);
    }
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    outer = &mask;
    pthread_sigmask(SIG_SETMASK, &v->sigmask, NULL); /* what was waiting comes in here */
    int rc = run_engine(v);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    outer = NULL;
    return rc;
}

static void run_end(struct abi_vcpu *v, int rc)
{
    running = NULL;
    if (caught && rc == 0 && !sk_lapic_has_eoi_exit(v->c)) {
        /* The client is back for another reason; the signal does not end its next KVM_RUN too. */
        atomic_fetch_and(&v->c->poll, ~(uint32_t)SK_POLL_EXIT);
    }
    put_common(v);
}

/* The thread was cancelled within KVM_RUN: the vCPU must not stay locked for ever. */
static void run_cancelled(void *opaque)
{
    struct abi_vcpu *v = opaque;
    running = NULL;
    outer = NULL;
    atomic_store_explicit(&v->in_run, false, memory_order_release);
    pthread_mutex_unlock(&v->lock);
    abi_obj_unref(&v->obj); /* softkvm_ioctl()'s */
}

int abi_run(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    if (user != 0) {
        return -EINVAL;
    }
    pthread_mutex_lock(&v->lock);
    v->ran = true;
    int rc = sync_in(v);
    if (rc == 0) {
        caught = false;
        running = v->c; /* before the mask: a signal that was waiting is caught right there */
        pthread_cleanup_push(run_cancelled, v);
        rc = run_masked(v);
        pthread_cleanup_pop(0);
        run_end(v, rc);
    }
    pthread_mutex_unlock(&v->lock);
    return rc;
}

int abi_set_signal_mask(struct abi_obj *obj, void *arg, unsigned long user)
{
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    const struct kvm_signal_mask *m = arg;
    uint64_t bits;
    if (user == 0) {
        v->sigmask_set = false;
        return 0;
    }
    if (m->len != sizeof(bits)) {
        return -EINVAL;
    }
    if (abi_copy_in(&bits, (const char *)user + sizeof(*m), sizeof(bits)) < 0) {
        return -EFAULT;
    }
    sigemptyset(&v->sigmask);
    for (int sig = 1; sig <= 64; sig++) {
        if ((bits & BIT64(sig - 1)) != 0 && sig != SIGKILL && sig != SIGSTOP) {
            (void)sigaddset(&v->sigmask, sig); /* glibc keeps 32 and 33 for itself */
        }
    }
    v->sigmask_set = true;
    return 0;
}
