/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Assembles the tables and hands them to the guest.
 *
 *     blob:  FACS | DSDT | FADT | MADT | ... | XSDT        pointers within it are links
 *     BIOS area in direct boot:  RSDP | blob | areas (what devices share, e.g. the vmgenid GUID)
 */
#include "vmm/acpi/acpi.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "vmm/acpi/acpi_int.h"
#include "vmm/dev/dev.h"
#include "vmm/dev/fwcfg.h"

#define BLOB_MAX     MIB
#define OEM_ID       "POSADA"
#define OEM_TABLE_ID "POSADA  "
#define CREATOR_ID   "POSA"

static_assert(sizeof(OEM_ID) == 7 && sizeof(OEM_TABLE_ID) == 9 && sizeof(CREATOR_ID) == 5, "");

static int (*const table_fns[])(struct acpi_builder *b, struct err *err) = {
#define TABLE(signature, fn) fn,
#include "vmm/acpi/tables.def"
#undef TABLE
};
static_assert(ARRAY_LEN(table_fns) < ACPI_MAX_TABLES, "room for the XSDT, too");

uint8_t acpi_checksum(const void *buf, size_t len)
{
    const uint8_t *p = buf;
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    return (uint8_t)(0x100 - sum);
}

static void update_checksum(struct acpi_builder *b, uint32_t start, uint32_t len)
{
    struct acpi_header h;
    memcpy(&h, b->blob + start, sizeof(h));
    h.checksum = 0;
    memcpy(b->blob + start, &h, sizeof(h));
    h.checksum = acpi_checksum(b->blob + start, len);
    memcpy(b->blob + start, &h, sizeof(h));
}

int acpi_add_raw(struct acpi_builder *b, const void *buf, size_t len, size_t align,
                 uint32_t *ret_start, struct err *err)
{
    size_t start = bits_align_up(b->len, align);
    if (len > BLOB_MAX || start + len > BLOB_MAX) {
        return err_set(err, -ENOSPC, "ACPI tables grow over %" PRIu64 " KiB", BLOB_MAX / KIB);
    }
    if (start + len > b->cap) {
        size_t cap = MAX(b->cap * 2, start + len);
        uint8_t *blob = realloc(b->blob, cap);
        if (blob == NULL) {
            return err_set(err, -ENOMEM, "no memory for ACPI tables");
        }
        b->blob = blob;
        b->cap = cap;
    }
    memset(b->blob + b->len, 0, start - b->len);
    memcpy(b->blob + start, buf, len);
    b->len = start + len;
    assert(b->ntables < ACPI_MAX_TABLES);
    b->table[b->ntables].start = (uint32_t)start;
    b->table[b->ntables].len = (uint32_t)len;
    b->table[b->ntables].checksum = false;
    b->table[b->ntables].in_xsdt = false;
    b->ntables++;
    if (ret_start != NULL) {
        *ret_start = (uint32_t)start;
    }
    return 0;
}

int acpi_add(struct acpi_builder *b, const char *signature, uint8_t revision, const void *body,
             size_t len, uint32_t *ret_start, struct err *err)
{
    if (len > BLOB_MAX) {
        return err_set(err, -ENOSPC, "ACPI table %s has %zu bytes", signature, len);
    }
    size_t total = sizeof(struct acpi_header) + len;
    CLEANUP_FREE uint8_t *table = malloc(total);
    if (table == NULL) {
        return err_set(err, -ENOMEM, "no memory for ACPI tables");
    }
    struct acpi_header h = {
        .length = (uint32_t)total, .revision = revision, .oem_revision = 1, .creator_revision = 1
    };
    memcpy(h.signature, signature, 4);
    memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
    memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof(h.oem_table_id));
    memcpy(h.creator_id, CREATOR_ID, sizeof(h.creator_id));
    memcpy(table, &h, sizeof(h));
    memcpy(table + sizeof(h), body, len);
    uint32_t start;
    int rc = acpi_add_raw(b, table, total, 8, &start, err);
    if (rc < 0) {
        return rc;
    }
    b->table[b->ntables - 1].checksum = true;
    b->table[b->ntables - 1].in_xsdt = true;
    update_checksum(b, start, (uint32_t)total);
    if (ret_start != NULL) {
        *ret_start = start;
    }
    return 0;
}

void acpi_add_link(struct acpi_builder *b, uint32_t at, uint8_t size, uint32_t target,
                   const struct aml_area *area)
{
    assert(b->nlinks < ACPI_MAX_LINKS);
    b->link[b->nlinks++] =
        (struct acpi_link){ .at = at, .size = size, .target = target, .area = area };
}

bool acpi_has_dev(const struct acpi_builder *b, const char *class_name)
{
    const struct dev *dev;
    TAILQ_FOREACH(dev, &b->config->env->devs, link)
    {
        if (strcmp(dev->cls->name, class_name) == 0) {
            return true;
        }
    }
    return false;
}

/* Links hold their target until they are resolved: in the blob that is the value that firmware's
 * "add pointer" command adds the address to. */
static void prime_links(struct acpi_builder *b)
{
    for (unsigned i = 0; i < b->nlinks; i++) {
        uint8_t le[8];
        le64_put(le, b->link[i].target);
        memcpy(b->blob + b->link[i].at, le, b->link[i].size);
    }
    for (unsigned i = 0; i < b->ntables; i++) {
        if (b->table[i].checksum) {
            update_checksum(b, b->table[i].start, b->table[i].len);
        }
    }
}

