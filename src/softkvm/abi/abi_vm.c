/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VM: its life, and what the engine asks of it (struct sk_vm_ops).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/x86/tsc.h"

static void vm_free(struct abi_obj *obj)
{
    struct abi_vm *vm = ABI_VM_OF(obj);
    abi_eventfd_free(vm);
    for (unsigned i = 0; i < ABI_MAX_VCPUS; i++) {
        if (vm->vcpu[i] != NULL) {
            abi_vcpu_destroy(vm->vcpu[i]);
        }
    }
    sk_irqchip_free(vm->sk.irqchip);
    abi_slots_free(vm);
    abi_msr_filter_free(atomic_load_explicit(&vm->msr_filter, memory_order_relaxed));
    pthread_mutex_destroy(&vm->lock);
    munmap(vm, sizeof(*vm));
}

int abi_vm_create(void)
{
    /* Zero pages: few of the memory slots are ever used. */
    struct abi_vm *vm =
        mmap(NULL, sizeof(*vm), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vm == MAP_FAILED) {
        return -ENOMEM;
    }
    vm->obj.kind = ABI_VM;
    vm->obj.free = vm_free;
    atomic_store_explicit(&vm->obj.refs, 1, memory_order_relaxed);
    pthread_mutex_init(&vm->lock, NULL);
    vm->tsc_khz = sk_tsc_host_khz();
    vm->sk.opaque = vm;
    pv_clock_set(&vm->clock, 0);
    abi_vcpu_fill_ops(&vm->sk);
    abi_eventfd_init(vm);
    int rc = abi_slots_init(vm);
    if (rc < 0) {
        vm_free(&vm->obj);
        return rc;
    }
    return abi_fd_new(&vm->obj, "softkvm-vm", 0);
}
