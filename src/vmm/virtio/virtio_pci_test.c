/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The PCI transport by the echo device; section numbers are of virtio 1.2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/pci_regs.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_echo.h"
#include "vmm/virtio/virtio_harness.h"

struct fixture {
    struct virtio_harness vh;
    struct virtio_echo *echo;
};

static void set_up(struct fixture *f)
{
    virtio_harness_init(&f->vh, 1 * MIB);
    f->echo = virtio_harness_add(&f->vh, &virtio_echo_class, NULL)->state;
}

static void msix_enable(struct fixture *f, bool on)
{
    virtio_harness_pci_write(&f->vh, f->echo->vdev.pci.msix.cap + PCI_MSIX_CONTROL, 2,
                             on ? PCI_MSIX_CTRL_ENABLE : 0);
}

static bool echo(struct fixture *f)
{
    uint64_t buf = virtio_harness_alloc(&f->vh, 32, 1);
    const struct virtio_hbuf bufs[] = {
        {buf,       16, false},
        { buf + 16, 16, true }
    };
    return virtio_hq_roundtrip(f->vh.queue[0], bufs, 2) == 16;
}

/* §4.1.2: how a driver knows the device. */
static void test_identity(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    assert_int_equal(virtio_harness_pci_read(&f.vh, PCI_REG_VENDOR, 2), 0x1af4);
    assert_int_equal(virtio_harness_pci_read(&f.vh, PCI_REG_DEVICE, 2), 0x1040 + 42);
    assert_true(virtio_harness_pci_read(&f.vh, PCI_REG_REVISION, 1) >= 1);
    assert_true(virtio_harness_pci_read(&f.vh, PCI_REG_SUBSYS, 2) >= 0x40);
    assert_int_equal(f.vh.notify_step, 4);
    virtio_harness_done(&f.vh);
}

/* §4.1.4.3: fields read back as written, in halves and whole; absent queues read as zero. */
static void test_common_configuration(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    struct virtio_harness *vh = &f.vh;
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_NUM_QUEUES, 2), 2);
    (void)virtio_harness_negotiate(vh, BIT64(VIRTIO_F_VERSION_1));
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, 1);
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2), 256);
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_NOTIFY_OFF, 2), 1);
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR, 2),
                     VIRTIO_MSI_NO_VECTOR);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_DESC, 4, 0x11223340);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_DESC + 4, 4, 0x55);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_DRIVER, 8, UINT64_C(0x6600000001));
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_DESC, 8),
                     UINT64_C(0x5511223340));
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_DRIVER + 4, 4), 0x66);
    /* Half a field is no write. */
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 1, 4);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_DESC, 2, 0);
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2), 256);
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_DESC, 4), 0x11223340);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, 2);
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2), 0);
    virtio_harness_set_status(vh, 0);
    virtio_harness_common_write(vh, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, 1);
    assert_int_equal(virtio_harness_common_read(vh, VIRTIO_PCI_COMMON_QUEUE_DESC, 8), 0);
    virtio_harness_done(vh);
}

/* §4.1.4.5: without MSI-X the ISR says why and reading it ends the interrupt. */
static void test_intx_and_isr(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    virtio_harness_start(&f.vh, 0, 8);
    msix_enable(&f, false);
    unsigned gsi = pci_bus_gsi(f.vh.devfn >> 3, 1);
    assert_true(echo(&f));
    assert_int_equal(f.vh.h.gsi_level[gsi], 1);
    assert_int_equal(dev_harness_mmio_read(&f.vh.h, f.vh.isr, 1), VIRTIO_PCI_ISR_QUEUE);
    assert_int_equal(f.vh.h.gsi_level[gsi], 0);
    assert_int_equal(dev_harness_mmio_read(&f.vh.h, f.vh.isr, 1), 0);
    virtio_config_changed(&f.echo->vdev);
    assert_true(echo(&f));
    assert_int_equal(dev_harness_mmio_read(&f.vh.h, f.vh.isr, 1),
                     VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG);
    /* A reset ends a pending one as well. */
    assert_true(echo(&f));
    assert_int_equal(f.vh.h.gsi_level[gsi], 1);
    virtio_harness_set_status(&f.vh, 0);
    assert_int_equal(f.vh.h.gsi_level[gsi], 0);
    virtio_harness_done(&f.vh);
}

/* §4.1.5.1.2: each queue has the vector that the driver gave it, or none. */
static void test_msix_vectors(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    virtio_harness_start(&f.vh, 0, 8);
    assert_true(echo(&f));
    assert_int_equal(virtio_harness_irqs(&f.vh, 0), 1);
    virtio_harness_common_write(&f.vh, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, 0);
    virtio_harness_common_write(&f.vh, VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR, 2, 1);
    assert_true(echo(&f));
    assert_int_equal(virtio_harness_irqs(&f.vh, 0), 1);
    assert_int_equal(virtio_harness_irqs(&f.vh, 1), 1);
    virtio_harness_common_write(&f.vh, VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR, 2,
                                VIRTIO_MSI_NO_VECTOR);
    assert_true(echo(&f));
    assert_int_equal(virtio_harness_irqs(&f.vh, 1), 1);
    assert_int_equal(dev_harness_mmio_read(&f.vh.h, f.vh.isr, 1), 0); /* not used with MSI-X */
    virtio_harness_done(&f.vh);
}

