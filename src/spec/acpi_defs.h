/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ACPI tables and registers as far as the machine has them: ACPI 6.5 (2022-08), MCFG: PCI Firmware
 * 3.2 §4.1.2, HPET: IA-PC HPET 1.0a §3.2.4, WAET: Windows ACPI Emulated Devices Table 1.0.
 */
#ifndef SPEC_ACPI_DEFS_H
#define SPEC_ACPI_DEFS_H

#include <stdint.h>

#define ACPI_PACKED __attribute__((packed))

/* §5.2.6 */
struct acpi_header {
    char signature[4];
    uint32_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem_id[6];
    char oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_header) == 36, "ACPI 6.5 table 5.4");

/* §5.2.5.3 */
struct acpi_rsdp {
    char signature[8];
    uint8_t checksum; /* of the first 20 bytes */
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t ext_checksum;
    uint8_t reserved[3];
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 6.5 table 5.3");
#define ACPI_RSDP_V1_LEN 20

/* §5.2.3.2 generic address structure */
struct acpi_gas {
    uint8_t space; /* ACPI_SPACE_* */
    uint8_t bits;
    uint8_t bit_offset;
    uint8_t access; /* 1 byte, 2 word, 3 dword, 4 qword */
    uint64_t address;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_gas) == 12, "ACPI 6.5 table 5.1");

#define ACPI_SPACE_MEMORY 0
#define ACPI_SPACE_IO     1

/* §5.2.9 */
struct acpi_fadt {
    struct acpi_header h;
    uint32_t firmware_ctrl;
    uint32_t dsdt;
    uint8_t reserved0;
    uint8_t preferred_pm_profile;
    uint16_t sci_int;
    uint32_t smi_cmd;
    uint8_t acpi_enable;
    uint8_t acpi_disable;
    uint8_t s4bios_req;
    uint8_t pstate_cnt;
    uint32_t pm1a_evt_blk;
    uint32_t pm1b_evt_blk;
    uint32_t pm1a_cnt_blk;
    uint32_t pm1b_cnt_blk;
    uint32_t pm2_cnt_blk;
    uint32_t pm_tmr_blk;
    uint32_t gpe0_blk;
    uint32_t gpe1_blk;
    uint8_t pm1_evt_len;
    uint8_t pm1_cnt_len;
    uint8_t pm2_cnt_len;
    uint8_t pm_tmr_len;
    uint8_t gpe0_blk_len;
    uint8_t gpe1_blk_len;
    uint8_t gpe1_base;
    uint8_t cst_cnt;
    uint16_t p_lvl2_lat;
    uint16_t p_lvl3_lat;
    uint16_t flush_size;
    uint16_t flush_stride;
    uint8_t duty_offset;
    uint8_t duty_width;
    uint8_t day_alrm;
    uint8_t mon_alrm;
    uint8_t century;
    uint16_t iapc_boot_arch;
    uint8_t reserved1;
    uint32_t flags;
    struct acpi_gas reset_reg;
    uint8_t reset_value;
    uint16_t arm_boot_arch;
    uint8_t minor_revision;
    uint64_t x_firmware_ctrl;
    uint64_t x_dsdt;
    struct acpi_gas x_pm1a_evt_blk;
    struct acpi_gas x_pm1b_evt_blk;
    struct acpi_gas x_pm1a_cnt_blk;
    struct acpi_gas x_pm1b_cnt_blk;
    struct acpi_gas x_pm2_cnt_blk;
    struct acpi_gas x_pm_tmr_blk;
    struct acpi_gas x_gpe0_blk;
    struct acpi_gas x_gpe1_blk;
    struct acpi_gas sleep_control_reg;
    struct acpi_gas sleep_status_reg;
    char hypervisor[8];
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_fadt) == 276, "ACPI 6.5 table 5.9");

#define ACPI_FADT_WBINVD        (UINT32_C(1) << 0)
#define ACPI_FADT_PROC_C1       (UINT32_C(1) << 2)
#define ACPI_FADT_SLP_BUTTON    (UINT32_C(1) << 5) /* no fixed sleep button */
#define ACPI_FADT_FIX_RTC       (UINT32_C(1) << 6) /* RTC wake is not in the fixed registers */
#define ACPI_FADT_TMR_VAL_EXT   (UINT32_C(1) << 8)
#define ACPI_FADT_RESET_REG_SUP (UINT32_C(1) << 10)

#define ACPI_IAPC_LEGACY_DEVICES (1 << 0)
#define ACPI_IAPC_8042           (1 << 1)
#define ACPI_IAPC_NO_VGA         (1 << 2)
#define ACPI_IAPC_NO_ASPM        (1 << 4)
#define ACPI_IAPC_NO_CMOS_RTC    (1 << 5)

#define ACPI_PROFILE_ENTERPRISE_SERVER 4

/* §5.2.10 */
struct acpi_facs {
    char signature[4];
    uint32_t length;
    uint32_t hardware_signature;
    uint32_t waking_vector;
    uint32_t global_lock;
    uint32_t flags;
    uint64_t x_waking_vector;
    uint8_t version;
    uint8_t reserved0[3];
    uint32_t ospm_flags;
    uint8_t reserved1[24];
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_facs) == 64, "ACPI 6.5 table 5.12");
#define ACPI_FACS_ALIGN 64

