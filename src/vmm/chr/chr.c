/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/chr/chr_int.h"

static const struct chr_class *const chr_classes[] = {
#define CHR(n) &chr_##n##_class,
#include "vmm/chr/chrs.def"
#undef CHR
};

size_t chr_room(struct chr *chr)
{
    pthread_mutex_lock(&chr->lock);
    size_t room = !chr->muted ? chr->room : chr->mute_ready ? CHR_IN_MAX : 0;
    pthread_mutex_unlock(&chr->lock);
    return room;
}

static void chr_kick(struct chr *chr)
{
    loop_timer_set(&chr->kick, loop_now_ns());
}

/* Writes from the ring what the peer takes; false when something is left. Under the lock. */
static bool chr_flush_ring(struct chr *chr, struct chr_ring *r)
{
    while (r->len > 0) {
        size_t n = MIN(r->len, sizeof(r->buf) - r->at);
        ssize_t done = chr->sock ? send(chr->out_fd, r->buf + r->at, n, MSG_NOSIGNAL)
                                 : write(chr->out_fd, r->buf + r->at, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return false;
        }
        if (done < 0) {
            log_debug("chr", "write failed", "name='%s' errno='%d'", chr->name, errno);
            chr->broken = true;
            chr->out.len = 0;
            chr->say.len = 0;
            return false;
        }
        r->at = (r->at + (size_t)done) % sizeof(r->buf);
        r->len -= (size_t)done;
    }
    return true;
}

static void chr_flush_locked(struct chr *chr)
{
    if (chr->out_fd >= 0 && !chr->broken && chr_flush_ring(chr, &chr->say) && !chr->muted) {
        (void)chr_flush_ring(chr, &chr->out); /* what is left is seen in its length */
    }
}

/* Appends to the ring; returns what fitted. Under the lock. */
static size_t chr_append_locked(struct chr_ring *r, const uint8_t *buf, size_t len)
{
    size_t n = MIN(len, sizeof(r->buf) - r->len);
    size_t at = (r->at + r->len) % sizeof(r->buf);
    size_t first = MIN(n, sizeof(r->buf) - at);
    memcpy(r->buf + at, buf, first);
    memcpy(r->buf, buf + first, n - first);
    r->len += n;
    return n;
}

size_t chr_write(struct chr *chr, const uint8_t *buf, size_t len)
{
    pthread_mutex_lock(&chr->lock);
    size_t taken = 0;
    bool kick = false;
    if (!chr->open || chr->broken || chr->out_fd < 0) {
        taken = len;
    }
    while (taken < len) {
        size_t n = chr_append_locked(&chr->out, buf + taken, len - taken);
        taken += n;
        chr_flush_locked(chr);
        if (chr->broken) {
            taken = len;
            kick = true;
        } else if (chr->out.len > 0) {
            kick = (chr->out_events & EPOLLOUT) == 0;
            if (chr->out.len == CHR_OUT_MAX && taken < len) {
                chr->starved = true;
                break;
            }
        }
    }
    pthread_mutex_unlock(&chr->lock);
    if (kick) {
        chr_kick(chr);
    }
    return taken;
}

void chr_print(struct chr *chr, const char *text)
{
    pthread_mutex_lock(&chr->lock);
    if (chr->open && !chr->broken && chr->out_fd >= 0) {
        (void)chr_append_locked(&chr->say, (const uint8_t *)text, strlen(text)); /* see chr.h */
        chr_flush_locked(chr);
    }
    pthread_mutex_unlock(&chr->lock);
    chr_kick(chr);
}

void chr_set_ready(struct chr *chr, size_t room)
{
    pthread_mutex_lock(&chr->lock);
    bool kick = (chr->room == 0) != (room == 0);
    chr->room = room;
    pthread_mutex_unlock(&chr->lock);
    if (kick) {
        chr_kick(chr);
    }
}

