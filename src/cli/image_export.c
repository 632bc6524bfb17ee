/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image export IMAGE FILE, and the same for `image build --format`. */
#include <errno.h>
#include <stdio.h>

#include "block/ova/ova.h"
#include "cli/image.h"
#include "cli/image_export.h"

#define OVA_MEMORY (512 * MIB) /* of a machine whose image has no wish */

struct export_cmd {
    char *format;
    char *store;
    bool force;
};

#define FIELD(member) .offset = offsetof(struct export_cmd, member)

const char *const image_export_formats[] = { "raw", "qcow2", "vmdk", "vdi", "vhd", "ova", NULL };

static const struct schema_field fields[] = {
    {.name = "format",
     .letter = 'f',
     .arg = "raw|qcow2|vmdk|vdi|vhd|ova",
     .type = SCHEMA_STR,
     .choices = image_export_formats,
     FIELD(format),
     .help = "the new file's format; without it what its name ends in" },
    { .name = "force", .type = SCHEMA_FLAG, FIELD(force), .help = "replace FILE if it exists" },
    CLI_FIELD_STORE(struct export_cmd, store),
    { 0    },
};

const struct schema image_export_schema = {
    .name = "image export",
    .size = sizeof(struct export_cmd),
    .fields = fields,
};

int image_export_format(const char *format, struct err *err)
{
    for (size_t i = 0; image_export_formats[i] != NULL; i++) {
        if (strcmp(format, image_export_formats[i]) == 0) {
            return 0;
        }
    }
    return err_set(err, -EINVAL,
                   "format '%s' is unknown: give one of raw, qcow2, vmdk, vdi, vhd, ova", format);
}

int image_export_write(struct store *s, const struct store_image *image, const char *name,
                       const char *path, const char *format, bool force, struct err *err)
{
    char disk[STORE_PATH_MAX];
    struct blk *blk = NULL;
    struct blk_convert_opts convert = { 0 };
    struct blk_opts src = { .path = store_path(s, disk, "images/%s/disk.raw", image->id),
                            .format = "raw",
                            .read_only = true };
    int rc = blk_open(&src, &blk, err);
    if (rc < 0) {
        return rc;
    }
    if (strcmp(format, "ova") == 0) {
        struct ova_export_opts ova = { .path = path,
                                       .force = force,
                                       .name = name,
                                       .cpus = 1,
                                       .memory = image->memory != 0 ? image->memory : OVA_MEMORY,
                                       .ndisks = 1,
                                       .disks = &blk };
        rc = ova_export(&ova, &convert, err);
    } else {
        struct blk_create_opts dst = { .path = path, .format = format, .force = force };
        rc = blk_convert_from(blk, &dst, &convert, err);
    }
    blk_close(blk);
    return rc;
}

static int export(void *obj, char **operands, struct err *err)
{
    const struct export_cmd *c = obj;
    struct store *s = NULL;
    struct store_image image = { 0 };
    const char *dot = strrchr(operands[1], '.');
    const char *format = c->format != NULL ? c->format : dot != NULL ? dot + 1 : "";
    char name[STORE_NAME_MAX + 1];
    (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(operands[0], ":"), operands[0]);
    int rc = image_export_format(format, err);
    rc = rc < 0 ? rc : store_open(c->store, &s, err);
    rc = rc < 0 ? rc : store_find(s, operands[0], &image, err);
    rc = rc < 0 ? rc : image_export_write(s, &image, name, operands[1], format, c->force, err);
    store_image_done(&image);
    store_close(s);
    return rc;
}

int image_export_main(int argc, char **argv)
{
    static const struct image_verb verb = {
        .name = "export", .schema = &image_export_schema, .min = 2, .max = 2, .work = export
    };
    struct export_cmd c;
    return image_run(&verb, &c, argc, argv);
}
