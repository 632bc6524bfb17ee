/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio over PCI, modern interface only (virtio 1.2 §4.1).
 *
 *   BAR 1  MSI-X table and PBA: vector 0 .. n-1 as the driver distributes them
 *   BAR 4  0x0000 common configuration   0x1000 ISR status
 *          0x2000 device configuration   0x3000 doorbells, 4 bytes a queue
 *
 * A doorbell is an eventfd on the MMIO bus, so that with an engine that can do it a kick costs no
 * exit to us; the loop thread waits for it. The region behind it only sees what comes through the
 * configuration window (§4.1.4.9), and rings the same eventfd.
 *
 * QUIRK: the bus-master bit of the command register is not looked at.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "spec/pci_regs.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_int.h"

#define VIRTIO_PCI_MSIX_BAR     1
#define VIRTIO_PCI_BAR          4
#define VIRTIO_PCI_BAR_SIZE     0x4000
#define VIRTIO_PCI_PART_SIZE    0x1000
#define VIRTIO_PCI_COMMON_BASE  0x0000
#define VIRTIO_PCI_ISR_BASE     0x1000
#define VIRTIO_PCI_CONFIG_BASE  0x2000
#define VIRTIO_PCI_NOTIFY_BASE  0x3000
#define VIRTIO_PCI_NOTIFY_STEP  4
#define VIRTIO_PCI_SUBSYSTEM_ID 0x40 /* §4.1.2.1: a transitional-free id of 0x40 or more */

_Static_assert(VIRTIO_MAX_QUEUES *VIRTIO_PCI_NOTIFY_STEP <= VIRTIO_PCI_PART_SIZE, "doorbells fit");

struct virtio_pci_bell {
    struct virtio_dev *vdev;
    struct virtq *vq;
    int fd;
    struct loop_fd *watch;
    struct bus_eventfd entry;
};

struct virtio_pci {
    uint32_t device_feature_select;
    uint32_t driver_feature_select;
    uint16_t config_vector;
    uint16_t queue_select;
    uint8_t isr;
    uint8_t window; /* capability that is a window into the BAR (VIRTIO_PCI_CAP_PCI) */
    struct virtio_pci_bell bell[];
};

static void virtio_pci_raise(struct virtio_dev *vdev, uint16_t vector, uint8_t isr_bit)
{
    if (pci_msix_enabled(&vdev->pci)) {
        if (vector != VIRTIO_MSI_NO_VECTOR) {
            pci_msix_notify(&vdev->pci, vector);
        }
        return;
    }
    vdev->transport->isr |= isr_bit;
    pci_intx(&vdev->pci, 1);
}

void virtio_pci_queue_interrupt(struct virtio_dev *vdev, struct virtq *vq)
{
    virtio_pci_raise(vdev, vq->msix_vector, VIRTIO_PCI_ISR_QUEUE);
}

void virtio_pci_config_interrupt(struct virtio_dev *vdev)
{
    virtio_pci_raise(vdev, vdev->transport->config_vector, VIRTIO_PCI_ISR_CONFIG);
}

void virtio_pci_ring(struct virtio_dev *vdev, const struct virtq *vq)
{
    uint64_t one = 1;
    /* EAGAIN: the counter is full, so it is signalled already. */
    (void)!write(vdev->transport->bell[vq->index].fd, &one, sizeof(one));
}

void virtio_pci_ring_all(struct virtio_dev *vdev)
{
    for (unsigned i = 0; i < vdev->nqueues; i++) {
        if (vdev->queue[i].ready) {
            virtio_pci_ring(vdev, &vdev->queue[i]);
        }
    }
}

static void virtio_pci_rung(void *opaque, uint32_t events)
{
    struct virtio_pci_bell *bell = opaque;
    uint64_t count;
    (void)events;
    /* Emptied before the queue is looked at, so that a kick meanwhile comes back here. */
    (void)!read(bell->fd, &count, sizeof(count));
    dev_lock(bell->vdev->dev);
    virtio_queue_kicked(bell->vdev, bell->vq);
    dev_unlock(bell->vdev->dev);
}

/* ---- Common configuration (§4.1.4.3) ---- */

