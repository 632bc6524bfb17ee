/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/bus/bus.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/dev/dev.h"

struct bus {
    const char *name;
    uint64_t limit;
    pthread_rwlock_t lock;            /* covers the lists; never held while a handler runs */
    TAILQ_HEAD(, bus_region) regions; /* highest priority first */
    TAILQ_HEAD(, bus_eventfd) eventfds;
    bus_eventfd_fn *hook;
    void *hook_opaque;
};

struct bus *bus_new(const char *name, uint64_t limit)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (bus == NULL) {
        return NULL;
    }
    bus->name = name;
    bus->limit = limit;
    pthread_rwlock_init(&bus->lock, NULL);
    TAILQ_INIT(&bus->regions);
    TAILQ_INIT(&bus->eventfds);
    return bus;
}

void bus_free(struct bus *bus)
{
    if (bus == NULL) {
        return;
    }
    pthread_rwlock_destroy(&bus->lock);
    free(bus);
}

void bus_set_eventfd_hook(struct bus *bus, bus_eventfd_fn *fn, void *opaque)
{
    bus->hook = fn;
    bus->hook_opaque = opaque;
}

static bool bus_overlap(const struct bus_region *r, uint64_t base, uint64_t size)
{
    return base < r->base + r->size && r->base < base + size;
}

int bus_map(struct bus *bus, struct bus_region *r, uint64_t base, struct err *err)
{
    uint64_t end;
    if (r->size == 0 || ckd_add(&end, base, r->size) || end > bus->limit) {
        return err_set(err, -EINVAL,
                       "%s: region '%s' at 0x%" PRIx64 " of 0x%" PRIx64
                       " bytes lies outside of the space (0 to 0x%" PRIx64 ")",
                       bus->name, r->name, base, r->size, bus->limit - 1);
    }
    assert(r->bus == NULL);
    pthread_rwlock_wrlock(&bus->lock);
    struct bus_region *at;
    struct bus_region *before = NULL;
    TAILQ_FOREACH(at, &bus->regions, link)
    {
        if (at->priority == r->priority && bus_overlap(at, base, r->size)) {
            pthread_rwlock_unlock(&bus->lock);
            return err_set(err, -EEXIST,
                           "%s: region '%s' at 0x%" PRIx64 " of 0x%" PRIx64
                           " bytes overlaps '%s' at 0x%" PRIx64,
                           bus->name, r->name, base, r->size, at->name, at->base);
        }
        if (before == NULL && at->priority <= r->priority) {
            before = at;
        }
    }
    r->bus = bus;
    r->base = base;
    if (before != NULL) {
        TAILQ_INSERT_BEFORE(before, r, link);
    } else {
        TAILQ_INSERT_TAIL(&bus->regions, r, link);
    }
    pthread_rwlock_unlock(&bus->lock);
    return 0;
}

void bus_unmap(struct bus_region *r)
{
    struct bus *bus = r->bus;
    if (bus == NULL) {
        return;
    }
    pthread_rwlock_wrlock(&bus->lock);
    TAILQ_REMOVE(&bus->regions, r, link);
    r->bus = NULL;
    pthread_rwlock_unlock(&bus->lock);
}

int bus_eventfd_add(struct bus *bus, struct bus_eventfd *e)
{
    assert(e->bus == NULL);
    e->in_engine = bus->hook != NULL && bus->hook(bus->hook_opaque, e, true) == 0;
    e->bus = bus;
    pthread_rwlock_wrlock(&bus->lock);
    TAILQ_INSERT_TAIL(&bus->eventfds, e, link);
    pthread_rwlock_unlock(&bus->lock);
    return 0;
}

void bus_eventfd_del(struct bus_eventfd *e)
{
    struct bus *bus = e->bus;
    if (bus == NULL) {
        return;
    }
    pthread_rwlock_wrlock(&bus->lock);
    TAILQ_REMOVE(&bus->eventfds, e, link);
    e->bus = NULL;
    pthread_rwlock_unlock(&bus->lock);
    if (e->in_engine) {
        (void)bus->hook(bus->hook_opaque, e, false);
    }
}

