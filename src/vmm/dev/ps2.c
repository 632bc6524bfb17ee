/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/ps2.h"

#include <assert.h>

#define ACK    0xfa
#define RESEND 0xfe
#define BAT_OK 0xaa

/* Keyboard commands */
#define KBD_LEDS      0xed /* argument */
#define KBD_ECHO      0xee
#define KBD_SCAN_SET  0xf0 /* argument */
#define KBD_ID        0xf2
#define KBD_TYPEMATIC 0xf3 /* argument */
#define KBD_ENABLE    0xf4
#define KBD_DISABLE   0xf5
#define KBD_DEFAULTS  0xf6
#define KBD_KEYS_LOW  0xf7 /* 0xf7 to 0xfd: types of set 3 keys */
#define KBD_KEYS_HIGH 0xfd
#define KBD_RESEND    0xfe
#define KBD_RESET     0xff

/* Mouse commands */
#define MOUSE_SCALING11  0xe6
#define MOUSE_SCALING21  0xe7
#define MOUSE_RESOLUTION 0xe8 /* argument */
#define MOUSE_STATUS     0xe9
#define MOUSE_STREAM     0xea
#define MOUSE_READ       0xeb
#define MOUSE_WRAP_OFF   0xec
#define MOUSE_WRAP       0xee
#define MOUSE_REMOTE     0xf0
#define MOUSE_ID         0xf2
#define MOUSE_RATE       0xf3 /* argument */
#define MOUSE_ENABLE     0xf4
#define MOUSE_DISABLE    0xf5
#define MOUSE_DEFAULTS   0xf6

#define PACKET       3
#define REPLY_ROOM   8   /* kept free of events, so that replies find room */
#define DELTA_MAX    255 /* 9-bit two's complement */
#define MOVE_MAX     4096
#define BREAK_PREFIX 0xf0

static void push(struct ps2 *p, uint8_t byte)
{
    if (p->count == PS2_QUEUE) {
        return; /* a driver that sends commands and never reads */
    }
    p->queue[(p->head + p->count) % PS2_QUEUE] = byte;
    p->count++;
}

static bool has_room(const struct ps2 *p, unsigned n)
{
    return p->count + n + REPLY_ROOM <= PS2_QUEUE;
}

uint8_t ps2_take(struct ps2 *p)
{
    assert(p->count > 0);
    p->last = p->queue[p->head];
    p->head = (p->head + 1) % PS2_QUEUE;
    p->count--;
    return p->last;
}

static void kbd_defaults(struct ps2 *p)
{
    p->scan_set = 2;
    p->typematic = 0x2b; /* 10.9 characters a second after 500 ms */
}

void ps2_kbd_reset(struct ps2 *p)
{
    *p = (struct ps2){ .enabled = true };
    kbd_defaults(p);
}

static void kbd_argument(struct ps2 *p, uint8_t command, uint8_t byte)
{
    switch (command) {
    case KBD_LEDS:
        p->leds = byte & 7;
        push(p, ACK);
        break;
    case KBD_TYPEMATIC:
        p->typematic = byte & 0x7f;
        push(p, ACK);
        break;
    default: /* KBD_SCAN_SET: keys are sent in set 2 only, the others are refused */
        if (byte == 0) {
            push(p, ACK);
            push(p, p->scan_set);
        } else {
            push(p, byte == 2 ? ACK : RESEND);
        }
        break;
    }
}

void ps2_kbd_write(struct ps2 *p, uint8_t byte)
{
    if (p->command != 0 && byte < KBD_LEDS) {
        uint8_t command = p->command;
        p->command = 0;
        kbd_argument(p, command, byte);
        return;
    }
    p->command = 0; /* a command in place of an argument ends the one before */
    switch (byte) {
    case KBD_LEDS:
    case KBD_SCAN_SET:
    case KBD_TYPEMATIC:
        p->command = byte;
        push(p, ACK);
        break;
    case KBD_ECHO:
        push(p, KBD_ECHO);
        break;
    case KBD_ID:
        push(p, ACK);
        push(p, 0xab);
        push(p, 0x83);
        break;
    case KBD_ENABLE:
        p->count = 0;
        p->enabled = true;
        push(p, ACK);
        break;
    case KBD_DISABLE:
    case KBD_DEFAULTS:
        kbd_defaults(p);
        p->enabled = byte == KBD_DEFAULTS;
        push(p, ACK);
        break;
    case KBD_KEYS_LOW ... KBD_KEYS_HIGH:
        push(p, ACK);
        break;
    case KBD_RESEND:
        push(p, p->last);
        break;
    case KBD_RESET:
        ps2_kbd_reset(p);
        push(p, ACK);
        push(p, BAT_OK);
        break;
    default:
        push(p, RESEND);
        break;
    }
}

