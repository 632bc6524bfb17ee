/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Flags in and out of EFLAGS, effective addresses, and the check every access goes through.
 *
 * The only ways from generated code to guest memory are made by jit_tlb(): a host page out of a
 * table entry plus an offset that the compare has bounded.
 */
#include "softkvm/jit/jit_tr.h"

/* lahf; seto al; store: the form of c->af. No instruction here changes a flag. */
void jit_flags_save(struct jit_tr *t)
{
    struct jit_buf *b = &t->b;
    struct jit_enc st = { .o16 = true, .op = 0x89, .reg = H_RAX, .rm = jit_rm_gs(JIT_OFF(af)) };

    if (t->fl != FL_HOST) {
        return;
    }
    jit_mov_rr(b, 8, H_T0, H_RAX);
    jit_put(b, "\x9f\x0f\x90\xc0", 4);
    jit_enc(b, &st);
    jit_mov_rr(b, 8, H_RAX, H_T0);
    t->fl = FL_BOTH;
}

void jit_flags_load(struct jit_tr *t)
{
    struct jit_buf *b = &t->b;
    struct jit_enc ld = { .map = M_0F, .op = 0xb7, .reg = H_RAX, .rm = jit_rm_gs(JIT_OFF(af)) };

    if (t->fl != FL_MEM) {
        return;
    }
    jit_st(b, 8, H_RAX, jit_rm_gs(JIT_OFF(jit.arg))); /* T0 and T1 may hold an operand */
    jit_enc(b, &ld);
    jit_put(b, "\x04\x7f\x9e", 3); /* add al,127; sahf */
    jit_ld(b, 8, H_RAX, jit_rm_gs(JIT_OFF(jit.arg)));
    t->fl = FL_BOTH;
}

void jit_flags_kill(struct jit_tr *t, uint16_t need)
{
    if (need) {
        jit_flags_save(t);
    }
    t->fl = FL_MEM;
}

void jit_flags_ready(struct jit_tr *t, const struct jit_op *o)
{
    if (o->reads || (o->may && (o->live & ~o->must))) {
        jit_flags_load(t);
    }
}

void jit_flags_done(struct jit_tr *t, const struct jit_op *o)
{
    if (o->may) {
        t->fl = FL_HOST;
    }
}

/* A guest register as part of an address: its host register, or fetched into `tmp`. */
static unsigned ea_reg(struct jit_tr *t, unsigned guest, unsigned tmp)
{
    if (guest == SK_RZERO) {
        return H_NONE;
    }
    if (jit_is_slot(guest)) {
        jit_ld(&t->b, 8, tmp, jit_rm_gs(JIT_R(guest)));
        return tmp;
    }
    return jit_host(guest);
}

/* Address known at translation time? RIP-relative or absolute. */
static bool ea_const(const struct jit_op *o, uint64_t *ret)
{
    const struct sk_insn *in = &o->in;
    uint64_t v = (uint64_t)(int64_t)in->disp;

    if (in->index != SK_RZERO || (in->base != SK_RZERO && in->base != SK_RIP)) {
        return false;
    }
    if (in->base == SK_RIP) {
        v += o->next;
    }
    *ret = v << in->ash >> in->ash;
    return true;
}

void jit_offset(struct jit_tr *t, const struct jit_op *o, unsigned to)
{
    const struct sk_insn *in = &o->in;
    struct jit_rm rm = { .kind = RM_MEM, .disp = in->disp, .scale = in->scale };
    uint64_t v;

    if (ea_const(o, &v)) {
        jit_mov_ri(&t->b, to, v);
        return;
    }
    rm.base = (uint8_t)ea_reg(t, in->base, H_T1);
    rm.index = (uint8_t)ea_reg(t, in->index, H_T0);
    if (rm.index == H_NONE && in->disp == 0 && in->ash < 48) {
        jit_mov_rr(&t->b, in->ash ? 4 : 8, to, rm.base);
        return;
    }
    jit_lea(&t->b, in->ash ? 4 : 8, to, rm);
    if (in->ash == 48) {
        struct jit_enc zx = { .map = M_0F, .op = 0xb7, .reg = (uint8_t)to, .rm = jit_rm_reg(to) };

        jit_enc(&t->b, &zx);
    }
}

/* Segment part: limit check where it is not known to be useless, base. */
static void ea_segment(struct jit_tr *t, unsigned seg, unsigned size, bool write,
                       struct jit_stub *stub)
{
    struct jit_buf *b = &t->b;
    size_t lo = write ? JIT_OFF(seg[0].wlo) : JIT_OFF(seg[0].rlo), at = seg * sizeof(struct sk_seg);

