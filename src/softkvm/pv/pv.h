/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paravirtual services that KVM guests look for (Documentation/virt/kvm/x86/{cpuid,msr,
 * hypercalls}.rst, Linux 6.1): kvm-clock, wall clock, steal time, hypercalls.
 */
#ifndef SOFTKVM_PV_PV_H
#define SOFTKVM_PV_PV_H

#include "softkvm/x86/cpu.h"

struct sk_cpuid_entry;

/* The VM's clock: guest nanoseconds = CLOCK_MONOTONIC_RAW-like time + offset. */
struct pv_clock_vm {
    _Atomic int64_t offset_ns;
    _Atomic uint64_t wall_msr;
    _Atomic bool stopped;
};

struct pv_clock_vcpu {
    uint64_t system_time_msr;
    uint64_t steal_msr;
    uint64_t poll_control;
    uint64_t last_delay_ns, steal_read_ns;
    int schedstat_fd;
    bool no_files;      /* nothing may be opened */
    bool enforce;       /* what CPUID does not offer is not there (ENFORCE_PV_FEATURE_CPUID) */
    bool guest_stopped; /* PVCLOCK_GUEST_STOPPED is to be set (KVM_KVMCLOCK_CTRL) */
};

void pv_clock_vcpu_init(struct pv_clock_vcpu *v, bool no_files);
void pv_clock_vcpu_done(struct pv_clock_vcpu *v);

/* CPUID leaves 0x40000000 and 0x40000001 that belong to it; returns how many (2). */
unsigned pv_cpuid(struct sk_cpuid_entry *ret);

/* Guest time now. */
uint64_t pv_clock_now(const struct pv_clock_vm *vm);
/* Guest time, the host's time of day and its TSC at one moment. */
void pv_clock_sample(const struct pv_clock_vm *vm, uint64_t *ret_ns, uint64_t *ret_realtime_ns,
                     uint64_t *ret_tsc);
uint64_t pv_realtime_ns(void);
void pv_clock_set(struct pv_clock_vm *vm, uint64_t ns);

/* MSRs 0x11, 0x12 and 0x4b564d00 to 0x4b564d05: 0 done, 1 #GP, -1 none of ours. */
int pv_rdmsr(struct sk_vcpu *c, struct pv_clock_vm *vm, struct pv_clock_vcpu *v, uint32_t index,
             uint64_t *ret);
int pv_wrmsr(struct sk_vcpu *c, struct pv_clock_vm *vm, struct pv_clock_vcpu *v, uint32_t index,
             uint64_t val);
/* Fills in the indices above; returns how many. */
unsigned pv_msr_list(uint32_t *ret, unsigned max);

/* Writes the time structure into guest memory again, where it is enabled: after the clock or the
 * TSC was set. */
void pv_clock_refresh(struct sk_vcpu *c, struct pv_clock_vm *vm, struct pv_clock_vcpu *v);

/* Brings the steal time up to date; at every KVM_RUN. */
void pv_steal_refresh(struct sk_vcpu *c, struct pv_clock_vcpu *v);

/* True if CPUID leaf 0x40000001 offers the KVM_FEATURE_*, or if the client does not insist. */
bool pv_offered(const struct sk_vcpu *c, const struct pv_clock_vcpu *v, unsigned feature);

/* VMCALL/VMMCALL: puts the result in RAX (hypercalls.rst). Always true: no call is the client's. */
bool pv_hypercall(struct sk_vcpu *c);

#endif
