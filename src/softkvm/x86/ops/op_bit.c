/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BT BTS BTR BTC, scans and counts, CMPXCHG, XADD, CMPXCHG8B/16B, CRC32.
 */
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/ops/ops.h"

/* CF = the bit; the other flags are undefined, but ZF is defined to stay. */
static inline void bit_cf(struct sk_vcpu *c, bool v)
{
    c->af = (uint16_t)((c->af & ~SK_AF_CF) | (v ? SK_AF_CF : 0));
}

#define PUT_bt(S, v)   (void)(v)
#define PUT_bts(S, v)  WR_##S(in->rm, v)
#define PUT_btr(S, v)  WR_##S(in->rm, v)
#define PUT_btc(S, v)  WR_##S(in->rm, v)
#define NEW_bt(v, m)   (v)
#define NEW_bts(v, m)  ((v) | (m))
#define NEW_btr(v, m)  ((v) & ~(m))
#define NEW_btc(v, m)  ((v) ^ (m))
#define ATOM_bts(p, m) __atomic_fetch_or(p, m, __ATOMIC_SEQ_CST)
#define ATOM_btr(p, m) __atomic_fetch_and(p, ~(m), __ATOMIC_SEQ_CST)
#define ATOM_btc(p, m) __atomic_fetch_xor(p, m, __ATOMIC_SEQ_CST)

/* The word that holds bit `n` (signed) of the bit string at the operand. */
static inline uint64_t bit_lin(struct sk_vcpu *c, const struct sk_insn *in, int64_t n,
                               unsigned size, bool write)
{
    uint64_t off = sk_ea(c, in) + (uint64_t)((n >> (size == 2 ? 4 : size == 4 ? 5 : 6)) * size);

    return sk_seg_lin(c, in->seg, off << in->ash >> in->ash, size, write);
}

