/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random instances of instruction rows, and states in which their memory operands mostly hit the
 * window.
 */
#include "oracle.h"

static uint64_t rng;

void or_seed(uint64_t seed)
{
    rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

uint64_t or_rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static bool one_in(unsigned n)
{
    return (or_rnd() >> 16) % n == 0;
}

static uint64_t value(void)
{
    static const uint64_t special[] = { 0,
                                        1,
                                        2,
                                        0x7f,
                                        0x80,
                                        0xff,
                                        0x7fff,
                                        0x8000,
                                        0xffff,
                                        0x7fffffff,
                                        0x80000000,
                                        0xffffffff,
                                        UINT64_C(0x7fffffffffffffff),
                                        UINT64_C(0x8000000000000000),
                                        UINT64_C(0xffffffffffffffff),
                                        UINT64_C(0xaaaaaaaaaaaaaaaa) };

    switch ((or_rnd() >> 20) % 4) {
    case 0:
        return special[(or_rnd() >> 16) % ARRAY_LEN(special)];
    case 1:
        return or_rnd() >> ((or_rnd() >> 24) % 64);
    default:
        return or_rnd();
    }
}

static uint64_t window(void)
{
    return OR_WIN + 256 + (or_rnd() >> 16) % (OR_WIN_SIZE - 512);
}

struct bytes {
    uint8_t *p;
    unsigned n;
};

static void put(struct bytes *b, uint64_t v, unsigned size)
{
    memcpy(b->p + b->n, &v, size);
    b->n += size;
}

static void put_modrm(struct bytes *b, const struct sk_row *row)
{
    uint8_t reg = (uint8_t)(or_rnd() >> 17) & 7, rm = (uint8_t)(or_rnd() >> 21) & 7;
    uint8_t mod = (uint8_t)((or_rnd() >> 25) % 3);

    if (row->ext & X_EXACT) {
        put(b, row->ext & 0xff, 1);
        return;
    }
    if (row->ext & X_DIGIT) {
        reg = row->ext & 7;
    }
    if ((row->ext & X_REGONLY) || (!(row->ext & X_MEMONLY) && one_in(2))) {
        put(b, 0xc0u | reg << 3 | rm, 1);
        return;
    }
    for (int i = 0; i < 4; i++) {
        rm = (row->op[i] & 0xff00) == K_VSIB ? 4 : rm;
    }
    put(b, (unsigned)mod << 6 | reg << 3 | rm, 1);
    if (rm == 4) {
        uint8_t sib = (uint8_t)(or_rnd() >> 30);

        put(b, sib, 1);
        rm = sib & 7;
        if (rm == 5 && mod == 0) {
            put(b, window(), 4);
            return;
        }
    } else if (rm == 5 && mod == 0) { /* RIP-relative: the length is not known yet; 16 is close */
        put(b, window() - OR_INSN - 8, 4);
        return;
    }
    if (mod == 1) {
        put(b, or_rnd() >> 13, 1);
    } else if (mod == 2) {
        put(b, (uint64_t)((int64_t)(or_rnd() << 40) >> 48), 4);
    }
}

static void put_vex(struct bytes *b, const struct sk_row *row)
{
    static const uint8_t pp[] = { [P_NO] = 0, [P_66] = 1, [P_F3] = 2, [P_F2] = 3 };
    uint8_t w = row->vex & V_W1 ? 1 : row->vex & V_W0 ? 0 : one_in(2);
    uint8_t l = row->vex & V_L1 ? 1 : row->vex & V_L0 ? 0 : one_in(2);
    uint8_t v = row->vex & V_NOV ? 15 : (uint8_t)(or_rnd() >> 18) & 15;

    put(b, 0xc4, 1);
    put(b, (or_rnd() & 0xe0) | (unsigned)(row->map - M_V1 + 1), 1);
    put(b, (unsigned)w << 7 | v << 3 | l << 2 | pp[row->pfx], 1);
}

static void put_prefixes(struct bytes *b, const struct sk_row *row)
{
    bool rex = one_in(2);

    if (one_in(16)) {
        put(b, 0x67, 1);
    }
    if ((row->pfx == P_ANY || row->pfx >= P_NF) && one_in(4)) {
        put(b, 0x66, 1);
    }
    if (row->pfx == P_66) {
        put(b, 0x66, 1);
    } else if (row->pfx == P_F3 || row->pfx == P_F3S) {
        put(b, 0xf3, 1);
    } else if (row->pfx == P_F2 || row->pfx == P_F2S) {
        put(b, 0xf2, 1);
    } else if ((row->attr & A_STR) && one_in(2)) {
        put(b, 0xf2 + (or_rnd() >> 40 & 1), 1);
    }
    if ((row->attr & A_LOCK) && one_in(4)) {
        put(b, 0xf0, 1);
    }
    if (rex || (row->vex & V_W1)) {
        unsigned v = 0x40 | ((or_rnd() >> 33) & 15);

        v = row->vex & V_W1 ? v | 8 : row->vex & V_W0 ? v & ~8u : v;
        put(b, v, 1);
    }
    if (row->map >= M_0F) {
        put(b, 0x0f, 1);
    }
    if (row->map == M_0F38 || row->map == M_0F3A) {
        put(b, row->map == M_0F38 ? 0x38 : 0x3a, 1);
    }
}

/* What must not run in the sandbox or has no result to compare. */
static bool excluded(const struct sk_row *row)
{
    static const char *const names[] = { "PUSHF", "FENCE" };

    if (row->attr & (A_NOORACLE | A_PRIV | A_I64 | A_END)) {
        return true;
    }
    if (row->map == M_0F && row->opcode == 0x0d) {
        return true; /* its register form is #UD for AMD, NOP for Intel */
    }
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(row->name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void make_vectors(struct sk_xsave *x)
{
    *x = (struct sk_xsave){ .fcw = 0x37f, .mxcsr = 0x1f80, .mxcsr_mask = 0xffff, .xstate_bv = 7 };
    for (unsigned i = 0; i < 16; i++) {
        for (unsigned j = 0; j < 2; j++) {
            uint64_t a = value(), b = value();

            memcpy(x->xmm[i] + 8 * j, &a, 8);
            memcpy(x->ymmh[i] + 8 * j, &b, 8);
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        uint64_t m = or_rnd();

        memcpy(x->st[i], &m, 8);
        x->st[i][8] = x->st[i][9] = 0xff; /* as an MMX register */
    }
    x->ftw = 0xff;
}

/* Filled once; later cases change some words. */
static void make_window(struct or_state *s)
{
    static bool filled;
    unsigned step = filled ? 8 * (1 + (unsigned)(or_rnd() >> 40) % 64) : 8;

    for (unsigned i = 0; i < OR_WIN_SIZE; i += step) {
        uint64_t v = one_in(4) ? value() : or_rnd();

        memcpy(s->win + i, &v, 8);
    }
    filled = true;
}

/* Numbers of all kinds on the x87 stack, rounding and precision at random, exceptions masked. */
static void make_x87(struct sk_xsave *x)
{
    for (unsigned i = 0; i < 8; i++) {
        uint64_t m = value() | (one_in(8) ? 0 : UINT64_C(1) << 63);
        uint16_t e = (uint16_t)(one_in(4) ? or_rnd() >> 23 : 0x3fe0 + (or_rnd() >> 23) % 0x40);

        memcpy(x->st[i], &m, 8);
        memcpy(x->st[i] + 8, &e, 2);
    }
    x->fcw = (uint16_t)(0x7f | ((or_rnd() >> 30) & 0xf00));
    x->fsw = (uint16_t)((or_rnd() >> 33) & 0x7f00);
    x->ftw = one_in(4) ? (uint8_t)(or_rnd() >> 40) : 0xff;
}

static void make_state(struct or_case *k)
{
    struct or_state *s = &k->init;
    const struct sk_insn *in = &k->in;

    for (unsigned i = 0; i < 16; i++) {
        s->r[i] = one_in(4) ? window() : value();
    }
    s->r[SK_RSP] = window();
    s->r[SK_RBP] = one_in(2) ? window() : s->r[SK_RBP];
    if (k->row->attr & A_STR) {
        s->r[SK_RSI] = window();
        s->r[SK_RDI] = window();
        s->r[SK_RCX] = (or_rnd() >> 20) % 40;
    }
    if (strstr(k->row->name, "MASKMOVQ") || strstr(k->row->name, "MASKMOVDQU")) {
        s->r[SK_RDI] = window(); /* faults under a clear mask are up to the implementation */
    }
    if (strcmp(k->row->name, "XLAT") == 0) {
        s->r[SK_RBX] = window();
    }
    if (strcmp(k->row->name, "CLZERO") == 0) {
        s->r[SK_RAX] = window();
    }
    if (k->row->name[0] == 'B' && k->row->name[1] == 'T' && (in->flags & SK_IN_MEM)) {
        s->r[in->reg] = (uint64_t)((int64_t)or_rnd() >> 53);
    }
    if ((in->flags & SK_IN_MEM) && in->base < 16) {
        uint64_t idx = in->index < 16 ? s->r[in->index] << in->scale : 0;

        if (in->base != in->index) {
            s->r[in->base] = (one_in(2) ? window() & ~UINT64_C(15) : window()) - idx -
                             (uint64_t)(int64_t)in->disp;
        }
    } else if ((in->flags & SK_IN_MEM) && in->index < 16 && !one_in(8)) {
        s->r[in->index] = (or_rnd() >> 30) & 63;
    }
    s->rflags = 0x202 | (or_rnd() & 0x8d5) | (one_in(3) ? 0x400 : 0);
    make_vectors(&s->xs);
    if (k->row->map == M_1) {
        make_x87(&s->xs);
    }
    if (one_in(4)) {
        s->xs.mxcsr = 0x1f80 | (uint32_t)((or_rnd() >> 30) & 0xe040);
    }
    make_window(s);
}

bool or_make(struct or_case *k, const struct sk_row *row, const uint32_t *features)
{
    struct sk_decode_env env = { .code_size = 8, .features = features };
    struct bytes b = { .p = k->insn };
    int len;

    if (excluded(row)) {
        return false;
    }
    for (unsigned i = 0; i < sizeof(k->insn); i++) {
        k->insn[i] = (uint8_t)(or_rnd() >> 19); /* immediates */
    }
    if (row->map >= M_V1) {
        put_vex(&b, row);
    } else {
        put_prefixes(&b, row);
    }
    put(&b, row->opcode + (or_rnd() >> 28) % row->nops, 1);
    if (row->ext) {
        put_modrm(&b, row);
    }
    len = sk_decode(&k->in, k->insn, 15, &env);
    if (len < 0 || sk_rows[k->in.row].h != row->h) {
        return false;
    }
    k->len = (unsigned)len;
    k->row = &sk_rows[k->in.row];
    make_state(k);
    return true;
}
