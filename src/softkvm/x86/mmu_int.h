/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared by phys.c, tlb.c and walk.c: bookkeeping of a vCPU's translations that the fast path
 * does not look at.
 */
#ifndef SOFTKVM_X86_MMU_INT_H
#define SOFTKVM_X86_MMU_INT_H

#include "softkvm/x86/mem.h"
#include "softkvm/x86/phys.h"

#define SK_FTLB_SIZE 1024 /* pages of instructions; a kernel's are spread over some megabytes */
#define SK_JOURNAL   2048

struct sk_ftlbe {
    uint64_t tag; /* page address | 1 if user | 2 if valid */
    uint64_t gen;
    uint64_t gpa;
    const uint8_t *host;
    bool global;
};

/* Entries filled since the last flush, so that a flush touches only those. */
struct sk_journal {
    unsigned n;             /* above SK_JOURNAL: too many, clear everything */
    uint16_t e[SK_JOURNAL]; /* table number << SK_TLB_BITS | index */
};

struct sk_mmu {
    uint64_t gen[2]; /* of the fetch TLB: entries that are not global; that are */
    unsigned last_slot;
    uint64_t large_lo, large_hi; /* span of addresses filled out of large pages */
    struct sk_journal global, local;
    struct sk_ftlbe ftlb[SK_FTLB_SIZE];
};

/* The entry for a fetch at `lin` by the privilege in force, if it is there. */
static inline struct sk_ftlbe *sk_ftlb_find(const struct sk_vcpu *c, uint64_t lin)
{
    struct sk_ftlbe *e = &c->mmu->ftlb[(lin >> 12) % SK_FTLB_SIZE];
    uint64_t tag = (lin & ~UINT64_C(4095)) | (c->cpl == 3) | 2;

    return e->tag == tag && e->gen == c->mmu->gen[e->global] ? e : NULL;
}

#endif
