/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The verifier: decodes what the translator has written and follows T0 and T1 through it. What is
 * not one of the forms below is refused:
 *
 *   memory   gs:[constant] inside the vCPU, written only where templates write;
 *            a table entry at a masked index; the host page of an entry whose tag was compared, at
 *            an offset below the bound compared with or a constant one
 *   jumps    to an instruction of the same region, a thunk, an entry of a known region; indirect
 *            ones only through the jump cache after its compare
 *   others   instructions that run as themselves, or are in the list of vf_plain()
 *
 * At a label nothing is known of T0 and T1. It trusts the decoder (held against Zydis by a test of
 * its own), not the encoder and not the templates.
 */
#include "softkvm/jit/jit_tr.h"

enum vf_val {
    V_ANY,
    V_CONST,
    V_INDEX,
    V_XORED,
    V_OFFSET,
    V_PAGE,
    V_PTR,
    V_JMASK,
    V_JINDEX,
    V_JOK,
    V_CODE,
    V_FLAG
};

/* What a register is known to hold. */
struct vf_reg {
    enum vf_val is;
    size_t table;  /* offset of the table (V_INDEX: none yet) or of the entry */
    uint64_t v;    /* V_CONST */
    unsigned room; /* V_OFFSET, V_PTR: bytes that may be touched from there */
};

struct vf {
    const struct sk_jit *j;
    const uint8_t *start, *end;
    uint8_t *map; /* a byte each of the code: VM_* */
    struct vf_reg t0, t1, tmp;
    struct vf_reg then; /* T1 if the conditional jump that comes next falls through */
    unsigned then_cc;   /* 16: no compare just before */
    size_t tag_ok;      /* entry whose tag was compared with a constant; 0: none */
    size_t then_tag;
    bool dead; /* nothing gets here */
    struct sk_insn in;
    const struct sk_row *row;
    const struct jit_form *form;
    const uint8_t *at, *next;
};

enum { VM_INSN = 1, VM_LABEL = 2, NO_CC = 16 };

/* --- operands --- */

static bool vf_gpr_kind(unsigned kind, bool mem)
{
    return kind == K_G || kind == K_B || kind == K_Z || ((kind == K_E || kind == K_R) && !mem);
}

static unsigned vf_number(const struct vf *f, unsigned op)
{
    unsigned kind = op & 0xff00, n;
    bool byte = (op & 0xff) == 'b' && !(f->row->attr & A_VEC);

    n = kind == K_G ? f->in.reg : kind == K_B ? f->in.vreg : f->in.rm;
    return byte ? n >> 3 : n;
}

static bool vf_writes_operand(const struct vf *f, unsigned i)
{
    unsigned a = f->form->access;

    switch (f->form->kind) {
    case JK_GEN:
        return (i == 0 && (a & JA_W)) || (i == 1 && (a & JA_2W));
    case JK_VEC:
        return i == 0 && !(f->row->attr & A_CMP);
    case JK_X87:
        return strncmp(f->row->name, "FST", 3) == 0 || strncmp(f->row->name, "FIST", 4) == 0 ||
               strncmp(f->row->name, "FBSTP", 5) == 0 || strncmp(f->row->name, "FNST", 4) == 0;
    default:
        return i == 0 && f->form->fn == jit_t_lea;
    }
}

static bool vf_mem_kind(unsigned kind)
{
    return kind == K_E || kind == K_M || kind == K_W || kind == K_U || kind == K_Q || kind == K_N;
}

/*
 * Bytes that the memory operand has; 0: unknown. The templates have a table like it (jit_gen.c);
 * with theirs, a wrong size there would be a wrong bound here, too, and be let through.
 */
static unsigned vf_size(const struct vf *f)
{
    unsigned full = f->in.flags & SK_IN_L ? 32 : 16, letter = 0;
    bool vec = f->row->attr & A_VEC;

    if (f->row->map == M_0F && f->row->opcode == 0xc7) {
        return f->in.osize == 8 ? 16 : 8; /* CMPXCHG8B, 16B */
    }
    for (unsigned i = 0; i < 4 && f->row->op[i]; i++) {
        letter = vf_mem_kind(f->row->op[i] & 0xff00) ? f->row->op[i] & 0xff : letter;
    }
    switch (letter) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'd':
        return 4;
    case 'q':
        return 8;
    case 't':
        return 10;
    case 'o':
        return 16;
    case 'Q':
        return 32;
    case 'x':
        return full;
    case 'h':
        return full / 2;
    case 'F':
        return full / 4;
    case 'e':
        return full / 8;
    case 'y':
        return vec ? (f->in.flags & SK_IN_W ? 8 : 4) : f->in.osize == 8 ? 8 : 4;
    case 'z':
        return MIN(f->in.osize, 4);
    case 'v':
        return f->in.osize;
    default:
        return 0;
    }
}

