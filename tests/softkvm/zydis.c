/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Our decoder against Zydis 4.0: random, structured and mutated byte strings in 16-, 32- and 64-bit
 * mode; both must agree on validity, length, name and operands (zydis_ops.c).
 *
 *     zydis COUNT [SEED]
 *
 * Where they may differ is written in allowed(): instruction sets we do not have (#UD for us) and
 * forms on which Zydis documents another processor's behaviour.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zydis_ops.h"

struct mode {
    uint8_t code_size;
    bool real;
    ZydisMachineMode zm;
    ZydisStackWidth zs;
};

static const struct mode modes[] = {
    {8,  false, ZYDIS_MACHINE_MODE_LONG_64,   ZYDIS_STACK_WIDTH_64},
    { 4, false, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
    { 2, false, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
    { 2, true,  ZYDIS_MACHINE_MODE_REAL_16,   ZYDIS_STACK_WIDTH_16},
};

static uint64_t rng;

static uint64_t rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

/* Prefixes, an opcode of any map, and random bytes behind. */
static void make_structured(uint8_t *b)
{
    static const uint8_t pfx[] = {
        0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x64, 0x65, 0x48, 0x41, 0x4f
    };
    unsigned n = 0, k = (unsigned)(rnd() % 4);

    for (unsigned i = 0; i < 16; i++) {
        b[i] = (uint8_t)(rnd() >> 24);
    }
    while (k-- > 0) {
        b[n++] = pfx[rnd() % sizeof(pfx)];
    }
    switch (rnd() % 8) {
    case 0:
    case 1:
        break;
    case 2:
    case 3:
        b[n] = 0x0f;
        break;
    case 4:
        b[n] = 0x0f;
        b[n + 1] = 0x38;
        break;
    case 5:
        b[n] = 0x0f;
        b[n + 1] = 0x3a;
        break;
    case 6:
        b[n] = 0xc5;
        break;
    default:
        b[n] = 0xc4;
        b[n + 1] = (uint8_t)((b[n + 1] & 0xe0) | (1 + rnd() % 3));
        break;
    }
}

static void make(uint8_t *b, const uint8_t *last)
{
    switch (rnd() % 4) {
    case 0:
        for (unsigned i = 0; i < 16; i++) {
            b[i] = (uint8_t)(rnd() >> 24);
        }
        break;
    case 1:
        memcpy(b, last, 16);
        b[rnd() % 6] ^= (uint8_t)(1u << (rnd() % 8));
        break;
    default:
        make_structured(b);
        break;
    }
}

/* Valid for Zydis, #UD for us: fine if it is of a set the engine does not offer. */
static bool not_offered(const ZydisDecodedInstruction *z)
{
    static const uint16_t sets[] = {
#define S(x) ZYDIS_ISA_SET_##x,
#include "zydis_sets.def"
#undef S
    };

    for (unsigned i = 0; i < ARRAY_LEN(sets); i++) {
        if (z->meta.isa_set == sets[i]) {
            return true;
        }
    }
    return z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
           z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
           z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
           z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW;
}

/* Single forms, by mnemonic, on which we differ on purpose. */
static bool allowed(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_UD0: /* #UD is their meaning */
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return true;
    default:
        return false;
    }
}

/* Valid for us, not for Zydis: in real mode the bodies of these raise the fault (#GP or #UD). */
static bool in_body(const struct mode *m, const struct sk_insn *in)
{
    const char *name = sk_rows[in->row].name;

    return m->real && (strncmp(name, "SYS", 3) == 0);
}

static void show(const char *what, const struct mode *m, const uint8_t *b, int ours,
                 const char *name, const ZydisDecodedInstruction *z, bool valid)
{
    printf("%s: %u-bit", what, m->code_size * 8u);
    for (unsigned i = 0; i < 15; i++) {
        printf(" %02x", b[i]);
    }
    printf(": ours %d %s, zydis %d %s (set %s)\n", ours, ours > 0 ? name : "invalid",
           valid ? z->length : -1, valid ? ZydisMnemonicGetString(z->mnemonic) : "invalid",
           valid ? ZydisISASetGetString(z->meta.isa_set) : "-");
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000, bad = 0, both = 0;
    uint8_t b[16] = { 0 }, last[16] = { 0 };
    static uint64_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    ZydisDecoder dec[ARRAY_LEN(modes)];

    rng = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    rng = rng * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        (void)ZydisDecoderInit(&dec[i], modes[i].zm, modes[i].zs);
        (void)ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        (void)ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        (void)ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
        (void)ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
    }
    for (uint64_t k = 0; k < count; k++) {
        unsigned mi = (unsigned)(rnd() % ARRAY_LEN(modes));
        const struct mode *m = &modes[mi];
        struct sk_decode_env env = { .code_size = m->code_size, .real_or_v86 = m->real };
        ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
        ZydisDecodedInstruction z;
        struct sk_insn in;
        bool valid;
        int ours;

        make(b, last);
        ours = sk_decode(&in, b, 15, &env);
        valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&dec[mi], b, 15, &z, ops));
        if (valid && ours == z.length) {
            const char *what = zydis_ops_compare(&in, m->code_size, &z, ops);

            both++;
            memcpy(last, b, 16);
            if (what) {
                bad++;
                if (seen[z.mnemonic]++ < 2) {
                    show(what, m, b, ours, sk_rows[in.row].name, &z, valid);
                }
            }
        } else if (valid && ours < 0 && (not_offered(&z) || allowed(&z))) {
            continue;
        } else if (!valid && ours >= 0 && in_body(m, &in)) {
            continue;
        } else if (valid || ours >= 0) {
            uint64_t *n = &seen[valid ? z.mnemonic : 0];

            bad++;
            if ((*n)++ < 2) { /* a few of each kind tell enough */
                show(!valid     ? "only ours"
                     : ours < 0 ? "only zydis"
                                : "length",
                     m, b, ours, sk_rows[in.row].name, &z, valid);
            }
        }
    }
    printf("%" PRIu64 " byte strings, %" PRIu64 " valid for both, %" PRIu64 " differences\n", count,
           both, bad);
    return bad != 0;
}
