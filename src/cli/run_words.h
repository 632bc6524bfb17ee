/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line of `posada run`, sorted: options that concern an image, options of the VM, the
 * image, the command inside of it. Values are not looked at.
 */
#ifndef CLI_RUN_WORDS_H
#define CLI_RUN_WORDS_H

#include "base/schema.h"

#define RUN_WORDS_MAX 4096

struct run_image_opts {
    bool rm;
    bool keep;
    bool ssh;
    bool system;
    struct schema_list mount; /* char *: "HOST:GUEST[:rw]" */
    char *store;
};

/* The options on top of those of vmconfig.c. */
extern const struct schema run_image_schema;

struct run_words {
    char *own[RUN_WORDS_MAX]; /* options of run_image_schema */
    char *vm[RUN_WORDS_MAX];  /* of vmconfig_schema */
    int nown, nvm;
    const char *image;
    char **command; /* behind "--"; NULL: none */
    bool too_many;
};

/* Sorts `argv` into `w`, which is all zero. */
void run_words_split(struct run_words *w, int argc, char **argv);

/* True when the VM's option of that name, or of that letter (0: none), is among the words. */
bool run_words_given(const struct run_words *w, const char *name, char letter);

#endif
