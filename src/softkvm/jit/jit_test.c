/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The same program by the interpreter and by translated code: registers, flags and memory must come
 * out equal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "softkvm/jit/jit.h"
#include "softkvm/x86/bare.h"
#include "softkvm/x86/flags.h"

#define RAM (4 * MIB)

struct result {
    uint64_t r[18];
    uint32_t flags;
    struct sk_jit_stats st;
    uint8_t data[4096];
    enum sk_exit_kind kind;
};

static void run(struct result *ret, bool jit, uint64_t at, const char *code, size_t len)
{
    static struct bare b;

    sk_jit_choose(jit, 1);
    bare_init(&b, RAM);
    bare_long(&b);
    b.c->cr4 |= 0x600;
    bare_code(&b, at, code, len);
    sk_run(b.c, 0);
    memcpy(ret->r, b.c->r, sizeof(ret->r));
    ret->flags = sk_flags_get(b.c);
    ret->st = b.c->jit.st;
    ret->kind = b.c->exit.kind;
    memcpy(ret->data, b.ram + 0x20000, sizeof(ret->data));
    bare_done(&b);
}

/* Runs both ways; the translated one's statistics come back. */
static struct sk_jit_stats both(uint64_t at, const char *code, size_t len)
{
    static struct result a, b;

    run(&a, false, at, code, len);
    run(&b, true, at, code, len);
    assert_int_equal(a.kind, SK_EXIT_HLT);
    assert_int_equal(b.kind, SK_EXIT_HLT);
    assert_memory_equal(a.r, b.r, sizeof(a.r));
    assert_int_equal(a.flags, b.flags);
    assert_memory_equal(a.data, b.data, sizeof(a.data));
    assert_true(b.st.translations > 0 && b.st.enters > 0);
    assert_true(b.st.compared > 0 || !getenv("SOFTKVM_JIT_LOCKSTEP"));
    return b.st;
}
#define BOTH(at, code) both(at, code, sizeof(code) - 1)

/* mov ecx,1000; l: add r9,rcx; adc r10,r9; xor r11d,r10d; bswap r9; dec ecx; jnz l; pushfq; pop
 * rax; hlt */
static void test_slots(void **state)
{
    (void)state;
    BOTH(0x1000, "\xb9\xe8\x03\x00\x00\x49\x01\xc9\x4d\x11\xca\x45\x31\xd3\x49\x0f\xc9\xff\xc9\x75"
                 "\xf0\x9c\x58\xf4");
}

/* mov edi,20000h; mov ecx,300; l: mov [rdi],ah; add ah,[rdi+1]; lea rdi,[rdi+3]; inc eax; setc dh;
 * adc [rdi],bh; loop l; hlt */
static void test_high_bytes(void **state)
{
    (void)state;
    BOTH(0x1000, "\xbf\x00\x00\x02\x00\xb9\x2c\x01\x00\x00\x88\x27\x02\x67\x01\x48\x8d\x7f\x03\xff"
                 "\xc0\x0f\x92\xc6\x10\x3f\xe2\xee\xf4");
}

/* fib(12) by recursion; calls and returns find their way through the jump cache. */
static void test_calls(void **state)
{
    (void)state;
    BOTH(0x1000, "\xbf\x0c\x00\x00\x00\xe8\x02\x00\x00\x00\xeb\x21\x83\xff\x02\x7d\x03\x89\xf8\xc3"
                 "\x53\x57\x83\xef\x01\xe8\xee\xff\xff\xff\x89\xc3\x5f\x83\xef\x02\xe8\xe3\xff\xff"
                 "\xff\x01\xd8\x5b\xc3\xf4");
}

/* A loop whose instructions lie across a page's end: mov ecx,200; l: add eax,12345678h; dec ecx;
 * jnz l; hlt */
static void test_page_end(void **state)
{
    (void)state;
    for (uint64_t at = 0x2ff2; at < 0x3000; at++) {
        BOTH(at, "\xb9\xc8\x00\x00\x00\x05\x78\x56\x34\x12\xff\xc9\x75\xf7\xf4");
    }
}

/* mov ecx,100; l: inc byte [rip+1]; mov al,0 (its immediate changes); add edx,eax; dec ecx; jnz l;
 * hlt */