    if (t->code64) {
        if (seg == SK_FS || seg == SK_GS) {
            jit_op(b, 8, 0x03, H_T1, jit_rm_gs(JIT_OFF(seg[0].ebase) + at));
        }
        return;
    }
    if (t->mode & (1u << (JM_FLAT_SHIFT + seg))) {
        return;
    }
    jit_mov_rr(b, 8, H_T0, H_T1);
    jit_op(b, 8, 0x2b, H_T0, jit_rm_gs(lo + at));
    jit_op(b, 8, 0x3b, H_T0, jit_rm_gs(JIT_OFF(seg[0].span) + at));
    jit_stub_site(stub, jit_jcc(b, CC_A));
    jit_alu_i(b, 8, ALU_ADD, jit_rm_reg(H_T0), (int32_t)size - 1);
    jit_op(b, 8, 0x3b, H_T0, jit_rm_gs(JIT_OFF(seg[0].span) + at));
    jit_stub_site(stub, jit_jcc(b, CC_A));
    jit_op(b, 4, 0x03, H_T1, jit_rm_gs(JIT_OFF(seg[0].ebase) + at)); /* modulo 2^32 */
}

void jit_ea(struct jit_tr *t, struct jit_op *o, unsigned size, bool write, struct jit_stub *stub)
{
    jit_offset(t, o, H_T1);
    ea_segment(t, o->in.seg, size, write, stub);
}

struct jit_rm jit_tlb(struct jit_tr *t, unsigned size, bool write, unsigned align,
                      struct jit_stub *stub)
{
    struct jit_buf *b = &t->b;
    size_t table = write ? JIT_OFF(tlb_w) : JIT_OFF(tlb_r);

    table += t->set * sizeof(struct sk_tlb);
    jit_mov_rr(b, 8, H_T0, H_T1);
    jit_opi(b, 8, 0xc1, 5, jit_rm_reg(H_T0), 1, 8); /* shr */
    jit_alu_i(b, 4, ALU_AND, jit_rm_reg(H_T0), (SK_TLB_SIZE - 1) << 4);
    jit_op(b, 8, 0x33, H_T1, jit_rm_gsx(H_T0, table + offsetof(struct sk_tlbe, tag)));
    jit_alu_i(b, 8, ALU_CMP, jit_rm_reg(H_T1), (int32_t)(4096 - size));
    jit_stub_site(stub, jit_jcc(b, CC_A));
    if (align > 1) { /* test t1b,align-1 */
        jit_opi(b, 4, 0xf7, 0, jit_rm_reg(H_T1), 4, align - 1);
        jit_stub_site(stub, jit_jcc(b, CC_NE));
    }
    jit_ld(b, 8, H_T0, jit_rm_gsx(H_T0, table + offsetof(struct sk_tlbe, host)));
    return jit_rm_mem(H_T0, H_T1, 0);
}

/* An address known now: its entry is known too. */
static struct jit_rm mem_const(struct jit_tr *t, uint64_t lin, unsigned size, bool write,
                               unsigned align, struct jit_stub *stub)
{
    struct jit_buf *b = &t->b;
    size_t at = (write ? JIT_OFF(tlb_w) : JIT_OFF(tlb_r)) + t->set * sizeof(struct sk_tlb) +
                ((lin >> 12) % SK_TLB_SIZE) * sizeof(struct sk_tlbe);
    uint64_t page = lin & ~UINT64_C(4095);

    if ((align && (lin & (align - 1))) || (lin & 4095) + size > 4096) {
        jit_stub_site(stub, jit_jmp(b)); /* always the careful way */
        return jit_rm_mem(H_T0, H_NONE, 0);
    }
    if (page == (uint64_t)(int64_t)(int32_t)page) {
        jit_alu_i(b, 8, ALU_CMP, jit_rm_gs(at), (int32_t)page);
    } else {
        jit_mov_ri(b, H_T1, page);
        jit_op(b, 8, 0x3b, H_T1, jit_rm_gs(at));
    }
    jit_stub_site(stub, jit_jcc(b, CC_NE));
    jit_ld(b, 8, H_T0, jit_rm_gs(at + offsetof(struct sk_tlbe, host)));
    return jit_rm_mem(H_T0, H_NONE, (int32_t)(lin & 4095));
}

struct jit_rm jit_mem(struct jit_tr *t, struct jit_op *o, unsigned size, bool write, unsigned align,
                      struct jit_stub *stub)
{
    const struct sk_insn *in = &o->in;
    uint64_t lin;
    bool based = t->code64 ? in->seg == SK_FS || in->seg == SK_GS
                           : !(t->mode & (1u << (JM_FLAT_SHIFT + in->seg)));

    jit_flags_kill(t, jit_live_before(o));
    if (!based && ea_const(o, &lin)) {
        return mem_const(t, lin, size, write, align, stub);
    }
    jit_ea(t, o, size, write, stub);
    return jit_tlb(t, size, write, align, stub);
}
