/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/x86/msr.h"

#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/crs.h"
#include "softkvm/x86/mem.h"
#include "softkvm/x86/tsc.h"

enum {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SMBASE = 0x9e,
    MSR_PLATFORM_INFO = 0xce,
    MSR_MTRR_CAP = 0xfe,
    MSR_ARCH_CAP = 0x10a,
    MSR_MISC_FEATURES = 0x140,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_MTRR_PHYS = 0x200,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF = 0x2ff,
    MSR_PERF_CAP = 0x345,
    MSR_MC0 = 0x400
};
#define MSR_EFER    0xc0000080u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u

/* RDCL_NO, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO,
 * PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO: the engine executes nothing speculatively. */
#define ARCH_CAP UINT64_C(0xd10e179)

#define CPUID_FAULT       BIT64(31) /* in PLATFORM_INFO */
#define MISC_ENABLE_GUEST UINT64_C(0x400c51889)

enum msr_kind { KIND_PLAIN, KIND_CANON, KIND_RO, KIND_ZERO };

struct msr_row {
    uint32_t index;
    uint16_t feature;
    uint8_t kind;
    uint16_t offset;
    uint64_t mask;
};

#define MSR_OFF(f) ((uint16_t)offsetof(struct sk_vcpu, f))

static const struct msr_row rows[] = {
#define SK_MSR_PLAIN(f) MSR_OFF(f)
#define SK_MSR_CANON(f) MSR_OFF(f)
#define SK_MSR_RO(f)    MSR_OFF(f)
#define SK_MSR_ZERO(f)  0
#define SK_MSR(index_, name, field, mask_, feat, kind_)                                            \
    { index_, SK_F_##feat, KIND_##kind_, SK_MSR_##kind_(field), (uint64_t)(mask_) },
#include "softkvm/x86/msrs.def"
#undef SK_MSR
};

/* True if the CPU has the feature, as far as whoever asks cares: the client may read and set
 * registers that its guest does not see, in whatever order it sets CPUID and state. */
static bool msr_has(const struct sk_vcpu *c, enum sk_feature f, bool host)
{
    return host || sk_has(c, f);
}

static const struct msr_row *msr_row(const struct sk_vcpu *c, uint32_t index, bool host)
{
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].index == index) {
            return msr_has(c, rows[i].feature, host) ? &rows[i] : NULL;
        }
    }
    return NULL;
}

static bool msr_canonical(uint64_t v)
{
    return (uint64_t)((int64_t)(v << 16) >> 16) == v;
}

/* The fixed-range MTRRs in the order of c->mtrr.fixed. */
static int msr_mtrr_fixed(uint32_t index)
{
    static const uint16_t fixed[] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                      0x26b, 0x26c, 0x26d, 0x26e, 0x26f };

    for (unsigned i = 0; i < ARRAY_LEN(fixed); i++) {
        if (fixed[i] == index) {
            return (int)i;
        }
    }
    return -1;
}

/* Word of an MTRR, or NULL. */
static uint64_t *msr_mtrr(struct sk_vcpu *c, uint32_t index, bool host)
{
    int f = msr_mtrr_fixed(index);

    if (!msr_has(c, SK_F_MTRR, host)) {
        return NULL;
    }
    if (f >= 0) {
        return &c->mtrr.fixed[f];
    }
    if (index >= MSR_MTRR_PHYS && index < MSR_MTRR_PHYS + 16) {
        unsigned n = (index - MSR_MTRR_PHYS) / 2;

        return index & 1 ? &c->mtrr.mask[n] : &c->mtrr.base[n];
    }
    return index == MSR_MTRR_DEF ? &c->mtrr.def_type : NULL;
}

static bool msr_memtype(uint64_t t, bool pat)
{
    return t < 8 && t != 2 && t != 3 && (pat || t != 7);
}

