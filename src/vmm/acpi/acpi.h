/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine's ACPI tables (ACPI 6.5). One builder, two ways to the guest:
 *
 *   direct boot   acpi_install() puts the RSDP and all tables into the BIOS area (layout.h) and
 *                 returns the RSDP's address for the boot loader
 *   firmware      acpi_publish() offers fw_cfg files: etc/acpi/rsdp, etc/acpi/tables, and
 *                 etc/table-loader, a script of allocations, pointers and checksums
 *
 * A table is a row of tables.def; what a device is for the guest, its class's acpi() appends to the
 * DSDT: at root level, with absolute scopes ("\\_SB.PCI0.ISA_" is the LPC bridge).
 */
#ifndef ACPI_ACPI_H
#define ACPI_ACPI_H

#include "base/bits.h"
#include "base/err.h"
#include "vmm/layout.h"
#include "vmm/mem/gmem.h"

struct dev_env;
struct fwcfg;

#define ACPI_MAX_CPUS   1024
#define ACPI_MAX_RANGES 32

/* A piece of RAM that belongs to a NUMA node. */
struct acpi_numa_range {
    uint64_t base;
    uint64_t size;
    uint32_t node;
};

struct acpi_config {
    const struct layout *layout;
    struct dev_env *env; /* its devices describe themselves */
    unsigned ncpus;      /* 1 to ACPI_MAX_CPUS; vCPU n has LAPIC id n */
    /* NUMA: node of each vCPU (ncpus entries) and the RAM ranges; NULL and 0 = no SRAT. */
    const uint32_t *cpu_node;
    const struct acpi_numa_range *range;
    unsigned nranges;
};

/* Before the first vCPU runs, after all devices exist. 0 and *ret_rsdp; -ENOMEM; -ENOSPC when the
 * tables do not fit the BIOS area; an error of a device's acpi(). Calls areas' placed(). */
MUST_USE int acpi_install(const struct acpi_config *config, struct gmem *mem, uint64_t *ret_rsdp,
                          struct err *err);
/* The same for firmware; areas' placed() is called when firmware has placed them. */
MUST_USE int acpi_publish(const struct acpi_config *config, struct fwcfg *fwcfg, struct err *err);

#endif
