/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables of fixed form: FACS, FADT, MADT, MCFG, HPET, SRAT, WAET (ACPI 6.5 §5.2).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "vmm/acpi/acpi_int.h"
#include "vmm/dev/hpet.h"

#define RESET_VALUE   0x06 /* port 0xcf9: full reset */
#define RTC_CENTURY   0x32 /* CMOS byte */
#define X2APIC_FIRST  255  /* ids from here need x2APIC entries, ACPI 6.5 §5.2.12.12 */
#define ALL_CPUS      0xff
#define ALL_CPUS32    0xffffffffu
#define MADT_REVISION 5
#define SRAT_REVISION 3

/* A growing table of many small entries. */
struct entries {
    uint8_t *buf;
    size_t len, cap;
    bool failed;
};

static void add_entry(struct entries *e, const void *entry, size_t len)
{
    if (!e->failed && e->len + len > e->cap) {
        size_t cap = e->cap * 2 + 512 + len;
        uint8_t *buf = realloc(e->buf, cap);
        e->failed = buf == NULL;
        if (buf != NULL) {
            e->buf = buf;
            e->cap = cap;
        }
    }
    if (!e->failed) {
        memcpy(e->buf + e->len, entry, len);
        e->len += len;
    }
}

/* Adds the table made of `e` (header excluded) and frees it. */
static int add_entries(struct acpi_builder *b, const char *signature, uint8_t revision,
                       struct entries *take_e, struct err *err)
{
    int rc = take_e->failed ? err_set(err, -ENOMEM, "no memory for ACPI table %s", signature)
                            : acpi_add(b, signature, revision, take_e->buf, take_e->len, NULL, err);
    free(take_e->buf);
    return rc;
}

/* The part of a table structure behind its header. */
#define BODY(t)                                                                                    \
    (const uint8_t *)&(t) + sizeof(struct acpi_header), sizeof(t) - sizeof(struct acpi_header)

int acpi_facs(struct acpi_builder *b, struct err *err)
{
    struct acpi_facs facs = { .length = sizeof(facs), .version = 2 };
    memcpy(facs.signature, "FACS", 4);
    return acpi_add_raw(b, &facs, sizeof(facs), ACPI_FACS_ALIGN, &b->facs, err);
}

static struct acpi_gas io_gas(uint64_t port, uint8_t bits, uint8_t access)
{
    return (
        struct acpi_gas){ .space = ACPI_SPACE_IO, .bits = bits, .access = access, .address = port };
}

int acpi_fadt(struct acpi_builder *b, struct err *err)
{
    bool i8042 = acpi_has_dev(b, "i8042"), rtc = acpi_has_dev(b, "rtc");
    /* SMI_CMD 0: there is no legacy mode to leave, SCI_EN is always set (§4.8.2.5). */
    struct acpi_fadt fadt = {
        .preferred_pm_profile = ACPI_PROFILE_ENTERPRISE_SERVER,
        .sci_int = LAYOUT_GSI_SCI,
        .pm1a_evt_blk = LAYOUT_PORT_PM1_EVT,
        .pm1a_cnt_blk = LAYOUT_PORT_PM1_CNT,
        .pm_tmr_blk = LAYOUT_PORT_PM_TMR,
        .gpe0_blk = LAYOUT_PORT_GPE0,
        .pm1_evt_len = 4,
        .pm1_cnt_len = 2,
        .pm_tmr_len = 4,
        .gpe0_blk_len = LAYOUT_PORT_GPE0_SIZE,
        .p_lvl2_lat = 0x0fff, /* above 100 and 1000 us: no C2, no C3 by P_BLK */
        .p_lvl3_lat = 0x0fff,
        .century = rtc ? RTC_CENTURY : 0,
        .iapc_boot_arch =
            (uint16_t)(ACPI_IAPC_LEGACY_DEVICES | ACPI_IAPC_NO_VGA | ACPI_IAPC_NO_ASPM |
                       (i8042 ? ACPI_IAPC_8042 : 0) | (rtc ? 0 : ACPI_IAPC_NO_CMOS_RTC)),
        .flags = ACPI_FADT_WBINVD | ACPI_FADT_PROC_C1 | ACPI_FADT_SLP_BUTTON | ACPI_FADT_FIX_RTC |
                 ACPI_FADT_TMR_VAL_EXT | ACPI_FADT_RESET_REG_SUP,
        .reset_reg = io_gas(LAYOUT_PORT_RESET, 8, 1),
        .reset_value = RESET_VALUE,
        .minor_revision = 3,
        .x_pm1a_evt_blk = io_gas(LAYOUT_PORT_PM1_EVT, 32, 2),
        .x_pm1a_cnt_blk = io_gas(LAYOUT_PORT_PM1_CNT, 16, 2),
        .x_pm_tmr_blk = io_gas(LAYOUT_PORT_PM_TMR, 32, 3),
        .x_gpe0_blk = io_gas(LAYOUT_PORT_GPE0, LAYOUT_PORT_GPE0_SIZE * 8, 1),
    };
    uint32_t at;
    int rc = acpi_add(b, "FACP", 6, BODY(fadt), &at, err);
    if (rc == 0) {
        acpi_add_link(b, at + (uint32_t)offsetof(struct acpi_fadt, firmware_ctrl), 4, b->facs,
                      NULL);
        acpi_add_link(b, at + (uint32_t)offsetof(struct acpi_fadt, dsdt), 4, b->dsdt, NULL);
        acpi_add_link(b, at + (uint32_t)offsetof(struct acpi_fadt, x_dsdt), 8, b->dsdt, NULL);
    }
    return rc;
}

