/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ICH9 LPC bridge, PCI function 1f.0 (Intel 82801I ICH9 datasheet 316972-004 §13): where the ACPI
 * block lies, interrupt routing registers, chip set configuration registers (RCBA), APM ports.
 */
#ifndef DEV_LPC_H
#define DEV_LPC_H

#include "vmm/dev/dev.h"

/* struct dev_class.init params */
struct lpc_params {
    struct dev *pm; /* moves with PMBASE; outlives this device */
};

extern const struct dev_class lpc_class;

#endif
