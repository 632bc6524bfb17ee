/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reset by ports: 0x92 (system control port A: fast reset and A20) and 0xcf9 (ICH9 reset control
 * register, datasheet 316972-004 §13.7.5; the FADT's reset register). No parameters.
 */
#ifndef DEV_SYSCTL_H
#define DEV_SYSCTL_H

#include "vmm/dev/dev.h"

extern const struct dev_class sysctl_class;

#endif
