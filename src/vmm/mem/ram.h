/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's RAM as host memory. Nothing is touched at start: pages come when the guest first
 * uses them, so a VM costs what it uses.
 */
#ifndef MEM_RAM_H
#define MEM_RAM_H

#include "base/bits.h"
#include "base/err.h"

enum ram_pages {
    RAM_PAGES_NORMAL, /* 4 KiB; transparent huge pages where the host gives them */
    RAM_PAGES_2M,     /* hugetlbfs pages, reserved at start */
    RAM_PAGES_1G,
};

struct ram_opts {
    enum ram_pages pages;
    bool shared;   /* a memfd other processes can map (vhost-user) */
    int numa_node; /* bind to this host node; -1 = leave it to the host */
};

struct ram {
    void *addr;
    size_t size;
    size_t mapped; /* size rounded up to the page size in use */
    int fd;        /* memfd, or -1 */
};

/* Allocates `size` bytes (a multiple of 4 KiB). 0; -ENOMEM with the remedy (free huge pages, less
 * memory); -EINVAL for a node that the host lacks. May block. */
MUST_USE int ram_init(struct ram *ram, uint64_t size, const struct ram_opts *opts, struct err *err);
void ram_done(struct ram *ram); /* accepts a zeroed struct */

#endif
