/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image resize FILE [+|-]SIZE */
#include <errno.h>

#include "cli/image.h"

/* What the SIZE operand asks for. */
struct change {
    char sign; /* '+', '-', or 0: `size` is the new size */
    uint64_t size;
    const char *text;
};

struct resize_opts {
    char *format;
    bool shrink;
    struct change change;
};

#define FIELD(member) .offset = offsetof(struct resize_opts, member)

static const struct schema_field fields[] = {
    IMAGE_FIELD_FORMAT(struct resize_opts, format),
    {.name = "shrink",
                                  .type = SCHEMA_FLAG,
                                  FIELD(shrink),
                                  .help = "allow a smaller size: what lies behind it is lost" },
    { 0   },
};

const struct schema image_resize_schema = {
    .name = "image resize",
    .size = sizeof(struct resize_opts),
    .fields = fields,
};

static int prepare(void *obj, char **operands, struct err *err)
{
    struct resize_opts *o = obj;
    struct change c = { .text = operands[1] };
    if (c.text[0] == '+' || c.text[0] == '-') {
        c.sign = c.text[0];
    }
    if (schema_parse_size(c.text + (c.sign != 0), &c.size) < 0) {
        return err_set(err, -EINVAL, _("size '%s' is not a size such as 10G, +2G or -512M"),
                       c.text);
    }
    o->change = c;
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

static int resize(void *obj, char **operands, struct err *err)
{
    const struct resize_opts *o = obj;
    const struct change *change = &o->change;
    const char *path = operands[0];
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
    static const struct image_verb verb = {
        .name = "resize",
        .schema = &image_resize_schema,
        .min = 2,
        .max = 2,
        .prepare = prepare,
        .work = resize,
    };
    struct resize_opts o;
    return image_run(&verb, &o, argc, argv);
}
