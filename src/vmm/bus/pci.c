/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One PCI function: its configuration space (PCI Local Bus 3.0 §6).
 *
 * Every byte of configuration space has a mask of bits that the guest may write and one of bits
 * that a written 1 clears; what else a register does hangs on pci_config_write(): BARs and command
 * in pci_bar.c, MSI-X in pci_msix.c, interrupt lines in pci_bus.c.
 */
#include <errno.h>

#include "spec/pci_regs.h"
#include "vmm/bus/pci_int.h"
#include "vmm/dev/dev.h"

static void pci_init_header(struct pci_dev *pci, const struct pci_ident *ident)
{
    uint8_t *c = pci->config;
    le16_put(c + PCI_REG_VENDOR, ident->vendor);
    le16_put(c + PCI_REG_DEVICE, ident->device);
    c[PCI_REG_REVISION] = ident->revision;
    c[PCI_REG_CLASS] = (uint8_t)ident->class_code;
    le16_put(c + PCI_REG_CLASS + 1, (uint16_t)(ident->class_code >> 8));
    c[PCI_REG_HEADER_TYPE] = ident->header_type;
    le16_put(c + PCI_REG_SUBSYS_VENDOR, ident->subsystem_vendor);
    le16_put(c + PCI_REG_SUBSYS, ident->subsystem);
    c[PCI_REG_INT_PIN] = ident->int_pin;

    le16_put(pci->wmask + PCI_REG_COMMAND,
             PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
    le16_put(pci->w1c + PCI_REG_STATUS, PCI_STATUS_W1C);
    pci->wmask[PCI_REG_CACHE_LINE] = 0xff;
    pci->wmask[PCI_REG_LATENCY] = 0xff;
    pci->wmask[PCI_REG_INT_LINE] = 0xff;
    pci->next_cap = PCI_HEADER_SIZE;
}

int pci_dev_init(struct pci_dev *pci, struct dev *dev, const struct pci_ident *ident,
                 int devfn_or_auto, struct err *err)
{
    struct pci_bus *bus = dev->env->pci;
    if (bus == NULL) {
        return err_set(err, -ENODEV, "the machine has no PCI bus");
    }
    pci->dev = dev;
    pci_init_header(pci, ident);
    int rc = pci_bus_attach(bus, pci, devfn_or_auto, err);
    if (rc < 0) {
        return rc;
    }
    pci->bus = bus;
    return 0;
}

void pci_dev_done(struct pci_dev *pci)
{
    if (pci->bus == NULL) {
        return;
    }
    pci_intx(pci, 0);
    pci_bus_detach(pci);
    pci_bar_unmap_all(pci);
    pci_msix_done(pci);
    pci->bus = NULL;
}

void pci_dev_reset(struct pci_dev *pci)
{
    pci_intx(pci, 0);
    pci_msix_reset(pci);
    uint16_t command = 0;
    for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
        if (pci->bar[n].present) {
            pci_bar_set_address(pci, n, pci->bar[n].assigned);
        }
    }
    if (pci->assigned) {
        command = le16_get(pci->wmask + PCI_REG_COMMAND) &
                  (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    }
    le16_put(pci->config + PCI_REG_COMMAND, command);
    pci_bar_update(pci);
    pci_bus_update_intx(pci);
}

int pci_cap_add(struct pci_dev *pci, uint8_t id, const void *body, const void *wmask, size_t len,
                struct err *err)
{
    unsigned offset = pci->next_cap;
    if (len < 2 || offset + len > PCI_CONVENTIONAL) {
        return err_set(err, -ENOSPC,
                       "no room for PCI capability 0x%02x of %zu bytes at 0x%02x (256 in all)", id,
                       len, offset);
    }
    /* The list is kept in the order of addition: find its end. */
    uint8_t *link = &pci->config[PCI_REG_CAP_PTR];
    while (*link != 0) {
        link = &pci->config[*link + 1];
    }
    *link = (uint8_t)offset;
    pci->config[offset] = id;
    memcpy(&pci->config[offset + 2], body, len - 2);
    if (wmask != NULL) {
        memcpy(&pci->wmask[offset + 2], wmask, len - 2);
    }
    le16_put(pci->config + PCI_REG_STATUS,
             le16_get(pci->config + PCI_REG_STATUS) | PCI_STATUS_CAP_LIST);
    pci->next_cap = (uint16_t)bits_align_up(offset + len, 4);
    return (int)offset;
}

uint32_t pci_config_read(struct pci_dev *pci, unsigned offset, unsigned size)
{
    if (offset + size > PCI_CONFIG_SIZE) {
        return (uint32_t)bits_mask_bytes(size);
    }
    if (pci->config_reading != NULL) {
        pci->config_reading(pci, offset, size);
    }
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = pci->config[offset + i];
        if (offset + i == PCI_REG_STATUS) {
            pthread_mutex_lock(&pci->bus->lock);
            byte |= pci->intx_level ? PCI_STATUS_INTERRUPT : 0;
            pthread_mutex_unlock(&pci->bus->lock);
        }
        value |= (uint32_t)byte << (8 * i);
    }
    return value;
}

static bool pci_touches(unsigned offset, unsigned size, unsigned reg, unsigned reg_size)
{
    return offset < reg + reg_size && reg < offset + size;
}

void pci_config_write(struct pci_dev *pci, unsigned offset, unsigned size, uint32_t value)
{
    if (offset + size > PCI_CONFIG_SIZE) {
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> (8 * i));
        uint8_t *at = &pci->config[offset + i];
        uint8_t mask = pci->wmask[offset + i];
        *at = (uint8_t)(((*at & ~mask) | (byte & mask)) & ~(byte & pci->w1c[offset + i]));
    }
    if (pci_touches(offset, size, PCI_REG_COMMAND, 2) ||
        pci_touches(offset, size, PCI_REG_BAR0, PCI_NUM_BARS * 4)) {
        pci_bar_update(pci);
    }
    if (pci_touches(offset, size, PCI_REG_COMMAND, 2)) {
        pci_bus_update_intx(pci);
    }
    if (pci->msix.count > 0) {
        pci_msix_config_written(pci, offset, size);
    }
    if (pci->config_written != NULL) {
        pci->config_written(pci, offset, size);
    }
}

void pci_intx(struct pci_dev *pci, int level)
{
    if (pci->config[PCI_REG_INT_PIN] == 0) {
        return;
    }
    pthread_mutex_lock(&pci->bus->lock);
    pci->intx_level = level != 0;
    pthread_mutex_unlock(&pci->bus->lock);
    pci_bus_update_intx(pci);
}
