/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the jails of helper processes have in common; each helper adds its own walls. */
#ifndef VMM_HELPER_JAIL_H
#define VMM_HELPER_JAIL_H

#include <sys/resource.h>
#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HELPER_JAIL_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HELPER_JAIL_SANITIZED 1
#endif
#endif
#ifndef HELPER_JAIL_SANITIZED
#define HELPER_JAIL_SANITIZED 0 /* sanitizers reserve terabytes and make calls of their own */
#endif

/* Sets the death signal: the process ends with its parent (0 = any). The kernel forgets it when
 * the user changes. -ESRCH: the parent is gone already. */
MUST_USE int helper_jail_follow(pid_t parent, struct err *err);

/* No core file, no process, no locked memory, 1 GiB of address space. */
MUST_USE int helper_jail_limits(rlim_t max_files);

/* The system call filter: memory, time, the socket, the end; and the `n` of `calls`, without a
 * condition on their arguments. `more` adds rules to the libseccomp context `ctx` (NULL: none). All
 * else kills the process. */
MUST_USE int helper_jail_filter(const int *calls, size_t n, int (*more)(void *ctx));

#endif
