/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image import FILE NAME:TAG */
#include <errno.h>
#include <stdio.h>

#include "cli/image.h"
#include "image/child.h"
#include "image/import.h"

struct import_cmd {
    char *format;
    char *sha256;
    char *store;
};

#define FIELD(member) .offset = offsetof(struct import_cmd, member)

static const char *const import_formats[] = { "raw", "qcow2", "vmdk", "vdi", "vhd", "ova", NULL };

static const struct schema_field fields[] = {
    {.name = "format",
     .letter = 'f',
     .arg = "raw|qcow2|vmdk|vdi|vhd|ova",
     .type = SCHEMA_STR,
     .choices = import_formats,
     FIELD(format),
     .help = "the file's format; without it what its content says, and a raw disk is refused" },
    { .name = "sha256",
     .arg = "HEX",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(sha256),
     .help = "the hash that the file must have" },
    CLI_FIELD_STORE(struct import_cmd, store),
    { 0          },
};

static int check(const void *obj, struct err *err)
{
    const struct import_cmd *c = obj;
    for (size_t i = 0; c->format != NULL && import_formats[i] != NULL; i++) {
        if (strcmp(c->format, import_formats[i]) == 0) {
            return 0;
        }
    }
    return c->format == NULL ? 0
                             : err_set(err, -EINVAL,
                                       "format '%s' is unknown: give one of raw, qcow2, vmdk, vdi, "
                                       "vhd, ova",
                                       c->format);
}

const struct schema image_import_schema = {
    .name = "image import",
    .size = sizeof(struct import_cmd),
    .fields = fields,
    .check = check,
};

static bool go_on(void *opaque, uint64_t done, uint64_t total)
{
    struct err ignored = ERR_INIT;
    (void)done;
    (void)total;
    return child_stop_check(opaque, &ignored) == 0;
}

static int import(void *obj, char **operands, struct err *err)
{
    const struct import_cmd *c = obj;
    struct store *s = NULL;
    struct child_stop stop;
    struct store_image image = { 0 };
    struct import_opts o = {
        .path = operands[0],
        .format = c->format,
        .ref = operands[1],
        .sha256 = c->sha256,
        .convert = {.progress = go_on, .opaque = &stop}
    };
    char name[STORE_NAME_MAX + 1];
    char tag[STORE_NAME_MAX + 1];
    int rc = store_parse_ref(o.ref, name, tag, err);
    rc = rc < 0 ? rc : store_open(c->store, &s, err);
    rc = rc < 0 ? rc : child_stop_init(&stop, err);
    if (rc == 0) {
        rc = import_run(s, &o, &image, err);
        child_stop_done(&stop);
    }
    if (rc == 0) {
        printf("%s\n", image.id);
    }
    store_image_done(&image);
    store_close(s);
    return rc;
}

int image_import_main(int argc, char **argv)
{
    static const struct image_verb verb = {
        .name = "import", .schema = &image_import_schema, .min = 2, .max = 2, .work = import
    };
    struct import_cmd c;
    return image_run(&verb, &c, argc, argv);
}
