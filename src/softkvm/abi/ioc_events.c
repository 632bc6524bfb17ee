/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events by ioctl: interrupts, NMI, exceptions, mp_state, debug registers, guest debugging
 * (KVM api.rst 4.16, 4.31, 4.32, 4.33, 4.34, 4.38, 4.64, 4.87).
 */
#include <errno.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/x86/fault.h"

enum { SHADOW = SK_SPECIAL_SHADOW_STI | SK_SPECIAL_SHADOW_SS };

int abi_interrupt(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    const struct kvm_interrupt *i = arg;
    if (i->irq > 255) {
        return -EINVAL;
    }
    if (abi_has_pic(v->vm)) {
        return -ENXIO;
    }
    if (v->c->intr_injected) {
        return -EEXIST;
    }
    v->c->intr_injected = true;
    v->c->intr_soft = false;
    v->c->intr_vec = (uint8_t)i->irq;
    sk_poll_set(v->c, SK_POLL_INTR);
    return 0;
}

int abi_nmi(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    sk_nmi_post(ABI_VCPU_OF(obj)->c);
    return 0;
}

int abi_smi(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    sk_poll_set(ABI_VCPU_OF(obj)->c, SK_POLL_SMI);
    return 0;
}

/* --- KVM_GET/SET_VCPU_EVENTS --- */

static bool vector_has_error(uint8_t vec)
{
    return vec == SK_DF || (vec >= SK_TS && vec <= SK_PF) || vec == SK_AC;
}

void abi_events_get(struct sk_vcpu *c, struct kvm_vcpu_events *e)
{
    memset(e, 0, sizeof(*e));
    sk_settle_events(c);
    /* A pending exception is shown as injected: it has been decided, only not delivered. */
    e->exception.injected = c->exc_pending;
    e->exception.nr = c->exc.vec;
    e->exception.has_error_code = c->exc.has_err;
    e->exception.error_code = c->exc.err;
    if (!c->exc_pending) {
        memset(&e->exception, 0, sizeof(e->exception));
    }
    e->interrupt.injected = c->intr_injected;
    e->interrupt.nr = c->intr_injected ? c->intr_vec : 0;
    e->interrupt.soft = c->intr_injected && c->intr_soft;
    e->interrupt.shadow =
        (uint8_t)(((c->special & SK_SPECIAL_SHADOW_STI) != 0 ? KVM_X86_SHADOW_INT_STI : 0) |
                  ((c->special & SK_SPECIAL_SHADOW_SS) != 0 ? KVM_X86_SHADOW_INT_MOV_SS : 0));
    e->nmi.injected = c->nmi_injected;
    e->nmi.pending = atomic_load_explicit(&c->ev_nmi, memory_order_relaxed) != 0;
    e->nmi.masked = c->nmi_masked;
    e->sipi_vector = atomic_load_explicit(&c->ev_sipi, memory_order_relaxed);
    e->smi.smm = c->in_smm;
    e->smi.pending =
        c->smi_pending || (atomic_load_explicit(&c->poll, memory_order_relaxed) & SK_POLL_SMI) != 0;
    e->smi.smm_inside_nmi = c->smm_inside_nmi;
    e->smi.latched_init = c->init_latched;
    e->flags =
        KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
    if (c->lapic != NULL) {
        e->flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR;
    }
}

static void smi_set(struct sk_vcpu *c, const struct kvm_vcpu_events *e)
{
    bool smm = e->smi.smm != 0;
    if (smm != c->in_smm) {
        c->in_smm = smm;
        sk_vcpu_changed(c); /* the other address space */
    }
    c->smm_inside_nmi = smm && e->smi.smm_inside_nmi != 0;
    c->smi_pending = e->smi.pending != 0;
    atomic_fetch_and(&c->poll, ~(uint32_t)SK_POLL_SMI);
    if (c->smi_pending) {
        sk_poll_set(c, SK_POLL_SMI);
    }
    if (c->lapic != NULL) {
        atomic_fetch_and(&c->poll, ~(uint32_t)SK_POLL_INIT);
        c->init_latched = smm && e->smi.latched_init != 0;
        if (!smm && e->smi.latched_init != 0) {
            sk_poll_set(c, SK_POLL_INIT);
        }
    }
}

