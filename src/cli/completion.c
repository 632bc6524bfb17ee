/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada completion: a bash completion script made from the option tables.
 */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/image.h"
#include "vmm/vmconfig.h"

/* A case branch per option that completes to files or to fixed words. */
static void print_value_cases(const struct schema *schema)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        bool file = f->complete != NULL;
        const char *const *choices = f->choices;
        for (const struct schema_field *s = f->type == SCHEMA_GROUP ? f->sub->fields : NULL;
             s != NULL && s->name != NULL; s++) {
            file |= s->positional && s->complete != NULL;
            choices = s->positional && s->type == SCHEMA_ENUM ? s->choices : choices;
        }
        if (file) {
            printf("        --%s) COMPREPLY=($(compgen -f -- \"$cur\")); return;;\n", f->name);
        } else if (choices != NULL) {
            printf("        --%s) COMPREPLY=($(compgen -W \"", f->name);
            for (unsigned i = 0; choices[i] != NULL; i++) {
                printf("%s%s", i > 0 ? " " : "", choices[i]);
            }
            puts("\" -- \"$cur\")); return;;");
        }
    }
}

static void print_verb(const char *name, const struct schema *schema)
{
    printf("        %s) opts='", name);
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        printf("--%s ", f->name);
    }
    puts("--help';;");
}

/* posada image: the verbs, then a verb's options or a file. */
static void print_image(void)
{
    puts("    if [ \"${COMP_WORDS[1]}\" = image ]; then\n"
         "        local opts=");
    fputs("        [ \"$COMP_CWORD\" = 2 ] && { COMPREPLY=($(compgen -W \"", stdout);
#define VERB(name, operands, summary) fputs(#name " ", stdout);
#include "cli/image_verbs.def"
#undef VERB
    puts("--help\" -- \"$cur\")); return; }\n        case ${COMP_WORDS[2]} in");
#define VERB(name, operands, summary) print_verb(#name, &image_##name##_schema);
#include "cli/image_verbs.def"
#undef VERB
    puts("        esac\n"
         "        case $cur in\n"
         "        -*) COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\"));;\n"
         "        *) COMPREPLY=($(compgen -f -- \"$cur\"));;\n"
         "        esac\n"
         "        return\n"
         "    fi");
}

int completion_main(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && strcmp(argv[1], "bash") != 0)) {
        fputs(_("Usage: posada completion [bash]\n\n"
                "Load it with: source <(posada completion bash)\n"),
              cli_wants_help(argc, argv) ? stdout : stderr);
        return cli_wants_help(argc, argv) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
    }
    puts("# bash completion for posada; made by 'posada completion bash'\n"
         "_posada() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
         "    if [ \"$COMP_CWORD\" = 1 ]; then");
    fputs("        COMPREPLY=($(compgen -W \"", stdout);
#define COMMAND(name, summary) fputs(#name " ", stdout);
#include "cli/commands.def"
#undef COMMAND
    puts("--help --version\" -- \"$cur\")); return\n    fi");
    print_image();
    puts(
        "    [ \"${COMP_WORDS[1]}\" = run ] || { COMPREPLY=($(compgen -f -- \"$cur\")); return; }\n"
        "    case $prev in");
    print_value_cases(&vmconfig_schema);
    puts("    esac");
    fputs("    COMPREPLY=($(compgen -W \"", stdout);
    for (const struct schema_field *f = vmconfig_schema.fields; f->name != NULL; f++) {
        printf("--%s ", f->name);
    }
    puts("--help\" -- \"$cur\"))\n}\ncomplete -o filenames -F _posada posada");
    return CLI_EXIT_OK;
}
