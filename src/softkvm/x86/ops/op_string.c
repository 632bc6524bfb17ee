/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MOVS STOS LODS CMPS SCAS. Repeated forms go by runs within a page: one translation, then the
 * host's own string instruction. Between two runs the poll word is looked at; an instruction that
 * leaves early keeps RIP on itself with its registers up to date, as the processor does.
 */
#include "softkvm/x86/ops/ops.h"

enum { SHORT_WORDS = 16 };

static inline unsigned str_asize(const struct sk_insn *in)
{
    return in->ash == 48 ? 2 : in->ash == 32 ? 4 : 8;
}

static inline uint64_t str_reg(const struct sk_vcpu *c, const struct sk_insn *in, unsigned r)
{
    return c->r[r] << in->ash >> in->ash;
}

static inline int64_t str_step(const struct sk_vcpu *c, const struct sk_insn *in)
{
    return c->eflags & SK_FL_DF ? -(int64_t)in->osize : in->osize;
}

static inline void str_advance(struct sk_vcpu *c, const struct sk_insn *in, unsigned r, int64_t by)
{
    sk_set_reg(c, r, str_asize(in), c->r[r] + (uint64_t)by);
}

static inline bool str_rep(const struct sk_insn *in)
{
    return in->flags & (SK_IN_REP | SK_IN_REPNE);
}

/* How many elements from offset `off` lie inside the segment and below the wrap of the address
 * size, in the direction of the string; at least 1 (the first one's checks are the caller's). */
static uint64_t str_room(const struct sk_vcpu *c, const struct sk_insn *in, unsigned seg,
                         uint64_t off, uint64_t n)
{
    uint64_t top = ~UINT64_C(0) >> in->ash;

    if (!sk_code64(c)) {
        top = MIN(top, (uint64_t)c->seg[seg].limit);
        if (!(c->seg[seg].attr & SK_ATTR_CODE) && (c->seg[seg].attr & SK_ATTR_EXPDOWN)) {
            return 1;
        }
    }
    if (off > top) {
        return 1;
    }
    return MIN(n, MAX((top - off) / in->osize, (uint64_t)1));
}

/* A run of elements at seg:off: host pointer and length, or NULL (then one element by the general
 * access functions). Faults as the first element would. */
static uint8_t *str_run(struct sk_vcpu *c, const struct sk_insn *in, unsigned seg, uint64_t off,
                        bool write, uint64_t *n)
{
    uint64_t lin = sk_seg_lin(c, seg, off, in->osize, write);
    unsigned left;
    uint8_t *p = sk_ptr(c, lin, in->osize, write, &left);

    if (!p || (c->eflags & SK_FL_DF) || c->special) {
        *n = 1;
        return p;
    }
    *n = MIN(str_room(c, in, seg, off, *n), (uint64_t)(left / in->osize));
    return p;
}

static uint64_t str_load(struct sk_vcpu *c, const struct sk_insn *in, unsigned seg, uint64_t off)
{
    switch (in->osize) {
    case 1:
        return sk_ld_seg8(c, seg, off);
    case 2:
        return sk_ld_seg16(c, seg, off);
    case 4:
        return sk_ld_seg32(c, seg, off);
    default:
        return sk_ld_seg64(c, seg, off);
    }
}

static void str_store(struct sk_vcpu *c, const struct sk_insn *in, uint64_t off, uint64_t v)
{
    switch (in->osize) {
    case 1:
        sk_st_seg8(c, SK_ES, off, (uint8_t)v);
        break;
    case 2:
        sk_st_seg16(c, SK_ES, off, (uint16_t)v);
        break;
    case 4:
        sk_st_seg32(c, SK_ES, off, (uint32_t)v);
        break;
    default:
        sk_st_seg64(c, SK_ES, off, v);
        break;
    }
}

/* After `n` elements of a repeated form. True: stop, for now or for good. */
static bool str_done(struct sk_vcpu *c, const struct sk_insn *in, uint64_t n)
{
    uint64_t count = str_reg(c, in, SK_RCX) - n;

    sk_set_reg(c, SK_RCX, str_asize(in), count);
    if (count == 0) {
        return true;
    }
    if (c->leave || c->special || atomic_load_explicit(&c->poll, memory_order_relaxed) ||
        *c->immediate_exit) {
        c->r[SK_RIP] = c->insn_rip;
        c->leave = 1;
        return true;
    }
    return false;
}

static void str_copy(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        break;
    }
}

static void str_fill(uint8_t *d, uint64_t v, uint64_t n, unsigned size)
{
    if (size == 8 && n <= SHORT_WORDS) { /* the host's instruction takes longer to start */
        for (uint64_t i = 0; i < n; i++) {
            *(volatile sk_any64 *)(d + 8 * i) = v;
        }
        return;
    }
    switch (size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    }
}

