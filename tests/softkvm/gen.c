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

/* Well inside of the window. */
static uint64_t window_safe(void)
{
    return OR_WIN + 256 + (or_rnd() >> 16) % (OR_WIN_SIZE - 512);
}

/* Mostly inside; now and then across the border of two pages, of the read-only page, or of what is
 * mapped. */
static uint64_t window(void)
{
    uint64_t back = (or_rnd() >> 22) % 36;

    switch ((or_rnd() >> 16) % 32) {
    case 0:
    case 1:
    case 2:
        return OR_WIN + 4096 - back;
    case 3:
        return OR_RO - back;
    case 4:
        return OR_RO + 4096 - back;
    case 5:
        return OR_WIN - back / 2;
    default:
        return window_safe();
    }
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

/* FS is the C library's here; the other four have base 0 in 64-bit code. */
static void put_segment(struct bytes *b)
{
    static const uint8_t seg[] = { 0x65, 0x65, 0x65, 0x26, 0x2e, 0x36, 0x3e };

    if (one_in(12)) {
        put(b, seg[(or_rnd() >> 27) % sizeof(seg)], 1);
    }
}

static void put_vex(struct bytes *b, const struct sk_row *row)
{
    static const uint8_t pp[] = { [P_NO] = 0, [P_66] = 1, [P_F3] = 2, [P_F2] = 3 };
    uint8_t w = row->vex & V_W1 ? 1 : row->vex & V_W0 ? 0 : one_in(2);
    uint8_t l = row->vex & V_L1 ? 1 : row->vex & V_L0 ? 0 : one_in(2);
    uint8_t v = row->vex & V_NOV ? 15 : (uint8_t)(or_rnd() >> 18) & 15;

    if (one_in(16)) {
        put(b, 0x67, 1);
    }
    put_segment(b);
    if (row->map == M_V1 && !w && one_in(2)) {
        put(b, 0xc5, 1);
        put(b, (or_rnd() & 0x80) | v << 3 | l << 2 | pp[row->pfx], 1);
        return;
    }
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
    put_segment(b);
    /* 66 on near branches: AMD cuts RIP to 16 bits, Intel ignores it, and so do we. */
    if ((row->pfx == P_ANY || row->pfx >= P_NF) && one_in(4) && !(row->attr & (A_F64 | A_END))) {
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

/* Why a row is left out; NULL if it is not. */
const char *or_excluded(const struct sk_row *row)
{
    static const struct {
        const char *name, *why;
    } names[] = {
        {"SYSCALL",   "enters the host's kernel"                                },
        { "SYSENTER", "enters the host's kernel"                                },
        { "SYSEXIT",  "#UD in AMD's long mode, #GP in Intel's"                  },
        { "VMCALL",   "enters the host's hypervisor"                            },
        { "VMMCALL",  "enters the host's hypervisor"                            },
        { "CPUID",    "the guest's model is another by design"                  },
        { "INT",      "some hosts keep vectors for themselves"                  },
        { "MONITOR",  "does nothing here, as under KVM; the host may lack it"   },
        { "MWAIT",    "does nothing here, as under KVM; the host may lack it"   },
        { "RDPMC",    "counts the host's events"                                },
        { "SGDT",     "shows the host's tables, or what its kernel says instead"},
        { "SIDT",     "shows the host's tables, or what its kernel says instead"},
        { "SLDT",     "shows the host's tables, or what its kernel says instead"},
        { "STR",      "shows the host's tables, or what its kernel says instead"},
        { "SMSW",     "shows the host's CR0, or what its kernel says instead"   },
        { "LFS",      "FS is the C library's"                                   },
        { "LGS",      "would lose the GS base of later cases"                   },
        { "RDFSBASE", "FS is the C library's"                                   },
        { "WRFSBASE", "FS is the C library's"                                   },
        { "WRGSBASE", "would lose the GS base of later cases"                   },
    };

    if (row->attr & A_I64) {
        return "does not exist in 64-bit mode";
    }
    if (row->map == M_0F && row->opcode == 0x0d && !(row->ext & X_MEMONLY)) {
        return "its register form is #UD for AMD, NOP for Intel";
    }
    if (row->op[0] == O_FFS || row->op[0] == O_FGS) {
        return row->name[1] == 'O' ? "FS and GS are needed" : NULL; /* POP, not PUSH */
    }
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(row->name, names[i].name) == 0) {
            return names[i].why;
        }
    }
    return NULL;
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
    if (one_in(8)) {
        x->fcw &= (uint16_t)((or_rnd() >> 27) | 0xffc0); /* exceptions not masked */
    }
}

static const uint16_t selectors[] = { 0x2b, 0x2b, 0x33, 0x33, 0x33, 0, 3, 0x28, 0xffb };

static uint16_t selector(void)
{
    return selectors[(or_rnd() >> 23) % ARRAY_LEN(selectors)];
}

/* An address to jump to: INT3s stand there. */
static uint64_t target(void)
{
    return OR_INSN + 64 + (or_rnd() >> 21) % 512;
}

static uint64_t flags(void)
{
    return 0x202 | (or_rnd() & 0x8d5) | (one_in(3) ? 0x400 : 0) | (one_in(8) ? 0x40000 : 0);
}

static void put_win(struct or_state *s, uint64_t at, uint64_t v, unsigned size)
{
    if (at - OR_WIN <= OR_WIN_SIZE - size) {
        memcpy(s->win + (at - OR_WIN), &v, size);
    }
}

static bool is(const struct or_case *k, const char *name)
{
    return strcmp(k->row->name, name) == 0;
}

static uint64_t seg_base(const struct sk_insn *in)
{
    return in->seg == SK_GS ? OR_GS_BASE : 0;
}

uint64_t or_operand(const struct or_case *k)
{
    const struct sk_insn *in = &k->in;
    uint64_t ea = (uint64_t)(int64_t)in->disp;

    ea += in->base == SK_RIP ? OR_INSN + k->len : in->base < 16 ? k->init.r[in->base] : 0;
    ea += in->index < 16 ? k->init.r[in->index] << in->scale : 0;
    ea = ea << in->ash >> in->ash;
    return ea + seg_base(in);
}

/* Branches, returns, selectors: what they take from registers and memory must mean something. */
static void make_targets(struct or_case *k)
{
    struct or_state *s = &k->init;
    const struct sk_insn *in = &k->in;
    uint64_t sp = s->r[SK_RSP] = window_safe() & ~UINT64_C(7);
    unsigned w = in->osize;

    if (is(k, "RET")) {
        put_win(s, sp, target(), 8);
    } else if (is(k, "RETF")) {
        put_win(s, sp, target(), w);
        put_win(s, sp + w, selector(), w);
    } else if (is(k, "IRET")) {
        uint64_t frame[5] = { target(), selector(), flags(), window_safe(), selector() };

        for (unsigned i = 0; i < 5; i++) {
            put_win(s, sp + i * w, frame[i], w);
        }
    } else if (is(k, "POPF")) {
        put_win(s, sp, flags(), 8);
    } else if (in->flags & SK_IN_MEM) {
        /* AMD wants far pointers aligned to 8, SDM 3A table 6-7 to 2 or 4 */
        uint64_t at = or_operand(k);
        bool far = (k->row->op[0] == O_Mp || k->row->op[1] == O_Mp);

        s->rflags &= far ? ~UINT64_C(0x40000) : ~UINT64_C(0);
        put_win(s, at, target(), far ? w : 8);
        put_win(s, at + (far ? w : 0), selector(), far || k->row->op[0] != O_Ev ? 2 : 0);
    } else if (in->rm != SK_RSP || !(k->row->attr & A_F64)) {
        s->r[in->rm] = k->row->attr & A_F64 ? target() : selector();
    }
}

static bool wants_targets(const struct or_case *k)
{
    static const char *const names[] = { "RET", "RETF", "IRET", "POPF", "CALLF", "JMPF",
                                         "LSS", "VERR", "VERW", "LAR",  "LSL" };

    if ((k->row->attr & A_F64) && k->row->op[0] == O_Ev) {
        return true;
    }
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (is(k, names[i])) {
            return true;
        }
    }
    return k->row->op[0] == O_Sw;
}

