/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Integer programs: arithmetic, control flow, calls, trees, sorting, hashing, compression. */
#include <string.h>

#include "bench.h"

enum {
    INTEGER_TEXT = 1 << 16,
    INTEGER_CHAIN = 16, /* candidates that the compressor looks at */
    INTEGER_HASH_BITS = 12,
    INTEGER_NODES = 4096,
    INTEGER_SORTED = 4096,
    INTEGER_BUCKETS = 1024,
    INTEGER_WORDS = 2048,
};

static uint8_t integer_text[INTEGER_TEXT];

/* Words with some noise between them. */
static int integer_text_setup(void)
{
    static const char phrase[] = "the quick brown fox jumps over  ";
    uint64_t seed = 777;
    for (size_t i = 0; i < INTEGER_TEXT; i++) {
        uint8_t noise = (uint8_t)('a' + (bench_random(&seed) & 7));
        integer_text[i] = (i & 31) > 20 && (i & 31) < 30 ? noise : (uint8_t)phrase[i & 31];
    }
    return 0;
}

static uint64_t integer_alu(uint64_t *sum)
{
    uint64_t x = bench_opaque(1);
    for (int i = 0; i < 100000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x *= 0x9e3779b97f4a7c15u;
        x += x >> 32;
    }
    *sum = x;
    return 100000;
}

/* A stack machine with one switch: the branches follow the byte-code. */
static uint64_t integer_interpreter(uint64_t *sum)
{
    enum { PUSH, ADD, MIX, TOP, POPX, POPA, AGAIN };
    static const uint8_t code[] = { PUSH, ADD,  MIX,  PUSH, ADD,  TOP, POPX, MIX,  PUSH,
                                    ADD,  PUSH, POPX, POPA, PUSH, MIX, POPA, AGAIN };
    uint64_t stack[16] = { 0 };
    uint64_t acc = bench_opaque(1);
    unsigned sp = 0;
    const uint8_t *program = (const uint8_t *)bench_opaque((uint64_t)code);
    uint64_t rounds = 5000;
    for (size_t pc = 0;;) {
        switch (program[pc++]) {
        case PUSH:
            stack[sp++ & 15] = acc;
            break;
        case ADD:
            acc += 7;
            break;
        case MIX:
            acc ^= acc << 3;
            break;
        case TOP:
            acc += stack[(sp - 1) & 15];
            break;
        case POPX:
            acc ^= stack[--sp & 15] >> 3;
            break;
        case POPA:
            acc += stack[--sp & 15];
            break;
        default:
            pc = 0;
            sp = 0;
            if (--rounds == 0) {
                *sum = acc;
                return 5000 * sizeof(code);
            }
            break;
        }
    }
}

static BENCH_NOINLINE uint64_t integer_fib(uint64_t n)
{
    return n < 2 ? n : integer_fib(n - 1) + integer_fib(bench_opaque(n - 2));
}

static uint64_t integer_recursion(uint64_t *sum)
{
    *sum = integer_fib(bench_opaque(21));
    return 28656; /* calls of fib(21) */
}

static BENCH_NOINLINE uint64_t integer_f0(uint64_t x)
{
    return x * 3 + 1;
}

static BENCH_NOINLINE uint64_t integer_f1(uint64_t x)
{
    return x ^ (x >> 9);
}

static BENCH_NOINLINE uint64_t integer_f2(uint64_t x)
{
    return x + (x << 5);
}

static BENCH_NOINLINE uint64_t integer_f3(uint64_t x)
{
    return x - 0x1234567;
}

static uint64_t integer_indirect(uint64_t *sum)
{
    static uint64_t (*volatile const table[4])(uint64_t) = { integer_f0, integer_f1, integer_f2,
                                                             integer_f3 };
    uint64_t x = bench_opaque(1);
    for (unsigned i = 0; i < 50000; i++) {
        x = table[(i ^ (i >> 3)) & 3](x);
    }
    *sum = x;
    return 50000;
}

