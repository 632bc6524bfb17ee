/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XRSTOR, LDMXCSR, STMXCSR (SDM 1 chapter 13, 2023-12).
 */
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/crs.h"
#include "softkvm/x86/ops/ops.h"

enum { X87 = 1, SSE = 2, AVX = 4 };

static void xstate_check(struct sk_vcpu *c, const struct sk_insn *in, unsigned align)
{
    if (!(c->cr4 & SK_CR4_OSXSAVE)) {
        sk_ud(c);
    }
    if (c->cr0 & SK_CR0_TS) {
        sk_raise(c, SK_NM);
    }
    if ((c->seg[in->seg].ebase + sk_ea(c, in)) & (align - 1)) {
        sk_gp(c);
    }
}

static void fx_check(struct sk_vcpu *c, const struct sk_insn *in)
{
    uint64_t lin;

    if (c->cr0 & (SK_CR0_TS | SK_CR0_EM)) {
        sk_raise(c, SK_NM);
    }
    lin = (c->seg[in->seg].ebase + sk_ea(c, in)) & c->linmask;
    if (lin & 15) {
        sk_misaligned(c, lin);
    }
}

/* Bytes of the XMM part outside 64-bit mode: eight registers. */
static unsigned fx_xmm(const struct sk_vcpu *c)
{
    return sk_code64(c) ? 256 : 128;
}

OP(op_fxsave)
{
    uint8_t img[512];

    fx_check(c, in);
    sk_ld_slow(c, sk_ea_lin(c, in, 512, true), img, 512, SK_ACC_WRITE); /* some of it stays */
    memcpy(img, &c->xs, 160 + fx_xmm(c));
    sk_st_bytes(c, in, img, 512);
}
SK_HANDLER1(fxsave, op_fxsave);

static void fx_load_x87(struct sk_vcpu *c, const uint8_t *img)
{
    memcpy(&c->xs, img, 24);
    memcpy(c->xs.st, img + 32, sizeof(c->xs.st));
    sk_x87_settle(&c->xs);
}

OP(op_fxrstor)
{
    uint8_t img[512];
    uint32_t mxcsr;

    fx_check(c, in);
    sk_ld_bytes(c, in, img, 512);
    memcpy(&mxcsr, img + 24, 4);
    if (mxcsr & ~0xffffu) {
        sk_gp(c);
    }
    fx_load_x87(c, img);
    c->xs.mxcsr = mxcsr;
    memcpy(c->xs.xmm, img + 160, fx_xmm(c));
    c->xs.xstate_bv |= X87 | SSE;
}
SK_HANDLER1(fxrstor, op_fxrstor);

OP(op_ldmxcsr)
{
    uint32_t v;

    if (sk_rows[in->row].map >= M_V1) {
        sk_check_avx(c);
    } else {
        sk_check_sse(c);
    }
    v = sk_ld32(c, in);
    if (v & ~0xffffu) {
        sk_gp(c);
    }
    c->xs.mxcsr = v;
}
SK_HANDLER1(ldmxcsr, op_ldmxcsr);

OP(op_stmxcsr)
{
    if (sk_rows[in->row].map >= M_V1) {
        sk_check_avx(c);
    } else {
        sk_check_sse(c);
    }
    sk_st32(c, in, c->xs.mxcsr);
}
SK_HANDLER1(stmxcsr, op_stmxcsr);

static uint64_t xstate_mask(const struct sk_vcpu *c)
{
    return (c->r[SK_RDX] << 32 | (uint32_t)c->r[SK_RAX]) & c->xcr0;
}

static void xsave_at(struct sk_vcpu *c, uint64_t lin, const void *p, unsigned size)
{
    sk_st_slow(c, lin, p, size, SK_ACC_WRITE);
}

static uint64_t xstate_lin(struct sk_vcpu *c, const struct sk_insn *in, bool write)
{
    return sk_ea_lin(c, in, 1, write);
}

/* The address, after the faults of the first and the last byte, so that nothing is stored by half;
 * *ret_bv gets XSTATE_BV as it was. */
static uint64_t xsave_start(struct sk_vcpu *c, const struct sk_insn *in, uint64_t mask,
                            uint64_t *ret_bv)
{
    uint64_t at = xstate_lin(c, in, true), end = at + (mask & AVX ? 576 + fx_xmm(c) : 576);
    uint8_t b;

    sk_ld_slow(c, at, &b, 1, SK_ACC_WRITE);
    sk_ld_slow(c, end - 1, &b, 1, SK_ACC_WRITE);
    sk_ld_slow(c, at + 512, ret_bv, sizeof(*ret_bv), SK_ACC_WRITE);
    return at;
}

