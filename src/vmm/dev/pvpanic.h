/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pvpanic (QEMU docs/specs/pvpanic.txt, version 7.2): port 0x505. A guest that panics writes bit 0;
 * one that has loaded a crash kernel writes bit 1, and goes on. No parameters.
 */
#ifndef DEV_PVPANIC_H
#define DEV_PVPANIC_H

#include "vmm/dev/dev.h"

extern const struct dev_class pvpanic_class;

#endif
