/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The translation tables of a vCPU and the slow half of every memory access.
 *
 * A write entry exists only for RAM that is writable, already marked dirty, and holds no decoded
 * code of this vCPU: whatever else must be done at a write is done here.
 */
#include "softkvm/jit/jit.h"
#include "softkvm/run/blocks.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mmu_int.h"

/* Tables in journal order: read tables of all sets, then write tables. */
static struct sk_tlbe *tlb_entry(struct sk_vcpu *c, unsigned code)
{
    unsigned t = code >> SK_TLB_BITS, i = code & (SK_TLB_SIZE - 1);

    return t < SK_TLB_NSETS ? &c->tlb_r[t].e[i] : &c->tlb_w[t - SK_TLB_NSETS].e[i];
}

static void tlb_clear(struct sk_tlbe *e, unsigned i)
{
    e->tag = (uint64_t)(i ^ 1) << 12; /* belongs to another set: nothing matches */
    e->host = NULL;
}

static void tlb_clear_all(struct sk_vcpu *c)
{
    for (unsigned t = 0; t < 2 * SK_TLB_NSETS; t++) {
        for (unsigned i = 0; i < SK_TLB_SIZE; i++) {
            tlb_clear(tlb_entry(c, t << SK_TLB_BITS | i), i);
        }
    }
    c->mmu->local.n = c->mmu->global.n = 0;
    c->mmu->large_lo = ~UINT64_C(0);
    c->mmu->large_hi = 0;
    c->mmu->gen[0]++; /* so that no fetch entry is left that the span above should tell of */
    c->mmu->gen[1]++;
}

static void tlb_flush_journal(struct sk_vcpu *c, struct sk_journal *j)
{
    for (unsigned k = 0; k < j->n; k++) {
        tlb_clear(tlb_entry(c, j->e[k]), j->e[k] & (SK_TLB_SIZE - 1));
    }
    j->n = 0;
}

void sk_tlb_flush_all(struct sk_vcpu *c)
{
    if (c->mmu->local.n > SK_JOURNAL || c->mmu->global.n > SK_JOURNAL) {
        tlb_clear_all(c);
    } else {
        tlb_flush_journal(c, &c->mmu->local);
        tlb_flush_journal(c, &c->mmu->global);
    }
    c->mmu->large_lo = ~UINT64_C(0);
    c->mmu->large_hi = 0;
    c->mmu->gen[0]++;
    c->mmu->gen[1]++;
    sk_blocks_epoch(c); /* physical addresses may mean other memory, too */
}

void sk_tlb_flush_nonglobal(struct sk_vcpu *c)
{
    if (c->mmu->local.n > SK_JOURNAL) {
        tlb_clear_all(c);
    } else {
        tlb_flush_journal(c, &c->mmu->local);
    }
    c->mmu->gen[0]++;
    sk_blocks_unmap(c);
}

void sk_tlb_flush_page(struct sk_vcpu *c, uint64_t lin)
{
    unsigned i = (lin >> 12) & (SK_TLB_SIZE - 1);
    struct sk_ftlbe *fetch = &c->mmu->ftlb[(lin >> 12) % SK_FTLB_SIZE];

    if (lin >= c->mmu->large_lo && lin <= c->mmu->large_hi) {
        sk_tlb_flush_all(c);
        return;
    }
    for (unsigned t = 0; t < 2 * SK_TLB_NSETS; t++) {
        struct sk_tlbe *e = tlb_entry(c, t << SK_TLB_BITS | i);

        if (((lin ^ e->tag) >> 12) == 0) {
            tlb_clear(e, i);
        }
    }
    if (((lin ^ fetch->tag) >> 12) == 0) {
        fetch->tag = 0;
    }
    sk_blocks_unmap(c);
}

void sk_tlb_protect(struct sk_vcpu *c, uint64_t gpa)
{
    const uint8_t *host = sk_phys_ptr(c, gpa & ~UINT64_C(4095), false);

    for (unsigned s = 0; s < SK_TLB_NSETS; s++) {
        for (unsigned i = 0; i < SK_TLB_SIZE; i++) {
            if (c->tlb_w[s].e[i].host == host) {
                tlb_clear(&c->tlb_w[s].e[i], i);
            }
        }
    }
}

