/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables as a guest finds them, and as iasl sees them: each is disassembled and compiled again
 * without an error or a warning.
 */
#include "vmm/acpi/acpi.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/acpi_defs.h"
#include "vmm/acpi/acpi_test_devs.h"
#include "vmm/dev/dev_harness.h"

struct fixture {
    struct dev_harness h;
    struct layout layout;
    struct acpi_config config;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;
    dev_harness_init(&f->h, 2 * MIB);
    assert_int_equal(layout_init(&f->layout, 4 * GIB, 40, &err), 0);
    acpi_test_add_devs(&f->h);
    f->config = (struct acpi_config){ .layout = &f->layout, .env = &f->h.env, .ncpus = 2 };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    dev_harness_done(&f->h);
    free(f);
    return 0;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    for (size_t i = 0; i < len; i++) {
        s = (uint8_t)(s + p[i]);
    }
    return s;
}

/* The table at `gpa`, with length and checksum verified. */
static const uint8_t *table_at(struct fixture *f, uint64_t gpa, const char *signature)
{
    assert_in_range(gpa, LAYOUT_ACPI_BASE, LAYOUT_ACPI_END);
    const uint8_t *t = f->h.ram + gpa;
    uint32_t len = le32_get(t + 4);
    assert_memory_equal(t, signature, 4);
    assert_true(gpa + len <= LAYOUT_ACPI_END);
    if (strcmp(signature, "FACS") != 0) {
        assert_int_equal(sum(t, len), 0);
    }
    return t;
}

/* The table with this signature that the XSDT lists, or NULL. */
static const uint8_t *find(struct fixture *f, const char *signature)
{
    const uint8_t *rsdp = f->h.ram + LAYOUT_RSDP;
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    const uint8_t *xsdt = table_at(f, le64_get(rsdp + 24), "XSDT");
    for (uint32_t at = 36; at < le32_get(xsdt + 4); at += 8) {
        uint64_t gpa = le64_get(xsdt + at);
        if (memcmp(f->h.ram + gpa, signature, 4) == 0) {
            return table_at(f, gpa, signature);
        }
    }
    return NULL;
}

