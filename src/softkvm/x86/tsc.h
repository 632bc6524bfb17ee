/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The time stamp counter: the host's frequency and a vCPU's view of it.
 */
#ifndef SOFTKVM_X86_TSC_H
#define SOFTKVM_X86_TSC_H

#include "softkvm/x86/cpu.h"

/* Frequency of the host's TSC in kHz; found once a process (the first call may take 20 ms). */
uint32_t sk_tsc_host_khz(void);

/* Guest TSC for a host TSC value, and now. */
uint64_t sk_tsc_scale(const struct sk_vcpu *c, uint64_t host_tsc);
uint64_t sk_tsc_now(const struct sk_vcpu *c);

/* Frequency of the guest's TSC in kHz. */
uint32_t sk_tsc_khz(const struct sk_vcpu *c);

/* Nanoseconds until the guest's TSC reaches `tsc`; 0 when it has. */
uint64_t sk_tsc_ns_until(const struct sk_vcpu *c, uint64_t tsc);

#endif
