/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Single decodings, each with the rule of SDM 2 (2023-12) it shows. The mass of forms is compared
 * with another decoder by tests/softkvm/zydis.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "softkvm/x86/decode.h"

static int decode(struct sk_insn *in, unsigned code_size, const char *bytes, unsigned n)
{
    struct sk_decode_env env = { .code_size = (uint8_t)code_size };

    return sk_decode(in, (const uint8_t *)bytes, n, &env);
}
#define DECODE(in, size, s) decode(in, size, s, sizeof(s) - 1)

/* Outside 64-bit mode there are eight registers: bit 3 of VEX.vvvv and VEX.B are ignored (SDM 2A
 * §2.3.5). VPADDB xmm0,xmm5,xmm1 with vvvv = 0010 (register 13) and B = 0 (rm 9). */
static void test_vex_registers(void **state)
{
    struct sk_insn in;

    (void)state;
    assert_int_equal(DECODE(&in, 4, "\xc4\xc1\x11\xfc\xc1"), 5);
    assert_int_equal(in.vreg, 5);
    assert_int_equal(in.rm, 1);
    assert_int_equal(DECODE(&in, 8, "\xc4\xc1\x11\xfc\xc1"), 5);
    assert_int_equal(in.vreg, 13);
    assert_int_equal(in.rm, 9);
    /* R = 0 or X = 0 makes it LES, and bit 7 or 6 clear in the byte after C5 makes that LDS */
    assert_int_equal(DECODE(&in, 4, "\xc4\x61\x11"), 3); /* les esp,[ecx+11h] */
    assert_int_equal(in.osize, 4);
    assert_int_equal(DECODE(&in, 4, "\xc5\xd1\xfc\xc1"), 4);
    assert_int_equal(in.vreg, 5);
    assert_int_equal(DECODE(&in, 4, "\xc5\x91\xfc\xc1\x00\x00"), 6); /* lds edx,[ecx+disp32] */
}

/* Gathers want three different registers: compared as they are used, without the ignored bit. */
static void test_gather_registers(void **state)
{
    struct sk_insn in;

    (void)state;
    assert_int_equal(DECODE(&in, 4, "\xc4\xe2\x1d\x91\x6c\x21\x22"), SK_DEC_UD); /* 12 is 4 */
    assert_int_equal(DECODE(&in, 4, "\xc4\xe2\x15\x91\x6c\x21\x22"), SK_DEC_UD); /* 13 is 5 */
    assert_int_equal(DECODE(&in, 4, "\xc4\xe2\x25\x91\x6c\x21\x22"), 7);         /* 11 is 3 */
    assert_int_equal(in.vreg, 3);
    assert_int_equal(DECODE(&in, 8, "\xc4\xe2\x1d\x91\x6c\x21\x22"), 7);
    assert_int_equal(in.vreg, 12);
    assert_int_equal(DECODE(&in, 8, "\xc4\xe2\x5d\x91\x6c\x21\x22"), SK_DEC_UD);
}

/* 15 bytes at most, counted before the question of meaning; fewer bytes ask for more. */
static void test_length(void **state)
{
    struct sk_insn in;

    (void)state;
    assert_int_equal(DECODE(&in, 8, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
                     15);
    assert_int_equal(DECODE(&in, 8, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66"),
                     SK_DEC_LONG);
    assert_int_equal(DECODE(&in, 8, "\x48\xb8\x01\x02"), SK_DEC_SHORT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vex_registers),
        cmocka_unit_test(test_gather_registers),
        cmocka_unit_test(test_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
