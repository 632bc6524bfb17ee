/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables for firmware: fw_cfg files and the script that tells the firmware how to place them
 * (the "table loader" of QEMU and SeaBIOS; commands as in SeaBIOS src/fw/romfile_loader.h 1.16).
 * A pointer field holds the offset of its target; the firmware adds the address of the file that
 * the target is in. A checksum byte that was right before is right after the command, which
 * subtracts the sum of the table from it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "vmm/acpi/acpi_int.h"
#include "vmm/dev/fwcfg.h"

#define FILE_RSDP   "etc/acpi/rsdp"
#define FILE_TABLES "etc/acpi/tables"
#define FILE_LOADER "etc/table-loader"

#define CMD_SIZE          128
#define CMD_FILE_SIZE     56
#define CMD_ALLOCATE      1
#define CMD_ADD_POINTER   2
#define CMD_ADD_CHECKSUM  3
#define CMD_WRITE_POINTER 4
#define ZONE_HIGH         1
#define ZONE_FSEG         2
#define MAX_CMDS          (ACPI_MAX_LINKS * 3 + ACPI_MAX_TABLES + 8)

struct script {
    uint8_t cmd[MAX_CMDS][CMD_SIZE];
    unsigned n;
};

static uint8_t *script_cmd(struct script *s, uint32_t what, const char *file)
{
    assert(s->n < MAX_CMDS && strlen(file) < CMD_FILE_SIZE);
    uint8_t *c = s->cmd[s->n++];
    le32_put(c, what);
    memcpy(c + 4, file, strlen(file));
    return c + 4 + CMD_FILE_SIZE;
}

static void script_allocate(struct script *s, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *c = script_cmd(s, CMD_ALLOCATE, file);
    le32_put(c, align);
    c[4] = zone;
}

static void script_pointer(struct script *s, const char *file, const char *target, uint32_t at,
                           uint8_t size)
{
    uint8_t *c = script_cmd(s, CMD_ADD_POINTER, file);
    memcpy(c, target, strlen(target));
    le32_put(c + CMD_FILE_SIZE, at);
    c[CMD_FILE_SIZE + 4] = size;
}

static void script_checksum(struct script *s, const char *file, uint32_t at, uint32_t start,
                            uint32_t len)
{
    uint8_t *c = script_cmd(s, CMD_ADD_CHECKSUM, file);
    le32_put(c, at);
    le32_put(c + 4, start);
    le32_put(c + 8, len);
}

static void script_tell(struct script *s, const char *addr_file, const char *target)
{
    uint8_t *c = script_cmd(s, CMD_WRITE_POINTER, addr_file);
    memcpy(c, target, strlen(target));
    c[CMD_FILE_SIZE + 8] = 8; /* both offsets 0 */
}

/* The firmware wrote the address of an area. */
static void on_address(void *opaque, const void *data, size_t len)
{
    const struct aml_area *area = opaque;
    (void)len;
    area->placed(area->opaque, le64_get(data));
}

static int publish_areas(struct acpi_builder *b, struct fwcfg *fwcfg, struct script *s,
                         struct err *err)
{
    static const uint8_t zero[8];
    int rc = 0;
    for (unsigned i = 0; i < b->nlinks && rc == 0; i++) {
        const struct aml_area *area = b->link[i].area;
        if (area == NULL) {
            continue;
        }
        rc = fwcfg_add_file(fwcfg, area->file, area->data, area->size, err);
        if (rc == 0) {
            /* The callback gets a pointer to const; the area itself is const for us, too. */
            rc = fwcfg_add_writable(fwcfg, area->addr_file, zero, sizeof(zero), on_address,
                                    (void *)(uintptr_t)area, err);
        }
        script_allocate(s, area->file, area->align, ZONE_HIGH);
    }
    return rc;
}

static void write_script(struct acpi_builder *b, struct script *s)
{
    script_allocate(s, FILE_RSDP, 16, ZONE_FSEG);
    script_allocate(s, FILE_TABLES, ACPI_FACS_ALIGN, ZONE_HIGH);
    for (unsigned i = 0; i < b->nlinks; i++) {
        const struct acpi_link *l = &b->link[i];
        script_pointer(s, FILE_TABLES, l->area != NULL ? l->area->file : FILE_TABLES, l->at,
                       l->size);
        if (l->area != NULL) {
            script_tell(s, l->area->addr_file, l->area->file);
        }
    }
    for (unsigned i = 0; i < b->ntables; i++) {
        if (b->table[i].checksum) {
            uint32_t at = b->table[i].start + (uint32_t)offsetof(struct acpi_header, checksum);
            script_checksum(s, FILE_TABLES, at, b->table[i].start, b->table[i].len);
        }
    }
    script_pointer(s, FILE_RSDP, FILE_TABLES, offsetof(struct acpi_rsdp, xsdt), 8);
    script_checksum(s, FILE_RSDP, offsetof(struct acpi_rsdp, checksum), 0, ACPI_RSDP_V1_LEN);
    script_checksum(s, FILE_RSDP, offsetof(struct acpi_rsdp, ext_checksum), 0,
                    sizeof(struct acpi_rsdp));
}

int acpi_publish(const struct acpi_config *config, struct fwcfg *fwcfg, struct err *err)
{
    struct acpi_builder b;
    CLEANUP_FREE struct script *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(err, -ENOMEM, "no memory for ACPI tables");
    }
    int rc = acpi_build(config, &b, err);
    if (rc < 0) {
        return rc;
    }
    struct acpi_rsdp rsdp;
    acpi_make_rsdp(&rsdp, b.xsdt);
    rc = publish_areas(&b, fwcfg, s, err);
    write_script(&b, s);
    if (rc == 0) {
        rc = fwcfg_add_file(fwcfg, FILE_RSDP, &rsdp, sizeof(rsdp), err);
    }
    if (rc == 0) {
        rc = fwcfg_add_file(fwcfg, FILE_TABLES, b.blob, b.len, err);
    }
    if (rc == 0) {
        rc = fwcfg_add_file(fwcfg, FILE_LOADER, s->cmd, (size_t)s->n * CMD_SIZE, err);
    }
    acpi_builder_done(&b);
    return rc;
}
