/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One address space of registers: port I/O (64 KiB) or MMIO. Devices put regions on it; vCPU exits
 * are dispatched to them.
 *
 * A handler only sees its own offset and an access of a size it declared. The bus takes the owner
 * device's lock around the handler when its class is DEV_SERIAL; no lock of the bus is held then,
 * so a handler may map and unmap regions (a PCI BAR moved by a config write).
 *
 * Doorbells: bus_eventfd_add() makes a write to an address signal an eventfd. Where the engine can
 * do that without an exit (ioeventfd) it is told through the hook; the bus does it itself
 * otherwise (in-process harness, engines without).
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include <sys/queue.h>

#include "base/bits.h"
#include "base/err.h"

struct bus;
struct dev;

struct bus_ops {
    /* `offset` is relative to the region; `size` is 1, 2, 4 or 8 and within [min, max]. */
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
    /* Accesses outside are split (larger) or widened for reads / refused for writes (smaller);
     * 0 = 1 and 8. */
    unsigned min_size;
    unsigned max_size;
};

struct bus_region {
    const char *name;
    uint64_t size;
    const struct bus_ops *ops;
    void *opaque;
    struct dev *owner;
    int priority; /* the higher one wins where two overlap; 0 is usual */

    struct bus *bus; /* NULL while not mapped */
    uint64_t base;
    TAILQ_ENTRY(bus_region) link;
};

struct bus_eventfd {
    uint64_t addr;
    unsigned size; /* 1, 2, 4, 8; 0 = any size */
    bool match;    /* only a write of `value` signals */
    uint64_t value;
    int fd;
    struct bus *bus;
    bool in_engine; /* the engine does it */
    TAILQ_ENTRY(bus_eventfd) link;
};

/* Engine side of doorbells: 0 or a negative errno (then the bus does it itself). */
typedef int bus_eventfd_fn(void *opaque, const struct bus_eventfd *e, bool add);

/* `limit` is the number of addresses (65536 for ports; 1 << phys_bits for MMIO). */
MUST_USE struct bus *bus_new(const char *name, uint64_t limit);
void bus_free(struct bus *bus);
void bus_set_eventfd_hook(struct bus *bus, bus_eventfd_fn *fn, void *opaque);

/* Places `r` (filled by the caller, alive until bus_unmap). 0; -EEXIST on an overlap of equal
 * priority (err names both); -EINVAL outside the space. Any thread, not from interrupt paths. */
MUST_USE int bus_map(struct bus *bus, struct bus_region *r, uint64_t base, struct err *err);
/* Accepts a region that is not mapped. A handler may still be running in another thread. */
void bus_unmap(struct bus_region *r);

MUST_USE int bus_eventfd_add(struct bus *bus, struct bus_eventfd *e);
void bus_eventfd_del(struct bus_eventfd *e);

/* Dispatches an access of 1, 2, 4 or 8 bytes. false = nobody is there: reads give all ones,
 * writes are dropped. Any thread. */
bool bus_read(struct bus *bus, uint64_t addr, unsigned size, uint64_t *ret_value);
bool bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value);

#endif
