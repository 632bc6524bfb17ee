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
    printf("  flags: before %" PRIx64 " host %" PRIx64 " guest %" PRIx64 " rax %" PRIx64
           " rcx %" PRIx64 "\n",
           k->init.rflags, n->rflags, g->rflags, k->init.r[0], k->init.r[1]);
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
    }
}

/* Results the manual leaves open beyond flags. */
static bool undefined_result(const struct or_case *k)
{
    const char *name = k->row->name;
    uint64_t count = k->in.imm;

    if (strncmp(name, "SHLD", 4) == 0 || strncmp(name, "SHRD", 4) == 0) {
        count = k->in.imm2 & 1 ? k->init.r[SK_RCX] : k->in.imm;
        return k->in.osize == 2 && (count & 31) > 16;
    }
    return strcmp(name, "BSWAP") == 0 && k->in.osize == 2;
}

/* SF, ZF and so on of a vector state that XSAVE may leave out because it is in its initial form are
 * compared by value, so make the images canonical. */
static bool same_vectors(const struct sk_xsave *a, const struct sk_xsave *b)
{
    return memcmp(a->xmm, b->xmm, sizeof(a->xmm)) == 0 &&
           memcmp(a->ymmh, b->ymmh, sizeof(a->ymmh)) == 0 && a->mxcsr == b->mxcsr &&
           memcmp(a->st, b->st, sizeof(a->st)) == 0 && a->ftw == b->ftw && a->fsw == b->fsw &&
           a->fcw == b->fcw;
}

static bool same(const struct or_case *k, const struct or_state *n, const struct or_state *g)
{
    uint64_t mask = SK_FL_ARITH | SK_FL_DF;

    if (n->vec != g->vec) {
        return false;
    }
    if (n->vec < 0) {
        mask &= ~(uint64_t)k->row->fl_undef;
    }
    if (((n->rflags ^ g->rflags) & mask) || !same_vectors(&n->xs, &g->xs)) {
        return false;
    }
    if (undefined_result(k)) {
        return true;
    }
    return memcmp(n->r, g->r, sizeof(n->r)) == 0 && memcmp(n->win, g->win, OR_WIN_SIZE) == 0;
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000, bad = 0, done = 0, faults = 0;
    const char *only = argc > 3 ? argv[3] : NULL;
    static struct or_case k;
    static struct or_state n, g;
    uint64_t *seen = calloc(sk_rows_n, sizeof(*seen)), *tried = calloc(sk_rows_n, sizeof(*tried));
    unsigned rows = 0;

    or_seed(argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
    or_native_init();
    or_guest_init();
    for (uint64_t i = 0; done < count && i < 20 * count; i++) {
        const struct sk_row *row = &sk_rows[i % sk_rows_n];

        if ((only && strcmp(row->name, only) != 0) || !or_make(&k, row, or_guest_features())) {
            continue;
        }
        done++;
        tried[k.in.row]++;
        or_native_run(&k, &n);
        or_guest_run(&k, &g);
        faults += n.vec >= 0;
        if (!same(&k, &n, &g)) {
            bad++;
            if (seen[k.in.row]++ < SHOWN_PER_ROW) {
                show_diff(&k, &n, &g);
            }
        }
    }
    for (unsigned i = 0; i < sk_rows_n; i++) {
        rows += tried[i] > 0;
    }
    printf("%" PRIu64 " cases of %u rows, %" PRIu64 " faulted, %" PRIu64 " differences\n", done,
           rows, faults, bad);
    free(seen);
    free(tried);
    return bad != 0 || done == 0;
}
