/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Work in phases as the user sees it, on stderr: the phase with what is done, the speed and the
 * time left, one line rewritten on a terminal; each phase's time when it is over.
 *
 *     struct progress p;
 *     progress_begin(&p, "build debian:12", quiet, expected_s);
 *     progress_phase(&p, "downloading packages");
 *     progress_bytes(&p, done, total);
 *     progress_end(&p);
 *
 * The time left comes from how long phases took last time, where that is known.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "base/bits.h"

struct progress {
    bool quiet;
    bool terminal;
    double began; /* seconds, monotonic */
    double phase_began;
    double shown;
    double expected; /* seconds that the whole should take; 0: not known */
    char phase[64];
    uint64_t done, total;
};

void progress_begin(struct progress *p, bool quiet, double expected);
/* `name` is English; it is translated when printed. */
void progress_phase(struct progress *p, const char *name);
void progress_bytes(struct progress *p, uint64_t done, uint64_t total);
/* Shows the line again, when it is time to. */
void progress_tick(struct progress *p);
/* Ends the last phase; returns the seconds since the beginning. */
double progress_end(struct progress *p);

#endif
