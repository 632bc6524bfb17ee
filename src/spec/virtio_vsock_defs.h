/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Constants and layouts of the virtio socket device, virtio 1.2 §5.10. Little-endian. */
#ifndef SPEC_VIRTIO_VSOCK_DEFS_H
#define SPEC_VIRTIO_VSOCK_DEFS_H

#include <stdint.h>

#define VIRTIO_VSOCK_CFG_GUEST_CID 0
#define VIRTIO_VSOCK_CFG_SIZE      8

#define VIRTIO_VSOCK_CID_HOST 2
#define VIRTIO_VSOCK_CID_MIN  3           /* 0 to 2 are reserved (§5.10.4) */
#define VIRTIO_VSOCK_CID_MAX  4294967294U /* 2^32 - 1 is reserved */

/* Packet header (§5.10.6), as offsets: the wire struct has no padding at its end (44 bytes). */
#define VIRTIO_VSOCK_HDR_SRC_CID   0
#define VIRTIO_VSOCK_HDR_DST_CID   8
#define VIRTIO_VSOCK_HDR_SRC_PORT  16
#define VIRTIO_VSOCK_HDR_DST_PORT  20
#define VIRTIO_VSOCK_HDR_LEN       24
#define VIRTIO_VSOCK_HDR_TYPE      28
#define VIRTIO_VSOCK_HDR_OP        30
#define VIRTIO_VSOCK_HDR_FLAGS     32
#define VIRTIO_VSOCK_HDR_BUF_ALLOC 36
#define VIRTIO_VSOCK_HDR_FWD_CNT   40
#define VIRTIO_VSOCK_HDR_SIZE      44

#define VIRTIO_VSOCK_TYPE_STREAM 1

#define VIRTIO_VSOCK_OP_REQUEST        1
#define VIRTIO_VSOCK_OP_RESPONSE       2
#define VIRTIO_VSOCK_OP_RST            3
#define VIRTIO_VSOCK_OP_SHUTDOWN       4
#define VIRTIO_VSOCK_OP_RW             5
#define VIRTIO_VSOCK_OP_CREDIT_UPDATE  6
#define VIRTIO_VSOCK_OP_CREDIT_REQUEST 7

/* Flags of SHUTDOWN: the sender will not receive, not send any more (§5.10.6.5). */
#define VIRTIO_VSOCK_SHUTDOWN_RECEIVE 1
#define VIRTIO_VSOCK_SHUTDOWN_SEND    2
#define VIRTIO_VSOCK_SHUTDOWN_BOTH    3

#endif
