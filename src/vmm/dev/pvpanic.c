/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/pvpanic.h"

#include "vmm/acpi/aml.h"
#include "vmm/layout.h"

#define PANICKED     0x01
#define CRASH_LOADED 0x02

struct pvpanic {
    struct dev *dev;
    struct bus_region region;
};

static uint64_t pvpanic_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return PANICKED | CRASH_LOADED; /* the events that we understand */
}

static void pvpanic_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvpanic *s = opaque;
    (void)offset, (void)size;
    if ((value & PANICKED) != 0) {
        dev_event(s->dev, DEV_EVENT_PANIC, 0, NULL);
    } else if ((value & CRASH_LOADED) != 0) {
        log_limited(&s->dev->bug_limit, LOG_WARN, s->dev->id,
                    "the guest panicked and runs its crash kernel");
    } else {
        dev_guest_bug(s->dev, "unknown event %#x", (unsigned)value);
    }
}

static const struct bus_ops pvpanic_ops = {
    .read = pvpanic_read,
    .write = pvpanic_write,
    .max_size = 1,
};

static int pvpanic_init(struct dev *dev, const void *params, struct err *err)
{
    struct pvpanic *s = dev->state;
    (void)params;
    s->dev = dev;
    s->region = (struct bus_region){
        .name = "pvpanic", .size = 1, .ops = &pvpanic_ops, .opaque = s, .owner = dev
    };
    return bus_map(dev->env->pio, &s->region, LAYOUT_PORT_PVPANIC, err);
}

static void pvpanic_done(struct dev *dev)
{
    struct pvpanic *s = dev->state;
    bus_unmap(&s->region);
}

/* The methods are part of the interface: drivers of Windows use them instead of the port. */
static int pvpanic_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    (void)dev, (void)err;
    aml_scope(a, "\\_SB.PCI0.ISA"), aml_device(a, "PEVT");
    aml_name(a, "_HID"), aml_str(a, "QEMU0001");
    aml_name(a, "_STA"), aml_int(a, 0x0f);
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_io(a, LAYOUT_PORT_PVPANIC, LAYOUT_PORT_PVPANIC, 1, 1);
    aml_res_end(a);
    aml_region(a, "PEOR", AML_SPACE_IO, LAYOUT_PORT_PVPANIC, 1);
    aml_field(a, "PEOR", AML_FIELD_BYTE), aml_field_unit(a, "PEPT", 8), aml_end(a);
    aml_method(a, "RDPT", 0, false);
    aml_op(a, AML_RETURN), aml_path(a, "PEPT");
    aml_end(a);
    aml_method(a, "WRPT", 1, false);
    aml_op(a, AML_STORE), aml_arg(a, 0), aml_path(a, "PEPT");
    aml_end(a);
    aml_end(a), aml_end(a);
    return 0;
}

const struct dev_class pvpanic_class = {
    .name = "pvpanic",
    .help = "pvpanic: the guest reports a panic",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct pvpanic),
    .init = pvpanic_init,
    .done = pvpanic_done,
    .acpi = pvpanic_acpi,
};
