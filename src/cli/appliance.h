/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recipes and the images made from them, as the commands use them.
 */
#ifndef CLI_APPLIANCE_H
#define CLI_APPLIANCE_H

#include "image/build.h"

/* What a build is to be besides its recipe. */
struct appliance_opts {
    const char *from_dir;
    const char *from_tar;
    const char *cloud_init;
    const char *mirror;
    bool quiet;
};

/* Loads a recipe: "debian", "debian:13" (with that suite), or a file's path (with a "/" or ending
 * in .yaml). `ref` gets the image's NAME:TAG. -ENOENT lists those that there are. */
MUST_USE int appliance_recipe(const char *name, struct recipe *recipe, char *ref, size_t ref_len,
                              struct err *err);

/* Builds, showing the progress on stderr. */
MUST_USE int appliance_build(struct store *s, const struct recipe *recipe, const char *recipe_name,
                             const char *ref, const struct appliance_opts *o,
                             struct store_image *ret_image, struct err *err);

/* The image of that name; built first when there is none and a recipe has the name. One build at a
 * time: who comes second waits for the first. */
MUST_USE int appliance_get(struct store *s, const char *name, struct store_image *ret_image,
                           struct err *err);

#endif
