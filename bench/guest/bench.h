/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The programs of the guest benchmark: docs/performance.md has the list.
 *
 * A program does its work in chunks of some 0.1 to 1 ms of native time, so that main.c can look at
 * the clock between them even where a chunk takes a hundred times as long.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_NOINLINE __attribute__((noinline))

struct bench_program {
    const char *name;
    /* Before the first chunk; may be NULL. Returns 0, or -1 where the processor cannot run it. */
    int (*setup)(void);
    /* One chunk. *sum: takes what was computed; the same on every machine, 0 if there is nothing.
     * Returns the number of operations, in the unit that the driver prints. */
    uint64_t (*chunk)(uint64_t *sum);
    /* Ends the program's other processes; its time counts. May be NULL. */
    void (*stop)(void);
    /* Gives memory back, after the measurement; may be NULL. */
    void (*finish)(void);
};

/* Each ends with a row without name. */
extern const struct bench_program bench_integer[];
extern const struct bench_program bench_memory[];
extern const struct bench_program bench_float[];
extern const struct bench_program bench_rep[];
extern const struct bench_program bench_fresh[];
extern const struct bench_program bench_system[];
extern const struct bench_program bench_process[];

/* xorshift64: the same numbers on every machine. */
static inline uint64_t bench_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Keeps the compiler from knowing the value. */
static inline uint64_t bench_opaque(uint64_t value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

/* Private anonymous memory, touched, on page borders; the process ends when there is none. */
void *bench_memory_of(size_t bytes);

/* Says what failed, with errno, and ends the process. */
_Noreturn void bench_die(const char *what);

#endif