static void test_self_modifying(void **state)
{
    struct sk_jit_stats st;

    (void)state;
    st = BOTH(0x1000, "\xb9\x64\x00\x00\x00\xfe\x05\x01\x00\x00\x00\xb0\x00\x01\xc2\xff\xc9\x75\xf2"
                      "\xf4");
    assert_true(st.drops > 0);
}

/* Vector and x87 registers live on through loops and through instructions that the interpreter
 * does: mov esi,20000h; mov ecx,50; fninit; fld1; l: cvtsi2sd xmm0,ecx; addsd xmm1,xmm0; fadd
 * st0,st0; stmxcsr [rsi+32]; movsd [rsi],xmm1; dec ecx; jnz l; fstp qword [rsi+8]; hlt */
static void test_vectors(void **state)
{
    (void)state;
    BOTH(0x1000,
         "\xbe\x00\x00\x02\x00\xb9\x32\x00\x00\x00\xdb\xe3\xd9\xe8\xf2\x0f\x2a\xc1\xf2\x0f"
         "\x58\xc8\xd8\xc0\x0f\xae\x5e\x20\xf2\x0f\x11\x0e\xff\xc9\x75\xea\xdd\x5e\x08\xf4");
}

/* Pushes and pops in rows, over a page's border and within one. */
static void test_groups(void **state)
{
    (void)state;
    BOTH(0x1000, "\xbc\x10\x10\x02\x00\xb9\x32\x00\x00\x00"
                 "\x50\x41\x51\x41\x52\x53\x41\x57\x5a\x41\x5b\x5e\x41\x58\x5f"
                 "\x48\xff\xc0\x49\xff\xc2\x48\x01\xc3\xff\xc9\x75\xe4"
                 "\xbc\x00\x08\x02\x00\xb9\x32\x00\x00\x00"
                 "\x50\x41\x51\x41\x52\x53\x41\x57\x5a\x41\x5b\x5e\x41\x58\x5f"
                 "\x48\xff\xc0\x49\xff\xc2\x48\x01\xc3\xff\xc9\x75\xe4\xf4");
}

/* MOVs in rows: base and operands without a host register, the base loaded, immediates, over a
 * page's border and within one. */
static void test_mov_groups(void **state)
{
    static const char code[] =
        "\xb9\x32\x00\x00\x00"             /* mov ecx,50 */
        "\x41\xbb\xf0\x0f\x02\x00"         /* 1: mov r11d,20ff0h */
        "\x41\xb9\x00\x04\x02\x00"         /* mov r9d,20400h */
        "\x49\x89\x03"                     /* mov [r11],rax */
        "\x4d\x89\x4b\x08"                 /* mov [r11+8],r9 */
        "\x49\xc7\x43\x10\xfe\xff\xff\xff" /* mov qword [r11+16],-2: the next page */
        "\x45\x8b\x53\x10"                 /* mov r10d,[r11+16] */
        "\x4d\x89\x59\x20"                 /* mov [r9+32],r11 */
        "\x41\x89\x41\x18"                 /* mov [r9+24],eax */
        "\x41\xc7\x41\xf8\x05\x00\x00\x00" /* mov dword [r9-8],5 */
        "\x4d\x8b\x51\xf8"                 /* mov r10,[r9-8] */
        "\x4d\x8b\x49\x20"                 /* mov r9,[r9+32]: another base from here on */
        "\x49\x8b\x51\x08"                 /* mov rdx,[r9+8] */
        "\x4c\x01\xd0"                     /* add rax,r10 */
        "\xff\xc9\x75\xbe\xf4";            /* dec ecx; jne 1b; hlt */

    (void)state;
    (void)both(0x1000, code, sizeof(code) - 1);
}

static _Atomic uint8_t stop;

/* Waits until translated code has been entered: the machine may be busy. */
static void *stopper(void *arg)
{
    const struct sk_vcpu *c = arg;

    for (unsigned i = 0; i < 20000 && c->jit.st.enters == 0; i++) {
        usleep(1000);
    }
    usleep(5000);
    atomic_store(&stop, 1);
    return arg;
}

/* A client's immediate_exit ends a loop that never leaves translated code: jmp $ and a loop of
 * indirect jumps (lea rax,[rip-7]; jmp rax). */