bool chr_is_open(struct chr *chr)
{
    pthread_mutex_lock(&chr->lock);
    bool open = chr->open;
    pthread_mutex_unlock(&chr->lock);
    return open;
}

bool chr_size(struct chr *chr, uint16_t *ret_cols, uint16_t *ret_rows)
{
    return chr->cls->size != NULL && chr->cls->size(chr, ret_cols, ret_rows);
}

size_t chr_deliver(struct chr *chr, const uint8_t *buf, size_t len)
{
    if (len == 0) {
        return 0;
    }
    if (chr->mute_input != NULL) {
        return chr->mute_input(chr->mute_opaque, buf, len);
    }
    pthread_mutex_lock(&chr->lock);
    chr->room -= MIN(len, chr->room);
    pthread_mutex_unlock(&chr->lock);
    if (chr->front.input != NULL) {
        chr->front.input(chr->front.opaque, buf, len);
    }
    return len;
}

static void chr_hangup(struct chr *chr)
{
    chr_drop_fds(chr);
    if (chr->cls->hangup != NULL) {
        chr->cls->hangup(chr);
    }
}

/* Reads once, at most what the front end has room for. */
static void chr_input(struct chr *chr)
{
    if (chr->cls->readable != NULL) {
        chr->cls->readable(chr);
        return;
    }
    uint8_t buf[CHR_IN_MAX];
    size_t want = MIN(chr_room(chr), sizeof(buf));
    if (want == 0 || chr->in_fd < 0) {
        return;
    }
    ssize_t n = read(chr->in_fd, buf, want);
    if (n > 0) {
        (void)chr_deliver(chr, buf, (size_t)n); /* only stdio is muted, which reads by itself */
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        chr_hangup(chr);
    }
}

/* Flushes, then tells a starved front end once half of the buffer is free. */
static void chr_output(struct chr *chr)
{
    pthread_mutex_lock(&chr->lock);
    chr_flush_locked(chr);
    bool tell = chr->starved && !chr->muted && chr->out.len <= CHR_OUT_MAX / 2;
    if (tell) {
        chr->starved = false;
    }
    pthread_mutex_unlock(&chr->lock);
    if (tell && chr->front.writable != NULL) {
        chr->front.writable(chr->front.opaque);
    }
}

/* The reader of our output is gone, input and the escape key go on: output is dropped now. */
static void chr_drop_out(struct chr *chr)
{
    loop_fd_del(chr->out_w);
    chr->out_w = NULL;
    pthread_mutex_lock(&chr->lock);
    close(chr->out_fd);
    chr->out_fd = -1;
    chr->out.len = 0;
    chr->say.len = 0;
    chr->broken = false;
    pthread_mutex_unlock(&chr->lock);
}

/* Makes the watches agree with room and waiting output; reads by itself from an input that cannot
 * be watched (a regular file, or one whose hang-up waits for the front end to take the rest). */
static void chr_update(void *opaque)
{
    struct chr *chr = opaque;
    chr_output(chr);
    pthread_mutex_lock(&chr->lock);
    bool broken = chr->broken;
    bool wanted = chr->muted ? chr->mute_ready : chr->room > 0;
    bool can_read = chr->in_fd >= 0 && (wanted || chr->greedy);
    uint32_t in = can_read ? EPOLLIN : 0;
    bool waits = chr->say.len > 0 || (chr->out.len > 0 && !chr->muted);
    uint32_t out = waits ? EPOLLOUT : 0;
    bool read_now = can_read && chr->in_w == NULL;
    chr->out_events = out;
    pthread_mutex_unlock(&chr->lock);
    if (broken && chr->in_fd >= 0 && chr->in_fd != chr->out_fd) {
        chr_drop_out(chr);
    } else if (broken) {
        chr_hangup(chr);
        return;
    }
    if (chr->in_w != NULL) {
        uint32_t events = in | (chr->out_fd == chr->in_fd ? out : 0);
        if (events != chr->in_events) {
            chr->in_events = events;
            loop_fd_set_events(chr->in_w, events);
        }
    }
    if (chr->out_w != NULL) {
        loop_fd_set_events(chr->out_w, out);
    }
    if (chr->cls->ready != NULL) {
        chr->cls->ready(chr);
    }
    if (read_now) {
        chr_input(chr);
        if (chr->in_fd >= 0 && (chr->greedy || chr_room(chr) > 0)) {
            chr_kick(chr);
        }
    }
}

