/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bus 0: the two ways into configuration space, the interrupt lines, and the placing of BARs when
 * no firmware does it.
 *
 * The bus itself is no device and has no lock that a configuration access holds: it takes the lock
 * of the function's device, as the buses do for regions. Specifications: PCI Local Bus 3.0
 * §3.2.2.3.2 (ports), PCI Express Base 4.0 §7.2.2 (ECAM).
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "spec/pci_regs.h"
#include "vmm/bus/pci_int.h"
#include "vmm/dev/dev.h"

#define PCI_BUS_GSI_BASE   16
#define PCI_BUS_FIRST_SLOT 1 /* slot 0 is the host bridge */
#define PCI_BUS_SLOTS      32

static uint32_t pci_bus_config_read(struct pci_bus *bus, unsigned busno, unsigned devfn,
                                    unsigned reg, unsigned size)
{
    struct pci_dev *pci = busno == 0 ? bus->func[devfn] : NULL;
    if (pci == NULL) {
        return (uint32_t)bits_mask_bytes(size); /* master abort */
    }
    dev_lock(pci->dev);
    uint32_t value = pci_config_read(pci, reg, size);
    dev_unlock(pci->dev);
    return value;
}

static void pci_bus_config_write(struct pci_bus *bus, unsigned busno, unsigned devfn, unsigned reg,
                                 unsigned size, uint32_t value)
{
    struct pci_dev *pci = busno == 0 ? bus->func[devfn] : NULL;
    if (pci == NULL) {
        return;
    }
    dev_lock(pci->dev);
    pci_config_write(pci, reg, size, value);
    dev_unlock(pci->dev);
}

/* Only dword accesses reach the latch (PCI 3.0 §3.2.2.3.2); others are ordinary I/O, of which a
 * PC has the reset register at 0xcf9. */
static uint64_t pci_bus_address_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = opaque;
    if (offset != 0 || size != 4) {
        return bits_mask_bytes(size);
    }
    return atomic_load_explicit(&bus->address, memory_order_relaxed);
}

static void pci_bus_address_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = opaque;
    if (offset == 0 && size == 4) {
        /* Relaxed: guests serialise address and data with a lock of their own. */
        atomic_store_explicit(&bus->address, (uint32_t)value & ~0x7f000003u, memory_order_relaxed);
    }
}

static uint64_t pci_bus_data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = opaque;
    uint32_t a = atomic_load_explicit(&bus->address, memory_order_relaxed);
    if ((a & PCI_ADDR_ENABLE) == 0) {
        return bits_mask_bytes(size);
    }
    return pci_bus_config_read(bus, (a >> 16) & 0xff, (a >> 8) & 0xff,
                               (a & 0xfc) + (unsigned)offset, size);
}

static void pci_bus_data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = opaque;
    uint32_t a = atomic_load_explicit(&bus->address, memory_order_relaxed);
    if ((a & PCI_ADDR_ENABLE) != 0) {
        pci_bus_config_write(bus, (a >> 16) & 0xff, (a >> 8) & 0xff, (a & 0xfc) + (unsigned)offset,
                             size, (uint32_t)value);
    }
}

static uint64_t pci_bus_ecam_read(void *opaque, uint64_t offset, unsigned size)
{
    return pci_bus_config_read(opaque, (unsigned)(offset >> PCI_ECAM_BUS_SHIFT),
                               (unsigned)(offset >> PCI_ECAM_DEVFN_SHIFT) & 0xff,
                               (unsigned)offset & (PCI_CONFIG_SIZE - 1), size);
}

static void pci_bus_ecam_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    pci_bus_config_write(opaque, (unsigned)(offset >> PCI_ECAM_BUS_SHIFT),
                         (unsigned)(offset >> PCI_ECAM_DEVFN_SHIFT) & 0xff,
                         (unsigned)offset & (PCI_CONFIG_SIZE - 1), size, (uint32_t)value);
}

