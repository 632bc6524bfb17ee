/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every guest address of the machine, with its arithmetic. q35-compatible: what SeaBIOS, OVMF and
 * operating systems expect of an Intel Q35 + ICH9 board is where they expect it.
 *
 *   0x0000000000000000  RAM, conventional 640 KiB (direct boot: structures below 0x9fc00)
 *   0x00000000000a0000  VGA window (RAM unless a display claims it)
 *   0x00000000000e0000  BIOS area: RSDP and ACPI tables in direct boot
 *   0x0000000000100000  RAM to LAYOUT_LOW_RAM_END at most
 *   0x00000000b0000000  ECAM, 256 MiB
 *   0x00000000c0000000  PCI memory window, 32 bit, to the I/O APIC
 *   0x00000000fec00000  I/O APIC, HPET, chip set, LAPIC, engine pages
 *   0x00000000ff000000  firmware flash, ends at 4 GiB
 *   0x0000000100000000  RAM above the hole
 *   after it            PCI memory window, 64 bit
 *
 * What depends on the size of the RAM or on the width of physical addresses is in struct layout,
 * computed once by layout_init().
 *
 * Specifications: Intel 3 Series chip set (MCH) datasheet 316966-002 §9 "System Address Map"; ICH9
 * datasheet 316972-004 §9 "Register and Memory Mapping"; Linux Documentation/arch/x86/boot.rst
 * (protocol 2.15).
 */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

#include "base/bits.h"
#include "base/err.h"

/* ---- Memory ---- */

#define LAYOUT_LOW_RAM_END   (2 * GIB) /* 0x80000000: more RAM goes above 4 GiB */
#define LAYOUT_HIGH_RAM_BASE (4 * GIB) /* 0x1_0000_0000 */
#define LAYOUT_RAM_MIN       (1 * MIB)
#define LAYOUT_RAM_ALIGN     (4 * KIB)

#define LAYOUT_CONV_RAM_END UINT64_C(0x9fc00) /* 639 KiB: the last KiB is the EBDA's by custom */
#define LAYOUT_VGA_BASE     UINT64_C(0xa0000)
#define LAYOUT_BIOS_BASE    UINT64_C(0xe0000)
#define LAYOUT_BIOS_END     UINT64_C(0x100000)
#define LAYOUT_1MIB         UINT64_C(0x100000)

/* ---- Boot structures of direct boot, all in conventional RAM ---- */

#define LAYOUT_BOOT_GDT      UINT64_C(0x500) /* behind the BIOS data area (0x400 to 0x4ff) */
#define LAYOUT_BOOT_GDT_SIZE UINT64_C(0x100)
#define LAYOUT_BOOT_IDT      UINT64_C(0x600)  /* empty: limit 0 */
#define LAYOUT_PVH_INFO      UINT64_C(0x6000) /* hvm_start_info, module list, memory map: 4 KiB */
#define LAYOUT_MB_INFO       LAYOUT_PVH_INFO  /* multiboot 1 information: one of the two is used */
#define LAYOUT_ZERO_PAGE     UINT64_C(0x7000) /* struct boot_params, 4 KiB */
#define LAYOUT_BOOT_STACK    UINT64_C(0x8ff0) /* grows down from here to 0x8000 */
#define LAYOUT_BOOT_PML4     UINT64_C(0x9000)
#define LAYOUT_BOOT_PDPT     (LAYOUT_BOOT_PML4 + 0x1000) /* 0xa000 */
#define LAYOUT_BOOT_PD       (LAYOUT_BOOT_PDPT + 0x1000) /* 0xb000 */
#define LAYOUT_BOOT_PD_COUNT 4                           /* 1 GiB each in 2 MiB pages: 4 GiB */
#define LAYOUT_BOOT_PT_END   (LAYOUT_BOOT_PD + LAYOUT_BOOT_PD_COUNT * 0x1000) /* 0xf000 */
#define LAYOUT_CMDLINE       UINT64_C(0x20000)
#define LAYOUT_CMDLINE_MAX   UINT64_C(0x10000)                     /* with the final NUL */
#define LAYOUT_SETUP_DATA    (LAYOUT_CMDLINE + LAYOUT_CMDLINE_MAX) /* Linux: random seed, 4 KiB */
#define LAYOUT_KERNEL_MIN    LAYOUT_1MIB                           /* no kernel is loaded below */

