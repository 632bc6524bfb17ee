/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System management mode on a bare vCPU: what it saves, what it finds, what it gives back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "softkvm/x86/bare.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mem.h"
#include "softkvm/x86/msr.h"
#include "softkvm/x86/phys.h"

enum { SMBASE = 0x200000, AREA = SMBASE + 0x8000, CODE = 0x1000 };

/* mov eax,12345678h; mov [2000h],eax; hlt; rsm: 16-bit code with flat segments. */
#define HANDLER "\x66\xb8\x78\x56\x34\x12\x66\xa3\x00\x20\xf4\x0f\xaa"

/* What SMM must give back. */
struct snapshot {
    uint64_t r[SK_NREGS], cr0, cr3, cr4, efer, dr7;
    uint32_t flags;
    uint8_t cpl;
    struct sk_dtable gdtr, idtr;
    struct sk_seg seg[SK_NSEGS_ALL];
};

static void snap(const struct bare *b, struct snapshot *s)
{
    const struct sk_vcpu *c = b->c;

    memset(s, 0, sizeof(*s));
    memcpy(s->r, c->r, sizeof(s->r));
    memcpy(s->seg, c->seg, sizeof(s->seg));
    s->cr0 = c->cr0;
    s->cr3 = c->cr3;
    s->cr4 = c->cr4;
    s->efer = c->efer;
    s->dr7 = c->dr[7];
    s->flags = sk_flags_get(c);
    s->cpl = c->cpl;
    s->gdtr.base = c->gdtr.base;
    s->gdtr.limit = c->gdtr.limit;
    s->idtr.base = c->idtr.base;
    s->idtr.limit = c->idtr.limit;
}

static void prepare(struct bare *b)
{
    memcpy(b->ram + AREA, HANDLER, sizeof(HANDLER) - 1);
    b->c->smbase = SMBASE;
    for (unsigned i = 0; i < 16; i++) {
        b->c->r[i] = UINT64_C(0x1111111111) * (i + 1);
    }
    b->c->r[SK_RSP] = 0x7000;
    sk_flags_set(b->c, SK_FL_ONE | SK_FL_CF | SK_FL_DF);
    bare_code(b, CODE, "\x90\xf4", 2);
}

static uint32_t area32(const struct bare *b, unsigned off)
{
    return le32_get(b->ram + AREA + off);
}

