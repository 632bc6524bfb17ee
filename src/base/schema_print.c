/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The other direction of schema.c: help, manual source and argument lists from a table.
 */
#include <inttypes.h>
#include <libintl.h>
#include <stdlib.h>

#include "base/schema.h"

#define SCHEMA_HELP_COLUMN 30

static void print_value_name(const struct schema_field *f, FILE *out)
{
    if (f->type == SCHEMA_ENUM) {
        for (unsigned i = 0; f->choices[i] != NULL; i++) {
            fprintf(out, "%s%s", i > 0 ? "|" : "", f->choices[i]);
        }
    } else {
        fputs(f->arg != NULL ? f->arg : "VALUE", out);
    }
}

/* "FILE[,format=raw|qcow2][,readonly]": how a group is written. */
static void print_group(const struct schema *sub, FILE *out)
{
    const char *comma = "";
    for (const struct schema_field *f = sub->fields; f->name != NULL; f++) {
        if (f->positional) {
            print_value_name(f, out);
            comma = ",";
        }
    }
    for (const struct schema_field *f = sub->fields; f->name != NULL; f++) {
        if (f->positional) {
            continue;
        }
        fprintf(out, "[%s%s", comma, f->name);
        comma = ",";
        if (f->type != SCHEMA_FLAG) {
            fputc('=', out);
            print_value_name(f, out);
        }
        fputc(']', out);
    }
}

static char *option_text(const struct schema_field *f)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        abort();
    }
    if (f->letter != 0) {
        fprintf(out, "-%c, ", f->letter);
    }
    fprintf(out, "--%s", f->name);
    if (f->type == SCHEMA_GROUP) {
        fputc(' ', out);
        print_group(f->sub, out);
    } else if (f->type != SCHEMA_FLAG) {
        fputc(' ', out);
        print_value_name(f, out);
    }
    if (fclose(out) != 0) {
        abort();
    }
    return text;
}

static void print_facts(const struct schema_field *f, FILE *out)
{
    char a[32];
    char b[32];
    if (f->max != 0 && f->type == SCHEMA_SIZE) {
        schema_format_size(f->min, a, sizeof(a));
        schema_format_size(f->max, b, sizeof(b));
        fprintf(out, gettext(" (%s to %s)"), a, b);
    } else if (f->max != 0 && f->type == SCHEMA_UINT) {
        fprintf(out, gettext(" (%" PRIu64 " to %" PRIu64 ")"), f->min, f->max);
    }
    if (f->deflt != NULL && f->type != SCHEMA_FLAG) {
        fprintf(out, gettext(" [default: %s]"), f->deflt);
    }
    if (f->list) {
        fputs(gettext(" Repeatable."), out);
    }
}

void schema_print_help(const struct schema *schema, FILE *out)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        char *text = option_text(f);
        int used = fprintf(out, "  %s", text);
        free(text);
        if (used >= SCHEMA_HELP_COLUMN) {
            fputc('\n', out);
            used = 0;
        }
        fprintf(out, "%*s%s", SCHEMA_HELP_COLUMN - used, "", gettext(f->help));
        print_facts(f, out);
        fputc('\n', out);
        for (const struct schema_field *s = f->type == SCHEMA_GROUP ? f->sub->fields : NULL;
             s != NULL && s->name != NULL; s++) {
            fprintf(out, "%*s  %s: %s", SCHEMA_HELP_COLUMN, "", s->name, gettext(s->help));
            print_facts(s, out);
            fputc('\n', out);
        }
    }
}

/* scdoc takes _ and * as markup. */
static void print_escaped(const char *text, FILE *out)
{
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr("_*\\[<#", *p) != NULL) {
            fputc('\\', out);
        }
        fputc(*p, out);
    }
}

void schema_print_scdoc(const struct schema *schema, FILE *out)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        char *text = option_text(f);
        fputs("*", out);
        print_escaped(text, out);
        fputs("*\n\t", out);
        free(text);
        print_escaped(f->help, out);
        print_facts(f, out);
        fputs("\n\n", out);
        for (const struct schema_field *s = f->type == SCHEMA_GROUP ? f->sub->fields : NULL;
             s != NULL && s->name != NULL; s++) {
            fprintf(out, "\t*%s*: ", s->name);
            print_escaped(s->help, out);
            print_facts(s, out);
            fputs("\n\n", out);
        }
    }
}