static void chr_on_fd(void *opaque, uint32_t events)
{
    struct chr *chr = opaque;
    bool gone = (events & (EPOLLHUP | EPOLLERR)) != 0;
    if (gone && !chr->greedy && chr_room(chr) == 0) {
        /* What it sent is still to be read: keep the descriptor, end the watch. */
        loop_fd_del(chr->in_w);
        chr->in_w = NULL;
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        chr_input(chr);
    }
    chr_update(chr);
}

static void chr_on_out_fd(void *opaque, uint32_t events)
{
    struct chr *chr = opaque;
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        pthread_mutex_lock(&chr->lock);
        chr->broken = true;
        pthread_mutex_unlock(&chr->lock);
    }
    chr_update(chr);
}

int chr_set_fds(struct chr *chr, int take_in_fd, int take_out_fd, struct err *err)
{
    pthread_mutex_lock(&chr->lock);
    chr->in_fd = take_in_fd;
    chr->out_fd = take_out_fd;
    chr->open = true;
    chr->broken = false;
    chr->out.len = 0;
    chr->say.len = 0;
    chr->out_events = 0;
    pthread_mutex_unlock(&chr->lock);
    chr->in_events = 0;
    int code = 0;
    if (take_in_fd >= 0) {
        chr->in_w = loop_fd_add(chr->loop, take_in_fd, 0, chr_on_fd, chr);
        code = chr->in_w == NULL && errno != EPERM ? -errno : 0;
    }
    if (code == 0 && take_out_fd >= 0 && take_out_fd != take_in_fd) {
        chr->out_w = loop_fd_add(chr->loop, take_out_fd, 0, chr_on_out_fd, chr);
        code = chr->out_w == NULL && errno != EPERM ? -errno : 0; /* EPERM: a regular file */
    }
    if (code < 0) {
        chr_drop_fds(chr);
        return err_set_errno(err, code, "%s", chr->name);
    }
    if (chr->front.opened != NULL) {
        chr->front.opened(chr->front.opaque, true);
    }
    chr_kick(chr);
    return 0;
}

void chr_drop_fds(struct chr *chr)
{
    loop_fd_del(chr->in_w);
    loop_fd_del(chr->out_w);
    chr->in_w = NULL;
    chr->out_w = NULL;
    pthread_mutex_lock(&chr->lock);
    bool was_open = chr->open;
    bool starved = chr->starved;
    if (chr->in_fd >= 0) {
        close(chr->in_fd);
    }
    if (chr->out_fd >= 0 && chr->out_fd != chr->in_fd) {
        close(chr->out_fd);
    }
    chr->in_fd = -1;
    chr->out_fd = -1;
    chr->open = false;
    chr->broken = false;
    chr->starved = false;
    chr->out.len = 0;
    chr->say.len = 0;
    chr->out_events = 0;
    pthread_mutex_unlock(&chr->lock);
    if (was_open && chr->front.opened != NULL) {
        chr->front.opened(chr->front.opaque, false);
    }
    if (starved && chr->front.writable != NULL) {
        chr->front.writable(chr->front.opaque); /* from now on everything is taken */
    }
}

