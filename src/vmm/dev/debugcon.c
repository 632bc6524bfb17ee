/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/debugcon.h"

#include "vmm/layout.h"

#define PRESENT 0xe9

struct debugcon {
    struct bus_region region;
    struct chr *chr;
};

static uint64_t debugcon_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return PRESENT;
}

static void debugcon_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debugcon *s = opaque;
    uint8_t byte = (uint8_t)value;
    (void)offset, (void)size;
    if (s->chr != NULL) {
        (void)chr_write(s->chr, &byte, 1); /* full: a log that nobody reads may have gaps */
    }
}

static const struct bus_ops debugcon_ops = {
    .read = debugcon_read,
    .write = debugcon_write,
    .max_size = 1,
};

static int debugcon_init(struct dev *dev, const void *params, struct err *err)
{
    struct debugcon *s = dev->state;
    const struct debugcon_params *p = params;
    s->chr = p->chr;
    s->region = (struct bus_region){
        .name = "debugcon", .size = 1, .ops = &debugcon_ops, .opaque = s, .owner = dev
    };
    return bus_map(dev->env->pio, &s->region, LAYOUT_PORT_DEBUGCON, err);
}

static void debugcon_done(struct dev *dev)
{
    struct debugcon *s = dev->state;
    bus_unmap(&s->region);
}

const struct dev_class debugcon_class = {
    .name = "debugcon",
    .help = "debug console, port 0x402",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct debugcon),
    .init = debugcon_init,
    .done = debugcon_done,
};
