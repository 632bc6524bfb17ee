/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keyboard controller 8042 with a PS/2 keyboard (irq 1) and mouse (irq 12) at ports 0x60 and 0x64
 * (IBM PS/2 Hardware Interface Technical Reference, 1990, "Keyboard and Auxiliary Device
 * Controller"). No parameters. Port 0x61 belongs to the engine's timer.
 */
#ifndef DEV_I8042_H
#define DEV_I8042_H

#include "vmm/dev/dev.h"

extern const struct dev_class i8042_class;

/* A key goes down or up: scan code set 2, 0xe0xx for extended keys (Delete is 0xe071). Any thread.
 */
void i8042_key(struct dev *i8042, uint16_t code, bool down);
/* Pointer movement, dy up positive, and buttons (bit 0 left, 1 right, 2 middle). Any thread. */
void i8042_mouse(struct dev *i8042, int dx, int dy, uint8_t buttons);

#endif
