/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The terminal (or pipe) that the program was started on. A terminal is set raw and restored on
 * every way out: chr_close(), exit(3), and signals that would end the process (only SIGKILL
 * leaves it raw; `stty sane` mends that).
 *
 * The escape key is Ctrl-A: x quits, c goes to the control prompt and back, b sends a line break,
 * h shows help, Ctrl-A sends one Ctrl-A; any other key is dropped. Escapes must work on a guest
 * that reads nothing, so a terminal is always read; up to CHR_STDIO_KEEP bytes wait for the guest,
 * what is typed beyond is dropped. A pipe is read only while there is room, nothing is lost.
 *
 * O_NONBLOCK would be shared with the shell that started us, so descriptors are opened anew
 * through /proc/self/fd; where that fails (sockets) the flag is set and taken back at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/chr/chr_int.h"

#define CHR_STDIO_KEEP   4096
#define CHR_STDIO_ESCAPE 0x01 /* Ctrl-A */

static const char chr_stdio_help[] = "\r\n"
                                     "Ctrl-A h       this help\r\n"
                                     "Ctrl-A x       end the virtual machine at once\r\n"
                                     "Ctrl-A c       control prompt and back\r\n"
                                     "Ctrl-A b       send a line break\r\n"
                                     "Ctrl-A Ctrl-A  send Ctrl-A\r\n";

struct chr_stdio_keep {
    size_t len;
    uint8_t buf[2 * CHR_STDIO_KEEP]; /* twice: an escape may turn what one read got to here */
};

struct chr_stdio {
    struct chr *chr;
    bool in_tty;
    bool escaped; /* the last byte was Ctrl-A */
    int winch_fd; /* signalfd of SIGWINCH, -1 */
    struct loop_fd *winch_w;
    sigset_t old_mask;
    int size_fd;                   /* a terminal to ask for its size, -1 */
    int flags_fd[2];               /* descriptors on which O_NONBLOCK was set, -1 */
    struct chr_stdio_keep keep[2]; /* for the guest; for whoever has muted it */
};

/*
 * Process-wide, since exit and signal handlers get no argument and a process has one standard
 * input. Written before the handlers are installed and after they are gone.
 */
static struct {
    bool used;
    volatile sig_atomic_t raw; /* the terminal needs to be restored */
    int fd;
    struct termios saved;
} chr_stdio_tty = { .fd = -1 };

static const int chr_stdio_signals[] = {
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE,
};

/* Async-signal-safe. SIGTTOU is blocked: from the background it would stop us here. */
static void chr_stdio_restore(void)
{
    if (!chr_stdio_tty.raw) {
        return;
    }
    chr_stdio_tty.raw = 0;
    sigset_t ttou;
    sigset_t old;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &old);
    (void)tcsetattr(chr_stdio_tty.fd, TCSAFLUSH, &chr_stdio_tty.saved); /* nowhere to report */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void chr_stdio_on_signal(int sig)
{
    chr_stdio_restore();
    /* SA_RESETHAND made it the default again: it ends the process when this handler returns. */
    (void)raise(sig);
}

/* Only for signals that nobody handles; a handler that the program installs later ends in exit()
 * or chr_close(). */
static void chr_stdio_guard(bool on)
{
    for (size_t i = 0; i < ARRAY_LEN(chr_stdio_signals); i++) {
        struct sigaction old;
        struct sigaction act = { .sa_handler = on ? chr_stdio_on_signal : SIG_DFL,
                                 .sa_flags = on ? (int)SA_RESETHAND : 0 };
        sigemptyset(&act.sa_mask);
        if (sigaction(chr_stdio_signals[i], NULL, &old) < 0 || (old.sa_flags & SA_SIGINFO) != 0 ||
            old.sa_handler != (on ? SIG_DFL : chr_stdio_on_signal)) {
            continue;
        }
        (void)sigaction(chr_stdio_signals[i], &act, NULL);
    }
}

static int chr_stdio_set_raw(int fd)
{
    static bool at_exit;
    if (tcgetattr(fd, &chr_stdio_tty.saved) < 0) {
        return -errno;
    }
    if (!at_exit && atexit(chr_stdio_restore) == 0) {
        at_exit = true;
    }
    struct termios raw = chr_stdio_tty.saved;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* keeps log lines straight; a second CR from the guest does no harm */
    chr_stdio_tty.fd = fd;
    chr_stdio_guard(true);
    chr_stdio_tty.raw = 1;
    if (tcsetattr(fd, TCSANOW, &raw) < 0) {
        int code = -errno;
        chr_stdio_tty.raw = 0;
        chr_stdio_guard(false);
        return code;
    }
    return 0;
}

