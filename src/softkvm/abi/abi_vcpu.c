/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vCPU: its life, its run area, and what the engine asks of the layer above while it runs.
 *
 *   run area:  page 0 struct kvm_run | page 1 PIO data | page 2 coalesced ring (of the VM)
 *              | from page KVM_DIRTY_LOG_PAGE_OFFSET: the dirty ring, if there is one
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/softkvm.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/tsc.h"

struct abi_vcpu *abi_vcpu_of(struct sk_vcpu *c)
{
    return abi_vm_of(c)->vcpu[c->id];
}

/* --- what the engine asks (struct sk_vm_ops); on the vCPU's thread --- */

static bool op_mmio(struct sk_vcpu *c, uint64_t gpa, void *data, unsigned len, bool write)
{
    return sk_irqchip_mmio(c, gpa, data, len, write) ||
           (write && abi_eventfd_write(abi_vm_of(c), false, gpa, len, data));
}

static bool op_pio(struct sk_vcpu *c, uint16_t port, void *data, unsigned size, bool write)
{
    return sk_irqchip_pio(c, port, data, size, write) ||
           (write && abi_eventfd_write(abi_vm_of(c), true, port, size, data));
}

static int op_rdmsr(struct sk_vcpu *c, uint32_t index, uint64_t *ret)
{
    struct abi_vm *vm = abi_vm_of(c);
    int rc = c->lapic != NULL ? sk_lapic_rdmsr(c, index, ret) : -1;
    if (rc < 0) {
        rc = pv_rdmsr(c, &vm->clock, &abi_vcpu_of(c)->clock, index, ret);
    }
    return rc;
}

static int op_wrmsr(struct sk_vcpu *c, uint32_t index, uint64_t val)
{
    struct abi_vm *vm = abi_vm_of(c);
    int rc = c->lapic != NULL ? sk_lapic_wrmsr(c, index, val, false) : -1;
    if (rc < 0) {
        rc = pv_wrmsr(c, &vm->clock, &abi_vcpu_of(c)->clock, index, val);
    }
    return rc;
}

static bool op_msr_exit(struct sk_vcpu *c, uint32_t reason)
{
    return (abi_vm_of(c)->msr_exit_mask & reason) != 0;
}

/* Two tables: with an irqchip of ours, and without (HLT exits, CR8 is the client's). */
static const struct sk_vm_ops ops_bare = {
    .mmio = op_mmio,
    .pio = op_pio,
    .rdmsr = op_rdmsr,
    .wrmsr = op_wrmsr,
    .msr_allowed = abi_msr_allowed,
    .msr_exit = op_msr_exit,
    .hypercall = pv_hypercall,
};

static const struct sk_vm_ops ops_irqchip = {
    .mmio = op_mmio,
    .pio = op_pio,
    .rdmsr = op_rdmsr,
    .wrmsr = op_wrmsr,
    .msr_allowed = abi_msr_allowed,
    .msr_exit = op_msr_exit,
    .intr_pending = sk_lapic_pending,
    .intr_ack = sk_lapic_ack,
    .get_cr8 = sk_lapic_get_cr8,
    .set_cr8 = sk_lapic_set_cr8,
    .halt = sk_poll_wait,
    .apic_base = sk_lapic_set_base,
    .init_reset = sk_lapic_init_reset,
    .hypercall = pv_hypercall,
};

void abi_vcpu_fill_ops(struct sk_vm *sk)
{
    sk->ops = sk->irqchip != NULL ? &ops_irqchip : &ops_bare;
}

/* --- life --- */

void abi_vcpu_destroy(struct abi_vcpu *v)
{
    if (v->c != NULL) {
        sk_lapic_free(v->c);
        sk_vcpu_free(v->c);
    }
    pv_clock_vcpu_done(&v->clock);
    if (v->run != NULL) {
        munmap(v->run, v->run_size);
    }
    pthread_mutex_destroy(&v->lock);
    free(v);
}

/* The last descriptor is closed. A vCPU stays part of its VM all the same, as in the kernel:
 * interrupts and other vCPUs may be looking at it. */
static void vcpu_free(struct abi_obj *obj)
{
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    struct abi_vm *vm = v->vm;
    if (v->c == NULL || vm->vcpu[v->c->id] != v) {
        abi_vcpu_destroy(v); /* it never became one */
    }
    abi_obj_unref(&vm->obj);
}

