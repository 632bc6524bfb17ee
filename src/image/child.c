/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TICK_MS       200
#define TAIL_MAX      600 /* bytes of a failed program's messages that an error shows */
#define LINE_MAX_SIZE 1024
#define GRACE_MS      10000 /* for cleaning up after SIGTERM, then SIGKILL */

struct child {
    struct child_opts opts;
    pid_t pid;
    int out; /* -1: at its end */
    int msg;
    char line[LINE_MAX_SIZE];
    size_t line_len;
    char tail[TAIL_MAX];
    size_t tail_len;
};

int child_stop_init(struct child_stop *stop, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    stop->fd = -1;
    if (sigprocmask(SIG_BLOCK, &set, &stop->before) < 0 ||
        (stop->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0) {
        return err_set_errno(err, -errno, "cannot wait for signals");
    }
    return 0;
}

void child_stop_done(struct child_stop *stop)
{
    struct signalfd_siginfo info;
    if (stop->fd >= 0) {
        while (read(stop->fd, &info, sizeof(info)) > 0) {
        }
        close(stop->fd);
        stop->fd = -1;
        (void)sigprocmask(SIG_SETMASK, &stop->before, NULL);
    }
}

int child_stop_check(const struct child_stop *stop, struct err *err)
{
    struct pollfd p = { .fd = stop != NULL ? stop->fd : -1, .events = POLLIN };
    return poll(&p, 1, 0) > 0 ? err_set(err, -EINTR, "interrupted; nothing was left behind") : 0;
}

/* mke2fs and the like are in the sbin folders, which users often do not have in PATH; messages are
 * read by code. putenv() of what is on this stack ends with the process. */
static void child_environment(const struct child_opts *o, char *path, size_t len)
{
    const char *ours = getenv("PATH");
    (void)snprintf(path, len, "PATH=%s:/usr/sbin:/sbin", ours != NULL ? ours : "/usr/bin:/bin");
    (void)putenv(path);
    (void)setenv("LC_ALL", "C.UTF-8", 1);
    for (const char *const *e = o->env; e != NULL && *e != NULL; e++) {
        (void)putenv((char *)(uintptr_t)*e);
    }
}

/* In the child. We have one thread, so memory may be allocated. */
static void child_exec(const struct child_opts *o, const int out[2], const int msg[2], int failed)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* Without the right to do so: then it cannot mount either. */
    if (o->private_mounts && unshare(CLONE_NEWNS) == 0) {
        (void)mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
    }
    if (o->stop != NULL) {
        (void)sigprocmask(SIG_SETMASK, &o->stop->before, NULL);
    }
    int in = open(o->input != NULL ? o->input : "/dev/null", O_RDONLY | O_CLOEXEC);
    if (in >= 0 && dup2(in, 0) >= 0 && dup2(out[1], 1) >= 0 && dup2(msg[1], 2) >= 0) {
        char path[4096];
        child_environment(o, path, sizeof(path));
        (void)execvp(o->argv[0], (char *const *)(uintptr_t)o->argv);
    }
    int code = errno;
    ssize_t n = write(failed, &code, sizeof(code));
    _exit(n == sizeof(code) ? 127 : 126);
}

static int child_no_program(const struct child_opts *o, int code, struct err *err)
{
    if (code == ENOENT && o->package != NULL) {
        return err_set(err, -ENOENT, "the program '%s' is missing: install the package %s",
                       o->argv[0], o->package);
    }
    return err_set_errno(err, -code, "cannot start '%s'", o->argv[0]);
}

static int child_fork(struct child *c, struct err *err)
{
    int out[2] = { -1, -1 };
    int msg[2] = { -1, -1 };
    int failed[2] = { -1, -1 };
    int code = 0;
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(msg, O_CLOEXEC) < 0 || pipe2(failed, O_CLOEXEC) < 0 ||
        (c->pid = fork()) < 0) {
        code = errno;
    } else if (c->pid == 0) {
        child_exec(&c->opts, out, msg, failed[1]);
    }
    int *mine[] = { &out[1], &msg[1], &failed[1] };
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) {
        if (*mine[i] >= 0) {
            close(*mine[i]);
        }
    }
    c->out = out[0];
    c->msg = msg[0];
    int told = 0;
    if (code == 0 && read(failed[0], &told, sizeof(told)) == sizeof(told)) {
        (void)waitpid(c->pid, NULL, 0);
        code = told;
    }
    if (failed[0] >= 0) {
        close(failed[0]);
    }
    return code != 0 ? child_no_program(&c->opts, code, err) : 0;
}

static void child_free(struct child *c)
{
    if (c->out >= 0) {
        close(c->out);
    }
    if (c->msg >= 0) {
        close(c->msg);
    }
    free(c);
}

int child_start(const struct child_opts *opts, struct child **ret_child, struct err *err)
{
    struct child *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    c->opts = *opts;
    c->out = -1;
    c->msg = -1;
    int rc = child_fork(c, err);
    if (rc < 0) {
        child_free(c);
        return rc;
    }
    *ret_child = c;
    return 0;
}