static bool msr_mtrr_valid(const struct sk_vcpu *c, uint32_t index, uint64_t v)
{
    uint64_t rsvd = ~((BIT64(c->maxphyaddr)) - 1);

    if (msr_mtrr_fixed(index) >= 0) {
        for (unsigned i = 0; i < 8; i++) {
            if (!msr_memtype((v >> (8 * i)) & 0xff, false)) {
                return false;
            }
        }
        return true;
    }
    if (index == MSR_MTRR_DEF) {
        return !(v & ~UINT64_C(0xcff)) && msr_memtype(v & 0xff, false);
    }
    if (index & 1) {
        return !(v & (rsvd | 0x7ff));
    }
    return !(v & (rsvd | 0xf00)) && msr_memtype(v & 0xff, false);
}

static bool msr_pat_valid(uint64_t v)
{
    for (unsigned i = 0; i < 8; i++) {
        if (!msr_memtype((v >> (8 * i)) & 0xff, true) || ((v >> (8 * i)) & 0xf8)) {
            return false;
        }
    }
    return true;
}

static bool msr_is_mc(const struct sk_vcpu *c, uint32_t index, bool host)
{
    return msr_has(c, SK_F_MCA, host) && index >= MSR_MC0 &&
           index < MSR_MC0 + 4 * (uint32_t)(c->mcg_cap & 0xff) && index < MSR_MC0 + 128;
}

/* Registers with rules of their own. 0 done, 1 #GP, -1 not one of them. */
static int msr_read_special(struct sk_vcpu *c, uint32_t index, uint64_t *ret, bool host)
{
    const uint64_t *m;

    switch (index) {
    case MSR_TSC:
        *ret = sk_tsc_now(c);
        return 0;
    case MSR_APIC_BASE:
        *ret = c->apic_base;
        return 0;
    case MSR_TSC_ADJUST:
        *ret = c->tsc_adjust;
        return -!msr_has(c, SK_F_TSC_ADJUST, host);
    case MSR_MTRR_CAP:
        *ret = 0x508; /* 8 variable ranges, fixed ranges, WC */
        return -!msr_has(c, SK_F_MTRR, host);
    case MSR_ARCH_CAP:
        *ret = c->arch_cap;
        return -!msr_has(c, SK_F_ARCH_CAP, host);
    case MSR_PAT:
        *ret = c->pat;
        return 0;
    case MSR_MISC_FEATURES:
        *ret = c->misc_features;
        return 0;
    case MSR_MISC_ENABLE:
        *ret = c->misc_enable;
        return 0;
    case MSR_EFER:
        *ret = c->efer;
        return 0;
    case MSR_FS_BASE:
        *ret = c->seg[SK_FS].base;
        return -!msr_has(c, SK_F_LM, host);
    case MSR_GS_BASE:
        *ret = c->seg[SK_GS].base;
        return -!msr_has(c, SK_F_LM, host);
    case MSR_SMBASE: /* of the guest's, SMM or not: it exists for the client alone */
        *ret = c->smbase;
        return !host;
    case MSR_PLATFORM_INFO:
        *ret = c->platform_info;
        return !host && atomic_load_explicit(&c->vm->platform_info_hidden, memory_order_relaxed);
    default:
        break;
    }
    if (msr_is_mc(c, index, host)) {
        *ret = c->mc_bank[(index - MSR_MC0) / 4][index & 3];
        return 0;
    }
    m = msr_mtrr(c, index, host);
    if (m) {
        *ret = *m;
    }
    return m != NULL ? 0 : -1;
}

static int msr_write_base(struct sk_vcpu *c, struct sk_seg *s, uint64_t v, bool host)
{
    if (!msr_canonical(v) || !msr_has(c, SK_F_LM, host)) {
        return 1;
    }
    s->base = v;
    sk_mode_update(c);
    return 0;
}

static int msr_write_apic_base(struct sk_vcpu *c, uint64_t v, bool host)
{
    if (c->vm->ops->apic_base) {
        return c->vm->ops->apic_base(c, v, host);
    }
    if (v & ((~(BIT64(c->maxphyaddr) - 1)) | 0x2ff)) {
        return 1;
    }
    c->apic_base = v; /* the APIC is the client's, and so are its rules */
    return 0;
}

/* TSC and TSC_ADJUST move together (SDM 3B §18.17.3); a client sets one at a time. */
static void msr_write_tsc(struct sk_vcpu *c, uint64_t v, bool host)
{
    uint64_t delta = v - sk_tsc_now(c);

    c->tsc_offset += delta;
    if (!host) {
        c->tsc_adjust += delta;
    }
}

