/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ioctls of a VM descriptor other than memory and eventfds.
 */
#include <errno.h>
#include <stdlib.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/x86/tsc.h"

int abi_create_vcpu(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    return abi_vcpu_create(ABI_VM_OF(obj), user);
}

/* Intel's real-mode TSS and identity map: pages that VT-x needs and we do not. Checked and kept by
 * nobody. */
int abi_set_tss_addr(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)arg;
    return user > UINT64_C(0xffffffff) - 3 * ABI_PAGE ? -EINVAL : 0;
}

int abi_set_identity_map_addr(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    return ABI_VM_OF(obj)->nvcpus != 0 ? -EINVAL : 0;
}

int abi_set_nr_mmu_pages(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)arg;
    return user < 64 ? -EINVAL : 0; /* KVM_MIN_ALLOC_MMU_PAGES; we have no shadow pages */
}

int abi_set_boot_cpu_id(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct abi_vm *vm = ABI_VM_OF(obj);
    if (user >= ABI_MAX_VCPUS) {
        return -EINVAL;
    }
    pthread_mutex_lock(&vm->lock);
    int rc = vm->nvcpus != 0 ? -EBUSY : 0;
    if (rc == 0) {
        vm->boot_cpu = (uint32_t)user;
    }
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

/* --- capabilities --- */

static int irqchip_install(struct abi_vm *vm, bool split)
{
    int rc = 0;
    pthread_mutex_lock(&vm->lock);
    if (vm->sk.irqchip != NULL) {
        rc = -EEXIST;
    } else if (vm->nvcpus != 0) {
        rc = -EINVAL;
    } else {
        vm->sk.irqchip = sk_irqchip_new(&vm->sk, split);
        rc = vm->sk.irqchip == NULL ? -ENOMEM : abi_embedded() ? abi_irqfd_start(vm) : 0;
        abi_vcpu_fill_ops(&vm->sk);
    }
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

static int enable_split_irqchip(struct abi_vm *vm, const struct kvm_enable_cap *cap)
{
    return cap->args[0] > SK_IRQCHIP_PINS ? -EINVAL : irqchip_install(vm, true);
}

static int enable_x2apic_api(struct abi_vm *vm, const struct kvm_enable_cap *cap)
{
    const uint64_t known = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    if ((cap->args[0] & ~known) != 0 || vm->sk.irqchip == NULL) {
        return -EINVAL;
    }
    sk_irqchip_set_wide_ids(vm->sk.irqchip, (cap->args[0] & KVM_X2APIC_API_USE_32BIT_IDS) != 0,
                            (cap->args[0] & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK) != 0);
    return 0;
}

static int enable_dirty_ring(struct abi_vm *vm, const struct kvm_enable_cap *cap)
{
    uint64_t size = cap->args[0];
    if (!bits_is_pow2(size) || size < ABI_PAGE ||
        size > ABI_DIRTY_RING_MAX * sizeof(struct kvm_dirty_gfn)) {
        return size > ABI_DIRTY_RING_MAX * sizeof(struct kvm_dirty_gfn) ? -E2BIG : -EINVAL;
    }
    pthread_mutex_lock(&vm->lock);
    int rc = vm->nvcpus != 0 || vm->dirty_ring_size != 0 ? -EINVAL : 0;
    if (rc == 0) {
        vm->dirty_ring_size = (uint32_t)size;
    }
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

/* Once, and to no more than we have. */
static int enable_max_vcpu_id(struct abi_vm *vm, const struct kvm_enable_cap *cap)
{
    if (cap->args[0] == 0 || cap->args[0] > ABI_MAX_VCPUS) {
        return -EINVAL;
    }
    pthread_mutex_lock(&vm->lock);
    int rc = 0;
    if (vm->max_vcpu_id == 0) {
        vm->max_vcpu_id = (uint32_t)cap->args[0];
    } else if (vm->max_vcpu_id != cap->args[0]) {
        rc = -EINVAL;
    }
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

int abi_enable_cap_vm(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_enable_cap *cap = arg;
    if (cap->flags != 0) {
        return -EINVAL;
    }
    switch (cap->cap) {
    case KVM_CAP_SPLIT_IRQCHIP:
        return enable_split_irqchip(vm, cap);
    case KVM_CAP_X2APIC_API:
        return enable_x2apic_api(vm, cap);
    case KVM_CAP_DIRTY_LOG_RING:
        return enable_dirty_ring(vm, cap);
    case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
        if ((cap->args[0] &
             ~(uint64_t)(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)) != 0 ||
            cap->args[0] == KVM_DIRTY_LOG_INITIALLY_SET) {
            return -EINVAL;
        }
        vm->log_protect = (uint32_t)cap->args[0];
        return 0;
    case KVM_CAP_X86_USER_SPACE_MSR:
        if ((cap->args[0] & ~(uint64_t)(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                                        KVM_MSR_EXIT_REASON_FILTER)) != 0) {
            return -EINVAL;
        }
        vm->msr_exit_mask = (uint32_t)cap->args[0];
        return 0;
    case KVM_CAP_DISABLE_QUIRKS2:
        if ((cap->args[0] & ~(uint64_t)ABI_QUIRKS) != 0) {
            return -EINVAL;
        }
        atomic_store_explicit(&vm->sk.quirks_off, cap->args[0], memory_order_relaxed);
        return 0;
    case KVM_CAP_DISABLE_QUIRKS:
        atomic_store_explicit(&vm->sk.quirks_off, cap->args[0], memory_order_relaxed);
        return 0;
    case KVM_CAP_MSR_PLATFORM_INFO:
        atomic_store_explicit(&vm->sk.platform_info_hidden, cap->args[0] == 0,
                              memory_order_relaxed);
        return 0;
    case KVM_CAP_MAX_VCPU_ID:
        return enable_max_vcpu_id(vm, cap);
    case KVM_CAP_EXCEPTION_PAYLOAD:
        return cap->args[0] > 1 ? -EINVAL : 0;
    default:
        return -EINVAL;
    }
}

/* --- interrupt controllers --- */

int abi_create_irqchip(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    return irqchip_install(ABI_VM_OF(obj), false);
}

int abi_get_irqchip(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    return abi_has_pic(vm) ? sk_irqchip_get_state(vm->sk.irqchip, arg) : -ENXIO;
}

int abi_set_irqchip(struct abi_obj *obj, void *arg, unsigned long user)
{
    struct abi_vm *vm = ABI_VM_OF(obj);
    struct kvm_irqchip chip;
    (void)arg;
    /* The request number says "read", yet the argument is input (kvm.h). */
    if (abi_copy_in(&chip, (const void *)user, sizeof(chip)) < 0) {
        return -EFAULT;
    }
    return abi_has_pic(vm) ? sk_irqchip_set_state(vm->sk.irqchip, &chip) : -ENXIO;
}

int abi_create_pit(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    return sk_pit_create(ABI_VM_OF(obj)->sk.irqchip, KVM_PIT_SPEAKER_DUMMY);
}

int abi_create_pit2(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    const struct kvm_pit_config *c = arg;
    return sk_pit_create(ABI_VM_OF(obj)->sk.irqchip, c->flags);
}

int abi_get_pit2(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    return sk_pit_get_state(ABI_VM_OF(obj)->sk.irqchip, arg);
}

int abi_set_pit2(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    return sk_pit_set_state(ABI_VM_OF(obj)->sk.irqchip, arg);
}

int abi_get_pit(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct kvm_pit_state2 s;
    struct kvm_pit_state *out = arg;
    int rc = sk_pit_get_state(ABI_VM_OF(obj)->sk.irqchip, &s);
    if (rc == 0) {
        memcpy(out->channels, s.channels, sizeof(out->channels));
    }
    return rc;
}

int abi_set_pit(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct kvm_pit_state in;
    struct kvm_pit_state2 s = { .flags = 0 };
    if (abi_copy_in(&in, (const void *)user, sizeof(in)) < 0) {
        return -EFAULT;
    }
    memcpy(s.channels, in.channels, sizeof(s.channels));
    return sk_pit_set_state(ABI_VM_OF(obj)->sk.irqchip, &s);
}

int abi_reinject_control(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct kvm_reinject_control c;
    if (abi_copy_in(&c, (const void *)user, sizeof(c)) < 0) {
        return -EFAULT;
    }
    return sk_pit_set_reinject(ABI_VM_OF(obj)->sk.irqchip, c.pit_reinject != 0);
}

/* With a split irqchip too: the routes of its lines are messages. */
static int set_line(struct abi_vm *vm, const struct kvm_irq_level *l)
{
    return sk_irqchip_set_irq(vm->sk.irqchip, l->irq, 0, l->level != 0);
}

int abi_irq_line(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    if (vm->sk.irqchip == NULL) {
        return -ENXIO;
    }
    (void)set_line(vm, arg); /* KVM_IRQ_LINE tells nothing of what became of it */
    return 0;
}

int abi_irq_line_status(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    if (vm->sk.irqchip == NULL) {
        return -ENXIO;
    }
    struct kvm_irq_level *l = arg;
    l->status = set_line(vm, l);
    return 0;
}

int abi_set_gsi_routing(struct abi_obj *obj, void *arg, unsigned long user)
{
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_irq_routing *r = arg;
    if (vm->sk.irqchip == NULL || r->nr > 4096 || r->flags != 0) {
        return -EINVAL;
    }
    struct kvm_irq_routing_entry *e = calloc(MAX(r->nr, 1u), sizeof(*e));
    if (e == NULL) {
        return -ENOMEM;
    }
    int rc = abi_copy_in(e, (const char *)user + sizeof(*r), r->nr * sizeof(*e));
    if (rc == 0) {
        rc = sk_irqchip_set_routing(vm->sk.irqchip, e, r->nr);
    }
    free(e);
    return rc;
}

int abi_signal_msi(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_msi *m = arg;
    if (vm->sk.irqchip == NULL || m->flags != 0) {
        return -EINVAL;
    }
    int rc = sk_irqchip_msi(vm->sk.irqchip, (uint64_t)m->address_hi << 32 | m->address_lo, m->data);
    return MAX(rc, 0);
}

/* --- time --- */

int abi_get_clock(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct kvm_clock_data *d = arg;
    *d = (struct kvm_clock_data){
        .flags = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC,
    };
    pv_clock_sample(&ABI_VM_OF(obj)->clock, (uint64_t *)&d->clock, (uint64_t *)&d->realtime,
                    (uint64_t *)&d->host_tsc);
    return 0;
}

int abi_set_clock(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_clock_data *d = arg;
    if ((d->flags & ~(uint32_t)(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)) !=
        0) {
        return -EINVAL;
    }
    /* With the time of day at which the clock was read: what has passed since is added. */
    uint64_t passed = 0;
    if ((d->flags & KVM_CLOCK_REALTIME) != 0) {
        uint64_t now = pv_realtime_ns();
        passed = now > d->realtime ? now - d->realtime : 0;
    }
    pv_clock_set(&vm->clock, d->clock + passed);
    for (unsigned i = 0; i < ABI_MAX_VCPUS; i++) {
        struct abi_vcpu *v = vm->vcpu[i];
        if (v != NULL) {
            /* Its thread writes the new time when it enters KVM_RUN. */
            atomic_store_explicit(&v->clock_stale, true, memory_order_release);
        }
    }
    return 0;
}

int abi_set_tsc_khz_vm(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct abi_vm *vm = ABI_VM_OF(obj);
    if (user > UINT32_MAX || vm->nvcpus != 0) {
        return -EINVAL;
    }
    vm->tsc_khz = user != 0 ? (uint32_t)user : sk_tsc_host_khz();
    return 0;
}

int abi_get_tsc_khz_vm(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    return (int)ABI_VM_OF(obj)->tsc_khz;
}
