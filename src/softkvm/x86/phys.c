/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <sys/mman.h>

#include "softkvm/jit/jit.h"
#include "softkvm/x86/fault.h"
#include "softkvm/x86/mmu_int.h"

#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

static struct sk_memmap *phys_map(const struct sk_vcpu *c)
{
    struct sk_memmap *m =
        c->in_smm ? atomic_load_explicit(&c->vm->memmap_smm, memory_order_acquire) : NULL;

    return m ? m : atomic_load_explicit(&c->vm->memmap, memory_order_acquire);
}

struct sk_slot *sk_phys_slot(struct sk_vcpu *c, uint64_t gpa)
{
    struct sk_memmap *m = phys_map(c);
    unsigned lo = 0, hi;

    if (!m || m->n == 0) {
        return NULL;
    }
    if (c->mmu->last_slot < m->n) {
        struct sk_slot *s = &m->slot[c->mmu->last_slot];

        if (gpa - s->gpa < s->size) {
            return s;
        }
    }
    for (hi = m->n; lo < hi;) {
        unsigned mid = (lo + hi) / 2;

        if (gpa - m->slot[mid].gpa < m->slot[mid].size) {
            c->mmu->last_slot = mid;
            return &m->slot[mid];
        }
        if (gpa < m->slot[mid].gpa) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return NULL;
}

static void phys_dirty(struct sk_vcpu *c, struct sk_slot *s, uint64_t gpa)
{
    uint64_t page = (gpa - s->gpa) >> 12, bit = BIT64(page & 63);

    if (!(atomic_fetch_or_explicit(&s->dirty[page >> 6], bit, memory_order_relaxed) & bit) &&
        s->on_dirty) {
        s->on_dirty(c, s, page);
    }
}

/* Looks once at each page whether the client has memory there, without changing it. EINVAL stands
 * for missing permissions: that the kernel knows the call has been tried (sk_phys_can_look). */
static bool phys_there(struct sk_slot *s, uint64_t gpa, bool write)
{
    uint64_t page = (gpa - s->gpa) >> 12, bit = BIT64(page & 63);
    int how = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;

    if (LIKELY(!s->seen[write] ||
               (atomic_load_explicit(&s->seen[write][page >> 6], memory_order_relaxed) & bit))) {
        return true;
    }
    if (madvise(s->host + (page << 12), 4096, how) < 0 &&
        (errno == EFAULT || errno == ENOMEM || errno == EINVAL || errno == EHWPOISON)) {
        return false;
    }
    atomic_fetch_or_explicit(&s->seen[write][page >> 6], bit, memory_order_relaxed);
    return true;
}

bool sk_phys_can_look(void)
{
    uint8_t here = 0; /* a page that is surely there */

    return madvise((void *)((uintptr_t)&here & ~(uintptr_t)4095), 4096, MADV_POPULATE_READ) == 0;
}

uint8_t *sk_phys_ptr(struct sk_vcpu *c, uint64_t gpa, bool write)
{
    struct sk_slot *s = sk_phys_slot(c, gpa);

    if (!s || (write && (s->flags & SK_SLOT_READONLY))) {
        return NULL;
    }
    if (UNLIKELY(!phys_there(s, gpa, write))) {
        if (c->guarded) {
            c->exit.kind = SK_EXIT_BAD_MEMORY;
            sk_leave_unfinished(c);
        }
        return NULL;
    }
    if (write && (s->flags & SK_SLOT_LOG)) {
        phys_dirty(c, s, gpa);
    }
    return s->host + (gpa - s->gpa);
}

uint8_t *sk_phys_ptr_normal(struct sk_vcpu *c, uint64_t gpa, bool write)
{
    bool smm = c->in_smm, guarded = c->guarded;
    uint8_t *p;

    c->in_smm = c->guarded = false;
    p = sk_phys_ptr(c, gpa, write);
    c->in_smm = smm;
    c->guarded = guarded;
    return p;
}

void sk_phys_read(struct sk_vcpu *c, uint64_t gpa, void *buf, size_t len)
{
    uint8_t *out = buf;

    while (len > 0) {
        size_t n = MIN(len, (size_t)(4096 - (gpa & 4095)));
        const uint8_t *p = sk_phys_ptr(c, gpa, false);

        if (p) {
            memcpy(out, p, n);
        } else {
            memset(out, 0xff, n);
        }
        gpa += n;
        out += n;
        len -= n;
    }
}

void sk_phys_write(struct sk_vcpu *c, uint64_t gpa, const void *buf, size_t len)
{
    const uint8_t *in = buf;

    while (len > 0) {
        size_t n = MIN(len, (size_t)(4096 - (gpa & 4095)));
        uint8_t *p = sk_phys_ptr(c, gpa, true);

        if (p) {
            memcpy(p, in, n);
        }
        gpa += n;
        in += n;
        len -= n;
    }
}

/* The next piece of an access to device memory: a power of two up to 8. */
static unsigned phys_piece(unsigned len)
{
    return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
}

static void mmio_read_piece(struct sk_vcpu *c, uint64_t gpa, void *buf, unsigned len)
{
    struct sk_mmio *m = &c->mmio[c->mmio_pos];

    c->leave = 1;
    if (c->mmio_pos < c->mmio_n && !m->write && m->done && m->gpa == gpa && m->len == len) {
        c->mmio_pos++;
        memcpy(buf, m->data, len);
        return;
    }
    c->mmio_n = c->mmio_pos; /* what the log holds beyond is of another course of events */
    if (c->mmio_pos == SK_MMIO_MAX) {
        memset(buf, 0xff, len);
        return;
    }
    *m = (struct sk_mmio){ .gpa = gpa, .len = (uint8_t)len };
    c->mmio_n++;
    if (c->vm->ops->mmio && c->vm->ops->mmio(c, gpa, m->data, len, false)) {
        m->done = true;
        c->mmio_pos++;
        memcpy(buf, m->data, len);
        return;
    }
    c->exit.kind = SK_EXIT_MMIO;
    c->exit.mmio = m;
    sk_leave_unfinished(c);
}

void sk_mmio_read(struct sk_vcpu *c, uint64_t gpa, void *buf, unsigned len)
{
    uint8_t *out = buf;

    if (UNLIKELY(c->jit.replaying)) {
        sk_jit_unlogged(c);
    }
    while (len > 0) {
        unsigned n = phys_piece(len);

        mmio_read_piece(c, gpa, out, n);
        gpa += n;
        out += n;
        len -= n;
    }
}

void sk_mmio_write(struct sk_vcpu *c, uint64_t gpa, const void *buf, unsigned len)
{
    const uint8_t *in = buf;

    if (UNLIKELY(c->jit.replaying)) {
        sk_jit_unlogged(c);
    }
    c->leave = 1;
    while (len > 0) {
        unsigned n = phys_piece(len);
        struct sk_mmio m = { .gpa = gpa, .len = (uint8_t)n, .write = true };

        memcpy(m.data, in, n);
        /* In place only if nothing is queued in front of it. */
        if (!c->vm->ops->mmio || (c->mmio_n > 0 && c->mmio[c->mmio_n - 1].write) ||
            !c->vm->ops->mmio(c, gpa, m.data, n, true)) {
            if (c->mmio_pos < SK_MMIO_MAX) {
                c->mmio[c->mmio_pos++] = m;
                c->mmio_n = c->mmio_pos;
            }
        }
        gpa += n;
        in += n;
        len -= n;
    }
}
