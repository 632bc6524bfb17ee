/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attacks by registers: queue set-up, status, PCI; see virtio_attacks.def. */
#include "spec/pci_regs.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_attack.h"

static void common(struct virtio_attack_ctx *c, unsigned offset, unsigned size, uint64_t value)
{
    virtio_harness_common_write(c->vh, offset, size, value);
}

static void select_queue(struct virtio_attack_ctx *c)
{
    common(c, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, c->q->index);
}

/* One chain that a device can start to work on: readable and writable. */
static void some_io(struct virtio_attack_ctx *c)
{
    uint16_t slot = c->q->packed ? c->q->avail : 0;
    if (c->q->packed) {
        /* A single descriptor keeps to the ring's order however often this is called. */
        virtio_attack_desc(c, slot, c->buf, 512, VIRTIO_DESC_F_WRITE, 0);
        c->q->avail++;
        if (c->q->avail == c->q->size) {
            c->q->avail = 0;
            c->q->avail_wrap = !c->q->avail_wrap;
        }
    } else {
        virtio_attack_desc(c, 0, c->buf, 16, VIRTIO_DESC_F_NEXT, 1);
        virtio_attack_desc(c, 1, c->buf + 512, 1024, VIRTIO_DESC_F_WRITE, 0);
        le16_put(virtio_harness_ptr(c->vh, c->q->driver + 4 + 2u * (c->q->avail % c->q->size)), 0);
        c->q->avail++;
        le16_put(virtio_harness_ptr(c->vh, c->q->driver + 2), c->q->avail);
    }
    virtio_hq_ring(c->q);
}

/* ---- Queue set-up ---- */

/* Negotiates anew and enables the queue with these areas. */
static void enable_with(struct virtio_attack_ctx *c, uint64_t desc, uint64_t driver,
                        uint64_t device, unsigned size)
{
    (void)virtio_harness_negotiate(c->vh, c->vh->features);
    select_queue(c);
    common(c, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2, size);
    common(c, VIRTIO_PCI_COMMON_QUEUE_DESC, 8, desc);
    common(c, VIRTIO_PCI_COMMON_QUEUE_DRIVER, 8, driver);
    common(c, VIRTIO_PCI_COMMON_QUEUE_DEVICE, 8, device);
    common(c, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2, 1);
    virtio_harness_driver_ok(c->vh);
    virtio_attack_kick(c);
}

void virtio_attack_rings_overlap(struct virtio_attack_ctx *c)
{
    enable_with(c, c->q->desc, c->q->desc, c->q->desc, c->q->size);
    for (unsigned i = 0; i < 50; i++) {
        virtio_attack_desc(c, i % c->q->size, c->buf, 16, VIRTIO_DESC_F_WRITE, 0);
        virtio_attack_go(c, i % c->q->size);
    }
}

void virtio_attack_queue_outside_ram(struct virtio_attack_ctx *c)
{
    enable_with(c, BIT64(40), c->q->driver, c->q->device, c->q->size);
}

void virtio_attack_queue_unaligned(struct virtio_attack_ctx *c)
{
    enable_with(c, c->q->desc, c->q->driver, c->q->device + 1, c->q->size);
}

void virtio_attack_queue_wraps(struct virtio_attack_ctx *c)
{
    enable_with(c, UINT64_MAX - 15, c->q->driver, c->q->device, c->q->size);
}

void virtio_attack_queue_size_no_power_of_two(struct virtio_attack_ctx *c)
{
    enable_with(c, c->q->desc, c->q->driver, c->q->device, c->q->size - 1);
}

void virtio_attack_queue_size_zero_or_too_large(struct virtio_attack_ctx *c)
{
    (void)virtio_harness_negotiate(c->vh, c->vh->features);
    select_queue(c);
    uint64_t before = virtio_harness_common_read(c->vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2);
    common(c, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2, 0);
    common(c, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2, UINT16_MAX);
    common(c, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2, before + 1);
    if (virtio_harness_common_read(c->vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2) != before) {
        c->step = UINT32_MAX;
    }
}