/* The descriptor exists first, because it backs the run area. */
static int vcpu_map_run(struct abi_vcpu *v, int fd)
{
    void *p = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return -errno;
    }
    v->run = p;
    if (v->vm->dirty_ring_size != 0) {
        v->dirty_gfn = (struct kvm_dirty_gfn *)((char *)p + KVM_DIRTY_LOG_PAGE_OFFSET * ABI_PAGE);
    }
    return 0;
}

static int vcpu_setup(struct abi_vcpu *v, uint32_t id)
{
    struct abi_vm *vm = v->vm;
    struct sk_vcpu *c = sk_vcpu_new(&vm->sk, id, (uint8_t *)v->run + ABI_PAGE);
    if (c == NULL) {
        return -ENOMEM;
    }
    c->immediate_exit = (const _Atomic uint8_t *)&v->run->immediate_exit;
    c->wait_word = (_Atomic uint32_t *)(void *)v->run;
    c->apic_base &= ~UINT64_C(0x100);
    if (id == vm->boot_cpu) {
        c->apic_base |= 0x100;
    }
    c->mp_state =
        id == vm->boot_cpu || vm->sk.irqchip == NULL ? SK_MP_RUNNABLE : SK_MP_UNINITIALIZED;
    if (vm->tsc_khz != sk_tsc_host_khz()) {
        c->tsc_ratio = (uint64_t)(((unsigned __int128)vm->tsc_khz << 48) / sk_tsc_host_khz());
    }
    abi_tsc_set(vm, c, 0);
    if (vm->sk.irqchip != NULL && !sk_lapic_new(c, vm->sk.irqchip)) {
        sk_vcpu_free(c);
        return -EINVAL;
    }
    v->c = c;
    return 0;
}

/* Puts the vCPU in the VM's list: from here on slots and interrupts reach it. */
static int vcpu_publish(struct abi_vm *vm, struct abi_vcpu *v, unsigned long id)
{
    int rc = 0;
    pthread_mutex_lock(&vm->slots_lock); /* abi_slots_sync() walks the list */
    pthread_mutex_lock(&vm->lock);
    if (vm->vcpu[id] != NULL) {
        rc = -EEXIST;
    } else {
        vm->vcpu[id] = v;
        if (vm->ring == NULL) {
            vm->ring = (struct kvm_coalesced_mmio_ring *)((char *)v->run + 2 * ABI_PAGE);
        }
    }
    pthread_mutex_unlock(&vm->lock);
    pthread_mutex_unlock(&vm->slots_lock);
    return rc;
}

/* Counts a vCPU before it is made: what may be chosen only without any (dirty ring, irqchip, TSC
 * frequency) stays as it is from here on. */
static void vcpu_count(struct abi_vm *vm, bool up)
{
    pthread_mutex_lock(&vm->lock);
    vm->nvcpus += up ? 1 : -1u;
    pthread_mutex_unlock(&vm->lock);
}

int abi_vcpu_create(struct abi_vm *vm, unsigned long id)
{
    if (id >= ABI_MAX_VCPUS) {
        return -EINVAL;
    }
    if (vm->max_vcpu_id != 0 && id >= vm->max_vcpu_id) {
        return -EINVAL;
    }
    if (vm->vcpu[id] != NULL) {
        return -EEXIST;
    }
    struct abi_vcpu *v = calloc(1, sizeof(*v));
    if (v == NULL) {
        return -ENOMEM;
    }
    v->obj.kind = ABI_VCPU;
    v->obj.free = vcpu_free;
    atomic_store_explicit(&v->obj.refs, 1, memory_order_relaxed);
    v->vm = vm;
    abi_obj_ref(&vm->obj);
    vcpu_count(vm, true);
    pthread_mutex_init(&v->lock, NULL);
    pv_clock_vcpu_init(&v->clock, abi_embedded());
    v->run_size = ABI_RUN_PAGES * ABI_PAGE;
    if (vm->dirty_ring_size != 0) {
        v->run_size = KVM_DIRTY_LOG_PAGE_OFFSET * ABI_PAGE + vm->dirty_ring_size;
    }
    abi_obj_ref(&v->obj); /* ours, while the table has the other */
    int fd = abi_fd_new(&v->obj, "softkvm-vcpu", v->run_size);
    int rc = fd < 0 ? fd : vcpu_map_run(v, fd);
    if (rc == 0) {
        rc = vcpu_setup(v, (uint32_t)id);
    }
    if (rc == 0) {
        rc = vcpu_publish(vm, v, id);
    }
    if (rc < 0) {
        vcpu_count(vm, false);
    }
    if (rc < 0 && fd >= 0) {
        (void)softkvm_close(fd);
    }
    abi_obj_unref(&v->obj);
    return rc < 0 ? rc : fd;
}