static int chr_find(const char *spec, const struct chr_class **ret_cls, const char **ret_arg,
                    struct err *err)
{
    const char *colon = strchr(spec, ':');
    size_t len = colon != NULL ? (size_t)(colon - spec) : strlen(spec);
    for (size_t i = 0; i < ARRAY_LEN(chr_classes); i++) {
        const struct chr_class *cls = chr_classes[i];
        if (strlen(cls->name) != len || memcmp(cls->name, spec, len) != 0) {
            continue;
        }
        if (cls->arg == NULL && colon != NULL) {
            return err_set(err, -EINVAL, "console '%s': nothing may follow '%s'", spec, cls->name);
        }
        if (cls->arg != NULL && (colon == NULL || colon[1] == '\0')) {
            return err_set(err, -EINVAL, "console '%s': write %s:%s", spec, cls->name, cls->arg);
        }
        *ret_cls = cls;
        *ret_arg = colon != NULL ? colon + 1 : NULL;
        return 0;
    }
    return err_set(err, -EINVAL,
                   "console '%s': unknown kind; use stdio, pty, unix:PATH, file:PATH or null",
                   spec);
}

int chr_open(const char *spec, struct loop *loop,
             void (*escape)(void *opaque, enum chr_escape what), void *opaque, struct chr **ret_chr,
             struct err *err)
{
    const struct chr_class *cls = NULL;
    const char *arg = NULL;
    int rc = chr_find(spec, &cls, &arg, err);
    if (rc < 0) {
        return rc;
    }
    struct chr *chr = calloc(1, sizeof(*chr));
    if (chr == NULL) {
        return err_set(err, -ENOMEM, "console '%s': out of memory", spec);
    }
    chr->cls = cls;
    chr->loop = loop;
    chr->escape = escape;
    chr->escape_opaque = opaque;
    chr->in_fd = -1;
    chr->out_fd = -1;
    pthread_mutex_init(&chr->lock, NULL);
    loop_timer_init(&chr->kick, loop, chr_update, chr);
    (void)snprintf(chr->name, sizeof(chr->name), "%s", spec);
    rc = cls->open(chr, arg, err);
    if (rc < 0) {
        loop_timer_cancel(&chr->kick);
        pthread_mutex_destroy(&chr->lock);
        free(chr);
        return rc;
    }
    *ret_chr = chr;
    return 0;
}

/* Gives a reader that keeps up the guest's last words (its power-off messages). */
static void chr_last_words(struct chr *chr)
{
    pthread_mutex_lock(&chr->lock);
    chr->muted = false;
    chr_flush_locked(chr);
    pthread_mutex_unlock(&chr->lock);
}

void chr_close(struct chr *chr)
{
    if (chr == NULL) {
        return;
    }
    chr_last_words(chr);
    chr->front = (struct chr_front){ 0 };
    chr_drop_fds(chr);
    if (chr->cls->close != NULL) {
        chr->cls->close(chr);
    }
    loop_timer_cancel(&chr->kick);
    pthread_mutex_destroy(&chr->lock);
    free(chr);
}

const char *chr_name(const struct chr *chr)
{
    return chr->name;
}

void chr_attach(struct chr *chr, const struct chr_front *front)
{
    chr->front = front != NULL ? *front : (struct chr_front){ 0 };
    pthread_mutex_lock(&chr->lock);
    chr->room = 0;
    chr->starved = false;
    pthread_mutex_unlock(&chr->lock);
}

void chr_mute(struct chr *chr, size_t (*input)(void *opaque, const uint8_t *buf, size_t len),
              void *opaque)
{
    if (chr->cls != &chr_stdio_class) {
        return;
    }
    chr->mute_input = input;
    chr->mute_opaque = opaque;
    pthread_mutex_lock(&chr->lock);
    chr->muted = input != NULL;
    chr->mute_ready = true;
    pthread_mutex_unlock(&chr->lock);
    chr_kick(chr);
}

void chr_mute_ready(struct chr *chr, bool ready)
{
    pthread_mutex_lock(&chr->lock);
    chr->mute_ready = ready;
    pthread_mutex_unlock(&chr->lock);
    chr_kick(chr);
}
