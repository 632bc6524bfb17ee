/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    const char *operands;
    const char *summary;
    int (*main)(int argc, char **argv);
} verbs[] = {
#define VERB(name, operands, summary) { #name, operands, summary, image_##name##_main },
#include "cli/image_verbs.def"
#undef VERB
};

const char *const image_formats[] = { "raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", NULL };

static void print_verbs(FILE *out)
{
    fputs(_("Usage: posada image VERB [OPTIONS] ...\n\nVerbs:\n"), out);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        fprintf(out, "  %-8s %-18s %s\n", verbs[i].name, verbs[i].operands, _(verbs[i].summary));
    }
    fputs(_("\n'posada image VERB --help' describes a verb.\n"), out);
}

int image_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    if (cli_wants_help(argc, argv)) {
        print_verbs(stdout);
        return CLI_EXIT_OK;
    }
    if (argc < 2) {
        print_verbs(stderr);
        return CLI_EXIT_USAGE;
    }
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) == 0) {
            return verbs[i].main(argc - 1, argv + 1);
        }
    }
    (void)err_set(&err, -EINVAL, _("unknown verb '%s'"), argv[1]);
    return cli_usage("image", &err);
}

static const char *operands_of(const char *verb)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verb, verbs[i].name) == 0) {
            return verbs[i].operands;
        }
    }
    return "";
}

static const char *summary_of(const char *verb)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verb, verbs[i].name) == 0) {
            return verbs[i].summary;
        }
    }
    return "";
}

void image_print_help(const char *verb, const struct schema *schema)
{
    printf(_("Usage: posada image %s [OPTIONS] %s\n\n%s\n\nOptions:\n"), verb, operands_of(verb),
           _(summary_of(verb)));
    schema_print_help(schema, stdout);
}

/* "-1G" is an operand of resize, not an option. */
static bool is_negative(const char *arg)
{
    return arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9';
}

static bool is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0' && !is_negative(arg);
}

/* Parses a run of options at argv[i]; returns the index behind it. */
static int parse_run(const struct schema *schema, void *obj, int argc, char **argv, int i,
                     struct err *err)
{
    int end = i;
    int next = 0;
    while (end < argc && !is_negative(argv[end])) {
        end++;
    }
    /* The table's parser skips a program name and stops at the first operand. */
    int rc = schema_parse_options(schema, obj, end - i + 1, argv + i - 1, &next, err);
    return rc < 0 ? rc : i + next - 1;
}

int image_parse(const struct schema *schema, void *obj, int argc, char **argv, char **operands,
                int min, int max, struct err *err)
{
    int n = 0;
    int i = 1;
    bool options = true;
    while (i < argc) {
        if (options && is_option(argv[i])) {
            int rc = parse_run(schema, obj, argc, argv, i, err);
            if (rc < 0) {
                return rc;
            }
            i = rc;
            options = strcmp(argv[i - 1], "--") != 0;
        } else if (n == max) {
            return err_set(err, -EINVAL, _("'%s' is one argument too many (expected: %s)"), argv[i],
                           operands_of(argv[0]));
        } else {
            operands[n++] = argv[i++];
        }
    }
    if (n < min) {
        return err_set(err, -EINVAL, _("an argument is missing (expected: %s)"),
                       operands_of(argv[0]));
    }
    int rc = schema_check(schema, obj, err);
    return rc < 0 ? rc : n;
}

int image_run(const struct image_verb *verb, void *obj, int argc, char **argv)
{
    struct err err = ERR_INIT;
    char *operands[IMAGE_MAX_OPERANDS] = { NULL };
    if (cli_wants_help(argc, argv)) {
        image_print_help(verb->name, verb->schema);
        return CLI_EXIT_OK;
    }
    schema_init(verb->schema, obj);
    int code = CLI_EXIT_OK;
    if (image_parse(verb->schema, obj, argc, argv, operands, verb->min, verb->max, &err) < 0 ||
        (verb->prepare != NULL && verb->prepare(obj, operands, &err) < 0)) {
        code = cli_usage(verb->schema->name, &err);
    } else if (verb->work(obj, operands, &err) < 0) {
        code = cli_fail(verb->schema->name, &err);
    }
    schema_done(verb->schema, obj);
    return code;
}

void image_format_size(uint64_t bytes, char *buf, size_t len)
{
    static const char units[] = "KMGTPE";
    double value = (double)bytes;
    int unit = -1;
    while (value >= 1024 && units[unit + 1] != '\0') {
        value /= 1024;
        unit++;
    }
    if (unit < 0) {
        (void)snprintf(buf, len, "%llu bytes", (unsigned long long)bytes);
    } else {
        (void)snprintf(buf, len, "%.3g %ciB (%llu bytes)", value, units[unit],
                       (unsigned long long)bytes);
    }
}

void image_print_text(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p >= 0x20 && *p < 0x7f) {
            putchar(*p);
        } else {
            printf("\\x%02x", *p);
        }
    }
}

const char **image_strings(const struct schema_list *list)
{
    if (list->count == 0) {
        return NULL;
    }
    const char **out = calloc(list->count + 1, sizeof(*out));
    if (out == NULL) {
        abort();
    }
    memcpy(out, list->items, list->count * sizeof(*out));
    return out;
}
