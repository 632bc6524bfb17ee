/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The generation ID through both ways of placing it: tables in the BIOS area, and the script for
 * firmware, which a small interpreter here carries out as firmware does.
 */
#include "vmm/dev/vmgenid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/acpi/acpi.h"
#include "vmm/dev/dev_harness.h"
#include "vmm/dev/fwcfg.h"
#include "vmm/dev/pm.h"
#include "vmm/layout.h"

#define MAX_FILES    16
#define FIRMWARE_RAM 0x110000 /* where our firmware puts what it allocates */

struct fixture {
    struct dev_harness h;
    struct dev *pm, *genid;
    struct layout layout;
    struct acpi_config config;
    struct {
        char name[56];
        uint64_t gpa;
        uint32_t size;
    } file[MAX_FILES];
    unsigned nfiles;
    uint64_t next;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;
    dev_harness_init(&f->h, 2 * MIB);
    assert_int_equal(layout_init(&f->layout, 2 * MIB, 40, &err), 0);
    f->pm = dev_harness_add(&f->h, &pm_class, NULL);
    struct vmgenid_params p = { .pm = f->pm };
    f->genid = dev_harness_add(&f->h, &vmgenid_class, &p);
    f->config = (struct acpi_config){ .layout = &f->layout, .env = &f->h.env, .ncpus = 1 };
    f->next = FIRMWARE_RAM;
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

/* The value of Name (VGIA, ...) in [from, to): what the ADDR method returns. */
static uint64_t find_vgia(struct fixture *f, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i + 14 < to; i++) {
        if (memcmp(f->h.ram + i, "\x08VGIA\x0e", 6) == 0) {
            return le64_get(f->h.ram + i + 6);
        }
    }
    fail_msg("no VGIA");
    return 0;
}

static void renewing_changes_the_id_and_tells_the_guest(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    uint64_t rsdp;
    vmgenid_renew(f->genid); /* not placed yet: nothing to tell */
    assert_int_equal(dev_harness_inb(&f->h, LAYOUT_PORT_GPE0), 0);
    assert_int_equal(acpi_install(&f->config, f->h.env.mem, &rsdp, &err), 0);
    uint64_t gpa = find_vgia(f, LAYOUT_ACPI_BASE, LAYOUT_ACPI_END);
    assert_in_range(gpa, LAYOUT_ACPI_BASE, LAYOUT_ACPI_END - 16);
    assert_int_equal(gpa % 8, 0);
    static const uint8_t zero[16];
    uint8_t first[16];
    memcpy(first, f->h.ram + gpa, sizeof(first));
    assert_memory_not_equal(first, zero, 16);

    dev_reset(f->genid); /* the same generation after a reset */
    assert_int_equal(acpi_install(&f->config, f->h.env.mem, &rsdp, &err), 0);
    assert_memory_equal(first, f->h.ram + gpa, 16);

    vmgenid_renew(f->genid);
    assert_memory_not_equal(first, f->h.ram + gpa, 16);
    assert_int_equal(dev_harness_inb(&f->h, LAYOUT_PORT_GPE0), BIT(PM_GPE_VMGENID));
}

/* ---- Firmware ---- */

static uint32_t dma(struct fixture *f, uint32_t control, uint32_t len, uint64_t addr)
{
    uint8_t *d = f->h.ram + 0x1000;
    be32_put(d, control);
    be32_put(d + 4, len);
    be64_put(d + 8, addr);
    dev_harness_out(&f->h, LAYOUT_PORT_FWCFG + 8, 4, htobe32(0x1000));
    return be32_get(d);
}

/* Key and size of a file in the directory. */
static uint16_t lookup(struct fixture *f, const char *name, uint32_t *ret_size)
{
    uint8_t *dir = f->h.ram + 0x2000;
    assert_int_equal(dma(f, 0x19 << 16 | 8 | 2, 4 + 64 * 64, 0x2000), 0);
    for (uint32_t i = 0; i < be32_get(dir); i++) {
        if (strcmp((char *)dir + 4 + i * 64 + 8, name) == 0) {
            *ret_size = be32_get(dir + 4 + i * 64);
            return be16_get(dir + 4 + i * 64 + 4);
        }
    }
    fail_msg("no file %s", name);
    return 0;
}

static unsigned allocated(struct fixture *f, const char *name)
{
    for (unsigned i = 0; i < f->nfiles; i++) {
        if (strcmp(f->file[i].name, name) == 0) {
            return i;
        }
    }
    fail_msg("'%s' is used before it is allocated", name);
    return 0;
}

static void cmd_allocate(struct fixture *f, const char *name, uint32_t align)
{
    assert_true(f->nfiles < MAX_FILES);
    f->next = bits_align_up(f->next, align);
    uint32_t size;
    uint16_t key = lookup(f, name, &size);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 2, size, f->next), 0);
    memcpy(f->file[f->nfiles].name, name, strlen(name) + 1);
    f->file[f->nfiles].gpa = f->next;
    f->file[f->nfiles].size = size;
    f->nfiles++;
    f->next += size;
}

