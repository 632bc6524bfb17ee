/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Confinement of the VM process, closed before the guest's first instruction (docs/sandbox.md).
 *
 *   sandbox_drop()            once, single-threaded but for workers: no capabilities, no new
 *                             privileges, limits, no file system (Landlock)
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

MUST_USE int sandbox_drop(struct err *err);
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

/* Version of Landlock that the host kernel has; 0 = none. */
int sandbox_landlock_abi(void);

#endif