/* The region for the byte at `addr`, and how many bytes from there it answers for. The answer
 * stays valid without the lock: regions belong to devices, which live as long as the VM. */
static struct bus_region *bus_find(struct bus *bus, uint64_t addr, uint64_t *ret_base)
{
    struct bus_region *r;
    pthread_rwlock_rdlock(&bus->lock);
    TAILQ_FOREACH(r, &bus->regions, link)
    {
        if (addr >= r->base && addr - r->base < r->size) {
            *ret_base = r->base;
            break;
        }
    }
    pthread_rwlock_unlock(&bus->lock);
    return r;
}

static bool bus_ring_doorbell(struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    struct bus_eventfd *e;
    bool hit = false;
    pthread_rwlock_rdlock(&bus->lock);
    TAILQ_FOREACH(e, &bus->eventfds, link)
    {
        if (e->addr == addr && (e->size == 0 || e->size == size) &&
            (!e->match || e->value == value)) {
            uint64_t one = 1;
            /* EAGAIN: the counter is full, so it is signalled already. */
            (void)!write(e->fd, &one, sizeof(one));
            hit = true;
            break;
        }
    }
    pthread_rwlock_unlock(&bus->lock);
    return hit;
}

static void bus_enter(const struct bus_region *r)
{
    if (r->owner != NULL && r->owner->cls->threading == DEV_SERIAL) {
        dev_lock(r->owner);
    }
}

static void bus_leave(const struct bus_region *r)
{
    if (r->owner != NULL && r->owner->cls->threading == DEV_SERIAL) {
        dev_unlock(r->owner);
    }
}

static uint64_t bus_read_region(struct bus_region *r, uint64_t offset, unsigned size)
{
    unsigned min = r->ops->min_size != 0 ? r->ops->min_size : 1;
    unsigned max = r->ops->max_size != 0 ? r->ops->max_size : 8;
    if (r->ops->read == NULL) {
        return bits_mask_bytes(size);
    }
    if (size < min) {
        uint64_t start = bits_align_down(offset, min);
        if (start + min > r->size) {
            return bits_mask_bytes(size);
        }
        return r->ops->read(r->opaque, start, min) >> (8 * (offset - start));
    }
    unsigned step = MIN(size, max);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i += step) {
        uint64_t part = bits_mask_bytes(step);
        if (offset + i + step <= r->size) {
            part &= r->ops->read(r->opaque, offset + i, step);
        }
        value |= part << (8 * i);
    }
    return value;
}

static void bus_write_region(struct bus_region *r, uint64_t offset, unsigned size, uint64_t value)
{
    unsigned min = r->ops->min_size != 0 ? r->ops->min_size : 1;
    unsigned max = r->ops->max_size != 0 ? r->ops->max_size : 8;
    if (r->ops->write == NULL || size < min) {
        return;
    }
    unsigned step = MIN(size, max);
    for (unsigned i = 0; i < size; i += step) {
        if (offset + i + step <= r->size) {
            r->ops->write(r->opaque, offset + i, step, (value >> (8 * i)) & bits_mask_bytes(step));
        }
    }
}

bool bus_read(struct bus *bus, uint64_t addr, unsigned size, uint64_t *ret_value)
{
    uint64_t base = 0;
    struct bus_region *r = bus_find(bus, addr, &base);
    if (r == NULL) {
        *ret_value = bits_mask_bytes(size);
        return false;
    }
    bus_enter(r);
    *ret_value = bus_read_region(r, addr - base, size) & bits_mask_bytes(size);
    bus_leave(r);
    return true;
}

bool bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    value &= bits_mask_bytes(size);
    if (bus_ring_doorbell(bus, addr, size, value)) {
        return true;
    }
    uint64_t base = 0;
    struct bus_region *r = bus_find(bus, addr, &base);
    if (r == NULL) {
        return false;
    }
    bus_enter(r);
    bus_write_region(r, addr - base, size, value);
    bus_leave(r);
    return true;
}
