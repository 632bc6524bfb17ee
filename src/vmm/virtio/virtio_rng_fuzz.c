/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fuzz target: the entropy device. */
#include "vmm/virtio/virtio_fuzz.h"
#include "vmm/virtio/virtio_rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    virtio_fuzz_run(&(struct virtio_fuzz_target){ .cls = &virtio_rng_class }, data, len);
    return 0;
}