/* An image XRSTOR and FXRSTOR can load, in front of the address. */
static void make_image(struct or_case *k)
{
    struct or_state *s = &k->init;
    const struct sk_insn *in = &k->in;
    bool aligned = !one_in(8);

    s->r[SK_RDX] = 0;
    s->r[SK_RAX] = (or_rnd() >> 30) & 7;
    if (in->base < 16 && in->base != in->index && in->base != SK_RAX && in->base != SK_RDX) {
        uint64_t at = OR_WIN + 512 + ((or_rnd() >> 33) % 64) * 64 + (aligned ? 0 : 4);
        struct sk_xsave x;

        make_vectors(&x);
        make_x87(&x);
        x.mxcsr = 0x1f80 | (uint32_t)((or_rnd() >> 30) & (one_in(8) ? 0x1e040 : 0xe040));
        x.xstate_bv = (or_rnd() >> 31) & (one_in(16) ? 15 : 7);
        s->r[in->base] += at - or_operand(k);
        if (in->ash == 32) {
            s->r[in->base] = (uint32_t)s->r[in->base];
        }
        memcpy(s->win + (at - OR_WIN), &x, sizeof(x));
    }
}

static void make_state(struct or_case *k)
{
    struct or_state *s = &k->init;
    const struct sk_insn *in = &k->in;

    make_window(s);
    for (unsigned i = 0; i < 16; i++) {
        s->r[i] = one_in(4) ? window() : value();
    }
    s->r[SK_RSP] = window_safe();
    s->r[SK_RBP] = one_in(2) ? window() : s->r[SK_RBP];
    if (k->row->attr & A_STR) {
        s->r[SK_RSI] = window() - seg_base(in);
        /* with two operands at fault, which is told of is the processor's choice */
        s->r[SK_RDI] = one_in(2) ? window_safe() : window();
        if (s->r[SK_RDI] - OR_WIN < 256 || s->r[SK_RDI] - OR_WIN > OR_WIN_SIZE - 512) {
            s->r[SK_RSI] = window_safe() - seg_base(in);
        }
        s->r[SK_RCX] = (or_rnd() >> 20) % 40;
    }
    if (strstr(k->row->name, "MASKMOVQ") || strstr(k->row->name, "MASKMOVDQU")) {
        /* faults under a clear mask are up to the implementation */
        s->r[SK_RDI] = window_safe() - seg_base(in);
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
                             (uint64_t)(int64_t)in->disp - seg_base(in);
        }
    } else if ((in->flags & SK_IN_MEM) && in->index < 16 && !one_in(8)) {
        s->r[in->index] = (or_rnd() >> 30) & 63;
    }
    s->rflags = flags();
    make_vectors(&s->xs);
    if (k->row->map == M_1) {
        make_x87(&s->xs);
    }
    if (one_in(4)) {
        s->xs.mxcsr = 0x1f80 | (uint32_t)((or_rnd() >> 30) & 0xe040);
    } else if (one_in(8)) {
        s->xs.mxcsr = (uint32_t)((or_rnd() >> 30) & 0xffff); /* exceptions not masked */
    }
    if (wants_targets(k)) {
        make_targets(k);
    } else if (strncmp(k->row->name, "FX", 2) == 0) {
        s->rflags &= ~UINT64_C(0x40000); /* misaligned: #AC or #GP, as the processor likes */
    } else if (strstr(k->row->name, "XSAVE") || strstr(k->row->name, "XRSTOR")) {
        make_image(k);
    }
}

