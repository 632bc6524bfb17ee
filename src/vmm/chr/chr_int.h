/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the classes of character back ends share. chr.c owns the output buffer, the watches and the
 * room of the front end; a class opens descriptors, hands them over with chr_set_fds() and is told
 * when the peer is gone.
 *
 * Invariants:
 *  1. `lock` covers the fields below it; no callback of the front end runs under it.
 *  2. The watches are made, changed and deleted on the loop thread only; other threads arm `kick`,
 *     whose callback brings them up to date.
 *  3. `out` and `say` hold bytes only while `open`.
 */
#ifndef CHR_CHR_INT_H
#define CHR_CHR_INT_H

#include <assert.h>
#include <pthread.h>

#include "base/log.h"
#include "vmm/chr/chr.h"

#define CHR_NAME_MAX 128
#define CHR_IN_MAX   4096 /* bytes of one read */

struct chr_class {
    const char *name;
    const char *arg;  /* what follows the colon, "PATH"; NULL = nothing may follow */
    const char *help; /* one line */
    int (*open)(struct chr *chr, const char *arg, struct err *err);
    void (*close)(struct chr *chr); /* after chr_drop_fds(); NULL = nothing to do */
    /* The peer closed or broke its end; descriptors are dropped already. NULL = nothing to do. */
    void (*hangup)(struct chr *chr);
    /* Input is readable: takes over from chr.c, which reads no more than the room. NULL = chr.c. */
    void (*readable)(struct chr *chr);
    /* The front end has room again, for a class that keeps input back. NULL = does not. */
    void (*ready)(struct chr *chr);
    bool (*size)(struct chr *chr, uint16_t *ret_cols, uint16_t *ret_rows);
};

struct chr_ring {
    size_t at, len;
    uint8_t buf[CHR_OUT_MAX];
};

static_assert(CHR_SAY_MAX == CHR_OUT_MAX, "one ring serves both");

struct chr {
    const struct chr_class *cls;
    struct loop *loop;
    void *state; /* of the class */
    char name[CHR_NAME_MAX];
    void (*escape)(void *opaque, enum chr_escape what);
    void *escape_opaque;

    /* Loop thread only. */
    struct chr_front front;
    struct loop_timer kick;
    struct loop_fd *in_w, *out_w; /* out_w is NULL where one descriptor serves both ways */
    uint32_t in_events, out_events;
    size_t (*mute_input)(void *opaque, const uint8_t *buf, size_t len);
    void *mute_opaque;

    pthread_mutex_t lock;
    int in_fd, out_fd;
    bool sock;   /* out_fd is a socket: no SIGPIPE */
    bool greedy; /* read even without room (the class keeps or drops it) */
    bool open;
    bool broken;  /* a write failed: the loop thread has to hang up */
    bool starved; /* chr_write() ran short */
    bool muted;
    bool mute_ready; /* mute_input takes input */
    size_t room;
    struct chr_ring out; /* of the front end */
    struct chr_ring say; /* of chr_print(); goes first */
};

/* Gives the back end its descriptors (owned from now on; in_fd may equal out_fd; -1 = none), makes
 * it open and tells the front end. Loop thread. */
MUST_USE int chr_set_fds(struct chr *chr, int take_in_fd, int take_out_fd, struct err *err);
/* Closes the descriptors and drops waiting output; the front end hears opened(false). */
void chr_drop_fds(struct chr *chr);
/* What the front end, or whoever has muted it, may be given now. */
size_t chr_room(struct chr *chr);
/* Hands input on (len <= chr_room()). Returns what was taken: all of it, but for a mute. Loop
 * thread. */
size_t chr_deliver(struct chr *chr, const uint8_t *buf, size_t len);

#define CHR(n) extern const struct chr_class chr_##n##_class;
#include "vmm/chr/chrs.def"
#undef CHR

#endif
