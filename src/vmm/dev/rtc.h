/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MC146818 real-time clock and CMOS memory at ports 0x70/0x71, irq 8 (Motorola MC146818A datasheet,
 * 1984; ICH9 datasheet 316972-004 §5.11 and §13.6). Runs in UTC on the host's wall clock.
 */
#ifndef DEV_RTC_H
#define DEV_RTC_H

#include "vmm/dev/dev.h"

/* struct dev_class.init params: what the CMOS tells firmware of the machine. */
struct rtc_params {
    uint64_t low_ram;  /* bytes below the PCI hole */
    uint64_t high_ram; /* bytes above 4 GiB */
    unsigned ncpus;
};

extern const struct dev_class rtc_class;

#endif
