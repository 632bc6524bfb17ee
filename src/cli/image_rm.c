/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image rm IMAGE */
#include "cli/image_store.h"

static const struct schema_field fields[] = { CLI_FIELD_STORE(struct image_store_opts, store),
                                              { 0 } };

const struct schema image_rm_schema = {
    .name = "image rm",
    .size = sizeof(struct image_store_opts),
    .fields = fields,
};

static int rm(struct store *s, const struct image_store_opts *o, char **operands, struct err *err)
{
    (void)o;
    return store_rm(s, operands[0], err);
}

int image_rm_main(int argc, char **argv)
{
    return image_store_main(argc, argv, &image_rm_schema, 1, rm);
}
