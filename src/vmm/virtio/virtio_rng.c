/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entropy device. One queue; each buffer gets at most VIRTIO_RNG_MAX_BYTES, which the driver must
 * expect (§5.4.6.1: it must not rely on more than the used length).
 *
 * The rate holds per period of 100 ms: what a period has not used is not carried over. When it is
 * used up the queue rests until a timer opens the next one.
 */
#include "vmm/virtio/virtio_rng.h"

#include <errno.h>
#include <inttypes.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio.h"

#define VIRTIO_RNG_QUEUE_SIZE 64
#define VIRTIO_RNG_PERIOD_NS  UINT64_C(100000000)
#define VIRTIO_RNG_PERIODS    10 /* a second */
/* One getrandom(2) of this size does not stop the loop thread for long (about 20 us). */
#define VIRTIO_RNG_MAX_BYTES 4096

struct virtio_rng {
    struct virtio_dev vdev;
    uint64_t per_period; /* bytes */
    uint64_t period_start_ns;
    uint64_t period_used;
    uint64_t served;
    struct loop_timer timer;
};

/* Bytes that may be given now; arms the timer where there are none. */
static uint64_t virtio_rng_allowance(struct virtio_rng *s)
{
    struct dev_env *env = s->vdev.dev->env;
    uint64_t now = env->ops->now_ns(env);
    if (now - s->period_start_ns >= VIRTIO_RNG_PERIOD_NS) {
        s->period_start_ns = now;
        s->period_used = 0;
    }
    if (s->period_used >= s->per_period) {
        loop_timer_set(&s->timer, loop_now_ns() + VIRTIO_RNG_PERIOD_NS);
        return 0;
    }
    return s->per_period - s->period_used;
}

static void virtio_rng_fill(struct virtio_rng *s, struct virtq *vq, struct virtq_elem *e,
                            uint64_t allowance)
{
    struct dev_env *env = s->vdev.dev->env;
    uint8_t buf[VIRTIO_RNG_MAX_BYTES];
    size_t want = MIN(e->in_len, sizeof(buf));
    want = MIN(want, allowance);
    /* Through a buffer of ours: the guest must not see bytes change that it was told are final. */
    env->ops->random(env, buf, want);
    size_t n = virtq_in_copy(e, 0, buf, want);
    s->period_used += n;
    s->served += n;
    if (n == 0) {
        dev_guest_bug(s->vdev.dev, "buffer without room for a byte");
    }
    virtq_push(vq, e, (uint32_t)n);
}

static void virtio_rng_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_rng *s = container_of(vdev, struct virtio_rng, vdev);
    struct virtq_elem *e;
    uint64_t allowance;
    unsigned n = 0;
    /* At most a ring full in one go; a driver that refills as fast as we serve waits its turn. */
    while (n < VIRTIO_RNG_QUEUE_SIZE && (allowance = virtio_rng_allowance(s)) > 0 &&
           virtq_pop(vq, &e) > 0) {
        virtio_rng_fill(s, vq, e, allowance);
        n++;
    }
    virtq_flush(vq);
    if (n == VIRTIO_RNG_QUEUE_SIZE) {
        virtio_notify_again(vdev, vq);
    }
}

static void virtio_rng_timer(void *opaque)
{
    struct virtio_rng *s = opaque;
    struct virtio_dev *vdev = &s->vdev;
    dev_lock(vdev->dev);
    if (vdev->live && !vdev->stopped) {
        virtio_rng_notify(vdev, &vdev->queue[0]);
    }
    dev_unlock(vdev->dev);
}

static void virtio_rng_reset(struct virtio_dev *vdev)
{
    /* The period goes on: a driver that resets does not get more. */
    struct virtio_rng *s = container_of(vdev, struct virtio_rng, vdev);
    loop_timer_cancel(&s->timer);
}

static const struct virtio_type virtio_rng_type = {
    .name = "rng",
    .device_id = VIRTIO_ID_RNG,
    .pci_class_code = 0x00ff00, /* unclassified, as the field has it */
    .notify = virtio_rng_notify,
    .reset = virtio_rng_reset,
};

static int virtio_rng_init(struct dev *dev, const void *params, struct err *err)
{
    const struct virtio_rng_params *p = params;
    struct virtio_rng *s = dev->state;
    uint64_t rate =
        p != NULL && p->bytes_per_second != 0 ? p->bytes_per_second : VIRTIO_RNG_DEFAULT_RATE;
    if (rate < VIRTIO_RNG_MIN_RATE) {
        return err_set(err, -EINVAL, "rate %" PRIu64 " is too low (at least %" PRIu64 " bytes/s)",
                       rate, VIRTIO_RNG_MIN_RATE);
    }
    s->per_period = rate / VIRTIO_RNG_PERIODS;
    loop_timer_init(&s->timer, dev->env->loop, virtio_rng_timer, s);
    return virtio_dev_init(&s->vdev, dev, &virtio_rng_type, 1, VIRTIO_RNG_QUEUE_SIZE, 0, err);
}

static void virtio_rng_done(struct dev *dev)
{
    struct virtio_rng *s = dev->state;
    loop_timer_cancel(&s->timer);
    virtio_dev_done(&s->vdev);
}

static void virtio_rng_dev_reset(struct dev *dev)
{
    struct virtio_rng *s = dev->state;
    virtio_dev_reset(&s->vdev);
}

static void virtio_rng_stop(struct dev *dev)
{
    struct virtio_rng *s = dev->state;
    virtio_dev_stop(&s->vdev);
}

static void virtio_rng_start(struct dev *dev)
{
    struct virtio_rng *s = dev->state;
    virtio_dev_start(&s->vdev);
}

uint64_t virtio_rng_served(struct dev *dev)
{
    struct virtio_rng *s = dev->state;
    dev_lock(dev);
    uint64_t served = s->served;
    dev_unlock(dev);
    return served;
}

const struct dev_class virtio_rng_class = {
    .name = "virtio-rng",
    .help = "entropy source",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct virtio_rng),
    .init = virtio_rng_init,
    .done = virtio_rng_done,
    .reset = virtio_rng_dev_reset,
    .stop = virtio_rng_stop,
    .start = virtio_rng_start,
};
