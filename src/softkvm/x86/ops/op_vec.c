/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MMX, SSE and AVX: operands out of c->xs, the host's instruction (hostexec.h), results back. The
 * state is written only after every access that may fault. SIMD floating-point exceptions are run
 * masked and looked at afterwards.
 */
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/crs.h"
#include "softkvm/x86/hostexec.h"
#include "softkvm/x86/ops/ops.h"

enum {
    MXCSR_FLAGS = 0x3f,
    MXCSR_BEFORE = 0x07, /* IE, DE, ZE: found before anything is computed */
    MXCSR_UE = 0x10,
    MXCSR_UM = 0x800,
    MXCSR_MASKS = 0x1f80,
    MXCSR_FZ = 0x8000
};

static void vec_get(const struct sk_vcpu *c, unsigned n, uint8_t *to)
{
    memcpy(to, c->xs.xmm[n], 16);
    memcpy(to + 16, c->xs.ymmh[n], 16);
}

static void vec_set(struct sk_vcpu *c, unsigned n, const uint8_t *from)
{
    memcpy(c->xs.xmm[n], from, 16);
    memcpy(c->xs.ymmh[n], from + 16, 16);
}

/* MMX register n is physical x87 register n; the image is in stack order. */
static uint8_t *mmx_reg(struct sk_vcpu *c, unsigned n)
{
    return c->xs.st[(n - (c->xs.fsw >> 11)) & 7];
}

/* Every MMX instruction but EMMS: TOP = 0, all tags valid (SDM 1 §9.5.1). */
static void mmx_enter(struct sk_vcpu *c)
{
    unsigned top = (c->xs.fsw >> 11) & 7;

    if (top) {
        uint8_t st[8][16];

        memcpy(st, c->xs.st, sizeof(st));
        for (unsigned i = 0; i < 8; i++) {
            memcpy(c->xs.st[i], st[(i - top) & 7], 16);
        }
    }
    c->xs.fsw &= (uint16_t)~0x3800;
    c->xs.ftw = 0xff;
    c->xs.xstate_bv |= 1;
}

static void mmx_set(struct sk_vcpu *c, unsigned n, const uint8_t *from)
{
    memcpy(c->xs.st[n], from, 8);
    memset(c->xs.st[n] + 8, 0xff, 2);
}

/* Bytes of a memory operand by its size letter. */
static unsigned vec_size(const struct sk_vcpu *c, const struct sk_insn *in, unsigned letter)
{
    unsigned full = in->flags & SK_IN_L ? 32 : 16;

    switch (letter) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'd':
        return 4;
    case 'q':
        return 8;
    case 'y':
        return (in->flags & SK_IN_W) && sk_code64(c) ? 8 : 4;
    case 'o':
        return 16;
    case 'h':
        return full / 2;
    case 'F':
        return full / 4;
    case 'e':
        return full / 8;
    case 'Q':
        return 32;
    default:
        return full;
    }
}

struct vec_plan {
    const struct sk_row *row;
    bool mmx;
    int mem_op; /* index of the operand that is in memory, or -1 */
    unsigned size;
};

static void vec_check(struct sk_vcpu *c, const struct sk_insn *in, struct vec_plan *p)
{
    p->row = &sk_rows[in->row];
    p->mmx = false;
    p->mem_op = -1;
    p->size = 0;
    for (int i = 0; i < 4 && p->row->op[i]; i++) {
        unsigned kind = p->row->op[i] & 0xff00;

        p->mmx |= kind == K_P || kind == K_Q || kind == K_N;
        if ((in->flags & SK_IN_MEM) && (kind == K_W || kind == K_M || kind == K_Q || kind == K_E)) {
            p->mem_op = i;
            p->size = vec_size(c, in, p->row->op[i] & 0xff);
        }
    }
    if (p->row->map >= M_V1) {
        sk_check_avx(c);
    } else if (p->mmx) {
        sk_check_mmx(c);
    } else {
        sk_check_sse(c);
    }
}

/* Alignment rules: legacy forms need 16 bytes aligned unless said otherwise, VEX forms only if
 * said. */
