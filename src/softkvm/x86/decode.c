/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table decoder. Order of events as the processor has it: prefixes, opcode, ModRM, SIB,
 * displacement, immediate; the 15-byte limit counts before the question whether the bytes mean
 * anything, but only for bytes the form needs.
 */
#include "softkvm/x86/decode.h"

#include "insns_index.h"

#define MAX_LEN 15

struct dec {
    const uint8_t *p;
    const struct sk_decode_env *env;
    struct sk_insn *in;
    unsigned n, pos;
    uint8_t rex; /* 0 if none; with VEX the same bits from its payload */
    uint8_t map, opcode;
    uint8_t seg; /* override, or SK_NSEGS */
    uint8_t rep; /* 0xf2, 0xf3 or 0 */
    uint8_t vvvv;
    bool osize, asize, lock, vex, code64;
    uint8_t modrm;
    bool has_modrm;
};

static int dec_short(const struct dec *d)
{
    return d->n >= MAX_LEN ? SK_DEC_LONG : SK_DEC_SHORT;
}

/* Takes `size` bytes, sign-extended. False when the bytes end before. */
static bool dec_take(struct dec *d, unsigned size, int64_t *ret)
{
    uint64_t v = 0;

    if (d->n - d->pos < size) {
        return false;
    }
    memcpy(&v, d->p + d->pos, size);
    d->pos += size;
    *ret = (int64_t)(v << (64 - 8 * size)) >> (64 - 8 * size);
    return true;
}

/* Legacy prefixes and REX; leaves pos at the opcode. */
static bool dec_prefixes(struct dec *d)
{
    for (; d->pos < d->n; d->pos++) {
        uint8_t b = d->p[d->pos];

        if (d->code64 && (b & 0xf0) == 0x40) {
            d->rex = b;
            continue; /* counts only directly before the opcode: any prefix after it clears it */
        }
        switch (b) {
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
            if (!d->code64) {
                d->seg = (b >> 3) & 3;
            }
            break;
        case 0x64:
        case 0x65:
            d->seg = b & 7;
            break;
        case 0x66:
            d->osize = true;
            break;
        case 0x67:
            d->asize = true;
            break;
        case 0xf0:
            d->lock = true;
            break;
        case 0xf2:
        case 0xf3:
            d->rep = b;
            break;
        default:
            return true;
        }
        d->rex = 0;
    }
    return false;
}

/* VEX at pos (p[pos] is C4 or C5 and the mode allows it). 0 or an error. */
static int dec_vex(struct dec *d)
{
    bool three = d->p[d->pos] == 0xc4;
    unsigned need = three ? 4 : 3;
    uint8_t b1, b2, m;

    if (d->rex || d->osize || d->rep || d->lock) {
        return SK_DEC_UD;
    }
    if (d->n - d->pos < need) {
        return dec_short(d);
    }
    b1 = d->p[d->pos + 1];
    b2 = three ? d->p[d->pos + 2] : b1;
    m = three ? b1 & 31 : 1;
    if (m < 1 || m > 3) {
        return SK_DEC_UD;
    }
    d->vex = true;
    d->map = (uint8_t)(M_V1 + m - 1);
    d->rex = (uint8_t)(0x40 | (b1 & 0x80 ? 0 : 4));
    if (three) {
        d->rex |= (uint8_t)((b1 & 0x40 ? 0 : 2) | (b1 & 0x20 ? 0 : 1) | (b2 & 0x80 ? 8 : 0));
    }
    d->vvvv = (~b2 >> 3) & 15;
    if (!d->code64) {
        d->rex &= 0x48; /* R, X are 0 here by the way VEX is told from LES; B is ignored */
    }
    d->in->flags |= b2 & 4 ? SK_IN_L : 0;
    d->osize = (b2 & 3) == 1;
    d->rep = (b2 & 3) == 2 ? 0xf3 : (b2 & 3) == 3 ? 0xf2 : 0;
    d->opcode = d->p[d->pos + need - 1];
    d->pos += need;
    return 0;
}

/* Opcode bytes: sets map, opcode. 0 or an error. */
static int dec_opcode(struct dec *d)
{
    uint8_t b = d->p[d->pos];

    if ((b == 0xc4 || b == 0xc5) && !d->env->real_or_v86) {
        if (d->n - d->pos < 2) {
            return dec_short(d);
        }
        if (d->code64 || (d->p[d->pos + 1] & 0xc0) == 0xc0) {
            return dec_vex(d);
        }
    }
    d->map = M_1;
    d->pos++;
    if (b == 0x0f) {
        d->map = M_0F;
        if (d->pos >= d->n) {
            return dec_short(d);
        }
        b = d->p[d->pos++];
        if (b == 0x38 || b == 0x3a) {
            d->map = b == 0x38 ? M_0F38 : M_0F3A;
            if (d->pos >= d->n) {
                return dec_short(d);
            }
            b = d->p[d->pos++];
        }
    }
    d->opcode = b;
    return 0;
}

