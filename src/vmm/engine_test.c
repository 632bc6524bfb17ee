/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/engine.h"
#include "vmm/hv_fake.h"

static bool has_vmx;
static bool has_svm;

static bool fake_cpuid(uint32_t leaf, uint32_t r[4])
{
    memset(r, 0, 4 * sizeof(r[0]));
    if (leaf == 0x1) {
        r[2] = has_vmx ? BIT(5) : 0;
    } else if (leaf == 0x80000001) {
        r[2] = has_svm ? BIT(2) : 0;
    }
    return true;
}

static const struct engine_row rows[] = {
    {"kvm",   VMCONFIG_ENGINE_KVM,  &hv_fake, true,  "native"   },
    { "soft", VMCONFIG_ENGINE_SOFT, NULL,     false, "not built"},
};

static const struct engine_row rows_with_soft[] = {
    {"kvm",   VMCONFIG_ENGINE_KVM,  &hv_fake, true,  "native"},
    { "soft", VMCONFIG_ENGINE_SOFT, &hv_fake, false, "built" },
};

static const struct engine_host host = { rows, ARRAY_LEN(rows), fake_cpuid };
static const struct engine_host host_with_soft = { rows_with_soft, ARRAY_LEN(rows_with_soft),
                                                   fake_cpuid };

static int setup(void **state)
{
    (void)state;
    hv_fake_reset();
    has_vmx = false;
    has_svm = false;
    return 0;
}

static void auto_takes_a_native_kvm(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        has_vmx = i == 0;
        has_svm = i == 1;
        struct engine_choice c;
        struct err err = ERR_INIT;
        assert_int_equal(engine_choose(&host, VMCONFIG_ENGINE_AUTO, &c, &err), 0);
        assert_ptr_equal(c.hv, &hv_fake);
        assert_non_null(strstr(c.finding.reason, i == 0 ? "vmx" : "svm"));
    }
}

static void auto_refuses_the_pvm_kind_and_says_why(void **state)
{
    (void)state;
    struct engine_choice c;
    struct err err = ERR_INIT;
    assert_int_equal(engine_choose(&host, VMCONFIG_ENGINE_AUTO, &c, &err), -ENODEV);
    assert_non_null(strstr(err.msg, "neither vmx nor svm"));
    assert_non_null(strstr(err.msg, "--engine kvm"));
    assert_int_equal(hv_fake_state.opened, hv_fake_state.closed);
    /* By name it is taken. */
    err_clear(&err);
    assert_int_equal(engine_choose(&host, VMCONFIG_ENGINE_KVM, &c, &err), 0);
    assert_false(c.finding.automatic);
    assert_true(c.finding.usable);
}

static void auto_falls_to_the_next_engine(void **state)
{
    (void)state;
    struct engine_choice c;
    struct err err = ERR_INIT;
    assert_int_equal(engine_choose(&host_with_soft, VMCONFIG_ENGINE_AUTO, &c, &err), 0);
    assert_string_equal(c.finding.engine, "soft");
    assert_int_equal(hv_fake_state.opened - hv_fake_state.closed, 1);
}

static void a_missing_capability_is_named(void **state)
{
    (void)state;
    has_vmx = true;
    struct engine_choice c;
    struct err err = ERR_INIT;
    hv_fake_state.missing_cap = KVM_CAP_SIGNAL_MSI;
    assert_int_equal(engine_choose(&host, VMCONFIG_ENGINE_KVM, &c, &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.msg, "KVM_CAP_SIGNAL_MSI"));
    assert_int_equal(hv_fake_state.opened, hv_fake_state.closed);
    hv_fake_state.missing_cap = -1;
    hv_fake_state.api_version = 11;
    assert_int_equal(engine_choose(&host, VMCONFIG_ENGINE_KVM, &c, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "11"));
}

static void errors_come_with_their_remedy(void **state)
{
    (void)state;
    struct engine_choice c;
    struct err err = ERR_INIT;
    hv_fake_state.open_error = -EACCES;
    assert_int_equal(engine_choose(&host, VMCONFIG_ENGINE_KVM, &c, &err), -EACCES);
    assert_non_null(strstr(err.msg, "put it back"));
    assert_int_equal(engine_choose(&host, VMCONFIG_ENGINE_SOFT, &c, &err), -ENOSYS);
    assert_non_null(strstr(err.msg, "not part of this build"));
    struct engine_finding f[ENGINE_MAX];
    assert_int_equal(engine_survey(&host, f), 2);
    assert_string_equal(f[0].reason, "/dev/fake is away");
    assert_string_equal(f[0].remedy, "put it back");
    assert_false(f[0].usable || f[1].usable);
}

static void the_table_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < engine_this_host.nrows; i++) {
        assert_int_not_equal(engine_this_host.rows[i].id, VMCONFIG_ENGINE_AUTO);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(engine_this_host.rows[i].id, engine_this_host.rows[j].id);
        }
    }
    assert_true(engine_this_host.nrows <= ENGINE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(auto_takes_a_native_kvm, setup),
        cmocka_unit_test_setup(auto_refuses_the_pvm_kind_and_says_why, setup),
        cmocka_unit_test_setup(auto_falls_to_the_next_engine, setup),
        cmocka_unit_test_setup(a_missing_capability_is_named, setup),
        cmocka_unit_test_setup(errors_come_with_their_remedy, setup),
        cmocka_unit_test_setup(the_table_is_sound, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