/* Legacy region: x87, then MXCSR if one of `mxcsr` is asked for, then XMM. */
static void xsave_legacy(struct sk_vcpu *c, uint64_t at, uint64_t mask, uint64_t mxcsr)
{
    const uint8_t *img = (const uint8_t *)&c->xs;

    if (mask & X87) {
        xsave_at(c, at, img, 24);
        xsave_at(c, at + 32, img + 32, 128);
    }
    if (mask & mxcsr) {
        xsave_at(c, at + 24, img + 24, 8);
    }
    if (mask & SSE) {
        xsave_at(c, at + 160, img + 160, fx_xmm(c));
    }
}

/* XSAVE and XSAVEOPT. (The latter may leave out unmodified parts; it need not.) */
OP(op_xsave)
{
    uint64_t mask = xstate_mask(c), at, bv;

    xstate_check(c, in, 64);
    at = xsave_start(c, in, mask, &bv);
    xsave_legacy(c, at, mask, SSE | AVX);
    if (mask & AVX) {
        xsave_at(c, at + 576, c->xs.ymmh, fx_xmm(c));
    }
    sk_st_lin64(c, at + 512, (bv & ~mask) | (c->xs.xstate_bv & mask));
}
SK_HANDLER1(xsave, op_xsave);

/* Compacted format: AVX is the only component beyond the legacy region, so it stands at 576 there
 * too. */
OP(op_xsavec)
{
    uint64_t mask = xstate_mask(c), at, use, bv;
    uint64_t header[2];

    xstate_check(c, in, 64);
    at = xsave_start(c, in, mask, &bv);
    use = mask & c->xs.xstate_bv;
    if ((mask & SSE) && c->xs.mxcsr != 0x1f80) {
        use |= SSE;
    }
    xsave_legacy(c, at, use, SSE);
    if (use & AVX) {
        xsave_at(c, at + 576, c->xs.ymmh, fx_xmm(c));
    }
    header[0] = use;
    header[1] = BIT64(63) | mask;
    xsave_at(c, at + 512, header, 16); /* the rest is not touched: SDM 1 §13.10 */
}
SK_HANDLER1(xsavec, op_xsavec);

static void xrstor_init(struct sk_vcpu *c, uint64_t parts)
{
    if (parts & X87) {
        memset(&c->xs, 0, 24);
        memset(c->xs.st, 0, sizeof(c->xs.st));
        c->xs.fcw = 0x37f;
    }
    if (parts & SSE) {
        memset(c->xs.xmm, 0, fx_xmm(c));
    }
    if (parts & AVX) {
        memset(c->xs.ymmh, 0, fx_xmm(c));
    }
}

static void xrstor_load(struct sk_vcpu *c, const uint8_t *img, uint64_t parts)
{
    if (parts & X87) {
        fx_load_x87(c, img);
    }
    if (parts & SSE) {
        memcpy(c->xs.xmm, img + 160, fx_xmm(c));
    }
    if (parts & AVX) {
        memcpy(c->xs.ymmh, img + 576, fx_xmm(c));
    }
}

/* Header rules of SDM 1 §13.8.1 (standard) and §13.8.2 (compacted). */
static bool xrstor_header_ok(const struct sk_vcpu *c, const uint64_t *h)
{
    bool compact = h[1] >> 63;

    for (unsigned i = 2; i < 8; i++) {
        if ((i == 2 || compact) && h[i]) {
            return false;
        }
    }
    if (!compact) {
        return h[1] == 0 && !(h[0] & ~c->xcr0);
    }
    return sk_has(c, SK_F_XSAVEC) && !(h[1] & ~BIT64(63) & ~c->xcr0) && !(h[0] & ~h[1]);
}

OP(op_xrstor)
{
    uint8_t img[832] = { 0 };
    uint64_t mask = xstate_mask(c), at, header[8], bv;
    uint32_t mxcsr;

    xstate_check(c, in, 64);
    at = xstate_lin(c, in, false);
    sk_ld_slow(c, at, img, 576, SK_ACC_READ);
    memcpy(header, img + 512, 64);
    if (!xrstor_header_ok(c, header)) {
        sk_gp(c);
    }
    bv = header[0];
    if (mask & bv & AVX) {
        sk_ld_slow(c, at + 576, img + 576, fx_xmm(c), SK_ACC_READ);
    }
    memcpy(&mxcsr, img + 24, 4);
    if (header[1] >> 63) {
        if ((mask & SSE) && !(bv & SSE)) {
            mxcsr = 0x1f80;
        } else if (!(mask & SSE)) {
            mxcsr = c->xs.mxcsr;
        }
    } else if (!(mask & (SSE | AVX))) {
        mxcsr = c->xs.mxcsr;
    }
    if (mxcsr & ~0xffffu) {
        sk_gp(c);
    }
    c->xs.mxcsr = mxcsr;
    xrstor_init(c, mask & ~bv);
    xrstor_load(c, img, mask & bv);
    c->xs.xstate_bv = (c->xs.xstate_bv & ~mask) | (bv & mask);
}
SK_HANDLER1(xrstor, op_xrstor);
