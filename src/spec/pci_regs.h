/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PCI configuration space: offsets and bits (PCI Local Bus 3.0 §6.1, §6.8.2 for MSI-X;
 * PCI Express Base 4.0 §7.2.2 for ECAM).
 */
#ifndef SPEC_PCI_REGS_H
#define SPEC_PCI_REGS_H

/* Mechanism #1 ports (PCI 3.0 §3.2.2.3.2). */
#define PCI_PORT_ADDRESS 0xcf8
#define PCI_PORT_DATA    0xcfc
#define PCI_ADDR_ENABLE  0x80000000u

/* ECAM: bus << 20 | device << 15 | function << 12 | register. */
#define PCI_ECAM_BUS_SHIFT   20
#define PCI_ECAM_DEVFN_SHIFT 12
#define PCI_ECAM_SIZE        0x10000000u /* 256 buses */

/* Type 0 header (PCI 3.0 §6.1). */
#define PCI_REG_VENDOR        0x00
#define PCI_REG_DEVICE        0x02
#define PCI_REG_COMMAND       0x04
#define PCI_REG_STATUS        0x06
#define PCI_REG_REVISION      0x08
#define PCI_REG_CLASS         0x09
#define PCI_REG_CACHE_LINE    0x0c
#define PCI_REG_LATENCY       0x0d
#define PCI_REG_HEADER_TYPE   0x0e
#define PCI_REG_BIST          0x0f
#define PCI_REG_BAR0          0x10
#define PCI_REG_SUBSYS_VENDOR 0x2c
#define PCI_REG_SUBSYS        0x2e
#define PCI_REG_ROM           0x30
#define PCI_REG_CAP_PTR       0x34
#define PCI_REG_INT_LINE      0x3c
#define PCI_REG_INT_PIN       0x3d
#define PCI_HEADER_SIZE       0x40

#define PCI_COMMAND_IO           0x0001
#define PCI_COMMAND_MEMORY       0x0002
#define PCI_COMMAND_MASTER       0x0004
#define PCI_COMMAND_PARITY       0x0040
#define PCI_COMMAND_SERR         0x0100
#define PCI_COMMAND_INTX_DISABLE 0x0400

#define PCI_STATUS_INTERRUPT 0x0008
#define PCI_STATUS_CAP_LIST  0x0010
#define PCI_STATUS_W1C       0xf900 /* error bits that a written 1 clears */

#define PCI_HEADER_MULTI 0x80

/* BAR bits (PCI 3.0 §6.2.5.1). */
#define PCI_BAR_IS_IO     0x1u
#define PCI_BAR_IS_MEM64  0x4u
#define PCI_BAR_FLAGS_IO  0x3u
#define PCI_BAR_FLAGS_MEM 0xfu
#define PCI_BAR_MIN_IO    4
#define PCI_BAR_MIN_MEM   16
#define PCI_CONVENTIONAL  0x100 /* bytes reachable through the ports */

/* Capability ids. */
#define PCI_CAP_ID_VENDOR 0x09
#define PCI_CAP_ID_MSIX   0x11

/* MSI-X capability, offsets from its start (PCI 3.0 §6.8.2). */
#define PCI_MSIX_CONTROL       0x02
#define PCI_MSIX_TABLE         0x04
#define PCI_MSIX_PBA           0x08
#define PCI_MSIX_CAP_SIZE      12
#define PCI_MSIX_CTRL_MASK_ALL 0x4000
#define PCI_MSIX_CTRL_ENABLE   0x8000
#define PCI_MSIX_MAX_VECTORS   2048
#define PCI_MSIX_ENTRY_SIZE    16
#define PCI_MSIX_ENTRY_ADDR    0
#define PCI_MSIX_ENTRY_DATA    8
#define PCI_MSIX_ENTRY_VCTRL   12
#define PCI_MSIX_VCTRL_MASK    0x1u

#endif
