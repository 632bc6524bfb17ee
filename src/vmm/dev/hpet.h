/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * High precision event timer (IA-PC HPET specification 1.0a, 2004): a 100 MHz counter and three
 * timers at 0xfed00000. No parameters.
 */
#ifndef DEV_HPET_H
#define DEV_HPET_H

#include "vmm/dev/dev.h"

#define HPET_TIMERS 3
/* Low half of the capability register, §2.3.4, which the ACPI table repeats: revision 1, timers,
 * 64-bit counter, vendor. No legacy replacement. */
#define HPET_ID (0x80860000u | 0x2000u | (HPET_TIMERS - 1) << 8 | 0x01u)

extern const struct dev_class hpet_class;

#endif