static struct virtq *virtio_pci_selected(struct virtio_dev *vdev)
{
    unsigned q = vdev->transport->queue_select;
    return q < vdev->nqueues ? &vdev->queue[q] : NULL;
}

static uint32_t virtio_pci_feature_word(const struct virtio_dev *vdev, uint32_t select)
{
    return select > 1 ? 0 : (uint32_t)(vdev->device_features >> (32 * select));
}

/* The structure as it reads now; queue fields are zero where the selected queue does not exist. */
static void virtio_pci_common_image(struct virtio_dev *vdev, uint8_t *c)
{
    const struct virtio_pci *t = vdev->transport;
    uint32_t driver_word =
        t->driver_feature_select > 1
            ? 0
            : (uint32_t)(vdev->driver_features >> (32 * t->driver_feature_select));
    memset(c, 0, VIRTIO_PCI_COMMON_SIZE);
    le32_put(c + VIRTIO_PCI_COMMON_DEVICE_FEATURE_SELECT, t->device_feature_select);
    le32_put(c + VIRTIO_PCI_COMMON_DEVICE_FEATURE,
             virtio_pci_feature_word(vdev, t->device_feature_select));
    le32_put(c + VIRTIO_PCI_COMMON_DRIVER_FEATURE_SELECT, t->driver_feature_select);
    le32_put(c + VIRTIO_PCI_COMMON_DRIVER_FEATURE, driver_word);
    le16_put(c + VIRTIO_PCI_COMMON_CONFIG_MSIX_VECTOR, t->config_vector);
    le16_put(c + VIRTIO_PCI_COMMON_NUM_QUEUES, (uint16_t)vdev->nqueues);
    c[VIRTIO_PCI_COMMON_DEVICE_STATUS] = virtio_get_status(vdev);
    c[VIRTIO_PCI_COMMON_CONFIG_GENERATION] = (uint8_t)vdev->config_generation;
    le16_put(c + VIRTIO_PCI_COMMON_QUEUE_SELECT, t->queue_select);
    const struct virtq *vq = virtio_pci_selected(vdev);
    if (vq == NULL) {
        return;
    }
    le16_put(c + VIRTIO_PCI_COMMON_QUEUE_SIZE, vq->size);
    le16_put(c + VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR, vq->msix_vector);
    le16_put(c + VIRTIO_PCI_COMMON_QUEUE_ENABLE, vq->ready ? 1 : 0);
    le16_put(c + VIRTIO_PCI_COMMON_QUEUE_NOTIFY_OFF, (uint16_t)vq->index);
    le64_put(c + VIRTIO_PCI_COMMON_QUEUE_DESC, vq->desc.v);
    le64_put(c + VIRTIO_PCI_COMMON_QUEUE_DRIVER, vq->driver.v);
    le64_put(c + VIRTIO_PCI_COMMON_QUEUE_DEVICE, vq->device.v);
    le16_put(c + VIRTIO_PCI_COMMON_QUEUE_NOTIFY_DATA, (uint16_t)vq->index);
    le16_put(c + VIRTIO_PCI_COMMON_QUEUE_RESET, vq->resetting && vq->outstanding > 0 ? 1 : 0);
}

static uint32_t virtio_pci_common_read(struct virtio_dev *vdev, uint64_t offset, unsigned size)
{
    uint8_t c[VIRTIO_PCI_COMMON_SIZE + 4] = { 0 };
    if (offset >= VIRTIO_PCI_COMMON_SIZE) {
        return 0;
    }
    virtio_pci_common_image(vdev, c);
    return le32_get(c + offset) & (uint32_t)bits_mask_bytes(size);
}

static void virtio_pci_set_half(gpa_t *gpa, bool high, uint32_t value)
{
    gpa->v = high ? (gpa->v & UINT32_MAX) | (uint64_t)value << 32
                  : (gpa->v & ~(uint64_t)UINT32_MAX) | value;
}

/* A vector the function does not have reads back as "none" (§4.1.5.1.2.1). */
static uint16_t virtio_pci_vector(const struct virtio_dev *vdev, uint64_t value)
{
    return value < vdev->pci.msix.count ? (uint16_t)value : VIRTIO_MSI_NO_VECTOR;
}

