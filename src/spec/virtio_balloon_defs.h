/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Constants and layouts of the traditional virtio memory balloon, virtio 1.2 §5.5. */
#ifndef SPEC_VIRTIO_BALLOON_DEFS_H
#define SPEC_VIRTIO_BALLOON_DEFS_H

/* Feature bits (§5.5.3). */
#define VIRTIO_BALLOON_F_STATS_VQ       1
#define VIRTIO_BALLOON_F_DEFLATE_ON_OOM 2
#define VIRTIO_BALLOON_F_PAGE_REPORTING 5

/* Offsets in the configuration (§5.5.4). */
#define VIRTIO_BALLOON_CFG_NUM_PAGES 0
#define VIRTIO_BALLOON_CFG_ACTUAL    4
#define VIRTIO_BALLOON_CFG_SIZE      8

#define VIRTIO_BALLOON_PFN_SHIFT 12 /* pages of the interface have 4096 bytes */

/* An entry of the statistics buffer: le16 tag, le64 value, without padding (§5.5.6.3). */
#define VIRTIO_BALLOON_STAT_SIZE      10
#define VIRTIO_BALLOON_STAT_OFF_VALUE 2

#endif
