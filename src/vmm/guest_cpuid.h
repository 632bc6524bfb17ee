/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the guest's CPUID instruction says: the engine's list, cut to a model of cpu_models.def,
 * with the VM's own topology (one package, N cores, one thread each; SDM 3A §9.9, AMD APM 3
 * appendix E).
 */
#ifndef VMM_GUEST_CPUID_H
#define VMM_GUEST_CPUID_H

#include <linux/kvm.h>

#include "base/bits.h"
#include "base/err.h"
#include "vmm/hv.h"

#define GUEST_CPUID_MAX_ENTRIES 256 /* KVM_MAX_CPUID_ENTRIES */

/* Builds the list for `model` ("host", "x86-64-v2", ...) and `ncpus` (1 to 255), without the
 * per-vCPU parts. The caller frees *ret_cpuid with free(). -EINVAL: no such model, or the engine
 * lacks a feature of it (named). */
MUST_USE int guest_cpuid_build(const struct hv *hv, int sys_fd, const char *model, unsigned ncpus,
                               struct kvm_cpuid2 **ret_cpuid, struct err *err);

/* Writes the ids of vCPU `index` of `ncpus` into a list made by guest_cpuid_build(). */
void guest_cpuid_set_vcpu(struct kvm_cpuid2 *cpuid, unsigned index, unsigned ncpus);

/* Width of physical addresses, from leaf 0x80000008; 36 where there is none. */
unsigned guest_cpuid_phys_bits(const struct kvm_cpuid2 *cpuid);

/* The entry of a leaf, NULL = none. */
struct kvm_cpuid_entry2 *guest_cpuid_find(struct kvm_cpuid2 *cpuid, uint32_t function,
                                          uint32_t index);

#endif
