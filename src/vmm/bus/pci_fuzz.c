/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: configuration space by ports and ECAM, BARs, MSI-X, INTx, with the host bridge and
 * two virtio functions on the bus. The input is a list of operations of up to ten bytes.
 */
#include <stdlib.h>

#include "spec/pci_regs.h"
#include "vmm/dev/mch.h"
#include "vmm/virtio/virtio_echo.h"
#include "vmm/virtio/virtio_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_OPS 512

static const struct pci_windows windows = {
    .io_base = 0xc000,
    .io_end = 0x10000,
    .mem32_base = 0xc0000000,
    .mem32_end = 0xd0000000,
    .mem64_base = 64 * GIB,
    .mem64_end = 65 * GIB,
};

static uint64_t take_mmio(struct virtio_harness *vh, struct virtio_fuzz_input *in)
{
    uint64_t offset = virtio_fuzz_take(in, 2);
    switch (virtio_fuzz_take(in, 1) % 4) {
    case 0:
        return VIRTIO_HARNESS_ECAM + offset % 0x4000;
    case 1:
        return 0xc0000000 + offset % 0x3000;
    case 2:
        return 64 * GIB + offset % 0x9000;
    default: {
        uint64_t ecam = pci_bus_ecam(vh->bus);
        return ecam == PCI_ECAM_OFF ? offset : ecam + offset;
    }
    }
}

static void one_op(struct virtio_harness *vh, struct dev *const *dev, struct virtio_fuzz_input *in)
{
    struct virtio_echo *s = dev[1]->state;
    unsigned op = (unsigned)virtio_fuzz_take(in, 1);
    unsigned size = 1u << (op >> 4) % 4;
    struct err err = ERR_INIT;
    uint64_t at;
    switch (op % 16) {
    case 0:
        at = PCI_PORT_ADDRESS + virtio_fuzz_take(in, 1) % 8;
        dev_harness_out(&vh->h, (uint16_t)at, MIN(size, 4u), virtio_fuzz_take(in, 4));
        (void)dev_harness_in(&vh->h, (uint16_t)at, MIN(size, 4u));
        break;
    case 1:
    case 2:
    case 3:
        vh->devfn = (unsigned)virtio_fuzz_take(in, 1) % 4 * 8;
        at = virtio_fuzz_take(in, 1);
        (void)virtio_harness_pci_read(vh, (unsigned)at, MIN(size, 4u));
        virtio_harness_pci_write(vh, (unsigned)at, MIN(size, 4u),
                                 (uint32_t)virtio_fuzz_take(in, MIN(size, 4u)));
        break;
    case 4:
    case 5:
    case 6:
        at = take_mmio(vh, in);
        (void)dev_harness_mmio_read(&vh->h, at, size);
        dev_harness_mmio_write(&vh->h, at, size, virtio_fuzz_take(in, size));
        break;
    case 7:
        pci_msix_notify(&s->vdev.pci, (unsigned)virtio_fuzz_take(in, 1));
        break;
    case 8:
        pci_intx(&s->vdev.pci, op >> 4);
        break;
    case 9:
        dev_reset(dev[virtio_fuzz_take(in, 1) % 3]);
        break;
    case 10:
        if (pci_bus_assign(vh->bus, &windows, &err) < 0) {
            abort(); /* the windows do not depend on the guest */
        }
        break;
    default:
        if (loop_run_once(vh->h.env.loop, 0) < 0) {
            abort();
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct virtio_harness vh;
    struct virtio_fuzz_input in = { data, len };
    struct dev *dev[3];
    log_set_level(LOG_ERROR);
    virtio_harness_init(&vh, 256 * KIB);
    dev[0] = dev_harness_add(&vh.h, &mch_class, NULL);
    dev[1] = virtio_harness_add(&vh, &virtio_echo_class, NULL);
    dev[2] = dev_harness_add(&vh.h, &virtio_echo_class, NULL);
    for (unsigned i = 0; i < MAX_OPS && in.left > 0; i++) {
        one_op(&vh, dev, &in);
    }
    virtio_harness_done(&vh);
    return 0;
}
