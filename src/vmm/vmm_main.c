/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada-vmm: one VM. Started by `posada run` (which becomes this program) with the options of
 * vmconfig.c; a manager starts it the same way.
 */
#include <errno.h>
#include <inttypes.h>
#include <libintl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/lang.h"
#include "base/log.h"
#include "vmm/machine.h"
#include "vmm/sandbox/sandbox.h"
#include "vmm/vmconfig.h"

static void main_print_help(void)
{
    fputs(gettext("Usage: posada-vmm --kernel FILE [OPTIONS]\n\n"
                  "Runs one virtual machine; usually started by 'posada run'.\n\nOptions:\n"),
          stdout);
    schema_print_help(&vmconfig_schema, stdout);
    fputs(gettext("\nExit codes:\n"), stdout);
#define EXITCODE(name, number, help) printf("  %-4d %s\n", number, gettext(help));
#include "vmm/exitcodes.def"
#undef EXITCODE
    fputs(gettext("  odd  the guest's own code from isa-debug-exit: (value << 1 | 1) & 255\n"),
          stdout);
}

/* A JSON string: quotes, backslashes and control characters escaped (RFC 8259 §7). */
static void main_print_json_string(const char *key, const char *value)
{
    printf("\"%s\": \"", key);
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            printf("\\%c", *p);
        } else if (*p < 0x20) {
            printf("\\u%04x", *p);
        } else {
            putchar(*p);
        }
    }
    putchar('"');
}

static void main_print_json(const struct vmconfig *c, int code, const char *reason,
                            const struct machine *m)
{
    putchar('{');
    main_print_json_string("name", c->name);
    printf(", \"exit_code\": %d, ", code);
    main_print_json_string("reason", reason);
    if (m != NULL) {
        fputs(", ", stdout);
        main_print_json_string("engine", machine_engine_name(m));
        printf(", \"uptime_ms\": %" PRIu64 ", \"resets\": %" PRIu64, machine_uptime_ms(m),
               machine_resets(m));
    }
    puts("}");
}

static int main_parse(struct vmconfig *c, int argc, char **argv, struct err *err)
{
    int first = 0;
    int rc = schema_parse_argv(&vmconfig_schema, c, argc, argv, &first, err);
    if (rc < 0) {
        return rc;
    }
    if (first < argc) {
        return err_set(err, -EINVAL, "'%s' is not an option (a kernel is given by --kernel)",
                       argv[first]);
    }
    if (c->file != NULL) {
        return err_set(err, -EINVAL, "--file is read by 'posada run': start the VM with that");
    }
    enum log_level level;
    if (log_level_parse(c->log_level, &level) == 0) {
        log_set_level(level);
    }
    return 0;
}

static int main_run(const struct vmconfig *c)
{
    struct err err = ERR_INIT;
    struct machine *m = NULL;
    int code = VMCONFIG_EXIT_FAILED;
    if (machine_new(c, &m, &err) == 0) {
        code = machine_run(m, &err);
    }
    const char *reason = m != NULL ? machine_end_reason(m) : "";
    if (err.code != 0) {
        reason = err.msg;
        fprintf(stderr, "posada-vmm: %s\n", err.msg);
    } else if (code != VMCONFIG_EXIT_OK) {
        log_info("vmm", "ended", "reason='%s' code='%d'", reason, code);
    }
    if (c->json) {
        main_print_json(c, code, reason, m);
    }
    machine_free(m);
    return code;
}

int main(int argc, char **argv)
{
    sandbox_close_inherited();
    sandbox_one_heap();
    lang_init();
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            main_print_help();
            return VMCONFIG_EXIT_OK;
        }
    }
    struct err err = ERR_INIT;
    struct vmconfig config;
    schema_init(&vmconfig_schema, &config);
    int code;
    if (main_parse(&config, argc, argv, &err) < 0) {
        fprintf(stderr, "posada-vmm: %s\n", err.msg);
        code = VMCONFIG_EXIT_USAGE;
    } else {
        code = main_run(&config);
    }
    schema_done(&vmconfig_schema, &config);
    return code;
}
