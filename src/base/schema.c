/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <libintl.h>
#include <stdlib.h>

#include "base/cleanup.h"

static void *schema_at(void *obj, const struct schema_field *f)
{
    return (char *)obj + f->offset;
}

static size_t schema_elem_size(const struct schema_field *f)
{
    switch (f->type) {
    case SCHEMA_FLAG:
        return sizeof(bool);
    case SCHEMA_STR:
        return sizeof(char *);
    case SCHEMA_UINT:
    case SCHEMA_SIZE:
    case SCHEMA_ENUM:
        return sizeof(uint64_t);
    case SCHEMA_GROUP:
        return f->sub->size;
    }
    abort();
}

const struct schema_field *schema_find(const struct schema *schema, const char *name)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        if (strcmp(f->name, name) == 0) {
            return f;
        }
    }
    return NULL;
}

static const struct schema_field *schema_positional(const struct schema *schema)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        if (f->positional) {
            return f;
        }
    }
    return NULL;
}

int schema_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGTP";
    if (text[0] < '0' || text[0] > '9') {
        return -EINVAL;
    }
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (errno != 0) {
        return -ERANGE;
    }
    if (*end != '\0') {
        char letter = (char)(*end >= 'a' ? *end - 'a' + 'A' : *end);
        const char *unit = letter != 'B' ? strchr(units, letter) : NULL;
        if (unit != NULL) {
            for (const char *u = units; u <= unit; u++) {
                if (ckd_mul(&v, v, UINT64_C(1024))) {
                    return -ERANGE;
                }
            }
            end++;
            end += strcmp(end, "iB") == 0 ? 2 : 0;
        }
        if (*end != '\0') {
            return -EINVAL;
        }
    }
    *ret_bytes = v;
    return 0;
}

void schema_format_size(uint64_t bytes, char *buf, size_t len)
{
    static const char *const units[] = { "", "K", "M", "G", "T", "P" };
    unsigned u = 0;
    while (u + 1 < ARRAY_LEN(units) && bytes != 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        u++;
    }
    (void)snprintf(buf, len, "%" PRIu64 "%s", bytes, units[u]);
}

static void schema_range_text(const struct schema_field *f, char *buf, size_t len)
{
    char min[32];
    char max[32];
    if (f->type == SCHEMA_SIZE) {
        schema_format_size(f->min, min, sizeof(min));
        schema_format_size(f->max, max, sizeof(max));
    } else {
        (void)snprintf(min, sizeof(min), "%" PRIu64, f->min);
        (void)snprintf(max, sizeof(max), "%" PRIu64, f->max);
    }
    if (f->max != 0) {
        (void)snprintf(buf, len, gettext("%s to %s"), min, max);
    } else {
        (void)snprintf(buf, len, "%s or more", min);
    }
}

