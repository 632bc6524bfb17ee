/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest physical memory as the devices see it: the one checked way to it.
 *
 * The guest may change its memory at any time, so a device copies once, checks the copy and uses
 * the copy. Regions are added while the machine is built and stay until gmem_free(); look-ups take
 * no lock. Guest addresses are `gpa_t`, so that the compiler refuses a host pointer or an offset.
 */
#ifndef MEM_GMEM_H
#define MEM_GMEM_H

#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"

typedef struct {
    uint64_t v;
} gpa_t;

#define GPA(x) ((gpa_t){ (x) })

struct gmem;

#define GMEM_MAX_REGIONS 16

/* Called after the host wrote into guest RAM by a device (dirty log, translated code). */
typedef void gmem_written_fn(void *opaque, gpa_t gpa, uint64_t len);

MUST_USE struct gmem *gmem_new(void); /* NULL: out of memory */
void gmem_free(struct gmem *gm);      /* does not unmap the host memory */

/* Makes [gpa, gpa+size) of the guest the RAM at `host` (not owned). `writable` = false: devices
 * may only read (ROM). Returns 0, -EEXIST on overlap, -EINVAL on wrap, -ENOSPC. */
MUST_USE int gmem_add(struct gmem *gm, gpa_t gpa, uint64_t size, void *host, bool writable);
void gmem_set_written_hook(struct gmem *gm, gmem_written_fn *fn, void *opaque);

/* Copies; the range may cross regions. 0, or -EFAULT when a byte of it is no RAM (then nothing
 * useful is in `buf`, and a write may have been done in part, as on hardware). Any thread. */
MUST_USE int gmem_read(const struct gmem *gm, gpa_t gpa, void *buf, size_t len);
MUST_USE int gmem_write(struct gmem *gm, gpa_t gpa, const void *buf, size_t len);
MUST_USE int gmem_fill(struct gmem *gm, gpa_t gpa, uint8_t byte, uint64_t len);

/* Host address of a range that lies whole in one region, else NULL. For ring structures and data
 * that are accessed in place; `write` asks for a writable region. The content is hostile. */
void *gmem_ptr(const struct gmem *gm, gpa_t gpa, uint64_t len, bool write);

/* Splits [gpa, gpa+len) into host pieces at region borders. Returns the number of pieces
 * (0 for len 0), -EFAULT, or -ENOSPC when more than `max`. */
int gmem_iov(const struct gmem *gm, gpa_t gpa, uint64_t len, bool write, struct iovec *iov,
             unsigned max);

/* Tells that [host, host+len), got from gmem_ptr/gmem_iov with `write`, has been written. */
void gmem_mark_written(struct gmem *gm, const void *host, uint64_t len);

/* Sum of the RAM, bytes. */
uint64_t gmem_size(const struct gmem *gm);

#endif