static void vec_align(struct sk_vcpu *c, const struct sk_insn *in, const struct vec_plan *p)
{
    bool vex = p->row->map >= M_V1;

    if (vex ? (p->row->attr & A_ALIGN) != 0 : p->size == 16 && !(p->row->attr & A_UNAL)) {
        sk_need_aligned(c, in, p->size, p->mem_op == 0);
    }
}

static void vec_gather_operands(struct sk_vcpu *c, const struct sk_insn *in,
                                const struct vec_plan *p, struct sk_hx *hx)
{
    vec_get(c, in->reg & 15, hx->reg);
    vec_get(c, in->vreg, hx->vreg);
    vec_get(c, 0, hx->x0);
    if ((p->row->op[3] & 0xff00) == K_L) {
        vec_get(c, (in->imm2 >> 4) & (sk_code64(c) ? 15 : 7), hx->is4);
    }
    if (p->mmx) {
        memcpy(hx->mreg, mmx_reg(c, in->reg & 7), 8);
        memcpy(hx->mrm, mmx_reg(c, in->rm & 7), 8);
    }
    if (p->mem_op > 0) {
        sk_ld_bytes(c, in, hx->rm, p->size);
    } else if (p->mem_op < 0) {
        vec_get(c, in->rm & 15, hx->rm);
        hx->rcx = c->r[in->rm & 15];
    }
    if (p->row->attr & A_CMP) { /* PCMPESTRx take lengths from there */
        hx->rax = c->r[SK_RAX];
        hx->rdx = c->r[SK_RDX];
    }
    hx->mxcsr_in = (c->xs.mxcsr & ~(uint32_t)MXCSR_FLAGS) | MXCSR_MASKS;
    hx->mxcsr_host = 0x1f80;
}

/* Exceptions this instruction raised: sticky flags, and #XM (#UD without CR4.OSXMMEXCPT) if
 * unmasked. */
static void vec_exceptions(struct sk_vcpu *c, const struct sk_hx *hx)
{
    uint32_t raised = hx->mxcsr_out & MXCSR_FLAGS, open = ~(c->xs.mxcsr >> 7) & MXCSR_FLAGS;

    if (raised & open & MXCSR_BEFORE) {
        raised &= MXCSR_BEFORE; /* nothing was computed */
    }
    c->xs.mxcsr |= raised;
    if (raised & open) {
        sk_raise(c, c->cr4 & SK_CR4_OSXMMEXCPT ? SK_XM : SK_UD);
    }
}

static void vec_store_mem(struct sk_vcpu *c, const struct sk_insn *in, const struct vec_plan *p,
                          const struct sk_hx *hx)
{
    uint64_t v;

    memcpy(&v, hx->rm, 8);
    if (p->size == 8) {
        sk_st64(c, in, v);
    } else if (p->size == 4) {
        sk_st32(c, in, (uint32_t)v);
    } else {
        sk_st_bytes(c, in, hx->rm, p->size);
    }
}

/* PCMPxSTRM writes XMM0, PCMPxSTRI ECX; their VEX forms clear the upper half of the former. */
static void vec_string_result(struct sk_vcpu *c, const struct sk_row *r, const struct sk_hx *hx)
{
    if (r->opcode & 1) {
        c->r[SK_RCX] = (uint32_t)hx->rcx;
    } else {
        vec_set(c, 0, hx->x0);
    }
}

static void vec_commit(struct sk_vcpu *c, const struct sk_insn *in, const struct vec_plan *p,
                       const struct sk_hx *hx)
{
    c->xs.xstate_bv |= p->row->map >= M_V1 ? 6 : 2;
    if (p->mmx) {
        mmx_enter(c);
    }
    if (p->row->attr & A_CMP) {
        c->af = hx->af & SK_AF_ALL;
        if ((p->row->opcode & 0xfc) == 0x60) {
            vec_string_result(c, p->row, hx);
        }
        return;
    }
    switch (p->row->op[0] & 0xff00) {
    case K_V:
        vec_set(c, in->reg & 15, hx->reg);
        break;
    case K_H:
        vec_set(c, in->vreg, hx->vreg);
        break;
    case K_W:
    case K_U:
        if (p->mem_op < 0) {
            vec_set(c, in->rm & 15, hx->rm);
        }
        break;
    case K_P:
        mmx_set(c, in->reg & 7, hx->mreg);
        break;
    case K_Q:
    case K_N:
        if (p->mem_op < 0) {
            mmx_set(c, in->rm & 7, hx->mrm);
        }
        break;
    case K_G:
        c->r[in->reg] = hx->rax;
        break;
    case K_E:
    case K_R:
        if (p->mem_op < 0) {
            c->r[in->rm] = hx->rcx;
        }
        break;
    default:
        break;
    }
}

