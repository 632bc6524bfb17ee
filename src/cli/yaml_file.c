/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/yaml_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libintl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <yaml.h>

#include "base/cleanup.h"

struct yaml_file {
    const char *path;
    yaml_parser_t parser;
    yaml_event_t event; /* the current one */
    bool have_event;
    unsigned nodes;
};

static size_t line_of(const struct yaml_file *y)
{
    return y->event.start_mark.line + 1;
}

static int bad(const struct yaml_file *y, struct err *err, const char *what)
{
    return err_set(err, -EINVAL, "%s: line %zu: %s", y->path, line_of(y), gettext(what));
}

/* Steps to the next event; refuses what an option file has no use for. */
static int next(struct yaml_file *y, struct err *err)
{
    if (y->have_event) {
        yaml_event_delete(&y->event);
        y->have_event = false;
    }
    if (!yaml_parser_parse(&y->parser, &y->event)) {
        return err_set(err, -EINVAL, "%s: line %zu: not valid YAML: %s", y->path,
                       y->parser.problem_mark.line + 1,
                       y->parser.problem != NULL ? y->parser.problem : "unknown fault");
    }
    y->have_event = true;
    if (++y->nodes > YAML_FILE_MAX_NODES) {
        return err_set(err, -E2BIG, "%s: more than %d elements", y->path, YAML_FILE_MAX_NODES);
    }
    if (y->event.type == YAML_ALIAS_EVENT) {
        return bad(y, err, "aliases are not allowed here");
    }
    return 0;
}

static const char *scalar(const struct yaml_file *y)
{
    return (const char *)y->event.data.scalar.value;
}

/* Text with "," doubled, as a group wants its values. */
static void put_doubled(FILE *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        fputc(*p, out);
        if (*p == ',') {
            fputc(',', out);
        }
    }
}

static void put_pair(FILE *out, const char *key, const char *value)
{
    fprintf(out, "%s%s=", ftell(out) > 0 ? "," : "", key);
    put_doubled(out, value);
}

/* The value of `key` inside a group: a scalar or a list of scalars, written as key=value. */
static int group_value(struct yaml_file *y, FILE *out, const char *key, struct err *err)
{
    if (y->event.type == YAML_SCALAR_EVENT) {
        put_pair(out, key, scalar(y));
        return 0;
    }
    if (y->event.type != YAML_SEQUENCE_START_EVENT) {
        return bad(y, err, "a value or a list of values is expected");
    }
    for (;;) {
        int rc = next(y, err);
        if (rc < 0) {
            return rc;
        }
        if (y->event.type == YAML_SEQUENCE_END_EVENT) {
            return 0;
        }
        if (y->event.type != YAML_SCALAR_EVENT) {
            return bad(y, err, "a value is expected in this list");
        }
        put_pair(out, key, scalar(y));
    }
}

