/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

#define PROGRESS_STEP 0.2 /* seconds between two looks of a terminal */

static double progress_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void progress_begin(struct progress *p, bool quiet, double expected)
{
    *p = (struct progress){ .quiet = quiet,
                            .terminal = isatty(STDERR_FILENO) == 1,
                            .began = progress_now(),
                            .expected = expected };
}

static void progress_over(struct progress *p)
{
    if (p->phase[0] != '\0' && !p->quiet) {
        fprintf(stderr, "%s%-34s %6.1f s\n", p->terminal ? "\r\033[K" : "", _(p->phase),
                progress_now() - p->phase_began);
    }
    p->phase[0] = '\0';
}

void progress_phase(struct progress *p, const char *name)
{
    if (strcmp(p->phase, name) == 0) {
        return;
    }
    progress_over(p);
    (void)snprintf(p->phase, sizeof(p->phase), "%s", name);
    p->phase_began = progress_now();
    p->shown = 0;
    p->done = 0;
    p->total = 0;
    progress_tick(p);
}

void progress_bytes(struct progress *p, uint64_t done, uint64_t total)
{
    p->done = done;
    p->total = total;
    progress_tick(p);
}

void progress_tick(struct progress *p)
{
    double now = progress_now();
    double in_phase = now - p->phase_began;
    if (p->quiet || !p->terminal || now - p->shown < PROGRESS_STEP) {
        return;
    }
    p->shown = now;
    fprintf(stderr, "\r\033[K%-34s %6.1f s", _(p->phase), in_phase);
    if (p->done > 0 && in_phase > 0) {
        fprintf(stderr, _("  %.0f MiB, %.0f MiB/s"), (double)p->done / (double)MIB,
                (double)p->done / (double)MIB / in_phase);
    }
    if (p->expected > now - p->began) {
        fprintf(stderr, _("  about %.0f s left"), p->expected - (now - p->began));
    }
}

double progress_end(struct progress *p)
{
    progress_over(p);
    return progress_now() - p->began;
}
