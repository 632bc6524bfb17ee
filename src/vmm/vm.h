/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VM as the engine sees it: the VM descriptor with its interrupt controllers and memory slots.
 * All of it is built before the first vCPU runs; afterwards the descriptors may be used by any
 * thread.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "base/bits.h"
#include "base/err.h"
#include "vmm/bus/bus.h"
#include "vmm/hv.h"

struct vm {
    const struct hv *hv;
    int sys_fd;
    int fd;
    size_t run_size;    /* of a vCPU's shared page(s) */
    unsigned next_slot; /* memory slot numbers */
    bool any_len;       /* ioeventfd without a length */
    bool clock_ctrl;    /* KVM_KVMCLOCK_CTRL is there */
};

/* Creates the VM on `sys_fd` (taken over on success): TSS and identity pages, PIC, I/O APIC, LAPIC,
 * PIT. 0, or a negative errno that names the step. */
MUST_USE int vm_init(struct vm *vm, const struct hv *hv, int take_sys_fd, struct err *err);
void vm_done(struct vm *vm); /* accepts a zeroed struct */

/* Value of a capability, 0 = absent. */
int vm_cap(const struct vm *vm, int cap);

/* The engine's counter of writes to guest memory (struct hv). NULL: it wants none. */
_Atomic uint64_t *vm_writes(const struct vm *vm);

/* Gives [gpa, gpa+size) of the guest the host memory at `host`; `read_only`: writes exit as MMIO.
 */
MUST_USE int vm_add_memory(struct vm *vm, uint64_t gpa, uint64_t size, void *host, bool read_only,
                           struct err *err);

/* bus_eventfd_fn for the two buses; `opaque` is the struct vm. */
int vm_pio_eventfd(void *opaque, const struct bus_eventfd *e, bool add);
int vm_mmio_eventfd(void *opaque, const struct bus_eventfd *e, bool add);

/* The chips' state as it was after vm_init(), to be put back at a reset. */
struct vm_chips;
MUST_USE int vm_chips_save(const struct vm *vm, struct vm_chips **ret_chips, struct err *err);
MUST_USE int vm_chips_restore(const struct vm *vm, const struct vm_chips *chips, struct err *err);
void vm_chips_free(struct vm_chips *chips);

#endif
