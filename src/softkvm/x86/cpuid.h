/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CPUID: the feature words the engine looks at, the models, and the lookup a guest sees.
 *
 * The client gives a table (KVM_SET_CPUID2). sk_cpuid_set() keeps it and gathers the words below
 * into c->features, by which the decoder accepts forms and the mode code accepts CR and MSR bits.
 * What the engine cannot do is cleared from the gathered words whatever the client says.
 */
#ifndef SOFTKVM_X86_CPUID_H
#define SOFTKVM_X86_CPUID_H

#include <assert.h>

#include "softkvm/x86/cpu.h"

/* Words of c->features. */
enum sk_fword {
    SK_FW_1_EDX,
    SK_FW_1_ECX,
    SK_FW_7_EBX,
    SK_FW_7_ECX,
    SK_FW_7_EDX,
    SK_FW_81_EDX,
    SK_FW_81_ECX,
    SK_FW_D1_EAX,
    SK_FW_71_EAX,
    SK_FW_88_EBX, /* 80000008 */
    SK_FW_SYN,    /* bit 0 always set: rows without a condition */
    SK_FW_COUNT
};
static_assert(SK_FW_COUNT <= 16, "c->features");

/* Name, word, bit. */
/* clang-format off */
#define SK_FEATURES(F)                                                                            \
    F(FPU, 1_EDX, 0) F(VME, 1_EDX, 1) F(DE, 1_EDX, 2) F(PSE, 1_EDX, 3) F(TSC, 1_EDX, 4)            \
    F(MSR, 1_EDX, 5) F(PAE, 1_EDX, 6) F(MCE, 1_EDX, 7) F(CX8, 1_EDX, 8) F(APIC, 1_EDX, 9)          \
    F(SEP, 1_EDX, 11) F(MTRR, 1_EDX, 12) F(PGE, 1_EDX, 13) F(MCA, 1_EDX, 14) F(CMOV, 1_EDX, 15)    \
    F(PAT, 1_EDX, 16) F(PSE36, 1_EDX, 17) F(CLFSH, 1_EDX, 19) F(MMX, 1_EDX, 23)                    \
    F(FXSR, 1_EDX, 24) F(SSE, 1_EDX, 25) F(SSE2, 1_EDX, 26) F(HTT, 1_EDX, 28)                      \
    F(SSE3, 1_ECX, 0) F(PCLMUL, 1_ECX, 1) F(MONITOR, 1_ECX, 3) F(VMX, 1_ECX, 5)                    \
    F(SSSE3, 1_ECX, 9) F(FMA, 1_ECX, 12) F(CX16, 1_ECX, 13) F(PCID, 1_ECX, 17)                     \
    F(SSE41, 1_ECX, 19) F(SSE42, 1_ECX, 20) F(X2APIC, 1_ECX, 21) F(MOVBE, 1_ECX, 22)               \
    F(POPCNT, 1_ECX, 23) F(TSCDL, 1_ECX, 24) F(AES, 1_ECX, 25) F(XSAVE, 1_ECX, 26)                 \
    F(OSXSAVE, 1_ECX, 27) F(AVX, 1_ECX, 28) F(F16C, 1_ECX, 29) F(RDRAND, 1_ECX, 30)                \
    F(HV, 1_ECX, 31)                                                                               \
    F(FSGSBASE, 7_EBX, 0) F(TSC_ADJUST, 7_EBX, 1) F(BMI1, 7_EBX, 3) F(AVX2, 7_EBX, 5)              \
    F(SMEP, 7_EBX, 7) F(BMI2, 7_EBX, 8) F(ERMS, 7_EBX, 9) F(INVPCID, 7_EBX, 10)                    \
    F(RDSEED, 7_EBX, 18) F(ADX, 7_EBX, 19) F(SMAP, 7_EBX, 20) F(CLFLUSHOPT, 7_EBX, 23)             \
    F(CLWB, 7_EBX, 24) F(SHA, 7_EBX, 29)                                                           \
    F(UMIP, 7_ECX, 2) F(PKU, 7_ECX, 3) F(GFNI, 7_ECX, 8) F(VAES, 7_ECX, 9) F(VPCLMUL, 7_ECX, 10)   \
    F(RDPID, 7_ECX, 22) F(MOVDIRI, 7_ECX, 27) F(MOVDIR64B, 7_ECX, 28)                              \
    F(FSRM, 7_EDX, 4) F(SERIALIZE, 7_EDX, 14) F(SPEC_CTRL, 7_EDX, 26) F(ARCH_CAP, 7_EDX, 29)       \
    F(SYSCALL, 81_EDX, 11) F(NX, 81_EDX, 20) F(MMXEXT, 81_EDX, 22) F(FFXSR, 81_EDX, 25)            \
    F(GB_PAGES, 81_EDX, 26) F(RDTSCP, 81_EDX, 27) F(LM, 81_EDX, 29)                                \
    F(LAHF64, 81_ECX, 0) F(SVM, 81_ECX, 2) F(CR8LEG, 81_ECX, 4) F(LZCNT, 81_ECX, 5)                \
    F(PREFETCHW, 81_ECX, 8)                                                                        \
    F(XSAVEOPT, D1_EAX, 0) F(XSAVEC, D1_EAX, 1) F(XGETBV1, D1_EAX, 2) F(XSAVES, D1_EAX, 3)         \
    F(AVX_VNNI, 71_EAX, 4) F(CLZERO, 88_EBX, 0) F(WBNOINVD, 88_EBX, 9) F(ALWAYS, SYN, 0)