void virtio_attack_queue_changed_while_live(struct virtio_attack_ctx *c)
{
    select_queue(c);
    common(c, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2, 4);
    common(c, VIRTIO_PCI_COMMON_QUEUE_DESC, 8, 0);
    common(c, VIRTIO_PCI_COMMON_QUEUE_DRIVER, 8, BIT64(40));
    common(c, VIRTIO_PCI_COMMON_QUEUE_DEVICE, 8, UINT64_MAX);
    common(c, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2, 0);
    if (virtio_harness_common_read(c->vh, VIRTIO_PCI_COMMON_QUEUE_DESC, 8) != c->q->desc ||
        virtio_harness_common_read(c->vh, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2) != 1) {
        c->step = UINT32_MAX;
    }
    virtio_attack_kick(c);
}

void virtio_attack_queue_enabled_twice(struct virtio_attack_ctx *c)
{
    select_queue(c);
    common(c, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2, 1);
    virtio_attack_kick(c);
}

void virtio_attack_queue_enabled_before_features(struct virtio_attack_ctx *c)
{
    virtio_harness_set_status(c->vh, 0);
    virtio_harness_set_status(c->vh, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    select_queue(c);
    common(c, VIRTIO_PCI_COMMON_QUEUE_DESC, 8, c->q->desc);
    common(c, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2, 1);
    if (virtio_harness_common_read(c->vh, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2) != 0) {
        c->step = UINT32_MAX;
    }
}

void virtio_attack_queue_out_of_range(struct virtio_attack_ctx *c)
{
    static const uint16_t bad[] = { 64, 255, 4096, UINT16_MAX };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        common(c, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, bad[i]);
        for (unsigned at = VIRTIO_PCI_COMMON_QUEUE_SIZE; at < VIRTIO_PCI_COMMON_SIZE; at += 2) {
            common(c, at, 2, 1);
            common(c, at, 4, 1);
            if (virtio_harness_common_read(c->vh, at, 2) != 0) {
                c->step = UINT32_MAX;
            }
        }
        uint64_t bell = c->vh->notify + (uint64_t)bad[i] * c->vh->notify_step;
        dev_harness_mmio_write(&c->vh->h, bell, 2, bad[i]);
    }
    virtio_attack_poll(c);
}

void virtio_attack_kick_without_queue(struct virtio_attack_ctx *c)
{
    (void)virtio_harness_negotiate(c->vh, c->vh->features);
    virtio_attack_kick(c);
    virtio_harness_driver_ok(c->vh);
    virtio_attack_kick(c);
}

void virtio_attack_kick_flood(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < 2000; i++) {
        virtio_hq_ring(c->q);
        if (i % 50 == 0) {
            virtio_attack_poll(c);
        }
    }
}

/* ---- Status and reset ---- */

void virtio_attack_reset_during_io(struct virtio_attack_ctx *c)
{
    some_io(c);
    if (loop_run_once(c->vh->h.env.loop, 0) < 0) {
        return;
    }
    virtio_harness_set_status(c->vh, 0);
    virtio_attack_poll(c);
}

void virtio_attack_reset_storm(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < 100; i++) {
        some_io(c);
        if (i % 2 == 0) {
            virtio_attack_poll(c);
        }
        virtio_harness_set_status(c->vh, 0);
        enable_with(c, c->q->desc, c->q->driver, c->q->device, c->q->size);
    }
}

