/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared by phys.c, tlb.c and walk.c: bookkeeping of a vCPU's translations that the fast path
 * does not look at.
 */
#ifndef SOFTKVM_X86_MMU_INT_H
#define SOFTKVM_X86_MMU_INT_H

#include "softkvm/x86/mem.h"
#include "softkvm/x86/phys.h"

#define SK_FTLB_SIZE 256 /* instruction pages in use between two flushes are some dozens */
#define SK_JOURNAL   2048

struct sk_ftlbe {
    uint64_t tag; /* page address | 1 if user | 2 if valid */
    uint64_t gen;
    uint64_t gpa;
    const uint8_t *host;
};

/* Entries filled since the last flush, so that a flush touches only those. */
struct sk_journal {
    unsigned n;             /* above SK_JOURNAL: too many, clear everything */
    uint16_t e[SK_JOURNAL]; /* table number << SK_TLB_BITS | index */
};

struct sk_mmu {
    uint64_t gen; /* of the fetch TLB */
    unsigned last_slot;
    uint64_t large_lo, large_hi; /* span of addresses filled out of large pages */
    struct sk_journal global, local;
    struct sk_ftlbe ftlb[SK_FTLB_SIZE];
};

#endif
