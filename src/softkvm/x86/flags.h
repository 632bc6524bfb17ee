/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RFLAGS of a vCPU. Arithmetic flags are computed by the host: an op runs the host instruction and
 * follows it with `lahf; seto %al`, which leaves SF ZF AF PF CF in AH (their places in EFLAGS) and
 * OF in AL. The 16-bit AX goes to c->af as it is. So flags that the manual leaves undefined come
 * out as this host makes them, and nothing is lazily recomputed.
 */
#ifndef SOFTKVM_X86_FLAGS_H
#define SOFTKVM_X86_FLAGS_H

#include "softkvm/x86/cpu.h"

enum {
    SK_FL_CF = 0x0001,
    SK_FL_ONE = 0x0002,
    SK_FL_PF = 0x0004,
    SK_FL_AF = 0x0010,
    SK_FL_ZF = 0x0040,
    SK_FL_SF = 0x0080,
    SK_FL_TF = 0x0100,
    SK_FL_IF = 0x0200,
    SK_FL_DF = 0x0400,
    SK_FL_OF = 0x0800,
    SK_FL_IOPL = 0x3000,
    SK_FL_NT = 0x4000,
    SK_FL_RF = 0x10000,
    SK_FL_VM = 0x20000,
    SK_FL_AC = 0x40000,
    SK_FL_VIF = 0x80000,
    SK_FL_VIP = 0x100000,
    SK_FL_ID = 0x200000,
    SK_FL_ARITH = 0x08d5,
    SK_FL_ALL = 0x3f7fd5
};

/* The same bits as they sit in c->af. */
enum {
    SK_AF_OF = 0x0001,
    SK_AF_CF = 0x0100,
    SK_AF_PF = 0x0400,
    SK_AF_AF = 0x1000,
    SK_AF_ZF = 0x4000,
    SK_AF_SF = 0x8000,
    SK_AF_ALL = 0xd501
};

static inline uint32_t sk_af_to_eflags(uint16_t af)
{
    return ((af >> 8) & 0xd5u) | ((af & 1u) << 11);
}

static inline uint16_t sk_af_from_eflags(uint32_t fl)
{
    return (uint16_t)(((fl & 0xd5u) << 8) | ((fl >> 11) & 1u));
}

/* All of RFLAGS as PUSHF in ring 0 would see it (with RF and VM). */
static inline uint32_t sk_flags_get(const struct sk_vcpu *c)
{
    return c->eflags | sk_af_to_eflags(c->af);
}

/* Replaces the arithmetic flags only. */
static inline void sk_flags_set_arith(struct sk_vcpu *c, uint32_t fl)
{
    c->af = sk_af_from_eflags(fl);
}

/* Replaces all flags without any check; the caller ends the block and, if VM changed, calls
 * sk_mode_update(). Sets and clears the TF and RF reasons of c->special. */
static inline void sk_flags_set(struct sk_vcpu *c, uint32_t fl)
{
    c->af = sk_af_from_eflags(fl);
    c->eflags = (fl & (SK_FL_ALL & ~(uint32_t)SK_FL_ARITH)) | SK_FL_ONE;
    c->special &= ~(uint32_t)(SK_SPECIAL_TF | SK_SPECIAL_RF);
    if (fl & (SK_FL_TF | SK_FL_RF)) {
        c->special |= (fl & SK_FL_TF ? SK_SPECIAL_TF : 0u) | (fl & SK_FL_RF ? SK_SPECIAL_RF : 0u);
    }
}

/* The sixteen conditions of Jcc, SETcc, CMOVcc (SDM 2 appendix B.1.4.7). */
static inline bool sk_cond(const struct sk_vcpu *c, unsigned cc)
{
    unsigned af = c->af;
    bool r;

    switch (cc >> 1) {
    case 0:
        r = af & SK_AF_OF;
        break;
    case 1:
        r = af & SK_AF_CF;
        break;
    case 2:
        r = af & SK_AF_ZF;
        break;
    case 3:
        r = af & (SK_AF_CF | SK_AF_ZF);
        break;
    case 4:
        r = af & SK_AF_SF;
        break;
    case 5:
        r = af & SK_AF_PF;
        break;
    case 6:
        r = ((af >> 15) ^ af) & 1;
        break;
    default:
        r = (af & SK_AF_ZF) || (((af >> 15) ^ af) & 1);
        break;
    }
    return r ^ (cc & 1);
}

#endif