/* Single instances that may not run, or on which processors differ. */
static bool runs_here(const struct or_case *k)
{
    bool far = k->row->op[0] == O_Mp || k->row->op[1] == O_Mp;

    if (k->row->op[0] == O_Sw && k->in.reg >= SK_FS) {
        return false; /* FS and GS are needed */
    }
    if (far && (k->in.flags & SK_IN_W)) {
        return false; /* AMD ignores REX.W there */
    }
    if ((k->row->op[0] & 0xff00) == K_J && k->in.imm + k->len < k->len) {
        return false; /* into its own bytes, or for ever */
    }
    if (k->branch && k->row->op[0] == O_Ev && !(k->in.flags & SK_IN_MEM) && k->in.rm == SK_RSP) {
        return false;
    }
    return true;
}

/* What the instruction finds in memory must be what was put there. */
static bool finds_it(struct or_case *k)
{
    uint64_t at = or_operand(k) - (OR_WIN - 16);
    bool around = at < OR_WIN_SIZE + 4096 + 16, inside = at >= 16 && at < OR_WIN_SIZE;

    if (strstr(k->row->name, "LDMXCSR") || strcmp(k->row->name, "FXRSTOR") == 0) {
        uint64_t mxcsr = at - 16 + (k->row->op[0] == O_M ? 24 : 0);

        if (inside && mxcsr < OR_WIN_SIZE - 4) {
            k->init.win[mxcsr + 2] &= 0xfd; /* AMD has a bit 17 */
            return true;
        }
        return !around;
    }
    return !k->branch || !(k->in.flags & SK_IN_MEM) || inside || !around;
}

bool or_make(struct or_case *k, const struct sk_row *row, const uint32_t *features)
{
    struct sk_decode_env env = { .code_size = 8, .features = features };
    struct bytes b = { .p = k->insn };
    int len;

    if (or_excluded(row)) {
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
    if (row->op[0] == O_Iw) { /* RET n: not far off */
        put(&b, (or_rnd() >> 20) & 0x1f8, 2);
    } else if (row->op[0] == O_Jz) { /* stays in the page */
        put(&b, (uint64_t)(int64_t)((int)((or_rnd() >> 20) % 2048) - 1024), 4);
    }
    len = sk_decode(&k->in, k->insn, 15, &env);
    if (len < 0 || sk_row_handlers[k->in.row] != sk_row_handlers[row - sk_rows]) {
        return false;
    }
    k->len = (unsigned)len;
    k->row = &sk_rows[k->in.row];
    k->branch = k->row->attr & (A_END | A_F64);
    if (!runs_here(k)) {
        return false;
    }
    make_state(k);
    return finds_it(k);
}