static void test_immediate_exit(void **state)
{
    static const char *const code[] = { "\xeb\xfe\xf4\xf4\xf4\xf4\xf4\xf4\xf4\xf4",
                                        "\x48\x8d\x05\xf9\xff\xff\xff\xff\xe0\xf4" };
    static struct bare b;
    pthread_t t;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(code); i++) {
        sk_jit_choose(true, 1);
        bare_init(&b, RAM);
        bare_long(&b);
        bare_code(&b, 0x1000, code[i], 10);
        atomic_store(&stop, 0);
        b.c->immediate_exit = &stop;
        assert_int_equal(pthread_create(&t, NULL, stopper, b.c), 0);
        sk_run(b.c, 0);
        assert_int_equal(b.c->exit.kind, SK_EXIT_INTR);
        assert_true(b.c->jit.st.enters > 0);
        pthread_join(t, NULL);
        bare_done(&b);
    }
}

/* --- code that a device writes --- */

enum { FUNC = 0x3000, DEVICE = 0x800000 /* beyond RAM */ };

static struct bare dev;

/* What the engine knows of the device's writes. */
enum dev_tells { DEV_TELLS_NOTHING, DEV_COUNTS, DEV_CONCEALS };
static _Atomic uint64_t dev_writes;
static enum dev_tells dev_tells;

/* The device: done in place, so that the vCPU does not leave KVM_RUN. */
static bool dev_write(struct sk_vcpu *c, uint64_t gpa, void *data, unsigned len, bool write)
{
    (void)gpa;
    (void)data;
    (void)len;
    dev.ram[FUNC + 1] = 2; /* mov eax,1 -> mov eax,2 */
    dev_writes += dev_tells == DEV_COUNTS;
    if (dev.ram[FUNC + 5] == 0x48) { /* iretq -> hlt, and an interrupt */
        dev.ram[FUNC + 5] = 0xf4;
        sk_nmi_post(c);
    }
    return write;
}

static const struct sk_vm_ops dev_ops = { .mmio = dev_write };

/* Translates a function, has the device write another into its place, runs `code`, then the
 * function. Returns what it gave. */
static uint64_t dev_run(bool jit, const char *code, size_t len)
{
    static const char warm[] = "\xb9\x32\x00\x00\x00" /* mov ecx,50 */
                               "\xe8\xf6\x1f\x00\x00" /* 1: call FUNC */
                               "\xff\xc9\x75\xf7"     /* dec ecx; jnz 1b */
                               "\x89\x04\x25\x00\x00\x80\x00" /* mov [DEVICE],eax */;
    size_t at = 0x1000 + sizeof(warm) - 1;
    uint64_t v;

    sk_jit_choose(jit, 1);
    bare_init(&dev, RAM);
    dev.vm.ops = &dev_ops;
    dev.vm.others = dev_tells == DEV_TELLS_NOTHING ? NULL : &dev_writes;
    bare_long(&dev);
    memset(dev.c->features, 0xff, sizeof(dev.c->features));
    memcpy(dev.ram + FUNC, "\xb8\x01\x00\x00\x00\xc3", 6); /* mov eax,1; ret */
    memcpy(dev.ram + at, code, len);
    memcpy(dev.ram + at + len, "\xe8\x00\x00\x00\x00\xf4", 6); /* call FUNC; hlt */
    le32_put(dev.ram + at + len + 1, (uint32_t)(FUNC - (at + len + 5)));
    bare_code(&dev, 0x1000, warm, sizeof(warm) - 1);
    sk_run(dev.c, 0);
    if (dev.c->exit.kind == SK_EXIT_IO) {
        sk_run(dev.c, 0);
    }
    assert_int_equal(dev.c->exit.kind, SK_EXIT_HLT);
    assert_true(dev.c->jit.st.enters > 0 || !jit);
    v = dev.c->r[SK_RAX];
    bare_done(&dev);
    return v;
}

/* What serialises a processor (SDM 3A §8.3, 2023-12; APM 2 §7.6.4) makes it see code that others
 * have written, also where there is no other processor. */
