/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CPU models on hosts that lack something. The host's feature words are a parameter here, so that
 * any processor can be had.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "softkvm/x86/bare.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/fault.h"

enum { HALTS = 0x1800 };

static void everything(uint32_t *w)
{
    memset(w, 0xff, SK_FW_COUNT * sizeof(*w));
}

static void without(uint32_t *w, enum sk_feature f)
{
    w[f >> 5] &= ~BIT(f & 31);
}

static int model(const char *name, const uint32_t *host)
{
    struct sk_cpuid_entry e[64];

    return sk_cpuid_model_on(name, e, ARRAY_LEN(e), host);
}

/* A model whose instructions the host has not got is refused, the levels below are not. */
static void test_models(void **state)
{
    static const enum sk_feature v2[] = { SK_F_SSE3, SK_F_SSSE3, SK_F_SSE41, SK_F_SSE42,
                                          SK_F_CX16 };
    static const enum sk_feature v3[] = { SK_F_AVX,  SK_F_AVX2, SK_F_FMA,
                                          SK_F_F16C, SK_F_AES,  SK_F_PCLMUL };
    uint32_t w[SK_FW_COUNT];

    (void)state;
    everything(w);
    assert_true(model("x86-64-v3", w) > 0);
    assert_int_equal(model("x86-64-v4", w), -EINVAL);
    for (unsigned i = 0; i < ARRAY_LEN(v3); i++) {
        everything(w);
        without(w, v3[i]);
        assert_int_equal(model("x86-64-v3", w), -EOPNOTSUPP);
        assert_true(model("x86-64-v2", w) > 0);
        assert_true(model("host", w) > 0);
    }
    for (unsigned i = 0; i < ARRAY_LEN(v2); i++) {
        everything(w);
        without(w, v2[i]);
        assert_int_equal(model("x86-64-v3", w), -EOPNOTSUPP);
        assert_int_equal(model("x86-64-v2", w), -EOPNOTSUPP);
        assert_true(model("x86-64-v1", w) > 0);
    }
    everything(w); /* what the interpreter does by itself needs no host */
    without(w, SK_F_BMI2);
    without(w, SK_F_MOVBE);
    without(w, SK_F_RDSEED);
    assert_true(model("x86-64-v3", w) > 0);
}

/* The model `host` shows what both have. */
static void test_host_model(void **state)
{
    struct sk_cpuid_entry e[64];
    uint32_t w[SK_FW_COUNT];
    int n;

    (void)state;
    everything(w);
    without(w, SK_F_AVX2);
    without(w, SK_F_SHA);
    n = sk_cpuid_model_on("host", e, ARRAY_LEN(e), w);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        if (e[i].function == 7 && e[i].index == 0) {
            assert_int_equal(e[i].ebx & BIT(5), 0);
            assert_int_equal(e[i].ebx & BIT(29), 0);
            assert_int_equal(e[i].ebx & BIT(8), BIT(8)); /* BMI2: the engine's own */
            return;
        }
    }
    fail_msg("no leaf 7");
}

/* Vector of the exception the code ends with, or -1 if it runs to its HLT at 1000h + n - 1. */
static int ends_with(struct bare *b, const char *code, unsigned n)
{
    bare_long(b);
    for (unsigned v = 0; v < 32; v++) {
        bare_gate(b, v, BARE_CS64, HALTS + 16 * v, 0);
        b->ram[HALTS + 16 * v] = 0xf4;
    }
    b->c->cr4 |= 0x40000; /* OSXSAVE */
    b->c->xcr0 = 7;
    bare_code(b, 0x1000, code, n);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    return b->c->r[SK_RIP] == 0x1000 + n ? -1 : (int)(b->c->r[SK_RIP] - 1 - HALTS) / 16;
}
#define ENDS_WITH(b, code) ends_with(b, code, sizeof(code) - 1)

/* A client that promises more than the host has: #UD for the guest, never SIGILL for us. */
static void test_promises(void **state)
{
    struct sk_cpuid_entry e[64];
    uint32_t w[SK_FW_COUNT], host[SK_FW_COUNT];
    static struct bare b;
    int n;

    (void)state;
    everything(w);
    n = sk_cpuid_model_on("x86-64-v3", e, ARRAY_LEN(e), w);
    assert_true(n > 0);
    bare_init(&b, 4 * MIB);
    sk_cpuid_host(host); /* as little as the test may take away: the rest must be there */
    without(host, SK_F_AVX);
    without(host, SK_F_AVX2);
    without(host, SK_F_AES);
    without(host, SK_F_SSE41);
    assert_int_equal(sk_cpuid_set_on(b.c, e, (unsigned)n, host), 0);
    assert_false(sk_has(b.c, SK_F_AVX));
    assert_int_equal(ENDS_WITH(&b, "\xc5\xf8\x57\xc0\xf4"), SK_UD);         /* vxorps */
    assert_int_equal(ENDS_WITH(&b, "\xc5\xfd\xef\xc0\xf4"), SK_UD);         /* vpxor ymm */
    assert_int_equal(ENDS_WITH(&b, "\x66\x0f\x38\xdc\xc1\xf4"), SK_UD);     /* aesenc */
    assert_int_equal(ENDS_WITH(&b, "\x66\x0f\x3a\x0e\xc1\x00\xf4"), SK_UD); /* pblendw */
    assert_int_equal(ENDS_WITH(&b, "\x66\x0f\xef\xc0\xf4"), -1);            /* pxor */
    assert_int_equal(ENDS_WITH(&b, "\xc4\xe2\x78\xf2\xc1\xf4"), -1);        /* andn: our own */
    bare_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_host_model),
        cmocka_unit_test(test_promises),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