static bool dec_prefix_fits(const struct dec *d, uint8_t pfx)
{
    switch (pfx) {
    case P_ANY:
        return true;
    case P_NO:
        return !d->rep && !d->osize;
    case P_66:
        return !d->rep && d->osize;
    case P_F3:
    case P_F3S:
        return d->rep == 0xf3;
    case P_F2:
    case P_F2S:
        return d->rep == 0xf2;
    default:
        return !d->rep;
    }
}

static bool dec_modrm_fits(const struct dec *d, uint16_t ext)
{
    bool reg = d->modrm >= 0xc0;

    if (ext & X_EXACT) {
        return d->modrm == (ext & 0xff);
    }
    if ((ext & X_DIGIT) && ((d->modrm >> 3) & 7) != (ext & 7)) {
        return false;
    }
    return !((ext & X_MEMONLY) && reg) && !((ext & X_REGONLY) && !reg);
}

static bool dec_row_fits(const struct dec *d, const struct sk_row *r)
{
    bool w = d->rex & 8;

    if ((r->attr & A_I64 && d->code64) || (r->attr & A_O64 && !d->code64) ||
        (r->attr & A_PROT && d->env->real_or_v86)) {
        return false;
    }
    if (!dec_prefix_fits(d, r->pfx) || (r->ext && !dec_modrm_fits(d, r->ext))) {
        return false;
    }
    if (r->vex &&
        (((r->vex & V_W0) && w) || ((r->vex & V_W1) && !w) ||
         ((r->vex & V_L0) && (d->in->flags & SK_IN_L)) ||
         ((r->vex & V_L1) && !(d->in->flags & SK_IN_L)) || ((r->vex & V_NOV) && d->vvvv))) {
        return false;
    }
    return !d->env->features || ((d->env->features[r->feature >> 5] >> (r->feature & 31)) & 1);
}

/* The row, or NULL; *ret_err tells #UD from missing bytes. */
static const struct sk_row *dec_find(struct dec *d, int *ret_err)
{
    unsigned i = index_start[d->map][d->opcode], end = index_start[d->map][d->opcode + 1];

    *ret_err = SK_DEC_UD;
    for (; i < end; i++) {
        const struct sk_row *r = &sk_rows[index_rows[i]];

        if (r->ext && !d->has_modrm) {
            if (d->pos >= d->n) {
                *ret_err = dec_short(d);
                return NULL;
            }
            d->modrm = d->p[d->pos++];
            d->has_modrm = true;
        }
        if (dec_row_fits(d, r)) {
            d->in->row = index_rows[i];
            return r;
        }
    }
    return NULL;
}

static uint8_t dec_osize(const struct dec *d, const struct sk_row *r)
{
    bool w = (d->rex & 8) && d->code64;
    bool op16 = d->osize && !d->vex && (r->pfx == P_ANY || r->pfx >= P_NF) && !(r->attr & A_NO16);

    if (r->attr & A_B) {
        return 1;
    }
    if (r->attr & A_W) {
        return 2;
    }
    if (r->attr & A_LEG) {
        return d->code64 ? 8 : 4;
    }
    if (d->code64 && (r->attr & A_F64)) {
        return 8;
    }
    if (w) {
        return 8;
    }
    if (d->code64 && (r->attr & A_D64)) {
        return op16 ? 2 : 8;
    }
    if (d->vex || (r->pfx != P_ANY && r->pfx < P_NF) || (r->attr & A_NO16)) {
        return 4;
    }
    return (d->env->code_size == 2) != op16 ? 2 : 4;
}

static bool dec_mem16(struct dec *d)
{
    static const uint8_t base[8] = { SK_RBX,   SK_RBX,   SK_RBP, SK_RBP,
                                     SK_RZERO, SK_RZERO, SK_RBP, SK_RBX };
    static const uint8_t index[8] = { SK_RSI, SK_RDI, SK_RSI,   SK_RDI,
                                      SK_RSI, SK_RDI, SK_RZERO, SK_RZERO };
    unsigned mod = d->modrm >> 6, rm = d->modrm & 7;
    int64_t disp = 0;

    d->in->base = base[rm];
    d->in->index = index[rm];
    if (mod == 0 && rm == 6) {
        d->in->base = SK_RZERO;
        mod = 2;
    }
    if (mod && !dec_take(d, mod, &disp)) {
        return false;
    }
    d->in->disp = (int32_t)disp;
    if (d->in->base == SK_RBP && d->seg == SK_NSEGS) {
        d->in->seg = SK_SS;
    }
    return true;
}

