/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory as instructions see it.
 *
 *   offset in a segment --(limit, type, canonical)--> linear --(TLB; else walk)--> host pointer
 *
 * Three families, each for 8, 16, 32 and 64 bits:
 *   sk_ld32(c, in)            the ModRM (or moffs) memory operand of the instruction
 *   sk_ld_seg32(c, seg, off)  an implicit operand; `off` already cut to the address size
 *   sk_ld_lin32(c, lin)       linear address, no segment check, current privilege
 *   sk_ld_sys32(c, lin)       implicit supervisor access (descriptor tables, TSS, IDT)
 * and the same with st. All fault by longjmp (fault.h). Little endian as the host; any alignment;
 * an access across a page border is checked on both pages before either is touched. #AC is raised
 * when CR0.AM, EFLAGS.AC and CPL 3 ask for it.
 *
 * Read-modify-write:
 *   void *p = sk_rmw(c, in, size);   checked for write; host pointer, or NULL
 * NULL means device memory or a page border: then use sk_ld (write permission has been checked) and
 * sk_st. With a pointer, locked forms use host atomics on it. sk_rmw drops code translated from
 * the bytes, so the store through the pointer must follow at once. Locked forms without a pointer
 * go through sk_split_lock()/unlock() around the two steps.
 *
 * Vector operands (16 or 32 bytes): sk_ld_bytes/sk_st_bytes, or sk_rptr/sk_wptr and a copy.
 */
#ifndef SOFTKVM_X86_MEM_H
#define SOFTKVM_X86_MEM_H

#include "softkvm/x86/decode.h"
#include "softkvm/x86/fault.h"

enum sk_access {
    SK_ACC_READ = 0,
    SK_ACC_WRITE = 1,
    SK_ACC_EXEC = 2,
    SK_ACC_SYS = 4,
    SK_ACC_NOAC = 8 /* never #AC: masked moves */
};

/* The linear address of `size` bytes at seg:off after the segment checks; the slow half of
 * sk_seg_lin. #GP, or #SS for SS. */
uint64_t sk_seg_lin_slow(struct sk_vcpu *c, unsigned seg, uint64_t off, unsigned size, bool write);

/* Slow halves: TLB miss, page border, device memory, code page. `acc` is enum sk_access bits. */
void sk_ld_slow(struct sk_vcpu *c, uint64_t lin, void *buf, unsigned size, unsigned acc);
void sk_st_slow(struct sk_vcpu *c, uint64_t lin, const void *buf, unsigned size, unsigned acc);
void *sk_rmw_slow(struct sk_vcpu *c, uint64_t lin, unsigned size);

/* Host pointer to at least `size` bytes at `lin`, or NULL for device memory or a page border;
 * *ret_left gets the bytes up to the page's end. Faults as an access would. For string ops by page
 * chunks; with write true, code on the page's first `size` bytes is dropped. */
uint8_t *sk_ptr(struct sk_vcpu *c, uint64_t lin, unsigned size, bool write, unsigned *ret_left);

void sk_split_lock(struct sk_vcpu *c);
void sk_split_unlock(struct sk_vcpu *c);

/* #AC if EFLAGS.AC, CR0.AM and CPL 3 ask for alignment checks (then no TLB entry matches) and `lin`
 * is misaligned for `size`: 16 bytes at most, 8 for 80-bit numbers. Before page faults, as AMD's
 * processors have it, but behind the check for a canonical address. */
void sk_align_check(struct sk_vcpu *c, uint64_t lin, unsigned size);

/* #GP(0) for an FXSAVE image that is not aligned; #SS(0) if it lies on the stack at an address that
 * is not canonical. (For XSAVE and SSE operands alignment comes first.) */
_Noreturn void sk_misaligned(struct sk_vcpu *c, uint64_t lin);

static inline uint64_t sk_seg_lin(struct sk_vcpu *c, unsigned seg, uint64_t off, unsigned size,
                                  bool write)
{
    const struct sk_seg *s = &c->seg[seg];

    if (UNLIKELY(off - (write ? s->wlo : s->rlo) > s->span - (size - 1))) {
        return sk_seg_lin_slow(c, seg, off, size, write);
    }
    return (s->ebase + off) & c->linmask;
}

