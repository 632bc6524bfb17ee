/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Running other programs: their messages are kept for the error, a look-out is called while they
 * run, and a signal to us ends them before we go.
 *
 *     struct child_stop stop;
 *     child_stop_init(&stop, &err);             SIGINT, SIGTERM and SIGHUP wait here from now on
 *     child_run(&(struct child_opts){ .argv = argv, .package = "mtools", .stop = &stop }, &err);
 *     child_stop_done(&stop);                   and get their usual effect back
 *
 * A program whose output is wanted: child_start(), child_read() until 0, child_finish().
 * One thread.
 */
#ifndef IMAGE_CHILD_H
#define IMAGE_CHILD_H

#include <signal.h>
#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

/* Signals that ask for an end, as a descriptor. */
struct child_stop {
    int fd;
    sigset_t before;
};

MUST_USE int child_stop_init(struct child_stop *stop, struct err *err);
/* What was taken note of is gone; the signals have their former effect again. */
void child_stop_done(struct child_stop *stop);
/* 0, or -EINTR once one of the signals has come. Accepts NULL. */
MUST_USE int child_stop_check(const struct child_stop *stop, struct err *err);

struct child_opts {
    const char *const *argv; /* NULL-terminated; argv[0] is searched in PATH and the sbin folders */
    const char *const *env;  /* NULL, or "NAME=VALUE" on top of ours, NULL-terminated */
    const char *input;       /* file for its standard input; NULL: none */
    bool private_mounts;     /* what it mounts ends with it; as root only */
    const char *package;     /* the Debian package with the program, for the error */
    const struct child_stop *stop;                /* may be NULL */
    void (*line)(void *opaque, const char *line); /* a line of standard error; may be NULL */
    void (*tick)(void *opaque);                   /* about five times a second; may be NULL */
    void *opaque;
};

struct child;

/* Starts a program. -ENOENT: not installed. */
MUST_USE int child_start(const struct child_opts *opts, struct child **ret_child, struct err *err);
/* Bytes of its standard output: 1 to `len`, 0 at its end, -EINTR when a signal came. */
MUST_USE ssize_t child_read(struct child *child, void *buf, size_t len, struct err *err);
/* Waits for the end (output not yet read is dropped) and frees. 0; -EIO: it failed, the text has
 * its last lines; -EINTR: a signal came, the program was ended first. With `abandon` it is told to
 * end, and the result is 0. */
MUST_USE int child_finish(struct child *take_child, bool abandon, struct err *err);

/* Start and finish. */
MUST_USE int child_run(const struct child_opts *opts, struct err *err);

/* Start, read all of the output (`max` bytes at most, a string), finish. Result for free(). */
MUST_USE int child_output(const struct child_opts *opts, size_t max, char **ret_text,
                          struct err *err);

#endif
