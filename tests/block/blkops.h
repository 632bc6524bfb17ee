/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of the test program blkops share. */
#ifndef TESTS_BLOCK_BLKOPS_H
#define TESTS_BLOCK_BLKOPS_H

#include "block/blk.h"

_Noreturn void blkops_die(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* The text after "key=", or NULL. */
const char *blkops_arg(int argc, char **argv, const char *key);
uint64_t blkops_num(int argc, char **argv, const char *key, uint64_t deflt);
uint64_t blkops_rand(uint64_t *state);
uint8_t *blkops_load(const char *path, size_t *ret_size);

int blkops_crash_cmd(int argc, char **argv);

#endif
