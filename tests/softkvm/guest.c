/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The same instruction in the interpreter: ring 3 of a machine whose exception handlers are one HLT
 * each. An INT3 stands behind the instruction, so vector 3 there means it completed.
 */
#include <stdlib.h>

#include "oracle.h"
#include "softkvm/jit/jit.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/phys.h"

enum {
    LOW = 0x20000,
    PT = 0x8000,
    IDT = 0x1000,
    TSS = 0x2000,
    GDT = 0x2100,
    HANDLERS = 0x3000,
    KSTACK = 0x7000
};

static uint8_t low[LOW] __attribute__((aligned(4096)));
static uint8_t code_page[4096] __attribute__((aligned(4096)));
static uint8_t window[OR_WIN_SIZE + 4096] __attribute__((aligned(4096)));
static uint8_t pio[4096];
static const struct sk_vm_ops ops;
static struct sk_vm vm = { .ops = &ops };
static struct sk_vcpu *c;

static uint64_t *pt(unsigned n)
{
    return (uint64_t *)(void *)(low + PT + 4096 * n);
}

/* PML4, PDPT, PD; tables 3, 4, 5 for low memory, code and window. */
static void guest_tables(void)
{
    pt(0)[0] = (PT + 0x1000) | 7;
    pt(1)[0] = (PT + 0x2000) | 7;
    pt(2)[0] = (PT + 0x3000) | 3;
    pt(2)[OR_CODE >> 21] = (PT + 0x4000) | 7;
    pt(2)[OR_WIN >> 21] = (PT + 0x5000) | 7;
    for (unsigned i = 0; i < LOW / 4096; i++) {
        pt(3)[i] = i * 4096u | 0x63;
    }
    pt(4)[0] = OR_CODE | 0x65;
    for (unsigned i = 0; i < OR_WIN_SIZE / 4096; i++) {
        pt(5)[i] = (OR_WIN + i * 4096u) | 0x67;
    }
    pt(5)[OR_WIN_SIZE / 4096] = OR_RO | 0x65;
    for (unsigned i = 0; i < 4096; i++) {
        window[OR_WIN_SIZE + i] = or_ro_byte(i);
    }
}

static void guest_idt(void)
{
    uint64_t *g = (uint64_t *)(void *)(low + GDT);
    uint64_t sp = KSTACK;

    g[1] = UINT64_C(0x00209b0000000000);
    g[5] = UINT64_C(0x00cff3000000ffff); /* as Linux has them for user code */
    g[6] = UINT64_C(0x00affb000000ffff);
    memcpy(low + TSS + 4, &sp, 8);
    memcpy(low + TSS + 36, &sp, 8);
    low[TSS + 0x66] = 0x68; /* no I/O permission map */
    for (unsigned v = 0; v < 32; v++) {
        uint64_t off = HANDLERS + 16 * v;
        uint64_t attr = v == 3 || v == 4 ? 0xee : 0x8e; /* INT3 and INTO are for everyone */
        uint64_t lo = (off & 0xffff) | 8u << 16 | attr << 40 | UINT64_C(1) << 32; /* IST 1 */

        memcpy(low + IDT + 16 * v, &lo, 8);
        low[off] = 0xf4;
    }
}

void or_guest_init(void)
{
    struct sk_memmap *m = calloc(1, sizeof(*m) + 3 * sizeof(struct sk_slot));
    struct sk_cpuid_entry e[64];
    int n = sk_cpuid_model("host", e, ARRAY_LEN(e));

    m->n = 3;
    m->slot[0] = (struct sk_slot){ .gpa = 0, .size = LOW, .host = low };
    m->slot[1] = (struct sk_slot){ .gpa = OR_CODE, .size = 4096, .host = code_page };
    m->slot[2] = (struct sk_slot){ .gpa = OR_WIN, .size = sizeof(window), .host = window };
    atomic_store(&vm.memmap, m);
    c = sk_vcpu_new(&vm, 0, pio);
    if (!c || n < 0 || sk_cpuid_set(c, e, (unsigned)n) < 0) {
        abort();
    }
    guest_tables();
    guest_idt();
    memset(code_page, 0xcc, sizeof(code_page));
    c->cr3 = PT;
    c->cr4 = 0x50620; /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE, FSGSBASE */
    c->cr0 = 0x80050033;
    c->efer = 0xd01;
    c->xcr0 = 7;
    c->gdtr = (struct sk_dtable){ .base = GDT, .limit = 0x3f };
    c->idtr = (struct sk_dtable){ .base = IDT, .limit = 0xfff };
    c->seg[SK_TR] = (struct sk_seg){ .sel = 0x10, .base = TSS, .limit = 0x67, .attr = 0x8b };
}

const uint32_t *or_guest_features(void)
{
    return c->features;
}

void or_guest_run(const struct or_case *k, struct or_state *ret)
{
    uint8_t *p = code_page + (OR_INSN - OR_CODE);
    uint64_t frame[6] = { 0 }, rip;
    int vec, tries = 0;
    unsigned coded;

    memset(p, 0xcc, 32);
    memcpy(p, k->insn, k->len);
    memcpy(c->r, k->init.r, sizeof(k->init.r));
    c->r[SK_RIP] = OR_INSN;
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        c->seg[i] = (struct sk_seg){ .attr = SK_ATTR_NULL };
    }
    c->seg[SK_GS].base = OR_GS_BASE;
    c->seg[SK_CS] = (struct sk_seg){ .sel = 0x33, .limit = 0xffffffff, .attr = 0xa0fb };
    c->seg[SK_SS] = (struct sk_seg){ .sel = 0x2b, .limit = 0xffffffff, .attr = 0xc0f3 };
    c->cpl = 3;
    c->xs = k->init.xs;
    memcpy(window, k->init.win, OR_WIN_SIZE);
    sk_flags_set(c, (uint32_t)k->init.rflags);
    sk_mode_update(c);
    do {
        sk_run(c, 100);
    } while (c->exit.kind == SK_EXIT_NONE && tries++ < 1000);
    vec = (int)((c->r[SK_RIP] - 1 - HANDLERS) / 16);
    memcpy(ret->r, c->r, sizeof(ret->r));
    ret->xs = c->xs;
    memcpy(ret->win, window, OR_WIN_SIZE);
    if (c->exit.kind != SK_EXIT_HLT || c->r[SK_RIP] > LOW) {
        ret->vec = 1000 + (int)c->exit.kind;
        return;
    }
    memcpy(frame, low + c->r[SK_RSP], sizeof(frame));
    coded = vec == 8 || (vec >= 10 && vec <= 14) || vec == 17; /* an error code lies below */
    rip = frame[coded];
    ret->rflags = frame[2 + coded];
    ret->r[SK_RSP] = frame[3 + coded];
    ret->vec = vec;
    ret->rip = rip;
    ret->err = coded ? frame[0] : 0;
    ret->cr2 = vec == 14 ? c->cr2 : 0;
    if (vec == 14 && c->cr2 < LOW) {
        ret->err &= ~UINT64_C(1); /* the host has nothing there, we our tables */
    }
    if (vec == 3 && (k->branch || rip == OR_INSN + k->len + 1)) {
        ret->vec = -1;
        ret->rip--;
    }
}

void or_guest_done(void)
{
    sk_jit_detach();
}
