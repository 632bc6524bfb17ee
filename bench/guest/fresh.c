/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Code that did not exist a moment ago: functions are written, run once or 32 times, written anew.
 */
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

enum {
    FRESH_BYTES = 1 << 20,
    FRESH_FUNCTIONS = 32, /* a chunk writes */
    FRESH_INSNS = 64,     /* in a function, before its RET */
    FRESH_SLOT = 512,     /* bytes of a function */
};

static uint8_t *fresh_code;
static size_t fresh_next;
static uint64_t fresh_seed;

static int fresh_setup(void)
{
    if (!fresh_code) {
        fresh_code = mmap(NULL, FRESH_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh_code == MAP_FAILED) {
            bench_die("mmap of code");
        }
    }
    fresh_next = 0;
    fresh_seed = 31;
    return 0;
}

/* One instruction on RAX and RDI, 3 to 7 bytes; returns its length. */
static size_t fresh_insn(uint8_t *p, uint64_t r)
{
    static const uint8_t forms[6][3] = {
        {0x48,  0x01, 0xf8}, /* ADD RAX, RDI */
        { 0x48, 0x31, 0xf8}, /* XOR RAX, RDI */
        { 0x48, 0x29, 0xc7}, /* SUB RDI, RAX */
        { 0x48, 0xff, 0xc0}, /* INC RAX */
        { 0x48, 0x8d, 0x80}, /* LEA RAX, [RAX + disp32] */
        { 0x48, 0xc1, 0xc0}, /* ROL RAX, imm8 */
    };
    size_t form = r % 6;
    memcpy(p, forms[form], 3);
    if (form == 4) {
        uint32_t disp = (uint32_t)(r >> 40);
        memcpy(p + 3, &disp, sizeof(disp));
        return 7;
    }
    if (form == 5) {
        p[3] = (uint8_t)(r >> 16 & 31);
        return 4;
    }
    return 3;
}

/* Writes a function with a branch every eight instructions; returns where it is. */
static uint64_t (*fresh_write(void))(uint64_t)
{
    uint8_t *start = fresh_code + fresh_next;
    uint8_t *p = start;
    uint64_t (*function)(uint64_t);
    memcpy(p, "\x48\x89\xf8", 3); /* MOV RAX, RDI */
    p += 3;
    for (int i = 1; i < FRESH_INSNS; i++) {
        if (i % 8 == 7) {
            memcpy(p, "\x70\x00", 2); /* JO to the next instruction */
            p += 2;
        } else {
            p += fresh_insn(p, bench_random(&fresh_seed));
        }
    }
    *p = 0xc3;
    fresh_next = (fresh_next + FRESH_SLOT) % FRESH_BYTES;
    memcpy(&function, &start, sizeof(function));
    return function;
}

static uint64_t fresh_run(uint64_t *sum, int times)
{
    uint64_t x = 1;
    for (int i = 0; i < FRESH_FUNCTIONS; i++) {
        uint64_t (*function)(uint64_t) = fresh_write();
        for (int k = 0; k < times; k++) {
            x = function(x);
        }
    }
    *sum = x;
    return (uint64_t)(FRESH_FUNCTIONS * (FRESH_INSNS + 1) * times);
}

static uint64_t fresh_once(uint64_t *sum)
{
    return fresh_run(sum, 1);
}

static uint64_t fresh_32(uint64_t *sum)
{
    return fresh_run(sum, 32);
}

const struct bench_program bench_fresh[] = {
    {.name = "fresh-once", .setup = fresh_setup, .chunk = fresh_once },
    { .name = "fresh-32", .setup = fresh_setup, .chunk = fresh_32 },
    { 0 },
};
