/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ACPI block of the ICH9 (datasheet 316972-004 §13.8.3, ACPI 6.5 §4.8.3): PM1 events, power
 * button, S5, PM timer, general purpose events, SCI on GSI 9. No parameters.
 */
#ifndef DEV_PM_H
#define DEV_PM_H

#include "vmm/dev/dev.h"

#define PM_SLP_TYP_S5 7 /* SLP_TYP of soft off, as in the DSDT's \_S5 */
#define PM_GPE_COUNT  64

/* General purpose events in use: bit numbers, in AML the method \_GPE._Exx */
#define PM_GPE_VMGENID 5

extern const struct dev_class pm_class;

/* Presses the power button. True when the guest has enabled its event, so that a reaction can be
 * expected. Any thread. */
bool pm_power_button(struct dev *pm);
/* Raises general purpose event `bit` (0 to PM_GPE_COUNT - 1). Any thread. */
void pm_gpe_raise(struct dev *pm, unsigned bit);
/* Moves the block (PMBASE of the LPC bridge), or takes it away (`enabled` false). A place that is
 * taken leaves it unmapped. Any thread. */
void pm_move(struct dev *pm, uint16_t base, bool enabled);

#endif
