/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An engine of fakes for unit tests: answers the requests that building a VM makes, records what
 * tests look at, and runs a script in place of a guest. One at a time in a process.
 */
#ifndef VMM_HV_FAKE_H
#define VMM_HV_FAKE_H

#include <linux/kvm.h>

#include "vmm/hv.h"

#define HV_FAKE_MAX_VCPUS  4
#define HV_FAKE_MAX_ROUTES 128
#define HV_FAKE_RUN_SIZE   12288

struct hv_fake {
    /* What it answers. */
    int open_error; /* negative errno of open(), 0 = opens */
    int api_version;
    int missing_cap;  /* capability that it lacks, -1 = none */
    int max_routes;   /* KVM_CAP_IRQ_ROUTING */
    int irqfd_error;  /* of KVM_IRQFD */
    int create_error; /* of KVM_CREATE_VM */
    uint32_t ncpuid;
    struct kvm_cpuid_entry2 cpuid[32];
    /* The guest: what KVM_RUN returns, from the vCPU's thread. NULL: -EINTR at once. */
    int (*run)(unsigned index, struct kvm_run *run);

    /* What it saw. */
    int opened, closed;
    unsigned nroutes;
    struct kvm_irq_routing_entry route[HV_FAKE_MAX_ROUTES];
    unsigned irqfds;
    struct kvm_irq_level last_line;
    unsigned lines;
    struct kvm_msi last_msi;
    unsigned msis;
    unsigned nslots;
    struct kvm_userspace_memory_region slot[8];
    struct kvm_ioeventfd last_ioeventfd;
    struct kvm_regs regs[HV_FAKE_MAX_VCPUS];
    struct kvm_sregs sregs[HV_FAKE_MAX_VCPUS];
    uint32_t mp_state[HV_FAKE_MAX_VCPUS];
    unsigned resets; /* KVM_SET_MP_STATE seen */
    void *area[HV_FAKE_MAX_VCPUS];
};

extern struct hv_fake hv_fake_state;
extern const struct hv hv_fake;

/* Back to an engine that has everything. */
void hv_fake_reset(void);

#endif
