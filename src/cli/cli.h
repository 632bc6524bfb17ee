/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the commands of `posada` share. To add a command: a file NAME.c with NAME_main(), a row in
 * commands.def.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <libintl.h>

#include "base/err.h"

#define _(text) gettext(text)

/* Exit codes of all commands but `run` (exitcodes.def has those). */
enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1,
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_NOT_FOUND = 3,
    CLI_EXIT_STATE = 4, /* exists already, or is in the wrong state */
    CLI_EXIT_FORBIDDEN = 5,
    CLI_EXIT_TIMEOUT = 6,
    CLI_EXIT_UNREACHABLE = 7,
};

/* The exit code that fits err->code. */
int cli_exit_code(const struct err *err);
/* Prints "posada COMMAND: text" on stderr; returns cli_exit_code(). */
int cli_fail(const char *command, const struct err *err);
/* As cli_fail, for a wrong command line: adds where help is; returns CLI_EXIT_USAGE. */
int cli_usage(const char *command, const struct err *err);

/* Ends the program, with a message: where nothing else can be done. */
_Noreturn void cli_no_memory(void);

/* Path of another program of Posada: beside this one, else by its name alone (PATH). malloc()ed. */
char *cli_program_path(const char *name);

/*
 * Becomes another program of Posada (cli_program_path()), with `argv` (NULL: there was no memory
 * for it). Returns only when that fails, as cli_fail() does.
 */
int cli_become(const char *command, const char *name, char **argv);

/* True for --help, -h as the only thing asked. */
bool cli_wants_help(int argc, char **argv);

/* The struct schema_field of every command that uses the store; `owner` is the type of its struct.
 */
#define CLI_FIELD_STORE(owner, member)                                                             \
    {                                                                                              \
        .name = "store", .arg = "DIR", .type = SCHEMA_STR, .min = 1, .complete = "dir",            \
        .offset = offsetof(owner, member),                                                         \
        .help = "the image store; without it $POSADA_STORE, /var/lib/posada or "                   \
                "~/.local/share/posada"                                                            \
    }

#define COMMAND(name, summary) int name##_main(int argc, char **argv);
#include "cli/commands.def"
#undef COMMAND

#endif
