/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The in-process harness: a device environment of fakes, for unit tests and fuzz targets. One
 * device (or a few), RAM in an array, interrupts counted, time set by the test; no engine, no
 * threads.
 *
 *     struct dev_harness h;
 *     dev_harness_init(&h, 1 * MIB);
 *     struct dev *dev = dev_harness_add(&h, &rtc_class, NULL);
 *     dev_harness_outb(&h, 0x70, 0x0a);
 *     assert_int_equal(dev_harness_inb(&h, 0x71), 0x26);
 *     dev_harness_done(&h);
 */
#ifndef DEV_DEV_HARNESS_H
#define DEV_DEV_HARNESS_H

#include "vmm/dev/dev.h"

#define DEV_HARNESS_GSIS 24

struct dev_msi {
    bool used;
    int fd; /* an eventfd, made on demand; -1 */
    uint64_t addr;
    uint32_t data;
    unsigned fired;
};

#define DEV_HARNESS_MSIS 256

struct dev_harness {
    struct dev_env env;
    uint8_t *ram; /* guest RAM at GPA 0 */
    uint64_t ram_size;

    int gsi_level[DEV_HARNESS_GSIS];
    unsigned gsi_rises[DEV_HARNESS_GSIS]; /* 0 -> 1 changes */
    struct dev_msi msi[DEV_HARNESS_MSIS];

    unsigned events;
    enum dev_event last_event;
    int last_event_code;
    char last_event_detail[128];

    uint64_t now_ns;
    uint64_t wall_ns;
    uint64_t random_state;
};

/* Aborts on no memory: it is for tests. `ram_size` is a multiple of 4096. */
void dev_harness_init(struct dev_harness *h, uint64_t ram_size);
/* Frees the devices in reverse order, then the environment. */
void dev_harness_done(struct dev_harness *h);

/* dev_new() with the class's name as id; a failure is fatal (the message goes to stderr). */
struct dev *dev_harness_add(struct dev_harness *h, const struct dev_class *cls, const void *params);

/* Moves both clocks, then runs what is due on the loop. Timers of the loop follow the host's
 * clock: a device takes its deadlines from now_ns(), so tests of timers call their handlers by
 * waiting or by setting now_ns far ahead, as the device documents. */
void dev_harness_advance(struct dev_harness *h, uint64_t ns);
/* Runs loop rounds until one finds nothing to do (at most 64). */
void dev_harness_poll(struct dev_harness *h);
/* Sum of `fired` over all MSI slots with this data; drains their eventfds first. */
unsigned dev_harness_msi_fired(struct dev_harness *h, uint32_t data);

uint64_t dev_harness_in(struct dev_harness *h, uint16_t port, unsigned size);
void dev_harness_out(struct dev_harness *h, uint16_t port, unsigned size, uint64_t value);
uint64_t dev_harness_mmio_read(struct dev_harness *h, uint64_t addr, unsigned size);
void dev_harness_mmio_write(struct dev_harness *h, uint64_t addr, unsigned size, uint64_t value);

static inline uint8_t dev_harness_inb(struct dev_harness *h, uint16_t port)
{
    return (uint8_t)dev_harness_in(h, port, 1);
}

static inline void dev_harness_outb(struct dev_harness *h, uint16_t port, uint8_t value)
{
    dev_harness_out(h, port, 1, value);
}

#endif
