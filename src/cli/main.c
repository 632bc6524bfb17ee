/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada: the command line. It starts a VM from options by itself, since that is to be quick, and
 * becomes posada-tools, with all the libraries that images need, for everything else.
 */
#include <stdio.h>

#include "base/lang.h"
#include "cli/cli.h"
#include "cli/start.h"

static const struct {
    const char *name;
    const char *summary;
} commands[] = {
#define COMMAND(name, summary) { #name, summary },
#include "cli/commands.def"
#undef COMMAND
};

static void print_help(FILE *out)
{
    fputs(_("Usage: posada COMMAND [OPTIONS]\n\nCommands:\n"), out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        fprintf(out, "  %-12s %s\n", commands[i].name, _(commands[i].summary));
    }
    fputs(_("\n'posada COMMAND --help' describes a command. Manual: posada(1).\n"), out);
}

int main(int argc, char **argv)
{
    bool ours = false;
    lang_init();
    if (argc < 2) {
        print_help(stderr);
        return CLI_EXIT_USAGE;
    }
    if (cli_wants_help(argc, argv) || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return CLI_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("posada " POSADA_VERSION);
        return CLI_EXIT_OK;
    }
    int code = strcmp(argv[1], "run") == 0 ? start_main(argc - 1, argv + 1, &ours) : 0;
    if (ours) {
        return code;
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return cli_become(argv[1], "posada-tools", argv);
        }
    }
    fprintf(stderr, _("posada: unknown command '%s'\n"), argv[1]);
    fputs(_("Try 'posada --help'.\n"), stderr);
    return CLI_EXIT_USAGE;
}
