/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image show IMAGE */
#include <stdio.h>

#include "cli/image_store.h"

static const struct schema_field fields[] = { CLI_FIELD_STORE(struct image_store_opts, store),
                                              IMAGE_FIELD_JSON(struct image_store_opts, json),
                                              { 0 } };

const struct schema image_show_schema = {
    .name = "image show",
    .size = sizeof(struct image_store_opts),
    .fields = fields,
};

struct show {
    const struct image_store_opts *o;
    const char *folder;
    const char *id;
};

static void print_text(const char *key, const char *text)
{
    if (text != NULL) {
        printf("%s: ", key);
        image_print_text(text);
        putchar('\n');
    }
}

static void print_lines(const struct show *show, const struct store_image *image, char **refs)
{
    char size[64];
    printf("id: %s\n", image->id);
    for (char **r = refs; *r != NULL; r++) {
        printf("name: %s\n", *r);
    }
    print_text("system", image->os);
    print_text("architecture", image->arch);
    print_text("recipe", image->recipe);
    print_text("created", image->created);
    image_format_size(image->size, size, sizeof(size));
    printf("size: %s\n", size);
    image_format_size(image->used, size, sizeof(size));
    printf("used: %s\n", size);
    print_text("login", image->login);
    print_text("folder", show->folder);
    print_text("kernel command line", image->append);
}

static int show_one(void *opaque, const struct store_image *image, char **refs, struct err *err)
{
    const struct show *show = opaque;
    (void)err;
    if (strcmp(image->id, show->id) != 0) {
        return 0;
    }
    if (!show->o->json) {
        print_lines(show, image, refs);
        return 0;
    }
    json_t *o = image_store_json(image, refs);
    json_object_set_new(o, "folder", json_string(show->folder));
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
    return 0;
}

static int show(struct store *s, const struct image_store_opts *o, char **operands, struct err *err)
{
    struct store_image image = { 0 };
    char folder[STORE_PATH_MAX];
    int rc = store_find(s, operands[0], &image, err);
    if (rc == 0) {
        struct show w = { .o = o,
                          .folder = store_path(s, folder, "images/%s", image.id),
                          .id = image.id };
        rc = store_list(s, show_one, &w, err);
    }
    store_image_done(&image);
    return rc;
}

int image_show_main(int argc, char **argv)
{
    return image_store_main(argc, argv, &image_show_schema, 1, show);
}