static void schema_choices_text(const struct schema_field *f, char *buf, size_t len)
{
    size_t used = 0;
    buf[0] = '\0';
    for (unsigned i = 0; f->choices[i] != NULL && used < len; i++) {
        int n = snprintf(buf + used, len - used, "%s%s", i > 0 ? ", " : "", f->choices[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

static int schema_parse_number(const struct schema_field *f, const char *value, uint64_t *ret,
                               struct err *err)
{
    char range[80];
    uint64_t v = 0;
    int rc;
    if (f->type == SCHEMA_SIZE) {
        rc = schema_parse_size(value, &v);
    } else {
        char *end;
        errno = 0;
        v = strtoull(value, &end, 0);
        rc = value[0] < '0' || value[0] > '9' || *end != '\0' ? -EINVAL : -errno;
    }
    if (rc < 0 || v < f->min || (f->max != 0 && v > f->max)) {
        schema_range_text(f, range, sizeof(range));
        return err_set(err, -EINVAL,
                       f->type == SCHEMA_SIZE
                           ? "%s: '%s' is not a valid size: give %s (such as 512M or 4G)"
                           : "%s: '%s' is not a valid number: give %s",
                       f->name, value, range);
    }
    *ret = v;
    return 0;
}

static int schema_parse_flag(const struct schema_field *f, const char *value, bool *ret,
                             struct err *err)
{
    if (value == NULL || strcmp(value, "true") == 0 || strcmp(value, "on") == 0 ||
        strcmp(value, "yes") == 0) {
        *ret = true;
        return 0;
    }
    if (strcmp(value, "false") == 0 || strcmp(value, "off") == 0 || strcmp(value, "no") == 0) {
        *ret = false;
        return 0;
    }
    return err_set(err, -EINVAL, "%s: '%s' is neither on nor off", f->name, value);
}

/* Parses `value` into the element at `to`, which is empty. */
static int schema_parse_value(const struct schema_field *f, void *to, const char *value,
                              struct err *err)
{
    if (f->type == SCHEMA_FLAG) {
        return schema_parse_flag(f, value, to, err);
    }
    if (value == NULL) {
        return err_set(err, -EINVAL, "%s: a value is missing: give %s=%s", f->name, f->name,
                       f->arg != NULL ? f->arg : "VALUE");
    }
    switch (f->type) {
    case SCHEMA_STR: {
        if (value[0] == '\0' && f->min > 0) {
            return err_set(err, -EINVAL, "%s: the value is empty: give %s", f->name,
                           f->arg != NULL ? f->arg : "a text");
        }
        char *copy = strdup(value);
        if (copy == NULL) {
            return err_set(err, -ENOMEM, "%s: out of memory", f->name);
        }
        *(char **)to = copy;
        return 0;
    }
    case SCHEMA_UINT:
    case SCHEMA_SIZE:
        return schema_parse_number(f, value, to, err);
    case SCHEMA_ENUM:
        for (uint64_t i = 0; f->choices[i] != NULL; i++) {
            if (strcmp(f->choices[i], value) == 0) {
                *(uint64_t *)to = i;
                return 0;
            }
        }
        char choices[256];
        schema_choices_text(f, choices, sizeof(choices));
        return err_set(err, -EINVAL, "%s: '%s' is unknown: give one of %s", f->name, value,
                       choices);
    case SCHEMA_GROUP:
        schema_init(f->sub, to);
        if (schema_parse_group(f->sub, to, value, err) < 0) {
            schema_done(f->sub, to);
            return err_prefix(err, "%s '%s': ", f->name, value);
        }
        return 0;
    case SCHEMA_FLAG:
        break;
    }
    abort();
}

static void schema_free_elem(const struct schema_field *f, void *elem)
{
    if (f->type == SCHEMA_STR) {
        free(*(char **)elem);
        *(char **)elem = NULL;
    } else if (f->type == SCHEMA_GROUP) {
        schema_done(f->sub, elem);
    }
}

static int schema_append(const struct schema_field *f, struct schema_list *list, const char *value,
                         struct err *err)
{
    size_t size = schema_elem_size(f);
    if (list->count == SCHEMA_MAX_LIST) {
        return err_set(err, -E2BIG, "%s: given more than %d times", f->name, SCHEMA_MAX_LIST);
    }
    void *items = realloc(list->items, (list->count + 1) * size);
    if (items == NULL) {
        return err_set(err, -ENOMEM, "%s: out of memory", f->name);
    }
    list->items = items;
    void *elem = (char *)items + list->count * size;
    memset(elem, 0, size);
    int rc = schema_parse_value(f, elem, value, err);
    if (rc == 0) {
        list->count++;
    }
    return rc;
}

static int schema_set_field(const struct schema_field *f, void *obj, const char *value,
                            struct err *err)
{
    void *at = schema_at(obj, f);
    if (f->list) {
        return schema_append(f, at, value, err);
    }
    /* Later wins, as in every command line: free what was there. */
    size_t size = schema_elem_size(f);
    CLEANUP_FREE void *fresh = calloc(1, size);
    if (fresh == NULL) {
        return err_set(err, -ENOMEM, "%s: out of memory", f->name);
    }
    int rc = schema_parse_value(f, fresh, value, err);
    if (rc == 0) {
        schema_free_elem(f, at);
        memcpy(at, fresh, size);
    }
    return rc;
}

static int schema_unknown(const struct schema *schema, const char *name, struct err *err)
{
    char names[600];
    size_t used = 0;
    names[0] = '\0';
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        int n = snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", f->name);
        used += n > 0 ? (size_t)n : 0;
        if (used >= sizeof(names)) {
            break;
        }
    }
    return err_set(err, -ENOENT, "%s: unknown option '%s': there are %s", schema->name, name,
                   names);
}

int schema_set(const struct schema *schema, void *obj, const char *name, const char *value,
               struct err *err)
{
    const struct schema_field *f = schema_find(schema, name);
    return f == NULL ? schema_unknown(schema, name, err) : schema_set_field(f, obj, value, err);
}

void schema_init(const struct schema *schema, void *obj)
{
    memset(obj, 0, schema->size);
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        if (f->deflt != NULL && !f->list) {
            struct err err = ERR_INIT;
            if (schema_set_field(f, obj, f->deflt, &err) < 0) {
                fprintf(stderr, "bad default in an option table: %s\n", err.msg);
                abort();
            }
        }
    }
}

void schema_done(const struct schema *schema, void *obj)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        void *at = schema_at(obj, f);
        if (f->list) {
            struct schema_list *list = at;
            for (size_t i = 0; i < list->count; i++) {
                schema_free_elem(f, (char *)list->items + i * schema_elem_size(f));
            }
            free(list->items);
            *list = (struct schema_list){ 0 };
        } else {
            schema_free_elem(f, at);
        }
    }
}

