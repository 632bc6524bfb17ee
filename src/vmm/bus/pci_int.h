/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by the pci_*.c files only. */
#ifndef BUS_PCI_INT_H
#define BUS_PCI_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/bus/pci.h"

#define PCI_BUS_FUNCTIONS 256
#define PCI_BUS_LINES     8 /* PIRQ A to H */

struct pci_bus {
    struct dev_env *env;
    _Atomic uint32_t address;                /* latch of port 0xcf8 */
    struct pci_dev *func[PCI_BUS_FUNCTIONS]; /* fixed while vCPUs run */
    struct bus_region address_region;
    struct bus_region data_region;
    struct bus_region ecam;
    pthread_mutex_t lock;               /* covers the interrupt lines */
    unsigned line_users[PCI_BUS_LINES]; /* how many functions assert the line */
};

/* Enters `pci` at devfn (or the first free slot). 0, -EEXIST, -ENOSPC. */
MUST_USE int pci_bus_attach(struct pci_bus *bus, struct pci_dev *pci, int devfn_or_auto,
                            struct err *err);
void pci_bus_detach(struct pci_dev *pci);
/* Brings the interrupt line in accord with the function's level and INTx-disable bit. */
void pci_bus_update_intx(struct pci_dev *pci);

/* Maps and unmaps BARs as command register and addresses say. */
void pci_bar_update(struct pci_dev *pci);
void pci_bar_unmap_all(struct pci_dev *pci);
void pci_bar_set_address(struct pci_dev *pci, unsigned n, uint64_t address);

/* After a write to configuration space: takes over the MSI-X control bits. */
void pci_msix_config_written(struct pci_dev *pci, unsigned offset, unsigned size);
void pci_msix_reset(struct pci_dev *pci);
void pci_msix_done(struct pci_dev *pci);

#endif
