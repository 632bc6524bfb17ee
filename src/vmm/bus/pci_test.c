/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/pci_regs.h"
#include "vmm/bus/pci.h"
#include "vmm/dev/dev_harness.h"

#define ECAM UINT64_C(0xb0000000)

/* A function with a BAR of each kind, MSI-X and a capability with a writable half. */
struct part {
    struct pci_dev pci;
    uint64_t last_write;
    unsigned moves;
    uint64_t base;
};

static uint64_t part_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)size;
    return 0xa0 + offset;
}

static void part_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct part *s = opaque;
    (void)size;
    s->last_write = offset << 32 | value;
}

static const struct bus_ops part_ops = { .read = part_read, .write = part_write };

static void part_moved(void *opaque, uint64_t base)
{
    struct part *s = opaque;
    s->moves++;
    s->base = base;
}

static int part_init(struct dev *dev, const void *params, struct err *err)
{
    struct part *s = dev->state;
    const struct pci_ident ident = {
        .vendor = 0x1234,
        .device = 0x5678,
        .class_code = 0x028000,
        .revision = 3,
        .int_pin = 1,
    };
    const uint8_t body[] = { 0x11, 0x22 };
    const uint8_t wmask[] = { 0x00, 0xf0 };
    int devfn = params != NULL ? *(const int *)params : PCI_SLOT_AUTO;
    int rc = pci_dev_init(&s->pci, dev, &ident, devfn, err);
    if (rc < 0) {
        return rc;
    }
    if (pci_bar_add(&s->pci, 0, PCI_BAR_IO, 32, &part_ops, s, err) < 0 ||
        pci_bar_add(&s->pci, 2, PCI_BAR_MEM64, 64 * KIB, &part_ops, s, err) < 0 ||
        pci_cap_add(&s->pci, PCI_CAP_ID_VENDOR, body, wmask, 4, err) < 0 ||
        pci_msix_add(&s->pci, 1, 70, err) < 0) {
        pci_dev_done(&s->pci);
        return err->code;
    }
    s->pci.bar[2].moved = part_moved;
    return 0;
}

static void part_done(struct dev *dev)
{
    struct part *s = dev->state;
    pci_dev_done(&s->pci);
}

static void part_reset(struct dev *dev)
{
    struct part *s = dev->state;
    pci_dev_reset(&s->pci);
}

static const struct dev_class part_class = {
    .name = "part",
    .help = "test function",
    .state_size = sizeof(struct part),
    .init = part_init,
    .done = part_done,
    .reset = part_reset,
};

struct fixture {
    struct dev_harness h;
    struct pci_bus *bus;
    struct dev *dev;
    struct part *part;
};

static const struct pci_windows windows = {
    .io_base = 0xc000,
    .io_end = 0x10000,
    .mem32_base = 0xc0000000,
    .mem32_end = 0xd0000000,
    .mem64_base = 64 * GIB,
    .mem64_end = 65 * GIB,
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;
    dev_harness_init(&f->h, 64 * KIB);
    assert_int_equal(pci_bus_new(&f->h.env, ECAM, &f->bus, &err), 0);
    f->h.env.pci = f->bus;
    f->dev = dev_harness_add(&f->h, &part_class, NULL);
    f->part = f->dev->state;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    struct dev *dev;
    while ((dev = TAILQ_LAST(&f->h.env.devs, dev_list)) != NULL) {
        dev_free(dev);
    }
    pci_bus_free(f->bus);
    dev_harness_done(&f->h);
    free(f);
    return 0;
}

static uint32_t cfg_read(struct fixture *f, unsigned devfn, unsigned reg, unsigned size)
{
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 4, PCI_ADDR_ENABLE | devfn << 8 | (reg & 0xfc));
    return (uint32_t)dev_harness_in(&f->h, (uint16_t)(PCI_PORT_DATA + (reg & 3)), size);
}

