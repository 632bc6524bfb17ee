/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/guest_cpuid.h"
#include "vmm/hv_fake.h"

static int setup(void **state)
{
    (void)state;
    hv_fake_reset();
    const struct kvm_cpuid_entry2 everything[] = {
        {.function = 0x0,                          .eax = 0xd                                       },
        { .function = 0x1,
         .eax = 0x800f12,
         .ebx = 0x00000800,
         .ecx = 0xffffffff,
         .edx = 0xffffffff },
        { .function = 0x4,
         .index = 0,
         .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
         .eax = 0xfc004121 },
        { .function = 0x4,
         .index = 3,
         .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
         .eax = 0xfc1fc163 },
        { .function = 0x7,
         .index = 0,
         .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
         .ebx = 0xffffffff,
         .ecx = 0xffffffff,
         .edx = 0xffffffff },
        { .function = 0xa,                               .eax = 0x07300404                                                   },
        { .function = 0xb,                                       .index = 0,                                                                         .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .ebx = 99 },
        { .function = 0xd,
         .index = 0,
         .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
         .eax = 0x2ff,
         .ebx = 2696,
         .ecx = 2696 },
        { .function = 0x40000000,                        .eax = 0x40000001,                                                                        .ebx = 0x4b4d564b },
        { .function = 0x80000000,.eax = 0x8000001f},
        { .function = 0x80000001,.ecx = 0xffffffff,.edx = 0xffffffff },
        { .function = 0x80000008,                                       .eax = 0x3028,                                                                         .ecx = 0x7f },
        { .function = 0x8000001e, .eax = 5                                                                               },
    };
    memcpy(hv_fake_state.cpuid, everything, sizeof(everything));
    hv_fake_state.ncpuid = ARRAY_LEN(everything);
    return 0;
}

static struct kvm_cpuid2 *build(const char *model, unsigned ncpus)
{
    struct err err = ERR_INIT;
    struct kvm_cpuid2 *c = NULL;
    assert_int_equal(guest_cpuid_build(&hv_fake, 1000, model, ncpus, &c, &err), 0);
    return c;
}

static void host_passes_all_but_what_the_vm_decides(void **state)
{
    (void)state;
    struct kvm_cpuid2 *c = build("host", 1);
    const struct kvm_cpuid_entry2 *e = guest_cpuid_find(c, 0x1, 0);
    assert_int_equal(e->ecx, 0xffffffff & ~BIT(3));  /* no MONITOR */
    assert_int_equal(e->edx, 0xffffffff & ~BIT(28)); /* one CPU: no siblings */
    assert_int_equal(guest_cpuid_find(c, 0x7, 0)->ebx, 0xffffffff);
    assert_int_equal(guest_cpuid_find(c, 0x40000000, 0)->ebx, 0x4b4d564b);
    assert_int_equal(guest_cpuid_phys_bits(c), 40);
    free(c);
}

static void models_show_their_features_only(void **state)
{
    (void)state;
    struct kvm_cpuid2 *c = build("x86-64-v2", 2);
    const struct kvm_cpuid_entry2 *e = guest_cpuid_find(c, 0x1, 0);
    assert_true((e->ecx & BIT(20)) != 0);                           /* SSE4.2 */
    assert_false((e->ecx & BIT(28)) != 0);                          /* AVX */
    assert_true((e->ecx & BIT(31)) != 0);                           /* hypervisor */
    assert_false((guest_cpuid_find(c, 0x7, 0)->ebx & BIT(5)) != 0); /* AVX2 */
    assert_null(guest_cpuid_find(c, 0xd, 0));
    assert_null(guest_cpuid_find(c, 0xa, 0));
    free(c);
    c = build("x86-64-v3", 2);
    assert_true((guest_cpuid_find(c, 0x7, 0)->ebx & BIT(5)) != 0);
    assert_false((guest_cpuid_find(c, 0x7, 0)->ebx & BIT(16)) != 0); /* AVX-512 */
    assert_int_equal(guest_cpuid_find(c, 0xd, 0)->eax, 7);
    free(c);
    c = build("x86-64-v1", 1);
    assert_false((guest_cpuid_find(c, 0x1, 0)->ecx & BIT(0)) != 0); /* SSE3 */
    assert_true((guest_cpuid_find(c, 0x80000001, 0)->edx & BIT(29)) != 0);
    free(c);
}

static void a_lacking_host_is_told(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct kvm_cpuid2 *c = NULL;
    hv_fake_state.cpuid[4].ebx &= ~BIT(5);
    assert_int_equal(guest_cpuid_build(&hv_fake, 1000, "x86-64-v3", 1, &c, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "avx2"));
    assert_int_equal(guest_cpuid_build(&hv_fake, 1000, "486", 1, &c, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "x86-64-v2"));
    assert_null(c);
}

static void topology_is_the_vms(void **state)
{
    (void)state;
    struct kvm_cpuid2 *c = build("host", 6);
    /* Twice, as for two vCPUs from one list: nothing accumulates. */
    guest_cpuid_set_vcpu(c, 2, 6);
    guest_cpuid_set_vcpu(c, 5, 6);
    const struct kvm_cpuid_entry2 *e = guest_cpuid_find(c, 0x1, 0);
    assert_int_equal(e->ebx, 0x05060800);
    assert_true((e->edx & BIT(28)) != 0);
    assert_int_equal(guest_cpuid_find(c, 0x4, 0)->eax, 0x14000121); /* L1: own; 6 cores */
    assert_int_equal(guest_cpuid_find(c, 0x4, 3)->eax, 0x14014163); /* L3: shared by 6 */
    assert_int_equal(guest_cpuid_find(c, 0xb, 0)->ebx, 1);
    e = guest_cpuid_find(c, 0xb, 1);
    assert_int_equal(e->eax, 3); /* 6 cores need 3 bits */
    assert_int_equal(e->ebx, 6);
    assert_int_equal(e->edx, 5);
    assert_int_equal(guest_cpuid_find(c, 0x80000008, 0)->ecx, 3 << 12 | 5);
    assert_null(guest_cpuid_find(c, 0x8000001e, 0));
    unsigned b = 0;
    for (uint32_t i = 0; i < c->nent; i++) {
        b += c->entries[i].function == 0xb;
    }
    assert_int_equal(b, 3);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(host_passes_all_but_what_the_vm_decides, setup),
        cmocka_unit_test_setup(models_show_their_features_only, setup),
        cmocka_unit_test_setup(a_lacking_host_is_told, setup),
        cmocka_unit_test_setup(topology_is_the_vms, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
