/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stack accesses of general instructions: SS:rSP by the width of the stack segment.
 */
#ifndef SOFTKVM_X86_OP_STACK_H
#define SOFTKVM_X86_OP_STACK_H

#include "softkvm/x86/ops/ops.h"

static inline void stack_set_sp(struct sk_vcpu *c, uint64_t sp)
{
    if (c->spmask == 0xffff) {
        *sk_r16(c, SK_RSP) = (uint16_t)sp;
    } else {
        c->r[SK_RSP] = sp & c->spmask;
    }
}

static inline void stack_store(struct sk_vcpu *c, uint64_t off, unsigned size, uint64_t v)
{
    if (size == 8) {
        sk_st_seg64(c, SK_SS, off, v);
    } else if (size == 4) {
        sk_st_seg32(c, SK_SS, off, (uint32_t)v);
    } else {
        sk_st_seg16(c, SK_SS, off, (uint16_t)v);
    }
}

static inline uint64_t stack_load(struct sk_vcpu *c, uint64_t off, unsigned size)
{
    if (size == 8) {
        return sk_ld_seg64(c, SK_SS, off);
    }
    return size == 4 ? sk_ld_seg32(c, SK_SS, off) : sk_ld_seg16(c, SK_SS, off);
}

static inline void stack_push(struct sk_vcpu *c, unsigned size, uint64_t v)
{
    uint64_t sp = (c->r[SK_RSP] - size) & c->spmask;

    stack_store(c, sp, size, v);
    stack_set_sp(c, sp);
}

static inline uint64_t stack_pop(struct sk_vcpu *c, unsigned size)
{
    uint64_t sp = c->r[SK_RSP] & c->spmask, v = stack_load(c, sp, size);

    stack_set_sp(c, sp + size);
    return v;
}

#endif
