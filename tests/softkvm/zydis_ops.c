/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "zydis_ops.h"

#include <string.h>
#include <strings.h>

#include "softkvm/x86/flags.h"

struct cmp {
    const struct sk_insn *in;
    const struct sk_row *row;
    const ZydisDecodedInstruction *z;
    const ZydisDecodedOperand *ops;
    unsigned code_size;
    unsigned used; /* bit n: Zydis' operand n has found its like */
};

/* Bytes of an operand by the letter of its row; 0: the row does not say. */
static unsigned op_size(const struct cmp *k, unsigned letter)
{
    const struct sk_insn *in = k->in;
    bool code64 = k->code_size == 8;
    unsigned full = (in->flags & SK_IN_L) && k->row->map >= M_V1 ? 32 : 16;

    switch (letter) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'd':
        return 4;
    case 'q':
        return 8;
    case 'v':
        return in->osize;
    case 'y':
        return (in->flags & SK_IN_W) && code64 ? 8 : 4;
    case 'z':
        return in->osize == 2 ? 2 : 4;
    case 'r':
        return code64 ? 8 : 4;
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
    case 'p':
        return in->osize + 2u;
    case 'a':
        return in->osize * 2u;
    case 's':
        return code64 ? 10 : 6;
    case 't':
        return 10;
    default:
        return 0;
    }
}

static ZydisRegister gpr(unsigned n, unsigned size)
{
    switch (size) {
    case 1: /* n is a byte offset into the registers */
        if (n & 1) {
            return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR8, (ZyanU8)(n / 8 + 4));
        }
        n /= 8;
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR8, (ZyanU8)(n < 4 ? n : n + 4));
    case 2:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR16, (ZyanU8)n);
    case 4:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR32, (ZyanU8)n);
    default:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR64, (ZyanU8)n);
    }
}

static ZydisRegister segment(unsigned n)
{
    static const ZydisRegister r[] = { ZYDIS_REGISTER_ES, ZYDIS_REGISTER_CS, ZYDIS_REGISTER_SS,
                                       ZYDIS_REGISTER_DS, ZYDIS_REGISTER_FS, ZYDIS_REGISTER_GS };

    return n < ARRAY_LEN(r) ? r[n] : ZYDIS_REGISTER_NONE;
}

/* A base or index register in the width of the address. */
static ZydisRegister address_reg(const struct cmp *k, unsigned n)
{
    unsigned size = (64u - k->in->ash) / 8;

    if (n == SK_RZERO) {
        return ZYDIS_REGISTER_NONE;
    }
    if (n == SK_RIP) {
        return size == 8 ? ZYDIS_REGISTER_RIP : ZYDIS_REGISTER_EIP;
    }
    return gpr(n, size);
}

/* The register an operand of this kind is, with number n. */
static ZydisRegister op_register(const struct cmp *k, unsigned op, unsigned n)
{
    unsigned size = op_size(k, op & 0xff);

    switch (op & 0xff00) {
    case K_P:
    case K_Q:
    case K_N:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_MMX, (ZyanU8)n);
    case K_S:
        return segment(n);
    case K_C:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_CONTROL, (ZyanU8)n);
    case K_D:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_DEBUG, (ZyanU8)n);
    case K_ST:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_X87, (ZyanU8)n);
    case K_V:
    case K_W:
    case K_U:
    case K_H:
    case K_L:
        /* A gather of dwords by qword indices fills half as much. */
        if (k->row->op[1] == O_VSq && !(k->in->flags & SK_IN_W)) {
            size = 16;
        }
        return ZydisRegisterEncode(size == 32 ? ZYDIS_REGCLASS_YMM : ZYDIS_REGCLASS_XMM, (ZyanU8)n);
    default:
        return gpr(n, size);
    }
}

static const ZydisDecodedOperand *find(struct cmp *k, ZydisOperandEncoding e)
{
    for (unsigned i = 0; i < k->z->operand_count; i++) {
        if (!(k->used & BIT(i)) && k->ops[i].encoding == e) {
            k->used |= BIT(i);
            return &k->ops[i];
        }
    }
    return NULL;
}