/* Cuts the next element off *text, undoing ",,". NULL at the end; the result is malloc()ed. */
static char *schema_next_element(const char **text)
{
    const char *p = *text;
    if (p == NULL) {
        return NULL;
    }
    char *elem = malloc(strlen(p) + 1);
    if (elem == NULL) {
        abort();
    }
    size_t n = 0;
    while (*p != '\0') {
        if (*p == ',') {
            if (p[1] != ',') {
                break;
            }
            p++;
        }
        elem[n++] = *p++;
    }
    elem[n] = '\0';
    *text = *p == ',' ? p + 1 : NULL;
    return elem;
}

int schema_parse_group(const struct schema *schema, void *obj, const char *text, struct err *err)
{
    bool first = true;
    char *next;
    while ((next = schema_next_element(&text)) != NULL) {
        CLEANUP_FREE char *elem = next;
        const struct schema_field *pos = first ? schema_positional(schema) : NULL;
        char *eq = strchr(elem, '=');
        int rc;
        first = false;
        if (pos != NULL) {
            /* "file=X" names the positional field or another one; a path with "=" does not. */
            char *key = eq != NULL ? strndup(elem, (size_t)(eq - elem)) : NULL;
            bool named = key != NULL && schema_find(schema, key) != NULL;
            free(key);
            if (!named) {
                rc = schema_set_field(pos, obj, elem, err);
                if (rc < 0) {
                    return rc;
                }
                continue;
            }
        }
        if (eq != NULL) {
            *eq = '\0';
        }
        rc = schema_set(schema, obj, elem, eq != NULL ? eq + 1 : NULL, err);
        if (rc < 0) {
            return rc;
        }
    }
    return schema_check(schema, obj, err);
}

int schema_check(const struct schema *schema, const void *obj, struct err *err)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        const void *at = (const char *)obj + f->offset;
        if (f->required &&
            (f->list ? ((const struct schema_list *)at)->count == 0 : *(char *const *)at == NULL)) {
            return err_set(err, -EINVAL, "%s: '%s' is missing: give %s", schema->name, f->name,
                           f->arg != NULL ? f->arg : "a value");
        }
    }
    return schema->check != NULL ? schema->check(obj, err) : 0;
}

static const struct schema_field *schema_find_letter(const struct schema *schema, char letter)
{
    for (const struct schema_field *f = schema->fields; f->name != NULL; f++) {
        if (f->letter == letter) {
            return f;
        }
    }
    return NULL;
}

/* One option at argv[*i]; leaves *i behind what it took. */
static int schema_parse_one(const struct schema *schema, void *obj, int argc, char **argv, int *i,
                            struct err *err)
{
    const char *arg = argv[(*i)++];
    const struct schema_field *f;
    const char *value = NULL;
    if (arg[1] == '-') {
        const char *eq = strchr(arg, '=');
        CLEANUP_FREE char *name =
            eq != NULL ? strndup(arg + 2, (size_t)(eq - arg - 2)) : strdup(arg + 2);
        if (name == NULL) {
            return err_set(err, -ENOMEM, "out of memory");
        }
        f = schema_find(schema, name);
        if (f == NULL) {
            return err_set(err, -ENOENT, "unknown option '--%s': see 'posada %s --help'", name,
                           schema->name);
        }
        value = eq != NULL ? eq + 1 : NULL;
    } else {
        f = arg[2] == '\0' ? schema_find_letter(schema, arg[1]) : NULL;
        if (f == NULL) {
            return err_set(err, -ENOENT, "unknown option '%s': see 'posada %s --help'", arg,
                           schema->name);
        }
    }
    if (f->type != SCHEMA_FLAG && value == NULL) {
        if (*i == argc) {
            return err_set(err, -EINVAL, "option '%s' needs a value: %s %s", arg, arg,
                           f->arg != NULL ? f->arg : "VALUE");
        }
        value = argv[(*i)++];
    }
    int rc = schema_set_field(f, obj, value, err);
    return rc < 0 ? err_prefix(err, "--") : 0;
}

int schema_parse_options(const struct schema *schema, void *obj, int argc, char **argv,
                         int *ret_first, struct err *err)
{
    int i = 1;
    while (i < argc && argv[i][0] == '-' && argv[i][1] != '\0') {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        int rc = schema_parse_one(schema, obj, argc, argv, &i, err);
        if (rc < 0) {
            return rc;
        }
    }
    *ret_first = i;
    return 0;
}

int schema_parse_argv(const struct schema *schema, void *obj, int argc, char **argv, int *ret_first,
                      struct err *err)
{
    int rc = schema_parse_options(schema, obj, argc, argv, ret_first, err);
    return rc < 0 ? rc : schema_check(schema, obj, err);
}
