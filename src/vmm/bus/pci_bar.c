/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Base address registers (PCI Local Bus 3.0 §6.2.5.1): sizing, moving, mapping on the buses.
 *
 * A BAR is mapped while decoding is enabled for its kind and its address can be: zero counts as
 * never assigned, and the all-ones pattern of a sizing write as no address.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "spec/pci_regs.h"
#include "vmm/bus/pci_int.h"
#include "vmm/dev/dev.h"

#define PCI_BAR_UNMAPPED UINT64_MAX

int pci_bar_add(struct pci_dev *pci, unsigned n, enum pci_bar_kind kind, uint64_t size,
                const struct bus_ops *ops, void *opaque, struct err *err)
{
    bool mem64 = kind == PCI_BAR_MEM64;
    assert(n + (mem64 ? 1 : 0) < PCI_NUM_BARS && bits_is_pow2(size));
    assert(size >= (kind == PCI_BAR_IO ? PCI_BAR_MIN_IO : PCI_BAR_MIN_MEM));
    assert(mem64 || size <= BIT(31));
    unsigned reg = PCI_REG_BAR0 + 4 * n;
    if (pci->bar[n].present || le32_get(pci->config + reg) != 0 ||
        (mem64 && pci->bar[n + 1].present)) {
        return err_set(err, -EEXIST, "%s: BAR %u is taken", pci->dev->id, n);
    }
    pci->bar[n] = (struct pci_bar){
        .present = true,
        .kind = kind,
        .size = size,
        .region = {.name = pci->dev->id,
                   .size = size,
                   .ops = ops,
                   .opaque = opaque,
                   .owner = pci->dev},
    };
    uint64_t mask = ~(size - 1);
    le32_put(pci->wmask + reg, (uint32_t)mask);
    uint16_t decode = PCI_COMMAND_MEMORY;
    if (kind == PCI_BAR_IO) {
        le32_put(pci->config + reg, PCI_BAR_IS_IO);
        decode = PCI_COMMAND_IO;
    } else if (mem64) {
        le32_put(pci->config + reg, PCI_BAR_IS_MEM64);
        le32_put(pci->wmask + reg + 4, (uint32_t)(mask >> 32));
    }
    le16_put(pci->wmask + PCI_REG_COMMAND, le16_get(pci->wmask + PCI_REG_COMMAND) | decode);
    return 0;
}

void pci_bar_set_address(struct pci_dev *pci, unsigned n, uint64_t address)
{
    const struct pci_bar *bar = &pci->bar[n];
    uint8_t *reg = pci->config + PCI_REG_BAR0 + 4 * n;
    uint32_t flags_mask = bar->kind == PCI_BAR_IO ? PCI_BAR_FLAGS_IO : PCI_BAR_FLAGS_MEM;
    le32_put(reg, (uint32_t)address | (le32_get(reg) & flags_mask));
    if (bar->kind == PCI_BAR_MEM64) {
        le32_put(reg + 4, (uint32_t)(address >> 32));
    }
}

/* Where the registers want the BAR, or PCI_BAR_UNMAPPED. */
static uint64_t pci_bar_wanted(const struct pci_dev *pci, unsigned n)
{
    const struct pci_bar *bar = &pci->bar[n];
    const uint8_t *reg = pci->config + PCI_REG_BAR0 + 4 * n;
    uint16_t command = le16_get(pci->config + PCI_REG_COMMAND);
    bool io = bar->kind == PCI_BAR_IO;
    if ((command & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) == 0) {
        return PCI_BAR_UNMAPPED;
    }
    uint64_t address = le32_get(reg) & ~(io ? PCI_BAR_FLAGS_IO : PCI_BAR_FLAGS_MEM);
    uint64_t ones = UINT32_MAX & ~(bar->size - 1);
    if (bar->kind == PCI_BAR_MEM64) {
        address |= (uint64_t)le32_get(reg + 4) << 32;
        ones = ~(bar->size - 1);
    }
    return address == 0 || address == ones ? PCI_BAR_UNMAPPED : address;
}

static uint64_t pci_bar_mapped(const struct pci_bar *bar)
{
    return bar->region.bus != NULL ? bar->region.base : PCI_BAR_UNMAPPED;
}

static void pci_bar_unmap(struct pci_bar *bar)
{
    if (bar->region.bus == NULL) {
        return;
    }
    if (bar->moved != NULL) {
        bar->moved(bar->region.opaque, PCI_BAR_UNMAPPED);
    }
    bus_unmap(&bar->region);
}

static void pci_bar_map(struct pci_dev *pci, unsigned n, uint64_t address)
{
    struct pci_bar *bar = &pci->bar[n];
    struct dev_env *env = pci->dev->env;
    struct err err = ERR_INIT;
    struct bus *bus = bar->kind == PCI_BAR_IO ? env->pio : env->mmio;
    if (bus_map(bus, &bar->region, address, &err) < 0) {
        dev_guest_bug(pci->dev, "BAR %u stays unmapped: %s", n, err.msg);
        return;
    }
    if (bar->moved != NULL) {
        bar->moved(bar->region.opaque, address);
    }
}

void pci_bar_update(struct pci_dev *pci)
{
    /* All out before one goes in, so that two BARs may change places in one command write. */
    for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
        struct pci_bar *bar = &pci->bar[n];
        if (bar->present && pci_bar_wanted(pci, n) != pci_bar_mapped(bar)) {
            pci_bar_unmap(bar);
        }
    }
    for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
        struct pci_bar *bar = &pci->bar[n];
        uint64_t wanted = bar->present ? pci_bar_wanted(pci, n) : PCI_BAR_UNMAPPED;
        if (wanted != PCI_BAR_UNMAPPED && bar->region.bus == NULL) {
            pci_bar_map(pci, n, wanted);
        }
    }
}

void pci_bar_unmap_all(struct pci_dev *pci)
{
    for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
        pci_bar_unmap(&pci->bar[n]);
    }
}