void virtio_attack_queue_reset_during_io(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < 20; i++) {
        some_io(c);
        virtio_attack_poll(c);
        select_queue(c);
        common(c, VIRTIO_PCI_COMMON_QUEUE_RESET, 2, 1);
        common(c, VIRTIO_PCI_COMMON_QUEUE_RESET, 2, 1);
        common(c, VIRTIO_PCI_COMMON_QUEUE_DESC, 8, c->q->desc);
        common(c, VIRTIO_PCI_COMMON_QUEUE_DRIVER, 8, c->q->driver);
        common(c, VIRTIO_PCI_COMMON_QUEUE_DEVICE, 8, c->q->device);
        common(c, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2, 1);
    }
}

void virtio_attack_status_values(struct virtio_attack_ctx *c)
{
    for (unsigned v = 255; v > 0; v--) {
        virtio_harness_set_status(c->vh, (uint8_t)v);
        some_io(c);
        virtio_attack_poll(c);
    }
}

void virtio_attack_features_not_offered(struct virtio_attack_ctx *c)
{
    virtio_harness_set_status(c->vh, 0);
    virtio_harness_set_status(c->vh, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    for (uint32_t word = 0; word < 4; word++) {
        common(c, VIRTIO_PCI_COMMON_DRIVER_FEATURE_SELECT, 4, word);
        common(c, VIRTIO_PCI_COMMON_DRIVER_FEATURE, 4, UINT32_MAX);
    }
    uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK;
    virtio_harness_set_status(c->vh, status);
    if ((virtio_harness_status(c->vh) & VIRTIO_STATUS_FEATURES_OK) != 0) {
        c->step = UINT32_MAX;
    }
    virtio_harness_set_status(c->vh, status | VIRTIO_STATUS_DRIVER_OK);
    virtio_attack_kick(c);
}

/* Breaks the queue by a buffer outside of RAM. */
static void break_it(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, BIT64(40), 16, VIRTIO_DESC_F_WRITE, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_use_after_broken(struct virtio_attack_ctx *c)
{
    break_it(c);
    for (unsigned i = 0; i < 20; i++) {
        some_io(c);
        virtio_attack_poll(c);
        virtio_harness_driver_ok(c->vh);
    }
}

void virtio_attack_stop_and_start_broken(struct virtio_attack_ctx *c)
{
    break_it(c);
    dev_stop(c->vh->dev);
    some_io(c);
    virtio_attack_poll(c);
    dev_start(c->vh->dev);
    virtio_attack_poll(c);
}

/* ---- PCI ---- */

void virtio_attack_msix_edits_during_io(struct virtio_attack_ctx *c)
{
    uint64_t x = 2463534242u;
    for (unsigned i = 0; i < 200; i++) {
        some_io(c);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        dev_harness_mmio_write(&c->vh->h, c->vh->msix + (x & 0xffc), 4, x >> 32);
        virtio_attack_poll(c);
    }
}

void virtio_attack_msix_vector_out_of_range(struct virtio_attack_ctx *c)
{
    static const uint16_t bad[] = { 65, 2048, VIRTIO_MSI_NO_VECTOR - 1 };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        select_queue(c);
        common(c, VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR, 2, bad[i]);
        common(c, VIRTIO_PCI_COMMON_CONFIG_MSIX_VECTOR, 2, bad[i]);
        if (virtio_harness_common_read(c->vh, VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR, 2) !=
                VIRTIO_MSI_NO_VECTOR ||
            virtio_harness_common_read(c->vh, VIRTIO_PCI_COMMON_CONFIG_MSIX_VECTOR, 2) !=
                VIRTIO_MSI_NO_VECTOR) {
            c->step = UINT32_MAX;
        }
    }
}

void virtio_attack_bar_moved_during_io(struct virtio_attack_ctx *c)
{
    /* Onto RAM, ECAM, its own other BAR, the MSI window, nowhere. */
    static const uint32_t low[] = { 0, 0xb0000000, 0xc0000000, 0xfee00000, 0xfffffff0, 0x00100000 };
    for (unsigned bar = 0; bar < PCI_NUM_BARS; bar++) {
        for (unsigned i = 0; i < ARRAY_LEN(low); i++) {
            some_io(c);
            virtio_harness_pci_write(c->vh, PCI_REG_BAR0 + 4 * bar, 4, low[i]);
            virtio_hq_ring(c->q);
            virtio_attack_poll(c);
        }
    }
}

void virtio_attack_decoding_off_during_io(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < 16; i++) {
        some_io(c);
        virtio_harness_pci_write(c->vh, PCI_REG_COMMAND, 2, i % 8);
        virtio_hq_ring(c->q);
        virtio_attack_poll(c);
    }
}

