/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Constants and layouts of the virtio console device, virtio 1.2 §5.3. Little-endian. */
#ifndef SPEC_VIRTIO_CONSOLE_DEFS_H
#define SPEC_VIRTIO_CONSOLE_DEFS_H

#include <stdint.h>

/* Feature bits (§5.3.3). */
#define VIRTIO_CONSOLE_F_SIZE      0
#define VIRTIO_CONSOLE_F_MULTIPORT 1

/* Offsets in the configuration (§5.3.4). */
#define VIRTIO_CONSOLE_CFG_COLS      0
#define VIRTIO_CONSOLE_CFG_ROWS      2
#define VIRTIO_CONSOLE_CFG_MAX_PORTS 4
#define VIRTIO_CONSOLE_CFG_SIZE      8

/* Control messages (§5.3.6.2); a name or a size follows where the event has one. */
struct virtio_console_control {
    uint32_t id;
    uint16_t event;
    uint16_t value;
};
_Static_assert(sizeof(struct virtio_console_control) == 8, "virtio 1.2 §5.3.6.2");

#define VIRTIO_CONSOLE_DEVICE_READY 0
#define VIRTIO_CONSOLE_DEVICE_ADD   1
#define VIRTIO_CONSOLE_PORT_READY   3
#define VIRTIO_CONSOLE_CONSOLE_PORT 4
#define VIRTIO_CONSOLE_RESIZE       5
#define VIRTIO_CONSOLE_PORT_OPEN    6
#define VIRTIO_CONSOLE_PORT_NAME    7

struct virtio_console_resize {
    uint16_t cols;
    uint16_t rows;
};
_Static_assert(sizeof(struct virtio_console_resize) == 4, "virtio 1.2 §5.3.6.2");

#endif
