/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Model specific registers: the rows of msrs.def, then what ops->rdmsr/wrmsr of the layer above add
 * (APIC, pvclock).
 */
#ifndef SOFTKVM_X86_MSR_H
#define SOFTKVM_X86_MSR_H

#include "softkvm/x86/cpu.h"

/* 0 done, 1 #GP (unknown, reserved bits, read-only), 2 the client wants to answer (guest accesses
 * only): c->msr is filled. `host`: on behalf of KVM_GET_MSRS and KVM_SET_MSRS: read-only rows can
 * be set, TSC is the guest's value. On the vCPU's thread or while it does not run. */
int sk_msr_read(struct sk_vcpu *c, uint32_t index, uint64_t *ret, bool host);
int sk_msr_write(struct sk_vcpu *c, uint32_t index, uint64_t val, bool host);

/* Indices that make up the state of a CPU (KVM_GET_MSR_INDEX_LIST) and the feature MSRs
 * (KVM_GET_MSR_FEATURE_INDEX_LIST). Fill at most `max`; return how many there are. */
unsigned sk_msr_list(uint32_t *ret, unsigned max);
unsigned sk_msr_feature_list(uint32_t *ret, unsigned max);

/* Value of a feature MSR on a new CPU. 0, or 1 if it is none. */
int sk_msr_feature(uint32_t index, uint64_t *ret);

#endif
