/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/virtio/virtio_harness.h"

#include <stdio.h>
#include <stdlib.h>

#include "spec/pci_regs.h"
#include "spec/virtio_defs.h"

#define VIRTIO_HARNESS_RAM_MIN UINT64_C(0x40000)
#define VIRTIO_HARNESS_FIRST   UINT64_C(0x1000)
#define VIRTIO_HARNESS_WAIT_NS UINT64_C(2000000000)
#define VIRTIO_HARNESS_MSI_GPA UINT64_C(0xfee00000)

static void virtio_harness_die(const char *what)
{
    fprintf(stderr, "virtio_harness: %s\n", what);
    abort();
}

void virtio_harness_init(struct virtio_harness *vh, uint64_t ram_size)
{
    struct err err = ERR_INIT;
    *vh = (struct virtio_harness){ .next_alloc = VIRTIO_HARNESS_FIRST };
    if (ram_size < VIRTIO_HARNESS_RAM_MIN) {
        virtio_harness_die("RAM too small");
    }
    dev_harness_init(&vh->h, ram_size);
    if (pci_bus_new(&vh->h.env, VIRTIO_HARNESS_ECAM, &vh->bus, &err) < 0) {
        virtio_harness_die(err.msg);
    }
    vh->h.env.pci = vh->bus;
}

void virtio_harness_forget(struct virtio_harness *vh)
{
    for (unsigned i = 0; i < VIRTIO_HARNESS_QUEUES; i++) {
        free(vh->queue[i]);
        vh->queue[i] = NULL;
    }
    vh->next_alloc = VIRTIO_HARNESS_FIRST;
}

void virtio_harness_done(struct virtio_harness *vh)
{
    struct dev *dev;
    virtio_harness_forget(vh);
    /* The devices go before the bus, and both before the environment. */
    while ((dev = TAILQ_LAST(&vh->h.env.devs, dev_list)) != NULL) {
        dev_free(dev);
    }
    pci_bus_free(vh->bus);
    dev_harness_done(&vh->h);
}

uint32_t virtio_harness_pci_read(struct virtio_harness *vh, unsigned offset, unsigned size)
{
    dev_harness_out(&vh->h, PCI_PORT_ADDRESS, 4,
                    PCI_ADDR_ENABLE | vh->devfn << 8 | (offset & 0xfc));
    return (uint32_t)dev_harness_in(&vh->h, (uint16_t)(PCI_PORT_DATA + (offset & 3)), size);
}

void virtio_harness_pci_write(struct virtio_harness *vh, unsigned offset, unsigned size,
                              uint32_t value)
{
    dev_harness_out(&vh->h, PCI_PORT_ADDRESS, 4,
                    PCI_ADDR_ENABLE | vh->devfn << 8 | (offset & 0xfc));
    dev_harness_out(&vh->h, (uint16_t)(PCI_PORT_DATA + (offset & 3)), size, value);
}

static uint64_t virtio_harness_bar(struct virtio_harness *vh, unsigned n)
{
    uint32_t low = virtio_harness_pci_read(vh, PCI_REG_BAR0 + 4 * n, 4);
    uint64_t high = (low & PCI_BAR_IS_MEM64) != 0
                        ? virtio_harness_pci_read(vh, PCI_REG_BAR0 + 4 * n + 4, 4)
                        : 0;
    return high << 32 | (low & ~PCI_BAR_FLAGS_MEM);
}

static void virtio_harness_cap(struct virtio_harness *vh, unsigned at)
{
    uint64_t base =
        virtio_harness_bar(vh, virtio_harness_pci_read(vh, at + VIRTIO_PCI_CAP_OFF_BAR, 1)) +
        virtio_harness_pci_read(vh, at + VIRTIO_PCI_CAP_OFF_OFFSET, 4);
    switch (virtio_harness_pci_read(vh, at + VIRTIO_PCI_CAP_OFF_TYPE, 1)) {
    case VIRTIO_PCI_CAP_COMMON:
        vh->common = base;
        break;
    case VIRTIO_PCI_CAP_NOTIFY:
        vh->notify = base;
        vh->notify_step = virtio_harness_pci_read(vh, at + VIRTIO_PCI_CAP_OFF_EXTRA, 4);
        break;
    case VIRTIO_PCI_CAP_ISR:
        vh->isr = base;
        break;
    case VIRTIO_PCI_CAP_DEVICE:
        vh->config = base;
        break;
    default:
        break;
    }
}