/* Underflow not masked is raised by any tiny result, masked only by one that is inexact too (SDM 1
 * §11.5.2.5): flushing to zero makes the host tell of all of them. */
static void vec_compute(struct sk_vcpu *c, const struct sk_insn *in, const struct vec_plan *p,
                        struct sk_hx *hx)
{
    sk_hx_fn *fn = sk_hostexec_vec(c, in, p->mmx);

    if (UNLIKELY((p->row->attr & A_FP) && !(c->xs.mxcsr & MXCSR_UM))) {
        struct sk_hx tiny = *hx;

        tiny.mxcsr_in |= MXCSR_FZ;
        fn(&tiny, NULL);
        hx->mxcsr_in &= ~(uint32_t)MXCSR_FZ;
        fn(hx, NULL);
        hx->mxcsr_out |= tiny.mxcsr_out & MXCSR_UE;
        return;
    }
    fn(hx, NULL);
}

OP(op_vec)
{
    struct vec_plan p = { 0 };
    struct sk_hx hx;

    vec_check(c, in, &p);
    if (p.mem_op >= 0) {
        vec_align(c, in, &p);
    }
    vec_gather_operands(c, in, &p, &hx);
    vec_compute(c, in, &p, &hx);
    if ((p.row->attr & A_FP) && p.mem_op == 0) {
        (void)sk_rmw(c, in, p.size); /* page faults of the store come first */
    }
    if (p.row->attr & A_FP) {
        vec_exceptions(c, &hx);
    }
    if (p.mem_op == 0) {
        if (p.row->attr & A_CMP) {
            sk_ud(c); /* no such form */
        }
        vec_store_mem(c, in, &p, &hx);
    }
    vec_commit(c, in, &p, &hx);
}
SK_HANDLER1(vec, op_vec);

OP(op_emms)
{
    (void)in;
    sk_check_mmx(c);
    mmx_enter(c);
    c->xs.ftw = 0;
}
SK_HANDLER1(emms, op_emms);

static void vzero(struct sk_vcpu *c, bool all)
{
    unsigned n = sk_code64(c) ? 16 : 8;

    sk_check_avx(c);
    memset(c->xs.ymmh, 0, n * sizeof(c->xs.ymmh[0]));
    if (all) {
        memset(c->xs.xmm, 0, n * sizeof(c->xs.xmm[0]));
    }
}

OP(op_vzeroupper)
{
    (void)in;
    vzero(c, false);
}
SK_HANDLER1(vzeroupper, op_vzeroupper);

OP(op_vzeroall)
{
    (void)in;
    vzero(c, true);
}
SK_HANDLER1(vzeroall, op_vzeroall);

/* MASKMOVQ and MASKMOVDQU: bytes whose mask has its top bit set, to DS:rDI. */
static void vec_maskmov(struct sk_vcpu *c, const struct sk_insn *in, const uint8_t *data,
                        const uint8_t *mask, unsigned n)
{
    uint64_t off = c->r[SK_RDI] << in->ash >> in->ash;

    sk_align_check(c, c->seg[in->seg].ebase + off, 8);
    for (unsigned i = 0; i < n; i++) {
        if (mask[i] & 0x80) {
            sk_st_seg8(c, in->seg, (off + i) << in->ash >> in->ash, data[i]);
        }
    }
}

OP(op_maskmovq)
{
    sk_check_mmx(c);
    vec_maskmov(c, in, mmx_reg(c, in->reg), mmx_reg(c, in->rm), 8);
    mmx_enter(c);
}
SK_HANDLER1(maskmovq, op_maskmovq);

OP(op_maskmovdqu)
{
    if (sk_rows[in->row].map >= M_V1) {
        sk_check_avx(c);
    } else {
        sk_check_sse(c);
    }
    vec_maskmov(c, in, c->xs.xmm[in->reg], c->xs.xmm[in->rm], 16);
}
SK_HANDLER1(maskmovdqu, op_maskmovdqu);

