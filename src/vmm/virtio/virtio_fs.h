/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File system device: a shared folder (virtio 1.2 §5.11), served by another process. */
#ifndef VIRTIO_VIRTIO_FS_H
#define VIRTIO_VIRTIO_FS_H

#include "vmm/dev/dev.h"

struct virtio_fs_params {
    const char *tag; /* 1 to 36 bytes: what the guest mounts */
    /* Seqpacket socket to the server (vmm/fs/share_wire.h), non-blocking; stays the caller's, and
     * open longer than the device. */
    int fd;
};

extern const struct dev_class virtio_fs_class;

/* Requests answered since the device was made. Any thread. */
uint64_t virtio_fs_served(struct dev *dev);

#endif