void virtio_harness_find(struct virtio_harness *vh)
{
    for (vh->devfn = 0; vh->devfn < 256; vh->devfn++) {
        if (virtio_harness_pci_read(vh, PCI_REG_VENDOR, 2) == VIRTIO_PCI_VENDOR) {
            break;
        }
    }
    if (vh->devfn == 256) {
        virtio_harness_die("no virtio device on the bus");
    }
    unsigned at = virtio_harness_pci_read(vh, PCI_REG_CAP_PTR, 1);
    while (at != 0) {
        unsigned id = virtio_harness_pci_read(vh, at, 1);
        if (id == PCI_CAP_ID_VENDOR) {
            virtio_harness_cap(vh, at);
        } else if (id == PCI_CAP_ID_MSIX) {
            uint32_t table = virtio_harness_pci_read(vh, at + PCI_MSIX_TABLE, 4);
            vh->msix = virtio_harness_bar(vh, table & 7) + (table & ~7u);
            virtio_harness_pci_write(vh, at + PCI_MSIX_CONTROL, 2, PCI_MSIX_CTRL_ENABLE);
        }
        at = virtio_harness_pci_read(vh, at + 1, 1);
    }
    if (vh->common == 0 || vh->notify == 0 || vh->isr == 0 || vh->msix == 0) {
        virtio_harness_die("a virtio capability is missing");
    }
    vh->nqueues = (unsigned)virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_NUM_QUEUES, 2);
}

void virtio_harness_place(struct virtio_harness *vh)
{
    static const struct pci_windows windows = {
        .io_base = 0xc000,
        .io_end = 0x10000,
        .mem32_base = 0xc0000000,
        .mem32_end = 0xd0000000,
        .mem64_base = 64 * GIB,
        .mem64_end = 65 * GIB,
    };
    struct err err = ERR_INIT;
    if (pci_bus_assign(vh->bus, &windows, &err) < 0) {
        virtio_harness_die(err.msg);
    }
    virtio_harness_find(vh);
}

struct dev *virtio_harness_add(struct virtio_harness *vh, const struct dev_class *cls,
                               const void *params)
{
    vh->dev = dev_harness_add(&vh->h, cls, params);
    virtio_harness_place(vh);
    return vh->dev;
}

uint64_t virtio_harness_alloc(struct virtio_harness *vh, uint64_t size, uint64_t align)
{
    uint64_t at = bits_align_up(vh->next_alloc, MAX(align, UINT64_C(1)));
    if (at + size > vh->h.ram_size) {
        virtio_harness_die("out of guest RAM");
    }
    vh->next_alloc = at + size;
    memset(vh->h.ram + at, 0, size);
    return at;
}

void *virtio_harness_ptr(struct virtio_harness *vh, uint64_t gpa)
{
    if (gpa >= vh->h.ram_size) {
        virtio_harness_die("guest address outside of RAM");
    }
    return vh->h.ram + gpa;
}

uint64_t virtio_harness_common_read(struct virtio_harness *vh, unsigned offset, unsigned size)
{
    return dev_harness_mmio_read(&vh->h, vh->common + offset, size);
}

void virtio_harness_common_write(struct virtio_harness *vh, unsigned offset, unsigned size,
                                 uint64_t value)
{
    dev_harness_mmio_write(&vh->h, vh->common + offset, size, value);
}

uint64_t virtio_harness_config_read(struct virtio_harness *vh, unsigned offset, unsigned size)
{
    return dev_harness_mmio_read(&vh->h, vh->config + offset, size);
}

void virtio_harness_config_write(struct virtio_harness *vh, unsigned offset, unsigned size,
                                 uint64_t value)
{
    dev_harness_mmio_write(&vh->h, vh->config + offset, size, value);
}

uint8_t virtio_harness_status(struct virtio_harness *vh)
{
    return (uint8_t)virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_DEVICE_STATUS, 1);
}

void virtio_harness_set_status(struct virtio_harness *vh, uint8_t status)
{
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_DEVICE_STATUS, 1, status);
}

uint64_t virtio_harness_offered(struct virtio_harness *vh)
{
    uint64_t offered = 0;
    for (uint32_t word = 0; word < 2; word++) {
        virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_DEVICE_FEATURE_SELECT, 4, word);
        offered |= virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_DEVICE_FEATURE, 4)
                   << (32 * word);
    }
    return offered;
}

unsigned virtio_harness_irqs(struct virtio_harness *vh, unsigned index)
{
    return dev_harness_msi_fired(&vh->h, VIRTIO_HARNESS_MSI + index);
}

