/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory: dependent loads in a working set of a size, and the C library's copy and set. */
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

enum {
    MEMORY_LINE = 64,
    MEMORY_L1 = 16 << 10,
    MEMORY_L2 = 512 << 10,
    MEMORY_BIG = 64 << 20,
    MEMORY_STEPS = 50000,
    MEMORY_BLOCK = 256 << 10,
    MEMORY_ROUNDS = 20,
    MEMORY_SMALL = 20000,
};

static char *memory_chain;
static size_t memory_chain_size;
static void **memory_at;

/* One cycle through all lines, in random order (Sattolo's shuffle). */
static int memory_chain_setup(size_t size)
{
    size_t lines = size / MEMORY_LINE;
    uint64_t seed = 4711;
    memory_chain = bench_memory_of(size);
    memory_chain_size = size;
    for (size_t i = 0; i < lines; i++) {
        *(size_t *)(memory_chain + i * MEMORY_LINE) = i;
    }
    for (size_t i = lines - 1; i > 0; i--) {
        size_t *a = (size_t *)(memory_chain + i * MEMORY_LINE);
        size_t *b = (size_t *)(memory_chain + (bench_random(&seed) % i) * MEMORY_LINE);
        size_t other = *a;
        *a = *b;
        *b = other;
    }
    for (size_t i = 0; i < lines; i++) {
        void **slot = (void **)(memory_chain + i * MEMORY_LINE);
        *slot = memory_chain + *(size_t *)slot * MEMORY_LINE;
    }
    memory_at = (void **)memory_chain;
    return 0;
}

static int memory_l1_setup(void)
{
    return memory_chain_setup(MEMORY_L1);
}

static int memory_l2_setup(void)
{
    return memory_chain_setup(MEMORY_L2);
}

static int memory_big_setup(void)
{
    return memory_chain_setup(MEMORY_BIG);
}

static void memory_chain_finish(void)
{
    munmap(memory_chain, memory_chain_size);
}

static uint64_t memory_chase(uint64_t *sum)
{
    void **at = memory_at;
    for (int i = 0; i < MEMORY_STEPS; i++) {
        at = *at;
    }
    memory_at = at;
    *sum = (uint64_t)((char *)at - memory_chain);
    return MEMORY_STEPS;
}

/* Twice as much as is copied, so that source and target do not overlap. */
static char memory_block[2 * MEMORY_BLOCK] __attribute__((aligned(4096)));

static uint64_t memory_copy(uint64_t *sum)
{
    for (int i = 0; i < MEMORY_ROUNDS; i++) {
        memory_block[0]++;
        memcpy(memory_block + MEMORY_BLOCK, (void *)bench_opaque((uint64_t)memory_block),
               MEMORY_BLOCK);
    }
    *sum = 0;
    return MEMORY_ROUNDS * MEMORY_BLOCK;
}

static uint64_t memory_copy_small(uint64_t *sum)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < MEMORY_SMALL; i++) {
        size_t length = bench_opaque(16 + (i * 7) % 100);
        memcpy(memory_block + MEMORY_BLOCK + i * 4, memory_block + i * 9, length);
        bytes += length;
    }
    *sum = bytes;
    return MEMORY_SMALL;
}

static uint64_t memory_set(uint64_t *sum)
{
    for (int i = 0; i < MEMORY_ROUNDS; i++) {
        memset((void *)bench_opaque((uint64_t)memory_block), 0x55, MEMORY_BLOCK);
    }
    *sum = (uint64_t)memory_block[MEMORY_BLOCK - 1];
    return MEMORY_ROUNDS * MEMORY_BLOCK;
}

/* What a loop without a library does. */
static uint64_t memory_words(uint64_t *sum)
{
    const uint64_t *from = (const uint64_t *)memory_block;
    uint64_t *to = (uint64_t *)(memory_block + MEMORY_BLOCK);
    for (size_t i = 0; i < MEMORY_BLOCK / 8; i++) {
        to[i] = from[i] + 1;
        __asm__ volatile("" : : : "memory");
    }
    *sum = 0;
    return MEMORY_BLOCK;
}

const struct bench_program bench_memory[] = {
    {.name = "chase-l1",
     .setup = memory_l1_setup,
     .chunk = memory_chase,
     .finish = memory_chain_finish },
    { .name = "chase-l2",
     .setup = memory_l2_setup,
     .chunk = memory_chase,
     .finish = memory_chain_finish },
    { .name = "chase-64m",
     .setup = memory_big_setup,
     .chunk = memory_chase,
     .finish = memory_chain_finish },
    { .name = "copy",      .chunk = memory_copy },
    { .name = "copy-small", .chunk = memory_copy_small },
    { .name = "set",          .chunk = memory_set },
    { .name = "words-copy",         .chunk = memory_words },
    { 0                           },
};
