/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/acpi/aml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* The bytes are those of ACPI 6.5 §20, worked out by hand. */
static void check(struct aml *a, const char *expect, size_t len)
{
    const uint8_t *code;
    size_t got;
    assert_int_equal(aml_finish(a, &code, &got), 0);
    assert_int_equal(got, len);
    assert_memory_equal(code, expect, len);
    aml_free(a);
}
#define CHECK(a, s) check(a, s, sizeof(s) - 1)

static void integers_take_the_shortest_form(void **state)
{
    (void)state;
    struct aml *a = aml_new();
    static const uint64_t v[] = { 0, 1, 2, 0xff, 0x100, 0x10000, UINT64_C(0x123456789) };
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        aml_int(a, v[i]);
    }
    CHECK(a, "\x00\x01\x0a\x02\x0a\xff\x0b\x00\x01\x0c\x00\x00\x01\x00"
             "\x0e\x89\x67\x45\x23\x01\x00\x00\x00");
}

static void names(void **state)
{
    (void)state;
    struct aml *a = aml_new();
    aml_path(a, "\\");
    aml_path(a, "\\_SB");
    aml_path(a, "^A1");
    aml_path(a, "_SB.PCI0");
    aml_path(a, "\\A.B.C");
    CHECK(a, "\\\x00"
             "\\_SB_"
             "^A1__"
             "\x2e_SB_PCI0"
             "\\\x2f\x03"
             "A___B___C___");
}

static void blocks_count_their_own_length_bytes(void **state)
{
    (void)state;
    char filler[100];
    memset(filler, 'x', sizeof(filler));
    for (unsigned n = 50; n < 70; n++) {
        struct aml *a = aml_new();
        filler[n] = '\0';
        aml_scope(a, "ABCD");
        aml_str(a, filler); /* n + 2 bytes */
        aml_end(a);
        const uint8_t *c;
        size_t len, content = 4 + n + 2;
        assert_int_equal(aml_finish(a, &c, &len), 0);
        if (content + 1 < 64) {
            assert_int_equal(len, content + 2);
            assert_int_equal(c[1], content + 1);
        } else {
            assert_int_equal(len, content + 3);
            assert_int_equal(c[1], 0x40 | ((content + 2) & 0xf));
            assert_int_equal(c[2], (content + 2) >> 4);
        }
        filler[n] = 'x';
        aml_free(a);
    }
}

static void devices_methods_and_conditions(void **state)
{
    (void)state;
    struct aml *a = aml_new();
    aml_device(a, "COM1");
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0501");
    aml_method(a, "_STA", 1, true);
    aml_if(a), aml_op(a, AML_LEQUAL), aml_arg(a, 0), aml_int(a, 1);
    aml_op(a, AML_RETURN), aml_int(a, 15);
    aml_end(a), aml_else(a);
    aml_op(a, AML_STORE), aml_int(a, 0), aml_local(a, 3);
    aml_end(a), aml_end(a), aml_end(a);
    CHECK(a, "\x5b\x82\x23"
             "COM1"
             "\x08_HID\x0c\x41\xd0\x05\x01"
             "\x14\x13_STA\x09"
             "\xa0\x07\x93\x68\x01\xa4\x0a\x0f"
             "\xa1\x04\x70\x00\x63");
}

static void uuids_and_packages(void **state)
{
    (void)state;
    struct aml *a = aml_new();
    aml_package(a, 2), aml_int(a, 7), aml_str(a, "ab"), aml_end(a);
    aml_uuid(a, "33db4d5b-1ff7-401c-9657-7441c03dd766");
    CHECK(a, "\x12\x08\x02\x0a\x07\x0d"
             "ab\x00"
             "\x11\x13\x0a\x10\x5b\x4d\xdb\x33\xf7\x1f\x1c\x40\x96\x57\x74\x41\xc0\x3d\xd7\x66");
}

static void resources(void **state)
{
    (void)state;
    struct aml *a = aml_new();
    aml_res_begin(a);
    aml_res_io(a, 0x3f8, 0x3f8, 1, 8);
    aml_res_irq(a, 4);
    aml_res_bus_window(a, 0, 255);
    aml_res_end(a);
    CHECK(a, "\x11\x20\x0a\x1d"
             "\x47\x01\xf8\x03\xf8\x03\x01\x08"
             "\x22\x10\x00"
             "\x88\x0d\x00\x02\x0c\x00\x00\x00\x00\x00\xff\x00\x00\x00\x00\x01"
             "\x79\x00");
}

static void regions_and_fields(void **state)
{
    (void)state;
    struct aml *a = aml_new();
    aml_region(a, "PEST", AML_SPACE_IO, 0x505, 1);
    aml_field(a, "PEST", AML_FIELD_BYTE);
    aml_field_skip(a, 4);
    aml_field_unit(a, "PEPT", 100);
    aml_end(a);
    CHECK(a, "\x5b\x80PEST\x01\x0b\x05\x05\x01"
             "\x5b\x81\x0e"
             "PEST\x01\x00\x04"
             "PEPT\x44\x06");
}

static void area_positions_follow_the_code(void **state)
{
    (void)state;
    static const struct aml_area area = { .file = "etc/x", .size = 16, .align = 8 };
    struct aml *a = aml_new();
    aml_scope(a, "\\"), aml_device(a, "AAAA");
    aml_name(a, "ADDR"), aml_area(a, &area);
    aml_end(a), aml_end(a);
    const uint8_t *c;
    size_t len, pos;
    assert_int_equal(aml_finish(a, &c, &len), 0);
    assert_ptr_equal(aml_area_at(a, 0, &pos), &area);
    assert_int_equal(pos, len - 8);
    assert_int_equal(c[pos - 1], 0x0e);
    assert_null(aml_area_at(a, 1, &pos));
    aml_free(a);
}

static void too_much_code_is_refused(void **state)
{
    (void)state;
    static uint8_t block[64 * 1024];
    struct aml *a = aml_new();
    for (unsigned i = 0; i < 17; i++) {
        aml_bytes(a, block, sizeof(block));
    }
    const uint8_t *c;
    size_t len;
    assert_int_equal(aml_finish(a, &c, &len), -E2BIG);
    aml_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_take_the_shortest_form),
        cmocka_unit_test(names),
        cmocka_unit_test(blocks_count_their_own_length_bytes),
        cmocka_unit_test(devices_methods_and_conditions),
        cmocka_unit_test(uuids_and_packages),
        cmocka_unit_test(resources),
        cmocka_unit_test(regions_and_fields),
        cmocka_unit_test(area_positions_follow_the_code),
        cmocka_unit_test(too_much_code_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