/* Element size of VMASKMOVPS/PD and VPMASKMOVD/Q. */
static unsigned vmask_size(const struct sk_insn *in)
{
    uint8_t op = sk_rows[in->row].opcode;

    if (op >= 0x80) {
        return in->flags & SK_IN_W ? 8 : 4;
    }
    return op & 1 ? 8 : 4;
}

static uint64_t vmask_lin(struct sk_vcpu *c, const struct sk_insn *in, unsigned at, unsigned size,
                          bool write)
{
    uint64_t off = (sk_ea(c, in) + at) << in->ash >> in->ash;

    return sk_seg_lin(c, in->seg, off, size, write);
}

/* Elements whose mask is clear are zero and not accessed. Never #AC (SDM 2A table 2-23). */
OP(op_vmaskld)
{
    unsigned size = vmask_size(in), n = in->flags & SK_IN_L ? 32 : 16;
    uint8_t mask[32], v[32] = { 0 };

    sk_check_avx(c);
    vec_get(c, in->vreg, mask);
    for (unsigned i = 0; i < n; i += size) {
        if (mask[i + size - 1] & 0x80) {
            sk_ld_slow(c, vmask_lin(c, in, i, size, false), v + i, size, SK_ACC_NOAC);
        }
    }
    vec_set(c, in->reg, v);
}
SK_HANDLER1(vmaskld, op_vmaskld);

/* Across two pages both are checked before anything is stored. */
OP(op_vmaskst)
{
    unsigned size = vmask_size(in), n = in->flags & SK_IN_L ? 32 : 16;
    bool across = ((c->seg[in->seg].ebase + sk_ea(c, in)) & 4095) + n > 4096;
    uint8_t mask[32], v[32];

    sk_check_avx(c);
    vec_get(c, in->vreg, mask);
    vec_get(c, in->reg, v);
    for (unsigned i = 0; across && i < n; i += size) {
        uint64_t old;

        if (mask[i + size - 1] & 0x80) {
            sk_ld_slow(c, vmask_lin(c, in, i, size, true), &old, size, SK_ACC_WRITE | SK_ACC_NOAC);
        }
    }
    for (unsigned i = 0; i < n; i += size) {
        if (mask[i + size - 1] & 0x80) {
            sk_st_slow(c, vmask_lin(c, in, i, size, true), v + i, size, SK_ACC_WRITE | SK_ACC_NOAC);
        }
    }
}
SK_HANDLER1(vmaskst, op_vmaskst);

/* Gathers take elements low to high and clear their masks one by one, so a fault leaves the rest to
 * be done at the restart. Never #AC. */
OP(op_vgather)
{
    unsigned size = in->flags & SK_IN_W ? 8 : 4, isize = sk_rows[in->row].opcode & 1 ? 8 : 4;
    unsigned full = in->flags & SK_IN_L ? 32 : 16, n = full / MAX(size, isize);
    uint8_t index[32], mask[32], v[32];

    sk_check_avx(c);
    vec_get(c, in->index, index);
    for (unsigned i = 0; i < n; i++) {
        uint64_t off = c->r[in->base] + (uint64_t)(int64_t)in->disp;
        int64_t idx;

        vec_get(c, in->vreg, mask);
        if (mask[i * size + size - 1] & 0x80) {
            if (isize == 8) {
                memcpy(&idx, index + 8 * i, 8);
            } else {
                int32_t idx32;

                memcpy(&idx32, index + 4 * i, 4);
                idx = idx32;
            }
            off = (off + ((uint64_t)idx << in->scale)) << in->ash >> in->ash;
            off = sk_seg_lin(c, in->seg, off, size, false);
            vec_get(c, in->reg, v);
            sk_ld_slow(c, off, v + i * size, size, SK_ACC_NOAC);
            vec_set(c, in->reg, v);
        }
        memset(mask + i * size, 0, size);
        vec_set(c, in->vreg, mask);
    }
    memset(mask, 0, sizeof(mask));
    vec_set(c, in->vreg, mask);
    vec_get(c, in->reg, v);
    memset(v + n * size, 0, sizeof(v) - n * size);
    vec_set(c, in->reg, v);
}
SK_HANDLER1(vgather, op_vgather);