static int msr_write_mc(struct sk_vcpu *c, uint32_t index, uint64_t v, bool host)
{
    unsigned reg = index & 3;

    if (!host && reg == 1 && v != 0) {
        return 1; /* the status is only cleared by the guest */
    }
    if (!host && reg == 0 && v != 0 && v != ~UINT64_C(0)) {
        return 1;
    }
    c->mc_bank[(index - MSR_MC0) / 4][reg] = v;
    return 0;
}

static int msr_write_platform_info(struct sk_vcpu *c, uint64_t v, bool host)
{
    /* CPUID faulting may be taken away only while the guest does not use it. */
    if (!host || (!(v & CPUID_FAULT) && (c->misc_features & 1))) {
        return 1;
    }
    c->platform_info = v;
    return 0;
}

static int msr_write_misc_features(struct sk_vcpu *c, uint64_t v)
{
    if ((v & ~UINT64_C(1)) || (v && !(c->platform_info & CPUID_FAULT))) {
        return 1;
    }
    c->misc_features = v;
    return 0;
}

static int msr_write_misc_enable(struct sk_vcpu *c, uint64_t v, bool host)
{
    if (!host && (v & ~MISC_ENABLE_GUEST)) {
        return 1;
    }
    c->misc_enable = v;
    return 0;
}

static int msr_write_special(struct sk_vcpu *c, uint32_t index, uint64_t v, bool host)
{
    uint64_t *m;

    switch (index) {
    case MSR_TSC:
        msr_write_tsc(c, v, host);
        return 0;
    case MSR_APIC_BASE:
        return msr_write_apic_base(c, v, host);
    case MSR_TSC_ADJUST:
        if (!msr_has(c, SK_F_TSC_ADJUST, host)) {
            return -1;
        }
        if (!host) {
            c->tsc_offset += v - c->tsc_adjust;
        }
        c->tsc_adjust = v;
        return 0;
    case MSR_ARCH_CAP:
        if (host) {
            c->arch_cap = v;
        }
        return !host;
    case MSR_PAT:
        if (!msr_pat_valid(v)) {
            return 1;
        }
        c->pat = v;
        return 0;
    case MSR_EFER:
        if (host) {
            c->efer = v & (SK_EFER_SCE | SK_EFER_LME | SK_EFER_LMA | SK_EFER_NXE);
            sk_vcpu_changed(c);
            return 0;
        }
        return !sk_efer_write(c, v);
    case MSR_SMBASE:
        if (host) {
            c->smbase = v;
        }
        return !host;
    case MSR_PLATFORM_INFO:
        return msr_write_platform_info(c, v, host);
    case MSR_MISC_FEATURES:
        return msr_write_misc_features(c, v);
    case MSR_MISC_ENABLE:
        return msr_write_misc_enable(c, v, host);
    case MSR_FS_BASE:
        return msr_write_base(c, &c->seg[SK_FS], v, host);
    case MSR_GS_BASE:
        return msr_write_base(c, &c->seg[SK_GS], v, host);
    default:
        break;
    }
    if (msr_is_mc(c, index, host)) {
        return msr_write_mc(c, index, v, host);
    }
    m = msr_mtrr(c, index, host);
    if (!m) {
        return -1;
    }
    if (!msr_mtrr_valid(c, index, v)) {
        return 1;
    }
    *m = v;
    return 0;
}

static int msr_do_read(struct sk_vcpu *c, uint32_t index, uint64_t *ret, bool host)
{
    const struct msr_row *r = msr_row(c, index, host);
    int rc;

    if (r) {
        *ret = r->kind == KIND_ZERO ? 0 : *(const uint64_t *)(const void *)((char *)c + r->offset);
        return 0;
    }
    rc = msr_read_special(c, index, ret, host);
    return rc >= 0 || !c->vm->ops->rdmsr ? rc : c->vm->ops->rdmsr(c, index, ret);
}