#define BIT_REG(S, name)                                                                           \
    static inline void name##_reg_##S(struct sk_vcpu *c, const struct sk_insn *in, unsigned n)     \
    {                                                                                              \
        T_(S) v = RD_##S(in->rm), m = (T_(S))((T_(S))1 << (n & (S - 1)));                          \
                                                                                                   \
        PUT_##name(S, (T_(S))NEW_##name(v, m));                                                    \
        bit_cf(c, v &m);                                                                           \
    }                                                                                              \
    OP(name##_E_G_r_##S)                                                                           \
    {                                                                                              \
        name##_reg_##S(c, in, (unsigned)c->r[in->reg]);                                            \
    }                                                                                              \
    OP(name##_E_I_r_##S)                                                                           \
    {                                                                                              \
        name##_reg_##S(c, in, (unsigned)in->imm);                                                  \
    }

#define BIT_MEM(S, name)                                                                           \
    static inline void name##_at_##S(struct sk_vcpu *c, const struct sk_insn *in, uint64_t lin,    \
                                     unsigned n)                                                   \
    {                                                                                              \
        T_(S) m = (T_(S))((T_(S))1 << (n & (S - 1))), v;                                           \
        T_(S) *p = (T_(S) *)(void *)sk_tlb_hit(c->wtlb, lin, S / 8);                               \
                                                                                                   \
        if (!p) {                                                                                  \
            p = sk_rmw_slow(c, lin, S / 8);                                                        \
        }                                                                                          \
        if (LIKELY(p)) {                                                                           \
            if (in->flags & SK_IN_LOCK) {                                                          \
                v = ATOM_##name(p, m);                                                             \
            } else {                                                                               \
                v = *p;                                                                            \
                *p = (T_(S))NEW_##name(v, m);                                                      \
            }                                                                                      \
        } else {                                                                                   \
            sk_split_lock(c);                                                                      \
            v = sk_ld_lin##S(c, lin);                                                              \
            sk_st_lin##S(c, lin, (T_(S))NEW_##name(v, m));                                         \
            sk_split_unlock(c);                                                                    \
        }                                                                                          \
        bit_cf(c, v &m);                                                                           \
    }                                                                                              \
    OP(name##_E_G_m_##S)                                                                           \
    {                                                                                              \
        int64_t n = (ST_(S))c->r[in->reg];                                                         \
                                                                                                   \
        name##_at_##S(c, in, bit_lin(c, in, n, S / 8, true), (unsigned)n);                         \
    }                                                                                              \
    OP(name##_E_I_m_##S)                                                                           \
    {                                                                                              \
        name##_at_##S(c, in, sk_ea_lin(c, in, S / 8, true), (unsigned)in->imm);                    \
    }

#define BT_MEM(S)                                                                                  \
    OP(bt_E_G_m_##S)                                                                               \
    {                                                                                              \
        int64_t n = (ST_(S))c->r[in->reg];                                                         \
        T_(S) v = sk_ld_lin##S(c, bit_lin(c, in, n, S / 8, false));                                \
                                                                                                   \
        bit_cf(c, (v >> (n & (S - 1))) & 1);                                                       \
    }                                                                                              \
    OP(bt_E_I_m_##S)                                                                               \
    {                                                                                              \
        bit_cf(c, (LD_(S) >> (in->imm & (S - 1))) & 1);                                            \
    }

#define BIT_HANDLERS(name)                                                                         \
    SK_HANDLER4(name##_E_G, NULL, name##_E_G_r_16, name##_E_G_r_32, name##_E_G_r_64, NULL,         \
                name##_E_G_m_16, name##_E_G_m_32, name##_E_G_m_64);                                \
    SK_HANDLER4(name##_E_I, NULL, name##_E_I_r_16, name##_E_I_r_32, name##_E_I_r_64, NULL,         \
                name##_E_I_m_16, name##_E_I_m_32, name##_E_I_m_64);
#define BIT_ALL(name, MEM)                                                                         \
    BIT_REG(16, name)                                                                              \
    BIT_REG(32, name)                                                                              \
    BIT_REG(64, name)                                                                              \
    MEM BIT_HANDLERS(name)

BIT_ALL(bt, BT_MEM(16) BT_MEM(32) BT_MEM(64))
BIT_ALL(bts, BIT_MEM(16, bts) BIT_MEM(32, bts) BIT_MEM(64, bts))
BIT_ALL(btr, BIT_MEM(16, btr) BIT_MEM(32, btr) BIT_MEM(64, btr))
BIT_ALL(btc, BIT_MEM(16, btc) BIT_MEM(32, btc) BIT_MEM(64, btc))

/* Source of a Gv,Ev form, zero-extended. */
static uint64_t bit_source(struct sk_vcpu *c, const struct sk_insn *in)
{
    switch (in->osize) {
    case 2:
        return in->flags & SK_IN_MEM ? sk_ld16(c, in) : (uint16_t)c->r[in->rm];
    case 4:
        return in->flags & SK_IN_MEM ? sk_ld32(c, in) : (uint32_t)c->r[in->rm];
    default:
        return in->flags & SK_IN_MEM ? sk_ld64(c, in) : c->r[in->rm];
    }
}

static void bit_zf(struct sk_vcpu *c, bool zero)
{
    c->af = (uint16_t)((c->af & ~SK_AF_ZF) | (zero ? SK_AF_ZF : 0));
}

/* A zero source leaves the destination as it is (documented by AMD, true of Intel). */
OP(op_bsf)
{
    uint64_t v = bit_source(c, in);

    bit_zf(c, v == 0);
    if (v) {
        sk_set_reg(c, in->reg, in->osize, (uint64_t)__builtin_ctzll(v));
    }
}
SK_HANDLER1(bsf, op_bsf);

OP(op_bsr)
{
    uint64_t v = bit_source(c, in);

    bit_zf(c, v == 0);
    if (v) {
        sk_set_reg(c, in->reg, in->osize, 63u - (uint64_t)__builtin_clzll(v));
    }
}
SK_HANDLER1(bsr, op_bsr);

static void bit_count(struct sk_vcpu *c, const struct sk_insn *in, uint64_t n)
{
    sk_set_reg(c, in->reg, in->osize, n);
    bit_zf(c, n == 0);
    bit_cf(c, n == in->osize * 8u);
}

OP(op_tzcnt)
{
    uint64_t v = bit_source(c, in);

    bit_count(c, in, v ? (uint64_t)__builtin_ctzll(v) : in->osize * 8u);
}
SK_HANDLER1(tzcnt, op_tzcnt);

OP(op_lzcnt)
{
    uint64_t v = bit_source(c, in);

    bit_count(c, in, v ? (uint64_t)__builtin_clzll(v) - (64 - in->osize * 8u) : in->osize * 8u);
}
SK_HANDLER1(lzcnt, op_lzcnt);

OP(op_popcnt)
{
    uint64_t v = bit_source(c, in);

    sk_set_reg(c, in->reg, in->osize, (uint64_t)__builtin_popcountll(v));
    c->af = v ? 0 : SK_AF_ZF;
}
SK_HANDLER1(popcnt, op_popcnt);

/* At any address the processor's own locked instruction: a pointer said to be unaligned would have
 * clang call a library instead. */
#define CMPXCHG(S)                                                                                 \
    OP(cmpxchg_r_##S)                                                                              \
    {                                                                                              \
        T_(S) acc = RD_##S(SK_RAX), d = RD_##S(in->rm), t = acc;                                   \
                                                                                                   \
        HOST2("cmp", S, t, d, c->af);                                                              \
        if (acc == d) {                                                                            \
            WR_##S(in->rm, RD_##S(in->reg));                                                       \
        } else {                                                                                   \
            WR_##S(SK_RAX, d);                                                                     \
        }                                                                                          \
    }                                                                                              \
    OP(cmpxchg_m_##S)                                                                              \
    {                                                                                              \
        T_(S) acc = RD_##S(SK_RAX), old = acc, t = acc, v = RD_##S(in->reg);                       \
                                                                                                   \
        WITH_MEM(S, __atomic_compare_exchange_n((T_(S) *)p, &old, v, false, __ATOMIC_SEQ_CST,      \
                                                __ATOMIC_SEQ_CST));                                \
        HOST2("cmp", S, t, old, c->af);                                                            \
        if (acc != old) {                                                                          \
            WR_##S(SK_RAX, old);                                                                   \
        }                                                                                          \
    }
FOR_SIZES(CMPXCHG)
SK_HANDLER_SZ(cmpxchg, cmpxchg_r, cmpxchg_m);

#define XADD(S)                                                                                    \
    OP(xadd_r_##S)                                                                                 \
    {                                                                                              \
        T_(S) d = RD_##S(in->rm), old = d;                                                         \
                                                                                                   \
        HOST2("add", S, d, RD_##S(in->reg), c->af);                                                \
        WR_##S(in->reg, old);                                                                      \
        WR_##S(in->rm, d);                                                                         \
    }                                                                                              \
    OP(xadd_m_##S)                                                                                 \
    {                                                                                              \
        T_(S) v = RD_##S(in->reg), old, t;                                                         \
                                                                                                   \
        WITH_MEM(S, old = __atomic_fetch_add((T_(S) *)p, v, __ATOMIC_SEQ_CST));                    \
        t = old;                                                                                   \
        HOST2("add", S, t, v, c->af);                                                              \
        WR_##S(in->reg, old);                                                                      \
    }
FOR_SIZES(XADD)
SK_HANDLER_SZ(xadd, xadd_r, xadd_m);

OP(op_cmpxchg8b)
{
    uint64_t old = (uint32_t)c->r[SK_RAX] | c->r[SK_RDX] << 32, want = old;
    uint64_t v = (uint32_t)c->r[SK_RBX] | c->r[SK_RCX] << 32;

    WITH_MEM(64, __atomic_compare_exchange_n((uint64_t *)p, &old, v, false, __ATOMIC_SEQ_CST,
                                             __ATOMIC_SEQ_CST));
    bit_zf(c, old == want);
    if (old != want) {
        sk_set32(c, SK_RAX, (uint32_t)old);
        sk_set32(c, SK_RDX, (uint32_t)(old >> 32));
    }
}

OP(op_cmpxchg16b)
{
    uint64_t lo = c->r[SK_RAX], hi = c->r[SK_RDX], *p;
    bool ok;

    if (!sk_has(c, SK_F_CX16)) {
        sk_ud(c);
    }
    sk_need_aligned(c, in, 16, true);
    p = sk_rmw(c, in, 16);
    if (!p) { /* device memory: as two halves */
        uint64_t m[2];

        sk_ld_bytes(c, in, m, 16);
        ok = m[0] == lo && m[1] == hi;
        lo = m[0];
        hi = m[1];
        if (ok) {
            m[0] = c->r[SK_RBX];
            m[1] = c->r[SK_RCX];
        }
        sk_st_bytes(c, in, m, 16);
    } else {
        __asm__ volatile("lock; cmpxchg16b %[m]"
                         : [m] "+m"(*(unsigned char(*)[16])(void *)p), "+a"(lo), "+d"(hi),
                           "=@ccz"(ok)
                         : "b"(c->r[SK_RBX]), "c"(c->r[SK_RCX])
                         : "memory");
    }
    bit_zf(c, ok);
    if (!ok) {
        c->r[SK_RAX] = lo;
        c->r[SK_RDX] = hi;
    }
}
SK_HANDLER4(cmpxchg8b, op_cmpxchg8b, op_cmpxchg8b, op_cmpxchg8b, op_cmpxchg16b, op_cmpxchg8b,
            op_cmpxchg8b, op_cmpxchg8b, op_cmpxchg16b);

/* CRC-32C (polynomial 11EDC6F41h), low bit first: SDM 2A CRC32. */
static uint32_t crc32c(uint32_t crc, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        crc ^= (uint8_t)(v >> (8 * i));
        for (unsigned b = 0; b < 8; b++) {
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
        }
    }
    return crc;
}

OP(op_crc32_Eb)
{
    uint8_t v = in->flags & SK_IN_MEM ? sk_ld8(c, in) : *sk_r8(c, in->rm);

    c->r[in->reg] = crc32c((uint32_t)c->r[in->reg], v, 1);
}
SK_HANDLER1(crc32_Eb, op_crc32_Eb);

OP(op_crc32_Ev)
{
    c->r[in->reg] = crc32c((uint32_t)c->r[in->reg], bit_source(c, in), in->osize);
}
SK_HANDLER1(crc32_Ev, op_crc32_Ev);
