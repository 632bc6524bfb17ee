/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the process was born with: the C library's lazy habits, descriptors, environment. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

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

void sandbox_close_inherited(void)
{
    (void)close_range(STDERR_FILENO + 1, ~0U, 0); /* Linux 5.9; before, they stay */
}

void sandbox_forget_environment(void)
{
    static const char *const kept[] = { "LANGUAGE", "TZ", "SOFTKVM_JIT" };
    char *value[ARRAY_LEN(kept)];
    const char *start = environ != NULL ? environ[0] : NULL;
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        const char *v = getenv(kept[i]);
        value[i] = v != NULL ? strdup(v) : NULL;
    }
    for (char **e = environ; e != NULL && *e != NULL; e++) {
        explicit_bzero(*e, strlen(*e));
    }
    (void)clearenv();
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        if (value[i] != NULL) {
            (void)setenv(kept[i], value[i], 1);
            free(value[i]);
        }
    }
    /* Then there are not even zeroes to be read; only root may. */
    (void)prctl(PR_SET_MM, PR_SET_MM_ENV_END, start, 0, 0);
}
