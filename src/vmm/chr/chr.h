/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Character back ends: where a serial port or a console port sends its bytes.
 * Classes: stdio (with the Ctrl-A escape), pty, unix socket (server), file (output only), null.
 *
 * A back end never blocks: chr_write() takes what fits and calls `writable` later. Input is offered
 * only while the front end says that it has room (chr_set_ready). All on the loop thread.
 */
#ifndef CHR_CHR_H
#define CHR_CHR_H

#include "base/bits.h"
#include "base/err.h"
#include "base/loop.h"

struct chr;

struct chr_front {
    void (*input)(void *opaque, const uint8_t *buf, size_t len); /* at most what `ready` allowed */
    void (*writable)(void *opaque);                              /* after a short chr_write() */
    void (*opened)(void *opaque, bool open);                     /* a peer came or went */
    void *opaque;
};

/* What the user asked for with the escape key of a stdio console. */
enum chr_escape {
    CHR_ESCAPE_QUIT,    /* Ctrl-A x */
    CHR_ESCAPE_MONITOR, /* Ctrl-A c: to the control prompt and back */
};

/* `spec`: "stdio", "pty", "unix:PATH", "file:PATH", "null". Where a pty or socket was made, its
 * name is in chr_name(). `escape` may be NULL. */
MUST_USE int chr_open(const char *spec, struct loop *loop,
                      void (*escape)(void *opaque, enum chr_escape what), void *opaque,
                      struct chr **ret_chr, struct err *err);
void chr_close(struct chr *chr); /* restores the terminal; accepts NULL */
const char *chr_name(const struct chr *chr);

void chr_attach(struct chr *chr, const struct chr_front *front);
/* Bytes taken, 0 to len. With nobody connected everything is taken and dropped. */
size_t chr_write(struct chr *chr, const uint8_t *buf, size_t len);
/* The front end has room for `room` bytes (0 = stop offering input). */
void chr_set_ready(struct chr *chr, size_t room);

#endif
