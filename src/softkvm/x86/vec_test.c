/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Vector and x87 state as system software sees it; what the instructions compute is compared with
 * the processor in tests/softkvm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "softkvm/x86/bare.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/fault.h"

#define RUN(b, at, code)                                                                           \
    do {                                                                                           \
        bare_code(b, at, code, sizeof(code) - 1);                                                  \
        assert_int_equal(bare_run(b), SK_EXIT_HLT);                                                \
    } while (0)

enum { HALTS = 0x1800 };

static void begin(struct bare *b)
{
    bare_long(b);
    for (unsigned v = 0; v < 32; v++) {
        bare_gate(b, v, BARE_CS64, HALTS + 16 * v, 0);
        b->ram[HALTS + 16 * v] = 0xf4;
    }
    b->c->cr4 |= 0x40000; /* OSXSAVE */
    b->c->xcr0 = 7;
}

static int vector(const struct bare *b)
{
    return (int)(b->c->r[SK_RIP] - 1 - HALTS) / 16;
}

/* fninit; fld1; fld1; faddp; fistp dword [3000h] */
static void test_x87(void **state)
{
    struct bare *b = *state;

    begin(b);
    RUN(b, 0x1000, "\xdb\xe3\xd9\xe8\xd9\xe8\xde\xc1\xdb\x1c\x25\x00\x30\x00\x00\xf4");
    assert_int_equal(b->ram[0x3000], 2);
    assert_int_equal(b->c->xs.ftw, 0);
    assert_int_equal(b->c->xs.fcw, 0x37f);
}

/* An unmasked division by zero is reported by the next waiting instruction. */
static void test_x87_exception(void **state)
{
    struct bare *b = *state;

    begin(b);
    memcpy(b->ram + 0x3000, "\x7b\x03", 2); /* ZM clear */
    RUN(b, 0x1000, "\xdb\xe3\xd9\x2c\x25\x00\x30\x00\x00\xd9\xe8\xd9\xee\xde\xf9\xdf\xe0\x9b\xf4");
    assert_int_equal(vector(b), SK_MF);
    assert_int_equal(b->c->r[SK_RAX] & 0x84, 0x84);
}

static void test_device_not_available(void **state)
{
    struct bare *b = *state;

    begin(b);
    b->c->cr0 |= 8;
    RUN(b, 0x1000, "\x0f\x28\xc1\xf4"); /* movaps xmm0,xmm1 */
    assert_int_equal(vector(b), SK_NM);
    if (!sk_has(b->c, SK_F_AVX)) {
        return; /* the host has none to run it on: #UD in any case */
    }
    begin(b);
    b->c->xcr0 = 3;
    RUN(b, 0x1000, "\xc5\xfc\x28\xc1\xf4"); /* vmovaps ymm0,ymm1 */
    assert_int_equal(vector(b), SK_UD);
}

/* divss by zero with ZM clear: #XM, flag set, destination unchanged. */
static void test_simd_exception(void **state)
{
    struct bare *b = *state;

    begin(b);
    memset(&b->c->xs.xmm, 0, sizeof(b->c->xs.xmm));
    memcpy(b->c->xs.xmm[0], "\x00\x00\x80\x3f", 4);
    b->c->xs.mxcsr = 0x1d80;
    RUN(b, 0x1000, "\xf3\x0f\x5e\xc1\xf4");
    assert_int_equal(vector(b), SK_XM);
    assert_int_equal(b->c->xs.mxcsr, 0x1d84);
    assert_memory_equal(b->c->xs.xmm[0], "\x00\x00\x80\x3f", 4);
}

/* XSAVE, change, XRSTOR; and the initial state for what the header leaves out. */
static void test_xsave(void **state)
{
    struct bare *b = *state;
    static const char code[] = "\xb8\x07\x00\x00\x00\x31\xd2"          /* mov eax,7; xor edx,edx */
                               "\x0f\xae\x24\x25\x00\x30\x00\x00"      /* xsave [3000h] */
                               "\xc5\xfc\x77"                          /* vzeroall */
                               "\x0f\xae\x2c\x25\x00\x30\x00\x00\xf4"; /* xrstor [3000h] */

    if (!sk_has(b->c, SK_F_AVX)) {
        skip();
    }
    begin(b);
    memset(b->ram + 0x3000, 0, 1024);
    memset(b->c->xs.xmm[5], 0x5a, 16);
    memset(b->c->xs.ymmh[5], 0xa5, 16);
    b->c->xs.xstate_bv = 7;
    RUN(b, 0x1000, code);
    assert_int_equal(b->ram[0x3000 + 160 + 80], 0x5a);
    assert_int_equal(b->ram[0x3000 + 576 + 80], 0xa5);
    assert_int_equal(b->ram[0x3000 + 512], 7);
    assert_int_equal(b->c->xs.xmm[5][0], 0x5a);
    assert_int_equal(b->c->xs.ymmh[5][15], 0xa5);
    b->ram[0x3000 + 512] = 3;
    b->c->r[SK_RAX] = 7;
    RUN(b, 0x1000, "\x0f\xae\x2c\x25\x00\x30\x00\x00\xf4");
    assert_int_equal(b->c->xs.xmm[5][0], 0x5a);
    assert_int_equal(b->c->xs.ymmh[5][15], 0);
    b->ram[0x3000 + 512] = 0x80; /* a component XCR0 does not have */
    RUN(b, 0x1000, "\x0f\xae\x2c\x25\x00\x30\x00\x00\xf4");
    assert_int_equal(vector(b), SK_GP);
}

static void test_alignment(void **state)
{
    struct bare *b = *state;

    begin(b);
    RUN(b, 0x1000, "\x0f\x28\x04\x25\x08\x30\x00\x00\xf4"); /* movaps xmm0,[3008h] */
    assert_int_equal(vector(b), SK_GP);
    begin(b);
    RUN(b, 0x1000, "\x0f\x10\x04\x25\x08\x30\x00\x00\xf4"); /* movups */
    assert_int_equal(b->c->r[SK_RIP], 0x1009);
}

/* An image with an exception pending, not masked, and ES clear: the processor sets ES when it loads
 * it, and the next waiting instruction is #MF for the guest (and no SIGFPE for us). */
static void test_pending_x87(void **state)
{
    struct bare *b = *state;

    begin(b);
    memset(b->ram + 0x3000, 0, 512);
    memcpy(b->ram + 0x3000, "\x7e\x03\x01\x00", 4); /* IM clear, IE set */
    memcpy(b->ram + 0x3018, "\x80\x1f\x00\x00", 4);
    RUN(b, 0x1000, "\x0f\xae\x0c\x25\x00\x30\x00\x00\xd9\xe8\xf4"); /* fxrstor; fld1 */
    assert_int_equal(vector(b), SK_MF);
    assert_int_equal(b->c->xs.fsw, 0x8081);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_x87),
        cmocka_unit_test(test_x87_exception),
        cmocka_unit_test(test_device_not_available),
        cmocka_unit_test(test_simd_exception),
        cmocka_unit_test(test_pending_x87),
        cmocka_unit_test(test_xsave),
        cmocka_unit_test(test_alignment),
    };

    return cmocka_run_group_tests(tests, bare_setup, bare_teardown);
}
