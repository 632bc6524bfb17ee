/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/mem/gmem.h"

#include <errno.h>
#include <stdlib.h>

struct gmem_region {
    uint64_t gpa;
    uint64_t size;
    uint8_t *host;
    bool writable;
};

struct gmem {
    /* Sorted by gpa. Fixed once the machine runs, so that look-ups need no lock. */
    struct gmem_region region[GMEM_MAX_REGIONS];
    unsigned count;
    gmem_written_fn *written;
    void *written_opaque;
};

struct gmem *gmem_new(void)
{
    return calloc(1, sizeof(struct gmem));
}

void gmem_free(struct gmem *gm)
{
    free(gm);
}

int gmem_add(struct gmem *gm, gpa_t gpa, uint64_t size, void *host, bool writable)
{
    uint64_t end;
    if (size == 0 || ckd_add(&end, gpa.v, size)) {
        return -EINVAL;
    }
    if (gm->count == GMEM_MAX_REGIONS) {
        return -ENOSPC;
    }
    unsigned at = 0;
    for (unsigned i = 0; i < gm->count; i++) {
        const struct gmem_region *r = &gm->region[i];
        if (gpa.v < r->gpa + r->size && r->gpa < end) {
            return -EEXIST;
        }
        if (r->gpa < gpa.v) {
            at = i + 1;
        }
    }
    memmove(&gm->region[at + 1], &gm->region[at], (gm->count - at) * sizeof(gm->region[0]));
    gm->region[at] =
        (struct gmem_region){ .gpa = gpa.v, .size = size, .host = host, .writable = writable };
    gm->count++;
    return 0;
}

void gmem_set_written_hook(struct gmem *gm, gmem_written_fn *fn, void *opaque)
{
    gm->written = fn;
    gm->written_opaque = opaque;
}

static const struct gmem_region *gmem_find(const struct gmem *gm, uint64_t gpa)
{
    for (unsigned i = 0; i < gm->count; i++) {
        const struct gmem_region *r = &gm->region[i];
        /* No wrap: r->gpa + r->size was checked by gmem_add(). */
        if (gpa >= r->gpa && gpa - r->gpa < r->size) {
            return r;
        }
    }
    return NULL;
}

int gmem_iov(const struct gmem *gm, gpa_t gpa, uint64_t len, bool write, struct iovec *iov,
             unsigned max)
{
    unsigned n = 0;
    uint64_t at = gpa.v;
    while (len > 0) {
        const struct gmem_region *r = gmem_find(gm, at);
        if (r == NULL || (write && !r->writable)) {
            return -EFAULT;
        }
        if (n == max) {
            return -ENOSPC;
        }
        uint64_t offset = at - r->gpa;
        uint64_t piece = MIN(len, r->size - offset);
        iov[n++] = (struct iovec){ .iov_base = r->host + offset, .iov_len = piece };
        at += piece; /* may reach 2^64 only together with len = 0 */
        len -= piece;
    }
    return (int)n;
}

int gmem_read(const struct gmem *gm, gpa_t gpa, void *buf, size_t len)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iov(gm, gpa, len, false, iov, GMEM_MAX_REGIONS);
    uint8_t *to = buf;
    for (int i = 0; i < n; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    return MIN(n, 0);
}

int gmem_write(struct gmem *gm, gpa_t gpa, const void *buf, size_t len)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iov(gm, gpa, len, true, iov, GMEM_MAX_REGIONS);
    const uint8_t *from = buf;
    for (int i = 0; i < n; i++) {
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
        from += iov[i].iov_len;
        gmem_mark_written(gm, iov[i].iov_base, iov[i].iov_len);
    }
    return MIN(n, 0);
}

int gmem_fill(struct gmem *gm, gpa_t gpa, uint8_t byte, uint64_t len)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iov(gm, gpa, len, true, iov, GMEM_MAX_REGIONS);
    for (int i = 0; i < n; i++) {
        memset(iov[i].iov_base, byte, iov[i].iov_len);
        gmem_mark_written(gm, iov[i].iov_base, iov[i].iov_len);
    }
    return MIN(n, 0);
}

void *gmem_ptr(const struct gmem *gm, gpa_t gpa, uint64_t len, bool write)
{
    const struct gmem_region *r = gmem_find(gm, gpa.v);
    if (r == NULL || (write && !r->writable)) {
        return NULL;
    }
    uint64_t offset = gpa.v - r->gpa;
    return len <= r->size - offset ? r->host + offset : NULL;
}

void gmem_mark_written(struct gmem *gm, const void *host, uint64_t len)
{
    if (gm->written == NULL) {
        return;
    }
    uintptr_t at = (uintptr_t)host;
    for (unsigned i = 0; i < gm->count; i++) {
        const struct gmem_region *r = &gm->region[i];
        uintptr_t start = (uintptr_t)r->host;
        if (at >= start && at - start < r->size) {
            gm->written(gm->written_opaque, GPA(r->gpa + (at - start)), len);
            return;
        }
    }
}

uint64_t gmem_size(const struct gmem *gm)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < gm->count; i++) {
        sum += gm->region[i].writable ? gm->region[i].size : 0;
    }
    return sum;
}
