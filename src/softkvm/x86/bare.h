/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests: a machine of one vCPU and some RAM from address 0 up, without devices.
 *
 *     struct bare b;
 *     bare_init(&b, 1 * MIB);
 *     bare_long(&b);                     paging with identity map, flat 64-bit segments
 *     bare_code(&b, 0x1000, "\x90\xf4", 2);
 *     bare_run(&b);                      to the HLT
 */
#ifndef SOFTKVM_X86_BARE_H
#define SOFTKVM_X86_BARE_H

#include "softkvm/x86/cpu.h"

struct bare {
    struct sk_vm vm;
    struct sk_vcpu *c;
    uint8_t *ram;
    size_t size;
    struct sk_memmap *map;
    uint8_t pio[4096];
};

/* Where bare_prot() and bare_long() put their tables. */
enum { BARE_GDT = 0x800, BARE_IDT = 0x4000, BARE_TSS = 0x900, BARE_PT = 0x8000 };
/* Selectors of that GDT. */
enum {
    BARE_CS0 = 0x08,
    BARE_DS0 = 0x10,
    BARE_CS3 = 0x1b,
    BARE_DS3 = 0x23,
    BARE_CS64 = 0x28,
    BARE_CS64_3 = 0x33,
    BARE_TR = 0x38,
    BARE_CS16 = 0x48,
    BARE_DS16 = 0x50
};

void bare_init(struct bare *b, size_t ram);
void bare_done(struct bare *b);

/* For cmocka: a machine with 4 MiB is the state of a test or of a group. */
int bare_setup(void **state);
int bare_teardown(void **state);

/* Real mode with CS = DS = ES = SS = 0, SP = 0x7000. */
void bare_real(struct bare *b);
/* Flat 32-bit protected mode, paging off, ESP = 0x7000. */
void bare_prot(struct bare *b);
/* Flat 64-bit mode, identity map by 2 MiB pages of the first GiB, all user-accessible, RSP =
 * 0x7000. */
void bare_long(struct bare *b);

/* Puts code at `at` and RIP on it. */
void bare_code(struct bare *b, uint64_t at, const void *code, size_t len);

/* Runs to an exit, but at most a million instructions; the kind of exit. */
enum sk_exit_kind bare_run(struct bare *b);

/* Interrupt gate (type 14) in the IDT of the mode in force. */
void bare_gate(struct bare *b, unsigned vec, uint16_t sel, uint64_t off, unsigned dpl);

#endif
