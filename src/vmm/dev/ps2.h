/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PS/2 keyboard and mouse as the controller sees them: each takes command bytes and offers bytes
 * in a queue (IBM PS/2 Hardware Interface Technical Reference, 1990, keyboard and auxiliary device
 * sections). No lock of its own: the controller's device lock covers it.
 */
#ifndef DEV_PS2_H
#define DEV_PS2_H

#include "base/bits.h"

#define PS2_QUEUE 64 /* more than the 16 bytes of a real keyboard; replies always find room */

struct ps2 {
    uint8_t queue[PS2_QUEUE];
    unsigned head, count;
    uint8_t last;    /* last byte taken, for "resend" */
    uint8_t command; /* waits for its argument; 0 = none */
    bool enabled;    /* scanning / stream reporting */
    /* keyboard */
    uint8_t leds, scan_set, typematic;
    /* mouse */
    uint8_t rate, resolution, buttons;
    bool scaling21, remote, wrap;
    int dx, dy;
};

void ps2_kbd_reset(struct ps2 *p);
void ps2_mouse_reset(struct ps2 *p);
/* A byte from the host computer. Replies go into the queue. */
void ps2_kbd_write(struct ps2 *p, uint8_t byte);
void ps2_mouse_write(struct ps2 *p, uint8_t byte);

/* A key of scan code set 2; 0xe0xx for extended ones. Dropped while scanning is off or when the
 * queue has no room for the whole code. */
void ps2_kbd_key(struct ps2 *p, uint16_t code, bool down);
/* Movement (dy up is positive) and the state of buttons (bit 0 left, 1 right, 2 middle). */
void ps2_mouse_move(struct ps2 *p, int dx, int dy, uint8_t buttons);

/* Takes the next byte. The queue must not be empty (p->count > 0). */
uint8_t ps2_take(struct ps2 *p);

#endif
