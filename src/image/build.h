/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Builds an appliance: from a recipe to an image in the store.
 *
 *     recipe -> mmdebstrap -> tar stream -> ext4 in disk.raw -> kernel, initrd -> GRUB -> digest
 *
 * All work is in a folder of the store's tmp/ until the last step, a rename: however it ends, the
 * store has the image whole or not at all. The same recipe, packages and SOURCE_DATE_EPOCH give the
 * same bytes: UUIDs come from the recipe, times from the epoch, order from the archive.
 *
 * build.c has the phases, build_plan.c what the recipe means, build_files.c our files in the image,
 * build_base.c what images have in common, build_debian.c mmdebstrap with its package cache. One
 * thread a build; any number of processes.
 */
#ifndef IMAGE_BUILD_H
#define IMAGE_BUILD_H

#include "image/recipe.h"
#include "image/store.h"

/* What the user sees. All may be NULL. */
struct build_watch {
    /* A phase begins: a few words, in English. */
    void (*phase)(void *opaque, const char *name);
    /* How far it is: bytes done; total 0 = not known. */
    void (*progress)(void *opaque, uint64_t done, uint64_t total);
    /* About five times a second while another program works. */
    void (*tick)(void *opaque);
    void *opaque;
};

struct build_opts {
    const struct recipe *recipe;
    const char *ref;         /* "debian:12" */
    const char *recipe_name; /* for the description */
    const char *from_dir;    /* a finished root file system in place of packages */
    const char *from_tar;
    const char *cloud_init; /* folder with user-data and meta-data */
    const char *mirror;     /* NULL: what the host's apt uses */
    const char *agent;      /* path of the program posada-agent */
    int64_t epoch;
    const struct child_stop *stop;
    struct build_watch watch;
};

/* $SOURCE_DATE_EPOCH, or 2025-01-01. -EINVAL: not a number. */
MUST_USE int build_epoch(int64_t *ret_epoch, struct err *err);

/* Builds and adds to the store under opts->ref. *ret_image: what it became. */
MUST_USE int build_run(struct store *s, const struct build_opts *opts,
                       struct store_image *ret_image, struct err *err);

#endif
