/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What only system software sees: privilege changes, gates, tasks, paging rights, traps and
 * shadows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "softkvm/x86/bare.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mem.h"
#include "softkvm/x86/msr.h"

#define RUN(b, at, code)                                                                           \
    do {                                                                                           \
        bare_code(b, at, code, sizeof(code) - 1);                                                  \
        assert_int_equal(bare_run(b), SK_EXIT_HLT);                                                \
    } while (0)
#define PUT(b, at, code) memcpy((b)->ram + (at), code, sizeof(code) - 1)

/* Every exception ends at a HLT of its own: 1800h + 16 * vector. */
enum { HALTS = 0x1800 };

static void halts(struct bare *b, uint16_t cs)
{
    for (unsigned v = 0; v < 32; v++) {
        bare_gate(b, v, cs, HALTS + 16 * v, 0);
        b->ram[HALTS + 16 * v] = 0xf4;
    }
}

static int vector(const struct bare *b)
{
    return (int)(b->c->r[SK_RIP] - 1 - HALTS) / 16;
}

static uint32_t *stack32(struct bare *b, unsigned n)
{
    return (uint32_t *)(void *)(b->ram + (uint32_t)b->c->r[SK_RSP] + 4 * n);
}

static uint64_t *stack64(struct bare *b, unsigned n)
{
    return (uint64_t *)(void *)(b->ram + b->c->r[SK_RSP] + 8 * n);
}

/* Into virtual 8086 mode by IRETD; INT n there with IOPL 3 goes through the IDT, with IOPL 0 is
 * #GP. */
static void test_v86(void **state)
{
    struct bare *b = *state;

    for (unsigned iopl = 0; iopl <= 3; iopl += 3) {
        uint32_t fl = 0x20002 | iopl << 12;

        bare_prot(b);
        halts(b, BARE_CS0);
        bare_gate(b, 0x21, BARE_CS0, 0x1700, 3);
        b->ram[0x1700] = 0xf4;
        PUT(b, BARE_TSS + 4, "\x00\x60\x00\x00\x10\x00");
        PUT(b, 0x2010, "\xcd\x21"); /* at 200h:10h */
        b->c->r[SK_RSP] = 0x6f00;
        memcpy(b->ram + 0x6f00 + 8, &fl, 4);
        PUT(b, 0x6f00, "\x10\x00\x00\x00\x00\x02\x00\x00");
        PUT(b, 0x6f0c,
            "\x00\x50\x00\x00\x34\x02\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"
            "\x03\x00\x00\x00\x04\x00\x00\x00");
        RUN(b, 0x1000, "\xcf");
        assert_int_equal(b->c->cpl, 0);
        assert_false(b->c->eflags & SK_FL_VM);
        if (iopl == 3) {
            assert_int_equal(b->c->r[SK_RIP], 0x1701);
            assert_int_equal(*stack32(b, 0), 0x12);
            assert_int_equal(*stack32(b, 1), 0x200);
            assert_int_equal(*stack32(b, 4), 0x234);
            assert_int_equal(*stack32(b, 5), 1); /* ES */
            assert_int_equal(*stack32(b, 8), 4); /* GS */
        } else {
            assert_int_equal(vector(b), SK_GP);
            assert_int_equal(*stack32(b, 0), 0);
            assert_int_equal(*stack32(b, 1), 0x10);
        }
        assert_int_equal(b->c->seg[SK_DS].sel, 0);
    }
}

/* Ring 3 calls a 32-bit gate with two parameters and returns with RETF 8. */
static void test_call_gate(void **state)
{
    struct bare *b = *state;
    uint64_t gate = 0x1500 | (uint64_t)BARE_CS0 << 16 | UINT64_C(0xec02) << 32;

    bare_prot(b);
    halts(b, BARE_CS0);
    memcpy(b->ram + BARE_GDT + 0x58, &gate, 8);
    PUT(b, BARE_TSS + 4, "\x00\x60\x00\x00\x10\x00");
    /* gate: mov eax,[esp+8]; mov ebx,[esp+12]; retf 8 */
    PUT(b, 0x1500, "\x8b\x44\x24\x08\x8b\x5c\x24\x0c\xca\x08\x00");
    PUT(b, 0x1400,
        "\x6a\x07\x6a\x09\x9a\x00\x00\x00\x00\x58\x00\x89\xe1\xf4"); /* ... mov ecx,esp; hlt */
    RUN(b, 0x1000, "\x6a\x23\x68\x00\x50\x00\x00\x6a\x1b\x68\x00\x14\x00\x00\xcb");
    assert_int_equal(vector(b), SK_GP); /* the HLT in ring 3 */
    assert_int_equal(b->c->r[SK_RAX], 9);
    assert_int_equal(b->c->r[SK_RBX], 7);
    assert_int_equal(b->c->r[SK_RCX], 0x5000);
}

