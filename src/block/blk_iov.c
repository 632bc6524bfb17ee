/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_iov.h"

#include <assert.h>

uint64_t blk_iov_len(const struct iovec *iov, int niov)
{
    uint64_t len = 0;
    for (int i = 0; i < niov; i++) {
        len += iov[i].iov_len;
    }
    return len;
}

int blk_iov_slice(struct iovec *dst, const struct iovec *iov, int niov, uint64_t skip, uint64_t len)
{
    int used = 0;
    for (int i = 0; i < niov && len > 0; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN((uint64_t)iov[i].iov_len - skip, len);
        dst[used].iov_base = (char *)iov[i].iov_base + skip;
        dst[used].iov_len = part;
        used++;
        len -= part;
        skip = 0;
    }
    assert(len == 0);
    return used;
}

void blk_iov_advance(struct iovec **iov, int *niov, size_t done)
{
    while (*niov > 0 && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*niov)--;
    }
    if (*niov > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

/* Calls for each run of memory in [skip, skip + len). */
#define FOR_EACH_RUN(base, part, body)                                                             \
    for (int i = 0; i < niov && len > 0; i++) {                                                    \
        if (skip >= iov[i].iov_len) {                                                              \
            skip -= iov[i].iov_len;                                                                \
            continue;                                                                              \
        }                                                                                          \
        char *base = (char *)iov[i].iov_base + skip;                                               \
        size_t part = MIN((uint64_t)iov[i].iov_len - skip, (uint64_t)len);                         \
        body;                                                                                      \
        len -= part;                                                                               \
        skip = 0;                                                                                  \
    }                                                                                              \
    assert(len == 0)

void blk_iov_zero(const struct iovec *iov, int niov, uint64_t skip, uint64_t len)
{
    FOR_EACH_RUN(base, part, memset(base, 0, part));
}

void blk_iov_from_buf(const struct iovec *iov, int niov, uint64_t skip, const void *buf, size_t len)
{
    const char *src = buf;
    FOR_EACH_RUN(base, part, memcpy(base, src, part); src += part);
}

void blk_iov_to_buf(const struct iovec *iov, int niov, uint64_t skip, void *buf, size_t len)
{
    char *dst = buf;
    FOR_EACH_RUN(base, part, memcpy(dst, base, part); dst += part);
}

bool blk_iov_aligned(const struct iovec *iov, int niov, uint32_t align)
{
    uintptr_t bits = 0;
    for (int i = 0; i < niov; i++) {
        bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    }
    return (bits & (align - 1)) == 0;
}

bool blk_iov_buf_is_zero(const void *buf, size_t len)
{
    const unsigned char *p = buf;
    /* The first bytes by hand, the rest by comparing the buffer with itself shifted. */
    size_t head = MIN(len, (size_t)16);
    for (size_t i = 0; i < head; i++) {
        if (p[i] != 0) {
            return false;
        }
    }
    return len <= 16 || memcmp(p, p + 16, len - 16) == 0;
}