uint64_t virtio_harness_negotiate(struct virtio_harness *vh, uint64_t features)
{
    virtio_harness_set_status(vh, 0);
    for (unsigned v = 0; v <= vh->nqueues; v++) {
        uint64_t entry = vh->msix + PCI_MSIX_ENTRY_SIZE * (uint64_t)v;
        dev_harness_mmio_write(&vh->h, entry + PCI_MSIX_ENTRY_ADDR, 8, VIRTIO_HARNESS_MSI_GPA);
        dev_harness_mmio_write(&vh->h, entry + PCI_MSIX_ENTRY_DATA, 4, VIRTIO_HARNESS_MSI + v);
        dev_harness_mmio_write(&vh->h, entry + PCI_MSIX_ENTRY_VCTRL, 4, 0);
    }
    uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
    virtio_harness_set_status(vh, status);
    vh->features = features & virtio_harness_offered(vh);
    for (uint32_t word = 0; word < 2; word++) {
        virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_DRIVER_FEATURE_SELECT, 4, word);
        virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_DRIVER_FEATURE, 4,
                                    (uint32_t)(vh->features >> (32 * word)));
    }
    virtio_harness_set_status(vh, status | VIRTIO_STATUS_FEATURES_OK);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_CONFIG_MSIX_VECTOR, 2, vh->nqueues);
    return vh->features;
}

static void virtio_hq_free_ids(struct virtio_hq *q)
{
    for (unsigned i = 0; i < q->size; i++) {
        q->free_ids[i] = (uint16_t)(q->size - 1 - i);
    }
    q->free_count = q->size;
}

struct virtio_hq *virtio_harness_queue(struct virtio_harness *vh, unsigned index, uint16_t size)
{
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, index);
    uint16_t max = (uint16_t)virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2);
    struct virtio_hq *q = calloc(1, sizeof(*q));
    if (q == NULL || index >= VIRTIO_HARNESS_QUEUES || max == 0) {
        virtio_harness_die("no such queue");
    }
    free(vh->queue[index]);
    vh->queue[index] = q;
    *q = (struct virtio_hq){
        .vh = vh,
        .index = index,
        .size = (uint16_t)MIN(size, max),
        .packed = (vh->features & BIT64(VIRTIO_F_RING_PACKED)) != 0,
        .event_idx = (vh->features & BIT64(VIRTIO_F_EVENT_IDX)) != 0,
        .avail_wrap = true,
        .used_wrap = true,
    };
    virtio_hq_free_ids(q);
    q->desc = virtio_harness_alloc(vh, 16 * (uint64_t)q->size, 16);
    q->driver = virtio_harness_alloc(vh, q->packed ? 4 : 6 + 2 * (uint64_t)q->size, 4);
    q->device = virtio_harness_alloc(vh, q->packed ? 4 : 6 + 8 * (uint64_t)q->size, 4);
    q->table = virtio_harness_alloc(vh, 16 * (uint64_t)q->size * MIN(q->size, 16), 16);

    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2, q->size);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR, 2, index);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_DESC, 8, q->desc);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_DRIVER, 8, q->driver);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_DEVICE, 8, q->device);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2, 1);
    return q;
}

void virtio_harness_driver_ok(struct virtio_harness *vh)
{
    virtio_harness_set_status(vh, virtio_harness_status(vh) | VIRTIO_STATUS_DRIVER_OK);
}

void virtio_harness_start(struct virtio_harness *vh, uint64_t features, uint16_t size)
{
    virtio_harness_forget(vh);
    (void)virtio_harness_negotiate(vh, features | BIT64(VIRTIO_F_VERSION_1));
    for (unsigned i = 0; i < vh->nqueues; i++) {
        (void)virtio_harness_queue(vh, i, size);
    }
    virtio_harness_driver_ok(vh);
}

/* ---- Rings ---- */

static void virtio_hq_desc_put(struct virtio_hq *q, uint64_t at, const struct virtio_hbuf *b,
                               uint16_t third, uint16_t fourth)
{
    uint8_t *p = virtio_harness_ptr(q->vh, at);
    le64_put(p, b->gpa);
    le32_put(p + 8, b->len);
    le16_put(p + 12, third);
    le16_put(p + 14, fourth);
}

static uint16_t virtio_hq_flags(const struct virtio_hbuf *b, bool next)
{
    return (uint16_t)((b->write ? VIRTIO_DESC_F_WRITE : 0) | (next ? VIRTIO_DESC_F_NEXT : 0));
}