/* CALL to a TSS, IRET back: busy bits, link, NT. */
static void test_task_switch(void **state)
{
    struct bare *b = *state;
    uint32_t tss[26] = { 0 };
    uint64_t desc = 0x67 | (uint64_t)0x2000 << 16 | UINT64_C(0x8900) << 32;

    bare_prot(b);
    halts(b, BARE_CS0);
    memcpy(b->ram + BARE_GDT + 0x58, &desc, 8);
    tss[8] = 0x1500;
    tss[9] = 2;
    tss[10] = 0x1234; /* EAX */
    tss[14] = 0x6800;
    for (unsigned i = 18; i < 24; i++) {
        tss[i] = BARE_DS0;
    }
    tss[19] = BARE_CS0;
    memcpy(b->ram + 0x2000, tss, sizeof(tss));
    PUT(b, 0x1500, "\xa3\x00\x30\x00\x00\xcf"); /* mov [3000h],eax; iret */
    RUN(b, 0x1000, "\xb8\x77\x00\x00\x00\x9a\x00\x00\x00\x00\x58\x00\xf4");
    assert_int_equal(b->c->r[SK_RIP], 0x100d);
    assert_int_equal(b->c->r[SK_RAX], 0x77);
    assert_int_equal(*(uint32_t *)(void *)(b->ram + 0x3000), 0x1234);
    assert_int_equal(b->c->seg[SK_TR].sel, BARE_TR);
    assert_int_equal(b->ram[BARE_GDT + 0x58 + 5], 0x89); /* not busy any more */
    assert_int_equal(*(uint16_t *)(void *)(b->ram + 0x2000), BARE_TR);
    assert_int_equal(*(uint32_t *)(void *)(b->ram + 0x2000 + 0x20), 0x1506);
    assert_true(b->c->cr0 & 8);
}

static void test_single_step(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    halts(b, BARE_CS0);
    /* pushf; or dword [esp],100h; popf; nop; hlt */
    RUN(b, 0x1000, "\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x90\xf4");
    assert_int_equal(vector(b), SK_DB);
    assert_int_equal(*stack32(b, 0), 0x100a);
    assert_true(*stack32(b, 2) & SK_FL_TF);
    assert_true(b->c->dr[6] & 0x4000);
    assert_false(b->c->eflags & SK_FL_TF);
}

static void test_breakpoints(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    halts(b, BARE_CS0);
    /* DR0 = 3000h, write, 4 bytes; mov [3002h],al */
    RUN(b, 0x1000,
        "\xb8\x00\x30\x00\x00\x0f\x23\xc0\xb8\x01\x00\x0d\x00\x0f\x23\xf8"
        "\xa2\x02\x30\x00\x00\xf4");
    assert_int_equal(vector(b), SK_DB);
    assert_int_equal(*stack32(b, 0), 0x1015);
    assert_int_equal(b->c->dr[6] & 15, 1);
    bare_prot(b);
    halts(b, BARE_CS0);
    /* DR1 = 1010h, execution */
    RUN(b, 0x1000, "\xb8\x11\x10\x00\x00\x0f\x23\xc8\xb8\x04\x00\x00\x00\x0f\x23\xf8\x90\x90\xf4");
    assert_int_equal(vector(b), SK_DB);
    assert_int_equal(*stack32(b, 0), 0x1011);
    assert_int_equal(b->c->dr[6] & 15, 2);
}

/* Rights in 4-level paging: the error code tells which one was missing. */
static void fault_long(struct bare *b, uint64_t pde, uint64_t cr4, unsigned cpl, const char *code,
                       size_t len, int want)
{
    uint64_t *pt = (uint64_t *)(void *)(b->ram + BARE_PT);

    bare_long(b);
    halts(b, BARE_CS64);
    PUT(b, BARE_TSS + 4, "\x00\x60\x00\x00\x00\x00\x00\x00");
    pt[1024 + 1] = pde;
    pt[1024] = 0x83 | (cpl == 3 ? 4u : 0u);
    b->c->cr4 |= cr4;
    if (cpl == 3) {
        b->c->cpl = 3;
        b->c->seg[SK_CS].sel = BARE_CS64_3;
        b->c->seg[SK_CS].attr = 0xa0fb;
        b->c->seg[SK_SS].sel = BARE_DS3;
        b->c->seg[SK_SS].attr = 0xc0f3;
    }
    sk_vcpu_changed(b->c);
    bare_code(b, 0x1000, code, len);
    b->c->r[SK_RSI] = 0x200000;
    b->ram[0x200000] = 0xf4;
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    if (want < 0) {
        assert_int_equal(b->c->r[SK_RIP], 0x1003);
        return;
    }
    assert_int_equal(vector(b), SK_PF);
    assert_int_equal(*stack64(b, 0), want);
    assert_true(b->c->cr2 == 0x200000);
    /* A fetch faults at the target, not at the jump. */
    assert_true(*stack64(b, 1) == (len == 2 ? 0x200000u : 0x1000u));
}

