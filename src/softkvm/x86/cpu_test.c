/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small guests on a bare vCPU, mode by mode. Byte sequences carry their assembly beside them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "softkvm/x86/bare.h"
#include "softkvm/x86/flags.h"

#define RUN(b, at, code)                                                                           \
    do {                                                                                           \
        bare_code(b, at, code, sizeof(code) - 1);                                                  \
        assert_int_equal(bare_run(b), SK_EXIT_HLT);                                                \
    } while (0)

static void test_real_sum(void **state)
{
    struct bare *b = *state;

    bare_real(b);
    RUN(b, 0x1000,
        "\xb9\x0a\x00" /* mov cx,10 */
        "\x31\xc0"     /* xor ax,ax */
        "\x01\xc8"     /* l: add ax,cx */
        "\xe2\xfc"     /* loop l */
        "\xa3\x00\x20" /* mov [2000h],ax */
        "\xf4");
    assert_int_equal(b->c->r[SK_RAX], 55);
    assert_int_equal(b->ram[0x2000], 55);
    assert_int_equal(b->c->r[SK_RIP], 0x100d);
}

static void test_real_int(void **state)
{
    struct bare *b = *state;

    bare_real(b);
    memcpy(b->ram + 0x21 * 4, "\x00\x15\x00\x00", 4);
    memcpy(b->ram + 0x1500, "\x40\xcf", 2); /* inc ax; iret */
    RUN(b, 0x1000, "\xb8\x41\x00\xcd\x21\xf4");
    assert_int_equal(b->c->r[SK_RAX], 0x42);
    assert_int_equal(b->c->r[SK_RSP], 0x7000);
}

static void test_prot_call(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    RUN(b, 0x1000,
        "\x6a\x05"             /* push 5 */
        "\xe8\x04\x00\x00\x00" /* call f */
        "\x83\xc4\x04\xf4"     /* add esp,4; hlt */
        "\x8b\x44\x24\x04"     /* f: mov eax,[esp+4] */
        "\x0f\xaf\xc0\xc3");   /* imul eax,eax; ret */
    assert_int_equal(b->c->r[SK_RAX], 25);
    assert_int_equal(b->c->r[SK_RSP], 0x7000);
}

static void test_long_rip_relative(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    memcpy(b->ram + 0x2000, "\x78\x56\x34\x12\xef\xcd\xab\x89", 8);
    RUN(b, 0x1000,
        "\x48\x8b\x05\xf9\x0f\x00\x00" /* mov rax,[rip+ff9h] = [2000h] */
        "\x48\x89\xc3"                 /* mov rbx,rax */
        "\x89\xc1"                     /* mov ecx,eax */
        "\x4c\x8d\x04\x03\xf4");       /* lea r8,[rbx+rax] */
    assert_true(b->c->r[SK_RAX] == 0x89abcdef12345678);
    assert_true(b->c->r[SK_RCX] == 0x12345678);
    assert_true(b->c->r[SK_R8] == 2 * 0x89abcdef12345678);
}

static void test_long_page_fault(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    bare_gate(b, 14, BARE_CS64, 0x1800, 0);
    memcpy(b->ram + 0x1800, "\x58\x0f\x20\xd3\xf4", 5); /* pop rax; mov rbx,cr2; hlt */
    RUN(b, 0x1000,
        "\x48\xb9\x00\x00\x00\x40\x00\x00\x00\x00" /* mov rcx,40000000h */
        "\x48\x89\x01\xf4");                       /* mov [rcx],rax */
    assert_int_equal(b->c->r[SK_RAX], 2);
    assert_int_equal(b->c->r[SK_RBX], 0x40000000);
    assert_int_equal(b->c->r[SK_RSP], 0x7000 - 40);
    assert_true(*(uint64_t *)(void *)(b->ram + 0x7000 - 40) == 0x100a);
}

/* A store into the block being run: the next instruction must be the new one. */
static void test_self_modifying(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    for (int i = 0; i < 3; i++) {
        RUN(b, 0x1000,
            "\xb0\x02"             /* mov al,2 */
            "\xa2\x08\x10\x00\x00" /* mov [1008h],al */
            "\xb3\x01"             /* mov bl,1 -> mov bl,2 */
            "\xf4");
        assert_int_equal(b->c->r[SK_RBX], 2);
    }
}

static void test_rep_movs(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    for (unsigned i = 0; i < 0x3000; i++) {
        b->ram[0x10000 + i] = (uint8_t)(i * 7);
    }
    RUN(b, 0x1000,
        "\xbe\x01\x00\x01\x00" /* mov esi,10001h */
        "\xbf\xf0\x0f\x02\x00" /* mov edi,20ff0h */
        "\xb9\x00\x20\x00\x00" /* mov ecx,2000h */
        "\xf3\xa4\xf4");       /* rep movsb */
    assert_memory_equal(b->ram + 0x20ff0, b->ram + 0x10001, 0x2000);
    assert_int_equal(b->c->r[SK_RCX], 0);
    assert_int_equal(b->c->r[SK_RSI], 0x12001);
    assert_int_equal(b->c->r[SK_RDI], 0x22ff0);
}

