/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A part of a node as a node of its own: an image inside of an archive. */
#ifndef BLOCK_BLK_WINDOW_H
#define BLOCK_BLK_WINDOW_H

#include "block/blk_int.h"

/*
 * Shows `base` from `offset` on. `len` bytes of it, read-only; or, with `len` 0, an empty node that
 * grows as it is written, for which `base` must be writable. `base` stays the caller's and outlives
 * the window; closing the window does not close it. `path` is for messages.
 */
MUST_USE int blk_window_new(struct blk *base, const char *path, uint64_t offset, uint64_t len,
                            struct blk **ret_node, struct err *err);

#endif
