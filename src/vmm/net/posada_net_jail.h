/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Confinement of the network helper. */
#ifndef NET_POSADA_NET_JAIL_H
#define NET_POSADA_NET_JAIL_H

#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

#define POSADA_NET_MAX_FILES 1024

/* Gives up what the helper does not need, once its forwards are bound: user (root becomes
 * nobody), capabilities, files outside /etc and /run, execve, every system call that the stack
 * does not make. `parent` (0 = any) is followed into death. Returns 0 or a negative errno; what an
 * old kernel lacks (Landlock) is left out. */
MUST_USE int posada_net_jail(pid_t parent, struct err *err);

#endif