static void cfg_write(struct fixture *f, unsigned devfn, unsigned reg, unsigned size,
                      uint32_t value)
{
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 4, PCI_ADDR_ENABLE | devfn << 8 | (reg & 0xfc));
    dev_harness_out(&f->h, (uint16_t)(PCI_PORT_DATA + (reg & 3)), size, value);
}

#define DEVFN PCI_DEVFN(1, 0)

static void test_header_by_ports_and_ecam(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_VENDOR, 4), 0x56781234);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_DEVICE, 2), 0x5678);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_REVISION, 4), 0x02800003);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_STATUS, 2), PCI_STATUS_CAP_LIST);
    uint64_t at = ECAM + (DEVFN << PCI_ECAM_DEVFN_SHIFT);
    assert_int_equal(dev_harness_mmio_read(&f->h, at, 4), 0x56781234);
    assert_int_equal(dev_harness_mmio_read(&f->h, at + PCI_CONFIG_SIZE - 4, 4), 0);
    /* Nobody at the next slot, nor on bus 1. */
    assert_int_equal(cfg_read(f, PCI_DEVFN(2, 0), 0, 4), 0xffffffff);
    assert_int_equal(dev_harness_mmio_read(&f->h, ECAM + BIT(PCI_ECAM_BUS_SHIFT), 4), 0xffffffff);
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 4, PCI_ADDR_ENABLE | 1 << 16 | DEVFN << 8);
    assert_int_equal(dev_harness_in(&f->h, PCI_PORT_DATA, 4), 0xffffffff);
}

/* PCI 3.0 §3.2.2.3.2: without the enable bit, or by other than a dword, nothing is addressed. */
static void test_address_latch(void **state)
{
    struct fixture *f = *state;
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 4, DEVFN << 8);
    assert_int_equal(dev_harness_in(&f->h, PCI_PORT_DATA, 4), 0xffffffff);
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 4, 0xffffffff);
    assert_int_equal(dev_harness_in(&f->h, PCI_PORT_ADDRESS, 4), 0x80fffffc);
    dev_harness_out(&f->h, PCI_PORT_ADDRESS, 1, 0);
    dev_harness_out(&f->h, PCI_PORT_ADDRESS + 1, 1, 0x06);
    assert_int_equal(dev_harness_in(&f->h, PCI_PORT_ADDRESS, 4), 0x80fffffc);
}

static void test_write_masks(void **state)
{
    struct fixture *f = *state;
    cfg_write(f, DEVFN, PCI_REG_VENDOR, 4, 0);
    cfg_write(f, DEVFN, PCI_REG_CLASS, 2, 0xffff);
    cfg_write(f, DEVFN, PCI_REG_INT_PIN, 1, 4);
    cfg_write(f, DEVFN, PCI_REG_INT_LINE, 1, 0x5a);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_VENDOR, 4), 0x56781234);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_REVISION, 4), 0x02800003);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_INT_LINE, 2), 0x015a);
    cfg_write(f, DEVFN, PCI_REG_COMMAND, 2, 0xffff);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_COMMAND, 2), 0x0547);
    unsigned cap = cfg_read(f, DEVFN, PCI_REG_CAP_PTR, 1);
    cfg_write(f, DEVFN, cap, 4, 0xffffffff);
    assert_int_equal(cfg_read(f, DEVFN, cap, 1), PCI_CAP_ID_VENDOR);
    assert_int_equal(cfg_read(f, DEVFN, cap + 2, 2), 0xf211);
}

static void test_capability_list(void **state)
{
    struct fixture *f = *state;
    unsigned at = cfg_read(f, DEVFN, PCI_REG_CAP_PTR, 1);
    assert_int_equal(at, 0x40);
    at = cfg_read(f, DEVFN, at + 1, 1);
    assert_int_equal(cfg_read(f, DEVFN, at, 1), PCI_CAP_ID_MSIX);
    assert_int_equal(cfg_read(f, DEVFN, at + 1, 1), 0);
    assert_int_equal(cfg_read(f, DEVFN, at + PCI_MSIX_CONTROL, 2), 69);
    struct err err = ERR_INIT;
    uint8_t body[254] = { 0 };
    assert_int_equal(pci_cap_add(&f->part->pci, 0x42, body, NULL, sizeof(body), &err), -ENOSPC);
}