#define LOAD  "\x8a\x06\xf4" /* mov al,[rsi]; hlt */
#define STORE "\x88\x06\xf4"
#define JUMP  "\xff\xe6"

static void test_paging_rights(void **state)
{
    struct bare *b = *state;
    const uint64_t smep = 1u << 20, smap = 1u << 21, nx = UINT64_C(1) << 63;

    fault_long(b, 0x200083, 0, 0, LOAD, 3, -1);
    fault_long(b, 0x200082, 0, 0, LOAD, 3, 0);
    fault_long(b, 0x200081, 0, 0, STORE, 3, 3);
    fault_long(b, 0x200083, 0, 3, LOAD, 3, 5);
    fault_long(b, 0x200085, 0, 3, STORE, 3, 7);
    fault_long(b, 0x200083 | nx, 0, 0, JUMP, 2, 0x11);
    fault_long(b, 0x200087, smep, 0, JUMP, 2, 0x11);
    fault_long(b, 0x200087, smap, 0, LOAD, 3, 1);
    fault_long(b, 0x202083, 0, 0, LOAD, 3, 9);
    fault_long(b, 0x200083 | UINT64_C(1) << 45, 0, 0, LOAD, 3, 9);
}

static void test_accessed_dirty(void **state)
{
    struct bare *b = *state;
    uint64_t *pt = (uint64_t *)(void *)(b->ram + BARE_PT);

    bare_long(b);
    RUN(b, 0x1000, "\x8a\x04\x25\x00\x00\x20\x00\x88\x04\x25\x00\x00\x20\x00\xf4");
    assert_int_equal(pt[1024 + 1] & 0x60, 0x60);
    assert_int_equal(pt[1024] & 0x60, 0x20);
    assert_int_equal(pt[0] & 0x20, 0x20);
}

/* SYSCALL to ring 0 and SYSRET back. */
static void test_syscall(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    halts(b, BARE_CS64);
    PUT(b, BARE_TSS + 4, "\x00\x60\x00\x00\x00\x00\x00\x00");
    b->c->star = (uint64_t)BARE_CS64 << 32 | UINT64_C(0x1b) << 48;
    b->c->lstar = 0x1400;
    b->c->sfmask = SK_FL_IF;
    PUT(b, 0x1400, "\x48\xff\xc0\x48\x0f\x07"); /* inc rax; sysret */
    PUT(b, 0x1500, "\x0f\x05\x0f\x05\xf4");     /* syscall twice; hlt: #GP */
    RUN(b, 0x1000, "\x31\xc0\xb9\x00\x15\x00\x00\x41\xbb\x02\x02\x00\x00\x48\x0f\x07");
    assert_int_equal(vector(b), SK_GP);
    assert_int_equal(b->c->r[SK_RAX], 2);
    assert_int_equal(*stack64(b, 1), 0x1504);
    assert_int_equal(*stack64(b, 2), 0x2b);
    assert_int_equal(*stack64(b, 5), 0x23);
}

/* SYSCALL and SYSRET trap by TF as they leave it. */
static void test_syscall_tf(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    halts(b, BARE_CS64);
    PUT(b, BARE_TSS + 4, "\x00\x60\x00\x00\x00\x00\x00\x00");
    b->c->star = (uint64_t)BARE_CS64 << 32 | UINT64_C(0x1b) << 48;
    /* mov ecx,1500h; mov r11d,302h; sysret: a trap before the first instruction there. */
    RUN(b, 0x1000, "\xb9\x00\x15\x00\x00\x41\xbb\x02\x03\x00\x00\x48\x0f\x07");
    assert_int_equal(vector(b), SK_DB);
    assert_int_equal(*stack64(b, 0), 0x1500);
    bare_long(b);
    halts(b, BARE_CS64);
    b->c->star = (uint64_t)BARE_CS64 << 32 | UINT64_C(0x1b) << 48;
    b->c->lstar = 0x1400;
    b->c->sfmask = SK_FL_TF;
    PUT(b, 0x1400, "\xf4");
    /* pushf; or dword [rsp],100h; popf; syscall: no trap in the handler. */
    RUN(b, 0x1000, "\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x0f\x05");
    assert_int_equal(b->c->r[SK_RIP], 0x1401);
}

