/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Confinement of the file system helper. */
#ifndef FS_POSADA_FS_JAIL_H
#define FS_POSADA_FS_JAIL_H

#include <sys/types.h>

#include "base/bits.h"
#include "base/err.h"

/* Gives up what serving the folder `dir_fd` does not need: capabilities, files elsewhere (Landlock
 * where the kernel has it; a new root where we may), writing unless `writable`, execve, every
 * system call that the server does not make. `parent` (0 = any) is followed into death. */
MUST_USE int posada_fs_jail(pid_t parent, int dir_fd, bool writable, struct err *err);

#endif
