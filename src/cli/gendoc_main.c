/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gendoc TEMPLATE: prints a manual page's scdoc source with lines "@OPTIONS@", "@EXITCODES@",
 * "@COMMANDS@" and "@IMAGE_VERBS@" replaced from the tables. A build tool, not installed.
 */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/image.h"
#include "vmm/vmconfig.h"

static void print_exit_codes(void)
{
#define EXITCODE(name, number, help) printf("*%d*\n\t%s\n\n", number, help);
#include "vmm/exitcodes.def"
#undef EXITCODE
}

static void print_commands(void)
{
#define COMMAND(name, summary) printf("*" #name "*\n\t%s\n\n", summary);
#include "cli/commands.def"
#undef COMMAND
}

/* A subsection for each verb of posada image. */
static void print_image_verbs(void)
{
#define VERB(name, operands, summary)                                                              \
    printf("## posada image " #name " %s\n\n%s.\n\n", operands, summary);                          \
    schema_print_scdoc(&image_##name##_schema, stdout);
#include "cli/image_verbs.def"
#undef VERB
}

int main(int argc, char **argv)
{
    char line[4096];
    FILE *in = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (in == NULL) {
        fprintf(stderr, "usage: gendoc TEMPLATE\n");
        return 1;
    }
    while (fgets(line, sizeof(line), in) != NULL) {
        if (strcmp(line, "@OPTIONS@\n") == 0) {
            schema_print_scdoc(&vmconfig_schema, stdout);
        } else if (strcmp(line, "@EXITCODES@\n") == 0) {
            print_exit_codes();
        } else if (strcmp(line, "@COMMANDS@\n") == 0) {
            print_commands();
        } else if (strcmp(line, "@IMAGE_VERBS@\n") == 0) {
            print_image_verbs();
        } else {
            fputs(line, stdout);
        }
    }
    return fclose(in) != 0 || fflush(stdout) != 0;
}