/* An SMI to the HLT in the handler, and on to the HLT of the code. */
static void there_and_back(struct bare *b)
{
    struct snapshot before, after;
    struct sk_vcpu *c = b->c;

    snap(b, &before);
    sk_poll_set(c, SK_POLL_SMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_true(c->in_smm && c->nmi_masked);
    assert_int_equal(c->cr0 & UINT64_C(0x8000000d), 0);
    assert_int_equal(c->cr4, 0);
    assert_int_equal(c->dr[7], 0x400);
    assert_int_equal(c->seg[SK_CS].base, SMBASE);
    assert_int_equal(c->seg[SK_CS].sel, SMBASE >> 4 & 0xffff);
    assert_int_equal(c->seg[SK_DS].limit, 0xffffffff);
    assert_int_equal(c->idtr.limit, 0);
    assert_int_equal(c->r[SK_RIP], 0x800b);
    assert_int_equal(le32_get(b->ram + 0x2000), 0x12345678);
    assert_int_equal(c->smi_count, 1);
    sk_run(c, 1); /* RSM */
    assert_false(c->in_smm || c->nmi_masked);
    snap(b, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(c->r[SK_RIP], CODE + 2);
}

static void test_long(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    prepare(b);
    b->c->seg[SK_GS].base = UINT64_C(0xffff888012345000);
    b->c->seg[SK_FS] = (struct sk_seg){ .attr = SK_ATTR_NULL };
    b->c->r[15] = UINT64_C(0xfedcba9876543210);
    sk_mode_update(b->c);
    there_and_back(b);
    assert_int_equal(b->c->efer & 0x500, 0x500);
    assert_int_equal(area32(b, 0x7efc), 0x20064);
    assert_int_equal(area32(b, 0x7f00), SMBASE);
    assert_int_equal(area32(b, 0x7f78), CODE);
    assert_int_equal(area32(b, 0x7f80), 0x76543210); /* R15 */
    assert_int_equal(area32(b, 0x7f84), 0xfedcba98);
    assert_int_equal(area32(b, 0x7e5c), 0xffff8880); /* base of GS */
    assert_int_equal(area32(b, 0x7ff8), 0x11111111); /* RAX */
    assert_int_equal(area32(b, 0x7f70), 0x403);
    assert_int_equal(area32(b, 0x7e12) >> 13 & 1, 1); /* CS.L */
    assert_int_equal(area32(b, 0x7e42) & 0x80, 0);    /* FS is not present */
}

static void test_level3(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    prepare(b);
    b->c->seg[SK_CS].sel = BARE_CS64_3;
    b->c->seg[SK_CS].attr |= 3 << SK_ATTR_DPL_SHIFT;
    b->c->seg[SK_SS].sel = BARE_DS3;
    b->c->seg[SK_SS].attr |= 3 << SK_ATTR_DPL_SHIFT;
    b->c->cpl = 3;
    sk_vcpu_changed(b->c);
    struct snapshot before, after;
    snap(b, &before);
    sk_poll_set(b->c, SK_POLL_SMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    sk_run(b->c, 1);
    snap(b, &after);
    assert_int_equal(after.cpl, 3);
    assert_memory_equal(&before, &after, sizeof(before));
}

static void test_without_long_mode(void **state)
{
    struct bare *b = *state;
    struct sk_cpuid_entry e[64];
    unsigned n = b->c->cpuid_n;

    assert_in_range(n, 1, ARRAY_LEN(e));
    memcpy(e, b->c->cpuid, n * sizeof(e[0]));
    for (unsigned i = 0; i < n; i++) {
        e[i].edx &= e[i].function == 0x80000001 ? ~BIT(29) : ~0u;
    }
    bare_prot(b);
    assert_int_equal(sk_cpuid_set(b->c, e, n), 0);
    prepare(b);
    for (unsigned i = 0; i < 16; i++) {
        b->c->r[i] &= 0xffffffff;
    }
    there_and_back(b);
    assert_int_equal(area32(b, 0x7efc), 0x20000);
    assert_int_equal(area32(b, 0x7ef8), SMBASE);
    assert_int_equal(area32(b, 0x7ff0), CODE);
    assert_int_equal(area32(b, 0x7ffc), b->c->cr0);
    assert_int_equal(area32(b, 0x7fd0), 0x11111111); /* EAX */
    assert_int_equal(area32(b, 0x7fec), 0x88888888); /* EDI */
    assert_int_equal(area32(b, 0x7fac), b->c->seg[SK_CS].sel);
    assert_int_equal(area32(b, 0x7f90), b->c->seg[SK_CS].attr << 8);
    assert_int_equal(area32(b, 0x7f30), b->c->seg[SK_DS].limit);
}

/* The handler moves SMBASE and RIP; what it leaves there counts from then on. */
static void test_save_area_counts(void **state)
{
    struct bare *b = *state;

    bare_long(b);
    prepare(b);
    sk_poll_set(b->c, SK_POLL_SMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    le32_put(b->ram + AREA + 0x7f00, SMBASE + 0x10000);
    le64_put(b->ram + AREA + 0x7f78, CODE + 1);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(b->c->r[SK_RIP], CODE + 2);
    assert_int_equal(b->c->smbase, SMBASE + 0x10000);
}

static void test_impossible_state(void **state)
{
    static const struct {
        unsigned off;
        uint64_t value;
    } bad[] = {
        {0x7f58,  UINT64_C(0x80000000)}, /* PG without PE */
        { 0x7f58, UINT64_C(0x20000011)}, /* NW without CD */
        { 0x7f48, BIT64(40)           }, /* no such bit of CR4 */
        { 0x7f48, 0                   }, /* long mode without PAE */
        { 0x7ed0, 0x2000              }, /* of EFER */
        { 0x7f60, BIT64(32)           }, /* of DR7 */
    };
    struct bare *b = *state;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        bare_long(b);
        prepare(b);
        sk_poll_set(b->c, SK_POLL_SMI);
        assert_int_equal(bare_run(b), SK_EXIT_HLT);
        le64_put(b->ram + AREA + bad[i].off, bad[i].value);
        assert_int_equal(bare_run(b), SK_EXIT_SHUTDOWN);
        assert_false(b->c->in_smm);
    }
}

static void test_rsm_outside(void **state)
{
    struct bare *b = *state;

    bare_prot(b);
    bare_gate(b, SK_UD, BARE_CS0, 0x1800, 0);
    b->ram[0x1800] = 0xf4;
    bare_code(b, CODE, "\x0f\xaa", 2);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(b->c->r[SK_RIP], 0x1801);
}

/* In SMM, a second SMI, an NMI and an INIT wait: the SMI comes first, then the NMI. */
static void test_what_waits(void **state)
{
    struct bare *b = *state;
    struct sk_vcpu *c = b->c;

    bare_prot(b);
    bare_gate(b, SK_NMI, BARE_CS0, 0x1800, 0);
    b->ram[0x1800] = 0xf4;
    prepare(b);
    sk_poll_set(c, SK_POLL_SMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    sk_poll_set(c, SK_POLL_SMI);
    sk_nmi_post(c);
    sk_run(c, 1); /* RSM, and into the handler again */
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_true(c->in_smm);
    assert_int_equal(c->smi_count, 2);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_false(c->in_smm);
    assert_int_equal(c->r[SK_RIP], 0x1801); /* the NMI's */

    sk_poll_set(c, SK_POLL_SMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_true(c->smm_inside_nmi);
    sk_poll_set(c, SK_POLL_INIT);
    /* RSM, and the boot processor comes to the reset vector, where nothing is. */
    assert_int_equal(bare_run(b), SK_EXIT_INTERNAL_ERROR);
    assert_false(c->in_smm);
    assert_int_equal(c->seg[SK_CS].sel, 0xf000);
}

/* SMM sees its own memory, and stores of one side do not reach the other. */
static void test_address_spaces(void **state)
{
    struct bare *b = *state;
    struct sk_memmap *m = calloc(1, sizeof(*m) + sizeof(struct sk_slot));
    uint8_t *smram = aligned_alloc(4096, 4 * MIB);

    assert_true(m && smram);
    memset(smram, 0, 4 * MIB);
    m->n = 1;
    m->slot[0] = (struct sk_slot){ .size = 4 * MIB, .host = smram };
    atomic_store(&b->vm.memmap_smm, m);
    bare_long(b);
    prepare(b);
    memset(b->ram + AREA, 0, 0x8000);
    memset(b->ram + 0x2000, 0, 4);
    memcpy(smram + AREA, HANDLER, sizeof(HANDLER) - 1);
    /* mov [2000h],rbx; hlt; mov [2008h],rbx; hlt: the page is written before and after */
    bare_code(b, CODE, "\x48\x89\x1c\x25\x00\x20\x00\x00\xf4\x48\x89\x1c\x25\x08\x20\x00\x00\xf4",
              18);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    sk_poll_set(b->c, SK_POLL_SMI);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_true(b->c->in_smm);
    assert_int_equal(bare_run(b), SK_EXIT_HLT);
    assert_int_equal(le32_get(b->ram + 0x2000), 0x44444444);
    assert_int_equal(le32_get(b->ram + 0x2008), 0x44444444);
    assert_int_equal(le32_get(smram + 0x2000), 0x12345678);
    assert_int_equal(le32_get(smram + 0x2008), 0);
    assert_int_equal(area32(b, 0x7efc), 0);
    assert_int_equal(le32_get(smram + AREA + 0x7efc), 0x20064);
    atomic_store(&b->vm.memmap_smm, NULL);
    sk_tlb_flush_all(b->c);
    free(smram);
    free(m);
}

static void test_msrs(void **state)
{
    struct bare *b = *state;
    uint64_t v;

    bare_long(b);
    assert_int_equal(sk_msr_read(b->c, 0x9e, &v, false), 1);
    assert_int_equal(sk_msr_write(b->c, 0x9e, 0x40000, false), 1);
    assert_int_equal(sk_msr_write(b->c, 0x9e, 0x40000, true), 0);
    assert_int_equal(sk_msr_read(b->c, 0x9e, &v, true), 0);
    assert_int_equal(v, 0x40000);
    assert_int_equal(sk_msr_read(b->c, 0x34, &v, false), 0);
    assert_int_equal(sk_msr_write(b->c, 0x34, 1, false), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, bare_setup, bare_teardown)
    const struct CMUnitTest tests[] = {
        T(test_long),
        T(test_level3),
        T(test_without_long_mode),
        T(test_save_area_counts),
        T(test_impossible_state),
        T(test_rsm_outside),
        T(test_what_waits),
        T(test_address_spaces),
        T(test_msrs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