/* A port access that the client completes is a step like any other. */
static void test_step_port(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    halts(b, BARE_CS64);
    /* pushf; or dword [rsp],100h; popf; in al,50h; nop */
    bare_code(b, 0x1000, "\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\xe4\x50\x90", 12);
    assert_int_equal(bare_run(b), SK_EXIT_IO);
    sk_run(b->c, 100);
    assert_int_equal(vector(b), SK_DB);
    assert_int_equal(*stack64(b, 0), 0x100b);
}

/* An I/O breakpoint is a trap behind the access; without CR4.DE there is none. */
static void test_io_breakpoint(void **state)
{
    struct bare *b = *state;

    for (unsigned de = 0; de < 2; de++) {
        bare_long(b);
        halts(b, BARE_CS64);
        b->c->cr4 |= de != 0 ? 8 : 0;
        b->c->dr[1] = 0x60;
        b->c->dr[6] = 0xffff0ff0;
        b->c->dr[7] = UINT64_C(0xe00408);                    /* DR1 global, I/O, four ports */
        bare_code(b, 0x1000, "\xe6\x64\xe6\x63\x90\xf4", 6); /* out 64h; out 63h */
        sk_vcpu_changed(b->c);
        assert_int_equal(bare_run(b), SK_EXIT_IO);
        assert_int_equal(bare_run(b), SK_EXIT_IO);
        assert_int_equal(bare_run(b), SK_EXIT_HLT);
        if (de != 0) {
            assert_int_equal(vector(b), SK_DB);
            assert_int_equal(*stack64(b, 0), 0x1004);
            assert_int_equal(b->c->dr[6] & 0xf00f, 2);
        } else {
            assert_int_equal(b->c->r[SK_RIP], 0x1006);
        }
        b->c->dr[7] = 0x400;
        sk_vcpu_changed(b->c);
    }
}

/* LTR and LLDT of a descriptor whose base is not canonical. */
static void test_system_base(void **state)
{
    struct bare *b = *state;
    const uint64_t desc[2] = { 0x67 | (uint64_t)0x2000 << 16 | UINT64_C(0x8900) << 32, 0xaaaaaa };

    for (unsigned i = 0; i < 2; i++) {
        bare_long(b);
        halts(b, BARE_CS64);
        memcpy(b->ram + BARE_GDT + 0x58, desc, sizeof(desc));
        b->ram[BARE_GDT + 0x58 + 5] = i == 0 ? 0x89 : 0x82;
        b->c->gdtr.limit = 0x67;
        if (i == 0) {
            RUN(b, 0x1000, "\xb8\x58\x00\x00\x00\x0f\x00\xd8\xf4");
        } else {
            RUN(b, 0x1000, "\xb8\x58\x00\x00\x00\x0f\x00\xd0\xf4");
        }
        assert_int_equal(vector(b), SK_GP);
        assert_int_equal(*stack64(b, 0), 0x58);
    }
}

/* A fault while a page fault is delivered: #DF with error code 0. */
static void test_double_fault(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    halts(b, BARE_CS64);
    memset(b->ram + BARE_IDT + 14 * 16, 0, 16);
    RUN(b, 0x1000, "\x8a\x04\x25\x00\x00\x00\x40\xf4");
    assert_int_equal(vector(b), SK_DF);
    assert_int_equal(*stack64(b, 0), 0);
    assert_int_equal(*stack64(b, 1), 0x1000);
}

static int pending_vec;

static bool fake_pending(struct sk_vcpu *c)
{
    (void)c;
    return pending_vec >= 0;
}

static int fake_ack(struct sk_vcpu *c)
{
    int v = pending_vec;

    (void)c;
    pending_vec = -1;
    return v;
}

/* An interrupt waits for the instruction behind STI. */
static void test_sti_shadow(void **state)
{
    static const struct sk_vm_ops ops = { .intr_pending = fake_pending, .intr_ack = fake_ack };
    struct bare *b = *state;
    const struct sk_vm_ops *old = b->vm.ops;

    b->vm.ops = &ops;
    pending_vec = 16;
    bare_prot(b);
    halts(b, BARE_CS0);
    sk_poll_set(b->c, SK_POLL_INTR);
    RUN(b, 0x1000, "\x90\xfb\x40\x40\xf4"); /* nop; sti; inc eax; inc eax */
    assert_int_equal(vector(b), 16);
    assert_int_equal(b->c->r[SK_RAX], 1);
    assert_int_equal(*stack32(b, 0), 0x1003);
    assert_true(*stack32(b, 2) & SK_FL_IF);
    b->vm.ops = old;
}

