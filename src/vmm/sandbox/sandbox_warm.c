/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/thread.h"
#include "vmm/sandbox/sandbox.h"

#define WARM_PIECE (100 * 1024) /* below malloc's limit for a mapping of its own (128 KiB) */
#define WARM_PIECES                                                                                \
    4 /* together above its trim threshold and pad (128 KiB each), and so small                    \
       * that no huge page is taken for them */

/* In a thread of its own, since only the heap of a thread is shrunk after a look at the policy
 * (glibc's check_may_shrink_heap, which remembers the answer for the process). */
static void *warm_heap(void *opaque)
{
    char *volatile piece[WARM_PIECES];
    for (unsigned i = 0; i < WARM_PIECES; i++) {
        piece[i] = malloc(WARM_PIECE);
        if (piece[i] != NULL) {
            piece[i][0] = 1;
        }
    }
    for (unsigned i = 0; i < WARM_PIECES; i++) {
        free(piece[WARM_PIECES - 1 - i]);
    }
    return opaque;
}

int sandbox_warm(struct err *err)
{
    /* gmtime_r() reads the time zone's file at its first call, which the RTC would make later. */
    tzset();
    pthread_t thread;
    int rc = thread_start(&thread, "warm", -1, warm_heap, NULL, err);
    if (rc == 0) {
        rc = -pthread_join(thread, NULL);
    }
    return rc;
}
