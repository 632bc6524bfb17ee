/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The other ioctls of a vCPU: CPUID, local APIC state, machine checks, translation.
 */
#include <errno.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/mem.h"

/* --- CPUID --- */

/* The table is the one the vCPU has, but for what follows its state. */
static bool cpuid_same(const struct sk_vcpu *c, const struct sk_cpuid_entry *e, unsigned n)
{
    bool same = n == c->cpuid_n;
    for (unsigned i = 0; same && i < n; i++) {
        struct sk_cpuid_entry a = e[i];
        struct sk_cpuid_entry b = c->cpuid[i];
        sk_cpuid_runtime(c, &a);
        sk_cpuid_runtime(c, &b);
        same = memcmp(&a, &b, sizeof(a)) == 0;
    }
    return same;
}

/* After the guest has run its CPUID is fixed; setting the same again is fine (4.20). */
static int cpuid_apply(struct abi_vcpu *v, const struct sk_cpuid_entry *e, unsigned n)
{
    struct sk_vcpu *c = v->c;
    if (v->ran) {
        return cpuid_same(c, e, n) ? 0 : -EINVAL;
    }
    int rc = sk_cpuid_set(c, e, n);
    if (rc == 0) {
        sk_vcpu_changed(c);
    }
    return rc;
}

int abi_set_cpuid2(struct abi_obj *obj, void *arg, unsigned long user)
{
    const struct kvm_cpuid2 *head = arg;
    struct sk_cpuid_entry e[ABI_MAX_CPUID];
    if (head->nent > ABI_MAX_CPUID) {
        return -E2BIG;
    }
    if (abi_copy_in(e, (const char *)user + sizeof(*head), head->nent * sizeof(*e)) < 0) {
        return -EFAULT;
    }
    return cpuid_apply(ABI_VCPU_OF(obj), e, head->nent);
}

int abi_set_cpuid(struct abi_obj *obj, void *arg, unsigned long user)
{
    const struct kvm_cpuid *head = arg;
    struct kvm_cpuid_entry old[ABI_MAX_CPUID];
    struct sk_cpuid_entry e[ABI_MAX_CPUID];
    if (head->nent > ABI_MAX_CPUID) {
        return -E2BIG;
    }
    if (abi_copy_in(old, (const char *)user + sizeof(*head), head->nent * sizeof(*old)) < 0) {
        return -EFAULT;
    }
    for (unsigned i = 0; i < head->nent; i++) {
        e[i] = (struct sk_cpuid_entry){ .function = old[i].function,
                                        .eax = old[i].eax,
                                        .ebx = old[i].ebx,
                                        .ecx = old[i].ecx,
                                        .edx = old[i].edx };
    }
    return cpuid_apply(ABI_VCPU_OF(obj), e, head->nent);
}

int abi_get_cpuid2(struct abi_obj *obj, void *arg, unsigned long user)
{
    const struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    struct kvm_cpuid2 *head = arg;
    if (head->nent < c->cpuid_n) {
        head->nent = c->cpuid_n;
        (void)abi_copy_out((void *)user, head, sizeof(*head));
        return -E2BIG;
    }
    head->nent = c->cpuid_n;
    struct sk_cpuid_entry e[ABI_MAX_CPUID];
    for (unsigned i = 0; i < c->cpuid_n; i++) {
        e[i] = c->cpuid[i];
        sk_cpuid_runtime(c, &e[i]);
    }
    return abi_copy_out((char *)user + sizeof(*head), e, c->cpuid_n * sizeof(*e));
}

/* --- local APIC --- */

int abi_get_lapic(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    if (c->lapic == NULL) {
        return -EINVAL;
    }
    sk_lapic_get_state(c, arg);
    return 0;
}

int abi_set_lapic(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    return c->lapic == NULL ? -EINVAL : sk_lapic_set_state(c, arg);
}

/* Reporting of TPR accesses and the VAPIC page serve 32-bit Windows on VT-x without TPR shadow.
 * Accepted, as KVM does; accesses are cheap here, so none is reported. */
int abi_tpr_access_reporting(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)user;
    const struct kvm_tpr_access_ctl *t = arg;
    return t->flags != 0 ? -EINVAL : 0;
}

int abi_set_vapic_addr(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    return ABI_VCPU_OF(obj)->c->lapic == NULL ? -EINVAL : 0;
}

/* --- machine checks --- */

int abi_setup_mce(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    uint64_t cap = *(uint64_t *)arg;
    unsigned banks = cap & 0xff;
    if (banks == 0 || banks > 32 || (cap & ~(uint64_t)(BIT64(24) | BIT64(8) | 0xff)) != 0) {
        return -EINVAL;
    }
    c->mcg_cap = cap;
    c->mcg_ctl = (cap & BIT64(8)) != 0 ? ~UINT64_C(0) : 0;
    for (unsigned i = 0; i < banks; i++) {
        c->mc_bank[i][0] = ~UINT64_C(0);
    }
    return 0;
}

int abi_set_mce(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    const struct kvm_x86_mce *m = arg;
    const uint64_t valid = BIT64(63);
    const uint64_t uncorrected = BIT64(61);
    const uint64_t overflow = BIT64(62);
    if (m->bank >= (c->mcg_cap & 0xff) || (m->status & valid) == 0) {
        return -EINVAL;
    }
    uint64_t *bank = c->mc_bank[m->bank];
    if ((m->status & uncorrected) != 0) {
        if ((c->mcg_status & BIT64(2)) != 0 || (c->cr4 & BIT64(6)) == 0) {
            c->mp_state = SK_MP_RUNNABLE;
            c->exc = (struct sk_exception){ .vec = 8, .has_err = true }; /* no way to report it */
            c->exc_pending = true;
            return 0;
        }
        c->mcg_status = m->mcg_status;
        c->exc = (struct sk_exception){ .vec = 18 };
        c->exc_pending = true;
    } else if ((bank[1] & valid) != 0 && (bank[1] & uncorrected) != 0) {
        bank[1] |= overflow;
        return 0;
    }
    bank[2] = m->addr;
    bank[3] = m->misc;
    bank[1] = m->status | ((bank[1] & valid) != 0 ? overflow : 0);
    return 0;
}

/* --- the rest --- */

int abi_translate(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct kvm_translation *t = arg;
    struct sk_xlat x = { .gpa = 0 };
    uint32_t fault = sk_walk_probe(ABI_VCPU_OF(obj)->c, t->linear_address, 0, false, &x);
    t->valid = fault == 0;
    t->physical_address = fault == 0 ? x.gpa : ~UINT64_C(0);
    t->writeable = 1;
    t->usermode = 0;
    return 0;
}

int abi_kvmclock_ctrl(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    if ((v->clock.system_time_msr & 1) == 0) {
        return -EINVAL;
    }
    v->clock.guest_stopped = true;
    atomic_store_explicit(&v->clock_stale, true, memory_order_release);
    return 0;
}

int abi_enable_cap_vcpu(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    const struct kvm_enable_cap *cap = arg;
    if (cap->flags != 0 || cap->cap != KVM_CAP_ENFORCE_PV_FEATURE_CPUID) {
        return -EINVAL;
    }
    ABI_VCPU_OF(obj)->clock.enforce = cap->args[0] != 0;
    return 0;
}