static const ZydisDecodedOperand *find_imm(struct cmp *k)
{
    for (unsigned i = 0; i < k->z->operand_count; i++) {
        ZydisOperandType t = k->ops[i].type;

        if (!(k->used & BIT(i)) && (t == ZYDIS_OPERAND_TYPE_POINTER ||
                                    (t == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
                                     k->ops[i].encoding != ZYDIS_OPERAND_ENCODING_NONE))) {
            k->used |= BIT(i);
            return &k->ops[i];
        }
    }
    return NULL;
}

static bool is_reg(const ZydisDecodedOperand *o, ZydisRegister r)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value == r;
}

/* General registers for which 2, 4 and 8 bytes come to the same: results extended to the whole
 * register (PEXTRW and such), the selector LAR and LSL read, MOVSXD that keeps 16 bits, and NOP. */
static bool any_width(const struct cmp *k)
{
    switch (k->z->mnemonic) {
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_EXTRACTPS:
    case ZYDIS_MNEMONIC_VEXTRACTPS:
    case ZYDIS_MNEMONIC_PEXTRB:
    case ZYDIS_MNEMONIC_PEXTRW:
    case ZYDIS_MNEMONIC_VPEXTRB:
    case ZYDIS_MNEMONIC_VPEXTRW:
    case ZYDIS_MNEMONIC_PMOVMSKB:
    case ZYDIS_MNEMONIC_VPMOVMSKB:
    case ZYDIS_MNEMONIC_MOVMSKPS:
    case ZYDIS_MNEMONIC_MOVMSKPD:
    case ZYDIS_MNEMONIC_VMOVMSKPS:
    case ZYDIS_MNEMONIC_VMOVMSKPD:
        return true;
    default:
        return false;
    }
}

/* The register of ModRM. */
static bool same_reg(const struct cmp *k, unsigned op, unsigned n, const ZydisDecodedOperand *o)
{
    ZydisRegister want = op_register(k, op, n);

    if (o && any_width(k) && o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(want) >= ZYDIS_REGCLASS_GPR16 &&
        ZydisRegisterGetClass(want) <= ZYDIS_REGCLASS_GPR64) {
        return ZydisRegisterGetClass(o->reg.value) >= ZYDIS_REGCLASS_GPR16 &&
               ZydisRegisterGetClass(o->reg.value) <= ZYDIS_REGCLASS_GPR64 &&
               ZydisRegisterGetId(o->reg.value) == (ZyanI8)n;
    }
    return o && is_reg(o, want);
}

/* Memory whose size is no matter of the operand: what a cache line or a hint names has none (Zydis
 * says 64 bytes), and SLDT, STR and SMSW store two bytes whatever the operand size. */
static bool no_memory_size(const struct cmp *k)
{
    switch (k->z->mnemonic) {
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
        return true;
    default: /* segment registers too are two bytes in memory */
        return (k->row->attr & A_NOMEMSEG) || k->row->op[1] == O_Sw || k->row->op[0] == O_Sw;
    }
}

static const char *same_memory(const struct cmp *k, unsigned op, const ZydisDecodedOperand *o)
{
    const struct sk_insn *in = k->in;
    bool vsib = (op & 0xff00) == K_VSIB;
    unsigned size = no_memory_size(k) ? 0 : op_size(k, op & 0xff);
    ZydisRegister base = address_reg(k, in->base), index = address_reg(k, in->index);

    /* Zydis 4.0 takes R13D for the base, and no displacement, where mod = 0, base = 5, REX.B and
     * 67h mean none and four bytes; the processor does as we do: sk_oracle has such cases. */
    bool r13d = o->mem.base == ZYDIS_REGISTER_R13D && base == ZYDIS_REGISTER_NONE;

    if (in->ash == 48 && base == ZYDIS_REGISTER_NONE) { /* [SI] and [DI]: we call that an index */
        base = index;
        index = ZYDIS_REGISTER_NONE;
    }

    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY) {
        return "memory";
    }
    if (vsib) {
        /* The index register is as wide as its elements times the number of results. */
        if (ZydisRegisterGetId(o->mem.index) != in->index) {
            return "vector index";
        }
    } else if (o->mem.index != index) {
        return "index";
    }
    if (o->mem.base != base && !r13d) {
        return "base";
    }
    if (index != ZYDIS_REGISTER_NONE && o->mem.scale != 1u << in->scale) {
        return "scale";
    }
    if (o->mem.disp.value != in->disp && !r13d) {
        return "displacement";
    }
    if (o->mem.type != ZYDIS_MEMOP_TYPE_AGEN && o->mem.segment != segment(in->seg)) {
        return "segment";
    }
    if (size && !vsib && o->size != size * 8) {
        return "memory size";
    }
    return NULL;
}

