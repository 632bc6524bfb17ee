/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the virtio-fs device and posada-fs: a packet of their socket is a head and a FUSE
 * request, or a head and the answer.
 *
 *   request   slot (4 bytes), room for the answer (4), FUSE request
 *   answer    the same slot (4), 0 (4), FUSE answer; none where there was no room
 *
 * Host byte order. Both sides bound what they take from the other.
 */
#ifndef FS_SHARE_WIRE_H
#define FS_SHARE_WIRE_H

#include "vmm/fs/share.h"

struct share_wire_head {
    uint32_t slot;
    uint32_t room;
};

#define SHARE_WIRE_MAX (sizeof(struct share_wire_head) + SHARE_MAX_MESSAGE)

/* Bytes on their way, each direction. A packet is taken whole or not at all. */
#define SHARE_WIRE_BUFFER (1024 * 1024)

#endif
