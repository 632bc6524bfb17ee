/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way from `posada run` to posada-vmm. The VM is that process: there is no daemon and no parent
 * to outlive. What it gets is the whole configuration as an argument list, so `ps` shows what a VM
 * is made of.
 */
#ifndef CLI_START_H
#define CLI_START_H

#include "vmm/vmconfig.h"

/* posada run without an image and without a file of options: becomes posada-vmm. Sets *ret_ours to
 * false, and does nothing, for the other ways of `run`, which posada-tools has. */
int start_main(int argc, char **argv, bool *ret_ours);

/* Sets `c` from options; -EINVAL for an operand. schema_check() is left to the caller. */
MUST_USE int start_parse(struct vmconfig *c, int argc, char **argv, struct err *err);

/* Becomes posada-vmm with configuration `c`, which it frees. Returns only when that fails, having
 * said why: the exit code. */
int start_vmm(struct vmconfig *c);

#endif