/* One key that is no plain input. */
static void chr_stdio_on_escape(struct chr_stdio *s, uint8_t key)
{
    struct chr *chr = s->chr;
    switch (key) {
    case 'x':
    case 'c':
        if (chr->escape != NULL) {
            chr->escape(chr->escape_opaque, key == 'x' ? CHR_ESCAPE_QUIT : CHR_ESCAPE_MONITOR);
        }
        break;
    case 'b':
        if (chr->front.brk != NULL) {
            chr->front.brk(chr->front.opaque);
        }
        break;
    case 'h':
    case '?':
        chr_print(chr, chr_stdio_help);
        break;
    default:
        break;
    }
}

static struct chr_stdio_keep *chr_stdio_now(struct chr_stdio *s)
{
    return &s->keep[s->chr->mute_input != NULL ? 1 : 0];
}

/* What a mute left over is the guest's once it has ended. */
static void chr_stdio_end_mute(struct chr_stdio *s)
{
    struct chr_stdio_keep *k = &s->keep[0];
    struct chr_stdio_keep *rest = &s->keep[1];
    size_t n = MIN(rest->len, sizeof(k->buf) - k->len);
    memcpy(k->buf + k->len, rest->buf, n);
    k->len += n;
    rest->len -= n;
    memmove(rest->buf, rest->buf + n, rest->len);
}

/* Gives the front end (or whoever has muted it) what waits. */
static void chr_stdio_ready(struct chr *chr)
{
    struct chr_stdio *s = chr->state;
    if (chr->mute_input == NULL) {
        chr_stdio_end_mute(s);
    }
    struct chr_stdio_keep *k = chr_stdio_now(s);
    size_t n = MIN(k->len, chr_room(chr));
    while (n > 0) {
        uint8_t buf[CHR_STDIO_KEEP];
        n = MIN(n, sizeof(buf));
        memcpy(buf, k->buf, n);
        n = chr_deliver(chr, buf, n);
        k->len -= n;
        memmove(k->buf, k->buf + n, k->len);
        if (chr_stdio_now(s) != k) {
            break; /* it ended the mute; chr_mute() sees to it that we come again */
        }
        n = n > 0 ? MIN(k->len, chr_room(chr)) : 0;
    }
}

static void chr_stdio_take(struct chr_stdio *s, const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bool plain = s->escaped == (buf[i] == CHR_STDIO_ESCAPE);
        if (s->escaped && !plain) {
            bool muted = s->chr->mute_input != NULL;
            chr_stdio_ready(s->chr); /* what was typed before it comes first */
            chr_stdio_on_escape(s, buf[i]);
            if (muted && s->chr->mute_input == NULL) {
                s->keep[1].len = 0; /* commands that were not run are nothing for the guest */
            }
        }
        s->escaped = !s->escaped && buf[i] == CHR_STDIO_ESCAPE;
        struct chr_stdio_keep *k = chr_stdio_now(s);
        if (plain && k->len < (s->in_tty ? CHR_STDIO_KEEP : sizeof(k->buf))) {
            k->buf[k->len++] = buf[i];
        }
    }
}

static void chr_stdio_readable(struct chr *chr)
{
    struct chr_stdio *s = chr->state;
    uint8_t buf[CHR_STDIO_KEEP];
    if (chr->mute_input == NULL) {
        chr_stdio_end_mute(s); /* before what comes now */
    }
    size_t kept = chr_stdio_now(s)->len;
    size_t want = s->in_tty ? sizeof(buf) : sizeof(buf) - MIN(kept, sizeof(buf));
    if (want > 0) {
        ssize_t n = read(chr->in_fd, buf, want);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            /* End of input; output goes on. */
            loop_fd_del(chr->in_w);
            chr->in_w = NULL;
            pthread_mutex_lock(&chr->lock);
            close(chr->in_fd);
            chr->in_fd = -1;
            pthread_mutex_unlock(&chr->lock);
        }
        chr_stdio_take(s, buf, n > 0 ? (size_t)n : 0);
    }
    chr_stdio_ready(chr);
}

static bool chr_stdio_size(struct chr *chr, uint16_t *ret_cols, uint16_t *ret_rows)
{
    const struct chr_stdio *s = chr->state;
    struct winsize ws;
    if (s->size_fd < 0 || ioctl(s->size_fd, TIOCGWINSZ, &ws) < 0 || ws.ws_col == 0) {
        return false;
    }
    *ret_cols = ws.ws_col;
    *ret_rows = ws.ws_row;
    return true;
}

