/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image resize FILE [+|-]SIZE */
#include <errno.h>

#include "cli/image.h"

struct resize_opts {
    char *format;
    bool shrink;
};

#define FIELD(member) .offset = offsetof(struct resize_opts, member)

static const struct schema_field fields[] = {
    {.name = "format",
     .letter = 'f',
     .arg = "raw|qcow2",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(format),
     .help = "the image's format; without it: qcow2 for a name ending in .qcow2, else raw" },
    { .name = "shrink",
     .type = SCHEMA_FLAG,
     FIELD(shrink),
     .help = "allow a smaller size: what lies behind it is lost" },
    { 0},
};

const struct schema image_resize_schema = {
    .name = "image resize",
    .size = sizeof(struct resize_opts),
    .fields = fields,
};

/* What the SIZE operand asks for. */
struct change {
    char sign; /* '+', '-', or 0: `size` is the new size */
    uint64_t size;
    const char *text;
};

static int parse_change(const char *text, struct change *ret_change, struct err *err)
{
    struct change c = { .text = text };
    if (text[0] == '+' || text[0] == '-') {
        c.sign = text[0];
    }
    if (schema_parse_size(text + (c.sign != 0), &c.size) < 0) {
        return err_set(err, -EINVAL, _("size '%s' is not a size such as 10G, +2G or -512M"), text);
    }
    *ret_change = c;
    return 0;
}

static int new_size(const struct change *c, uint64_t old, uint64_t *ret_size, struct err *err)
{
    uint64_t size = c->size;
    if (c->sign == '-' && size >= old) {
        return err_set(err, -EINVAL, _("size '%s': the image has only %llu bytes"), c->text,
                       (unsigned long long)old);
    }
    if (c->sign == '+' && ckd_add(&size, old, size)) {
        return err_set(err, -EFBIG, _("size '%s' is too large"), c->text);
    }
    size = c->sign == '-' ? old - size : size;
    if (size == 0) {
        return err_set(err, -EINVAL, _("size '%s' is too small: 512 bytes at least"), c->text);
    }
    *ret_size = size;
    return 0;
}

static int resize(const struct resize_opts *o, const char *path, const struct change *change,
                  struct err *err)
{
    struct blk_opts opts = { .path = path, .format = o->format, .no_backing = true };
    struct blk *blk = NULL;
    uint64_t size = 0;
    int rc = blk_open(&opts, &blk, err);
    if (rc < 0) {
        return rc;
    }
    rc = new_size(change, blk_size(blk), &size, err);
    if (rc == 0 && size < blk_size(blk) && !o->shrink) {
        rc = err_set(err, -EINVAL,
                     _("size '%s' is smaller than the image (%llu bytes); --shrink cuts it off"),
                     change->text, (unsigned long long)blk_size(blk));
    }
    if (rc == 0) {
        rc = blk_resize(blk, size, err);
    }
    if (rc == 0) {
        rc = blk_flush(blk);
        if (rc < 0) {
            (void)err_set_errno(err, rc, "image '%s': flush", path);
        }
    }
    blk_close(blk);
    return rc;
}

int image_resize_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct resize_opts o;
    char *operands[IMAGE_MAX_OPERANDS] = { NULL };
    if (cli_wants_help(argc, argv)) {
        image_print_help("resize", &image_resize_schema);
        return CLI_EXIT_OK;
    }
    schema_init(&image_resize_schema, &o);
    int code = CLI_EXIT_OK;
    struct change change = { 0 };
    if (image_parse(&image_resize_schema, &o, argc, argv, operands, 2, 2, &err) < 0 ||
        parse_change(operands[1], &change, &err) < 0) {
        code = cli_usage("image resize", &err);
    } else if (resize(&o, operands[0], &change, &err) < 0) {
        code = cli_fail("image resize", &err);
    }
    schema_done(&image_resize_schema, &o);
    return code;
}