static bool vf_mem_written(const struct vf *f)
{
    for (unsigned i = 0; i < 4 && f->row->op[i]; i++) {
        if (vf_mem_kind(f->row->op[i] & 0xff00) && vf_writes_operand(f, i)) {
            return true;
        }
    }
    return false;
}

/* --- memory --- */

static bool vf_table(size_t at, size_t *ret_table, bool *ret_host)
{
    size_t r = at - JIT_OFF(tlb_r), w = at - JIT_OFF(tlb_w);
    size_t in = r < sizeof(struct sk_tlb) * SK_TLB_NSETS ? r : w;

    if (in >= sizeof(struct sk_tlb) * SK_TLB_NSETS) {
        return false;
    }
    *ret_table = at - in % sizeof(struct sk_tlb);
    *ret_host = in % sizeof(struct sk_tlbe) == offsetof(struct sk_tlbe, host);
    return in % 8 == 0;
}

static bool vf_table_writable(size_t table)
{
    return table - JIT_OFF(tlb_w) < sizeof(struct sk_tlb) * SK_TLB_NSETS;
}

/* Fields of the vCPU that templates write. */
static bool vf_field_writable(size_t at, unsigned size)
{
    static const struct {
        size_t at, size;
    } fields[] = {
        {JIT_OFF(r),                 16 * 8},
        { JIT_OFF(af),               2     },
        { JIT_OFF(eflags),           4     },
        { JIT_OFF(kernel_gs_base),   8     },
        { JIT_OFF(jit.arg),          8     },
        { JIT_OFF(jit.tmp),          8     },
        { JIT_OFF(seg[SK_GS].base),  8     },
        { JIT_OFF(seg[SK_GS].ebase), 8     },
    };

    for (unsigned i = 0; i < ARRAY_LEN(fields); i++) {
        if (at >= fields[i].at && at + size <= fields[i].at + fields[i].size) {
            return true;
        }
    }
    return false;
}

static const char *vf_gs(const struct vf *f, unsigned size, bool write)
{
    size_t at = (size_t)f->in.disp, table;
    bool host;

    if (f->in.disp < 0 || f->in.base != SK_RZERO || f->in.scale) {
        return "gs with a base";
    }
    if (f->in.index == SK_RZERO) {
        if (at + size > sizeof(struct sk_vcpu)) {
            return "gs beyond the vCPU";
        }
        return write && !vf_field_writable(at, size) ? "a field nobody may write" : NULL;
    }
    if (write) {
        return "a table is written";
    }
    if (f->in.index == H_T0 && f->t0.is == V_INDEX && vf_table(at, &table, &host) && size == 8 &&
        at - table < sizeof(struct sk_tlbe)) {
        return NULL;
    }
    if (f->in.index == H_T1 && (f->t1.is == V_JINDEX || f->t1.is == V_JOK) && size == 8 &&
        (at - JIT_OFF(jit.jump)) % sizeof(((struct sk_vcpu *)0)->jit.jump[0]) <
            sizeof(struct sk_jit_jump) &&
        at - JIT_OFF(jit.jump) < sizeof(((struct sk_vcpu *)0)->jit.jump)) {
        return NULL;
    }
    return "gs with an index that is not masked";
}

static const char *vf_memory(const struct vf *f)
{
    unsigned size = vf_size(f);
    bool write = vf_mem_written(f);

    if (size == 0 || f->in.ash) {
        return "a memory operand of unknown size";
    }
    if (f->in.flags & SK_IN_SEGPFX) {
        return f->in.seg == SK_GS ? vf_gs(f, size, write) : "a segment";
    }
    if ((f->in.base == H_T0 ? f->t0 : f->t1).is == V_FLAG && f->in.base != SK_RZERO &&
        (f->in.base == H_T0 || f->in.base == H_T1)) { /* the client's immediate_exit */
        return !write && size == 1 && f->in.index == SK_RZERO && f->in.disp == 0
                   ? NULL
                   : "more than a look at the client's flag";
    }
    if (f->in.base != H_T0 || (f->in.index != SK_RZERO && f->in.index != H_T1)) {
        return "memory by a guest's register";
    }
    if (write && !vf_table_writable(f->t0.table)) {
        return "a store through a read entry";
    }
    if (f->in.index == H_T1) {
        return f->t0.is == V_PAGE && f->t1.is == V_OFFSET && f->t0.table == f->t1.table &&
                       f->in.disp == 0 && f->in.scale == 0 && size <= f->t1.room
                   ? NULL
                   : "an access that was not checked";
    }
    if (f->t0.is == V_PTR && f->in.disp >= 0 && (unsigned)f->in.disp + size <= f->t0.room) {
        return NULL;
    }
    /* The page alone, at a constant offset. */
    return f->t0.is == V_PAGE && f->in.disp >= 0 && (unsigned)f->in.disp + size <= 4096
               ? NULL
               : "an access that was not checked";
}