static int dec_mem(struct dec *d, bool vsib)
{
    struct sk_insn *in = d->in;
    unsigned mod = d->modrm >> 6, rm = d->modrm & 7, size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    int64_t disp = 0;

    if (in->ash == 48) {
        return vsib ? SK_DEC_UD : dec_mem16(d) ? 0 : dec_short(d);
    }
    if (rm == 4) {
        uint8_t sib;

        if (d->pos >= d->n) {
            return dec_short(d);
        }
        sib = d->p[d->pos++];
        in->scale = sib >> 6;
        in->index = (uint8_t)(((sib >> 3) & 7) | (d->rex & 2 ? 8 : 0));
        if (in->index == 4 && !vsib) {
            in->index = SK_RZERO;
            in->scale = 0;
        }
        rm = sib & 7;
    } else if (vsib) {
        return SK_DEC_UD;
    } else if (rm == 5 && mod == 0 && d->code64) {
        in->base = SK_RIP;
        size = 4;
    }
    if (in->base != SK_RIP) {
        if (rm == 5 && mod == 0) {
            size = 4;
        } else {
            in->base = (uint8_t)(rm | (d->rex & 1 ? 8 : 0));
            if ((in->base == SK_RSP || in->base == SK_RBP) && d->seg == SK_NSEGS) {
                in->seg = SK_SS;
            }
        }
    }
    if (size && !dec_take(d, size, &disp)) {
        return dec_short(d);
    }
    in->disp = (int32_t)disp;
    return 0;
}

static uint8_t dec_byte_reg(const struct dec *d, unsigned n)
{
    return (uint8_t)(!d->rex && n >= 4 && n < 8 ? (n - 4) * 8 + 1 : n * 8);
}

/* Control, debug and segment registers that do not exist: #UD. CS is none to be loaded. */
static bool dec_register_exists(unsigned kind, unsigned reg, unsigned operand)
{
    switch (kind) {
    case K_C:
        return (BIT(reg) & 0x11d) != 0;
    case K_D:
        return reg < 8;
    case K_S:
        return reg < SK_NSEGS && !(operand == 0 && reg == SK_CS);
    default:
        return true;
    }
}

/* Registers of ModRM and opcode in the form the operand wants. 0 or SK_DEC_UD. */
static int dec_registers(struct dec *d, const struct sk_row *r)
{
    struct sk_insn *in = d->in;

    for (int i = 0; i < 4 && r->op[i]; i++) {
        unsigned kind = r->op[i] & 0xff00, size = r->op[i] & 0xff;

        switch (kind) {
        case K_G:
            if (size == 'b') {
                in->reg = dec_byte_reg(d, in->reg);
            }
            break;
        case K_E:
            if (size == 'b' && !(in->flags & SK_IN_MEM)) {
                in->rm = dec_byte_reg(d, in->rm);
            }
            break;
        case K_Z:
            in->rm = (uint8_t)((d->opcode & 7) | (d->rex & 1 ? 8 : 0));
            if (size == 'b') {
                in->rm = dec_byte_reg(d, in->rm);
            }
            break;
        case K_P:
        case K_S:
            in->reg &= 7;
            break;
        case K_Q:
        case K_N:
        case K_ST:
            in->rm &= 7;
            break;
        default:
            break;
        }
        if (!dec_register_exists(kind, in->reg, (unsigned)i)) {
            return SK_DEC_UD;
        }
    }
    return 0;
}

static unsigned dec_imm_size(const struct dec *d, unsigned letter)
{
    switch (letter) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'v':
        return d->in->osize;
    default: /* z */
        return d->in->osize == 2 ? 2 : 4;
    }
}