/* Offset part of the ModRM operand, cut to the address size. */
static inline uint64_t sk_ea(const struct sk_vcpu *c, const struct sk_insn *in)
{
    uint64_t off = c->r[in->base] + (c->r[in->index] << in->scale) + (uint64_t)(int64_t)in->disp;

    return off << in->ash >> in->ash;
}

static inline uint64_t sk_ea_lin(struct sk_vcpu *c, const struct sk_insn *in, unsigned size,
                                 bool write)
{
    return sk_seg_lin(c, in->seg, sk_ea(c, in), size, write);
}

static inline uint8_t *sk_tlb_hit(const struct sk_tlb *t, uint64_t lin, unsigned size)
{
    const struct sk_tlbe *e = &t->e[(lin >> 12) & (SK_TLB_SIZE - 1)];
    uint64_t off = lin ^ e->tag;

    return LIKELY(off <= 4096 - size) ? e->host + off : NULL;
}

#define SK_MEM_ACCESS(bits)                                                                        \
    static inline uint##bits##_t sk_ld_lin##bits(struct sk_vcpu *c, uint64_t lin)                  \
    {                                                                                              \
        const uint8_t *p = sk_tlb_hit(c->rtlb, lin, bits / 8);                                     \
        uint##bits##_t v;                                                                          \
                                                                                                   \
        if (LIKELY(p)) {                                                                           \
            memcpy(&v, p, sizeof(v));                                                              \
        } else {                                                                                   \
            sk_ld_slow(c, lin, &v, sizeof(v), SK_ACC_READ);                                        \
        }                                                                                          \
        return v;                                                                                  \
    }                                                                                              \
    static inline void sk_st_lin##bits(struct sk_vcpu *c, uint64_t lin, uint##bits##_t v)          \
    {                                                                                              \
        uint8_t *p = sk_tlb_hit(c->wtlb, lin, bits / 8);                                           \
                                                                                                   \
        if (LIKELY(p)) {                                                                           \
            memcpy(p, &v, sizeof(v));                                                              \
        } else {                                                                                   \
            sk_st_slow(c, lin, &v, sizeof(v), SK_ACC_WRITE);                                       \
        }                                                                                          \
    }                                                                                              \
    static inline uint##bits##_t sk_ld_sys##bits(struct sk_vcpu *c, uint64_t lin)                  \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
                                                                                                   \
        sk_ld_slow(c, lin, &v, sizeof(v), SK_ACC_READ | SK_ACC_SYS);                               \
        return v;                                                                                  \
    }                                                                                              \
    static inline void sk_st_sys##bits(struct sk_vcpu *c, uint64_t lin, uint##bits##_t v)          \
    {                                                                                              \
        sk_st_slow(c, lin, &v, sizeof(v), SK_ACC_WRITE | SK_ACC_SYS);                              \
    }                                                                                              \
    static inline uint##bits##_t sk_ld_seg##bits(struct sk_vcpu *c, unsigned seg, uint64_t off)    \
    {                                                                                              \
        return sk_ld_lin##bits(c, sk_seg_lin(c, seg, off, bits / 8, false));                       \
    }                                                                                              \
    static inline void sk_st_seg##bits(struct sk_vcpu *c, unsigned seg, uint64_t off,              \
                                       uint##bits##_t v)                                           \
    {                                                                                              \
        sk_st_lin##bits(c, sk_seg_lin(c, seg, off, bits / 8, true), v);                            \
    }                                                                                              \
    static inline uint##bits##_t sk_ld##bits(struct sk_vcpu *c, const struct sk_insn *in)          \
    {                                                                                              \
        return sk_ld_lin##bits(c, sk_ea_lin(c, in, bits / 8, false));                              \
    }                                                                                              \
    static inline void sk_st##bits(struct sk_vcpu *c, const struct sk_insn *in, uint##bits##_t v)  \
    {                                                                                              \
        sk_st_lin##bits(c, sk_ea_lin(c, in, bits / 8, true), v);                                   \
    }