static const char *same_moffs(const struct cmp *k, unsigned op, const ZydisDecodedOperand *o)
{
    uint64_t mask = k->in->ash ? BIT64(64 - k->in->ash) - 1 : UINT64_MAX;

    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.base != ZYDIS_REGISTER_NONE ||
        o->mem.index != ZYDIS_REGISTER_NONE) {
        return "moffs";
    }
    if ((((uint64_t)o->mem.disp.value ^ k->in->imm) & mask) || (k->in->imm & ~mask)) {
        return "moffs offset";
    }
    if (o->mem.segment != segment(k->in->seg)) {
        return "segment";
    }
    return o->size != op_size(k, op & 0xff) * 8 ? "memory size" : NULL;
}

static const char *same_imm(const struct cmp *k, unsigned op, bool second,
                            const ZydisDecodedOperand *o)
{
    unsigned kind = op & 0xff00, size = op_size(k, op & 0xff);
    uint64_t v = second ? k->in->imm2 : k->in->imm, mask;

    if (kind == K_A) {
        if (o->type != ZYDIS_OPERAND_TYPE_POINTER || o->ptr.segment != k->in->imm2 ||
            o->ptr.offset != k->in->imm) {
            return "far pointer";
        }
        return NULL;
    }
    if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        return "immediate";
    }
    if (kind == K_J) {
        return o->imm.is_relative && o->imm.value.u == v ? NULL : "relative target";
    }
    if (kind == K_I) { /* zero-extended from its own size: nothing above may be set */
        mask = bits_mask_bytes(size);
        return v & ~mask                       ? "immediate not narrow"
               : ((o->imm.value.u ^ v) & mask) ? "immediate"
                                               : NULL;
    }
    mask = bits_mask_bytes(k->row->attr & A_B ? 1 : k->in->osize);
    return ((o->imm.value.u ^ v) & mask) ? "immediate" : NULL;
}