static void chr_stdio_on_winch(void *opaque, uint32_t events)
{
    struct chr_stdio *s = opaque;
    struct signalfd_siginfo info;
    uint16_t cols;
    uint16_t rows;
    (void)events;
    if (read(s->winch_fd, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    if (s->chr->front.resized != NULL && chr_stdio_size(s->chr, &cols, &rows)) {
        s->chr->front.resized(s->chr->front.opaque, cols, rows);
    }
}

/* Other threads block every signal (base/thread.h), so SIGWINCH always comes to the signalfd. */
static void chr_stdio_watch_size(struct chr_stdio *s)
{
    if (s->size_fd < 0) {
        return;
    }
    sigset_t winch;
    sigemptyset(&winch);
    sigaddset(&winch, SIGWINCH);
    s->winch_fd = signalfd(-1, &winch, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->winch_fd < 0) {
        return; /* the size is asked once, changes go unseen */
    }
    pthread_sigmask(SIG_BLOCK, &winch, &s->old_mask);
    s->winch_w = loop_fd_add(s->chr->loop, s->winch_fd, EPOLLIN, chr_stdio_on_winch, s);
}

/* A non-blocking descriptor for standard descriptor `fd` that leaves `fd` itself alone. */
static int chr_stdio_reopen(struct chr_stdio *s, int fd, int flags)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    /* A file opened anew would begin at offset 0: share its description instead. */
    int copy = S_ISREG(st.st_mode) ? -1 : open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (copy >= 0) {
        return copy;
    }
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int old = copy < 0 ? -1 : fcntl(copy, F_GETFL);
    if (old < 0) {
        return copy < 0 ? -errno : copy;
    }
    if (!S_ISREG(st.st_mode) && (old & O_NONBLOCK) == 0 &&
        fcntl(copy, F_SETFL, old | O_NONBLOCK) == 0) {
        s->flags_fd[fd] = fd;
    }
    return copy;
}

static void chr_stdio_free(struct chr_stdio *s)
{
    for (int fd = 0; fd < 2; fd++) {
        int flags = s->flags_fd[fd] >= 0 ? fcntl(fd, F_GETFL) : -1;
        if (flags >= 0) {
            (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK); /* as found; nothing else to be done */
        }
    }
    if (s->winch_fd >= 0) {
        loop_fd_del(s->winch_w);
        close(s->winch_fd);
        pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
    }
    chr_stdio_restore();
    chr_stdio_guard(false);
    chr_stdio_tty.used = false;
    free(s);
}

static void chr_stdio_close(struct chr *chr)
{
    chr_stdio_free(chr->state);
}

static int chr_stdio_open(struct chr *chr, const char *arg, struct err *err)
{
    (void)arg;
    if (chr_stdio_tty.used) {
        return err_set(err, -EBUSY, "console 'stdio': only one console can have the terminal");
    }
    struct chr_stdio *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(err, -ENOMEM, "console 'stdio': out of memory");
    }
    chr_stdio_tty.used = true;
    s->chr = chr;
    s->winch_fd = -1;
    s->flags_fd[0] = -1;
    s->flags_fd[1] = -1;
    s->in_tty = isatty(STDIN_FILENO) == 1;
    s->size_fd = isatty(STDOUT_FILENO) == 1 ? STDOUT_FILENO : s->in_tty ? STDIN_FILENO : -1;
    CLEANUP_FD int in = chr_stdio_reopen(s, STDIN_FILENO, O_RDONLY);
    CLEANUP_FD int out = chr_stdio_reopen(s, STDOUT_FILENO, O_WRONLY);
    if (in < 0 || out < 0) {
        chr_stdio_free(s);
        return err_set_errno(err, in < 0 ? in : out, "console 'stdio': standard %s cannot be used",
                             in < 0 ? "input" : "output");
    }
    int rc = s->in_tty ? chr_stdio_set_raw(STDIN_FILENO) : 0;
    if (rc < 0) {
        chr_stdio_free(s);
        return err_set_errno(err, rc, "console 'stdio': cannot set the terminal raw");
    }
    /* A reader of our output that goes away is no reason to die. */
    (void)signal(SIGPIPE, SIG_IGN);
    chr->state = s;
    chr->greedy = s->in_tty;
    chr_stdio_watch_size(s);
    rc = chr_set_fds(chr, take_fd(&in), take_fd(&out), err);
    if (rc < 0) {
        chr_stdio_free(s);
    }
    return rc;
}

const struct chr_class chr_stdio_class = {
    .name = "stdio",
    .help = "this terminal; Ctrl-A is the escape key",
    .open = chr_stdio_open,
    .close = chr_stdio_close,
    .readable = chr_stdio_readable,
    .ready = chr_stdio_ready,
    .size = chr_stdio_size,
};
