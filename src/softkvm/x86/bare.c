/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/x86/bare.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/phys.h"

static const struct sk_vm_ops no_ops;

void bare_init(struct bare *b, size_t ram)
{
    struct sk_cpuid_entry e[64];
    int n = -1;

    memset(b, 0, sizeof(*b));
    b->size = ram;
    b->ram = mmap(NULL, ram, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    b->map = calloc(1, sizeof(*b->map) + sizeof(struct sk_slot));
    if (b->ram == MAP_FAILED || !b->map) {
        abort();
    }
    b->map->n = 1;
    b->map->slot[0] = (struct sk_slot){ .size = ram, .host = b->ram };
    atomic_store(&b->vm.memmap, b->map);
    b->vm.ops = &no_ops;
    b->c = sk_vcpu_new(&b->vm, 0, b->pio);
    for (char level = '3'; n < 0 && level >= '1'; level--) { /* the highest this host serves */
        char model[] = "x86-64-v?";

        model[8] = level;
        n = sk_cpuid_model(model, e, ARRAY_LEN(e));
    }
    if (!b->c || n < 0 || sk_cpuid_set(b->c, e, (unsigned)n) < 0) {
        abort();
    }
}

void bare_done(struct bare *b)
{
    sk_vcpu_free(b->c);
    free(b->map);
    munmap(b->ram, b->size);
}

int bare_setup(void **state)
{
    static struct bare b;

    bare_init(&b, 4 * MIB);
    *state = &b;
    return 0;
}

int bare_teardown(void **state)
{
    bare_done(*state);
    return 0;
}

void bare_real(struct bare *b)
{
    sk_vcpu_reset(b->c, false);
    b->c->seg[SK_CS].sel = 0;
    b->c->seg[SK_CS].base = 0;
    b->c->r[SK_RSP] = 0x7000;
    sk_vcpu_changed(b->c);
}

static uint64_t bare_desc(uint32_t limit, uint64_t flags)
{
    return (limit & 0xffff) | flags << 40 | (uint64_t)(limit & 0xf0000) << 32;
}

static void bare_gdt(struct bare *b)
{
    uint64_t *g = (uint64_t *)(void *)(b->ram + BARE_GDT);

    g[BARE_CS0 / 8] = bare_desc(0xfffff, 0xc09b);
    g[BARE_DS0 / 8] = bare_desc(0xfffff, 0xc093);
    g[BARE_CS3 / 8] = bare_desc(0xfffff, 0xc0fb);
    g[BARE_DS3 / 8] = bare_desc(0xfffff, 0xc0f3);
    g[BARE_CS64 / 8] = bare_desc(0xfffff, 0xa09b);
    g[BARE_CS64_3 / 8] = bare_desc(0xfffff, 0xa0fb);
    g[BARE_TR / 8] = bare_desc(0x67, 0x8b) | (uint64_t)BARE_TSS << 16;
    g[BARE_TR / 8 + 1] = 0;
    g[BARE_CS16 / 8] = bare_desc(0xffff, 0x9b);
    g[BARE_DS16 / 8] = bare_desc(0xffff, 0x93);
    b->c->gdtr = (struct sk_dtable){ .base = BARE_GDT, .limit = 0x5f };
    b->c->idtr = (struct sk_dtable){ .base = BARE_IDT, .limit = 0xfff };
    b->c->seg[SK_TR] =
        (struct sk_seg){ .sel = BARE_TR, .base = BARE_TSS, .limit = 0x67, .attr = 0x8b };
}

static void bare_flat(struct bare *b, uint16_t cs, uint32_t csattr)
{
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        b->c->seg[i] = (struct sk_seg){ .sel = BARE_DS0, .limit = 0xffffffff, .attr = 0xc093 };
    }
    b->c->seg[SK_CS].sel = cs;
    b->c->seg[SK_CS].attr = csattr;
    b->c->r[SK_RSP] = 0x7000;
}

void bare_prot(struct bare *b)
{
    sk_vcpu_reset(b->c, false);
    bare_gdt(b);
    bare_flat(b, BARE_CS0, 0xc09b);
    b->c->cr0 |= 1;
    sk_vcpu_changed(b->c);
}

void bare_long(struct bare *b)
{
    uint64_t *pt = (uint64_t *)(void *)(b->ram + BARE_PT);

    sk_vcpu_reset(b->c, false);
    bare_gdt(b);
    bare_flat(b, BARE_CS64, 0xa09b);
    memset(pt, 0, 3 * 4096);
    pt[0] = (BARE_PT + 0x1000) | 7;
    pt[512] = (BARE_PT + 0x2000) | 7;
    for (uint64_t i = 0; i < 512; i++) {
        pt[1024 + i] = i << 21 | 0x87;
    }
    b->c->cr3 = BARE_PT;
    b->c->cr4 = 0x620;
    b->c->cr0 = 0x80010033;
    b->c->efer = 0xd01;
    sk_vcpu_changed(b->c);
}

void bare_code(struct bare *b, uint64_t at, const void *code, size_t len)
{
    memcpy(b->ram + at, code, len);
    b->c->r[SK_RIP] = at;
}

enum sk_exit_kind bare_run(struct bare *b)
{
    sk_run(b->c, 1000000);
    return b->c->exit.kind;
}

void bare_gate(struct bare *b, unsigned vec, uint16_t sel, uint64_t off, unsigned dpl)
{
    uint64_t v = (off & 0xffff) | (uint64_t)sel << 16 | (off & 0xffff0000) << 32 |
                 (uint64_t)(0x8e | dpl << 5) << 40;
    bool lm = sk_lma(b->c);

    memcpy(b->ram + BARE_IDT + vec * (lm ? 16u : 8u), &v, 8);
    if (lm) {
        uint64_t hi = off >> 32;

        memcpy(b->ram + BARE_IDT + vec * 16u + 8, &hi, 8);
    }
}
