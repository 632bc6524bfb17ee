/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>

#include "softkvm/jit/jit.h"
#include "softkvm/run/blocks.h"
#include "softkvm/x86/crs.h"

#define MAX_ENTRIES 256 /* KVM_MAX_CPUID_ENTRIES */

/* Where a word of c->features stands: leaf, subleaf, register (0 EAX to 3 EDX). */
struct word_place {
    uint32_t leaf, sub;
    uint8_t reg;
};

static const struct word_place places[SK_FW_COUNT] = {
    [SK_FW_1_EDX] = {1,           0, 3},
    [SK_FW_1_ECX] = { 1,          0, 2},
    [SK_FW_7_EBX] = { 7,          0, 1},
    [SK_FW_7_ECX] = { 7,          0, 2},
    [SK_FW_7_EDX] = { 7,          0, 3},
    [SK_FW_81_EDX] = { 0x80000001, 0, 3},
    [SK_FW_81_ECX] = { 0x80000001, 0, 2},
    [SK_FW_D1_EAX] = { 13,         1, 0},
    [SK_FW_71_EAX] = { 7,          1, 0},
    [SK_FW_88_EBX] = { 0x80000008, 0, 1},
    [SK_FW_SYN] = { 0,          0, 0},
};

/* What the engine executes, in the levels of the psABI; each includes those before. System features
 * go with the level whose processors had them. */
static const uint16_t level1[] = {
    SK_F_FPU,    SK_F_DE,    SK_F_PSE,  SK_F_TSC,        SK_F_MSR,      SK_F_PAE,
    SK_F_MCE,    SK_F_CX8,   SK_F_APIC, SK_F_SEP,        SK_F_MTRR,     SK_F_PGE,
    SK_F_MCA,    SK_F_CMOV,  SK_F_PAT,  SK_F_PSE36,      SK_F_CLFSH,    SK_F_MMX,
    SK_F_FXSR,   SK_F_SSE,   SK_F_SSE2, SK_F_SYSCALL,    SK_F_NX,       SK_F_LM,
    SK_F_X2APIC, SK_F_TSCDL, SK_F_HV,   SK_F_TSC_ADJUST, SK_F_ARCH_CAP,
};
static const uint16_t level2[] = {
    SK_F_SSE3, SK_F_SSSE3, SK_F_CX16, SK_F_SSE41, SK_F_SSE42, SK_F_POPCNT, SK_F_LAHF64, SK_F_RDTSCP,
};
static const uint16_t level3[] = {
    SK_F_AVX,    SK_F_AVX2,    SK_F_BMI1,  SK_F_BMI2,     SK_F_F16C,      SK_F_FMA,
    SK_F_LZCNT,  SK_F_MOVBE,   SK_F_XSAVE, SK_F_XSAVEOPT, SK_F_PCLMUL,    SK_F_AES,
    SK_F_PCID,   SK_F_INVPCID, SK_F_SMEP,  SK_F_SMAP,     SK_F_FSGSBASE,  SK_F_ERMS,
    SK_F_RDRAND, SK_F_RDSEED,  SK_F_ADX,   SK_F_GB_PAGES, SK_F_PREFETCHW, SK_F_UMIP,
};
/* Of the host's only: what no level asks for. */
static const uint16_t level_host[] = {
    SK_F_SHA,    SK_F_CLFLUSHOPT, SK_F_CLWB,   SK_F_RDPID,    SK_F_FSRM,
    SK_F_XSAVEC, SK_F_XGETBV1,    SK_F_CLZERO, SK_F_WBNOINVD, SK_F_SERIALIZE,
};
/* Not a matter of the host's processor: the engine does it by itself. */
static const uint16_t level_own[] = {
    SK_F_DE,    SK_F_PSE,        SK_F_TSC,      SK_F_MSR,    SK_F_PAE,      SK_F_MCE,
    SK_F_APIC,  SK_F_SEP,        SK_F_MTRR,     SK_F_PGE,    SK_F_MCA,      SK_F_PAT,
    SK_F_PSE36, SK_F_SYSCALL,    SK_F_NX,       SK_F_LM,     SK_F_X2APIC,   SK_F_TSCDL,
    SK_F_HV,    SK_F_TSC_ADJUST, SK_F_ARCH_CAP, SK_F_RDTSCP, SK_F_PCID,     SK_F_INVPCID,
    SK_F_SMEP,  SK_F_SMAP,       SK_F_FSGSBASE, SK_F_UMIP,   SK_F_GB_PAGES, SK_F_LAHF64,
    SK_F_MOVBE, SK_F_POPCNT,     SK_F_LZCNT,    SK_F_BMI1,   SK_F_BMI2,     SK_F_ADX,
    SK_F_RDPID,
};

