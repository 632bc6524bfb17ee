/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The builder of the tables: one blob of all tables but the RSDP, with a list of the places that
 * depend on where the blob lies. Checksums are right for a blob at address 0.
 */
#ifndef ACPI_ACPI_INT_H
#define ACPI_ACPI_INT_H

#include "spec/acpi_defs.h"
#include "vmm/acpi/acpi.h"
#include "vmm/acpi/aml.h"

#define ACPI_MAX_TABLES 16
#define ACPI_MAX_LINKS  32

/* A pointer field in the blob. */
struct acpi_link {
    uint32_t at;                 /* offset of the field */
    uint8_t size;                /* 4 or 8 */
    uint32_t target;             /* offset in the blob, or in the area */
    const struct aml_area *area; /* NULL = into the blob itself */
};

struct acpi_builder {
    const struct acpi_config *config;
    uint8_t *blob;
    size_t len, cap;
    struct {
        uint32_t start, len;
        bool checksum;
        bool in_xsdt;
    } table[ACPI_MAX_TABLES];
    unsigned ntables;
    struct acpi_link link[ACPI_MAX_LINKS];
    unsigned nlinks;
    uint32_t facs, dsdt, xsdt; /* offsets */
};

/* Appends a table with its header: `body` follows the 36 bytes. Tables start on 8 bytes.
 * *ret_start may be NULL. 0 or -ENOMEM with err. */
MUST_USE int acpi_add(struct acpi_builder *b, const char *signature, uint8_t revision,
                      const void *body, size_t len, uint32_t *ret_start, struct err *err);
/* Appends raw bytes on a border of `align`. */
MUST_USE int acpi_add_raw(struct acpi_builder *b, const void *buf, size_t len, size_t align,
                          uint32_t *ret_start, struct err *err);
void acpi_add_link(struct acpi_builder *b, uint32_t at, uint8_t size, uint32_t target,
                   const struct aml_area *area);
/* Whether the machine has a device of this class. */
bool acpi_has_dev(const struct acpi_builder *b, const char *class_name);

MUST_USE int acpi_build(const struct acpi_config *config, struct acpi_builder *ret_builder,
                        struct err *err);
void acpi_builder_done(struct acpi_builder *b);
/* The RSDP for an XSDT at `xsdt`. */
void acpi_make_rsdp(struct acpi_rsdp *rsdp, uint64_t xsdt);
uint8_t acpi_checksum(const void *buf, size_t len);

#define TABLE(signature, fn) int fn(struct acpi_builder *b, struct err *err);
#include "vmm/acpi/tables.def"
#undef TABLE

#endif