/* Limits loaded in protected mode stay in real mode. */
static void test_unreal(void **state)
{
    struct bare *b = *state;

    bare_real(b);
    b->c->seg[SK_DS].limit = 0xffffffff;
    sk_vcpu_changed(b->c);
    RUN(b, 0x1000,
        "\x66\xb8\x78\x56\x34\x12"           /* mov eax,12345678h */
        "\x67\x66\xa3\x00\x00\x20\x00\xf4"); /* mov [200000h],eax */
    assert_int_equal(*(uint32_t *)(void *)(b->ram + 0x200000), 0x12345678);
}

/* Without that: 64 KiB, and #GP through the vector table. */
static void test_real_limit(void **state)
{
    struct bare *b = *state;

    bare_real(b);
    memcpy(b->ram + 13 * 4, "\x00\x19\x00\x00", 4);
    b->ram[0x1900] = 0xf4;
    RUN(b, 0x1000, "\xa1\xff\xff\xf4"); /* mov ax,[ffffh] */
    assert_int_equal(b->c->r[SK_RIP], 0x1901);
    assert_int_equal(*(uint16_t *)(void *)(b->ram + 0x6ffa), 0x1000);
}

static void test_msrs(void **state)
{
    struct bare *b = *state;
    uint64_t v;

    bare_long(b);
    assert_int_equal(sk_msr_write(b->c, 0xc0000082, UINT64_C(0x800000000000), false), 1);
    assert_int_equal(sk_msr_write(b->c, 0xc0000082, UINT64_C(0xffff800000000000), false), 0);
    assert_int_equal(sk_msr_read(b->c, 0xc0000082, &v, false), 0);
    assert_true(v == UINT64_C(0xffff800000000000));
    assert_int_equal(sk_msr_read(b->c, 0x12345, &v, false), 1);
    assert_int_equal(sk_msr_write(b->c, 0x277, 2, false), 1); /* PAT: no such type */
    assert_int_equal(sk_msr_write(b->c, 0xc0000080, 0x200, false), 1);
    halts(b, BARE_CS64);
    RUN(b, 0x1000, "\xb9\x45\x23\x01\x00\x0f\x32");
    assert_int_equal(vector(b), SK_GP);
}

/* Of the NMIs that arrive while one is served, one is taken behind it. */
static void test_nmi(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    halts(b, BARE_CS0);
    b->ram[HALTS + 16 * SK_NMI + 1] = 0xcf; /* hlt; iret */
    bare_code(b, 0x1000, "\x90\xf4", 2);
    sk_nmi_post(b->c);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(bare_run(b), SK_EXIT_HLT);
        assert_int_equal(vector(b), SK_NMI);
        assert_int_equal(*stack32(b, 0), 0x1000);
        assert_true(b->c->nmi_masked);
        for (int k = 0; i == 0 && k < 3; k++) {
            sk_nmi_post(b->c);
        }
    }
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(b->c->r[SK_RIP], 0x1002);
    assert_false(b->c->nmi_masked);
    /* One whose delivery the client took over comes although NMIs are masked. */
    bare_code(b, 0x1000, "\x90\xf4", 2);
    b->c->nmi_masked = b->c->nmi_injected = true;
    sk_poll_set(b->c, SK_POLL_NMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(vector(b), SK_NMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(b->c->r[SK_RIP], 0x1002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nmi),           cmocka_unit_test(test_v86),
        cmocka_unit_test(test_call_gate),     cmocka_unit_test(test_task_switch),
        cmocka_unit_test(test_single_step),   cmocka_unit_test(test_breakpoints),
        cmocka_unit_test(test_paging_rights), cmocka_unit_test(test_accessed_dirty),
        cmocka_unit_test(test_syscall),       cmocka_unit_test(test_syscall_tf),
        cmocka_unit_test(test_step_port),     cmocka_unit_test(test_io_breakpoint),
        cmocka_unit_test(test_system_base),   cmocka_unit_test(test_double_fault),
        cmocka_unit_test(test_sti_shadow),    cmocka_unit_test(test_unreal),
        cmocka_unit_test(test_real_limit),    cmocka_unit_test(test_msrs),
    };

    return cmocka_run_group_tests(tests, bare_setup, bare_teardown);
}
