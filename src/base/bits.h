/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small things that every file needs: attributes, checked arithmetic, alignment, byte order,
 * and unaligned little/big-endian access.
 */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* A result that must not be dropped; `(void)` with a reason is the way to ignore it. GCC's
 * warn_unused_result refuses the cast, so GCC gets the C23 attribute. Put it first. */
#ifdef __clang__
#define MUST_USE __attribute__((warn_unused_result))
#else
#define MUST_USE [[nodiscard]]
#endif

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member)                                                            \
    ((type *)(void *)((char *)(1 ? (ptr) : &((type *)0)->member) - offsetof(type, member)))

/* C23 names; true when the exact result does not fit *r. */
#define ckd_add(r, a, b) __builtin_add_overflow((a), (b), (r))
#define ckd_sub(r, a, b) __builtin_sub_overflow((a), (b), (r))
#define ckd_mul(r, a, b) __builtin_mul_overflow((a), (b), (r))

#define BIT(n)   (UINT32_C(1) << (n))
#define BIT64(n) (UINT64_C(1) << (n))

#define MIN(a, b)                                                                                  \
    ({                                                                                             \
        __typeof__(a) min_a_ = (a);                                                                \
        __typeof__(b) min_b_ = (b);                                                                \
        min_a_ < min_b_ ? min_a_ : min_b_;                                                         \
    })
#define MAX(a, b)                                                                                  \
    ({                                                                                             \
        __typeof__(a) max_a_ = (a);                                                                \
        __typeof__(b) max_b_ = (b);                                                                \
        max_a_ > max_b_ ? max_a_ : max_b_;                                                         \
    })

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define GIB (UINT64_C(1024) * MIB)

static inline bool bits_is_pow2(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

/* `align` is a power of two; the sum must not overflow (check sizes from outside with ckd_add). */
static inline uint64_t bits_align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

static inline uint64_t bits_align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}

/* All ones in the low `bytes` bytes; `bytes` is 1 to 8. */
static inline uint64_t bits_mask_bytes(unsigned bytes)
{
    return ~UINT64_C(0) >> (64 - 8 * bytes);
}

#define BITS_ACCESS(order, width)                                                                  \
    static inline uint##width##_t order##width##_get(const void *p)                                \
    {                                                                                              \
        uint##width##_t v;                                                                         \
        memcpy(&v, p, sizeof(v));                                                                  \
        return order##width##toh(v);                                                               \
    }                                                                                              \
    static inline void order##width##_put(void *p, uint##width##_t v)                              \
    {                                                                                              \
        v = hto##order##width(v);                                                                  \
        memcpy(p, &v, sizeof(v));                                                                  \
    }

/* le16_get(p), le16_put(p, v), ... be64_put(p, v): any alignment. */
BITS_ACCESS(le, 16)
BITS_ACCESS(le, 32)
BITS_ACCESS(le, 64)
BITS_ACCESS(be, 16)
BITS_ACCESS(be, 32)
BITS_ACCESS(be, 64)
#undef BITS_ACCESS

#endif
