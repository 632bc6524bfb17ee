/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The small ISA devices: reset ports, debug console, debug exit, pvpanic; and the LPC bridge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/pci_regs.h"
#include "vmm/bus/pci.h"
#include "vmm/dev/debugcon.h"
#include "vmm/dev/debugexit.h"
#include "vmm/dev/dev_harness.h"
#include "vmm/dev/lpc.h"
#include "vmm/dev/pm.h"
#include "vmm/dev/pvpanic.h"
#include "vmm/dev/sysctl.h"
#include "vmm/layout.h"

static int setup(void **state)
{
    struct dev_harness *h = calloc(1, sizeof(*h));
    dev_harness_init(h, MIB);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    dev_harness_done(*state);
    free(*state);
    return 0;
}

static void reset_by_cf9(void **state)
{
    struct dev_harness *h = *state;
    dev_harness_add(h, &sysctl_class, NULL);
    assert_int_equal(dev_harness_inb(h, 0xcf9), 0);
    dev_harness_outb(h, 0xcf9, 0x02);
    assert_int_equal(h->events, 0);
    dev_harness_outb(h, 0xcf9, 0x06);
    assert_int_equal(h->events, 1);
    assert_int_equal(h->last_event, DEV_EVENT_RESET);
    dev_harness_outb(h, 0xcf9, 0x06); /* no edge */
    assert_int_equal(h->events, 1);
    assert_int_equal(dev_harness_inb(h, 0xcf9), 0x06);
    dev_harness_outb(h, 0xcf9, 0x00);
    dev_harness_outb(h, 0xcf9, 0x0e);
    assert_int_equal(h->events, 2);
}

static void reset_by_port_92(void **state)
{
    struct dev_harness *h = *state;
    struct dev *dev = dev_harness_add(h, &sysctl_class, NULL);
    assert_int_equal(dev_harness_inb(h, 0x92), 0x02);
    dev_harness_outb(h, 0x92, 0x00);
    assert_int_equal(dev_harness_inb(h, 0x92), 0x00);
    assert_int_equal(h->events, 0);
    dev_harness_outb(h, 0x92, 0x03);
    assert_int_equal(h->events, 1);
    dev_harness_outb(h, 0x92, 0xff);
    assert_int_equal(h->events, 1);
    assert_int_equal(dev_harness_inb(h, 0x92), 0x03);
    dev_reset(dev);
    assert_int_equal(dev_harness_inb(h, 0x92), 0x02);
}

static void debug_console_writes_to_its_file(void **state)
{
    struct dev_harness *h = *state;
    char path[] = "/tmp/isa_test.XXXXXX", spec[64], buf[8] = { 0 };
    struct err err = ERR_INIT;
    struct debugcon_params p;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)snprintf(spec, sizeof(spec), "file:%s", path);
    assert_int_equal(chr_open(spec, h->env.loop, NULL, NULL, &p.chr, &err), 0);
    struct dev *dev = dev_harness_add(h, &debugcon_class, &p);
    assert_int_equal(dev_harness_inb(h, LAYOUT_PORT_DEBUGCON), 0xe9);
    dev_harness_outb(h, LAYOUT_PORT_DEBUGCON, 'o');
    dev_harness_outb(h, LAYOUT_PORT_DEBUGCON, 'k');
    dev_harness_poll(h);
    dev_free(dev);
    chr_close(p.chr);
    assert_int_equal(pread(fd, buf, sizeof(buf), 0), 2);
    assert_string_equal(buf, "ok");
    close(fd);
    unlink(path);
}

static void debug_exit_gives_its_value(void **state)
{
    struct dev_harness *h = *state;
    dev_harness_add(h, &debugexit_class, NULL);
    dev_harness_out(h, LAYOUT_PORT_DEBUG_EXIT, 4, 0x21);
    assert_int_equal(h->events, 1);
    assert_int_equal(h->last_event, DEV_EVENT_DEBUG_EXIT);
    assert_int_equal(h->last_event_code, 0x21);
    dev_harness_outb(h, LAYOUT_PORT_DEBUG_EXIT, 0xff);
    assert_int_equal(h->last_event_code, 0xff);
    dev_harness_outb(h, LAYOUT_PORT_DEBUG_EXIT + 1, 1);
    assert_int_equal(h->events, 2);
}

