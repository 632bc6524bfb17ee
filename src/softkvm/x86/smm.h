/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System management mode (SDM 3C chapter 32, 2023-12; AMD APM 2 chapter 10, 3.42), as far as KVM
 * has it: no auto-halt restart, no restart of I/O instructions.
 *
 * Both on the vCPU's thread.
 */
#ifndef SOFTKVM_X86_SMM_H
#define SOFTKVM_X86_SMM_H

#include "softkvm/x86/cpu.h"

/* Takes an SMI between two instructions: saves the state at SMBASE + fe00h, as the address space of
 * SMM maps it, and goes to SMBASE + 8000h. c->in_smm is clear. */
void sk_smm_enter(struct sk_vcpu *c);

/* RSM: back to what the save area says. A state that no processor can be in shuts the vCPU down
 * (SK_EXIT_SHUTDOWN). c->in_smm is set. */
void sk_smm_leave(struct sk_vcpu *c);

#endif
