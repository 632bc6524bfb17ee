/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store's images: their descriptions, and finding one. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "image/store_int.h"

/* The text fields of image.json, by name. */
static const struct {
    const char *key;
    size_t offset;
} store_texts[] = {
    {"arch",     offsetof(struct store_image, arch)   },
    { "os",      offsetof(struct store_image, os)     },
    { "recipe",  offsetof(struct store_image, recipe) },
    { "created", offsetof(struct store_image, created)},
    { "login",   offsetof(struct store_image, login)  },
    { "append",  offsetof(struct store_image, append) },
};

static char **store_text_at(const struct store_image *image, size_t i)
{
    return (char **)(uintptr_t)((const char *)image + store_texts[i].offset);
}

void store_image_done(struct store_image *image)
{
    for (size_t i = 0; i < ARRAY_LEN(store_texts); i++) {
        free(*store_text_at(image, i));
    }
    *image = (struct store_image){ 0 };
}

int store_image_save(const char *path, const struct store_image *image, struct err *err)
{
    json_t *o =
        json_pack("{s:i, s:s, s:b, s:b, s:I, s:I, s:I}", "version", 1, "id", image->id, "kernel",
                  image->kernel, "agent", image->agent, "size", (json_int_t)image->size, "used",
                  (json_int_t)image->used, "memory", (json_int_t)image->memory);
    for (size_t i = 0; o != NULL && i < ARRAY_LEN(store_texts); i++) {
        const char *text = *store_text_at(image, i);
        if (text != NULL) {
            json_object_set_new(o, store_texts[i].key, json_string(text));
        }
    }
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    int rc =
        text == NULL ? err_set(err, -ENOMEM, "out of memory") : store_write_text(path, text, err);
    free(text);
    return rc;
}

static uint64_t store_number(const json_t *o, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v > 0 ? (uint64_t)v : 0;
}

int store_image_load(const struct store *s, const char *id, struct store_image *ret_image,
                     struct err *err)
{
    char path[STORE_PATH_MAX];
    CLEANUP_FREE char *text = NULL;
    int rc = store_read_text(store_path(s, path, "images/%s/image.json", id), &text, err);
    if (rc < 0) {
        return rc;
    }
    json_error_t why;
    json_t *o = json_loads(text, 0, &why);
    if (!json_is_object(o) || store_number(o, "version") != 1) {
        json_decref(o);
        return err_set(err, -EINVAL, "'%s' is damaged: remove the image and build it again", path);
    }
    *ret_image = (struct store_image){
        .kernel = json_is_true(json_object_get(o, "kernel")),
        .agent = json_is_true(json_object_get(o, "agent")),
        .size = store_number(o, "size"),
        .used = store_number(o, "used"),
        .memory = store_number(o, "memory"),
    };
    (void)snprintf(ret_image->id, sizeof(ret_image->id), "%s", id);
    for (size_t i = 0; i < ARRAY_LEN(store_texts); i++) {
        const char *value = json_string_value(json_object_get(o, store_texts[i].key));
        *store_text_at(ret_image, i) = value != NULL ? strdup(value) : NULL;
    }
    json_decref(o);
    return 0;
}

/* ---- References ---- */

static bool store_name_ok(const char *name, size_t len)
{
    if (len == 0 || len > STORE_NAME_MAX || !isalnum((unsigned char)name[0])) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)name[i]) && strchr("._-", name[i]) == NULL) {
            return false;
        }
    }
    return true;
}

int store_parse_ref(const char *ref, char name[STORE_NAME_MAX + 1], char tag[STORE_NAME_MAX + 1],
                    struct err *err)
{
    const char *colon = strchr(ref, ':');
    size_t len = colon != NULL ? (size_t)(colon - ref) : strlen(ref);
    if (!store_name_ok(ref, len) ||
        (colon != NULL && !store_name_ok(colon + 1, strlen(colon + 1)))) {
        return err_set(err, -EINVAL,
                       "'%s' is not the name of an image: give NAME or NAME:TAG, each of at most "
                       "%d letters, digits, '.', '_' and '-'",
                       ref, STORE_NAME_MAX);
    }
    (void)snprintf(name, STORE_NAME_MAX + 1, "%.*s", (int)len, ref);
    (void)snprintf(tag, STORE_NAME_MAX + 1, "%s", colon != NULL ? colon + 1 : "");
    return 0;
}

