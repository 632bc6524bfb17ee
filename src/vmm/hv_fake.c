/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/hv_fake.h"

#include <errno.h>
#include <stdlib.h>

#define HV_FAKE_SYS_FD  1000
#define HV_FAKE_VM_FD   1001
#define HV_FAKE_VCPU_FD 1100

struct hv_fake hv_fake_state;

void hv_fake_reset(void)
{
    hv_fake_state = (struct hv_fake){ .api_version = 12, .missing_cap = -1, .max_routes = 1024 };
}

static int hv_fake_open(int *ret_fd, struct err *err)
{
    if (hv_fake_state.open_error != 0) {
        return err_set(err, hv_fake_state.open_error, "/dev/fake is away: put it back");
    }
    hv_fake_state.opened++;
    *ret_fd = HV_FAKE_SYS_FD;
    return 0;
}

static int hv_fake_system(unsigned long request, void *arg)
{
    struct hv_fake *f = &hv_fake_state;
    struct kvm_cpuid2 *cpuid = arg;
    struct kvm_msr_list *msrs = arg;
    switch (request) {
    case KVM_GET_API_VERSION:
        return f->api_version;
    case KVM_CHECK_EXTENSION:
        if ((int)(uintptr_t)arg == f->missing_cap) {
            return 0;
        }
        return (uintptr_t)arg == KVM_CAP_IRQ_ROUTING ? f->max_routes : 1;
    case KVM_GET_VCPU_MMAP_SIZE:
        return HV_FAKE_RUN_SIZE;
    case KVM_CREATE_VM:
        return f->create_error != 0 ? f->create_error : HV_FAKE_VM_FD;
    case KVM_GET_SUPPORTED_CPUID:
        if (cpuid->nent < f->ncpuid) {
            return -E2BIG;
        }
        cpuid->nent = f->ncpuid;
        memcpy(cpuid->entries, f->cpuid, f->ncpuid * sizeof(f->cpuid[0]));
        return 0;
    case KVM_GET_MSR_INDEX_LIST:
        msrs->nmsrs = 0;
        return 0;
    default:
        return -ENOTTY;
    }
}

static int hv_fake_vm(unsigned long request, void *arg)
{
    struct hv_fake *f = &hv_fake_state;
    const struct kvm_irq_routing *table = arg;
    const struct kvm_irqfd *irqfd = arg;
    switch (request) {
    case KVM_CREATE_VCPU:
        return HV_FAKE_VCPU_FD + (int)(uintptr_t)arg;
    case KVM_SET_GSI_ROUTING:
        f->nroutes = MIN(table->nr, (uint32_t)HV_FAKE_MAX_ROUTES);
        memcpy(f->route, table->entries, f->nroutes * sizeof(f->route[0]));
        return 0;
    case KVM_IRQFD:
        if (f->irqfd_error != 0) {
            return f->irqfd_error;
        }
        f->irqfds += (irqfd->flags & KVM_IRQFD_FLAG_DEASSIGN) != 0 ? -1u : 1u;
        return 0;
    case KVM_IRQ_LINE:
        f->last_line = *(const struct kvm_irq_level *)arg;
        f->lines++;
        return 0;
    case KVM_SIGNAL_MSI:
        f->last_msi = *(const struct kvm_msi *)arg;
        f->msis++;
        return 1;
    case KVM_SET_USER_MEMORY_REGION:
        f->slot[f->nslots++ % ARRAY_LEN(f->slot)] =
            *(const struct kvm_userspace_memory_region *)arg;
        return 0;
    case KVM_IOEVENTFD:
        f->last_ioeventfd = *(const struct kvm_ioeventfd *)arg;
        return 0;
    default:
        return 0; /* chips and addresses: taken and forgotten */
    }
}

static int hv_fake_vcpu(unsigned i, unsigned long request, void *arg)
{
    struct hv_fake *f = &hv_fake_state;
    struct kvm_run *run = f->area[i];
    switch (request) {
    case KVM_RUN:
        return f->run != NULL ? f->run(i, run) : -EINTR;
    case KVM_GET_REGS:
        *(struct kvm_regs *)arg = f->regs[i];
        return 0;
    case KVM_SET_REGS:
        f->regs[i] = *(const struct kvm_regs *)arg;
        return 0;
    case KVM_GET_SREGS:
        *(struct kvm_sregs *)arg = f->sregs[i];
        return 0;
    case KVM_SET_SREGS:
        f->sregs[i] = *(const struct kvm_sregs *)arg;
        return 0;
    case KVM_GET_MP_STATE:
        ((struct kvm_mp_state *)arg)->mp_state = f->mp_state[i];
        return 0;
    case KVM_SET_MP_STATE:
        f->mp_state[i] = ((const struct kvm_mp_state *)arg)->mp_state;
        f->resets++;
        return 0;
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
        return (int)((const struct kvm_msrs *)arg)->nmsrs;
    default:
        return 0;
    }
}

static int hv_fake_ioctl(int fd, unsigned long request, void *arg)
{
    if (fd == HV_FAKE_SYS_FD) {
        return hv_fake_system(request, arg);
    }
    if (fd == HV_FAKE_VM_FD) {
        return hv_fake_vm(request, arg);
    }
    if (fd >= HV_FAKE_VCPU_FD && fd < HV_FAKE_VCPU_FD + HV_FAKE_MAX_VCPUS) {
        return hv_fake_vcpu((unsigned)(fd - HV_FAKE_VCPU_FD), request, arg);
    }
    return -EBADF;
}

static void *hv_fake_mmap(int fd, size_t size, uint64_t offset)
{
    (void)offset;
    void *p = calloc(1, size);
    hv_fake_state.area[fd - HV_FAKE_VCPU_FD] = p;
    return p;
}

static void hv_fake_munmap(void *addr, size_t size)
{
    (void)size;
    free(addr);
}

static void hv_fake_close(int fd)
{
    hv_fake_state.closed += fd == HV_FAKE_SYS_FD ? 1 : 0;
}

const struct hv hv_fake = {
    .name = "fake",
    .open = hv_fake_open,
    .ioctl = hv_fake_ioctl,
    .mmap = hv_fake_mmap,
    .munmap = hv_fake_munmap,
    .close = hv_fake_close,
};
