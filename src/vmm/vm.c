/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>

#include "vmm/layout.h"

#define VM_CHIPS 3 /* two PICs and the I/O APIC (KVM api.rst 4.26) */

struct vm_chips {
    struct kvm_irqchip chip[VM_CHIPS];
    struct kvm_pit_state2 pit;
};

int vm_cap(const struct vm *vm, int cap)
{
    int rc = hv_ioctl_int(vm->hv, vm->sys_fd, KVM_CHECK_EXTENSION, (uintptr_t)cap);
    return rc < 0 ? 0 : rc;
}

static int vm_create_chips(struct vm *vm, struct err *err)
{
    const struct hv *hv = vm->hv;
    uint64_t identity = LAYOUT_IDENTITY_BASE;
    int rc = hv->ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': identity map address", hv->name);
    }
    rc = hv_ioctl_int(hv, vm->fd, KVM_SET_TSS_ADDR, LAYOUT_TSS_BASE);
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': TSS address", hv->name);
    }
    rc = hv_ioctl_int(hv, vm->fd, KVM_CREATE_IRQCHIP, 0);
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': interrupt controllers", hv->name);
    }
    /* The dummy speaker port: port 0x61 is answered by the engine beside the PIT. */
    struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
    rc = hv->ioctl(vm->fd, KVM_CREATE_PIT2, &pit);
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': interval timer", hv->name);
    }
    return 0;
}

_Atomic uint64_t *vm_writes(const struct vm *vm)
{
    return vm->hv->writes != NULL ? vm->hv->writes(vm->fd) : NULL;
}

int vm_init(struct vm *vm, const struct hv *hv, int take_sys_fd, struct err *err)
{
    *vm = (struct vm){ .hv = hv, .sys_fd = take_sys_fd, .fd = -1 };
    int rc = hv_ioctl_int(hv, vm->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (rc < (int)sizeof(struct kvm_run)) {
        rc =
            err_set(err, rc < 0 ? rc : -EPROTO, "engine '%s': vCPU area of %d bytes", hv->name, rc);
        goto fail;
    }
    vm->run_size = (size_t)rc;
    vm->any_len = vm_cap(vm, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
    vm->clock_ctrl = vm_cap(vm, KVM_CAP_KVMCLOCK_CTRL) > 0;
    vm->fd = hv_ioctl_int(hv, vm->sys_fd, KVM_CREATE_VM, 0);
    if (vm->fd < 0) {
        rc = err_set_errno(err, vm->fd, "engine '%s': cannot create a VM", hv->name);
        goto fail;
    }
    rc = vm_create_chips(vm, err);
    if (rc < 0) {
        goto fail;
    }
    return 0;
fail:
    if (vm->fd >= 0) {
        hv->close(vm->fd);
    }
    *vm = (struct vm){ .sys_fd = -1, .fd = -1 };
    return rc;
}

void vm_done(struct vm *vm)
{
    if (vm->hv == NULL) {
        return;
    }
    vm->hv->close(vm->fd);
    vm->hv->close(vm->sys_fd);
    *vm = (struct vm){ .sys_fd = -1, .fd = -1 };
}

int vm_add_memory(struct vm *vm, uint64_t gpa, uint64_t size, void *host, bool read_only,
                  struct err *err)
{
    struct kvm_userspace_memory_region region = {
        .slot = vm->next_slot,
        .flags = read_only ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
    };
    int rc = vm->hv->ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
    if (rc < 0) {
        return err_set_errno(err, rc,
                             "engine '%s': memory slot %u at 0x%" PRIx64 ", %" PRIu64 " bytes",
                             vm->hv->name, vm->next_slot, gpa, size);
    }
    vm->next_slot++;
    return 0;
}

static int vm_eventfd(struct vm *vm, const struct bus_eventfd *e, bool add, uint32_t flags)
{
    if (e->size == 0 && (!vm->any_len || e->match)) {
        return -EOPNOTSUPP;
    }
    struct kvm_ioeventfd io = {
        .datamatch = e->value,
        .addr = e->addr,
        .len = e->size,
        .fd = e->fd,
        .flags = flags | (e->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
                 (add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
    };
    return vm->hv->ioctl(vm->fd, KVM_IOEVENTFD, &io);
}

int vm_pio_eventfd(void *opaque, const struct bus_eventfd *e, bool add)
{
    return vm_eventfd(opaque, e, add, KVM_IOEVENTFD_FLAG_PIO);
}

int vm_mmio_eventfd(void *opaque, const struct bus_eventfd *e, bool add)
{
    return vm_eventfd(opaque, e, add, 0);
}

int vm_chips_save(const struct vm *vm, struct vm_chips **ret_chips, struct err *err)
{
    struct vm_chips *chips = calloc(1, sizeof(*chips));
    if (chips == NULL) {
        return err_set(err, -ENOMEM, "interrupt controllers: out of memory");
    }
    int rc = 0;
    for (unsigned i = 0; i < VM_CHIPS && rc == 0; i++) {
        chips->chip[i].chip_id = i;
        rc = vm->hv->ioctl(vm->fd, KVM_GET_IRQCHIP, &chips->chip[i]);
    }
    if (rc == 0) {
        rc = vm->hv->ioctl(vm->fd, KVM_GET_PIT2, &chips->pit);
    }
    if (rc < 0) {
        free(chips);
        return err_set_errno(err, rc, "engine '%s': cannot read the interrupt controllers",
                             vm->hv->name);
    }
    *ret_chips = chips;
    return 0;
}

int vm_chips_restore(const struct vm *vm, const struct vm_chips *chips, struct err *err)
{
    int rc = 0;
    for (unsigned i = 0; i < VM_CHIPS && rc == 0; i++) {
        struct kvm_irqchip chip = chips->chip[i];
        rc = vm->hv->ioctl(vm->fd, KVM_SET_IRQCHIP, &chip);
    }
    if (rc == 0) {
        struct kvm_pit_state2 pit = chips->pit;
        rc = vm->hv->ioctl(vm->fd, KVM_SET_PIT2, &pit);
    }
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': cannot reset the interrupt controllers",
                             vm->hv->name);
    }
    return 0;
}

void vm_chips_free(struct vm_chips *chips)
{
    free(chips);
}
