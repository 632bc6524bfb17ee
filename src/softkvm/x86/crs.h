/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control registers: the rules of MOV CR, XSETBV and EFER writes (SDM 3A §2.5, §4.1, 2023-12).
 */
#ifndef SOFTKVM_X86_CRS_H
#define SOFTKVM_X86_CRS_H

#include "softkvm/x86/cpu.h"

enum {
    SK_CR0_PE = 1,
    SK_CR0_MP = 2,
    SK_CR0_EM = 4,
    SK_CR0_TS = 8,
    SK_CR0_ET = 0x10,
    SK_CR0_NE = 0x20,
    SK_CR0_WP = 0x10000,
    SK_CR0_AM = 0x40000,
    SK_CR0_NW = 0x20000000,
    SK_CR0_CD = 0x40000000
};
#define SK_CR0_PG BIT64(31)

enum {
    SK_CR4_TSD = 0x4,
    SK_CR4_DE = 0x8,
    SK_CR4_PSE = 0x10,
    SK_CR4_PAE = 0x20,
    SK_CR4_MCE = 0x40,
    SK_CR4_PGE = 0x80,
    SK_CR4_PCE = 0x100,
    SK_CR4_OSFXSR = 0x200,
    SK_CR4_OSXMMEXCPT = 0x400,
    SK_CR4_UMIP = 0x800,
    SK_CR4_FSGSBASE = 0x10000,
    SK_CR4_PCIDE = 0x20000,
    SK_CR4_OSXSAVE = 0x40000,
    SK_CR4_SMEP = 0x100000,
    SK_CR4_SMAP = 0x200000
};

enum { SK_EFER_SCE = 1, SK_EFER_LME = 0x100, SK_EFER_LMA = 0x400, SK_EFER_NXE = 0x800 };

/* Writes as by MOV at CPL 0: #GP(0) if not allowed; flushes what depends on it. */
void sk_cr0_write(struct sk_vcpu *c, uint64_t v);
void sk_cr3_write(struct sk_vcpu *c, uint64_t v);
void sk_cr4_write(struct sk_vcpu *c, uint64_t v);
void sk_cr8_write(struct sk_vcpu *c, uint64_t v);
uint64_t sk_cr8_read(struct sk_vcpu *c);

/* CR4 bits this guest may set. */
uint64_t sk_cr4_allowed(const struct sk_vcpu *c);

/* True if XCR0 may take the value. */
bool sk_xcr0_valid(const struct sk_vcpu *c, uint64_t v);

/* EFER: false if reserved bits are set or LME changes while paging is on. */
MUST_USE bool sk_efer_write(struct sk_vcpu *c, uint64_t v);

#endif