static void pvpanic_events(void **state)
{
    struct dev_harness *h = *state;
    struct dev *dev = dev_harness_add(h, &pvpanic_class, NULL);
    assert_int_equal(dev_harness_inb(h, LAYOUT_PORT_PVPANIC), 3);
    dev_harness_outb(h, LAYOUT_PORT_PVPANIC, 2); /* a crash kernel takes over */
    assert_int_equal(h->events, 0);
    dev_harness_outb(h, LAYOUT_PORT_PVPANIC, 1);
    assert_int_equal(h->events, 1);
    assert_int_equal(h->last_event, DEV_EVENT_PANIC);
    dev_harness_outb(h, LAYOUT_PORT_PVPANIC, 0x80);
    assert_int_equal(dev->guest_bugs, 1);
}

/* ---- LPC bridge ---- */

static void cfg_write(struct dev_harness *h, unsigned reg, unsigned size, uint32_t value)
{
    dev_harness_mmio_write(h, LAYOUT_ECAM_BASE + (0x1f << 15) + reg, size, value);
}

static uint32_t cfg_read(struct dev_harness *h, unsigned reg, unsigned size)
{
    return (uint32_t)dev_harness_mmio_read(h, LAYOUT_ECAM_BASE + (0x1f << 15) + reg, size);
}

static void lpc_places_the_acpi_block(void **state)
{
    struct dev_harness *h = *state;
    struct err err = ERR_INIT;
    assert_int_equal(pci_bus_new(&h->env, LAYOUT_ECAM_BASE, &h->env.pci, &err), 0);
    struct lpc_params p = { .pm = dev_harness_add(h, &pm_class, NULL) };
    struct dev *dev = dev_harness_add(h, &lpc_class, &p);

    assert_int_equal(cfg_read(h, PCI_REG_VENDOR, 4), 0x29188086);
    assert_int_equal(cfg_read(h, PCI_REG_REVISION, 4) >> 8, 0x060100);
    assert_int_equal(cfg_read(h, 0x40, 4), LAYOUT_PORT_PM | 1);
    assert_int_equal(dev_harness_in(h, LAYOUT_PORT_PM + 4, 2), 1); /* SCI_EN */
    cfg_write(h, 0x40, 4, 0x0b01);
    assert_int_equal(cfg_read(h, 0x40, 4), 0x0b01);
    assert_int_equal(dev_harness_in(h, LAYOUT_PORT_PM + 4, 2), 0xffff);
    assert_int_equal(dev_harness_in(h, 0xb04, 2), 1);
    cfg_write(h, 0x44, 1, 0); /* ACPI_EN off */
    assert_int_equal(dev_harness_in(h, 0xb04, 2), 0xffff);
    cfg_write(h, 0x44, 1, 0x80);
    assert_int_equal(dev_harness_in(h, 0xb04, 2), 1);

    cfg_write(h, 0x60, 4, 0xffffffff); /* PIRQ routes keep their bits, and no more */
    assert_int_equal(cfg_read(h, 0x60, 4), 0x8f8f8f8f);
    cfg_write(h, 0xf0, 4, 0xfed1c001);
    dev_harness_mmio_write(h, 0xfed1f410, 4, 0x12345678);
    assert_int_equal(dev_harness_mmio_read(h, 0xfed1f410, 4), 0x12345678);
    dev_harness_outb(h, 0xb3, 0x5a);
    assert_int_equal(dev_harness_inb(h, 0xb3), 0x5a);

    dev_reset(dev);
    assert_int_equal(cfg_read(h, 0x40, 4), LAYOUT_PORT_PM | 1);
    assert_int_equal(dev_harness_in(h, LAYOUT_PORT_PM + 4, 2), 1);
    assert_int_equal(dev_harness_mmio_read(h, 0xfed1f410, 4), 0xffffffff);
    dev_free(dev);
    dev_free(p.pm);
    pci_bus_free(h->env.pci);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(reset_by_cf9),
        T(reset_by_port_92),
        T(debug_console_writes_to_its_file),
        T(debug_exit_gives_its_value),
        T(pvpanic_events),
        T(lpc_places_the_acpi_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