/* Instructions whose bodies run the host's own (hostexec.h, CMPXCHG16B): never for a guest on a
 * host without them, whatever its CPUID table says. */
static const uint16_t needs_host[] = {
    SK_F_FPU,  SK_F_CX8,   SK_F_CMOV,   SK_F_MMX,  SK_F_FXSR,  SK_F_SSE, SK_F_SSE2,
    SK_F_SSE3, SK_F_SSSE3, SK_F_SSE41,  SK_F_CX16, SK_F_SSE42, SK_F_AES, SK_F_AVX,
    SK_F_AVX2, SK_F_F16C,  SK_F_PCLMUL, SK_F_FMA,  SK_F_SHA,
};
/* Of those, what AVX state enabled by the host's operating system is needed for. */
static const uint16_t needs_ymm[] = { SK_F_AVX, SK_F_AVX2, SK_F_F16C, SK_F_FMA };

static void words_add(uint32_t *w, const uint16_t *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        w[list[i] >> 5] |= BIT(list[i] & 31);
    }
}
#define WORDS_ADD(w, list) words_add(w, list, ARRAY_LEN(list))

static void words_of_engine(uint32_t *w)
{
    memset(w, 0, SK_FW_COUNT * sizeof(*w));
    WORDS_ADD(w, level1);
    WORDS_ADD(w, level2);
    WORDS_ADD(w, level3);
    WORDS_ADD(w, level_host);
    w[SK_FW_SYN] = 1;
}

static void host_cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    r[0] = r[1] = r[2] = r[3] = 0;
    (void)__get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]);
}

void sk_cpuid_host(uint32_t w[SK_FW_COUNT])
{
    uint32_t r[4], ymm[SK_FW_COUNT] = { 0 }, lo = 0, hi;

    for (unsigned i = 0; i < SK_FW_SYN; i++) {
        host_cpuid(places[i].leaf, places[i].sub, r);
        w[i] = r[places[i].reg];
    }
    w[SK_FW_SYN] = 1;
    if (w[SK_FW_1_ECX] & BIT(27)) { /* OSXSAVE */
        __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    }
    if ((lo & 6) != 6) {
        WORDS_ADD(ymm, needs_ymm);
        for (unsigned i = 0; i < SK_FW_COUNT; i++) {
            w[i] &= ~ymm[i];
        }
    }
}

/* What the engine executes on a host of these words. */
static void words_possible(uint32_t *w, const uint32_t *host)
{
    uint32_t need[SK_FW_COUNT] = { 0 };

    words_of_engine(w);
    WORDS_ADD(need, needs_host);
    for (unsigned i = 0; i < SK_FW_SYN; i++) {
        w[i] &= host[i] | ~need[i];
    }
}

/* And of that, what the model `host` shows. */
static void words_of_host(uint32_t *w, const uint32_t *host)
{
    uint32_t own[SK_FW_COUNT] = { 0 };

    words_possible(w, host);
    WORDS_ADD(own, level_own);
    for (unsigned i = 0; i < SK_FW_SYN; i++) {
        w[i] &= host[i] | own[i];
    }
}

void sk_cpuid_unset(struct sk_vcpu *c)
{
    uint32_t host[SK_FW_COUNT];

    sk_cpuid_host(host);
    words_of_host(c->features, host);
}

static const struct sk_cpuid_entry *cpuid_find(const struct sk_vcpu *c, uint32_t leaf, uint32_t sub)
{
    for (unsigned i = 0; i < c->cpuid_n; i++) {
        const struct sk_cpuid_entry *e = &c->cpuid[i];

        if (e->function == leaf && (!(e->flags & 1) || e->index == sub)) {
            return e;
        }
    }
    return NULL;
}

int sk_cpuid_set(struct sk_vcpu *c, const struct sk_cpuid_entry *e, unsigned n)
{
    uint32_t host[SK_FW_COUNT];

    sk_cpuid_host(host);
    return sk_cpuid_set_on(c, e, n, host);
}

