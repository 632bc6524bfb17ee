/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzing of a virtio device in the harness: the input is a program of a small language that acts
 * as a driver, well or ill (reliability goal S2).
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
 *     {
 *         virtio_fuzz_run(&(struct virtio_fuzz_target){ .cls = &virtio_rng_class }, data, len);
 *         return 0;
 *     }
 *
 * The first byte chooses features and the size of the queues. Then each operation is a byte and its
 * operands; what is missing at the end reads as zero:
 *
 *   register   common, device and PCI configuration, MSI-X table: read or write, any size
 *   DMA        poke bytes anywhere in RAM; write one descriptor, with address and length from a
 *              list of telling values; publish heads; add a well-formed chain
 *   control    kick, run the loop, read ISR, advance the clock
 *   life       status 0 and a new start, device reset, stop, start, queue reset
 */
#ifndef VIRTIO_VIRTIO_FUZZ_H
#define VIRTIO_VIRTIO_FUZZ_H

#include "vmm/virtio/virtio_harness.h"

struct virtio_fuzz_target {
    const struct dev_class *cls;
    const void *params;
    /* Further operations of the type: called with an operand byte and a random word, or NULL. */
    void (*op)(struct virtio_harness *vh, uint8_t which, uint32_t value);
    /* Fills the beginning of a chain's readable part, for a type that has headers; NULL = raw. */
    void (*header)(uint8_t *header, size_t len, uint8_t which, uint32_t value);
};

/* The input, consumed from the front; zeroes behind its end. */
struct virtio_fuzz_input {
    const uint8_t *data;
    size_t left;
};

uint64_t virtio_fuzz_take(struct virtio_fuzz_input *in, unsigned bytes);

void virtio_fuzz_run(const struct virtio_fuzz_target *target, const uint8_t *data, size_t len);

#endif
