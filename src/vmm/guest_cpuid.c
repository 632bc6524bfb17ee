/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/guest_cpuid.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"

enum guest_cpuid_reg {
    GUEST_CPUID_EAX,
    GUEST_CPUID_EBX,
    GUEST_CPUID_ECX,
    GUEST_CPUID_EDX,
};

#define CPU_LEVEL_HOST 255

struct guest_cpuid_model {
    const char *name;
    unsigned level;
};

struct guest_cpuid_feature {
    unsigned level;
    const char *name;
    uint32_t function;
    uint32_t index;
    enum guest_cpuid_reg reg;
    unsigned bit;
};

static const struct guest_cpuid_model guest_cpuid_models[] = {
#define CPU_MODEL(name, level, help) { name, level },
#include "vmm/cpu_models.def"
};

static const struct guest_cpuid_feature guest_cpuid_features[] = {
#define CPU_FEATURE(level, name, function, index, reg, bit)                                        \
    { level, name, function, index, GUEST_CPUID_##reg, bit },
#include "vmm/cpu_models.def"
};

/* Registers whose bits are features: a model shows none but its own there. */
static const struct {
    uint32_t function;
    uint32_t index;
    enum guest_cpuid_reg reg;
} guest_cpuid_feature_regs[] = {
    {0x1,         0, GUEST_CPUID_ECX},
    { 0x1,        0, GUEST_CPUID_EDX},
    { 0x7,        0, GUEST_CPUID_EBX},
    { 0x7,        0, GUEST_CPUID_ECX},
    { 0x7,        0, GUEST_CPUID_EDX},
    { 0x7,        1, GUEST_CPUID_EAX},
    { 0x7,        2, GUEST_CPUID_EDX},
    { 0xd,        1, GUEST_CPUID_EAX},
    { 0x80000001, 0, GUEST_CPUID_ECX},
    { 0x80000001, 0, GUEST_CPUID_EDX},
    { 0x80000007, 0, GUEST_CPUID_EDX},
    { 0x80000008, 0, GUEST_CPUID_EBX},
    { 0x80000021, 0, GUEST_CPUID_EAX},
};

/* Leaves that describe units which no model has: performance counters, processor trace, AMX, SVM.
 */
static const uint32_t guest_cpuid_model_drops[] = { 0xa, 0x14, 0x1d, 0x1e, 0x8000000a };

static uint32_t *guest_cpuid_reg(struct kvm_cpuid_entry2 *e, enum guest_cpuid_reg reg)
{
    switch (reg) {
    case GUEST_CPUID_EAX:
        return &e->eax;
    case GUEST_CPUID_EBX:
        return &e->ebx;
    case GUEST_CPUID_ECX:
        return &e->ecx;
    case GUEST_CPUID_EDX:
        break;
    }
    return &e->edx;
}

struct kvm_cpuid_entry2 *guest_cpuid_find(struct kvm_cpuid2 *cpuid, uint32_t function,
                                          uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];
        bool indexed = (e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0;
        if (e->function == function && (!indexed || e->index == index)) {
            return e;
        }
    }
    return NULL;
}

static void guest_cpuid_drop(struct kvm_cpuid2 *cpuid, uint32_t function)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        if (cpuid->entries[i].function != function) {
            cpuid->entries[kept++] = cpuid->entries[i];
        }
    }
    cpuid->nent = kept;
}

/* Replaces all entries of an indexed leaf by `n` of them, as far as the list has room. */
static void guest_cpuid_put(struct kvm_cpuid2 *cpuid, const struct kvm_cpuid_entry2 *entries,
                            uint32_t n)
{
    guest_cpuid_drop(cpuid, entries[0].function);
    for (uint32_t i = 0; i < n && cpuid->nent < GUEST_CPUID_MAX_ENTRIES; i++) {
        cpuid->entries[cpuid->nent] = entries[i];
        cpuid->entries[cpuid->nent].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        cpuid->nent++;
    }
}

