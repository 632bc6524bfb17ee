/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the verifier lets pass and what not. That it lets pass all that the translator writes is
 * seen by the engine's tests with SOFTKVM_JIT_VERIFY=1.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "softkvm/jit/jit_tr.h"
#include "softkvm/x86/bare.h"

struct rig {
    struct bare b;
    struct jit_tr t;
    struct jit_stub miss;
    uint8_t *start;
};

static void rig_open(struct rig *r)
{
    sk_jit_choose(true, 1);
    bare_init(&r->b, 1 * MIB);
    if (r->b.c->jit.jit == NULL) {
        bare_done(&r->b);
        skip(); /* a host without what the JIT needs */
    }
    r->t.c = r->b.c;
    r->t.j = r->b.c->jit.jit;
    r->t.set = SK_TLB_SUP;
    r->start = r->t.j->code_p;
    r->t.b = (struct jit_buf){ .p = r->start, .rx = r->t.j->rx };
    r->miss = (struct jit_stub){ .kind = JS_EXIT };
}

static const char *rig_close(struct rig *r)
{
    const uint8_t *at, *end;
    const char *why;

    jit_fix(jit_jmp(&r->t.b), r->t.j->th_exit[JX_LEAVE]);
    end = r->t.b.p;
    for (unsigned i = 0; i < r->miss.sites; i++) {
        jit_fix(r->miss.site[i], r->t.j->th_exit[JX_LEAVE]);
    }
    why = jit_verify(r->t.j, r->start, end, &at);
    bare_done(&r->b);
    return why;
}

static const char *bytes(const char *code, size_t n)
{
    static struct rig r;

    rig_open(&r);
    jit_put(&r.t.b, code, n);
    return rig_close(&r);
}
#define BYTES(s) bytes(s, sizeof(s) - 1)

static const char *field(size_t at)
{
    static struct rig r;

    rig_open(&r);
    jit_st(&r.t.b, 8, H_RAX, jit_rm_gs(at));
    return rig_close(&r);
}

static void test_bytes(void **state)
{
    (void)state;
    assert_null(BYTES("\x01\xc8"));                         /* add eax,ecx */
    assert_null(BYTES("\x9f\x0f\x90\xc0"));                 /* lahf; seto al */
    assert_null(BYTES("\xeb\x02\xff\xe0"));                 /* jmp +2 over what is no matter */
    assert_non_null(BYTES("\x48\x8b\x03"));                 /* mov rax,[rbx] */
    assert_non_null(BYTES("\x48\x8b\x04\x24"));             /* mov rax,[rsp] */
    assert_non_null(BYTES("\x48\x8b\x05\0\0\0\0"));         /* mov rax,[rip] */
    assert_non_null(BYTES("\x4b\x89\x04\x1a"));             /* mov [r10+r11],rax */
    assert_non_null(BYTES("\x49\x89\x02"));                 /* mov [r10],rax */
    assert_non_null(BYTES("\x65\x48\x8b\x03"));             /* mov rax,gs:[rbx] */
    assert_non_null(BYTES("\x65\x4a\x8b\x04\x15\0\0\0\0")); /* mov rax,gs:[r10] */
    assert_non_null(BYTES("\xff\xe0"));                     /* jmp rax */
    assert_non_null(BYTES("\xff\xd0"));                     /* call rax */
    assert_non_null(BYTES("\xc3"));                         /* ret */
    assert_non_null(BYTES("\x50"));                         /* push rax */
    assert_non_null(BYTES("\x48\x89\xc4"));                 /* mov rsp,rax */
    assert_non_null(BYTES("\x0f\x05"));                     /* syscall */
    assert_non_null(BYTES("\xf3\xa4"));                     /* rep movsb */
    assert_non_null(BYTES("\xf3\x48\x0f\xae\xd8"));         /* wrgsbase rax */
    assert_non_null(BYTES("\xe9\0\0\0\x01"));               /* jmp far away */
    assert_non_null(BYTES("\xeb\x01\xb8\x0f\x05\x90\x90")); /* jmp into an instruction */
    assert_non_null(BYTES("\x66\x0f\xf7\xc1"));             /* maskmovdqu, which writes [rdi] */
}

static void test_fields(void **state)
{
    (void)state;
    assert_null(field(JIT_R(SK_RAX)));
    assert_null(field(JIT_OFF(jit.tmp)));
    assert_non_null(field(JIT_R(15) + 4)); /* half of it beyond */
    assert_non_null(field(JIT_OFF(jit.self)));
    assert_non_null(field(JIT_OFF(tlb_r)));
    assert_non_null(field(sizeof(struct sk_vcpu)));
}

/* An access of `size` bytes behind a check for `checked` bytes. */
static const char *access(unsigned checked, unsigned size, bool check_write, bool write)
{
    static struct rig r;
    struct jit_rm m;

    rig_open(&r);
    m = jit_tlb(&r.t, checked, check_write, 0, &r.miss);
    if (write) {
        jit_st(&r.t.b, size, H_RAX, m);
    } else {
        jit_ld(&r.t.b, size, H_RAX, m);
    }
    return rig_close(&r);
}

static void test_accesses(void **state)
{
    (void)state;
    assert_null(access(8, 8, false, false));
    assert_null(access(8, 4, false, false));
    assert_null(access(8, 8, true, true));
    assert_null(access(8, 8, true, false));
    assert_non_null(access(8, 8, false, true)); /* a store through an entry for loads */
    assert_non_null(access(4, 8, false, false));
    assert_non_null(access(1, 8, true, true));
}

/* The same access, but something comes between. */
static const char *between(const char *code, size_t n, bool label)
{
    static struct rig r;
    struct jit_rm m;
    uint8_t *jump = NULL;

    rig_open(&r);
    if (label) {
        jump = jit_jcc(&r.t.b, CC_E);
    }
    m = jit_tlb(&r.t, 8, true, 0, &r.miss);
    jit_put(&r.t.b, code, n);
    if (label) {
        jit_fix(jump, r.t.b.p);
    }
    jit_st(&r.t.b, 8, H_RAX, m);
    return rig_close(&r);
}

static void test_between(void **state)
{
    (void)state;
    assert_null(between("\x01\xc8", 2, false));         /* add eax,ecx */
    assert_non_null(between("\x49\x01\xc3", 3, false)); /* add r11,rax */
    assert_non_null(between("\x4d\x89\xda", 3, false)); /* mov r10,r11 */
    assert_non_null(between("\x49\xff\xc3", 3, false)); /* inc r11 */
    assert_non_null(between("\x4c\x87\xd8", 3, false)); /* xchg rax,r11 */
    assert_non_null(between("", 0, true));              /* jumped to past the check */
}

/* The check's compare without the jump that belongs to it. */
static void test_no_jump(void **state)
{
    static struct rig r;
    struct jit_rm m;

    (void)state;
    rig_open(&r);
    m = jit_tlb(&r.t, 8, true, 0, &r.miss);
    memset(r.miss.site[0] - 2, 0x90, 6);
    r.miss.sites = 0;
    jit_st(&r.t.b, 8, H_RAX, m);
    assert_non_null(rig_close(&r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),    cmocka_unit_test(test_fields),
        cmocka_unit_test(test_accesses), cmocka_unit_test(test_between),
        cmocka_unit_test(test_no_jump),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