/* clang-format on */

enum sk_feature {
#define F(n, w, b) SK_F_##n = SK_FW_##w * 32 + (b),
    SK_FEATURES(F)
#undef F
};

static inline bool sk_has(const struct sk_vcpu *c, enum sk_feature f)
{
    return (c->features[f >> 5] >> (f & 31)) & 1;
}

/* As KVM's struct kvm_cpuid_entry2. */
struct sk_cpuid_entry {
    uint32_t function, index, flags, eax, ebx, ecx, edx, padding[3];
};

/* Feature words of this host's processor; without AVX if its operating system has not enabled it.
 */
void sk_cpuid_host(uint32_t ret_w[SK_FW_COUNT]);

/* Takes a copy of n entries. What runs on the host's own instructions is off (#UD) where the host
 * has not got them, whatever the entries say. -E2BIG, -ENOMEM. */
MUST_USE int sk_cpuid_set(struct sk_vcpu *c, const struct sk_cpuid_entry *e, unsigned n);
/* The same on a host of other words: for tests. */
MUST_USE int sk_cpuid_set_on(struct sk_vcpu *c, const struct sk_cpuid_entry *e, unsigned n,
                             const uint32_t host[SK_FW_COUNT]);

/* What CPUID returns in EAX, EBX, ECX, EDX for this guest now (APIC id, OSXSAVE and the like
 * follow state). */
void sk_cpuid_get(struct sk_vcpu *c, uint32_t leaf, uint32_t sub, uint32_t ret_reg[4]);

/* The state before sk_cpuid_set(): CPUID reads as zero, yet the guest may use what we have. */
void sk_cpuid_unset(struct sk_vcpu *c);

/* Gives the entry of a table the bits that follow the state of the CPU: OSXSAVE, APIC, MWAIT and
 * the sizes of leaf 13. */
void sk_cpuid_runtime(const struct sk_vcpu *c, struct sk_cpuid_entry *e);

/* CPUID tells this guest that it runs on one of AMD's. */
bool sk_cpuid_amd(const struct sk_vcpu *c);

/* MONITOR and MWAIT are there for this guest. */
bool sk_cpuid_has_mwait(const struct sk_vcpu *c);

/* Fills up to `max` entries with what a model offers: KVM_GET_SUPPORTED_CPUID for "host". `model`:
 * "x86-64-v1", "x86-64-v2", "x86-64-v3", "host". Returns the number, -E2BIG, -EINVAL if there is no
 * such model, or -EOPNOTSUPP if it has instructions the engine runs on the host's own and the host
 * lacks them. */
MUST_USE int sk_cpuid_model(const char *model, struct sk_cpuid_entry *ret, unsigned max);
/* The same on a host of other words: for tests. */
MUST_USE int sk_cpuid_model_on(const char *model, struct sk_cpuid_entry *ret, unsigned max,
                               const uint32_t host[SK_FW_COUNT]);

#endif