static void virtio_pci_queue_set_up(struct virtio_dev *vdev, struct virtq *vq, uint64_t offset,
                                    uint32_t value)
{
    if (vq->ready) {
        dev_guest_bug(vdev->dev, "queue %u changed while enabled", vq->index);
        return;
    }
    bool high = (offset & 4) != 0;
    switch (offset & ~UINT64_C(7)) {
    case VIRTIO_PCI_COMMON_QUEUE_DESC:
        virtio_pci_set_half(&vq->desc, high, value);
        break;
    case VIRTIO_PCI_COMMON_QUEUE_DRIVER:
        virtio_pci_set_half(&vq->driver, high, value);
        break;
    case VIRTIO_PCI_COMMON_QUEUE_DEVICE:
        virtio_pci_set_half(&vq->device, high, value);
        break;
    default: /* the queue's size; checked against the ring's layout when enabled */
        if (value == 0 || value > vq->max_size) {
            dev_guest_bug(vdev->dev, "queue %u of size %u (1 to %u)", vq->index, value,
                          vq->max_size);
            return;
        }
        vq->size = (uint16_t)value;
        break;
    }
}

static void virtio_pci_queue_write(struct virtio_dev *vdev, uint64_t offset, uint32_t value)
{
    struct virtq *vq = virtio_pci_selected(vdev);
    if (vq == NULL) {
        return;
    }
    switch (offset) {
    case VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR:
        vq->msix_vector = virtio_pci_vector(vdev, value);
        break;
    case VIRTIO_PCI_COMMON_QUEUE_ENABLE:
        if (value == 1) {
            virtio_queue_enable(vdev, vq);
        }
        break;
    case VIRTIO_PCI_COMMON_QUEUE_RESET:
        if (value == 1) {
            virtio_queue_reset(vdev, vq);
        }
        break;
    default:
        virtio_pci_queue_set_up(vdev, vq, offset, value);
        break;
    }
}

/* A field is written whole, the 64-bit ones in halves (§4.1.3.1); anything else is dropped. */
static void virtio_pci_common_write(struct virtio_dev *vdev, uint64_t offset, unsigned size,
                                    uint32_t value)
{
    static const struct {
        uint8_t offset;
        uint8_t size;
    } writable[] = {
        {VIRTIO_PCI_COMMON_DEVICE_FEATURE_SELECT,  4},
        { VIRTIO_PCI_COMMON_DRIVER_FEATURE_SELECT, 4},
        { VIRTIO_PCI_COMMON_DRIVER_FEATURE,        4},
        { VIRTIO_PCI_COMMON_CONFIG_MSIX_VECTOR,    2},
        { VIRTIO_PCI_COMMON_DEVICE_STATUS,         1},
        { VIRTIO_PCI_COMMON_QUEUE_SELECT,          2},
        { VIRTIO_PCI_COMMON_QUEUE_SIZE,            2},
        { VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR,     2},
        { VIRTIO_PCI_COMMON_QUEUE_ENABLE,          2},
        { VIRTIO_PCI_COMMON_QUEUE_DESC,            4},
        { VIRTIO_PCI_COMMON_QUEUE_DESC + 4,        4},
        { VIRTIO_PCI_COMMON_QUEUE_DRIVER,          4},
        { VIRTIO_PCI_COMMON_QUEUE_DRIVER + 4,      4},
        { VIRTIO_PCI_COMMON_QUEUE_DEVICE,          4},
        { VIRTIO_PCI_COMMON_QUEUE_DEVICE + 4,      4},
        { VIRTIO_PCI_COMMON_QUEUE_RESET,           2},
    };
    struct virtio_pci *t = vdev->transport;
    bool known = false;
    for (unsigned i = 0; i < ARRAY_LEN(writable); i++) {
        known = known || (writable[i].offset == offset && writable[i].size == size);
    }
    if (!known) {
        return;
    }
    switch (offset) {
    case VIRTIO_PCI_COMMON_DEVICE_FEATURE_SELECT:
        t->device_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_DRIVER_FEATURE_SELECT:
        t->driver_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_DRIVER_FEATURE:
        virtio_set_features(vdev, t->driver_feature_select, value);
        break;
    case VIRTIO_PCI_COMMON_CONFIG_MSIX_VECTOR:
        t->config_vector = virtio_pci_vector(vdev, value);
        break;
    case VIRTIO_PCI_COMMON_DEVICE_STATUS:
        virtio_set_status(vdev, (uint8_t)value);
        break;
    case VIRTIO_PCI_COMMON_QUEUE_SELECT:
        t->queue_select = (uint16_t)value;
        break;
    default:
        virtio_pci_queue_write(vdev, offset, value);
        break;
    }
}

