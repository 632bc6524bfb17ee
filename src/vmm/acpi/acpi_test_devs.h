/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The devices that the ACPI tests put on their machine: all those with a part in the DSDT.
 */
#ifndef ACPI_ACPI_TEST_DEVS_H
#define ACPI_ACPI_TEST_DEVS_H

#include "vmm/acpi/aml.h"
#include "vmm/dev/dev_harness.h"
#include "vmm/dev/fwcfg.h"
#include "vmm/dev/hpet.h"
#include "vmm/dev/i8042.h"
#include "vmm/dev/pm.h"
#include "vmm/dev/pvpanic.h"
#include "vmm/dev/rtc.h"
#include "vmm/dev/serial.h"
#include "vmm/dev/sysctl.h"
#include "vmm/dev/vmgenid.h"
#include "vmm/layout.h"

static inline void acpi_test_add_devs(struct dev_harness *h)
{
    static const struct serial_params com1 = { .port = LAYOUT_PORT_SERIAL0,
                                               .irq = LAYOUT_GSI_SERIAL0 };
    static const struct rtc_params rtc = { .low_ram = GIB, .ncpus = 2 };
    struct vmgenid_params vmgenid = { .pm = dev_harness_add(h, &pm_class, NULL) };
    dev_harness_add(h, &sysctl_class, NULL);
    dev_harness_add(h, &rtc_class, &rtc);
    dev_harness_add(h, &hpet_class, NULL);
    dev_harness_add(h, &i8042_class, NULL);
    dev_harness_add(h, &pvpanic_class, NULL);
    dev_harness_add(h, &vmgenid_class, &vmgenid);
    dev_harness_add(h, &serial_class, &com1);
    dev_harness_add(h, &fwcfg_class, NULL);
}

static inline int acpi_test_big_init(struct dev *dev, const void *params, struct err *err)
{
    (void)dev, (void)params, (void)err;
    return 0;
}

static inline int acpi_test_big_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    static const uint8_t block[100000];
    (void)dev, (void)err;
    aml_name(a, "\\BIGB"), aml_bytes(a, block, sizeof(block));
    return 0;
}

static inline void acpi_test_add_big_dev(struct dev_harness *h)
{
    static const struct dev_class big = {
        .name = "big", .state_size = 1, .init = acpi_test_big_init, .acpi = acpi_test_big_acpi
    };
    dev_harness_add(h, &big, NULL);
}

#endif
