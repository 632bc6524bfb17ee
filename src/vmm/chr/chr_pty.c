/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pseudo terminal: chr_name() is the name of its other end (/dev/pts/N) for `screen` and the
 * like. Output while nobody has it open is dropped.
 *
 * The kernel tells when the last opener leaves (EPOLLHUP, read gives EIO) but not when one comes,
 * so a timer looks every CHR_PTY_LOOK_MS while nobody is there, through an epoll set of its own:
 * epoll is among the calls that the sandbox leaves us, poll(2) is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/chr/chr_int.h"

#define CHR_PTY_LOOK_MS 200

struct chr_pty {
    struct chr *chr;
    int fd; /* the master, kept over hang-ups */
    int look_fd;
    struct loop_timer look;
};

static void chr_pty_wait(struct chr_pty *s)
{
    loop_timer_set(&s->look, loop_now_ns() + CHR_PTY_LOOK_MS * UINT64_C(1000000));
}

static void chr_pty_on_look(void *opaque)
{
    struct chr_pty *s = opaque;
    struct epoll_event ev = { 0 };
    const struct timespec now = { 0 };
    /* On an error it passes for open; read() will tell more. */
    if (epoll_pwait2(s->look_fd, &ev, 1, &now, NULL) == 1 && (ev.events & EPOLLHUP) != 0) {
        chr_pty_wait(s);
        return;
    }
    struct err err = ERR_INIT;
    int fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0 || chr_set_fds(s->chr, fd, fd, &err) < 0) {
        chr_pty_wait(s);
    }
}

static void chr_pty_hangup(struct chr *chr)
{
    chr_pty_wait(chr->state);
}

static void chr_pty_close(struct chr *chr)
{
    struct chr_pty *s = chr->state;
    loop_timer_cancel(&s->look);
    close(s->look_fd);
    close(s->fd);
    free(s);
}

/* Opens and closes the other end once: sets it raw, and from then on the master reports a hang-up
 * while nobody has it open. */
static int chr_pty_prepare(int fd, char *name, size_t size)
{
    if (grantpt(fd) < 0 || unlockpt(fd) < 0) {
        return -errno;
    }
    int rc = ptsname_r(fd, name, size);
    if (rc != 0) {
        return -rc;
    }
    CLEANUP_FD int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios t;
    if (slave < 0 || tcgetattr(slave, &t) < 0) {
        return -errno;
    }
    cfmakeraw(&t);
    return tcsetattr(slave, TCSANOW, &t) < 0 ? -errno : 0;
}

static int chr_pty_open(struct chr *chr, const char *arg, struct err *err)
{
    (void)arg;
    CLEANUP_FD int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(err, -errno, "console 'pty': cannot make a pseudo terminal");
    }
    int rc = chr_pty_prepare(fd, chr->name, sizeof(chr->name));
    if (rc < 0) {
        return err_set_errno(err, rc, "console 'pty': cannot set up the pseudo terminal");
    }
    CLEANUP_FD int look = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = 0 }; /* EPOLLHUP comes unasked */
    if (look < 0 || epoll_ctl(look, EPOLL_CTL_ADD, fd, &ev) < 0) {
        return err_set_errno(err, -errno, "console 'pty'");
    }
    struct chr_pty *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(err, -ENOMEM, "console 'pty': out of memory");
    }
    s->chr = chr;
    s->fd = take_fd(&fd);
    s->look_fd = take_fd(&look);
    chr->state = s;
    loop_timer_init(&s->look, chr->loop, chr_pty_on_look, s);
    chr_pty_wait(s);
    return 0;
}

const struct chr_class chr_pty_class = {
    .name = "pty",
    .help = "a pseudo terminal; its name is reported",
    .open = chr_pty_open,
    .close = chr_pty_close,
    .hangup = chr_pty_hangup,
};
