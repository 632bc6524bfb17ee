/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Traditional memory balloon (virtio 1.2 §5.5): takes pages from the guest and gives them back to
 * the host; guest memory statistics; free page reporting.
 */
#ifndef VIRTIO_VIRTIO_BALLOON_H
#define VIRTIO_VIRTIO_BALLOON_H

#include "vmm/dev/dev.h"

struct virtio_balloon_params {
    bool shared;         /* RAM is a MAP_SHARED memfd: holes are punched; else dropped */
    bool deflate_on_oom; /* the guest may take pages back when it runs out of memory */
    bool reporting;      /* free page reporting */
    uint64_t page_size;  /* of the host mapping: 4096 or the huge page size; 0 = 4096 */
};

/* Tags of virtio 1.2 §5.5.6.3; a bit of `valid` a tag. */
enum virtio_balloon_stat {
    VIRTIO_BALLOON_STAT_SWAP_IN,
    VIRTIO_BALLOON_STAT_SWAP_OUT,
    VIRTIO_BALLOON_STAT_MAJOR_FAULTS,
    VIRTIO_BALLOON_STAT_MINOR_FAULTS,
    VIRTIO_BALLOON_STAT_FREE,
    VIRTIO_BALLOON_STAT_TOTAL,
    VIRTIO_BALLOON_STAT_AVAILABLE,
    VIRTIO_BALLOON_STAT_CACHES,
    VIRTIO_BALLOON_STAT_HTLB_ALLOC,
    VIRTIO_BALLOON_STAT_HTLB_FAIL,
    VIRTIO_BALLOON_STATS,
};

struct virtio_balloon_info {
    uint64_t target;    /* bytes the host wants in the balloon */
    uint64_t actual;    /* bytes the driver says are in it; hostile, at most the guest's RAM */
    uint64_t discarded; /* bytes given back to the host so far, reporting included */
    bool driver_ready;
    uint32_t valid;                      /* which of `stat` the guest has told */
    uint64_t stat[VIRTIO_BALLOON_STATS]; /* bytes or counts, as the guest told them */
    uint64_t stat_ns;                    /* env->now_ns when told; 0 = never */
};

extern const struct dev_class virtio_balloon_class;

/* Asks the driver for a balloon of `bytes` (rounded down to 4096). -EINVAL when it is not smaller
 * than the RAM. Any thread. */
MUST_USE int virtio_balloon_set_target(struct dev *dev, uint64_t bytes, struct err *err);

/* What is known now, and asks the guest for newer statistics, which arrive later (poll again).
 * Any thread. */
void virtio_balloon_get_info(struct dev *dev, struct virtio_balloon_info *ret_info);

#endif