struct integer_node {
    struct integer_node *left, *right;
    uint64_t key;
};

static uint64_t integer_tree(uint64_t *sum)
{
    static struct integer_node nodes[INTEGER_NODES];
    uint64_t seed = 12345;
    uint64_t found = 0;
    for (size_t n = 0; n < INTEGER_NODES; n++) {
        struct integer_node *node = &nodes[n];
        struct integer_node *at = nodes;
        *node = (struct integer_node){ .key = bench_random(&seed) & 0xffff };
        while (n > 0) {
            struct integer_node **side = node->key < at->key ? &at->left : &at->right;
            if (!*side) {
                *side = node;
                break;
            }
            at = *side;
        }
    }
    for (int i = 0; i < INTEGER_NODES; i++) {
        uint64_t key = bench_random(&seed) & 0xffff;
        const struct integer_node *at = nodes;
        while (at && at->key != key) {
            at = key < at->key ? at->left : at->right;
        }
        found += at != NULL;
    }
    *sum = found;
    return 2 * INTEGER_NODES;
}

static BENCH_NOINLINE int integer_compare(const uint64_t *a, const uint64_t *b)
{
    return *a < *b ? -1 : *a > *b;
}

static void integer_sift(uint64_t *a, size_t i, size_t n,
                         int (*compare)(const uint64_t *, const uint64_t *))
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) {
            return;
        }
        if (child + 1 < n && compare(a + child, a + child + 1) < 0) {
            child++;
        }
        if (compare(a + i, a + child) >= 0) {
            return;
        }
        uint64_t other = a[i];
        a[i] = a[child];
        a[child] = other;
        i = child;
    }
}

static uint64_t integer_sort(uint64_t *sum)
{
    static uint64_t a[INTEGER_SORTED];
    int (*volatile compare)(const uint64_t *, const uint64_t *) = integer_compare;
    uint64_t seed = 99;
    for (size_t i = 0; i < INTEGER_SORTED; i++) {
        a[i] = bench_random(&seed);
    }
    for (size_t i = INTEGER_SORTED / 2; i-- > 0;) {
        integer_sift(a, i, INTEGER_SORTED, compare);
    }
    for (size_t i = INTEGER_SORTED; i-- > 1;) {
        uint64_t largest = a[0];
        a[0] = a[i];
        a[i] = largest;
        integer_sift(a, 0, i, compare);
    }
    *sum = a[0] ^ a[INTEGER_SORTED / 2];
    return INTEGER_SORTED;
}

