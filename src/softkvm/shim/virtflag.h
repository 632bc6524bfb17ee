/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For programs that ask the processor itself, by CPUID, whether it has VT-x or AMD-V, and refuse to
 * open /dev/kvm when it has not (kvmtool). CPUID cannot be intercepted by other means on most
 * processors, so the CPUID instructions in the program's own code, in memory, are replaced by UD2,
 * which is as long, and SIGILL gives the processor's answer with the flag set.
 */
#ifndef SOFTKVM_SHIM_VIRTFLAG_H
#define SOFTKVM_SHIM_VIRTFLAG_H

#include <signal.h>
#include <stdbool.h>

/* Replaces them. Once, before the program's main(), while there is one thread. Returns how many. */
unsigned virtflag_start(void);

/* In a SIGILL handler: true if it came from one of them; `context` has then been moved on. */
bool virtflag_caught(void *context);

#endif