int abi_events_set(struct sk_vcpu *c, const struct kvm_vcpu_events *e)
{
    const uint32_t known = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                           KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |
                           KVM_VCPUEVENT_VALID_PAYLOAD;
    bool exception = e->exception.injected != 0 ||
                     ((e->flags & KVM_VCPUEVENT_VALID_PAYLOAD) != 0 && e->exception.pending != 0);
    if ((e->flags & ~known) != 0 ||
        (exception && (e->exception.nr > 31 || e->exception.nr == SK_NMI)) ||
        /* INIT waits for the end of SMM, so nobody is in SMM behind one. */
        ((e->flags & KVM_VCPUEVENT_VALID_SMM) != 0 && (e->smi.smm != 0 || e->smi.pending != 0) &&
         c->mp_state == SK_MP_INIT_RECEIVED)) {
        return -EINVAL;
    }
    c->exc_pending = exception;
    if (exception) {
        c->exc = (struct sk_exception){
            .vec = e->exception.nr,
            .has_err = e->exception.has_error_code != 0 && vector_has_error(e->exception.nr),
            .err = e->exception.error_code,
            /* CR2 and DR6 are set by their own ioctls unless a payload is given. */
            .payload = e->exception_payload,
            .applied = e->exception_has_payload == 0,
        };
    }
    c->intr_injected = e->interrupt.injected != 0;
    c->intr_vec = e->interrupt.nr;
    c->intr_soft = e->interrupt.soft != 0;
    if (c->intr_injected) {
        sk_poll_set(c, SK_POLL_INTR);
    }
    if ((e->flags & KVM_VCPUEVENT_VALID_SHADOW) != 0) {
        c->special &= ~(uint32_t)SHADOW;
        c->special |=
            (e->interrupt.shadow & KVM_X86_SHADOW_INT_STI) != 0 ? SK_SPECIAL_SHADOW_STI : 0u;
        c->special |= (e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS) != 0
                          ? (unsigned)SK_SPECIAL_SHADOW_SS
                          : 0u;
    }
    c->nmi_injected = e->nmi.injected != 0;
    c->nmi_masked = e->nmi.masked != 0;
    if ((e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) != 0) {
        atomic_store_explicit(&c->ev_nmi, e->nmi.pending != 0 ? 1 : 0, memory_order_relaxed);
    }
    sk_poll_set(c, SK_POLL_NMI); /* it may no longer be masked */
    if ((e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR) != 0 && c->lapic != NULL) {
        atomic_store_explicit(&c->ev_sipi, e->sipi_vector, memory_order_relaxed);
    }
    if ((e->flags & KVM_VCPUEVENT_VALID_SMM) != 0) {
        smi_set(c, e);
    }
    return 0;
}

int abi_get_vcpu_events(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    abi_events_get(ABI_VCPU_OF(obj)->c, arg);
    return 0;
}

int abi_set_vcpu_events(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    return abi_events_set(ABI_VCPU_OF(obj)->c, arg);
}

/* --- mp_state --- */

static const uint8_t mp_to_kvm[] = {
    [SK_MP_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
    [SK_MP_UNINITIALIZED] = KVM_MP_STATE_UNINITIALIZED,
    [SK_MP_INIT_RECEIVED] = KVM_MP_STATE_INIT_RECEIVED,
    [SK_MP_HALTED] = KVM_MP_STATE_HALTED,
    [SK_MP_SIPI_RECEIVED] = KVM_MP_STATE_SIPI_RECEIVED,
};

int abi_get_mp_state(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    sk_settle_events(ABI_VCPU_OF(obj)->c);
    ((struct kvm_mp_state *)arg)->mp_state = mp_to_kvm[ABI_VCPU_OF(obj)->c->mp_state];
    return 0;
}

int abi_set_mp_state(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    const struct kvm_mp_state *m = arg;
    if (c->lapic == NULL && m->mp_state != KVM_MP_STATE_RUNNABLE) {
        return -EINVAL;
    }
    sk_settle_events(c);
    if ((c->in_smm || c->smi_pending) &&
        (m->mp_state == KVM_MP_STATE_INIT_RECEIVED || m->mp_state == KVM_MP_STATE_SIPI_RECEIVED)) {
        return -EINVAL; /* SMM holds INIT and SIPI back */
    }
    for (unsigned i = 0; i < ARRAY_LEN(mp_to_kvm); i++) {
        if (mp_to_kvm[i] != m->mp_state) {
            continue;
        }
        if (i == SK_MP_SIPI_RECEIVED) {
            c->mp_state = SK_MP_INIT_RECEIVED;
            sk_poll_set(c, SK_POLL_SIPI);
        } else {
            c->mp_state = (enum sk_mp_state)i;
        }
        return 0;
    }
    return -EINVAL;
}

/* --- debug registers and guest debugging --- */

int abi_get_debugregs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    const struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    struct kvm_debugregs *d = arg;
    memset(d, 0, sizeof(*d));
    memcpy(d->db, c->dr, sizeof(d->db));
    d->dr6 = c->dr[6];
    d->dr7 = c->dr[7];
    return 0;
}

int abi_set_debugregs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    const struct kvm_debugregs *d = arg;
    if (d->flags != 0 || (d->dr6 >> 32) != 0 || (d->dr7 >> 32) != 0) {
        return -EINVAL;
    }
    memcpy(c->dr, d->db, sizeof(d->db));
    c->dr[6] = d->dr6 | UINT64_C(0xffff0ff0);
    c->dr[7] = d->dr7 | UINT64_C(0x400);
    sk_vcpu_changed(c);
    return 0;
}

int abi_set_guest_debug(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    const struct kvm_guest_debug *d = arg;
    if ((d->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) != 0) {
        if (c->exc_pending) {
            return -EBUSY;
        }
        c->exc = (struct sk_exception){ .vec = (d->control & KVM_GUESTDBG_INJECT_DB) != 0 ? SK_DB
                                                                                          : SK_BP,
                                        .applied = true };
        c->exc_pending = true;
    }
    c->guest_debug = (d->control & KVM_GUESTDBG_ENABLE) != 0 ? d->control : 0;
    memset(c->guest_dr, 0, sizeof(c->guest_dr));
    if ((c->guest_debug & KVM_GUESTDBG_USE_HW_BP) != 0) {
        memcpy(c->guest_dr, d->arch.debugreg, sizeof(c->guest_dr));
    }
    sk_vcpu_changed(c);
    return 0;
}
