/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The jail of the VM process, closed before the guest's first instruction (docs/sandbox.md).
 *
 *   sandbox_enter()           once, when all files are open, and before the first thread: own
 *                             namespaces, root and user (started as root), then sandbox_drop()
 *   sandbox_limits()          once, when nothing more is made
 *   sandbox_filter_process()  once, when all threads exist: what any of them needs, on all of them
 *   sandbox_filter_thread()   on each thread: its own, narrower list
 *
 * There is no way back. Everything a VM uses is open by then.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include "base/bits.h"
#include "base/err.h"

enum sandbox_kind {
    SANDBOX_MAIN,
    SANDBOX_IO,
    SANDBOX_VCPU,
    SANDBOX_WORKER,
};

#define SANDBOX_MISSING_MAX 256

struct sandbox_jail {
    /* The only folder that stays within reach, to connect to sockets in it by relative names, for
     * which the process also keeps its user; NULL = none. */
    const char *folder;
    char missing[SANDBOX_MISSING_MAX]; /* set: walls that the host refuses, "" = none */
};

/* Closes what the parent left open beside standard input, output and error. First thing of all. */
void sandbox_close_inherited(void);
/* Wipes the environment from where /proc shows it. What is asked for later is kept in the heap: TZ
 * and LANGUAGE, since another answer would send the C library to files, and SOFTKVM_JIT. */
void sandbox_forget_environment(void);
/* The walls around the process, and sandbox_drop(). An error is only what must not be: a wall that
 * the host refuses stands in jail->missing. */
MUST_USE int sandbox_enter(struct sandbox_jail *jail, struct err *err);
/* The part that needs no right: no capabilities, no new privileges, no file system (Landlock). Of
 * this thread and of those it starts. */
MUST_USE int sandbox_drop(struct err *err);
/* No core file, few descriptors, of the whole process. */
MUST_USE int sandbox_limits(struct err *err);
/* One heap for all threads; before any thread is started. A thread's own heap costs start-up time
 * and memory, few threads allocate at the same time, and before glibc shrinks one it opens a file
 * of /proc (check_may_shrink_heap), which behind the closed door ends the process. */
void sandbox_one_heap(void);
/* Makes the C library read the time zone's file, which it would read lazily, behind the closed
 * door. Before sandbox_drop(). */
void sandbox_warm(void);
/* `vsock`: a vsock device connects to Unix sockets while the guest runs. */
MUST_USE int sandbox_filter_process(bool vsock, struct err *err);
MUST_USE int sandbox_filter_thread(enum sandbox_kind kind, bool vsock, struct err *err);

/* Enters a jail in a child process, for `posada doctor`: what it lacks here. False when that fails.
 */
bool sandbox_survey(char ret_missing[SANDBOX_MISSING_MAX]);

/* Version of Landlock that the host kernel has; 0 = none. */
int sandbox_landlock_abi(void);

#endif
