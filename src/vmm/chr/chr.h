/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Character back ends: where a serial port or a console port sends its bytes.
 * Classes: stdio (with the Ctrl-A escape), pty, unix socket (server), file (output only), null.
 *
 * A back end never blocks: chr_write() takes what fits and calls `writable` later. Input is offered
 * only while the front end says that it has room (chr_set_ready).
 *
 * Threads: chr_write(), chr_set_ready() and chr_size() may be called from any thread, under the
 * front end's lock. The callbacks of the front end run on the loop thread with no lock of the back
 * end held. Opening, attaching and closing: the loop thread, or while no thread runs the loop.
 */
#ifndef CHR_CHR_H
#define CHR_CHR_H

#include "base/bits.h"
#include "base/err.h"
#include "base/loop.h"

#define CHR_OUT_MAX 65536 /* bytes that wait for a slow reader before chr_write() runs short */
#define CHR_SAY_MAX 65536 /* bytes of chr_print() that wait: more than the longest reply */

struct chr;

struct chr_front {
    void (*input)(void *opaque, const uint8_t *buf, size_t len); /* at most what `ready` allowed */
    void (*writable)(void *opaque);                              /* after a short chr_write() */
    void (*opened)(void *opaque, bool open); /* a peer came or went; may be NULL */
    void (*brk)(void *opaque);               /* Ctrl-A b: a line break; may be NULL */
    void (*resized)(void *opaque, uint16_t cols, uint16_t rows); /* of the terminal; may be NULL */
    void *opaque;
};

/* What the user asked for with the escape key of a stdio console. */
enum chr_escape {
    CHR_ESCAPE_QUIT,    /* Ctrl-A x */
    CHR_ESCAPE_MONITOR, /* Ctrl-A c: to the control prompt and back */
};

/* Opens a back end on `loop`. `spec`: "stdio", "pty", "unix:PATH", "file:PATH", "null" (the rows of
 * chrs.def). Where a pty or socket was made, its name is in chr_name(). `escape` (may be NULL) is
 * called on the loop thread. Returns 0; -EINVAL for a bad spec, -EBUSY for a second stdio or a
 * socket that somebody serves, or what the host said. */
MUST_USE int chr_open(const char *spec, struct loop *loop,
                      void (*escape)(void *opaque, enum chr_escape what), void *opaque,
                      struct chr **ret_chr, struct err *err);
void chr_close(struct chr *chr); /* restores the terminal; accepts NULL */
const char *chr_name(const struct chr *chr);

/* One front end a back end; NULL detaches. The struct is copied. Starts with no room. */
void chr_attach(struct chr *chr, const struct chr_front *front);
/* Bytes taken, 0 to len. With nobody connected everything is taken and dropped. */
size_t chr_write(struct chr *chr, const uint8_t *buf, size_t len);
/* The front end has room for `room` bytes (0 = stop offering input). */
void chr_set_ready(struct chr *chr, size_t room);
/* A peer is there. */
bool chr_is_open(struct chr *chr);
/* Size of the terminal behind it; false when there is none. */
bool chr_size(struct chr *chr, uint16_t *ret_cols, uint16_t *ret_rows);
/* For whoever shares the terminal of a stdio console (the control prompt): while muted, input goes
 * to `input` instead of the front end and output of the front end waits. `input` returns how many
 * bytes it took; the rest stays and is offered again after chr_mute_ready(), or goes to the front
 * end when the mute ends (but is dropped when the escape key ended it). NULL ends it. No effect on
 * other classes. Loop thread. */
void chr_mute(struct chr *chr, size_t (*input)(void *opaque, const uint8_t *buf, size_t len),
              void *opaque);
/* Whether `input` wants more; true after chr_mute(). Loop thread. */
void chr_mute_ready(struct chr *chr, bool ready);
/* Writes a text of ours between the guest's bytes, also while muted. What waits goes before what
 * the guest wrote; of a text that does not fit in CHR_SAY_MAX the rest is dropped. Any thread. */
void chr_print(struct chr *chr, const char *text);

#endif
