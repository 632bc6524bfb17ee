/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page walks (SDM 3A chapter 4, 2023-12): 32-bit, PAE and 4-level paging in one loop over levels.
 * The entry's A and D bits are set by compare-and-swap after the access has been found to be
 * allowed, so that another vCPU's update is never lost.
 */
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mmu_int.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX   BIT64(63)
#define PTE_ADDR UINT64_C(0x000ffffffffff000)
#define FAULT    BIT(31)

#define CR4_PSE  BIT(4)
#define CR4_PAE  BIT(5)
#define CR4_PGE  BIT(7)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define CR0_WP   BIT(16)
#define CR0_PG   BIT(31)
#define EFER_NXE BIT(11)

struct walk {
    struct sk_vcpu *c;
    uint64_t lin;
    unsigned acc;
    bool user, probe;
    bool wide; /* 8-byte entries */
    int level; /* of the entry in hand: 4 to 1 */
    uint64_t rsvd;
    uint64_t entry[5];
    uint64_t where[5];
    uint64_t rights; /* AND of W, U; NX is kept apart */
    bool nx;
};

static uint32_t walk_error(const struct walk *w, uint32_t bits)
{
    bool id = (w->acc & SK_ACC_EXEC) &&
              (((w->c->efer & EFER_NXE) && (w->c->cr4 & CR4_PAE)) || (w->c->cr4 & CR4_SMEP));

    return FAULT | bits | (w->acc & SK_ACC_WRITE ? SK_PF_W : 0u) | (w->user ? SK_PF_U : 0u) |
           (id ? SK_PF_I : 0u);
}

static uint64_t walk_read(struct walk *w, uint64_t gpa)
{
    const uint8_t *p = sk_phys_ptr(w->c, gpa, false);

    if (!p) {
        return 0; /* tables outside memory: nothing present */
    }
    return w->wide ? __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED)
                   : __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
}

