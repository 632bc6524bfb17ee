/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The DSDT: processors, the PCI root bridge with its windows and interrupt routes, reserved
 * ranges, the S5 state, and what the devices add.
 *
 *     \_SB   C000 ...     ACPI0007, one a vCPU
 *            PCI0         PNP0A08: _CRS, _PRT, _OSC
 *              ISA_       the LPC bridge; ISA devices hang themselves below it
 *            RES0         PNP0C02: ranges nothing else claims
 *     \_S5   \_GPE        (devices add _Exx methods)
 */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "vmm/acpi/acpi_int.h"
#include "vmm/bus/pci.h"
#include "vmm/dev/dev.h"
#include "vmm/dev/pm.h"

#define PCI_SLOTS    32
#define PCI_PINS     4
#define OSC_PCI_UUID "33db4d5b-1ff7-401c-9657-7441c03dd766" /* PCI Firmware 3.2 §4.5.1 */
#define OSC_CAP_CTRL 0x10 /* control of the PCI Express capability structure */
#define OSC_BAD_UUID 0x04
#define OSC_BAD_REV  0x08
#define OSC_MASKED   0x10

static void cleanup_aml(struct aml **a)
{
    aml_free(*a);
}

static void dsdt_cpus(struct aml *a, unsigned ncpus)
{
    aml_scope(a, "\\_SB");
    for (unsigned i = 0; i < ncpus; i++) {
        char name[5];
        (void)snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_device(a, name);
        aml_name(a, "_HID"), aml_str(a, "ACPI0007");
        aml_name(a, "_UID"), aml_int(a, i);
        aml_end(a);
    }
    aml_end(a);
}

static void dsdt_pci_crs(struct aml *a, const struct layout *l)
{
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_bus_window(a, 0, 0xff);
    aml_res_io(a, LAYOUT_PORT_PCI_ADDR, LAYOUT_PORT_PCI_ADDR, 1, 8);
    aml_res_io_window(a, 0, LAYOUT_PORT_PCI_ADDR - 1);
    aml_res_io_window(a, 0x0d00, 0xffff);
    aml_res_mem_window(a, LAYOUT_VGA_BASE, 0xbffff);
    aml_res_mem_window(a, l->mem32.base, l->mem32.end - 1);
    if (layout_size(&l->mem64) != 0) {
        aml_res_mem_window(a, l->mem64.base, l->mem64.end - 1);
    }
    aml_res_end(a);
}

/* Each slot's pins straight to I/O APIC inputs: the machine is for APIC mode (§6.2.13). */
static void dsdt_pci_prt(struct aml *a)
{
    aml_name(a, "_PRT"), aml_package(a, PCI_SLOTS * PCI_PINS);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < PCI_PINS; pin++) {
            aml_package(a, 4);
            aml_int(a, (uint64_t)slot << 16 | 0xffff);
            aml_int(a, pin);
            aml_int(a, 0);
            aml_int(a, pci_bus_gsi(slot, pin + 1));
            aml_end(a);
        }
    }
    aml_end(a);
}

/* PCI Firmware 3.2 §4.5.1: the OS may have the PCI Express capability structure; there is no
 * hotplug controller, no PME and no AER of ours to hand over. */