int sk_cpuid_set_on(struct sk_vcpu *c, const struct sk_cpuid_entry *e, unsigned n,
                    const uint32_t host[SK_FW_COUNT])
{
    struct sk_cpuid_entry *copy;
    const struct sk_cpuid_entry *p;
    uint32_t w[SK_FW_COUNT];

    if (n > MAX_ENTRIES) {
        return -E2BIG;
    }
    copy = calloc(n ? n : 1, sizeof(*copy));
    if (!copy) {
        return -ENOMEM;
    }
    memcpy(copy, e, n * sizeof(*e));
    free((void *)(uintptr_t)c->cpuid);
    c->cpuid = copy;
    c->cpuid_n = n;
    words_possible(w, host);
    for (unsigned i = 0; i < SK_FW_SYN; i++) {
        p = cpuid_find(c, places[i].leaf, places[i].sub);
        c->features[i] = p ? w[i] & (&p->eax)[places[i].reg] : 0;
    }
    c->features[SK_FW_SYN] = 1;
    p = cpuid_find(c, 0x80000008, 0);
    c->maxphyaddr = p && (p->eax & 0xff) >= 32 && (p->eax & 0xff) <= 52 ? p->eax & 0xff : 36;
    sk_blocks_flush(c);
    sk_jit_flush(c);
    return 0;
}

bool sk_cpuid_has_mwait(const struct sk_vcpu *c)
{
    const struct sk_cpuid_entry *e;

    if (atomic_load_explicit(&c->vm->quirks_off, memory_order_relaxed) &
        SK_QUIRK_MISC_ENABLE_NO_MWAIT) {
        return c->misc_enable & BIT(18);
    }
    e = cpuid_find(c, 1, 0);
    return e && (e->ecx & BIT(3));
}

bool sk_cpuid_amd(const struct sk_vcpu *c)
{
    const struct sk_cpuid_entry *e = cpuid_find(c, 0, 0);

    return e && e->ebx == 0x68747541; /* Auth */
}

static bool cpuid_intel(const struct sk_vcpu *c)
{
    const struct sk_cpuid_entry *e = cpuid_find(c, 0, 0);

    return e && e->ebx == 0x756e6547; /* Genu */
}

void sk_cpuid_runtime(const struct sk_vcpu *c, struct sk_cpuid_entry *e)
{
    if (e->function == 1) {
        e->ecx &= ~(BIT(27) | BIT(3));
        e->ecx |= (c->cr4 & SK_CR4_OSXSAVE ? BIT(27) : 0) | (sk_cpuid_has_mwait(c) ? BIT(3) : 0);
        if (!(c->apic_base & 0x800)) {
            e->edx &= ~BIT(9);
        }
    } else if (e->function == 13 && e->index == 0) {
        e->ebx = c->xcr0 & 4 ? 832 : 576;
    } else if (e->function == 13 && e->index == 1 && (e->eax & 10)) {
        e->ebx = 576 + (c->xcr0 & 4 ? 256 : 0);
    }
}

/* Intel: SYSCALL is there only in 64-bit mode. */
static bool cpuid_hides_syscall(const struct sk_vcpu *c)
{
    return !sk_code64(c) && cpuid_intel(c);
}

void sk_cpuid_get(struct sk_vcpu *c, uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    const struct sk_cpuid_entry *e = cpuid_find(c, leaf, sub);
    struct sk_cpuid_entry now = { .function = leaf, .index = sub };

    if (e) {
        now.eax = e->eax;
        now.ebx = e->ebx;
        now.ecx = e->ecx;
        now.edx = e->edx;
    } else if (leaf == 0xb || leaf == 0x1f) {
        e = cpuid_find(c, leaf, 0); /* levels that do not exist still report the x2APIC id */
        now.ecx = e ? sub & 0xff : 0;
        now.edx = e ? e->edx : 0;
    }
    sk_cpuid_runtime(c, &now);
    if (leaf == 0x80000001 && cpuid_hides_syscall(c)) {
        now.edx &= ~BIT(11);
    }
    r[0] = now.eax;
    r[1] = now.ebx;
    r[2] = now.ecx;
    r[3] = now.edx;
    if (c->vm->ops->cpuid_fixup) {
        c->vm->ops->cpuid_fixup(c, leaf, sub, r);
    }
}

struct model {
    struct sk_cpuid_entry *e;
    unsigned n, max;
    uint32_t w[SK_FW_COUNT];
    bool host;
};

static void model_add(struct model *m, uint32_t leaf, int sub, uint32_t a, uint32_t b, uint32_t c,
                      uint32_t d)
{
    if (m->n < m->max) {
        m->e[m->n] = (struct sk_cpuid_entry){ .function = leaf,
                                              .index = sub < 0 ? 0 : (uint32_t)sub,
                                              .flags = sub >= 0,
                                              .eax = a,
                                              .ebx = b,
                                              .ecx = c,
                                              .edx = d };
    }
    m->n++;
}

static void model_string(struct model *m, uint32_t leaf, const char *text)
{
    uint32_t r[4] = { 0 };

    memcpy(r, text, MIN(strlen(text), sizeof(r)));
    model_add(m, leaf, -1, r[0], r[1], r[2], r[3]);
}