/* Sets bits in a table entry if it still is what was read. False: it changed, walk again. */
static bool walk_update(struct walk *w, int level, uint64_t bits)
{
    uint64_t old = w->entry[level];
    uint8_t *p;

    if ((old & bits) == bits || w->probe) {
        return true;
    }
    p = sk_phys_ptr(w->c, w->where[level], true);
    if (!p) {
        return true; /* tables in read-only memory stay as they are */
    }
    if (w->wide) {
        return __atomic_compare_exchange_n((uint64_t *)(void *)p, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    uint32_t old32 = (uint32_t)old;
    return __atomic_compare_exchange_n((uint32_t *)(void *)p, &old32, old32 | (uint32_t)bits, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static uint64_t walk_rsvd_wide(const struct walk *w, bool large)
{
    uint64_t r = w->rsvd;

    if (w->level == 4) {
        r |= PTE_PS;
    } else if (w->level == 3 && !sk_has(w->c, SK_F_GB_PAGES)) {
        r |= PTE_PS;
    }
    if (large) {
        r |= w->level == 3 ? UINT64_C(0x3fffe000) : UINT64_C(0x1fe000);
    }
    return r;
}

static uint64_t walk_rsvd_narrow(const struct walk *w, uint64_t e)
{
    unsigned extra = w->c->maxphyaddr > 40 ? 40 : w->c->maxphyaddr;

    if (w->level != 2 || !(e & PTE_PS) || !(w->c->cr4 & CR4_PSE)) {
        return 0;
    }
    if (!sk_has(w->c, SK_F_PSE36)) {
        extra = 32;
    }
    /* Bit 21, and those of bits 20:13 that stand for address bits we do not have. */
    return BIT(21) | (UINT64_C(0x1fe000) & ~((BIT64(extra - 32 + 13)) - 1));
}

/* One level. 0 go down, 1 leaf, or an error with FAULT. */
static uint32_t walk_step(struct walk *w, uint64_t table)
{
    unsigned bits = w->wide ? 9 : 10, shift = 12 + bits * ((unsigned)w->level - 1);
    uint64_t idx = (w->lin >> shift) & ((1u << bits) - 1), e;
    bool large;

    w->where[w->level] = table + idx * (w->wide ? 8 : 4);
    e = w->entry[w->level] = walk_read(w, w->where[w->level]);
    if (!(e & PTE_P)) {
        return walk_error(w, 0);
    }
    large = w->level > 1 && (e & PTE_PS) && (w->wide || (w->c->cr4 & CR4_PSE));
    if (e & (w->wide ? walk_rsvd_wide(w, large) : walk_rsvd_narrow(w, e))) {
        return walk_error(w, SK_PF_P | SK_PF_RSVD);
    }
    w->rights &= e;
    w->nx |= w->wide && (e & PTE_NX);
    return large || w->level == 1;
}

static uint32_t walk_allowed(const struct walk *w)
{
    const struct sk_vcpu *c = w->c;
    bool us = w->rights & PTE_U, rw = w->rights & PTE_W, bad;

    bad = w->user && !us;
    if (w->acc & SK_ACC_WRITE) {
        bad |= !rw && (w->user || (c->cr0 & CR0_WP));
    }
    if (w->acc & SK_ACC_EXEC) {
        bad |= w->nx || (!w->user && us && (c->cr4 & CR4_SMEP));
    } else if (!w->user && us && (c->cr4 & CR4_SMAP)) {
        bad |= (w->acc & SK_ACC_SYS) || !(c->eflags & SK_FL_AC);
    }
    return bad ? walk_error(w, SK_PF_P) : 0;
}

static uint64_t walk_leaf_gpa(const struct walk *w)
{
    uint64_t e = w->entry[w->level], mask;

    if (w->level == 1) {
        mask = 4095;
    } else if (!w->wide) {
        return (e & 0xffc00000) | ((e & 0x1fe000) << 19) | (w->lin & 0x3fffff);
    } else {
        mask = w->level == 2 ? 0x1fffff : 0x3fffffff;
    }
    return (e & PTE_ADDR & ~mask) | (w->lin & mask);
}

/* Down from `table` at w->level; fills ret. 0, an error, or 1: an entry changed under us. */
static uint32_t walk_down(struct walk *w, uint64_t table, int top, struct sk_xlat *ret)
{
    uint32_t r;
    uint64_t leaf;

    for (;;) {
        r = walk_step(w, table);
        if (r) {
            break;
        }
        table = w->entry[w->level] & (w->wide ? PTE_ADDR : 0xfffff000);
        w->level--;
    }
    if (r != 1) {
        return r;
    }
    r = walk_allowed(w);
    if (r) {
        return r;
    }
    for (int l = top; l > w->level; l--) {
        if (!walk_update(w, l, PTE_A)) {
            return 1;
        }
    }
    leaf = PTE_A | (w->acc & SK_ACC_WRITE ? (uint64_t)PTE_D : 0);
    if (!walk_update(w, w->level, leaf)) {
        return 1;
    }
    ret->gpa = walk_leaf_gpa(w);
    ret->global = (w->entry[w->level] & PTE_G) && (w->c->cr4 & CR4_PGE);
    ret->large = w->level > 1;
    return 0;
}

static uint32_t walk_start(struct sk_vcpu *c, uint64_t lin, unsigned acc, bool user, bool probe,
                           struct sk_xlat *ret)
{
    struct walk w = {
        .c = c, .lin = lin, .acc = acc, .user = user, .probe = probe, .rights = ~UINT64_C(0)
    };
    uint64_t table;
    int top;

    w.wide = c->cr4 & CR4_PAE;
    w.rsvd = w.wide ? PTE_ADDR & ~(BIT64(c->maxphyaddr) - 1) : 0;
    if (w.wide && !(c->efer & EFER_NXE)) {
        w.rsvd |= PTE_NX;
    }
    if (sk_lma(c)) {
        top = 4;
        table = c->cr3 & PTE_ADDR;
    } else if (w.wide) {
        uint64_t e = c->pdpte[(lin >> 30) & 3];

        if (!(e & PTE_P)) {
            return walk_error(&w, 0);
        }
        w.rsvd |= UINT64_C(0x7ff0000000000000);
        top = 2;
        table = e & PTE_ADDR;
    } else {
        top = 2;
        table = c->cr3 & 0xfffff000;
    }
    w.level = top;
    return walk_down(&w, table, top, ret);
}

static uint32_t walk_any(struct sk_vcpu *c, uint64_t lin, unsigned acc, bool user, bool probe,
                         struct sk_xlat *ret)
{
    uint32_t r;

    if (!(c->cr0 & CR0_PG)) {
        *ret = (struct sk_xlat){ .gpa = lin };
        return 0;
    }
    /* An entry can change under us only as often as others write it: try a few times, then fault
     * as not present, which any guest must cope with. */
    for (int tries = 0; tries < 64; tries++) {
        r = walk_start(c, lin, acc, user, probe, ret);
        if (r != 1) {
            return r;
        }
    }
    return FAULT | (acc & SK_ACC_WRITE ? SK_PF_W : 0u) | (user ? SK_PF_U : 0u);
}

uint32_t sk_walk(struct sk_vcpu *c, uint64_t lin, unsigned acc, bool user, struct sk_xlat *ret)
{
    return walk_any(c, lin, acc, user, false, ret);
}

uint32_t sk_walk_probe(struct sk_vcpu *c, uint64_t lin, unsigned acc, bool user,
                       struct sk_xlat *ret)
{
    return walk_any(c, lin, acc, user, true, ret);
}

bool sk_load_pdptes(struct sk_vcpu *c, uint64_t cr3)
{
    uint64_t e[4];
    uint64_t rsvd = (~(BIT64(c->maxphyaddr) - 1)) | UINT64_C(0x1e6);

    sk_phys_read(c, cr3 & 0xffffffe0, e, sizeof(e));
    for (int i = 0; i < 4; i++) {
        if ((e[i] & PTE_P) && (e[i] & rsvd)) {
            return false;
        }
    }
    memcpy(c->pdpte, e, sizeof(e));
    return true;
}
