/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada run, as far as `posada` does not do it by itself (start.c): an image, or options from a
 * YAML file.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/run_image.h"
#include "cli/run_words.h"
#include "cli/start.h"
#include "cli/yaml_file.h"

/* The file first, then the command line on top of it. */
static int load(struct vmconfig *c, int argc, char **argv, struct err *err)
{
    int rc = start_parse(c, argc, argv, err);
    if (rc == 0 && c->file != NULL) {
        CLEANUP_FREE char *path = take_ptr(&c->file);
        schema_done(&vmconfig_schema, c);
        schema_init(&vmconfig_schema, c);
        rc = yaml_file_load(path, &vmconfig_schema, c, err);
        if (rc == 0 && c->file != NULL) {
            rc = err_set(err, -EINVAL, "%s: a file cannot name another file", c->file);
        }
        rc = rc < 0 ? rc : start_parse(c, argc, argv, err);
        free(take_ptr(&c->file));
    }
    return rc < 0 ? rc : schema_check(&vmconfig_schema, c, err);
}

static int run_file_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct vmconfig c;
    schema_init(&vmconfig_schema, &c);
    if (load(&c, argc, argv, &err) < 0) {
        schema_done(&vmconfig_schema, &c);
        return cli_usage("run", &err);
    }
    return start_vmm(&c);
}

int run_main(int argc, char **argv)
{
    struct run_words *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        abort();
    }
    run_words_split(w, argc, argv);
    int code = w->image != NULL ? run_image_main(w) : run_file_main(argc, argv);
    free(w);
    return code;
}