static int msr_do_write(struct sk_vcpu *c, uint32_t index, uint64_t v, bool host)
{
    const struct msr_row *r = msr_row(c, index, host);
    int rc;

    if (r) {
        if (r->kind == KIND_RO && !host) {
            return 1;
        }
        if ((r->kind != KIND_RO && (v & ~r->mask)) ||
            (r->kind == KIND_CANON && !msr_canonical(v))) {
            return 1;
        }
        if (r->kind != KIND_ZERO) {
            *(uint64_t *)(void *)((char *)c + r->offset) = v;
        }
        return 0;
    }
    rc = msr_write_special(c, index, v, host);
    return rc >= 0 || !c->vm->ops->wrmsr ? rc : c->vm->ops->wrmsr(c, index, v);
}

static bool msr_allowed(struct sk_vcpu *c, uint32_t index, bool write)
{
    return !c->vm->ops->msr_allowed || c->vm->ops->msr_allowed(c, index, write);
}

/* What becomes of an access that failed: #GP, or a question to the client. */
static int msr_failed(struct sk_vcpu *c, const struct sk_msr_exit *m)
{
    if (c->vm->ops->msr_exit && c->vm->ops->msr_exit(c, m->reason)) {
        c->msr = *m;
        return 2;
    }
    return 1;
}

int sk_msr_read(struct sk_vcpu *c, uint32_t index, uint64_t *ret, bool host)
{
    struct sk_msr_exit m = { .index = index, .reason = SK_MSR_FILTERED };

    if (host || msr_allowed(c, index, false)) {
        int rc = msr_do_read(c, index, ret, host);

        if (rc == 0 || host) {
            return rc != 0;
        }
        m.reason = rc < 0 ? SK_MSR_UNKNOWN : SK_MSR_INVALID;
    }
    return msr_failed(c, &m);
}

int sk_msr_write(struct sk_vcpu *c, uint32_t index, uint64_t v, bool host)
{
    struct sk_msr_exit m = { .index = index, .reason = SK_MSR_FILTERED, .data = v, .write = true };

    if (host || msr_allowed(c, index, true)) {
        int rc = msr_do_write(c, index, v, host);

        if (rc == 0 || host) {
            return rc != 0;
        }
        m.reason = rc < 0 ? SK_MSR_UNKNOWN : SK_MSR_INVALID;
    }
    return msr_failed(c, &m);
}

unsigned sk_msr_list(uint32_t *ret, unsigned max)
{
    static const uint32_t special[] = { MSR_TSC,           MSR_APIC_BASE,     MSR_TSC_ADJUST,
                                        MSR_PAT,           MSR_MTRR_DEF,      MSR_ARCH_CAP,
                                        MSR_PLATFORM_INFO, MSR_MISC_FEATURES, MSR_MISC_ENABLE,
                                        MSR_SMBASE };
    unsigned n = 0;

    for (unsigned i = 0; i < ARRAY_LEN(special); i++, n++) {
        if (n < max) {
            ret[n] = special[i];
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].kind != KIND_ZERO) {
            if (n < max) {
                ret[n] = rows[i].index;
            }
            n++;
        }
    }
    for (uint32_t i = 0x200; i < 0x270; i++) {
        if (i < 0x210 || msr_mtrr_fixed(i) >= 0) {
            if (n < max) {
                ret[n] = i;
            }
            n++;
        }
    }
    for (uint32_t i = 0; i < 3; i++, n++) {
        if (n < max) {
            ret[n] = i == 0 ? MSR_EFER : i == 1 ? MSR_FS_BASE : MSR_GS_BASE;
        }
    }
    return n;
}

unsigned sk_msr_feature_list(uint32_t *ret, unsigned max)
{
    static const uint32_t list[] = { MSR_ARCH_CAP, 0x8b, MSR_PERF_CAP };

    for (unsigned i = 0; i < ARRAY_LEN(list) && i < max; i++) {
        ret[i] = list[i];
    }
    return ARRAY_LEN(list);
}

int sk_msr_feature(uint32_t index, uint64_t *ret)
{
    if (index == MSR_ARCH_CAP) {
        *ret = ARCH_CAP;
        return 0;
    }
    if (index == 0x8b) {
        *ret = UINT64_C(0x100000000);
        return 0;
    }
    if (index == MSR_PERF_CAP) {
        *ret = 0; /* no performance counters */
        return 0;
    }
    return 1;
}