/* Writes an indirect table for `id`; returns the descriptor that refers to it. */
static struct virtio_hbuf virtio_hq_indirect(struct virtio_hq *q, const struct virtio_hbuf *bufs,
                                             unsigned count, unsigned id)
{
    uint64_t table = q->table + 16 * (uint64_t)q->size * id;
    if (id >= 16 || count > q->size) {
        virtio_harness_die("no room for an indirect table (ids below 16, at most size buffers)");
    }
    for (unsigned i = 0; i < count; i++) {
        bool next = i + 1 < count;
        if (q->packed) {
            virtio_hq_desc_put(q, table + 16 * i, &bufs[i], 0, virtio_hq_flags(&bufs[i], false));
        } else {
            virtio_hq_desc_put(q, table + 16 * i, &bufs[i], virtio_hq_flags(&bufs[i], next),
                               (uint16_t)(next ? i + 1 : 0));
        }
    }
    return (struct virtio_hbuf){ table, 16 * count, false };
}

static int virtio_hq_add_split(struct virtio_hq *q, const struct virtio_hbuf *bufs, unsigned count,
                               uint16_t extra)
{
    uint16_t id[VIRTQ_MAX_SIZE];
    for (unsigned i = 0; i < count; i++) {
        id[i] = q->free_ids[--q->free_count];
    }
    for (unsigned i = 0; i < count; i++) {
        bool next = i + 1 < count;
        virtio_hq_desc_put(q, q->desc + 16 * (uint64_t)id[i], &bufs[i],
                           virtio_hq_flags(&bufs[i], next) | extra, next ? id[i + 1] : 0);
        q->chain_next[id[i]] = next ? id[i + 1] : 0;
    }
    q->chain_len[id[0]] = (uint16_t)count;
    le16_put(virtio_harness_ptr(q->vh, q->driver + 4 + 2 * (uint64_t)(q->avail % q->size)), id[0]);
    q->avail++;
    le16_put(virtio_harness_ptr(q->vh, q->driver + 2), q->avail);
    q->added++;
    return id[0];
}

