/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/layout.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

/* The table of the header, as the compiler can check it: nothing overlaps, everything fits. */
static_assert(LAYOUT_LOW_RAM_END <= LAYOUT_ECAM_BASE, "RAM reaches into the ECAM");
static_assert(LAYOUT_ECAM_BASE % LAYOUT_ECAM_SIZE == 0, "ECAM is aligned to its size");
static_assert(LAYOUT_MEM32_BASE < LAYOUT_MEM32_END, "no 32-bit window");
static_assert(LAYOUT_IOAPIC_BASE + LAYOUT_IOAPIC_SIZE <= LAYOUT_HPET_BASE, "");
static_assert(LAYOUT_HPET_BASE + LAYOUT_HPET_SIZE <= LAYOUT_RCBA_BASE, "");
static_assert(LAYOUT_RCBA_BASE + LAYOUT_RCBA_SIZE <= LAYOUT_TPM_BASE, "");
static_assert(LAYOUT_LAPIC_BASE + LAYOUT_LAPIC_SIZE <= LAYOUT_IDENTITY_BASE, "");
static_assert(LAYOUT_TSS_END <= LAYOUT_FLASH_MIN, "");
static_assert(LAYOUT_BOOT_GDT + LAYOUT_BOOT_GDT_SIZE <= LAYOUT_BOOT_IDT, "");
static_assert(LAYOUT_PVH_INFO + 0x1000 <= LAYOUT_ZERO_PAGE, "");
static_assert(LAYOUT_ZERO_PAGE + 0x1000 < LAYOUT_BOOT_STACK, "");
static_assert(LAYOUT_BOOT_STACK < LAYOUT_BOOT_PML4, "");
static_assert(LAYOUT_BOOT_PT_END <= LAYOUT_CMDLINE, "");
static_assert(LAYOUT_SETUP_DATA + 0x1000 <= LAYOUT_CONV_RAM_END, "");
static_assert(LAYOUT_ACPI_BASE < LAYOUT_ACPI_END && LAYOUT_RSDP % 16 == 0, "");

int layout_init(struct layout *ret, uint64_t ram_size, unsigned phys_bits, struct err *err)
{
    if (phys_bits < 32 || phys_bits > 52) {
        return err_set(err, -EINVAL, "physical address width %u is out of range (32 to 52 bits)",
                       phys_bits);
    }
    if (ram_size < LAYOUT_RAM_MIN || ram_size % LAYOUT_RAM_ALIGN != 0) {
        return err_set(err, -EINVAL,
                       "guest memory of %" PRIu64 " bytes: must be a multiple of %" PRIu64
                       " KiB, at least %" PRIu64 " MiB",
                       ram_size, (uint64_t)(LAYOUT_RAM_ALIGN / KIB),
                       (uint64_t)(LAYOUT_RAM_MIN / MIB));
    }
    uint64_t limit = BIT64(phys_bits);
    uint64_t low = MIN(ram_size, LAYOUT_LOW_RAM_END);
    uint64_t high = ram_size - low;
    /* RAM, the alignment gap and the smallest window must fit below `limit`. */
    uint64_t reserve = high != 0 ? LAYOUT_HIGH_RAM_BASE + LAYOUT_MEM64_ALIGN + LAYOUT_MEM64_MIN : 0;
    if (high != 0 && (reserve > limit || high > limit - reserve)) {
        uint64_t max =
            limit > reserve ? LAYOUT_LOW_RAM_END + (limit - reserve) : LAYOUT_LOW_RAM_END;
        return err_set(err, -EINVAL,
                       "guest memory of %" PRIu64 " MiB does not fit: with %u physical address "
                       "bits at most %" PRIu64 " MiB",
                       ram_size / MIB, phys_bits, max / MIB);
    }
    uint64_t high_end = LAYOUT_HIGH_RAM_BASE + high;
    uint64_t mem64 = MIN(bits_align_up(high_end, LAYOUT_MEM64_ALIGN), limit);
    if (limit <= LAYOUT_HIGH_RAM_BASE) {
        mem64 = LAYOUT_HIGH_RAM_BASE; /* 32 bits: the window is empty */
        limit = mem64;
    }
    *ret = (struct layout){
        .ram_size = ram_size,
        .phys_bits = phys_bits,
        .low_ram = {0,                     low                          },
        .high_ram = { LAYOUT_HIGH_RAM_BASE, high_end                     },
        .mem32 = { LAYOUT_MEM32_BASE,    LAYOUT_MEM32_END             },
        .mem64 = { mem64,                mem64 + MIN(LAYOUT_MEM64_SIZE, limit - mem64) },
        .pci_io = { LAYOUT_PCI_IO_BASE,                    LAYOUT_PCI_IO_END                              },
    };
    return 0;
}