static unsigned window_cap(struct virtio_attack_ctx *c)
{
    unsigned at = virtio_harness_pci_read(c->vh, PCI_REG_CAP_PTR, 1);
    while (virtio_harness_pci_read(c->vh, at, 1) != PCI_CAP_ID_VENDOR ||
           virtio_harness_pci_read(c->vh, at + VIRTIO_PCI_CAP_OFF_TYPE, 1) != VIRTIO_PCI_CAP_PCI) {
        at = virtio_harness_pci_read(c->vh, at + 1, 1);
    }
    return at;
}

void virtio_attack_config_window(struct virtio_attack_ctx *c)
{
    static const uint32_t offsets[] = {
        0, 2, 0x13ff, 0x3000, 0x3ffc, 0x4000, 0x7ffffffc, UINT32_MAX
    };
    unsigned at = window_cap(c);
    for (unsigned bar = 0; bar < 8; bar++) {
        for (unsigned i = 0; i < ARRAY_LEN(offsets); i++) {
            for (uint32_t len = 0; len < 10; len++) {
                virtio_harness_pci_write(c->vh, at + VIRTIO_PCI_CAP_OFF_BAR, 1, bar);
                virtio_harness_pci_write(c->vh, at + VIRTIO_PCI_CAP_OFF_OFFSET, 4, offsets[i]);
                virtio_harness_pci_write(c->vh, at + VIRTIO_PCI_CAP_OFF_LENGTH, 4, len);
                (void)virtio_harness_pci_read(c->vh, at + VIRTIO_PCI_CAP_OFF_EXTRA, 4);
                virtio_harness_pci_write(c->vh, at + VIRTIO_PCI_CAP_OFF_EXTRA, 4, 0x5a5a5a5a);
            }
        }
    }
    virtio_attack_poll(c);
}

void virtio_attack_config_every_register(struct virtio_attack_ctx *c)
{
    for (unsigned at = 0; at < 256; at++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            uint32_t old = virtio_harness_pci_read(c->vh, at, size);
            virtio_harness_pci_write(c->vh, at, size, ~old);
            virtio_harness_pci_write(c->vh, at, size, UINT32_MAX);
            virtio_harness_pci_write(c->vh, at, size, 0);
        }
        some_io(c);
    }
    virtio_attack_poll(c);
}

void virtio_attack_common_every_register(struct virtio_attack_ctx *c)
{
    static const uint64_t values[] = { UINT64_MAX, 1, 0, 0x5a5a5a5a5a5a5a5a };
    for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
        for (unsigned at = 0; at < 0x1000; at += at < 0x80 ? 1 : 61) {
            for (unsigned size = 1; size <= 8; size *= 2) {
                (void)virtio_harness_common_read(c->vh, at, size);
                common(c, at, size, values[i]);
            }
        }
        some_io(c);
        virtio_attack_poll(c);
    }
}

void virtio_attack_device_config_every_register(struct virtio_attack_ctx *c)
{
    if (c->vh->config == 0) {
        return; /* a type without a configuration */
    }
    for (unsigned at = 0; at < 0x1000; at += at < 0x100 ? 1 : 61) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            (void)virtio_harness_config_read(c->vh, at, size);
            virtio_harness_config_write(c->vh, at, size, UINT64_MAX);
            virtio_harness_config_write(c->vh, at, size, 0);
        }
    }
    some_io(c);
    virtio_attack_poll(c);
}