/* FIPS 180-4, 6.2.2; the constants are the fractional parts of cube roots (4.2.2). */
static const uint32_t integer_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t integer_ror(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static void integer_sha256_block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64];
    uint32_t s[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15];
        uint32_t b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (integer_ror(a, 7) ^ integer_ror(a, 18) ^ a >> 3) +
               (integer_ror(b, 17) ^ integer_ror(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof(s));
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = s[7] +
                      (integer_ror(s[4], 6) ^ integer_ror(s[4], 11) ^ integer_ror(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + integer_k[i] + w[i];
        uint32_t t2 = (integer_ror(s[0], 2) ^ integer_ror(s[0], 13) ^ integer_ror(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) {
        h[i] += s[i];
    }
}

static uint64_t integer_sha256(uint64_t *sum)
{
    uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    for (size_t i = 0; i < INTEGER_TEXT; i += 64) {
        integer_sha256_block(h, integer_text + i);
    }
    *sum = (uint64_t)h[0] << 32 | h[7];
    return INTEGER_TEXT;
}

static size_t integer_match(size_t a, size_t b)
{
    size_t length = 0;
    while (length < 255 && b + length < INTEGER_TEXT &&
           integer_text[a + length] == integer_text[b + length]) {
        length++;
    }
    return length;
}

/* LZ77 with chains of equal hashes. */
static uint64_t integer_compress(uint64_t *sum)
{
    static uint8_t out[2 * INTEGER_TEXT];
    static uint32_t head[1 << INTEGER_HASH_BITS];
    static uint32_t previous[INTEGER_TEXT];
    size_t used = 0;
    memset(head, 0xff, sizeof(head));
    for (size_t i = 0; i + 8 < INTEGER_TEXT / 2;) {
        const uint8_t *p = integer_text + i;
        uint32_t hash = (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16) * 2654435761u >>
                        (32 - INTEGER_HASH_BITS);
        size_t best = 0;
        size_t distance = 0;
        uint32_t at = head[hash];
        for (int k = 0; k < INTEGER_CHAIN && at != UINT32_MAX; k++, at = previous[at]) {
            size_t length = integer_match(at, i);
            if (length > best) {
                best = length;
                distance = i - at;
            }
        }
        previous[i] = head[hash];
        head[hash] = (uint32_t)i;
        if (best >= 4) {
            out[used++] = 255;
            out[used++] = (uint8_t)best;
            out[used++] = (uint8_t)distance;
            out[used++] = (uint8_t)(distance >> 8);
            i += best;
        } else {
            out[used++] = *p;
            i++;
        }
    }
    for (size_t i = 0; i < used; i++) {
        *sum = *sum * 31 + out[i];
    }
    return INTEGER_TEXT / 2;
}

struct integer_word {
    struct integer_word *next;
    const uint8_t *text;
    uint32_t hash, length, count;
};

/* Splits the text and counts its words in a hash table. */
static uint64_t integer_words(uint64_t *sum)
{
    static struct integer_word words[INTEGER_TEXT / 2];
    static struct integer_word *table[INTEGER_BUCKETS];
    size_t used = 0;
    memset(table, 0, sizeof(table));
    for (size_t i = 0; i < INTEGER_TEXT / 2;) {
        size_t begin = i;
        uint32_t hash = 5381;
        while (i < INTEGER_TEXT && integer_text[i] > ' ') {
            hash = hash * 33 + integer_text[i++];
        }
        size_t length = i - begin;
        i++;
        struct integer_word *w = table[hash % INTEGER_BUCKETS];
        while (w && (w->hash != hash || w->length != length ||
                     memcmp(w->text, integer_text + begin, length) != 0)) {
            w = w->next;
        }
        if (!w) {
            w = &words[used++];
            *w = (struct integer_word){ .next = table[hash % INTEGER_BUCKETS],
                                        .text = integer_text + begin,
                                        .hash = hash,
                                        .length = (uint32_t)length };
            table[hash % INTEGER_BUCKETS] = w;
        }
        *sum += ++w->count;
    }
    return INTEGER_TEXT / 2;
}

/* Counters that other processors could see: locked instructions. */
static uint64_t integer_locked(uint64_t *sum)
{
    static uint64_t counter;
    __atomic_store_n(&counter, 0, __ATOMIC_SEQ_CST);
    for (uint64_t i = 0; i < 20000; i++) {
        __atomic_fetch_add(&counter, i, __ATOMIC_SEQ_CST);
    }
    *sum = counter;
    return 20000;
}

const struct bench_program bench_integer[] = {
    {.name = "alu",                 .chunk = integer_alu },
    { .name = "interpreter",                            .chunk = integer_interpreter },
    { .name = "recursion",.chunk = integer_recursion },
    { .name = "indirect",          .chunk = integer_indirect },
    { .name = "tree",                            .chunk = integer_tree },
    { .name = "sort",.chunk = integer_sort },
    { .name = "sha256",               .setup = integer_text_setup, .chunk = integer_sha256 },
    { .name = "compress",                            .setup = integer_text_setup, .chunk = integer_compress },
    { .name = "words",              .setup = integer_text_setup, .chunk = integer_words },
    { .name = "locked",             .chunk = integer_locked },
    { 0     },
};