static void test_bar_sizing(void **state)
{
    struct fixture *f = *state;
    for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
        cfg_write(f, DEVFN, PCI_REG_BAR0 + 4 * n, 4, 0xffffffff);
    }
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_BAR0, 4), 0xffffffe1);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_BAR0 + 4, 4), 0xfffff000);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_BAR0 + 8, 4), 0xffff0004);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_BAR0 + 12, 4), 0xffffffff);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_BAR0 + 16, 4), 0);
    /* With decoding on, the all-ones pattern maps nothing and is no guest error. */
    cfg_write(f, DEVFN, PCI_REG_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    assert_int_equal(f->part->moves, 0);
    assert_int_equal(f->dev->guest_bugs, 0);
}

static void test_bar_moving(void **state)
{
    struct fixture *f = *state;
    cfg_write(f, DEVFN, PCI_REG_BAR0 + 8, 4, 0xc0000000);
    assert_int_equal(dev_harness_mmio_read(&f->h, 0xc0000010, 1), 0xff);
    cfg_write(f, DEVFN, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(dev_harness_mmio_read(&f->h, 0xc0000010, 1), 0xb0);
    assert_int_equal(f->part->base, 0xc0000000);
    cfg_write(f, DEVFN, PCI_REG_BAR0 + 12, 4, 0x10);
    assert_int_equal(f->part->base, UINT64_C(0x10c0000000));
    assert_int_equal(dev_harness_mmio_read(&f->h, 0xc0000010, 1), 0xff);
    dev_harness_mmio_write(&f->h, UINT64_C(0x10c0000020), 1, 7);
    assert_int_equal(f->part->last_write, UINT64_C(0x2000000007));
    cfg_write(f, DEVFN, PCI_REG_COMMAND, 2, 0);
    assert_int_equal(f->part->base, UINT64_MAX);
    /* Onto ECAM: refused, counted; ECAM still answers. */
    cfg_write(f, DEVFN, PCI_REG_BAR0 + 12, 4, 0);
    cfg_write(f, DEVFN, PCI_REG_BAR0 + 8, 4, ECAM);
    cfg_write(f, DEVFN, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(f->part->base, UINT64_MAX);
    assert_int_equal(f->dev->guest_bugs, 1);
    assert_int_equal(dev_harness_mmio_read(&f->h, ECAM + (DEVFN << 12), 2), 0x1234);
    cfg_write(f, DEVFN, PCI_REG_BAR0 + 12, 4, 0x80000000); /* beyond physical addresses */
    assert_int_equal(f->part->base, UINT64_MAX);
}

static void test_assign_and_reset(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct dev *second = dev_harness_add(&f->h, &part_class, NULL);
    struct part *part2 = second->state;
    assert_int_equal(part2->pci.devfn, PCI_DEVFN(2, 0));
    assert_int_equal(pci_bus_assign(f->bus, &windows, &err), 0);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_BAR0, 4), 0xc001);
    assert_int_equal(cfg_read(f, PCI_DEVFN(2, 0), PCI_REG_BAR0, 4), 0xc021);
    assert_int_equal(f->part->base, 64 * GIB);
    assert_int_equal(part2->base, 64 * GIB + 64 * KIB);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_INT_LINE, 1), 17);
    assert_int_equal(dev_harness_inb(&f->h, 0xc003), 0xa3);
    cfg_write(f, DEVFN, PCI_REG_BAR0, 4, 0xd000);
    assert_int_equal(dev_harness_inb(&f->h, 0xd003), 0xa3);
    dev_reset(f->dev);
    assert_int_equal(dev_harness_inb(&f->h, 0xd003), 0xff);
    assert_int_equal(dev_harness_inb(&f->h, 0xc003), 0xa3);
    struct pci_windows small = windows;
    small.io_end = 0xc010;
    assert_int_equal(pci_bus_assign(f->bus, &small, &err), -ENOSPC);
    assert_non_null(strstr(err.msg, "part"));
}