/* Keeps the end of what the program said, in one line: "a; b". */
static void child_keep(struct child *c, const char *line)
{
    size_t len = MIN(strlen(line), sizeof(c->tail) / 2);
    if (len == 0) {
        return;
    }
    size_t need = len + 2;
    if (c->tail_len + need >= sizeof(c->tail)) {
        size_t drop = c->tail_len + need - sizeof(c->tail) + 1;
        const char *cut = memchr(c->tail + drop, ';', c->tail_len - drop);
        drop = cut != NULL ? (size_t)(cut + 2 - c->tail) : c->tail_len;
        memmove(c->tail, c->tail + drop, c->tail_len - drop);
        c->tail_len -= drop;
    }
    if (c->tail_len > 0) {
        memcpy(c->tail + c->tail_len, "; ", 2);
        c->tail_len += 2;
    }
    memcpy(c->tail + c->tail_len, line, len);
    c->tail_len += len;
    c->tail[c->tail_len] = '\0';
}

static void child_line(struct child *c)
{
    c->line[c->line_len] = '\0';
    c->line_len = 0;
    child_keep(c, c->line);
    if (c->opts.line != NULL) {
        c->opts.line(c->opts.opaque, c->line);
    }
}

/* Takes what is on standard error. A line that a carriage return ends was a progress bar. */
static void child_messages(struct child *c)
{
    char buf[4096];
    ssize_t n = read(c->msg, buf, sizeof(buf));
    if (n <= 0) {
        close(c->msg);
        c->msg = -1;
        if (c->line_len > 0) {
            child_line(c);
        }
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\n' || c->line_len == sizeof(c->line) - 1) {
            child_line(c);
        } else if (buf[i] == '\r') {
            c->line_len = 0;
        } else if ((unsigned char)buf[i] >= 0x20) {
            c->line[c->line_len++] = buf[i];
        }
    }
}

/* Waits until there is output (returns 1) or the end of everything (0). */
static int child_wait(struct child *c, struct err *err)
{
    for (;;) {
        if (c->out < 0 && c->msg < 0) {
            return 0;
        }
        struct pollfd p[3] = {
            {.fd = c->out,                                        .events = POLLIN},
            { .fd = c->msg,                                       .events = POLLIN},
            { .fd = c->opts.stop != NULL ? c->opts.stop->fd : -1, .events = POLLIN}
        };
        int n = poll(p, 3, TICK_MS);
        if (n < 0 && errno != EINTR) {
            return err_set_errno(err, -errno, "waiting for '%s'", c->opts.argv[0]);
        }
        int rc = child_stop_check(c->opts.stop, err);
        if (rc < 0) {
            return rc;
        }
        if (p[1].revents != 0) {
            child_messages(c);
        }
        if (n == 0 && c->opts.tick != NULL) {
            c->opts.tick(c->opts.opaque);
        }
        if (p[0].revents != 0) {
            return 1;
        }
    }
}

ssize_t child_read(struct child *child, void *buf, size_t len, struct err *err)
{
    int rc = child_wait(child, err);
    if (rc <= 0) {
        return rc;
    }
    ssize_t n = read(child->out, buf, len);
    if (n <= 0) {
        close(child->out);
        child->out = -1;
        return n < 0 ? err_set_errno(err, -EIO, "reading what '%s' writes", child->opts.argv[0])
                     : 0;
    }
    return n;
}

/* Waits `ms` for the end, with the signals that ended it repeated once as SIGKILL. */
static int child_reap(struct child *c, bool killed)
{
    int status = 0;
    for (int ms = 0; killed && ms < GRACE_MS; ms += 20) {
        if (waitpid(c->pid, &status, WNOHANG) == c->pid) {
            return status;
        }
        (void)poll(NULL, 0, 20);
    }
    if (killed) {
        (void)kill(c->pid, SIGKILL);
    }
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

int child_finish(struct child *take_child, bool abandon, struct err *err)
{
    struct child *c = take_child;
    char drop[4096];
    int rc = 0;
    ssize_t n = 1;
    while (!abandon && (n = child_read(c, drop, sizeof(drop), err)) > 0) {
    }
    /* Messages may go on after the output has ended. */
    while (!abandon && n == 0 && (n = child_wait(c, err)) > 0) {
    }
    rc = (int)n < 0 ? (int)n : 0;
    if (abandon || rc < 0) {
        (void)kill(c->pid, SIGTERM);
    }
    int status = child_reap(c, abandon || rc < 0);
    if (rc == 0 && !abandon && status != 0) {
        const char *said = c->tail_len > 0 ? c->tail : "";
        rc = WIFEXITED(status) ? err_set(err, -EIO, "'%s' failed with exit code %d: %s",
                                         c->opts.argv[0], WEXITSTATUS(status), said)
                               : err_set(err, -EIO, "'%s' was ended by signal %d: %s",
                                         c->opts.argv[0], WTERMSIG(status), said);
    }
    child_free(c);
    return rc;
}

int child_run(const struct child_opts *opts, struct err *err)
{
    struct child *c = NULL;
    int rc = child_start(opts, &c, err);
    return rc < 0 ? rc : child_finish(c, false, err);
}

int child_output(const struct child_opts *opts, size_t max, char **ret_text, struct err *err)
{
    struct child *c = NULL;
    int rc = child_start(opts, &c, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE char *text = malloc(max + 1);
    size_t have = 0;
    ssize_t n = text != NULL ? 1 : err_set(err, -ENOMEM, "out of memory");
    while (n > 0 && have < max && (n = child_read(c, text + have, max - have, err)) > 0) {
        have += (size_t)n;
    }
    if (n < 0) {
        struct err ignored = ERR_INIT;
        (void)child_finish(c, true, &ignored); /* the reading error is the cause */
        return (int)n;
    }
    rc = child_finish(c, false, err);
    if (rc == 0) {
        text[have] = '\0';
        *ret_text = take_ptr(&text);
    }
    return rc;
}
