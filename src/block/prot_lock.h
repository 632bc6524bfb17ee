/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks against opening one image twice. */
#ifndef BLOCK_PROT_LOCK_H
#define BLOCK_PROT_LOCK_H

#include "base/bits.h"
#include "base/err.h"

/*
 * Locks the open file `fd`: `exclusive` for a writer, else shared with other readers. The lock
 * belongs to the open file description and ends with it, also when the process dies. Returns 0, or
 * -EBUSY with the process that has the file open named where that can be found. Any thread; does
 * not wait.
 */
MUST_USE int prot_lock_take(int fd, bool exclusive, struct err *err);

#endif