void ps2_kbd_key(struct ps2 *p, uint16_t code, bool down)
{
    if (!p->enabled || !has_room(p, 3)) {
        return;
    }
    if (code >> 8 != 0) {
        push(p, (uint8_t)(code >> 8));
    }
    if (!down) {
        push(p, BREAK_PREFIX);
    }
    push(p, (uint8_t)code);
}

static void mouse_defaults(struct ps2 *p)
{
    p->rate = 100;
    p->resolution = 2; /* 4 counts a millimetre */
    p->scaling21 = p->remote = p->enabled = false;
    p->dx = p->dy = 0;
}

void ps2_mouse_reset(struct ps2 *p)
{
    *p = (struct ps2){ 0 };
    mouse_defaults(p);
}

static int mouse_delta(int *from)
{
    int d = *from > DELTA_MAX ? DELTA_MAX : *from < -DELTA_MAX ? -DELTA_MAX : *from;
    *from -= d;
    return d;
}

static void mouse_packet(struct ps2 *p)
{
    int dx = mouse_delta(&p->dx), dy = mouse_delta(&p->dy);
    push(p, (uint8_t)((p->buttons & 7) | 0x08 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
    push(p, (uint8_t)dx);
    push(p, (uint8_t)dy);
}

static void mouse_status(struct ps2 *p)
{
    /* Here the left button is bit 2 and the right one bit 0. */
    unsigned buttons = (p->buttons & 1) << 2 | (p->buttons & 4) >> 1 | (p->buttons & 2) >> 1;
    push(p, (uint8_t)(buttons | (p->scaling21 ? 0x10 : 0) | (p->enabled ? 0x20 : 0) |
                      (p->remote ? 0x40 : 0)));
    push(p, p->resolution);
    push(p, p->rate);
}

static void mouse_command(struct ps2 *p, uint8_t byte)
{
    push(p, ACK);
    switch (byte) {
    case MOUSE_SCALING11:
    case MOUSE_SCALING21:
        p->scaling21 = byte == MOUSE_SCALING21;
        break;
    case MOUSE_RESOLUTION:
    case MOUSE_RATE:
        p->command = byte;
        break;
    case MOUSE_STATUS:
        mouse_status(p);
        break;
    case MOUSE_STREAM:
    case MOUSE_REMOTE:
        p->remote = byte == MOUSE_REMOTE;
        break;
    case MOUSE_READ:
        mouse_packet(p);
        break;
    case MOUSE_WRAP:
        p->wrap = true;
        break;
    case MOUSE_WRAP_OFF:
        break;
    case MOUSE_ID:
        push(p, 0x00);
        break;
    case MOUSE_ENABLE:
    case MOUSE_DISABLE:
        p->enabled = byte == MOUSE_ENABLE;
        p->dx = p->dy = 0;
        break;
    default: /* MOUSE_DEFAULTS */
        mouse_defaults(p);
        break;
    }
}

void ps2_mouse_write(struct ps2 *p, uint8_t byte)
{
    if (byte == KBD_RESET) {
        ps2_mouse_reset(p);
        push(p, ACK);
        push(p, BAT_OK);
        push(p, 0x00);
        return;
    }
    if (p->wrap && byte != MOUSE_WRAP_OFF) {
        push(p, byte);
        return;
    }
    p->wrap = false;
    if (p->command != 0) {
        *(p->command == MOUSE_RATE ? &p->rate : &p->resolution) = byte;
        p->command = 0;
        push(p, ACK);
        return;
    }
    static const uint8_t known[] = {
        MOUSE_SCALING11, MOUSE_SCALING21, MOUSE_RESOLUTION, MOUSE_STATUS,   MOUSE_STREAM,
        MOUSE_READ,      MOUSE_WRAP_OFF,  MOUSE_WRAP,       MOUSE_REMOTE,   MOUSE_ID,
        MOUSE_RATE,      MOUSE_ENABLE,    MOUSE_DISABLE,    MOUSE_DEFAULTS,
    };
    if (byte == KBD_RESEND) {
        push(p, p->last);
    } else if (memchr(known, byte, sizeof(known)) != NULL) {
        mouse_command(p, byte);
    } else {
        push(p, RESEND);
    }
}

static int clamp(int v)
{
    return v > MOVE_MAX ? MOVE_MAX : v < -MOVE_MAX ? -MOVE_MAX : v;
}

void ps2_mouse_move(struct ps2 *p, int dx, int dy, uint8_t buttons)
{
    /* Within what a few packets can carry: a pointer that nobody reads must not overflow. */
    p->dx = clamp(clamp(dx) + p->dx);
    p->dy = clamp(clamp(dy) + p->dy);
    p->buttons = buttons & 7;
    if (!p->enabled || p->remote || p->wrap) {
        return;
    }
    do {
        if (!has_room(p, PACKET)) {
            return;
        }
        mouse_packet(p);
    } while (p->dx != 0 || p->dy != 0);
}
