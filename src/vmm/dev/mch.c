/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host bridge (MCH) of the Intel Q35: what firmware and operating systems look for at 00:00.0.
 *
 * Of its registers two kinds matter here: PCIEXBAR says where ECAM is, and firmware may move it;
 * the PAM registers of the BIOS area hold what firmware writes but change nothing, since that area
 * is always RAM in this machine. There is no SMRAM, no graphics and no memory controller.
 *
 * Specification: Intel 3 Series Express Chipset Family datasheet, 316966-002, §5.1 (DRAM
 * controller, device 0).
 */
#include "vmm/dev/mch.h"

#include "spec/pci_regs.h"
#include "vmm/bus/pci.h"

#define MCH_VENDOR 0x8086
#define MCH_DEVICE 0x29c0
#define MCH_CLASS  0x060000

/* PCIEXBAR, §5.1.17: bit 0 enable, bits 2:1 length (0 = 256 MiB), bits 35:28 base. */
#define MCH_PCIEXBAR        0x60
#define MCH_PCIEXBAR_SIZE   8
#define MCH_PCIEXBAR_ENABLE 0x1u
#define MCH_PCIEXBAR_LENGTH 0x6u
#define MCH_PCIEXBAR_BASE   UINT64_C(0xff0000000)

/* Programmable attribute map, §5.1.18 to §5.1.24: PAM0 to PAM6. */
#define MCH_PAM0      0x90
#define MCH_PAM_COUNT 7

struct mch {
    struct pci_dev pci;
    uint64_t initial; /* PCIEXBAR at reset: where the machine placed ECAM */
};

static void mch_config_written(struct pci_dev *pci, unsigned offset, unsigned size)
{
    uint8_t *reg = pci->config + MCH_PCIEXBAR;
    if (offset >= MCH_PCIEXBAR + MCH_PCIEXBAR_SIZE || offset + size <= MCH_PCIEXBAR) {
        return;
    }
    uint64_t value = le64_get(reg);
    uint64_t base = PCI_ECAM_OFF;
    struct err err = ERR_INIT;
    if ((value & MCH_PCIEXBAR_ENABLE) != 0 && (value & MCH_PCIEXBAR_LENGTH) != 0) {
        dev_guest_bug(pci->dev, "PCIEXBAR 0x%llx: only 256 MiB are supported",
                      (unsigned long long)value);
    } else if ((value & MCH_PCIEXBAR_ENABLE) != 0) {
        base = value & MCH_PCIEXBAR_BASE;
    }
    if (base == pci_bus_ecam(pci->bus)) {
        return;
    }
    if (pci_bus_set_ecam(pci->bus, base, &err) < 0) {
        dev_guest_bug(pci->dev, "ECAM stays unmapped: %s", err.msg);
    }
}

static void mch_reset(struct dev *dev)
{
    struct mch *s = dev->state;
    pci_dev_reset(&s->pci);
    memset(s->pci.config + MCH_PAM0, 0, MCH_PAM_COUNT);
    le64_put(s->pci.config + MCH_PCIEXBAR, s->initial);
    mch_config_written(&s->pci, MCH_PCIEXBAR, MCH_PCIEXBAR_SIZE);
}

static int mch_init(struct dev *dev, const void *params, struct err *err)
{
    struct mch *s = dev->state;
    const struct pci_ident ident = {
        .vendor = MCH_VENDOR,
        .device = MCH_DEVICE,
        .subsystem_vendor = 0x1af4, /* as virtual machines usually say */
        .subsystem = 0x1100,
        .class_code = MCH_CLASS,
    };
    (void)params;
    int rc = pci_dev_init(&s->pci, dev, &ident, PCI_DEVFN(0, 0), err);
    if (rc < 0) {
        return rc;
    }
    uint64_t ecam = pci_bus_ecam(s->pci.bus);
    s->initial = ecam == PCI_ECAM_OFF ? 0 : ecam | MCH_PCIEXBAR_ENABLE;
    le64_put(s->pci.config + MCH_PCIEXBAR, s->initial);
    le64_put(s->pci.wmask + MCH_PCIEXBAR,
             MCH_PCIEXBAR_BASE | MCH_PCIEXBAR_LENGTH | MCH_PCIEXBAR_ENABLE);
    s->pci.wmask[MCH_PAM0] = 0x30;
    memset(s->pci.wmask + MCH_PAM0 + 1, 0x33, MCH_PAM_COUNT - 1);
    s->pci.config_written = mch_config_written;
    return 0;
}

static void mch_done(struct dev *dev)
{
    struct mch *s = dev->state;
    pci_dev_done(&s->pci);
}

const struct dev_class mch_class = {
    .name = "mch",
    .help = "Q35 host bridge",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct mch),
    .init = mch_init,
    .done = mch_done,
    .reset = mch_reset,
};
