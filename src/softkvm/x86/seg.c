/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/x86/seg.h"

#include "softkvm/x86/flags.h"

bool sk_desc_read(struct sk_vcpu *c, uint16_t sel, struct sk_desc *ret)
{
    uint64_t base, limit, v;

    if (sel & 4) {
        if (c->seg[SK_LDTR].attr & SK_ATTR_NULL) {
            return false;
        }
        base = c->seg[SK_LDTR].base;
        limit = c->seg[SK_LDTR].limit;
    } else {
        base = c->gdtr.base;
        limit = c->gdtr.limit;
    }
    if ((sel | 7u) > limit) {
        return false;
    }
    ret->lin = base + (sel & ~7u);
    if (!sk_lma(c)) {
        ret->lin &= 0xffffffff;
    }
    v = sk_ld_sys64(c, ret->lin);
    ret->lo = (uint32_t)v;
    ret->hi = (uint32_t)(v >> 32);
    ret->base_hi = 0;
    return true;
}

bool sk_desc_read_high(struct sk_vcpu *c, uint16_t sel, struct sk_desc *d)
{
    uint64_t limit = sel & 4 ? c->seg[SK_LDTR].limit : c->gdtr.limit, v;

    if ((sel | 7u) + 8u > limit) {
        return false;
    }
    v = sk_ld_sys64(c, d->lin + 8);
    d->base_hi = (uint32_t)v;
    return ((v >> 40) & 31) == 0;
}

void sk_desc_to_seg(const struct sk_desc *d, uint16_t sel, struct sk_seg *ret)
{
    uint32_t limit = (d->lo & 0xffff) | (d->hi & 0xf0000);

    ret->sel = sel;
    ret->base =
        (d->lo >> 16) | ((d->hi & 0xff) << 16) | (d->hi & 0xff000000) | (uint64_t)d->base_hi << 32;
    ret->attr = (d->hi >> 8) & 0xf0ff;
    ret->limit = ret->attr & SK_ATTR_G ? limit << 12 | 0xfff : limit;
}

/* Read-modify-write of the byte that holds type, DPL and P. */
static void desc_set_byte(struct sk_vcpu *c, const struct sk_desc *d, uint8_t set, uint8_t clear)
{
    uint8_t v = sk_ld_sys8(c, d->lin + 5);

    sk_st_sys8(c, d->lin + 5, (uint8_t)((v | set) & ~clear));
}

void sk_desc_accessed(struct sk_vcpu *c, struct sk_desc *d)
{
    if (!(d->hi & 0x100)) {
        desc_set_byte(c, d, 1, 0);
        d->hi |= 0x100;
    }
}

void sk_desc_busy(struct sk_vcpu *c, const struct sk_desc *d, bool busy)
{
    desc_set_byte(c, d, busy ? 2 : 0, busy ? 0 : 2);
}

void sk_seg_load_real(struct sk_vcpu *c, unsigned seg, uint16_t sel)
{
    struct sk_seg *s = &c->seg[seg];

    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    if (sk_v86(c)) {
        s->limit = 0xffff;
        s->attr = 0xf3;
    } else {
        s->attr &= ~(uint32_t)SK_ATTR_NULL; /* limit and the rest stay: "unreal" mode */
        s->attr |= SK_ATTR_P;
    }
}

void sk_seg_check_ss(struct sk_vcpu *c, uint16_t sel, unsigned cpl, enum sk_vec vec, unsigned ext,
                     struct sk_seg *ret, struct sk_desc *d)
{
    uint32_t err = (sel & 0xfffcu) | ext;

    if ((sel & ~3u) == 0) {
        sk_raise_err(c, vec, ext);
    }
    if (!sk_desc_read(c, sel, d)) {
        sk_raise_err(c, vec, err);
    }
    if ((sel & 3u) != cpl || sk_desc_dpl(d) != cpl || !sk_desc_s(d) || sk_desc_code(d) ||
        !(sk_desc_type(d) & 2)) {
        sk_raise_err(c, vec, err);
    }
    if (!sk_desc_p(d)) {
        sk_raise_err(c, SK_SSF, err);
    }
    sk_desc_to_seg(d, sel, ret);
    ret->attr |= SK_ATTR_ACCESSED;
}

