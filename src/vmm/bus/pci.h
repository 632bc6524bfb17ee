/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PCI bus 0 of the machine: configuration space by ports 0xcf8/0xcfc and by ECAM, BARs, the
 * capability list, INTx and MSI-X (PCI Local Bus 3.0, PCI Express Base 4.0 §7.2.2 ECAM).
 *
 * A function is a `struct pci_dev` inside its device's state:
 *
 *     pci_dev_init(&s->pci, dev, &(struct pci_ident){ .vendor = 0x1af4, ... }, PCI_SLOT_AUTO, err);
 *     pci_bar_add(&s->pci, 4, PCI_BAR_MEM64, 0x4000, &ops, s, err);
 *     pci_msix_add(&s->pci, 1, nvectors, err);       // BAR 1 holds table and PBA
 *     pci_msix_notify(&s->pci, vector);
 *
 * All of it runs under the owning device's lock, except pci_msix_notify() and pci_intx(), which any
 * thread may call.
 */
#ifndef BUS_PCI_H
#define BUS_PCI_H

#include <pthread.h>

#include "base/bits.h"
#include "base/err.h"
#include "vmm/bus/bus.h"

struct dev;
struct dev_env;
struct dev_msi;
struct pci_bus;

#define PCI_SLOT_AUTO       (-1)
#define PCI_CONFIG_SIZE     4096
#define PCI_NUM_BARS        6
#define PCI_DEVFN(slot, fn) ((slot)*8 + (fn))

struct pci_ident {
    uint16_t vendor;
    uint16_t device;
    uint16_t subsystem_vendor;
    uint16_t subsystem;
    uint32_t class_code; /* base class << 16 | sub-class << 8 | interface */
    uint8_t revision;
    uint8_t header_type; /* 0, or 0x80 for a multi-function device */
    uint8_t int_pin;     /* 0 = none, 1 = INTA ... */
};

enum pci_bar_kind {
    PCI_BAR_IO,
    PCI_BAR_MEM32,
    PCI_BAR_MEM64, /* takes BAR n and n+1 */
};

struct pci_bar {
    bool present;
    enum pci_bar_kind kind;
    uint64_t size;     /* power of two */
    uint64_t assigned; /* address from pci_bus_assign() */
    struct bus_region region;
    /* Called after the BAR was mapped (base) or unmapped (UINT64_MAX); for doorbells. May be NULL.
     */
    void (*moved)(void *opaque, uint64_t base);
};

/* What the engine knows of a vector: its message slot is made when first unmasked and programmed
 * only when address or data differ from what it has. */
struct pci_msix_vector {
    struct dev_msi *msi;
    uint64_t addr;
    uint32_t data;
};

struct pci_msix {
    unsigned count; /* 0 = no MSI-X */
    uint16_t cap;
    uint8_t bar;
    uint32_t pba_offset;
    pthread_mutex_t lock; /* covers the rest; pci_msix_notify() comes from any thread */
    bool enabled;
    bool mask_all;
    uint8_t *table; /* 16 bytes a vector, as the guest sees it */
    uint64_t *pba;
    struct pci_msix_vector *vector;
};

struct pci_dev {
    struct dev *dev;
    struct pci_bus *bus;
    uint8_t devfn;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t wmask[PCI_CONFIG_SIZE]; /* bits that the guest may write */
    uint8_t w1c[PCI_CONFIG_SIZE];   /* bits that a written 1 clears */
    uint16_t next_cap;              /* where the next capability goes */
    struct pci_bar bar[PCI_NUM_BARS];
    struct pci_msix msix;
    bool intx_level;    /* what the device asks for; this and the next under the bus's lock */
    bool intx_asserted; /* what the interrupt line sees of it */
    bool assigned;      /* pci_bus_assign() placed it: a reset comes back to that */
    /* Optional: sees a config access after (write) or before (read) the common code did its part.
     */
    void (*config_written)(struct pci_dev *pci, unsigned offset, unsigned size);
    void (*config_reading)(struct pci_dev *pci, unsigned offset, unsigned size);
};

/* The bus: `ecam_base` is where ECAM lies in MMIO (256 MiB). BARs are the firmware's or, in direct
 * boot, ours to place: pci_bus_assign() gives each BAR an address from the two windows. */