static const struct guest_cpuid_model *guest_cpuid_model_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(guest_cpuid_models); i++) {
        if (strcmp(guest_cpuid_models[i].name, name) == 0) {
            return &guest_cpuid_models[i];
        }
    }
    return NULL;
}

/* Cuts the features to the model's, -EINVAL when one of them is missing. */
static int guest_cpuid_apply_model(struct kvm_cpuid2 *cpuid, const struct guest_cpuid_model *model,
                                   struct err *err)
{
    uint32_t allowed[ARRAY_LEN(guest_cpuid_feature_regs)] = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(guest_cpuid_features); i++) {
        const struct guest_cpuid_feature *f = &guest_cpuid_features[i];
        if (f->level > model->level) {
            continue;
        }
        struct kvm_cpuid_entry2 *e = guest_cpuid_find(cpuid, f->function, f->index);
        if (f->level > 0 && (e == NULL || (*guest_cpuid_reg(e, f->reg) & BIT(f->bit)) == 0)) {
            return err_set(err, -EINVAL,
                           "CPU model '%s' needs the feature '%s', which this host lacks: choose "
                           "a lower model or 'host'",
                           model->name, f->name);
        }
        for (size_t r = 0; r < ARRAY_LEN(guest_cpuid_feature_regs); r++) {
            if (guest_cpuid_feature_regs[r].function == f->function &&
                guest_cpuid_feature_regs[r].index == f->index &&
                guest_cpuid_feature_regs[r].reg == f->reg) {
                allowed[r] |= BIT(f->bit);
            }
        }
    }
    for (size_t r = 0; r < ARRAY_LEN(guest_cpuid_feature_regs); r++) {
        struct kvm_cpuid_entry2 *e = guest_cpuid_find(cpuid, guest_cpuid_feature_regs[r].function,
                                                      guest_cpuid_feature_regs[r].index);
        if (e != NULL) {
            *guest_cpuid_reg(e, guest_cpuid_feature_regs[r].reg) &= allowed[r];
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(guest_cpuid_model_drops); i++) {
        guest_cpuid_drop(cpuid, guest_cpuid_model_drops[i]);
    }
    if (model->level < 3) {
        guest_cpuid_drop(cpuid, 0xd); /* no XSAVE below v3 */
    } else {
        struct kvm_cpuid_entry2 *xsave = guest_cpuid_find(cpuid, 0xd, 0);
        if (xsave != NULL) {
            xsave->eax &= 7; /* x87, SSE, AVX (SDM 1 §13.1) */
            xsave->edx = 0;
            xsave->ebx = xsave->ecx = 576 + 256; /* legacy area and header, upper halves of YMM */
        }
    }
    return 0;
}

/* Bits that the VM adds whatever the model: the kernel reports them only in part. */
static void guest_cpuid_common(const struct hv *hv, int sys_fd, struct kvm_cpuid2 *cpuid,
                               unsigned ncpus)
{
    struct kvm_cpuid_entry2 *e = guest_cpuid_find(cpuid, 0x1, 0);
    if (e != NULL) {
        e->ecx |= BIT(31); /* a hypervisor is present */
        if (hv_ioctl_int(hv, sys_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0) {
            e->ecx |= BIT(24);
        }
        e->ecx &= ~BIT(3); /* MONITOR: the engine leaves its exits off, HLT is what idles */
        e->edx &= ~BIT(28);
        if (ncpus > 1) {
            e->edx |= BIT(28); /* EBX[23:16] is valid */
        }
    }
    e = guest_cpuid_find(cpuid, 0x80000001, 0);
    if (e != NULL) {
        e->ecx &= ~BIT(1);  /* CmpLegacy: set below when there are cores */
        e->ecx &= ~BIT(22); /* topology extensions: leaf 0xb is given instead */
        if (ncpus > 1) {
            e->ecx |= BIT(1);
        }
    }
}

int guest_cpuid_build(const struct hv *hv, int sys_fd, const char *model, unsigned ncpus,
                      struct kvm_cpuid2 **ret_cpuid, struct err *err)
{
    const struct guest_cpuid_model *m = guest_cpuid_model_find(model);
    if (m == NULL) {
        char names[128] = "";
        for (size_t i = 0; i < ARRAY_LEN(guest_cpuid_models); i++) {
            size_t used = strlen(names);
            (void)snprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? ", " : "",
                           guest_cpuid_models[i].name);
        }
        return err_set(err, -EINVAL, "CPU model '%s' is unknown: one of %s", model, names);
    }
    CLEANUP_FREE struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) + GUEST_CPUID_MAX_ENTRIES * sizeof(cpuid->entries[0]));
    if (cpuid == NULL) {
        return err_set(err, -ENOMEM, "CPUID: out of memory");
    }
    cpuid->nent = GUEST_CPUID_MAX_ENTRIES;
    int rc = hv->ioctl(sys_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': cannot read the supported CPUID", hv->name);
    }
    cpuid->nent = MIN(cpuid->nent, (uint32_t)GUEST_CPUID_MAX_ENTRIES);
    if (m->level != CPU_LEVEL_HOST) {
        rc = guest_cpuid_apply_model(cpuid, m, err);
        if (rc < 0) {
            return rc;
        }
    }
    guest_cpuid_common(hv, sys_fd, cpuid, ncpus);
    *ret_cpuid = take_ptr(&cpuid);
    return 0;
}