static void seg_load_null(struct sk_vcpu *c, unsigned seg, uint16_t sel)
{
    struct sk_seg *s = &c->seg[seg];

    if (seg == SK_SS) {
        if (!sk_code64(c) || c->cpl == 3 || (sel & 3) != c->cpl) {
            sk_gp(c);
        }
        s->attr = SK_ATTR_NULL | (uint32_t)c->cpl << SK_ATTR_DPL_SHIFT;
    } else {
        s->attr = SK_ATTR_NULL;
    }
    s->sel = sel;
    s->limit = 0;
    s->base = 0;
}

static void seg_load_prot(struct sk_vcpu *c, unsigned seg, uint16_t sel)
{
    struct sk_desc d;
    struct sk_seg s;
    unsigned type, dpl;

    if ((sel & ~3u) == 0) {
        seg_load_null(c, seg, sel);
        return;
    }
    if (seg == SK_SS) {
        sk_seg_check_ss(c, sel, c->cpl, SK_GP, 0, &s, &d);
    } else {
        if (!sk_desc_read(c, sel, &d)) {
            sk_raise_err(c, SK_GP, sel & 0xfffcu);
        }
        type = sk_desc_type(&d);
        dpl = sk_desc_dpl(&d);
        if (!sk_desc_s(&d) || ((type & 8) && !(type & 2)) ||
            ((type & 0xc) != 0xc && (dpl < c->cpl || dpl < (sel & 3u)))) {
            sk_raise_err(c, SK_GP, sel & 0xfffcu);
        }
        if (!sk_desc_p(&d)) {
            sk_raise_err(c, SK_NP, sel & 0xfffcu);
        }
    }
    sk_desc_accessed(c, &d);
    sk_desc_to_seg(&d, sel, &s);
    c->seg[seg] = s;
}

void sk_seg_load(struct sk_vcpu *c, unsigned seg, uint16_t sel)
{
    if (sk_protected(c)) {
        seg_load_prot(c, seg, sel);
    } else {
        sk_seg_load_real(c, seg, sel);
    }
    sk_mode_update(c);
}

/* The second half of an LDT or TSS descriptor in long mode; its base must be canonical (SDM 2A
 * LLDT, LTR). */
static bool seg_system_high(struct sk_vcpu *c, uint16_t sel, struct sk_desc *d)
{
    struct sk_seg s;

    if (!sk_desc_read_high(c, sel, d)) {
        return false;
    }
    sk_desc_to_seg(d, sel, &s);
    return (uint64_t)((int64_t)(s.base << 16) >> 16) == s.base;
}

void sk_seg_lldt(struct sk_vcpu *c, uint16_t sel, enum sk_vec vec)
{
    struct sk_desc d;

    if ((sel & ~3u) == 0) {
        c->seg[SK_LDTR] = (struct sk_seg){ .sel = sel, .attr = SK_ATTR_NULL };
        return;
    }
    if ((sel & 4) || !sk_desc_read(c, sel, &d) || sk_desc_s(&d) || sk_desc_type(&d) != SK_T_LDT) {
        sk_raise_err(c, vec, sel & 0xfffcu);
    }
    if (!sk_desc_p(&d)) {
        sk_raise_err(c, vec == SK_TS ? SK_TS : SK_NP, sel & 0xfffcu);
    }
    if (sk_lma(c) && !seg_system_high(c, sel, &d)) {
        sk_raise_err(c, vec, sel & 0xfffcu);
    }
    sk_desc_to_seg(&d, sel, &c->seg[SK_LDTR]);
}