/* Selectors of the boot GDT: those that Linux asks for (boot.rst "64-bit BOOT PROTOCOL"). */
#define LAYOUT_BOOT_CS 0x10
#define LAYOUT_BOOT_DS 0x18
#define LAYOUT_BOOT_TR 0x20

/* RSDP on a 16-byte border of the BIOS area, where ACPI 6.5 §5.2.5.1 lets it be searched; the
 * other tables behind it. */
#define LAYOUT_RSDP      LAYOUT_BIOS_BASE
#define LAYOUT_ACPI_BASE (LAYOUT_RSDP + 0x40)
#define LAYOUT_ACPI_END  LAYOUT_BIOS_END

/* ---- Memory-mapped devices below 4 GiB ---- */

#define LAYOUT_ECAM_BASE UINT64_C(0xb0000000)
#define LAYOUT_ECAM_SIZE (256 * MIB) /* 256 buses x 32 slots x 8 functions x 4 KiB */

#define LAYOUT_MEM32_BASE (LAYOUT_ECAM_BASE + LAYOUT_ECAM_SIZE) /* 0xc0000000 */
#define LAYOUT_MEM32_END  LAYOUT_IOAPIC_BASE

#define LAYOUT_IOAPIC_BASE UINT64_C(0xfec00000)
#define LAYOUT_IOAPIC_SIZE UINT64_C(0x1000)
#define LAYOUT_HPET_BASE   UINT64_C(0xfed00000)
#define LAYOUT_HPET_SIZE   UINT64_C(0x400)
#define LAYOUT_RCBA_BASE   UINT64_C(0xfed1c000) /* ICH9 root complex registers */
#define LAYOUT_RCBA_SIZE   UINT64_C(0x4000)
#define LAYOUT_TPM_BASE    UINT64_C(0xfed40000) /* TCG PC client: kept free */
#define LAYOUT_LAPIC_BASE  UINT64_C(0xfee00000)
#define LAYOUT_LAPIC_SIZE  UINT64_C(0x100000) /* the MSI address range */

/* Pages that KVM needs on Intel without unrestricted guest mode (KVM api.rst 4.7 and 4.46):
 * one for the identity map, three for the TSS. Right below the flash. */
#define LAYOUT_IDENTITY_BASE UINT64_C(0xfeffc000)
#define LAYOUT_TSS_BASE      (LAYOUT_IDENTITY_BASE + 0x1000) /* 0xfeffd000 */
#define LAYOUT_TSS_END       (LAYOUT_TSS_BASE + 3 * 0x1000)  /* 0xff000000 */

#define LAYOUT_FLASH_MIN UINT64_C(0xff000000) /* 16 MiB of firmware at most */
#define LAYOUT_FLASH_END LAYOUT_HIGH_RAM_BASE

/* ---- I/O ports ---- */

