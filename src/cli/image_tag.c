/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image tag IMAGE NAME:TAG */
#include "cli/image_store.h"

static const struct schema_field fields[] = { CLI_FIELD_STORE(struct image_store_opts, store),
                                              { 0 } };

const struct schema image_tag_schema = {
    .name = "image tag",
    .size = sizeof(struct image_store_opts),
    .fields = fields,
};

static int tag(struct store *s, const struct image_store_opts *o, char **operands, struct err *err)
{
    struct store_image image = { 0 };
    (void)o;
    int rc = store_find(s, operands[0], &image, err);
    rc = rc < 0 ? rc : store_tag(s, operands[1], image.id, err);
    store_image_done(&image);
    return rc;
}

int image_tag_main(int argc, char **argv)
{
    return image_store_main(argc, argv, &image_tag_schema, 2, tag);
}
