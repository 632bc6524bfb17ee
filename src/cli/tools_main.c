/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada-tools: the commands of `posada`, which becomes this program. Each is a file of its own and
 * a row in commands.def.
 */
#include <stdio.h>
#include <string.h>

#include "base/lang.h"
#include "cli/cli.h"

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
} commands[] = {
#define COMMAND(name, summary) { #name, name##_main },
#include "cli/commands.def"
#undef COMMAND
};

int main(int argc, char **argv)
{
    lang_init();
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].main(argc - 1, argv + 1);
        }
    }
    fputs(_("posada-tools is started by 'posada'; see 'posada --help'.\n"), stderr);
    return CLI_EXIT_USAGE;
}