/* Both pointers of MOVS with the shorter run. */
static uint64_t movs_some(struct sk_vcpu *c, const struct sk_insn *in, uint64_t n)
{
    uint64_t so = str_reg(c, in, SK_RSI), dof = str_reg(c, in, SK_RDI), nd = n;
    uint8_t *s = str_run(c, in, in->seg, so, false, &n);
    uint8_t *d = str_run(c, in, SK_ES, dof, true, &nd);

    n = MIN(n, nd);
    if (s && d) {
        str_copy(d, s, n, in->osize);
    } else {
        n = 1;
        str_store(c, in, dof, str_load(c, in, in->seg, so));
    }
    return n;
}

OP(op_movs)
{
    uint64_t n;

    if (!str_rep(in)) {
        str_store(c, in, str_reg(c, in, SK_RDI), str_load(c, in, in->seg, str_reg(c, in, SK_RSI)));
        str_advance(c, in, SK_RSI, str_step(c, in));
        str_advance(c, in, SK_RDI, str_step(c, in));
        return;
    }
    while ((n = str_reg(c, in, SK_RCX)) != 0) {
        n = movs_some(c, in, n);
        str_advance(c, in, SK_RSI, str_step(c, in) * (int64_t)n);
        str_advance(c, in, SK_RDI, str_step(c, in) * (int64_t)n);
        if (str_done(c, in, n)) {
            break;
        }
    }
}
SK_HANDLER1(movs, op_movs);

OP(op_stos)
{
    uint64_t n;

    if (!str_rep(in)) {
        str_store(c, in, str_reg(c, in, SK_RDI), c->r[SK_RAX]);
        str_advance(c, in, SK_RDI, str_step(c, in));
        return;
    }
    while ((n = str_reg(c, in, SK_RCX)) != 0) {
        uint64_t off = str_reg(c, in, SK_RDI);
        uint8_t *d = str_run(c, in, SK_ES, off, true, &n);

        if (d) {
            str_fill(d, c->r[SK_RAX], n, in->osize);
        } else {
            n = 1;
            str_store(c, in, off, c->r[SK_RAX]);
        }
        str_advance(c, in, SK_RDI, str_step(c, in) * (int64_t)n);
        if (str_done(c, in, n)) {
            break;
        }
    }
}
SK_HANDLER1(stos, op_stos);

static void lods_one(struct sk_vcpu *c, const struct sk_insn *in)
{
    uint64_t v = str_load(c, in, in->seg, str_reg(c, in, SK_RSI));

    if (in->osize == 1) {
        WR_8(0, v);
    } else {
        sk_set_reg(c, SK_RAX, in->osize, v);
    }
    str_advance(c, in, SK_RSI, str_step(c, in));
}

OP(op_lods)
{
    if (!str_rep(in)) {
        lods_one(c, in);
        return;
    }
    while (str_reg(c, in, SK_RCX) != 0) {
        lods_one(c, in);
        if (str_done(c, in, 1)) {
            break;
        }
    }
}
SK_HANDLER1(lods, op_lods);

/* Flags of a - b by operand size. */
static void str_compare(struct sk_vcpu *c, unsigned size, uint64_t a, uint64_t b)
{
    uint8_t a8 = (uint8_t)a;
    uint16_t a16 = (uint16_t)a;
    uint32_t a32 = (uint32_t)a;

    switch (size) {
    case 1:
        HOST2("cmp", 8, a8, b, c->af);
        break;
    case 2:
        HOST2("cmp", 16, a16, b, c->af);
        break;
    case 4:
        HOST2("cmp", 32, a32, b, c->af);
        break;
    default:
        HOST2("cmp", 64, a, b, c->af);
        break;
    }
}

static bool str_goes_on(const struct sk_vcpu *c, const struct sk_insn *in)
{
    bool zf = c->af & SK_AF_ZF;

    return in->flags & SK_IN_REPNE ? !zf : zf;
}

static uint64_t str_get(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, p, size);
    return v;
}

/* The host's own repeated instruction looked at all but `left` of `n` elements: how many of those
 * are to be passed over. */
static uint64_t str_skipped(uint64_t n, uint64_t left, bool stopped)
{
    return n - left - (stopped ? 1 : 0);
}

/* DO(letter of the operand size in the assembler's names). */
#define STR_BY_SIZE(in, DO)                                                                        \
    switch ((in)->osize) {                                                                         \
    case 1:                                                                                        \
        DO("b")                                                                                    \
        break;                                                                                     \
    case 2:                                                                                        \
        DO("w")                                                                                    \
        break;                                                                                     \
    case 4:                                                                                        \
        DO("l")                                                                                    \
        break;                                                                                     \
    default:                                                                                       \
        DO("q")                                                                                    \
        break;                                                                                     \
    }

