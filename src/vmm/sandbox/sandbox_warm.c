/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The C library's lazy habits, settled while files can still be opened. */
#include <malloc.h>
#include <time.h>

#include "vmm/sandbox/sandbox.h"

void sandbox_one_heap(void)
{
    (void)mallopt(M_ARENA_MAX, 1);
}

void sandbox_warm(void)
{
    /* gmtime_r() reads it at its first call, which the RTC would make later. */
    tzset();
}
