/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bridge's registers hold what firmware and drivers write. Three of them act: PMBASE and
 * ACPI_CNTL place the ACPI block, RCBA shows the chip set configuration registers, which are plain
 * memory here.
 *
 * QUIRK: the PIRQ routing registers can be written, but route nothing: PCI interrupts go straight
 * to I/O APIC inputs 16 to 23 (the _PRT), never to the 8259s.
 */
#include "vmm/dev/lpc.h"

#include <errno.h>

#include "vmm/bus/pci.h"
#include "vmm/dev/pm.h"
#include "vmm/layout.h"

#define SLOT      0x1f
#define VENDOR    0x8086
#define DEVICE    0x2918 /* 82801IB (ICH9) LPC interface controller */
#define CLASS_ISA 0x060100
#define REVISION  2

#define R_PMBASE    0x40
#define R_ACPI_CNTL 0x44
#define R_PIRQ_A    0x60 /* to 0x63, PIRQ A to D */
#define R_PIRQ_E    0x68 /* to 0x6b, PIRQ E to H */
#define R_LPC_IODEC 0x80
#define R_LPC_EN    0x82
#define R_GEN_DEC   0x84 /* four registers of 4 bytes */
#define R_RCBA      0xf0

#define PMBASE_IO    1u
#define PMBASE_MASK  0xff80u
#define ACPI_EN      0x80
#define ACPI_SCI_IRQ 0x07 /* 0 = irq 9 */
#define PIRQ_OFF     0x80
#define PIRQ_MASK    0x8f
#define RCBA_EN      1u
#define RCBA_MASK    0xffffc000u
#define RCBA_REGS    0x3000 /* chip set configuration registers begin here */
#define RCBA_SIZE    0x1000

#define APM_PORTS 2 /* command and data; the command would raise an SMI, and there is no SMM */

struct lpc {
    struct dev *dev;
    struct dev *pm;
    struct pci_dev pci;
    struct bus_region rcba_region;
    struct bus_region apm_region;
    uint8_t apm[APM_PORTS];
    uint8_t rcba[RCBA_SIZE];
};

static uint64_t rcba_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct lpc *s = opaque;
    uint64_t value = 0;
    memcpy(&value, s->rcba + offset, size);
    return value;
}

static void rcba_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct lpc *s = opaque;
    memcpy(s->rcba + offset, &value, size);
}

static uint64_t apm_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct lpc *s = opaque;
    (void)size;
    return s->apm[offset];
}

static void apm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct lpc *s = opaque;
    (void)size;
    s->apm[offset] = (uint8_t)value;
}

static const struct bus_ops rcba_ops = { .read = rcba_read, .write = rcba_write, .max_size = 4 };
static const struct bus_ops apm_ops = { .read = apm_read, .write = apm_write, .max_size = 1 };

/* Puts the ACPI block and the RCBA window where the registers say. */
static void lpc_place(struct lpc *s)
{
    const uint8_t *c = s->pci.config;
    pm_move(s->pm, (uint16_t)(le16_get(c + R_PMBASE) & PMBASE_MASK),
            (c[R_ACPI_CNTL] & ACPI_EN) != 0);

    uint32_t rcba = le32_get(c + R_RCBA);
    bus_unmap(&s->rcba_region);
    struct err err = ERR_INIT;
    if ((rcba & RCBA_EN) != 0 &&
        bus_map(s->dev->env->mmio, &s->rcba_region, (rcba & RCBA_MASK) + RCBA_REGS, &err) < 0) {
        dev_guest_bug(s->dev, "cannot map RCBA: %s", err.msg);
    }
}

static void lpc_config_written(struct pci_dev *pci, unsigned offset, unsigned size)
{
    struct lpc *s = container_of(pci, struct lpc, pci);
    bool pm = offset < R_ACPI_CNTL + 1 && offset + size > R_PMBASE;
    bool rcba = offset < R_RCBA + 4 && offset + size > R_RCBA;
    if (pm || rcba) {
        lpc_place(s);
    }
}

/* Power-on values, with the ACPI block as firmware would have placed it: direct boot has none. */
static void lpc_set_defaults(struct lpc *s)
{
    uint8_t *c = s->pci.config;
    le32_put(c + R_PMBASE, LAYOUT_PORT_PM | PMBASE_IO);
    c[R_ACPI_CNTL] = ACPI_EN;
    memset(c + R_PIRQ_A, PIRQ_OFF, 4);
    memset(c + R_PIRQ_E, PIRQ_OFF, 4);
    le16_put(c + R_LPC_IODEC, 0);
    le16_put(c + R_LPC_EN, 0);
    memset(c + R_GEN_DEC, 0, 16);
    le32_put(c + R_RCBA, 0);
    memset(s->rcba, 0, sizeof(s->rcba));
    memset(s->apm, 0, sizeof(s->apm));
}

static void lpc_set_masks(struct lpc *s)
{
    uint8_t *m = s->pci.wmask;
    le32_put(m + R_PMBASE, PMBASE_MASK);
    m[R_ACPI_CNTL] = ACPI_EN | ACPI_SCI_IRQ;
    memset(m + R_PIRQ_A, PIRQ_MASK, 4);
    memset(m + R_PIRQ_E, PIRQ_MASK, 4);
    le16_put(m + R_LPC_IODEC, 0x1377);
    le16_put(m + R_LPC_EN, 0x3fff);
    for (unsigned i = 0; i < 4; i++) {
        le32_put(m + R_GEN_DEC + 4 * i, 0x00fcfffd);
    }
    le32_put(m + R_RCBA, RCBA_MASK | RCBA_EN);
}

static void lpc_reset(struct dev *dev)
{
    struct lpc *s = dev->state;
    pci_dev_reset(&s->pci);
    lpc_set_defaults(s);
    lpc_place(s);
}

static void lpc_done(struct dev *dev)
{
    struct lpc *s = dev->state;
    bus_unmap(&s->apm_region);
    bus_unmap(&s->rcba_region);
    pci_dev_done(&s->pci);
}

static int lpc_init(struct dev *dev, const void *params, struct err *err)
{
    struct lpc *s = dev->state;
    const struct lpc_params *p = params;
    static const struct pci_ident ident = {
        .vendor = VENDOR, .device = DEVICE, .class_code = CLASS_ISA, .revision = REVISION
    };
    s->dev = dev;
    s->pm = p->pm;
    s->rcba_region = (struct bus_region){
        .name = "rcba", .size = RCBA_SIZE, .ops = &rcba_ops, .opaque = s, .owner = dev
    };
    s->apm_region = (struct bus_region){
        .name = "apm", .size = APM_PORTS, .ops = &apm_ops, .opaque = s, .owner = dev
    };
    int rc = pci_dev_init(&s->pci, dev, &ident, PCI_DEVFN(SLOT, 0), err);
    if (rc < 0) {
        return rc;
    }
    rc = bus_map(dev->env->pio, &s->apm_region, LAYOUT_PORT_APM_CMD, err);
    if (rc < 0) {
        lpc_done(dev);
        return rc;
    }
    lpc_set_masks(s);
    lpc_set_defaults(s);
    lpc_place(s);
    s->pci.config_written = lpc_config_written;
    return 0;
}

const struct dev_class lpc_class = {
    .name = "lpc",
    .help = "ICH9 LPC bridge",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct lpc),
    .init = lpc_init,
    .done = lpc_done,
    .reset = lpc_reset,
};
