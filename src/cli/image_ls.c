/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image ls, and what the verbs on the store share. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/image_store.h"

static const struct schema_field fields[] = { CLI_FIELD_STORE(struct image_store_opts, store),
                                              IMAGE_FIELD_JSON(struct image_store_opts, json),
                                              { 0 } };

const struct schema image_ls_schema = {
    .name = "image ls",
    .size = sizeof(struct image_store_opts),
    .fields = fields,
};

int image_store_main(int argc, char **argv, const struct schema *schema, int operands,
                     image_store_fn *fn)
{
    struct err err = ERR_INIT;
    struct image_store_opts o;
    char *words[IMAGE_MAX_OPERANDS] = { NULL };
    struct store *s = NULL;
    const char *verb = schema->name + strlen("image ");
    if (cli_wants_help(argc, argv)) {
        image_print_help(verb, schema);
        return CLI_EXIT_OK;
    }
    schema_init(schema, &o);
    int code = CLI_EXIT_OK;
    if (image_parse(schema, &o, argc, argv, words, operands, operands, &err) < 0) {
        code = cli_usage(schema->name, &err);
    } else if (store_open(o.store, &s, &err) < 0 || fn(s, &o, words, &err) < 0) {
        code = cli_fail(schema->name, &err);
    }
    store_close(s);
    schema_done(schema, &o);
    return code;
}

static void set_text(json_t *o, const char *key, const char *text)
{
    json_object_set_new(o, key, text != NULL ? json_string(text) : json_null());
}

json_t *image_store_json(const struct store_image *image, char **refs)
{
    json_t *o = json_object();
    json_t *names = json_array();
    for (char **r = refs; *r != NULL; r++) {
        json_array_append_new(names, json_string(*r));
    }
    set_text(o, "id", image->id);
    json_object_set_new(o, "names", names);
    json_object_set_new(o, "size", json_integer((json_int_t)image->size));
    json_object_set_new(o, "used", json_integer((json_int_t)image->used));
    json_object_set_new(o, "memory", json_integer((json_int_t)image->memory));
    set_text(o, "os", image->os);
    set_text(o, "arch", image->arch);
    set_text(o, "recipe", image->recipe);
    set_text(o, "created", image->created);
    set_text(o, "login", image->login);
    json_object_set_new(o, "kernel", json_boolean(image->kernel));
    set_text(o, "append", image->append);
    json_object_set_new(o, "agent", json_boolean(image->agent));
    return o;
}

static int list_json(void *opaque, const struct store_image *image, char **refs, struct err *err)
{
    (void)err;
    json_array_append_new(opaque, image_store_json(image, refs));
    return 0;
}

static void print_row(const struct store_image *image, const char *name)
{
    char size[64];
    char used[64];
    image_format_size(image->size, size, sizeof(size));
    image_format_size(image->used, used, sizeof(used));
    /* The exact bytes are in `show`. */
    size[strcspn(size, "(")] = '\0';
    used[strcspn(used, "(")] = '\0';
    printf("%-24s %.*s  %10s %10s  %.10s  ", name, STORE_SHORT_HEX, image->id, size, used,
           image->created != NULL ? image->created : "-");
    image_print_text(image->os != NULL ? image->os : "-");
    putchar('\n');
}

static int list_row(void *opaque, const struct store_image *image, char **refs, struct err *err)
{
    (void)opaque;
    (void)err;
    if (refs[0] == NULL) {
        print_row(image, "-");
    }
    for (char **r = refs; *r != NULL; r++) {
        print_row(image, *r);
    }
    return 0;
}

static int list(struct store *s, const struct image_store_opts *o, char **operands, struct err *err)
{
    (void)operands;
    if (!o->json) {
        printf("%-24s %-12s  %10s %10s  %-10s  %s\n", _("NAME"), "ID", _("SIZE"), _("USED"),
               _("CREATED"), _("SYSTEM"));
        return store_list(s, list_row, NULL, err);
    }
    json_t *array = json_array();
    int rc = store_list(s, list_json, array, err);
    if (rc == 0) {
        json_dumpf(array, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(array);
    return rc;
}

int image_ls_main(int argc, char **argv)
{
    return image_store_main(argc, argv, &image_ls_schema, 0, list);
}