/* One operand of the row that is encoded in the bytes. */
static const char *same_operand(struct cmp *k, unsigned op, unsigned *imms)
{
    const struct sk_insn *in = k->in;
    const ZydisDecodedOperand *o;
    unsigned n;

    switch (op & 0xff00) {
    case K_G:
    case K_V:
    case K_P:
    case K_S:
    case K_C:
    case K_D:
        o = find(k, ZYDIS_OPERAND_ENCODING_MODRM_REG);
        return same_reg(k, op, in->reg, o) ? NULL : "ModRM.reg";
    case K_ST:
        if ((op & 0xff) == 'n') {
            return NULL; /* ST(0) is implied */
        }
        __attribute__((fallthrough));
    case K_E:
    case K_M:
    case K_R:
    case K_W:
    case K_U:
    case K_Q:
    case K_N:
    case K_VSIB:
        o = find(k, ZYDIS_OPERAND_ENCODING_MODRM_RM);
        if (!o && k->z->mnemonic == ZYDIS_MNEMONIC_NOP) {
            return NULL;
        }
        if (!o) {
            return "no ModRM.rm";
        }
        if (in->flags & SK_IN_MEM) {
            return same_memory(k, op, o);
        }
        return same_reg(k, op, in->rm, o) ? NULL : "ModRM.rm";
    case K_Z:
        /* rAX with itself, to us. F3 41 90 exchanges with R8 on processors; Zydis calls it PAUSE.
         */
        if (k->z->mnemonic == ZYDIS_MNEMONIC_PAUSE || k->z->mnemonic == ZYDIS_MNEMONIC_NOP) {
            return NULL;
        }
        o = find(k, ZYDIS_OPERAND_ENCODING_OPCODE);
        return o && is_reg(o, gpr(in->rm, op_size(k, op & 0xff))) ? NULL : "opcode register";
    case K_H:
    case K_B:
        o = find(k, ZYDIS_OPERAND_ENCODING_NDSNDD);
        return o && is_reg(o, op_register(k, op, in->vreg)) ? NULL : "VEX.vvvv";
    case K_L:
        o = find(k, ZYDIS_OPERAND_ENCODING_IS4);
        n = (in->imm2 >> 4) & (k->code_size == 8 ? 15 : 7);
        return o && is_reg(o, op_register(k, op, n)) ? NULL : "is4";
    case K_O:
        o = find(k, ZYDIS_OPERAND_ENCODING_DISP16_32_64);
        return o ? same_moffs(k, op, o) : "no moffs";
    case K_I:
    case K_IS:
    case K_J:
    case K_A:
        o = find_imm(k);
        return o ? same_imm(k, op, (*imms)++ > 0, o) : "no immediate";
    default:
        return NULL;
    }
}

/* Width of an implied accumulator, DX of IN and OUT. */
static const char *same_fixed(const struct cmp *k, unsigned op, const ZydisDecodedOperand *o)
{
    ZydisRegister want;

    switch (op) {
    case O_AL:
        want = ZYDIS_REGISTER_AL;
        break;
    case O_AX:
        want = ZYDIS_REGISTER_AX;
        break;
    case O_CL:
        want = ZYDIS_REGISTER_CL;
        break;
    case O_DX:
        want = ZYDIS_REGISTER_DX;
        break;
    case O_EAX:
        want = gpr(SK_RAX, op_size(k, 'z'));
        break;
    case O_rAX:
        want = gpr(SK_RAX, k->in->osize);
        break;
    case O_XMM0:
        want = ZYDIS_REGISTER_XMM0;
        break;
    case O_FES:
    case O_FCS:
    case O_FSS:
    case O_FDS:
    case O_FFS:
    case O_FGS:
        want = segment((op & 0xff) - (O_FES & 0xff));
        break;
    default:
        return NULL;
    }
    return is_reg(o, want) ? NULL : "implied register";
}

/* DS:rSI and ES:rDI: width of address and element; the override counts for the former only. */
static const char *same_string(const struct cmp *k, unsigned op, const ZydisDecodedOperand *o)
{
    bool y = (op & 0xff00) == K_Y;

    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY ||
        o->mem.base != address_reg(k, y ? SK_RDI : SK_RSI) ||
        o->mem.segment != (y ? ZYDIS_REGISTER_ES : segment(k->in->seg))) {
        return "string address";
    }
    return o->size != op_size(k, op & 0xff) * 8 ? "string element" : NULL;
}

/* Implied operands stand at the place of Zydis' visible list where the row has them. */
static const char *same_implied(const struct cmp *k)
{
    if (k->z->mnemonic == ZYDIS_MNEMONIC_PAUSE || k->z->mnemonic == ZYDIS_MNEMONIC_NOP) {
        return NULL;
    }
    for (unsigned i = 0; i < 4 && k->row->op[i]; i++) {
        unsigned op = k->row->op[i], kind = op & 0xff00;
        const ZydisDecodedOperand *o = &k->ops[i];
        const char *r = NULL;

        if (i >= k->z->operand_count) {
            return kind == K_FIX || kind == K_X || kind == K_Y ? "too few operands" : NULL;
        }
        if (kind == K_FIX) {
            r = same_fixed(k, op, o);
        } else if (kind == K_X || kind == K_Y) {
            r = same_string(k, op, o);
        }
        if (r) {
            return r;
        }
    }
    return NULL;
}

