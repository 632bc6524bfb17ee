/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fuzz target: virtqueues, device core and PCI transport by the echo device. */
#include "vmm/virtio/virtio_echo.h"
#include "vmm/virtio/virtio_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void op(struct virtio_harness *vh, uint8_t which, uint32_t value)
{
    struct virtio_echo *s = vh->dev->state;
    dev_lock(vh->dev);
    switch (which % 5) {
    case 0:
        s->hold = (value & 1) != 0;
        break;
    case 1:
        virtio_echo_release(s, (value & 1) != 0);
        break;
    case 2:
        s->keep_kicks = (value & 1) != 0;
        break;
    case 3:
        virtio_config_changed(&s->vdev);
        break;
    default:
        (void)virtq_set_kicks(&s->vdev.queue[value % VIRTIO_ECHO_QUEUES], (value & 0x80) != 0);
        break;
    }
    dev_unlock(vh->dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct virtio_fuzz_target target = { .cls = &virtio_echo_class, .op = op };
    virtio_fuzz_run(&target, data, len);
    return 0;
}