/* ---- The BAR ---- */

/* Reading clears and ends the interrupt (§4.1.4.5). */
static uint32_t virtio_pci_isr_read(struct virtio_dev *vdev)
{
    uint8_t isr = vdev->transport->isr;
    vdev->transport->isr = 0;
    pci_intx(&vdev->pci, 0);
    return isr;
}

static uint64_t virtio_pci_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_dev *vdev = opaque;
    uint64_t at = offset % VIRTIO_PCI_PART_SIZE;
    switch (offset - at) {
    case VIRTIO_PCI_COMMON_BASE:
        return virtio_pci_common_read(vdev, at, size);
    case VIRTIO_PCI_ISR_BASE:
        return at == 0 ? virtio_pci_isr_read(vdev) : 0;
    case VIRTIO_PCI_CONFIG_BASE:
        return virtio_config_read(vdev, at, size);
    default:
        return 0;
    }
}

static void virtio_pci_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_dev *vdev = opaque;
    uint64_t at = offset % VIRTIO_PCI_PART_SIZE;
    switch (offset - at) {
    case VIRTIO_PCI_COMMON_BASE:
        virtio_pci_common_write(vdev, at, size, (uint32_t)value);
        break;
    case VIRTIO_PCI_CONFIG_BASE:
        virtio_config_write(vdev, at, size, value);
        break;
    case VIRTIO_PCI_NOTIFY_BASE:
        if (at % VIRTIO_PCI_NOTIFY_STEP == 0 && at / VIRTIO_PCI_NOTIFY_STEP < vdev->nqueues) {
            virtio_pci_ring(vdev, &vdev->queue[at / VIRTIO_PCI_NOTIFY_STEP]);
        }
        break;
    default:
        break;
    }
}

static const struct bus_ops virtio_pci_ops = {
    .read = virtio_pci_read,
    .write = virtio_pci_write,
    .max_size = 4,
};

/* The BAR moved: so do the doorbells. */
static void virtio_pci_moved(void *opaque, uint64_t base)
{
    struct virtio_dev *vdev = opaque;
    for (unsigned i = 0; i < vdev->nqueues; i++) {
        struct bus_eventfd *e = &vdev->transport->bell[i].entry;
        bus_eventfd_del(e);
        if (base == UINT64_MAX) {
            continue;
        }
        e->addr = base + VIRTIO_PCI_NOTIFY_BASE + VIRTIO_PCI_NOTIFY_STEP * i;
        /* Size 0, any: drivers may use 16 or 32 bits, and KVM needs no decoding then. */
        e->size = 0;
        e->fd = vdev->transport->bell[i].fd;
        if (bus_eventfd_add(vdev->dev->env->mmio, e) < 0) {
            log_warn(vdev->dev->id, "no doorbell for a queue; kicks take the slow way",
                     "queue='%u'", i);
        }
    }
}

/* ---- The window in configuration space (§4.1.4.9) ---- */

/* The access that the window's fields describe, checked. false: none such. */
static bool virtio_pci_window_access(const struct virtio_dev *vdev, uint32_t *ret_offset,
                                     unsigned *ret_size)
{
    const uint8_t *cap = vdev->pci.config + vdev->transport->window;
    uint32_t offset = le32_get(cap + VIRTIO_PCI_CAP_OFF_OFFSET);
    uint32_t size = le32_get(cap + VIRTIO_PCI_CAP_OFF_LENGTH);
    if (cap[VIRTIO_PCI_CAP_OFF_BAR] != VIRTIO_PCI_BAR || (size != 1 && size != 2 && size != 4) ||
        offset % size != 0 || offset >= VIRTIO_PCI_BAR_SIZE) {
        return false;
    }
    *ret_offset = offset;
    *ret_size = size;
    return true;
}

