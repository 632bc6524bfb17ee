/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada run: checks the options, reads the YAML file, and becomes posada-vmm.
 *
 * The VM is that process: there is no daemon and no parent to outlive. What posada-vmm gets is the
 * whole configuration as an argument list, so `ps` shows what a VM is made of.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/run_image.h"
#include "cli/yaml_file.h"
#include "vmm/vmconfig.h"

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

/* The file first, then the command line on top of it. */
static int load(struct vmconfig *c, int argc, char **argv, struct err *err)
{
    int first = 0;
    int rc = schema_parse_options(&vmconfig_schema, c, argc, argv, &first, err);
    if (rc == 0 && first < argc) {
        rc = err_set(err, -EINVAL, "'%s' is not an option (a kernel is given by --kernel)",
                     argv[first]);
    }
    if (rc == 0 && c->file != NULL) {
        char *path = take_ptr(&c->file);
        schema_done(&vmconfig_schema, c);
        schema_init(&vmconfig_schema, c);
        rc = yaml_file_load(path, &vmconfig_schema, c, err);
        free(path);
        if (rc == 0 && c->file != NULL) {
            rc = err_set(err, -EINVAL, "%s: a file cannot name another file", c->file);
        }
        if (rc == 0) {
            rc = schema_parse_options(&vmconfig_schema, c, argc, argv, &first, err);
        }
        free(take_ptr(&c->file));
    }
    return rc < 0 ? rc : schema_check(&vmconfig_schema, c, err);
}

int run_main(int argc, char **argv)
{
    if (cli_wants_help(argc, argv)) {
        print_help();
        return CLI_EXIT_OK;
    }
    if (run_image_wanted(argc, argv)) {
        return run_image_main(argc, argv);
    }
    struct err err = ERR_INIT;
    struct vmconfig c;
    schema_init(&vmconfig_schema, &c);
    if (load(&c, argc, argv, &err) < 0) {
        schema_done(&vmconfig_schema, &c);
        return cli_usage("run", &err);
    }
    char **args = schema_to_argv(&vmconfig_schema, &c, "posada-vmm");
    schema_done(&vmconfig_schema, &c);
    char *program = cli_program_path("posada-vmm");
    if (args != NULL) {
        execvp(program, args);
    }
    (void)err_set_errno(&err, -errno,
                        "cannot start '%s': is it installed beside 'posada' or in PATH?", program);
    free(args);
    free(program);
    (void)cli_fail("run", &err);
    return VMCONFIG_EXIT_FAILED;
}
