/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada image VERB: work on disk images. To add a verb: a file image_NAME.c with
 * image_NAME_main() and its option table image_NAME_schema, a row in image_verbs.def.
 */
#ifndef CLI_IMAGE_H
#define CLI_IMAGE_H

#include "base/schema.h"
#include "block/blk.h"
#include "cli/cli.h"

#define VERB(name, operands, summary)                                                              \
    int image_##name##_main(int argc, char **argv);                                                \
    extern const struct schema image_##name##_schema;
#include "cli/image_verbs.def"
#undef VERB

/* The values of --format and its kind, for completion. NULL-terminated. */
extern const char *const image_formats[];

/* A struct schema_field of several verbs each; `owner` is the type of the verb's struct. */
#define IMAGE_FIELD_FORMAT(owner, member)                                                          \
    {                                                                                              \
        .name = "format", .letter = 'f', .arg = "FORMAT", .type = SCHEMA_STR,                      \
        .choices = image_formats, .offset = offsetof(owner, member),                               \
        .help = "the image's format; without it the ending of the name tells, such as .qcow2"      \
    }
#define IMAGE_FIELD_OPTION(owner, member)                                                          \
    {                                                                                              \
        .name = "option", .letter = 'o', .arg = "KEY=VALUE", .type = SCHEMA_STR, .min = 1,         \
        .list = true, .offset = offsetof(owner, member),                                           \
        .help = "an option of the new image's format, such as cluster_size=64K"                    \
    }
#define IMAGE_FIELD_JSON(owner, member)                                                            \
    {                                                                                              \
        .name = "json", .type = SCHEMA_FLAG, .offset = offsetof(owner, member),                    \
        .help = "print JSON"                                                                       \
    }

/* What a verb's command line gave: options in the verb's own struct, and these. */
#define IMAGE_MAX_OPERANDS 2

/*
 * Parses `argv` (options and operands in any order) into `obj` and `operands`. Returns the number
 * of operands, `min` to `max` (at most IMAGE_MAX_OPERANDS); -EINVAL with `err` filled otherwise.
 */
MUST_USE int image_parse(const struct schema *schema, void *obj, int argc, char **argv,
                         char **operands, int min, int max, struct err *err);

/* How image_run() carries out a verb. */
struct image_verb {
    const char *name;
    const struct schema *schema;
    int min, max; /* operands */
    /* What is wrong with the operands, before any work: a usage error. May be NULL. */
    int (*prepare)(void *obj, char **operands, struct err *err);
    int (*work)(void *obj, char **operands, struct err *err);
};

/* The whole of a verb's main(): help, parsing into `obj` (of schema->size), work, clean-up; returns
 * the exit code. */
int image_run(const struct image_verb *verb, void *obj, int argc, char **argv);

/* Prints "Usage: posada image VERB ..." with the options of `schema` on stdout. */
void image_print_help(const char *verb, const struct schema *schema);

/* The value as "4G", and exact bytes behind it where that rounds: "1.5 GiB (1610612736 bytes)". */
void image_format_size(uint64_t bytes, char *buf, size_t len);

/* A text from an image made fit for a terminal: control and non-ASCII bytes as \xNN. */
void image_print_text(const char *text);

/* Copies the items of a list of strings into a NULL-terminated array for free(); NULL for an empty
 * list. Aborts on no memory. */
const char **image_strings(const struct schema_list *list);

#endif
