/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block device (virtio 1.2 §5.2) over a node of the block layer: multi-queue, flush, discard,
 * write zeroes, cache mode changeable by the guest.
 *
 *     struct virtio_blk_params p = { .blk = blk, .serial = "disk0", .num_queues = vcpus };
 *     dev_new(env, &virtio_blk_class, "disk0", &p, &dev, &err);
 */
#ifndef VIRTIO_VIRTIO_BLK_H
#define VIRTIO_VIRTIO_BLK_H

#include "vmm/dev/dev.h"

struct blk;

#define VIRTIO_BLK_MAX_QUEUES    16
#define VIRTIO_BLK_DEFAULT_DEPTH 256

struct virtio_blk_params {
    struct blk *blk;     /* not owned; stays open until the device is freed */
    const char *serial;  /* at most VIRTIO_BLK_ID_SIZE bytes; NULL = none */
    unsigned num_queues; /* one a vCPU is best; 0 = 1, more than VIRTIO_BLK_MAX_QUEUES are cut */
    uint16_t queue_size; /* power of two, 4 to VIRTQ_MAX_SIZE; 0 = VIRTIO_BLK_DEFAULT_DEPTH */
    const char *engine;  /* of blk_queue_opts; NULL = the best the host allows */
    void (*worker_init)(void *opaque); /* of blk_queue_opts */
    void *worker_opaque;
};

struct virtio_blk_stats {
    uint64_t read_ops, read_bytes;
    uint64_t write_ops, write_bytes;
    uint64_t flush_ops;
    uint64_t discard_ops;  /* discards and write zeroes */
    uint64_t read_errors;  /* reported to the guest */
    uint64_t write_errors; /* reported to the guest: writes, flushes, discards */
    uint64_t held;         /* waiting for room on the host right now */
    uint64_t held_total;   /* requests that had to wait for room so far */
    uint64_t inflight;     /* in the block layer right now */
};

extern const struct dev_class virtio_blk_class;

/* Any thread. */
void virtio_blk_get_stats(struct dev *dev, struct virtio_blk_stats *ret_stats);

#endif