static bool virtio_pci_window_touched(const struct virtio_dev *vdev, unsigned offset, unsigned size)
{
    unsigned data = vdev->transport->window + VIRTIO_PCI_CAP_OFF_EXTRA;
    return offset < data + 4 && offset + size > data;
}

static void virtio_pci_config_reading(struct pci_dev *pci, unsigned offset, unsigned size)
{
    struct virtio_dev *vdev = container_of(pci, struct virtio_dev, pci);
    uint32_t at;
    unsigned len;
    if (virtio_pci_window_touched(vdev, offset, size) &&
        virtio_pci_window_access(vdev, &at, &len)) {
        uint8_t *data = pci->config + vdev->transport->window + VIRTIO_PCI_CAP_OFF_EXTRA;
        le32_put(data, (uint32_t)virtio_pci_read(vdev, at, len));
    }
}

static void virtio_pci_config_written(struct pci_dev *pci, unsigned offset, unsigned size)
{
    struct virtio_dev *vdev = container_of(pci, struct virtio_dev, pci);
    uint32_t at;
    unsigned len;
    if (virtio_pci_window_touched(vdev, offset, size) &&
        virtio_pci_window_access(vdev, &at, &len)) {
        const uint8_t *data = pci->config + vdev->transport->window + VIRTIO_PCI_CAP_OFF_EXTRA;
        virtio_pci_write(vdev, at, len, le32_get(data) & bits_mask_bytes(len));
    }
}

/* ---- Building ---- */

/* Appends one of the vendor capabilities; `extra` bytes follow the common part. */
static int virtio_pci_add_cap(struct virtio_dev *vdev, uint8_t type, uint32_t offset,
                              uint32_t length, uint32_t extra, const uint8_t *wmask,
                              struct err *err)
{
    uint8_t cap[VIRTIO_PCI_CAP_SIZE + 4] = { 0 };
    size_t len = VIRTIO_PCI_CAP_SIZE;
    if (type == VIRTIO_PCI_CAP_NOTIFY || type == VIRTIO_PCI_CAP_PCI) {
        len += 4;
    }
    cap[VIRTIO_PCI_CAP_OFF_LEN] = (uint8_t)len;
    cap[VIRTIO_PCI_CAP_OFF_TYPE] = type;
    cap[VIRTIO_PCI_CAP_OFF_BAR] = type == VIRTIO_PCI_CAP_PCI ? 0 : VIRTIO_PCI_BAR;
    le32_put(cap + VIRTIO_PCI_CAP_OFF_OFFSET, offset);
    le32_put(cap + VIRTIO_PCI_CAP_OFF_LENGTH, length);
    le32_put(cap + VIRTIO_PCI_CAP_OFF_EXTRA, extra);
    return pci_cap_add(&vdev->pci, PCI_CAP_ID_VENDOR, cap + 2, wmask, len, err);
}

static int virtio_pci_add_caps(struct virtio_dev *vdev, struct err *err)
{
    uint32_t config_size = (uint32_t)vdev->type->config_size;
    uint32_t notify_size = vdev->nqueues * VIRTIO_PCI_NOTIFY_STEP;
    /* Writable in the window's capability: bar, offset, length, data; indexed from byte 2. */
    uint8_t wmask[VIRTIO_PCI_CAP_SIZE + 4 - 2] = { 0 };
    wmask[VIRTIO_PCI_CAP_OFF_BAR - 2] = 0xff;
    memset(wmask + VIRTIO_PCI_CAP_OFF_OFFSET - 2, 0xff, 12);

    int rc = virtio_pci_add_cap(vdev, VIRTIO_PCI_CAP_COMMON, VIRTIO_PCI_COMMON_BASE,
                                VIRTIO_PCI_COMMON_SIZE, 0, NULL, err);
    if (rc >= 0) {
        rc = virtio_pci_add_cap(vdev, VIRTIO_PCI_CAP_NOTIFY, VIRTIO_PCI_NOTIFY_BASE, notify_size,
                                VIRTIO_PCI_NOTIFY_STEP, NULL, err);
    }
    if (rc >= 0) {
        rc = virtio_pci_add_cap(vdev, VIRTIO_PCI_CAP_ISR, VIRTIO_PCI_ISR_BASE, 1, 0, NULL, err);
    }
    if (rc >= 0 && config_size > 0) {
        rc = virtio_pci_add_cap(vdev, VIRTIO_PCI_CAP_DEVICE, VIRTIO_PCI_CONFIG_BASE, config_size, 0,
                                NULL, err);
    }
    if (rc >= 0) {
        rc = virtio_pci_add_cap(vdev, VIRTIO_PCI_CAP_PCI, 0, 0, 0, wmask, err);
    }
    if (rc >= 0) {
        vdev->transport->window = (uint8_t)rc;
    }
    return MIN(rc, 0);
}