static void test_slots(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct dev *dev;
    int taken = DEVFN;
    assert_int_equal(dev_new(&f->h.env, &part_class, "again", &taken, &dev, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "part"));
    unsigned n = 1;
    while (dev_new(&f->h.env, &part_class, "more", NULL, &dev, &err) == 0) {
        n++;
    }
    assert_int_equal(n, 31);
    assert_int_equal(err.code, -ENOSPC);
}

/* INTx: OR of the functions on a line, the disable bit, the status bit (PCI 3.0 §6.2.2, §6.2.3). */
static void test_intx(void **state)
{
    struct fixture *f = *state;
    int devfn = PCI_DEVFN(9, 0); /* shares the line of slot 1 */
    struct dev *other = dev_harness_add(&f->h, &part_class, &devfn);
    struct part *part2 = other->state;
    assert_int_equal(pci_bus_gsi(1, 1), 17);
    assert_int_equal(pci_bus_gsi(9, 1), 17);
    assert_int_equal(pci_bus_gsi(8, 4), 19);
    pci_intx(&f->part->pci, 1);
    pci_intx(&part2->pci, 1);
    pci_intx(&part2->pci, 1);
    assert_int_equal(f->h.gsi_level[17], 1);
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_STATUS, 1) & PCI_STATUS_INTERRUPT,
                     PCI_STATUS_INTERRUPT);
    pci_intx(&f->part->pci, 0);
    assert_int_equal(f->h.gsi_level[17], 1);
    cfg_write(f, PCI_DEVFN(9, 0), PCI_REG_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    assert_int_equal(f->h.gsi_level[17], 0);
    assert_int_equal(f->h.gsi_rises[17], 1);
    cfg_write(f, PCI_DEVFN(9, 0), PCI_REG_COMMAND, 2, 0);
    assert_int_equal(f->h.gsi_level[17], 1);
    dev_reset(other);
    assert_int_equal(f->h.gsi_level[17], 0);
}

#define MSIX_BASE  UINT64_C(0xc0000000)
#define MSIX_ENTRY (MSIX_BASE + 16 * 3)

static unsigned msix_open(struct fixture *f)
{
    struct err err = ERR_INIT;
    assert_int_equal(pci_bus_assign(f->bus, &windows, &err), 0);
    return f->part->pci.msix.cap + PCI_MSIX_CONTROL;
}

static void test_msix_fire_and_mask(void **state)
{
    struct fixture *f = *state;
    unsigned ctrl = msix_open(f);
    uint64_t pba = MSIX_BASE + 0x800;
    assert_int_equal(cfg_read(f, DEVFN, PCI_REG_BAR0 + 4, 4), MSIX_BASE);
    assert_int_equal(dev_harness_mmio_read(&f->h, MSIX_ENTRY + 12, 4), 1); /* masked at reset */
    dev_harness_mmio_write(&f->h, MSIX_ENTRY, 8, 0xfee01000);
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 8, 4, 0x4031);
    assert_int_equal(dev_harness_mmio_read(&f->h, MSIX_ENTRY, 8), 0xfee01000);
    pci_msix_notify(&f->part->pci, 3); /* not enabled: lost, the device uses INTx */
    assert_int_equal(dev_harness_mmio_read(&f->h, pba, 8), 0);

    cfg_write(f, DEVFN, ctrl, 2, PCI_MSIX_CTRL_ENABLE);
    assert_true(pci_msix_enabled(&f->part->pci));
    pci_msix_notify(&f->part->pci, 3);
    assert_int_equal(dev_harness_mmio_read(&f->h, pba, 8), 8);
    assert_int_equal(dev_harness_msi_fired(&f->h, 0x4031), 0);
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 12, 4, 0); /* unmask: the pending one fires */
    assert_int_equal(dev_harness_mmio_read(&f->h, pba, 8), 0);
    assert_int_equal(dev_harness_msi_fired(&f->h, 0x4031), 1);
    pci_msix_notify(&f->part->pci, 3);
    assert_int_equal(dev_harness_msi_fired(&f->h, 0x4031), 2);

    cfg_write(f, DEVFN, ctrl, 2, PCI_MSIX_CTRL_ENABLE | PCI_MSIX_CTRL_MASK_ALL);
    pci_msix_notify(&f->part->pci, 3);
    pci_msix_notify(&f->part->pci, 69);
    pci_msix_notify(&f->part->pci, 70);
    assert_int_equal(dev_harness_mmio_read(&f->h, pba + 8, 8), BIT64(69 - 64));
    cfg_write(f, DEVFN, ctrl, 2, PCI_MSIX_CTRL_ENABLE);
    assert_int_equal(dev_harness_msi_fired(&f->h, 0x4031), 3);
    assert_int_equal(dev_harness_mmio_read(&f->h, pba + 8, 8), BIT64(69 - 64));

    dev_reset(f->dev);
    assert_false(pci_msix_enabled(&f->part->pci));
    assert_int_equal(dev_harness_mmio_read(&f->h, MSIX_ENTRY + 12, 4), 1);
    assert_int_equal(dev_harness_mmio_read(&f->h, pba + 8, 8), 0);
}