static void test_triple_fault(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    b->c->idtr.limit = 0;
    bare_code(b, 0x1000, "\x0f\x0b", 2);
    assert_int_equal(bare_run(b), SK_EXIT_SHUTDOWN);
}

static void test_pio(void **state)
{
    struct bare *b = *state;

    bare_real(b);
    bare_code(b, 0x1000, "\xb0\x5a\xe6\x80\xe4\x60\xf4", 7); /* out 80h,al; in al,60h */
    assert_int_equal(bare_run(b), SK_EXIT_IO);
    assert_false(b->c->exit.io.in);
    assert_int_equal(b->c->exit.io.port, 0x80);
    assert_int_equal(b->pio[0], 0x5a);
    assert_int_equal(b->c->r[SK_RIP], 0x1002);
    assert_int_equal(bare_run(b), SK_EXIT_IO);
    assert_true(b->c->exit.io.in);
    b->pio[0] = 0x77;
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(b->c->r[SK_RAX], 0x77);
}

static void test_mmio(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    bare_code(b, 0x1000, "\x81\x05\x00\x00\x00\x80\x01\x00\x00\x00\xf4",
              11); /* add [80000000h],1 */
    assert_int_equal(bare_run(b), SK_EXIT_MMIO);
    assert_false(b->c->exit.mmio->write);
    assert_true(b->c->exit.mmio->gpa == 0x80000000);
    memcpy(b->c->exit.mmio->data, "\xff\x00\x00\x00", 4);
    assert_int_equal(bare_run(b), SK_EXIT_MMIO);
    assert_true(b->c->exit.mmio->write);
    assert_int_equal(b->c->exit.mmio->data[1], 1);
    assert_int_equal(b->c->r[SK_RIP], 0x100a);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
}

/* Ring 3 and back by INT through the TSS stack. */
static void test_ring3(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    bare_gate(b, 0x80, BARE_CS0, 0x1800, 3);
    memcpy(b->ram + BARE_TSS + 4, "\x00\x60\x00\x00\x10\x00", 6);
    memcpy(b->ram + 0x1800, "\x89\xe0\xf4", 3); /* mov eax,esp; hlt */
    memcpy(b->ram + 0x1400, "\xcd\x80", 2);
    RUN(b, 0x1000,
        "\x6a\x23\x68\x00\x50\x00\x00\x9c\x6a\x1b" /* push 23h; push 5000h; pushf; push 1bh */
        "\x68\x00\x14\x00\x00\xcf");               /* push 1400h; iret */
    assert_int_equal(b->c->cpl, 0);
    assert_int_equal(b->c->r[SK_RAX], 0x6000 - 20);
    assert_int_equal(*(uint32_t *)(void *)(b->ram + 0x6000 - 8), 0x5000);
    assert_int_equal(*(uint32_t *)(void *)(b->ram + 0x6000 - 4), 0x23);
}

/* From real mode to long mode and to compatibility mode, as a kernel does it. */
static void test_enter_long(void **state)
{
    struct bare *b = *state;

    bare_long(b); /* for its tables */
    bare_prot(b);
    RUN(b, 0x1000,
        "\x0f\x20\xe0\x83\xc8\x20\x0f\x22\xe0"                     /* cr4 |= PAE */
        "\xb8\x00\x80\x00\x00\x0f\x22\xd8"                         /* cr3 = 8000h */
        "\xb9\x80\x00\x00\xc0\x0f\x32\x0d\x00\x01\x00\x00\x0f\x30" /* EFER.LME */
        "\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0"             /* CR0.PG */
        "\xea\x31\x10\x00\x00\x28\x00"                             /* jmp 28h:1031h */
        "\x48\xb8\x88\x77\x66\x55\x44\x33\x22\x11\xf4");
    assert_true(b->c->r[SK_RAX] == 0x1122334455667788);
    assert_true(b->c->efer & 0x400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_sum),
        cmocka_unit_test(test_real_int),
        cmocka_unit_test(test_prot_call),
        cmocka_unit_test(test_long_rip_relative),
        cmocka_unit_test(test_long_page_fault),
        cmocka_unit_test(test_self_modifying),
        cmocka_unit_test(test_rep_movs),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_pio),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_ring3),
        cmocka_unit_test(test_enter_long),
    };

    return cmocka_run_group_tests(tests, bare_setup, bare_teardown);
}
