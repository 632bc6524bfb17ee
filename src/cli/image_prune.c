/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image prune */
#include <stdio.h>

#include "cli/image_store.h"

static const struct schema_field fields[] = { CLI_FIELD_STORE(struct image_store_opts, store),
                                              { 0 } };

const struct schema image_prune_schema = {
    .name = "image prune",
    .size = sizeof(struct image_store_opts),
    .fields = fields,
};

static int prune(struct store *s, const struct image_store_opts *o, char **operands,
                 struct err *err)
{
    uint64_t bytes = 0;
    char size[64];
    (void)o;
    (void)operands;
    int rc = store_prune(s, &bytes, err);
    if (rc == 0) {
        image_format_size(bytes, size, sizeof(size));
        printf(_("freed: %s\n"), size);
    }
    return rc;
}

int image_prune_main(int argc, char **argv)
{
    return image_store_main(argc, argv, &image_prune_schema, 0, prune);
}
