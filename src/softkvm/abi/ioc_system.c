/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ioctls of the system descriptor, and KVM_CHECK_EXTENSION (KVM api.rst 4.1 to 4.6, Linux 6.1).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "softkvm/abi/abi_int.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/msr.h"

int abi_get_api_version(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)arg;
    return user != 0 ? -EINVAL : KVM_API_VERSION;
}

int abi_create_vm(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)arg;
    return user != 0 ? -EINVAL : abi_vm_create(); /* the argument is a type; x86 has only 0 */
}

int abi_check_extension(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)arg;
    switch (user) {
#define CAP(name, value)                                                                           \
    case KVM_CAP_##name:                                                                           \
        return (int)(value);
#include "softkvm/abi/caps.def"
#undef CAP
    default:
        return 0;
    }
}

int abi_get_vcpu_mmap_size(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)arg;
    return user != 0 ? -EINVAL : ABI_RUN_PAGES * ABI_PAGE;
}

static int put_cpuid(struct kvm_cpuid2 *head, unsigned long user, const struct sk_cpuid_entry *e,
                     unsigned n)
{
    static_assert(sizeof(struct sk_cpuid_entry) == sizeof(struct kvm_cpuid_entry2), "same layout");
    if (head->nent < n) {
        head->nent = n; /* the client learns how many it needs */
        (void)abi_copy_out((void *)user, head, sizeof(*head));
        return -E2BIG;
    }
    head->nent = n;
    return abi_copy_out((char *)user + sizeof(*head), e, n * sizeof(*e));
}

int abi_get_supported_cpuid(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    struct sk_cpuid_entry e[ABI_MAX_CPUID];
    int n = sk_cpuid_model("host", e, ABI_MAX_CPUID - 2);
    if (n < 0) {
        return n;
    }
    n += (int)pv_cpuid(e + n);
    return put_cpuid(arg, user, e, (unsigned)n);
}

int abi_get_emulated_cpuid(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    /* What KVM emulates beyond the hardware; here all is emulated and in the supported list. */
    struct sk_cpuid_entry e = { .function = 0 };
    return put_cpuid(arg, user, &e, 1);
}

static int put_list(struct kvm_msr_list *head, unsigned long user, const uint32_t *list, unsigned n)
{
    unsigned room = head->nmsrs;
    head->nmsrs = n;
    if (abi_copy_out((void *)user, head, sizeof(*head)) < 0) {
        return -EFAULT;
    }
    if (room < n) {
        return -E2BIG;
    }
    return abi_copy_out((char *)user + sizeof(*head), list, n * sizeof(*list));
}

int abi_get_msr_index_list(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    uint32_t list[ABI_MAX_MSRS * 2];
    unsigned n = sk_msr_list(list, ARRAY_LEN(list));
    n = MIN(n, (unsigned)ARRAY_LEN(list) - 16);
    n += pv_msr_list(list + n, 16);
    return put_list(arg, user, list, n);
}

int abi_get_msr_feature_index_list(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    uint32_t list[64];
    unsigned n = sk_msr_feature_list(list, ARRAY_LEN(list));
    return put_list(arg, user, list, MIN(n, (unsigned)ARRAY_LEN(list)));
}

int abi_get_feature_msrs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    struct kvm_msrs *head = arg;
    struct kvm_msr_entry e[ABI_MAX_MSRS];
    if (head->nmsrs >= ABI_MAX_MSRS) { /* as MAX_IO_MSRS */
        return -E2BIG;
    }
    if (abi_copy_in(e, (char *)user + sizeof(*head), head->nmsrs * sizeof(*e)) < 0) {
        return -EFAULT;
    }
    unsigned i;
    for (i = 0; i < head->nmsrs; i++) {
        uint64_t v = 0;
        if (sk_msr_feature(e[i].index, &v) != 0) {
            break;
        }
        e[i].data = v;
    }
    if (abi_copy_out((char *)user + sizeof(*head), e, i * sizeof(*e)) < 0) {
        return -EFAULT;
    }
    return (int)i;
}

int abi_get_mce_cap(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)user;
    *(uint64_t *)arg = BIT64(24) | BIT64(8) | 32; /* SER_P, CTL_P, banks: as the engine has them */
    return 0;
}
