/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/run_words.h"

static void print_help(void)
{
    fputs(_("Usage: posada run IMAGE [OPTIONS] [-- COMMAND ...]\n"
            "       posada run --kernel FILE [OPTIONS]\n\n"
            "Boots a virtual machine in the foreground: an image of the store, built first where "
            "there\n"
            "is none, or a kernel. With COMMAND, runs that inside and ends with its exit code.\n\n"
            "Options:\n"),
          stdout);
    schema_print_help(&run_image_schema, stdout);
    schema_print_help(&vmconfig_schema, stdout);
    fputs(_("\nExit codes:\n"), stdout);
#define EXITCODE(name, number, help) printf("  %-4d %s\n", number, _(help));
#include "vmm/exitcodes.def"
#undef EXITCODE
    fputs(_("  odd  the guest's own code from isa-debug-exit: (value << 1 | 1) & 255\n"), stdout);
}

int start_parse(struct vmconfig *c, int argc, char **argv, struct err *err)
{
    int first = 0;
    int rc = schema_parse_options(&vmconfig_schema, c, argc, argv, &first, err);
    if (rc == 0 && first < argc) {
        rc = err_set(err, -EINVAL, "'%s' is not an option (a kernel is given by --kernel)",
                     argv[first]);
    }
    return rc;
}

int start_vmm(struct vmconfig *c)
{
    char **args = schema_to_argv(&vmconfig_schema, c, "posada-vmm");
    schema_done(&vmconfig_schema, c);
    (void)cli_become("run", "posada-vmm", args);
    free(args);
    return VMCONFIG_EXIT_FAILED;
}

static bool names_image(int argc, char **argv)
{
    struct run_words *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        cli_no_memory();
    }
    run_words_split(w, argc, argv);
    bool image = w->image != NULL;
    free(w);
    return image;
}

int start_main(int argc, char **argv, bool *ret_ours)
{
    *ret_ours = true;
    if (cli_wants_help(argc, argv)) {
        print_help();
        return CLI_EXIT_OK;
    }
    if (names_image(argc, argv)) {
        *ret_ours = false;
        return 0;
    }
    struct err err = ERR_INIT;
    struct vmconfig c;
    schema_init(&vmconfig_schema, &c);
    int rc = start_parse(&c, argc, argv, &err);
    if (rc == 0 && c.file != NULL) {
        *ret_ours = false;
        schema_done(&vmconfig_schema, &c);
        return 0;
    }
    if (rc < 0 || schema_check(&vmconfig_schema, &c, &err) < 0) {
        schema_done(&vmconfig_schema, &c);
        return cli_usage("run", &err);
    }
    return start_vmm(&c);
}