static void install(struct fixture *f)
{
    struct err err = ERR_INIT;
    uint64_t rsdp;
    int rc = acpi_install(&f->config, f->h.env.mem, &rsdp, &err);
    if (rc < 0) {
        print_error("%s\n", err.msg);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(rsdp, LAYOUT_RSDP);
}

static void fadt_tells_the_registers(void **state)
{
    struct fixture *f = *state;
    install(f);
    struct acpi_fadt fadt;
    memcpy(&fadt, find(f, "FACP"), sizeof(fadt));
    assert_int_equal(fadt.h.revision, 6);
    assert_int_equal(fadt.x_dsdt, fadt.dsdt);
    table_at(f, fadt.x_dsdt, "DSDT");
    table_at(f, fadt.firmware_ctrl, "FACS");
    assert_int_equal(fadt.firmware_ctrl % 64, 0);
    assert_int_equal(fadt.pm1a_evt_blk, fadt.x_pm1a_evt_blk.address);
    assert_int_equal(fadt.pm1_evt_len * 8, fadt.x_pm1a_evt_blk.bits);
    assert_int_equal(fadt.pm1_cnt_len * 8, fadt.x_pm1a_cnt_blk.bits);
    assert_int_equal(fadt.pm_tmr_len * 8, fadt.x_pm_tmr_blk.bits);
    assert_int_equal(fadt.gpe0_blk_len * 8, fadt.x_gpe0_blk.bits);
    assert_int_equal(fadt.reset_reg.address, 0xcf9);
    assert_int_equal(fadt.reset_value, 6);
    assert_int_equal(fadt.smi_cmd, 0);
}

static void madt_lists_every_cpu(void **state)
{
    struct fixture *f = *state;
    f->config.ncpus = 300;
    install(f);
    const uint8_t *t = find(f, "APIC");
    unsigned lapics = 0, x2apics = 0, overrides = 0, ioapics = 0, nmis = 0;
    uint32_t len = le32_get(t + 4), at = 44;
    while (at < len) {
        const uint8_t *e = t + at;
        lapics += e[0] == ACPI_MADT_LAPIC;
        x2apics += e[0] == ACPI_MADT_X2APIC;
        overrides += e[0] == ACPI_MADT_OVERRIDE;
        ioapics += e[0] == ACPI_MADT_IOAPIC;
        nmis += e[0] == ACPI_MADT_LAPIC_NMI || e[0] == ACPI_MADT_X2APIC_NMI;
        if (e[0] == ACPI_MADT_X2APIC) {
            assert_int_equal(le32_get(e + 4), 254 + x2apics);
        }
        assert_true(e[1] >= 2);
        at += e[1];
    }
    assert_int_equal(at, len);
    assert_int_equal(lapics, 255);
    assert_int_equal(x2apics, 45);
    assert_int_equal(overrides, 2);
    assert_int_equal(ioapics, 1);
    assert_int_equal(nmis, 2);
}

static void srat_only_with_numa(void **state)
{
    struct fixture *f = *state;
    static const uint32_t nodes[2] = { 0, 1 };
    static const struct acpi_numa_range ranges[] = {
        {0,        GIB, 0},
        { 4 * GIB, GIB, 1}
    };
    install(f);
    assert_null(find(f, "SRAT"));
    f->config.cpu_node = nodes;
    f->config.range = ranges;
    f->config.nranges = ARRAY_LEN(ranges);
    install(f);
    const uint8_t *t = find(f, "SRAT");
    assert_non_null(t);
    assert_int_equal(le32_get(t + 4), 48 + 2 * 16 + 2 * 40);
    assert_int_equal(t[48 + 16 + 2], 1); /* the second CPU's node */
}

static void too_many_cpus_for_the_bios_area(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    uint64_t rsdp;
    f->config.ncpus = ACPI_MAX_CPUS;
    install(f);
    /* Fill the area from the other side: a device whose part is too large. */
    acpi_test_add_big_dev(&f->h);
    assert_int_equal(acpi_install(&f->config, f->h.env.mem, &rsdp, &err), -ENOSPC);
    assert_non_null(strstr(err.msg, "1024 CPUs"));
}

static int run(const char *fmt, const char *dir, const char *name)
{
    char cmd[512];
    (void)snprintf(cmd, sizeof(cmd), fmt, dir, name, dir);
    return system(cmd);
}

static void check_with_iasl(const char *dir, const uint8_t *table)
{
    char name[5] = { 0 }, path[256];
    memcpy(name, table, 4);
    (void)snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    uint32_t len = le32_get(table + 4);
    assert_int_equal(fwrite(table, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
    int rc = run("cd %s && iasl -d %s.aml >log 2>&1", dir, name);
    /* The disassembler is strict about the forms it knows; its remarks are in the log. */
    rc |= run("cd %s && iasl -we %s.dsl >>log 2>&1", dir, name);
    rc |= run("cd %s && grep -q ' 0 Errors, 0 Warnings' log # %s", dir, name);
    rc |= run("cd %s && ! grep -iE '^(error|warning|remark)|\\*\\*\\*\\*' log # %s", dir, name);
    if (rc != 0) {
        (void)run("cat %s/log # %s", dir, name);
    }
    assert_int_equal(rc, 0);
}

static void iasl_takes_every_table(void **state)
{
    struct fixture *f = *state;
    static const uint32_t nodes[2] = { 0, 1 };
    static const struct acpi_numa_range ranges[] = {
        {0,        GIB, 0},
        { 4 * GIB, GIB, 1}
    };
    if (system("command -v iasl >/dev/null") != 0) {
        print_message("iasl is not installed (Debian: acpica-tools)\n");
        skip();
    }
    f->config.cpu_node = nodes;
    f->config.range = ranges;
    f->config.nranges = ARRAY_LEN(ranges);
    install(f);
    char dir[] = "/tmp/acpi_test.XXXXXX";
    assert_non_null(mkdtemp(dir));
    const uint8_t *xsdt = table_at(f, le64_get(f->h.ram + LAYOUT_RSDP + 24), "XSDT");
    for (uint32_t at = 36; at < le32_get(xsdt + 4); at += 8) {
        check_with_iasl(dir, f->h.ram + le64_get(xsdt + at));
    }
    check_with_iasl(dir, xsdt);
    struct acpi_fadt fadt;
    memcpy(&fadt, find(f, "FACP"), sizeof(fadt));
    check_with_iasl(dir, f->h.ram + fadt.firmware_ctrl);
    check_with_iasl(dir, f->h.ram + fadt.dsdt);
    assert_int_equal(run("rm -r %s # %s", dir, ""), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(fadt_tells_the_registers),        T(madt_lists_every_cpu),   T(srat_only_with_numa),
        T(too_many_cpus_for_the_bios_area), T(iasl_takes_every_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