static int virtio_hq_add_packed(struct virtio_hq *q, const struct virtio_hbuf *bufs, unsigned count,
                                uint16_t extra)
{
    uint16_t id = q->free_ids[q->free_count - 1];
    uint64_t head = q->desc + 16 * (uint64_t)q->avail;
    uint16_t head_flags = 0;
    q->free_count = (uint16_t)(q->free_count - count);
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = virtio_hq_flags(&bufs[i], i + 1 < count) | extra;
        flags |= q->avail_wrap ? VIRTIO_PACKED_F_AVAIL : VIRTIO_PACKED_F_USED;
        uint64_t at = q->desc + 16 * (uint64_t)q->avail;
        if (i == 0) {
            head_flags = flags;
            flags = le16_get(virtio_harness_ptr(q->vh, at + 14));
        }
        virtio_hq_desc_put(q, at, &bufs[i], id, flags);
        if (++q->avail == q->size) {
            q->avail = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    le16_put(virtio_harness_ptr(q->vh, head + 14), head_flags);
    q->chain_len[id] = (uint16_t)count;
    /* The other slots' ids stay out of use until the chain comes back: keep them with it. */
    uint16_t at = id;
    for (unsigned i = 1; i < count; i++) {
        q->chain_next[at] = q->free_ids[q->free_count + count - 1 - i];
        at = q->chain_next[at];
    }
    q->added += count;
    return id;
}

int virtio_hq_add(struct virtio_hq *q, const struct virtio_hbuf *bufs, unsigned count)
{
    struct virtio_hbuf indirect;
    uint16_t extra = 0;
    if (count == 0 || q->free_count < (q->use_indirect ? 1 : count)) {
        return -1;
    }
    if (q->use_indirect) {
        indirect = virtio_hq_indirect(q, bufs, count, q->free_ids[q->free_count - 1]);
        bufs = &indirect;
        count = 1;
        extra = VIRTIO_DESC_F_INDIRECT;
    }
    return q->packed ? virtio_hq_add_packed(q, bufs, count, extra)
                     : virtio_hq_add_split(q, bufs, count, extra);
}

void virtio_hq_ring(struct virtio_hq *q)
{
    struct virtio_harness *vh = q->vh;
    dev_harness_mmio_write(&vh->h, vh->notify + (uint64_t)vh->notify_step * q->index, 2, q->index);
}

/* virtio 1.2 §2.7.10.1: was `event` among the last `added` of the entries up to `now`? */
static bool virtio_hq_passed(uint16_t event, uint16_t now, unsigned added)
{
    return (uint16_t)(now - event - 1) < added;
}

static bool virtio_hq_wants_kick(const struct virtio_hq *q)
{
    const uint8_t *dev = virtio_harness_ptr(q->vh, q->device);
    if (!q->packed) {
        return q->event_idx
                   ? virtio_hq_passed(le16_get(dev + 4 + 8 * (size_t)q->size), q->avail, q->added)
                   : (le16_get(dev) & VIRTIO_USED_F_NO_NOTIFY) == 0;
    }
    uint16_t off = le16_get(dev);
    switch (le16_get(dev + 2)) {
    case VIRTIO_PACKED_EVENT_DISABLE:
        return false;
    case VIRTIO_PACKED_EVENT_DESC: {
        uint16_t event = off & 0x7fff;
        if ((off >> 15 != 0) != q->avail_wrap) {
            event = (uint16_t)(event - q->size);
        }
        return virtio_hq_passed(event, q->avail, q->added);
    }
    default:
        return true;
    }
}

bool virtio_hq_kick(struct virtio_hq *q)
{
    bool wanted = q->added > 0 && virtio_hq_wants_kick(q);
    q->added = 0;
    if (wanted) {
        virtio_hq_ring(q);
    }
    return wanted;
}

static void virtio_hq_give_back(struct virtio_hq *q, uint16_t id)
{
    uint16_t count = q->chain_len[id];
    for (unsigned i = 0; i < count; i++) {
        q->free_ids[q->free_count++] = id;
        id = q->chain_next[id];
    }
}

bool virtio_hq_used(struct virtio_hq *q, unsigned *ret_id, uint32_t *ret_len)
{
    const uint8_t *p;
    unsigned id;
    if (!q->packed) {
        if (le16_get(virtio_harness_ptr(q->vh, q->device + 2)) == q->used) {
            return false;
        }
        p = virtio_harness_ptr(q->vh, q->device + 4 + 8 * (uint64_t)(q->used % q->size));
        id = le32_get(p);
        *ret_len = le32_get(p + 4);
        q->used++;
    } else {
        p = virtio_harness_ptr(q->vh, q->desc + 16 * (uint64_t)q->used);
        uint16_t flags = le16_get(p + 14);
        bool avail = (flags & VIRTIO_PACKED_F_AVAIL) != 0;
        if (avail != ((flags & VIRTIO_PACKED_F_USED) != 0) || avail != q->used_wrap) {
            return false;
        }
        id = le16_get(p + 12);
        *ret_len = (flags & VIRTIO_DESC_F_WRITE) != 0 ? le32_get(p + 8) : 0;
    }
    if (id >= q->size || q->chain_len[id] == 0) {
        virtio_harness_die("the device used a buffer that it does not have");
    }
    if (q->packed) {
        unsigned next = q->used + q->chain_len[id];
        q->used_wrap = next >= q->size ? !q->used_wrap : q->used_wrap;
        q->used = (uint16_t)(next >= q->size ? next - q->size : next);
    }
    virtio_hq_give_back(q, (uint16_t)id);
    q->chain_len[id] = 0;
    *ret_id = id;
    return true;
}

void virtio_hq_set_interrupts(struct virtio_hq *q, bool on)
{
    uint8_t *drv = virtio_harness_ptr(q->vh, q->driver);
    if (q->packed) {
        uint16_t flags = on ? VIRTIO_PACKED_EVENT_ENABLE : VIRTIO_PACKED_EVENT_DISABLE;
        if (on && q->event_idx) {
            flags = VIRTIO_PACKED_EVENT_DESC;
            le16_put(drv, (uint16_t)(q->used | (q->used_wrap ? 0x8000 : 0)));
        }
        le16_put(drv + 2, flags);
    } else if (q->event_idx) {
        /* Off: an event that has just been passed comes again only after 65536 entries. */
        le16_put(drv + 4 + 2 * (size_t)q->size, on ? q->used : (uint16_t)(q->used - 1));
    } else {
        le16_put(drv, on ? 0 : VIRTIO_AVAIL_F_NO_INTERRUPT);
    }
}

bool virtio_hq_wait(struct virtio_hq *q, unsigned *ret_id, uint32_t *ret_len)
{
    uint64_t end = loop_now_ns() + VIRTIO_HARNESS_WAIT_NS;
    do {
        if (virtio_hq_used(q, ret_id, ret_len)) {
            return true;
        }
        if (loop_run_once(q->vh->h.env.loop, 1) < 0) {
            virtio_harness_die("event loop");
        }
    } while (loop_now_ns() < end);
    return false;
}

int64_t virtio_hq_roundtrip(struct virtio_hq *q, const struct virtio_hbuf *bufs, unsigned count)
{
    unsigned id;
    uint32_t len;
    int added = virtio_hq_add(q, bufs, count);
    if (added < 0) {
        virtio_harness_die("no room in the ring");
    }
    (void)virtio_hq_kick(q);
    if (!virtio_hq_wait(q, &id, &len)) {
        return -1;
    }
    return id == (unsigned)added ? (int64_t)len : -1;
}
