/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Running the host's own instruction for x87, MMX, SSE and AVX forms: small stubs made of load
 * operands, the instruction, store operands, return. The instruction is encoded anew with fixed
 * registers and with [rdi + d] for its memory operand, so a stub depends on the form and its
 * immediate only, and never on an address or register number of the guest.
 *
 * The stubs lie in a memfd mapped twice, once to write and once to execute.
 */
#ifndef SOFTKVM_X86_HOSTEXEC_H
#define SOFTKVM_X86_HOSTEXEC_H

#include "softkvm/x86/cpu.h"

struct sk_hostexec;

/* What a stub works on; RDI points here. */
struct sk_hx {
    alignas(32) uint8_t reg[32]; /* ModRM.reg, register 3 */
    uint8_t vreg[32];            /* VEX.vvvv, register 1 */
    uint8_t rm[64];              /* ModRM.rm, register 2, or the memory operand */
    uint8_t x0[32];              /* register 0 where implied */
    uint8_t is4[32];             /* register 4: fourth operand */
    uint8_t mreg[8], mrm[8];     /* the same as MMX registers */
    uint64_t rax, rcx, rdx;      /* ModRM.reg and ModRM.rm as general registers; RDX implied */
    uint32_t mxcsr_in, mxcsr_out, mxcsr_host;
    uint16_t af;
    uint8_t env[128]; /* memory operand of x87 forms */
};

/* RSI: the x87 image, for x87 stubs. */
typedef void sk_hx_fn(struct sk_hx *hx, void *image);

struct sk_hostexec *sk_hostexec_new(void);
void sk_hostexec_free(struct sk_hostexec *h);

/* The stub of a decoded instruction; `mmx`, `avx`: which registers it moves. */
sk_hx_fn *sk_hostexec_vec(struct sk_vcpu *c, const struct sk_insn *in, bool mmx);
sk_hx_fn *sk_hostexec_x87(struct sk_vcpu *c, const struct sk_insn *in);

#endif
