/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an appliance consists of: the keys of a recipe file (docs/recipes.md) as an option table, so
 * that a YAML file sets them (cli/yaml_file.h) and the command line adds to them.
 *
 * Any thread.
 */
#ifndef IMAGE_RECIPE_H
#define IMAGE_RECIPE_H

#include "base/schema.h"

struct recipe_file {
    char *path; /* absolute, in the image */
    char *content;
    char *mode; /* octal text */
};

struct recipe_user {
    char *name;
    char *groups;                /* "sudo,adm"; NULL: sudo */
    char *password;              /* encrypted, as in shadow(5); NULL: locked, keys only */
    struct schema_list ssh_keys; /* char *: lines of authorized_keys */
};

struct recipe {
    char *description;
    char *name; /* of the image: NAME or NAME:TAG; NULL: the recipe's own name */
    char *suite;
    char *arch;
    char *hostname;
    uint64_t size;               /* of the disk, bytes */
    uint64_t memory;             /* that a VM should have, bytes; 0: no wish */
    struct schema_list packages; /* char * */
    struct schema_list files;    /* struct recipe_file */
    struct schema_list commands; /* char *: shell, run as root in the new system */
    struct schema_list users;    /* struct recipe_user */
};

extern const struct schema recipe_schema;

/* The tag that belongs to a suite: "12" for bookworm, else the suite's name. */
const char *recipe_tag_of_suite(const char *suite);
/* The suite that a name or number means: "bookworm" for "12"; other texts are returned as given. */
const char *recipe_suite_of(const char *text);

#endif