void sk_seg_ltr(struct sk_vcpu *c, uint16_t sel)
{
    struct sk_desc d;
    unsigned type;

    if ((sel & ~3u) == 0) {
        sk_gp(c);
    }
    if ((sel & 4) || !sk_desc_read(c, sel, &d)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    type = sk_desc_type(&d);
    if (sk_desc_s(&d) || !(type == SK_T_TSS32 || (type == SK_T_TSS16 && !sk_lma(c)))) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    if (!sk_desc_p(&d)) {
        sk_raise_err(c, SK_NP, sel & 0xfffcu);
    }
    if (sk_lma(c) && !seg_system_high(c, sel, &d)) {
        sk_raise_err(c, SK_GP, sel & 0xfffcu);
    }
    sk_desc_busy(c, &d, true);
    sk_desc_to_seg(&d, sel, &c->seg[SK_TR]);
    c->seg[SK_TR].attr |= 2;
}

void sk_stack_current(const struct sk_vcpu *c, struct sk_stack *ret)
{
    *ret = (struct sk_stack){
        .seg = c->seg[SK_SS], .sp = c->r[SK_RSP], .mask = c->spmask, .flat = sk_code64(c)
    };
}

/* Linear address of `size` bytes at `off`; #SS. */
static uint64_t stack_lin(struct sk_vcpu *c, const struct sk_stack *s, uint64_t off, unsigned size)
{
    uint64_t lo = 0, hi = s->seg.limit;

    if (s->flat) {
        if ((uint64_t)((int64_t)(off << 16) >> 16) != off) {
            sk_raise_err(c, SK_SSF, s->err_sel);
        }
        return off;
    }
    if ((s->seg.attr & (SK_ATTR_EXPDOWN | SK_ATTR_CODE)) == SK_ATTR_EXPDOWN) {
        lo = hi + 1;
        hi = s->seg.attr & SK_ATTR_DB ? 0xffffffff : 0xffff;
    }
    if (off < lo || off + size - 1 > hi) {
        sk_raise_err(c, SK_SSF, s->err_sel);
    }
    return (s->seg.base + off) & 0xffffffff;
}

void sk_stack_push(struct sk_vcpu *c, struct sk_stack *s, unsigned size, uint64_t v)
{
    uint64_t sp = (s->sp - size) & s->mask;
    uint64_t lin = stack_lin(c, s, sp, size);

    sk_st_slow(c, lin, &v, size, SK_ACC_WRITE | s->acc);
    s->sp = (s->sp & ~s->mask) | sp;
}

uint64_t sk_stack_pop(struct sk_vcpu *c, struct sk_stack *s, unsigned size)
{
    uint64_t sp = s->sp & s->mask, v = 0;
    uint64_t lin = stack_lin(c, s, sp, size);

    sk_ld_slow(c, lin, &v, size, SK_ACC_READ | s->acc);
    s->sp = (s->sp & ~s->mask) | ((sp + size) & s->mask);
    return v;
}

void sk_stack_commit_sp(struct sk_vcpu *c, const struct sk_stack *s)
{
    c->r[SK_RSP] = (c->r[SK_RSP] & ~s->mask) | (s->sp & s->mask);
    if (s->mask == 0xffffffff) {
        c->r[SK_RSP] = (uint32_t)s->sp;
    }
}

void sk_stack_inner(struct sk_vcpu *c, unsigned cpl, unsigned ext, struct sk_stack *ret,
                    struct sk_desc *ret_ss)
{
    const struct sk_seg *tr = &c->seg[SK_TR];
    bool wide = tr->attr & 8;
    uint32_t off = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
    uint16_t ss;

    if (off + (wide ? 5 : 3) > tr->limit) {
        sk_raise_err(c, SK_TS, (tr->sel & 0xfffcu) | ext);
    }
    if (wide) {
        ret->sp = sk_ld_sys32(c, tr->base + off);
        ss = sk_ld_sys16(c, tr->base + off + 4);
    } else {
        ret->sp = sk_ld_sys16(c, tr->base + off);
        ss = sk_ld_sys16(c, tr->base + off + 2);
    }
    sk_seg_check_ss(c, ss, cpl, SK_TS, ext, &ret->seg, ret_ss);
    ret->mask = ret->seg.attr & SK_ATTR_DB ? 0xffffffff : 0xffff;
    ret->acc = SK_ACC_SYS;
    ret->err_sel = (uint16_t)((ss & 0xfffc) | ext);
    ret->flat = false;
}

uint64_t sk_seg_lin_slow(struct sk_vcpu *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
    const struct sk_seg *s = &c->seg[seg];
    uint64_t lo = 0, hi = s->limit;
    bool bad;

    if (sk_code64(c)) {
        return s->ebase + off; /* wraps at the top; the TLB miss path looks at canonical form */
    }
    bad = (s->attr & SK_ATTR_NULL) || !(s->attr & SK_ATTR_P);
    if (sk_protected(c)) {
        bool code = s->attr & SK_ATTR_CODE;

        bad |=
            write ? code || !(s->attr & SK_ATTR_WRITABLE) : code && !(s->attr & SK_ATTR_WRITABLE);
    }
    if ((s->attr & (SK_ATTR_EXPDOWN | SK_ATTR_CODE)) == SK_ATTR_EXPDOWN) {
        lo = hi + 1;
        hi = s->attr & SK_ATTR_DB ? 0xffffffff : 0xffff;
    }
    bad |= off < lo || off > hi || hi - off < size - 1;
    if (bad) {
        sk_raise_err(c, seg == SK_SS ? SK_SSF : SK_GP, 0);
    }
    return (s->base + off) & 0xffffffff;
}