static const char *same_prefixes(const struct cmp *k)
{
    const struct sk_insn *in = k->in;
    uint64_t a = k->z->attributes;
    bool rep = a & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);
    bool repne = a & ZYDIS_ATTRIB_HAS_REPNE;

    if (((in->flags & SK_IN_LOCK) != 0) != ((a & ZYDIS_ATTRIB_HAS_LOCK) != 0)) {
        return "lock";
    }
    /* With INS, OUTS, MOVS, LODS, STOS both prefixes repeat alike. */
    if ((k->row->attr & A_STR) &&
        (((in->flags & (SK_IN_REP | SK_IN_REPNE)) != 0) != (rep || repne))) {
        return "repeat";
    }
    if ((k->row->attr & A_STR) && (k->row->fl_written & SK_FL_ZF) &&
        ((in->flags & SK_IN_REP) != 0) != rep) {
        return "repeat while equal";
    }
    return NULL;
}

/* Pushes, pops, calls and returns: the hidden stack operand has the operand size. */
static const char *same_stack(const struct cmp *k)
{
    for (unsigned i = 0; i < k->z->operand_count; i++) {
        const ZydisDecodedOperand *o = &k->ops[i];

        if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
            o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.segment == ZYDIS_REGISTER_SS &&
            (ZydisRegisterGetId(o->mem.base) == SK_RSP ||
             ZydisRegisterGetId(o->mem.base) == SK_RBP) &&
            o->size % (k->in->osize * 8u) != 0) {
            return "stack operand";
        }
    }
    return NULL;
}

static bool name_is(const char *ours, const char *theirs)
{
    static const char *const same[][2] = {
    /* more than one name for the same: ours, Zydis' */
#define N(a, b) { a, b },
#include "zydis_names.def"
#undef N
    };

    if (strcasecmp(ours, theirs) == 0) {
        return true;
    }
    for (unsigned i = 0; i < ARRAY_LEN(same); i++) {
        size_t n = strlen(same[i][1]);

        if (strcmp(ours, same[i][0]) == 0 &&
            (same[i][1][n - 1] == '*' ? strncmp(theirs, same[i][1], n - 1) == 0
                                      : strcmp(theirs, same[i][1]) == 0)) {
            return true;
        }
    }
    return false;
}

/* The mnemonic, remembered once it was found right for a row. */
static bool same_name(unsigned row, ZydisMnemonic m)
{
    static uint8_t right[4096][(ZYDIS_MNEMONIC_MAX_VALUE + 8) / 8];
    uint8_t *byte = &right[row % ARRAY_LEN(right)][m / 8];

    if (!(*byte & BIT(m % 8)) && name_is(sk_rows[row].name, ZydisMnemonicGetString(m))) {
        *byte |= (uint8_t)BIT(m % 8);
    }
    return *byte & BIT(m % 8);
}

const char *zydis_ops_compare(const struct sk_insn *in, unsigned code_size,
                              const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    struct cmp k = {
        .in = in, .row = &sk_rows[in->row], .z = z, .ops = ops, .code_size = code_size
    };
    unsigned imms = 0;
    const char *r;

    if (!same_name(in->row, z->mnemonic)) {
        return "name";
    }
    if (z->address_width != 64u - in->ash) {
        return "address width";
    }
    for (unsigned i = 0; i < 4 && k.row->op[i]; i++) {
        r = same_operand(&k, k.row->op[i], &imms);
        if (r) {
            return r;
        }
    }
    for (unsigned i = 0; i < z->operand_count; i++) {
        /* ModRM.reg of the wide NOPs says nothing */
        if (ops[i].encoding != ZYDIS_OPERAND_ENCODING_NONE && !(k.used & BIT(i)) &&
            z->mnemonic != ZYDIS_MNEMONIC_NOP) {
            return "an operand more";
        }
    }
    r = same_implied(&k);
    r = r ? r : same_prefixes(&k);
    return r ? r : same_stack(&k);
}
