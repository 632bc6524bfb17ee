/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada image check FILE: exit code 0 when no error is left (space that is only lost is no error),
 * 1 when errors are left.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "cli/image.h"

struct check_opts {
    char *format;
    uint64_t repair;
    bool json;
};

static const char *const repairs[] = { "no", "leaks", "all", NULL };
static const unsigned fixes[] = { 0, BLK_CHECK_FIX_LEAKS,
                                  BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS };

#define FIELD(member) .offset = offsetof(struct check_opts, member)

static const struct schema_field fields[] = {
    IMAGE_FIELD_FORMAT(struct check_opts, format),
    {.name = "repair",
                                 .letter = 'r',
                                 .type = SCHEMA_ENUM,
                                 .choices = repairs,
                                 .deflt = "no",
                                 FIELD(repair),
                                 .help = "what to mend: lost space only, or errors too" },
    IMAGE_FIELD_JSON(struct check_opts, json),
    { 0},
};

const struct schema image_check_schema = {
    .name = "image check",
    .size = sizeof(struct check_opts),
    .fields = fields,
};

static void report(void *opaque, const char *text)
{
    (void)opaque;
    fprintf(stderr, "%s\n", text);
}

static void print_json(const struct blk_check *c)
{
    json_t *object = json_object();
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {
        {"errors",              c->errors            },
        { "leaks",              c->leaks             },
        { "errors_fixed",       c->errors_fixed      },
        { "leaks_fixed",        c->leaks_fixed       },
        { "clusters_total",     c->clusters_total    },
        { "clusters_allocated", c->clusters_allocated},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_object_set_new(object, rows[i].key, json_integer((json_int_t)rows[i].value));
    }
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static void print_lines(const struct blk_check *c)
{
    printf(_("errors: %llu (mended: %llu)\n"), (unsigned long long)c->errors,
           (unsigned long long)c->errors_fixed);
    printf(_("lost clusters: %llu (mended: %llu)\n"), (unsigned long long)c->leaks,
           (unsigned long long)c->leaks_fixed);
    printf(_("clusters allocated: %llu of %llu\n"), (unsigned long long)c->clusters_allocated,
           (unsigned long long)c->clusters_total);
}

static int check(void *obj, char **operands, struct err *err)
{
    const struct check_opts *o = obj;
    const char *path = operands[0];
    struct blk_opts opts = {
        .path = path,
        .format = o->format,
        .read_only = o->repair == 0,
        .no_backing = true,
    };
    struct blk_check c = { .report = report };
    struct blk *blk = NULL;
    int rc = blk_open(&opts, &blk, err);
    if (rc < 0) {
        return rc;
    }
    rc = blk_check(blk, fixes[o->repair], &c, err);
    if (rc == 0 && o->repair != 0) {
        rc = blk_flush(blk);
        if (rc < 0) {
            (void)err_set_errno(err, rc, "image '%s': flush", path);
        }
    }
    blk_close(blk);
    if (rc < 0) {
        return rc;
    }
    if (o->json) {
        print_json(&c);
    } else {
        print_lines(&c);
    }
    if (c.errors > c.errors_fixed) {
        return err_set(err, -EIO, _("image '%s': %llu errors are left%s"), path,
                       (unsigned long long)(c.errors - c.errors_fixed),
                       o->repair == 0 ? _("; --repair all tries to mend them") : "");
    }
    return 0;
}

int image_check_main(int argc, char **argv)
{
    static const struct image_verb verb = {
        .name = "check",
        .schema = &image_check_schema,
        .min = 1,
        .max = 1,
        .work = check,
    };
    struct check_opts o;
    return image_run(&verb, &o, argc, argv);
}
