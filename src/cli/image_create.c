/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image create FILE [SIZE] */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "cli/image.h"

struct create_opts {
    char *format;
    char *backing;
    char *backing_format;
    struct schema_list params;
    bool force;
};

#define FIELD(member) .offset = offsetof(struct create_opts, member)

static const struct schema_field fields[] = {
    {.name = "format",
     .letter = 'f',
     .arg = "raw|qcow2",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(format),
     .help = "the image's format; without it: qcow2 for a name ending in .qcow2, else raw" },
    { .name = "backing",
     .letter = 'b',
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     .complete = "file",
     FIELD(backing),
     .help = "qcow2: the image below; a relative name starts at the new image's folder" },
    { .name = "backing-format",
     .letter = 'F',
     .arg = "raw|qcow2",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(backing_format),
     .help = "the format of the image below; needed with --backing" },
    { .name = "option",
     .letter = 'o',
     .arg = "KEY=VALUE",
     .type = SCHEMA_STR,
     .min = 1,
     .list = true,
     FIELD(params),
     .help = "an option of the format, such as cluster_size=64K" },
    { .name = "force",                                                                    .type = SCHEMA_FLAG, FIELD(force), .help = "replace FILE if it exists" },
    { 0                                                                        },
};

const struct schema image_create_schema = {
    .name = "image create",
    .size = sizeof(struct create_opts),
    .fields = fields,
};

/* The SIZE operand, or 0 for the size of the image below. */
static int parse_size(const struct create_opts *o, const char *text, uint64_t *ret_size,
                      struct err *err)
{
    *ret_size = 0;
    if (text == NULL && o->backing != NULL) {
        return 0;
    }
    if (text == NULL) {
        return err_set(err, -EINVAL,
                       _("SIZE is missing (only an image with --backing can take the size of the "
                         "image below)"));
    }
    if (schema_parse_size(text, ret_size) < 0) {
        return err_set(err, -EINVAL, _("size '%s' is not a size such as 10G"), text);
    }
    if (*ret_size == 0) {
        return err_set(err, -EINVAL, _("size '%s' is too small: 512 bytes at least"), text);
    }
    return 0;
}

static int create(const struct create_opts *o, const char *path, uint64_t size, struct err *err)
{
    CLEANUP_FREE const char **params = image_strings(&o->params);
    struct blk_create_opts opts = {
        .path = path,
        .format = o->format != NULL ? o->format : image_format_of(path),
        .size = size,
        .force = o->force,
        .backing = o->backing,
        .backing_format = o->backing_format,
        .params = params,
    };
    return blk_create(&opts, err);
}

int image_create_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct create_opts o;
    char *operands[IMAGE_MAX_OPERANDS] = { NULL };
    if (cli_wants_help(argc, argv)) {
        image_print_help("create", &image_create_schema);
        return CLI_EXIT_OK;
    }
    schema_init(&image_create_schema, &o);
    int code = CLI_EXIT_OK;
    uint64_t size = 0;
    if (image_parse(&image_create_schema, &o, argc, argv, operands, 1, 2, &err) < 0 ||
        parse_size(&o, operands[1], &size, &err) < 0) {
        code = cli_usage("image create", &err);
    } else if (create(&o, operands[0], size, &err) < 0) {
        code = cli_fail("image create", &err);
    }
    schema_done(&image_create_schema, &o);
    return code;
}
