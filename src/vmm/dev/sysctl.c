/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/sysctl.h"

#include "vmm/layout.h"

#define A_FAST_RESET 0x01
#define A_A20        0x02
#define A_WRITABLE   (A_FAST_RESET | A_A20)

#define RST_CPU      0x04
#define RST_WRITABLE 0x0e /* SYS_RST, RST_CPU, FULL_RST */

struct sysctl {
    struct dev *dev;
    struct bus_region port_a_region;
    struct bus_region reset_region;
    uint8_t port_a;
    uint8_t reset;
};

static uint64_t port_a_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct sysctl *s = opaque;
    (void)offset, (void)size;
    return s->port_a;
}

/* A20 is kept, but masks nothing: the engines have no A20 gate, and address bit 20 always works. */
static void port_a_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct sysctl *s = opaque;
    (void)offset, (void)size;
    bool was = (s->port_a & A_FAST_RESET) != 0;
    s->port_a = (uint8_t)(value & A_WRITABLE);
    if (!was && (value & A_FAST_RESET) != 0) {
        dev_event(s->dev, DEV_EVENT_RESET, 0, "port 0x92");
    }
}

static uint64_t reset_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct sysctl *s = opaque;
    (void)offset, (void)size;
    return s->reset;
}

/* The reset happens when RST_CPU goes from 0 to 1; SYS_RST and FULL_RST choose its depth, which is
 * the same for us. */
static void reset_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct sysctl *s = opaque;
    (void)offset, (void)size;
    bool was = (s->reset & RST_CPU) != 0;
    s->reset = (uint8_t)(value & RST_WRITABLE);
    if (!was && (value & RST_CPU) != 0) {
        dev_event(s->dev, DEV_EVENT_RESET, 0, "port 0xcf9");
    }
}

static const struct bus_ops port_a_ops = { .read = port_a_read,
                                           .write = port_a_write,
                                           .max_size = 1 };
static const struct bus_ops reset_ops = { .read = reset_read, .write = reset_write, .max_size = 1 };

static void sysctl_reset(struct dev *dev)
{
    struct sysctl *s = dev->state;
    s->port_a = A_A20;
    s->reset = 0;
}

static void sysctl_done(struct dev *dev)
{
    struct sysctl *s = dev->state;
    bus_unmap(&s->port_a_region);
    bus_unmap(&s->reset_region);
}

static int sysctl_init(struct dev *dev, const void *params, struct err *err)
{
    struct sysctl *s = dev->state;
    (void)params;
    s->dev = dev;
    s->port_a_region = (struct bus_region){
        .name = "port92", .size = 1, .ops = &port_a_ops, .opaque = s, .owner = dev
    };
    /* Over the PCI address port's dword, which is for accesses of four bytes. */
    s->reset_region = (struct bus_region){
        .name = "cf9", .size = 1, .ops = &reset_ops, .opaque = s, .owner = dev, .priority = 1
    };
    sysctl_reset(dev);
    int rc = bus_map(dev->env->pio, &s->port_a_region, LAYOUT_PORT_A20_92, err);
    if (rc == 0) {
        rc = bus_map(dev->env->pio, &s->reset_region, LAYOUT_PORT_RESET, err);
    }
    if (rc < 0) {
        sysctl_done(dev);
    }
    return rc;
}

const struct dev_class sysctl_class = {
    .name = "sysctl",
    .help = "reset by ports 0x92 and 0xcf9",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct sysctl),
    .init = sysctl_init,
    .done = sysctl_done,
    .reset = sysctl_reset,
};