#define LAYOUT_PORT_PIC1       0x20
#define LAYOUT_PORT_PIT        0x40
#define LAYOUT_PORT_KBD_DATA   0x60
#define LAYOUT_PORT_NMI_SC     0x61 /* speaker gate; in the engine with KVM_PIT_SPEAKER_DUMMY */
#define LAYOUT_PORT_KBD_CMD    0x64
#define LAYOUT_PORT_RTC        0x70 /* index, data */
#define LAYOUT_PORT_POST       0x80
#define LAYOUT_PORT_A20_92     0x92 /* fast A20 and reset */
#define LAYOUT_PORT_PIC2       0xa0
#define LAYOUT_PORT_APM_CMD    0xb2 /* SMI command of the FADT; data at + 1 */
#define LAYOUT_PORT_DEBUG_EXIT 0xf4 /* isa-debug-exit */
#define LAYOUT_PORT_DEBUGCON   0x402
#define LAYOUT_PORT_SERIAL0    0x3f8
#define LAYOUT_PORT_ELCR       0x4d0
#define LAYOUT_PORT_PVPANIC    0x505
#define LAYOUT_PORT_FWCFG      0x510 /* selector, data at + 1, DMA at + 4 */
#define LAYOUT_PORT_FWCFG_SIZE 12
#define LAYOUT_PORT_PM         0x600 /* ACPI block of the ICH9, 128 ports */
#define LAYOUT_PORT_PM_SIZE    0x80
#define LAYOUT_PORT_PM1_EVT    (LAYOUT_PORT_PM + 0x00) /* status 2, enable 2 */
#define LAYOUT_PORT_PM1_CNT    (LAYOUT_PORT_PM + 0x04)
#define LAYOUT_PORT_PM_TMR     (LAYOUT_PORT_PM + 0x08)
#define LAYOUT_PORT_GPE0       (LAYOUT_PORT_PM + 0x20)
#define LAYOUT_PORT_GPE0_SIZE  16
#define LAYOUT_PORT_PCI_ADDR   0xcf8
#define LAYOUT_PORT_RESET      0xcf9 /* one byte inside the address port's dword */
#define LAYOUT_PORT_PCI_DATA   0xcfc
#define LAYOUT_PCI_IO_BASE     UINT64_C(0xc000) /* I/O BARs */
#define LAYOUT_PCI_IO_END      UINT64_C(0x10000)

/* ---- Interrupts (GSI) ---- */

#define LAYOUT_GSI_PIT      0 /* IRQ 0; I/O APIC pin 2 by the override in the MADT */
#define LAYOUT_GSI_KBD      1
#define LAYOUT_GSI_SERIAL0  4
#define LAYOUT_GSI_RTC      8
#define LAYOUT_GSI_SCI      9
#define LAYOUT_GSI_MOUSE    12
#define LAYOUT_GSI_PIRQ     16  /* PIRQ A to H: 16 to 23 */
#define LAYOUT_GSI_COUNT    24u /* pins of the I/O APIC */
#define LAYOUT_GSI_MSI_BASE 24u /* engine-side numbers of MSI routes; no guest sees them */

/* LAPIC ids: vCPU n has id n. The I/O APIC's id only has to differ in the MADT. */
#define LAYOUT_IOAPIC_ID 0

/* ---- What depends on the VM ---- */

struct layout_range {
    uint64_t base;
    uint64_t end; /* exclusive; end == base: empty */
};

struct layout {
    uint64_t ram_size;
    unsigned phys_bits;
    struct layout_range low_ram;  /* [0, min(ram, 2 GiB)) */
    struct layout_range high_ram; /* [4 GiB, ...) or empty */
    struct layout_range mem32;    /* BARs of 32 bits */
    struct layout_range mem64;    /* BARs of 64 bits */
    struct layout_range pci_io;
};

/* The 64-bit window is this large, or what the width of addresses leaves. */
#define LAYOUT_MEM64_SIZE  (64 * GIB)
#define LAYOUT_MEM64_ALIGN (4 * GIB)
#define LAYOUT_MEM64_MIN   (4 * GIB)

/*
 * Lays out a machine of `ram_size` bytes of RAM on CPUs of `phys_bits` physical address bits
 * (32 to 52). Fills *ret. 0, or -EINVAL with the allowed range in `err`: RAM too small, no multiple
 * of LAYOUT_RAM_ALIGN, or too large for the addresses.
 */
MUST_USE int layout_init(struct layout *ret, uint64_t ram_size, unsigned phys_bits,
                         struct err *err);

static inline uint64_t layout_size(const struct layout_range *r)
{
    return r->end - r->base;
}

#endif