/* INVLPG of any address in a large page must find all its pieces. */
static void tlb_large(struct sk_vcpu *c, uint64_t lin, const struct sk_xlat *x)
{
    if (x->large) {
        c->mmu->large_lo = MIN(c->mmu->large_lo, lin & ~(GIB - 1));
        c->mmu->large_hi = MAX(c->mmu->large_hi, lin | (GIB - 1));
    }
}

static void tlb_fill(struct sk_vcpu *c, uint64_t lin, uint8_t *host, bool write,
                     const struct sk_xlat *x)
{
    struct sk_tlb *tlb = write ? c->wtlb : c->rtlb;
    unsigned i = (lin >> 12) & (SK_TLB_SIZE - 1);
    unsigned t = (unsigned)(write ? tlb - c->tlb_w + SK_TLB_NSETS : tlb - c->tlb_r);
    struct sk_journal *j = x->global ? &c->mmu->global : &c->mmu->local;

    if (t % SK_TLB_NSETS == SK_TLB_EMPTY) {
        return;
    }
    tlb->e[i].tag = lin & ~UINT64_C(4095);
    tlb->e[i].host = host - (lin & 4095);
    if (j->n < SK_JOURNAL) {
        j->e[j->n] = (uint16_t)(t << SK_TLB_BITS | i);
    }
    j->n += j->n <= SK_JOURNAL;
    tlb_large(c, lin, x);
}