/* The table follows the guest's edits at any time; the slot only when it can fire. */
static void test_msix_reprogram(void **state)
{
    struct fixture *f = *state;
    cfg_write(f, DEVFN, msix_open(f), 2, PCI_MSIX_CTRL_ENABLE);
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 8, 4, 0x51);
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 12, 4, 0xfffffffe); /* reserved bits drop */
    assert_int_equal(dev_harness_mmio_read(&f->h, MSIX_ENTRY + 12, 4), 0);
    pci_msix_notify(&f->part->pci, 3);
    assert_int_equal(dev_harness_msi_fired(&f->h, 0x51), 1);
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 8, 4, 0x52); /* while unmasked */
    pci_msix_notify(&f->part->pci, 3);
    assert_int_equal(dev_harness_msi_fired(&f->h, 0x52), 2); /* the one slot, renamed */
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 12, 4, 1);
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 8, 4, 0x53);
    assert_int_equal(dev_harness_msi_fired(&f->h, 0x53), 0);
    /* Odd accesses change nothing. */
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 8, 1, 0x99);
    dev_harness_mmio_write(&f->h, MSIX_ENTRY + 10, 4, 0x99999999);
    dev_harness_mmio_write(&f->h, MSIX_BASE + 0x800, 8, UINT64_MAX);
    assert_int_equal(dev_harness_mmio_read(&f->h, MSIX_ENTRY + 8, 4), 0x53);
    assert_int_equal(dev_harness_mmio_read(&f->h, MSIX_BASE + 0x800, 8), 0);
}

static void test_ecam_moves(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    assert_int_equal(pci_bus_ecam(f->bus), ECAM);
    assert_int_equal(pci_bus_set_ecam(f->bus, PCI_ECAM_OFF, &err), 0);
    assert_int_equal(dev_harness_mmio_read(&f->h, ECAM + (DEVFN << 12), 2), 0xffff);
    assert_int_equal(pci_bus_set_ecam(f->bus, 0xe0000000, &err), 0);
    assert_int_equal(dev_harness_mmio_read(&f->h, 0xe0000000 + (DEVFN << 12), 2), 0x1234);
    assert_int_equal(pci_bus_set_ecam(f->bus, UINT64_C(1) << 60, &err), -EINVAL);
    assert_int_equal(pci_bus_ecam(f->bus), PCI_ECAM_OFF);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_header_by_ports_and_ecam), T(test_address_latch),  T(test_write_masks),
        T(test_capability_list),          T(test_bar_sizing),     T(test_bar_moving),
        T(test_assign_and_reset),         T(test_slots),          T(test_intx),
        T(test_msix_fire_and_mask),       T(test_msix_reprogram), T(test_ecam_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