static int dec_immediates(struct dec *d, const struct sk_row *r)
{
    struct sk_insn *in = d->in;
    bool first = true;

    for (int i = 0; i < 4 && r->op[i]; i++) {
        unsigned kind = r->op[i] & 0xff00, letter = r->op[i] & 0xff, size;
        int64_t v;

        if (r->op[i] == O_ONE) {
            in->imm = 1;
        }
        if (kind == K_I || kind == K_IS || kind == K_J || kind == K_L) {
            size = kind == K_L ? 1 : dec_imm_size(d, letter);
        } else if (kind == K_A) {
            size = in->osize;
        } else if (kind == K_O) {
            size = (64u - in->ash) / 8;
        } else {
            continue;
        }
        if (!dec_take(d, size, &v)) {
            return dec_short(d);
        }
        if ((kind == K_I || kind == K_A || kind == K_O) && size < 8) {
            v &= (int64_t)bits_mask_bytes(size);
        }
        if (kind == K_L || !first) {
            in->imm2 = (uint16_t)v;
        } else {
            in->imm = (uint64_t)v;
        }
        first = false;
        if (kind == K_A) {
            if (!dec_take(d, 2, &v)) {
                return dec_short(d);
            }
            in->imm2 = (uint16_t)v;
        }
    }
    return 0;
}

static int dec_operands(struct dec *d, const struct sk_row *r)
{
    struct sk_insn *in = d->in;
    bool mem = d->has_modrm && d->modrm < 0xc0 && !(r->attr & A_MODREG) && r->ext;
    int err = 0;

    in->osize = dec_osize(d, r);
    in->imm2 = d->opcode;
    in->vreg = d->code64 ? d->vvvv : d->vvvv & 7; /* 8 registers: the top bit is ignored */
    if (r->ext) {
        in->reg = (uint8_t)(((d->modrm >> 3) & 7) | (d->rex & 4 ? 8 : 0));
        in->rm = (uint8_t)((d->modrm & 7) | (d->rex & 1 ? 8 : 0));
    }
    if (mem) {
        bool vsib = false;

        for (int i = 0; i < 4; i++) {
            vsib |= (r->op[i] & 0xff00) == K_VSIB;
        }
        in->flags |= SK_IN_MEM;
        err = dec_mem(d, vsib);
        if (!err && vsib &&
            (in->reg == in->index || in->reg == in->vreg || in->index == in->vreg)) {
            err = SK_DEC_UD; /* gathers: destination, index and mask must be three registers */
        }
    }
    if (err) {
        return err;
    }
    err = dec_registers(d, r);
    return err ? err : dec_immediates(d, r);
}

static void dec_finish(struct dec *d, const struct sk_row *r)
{
    struct sk_insn *in = d->in;
    unsigned size;

    if (r->attr & A_VEC) {
        size = (d->rex & 8 ? 2u : 0u) + (in->flags & SK_IN_L ? 1u : 0u);
    } else {
        size = (unsigned)__builtin_ctz(in->osize);
    }
    in->fn = sk_row_handlers[r - sk_rows]->fn[(in->flags & SK_IN_MEM) != 0][size];
    in->len = (uint8_t)d->pos;
    in->flags |=
        (uint16_t)((d->lock ? SK_IN_LOCK : 0) | (d->rep == 0xf3 ? SK_IN_REP : 0) |
                   (d->rep == 0xf2 ? SK_IN_REPNE : 0) | (d->osize ? SK_IN_OSIZE : 0) |
                   (d->rex ? SK_IN_REX : 0) | (d->rex & 8 ? SK_IN_W : 0) |
                   (r->attr & A_END ? SK_IN_END : 0) | (r->attr & A_KEEPRF ? SK_IN_KEEPRF : 0) |
                   (d->seg != SK_NSEGS ? SK_IN_SEGPFX : 0));
}

int sk_decode(struct sk_insn *ret, const uint8_t *p, unsigned n, const struct sk_decode_env *env)
{
    struct dec d = { .p = p,
                     .n = MIN(n, (unsigned)MAX_LEN),
                     .env = env,
                     .in = ret,
                     .seg = SK_NSEGS,
                     .code64 = env->code_size == 8 };
    const struct sk_row *r;
    int err;

    memset(ret, 0, sizeof(*ret));
    if (!dec_prefixes(&d)) {
        return dec_short(&d);
    }
    err = dec_opcode(&d);
    if (err) {
        return err;
    }
    ret->base = ret->index = SK_RZERO;
    ret->seg = d.seg != SK_NSEGS ? d.seg : SK_DS;
    if (d.code64) {
        ret->ash = d.asize ? 32 : 0;
    } else {
        ret->ash = (env->code_size == 2) != d.asize ? 48 : 32;
    }
    r = dec_find(&d, &err);
    if (!r) {
        return err;
    }
    err = dec_operands(&d, r);
    if (err) {
        return err;
    }
    if (d.lock && !((r->attr & A_LOCK) && (ret->flags & SK_IN_MEM))) {
        return SK_DEC_UD;
    }
    dec_finish(&d, r);
    return (int)d.pos;
}