static char *value_text(const struct schema_field *f, const void *elem);

/* "FIRST,key=value": every field that differs from its default, "," doubled. */
static void print_group_value(const struct schema *sub, const void *obj, FILE *out)
{
    const char *comma = "";
    for (int positional = 1; positional >= 0; positional--) {
        for (const struct schema_field *f = sub->fields; f->name != NULL; f++) {
            const void *at = (const char *)obj + f->offset;
            const struct schema_list *list = at;
            if (f->positional != (positional != 0)) {
                continue;
            }
            for (size_t i = 0; i < (f->list ? list->count : 1); i++) {
                const void *elem = f->list ? (const char *)list->items + i * sizeof(char *) : at;
                char *text = value_text(f, elem);
                if (text == NULL) {
                    continue;
                }
                fprintf(out, "%s%s", comma, f->name);
                if (f->type != SCHEMA_FLAG) {
                    fputc('=', out);
                    for (const char *p = text; *p != '\0'; p++) {
                        fputs(*p == ',' ? ",," : (char[]){ *p, '\0' }, out);
                    }
                }
                comma = ",";
                free(text);
            }
        }
    }
}

/* The text of a value, malloc()ed; NULL when it is unset or the default. */
static char *value_text(const struct schema_field *f, const void *elem)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        abort();
    }
    bool set = true;
    switch (f->type) {
    case SCHEMA_FLAG:
        set = *(const bool *)elem;
        fputs("on", out);
        break;
    case SCHEMA_STR:
        set = *(char *const *)elem != NULL;
        fputs(set ? *(char *const *)elem : "", out);
        break;
    case SCHEMA_UINT:
    case SCHEMA_SIZE: {
        set = f->list || f->deflt != NULL || *(const uint64_t *)elem != 0;
        fprintf(out, "%" PRIu64, *(const uint64_t *)elem);
        break;
    }
    case SCHEMA_ENUM:
        fputs(f->choices[*(const uint64_t *)elem], out);
        break;
    case SCHEMA_GROUP:
        print_group_value(f->sub, elem, out);
        break;
    }
    if (fclose(out) != 0) {
        abort();
    }
    if (f->type == SCHEMA_GROUP && !f->list && text[0] == '\0') {
        set = false; /* all of it as it is by default */
    }
    if (!set || (!f->list && f->deflt != NULL && strcmp(text, f->deflt) == 0)) {
        free(text);
        return NULL;
    }
    return text;
}

struct schema_args {
    char **v;
    size_t n;
    size_t bytes;
};

static void args_add(struct schema_args *args, char *take_text)
{
    char **v = realloc(args->v, (args->n + 1) * sizeof(*v));
    if (v == NULL || take_text == NULL) {
        abort();
    }
    args->v = v;
    args->v[args->n++] = take_text;
    args->bytes += strlen(take_text) + 1;
}

static void args_add_field(struct schema_args *args, const struct schema_field *f, const void *elem)
{
    char *text = value_text(f, elem);
    if (text == NULL) {
        return;
    }
    char *name = NULL;
    if (asprintf(&name, "--%s", f->name) < 0) {
        abort();
    }
    args_add(args, name);
    if (f->type == SCHEMA_FLAG) {
        free(text);
    } else {
        args_add(args, text);
    }
}

char **schema_to_argv(const struct schema *schema, const void *obj, const char *argv0)
{
    struct schema_args args = { 0 };
    args_add(&args, strdup(argv0));
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        const void *at = (const char *)obj + f->offset;
        const struct schema_list *list = at;
        if (!f->list) {
            args_add_field(&args, f, at);
            continue;
        }
        size_t size = f->type == SCHEMA_GROUP ? f->sub->size : sizeof(char *);
        for (size_t i = 0; i < list->count; i++) {
            args_add_field(&args, f, (const char *)list->items + i * size);
        }
    }
    /* One block: the pointers, then the texts. */
    char **out = malloc((args.n + 1) * sizeof(*out) + args.bytes);
    char *to = out != NULL ? (char *)(out + args.n + 1) : NULL;
    for (size_t i = 0; i < args.n; i++) {
        if (out != NULL) {
            size_t n = strlen(args.v[i]) + 1;
            memcpy(to, args.v[i], n);
            out[i] = to;
            to += n;
        }
        free(args.v[i]);
    }
    if (out != NULL) {
        out[args.n] = NULL;
    }
    free(args.v);
    return out;
}