static void cmd_pointer(struct fixture *f, const uint8_t *c)
{
    unsigned dst = allocated(f, (const char *)c + 4), src = allocated(f, (const char *)c + 60);
    uint32_t at = le32_get(c + 116);
    uint8_t size = c[120];
    assert_true(size == 4 || size == 8);
    assert_true(at + size <= f->file[dst].size);
    uint64_t v = 0;
    memcpy(&v, f->h.ram + f->file[dst].gpa + at, size);
    assert_true(v < f->file[src].size);
    v += f->file[src].gpa;
    memcpy(f->h.ram + f->file[dst].gpa + at, &v, size);
}

static void cmd_checksum(struct fixture *f, const uint8_t *c)
{
    unsigned file = allocated(f, (const char *)c + 4);
    uint32_t at = le32_get(c + 60), start = le32_get(c + 64), len = le32_get(c + 68);
    assert_true(at < f->file[file].size && start + len <= f->file[file].size);
    uint8_t *p = f->h.ram + f->file[file].gpa;
    uint8_t sum = 0;
    for (uint32_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + p[start + i]);
    }
    p[at] = (uint8_t)(p[at] - sum);
}

static void cmd_tell(struct fixture *f, const uint8_t *c)
{
    uint32_t size;
    uint16_t key = lookup(f, (const char *)c + 4, &size);
    assert_int_equal(size, 8);
    assert_int_equal(le32_get(c + 116), 0);
    le64_put(f->h.ram + 0x1800,
             f->file[allocated(f, (const char *)c + 60)].gpa + le32_get(c + 120));
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 16, c[124], 0x1800), 0);
}

static void run_script(struct fixture *f)
{
    uint32_t size;
    uint16_t key = lookup(f, "etc/table-loader", &size);
    uint8_t *script = malloc(size);
    assert_int_equal(size % 128, 0);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 2, size, 0x8000), 0);
    memcpy(script, f->h.ram + 0x8000, size);
    for (uint32_t i = 0; i < size; i += 128) {
        const uint8_t *c = script + i;
        switch (le32_get(c)) {
        case 1:
            cmd_allocate(f, (const char *)c + 4, le32_get(c + 60));
            break;
        case 2:
            cmd_pointer(f, c);
            break;
        case 3:
            cmd_checksum(f, c);
            break;
        case 4:
            cmd_tell(f, c);
            break;
        default:
            fail_msg("unknown command %u", le32_get(c));
        }
    }
    free(script);
}

static void check_sum(struct fixture *f, uint64_t gpa, uint32_t len)
{
    uint8_t sum = 0;
    for (uint32_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + f->h.ram[gpa + i]);
    }
    assert_int_equal(sum, 0);
}

static void firmware_places_tables_and_id(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    dev_harness_add(&f->h, &fwcfg_class, NULL);
    assert_int_equal(acpi_publish(&f->config, f->h.env.fwcfg, &err), 0);
    run_script(f);

    uint64_t rsdp = f->file[allocated(f, "etc/acpi/rsdp")].gpa;
    check_sum(f, rsdp, 20);
    check_sum(f, rsdp, 36);
    uint64_t xsdt = le64_get(f->h.ram + rsdp + 24);
    assert_memory_equal(f->h.ram + xsdt, "XSDT", 4);
    unsigned n = (le32_get(f->h.ram + xsdt + 4) - 36) / 8;
    check_sum(f, xsdt, le32_get(f->h.ram + xsdt + 4));
    assert_true(n >= 4);
    for (unsigned i = 0; i < n; i++) {
        uint64_t t = le64_get(f->h.ram + xsdt + 36 + i * 8);
        check_sum(f, t, le32_get(f->h.ram + t + 4));
        if (memcmp(f->h.ram + t, "FACP", 4) == 0) {
            uint64_t dsdt = le64_get(f->h.ram + t + 140);
            assert_memory_equal(f->h.ram + dsdt, "DSDT", 4);
            check_sum(f, dsdt, le32_get(f->h.ram + dsdt + 4));
            assert_int_equal(le32_get(f->h.ram + t + 36) % 64, 0); /* FACS */
        }
    }
    uint64_t gpa = find_vgia(f, FIRMWARE_RAM, f->next);
    assert_int_equal(gpa, f->file[allocated(f, "etc/vmgenid_guid")].gpa + 40);
    uint8_t first[16];
    memcpy(first, f->h.ram + gpa, 16);
    vmgenid_renew(f->genid); /* the device knows the address */
    assert_memory_not_equal(first, f->h.ram + gpa, 16);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(renewing_changes_the_id_and_tells_the_guest),
        T(firmware_places_tables_and_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