static int virtio_pci_add_bells(struct virtio_dev *vdev, struct err *err)
{
    for (unsigned i = 0; i < vdev->nqueues; i++) {
        struct virtio_pci_bell *bell = &vdev->transport->bell[i];
        bell->vdev = vdev;
        bell->vq = &vdev->queue[i];
        bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (bell->fd < 0) {
            return err_set_errno(err, -errno, "eventfd of queue %u", i);
        }
        bell->watch = loop_fd_add(vdev->dev->env->loop, bell->fd, EPOLLIN, virtio_pci_rung, bell);
        if (bell->watch == NULL) {
            return err_set_errno(err, -errno, "event loop, queue %u", i);
        }
    }
    return 0;
}

int virtio_pci_init(struct virtio_dev *vdev, struct err *err)
{
    assert(vdev->type->config_size <= VIRTIO_PCI_PART_SIZE);
    struct virtio_pci *t = calloc(1, sizeof(*t) + vdev->nqueues * sizeof(struct virtio_pci_bell));
    if (t == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    t->config_vector = VIRTIO_MSI_NO_VECTOR;
    for (unsigned i = 0; i < vdev->nqueues; i++) {
        t->bell[i].fd = -1;
    }
    vdev->transport = t;
    const struct pci_ident ident = {
        .vendor = VIRTIO_PCI_VENDOR,
        .device = (uint16_t)(VIRTIO_PCI_DEVICE_BASE + vdev->type->device_id),
        .subsystem_vendor = VIRTIO_PCI_VENDOR,
        .subsystem = VIRTIO_PCI_SUBSYSTEM_ID,
        .class_code = vdev->type->pci_class_code,
        .revision = 1, /* §4.1.2.1: 1 or more is not transitional */
        .int_pin = 1,
    };
    int rc = pci_dev_init(&vdev->pci, vdev->dev, &ident, PCI_SLOT_AUTO, err);
    if (rc == 0) {
        rc = pci_msix_add(&vdev->pci, VIRTIO_PCI_MSIX_BAR, vdev->nqueues + 1, err);
    }
    if (rc == 0) {
        rc = pci_bar_add(&vdev->pci, VIRTIO_PCI_BAR, PCI_BAR_MEM64, VIRTIO_PCI_BAR_SIZE,
                         &virtio_pci_ops, vdev, err);
    }
    if (rc == 0) {
        vdev->pci.bar[VIRTIO_PCI_BAR].moved = virtio_pci_moved;
        rc = virtio_pci_add_caps(vdev, err);
    }
    if (rc == 0) {
        vdev->pci.config_reading = virtio_pci_config_reading;
        vdev->pci.config_written = virtio_pci_config_written;
        rc = virtio_pci_add_bells(vdev, err);
    }
    return rc; /* virtio_dev_init() calls virtio_pci_done() on an error */
}

void virtio_pci_done(struct virtio_dev *vdev)
{
    struct virtio_pci *t = vdev->transport;
    if (t == NULL) {
        return;
    }
    pci_dev_done(&vdev->pci);
    for (unsigned i = 0; i < vdev->nqueues; i++) {
        loop_fd_del(t->bell[i].watch);
        if (t->bell[i].fd >= 0) {
            close(t->bell[i].fd);
        }
    }
    free(t);
    vdev->transport = NULL;
}

void virtio_pci_reset(struct virtio_dev *vdev)
{
    struct virtio_pci *t = vdev->transport;
    t->device_feature_select = 0;
    t->driver_feature_select = 0;
    t->config_vector = VIRTIO_MSI_NO_VECTOR;
    t->queue_select = 0;
    t->isr = 0;
    pci_intx(&vdev->pci, 0);
}