SK_MEM_ACCESS(8)
SK_MEM_ACCESS(16)
SK_MEM_ACCESS(32)
SK_MEM_ACCESS(64)
#undef SK_MEM_ACCESS

static inline void *sk_rmw(struct sk_vcpu *c, const struct sk_insn *in, unsigned size)
{
    uint64_t lin = sk_ea_lin(c, in, size, true);
    uint8_t *p = sk_tlb_hit(c->wtlb, lin, size);

    return LIKELY(p) ? p : sk_rmw_slow(c, lin, size);
}

/* The ModRM operand as bytes; size up to 64. */
static inline void sk_ld_bytes(struct sk_vcpu *c, const struct sk_insn *in, void *buf,
                               unsigned size)
{
    uint64_t lin = sk_ea_lin(c, in, size, false);
    const uint8_t *p = sk_tlb_hit(c->rtlb, lin, size);

    if (LIKELY(p)) {
        memcpy(buf, p, size);
    } else {
        sk_ld_slow(c, lin, buf, size, SK_ACC_READ);
    }
}

static inline void sk_st_bytes(struct sk_vcpu *c, const struct sk_insn *in, const void *buf,
                               unsigned size)
{
    uint64_t lin = sk_ea_lin(c, in, size, true);
    uint8_t *p = sk_tlb_hit(c->wtlb, lin, size);

    if (LIKELY(p)) {
        memcpy(p, buf, size);
    } else {
        sk_st_slow(c, lin, buf, size, SK_ACC_WRITE);
    }
}

/* Operands that an instruction demands aligned (MOVAPS and legacy SSE memory operands): #GP(0). */
static inline void sk_need_aligned(struct sk_vcpu *c, const struct sk_insn *in, unsigned align,
                                   bool write)
{
    if (UNLIKELY(sk_ea_lin(c, in, align, write) & (align - 1))) {
        sk_gp(c);
    }
}

/* --- tlb.c --- */

/* For a new vCPU, whose tables are all zero: makes them empty, without touching their pages. */
void sk_tlb_init(struct sk_vcpu *c);
/* Drops every translation of this vCPU, global pages included. */
void sk_tlb_flush_all(struct sk_vcpu *c);
/* Drops those that are not global (MOV CR3). */
void sk_tlb_flush_nonglobal(struct sk_vcpu *c);
/* Drops those of one page (INVLPG). */
void sk_tlb_flush_page(struct sk_vcpu *c, uint64_t lin);
/* Write-protects a physical page on this vCPU: code has been decoded from it. */
void sk_tlb_protect(struct sk_vcpu *c, uint64_t gpa);

/* Translates for instruction fetch: host pointer of the byte and its guest physical address. #PF.
 * NULL if the page is not RAM (then *ret_gpa is set all the same). */
const uint8_t *sk_fetch_ptr(struct sk_vcpu *c, uint64_t lin, uint64_t *ret_gpa);

/* --- walk.c --- */

struct sk_xlat {
    uint64_t gpa; /* of the byte itself */
    bool global;
    bool large; /* out of a page above 4 KiB */
};

/* Walks the page tables as an access of kind `acc` at privilege `user` would: sets A and D bits.
 * Returns 0 or the #PF error code with bit 31 set (so never 0); nothing is raised. */
uint32_t sk_walk(struct sk_vcpu *c, uint64_t lin, unsigned acc, bool user, struct sk_xlat *ret);

/* As sk_walk, without any side effect (KVM_TRANSLATE, debugger). */
uint32_t sk_walk_probe(struct sk_vcpu *c, uint64_t lin, unsigned acc, bool user,
                       struct sk_xlat *ret);

/* Loads the four PDPTEs of PAE paging from CR3. False if a reserved bit is set: #GP, nothing
 * loaded. */
MUST_USE bool sk_load_pdptes(struct sk_vcpu *c, uint64_t cr3);

#endif