static unsigned guest_cpuid_id_bits(unsigned ncpus)
{
    unsigned bits = 0;
    while ((1u << bits) < ncpus) {
        bits++;
    }
    return bits;
}

void guest_cpuid_set_vcpu(struct kvm_cpuid2 *cpuid, unsigned index, unsigned ncpus)
{
    struct kvm_cpuid_entry2 *e = guest_cpuid_find(cpuid, 0x1, 0);
    if (e != NULL) {
        e->ebx = (e->ebx & 0xffff) | (MIN(ncpus, 255u) << 16) | (index << 24);
    }
    /* Cache leaves: the last level is shared by all cores, the others are a core's own. */
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *c = &cpuid->entries[i];
        if (c->function != 0x4 && c->function != 0x8000001d) {
            continue;
        }
        uint32_t level = (c->eax >> 5) & 7;
        c->eax &= 0x3fff;
        if (level >= 3) {
            c->eax |= (ncpus - 1) << 14;
        }
        if (c->function == 0x4 && (c->eax & 0x1f) != 0) {
            c->eax |= MIN(ncpus - 1, 63u) << 26;
        }
    }
    unsigned bits = guest_cpuid_id_bits(ncpus);
    const struct kvm_cpuid_entry2 topology[] = {
        {.function = 0xb, .index = 0,      .eax = 0,     .ebx = 1,       .ecx = 0 | 1 << 8, .edx = index },
        { .function = 0xb,   .index = 1,                 .eax = bits,              .ebx = ncpus,                .ecx = 1 | 2 << 8, .edx = index },
        { .function = 0xb,   .index = 2, .ecx = 2,.edx = index},
    };
    const struct kvm_cpuid_entry2 *leaf0 = guest_cpuid_find(cpuid, 0x0, 0);
    if (leaf0 != NULL && leaf0->eax >= 0xb) {
        guest_cpuid_put(cpuid, topology, ARRAY_LEN(topology));
    }
    guest_cpuid_drop(cpuid, 0x1f); /* the newer form of 0xb: one of the two is enough */
    e = guest_cpuid_find(cpuid, 0x80000008, 0);
    if (e != NULL) {
        e->ecx = (e->ecx & ~0xffffu) | (bits << 12) | ((ncpus - 1) & 0xff);
    }
    guest_cpuid_drop(cpuid, 0x8000001e);
}

unsigned guest_cpuid_phys_bits(const struct kvm_cpuid2 *cpuid)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        if (cpuid->entries[i].function == 0x80000008) {
            unsigned bits = cpuid->entries[i].eax & 0xff;
            return bits >= 32 && bits <= 52 ? bits : 36;
        }
    }
    return 36;
}
