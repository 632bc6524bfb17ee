/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * 16550A serial port (National PC16550D datasheet, June 1995) with a character back end.
 */
#ifndef DEV_SERIAL_H
#define DEV_SERIAL_H

#include "vmm/chr/chr.h"
#include "vmm/dev/dev.h"

/* struct dev_class.init params */
struct serial_params {
    uint16_t port;   /* first of 8, e.g. LAYOUT_PORT_SERIAL0 */
    unsigned irq;    /* ISA irq = GSI */
    struct chr *chr; /* not owned, closed after the device; NULL: output is dropped */
};

extern const struct dev_class serial_class;

/* Receives a break condition, as from the terminal's break key. Any thread. */
void serial_break(struct dev *serial);

#endif