static void dsdt_pci_osc(struct aml *a)
{
    aml_method(a, "_OSC", 4, true);
    aml_op(a, AML_DWORD_FIELD), aml_arg(a, 3), aml_int(a, 0), aml_path(a, "CDW1");
    aml_if(a), aml_op(a, AML_LEQUAL), aml_arg(a, 0), aml_uuid(a, OSC_PCI_UUID);
    aml_op(a, AML_DWORD_FIELD), aml_arg(a, 3), aml_int(a, 8), aml_path(a, "CDW3");
    aml_op(a, AML_AND), aml_path(a, "CDW3"), aml_int(a, OSC_CAP_CTRL), aml_local(a, 0);
    aml_if(a), aml_op(a, AML_LNOT), aml_op(a, AML_LEQUAL), aml_arg(a, 1), aml_int(a, 1);
    aml_op(a, AML_OR), aml_path(a, "CDW1"), aml_int(a, OSC_BAD_REV), aml_path(a, "CDW1");
    aml_end(a);
    aml_if(a), aml_op(a, AML_LNOT), aml_op(a, AML_LEQUAL), aml_path(a, "CDW3"), aml_local(a, 0);
    aml_op(a, AML_OR), aml_path(a, "CDW1"), aml_int(a, OSC_MASKED), aml_path(a, "CDW1");
    aml_end(a);
    aml_op(a, AML_STORE), aml_local(a, 0), aml_path(a, "CDW3");
    aml_end(a), aml_else(a);
    aml_op(a, AML_OR), aml_path(a, "CDW1"), aml_int(a, OSC_BAD_UUID), aml_path(a, "CDW1");
    aml_end(a);
    aml_op(a, AML_RETURN), aml_arg(a, 3);
    aml_end(a);
}

static void dsdt_pci(struct aml *a, const struct layout *l)
{
    aml_scope(a, "\\_SB"), aml_device(a, "PCI0");
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0A08");
    aml_name(a, "_CID"), aml_eisaid(a, "PNP0A03");
    aml_name(a, "_UID"), aml_int(a, 0);
    aml_name(a, "_SEG"), aml_int(a, 0);
    aml_name(a, "_BBN"), aml_int(a, 0);
    aml_name(a, "_CCA"), aml_int(a, 1);
    dsdt_pci_crs(a, l);
    dsdt_pci_prt(a);
    dsdt_pci_osc(a);
    aml_device(a, "ISA");
    aml_name(a, "_ADR"), aml_int(a, 0x001f0000);
    aml_end(a);
    aml_end(a), aml_end(a);
}

static void dsdt_reserved(struct aml *a)
{
    aml_scope(a, "\\_SB"), aml_device(a, "RES0");
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0C02");
    aml_name(a, "_UID"), aml_int(a, 0);
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_io(a, LAYOUT_PORT_PM, LAYOUT_PORT_PM, 1, LAYOUT_PORT_PM_SIZE);
    aml_res_mem32(a, (uint32_t)LAYOUT_ECAM_BASE, (uint32_t)LAYOUT_ECAM_SIZE);
    aml_res_mem32(a, (uint32_t)LAYOUT_RCBA_BASE, (uint32_t)LAYOUT_RCBA_SIZE);
    aml_res_end(a);
    aml_end(a), aml_end(a);
}

static void dsdt_s5(struct aml *a)
{
    aml_name(a, "\\_S5"), aml_package(a, 4);
    aml_int(a, PM_SLP_TYP_S5), aml_int(a, 0), aml_int(a, 0), aml_int(a, 0);
    aml_end(a);
}

int acpi_dsdt(struct acpi_builder *b, struct err *err)
{
    CLEANUP(cleanup_aml) struct aml *a = aml_new();
    if (a == NULL) {
        return err_set(err, -ENOMEM, "no memory for the DSDT");
    }
    dsdt_cpus(a, b->config->ncpus);
    dsdt_pci(a, b->config->layout);
    dsdt_reserved(a);
    dsdt_s5(a);
    struct dev *dev;
    TAILQ_FOREACH(dev, &b->config->env->devs, link)
    {
        int rc = dev->cls->acpi != NULL ? dev->cls->acpi(dev, a, err) : 0;
        if (rc < 0) {
            return err_prefix(err, "%s: ", dev->id);
        }
    }
    const uint8_t *code;
    size_t len, pos;
    int rc = aml_finish(a, &code, &len);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot build the DSDT");
    }
    rc = acpi_add(b, "DSDT", 2, code, len, &b->dsdt, err);
    const struct aml_area *area;
    for (unsigned i = 0; rc == 0 && (area = aml_area_at(a, i, &pos)) != NULL; i++) {
        uint32_t at = b->dsdt + (uint32_t)(sizeof(struct acpi_header) + pos);
        acpi_add_link(b, at, 8, area->offset, area);
    }
    return rc;
}