static bool tlb_canonical(const struct sk_vcpu *c, uint64_t lin)
{
    return !sk_lma(c) || (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}

/* #SS for stack references, #GP otherwise: the segment is known to the instruction only. */
static _Noreturn void tlb_noncanonical(struct sk_vcpu *c, uint64_t lin, unsigned acc)
{
    const struct sk_insn *in = c->cur;
    uint32_t attr;
    bool stack;

    if ((acc & SK_ACC_SYS) || !in) {
        sk_gp(c);
    }
    attr = sk_rows[in->row].attr;
    if ((in->flags & SK_IN_MEM) &&
        ((attr & A_DATA) || ((c->seg[in->seg].ebase + sk_ea(c, in)) & c->linmask) == lin)) {
        stack = in->seg == SK_SS;
    } else {
        stack = !(attr & (A_STR | A_DATA));
    }
    sk_raise_err(c, stack ? SK_SSF : SK_GP, 0);
}

void sk_misaligned(struct sk_vcpu *c, uint64_t lin)
{
    if (!tlb_canonical(c, lin)) {
        tlb_noncanonical(c, lin, SK_ACC_READ);
    }
    sk_gp(c);
}

/* Checks and translates one access within a page. Host pointer, or NULL for device memory. */
static uint8_t *tlb_resolve(struct sk_vcpu *c, uint64_t lin, unsigned acc, struct sk_xlat *ret)
{
    bool user = c->cpl == 3 && !(acc & SK_ACC_SYS);
    uint32_t err;
    uint8_t *p;

    if (!tlb_canonical(c, lin)) {
        tlb_noncanonical(c, lin, acc);
    }
    acc &= ~(unsigned)SK_ACC_NOAC;
    err = sk_walk(c, lin, acc, user, ret);
    if (err) {
        sk_raise_pf(c, lin, err & ~BIT(31));
    }
    p = sk_phys_ptr(c, ret->gpa, acc & SK_ACC_WRITE);
    if (p && !(acc & (SK_ACC_SYS | SK_ACC_WRITE))) {
        tlb_fill(c, lin, p, false, ret);
    }
    return p;
}

/* A store of `size` bytes is about to go to RAM at p: drops code decoded from there; gives the page
 * a write entry if it holds none. */
static void tlb_store(struct sk_vcpu *c, uint64_t lin, uint8_t *p, unsigned size, unsigned acc,
                      const struct sk_xlat *x)
{
    if (UNLIKELY(c->jit.replaying)) {
        sk_jit_logged(c, p, size);
        return;
    }
    if (sk_blocks_written(c, x->gpa, size)) {
        return; /* other code remains on the page */
    }
    if (!(acc & SK_ACC_SYS)) {
        tlb_fill(c, lin, p, true, x);
    }
}

void sk_align_check(struct sk_vcpu *c, uint64_t lin, unsigned size)
{
    unsigned align = size == 10 ? 8 : MIN(size & -size, 16u);

    if (UNLIKELY(c->rtlb == &c->tlb_r[SK_TLB_EMPTY]) && (lin & (align - 1)) && c->cpl == 3 &&
        tlb_canonical(c, lin) && (c->eflags & SK_FL_AC) && (c->cr0 & BIT(18))) {
        sk_raise_err(c, SK_AC, 0);
    }
}

/* Data breakpoints (SDM 3B §17.2.5): remembered in db_pending, taken after the instruction. While
 * any is armed no table is filled, so that every access comes by here. */
static void tlb_watch(struct sk_vcpu *c, uint64_t lin, unsigned size, bool write)
{
    const uint64_t *dr = sk_debug_regs(c);

    if (LIKELY(c->rtlb != &c->tlb_r[SK_TLB_EMPTY])) {
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t lens[4] = { 1, 2, 8, 4 };
        unsigned rw = (dr[7] >> (16 + 4 * i)) & 3, len = lens[(dr[7] >> (18 + 4 * i)) & 3];
        uint64_t at = dr[i] & ~(uint64_t)(len - 1);

        if (((dr[7] >> (2 * i)) & 3) && (rw == 3 || (rw == 1 && write)) && at < lin + size &&
            lin < at + len) {
            c->db_pending |= BIT64(i);
        }
    }
}

void sk_ld_slow(struct sk_vcpu *c, uint64_t lin, void *buf, unsigned size, unsigned acc)
{
    unsigned n1 = MIN(size, (unsigned)(4096 - (lin & 4095)));
    struct sk_xlat x[2] = { 0 };
    const uint8_t *p[2] = { NULL };

    if (!(acc & SK_ACC_SYS)) {
        tlb_watch(c, lin, size, acc & SK_ACC_WRITE);
    }
    if (!(acc & (SK_ACC_SYS | SK_ACC_NOAC))) {
        sk_align_check(c, lin, size);
    }
    p[0] = tlb_resolve(c, lin, acc, &x[0]);
    if (n1 < size) {
        p[1] = tlb_resolve(c, (lin + n1) & (sk_lma(c) ? ~UINT64_C(0) : 0xffffffff), acc, &x[1]);
    }
    if (p[0]) {
        memcpy(buf, p[0], n1);
    } else {
        sk_mmio_read(c, x[0].gpa, buf, n1);
    }
    if (n1 == size) {
        return;
    }
    if (p[1]) {
        memcpy((uint8_t *)buf + n1, p[1], size - n1);
    } else {
        sk_mmio_read(c, x[1].gpa, (uint8_t *)buf + n1, size - n1);
    }
}

static void tlb_put(struct sk_vcpu *c, uint64_t lin, uint8_t *p, const struct sk_xlat *x,
                    const void *buf, unsigned size, unsigned acc)
{
    if (!p) {
        sk_mmio_write(c, x->gpa, buf, size);
        return;
    }
    tlb_store(c, lin, p, size, acc, x);
    switch (size) { /* one store for what the guest may count on to be atomic */
    case 2:
        memcpy(p, buf, 2);
        break;
    case 4:
        memcpy(p, buf, 4);
        break;
    case 8:
        memcpy(p, buf, 8);
        break;
    default:
        memcpy(p, buf, size);
        break;
    }
}

void sk_st_slow(struct sk_vcpu *c, uint64_t lin, const void *buf, unsigned size, unsigned acc)
{
    unsigned n1 = MIN(size, (unsigned)(4096 - (lin & 4095)));
    uint64_t lin2 = (lin + n1) & (sk_lma(c) ? ~UINT64_C(0) : 0xffffffff);
    struct sk_xlat x[2] = { 0 };
    uint8_t *p[2] = { NULL };

    if (!(acc & SK_ACC_SYS)) {
        tlb_watch(c, lin, size, acc & SK_ACC_WRITE);
    }
    if (!(acc & (SK_ACC_SYS | SK_ACC_NOAC))) {
        sk_align_check(c, lin, size);
    }
    p[0] = tlb_resolve(c, lin, acc, &x[0]);
    if (n1 < size) {
        p[1] = tlb_resolve(c, lin2, acc, &x[1]);
    }
    tlb_put(c, lin, p[0], &x[0], buf, n1, acc);
    if (n1 < size) {
        tlb_put(c, lin2, p[1], &x[1], (const uint8_t *)buf + n1, size - n1, acc);
    }
}

void *sk_rmw_slow(struct sk_vcpu *c, uint64_t lin, unsigned size)
{
    struct sk_xlat x;
    uint8_t *p;

    tlb_watch(c, lin, size, true);
    sk_align_check(c, lin, size);
    p = tlb_resolve(c, lin, SK_ACC_WRITE, &x);
    if ((lin & 4095) + size > 4096) {
        struct sk_xlat x2;

        (void)tlb_resolve(c, ((lin | 4095) + 1) & (sk_lma(c) ? ~UINT64_C(0) : 0xffffffff),
                          SK_ACC_WRITE, &x2); /* only for its faults */
        return NULL;
    }
    if (p) {
        tlb_store(c, lin, p, size, SK_ACC_WRITE, &x);
    }
    return p;
}

uint8_t *sk_ptr(struct sk_vcpu *c, uint64_t lin, unsigned size, bool write, unsigned *ret_left)
{
    struct sk_tlbe *e = &(write ? c->wtlb : c->rtlb)->e[(lin >> 12) & (SK_TLB_SIZE - 1)];
    unsigned left = (unsigned)(4096 - (lin & 4095));
    struct sk_xlat x;
    uint8_t *p;

    *ret_left = left;
    if (size > left) {
        return NULL;
    }
    if ((lin ^ e->tag) < 4096) {
        return e->host + (lin ^ e->tag);
    }
    tlb_watch(c, lin, size, write);
    sk_align_check(c, lin, size);
    p = tlb_resolve(c, lin, write ? SK_ACC_WRITE : SK_ACC_READ, &x);
    if (p && write) {
        tlb_store(c, lin, p, size, SK_ACC_WRITE, &x);
        if ((lin ^ e->tag) >= 4096) {
            *ret_left = size; /* code remains on the page: only what was asked for */
        }
    }
    return p;
}

const uint8_t *sk_fetch_ptr(struct sk_vcpu *c, uint64_t lin, uint64_t *ret_gpa)
{
    struct sk_ftlbe *e = sk_ftlb_find(c, lin);
    struct sk_xlat x;
    uint32_t err;

    if (e) {
        *ret_gpa = e->gpa + (lin & 4095);
        return e->host ? e->host + (lin & 4095) : NULL;
    }
    if (sk_code64(c) && (uint64_t)((int64_t)(lin << 16) >> 16) != lin) {
        sk_gp(c);
    }
    err = sk_walk(c, lin, SK_ACC_EXEC, c->cpl == 3, &x);
    if (err) {
        sk_raise_pf(c, lin, err & ~BIT(31));
    }
    tlb_large(c, lin, &x);
    e = &c->mmu->ftlb[(lin >> 12) % SK_FTLB_SIZE];
    *e = (struct sk_ftlbe){ .tag = (lin & ~UINT64_C(4095)) | (c->cpl == 3) | 2,
                            .gen = c->mmu->gen[x.global],
                            .gpa = x.gpa & ~UINT64_C(4095),
                            .host = sk_phys_ptr(c, x.gpa & ~UINT64_C(4095), false),
                            .global = x.global };
    *ret_gpa = x.gpa;
    return e->host ? e->host + (lin & 4095) : NULL;
}

void sk_tlb_init(struct sk_vcpu *c)
{
    for (unsigned t = 0; t < 2 * SK_TLB_NSETS; t++) {
        tlb_clear(tlb_entry(c, t << SK_TLB_BITS), 0); /* of all entries, page 0 belongs here */
    }
    c->mmu->large_lo = ~UINT64_C(0);
    c->mmu->gen[0]++;
    c->mmu->gen[1]++;
}

/* Locked accesses that no host instruction can do exclude each other; against plain locked
 * accesses to the same bytes they are as good as the host's stores of each half. */
void sk_split_lock(struct sk_vcpu *c)
{
    while (atomic_exchange_explicit(&c->vm->split_lock, 1, memory_order_acquire)) {
        __builtin_ia32_pause();
    }
    c->split_held = true;
}

void sk_split_unlock(struct sk_vcpu *c)
{
    if (c->split_held) {
        c->split_held = false;
        atomic_store_explicit(&c->vm->split_lock, 0, memory_order_release);
    }
}