static const struct bus_ops pci_bus_address_ops = {
    .read = pci_bus_address_read,
    .write = pci_bus_address_write,
    .max_size = 4,
};
static const struct bus_ops pci_bus_data_ops = {
    .read = pci_bus_data_read,
    .write = pci_bus_data_write,
    .max_size = 4,
};
static const struct bus_ops pci_bus_ecam_ops = {
    .read = pci_bus_ecam_read,
    .write = pci_bus_ecam_write,
    .max_size = 4,
};

int pci_bus_new(struct dev_env *env, uint64_t ecam_base, struct pci_bus **ret_bus, struct err *err)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));
    if (bus == NULL) {
        return err_set(err, -ENOMEM, "PCI bus: out of memory");
    }
    bus->env = env;
    pthread_mutex_init(&bus->lock, NULL);
    bus->address_region = (struct bus_region){
        .name = "pci-address", .size = 4, .ops = &pci_bus_address_ops, .opaque = bus
    };
    bus->data_region = (struct bus_region){
        .name = "pci-data", .size = 4, .ops = &pci_bus_data_ops, .opaque = bus
    };
    bus->ecam = (struct bus_region){
        .name = "pci-ecam", .size = PCI_ECAM_SIZE, .ops = &pci_bus_ecam_ops, .opaque = bus
    };
    int rc = bus_map(env->pio, &bus->address_region, PCI_PORT_ADDRESS, err);
    if (rc == 0) {
        rc = bus_map(env->pio, &bus->data_region, PCI_PORT_DATA, err);
    }
    if (rc == 0) {
        rc = pci_bus_set_ecam(bus, ecam_base, err);
    }
    if (rc < 0) {
        pci_bus_free(bus);
        return rc;
    }
    *ret_bus = bus;
    return 0;
}

