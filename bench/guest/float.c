/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Floating point and vectors: scalar double, SSE, AVX2 with FMA, x87. */
#include <immintrin.h>
#include <string.h>

#include "bench.h"

enum {
    FLOAT_MATRIX = 48,
    FLOAT_BODIES = 5,
    FLOAT_VECTOR = 4096,
    FLOAT_ROUNDS = 100,
};

static uint64_t float_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static uint64_t float_matrix(uint64_t *sum)
{
    static double a[FLOAT_MATRIX][FLOAT_MATRIX];
    static double b[FLOAT_MATRIX][FLOAT_MATRIX];
    static double c[FLOAT_MATRIX][FLOAT_MATRIX];
    for (int i = 0; i < FLOAT_MATRIX; i++) {
        for (int j = 0; j < FLOAT_MATRIX; j++) {
            a[i][j] = i * 0.25 + j;
            b[i][j] = j * 0.5 - i;
        }
    }
    for (int i = 0; i < FLOAT_MATRIX; i++) {
        for (int j = 0; j < FLOAT_MATRIX; j++) {
            double dot = 0;
            for (int k = 0; k < FLOAT_MATRIX; k++) {
                dot += a[i][k] * b[k][j];
            }
            c[i][j] = dot;
        }
    }
    *sum = float_bits(c[FLOAT_MATRIX - 1][3] + c[7][FLOAT_MATRIX - 2]);
    return FLOAT_MATRIX * FLOAT_MATRIX * FLOAT_MATRIX;
}

struct float_body {
    double x, y, z, vx, vy, vz, mass;
};

static void float_pair(struct float_body *a, struct float_body *b)
{
    double x = a->x - b->x;
    double y = a->y - b->y;
    double z = a->z - b->z;
    double square = x * x + y * y + z * z + 0.01;
    double pull = 0.001 / (square * __builtin_sqrt(square));
    a->vx -= x * b->mass * pull;
    a->vy -= y * b->mass * pull;
    a->vz -= z * b->mass * pull;
    b->vx += x * a->mass * pull;
    b->vy += y * a->mass * pull;
    b->vz += z * a->mass * pull;
}

static uint64_t float_nbody(uint64_t *sum)
{
    struct float_body body[FLOAT_BODIES];
    for (int i = 0; i < FLOAT_BODIES; i++) {
        body[i] = (struct float_body){ .x = i * 1.5 + 1,
                                       .y = i * -0.7,
                                       .z = i * i * 0.3,
                                       .vx = 0.1 * i,
                                       .vy = 0.2,
                                       .vz = -0.05 * i,
                                       .mass = 1 + i };
    }
    for (int step = 0; step < 1000; step++) {
        for (int i = 0; i < FLOAT_BODIES; i++) {
            for (int j = i + 1; j < FLOAT_BODIES; j++) {
                float_pair(&body[i], &body[j]);
            }
        }
        for (int i = 0; i < FLOAT_BODIES; i++) {
            body[i].x += 0.001 * body[i].vx;
            body[i].y += 0.001 * body[i].vy;
            body[i].z += 0.001 * body[i].vz;
        }
    }
    *sum = float_bits(body[0].x + body[4].z);
    return 1000;
}

static float float_a[FLOAT_VECTOR] __attribute__((aligned(64)));
static float float_b[FLOAT_VECTOR] __attribute__((aligned(64)));

static int float_vector_setup(void)
{
    for (int i = 0; i < FLOAT_VECTOR; i++) {
        float_a[i] = 0;
        float_b[i] = (float)i * 0.125f;
    }
    return 0;
}

static uint64_t float_sse(uint64_t *sum)
{
    __m128 factor = _mm_set1_ps(1.01f);
    for (int round = 0; round < FLOAT_ROUNDS; round++) {
        for (int i = 0; i < FLOAT_VECTOR; i += 4) {
            __m128 b = _mm_load_ps(float_b + i);
            _mm_store_ps(float_a + i, _mm_add_ps(_mm_mul_ps(b, factor), _mm_sqrt_ps(b)));
        }
        __asm__ volatile("" : : : "memory");
    }
    *sum = float_bits((double)float_a[FLOAT_VECTOR - 5]);
    return FLOAT_ROUNDS * FLOAT_VECTOR / 4;
}

static int float_avx2_setup(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) {
        return -1;
    }
    return float_vector_setup();
}

static __attribute__((target("avx2"))) uint64_t float_avx2(uint64_t *sum)
{
    __m256 factor = _mm256_set1_ps(1.01f);
    for (int round = 0; round < FLOAT_ROUNDS; round++) {
        for (int i = 0; i < FLOAT_VECTOR; i += 8) {
            __m256 b = _mm256_load_ps(float_b + i);
            __m256i bits = _mm256_castps_si256(b);
            bits = _mm256_shuffle_epi32(_mm256_add_epi32(bits, _mm256_srli_epi32(bits, 24)), 0xb1);
            _mm256_store_ps(float_a + i,
                            _mm256_add_ps(_mm256_mul_ps(b, factor),
                                          _mm256_and_ps(_mm256_castsi256_ps(bits), b)));
        }
        __asm__ volatile("" : : : "memory");
    }
    *sum = float_bits((double)float_a[FLOAT_VECTOR - 5]);
    return FLOAT_ROUNDS * FLOAT_VECTOR / 8;
}

static uint64_t float_x87(uint64_t *sum)
{
    long double x = 1.1L;
    for (int i = 0; i < 5000; i++) {
        long double square = x * x + 0.3L;
        x = square / (1.7L + x) + 0.01L * (long double)i;
        __asm__("fabs" : "+t"(x));
    }
    *sum = float_bits((double)x);
    return 5000;
}

const struct bench_program bench_float[] = {
    {.name = "matrix",      .chunk = float_matrix },
    { .name = "nbody",                    .chunk = float_nbody },
    { .name = "sse",.setup = float_vector_setup, .chunk = float_sse },
    { .name = "avx2",        .setup = float_avx2_setup, .chunk = float_avx2 },
    { .name = "x87",   .chunk = float_x87 },
    { 0      },
};
