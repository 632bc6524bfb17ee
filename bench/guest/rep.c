/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* String instructions with a repeat prefix, long and short. */
#include <string.h>

#include "bench.h"

enum {
    REP_LONG = 64 << 10,
    REP_SHORT = 64,
    REP_SHORTS = 10000,
    REP_ROUNDS = 20,
    REP_SCAN = 16 << 10,
};

static char rep_from[REP_LONG + 64] __attribute__((aligned(4096)));
static char rep_to[REP_LONG + 64] __attribute__((aligned(4096)));

static int rep_setup(void)
{
    memset(rep_from, 7, sizeof(rep_from));
    memset(rep_to, 7, sizeof(rep_to));
    return 0;
}

static void rep_movsb_one(void *to, const void *from, size_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static uint64_t rep_movsb(uint64_t *sum)
{
    for (int i = 0; i < REP_ROUNDS; i++) {
        rep_from[5]++;
        rep_movsb_one(rep_to, rep_from, REP_LONG);
    }
    *sum = 0;
    return REP_ROUNDS * REP_LONG;
}

static uint64_t rep_movsb_short(uint64_t *sum)
{
    for (int i = 0; i < REP_SHORTS; i++) {
        rep_movsb_one(rep_to + (i & 31), rep_from, REP_SHORT);
    }
    *sum = (uint64_t)rep_to[1];
    return REP_SHORTS;
}

static void rep_stosq_one(void *to, size_t words)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(0x0707070707070707) : "memory");
}

static uint64_t rep_stosq(uint64_t *sum)
{
    for (int i = 0; i < REP_ROUNDS; i++) {
        rep_stosq_one(rep_to, REP_LONG / 8);
    }
    *sum = (uint64_t)rep_to[REP_LONG - 1];
    return REP_ROUNDS * REP_LONG;
}

static uint64_t rep_stosq_short(uint64_t *sum)
{
    for (int i = 0; i < REP_SHORTS; i++) {
        rep_stosq_one(rep_to + (i & 31), REP_SHORT / 8);
    }
    *sum = (uint64_t)rep_to[1];
    return REP_SHORTS;
}

static uint64_t rep_scasb(uint64_t *sum)
{
    rep_from[REP_SCAN - 1] = 1;
    for (int i = 0; i < REP_ROUNDS; i++) {
        const void *at = rep_from;
        size_t bytes = REP_SCAN;
        __asm__ volatile("repne scasb" : "+D"(at), "+c"(bytes) : "a"(1) : "cc", "memory");
        *sum += (uint64_t)((const char *)at - rep_from);
    }
    return REP_ROUNDS * REP_SCAN;
}

static uint64_t rep_cmpsb(uint64_t *sum)
{
    rep_from[REP_SCAN - 1] = 1;
    for (int i = 0; i < REP_ROUNDS; i++) {
        const void *a = rep_from;
        const void *b = rep_to;
        size_t bytes = REP_SCAN;
        __asm__ volatile("repe cmpsb" : "+D"(a), "+S"(b), "+c"(bytes) : : "cc", "memory");
        *sum += (uint64_t)((const char *)a - rep_from);
    }
    return REP_ROUNDS * REP_SCAN;
}

const struct bench_program bench_rep[] = {
    {.name = "rep-movsb",       .setup = rep_setup, .chunk = rep_movsb },
    { .name = "rep-movsb-64",       .setup = rep_setup, .chunk = rep_movsb_short },
    { .name = "rep-stosq",   .setup = rep_setup, .chunk = rep_stosq },
    { .name = "rep-stosq-64", .setup = rep_setup, .chunk = rep_stosq_short },
    { .name = "repne-scasb",      .setup = rep_setup, .chunk = rep_scasb },
    { .name = "repe-cmpsb",       .setup = rep_setup, .chunk = rep_cmpsb },
    { 0  },
};
