/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors, segment loads, control transfers between segments, privilege levels and tasks
 * (SDM 3A chapters 5, 6, 8, 2023-12).
 */
#ifndef SOFTKVM_X86_SEG_H
#define SOFTKVM_X86_SEG_H

#include "softkvm/x86/mem.h"

/* System descriptor types, S = 0 (SDM 3A §3.5). */
enum {
    SK_T_TSS16 = 1,
    SK_T_LDT = 2,
    SK_T_TSS16_BUSY = 3,
    SK_T_CALL16 = 4,
    SK_T_TASK = 5,
    SK_T_INT16 = 6,
    SK_T_TRAP16 = 7,
    SK_T_TSS32 = 9,
    SK_T_TSS32_BUSY = 11,
    SK_T_CALL32 = 12,
    SK_T_INT32 = 14,
    SK_T_TRAP32 = 15
};

struct sk_desc {
    uint32_t lo, hi;
    uint32_t base_hi; /* of 16-byte system descriptors in IA-32e mode */
    uint64_t lin;     /* where it was read */
};

static inline unsigned sk_desc_type(const struct sk_desc *d)
{
    return (d->hi >> 8) & 15;
}

static inline unsigned sk_desc_dpl(const struct sk_desc *d)
{
    return (d->hi >> 13) & 3;
}

static inline bool sk_desc_s(const struct sk_desc *d)
{
    return d->hi & (1u << 12);
}

static inline bool sk_desc_p(const struct sk_desc *d)
{
    return d->hi & (1u << 15);
}

static inline bool sk_desc_code(const struct sk_desc *d)
{
    return (d->hi & 0x1800) == 0x1800;
}

static inline bool sk_desc_conforming(const struct sk_desc *d)
{
    return d->hi & (1u << 10);
}

static inline bool sk_desc_l(const struct sk_desc *d)
{
    return d->hi & (1u << 21);
}

static inline bool sk_desc_db(const struct sk_desc *d)
{
    return d->hi & (1u << 22);
}

/* Reads the descriptor of `sel` from GDT or LDT. False if it lies beyond the table. #PF as a
 * supervisor access. */
MUST_USE bool sk_desc_read(struct sk_vcpu *c, uint16_t sel, struct sk_desc *ret);

/* Upper half of a system descriptor in IA-32e mode. False beyond the table or with a bad type
 * field. */
MUST_USE bool sk_desc_read_high(struct sk_vcpu *c, uint16_t sel, struct sk_desc *d);

/* Hidden part out of a descriptor. */
void sk_desc_to_seg(const struct sk_desc *d, uint16_t sel, struct sk_seg *ret);

/* Sets the accessed bit in memory, if not set. */
void sk_desc_accessed(struct sk_vcpu *c, struct sk_desc *d);

/* Sets or clears the busy bit of a TSS descriptor in memory. */
void sk_desc_busy(struct sk_vcpu *c, const struct sk_desc *d, bool busy);

/* MOV/POP/Lxx to ES, SS, DS, FS, GS in any mode, with all checks. Ends with sk_mode_update(). */
void sk_seg_load(struct sk_vcpu *c, unsigned seg, uint16_t sel);

/* As MOV to SS in protected mode for a given CPL; faults with `vec` (#GP or #TS). Returns the
 * hidden part without committing it. */
void sk_seg_check_ss(struct sk_vcpu *c, uint16_t sel, unsigned cpl, enum sk_vec vec, unsigned ext,
                     struct sk_seg *ret, struct sk_desc *ret_desc);

void sk_seg_lldt(struct sk_vcpu *c, uint16_t sel, enum sk_vec vec);
void sk_seg_ltr(struct sk_vcpu *c, uint16_t sel);

/* Real mode or virtual 8086 load: no checks, base = sel * 16. */
void sk_seg_load_real(struct sk_vcpu *c, unsigned seg, uint16_t sel);

/* A stack other than SS:rSP in c, to be read or written before committing it. */
struct sk_stack {
    struct sk_seg seg;
    uint64_t sp, mask;
    unsigned acc;     /* SK_ACC_SYS when it belongs to an inner level */
    uint16_t err_sel; /* of #SS */
    bool flat;        /* 64-bit mode: no segment */
};

void sk_stack_current(const struct sk_vcpu *c, struct sk_stack *ret);
void sk_stack_push(struct sk_vcpu *c, struct sk_stack *s, unsigned size, uint64_t v);
uint64_t sk_stack_pop(struct sk_vcpu *c, struct sk_stack *s, unsigned size);
/* Writes sp back to rSP by the width of the stack. */
void sk_stack_commit_sp(struct sk_vcpu *c, const struct sk_stack *s);

/* Stack of level `cpl` out of the TSS: SS and rSP, checked (#TS, #SS). */
void sk_stack_inner(struct sk_vcpu *c, unsigned cpl, unsigned ext, struct sk_stack *ret,
                    struct sk_desc *ret_ss);

/* far.c */
void sk_far_jmp(struct sk_vcpu *c, uint16_t sel, uint64_t off, unsigned osize);
void sk_far_call(struct sk_vcpu *c, uint16_t sel, uint64_t off, unsigned osize);
void sk_far_ret(struct sk_vcpu *c, unsigned osize, uint16_t release);
void sk_iret(struct sk_vcpu *c, unsigned osize);

/* Commits CS (hidden part given) and RIP; `cpl` becomes CPL. */
void sk_far_commit_cs(struct sk_vcpu *c, const struct sk_seg *cs, unsigned cpl, uint64_t rip);

/* Checks that `off` may be RIP in code segment `cs`: #GP(0). */
void sk_far_check_rip(struct sk_vcpu *c, const struct sk_seg *cs, uint64_t off);

/* task.c */
enum sk_task_why { SK_TASK_JMP, SK_TASK_CALL, SK_TASK_INT, SK_TASK_IRET };
void sk_task_switch(struct sk_vcpu *c, uint16_t sel, enum sk_task_why why, bool has_err,
                    uint32_t err, uint64_t rip, unsigned ext);

/* Updates EFLAGS from a popped image by the rules of POPF/IRET at this CPL and IOPL. `mask` = the
 * bits the operand size covers. */
void sk_flags_pop(struct sk_vcpu *c, uint32_t fl, uint32_t mask);

#endif
