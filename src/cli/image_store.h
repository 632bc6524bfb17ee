/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the verbs of `posada image` that work on the store share. */
#ifndef CLI_IMAGE_STORE_H
#define CLI_IMAGE_STORE_H

#include <jansson.h>

#include "cli/image.h"
#include "image/store.h"

struct image_store_opts {
    char *store;
    bool json;
};

#define IMAGE_STORE_FIELD                                                                          \
    {                                                                                              \
        .name = "store", .arg = "DIR", .type = SCHEMA_STR, .min = 1, .complete = "dir",            \
        .offset = offsetof(struct image_store_opts, store),                                        \
        .help = "the image store; without it $POSADA_STORE, /var/lib/posada or "                   \
                "~/.local/share/posada"                                                            \
    }
/* What a verb does with an open store. */
typedef int image_store_fn(struct store *s, const struct image_store_opts *o, char **operands,
                           struct err *err);

/* main() of such a verb: help, options, `operands` operands, opening; returns the exit code. */
int image_store_main(int argc, char **argv, const struct schema *schema, int operands,
                     image_store_fn *fn);

/* All that is known of an image. */
json_t *image_store_json(const struct store_image *image, char **refs);

#endif