/* Elements of a run that need no stop: all but the last of what is compared. */
static uint64_t scas_skip(const struct sk_insn *in, const uint8_t *p, uint64_t n, uint64_t v)
{
    bool ne = in->flags & SK_IN_REPNE, equal;
    uint64_t all = --n;

    if (n == 0) {
        return 0;
    }
#define SCAS(letter)                                                                               \
    if (ne) {                                                                                      \
        __asm__ volatile("repne scas" letter                                                       \
                         : "+D"(p), "+c"(n), "=@ccz"(equal)                                        \
                         : "a"(v)                                                                  \
                         : "memory");                                                              \
    } else {                                                                                       \
        __asm__ volatile("repe scas" letter                                                        \
                         : "+D"(p), "+c"(n), "=@ccz"(equal)                                        \
                         : "a"(v)                                                                  \
                         : "memory");                                                              \
    }
    STR_BY_SIZE(in, SCAS)
#undef SCAS
    return str_skipped(all, n, equal == ne);
}

OP(op_scas)
{
    uint64_t n;

    if (!str_rep(in)) {
        str_compare(c, in->osize, c->r[SK_RAX], str_load(c, in, SK_ES, str_reg(c, in, SK_RDI)));
        str_advance(c, in, SK_RDI, str_step(c, in));
        return;
    }
    while ((n = str_reg(c, in, SK_RCX)) != 0) {
        uint64_t off = str_reg(c, in, SK_RDI), v;
        const uint8_t *p = str_run(c, in, SK_ES, off, false, &n);
        uint64_t i = p ? scas_skip(in, p, n, c->r[SK_RAX]) : 0;

        v = p ? str_get(p + i * in->osize, in->osize) : str_load(c, in, SK_ES, off);
        str_compare(c, in->osize, c->r[SK_RAX], v);
        str_advance(c, in, SK_RDI, str_step(c, in) * (int64_t)(i + 1));
        if (!str_goes_on(c, in)) {
            sk_set_reg(c, SK_RCX, str_asize(in), str_reg(c, in, SK_RCX) - (i + 1));
            break;
        }
        if (str_done(c, in, i + 1)) {
            break;
        }
    }
}
SK_HANDLER1(scas, op_scas);

static uint64_t cmps_skip(const struct sk_insn *in, const uint8_t *a, const uint8_t *b, uint64_t n)
{
    bool ne = in->flags & SK_IN_REPNE, equal;
    uint64_t all = --n;

    if (n == 0) {
        return 0;
    }
#define CMPS(letter)                                                                               \
    if (ne) {                                                                                      \
        __asm__ volatile("repne cmps" letter                                                       \
                         : "+S"(a), "+D"(b), "+c"(n), "=@ccz"(equal)                               \
                         :                                                                         \
                         : "memory");                                                              \
    } else {                                                                                       \
        __asm__ volatile("repe cmps" letter                                                        \
                         : "+S"(a), "+D"(b), "+c"(n), "=@ccz"(equal)                               \
                         :                                                                         \
                         : "memory");                                                              \
    }
    STR_BY_SIZE(in, CMPS)
#undef CMPS
    return str_skipped(all, n, equal == ne);
}

OP(op_cmps)
{
    int64_t step = str_step(c, in);

    if (!str_rep(in)) {
        uint64_t a = str_load(c, in, in->seg, str_reg(c, in, SK_RSI));

        str_compare(c, in->osize, a, str_load(c, in, SK_ES, str_reg(c, in, SK_RDI)));
        str_advance(c, in, SK_RSI, step);
        str_advance(c, in, SK_RDI, step);
        return;
    }
    while (str_reg(c, in, SK_RCX) != 0) {
        uint64_t so = str_reg(c, in, SK_RSI), dof = str_reg(c, in, SK_RDI);
        uint64_t n = str_reg(c, in, SK_RCX), nd = n, i = 0, x, y;
        const uint8_t *a = str_run(c, in, in->seg, so, false, &n);
        const uint8_t *b = str_run(c, in, SK_ES, dof, false, &nd);

        if (a && b) {
            i = cmps_skip(in, a, b, MIN(n, nd));
            x = str_get(a + i * in->osize, in->osize);
            y = str_get(b + i * in->osize, in->osize);
        } else {
            x = str_load(c, in, in->seg, so);
            y = str_load(c, in, SK_ES, dof);
        }
        str_compare(c, in->osize, x, y);
        str_advance(c, in, SK_RSI, step * (int64_t)(i + 1));
        str_advance(c, in, SK_RDI, step * (int64_t)(i + 1));
        if (!str_goes_on(c, in)) {
            sk_set_reg(c, SK_RCX, str_asize(in), str_reg(c, in, SK_RCX) - (i + 1));
            break;
        }
        if (str_done(c, in, i + 1)) {
            break;
        }
    }
}
SK_HANDLER1(cmps, op_cmps);
