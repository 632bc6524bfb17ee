/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image info FILE */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/image.h"

struct info_opts {
    char *format;
    bool json;
};

#define FIELD(member) .offset = offsetof(struct info_opts, member)

static const struct schema_field fields[] = {
    {.name = "format",
     .letter = 'f',
     .arg = "FORMAT",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(format),
     .help = "read it as this format; without it the content tells" },
    IMAGE_FIELD_JSON(struct info_opts, json),
    { 0 },
};

const struct schema image_info_schema = {
    .name = "image info",
    .size = sizeof(struct info_opts),
    .fields = fields,
};

/* Plain lines: "virtual size: 4 GiB (4294967296 bytes)"; lists are indented under a heading. */
struct lines {
    const char *list;
    unsigned index;
};

static void print_key(const char *key)
{
    for (; *key != '\0'; key++) {
        putchar(*key == '_' ? ' ' : *key);
    }
}

static void print_item(void *opaque, const struct blk_info_item *item)
{
    struct lines *l = opaque;
    char size[64];
    bool new_list = item->list != NULL && (l->list == NULL || strcmp(l->list, item->list) != 0);
    if (new_list) {
        print_key(item->list);
        fputs(":\n", stdout);
    }
    if (item->list != NULL) {
        fputs(new_list || l->index != item->index ? "  - " : "    ", stdout);
    }
    l->list = item->list;
    l->index = item->index;
    print_key(item->key);
    fputs(": ", stdout);
    switch (item->type) {
    case BLK_INFO_STRING:
        image_print_text(item->string);
        break;
    case BLK_INFO_NUMBER:
        printf("%llu", (unsigned long long)item->number);
        break;
    case BLK_INFO_BYTES:
        image_format_size(item->number, size, sizeof(size));
        fputs(size, stdout);
        break;
    case BLK_INFO_BOOL:
        fputs(item->number != 0 ? _("yes") : _("no"), stdout);
        break;
    }
    putchar('\n');
}

/* JSON has no bytes, only text: what is not UTF-8 (an image can hold anything) is escaped first. */
static json_t *json_text(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL) {
        return value;
    }
    char *escaped = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&escaped, &len);
    if (out == NULL) {
        abort();
    }
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        fprintf(out, *p < 0x80 ? "%c" : "\\x%02x", *p);
    }
    if (fclose(out) != 0) {
        abort();
    }
    value = json_string(escaped);
    free(escaped);
    return value;
}

static json_t *json_value(const struct blk_info_item *item)
{
    switch (item->type) {
    case BLK_INFO_STRING:
        return json_text(item->string);
    case BLK_INFO_BOOL:
        return json_boolean(item->number != 0);
    case BLK_INFO_NUMBER:
    case BLK_INFO_BYTES:
        break;
    }
    return json_integer((json_int_t)item->number);
}

static void collect_item(void *opaque, const struct blk_info_item *item)
{
    json_t *object = opaque;
    if (item->list != NULL) {
        json_t *list = json_object_get(object, item->list);
        if (list == NULL) {
            list = json_array();
            json_object_set_new(object, item->list, list);
        }
        object = json_array_get(list, item->index);
        if (object == NULL) {
            object = json_object();
            json_array_append_new(list, object);
        }
    }
    json_object_set_new(object, item->key, json_value(item));
}

/* The format by content, as far as it is one that we read: a person asks what a file is, and it is
 * opened for reading alone, without what it refers to. NULL: the name's ending has to tell. */
static const char *content_format(const char *path)
{
    struct err ignored = ERR_INIT;
    const char *format = NULL;
    if (blk_probe(path, &format, &ignored) < 0 || format == NULL) {
        return NULL;
    }
    for (const char *const *f = image_formats; *f != NULL; f++) {
        if (strcmp(*f, format) == 0) {
            return *f;
        }
    }
    return NULL;
}

static int info(void *obj, char **operands, struct err *err)
{
    const struct info_opts *o = obj;
    struct blk_opts opts = {
        .path = operands[0],
        .format = o->format != NULL ? o->format : content_format(operands[0]),
        .read_only = true,
        .no_backing = true,
    };
    struct blk *blk = NULL;
    int rc = blk_open(&opts, &blk, err);
    if (rc < 0) {
        return rc;
    }
    if (o->json) {
        json_t *object = json_object();
        rc = blk_info(blk, collect_item, object, err);
        if (rc == 0) {
            json_dumpf(object, stdout, JSON_INDENT(2));
            putchar('\n');
        }
        json_decref(object);
    } else {
        struct lines lines = { 0 };
        rc = blk_info(blk, print_item, &lines, err);
    }
    blk_close(blk);
    return rc;
}

int image_info_main(int argc, char **argv)
{
    static const struct image_verb verb = {
        .name = "info",
        .schema = &image_info_schema,
        .min = 1,
        .max = 1,
        .work = info,
    };
    struct info_opts o;
    return image_run(&verb, &o, argc, argv);
}