/* The mapping at the current event as the text "key=value,...". */
static int group_text(struct yaml_file *y, FILE *out, struct err *err)
{
    for (;;) {
        int rc = next(y, err);
        if (rc < 0) {
            return rc;
        }
        if (y->event.type == YAML_MAPPING_END_EVENT) {
            return 0;
        }
        if (y->event.type != YAML_SCALAR_EVENT) {
            return bad(y, err, "a name is expected");
        }
        CLEANUP_FREE char *key = strdup(scalar(y));
        if (key == NULL) {
            return err_set(err, -ENOMEM, "out of memory");
        }
        rc = next(y, err);
        if (rc == 0) {
            rc = group_value(y, out, key, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
}

/* Sets option `name` from the node at the current event. */
static int set_option(struct yaml_file *y, const struct schema *schema, void *obj, const char *name,
                      struct err *err)
{
    size_t line = line_of(y);
    int rc;
    if (y->event.type == YAML_SCALAR_EVENT) {
        rc = schema_set(schema, obj, name, scalar(y), err);
    } else if (y->event.type == YAML_MAPPING_START_EVENT) {
        CLEANUP_FREE char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);
        if (out == NULL) {
            return err_set(err, -ENOMEM, "out of memory");
        }
        rc = group_text(y, out, err);
        if (fclose(out) != 0 && rc == 0) {
            rc = err_set(err, -ENOMEM, "out of memory");
        }
        if (rc < 0) {
            return rc;
        }
        rc = schema_set(schema, obj, name, text, err);
    } else {
        return bad(y, err, "a value is expected");
    }
    return rc < 0 ? err_prefix(err, "%s: line %zu: ", y->path, line) : 0;
}

static int set_list(struct yaml_file *y, const struct schema *schema, void *obj, const char *name,
                    struct err *err)
{
    const struct schema_field *f = schema_find(schema, name);
    if (f != NULL && !f->list) {
        return bad(y, err, "this option takes one value, not a list");
    }
    for (;;) {
        int rc = next(y, err);
        if (rc < 0) {
            return rc;
        }
        if (y->event.type == YAML_SEQUENCE_END_EVENT) {
            return 0;
        }
        rc = set_option(y, schema, obj, name, err);
        if (rc < 0) {
            return rc;
        }
    }
}

static int top_mapping(struct yaml_file *y, const struct schema *schema, void *obj, struct err *err)
{
    for (;;) {
        int rc = next(y, err);
        if (rc < 0) {
            return rc;
        }
        if (y->event.type == YAML_MAPPING_END_EVENT) {
            return 0;
        }
        if (y->event.type != YAML_SCALAR_EVENT) {
            return bad(y, err, "an option's name is expected");
        }
        CLEANUP_FREE char *name = strdup(scalar(y));
        if (name == NULL) {
            return err_set(err, -ENOMEM, "out of memory");
        }
        rc = next(y, err);
        if (rc == 0) {
            rc = y->event.type == YAML_SEQUENCE_START_EVENT ? set_list(y, schema, obj, name, err)
                                                            : set_option(y, schema, obj, name, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
}

static int document(struct yaml_file *y, const struct schema *schema, void *obj, struct err *err)
{
    static const yaml_event_type_t head[] = { YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT,
                                              YAML_MAPPING_START_EVENT };
    for (size_t i = 0; i < ARRAY_LEN(head); i++) {
        int rc = next(y, err);
        if (rc < 0) {
            return rc;
        }
        if (y->event.type != head[i]) {
            return bad(y, err, "a mapping of options is expected, such as 'kernel: FILE'");
        }
    }
    return top_mapping(y, schema, obj, err);
}

int yaml_file_parse(const char *path, const char *text, size_t len, const struct schema *schema,
                    void *obj, struct err *err)
{
    struct yaml_file y = { .path = path };
    if (!yaml_parser_initialize(&y.parser)) {
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    }
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)text, len);
    int rc = document(&y, schema, obj, err);
    if (y.have_event) {
        yaml_event_delete(&y.event);
    }
    yaml_parser_delete(&y.parser);
    return rc;
}

int yaml_file_load(const char *path, const struct schema *schema, void *obj, struct err *err)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot open '%s'", path);
    }
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return err_set(err, -EINVAL, "'%s' is not a regular file", path);
    }
    if ((uint64_t)st.st_size > YAML_FILE_MAX_BYTES) {
        return err_set(err, -E2BIG, "'%s' has %lld bytes: %llu at most", path,
                       (long long)st.st_size, (unsigned long long)YAML_FILE_MAX_BYTES);
    }
    CLEANUP_FREE char *text = malloc((size_t)st.st_size + 1);
    if (text == NULL) {
        return err_set(err, -ENOMEM, "'%s': out of memory", path);
    }
    size_t have = 0;
    while (have < (size_t)st.st_size) {
        ssize_t n = read(fd, text + have, (size_t)st.st_size - have);
        if (n < 0) {
            return err_set_errno(err, -errno, "cannot read '%s'", path);
        }
        if (n == 0) {
            break;
        }
        have += (size_t)n;
    }
    return yaml_file_parse(path, text, have, schema, obj, err);
}
