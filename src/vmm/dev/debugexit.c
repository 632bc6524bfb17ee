/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/debugexit.h"

#include "vmm/layout.h"

#define NUM_PORTS 4

struct debugexit {
    struct dev *dev;
    struct bus_region region;
};

static uint64_t debugexit_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return 0;
}

static void debugexit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debugexit *s = opaque;
    (void)size;
    if (offset == 0) {
        dev_event(s->dev, DEV_EVENT_DEBUG_EXIT, (int)(value & INT32_MAX), NULL);
    }
}

static const struct bus_ops debugexit_ops = {
    .read = debugexit_read,
    .write = debugexit_write,
    .max_size = 4,
};

static int debugexit_init(struct dev *dev, const void *params, struct err *err)
{
    struct debugexit *s = dev->state;
    (void)params;
    s->dev = dev;
    s->region = (struct bus_region){
        .name = "debugexit", .size = NUM_PORTS, .ops = &debugexit_ops, .opaque = s, .owner = dev
    };
    return bus_map(dev->env->pio, &s->region, LAYOUT_PORT_DEBUG_EXIT, err);
}

static void debugexit_done(struct dev *dev)
{
    struct debugexit *s = dev->state;
    bus_unmap(&s->region);
}

const struct dev_class debugexit_class = {
    .name = "debugexit",
    .help = "isa-debug-exit, port 0xf4: the guest ends the VM with a code",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct debugexit),
    .init = debugexit_init,
    .done = debugexit_done,
};
