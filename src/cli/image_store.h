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

/* What a verb does with an open store. */
typedef int image_store_fn(struct store *s, const struct image_store_opts *o, char **operands,
                           struct err *err);

/* main() of such a verb: help, options, `operands` operands, opening; returns the exit code. */
int image_store_main(int argc, char **argv, const struct schema *schema, int operands,
                     image_store_fn *fn);

/* All that is known of an image. */
json_t *image_store_json(const struct store_image *image, char **refs);

#endif
