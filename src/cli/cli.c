/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

int cli_exit_code(const struct err *err)
{
    switch (-err->code) {
    case ENOENT:
        return CLI_EXIT_NOT_FOUND;
    case EEXIST:
    case EBUSY:
    case EALREADY:
        return CLI_EXIT_STATE;
    case EACCES:
    case EPERM:
        return CLI_EXIT_FORBIDDEN;
    case ETIMEDOUT:
        return CLI_EXIT_TIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return CLI_EXIT_UNREACHABLE;
    default:
        return CLI_EXIT_FAILED;
    }
}

int cli_fail(const char *command, const struct err *err)
{
    fprintf(stderr, "posada %s: %s\n", command, err->msg);
    return cli_exit_code(err);
}

int cli_usage(const char *command, const struct err *err)
{
    fprintf(stderr, "posada %s: %s\n", command, err->msg);
    fprintf(stderr, _("Try 'posada %s --help'.\n"), command);
    return CLI_EXIT_USAGE;
}

void cli_no_memory(void)
{
    (void)fputs("posada: out of memory\n", stderr);
    exit(CLI_EXIT_FAILED);
}

char *cli_program_path(const char *name)
{
    char self[PATH_MAX];
    char *path = NULL;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = '\0';
        *(strrchr(self, '/') + 1) = '\0';
        if (asprintf(&path, "%s%s", self, name) < 0) {
            cli_no_memory();
        }
        if (access(path, X_OK) == 0) {
            return path;
        }
        free(path);
    }
    path = strdup(name);
    if (path == NULL) {
        cli_no_memory();
    }
    return path;
}

int cli_become(const char *command, const char *name, char **argv)
{
    struct err err = ERR_INIT;
    CLEANUP_FREE char *program = cli_program_path(name);
    if (argv != NULL) {
        execvp(program, argv);
    }
    (void)err_set_errno(&err, argv != NULL ? -errno : -ENOMEM,
                        "cannot start '%s': is it installed beside 'posada' or in PATH?", program);
    return cli_fail(command, &err);
}

bool cli_wants_help(int argc, char **argv)
{
    return argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}