/* --- what T0 and T1 hold afterwards --- */

static bool vf_is(const struct vf *f, unsigned map, unsigned op)
{
    return f->row->map == map && f->row->opcode == op;
}

static bool vf_mem(const struct vf *f)
{
    return f->in.flags & SK_IN_MEM;
}

static void vf_forget(struct vf *f)
{
    static const struct vf_reg any;

    f->t0 = f->t1 = f->tmp = any;
    f->tag_ok = 0;
}

/* A load of T0 or T1 from the vCPU. */
static struct vf_reg vf_load(const struct vf *f)
{
    struct vf_reg r = { V_ANY };
    size_t at = (size_t)f->in.disp, table;
    bool host;

    if (f->in.index == SK_RZERO && at == JIT_OFF(immediate_exit)) {
        r.is = V_FLAG;
    } else if (f->in.index == H_T0 && vf_table(at, &table, &host) && host && f->t1.is == V_OFFSET &&
               f->t1.table == table) {
        r = (struct vf_reg){ .is = V_PAGE, .table = table };
    } else if (f->in.index == SK_RZERO && vf_table(at, &table, &host) && host &&
               f->tag_ok == at - offsetof(struct sk_tlbe, host)) {
        r = (struct vf_reg){ .is = V_PAGE, .table = table };
    } else if (f->in.index == H_T1 && f->t1.is == V_JOK &&
               (at - JIT_OFF(jit.jump)) % sizeof(struct sk_jit_jump) ==
                   offsetof(struct sk_jit_jump, code)) {
        r.is = V_CODE;
    }
    return r;
}

/* The value the instruction gives to T0 or T1 (`n`). */
static struct vf_reg vf_value(const struct vf *f, unsigned n)
{
    const struct vf_reg *old = n == H_T0 ? &f->t0 : &f->t1;
    struct vf_reg r = { V_ANY };
    size_t table;
    bool host;

    if (vf_mem(f) && f->in.seg == SK_GS && vf_is(f, M_1, 0x8b) && f->in.osize == 8) {
        return vf_load(f);
    }
    if (f->form->fn == jit_t_lea && f->in.base == H_T0 && f->in.index == H_T1 && !f->in.disp &&
        !f->in.scale && f->t0.is == V_PAGE && f->t1.is == V_OFFSET && f->t0.table == f->t1.table) {
        return (struct vf_reg){ .is = V_PTR, .table = f->t0.table, .room = f->t1.room };
    }
    if (vf_is(f, M_1, 0xb8) || (vf_is(f, M_1, 0xc7) && !vf_mem(f))) {
        r = (struct vf_reg){ .is = V_CONST,
                             .v = f->in.osize == 4 ? (uint32_t)f->in.imm : f->in.imm };
    } else if (vf_is(f, M_1, 0x33) && vf_mem(f) && n == H_T1 && f->in.seg == SK_GS &&
               f->in.index == H_T0 && vf_table((size_t)f->in.disp, &table, &host) && !host) {
        r = (struct vf_reg){ .is = V_XORED, .table = table };
    } else if ((vf_is(f, M_1, 0x81) || vf_is(f, M_1, 0x83)) && (f->in.reg & 7) == ALU_AND &&
               f->in.osize >= 4) {
        r.is = n == H_T0 && f->in.imm == (SK_TLB_SIZE - 1) << 4 ? V_INDEX
               : n == H_T1 && f->in.imm == SK_JIT_JUMPS - 1     ? V_JMASK
                                                                : V_ANY;
    } else if (vf_is(f, M_1, 0xc1) && (f->in.reg & 7) == 4 && old->is == V_JMASK &&
               f->in.imm == 4) {
        r.is = V_JINDEX;
    }
    return r;
}

