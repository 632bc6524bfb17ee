/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An encoder of ACPI machine language (ACPI 6.5 §20). AML is a prefix language: a term is its
 * opcode followed by its operands, so calls in the order of ASL give the code. Blocks are opened by
 * a function and closed by aml_end().
 *
 *     aml_scope(a, "\\_SB.PCI0.ISA_");
 *     aml_device(a, "COM1");
 *     aml_name(a, "_HID"), aml_eisaid(a, "PNP0501");
 *     aml_name(a, "_CRS"), aml_res_begin(a);
 *     aml_res_io(a, 0x3f8, 0x3f8, 1, 8);
 *     aml_res_irq(a, 4);
 *     aml_res_end(a);
 *     aml_method(a, "_STA", 0, false);
 *     aml_op(a, AML_RETURN), aml_int(a, 0xf);
 *     aml_end(a), aml_end(a), aml_end(a);
 *
 * Errors stick (no memory, too large) and are told by aml_finish(). Wrong use (an unbalanced block,
 * a bad name) is a bug of ours and asserts: names never come from a guest or a user.
 */
#ifndef ACPI_AML_H
#define ACPI_AML_H

#include "base/bits.h"

struct aml;

/* Opcodes for aml_op(); ext ones have 0x5b in the high byte. The comment is the operands. */
enum aml_opcode {
    AML_STORE = 0x70,    /* source, target */
    AML_ADD = 0x72,      /* a, b, target */
    AML_SUBTRACT = 0x74, /* a, b, target */
    AML_SHIFT_LEFT = 0x79,
    AML_SHIFT_RIGHT = 0x7a,
    AML_AND = 0x7b,
    AML_OR = 0x7d,
    AML_NOTIFY = 0x86,      /* object, value */
    AML_INDEX = 0x88,       /* package or buffer, index, target */
    AML_DWORD_FIELD = 0x8a, /* buffer, byte index, name */
    AML_LAND = 0x90,
    AML_LOR = 0x91,
    AML_LNOT = 0x92,
    AML_LEQUAL = 0x93,
    AML_LGREATER = 0x94,
    AML_LLESS = 0x95,
    AML_RETURN = 0xa4, /* value */
    AML_NONE = 0x00,   /* "no target" */
};

/* Operation regions, §19.6.100 */
#define AML_SPACE_MEMORY 0
#define AML_SPACE_IO     1
/* Access types of fields, §19.6.48; we use no lock and preserve the other bits */
#define AML_FIELD_BYTE  1
#define AML_FIELD_WORD  2
#define AML_FIELD_DWORD 3

MUST_USE struct aml *aml_new(void); /* NULL: out of memory */
void aml_free(struct aml *a);       /* accepts NULL */
/* The code, valid until aml_free(). 0, -ENOMEM, or -E2BIG (over 1 MiB, or a block over 256 MiB). */
MUST_USE int aml_finish(struct aml *a, const uint8_t **ret_code, size_t *ret_len);

/* Blocks */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *path);
void aml_method(struct aml *a, const char *path, unsigned nargs, bool serialized);
void aml_package(struct aml *a, uint8_t count); /* `count` terms follow */
void aml_if(struct aml *a);                     /* the predicate follows, then the body */
void aml_else(struct aml *a);                   /* right after the aml_end() of an if */
void aml_field(struct aml *a, const char *region, unsigned access); /* units follow */
void aml_end(struct aml *a);

/* Terms */
void aml_op(struct aml *a, enum aml_opcode op);
void aml_name(struct aml *a, const char *path); /* Name(path, ...): one data term follows */
void aml_path(struct aml *a, const char *path); /* a reference or a method call */
void aml_int(struct aml *a, uint64_t value);
void aml_str(struct aml *a, const char *s); /* ASCII */
void aml_bytes(struct aml *a, const void *buf, size_t len);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A08" */
void aml_uuid(struct aml *a, const char *uuid); /* "33db4d5b-1ff7-..." as ToUUID() */
void aml_arg(struct aml *a, unsigned n);
void aml_local(struct aml *a, unsigned n);
void aml_region(struct aml *a, const char *name, uint8_t space, uint64_t offset, uint64_t len);
void aml_field_unit(struct aml *a, const char *name, uint32_t bits); /* in aml_field() */
void aml_field_skip(struct aml *a, uint32_t bits);

/* Resource templates, §6.4 */
void aml_res_begin(struct aml *a);
void aml_res_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t len);
void aml_res_irq(struct aml *a, unsigned irq); /* ISA: edge, active high, exclusive */
void aml_res_mem32(struct aml *a, uint32_t base, uint32_t len); /* fixed, read/write */
/* Windows that a bridge hands down; [min, max] inclusive. */
void aml_res_bus_window(struct aml *a, uint16_t min, uint16_t max);
void aml_res_io_window(struct aml *a, uint16_t min, uint16_t max);
void aml_res_mem_window(struct aml *a, uint64_t min, uint64_t max);
void aml_res_end(struct aml *a);

/*
 * Memory that a device shares with the guest and whose address stands in the code. Whoever places
 * the tables (acpi.h) allocates it, patches the address in and calls placed().
 */
struct aml_area {
    const char *file;      /* fw_cfg name for firmware: "etc/vmgenid_guid" */
    const char *addr_file; /* fw_cfg name through which firmware tells the address */
    const void *data;      /* initial content, copied when tables are placed */
    uint32_t size;         /* up to AML_AREA_MAX */
    uint32_t align;        /* power of two up to 4096 */
    uint32_t offset;       /* the code gets address + offset */
    void (*placed)(void *opaque, uint64_t gpa); /* of the area's start. Any thread. */
    void *opaque;
};

#define AML_AREA_MAX  4096
#define AML_MAX_AREAS 4

/* A 64-bit integer that becomes the address of `area` + offset. `area` outlives the tables. */
void aml_area(struct aml *a, const struct aml_area *area);
/* The areas of the code: *ret_pos is where in the code the 8 bytes are. NULL behind the last. */
const struct aml_area *aml_area_at(const struct aml *a, unsigned i, size_t *ret_pos);

#endif
