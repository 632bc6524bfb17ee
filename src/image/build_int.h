/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by the files of the builder. */
#ifndef IMAGE_BUILD_INT_H
#define IMAGE_BUILD_INT_H

#include "image/build.h"
#include "image/gpt.h"
#include "image/tarball.h"

struct build {
    struct store *store;
    const struct build_opts *opts;
    const struct recipe *recipe;
    struct store_tmp tmp;
    char disk[STORE_PATH_MAX + 32];
    uint64_t size; /* of the disk: the recipe's, rounded up to 1 MiB */
    /* From the recipe (build_plan.c). */
    char root_uuid[37];
    struct gpt_uuids uuids;
    uint32_t fat_id;
    char hostname[STORE_NAME_MAX + 1];
    char *base_packages; /* "a,b,c" */
    char *packages;      /* those on top: "a b c", or "" */
    /* Where packages come from, and the base (build_debian.c, build_base.c). */
    char sources[2048]; /* sources.list */
    char proxy[600];    /* "http_proxy=URL", or "" */
    char base[STORE_PATH_MAX + 32];
    bool stale; /* the base has packages that are not the newest any more */
    /* Of the kernel that was found. */
    char version[128];
    char *agent; /* the program */
    size_t agent_len;
    /* Why packages could not be had: our text, and the line that says it. NULL: not known. */
    const char *cause;
    char cause_line[256];
    bool cause_closing;
};

MUST_USE int build_plan(struct build *b, struct err *err);

/* Files that commands of the recipe may see and change; and those that are put in at the end. */
MUST_USE int build_files(struct build *b, struct tarball_files *early, struct tarball_files *late,
                         struct err *err);

/* Waits for a program whose output was read with the result `rc`: the cause where one failed. */
MUST_USE int build_child_end(struct child *take_child, int rc, struct err *err);

/* Makes b->base, of what the store keeps or anew. */
MUST_USE int build_base(struct build *b, struct err *err);
/* Neither we nor the store have that base any more. */
void build_base_drop(struct build *b);

/* Starts mmdebstrap with `args` (NULL-terminated) beside those that it always gets. `target`: where
 * the tar archive goes, "-" for the child's output. `input` may be NULL. */
MUST_USE int build_mmdebstrap(struct build *b, const char *const *args, const char *target,
                              const char *input, struct child **ret_child, struct err *err);
/* As build_child_end(), in words for the user. */
MUST_USE int build_mmdebstrap_end(struct build *b, struct child *take_child, int rc,
                                  struct err *err);

/* Fills the root from packages. */
MUST_USE int build_debian(struct build *b, const struct tarball_files *early, struct rootfs *fs,
                          struct err *err);
/* The part that all sources have: the archive into the file system. `child` or `tar`. */
MUST_USE int build_fill(struct build *b, struct child *child, const char *tar, struct rootfs *fs,
                        struct err *err);

void build_phase(const struct build *b, const char *name);

#endif