static void model_basic(struct model *m)
{
    const uint32_t *w = m->w;
    uint32_t v[4], h[4];

    if (m->host) {
        host_cpuid(0, 0, v);
        host_cpuid(1, 0, h);
    } else { /* named models look like one Intel processor wherever they run */
        v[1] = 0x756e6547;
        v[3] = 0x49656e69;
        v[2] = 0x6c65746e;
        h[0] = 0x000506e3;
    }
    model_add(m, 0, -1, 0xd, v[1], v[2], v[3]);
    model_add(m, 1, -1, h[0], 0x00010800, w[SK_FW_1_ECX], w[SK_FW_1_EDX]);
    model_add(m, 2, -1, 1, 0, 0x4d, 0x2c307d);
    /* Caches: 32K data, 32K code, 1M, as deterministic parameters. */
    model_add(m, 4, 0, 0x121, 0x1c0003f, 0x3f, 1);
    model_add(m, 4, 1, 0x122, 0x1c0003f, 0x3f, 1);
    model_add(m, 4, 2, 0x143, 0x3c0003f, 0x3ff, 0);
    model_add(m, 6, -1, 4, 0, 0, 0); /* ARAT */
    model_add(m, 7, 0, 0, w[SK_FW_7_EBX], w[SK_FW_7_ECX], w[SK_FW_7_EDX]);
    model_add(m, 11, 0, 0, 1, 0x100, 0);
    model_add(m, 11, 1, 0, 1, 0x201, 0);
    if (w[SK_FW_1_ECX] & BIT(26)) {
        uint32_t comp = w[SK_FW_1_ECX] & BIT(28) ? 7 : 3;

        model_add(m, 13, 0, comp, comp == 7 ? 832 : 576, comp == 7 ? 832 : 576, 0);
        model_add(m, 13, 1, w[SK_FW_D1_EAX], 0, 0, 0);
        if (comp == 7) {
            model_add(m, 13, 2, 256, 576, 0, 0);
        }
    }
}

static void model_extended(struct model *m)
{
    uint32_t v[4] = { 0 }, phys = 40;

    if (m->host) {
        host_cpuid(0, 0, v);
    }
    model_add(m, 0x80000000, -1, 0x80000008, v[1], v[2], v[3]);
    model_add(m, 0x80000001, -1, 0, 0, m->w[SK_FW_81_ECX], m->w[SK_FW_81_EDX]);
    model_string(m, 0x80000002, "Posada virtual p");
    model_string(m, 0x80000003, "rocessor");
    model_string(m, 0x80000004, "");
    model_add(m, 0x80000005, -1, 0x01ff01ff, 0x01ff01ff, 0x20080140, 0x20080140);
    model_add(m, 0x80000006, -1, 0, 0x42004200, 0x04008140, 0);
    model_add(m, 0x80000007, -1, 0, 0, 0, 0x100); /* invariant TSC */
    if (m->host) {
        host_cpuid(0x80000008, 0, v);
        phys = MIN(v[0] & 0xff, 48u);
    }
    model_add(m, 0x80000008, -1, 0x3000 | phys, m->w[SK_FW_88_EBX], 0, 0);
}

int sk_cpuid_model(const char *model, struct sk_cpuid_entry *ret, unsigned max)
{
    uint32_t host[SK_FW_COUNT];

    sk_cpuid_host(host);
    return sk_cpuid_model_on(model, ret, max, host);
}

int sk_cpuid_model_on(const char *model, struct sk_cpuid_entry *ret, unsigned max,
                      const uint32_t host[SK_FW_COUNT])
{
    uint32_t possible[SK_FW_COUNT];
    struct model m = { .e = ret, .max = max };

    if (strcmp(model, "host") == 0) {
        m.host = true;
        words_of_host(m.w, host);
    } else if (strncmp(model, "x86-64-v", 8) == 0 && model[8] >= '1' && model[8] <= '3' &&
               model[9] == '\0') {
        WORDS_ADD(m.w, level1);
        if (model[8] >= '2') {
            WORDS_ADD(m.w, level2);
        }
        if (model[8] >= '3') {
            WORDS_ADD(m.w, level3);
        }
    } else {
        return -EINVAL;
    }
    words_possible(possible, host);
    for (unsigned i = 0; i < SK_FW_COUNT; i++) {
        if (m.w[i] & ~possible[i]) {
            return -EOPNOTSUPP;
        }
    }
    model_basic(&m);
    model_extended(&m);
    return m.n > max ? -E2BIG : (int)m.n;
}