int store_each_ref(const struct store *s, store_ref_fn *fn, void *opaque)
{
    char path[STORE_PATH_MAX];
    char **names = store_names(store_path(s, path, "tags"));
    int rc = 0;
    for (char **n = names; *n != NULL && rc == 0; n++) {
        char **tags = store_names(store_path(s, path, "tags/%s", *n));
        for (char **t = tags; *t != NULL && rc == 0; t++) {
            struct err err = ERR_INIT;
            CLEANUP_FREE char *id = NULL;
            if (strchr(*t, '~') == NULL && /* a write that was killed */
                store_read_text(store_path(s, path, "tags/%s/%s", *n, *t), &id, &err) == 0 &&
                digest_is_hex(id)) {
                rc = fn(opaque, *n, *t, id);
            }
        }
        store_names_free(tags);
    }
    store_names_free(names);
    return rc;
}

/* The newest tag of a name: its file was written last. */
static bool store_newest_tag(const struct store *s, const char *name, char tag[STORE_NAME_MAX + 1])
{
    char path[STORE_PATH_MAX];
    struct timespec newest = { 0 };
    bool found = false;
    char **tags = store_names(store_path(s, path, "tags/%s", name));
    for (char **t = tags; *t != NULL; t++) {
        struct stat st;
        if (strchr(*t, '~') == NULL &&
            stat(store_path(s, path, "tags/%s/%s", name, *t), &st) == 0 &&
            (!found || st.st_mtim.tv_sec > newest.tv_sec ||
             (st.st_mtim.tv_sec == newest.tv_sec && st.st_mtim.tv_nsec >= newest.tv_nsec))) {
            newest = st.st_mtim;
            found = true;
            (void)snprintf(tag, STORE_NAME_MAX + 1, "%s", *t);
        }
    }
    store_names_free(tags);
    return found;
}

/* The image whose ID begins with `digits`. */
static int store_find_id(const struct store *s, const char *digits, char id[DIGEST_HEX + 1],
                         struct err *err)
{
    char path[STORE_PATH_MAX];
    int found = 0;
    char **names = store_names(store_path(s, path, "images"));
    for (char **n = names; *n != NULL; n++) {
        if (digest_is_hex(*n) && strncmp(*n, digits, strlen(digits)) == 0) {
            (void)snprintf(id, DIGEST_HEX + 1, "%s", *n);
            found++;
        }
    }
    store_names_free(names);
    return found > 1 ? err_set(err, -EINVAL, "more than one image begins with '%s'", digits)
                     : found;
}

int store_find(struct store *s, const char *ref, struct store_image *ret_image, struct err *err)
{
    char name[STORE_NAME_MAX + 1];
    char tag[STORE_NAME_MAX + 1];
    char id[DIGEST_HEX + 1];
    char path[STORE_PATH_MAX];
    size_t digits = strspn(ref, "0123456789abcdef");
    if (digits >= 4 && ref[digits] == '\0') {
        int rc = store_find_id(s, ref, id, err);
        if (rc != 0) {
            return rc < 0 ? rc : store_image_load(s, id, ret_image, err);
        }
    }
    int rc = store_parse_ref(ref, name, tag, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE char *text = NULL;
    struct err ignored = ERR_INIT;
    if ((tag[0] == '\0' && !store_newest_tag(s, name, tag)) ||
        store_read_text(store_path(s, path, "tags/%s/%s", name, tag), &text, &ignored) < 0 ||
        !digest_is_hex(text)) {
        return err_set(err, -ENOENT, "there is no image '%s' in the store (see 'posada image ls')",
                       ref);
    }
    return store_image_load(s, text, ret_image, err);
}

/* ---- The list ---- */

struct store_refs {
    const char *id;
    char **refs;
    size_t count;
};

static int store_collect_ref(void *opaque, const char *name, const char *tag, const char *id)
{
    struct store_refs *r = opaque;
    if (strcmp(id, r->id) != 0) {
        return 0;
    }
    r->refs = realloc(r->refs, (r->count + 2) * sizeof(*r->refs));
    if (r->refs == NULL || asprintf(&r->refs[r->count], "%s:%s", name, tag) < 0) {
        abort();
    }
    r->refs[++r->count] = NULL;
    return 0;
}

int store_list(struct store *s, store_image_fn *fn, void *opaque, struct err *err)
{
    char path[STORE_PATH_MAX];
    char **ids = store_names(store_path(s, path, "images"));
    int rc = 0;
    for (char **id = ids; *id != NULL && rc == 0; id++) {
        struct store_image image = { 0 };
        struct store_refs refs = { .id = *id, .refs = calloc(1, sizeof(char *)) };
        if (!digest_is_hex(*id) || refs.refs == NULL) {
            free(refs.refs);
            continue;
        }
        rc = store_image_load(s, *id, &image, err);
        if (rc == -ENOENT) { /* removed since the folder was read */
            err_clear(err);
            rc = 0;
        } else if (rc == 0) {
            (void)store_each_ref(s, store_collect_ref, &refs);
            rc = fn(opaque, &image, refs.refs, err);
        }
        store_names_free(refs.refs);
        store_image_done(&image);
    }
    store_names_free(ids);
    return rc;
}