/* §2.5.1, §4.1.4.3.1: a change of the configuration gives a new generation and an interrupt. */
static void test_config_generation(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    uint64_t before = virtio_harness_common_read(&f.vh, VIRTIO_PCI_COMMON_CONFIG_GENERATION, 1);
    virtio_config_changed(&f.echo->vdev); /* nobody to interrupt yet */
    virtio_harness_start(&f.vh, 0, 8);
    assert_int_equal(virtio_harness_irqs(&f.vh, 2), 0);
    virtio_config_changed(&f.echo->vdev);
    assert_int_equal(virtio_harness_irqs(&f.vh, 2), 1);
    assert_int_equal(virtio_harness_common_read(&f.vh, VIRTIO_PCI_COMMON_CONFIG_GENERATION, 1),
                     before + 2);
    virtio_harness_done(&f.vh);
}

/* The doorbells follow the BAR; at the old place nobody is. */
static void test_doorbells_move(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    virtio_harness_start(&f.vh, 0, 8);
    uint64_t old = f.vh.common;
    virtio_harness_pci_write(&f.vh, PCI_REG_BAR0 + 4 * 4, 4, 0xc8000000);
    virtio_harness_pci_write(&f.vh, PCI_REG_BAR0 + 4 * 5, 4, 0);
    assert_int_equal(dev_harness_mmio_read(&f.vh.h, old, 4), UINT32_MAX);
    virtio_harness_find(&f.vh);
    assert_int_equal(f.vh.common, 0xc8000000);
    assert_true(echo(&f));
    virtio_harness_pci_write(&f.vh, PCI_REG_COMMAND, 2, 0);
    assert_int_equal(dev_harness_mmio_read(&f.vh.h, f.vh.common, 4), UINT32_MAX);
    virtio_harness_done(&f.vh);
}

static unsigned window(struct fixture *f)
{
    unsigned at = virtio_harness_pci_read(&f->vh, PCI_REG_CAP_PTR, 1);
    while (virtio_harness_pci_read(&f->vh, at, 1) != PCI_CAP_ID_VENDOR ||
           virtio_harness_pci_read(&f->vh, at + VIRTIO_PCI_CAP_OFF_TYPE, 1) != VIRTIO_PCI_CAP_PCI) {
        at = virtio_harness_pci_read(&f->vh, at + 1, 1);
    }
    return at;
}

static void window_at(struct fixture *f, uint32_t offset, uint32_t size)
{
    unsigned at = window(f);
    virtio_harness_pci_write(&f->vh, at + VIRTIO_PCI_CAP_OFF_BAR, 1, 4);
    virtio_harness_pci_write(&f->vh, at + VIRTIO_PCI_CAP_OFF_OFFSET, 4, offset);
    virtio_harness_pci_write(&f->vh, at + VIRTIO_PCI_CAP_OFF_LENGTH, 4, size);
}

/* §4.1.4.9: the whole device through configuration space, memory decoding off. */
static void test_config_window(void **state)
{
    (void)state;
    struct fixture f;
    unsigned id;
    uint32_t len;
    set_up(&f);
    virtio_harness_start(&f.vh, 0, 8);
    unsigned data = window(&f) + VIRTIO_PCI_CAP_OFF_EXTRA;
    uint64_t buf = virtio_harness_alloc(&f.vh, 16, 1);
    const struct virtio_hbuf bufs[] = {
        {buf, 16, false}
    };
    assert_true(virtio_hq_add(f.vh.queue[1], bufs, 1) >= 0);
    virtio_harness_pci_write(&f.vh, PCI_REG_COMMAND, 2, 0);
    window_at(&f, VIRTIO_PCI_COMMON_NUM_QUEUES, 2);
    assert_int_equal(virtio_harness_pci_read(&f.vh, data, 2), 2);
    window_at(&f, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2);
    virtio_harness_pci_write(&f.vh, data, 2, 1);
    window_at(&f, VIRTIO_PCI_COMMON_QUEUE_SIZE, 2);
    assert_int_equal(virtio_harness_pci_read(&f.vh, data, 2), 8);
    window_at(&f, 0x3000 + 4, 2); /* the doorbell of queue 1 */
    virtio_harness_pci_write(&f.vh, data, 2, 1);
    assert_true(virtio_hq_wait(f.vh.queue[1], &id, &len));
    /* Nothing where the fields make no sense. */
    window_at(&f, VIRTIO_PCI_COMMON_DEVICE_STATUS, 3);
    virtio_harness_pci_write(&f.vh, data, 4, 0);
    window_at(&f, 0x4000, 4);
    virtio_harness_pci_write(&f.vh, data, 4, 0);
    window_at(&f, VIRTIO_PCI_COMMON_DEVICE_STATUS, 1);
    assert_int_equal(virtio_harness_pci_read(&f.vh, data, 1), 0x0f);
    virtio_harness_done(&f.vh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),          cmocka_unit_test(test_common_configuration),
        cmocka_unit_test(test_intx_and_isr),      cmocka_unit_test(test_msix_vectors),
        cmocka_unit_test(test_config_generation), cmocka_unit_test(test_doorbells_move),
        cmocka_unit_test(test_config_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
