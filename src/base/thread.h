/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Named threads, pinned on request. All signals are blocked in a new thread (the main thread
 * takes them), so that a SIGTERM never lands in a vCPU by chance.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

#include "base/err.h"

/* Starts fn(opaque). `name` is cut to 15 characters (prctl(2) PR_SET_NAME). `cpu` is a host CPU
 * number, or -1 for no pinning. Returns 0, or a negative errno with `err` filled. */
MUST_USE int thread_start(pthread_t *ret_thread, const char *name, int cpu, void *(*fn)(void *),
                          void *opaque, struct err *err);

#endif