/* §5.2.12 */
struct acpi_madt {
    struct acpi_header h;
    uint32_t lapic;
    uint32_t flags;
} ACPI_PACKED;
#define ACPI_MADT_PCAT_COMPAT 1

enum {
    ACPI_MADT_LAPIC = 0,
    ACPI_MADT_IOAPIC = 1,
    ACPI_MADT_OVERRIDE = 2,
    ACPI_MADT_LAPIC_NMI = 4,
    ACPI_MADT_X2APIC = 9,
    ACPI_MADT_X2APIC_NMI = 10,
};

struct acpi_madt_lapic {
    uint8_t type, length, uid, apic_id;
    uint32_t flags; /* 1 = enabled */
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_madt_lapic) == 8, "");

struct acpi_madt_ioapic {
    uint8_t type, length, id, reserved;
    uint32_t address;
    uint32_t gsi_base;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_madt_ioapic) == 12, "");

struct acpi_madt_override {
    uint8_t type, length, bus, source;
    uint32_t gsi;
    uint16_t flags;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_madt_override) == 10, "");
#define ACPI_MADT_CONFORMS   0x0
#define ACPI_MADT_HIGH_LEVEL 0xd /* active high, level triggered */

struct acpi_madt_lapic_nmi {
    uint8_t type, length, uid;
    uint16_t flags;
    uint8_t lint;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_madt_lapic_nmi) == 6, "");

struct acpi_madt_x2apic {
    uint8_t type, length;
    uint16_t reserved;
    uint32_t apic_id;
    uint32_t flags;
    uint32_t uid;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_madt_x2apic) == 16, "");

struct acpi_madt_x2apic_nmi {
    uint8_t type, length;
    uint16_t flags;
    uint32_t uid;
    uint8_t lint;
    uint8_t reserved[3];
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_madt_x2apic_nmi) == 12, "");

/* §5.2.16 */
struct acpi_srat {
    struct acpi_header h;
    uint32_t reserved0; /* must be 1 */
    uint64_t reserved1;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_srat) == 48, "");

enum {
    ACPI_SRAT_CPU = 0,
    ACPI_SRAT_MEMORY = 1,
    ACPI_SRAT_X2APIC = 2,
};

struct acpi_srat_cpu {
    uint8_t type, length, node_low, apic_id;
    uint32_t flags; /* 1 = enabled */
    uint8_t sapic_eid;
    uint8_t node_high[3];
    uint32_t clock_domain;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_srat_cpu) == 16, "");

struct acpi_srat_memory {
    uint8_t type, length;
    uint32_t node;
    uint16_t reserved0;
    uint64_t base;
    uint64_t size;
    uint32_t reserved1;
    uint32_t flags; /* 1 = enabled */
    uint64_t reserved2;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_srat_memory) == 40, "");

struct acpi_srat_x2apic {
    uint8_t type, length;
    uint16_t reserved0;
    uint32_t node;
    uint32_t apic_id;
    uint32_t flags;
    uint32_t clock_domain;
    uint32_t reserved1;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_srat_x2apic) == 24, "");

/* One allocation: bus 0 to 255 of segment 0 */
struct acpi_mcfg {
    struct acpi_header h;
    uint64_t reserved0;
    uint64_t base;
    uint16_t segment;
    uint8_t bus_start;
    uint8_t bus_end;
    uint32_t reserved1;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_mcfg) == 60, "");

struct acpi_hpet {
    struct acpi_header h;
    uint32_t block_id; /* the low 32 bits of the HPET's capability register */
    struct acpi_gas base;
    uint8_t number;
    uint16_t min_tick;
    uint8_t page_protection;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_hpet) == 56, "");

struct acpi_waet {
    struct acpi_header h;
    uint32_t flags;
} ACPI_PACKED;
_Static_assert(sizeof(struct acpi_waet) == 40, "");
#define ACPI_WAET_PM_TIMER_GOOD 2 /* one read of the PM timer is enough */

/* PM1 registers, §4.8.3 */
#define ACPI_PM1_TMR_STS     (1 << 0)
#define ACPI_PM1_BM_STS      (1 << 4)
#define ACPI_PM1_GBL_STS     (1 << 5)
#define ACPI_PM1_PWRBTN_STS  (1 << 8)
#define ACPI_PM1_SLPBTN_STS  (1 << 9)
#define ACPI_PM1_RTC_STS     (1 << 10)
#define ACPI_PM1_WAK_STS     (1 << 15)
#define ACPI_PM1_CNT_SCI_EN  (1 << 0)
#define ACPI_PM1_CNT_BM_RLD  (1 << 1)
#define ACPI_PM1_CNT_GBL_RLS (1 << 2)
#define ACPI_PM1_CNT_SLP_TYP 10 /* shift of 3 bits */
#define ACPI_PM1_CNT_SLP_EN  (1 << 13)
#define ACPI_PM_TIMER_HZ     3579545

#endif
