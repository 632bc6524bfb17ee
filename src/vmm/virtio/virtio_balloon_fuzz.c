/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fuzz target: the balloon. */
#include "vmm/virtio/virtio_balloon.h"
#include "vmm/virtio/virtio_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void op(struct virtio_harness *vh, uint8_t which, uint32_t value)
{
    struct err err = ERR_INIT;
    struct virtio_balloon_info info;
    if (which % 2 == 0) {
        (void)virtio_balloon_set_target(vh->dev, value, &err); /* may be more than the RAM */
    }
    virtio_balloon_get_info(vh->dev, &info);
}

/* Page numbers in and beside the RAM, in runs; or statistics. */
static void header(uint8_t *h, size_t len, uint8_t which, uint32_t value)
{
    uint32_t pfn = which & 1 ? value : value % 160;
    for (size_t i = 0; i + 4 <= MIN(len, (size_t)2048); i += 4) {
        le32_put(h + i, pfn);
        pfn += which & 2 ? 1 : which & 4 ? UINT32_MAX : which;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct virtio_balloon_params params = { .reporting = true, .deflate_on_oom = true };
    virtio_fuzz_run(&(struct virtio_fuzz_target){ &virtio_balloon_class, &params, op, header },
                    data, len);
    return 0;
}
