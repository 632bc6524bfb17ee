/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Constants and layouts of the virtio file system device, virtio 1.2 §5.11. Little-endian. */
#ifndef SPEC_VIRTIO_FS_DEFS_H
#define SPEC_VIRTIO_FS_DEFS_H

/* Device configuration (§5.11.4). */
#define VIRTIO_FS_CFG_TAG    0 /* padded with 0 bytes, not ended by one */
#define VIRTIO_FS_TAG_LEN    36
#define VIRTIO_FS_CFG_QUEUES 36 /* le32: request queues, without hiprio */
#define VIRTIO_FS_CFG_SIZE   40

/* Queues without VIRTIO_FS_F_NOTIFICATION (§5.11.2). */
#define VIRTIO_FS_QUEUE_HIPRIO  0
#define VIRTIO_FS_QUEUE_REQUEST 1

#endif
