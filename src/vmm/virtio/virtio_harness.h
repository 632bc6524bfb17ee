/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The other side of a virtio device for unit tests and fuzz targets: a small driver in fake guest
 * RAM that finds the device on the PCI bus, negotiates, sets queues up (split or packed), adds
 * chains, rings doorbells and takes used entries. Everything goes through the registers a guest
 * would use.
 *
 *     struct virtio_harness vh;
 *     virtio_harness_init(&vh, 1 * MIB);
 *     virtio_harness_add(&vh, &virtio_rng_class, NULL);
 *     virtio_harness_negotiate(&vh, BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_F_RING_PACKED));
 *     struct virtio_hq *q = virtio_harness_queue(&vh, 0, 8);
 *     virtio_harness_driver_ok(&vh);
 *     uint64_t buf = virtio_harness_alloc(&vh, 16, 1);
 *     virtio_hq_add(q, (struct virtio_hbuf[]){ { buf, 16, true } }, 1);
 *     virtio_hq_kick(q);
 *     dev_harness_poll(&vh.h);
 *     virtio_hq_used(q, &id, &len);
 *     virtio_harness_done(&vh);
 *
 * It aborts where a test would make no sense any more (out of fake RAM, device not found).
 */
#ifndef VIRTIO_VIRTIO_HARNESS_H
#define VIRTIO_VIRTIO_HARNESS_H

#include "vmm/bus/pci.h"
#include "vmm/dev/dev_harness.h"
#include "vmm/virtio/virtio.h"

#define VIRTIO_HARNESS_QUEUES 64
#define VIRTIO_HARNESS_ECAM   UINT64_C(0xb0000000)
/* MSI data of the queue's vector is this + index; that of the configuration + nqueues. */
#define VIRTIO_HARNESS_MSI 0x4000u

struct virtio_harness;

/* One buffer of a chain. Readable ones come first. */
struct virtio_hbuf {
    uint64_t gpa;
    uint32_t len;
    bool write; /* the device writes */
};

/* The driver's side of a queue. The ring addresses are for tests that attack it. */
struct virtio_hq {
    struct virtio_harness *vh;
    unsigned index;
    uint16_t size;
    bool packed;
    bool event_idx;
    bool use_indirect; /* add chains as one indirect table; set by the test */
    uint64_t desc, driver, device;
    uint64_t table; /* room for indirect tables, 16 x size bytes for each id */

    uint16_t free_count;
    uint16_t free_ids[VIRTQ_MAX_SIZE];  /* stack */
    uint16_t chain_len[VIRTQ_MAX_SIZE]; /* ring slots of the chain with this id */
    uint16_t chain_next[VIRTQ_MAX_SIZE];
    uint16_t avail; /* split: index; packed: slot */
    uint16_t used;
    uint16_t kicked; /* split: avail at the last kick */
    unsigned added;  /* slots since the last kick */
    bool avail_wrap;
    bool used_wrap;
};

struct virtio_harness {
    struct dev_harness h;
    struct pci_bus *bus;
    struct dev *dev;
    unsigned devfn;
    uint64_t common, notify, isr, config; /* addresses of the BAR's parts */
    uint32_t notify_step;
    uint64_t msix;     /* table */
    uint64_t features; /* negotiated */
    unsigned nqueues;
    uint64_t next_alloc;
    struct virtio_hq *queue[VIRTIO_HARNESS_QUEUES];
};

/* `ram_size` as for dev_harness_init(); at least 256 KiB. The first page is never allocated. */
void virtio_harness_init(struct virtio_harness *vh, uint64_t ram_size);
void virtio_harness_done(struct virtio_harness *vh);

/* Makes the device, places its BARs, finds its structures by the capability list. One device a
 * harness. Returns it (also vh->dev). */
struct dev *virtio_harness_add(struct virtio_harness *vh, const struct dev_class *cls,
                               const void *params);

/* Places the BARs of all functions as virtio_harness_add() did, and finds the device again. */
void virtio_harness_place(struct virtio_harness *vh);
/* Finds the device's structures (again, after BARs have moved) and enables MSI-X. */
void virtio_harness_find(struct virtio_harness *vh);

/* Zeroed guest memory that is not used for anything else. */
uint64_t virtio_harness_alloc(struct virtio_harness *vh, uint64_t size, uint64_t align);
/* Frees all guest memory and queues (after a device reset). */
void virtio_harness_forget(struct virtio_harness *vh);
/* Host address of guest memory. */
void *virtio_harness_ptr(struct virtio_harness *vh, uint64_t gpa);

/* Resets, then accepts `features` as far as offered, up to FEATURES_OK. Returns what was accepted
 * and enables MSI-X with a vector for each queue and one for the configuration. */
uint64_t virtio_harness_negotiate(struct virtio_harness *vh, uint64_t features);
/* Sets up and enables queue `index` with `size` entries (at most what the device offers). */
struct virtio_hq *virtio_harness_queue(struct virtio_harness *vh, unsigned index, uint16_t size);
void virtio_harness_driver_ok(struct virtio_harness *vh);
/* The usual start: VERSION_1 and `features`, every queue of `size` entries, DRIVER_OK. */
void virtio_harness_start(struct virtio_harness *vh, uint64_t features, uint16_t size);

uint8_t virtio_harness_status(struct virtio_harness *vh);
void virtio_harness_set_status(struct virtio_harness *vh, uint8_t status);
uint64_t virtio_harness_offered(struct virtio_harness *vh);
uint64_t virtio_harness_common_read(struct virtio_harness *vh, unsigned offset, unsigned size);
void virtio_harness_common_write(struct virtio_harness *vh, unsigned offset, unsigned size,
                                 uint64_t value);
uint64_t virtio_harness_config_read(struct virtio_harness *vh, unsigned offset, unsigned size);
void virtio_harness_config_write(struct virtio_harness *vh, unsigned offset, unsigned size,
                                 uint64_t value);
/* Interrupts seen so far for a queue, or with index nqueues for the configuration. */
unsigned virtio_harness_irqs(struct virtio_harness *vh, unsigned index);

/* PCI configuration space through the ports. */
uint32_t virtio_harness_pci_read(struct virtio_harness *vh, unsigned offset, unsigned size);
void virtio_harness_pci_write(struct virtio_harness *vh, unsigned offset, unsigned size,
                              uint32_t value);

/* Makes a chain available; returns its id, or -1 when the ring has no room. */
int virtio_hq_add(struct virtio_hq *q, const struct virtio_hbuf *bufs, unsigned count);
/* Rings the doorbell if the device asks for it; true = rung. */
bool virtio_hq_kick(struct virtio_hq *q);
void virtio_hq_ring(struct virtio_hq *q);
/* Takes the next used entry. false: none. */
bool virtio_hq_used(struct virtio_hq *q, unsigned *ret_id, uint32_t *ret_len);
/* Asks for an interrupt from the next entry on (event index), or for none. */
void virtio_hq_set_interrupts(struct virtio_hq *q, bool on);

/* add, kick, poll (up to 2 s of real time for real I/O), used. Returns the written length, or -1
 * when nothing came back. For one chain at a time. */
int64_t virtio_hq_roundtrip(struct virtio_hq *q, const struct virtio_hbuf *bufs, unsigned count);
/* Runs the loop until a used entry is there; false after 2 s. */
bool virtio_hq_wait(struct virtio_hq *q, unsigned *ret_id, uint32_t *ret_len);

#endif