static void test_serialising(void **state)
{
    static const struct {
        const char *name, *code;
        size_t len;
    } all[] = {
#define CASE(name, code) { name, code, sizeof(code) - 1 }
        CASE("cpuid", "\x0f\xa2"),
        CASE("serialize", "\x0f\x01\xe8"),
        CASE("iret", "\x8c\xd0\x48\x89\xe2\x50\x52\x9c\x8c\xc8\x50\x48\x8d\x05\x03\x00\x00\x00\x50"
                     "\x48\xcf"),
        CASE("mov cr0", "\x0f\x20\xc0\x0f\x22\xc0"),
        CASE("mov cr2", "\x0f\x20\xd0\x0f\x22\xd0"),
        CASE("mov cr3", "\x0f\x20\xd8\x0f\x22\xd8"),
        CASE("mov cr4", "\x0f\x20\xe0\x0f\x22\xe0"),
        CASE("lmsw", "\x0f\x01\xe0\x0f\x01\xf0"),
        CASE("mov dr", "\x0f\x21\xc0\x0f\x23\xc0"),
        CASE("invlpg", "\x0f\x01\x3c\x24"),
        CASE("invpcid", "\x6a\x00\x6a\x00\x31\xc0\x66\x0f\x38\x82\x04\x24"),
        CASE("wbinvd", "\x0f\x09"),
        CASE("invd", "\x0f\x08"),
        CASE("lgdt", "\x48\x83\xec\x10\x0f\x01\x04\x24\x0f\x01\x14\x24"),
        CASE("lidt", "\x48\x83\xec\x10\x0f\x01\x0c\x24\x0f\x01\x1c\x24"),
        CASE("lldt", "\x31\xc0\x0f\x00\xd0"),
        CASE("ltr", "\xc6\x04\x25\x3d\x08\x00\x00\x89\xb8\x38\x00\x00\x00\x0f\x00\xd8"),
        CASE("wrmsr", "\xb9\x02\x01\x00\xc0\x31\xc0\x31\xd2\x0f\x30"),
        CASE("out", "\xe6\x80"), /* leaves KVM_RUN */
#undef CASE
    };

    (void)state;
    for (unsigned jit = 0; jit < 2; jit++) {
        for (unsigned i = 0; i < 2 * ARRAY_LEN(all); i++) {
            dev_tells = i % 2 ? DEV_COUNTS : DEV_TELLS_NOTHING;
            if (dev_run(jit, all[i / 2].code, all[i / 2].len) != 2) {
                fail_msg("%s does not serialise (jit %u, told %u)", all[i / 2].name, jit, i % 2);
            }
        }
        /* Where nothing is said to be written nothing is compared; but after an exit it is. */
        dev_tells = DEV_CONCEALS;
        assert_int_equal(dev_run(jit, all[0].code, all[0].len), 1);
        assert_int_equal(dev_run(jit, all[ARRAY_LEN(all) - 1].code, all[ARRAY_LEN(all) - 1].len),
                         2);
    }
    dev_tells = DEV_TELLS_NOTHING;
}

/* An interrupt arrives with the device's write, which changed its handler: mov eax,1; iretq ->
 * mov eax,2; hlt. */
static void test_serialising_event(void **state)
{
    static const char warm[] = "\xb9\x32\x00\x00\x00\xcd\x02\xff\xc9\x75\xfa" /* int 2, 50 times */
                               "\x89\x04\x25\x00\x00\x80\x00\xeb\xfe";

    (void)state;
    for (unsigned jit = 0; jit < 2; jit++) {
        sk_jit_choose(jit, 1);
        bare_init(&dev, RAM);
        dev.vm.ops = &dev_ops;
        bare_long(&dev);
        bare_gate(&dev, 2, BARE_CS64, FUNC, 0);
        memcpy(dev.ram + FUNC, "\xb8\x01\x00\x00\x00\x48\xcf", 7);
        bare_code(&dev, 0x1000, warm, sizeof(warm) - 1);
        sk_run(dev.c, 0);
        assert_int_equal(dev.c->exit.kind, SK_EXIT_HLT);
        assert_int_equal(dev.c->r[SK_RAX], 2);
        bare_done(&dev);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_high_bytes),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_page_end),
        cmocka_unit_test(test_self_modifying),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_immediate_exit),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_mov_groups),
        cmocka_unit_test(test_serialising),
        cmocka_unit_test(test_serialising_event),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    (void)setenv("SOFTKVM_JIT_LOCKSTEP", "1", 1);
    (void)setenv("SOFTKVM_JIT_VERIFY", "1", 1);
    return failed + cmocka_run_group_tests_name("lock-step, verified", tests, NULL, NULL);
}