static void madt_cpu(struct entries *e, unsigned cpu)
{
    if (cpu < X2APIC_FIRST) {
        struct acpi_madt_lapic c = { ACPI_MADT_LAPIC, sizeof(c), (uint8_t)cpu, (uint8_t)cpu, 1 };
        add_entry(e, &c, sizeof(c));
    } else {
        struct acpi_madt_x2apic c = { ACPI_MADT_X2APIC, sizeof(c), 0, cpu, 1, cpu };
        add_entry(e, &c, sizeof(c));
    }
}

int acpi_madt(struct acpi_builder *b, struct err *err)
{
    struct entries e = { 0 };
    uint32_t head[2] = { (uint32_t)LAYOUT_LAPIC_BASE, ACPI_MADT_PCAT_COMPAT };
    add_entry(&e, head, sizeof(head));
    for (unsigned i = 0; i < b->config->ncpus; i++) {
        madt_cpu(&e, i);
    }
    struct acpi_madt_ioapic io = {
        ACPI_MADT_IOAPIC, sizeof(io), LAYOUT_IOAPIC_ID, 0, (uint32_t)LAYOUT_IOAPIC_BASE, 0
    };
    add_entry(&e, &io, sizeof(io));
    struct acpi_madt_override pit = { ACPI_MADT_OVERRIDE, sizeof(pit), 0,
                                      LAYOUT_GSI_PIT,     2,           ACPI_MADT_CONFORMS };
    add_entry(&e, &pit, sizeof(pit));
    struct acpi_madt_override sci = { ACPI_MADT_OVERRIDE, sizeof(sci),    0,
                                      LAYOUT_GSI_SCI,     LAYOUT_GSI_SCI, ACPI_MADT_HIGH_LEVEL };
    add_entry(&e, &sci, sizeof(sci));
    struct acpi_madt_lapic_nmi nmi = { ACPI_MADT_LAPIC_NMI, sizeof(nmi), ALL_CPUS, 0, 1 };
    add_entry(&e, &nmi, sizeof(nmi));
    if (b->config->ncpus > X2APIC_FIRST) {
        struct acpi_madt_x2apic_nmi n = {
            ACPI_MADT_X2APIC_NMI, sizeof(n), 0, ALL_CPUS32, 1, { 0 }
        };
        add_entry(&e, &n, sizeof(n));
    }
    return add_entries(b, "APIC", MADT_REVISION, &e, err);
}

int acpi_mcfg(struct acpi_builder *b, struct err *err)
{
    struct acpi_mcfg mcfg = { .base = LAYOUT_ECAM_BASE, .bus_end = LAYOUT_ECAM_SIZE / MIB - 1 };
    return acpi_add(b, "MCFG", 1, BODY(mcfg), NULL, err);
}

int acpi_hpet(struct acpi_builder *b, struct err *err)
{
    if (!acpi_has_dev(b, "hpet")) {
        return 0;
    }
    struct acpi_hpet hpet = {
        .block_id = HPET_ID, .base = {.space = ACPI_SPACE_MEMORY, .address = LAYOUT_HPET_BASE}
    };
    return acpi_add(b, "HPET", 1, BODY(hpet), NULL, err);
}

int acpi_srat(struct acpi_builder *b, struct err *err)
{
    const struct acpi_config *c = b->config;
    if (c->cpu_node == NULL || c->nranges == 0) {
        return 0;
    }
    struct entries e = { 0 };
    uint8_t head[12] = { 1 };
    add_entry(&e, head, sizeof(head));
    for (unsigned i = 0; i < c->ncpus; i++) {
        uint32_t node = c->cpu_node[i];
        if (i < X2APIC_FIRST) {
            struct acpi_srat_cpu s = {
                .type = ACPI_SRAT_CPU,
                .length = sizeof(s),
                .node_low = (uint8_t)node,
                .apic_id = (uint8_t)i,
                .flags = 1,
                .node_high = {(uint8_t)(node >> 8), (uint8_t)(node >> 16), (uint8_t)(node >> 24)}
            };
            add_entry(&e, &s, sizeof(s));
        } else {
            struct acpi_srat_x2apic s = { .type = ACPI_SRAT_X2APIC,
                                          .length = sizeof(s),
                                          .node = node,
                                          .apic_id = i,
                                          .flags = 1 };
            add_entry(&e, &s, sizeof(s));
        }
    }
    for (unsigned i = 0; i < c->nranges; i++) {
        struct acpi_srat_memory m = { .type = ACPI_SRAT_MEMORY,
                                      .length = sizeof(m),
                                      .node = c->range[i].node,
                                      .base = c->range[i].base,
                                      .size = c->range[i].size,
                                      .flags = 1 };
        add_entry(&e, &m, sizeof(m));
    }
    return add_entries(b, "SRAT", SRAT_REVISION, &e, err);
}

int acpi_waet(struct acpi_builder *b, struct err *err)
{
    struct acpi_waet waet = { .flags = ACPI_WAET_PM_TIMER_GOOD };
    return acpi_add(b, "WAET", 1, BODY(waet), NULL, err);
}
