/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random instructions with random state on this processor and in the interpreter: registers, flags
 * (but for those the row calls undefined), memory, vector state and faults must be equal.
 *
 *     sk_oracle COUNT [SEED [NAME]]          NAME: only rows of that mnemonic
 */
#include "oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "softkvm/x86/flags.h"

#define SHOWN_PER_ROW 2

static void show_insn(const struct or_case *k)
{
    printf("%s:", k->row->name);
    for (unsigned i = 0; i < k->len; i++) {
        printf(" %02x", k->insn[i]);
    }
    printf("\n");
}

static void show_diff(const struct or_case *k, const struct or_state *n, const struct or_state *g)
{
    show_insn(k);
    if (n->vec != g->vec) {
        printf("  exception: host %d, guest %d\n", n->vec, g->vec);
    }
    for (unsigned i = 0; i < 16; i++) {
        if (n->r[i] != g->r[i]) {
            printf("  r%u: before %016" PRIx64 " host %016" PRIx64 " guest %016" PRIx64 "\n", i,
                   k->init.r[i], n->r[i], g->r[i]);
        }
    }
    if (n->rip != g->rip || n->err != g->err || n->cr2 != g->cr2) {
        printf("  host rip %" PRIx64 " error %" PRIx64 " cr2 %" PRIx64 ", guest %" PRIx64
               " %" PRIx64 " %" PRIx64 "\n",
               n->rip, n->err, n->cr2, g->rip, g->err, g->cr2);
    }
    printf("  flags: before %" PRIx64 " host %" PRIx64 " guest %" PRIx64 " rax %" PRIx64
           " rcx %" PRIx64 " rm %" PRIx64 " operand %" PRIx64 "\n",
           k->init.rflags, n->rflags, g->rflags, k->init.r[0], k->init.r[1],
           k->init.r[k->in.rm & 15], or_operand(k));
    if (n->xs.mxcsr != g->xs.mxcsr) {
        printf("  mxcsr: before %x host %x guest %x\n", k->init.xs.mxcsr, n->xs.mxcsr, g->xs.mxcsr);
    }
    if (n->xs.fsw != g->xs.fsw || n->xs.fcw != g->xs.fcw || n->xs.ftw != g->xs.ftw) {
        printf("  fcw %x fsw: before %x host %x guest %x, ftw %x %x\n", n->xs.fcw, k->init.xs.fsw,
               n->xs.fsw, g->xs.fsw, n->xs.ftw, g->xs.ftw);
    }
    for (unsigned i = 0; i < OR_WIN_SIZE; i++) {
        if (n->win[i] != g->win[i]) {
            printf("  [%x]: before %02x host %02x guest %02x\n", i, k->init.win[i], n->win[i],
                   g->win[i]);
            break;
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        if (memcmp(n->xs.xmm[i], g->xs.xmm[i], 16) != 0 ||
            memcmp(n->xs.ymmh[i], g->xs.ymmh[i], 16) != 0) {
            printf("  xmm%u differs\n", i);
        }
        if (i < 8 && memcmp(n->xs.st[i], g->xs.st[i], 16) != 0) {
            printf("  st%u differs\n", i);
        }
    }
}

/* Registers and memory that no rule fixes, or that are another machine's business: not compared. */
static bool undefined_result(const struct or_case *k)
{
    static const char *const names[] = { "RDTSC", "RDTSCP", "RDRAND", "RDSEED", "RDPID", "XGETBV" };
    const char *name = k->row->name;
    uint64_t count = k->in.imm;

    if (strncmp(name, "SHLD", 4) == 0 || strncmp(name, "SHRD", 4) == 0) {
        count = k->in.imm2 & 1 ? k->init.r[SK_RCX] : k->in.imm;
        return k->in.osize == 2 && (count & 31) > 16;
    }
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return strcmp(name, "BSWAP") == 0 && k->in.osize == 2;
}

/* FXSAVE and XSAVE: MXCSR_MASK and the x87 pointers are the processor's own. */
static void forget_image(const struct or_case *k, struct or_state *s)
{
    uint64_t at = or_operand(k) - OR_WIN;

    if (strstr(k->row->name, "XSAVE") && at < OR_WIN_SIZE - 32) {
        memset(s->win + at + 6, 0, 18);
        memset(s->win + at + 28, 0, 4);
    }
}

/* SF, ZF and so on of a vector state that XSAVE may leave out because it is in its initial form are
 * compared by value, so make the images canonical. */
static bool same_vectors(const struct sk_xsave *a, const struct sk_xsave *b, uint32_t mxcsr)
{
    return memcmp(a->xmm, b->xmm, sizeof(a->xmm)) == 0 &&
           memcmp(a->ymmh, b->ymmh, sizeof(a->ymmh)) == 0 && !((a->mxcsr ^ b->mxcsr) & mxcsr) &&
           memcmp(a->st, b->st, sizeof(a->st)) == 0 && a->ftw == b->ftw && a->fsw == b->fsw &&
           a->fcw == b->fcw;
}

/* x87, SSE and extended state images, masked moves: which part is touched first is not laid down.
 */
static bool big_operand(const struct or_case *k)
{
    unsigned op = k->row->op[0];

    return (op == O_M && !(k->row->attr & A_NOMEMSEG)) || strstr(k->row->name, "MASKMOV");
}

/* Bits of MXCSR to compare where #XM was raised. Overflow or underflow not masked: whether the
 * result would have been inexact with any exponent is more than the interpreter finds out, so PE.
 * DPPS and DPPD compute in steps, and the order of their exceptions is the processor's. */
static uint32_t mxcsr_mask(const struct or_case *k, const struct or_state *n)
{
    uint32_t open = ~(n->xs.mxcsr >> 7) & 0x3f;

    if (n->vec != 19) {
        return UINT32_MAX;
    }
    if (strstr(k->row->name, "DPP")) {
        return ~UINT32_C(0x3f);
    }
    return n->xs.mxcsr & open & 0x18 ? ~UINT32_C(0x20) : UINT32_MAX;
}

static bool same(const struct or_case *k, const struct or_state *n, const struct or_state *g)
{
    uint64_t mask = SK_FL_ARITH | SK_FL_DF | SK_FL_AC;

    if (n->vec != g->vec || n->rip != g->rip || (n->cr2 != g->cr2 && !big_operand(k))) {
        return false;
    }
    /* Of a kernel address Linux says "protected" whatever the processor said. */
    if (((n->err ^ g->err) & ~(uint64_t)(n->cr2 >> 63)) != 0 && !(n->vec == 14 && big_operand(k))) {
        return false;
    }
    if (n->vec < 0) {
        mask &= ~(uint64_t)k->row->fl_undef;
    }
    if (((n->rflags ^ g->rflags) & mask) || !same_vectors(&n->xs, &g->xs, mxcsr_mask(k, n))) {
        return false;
    }
    if (undefined_result(k)) {
        return true;
    }
    return memcmp(n->r, g->r, sizeof(n->r)) == 0 && memcmp(n->win, g->win, OR_WIN_SIZE) == 0;
}

/* Rows tried; tells of those that were not, but for what or_excluded() explains. */
static unsigned coverage(const uint64_t *tried, bool tell)
{
    unsigned rows = 0;

    for (unsigned i = 0; i < sk_rows_n; i++) {
        const struct sk_row *r = &sk_rows[i];
        unsigned f = r->feature;
        bool has = (or_guest_features()[f >> 5] >> (f & 31)) & 1;

        rows += tried[i] > 0;
        if (tell && !tried[i]) {
            const char *why = or_excluded(r);

            printf("not tried: map %u opcode %02x %s: %s\n", r->map, r->opcode, r->name,
                   why   ? why
                   : has ? "NEVER MADE"
                         : "this processor has not got it");
        }
    }
    return rows;
}

/* A hypervisor below may have spoilt the host's run (one that emulates an instruction it does not
 * know reports #UD): the host is asked again before a difference counts. */
static bool agree_again(const struct or_case *k, struct or_state *n, const struct or_state *g)
{
    or_native_run(k, n);
    forget_image(k, n);
    return same(k, n, g);
}

/* A form of a row: register or memory operand in one of four sizes (of a vector: by W and L). */
static uint8_t form(const struct sk_insn *in)
{
    unsigned size = sk_rows[in->row].attr & A_VEC
                        ? (in->flags & SK_IN_W ? 2u : 0) + (in->flags & SK_IN_L ? 1u : 0)
                        : (unsigned)__builtin_ctz(in->osize);

    return (uint8_t)(1u << (size + (in->flags & SK_IN_MEM ? 4 : 0)));
}

/* What is counted over a run. */
struct tally {
    uint64_t done, bad, faults, again;
    uint64_t *tried, *seen; /* by row */
    uint8_t *forms;         /* by row: bits of form() */
};

/* Cases are run in batches, first all on the host, then all in the interpreter: between the two the
 * GS base changes hands, which is a system call where the kernel keeps FSGSBASE to itself. */
enum { BATCH = 32 };

static struct or_case cases[BATCH];
static struct or_state host[BATCH], guest[BATCH];

static void judge(const struct or_case *k, struct or_state *n, struct or_state *g, struct tally *t)
{
    t->done++;
    t->tried[k->in.row]++;
    t->forms[k->in.row] |= form(&k->in);
    forget_image(k, n);
    forget_image(k, g);
    t->faults += n->vec >= 0;
    if (same(k, n, g)) {
        return;
    }
    if (agree_again(k, n, g)) {
        t->again++;
        return;
    }
    t->bad++;
    if (t->seen[k->in.row]++ < SHOWN_PER_ROW) {
        show_diff(k, n, g);
    }
}

static void run_batch(unsigned n, struct tally *t)
{
    for (unsigned i = 0; i < n; i++) {
        or_native_run(&cases[i], &host[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        or_guest_run(&cases[i], &guest[i]);
    }
    or_guest_done();
    for (unsigned i = 0; i < n; i++) {
        judge(&cases[i], &host[i], &guest[i], t);
    }
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000;
    const char *only = argc > 3 ? argv[3] : NULL;
    struct tally t = { .tried = calloc(sk_rows_n, sizeof(*t.tried)),
                       .seen = calloc(sk_rows_n, sizeof(*t.seen)),
                       .forms = calloc(sk_rows_n, sizeof(*t.forms)) };
    unsigned rows, nforms = 0, n = 0;

    or_seed(argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
    or_native_init();
    or_guest_init();
    for (uint64_t i = 0; t.done + n < count && i < 20 * count; i++) {
        const struct sk_row *row = &sk_rows[i % sk_rows_n];

        if ((only && strcmp(row->name, only) != 0) ||
            !or_make(&cases[n], row, or_guest_features())) {
            continue;
        }
        if (++n == BATCH) {
            run_batch(n, &t);
            n = 0;
        }
    }
    run_batch(n, &t);
    rows = coverage(t.tried, only == NULL);
    for (unsigned i = 0; i < sk_rows_n; i++) {
        nforms += (unsigned)__builtin_popcount(t.forms[i]);
    }
    printf("%" PRIu64 " cases of %u rows in %u forms, %" PRIu64 " faulted, %" PRIu64
           " differences\n",
           t.done, rows, nforms, t.faults, t.bad);
    if (t.again) {
        printf("%" PRIu64 " differences were gone when the host ran the case again\n", t.again);
    }
    free(t.forms);
    free(t.seen);
    free(t.tried);
    return t.bad != 0 || t.done == 0;
}
