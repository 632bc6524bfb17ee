/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/virtio/virtio_echo.h"

/* Chains of one go; a driver that refills as fast as we serve has to wait its turn. */
#define VIRTIO_ECHO_BATCH 512

static void virtio_echo_serve(struct virtio_echo *s, struct virtq *vq, struct virtq_elem *e)
{
    uint8_t buf[256];
    size_t n = virtq_out_copy(e, 0, buf, sizeof(buf));
    s->served++;
    virtq_push(vq, e, (uint32_t)virtq_in_copy(e, 0, buf, n));
}

static void virtio_echo_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_echo *s = container_of(vdev, struct virtio_echo, vdev);
    struct virtq_elem *e;
    unsigned n = 0;
    do {
        if (!s->keep_kicks) {
            (void)virtq_set_kicks(vq, false);
        }
        for (; n < VIRTIO_ECHO_BATCH && virtq_pop(vq, &e) > 0; n++) {
            if (s->hold && s->held == NULL) {
                s->held = e;
            } else {
                virtio_echo_serve(s, vq, e);
            }
        }
        virtq_flush(vq);
    } while (!s->keep_kicks && n < VIRTIO_ECHO_BATCH && virtq_set_kicks(vq, true));
    if (n == VIRTIO_ECHO_BATCH) {
        virtio_notify_again(vdev, vq);
    }
}

void virtio_echo_release(struct virtio_echo *s, bool serve)
{
    struct virtq_elem *e = s->held;
    s->held = NULL;
    if (e == NULL) {
        return;
    }
    struct virtq *vq = e->vq;
    if (serve) {
        virtio_echo_serve(s, vq, e);
        virtq_flush(vq);
    } else {
        virtq_unpop(vq, e);
    }
}

static void virtio_echo_reset(struct virtio_dev *vdev)
{
    struct virtio_echo *s = container_of(vdev, struct virtio_echo, vdev);
    s->resets++;
}

static void virtio_echo_queue_reset(struct virtio_dev *vdev, struct virtq *vq)
{
    (void)vq;
    virtio_echo_reset(vdev);
}

static const struct virtio_type virtio_echo_type = {
    .name = "echo",
    .device_id = 42,
    .pci_class_code = 0xff0000,
    .config_size = 8,
    .notify = virtio_echo_notify,
    .reset = virtio_echo_reset,
    .queue_reset = virtio_echo_queue_reset,
};

static int virtio_echo_init(struct dev *dev, const void *params, struct err *err)
{
    struct virtio_echo *s = dev->state;
    (void)params;
    return virtio_dev_init(&s->vdev, dev, &virtio_echo_type, VIRTIO_ECHO_QUEUES, VIRTIO_ECHO_SIZE,
                           0, err);
}

static void virtio_echo_done(struct dev *dev)
{
    struct virtio_echo *s = dev->state;
    virtq_elem_free(s->held);
    virtio_dev_done(&s->vdev);
}

static void virtio_echo_dev_reset(struct dev *dev)
{
    struct virtio_echo *s = dev->state;
    virtio_dev_reset(&s->vdev);
}

static void virtio_echo_stop(struct dev *dev)
{
    struct virtio_echo *s = dev->state;
    virtio_dev_stop(&s->vdev);
}

static void virtio_echo_start(struct dev *dev)
{
    struct virtio_echo *s = dev->state;
    virtio_dev_start(&s->vdev);
}

const struct dev_class virtio_echo_class = {
    .name = "echo",
    .help = "test device",
    .state_size = sizeof(struct virtio_echo),
    .init = virtio_echo_init,
    .done = virtio_echo_done,
    .reset = virtio_echo_dev_reset,
    .stop = virtio_echo_stop,
    .start = virtio_echo_start,
};