static int add_xsdt(struct acpi_builder *b, struct err *err)
{
    uint8_t entry[ACPI_MAX_TABLES * 8] = { 0 };
    unsigned n = 0;
    uint32_t target[ACPI_MAX_TABLES];
    for (unsigned i = 0; i < b->ntables; i++) {
        if (b->table[i].in_xsdt && b->table[i].start != b->dsdt) {
            target[n++] = b->table[i].start;
        }
    }
    int rc = acpi_add(b, "XSDT", 1, entry, n * 8, &b->xsdt, err);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        uint32_t at = b->xsdt + (uint32_t)sizeof(struct acpi_header) + i * 8;
        acpi_add_link(b, at, 8, target[i], NULL);
    }
    return rc;
}

int acpi_build(const struct acpi_config *config, struct acpi_builder *ret_builder, struct err *err)
{
    struct acpi_builder b = { .config = config };
    int rc = 0;
    assert(config->ncpus >= 1 && config->ncpus <= ACPI_MAX_CPUS);
    for (size_t i = 0; i < ARRAY_LEN(table_fns) && rc == 0; i++) {
        rc = table_fns[i](&b, err);
    }
    if (rc == 0) {
        rc = add_xsdt(&b, err);
    }
    if (rc < 0) {
        acpi_builder_done(&b);
        return rc;
    }
    prime_links(&b);
    *ret_builder = b;
    return 0;
}

void acpi_builder_done(struct acpi_builder *b)
{
    free(b->blob);
    b->blob = NULL;
}

void acpi_make_rsdp(struct acpi_rsdp *rsdp, uint64_t xsdt)
{
    *rsdp = (struct acpi_rsdp){ .revision = 2, .length = sizeof(*rsdp), .xsdt = xsdt };
    memcpy(rsdp->signature, "RSD PTR ", 8);
    memcpy(rsdp->oem_id, OEM_ID, sizeof(rsdp->oem_id));
    rsdp->checksum = acpi_checksum(rsdp, ACPI_RSDP_V1_LEN);
    rsdp->ext_checksum = acpi_checksum(rsdp, sizeof(*rsdp));
}

/* Adds `base` to the links into the blob (`area` NULL) or into one area. */
static void resolve_links(struct acpi_builder *b, const struct aml_area *area, uint64_t base)
{
    for (unsigned i = 0; i < b->nlinks; i++) {
        const struct acpi_link *l = &b->link[i];
        if (l->area == area) {
            uint8_t le[8];
            le64_put(le, base + l->target);
            memcpy(b->blob + l->at, le, l->size);
        }
    }
}

static int place_areas(struct acpi_builder *b, struct gmem *mem, uint64_t base, struct err *err)
{
    for (unsigned i = 0; i < b->nlinks; i++) {
        const struct aml_area *area = b->link[i].area;
        if (area == NULL) {
            continue;
        }
        base = bits_align_up(base, area->align);
        if (base + area->size > LAYOUT_ACPI_END) {
            return err_set(err, -ENOSPC, "no room for '%s' in the BIOS area", area->file);
        }
        if (gmem_write(mem, GPA(base), area->data, area->size) < 0) {
            return err_set(err, -EFAULT, "no RAM at %#" PRIx64 " for '%s'", base, area->file);
        }
        resolve_links(b, area, base);
        area->placed(area->opaque, base);
        base += area->size;
    }
    return 0;
}

int acpi_install(const struct acpi_config *config, struct gmem *mem, uint64_t *ret_rsdp,
                 struct err *err)
{
    struct acpi_builder b;
    int rc = acpi_build(config, &b, err);
    if (rc < 0) {
        return rc;
    }
    static_assert(LAYOUT_ACPI_BASE % ACPI_FACS_ALIGN == 0, "offsets keep their alignment");
    uint64_t room = LAYOUT_ACPI_END - LAYOUT_ACPI_BASE;
    if (b.len > room) {
        rc = err_set(err, -ENOSPC,
                     "ACPI tables for %u CPUs need %zu bytes; the BIOS area has %" PRIu64,
                     config->ncpus, b.len, room);
    }
    if (rc == 0) {
        rc = place_areas(&b, mem, LAYOUT_ACPI_BASE + b.len, err);
    }
    if (rc == 0) {
        resolve_links(&b, NULL, LAYOUT_ACPI_BASE);
        for (unsigned i = 0; i < b.ntables; i++) {
            if (b.table[i].checksum) {
                update_checksum(&b, b.table[i].start, b.table[i].len);
            }
        }
        struct acpi_rsdp rsdp;
        acpi_make_rsdp(&rsdp, LAYOUT_ACPI_BASE + b.xsdt);
        if (gmem_write(mem, GPA(LAYOUT_RSDP), &rsdp, sizeof(rsdp)) < 0 ||
            gmem_write(mem, GPA(LAYOUT_ACPI_BASE), b.blob, b.len) < 0) {
            rc = err_set(err, -EFAULT, "no RAM in the BIOS area for ACPI tables");
        }
    }
    acpi_builder_done(&b);
    if (rc == 0) {
        *ret_rsdp = LAYOUT_RSDP;
    }
    return rc;
}
