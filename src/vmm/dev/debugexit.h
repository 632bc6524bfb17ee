/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isa-debug-exit: a write of value v to port 0xf4 (1, 2 or 4 bytes) ends the VM with an exit code
 * made of v (exitcodes.def). For test programs. No parameters.
 */
#ifndef DEV_DEBUGEXIT_H
#define DEV_DEBUGEXIT_H

#include "vmm/dev/dev.h"

extern const struct dev_class debugexit_class;

#endif