/* A compare whose jump decides what is known. */
static void vf_compare(struct vf *f)
{
    bool imm = vf_is(f, M_1, 0x81) || vf_is(f, M_1, 0x83);
    size_t table, at = (size_t)f->in.disp;
    bool host;

    if (f->in.osize != 8 || !(vf_is(f, M_1, 0x3b) || (imm && (f->in.reg & 7) == ALU_CMP))) {
        return;
    }
    if (imm && !vf_mem(f)) {
        if (f->in.rm == H_T1 && f->t1.is == V_XORED && f->in.imm < 4096) {
            f->then = (struct vf_reg){ .is = V_OFFSET,
                                       .table = f->t1.table,
                                       .room = 4096 - (unsigned)f->in.imm };
            f->then_cc = CC_A;
        }
        return;
    }
    if (!vf_mem(f) || f->in.seg != SK_GS) {
        return;
    }
    if (!imm && f->in.index == H_T1 && f->in.reg == H_T0 && f->t1.is == V_JINDEX &&
        (at - JIT_OFF(jit.jump)) % sizeof(struct sk_jit_jump) == 0) {
        f->then = (struct vf_reg){ .is = V_JOK };
        f->then_cc = CC_NE;
    } else if (f->in.index == SK_RZERO && vf_table(at, &table, &host) && !host &&
               (imm || (f->in.reg == H_T1 && f->t1.is == V_CONST))) {
        uint64_t page = imm ? f->in.imm : f->t1.v;

        /* A constant of this entry's own set: an empty entry cannot equal it. */
        if ((page >> 12) % SK_TLB_SIZE == (at - table) / sizeof(struct sk_tlbe) && !(page & 4095)) {
            f->then = f->t1;
            f->then_tag = at;
            f->then_cc = CC_NE;
        }
    }
}

/* Effects of an instruction that is in order. NULL, or why not after all. */
static const char *vf_effects(struct vf *f)
{
    struct vf_reg t0 = f->t0, t1 = f->t1;

    for (unsigned i = 0; i < 4 && f->row->op[i]; i++) {
        unsigned kind = f->row->op[i] & 0xff00, n;

        if (!vf_gpr_kind(kind, vf_mem(f)) || !vf_writes_operand(f, i)) {
            continue;
        }
        n = vf_number(f, f->row->op[i]);
        if (n == H_RSP) {
            return "the stack pointer is written";
        }
        t0 = n == H_T0 ? vf_value(f, H_T0) : t0;
        t1 = n == H_T1 ? vf_value(f, H_T1) : t1;
    }
    if (vf_mem(f) && f->in.seg == SK_GS && f->in.index == SK_RZERO && vf_mem_written(f) &&
        f->in.disp == (int32_t)JIT_OFF(jit.tmp)) {
        f->tmp = f->row->opcode == 0x89 && f->in.reg == H_T0 && f->t0.is == V_CODE
                     ? f->t0
                     : (struct vf_reg){ V_ANY };
    }
    vf_compare(f);
    f->t0 = t0;
    f->t1 = t1;
    return NULL;
}

/* --- jumps --- */

/* A place outside the region that may be jumped to. */
static bool vf_outside(const struct vf *f, const uint8_t *to)
{
    for (unsigned i = 0; i <= JX_T0; i++) {
        if (to == f->j->th_exit[i]) {
            return true;
        }
    }
    for (unsigned h = 0; h < JIT_REG_HASH; h++) {
        for (const struct jit_region *r = f->j->regions[h]; r; r = r->hash_next) {
            if (to == r->entry || to == r->checked) {
                return true;
            }
        }
    }
    return to == f->j->th_interp_end;
}

static bool vf_inside(const struct vf *f, const uint8_t *to)
{
    return to >= f->start && to < f->end;
}

static const char *vf_jump(struct vf *f)
{
    const uint8_t *to = f->next + (int64_t)f->in.imm;
    bool jcc = f->form->fn == jit_t_jcc;

    if (f->form->fn == jit_t_call) {
        vf_forget(f);
        return to == f->j->th_interp || to == f->j->th_vec_load || to == f->j->th_x87_load
                   ? NULL
                   : "a call of something else";
    }
    if (vf_inside(f, to) ? !(f->map[to - f->start] & VM_INSN) : !vf_outside(f, to)) {
        return "a jump to nowhere";
    }
    if (!jcc) {
        f->dead = true;
    } else if (f->then_cc == (f->in.imm2 & 15)) {
        f->t1 = f->then;
        f->tag_ok = f->then_tag;
    }
    return NULL;
}

