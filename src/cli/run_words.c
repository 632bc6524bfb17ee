/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/run_words.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "vmm/vmconfig.h"

#define FIELD(member) .offset = offsetof(struct run_image_opts, member)

static const struct schema_field fields[] = {
    {.name = "rm",
     .type = SCHEMA_FLAG,
     FIELD(rm),
     .help = "image: throw the VM's disk away at the end; without --name that is the default" },
    { .name = "keep",
     .type = SCHEMA_FLAG,
     FIELD(keep),
     .help = "image: keep the VM's disk under its name (--name, else the image's)" },
    { .name = "ssh",
     .type = SCHEMA_FLAG,
     FIELD(ssh),
     .help = "image: wait for the system and connect by ssh; the VM ends with the session" },
    { .name = "system",
     .type = SCHEMA_FLAG,
     FIELD(system),
     .help = "image: start the whole system before COMMAND, with its services" },
    { .name = "mount",
     .arg = "HOST:GUEST[:rw]",
     .type = SCHEMA_STR,
     .list = true,
     .min = 1,
     FIELD(mount),
     .help =
          "image: COMMAND or the ssh session finds the host's folder HOST at GUEST; it may only "
          "read it, with :rw write it as well" },
    CLI_FIELD_STORE(struct run_image_opts, store),
    { 0                                                               },
};

const struct schema run_image_schema = {
    .name = "run",
    .size = sizeof(struct run_image_opts),
    .fields = fields,
};

/* The option that `arg` is, and whether its value is the next argument. */
static const struct schema_field *find_option(const struct schema *schema, const char *arg,
                                              bool *ret_next)
{
    char name[64];
    size_t len = strcspn(arg + 2 - (arg[1] != '-'), "=");
    const struct schema_field *f = NULL;
    if (arg[1] == '-') {
        (void)snprintf(name, sizeof(name), "%.*s", (int)MIN(len, sizeof(name) - 1), arg + 2);
        f = schema_find(schema, name);
    } else {
        for (f = schema->fields; f->name != NULL && (f->letter == 0 || f->letter != arg[1]); f++) {
        }
        f = f->name != NULL ? f : NULL;
    }
    *ret_next = f != NULL && f->type != SCHEMA_FLAG && strchr(arg, '=') == NULL;
    return f;
}

void run_words_split(struct run_words *w, int argc, char **argv)
{
    w->own[w->nown++] = argv[0];
    w->vm[w->nvm++] = argv[0];
    for (int i = 1; i < argc && w->nown < RUN_WORDS_MAX - 2 && w->nvm < RUN_WORDS_MAX - 2; i++) {
        char *arg = argv[i];
        bool next = false;
        if (strcmp(arg, "--") == 0) {
            w->command = &argv[i + 1];
            return;
        }
        if (arg[0] != '-' || arg[1] == '\0') {
            w->too_many |= w->image != NULL;
            w->image = w->image != NULL ? w->image : arg;
        } else if (find_option(&run_image_schema, arg, &next) != NULL) {
            w->own[w->nown++] = arg;
            if (next && i + 1 < argc) {
                w->own[w->nown++] = argv[++i];
            }
        } else {
            (void)find_option(&vmconfig_schema, arg, &next);
            w->vm[w->nvm++] = arg;
            if (next && i + 1 < argc) {
                w->vm[w->nvm++] = argv[++i];
            }
        }
    }
}

bool run_words_given(const struct run_words *w, const char *name, char letter)
{
    bool next;
    for (int i = 1; i < w->nvm; i++) {
        if (w->vm[i][0] == '-' && w->vm[i][1] != '\0') {
            const struct schema_field *f = find_option(&vmconfig_schema, w->vm[i], &next);
            if (f != NULL && (strcmp(f->name, name) == 0 || (letter != 0 && f->letter == letter))) {
                return true;
            }
            i += next ? 1 : 0;
        }
    }
    return false;
}
