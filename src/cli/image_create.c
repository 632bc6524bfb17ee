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
    uint64_t size; /* of the SIZE operand; 0 = of the image below */
};

#define FIELD(member) .offset = offsetof(struct create_opts, member)

static const struct schema_field fields[] = {
    IMAGE_FIELD_FORMAT(struct create_opts, format),
    {.name = "backing",
                                  .letter = 'b',
                                  .arg = "FILE",
                                  .type = SCHEMA_STR,
                                  .min = 1,
                                  .complete = "file",
                                  FIELD(backing),
                                  .help = "qcow2: the image below; a relative name starts at the new image's folder" },
    { .name = "backing-format",
                                  .letter = 'F',
                                  .arg = "FORMAT",
                                  .type = SCHEMA_STR,
                                  .choices = image_formats,
                                  FIELD(backing_format),
                                  .help = "the format of the image below; needed with --backing" },
    IMAGE_FIELD_OPTION(struct create_opts, params),
    { .name = "force",          .type = SCHEMA_FLAG, FIELD(force), .help = "replace FILE if it exists" },
    { 0   },
};

const struct schema image_create_schema = {
    .name = "image create",
    .size = sizeof(struct create_opts),
    .fields = fields,
};

static int prepare(void *obj, char **operands, struct err *err)
{
    struct create_opts *o = obj;
    const char *text = operands[1];
    if (text == NULL && o->backing != NULL) {
        return 0;
    }
    if (text == NULL) {
        return err_set(err, -EINVAL,
                       _("SIZE is missing (only an image with --backing can take the size of the "
                         "image below)"));
    }
    if (schema_parse_size(text, &o->size) < 0) {
        return err_set(err, -EINVAL, _("size '%s' is not a size such as 10G"), text);
    }
    if (o->size == 0) {
        return err_set(err, -EINVAL, _("size '%s' is too small: 512 bytes at least"), text);
    }
    return 0;
}

static int create(void *obj, char **operands, struct err *err)
{
    const struct create_opts *o = obj;
    CLEANUP_FREE const char **params = image_strings(&o->params);
    struct blk_create_opts opts = {
        .path = operands[0],
        .format = o->format != NULL ? o->format : blk_format_of_name(operands[0]),
        .size = o->size,
        .force = o->force,
        .backing = o->backing,
        .backing_format = o->backing_format,
        .params = params,
    };
    return blk_create(&opts, err);
}

int image_create_main(int argc, char **argv)
{
    static const struct image_verb verb = {
        .name = "create",
        .schema = &image_create_schema,
        .min = 1,
        .max = 2,
        .prepare = prepare,
        .work = create,
    };
    struct create_opts o;
    return image_run(&verb, &o, argc, argv);
}