void pci_bus_free(struct pci_bus *bus)
{
    if (bus == NULL) {
        return;
    }
    for (unsigned i = 0; i < PCI_BUS_FUNCTIONS; i++) {
        assert(bus->func[i] == NULL);
    }
    bus_unmap(&bus->ecam);
    bus_unmap(&bus->data_region);
    bus_unmap(&bus->address_region);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

int pci_bus_set_ecam(struct pci_bus *bus, uint64_t base, struct err *err)
{
    bus_unmap(&bus->ecam);
    return base == PCI_ECAM_OFF ? 0 : bus_map(bus->env->mmio, &bus->ecam, base, err);
}

uint64_t pci_bus_ecam(const struct pci_bus *bus)
{
    return bus->ecam.bus != NULL ? bus->ecam.base : PCI_ECAM_OFF;
}

struct pci_dev *pci_bus_find(const struct pci_bus *bus, uint8_t devfn)
{
    return bus->func[devfn];
}

int pci_bus_attach(struct pci_bus *bus, struct pci_dev *pci, int devfn_or_auto, struct err *err)
{
    if (devfn_or_auto == PCI_SLOT_AUTO) {
        for (int slot = PCI_BUS_FIRST_SLOT; slot < PCI_BUS_SLOTS; slot++) {
            if (bus->func[PCI_DEVFN(slot, 0)] == NULL) {
                devfn_or_auto = PCI_DEVFN(slot, 0);
                break;
            }
        }
    }
    if (devfn_or_auto == PCI_SLOT_AUTO) {
        return err_set(err, -ENOSPC, "PCI bus 0 is full (%d slots)", PCI_BUS_SLOTS);
    }
    assert(devfn_or_auto >= 0 && devfn_or_auto < PCI_BUS_FUNCTIONS);
    if (bus->func[devfn_or_auto] != NULL) {
        return err_set(err, -EEXIST, "PCI slot %02x.%d is taken by '%s'", devfn_or_auto >> 3,
                       devfn_or_auto & 7, bus->func[devfn_or_auto]->dev->id);
    }
    bus->func[devfn_or_auto] = pci;
    pci->devfn = (uint8_t)devfn_or_auto;
    return 0;
}

void pci_bus_detach(struct pci_dev *pci)
{
    assert(pci->bus->func[pci->devfn] == pci);
    pci->bus->func[pci->devfn] = NULL;
}

unsigned pci_bus_gsi(unsigned slot, unsigned pin)
{
    return (slot + pin - 1) % PCI_BUS_LINES + PCI_BUS_GSI_BASE;
}

void pci_bus_update_intx(struct pci_dev *pci)
{
    struct pci_bus *bus = pci->bus;
    unsigned pin = pci->config[PCI_REG_INT_PIN];
    if (pin == 0) {
        return;
    }
    unsigned gsi = pci_bus_gsi(pci->devfn >> 3, pin);
    unsigned line = gsi - PCI_BUS_GSI_BASE;
    pthread_mutex_lock(&bus->lock);
    bool off = (le16_get(pci->config + PCI_REG_COMMAND) & PCI_COMMAND_INTX_DISABLE) != 0;
    bool want = pci->intx_level && !off;
    if (want != pci->intx_asserted) {
        pci->intx_asserted = want;
        bus->line_users[line] += want ? 1 : UINT32_MAX; /* + 1 or - 1 */
        if (bus->line_users[line] == (want ? 1 : 0)) {
            /* Inside the lock, so that the level the engine sees last is the true one. */
            bus->env->ops->irq_set(bus->env, gsi, want ? 1 : 0);
        }
    }
    pthread_mutex_unlock(&bus->lock);
}

static int pci_bus_place(uint64_t *at, uint64_t end, uint64_t size, uint64_t *ret_address)
{
    uint64_t base;
    uint64_t top;
    if (ckd_add(&base, *at, size - 1)) {
        return -ENOSPC;
    }
    base = bits_align_down(base, size);
    if (ckd_add(&top, base, size) || top > end) {
        return -ENOSPC;
    }
    *ret_address = base;
    *at = top;
    return 0;
}

static int pci_bus_assign_bar(struct pci_dev *pci, unsigned n, struct pci_windows *left,
                              struct err *err)
{
    struct pci_bar *bar = &pci->bar[n];
    int rc = -ENOSPC;
    if (bar->kind == PCI_BAR_IO) {
        rc = pci_bus_place(&left->io_base, left->io_end, bar->size, &bar->assigned);
    }
    if (bar->kind == PCI_BAR_MEM64) {
        rc = pci_bus_place(&left->mem64_base, left->mem64_end, bar->size, &bar->assigned);
    }
    if (bar->kind != PCI_BAR_IO && rc < 0) {
        rc = pci_bus_place(&left->mem32_base, left->mem32_end, bar->size, &bar->assigned);
    }
    if (rc < 0) {
        return err_set(err, rc, "%s: no room in the PCI window for BAR %u of 0x%" PRIx64 " bytes",
                       pci->dev->id, n, bar->size);
    }
    return 0;
}

int pci_bus_assign(struct pci_bus *bus, const struct pci_windows *windows, struct err *err)
{
    struct pci_windows left = *windows;
    for (unsigned i = 0; i < PCI_BUS_FUNCTIONS; i++) {
        struct pci_dev *pci = bus->func[i];
        if (pci == NULL) {
            continue;
        }
        bool any = false;
        for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
            if (!pci->bar[n].present) {
                continue;
            }
            any = true;
            int rc = pci_bus_assign_bar(pci, n, &left, err);
            if (rc < 0) {
                return rc;
            }
        }
        dev_lock(pci->dev);
        pci->assigned = pci->assigned || any;
        uint8_t pin = pci->config[PCI_REG_INT_PIN];
        if (pin != 0) {
            pci->config[PCI_REG_INT_LINE] = (uint8_t)pci_bus_gsi(i >> 3, pin);
        }
        if (any) {
            pci_dev_reset(pci);
        }
        dev_unlock(pci->dev);
    }
    return 0;
}