struct pci_windows {
    uint64_t io_base, io_end; /* [base, end) */
    uint64_t mem32_base, mem32_end;
    uint64_t mem64_base, mem64_end;
};

#define PCI_ECAM_OFF UINT64_MAX

/* Makes bus 0 with its ports on env->pio and ECAM on env->mmio (PCI_ECAM_OFF: not mapped until
 * pci_bus_set_ecam()). The caller sets env->pci. -ENOMEM, -EEXIST, -EINVAL with `err` filled. */
MUST_USE int pci_bus_new(struct dev_env *env, uint64_t ecam_base, struct pci_bus **ret_bus,
                         struct err *err);
/* No device may be on it any more. Accepts NULL. */
void pci_bus_free(struct pci_bus *bus);
/* Moves ECAM (the host bridge's PCIEXBAR). 0, or the errno of bus_map(); then it is unmapped. */
MUST_USE int pci_bus_set_ecam(struct pci_bus *bus, uint64_t base, struct err *err);
/* Where ECAM is mapped now, or PCI_ECAM_OFF. */
uint64_t pci_bus_ecam(const struct pci_bus *bus);
/* The function at `devfn` (PCI_DEVFN), or NULL. */
struct pci_dev *pci_bus_find(const struct pci_bus *bus, uint8_t devfn);
/* Places every BAR, sets interrupt lines, enables decoding. -ENOSPC names the device. */
MUST_USE int pci_bus_assign(struct pci_bus *bus, const struct pci_windows *windows,
                            struct err *err);
/* GSI behind INTx pin (1..4) of a slot: PIRQ A-H are GSI 16-23 (slot + pin - 1) % 8 + 16. */
unsigned pci_bus_gsi(unsigned slot, unsigned pin);

/* Puts a function on env->pci, at `devfn` or in the first free slot from 1 on. The struct is zeroed
 * memory of the caller's and stays where it is. -EEXIST, -ENOSPC with `err` filled. */
MUST_USE int pci_dev_init(struct pci_dev *pci, struct dev *dev, const struct pci_ident *ident,
                          int devfn_or_auto, struct err *err);
/* Takes it off again; its BARs are unmapped. Accepts one whose init failed or never ran. */
void pci_dev_done(struct pci_dev *pci);
/* Clears command, BARs' decoding and MSI-X state; BAR addresses given by pci_bus_assign() come
 * back, as after firmware. */
void pci_dev_reset(struct pci_dev *pci);

/* Declares BAR `n` (0..5; a 64-bit one also takes n + 1) of `size` bytes, a power of two of at
 * least 16 (I/O: 4). The handlers see offsets in the BAR. `moved` may be set in pci->bar[n]
 * afterwards. */
MUST_USE int pci_bar_add(struct pci_dev *pci, unsigned n, enum pci_bar_kind kind, uint64_t size,
                         const struct bus_ops *ops, void *opaque, struct err *err);
/* Appends a capability of `len` bytes (the id and next pointer are filled in); returns its offset.
 * `body` is what follows the two header bytes; `wmask` may be NULL (read-only). */
MUST_USE int pci_cap_add(struct pci_dev *pci, uint8_t id, const void *body, const void *wmask,
                         size_t len, struct err *err);
/* Gives the function `count` vectors (1..2048), table and PBA in a 32-bit memory BAR `bar`. */
MUST_USE int pci_msix_add(struct pci_dev *pci, unsigned bar, unsigned count, struct err *err);

bool pci_msix_enabled(const struct pci_dev *pci);
/* Fires vector `v` or, while it is masked, sets its pending bit. Out of range: ignored. */
void pci_msix_notify(struct pci_dev *pci, unsigned v);
/* Sets the level of the function's interrupt pin; functions that share a line are ORed. */
void pci_intx(struct pci_dev *pci, int level);

/* One configuration access of 1, 2 or 4 bytes that does not cross a dword, as from the guest.
 * Under the device's lock. For the bus and for tests. */
uint32_t pci_config_read(struct pci_dev *pci, unsigned offset, unsigned size);
void pci_config_write(struct pci_dev *pci, unsigned offset, unsigned size, uint32_t value);

#endif
