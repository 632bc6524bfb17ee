/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The perf map: one line a region, so that perf(1) names the guest code behind a host address
 * (tools/perf/Documentation/jit-interface.txt of Linux). Written if the environment variable
 * SOFTKVM_PERF_MAP names a folder; perf looks in /tmp. What is dropped stays in it: of two lines on
 * one address the later counts.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "softkvm/jit/jit_int.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int map_fd = -1; /* of the process; open until its end */

static void perf_open(void)
{
    const char *folder = getenv("SOFTKVM_PERF_MAP");
    char path[256];
    int n = folder ? snprintf(path, sizeof(path), "%s/perf-%d.map", folder, getpid()) : 0;

    if (n > 0 && (size_t)n < sizeof(path)) {
        map_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
}

void jit_perf_init(void)
{
    pthread_once(&once, perf_open);
}

void jit_perf_code(const void *at, size_t size, const char *kind, uint64_t rip)
{
    char line[96];
    int n;

    if (map_fd < 0) {
        return;
    }
    n = snprintf(line, sizeof(line), "%" PRIxPTR " %zx %s_%" PRIx64 "\n", (uintptr_t)at, size, kind,
                 rip);
    if (write(map_fd, line, (size_t)n) != n) {
        map_fd = -1; /* a full disk: no more lines */
    }
}
