/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults and exits out of an instruction, by longjmp to sk_run(): the path without a fault pays
 * nothing, neither in checks of return codes nor in code size. (A setjmp per sk_run(), none per
 * instruction; about 20 ns a fault.)
 *
 * Rules for instruction bodies:
 *  1. Make every access that can fault before changing any register or flag; when that is not
 *     possible (several stores), the stores repeated after the fault must be harmless.
 *  2. On a fault RIP goes back to insn_rip. A body that must report another RIP (a task switch that
 *     faults in the new task) sets insn_rip first.
 *  3. No resources are held across an access: no locks, no heap.
 */
#ifndef SOFTKVM_X86_FAULT_H
#define SOFTKVM_X86_FAULT_H

#include "softkvm/x86/cpu.h"

enum sk_vec {
    SK_DE = 0,
    SK_DB = 1,
    SK_NMI = 2,
    SK_BP = 3,
    SK_OF = 4,
    SK_BR = 5,
    SK_UD = 6,
    SK_NM = 7,
    SK_DF = 8,
    SK_TS = 10,
    SK_NP = 11,
    SK_SSF = 12, /* #SS */
    SK_GP = 13,
    SK_PF = 14,
    SK_MF = 16,
    SK_AC = 17,
    SK_MC = 18,
    SK_XM = 19
};

/* Error code bits of #PF (SDM 3A §4.7). */
enum { SK_PF_P = 1, SK_PF_W = 2, SK_PF_U = 4, SK_PF_RSVD = 8, SK_PF_I = 16 };

/* Raises a fault without an error code: #DE #DB #BP #OF #BR #UD #NM #MF #XM. */
_Noreturn void sk_raise(struct sk_vcpu *c, enum sk_vec vec);

/* Raises a fault with an error code: #TS #NP #SS #GP #AC. `err` is a selector with EXT, or 0; EXT
 * is added by itself while an external event is being delivered. */
_Noreturn void sk_raise_err(struct sk_vcpu *c, enum sk_vec vec, uint32_t err);

/* #PF at linear address `lin` with the complete error code. */
_Noreturn void sk_raise_pf(struct sk_vcpu *c, uint64_t lin, uint32_t err);

/* #DB as a fault, with the bits for DR6. */
_Noreturn void sk_raise_db(struct sk_vcpu *c, uint64_t dr6);

/* #GP(0), the most common one. */
_Noreturn void sk_gp(struct sk_vcpu *c);
_Noreturn void sk_ud(struct sk_vcpu *c);

/* Leaves the instruction, unfinished, with c->exit filled: it will be run again from its start. */
_Noreturn void sk_leave_unfinished(struct sk_vcpu *c);

/* Delivers an event through the IVT or IDT: pushes, switches stacks, loads CS:RIP. May itself fault
 * (by longjmp), hence only from sk_run() and from INT n, INT3, INTO, INT1. `rip` is what to push;
 * `err` counts if has_err. */
void sk_deliver(struct sk_vcpu *c, enum sk_event_kind kind, uint8_t vec, bool has_err, uint32_t err,
                uint64_t rip);

/* #NM and #UD rules for x87/MMX and for SSE/AVX; to be called first by each such op. MMX and x87
 * ops also run sk_check_mf (pending unmasked x87 exception: #MF). */
void sk_check_x87(struct sk_vcpu *c); /* CR0.EM or TS: #NM */
void sk_check_mmx(struct sk_vcpu *c); /* CR0.EM: #UD, TS: #NM, then pending #MF */
void sk_check_sse(struct sk_vcpu *c); /* CR0.EM or !CR4.OSFXSR: #UD, TS: #NM */
void sk_check_avx(struct sk_vcpu *c); /* !CR4.OSXSAVE or XCR0 lacks AVX: #UD, TS: #NM */

#endif
