/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio console device with multiple ports (virtio 1.2 §5.3). Port 0 and every port marked
 * `console` is a terminal (hvc0, hvc1, ...); the others are byte channels that Linux shows as
 * /dev/virtio-ports/NAME.
 *
 * The usual machine has its console on the serial port and no such device: it is added when the
 * configuration asks for it. One chr serves one front end, so a chr given to a serial port is not
 * given to a port here as well.
 */
#ifndef VIRTIO_VIRTIO_CONSOLE_H
#define VIRTIO_VIRTIO_CONSOLE_H

#include "vmm/chr/chr.h"
#include "vmm/dev/dev.h"

#define VIRTIO_CONSOLE_MAX_PORTS 8
#define VIRTIO_CONSOLE_NAME_MAX  64 /* with the final 0 */

struct virtio_console_port_params {
    struct chr *chr;  /* not owned, open until the device is freed; NULL = output is dropped */
    const char *name; /* "org.example.agent"; NULL or "" = none */
    bool console;     /* a terminal; port 0 always is one */
};

struct virtio_console_params {
    unsigned nports; /* 1 to VIRTIO_CONSOLE_MAX_PORTS */
    const struct virtio_console_port_params *port;
};

extern const struct dev_class virtio_console_class;

/* Tells the driver the size of the terminal behind a console port. Sizes of a stdio terminal are
 * taken from it without this call. Any thread. */
void virtio_console_resize(struct dev *dev, unsigned port, uint16_t cols, uint16_t rows);

#endif
