/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option tables: a fact about an option is written once, and parser, --help, manual page, shell
 * completion, configuration file and argument list are made from the row.
 *
 * A `struct schema` describes the fields of one C struct (by offset). Fields are set by name from
 * text; nested groups are written as "FIRST,key=value,flag" on a command line ("," inside a value
 * is doubled) and as mappings in a file.
 *
 *     struct opts o;
 *     schema_init(&opts_schema, &o);
 *     rc = schema_parse_argv(&opts_schema, &o, argc, argv, &operands, &err);
 *     ...
 *     schema_done(&opts_schema, &o);
 *
 * No global state; any thread.
 */
#ifndef BASE_SCHEMA_H
#define BASE_SCHEMA_H

#include <stdio.h>

#include "base/bits.h"
#include "base/err.h"

enum schema_type {
    SCHEMA_FLAG,  /* bool: present or not; in a file true/false */
    SCHEMA_STR,   /* char *, owned */
    SCHEMA_UINT,  /* uint64_t, min to max */
    SCHEMA_SIZE,  /* uint64_t bytes, "512M": K M G T P, binary; min to max */
    SCHEMA_ENUM,  /* uint64_t: index in `choices` */
    SCHEMA_GROUP, /* the struct of `sub` */
};

struct schema;

struct schema_field {
    const char *name;
    char letter;      /* one-letter form, or 0 */
    const char *arg;  /* name of the value in help, e.g. "FILE" */
    const char *help; /* one sentence, English; translated when printed */
    enum schema_type type;
    size_t offset;
    bool list;       /* repeatable: the member is a struct schema_list */
    bool positional; /* in a group: the first element without "=" */
    bool required;
    uint64_t min, max;          /* SCHEMA_UINT, SCHEMA_SIZE; max 0 = no limit */
    const char *deflt;          /* text of the default, NULL = unset / 0 */
    const char *const *choices; /* SCHEMA_ENUM, NULL-terminated; SCHEMA_STR: for completion */
    const struct schema *sub;   /* SCHEMA_GROUP */
    const char *complete;       /* "file" or "dir": how a shell completes the value */
};

struct schema {
    const char *name;
    size_t size;
    const struct schema_field *fields; /* ends with a NULL name */
    /* Looks at the whole once all fields are set. May be NULL. */
    int (*check)(const void *obj, struct err *err);
};

/* Elements: char *, uint64_t or structs, as the field's type says. */
struct schema_list {
    void *items;
    size_t count;
};

#define SCHEMA_MAX_LIST 256 /* elements of one repeatable option */

/* Zeroes `obj` and applies the defaults. */
void schema_init(const struct schema *schema, void *obj);
/* Frees what the fields own. */
void schema_done(const struct schema *schema, void *obj);

/* Sets one field from text (a list: appends). -ENOENT: no such field (the names are listed);
 * -EINVAL: the value, its allowed range in the text; -EEXIST: set twice and no list. */
MUST_USE int schema_set(const struct schema *schema, void *obj, const char *name, const char *value,
                        struct err *err);
/* schema_set() of "FIRST,key=value,..." into a group object. */
MUST_USE int schema_parse_group(const struct schema *schema, void *obj, const char *text,
                                struct err *err);

/* Parses "--name value", "--name=value", "-x value"; argv[0] is skipped. Stops at "--" or the first
 * operand; *ret_first is the index of what is left. Runs the check. */
MUST_USE int schema_parse_argv(const struct schema *schema, void *obj, int argc, char **argv,
                               int *ret_first, struct err *err);
/* The same without the check, where more comes from elsewhere (a file) before it is whole. */
MUST_USE int schema_parse_options(const struct schema *schema, void *obj, int argc, char **argv,
                                  int *ret_first, struct err *err);
/* Required fields and the check; schema_parse_argv() has done it. */
MUST_USE int schema_check(const struct schema *schema, const void *obj, struct err *err);

/* The argument list that gives `obj` again: NULL-terminated, one block for free(). NULL: no
 * memory. Defaults are left out. */
char **schema_to_argv(const struct schema *schema, const void *obj, const char *argv0);

/* "512M" <-> bytes. -EINVAL / -ERANGE. The printed form is exact. */
MUST_USE int schema_parse_size(const char *text, uint64_t *ret_bytes);
void schema_format_size(uint64_t bytes, char *buf, size_t len);

void schema_print_help(const struct schema *schema, FILE *out);
/* scdoc source of an OPTIONS section. */
void schema_print_scdoc(const struct schema *schema, FILE *out);

const struct schema_field *schema_find(const struct schema *schema, const char *name);

#endif
