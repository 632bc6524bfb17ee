/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the host oracle: native.c runs one instruction on this processor, guest.c runs it in
 * the interpreter, gen.c makes it, oracle.c compares. Both sides see the same linear addresses.
 */
#ifndef TESTS_SOFTKVM_ORACLE_H
#define TESTS_SOFTKVM_ORACLE_H

#include "softkvm/x86/decode.h"

#define OR_CODE     UINT64_C(0x10000000) /* one page of code */
#define OR_INSN     (OR_CODE + 0x800)
#define OR_STATE    UINT64_C(0x11000000)
#define OR_WIN      UINT64_C(0x20000000) /* data window; nothing is mapped around it */
#define OR_WIN_SIZE 8192
#define OR_RO       (OR_WIN + OR_WIN_SIZE) /* one page that may only be read */
#define OR_GS_BASE  UINT64_C(0x7000)

/* What the read-only page holds at `i`. */
static inline uint8_t or_ro_byte(unsigned i)
{
    return (uint8_t)(i * 37 + 11);
}

struct or_state {
    uint64_t r[16];
    uint64_t rflags;
    int vec; /* -1: completed; else the exception */
    uint64_t rip;
    uint64_t err; /* error code, 0 if the exception has none */
    uint64_t cr2; /* of a page fault */
    struct sk_xsave xs;
    uint8_t win[OR_WIN_SIZE];
};

struct or_case {
    uint8_t insn[16];
    unsigned len;
    const struct sk_row *row;
    struct sk_insn in;
    bool branch; /* INT3 everywhere around; where it strikes is where the instruction went */
    struct or_state init;
};

uint64_t or_rnd(void);
void or_seed(uint64_t seed);

/* Why a row cannot be tried here, or NULL. */
const char *or_excluded(const struct sk_row *row);

/* A random instance of a row with a random state. False: this row cannot be tried here. */
bool or_make(struct or_case *k, const struct sk_row *row, const uint32_t *features);

/* Linear address of the memory operand. */
uint64_t or_operand(const struct or_case *k);

void or_native_init(void);
void or_native_run(const struct or_case *k, struct or_state *ret);

void or_guest_init(void);
void or_guest_run(const struct or_case *k, struct or_state *ret);
/* Gives the GS base back: between or_guest_run() and or_native_run(). */
void or_guest_done(void);
const uint32_t *or_guest_features(void);

#endif
