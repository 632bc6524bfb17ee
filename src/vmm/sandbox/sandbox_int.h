/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SANDBOX_SANDBOX_INT_H
#define SANDBOX_SANDBOX_INT_H

#include <linux/filter.h>

#include "vmm/sandbox/sandbox.h"

/* What a filter with all rows needs, see sandbox_build(). */
#define SANDBOX_MAX_INSNS 512

/* A set of kinds: BIT(enum sandbox_kind). */
#define SANDBOX_COMMON BIT(31) /* rows of the common filter alone */
#define SANDBOX_ALL_KINDS                                                                          \
    (BIT(SANDBOX_MAIN) | BIT(SANDBOX_IO) | BIT(SANDBOX_VCPU) | BIT(SANDBOX_WORKER) | SANDBOX_COMMON)

/* Empties the bounding set; sandbox_drop() does, where the right to is not lost before. */
void sandbox_bound(void);
/* The program for threads of any of `kinds`. Returns its length. */
unsigned sandbox_build(uint32_t kinds, bool vsock, struct sock_filter prog[SANDBOX_MAX_INSNS]);
/* Number of rows for `kinds`; for the tests of the goals. */
unsigned sandbox_count_syscalls(uint32_t kinds);

#endif
