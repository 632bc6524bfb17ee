/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/pci_regs.h"
#include "vmm/bus/pci.h"
#include "vmm/dev/dev_harness.h"
#include "vmm/dev/mch.h"

#define ECAM UINT64_C(0xb0000000)

struct fixture {
    struct dev_harness h;
    struct pci_bus *bus;
    struct dev *dev;
};

static void start(struct fixture *f, uint64_t ecam)
{
    struct err err = ERR_INIT;
    dev_harness_init(&f->h, 64 * KIB);
    assert_int_equal(pci_bus_new(&f->h.env, ecam, &f->bus, &err), 0);
    f->h.env.pci = f->bus;
    f->dev = dev_harness_add(&f->h, &mch_class, NULL);
}

static void finish(struct fixture *f)
{
    dev_free(f->dev);
    pci_bus_free(f->bus);
    dev_harness_done(&f->h);
}

static void cfg_write(struct fixture *f, unsigned reg, unsigned size, uint32_t value)
{
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 4, PCI_ADDR_ENABLE | (reg & 0xfc));
    dev_harness_out(&f->h, (uint16_t)(PCI_PORT_DATA + (reg & 3)), size, value);
}

static uint32_t cfg_read(struct fixture *f, unsigned reg)
{
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 4, PCI_ADDR_ENABLE | reg);
    return (uint32_t)dev_harness_in(&f->h, PCI_PORT_DATA, 4);
}

static void test_identity(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ECAM);
    assert_int_equal(cfg_read(&f, PCI_REG_VENDOR), 0x29c08086);
    assert_int_equal(cfg_read(&f, PCI_REG_REVISION) >> 8, 0x060000);
    assert_int_equal(cfg_read(&f, 0x60), ECAM | 1);
    assert_int_equal(dev_harness_mmio_read(&f.h, ECAM, 4), 0x29c08086);
    finish(&f);
}

/* As firmware does: off at power-on, then placed. */
static void test_firmware_places_ecam(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, PCI_ECAM_OFF);
    assert_int_equal(cfg_read(&f, 0x60), 0);
    cfg_write(&f, 0x64, 4, 0);
    cfg_write(&f, 0x60, 4, 0xe0000001);
    assert_int_equal(dev_harness_mmio_read(&f.h, 0xe0000000, 4), 0x29c08086);
    dev_reset(f.dev);
    assert_int_equal(cfg_read(&f, 0x60), 0);
    assert_int_equal(dev_harness_mmio_read(&f.h, 0xe0000000, 4), 0xffffffff);
    finish(&f);
}

static void test_bad_ecam_and_reset(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ECAM);
    cfg_write(&f, 0x60, 4, ECAM | 3); /* 128 MiB */
    assert_int_equal(f.dev->guest_bugs, 1);
    assert_int_equal(dev_harness_mmio_read(&f.h, ECAM, 4), 0xffffffff);
    cfg_write(&f, 0x60, 4, 0xffffffff); /* base bits only, and not 256 MiB */
    assert_int_equal(cfg_read(&f, 0x60), 0xf0000007);
    cfg_write(&f, 0x90, 4, 0xffffffff);
    assert_int_equal(cfg_read(&f, 0x90), 0x33333330);
    dev_reset(f.dev);
    assert_int_equal(cfg_read(&f, 0x90), 0);
    assert_int_equal(dev_harness_mmio_read(&f.h, ECAM, 4), 0x29c08086);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_firmware_places_ecam),
        cmocka_unit_test(test_bad_ecam_and_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