static const char *vf_jump_indirect(struct vf *f)
{
    size_t at = (size_t)f->in.disp;

    if (!vf_mem(f) || f->in.seg != SK_GS || f->in.base != SK_RZERO || f->in.scale) {
        return "an indirect jump";
    }
    f->dead = true;
    if (f->in.index == SK_RZERO) {
        return at == JIT_OFF(jit.tmp) && f->tmp.is == V_CODE ? NULL : "an indirect jump";
    }
    return f->in.index == H_T1 && f->t1.is == V_JOK &&
                   at - JIT_OFF(jit.jump) < sizeof(((struct sk_vcpu *)0)->jit.jump) &&
                   (at - JIT_OFF(jit.jump)) % sizeof(struct sk_jit_jump) ==
                       offsetof(struct sk_jit_jump, code)
               ? NULL
               : "a jump through the cache without its compare";
}

/* --- the walk --- */

/* Instructions that the translator writes although the guest's are no templates of that kind. */
static bool vf_plain(const struct vf *f)
{
    jit_template *fn = f->form->fn;

    if (f->form->kind == JK_FN) {
        return fn == jit_t_lea || fn == jit_t_div || fn == jit_t_fence || fn == jit_t_vzeroupper ||
               fn == jit_t_emms || fn == jit_t_rdtsc || (fn == jit_t_xchg_z && f->in.rm == SK_RAX);
    }
    return f->form->kind != JK_INTERP && !(f->row->attr & (A_STR | A_ENV | A_PRIV)) &&
           !((f->row->attr & A_DATA) && (vf_mem(f) || f->form->kind == JK_VEC));
}

static const char *vf_insn(struct vf *f)
{
    const char *why = NULL;

    if (f->form->fn == jit_t_jcc || f->form->fn == jit_t_jmp || f->form->fn == jit_t_call) {
        why = vf_jump(f);
        f->then_cc = NO_CC;
        return why;
    }
    f->then_cc = NO_CC;
    f->then_tag = 0;
    if (f->form->fn == jit_t_jmp_e) {
        return vf_jump_indirect(f);
    }
    if (!vf_plain(f)) {
        return "an instruction that does not belong here";
    }
    for (unsigned i = 0; i < 4; i++) {
        if ((f->row->op[i] & 0xff00) == K_VSIB) {
            return "a gather";
        }
    }
    if (vf_mem(f) && f->form->fn != jit_t_lea) {
        why = vf_memory(f);
    }
    return why ? why : vf_effects(f);
}

static bool vf_decode(struct vf *f, const uint8_t *at)
{
    static const struct sk_decode_env env = { .code_size = 8 };
    int len = sk_decode(&f->in, at, (unsigned)MIN(f->end - at, 15), &env);

    if (len <= 0) {
        return false;
    }
    f->at = at;
    f->next = at + len;
    f->row = &sk_rows[f->in.row];
    f->form = jit_form(f->in.row);
    return true;
}

/* Marks where instructions begin and where jumps within the region go. */
static const char *vf_mark(struct vf *f)
{
    for (f->next = f->start; f->next < f->end;) {
        if (!vf_decode(f, f->next)) {
            f->at = f->next;
            return "bytes that are no instruction";
        }
        f->map[f->at - f->start] |= VM_INSN;
        if (f->form->fn == jit_t_jcc || f->form->fn == jit_t_jmp || f->form->fn == jit_t_call) {
            const uint8_t *to = f->next + (int64_t)f->in.imm;

            if (vf_inside(f, to)) {
                f->map[to - f->start] |= VM_LABEL;
            }
        }
    }
    return NULL;
}

const char *jit_verify(const struct sk_jit *j, const uint8_t *start, const uint8_t *end,
                       const uint8_t **ret_at)
{
    uint8_t map[JIT_ROOM]; /* not thread-local: each thread would have 64 KiB zeroed at its start */
    struct vf f = { .j = j, .start = start, .end = end, .map = map };
    const char *why;

    if (end <= start || end - start > JIT_ROOM) {
        return "too long";
    }
    memset(map, 0, (size_t)(end - start));
    why = vf_mark(&f);
    vf_forget(&f);
    f.then_cc = NO_CC;
    for (const uint8_t *at = start; !why && at < end; at = f.next) {
        (void)vf_decode(&f, at);
        if (map[at - start] & VM_LABEL) {
            vf_forget(&f);
            f.then_cc = NO_CC;
            f.dead = false;
        }
        if (!f.dead) {
            why = vf_insn(&f);
        }
    }
    *ret_at = f.at;
    return why ? why : f.dead ? NULL : "it runs on behind its end";
}
