/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/schema.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct disk {
    char *file;
    uint64_t cache;
    bool readonly;
    struct schema_list tag;
};

struct opts {
    uint64_t memory;
    uint64_t cpus;
    char *name;
    bool verbose;
    struct schema_list disk;
};

static const char *const caches[] = { "writeback", "none", NULL };

static const struct schema_field disk_fields[] = {
    {.name = "file",
     .arg = "FILE",
     .help = "image",
     .type = SCHEMA_STR,
     .positional = true,
     .required = true,
     .min = 1,
     .offset = offsetof(struct disk, file) },
    { .name = "cache",
     .help = "cache mode",
     .type = SCHEMA_ENUM,
     .choices = caches,
     .deflt = "writeback",
     .offset = offsetof(struct disk, cache) },
    { .name = "readonly",
     .help = "no writes",
     .type = SCHEMA_FLAG,
     .offset = offsetof(struct disk, readonly) },
    { .name = "tag",
     .help = "a tag",
     .type = SCHEMA_STR,
     .list = true,
     .offset = offsetof(struct disk, tag) },
    { 0            },
};
static const struct schema disk_schema = { .name = "disk",
                                           .size = sizeof(struct disk),
                                           .fields = disk_fields };

static const struct schema_field fields[] = {
    {.name = "memory",
     .letter = 'm',
     .arg = "SIZE",
     .help = "RAM",
     .type = SCHEMA_SIZE,
     .min = 1 * MIB,
     .max = 1 * GIB,
     .deflt = "512M",
     .offset = offsetof(struct opts, memory) },
    { .name = "cpus",
     .arg = "N",
     .help = "vCPUs",
     .type = SCHEMA_UINT,
     .min = 1,
     .max = 8,
     .deflt = "1",
     .offset = offsetof(struct opts, cpus) },
    { .name = "name",
     .arg = "TEXT",
     .help = "name",
     .type = SCHEMA_STR,
     .offset = offsetof(struct opts, name) },
    { .name = "verbose",
     .help = "say more",
     .type = SCHEMA_FLAG,
     .offset = offsetof(struct opts, verbose) },
    { .name = "disk",
     .help = "a disk",
     .type = SCHEMA_GROUP,
     .sub = &disk_schema,
     .list = true,
     .offset = offsetof(struct opts, disk) },
    { 0                            },
};
static const struct schema schema = { .name = "run",
                                      .size = sizeof(struct opts),
                                      .fields = fields };

static int parse(struct opts *o, struct err *err, char **argv)
{
    int argc = 0;
    int first = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    schema_init(&schema, o);
    return schema_parse_argv(&schema, o, argc, argv, &first, err);
}

#define PARSE(o, err, ...) parse(o, err, (char *[]){ "run", __VA_ARGS__, NULL })

static void sizes(void **state)
{
    (void)state;
    uint64_t v = 0;
    char text[32];
    assert_int_equal(schema_parse_size("512M", &v), 0);
    assert_int_equal(v, 512 * MIB);
    assert_int_equal(schema_parse_size("4GiB", &v), 0);
    assert_int_equal(v, 4 * GIB);
    assert_int_equal(schema_parse_size("7", &v), 0);
    assert_int_equal(v, 7);
    static const char *const bad[] = { "", "M", "-1", "1X", "1MM", " 1", "1.5G", "0x10" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(schema_parse_size(bad[i], &v), -EINVAL);
    }
    assert_int_equal(schema_parse_size("99999999999999999999", &v), -ERANGE);
    assert_int_equal(schema_parse_size("17592186044416M", &v), -ERANGE);
    schema_format_size(1536 * MIB, text, sizeof(text));
    assert_string_equal(text, "1536M");
    schema_format_size(1000, text, sizeof(text));
    assert_string_equal(text, "1000");
}

static void options_and_groups(void **state)
{
    (void)state;
    struct opts o;
    struct err err = ERR_INIT;
    assert_int_equal(PARSE(&o, &err, "-m", "64M", "--cpus=2", "--verbose", "--disk",
                           "a,,b=c.raw,cache=none,readonly,tag=x,tag=y", "--disk=file=z.raw"),
                     0);
    assert_int_equal(o.memory, 64 * MIB);
    assert_int_equal(o.cpus, 2);
    assert_true(o.verbose);
    assert_int_equal(o.disk.count, 2);
    const struct disk *d = o.disk.items;
    assert_string_equal(d[0].file, "a,b=c.raw");
    assert_int_equal(d[0].cache, 1);
    assert_true(d[0].readonly);
    assert_int_equal(d[0].tag.count, 2);
    assert_string_equal(((char **)d[0].tag.items)[1], "y");
    assert_string_equal(d[1].file, "z.raw");
    assert_int_equal(d[1].cache, 0);

    /* To an argument list and back: the same again. */
    char **argv = schema_to_argv(&schema, &o, "vmm");
    struct opts back;
    assert_int_equal(parse(&back, &err, argv), 0);
    char **again = schema_to_argv(&schema, &back, "vmm");
    for (int i = 0; argv[i] != NULL || again[i] != NULL; i++) {
        assert_string_equal(argv[i], again[i]);
    }
    free(argv);
    free(again);
    schema_done(&schema, &back);
    schema_done(&schema, &o);
}

static void errors_name_the_value_and_the_range(void **state)
{
    (void)state;
    static const struct {
        const char *arg, *says;
        int code;
    } bad[] = {
        {"--memory=16G",         "'16G'",             -EINVAL},
        { "--memory=16G",        "1M to 1G",          -EINVAL},
        { "--cpus=0",            "1 to 8",            -EINVAL},
        { "--cpus=two",          "'two'",             -EINVAL},
        { "--nope",              "'--nope'",          -ENOENT},
        { "-z",                  "'-z'",              -ENOENT},
        { "--disk=",             "disk",              -EINVAL},
        { "--disk=cache=none",   "'file' is missing", -EINVAL},
        { "--disk=a,cache=fast", "writeback, none",   -EINVAL},
        { "--disk=a,size=3",     "'size'",            -ENOENT},
        { "--disk=a,cache",      "value is missing",  -EINVAL},
        { "--name",              "needs a value",     -EINVAL},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct opts o;
        struct err err = ERR_INIT;
        char arg[64];
        (void)snprintf(arg, sizeof(arg), "%s", bad[i].arg);
        assert_int_equal(PARSE(&o, &err, arg), bad[i].code);
        if (strstr(err.msg, bad[i].says) == NULL) {
            fail_msg("%s gave: %s", bad[i].arg, err.msg);
        }
        schema_done(&schema, &o);
    }
}

static void later_values_win(void **state)
{
    (void)state;
    struct opts o;
    struct err err = ERR_INIT;
    assert_int_equal(PARSE(&o, &err, "--name", "a", "--name", "b"), 0);
    assert_string_equal(o.name, "b");
    schema_done(&schema, &o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(options_and_groups),
        cmocka_unit_test(errors_name_the_value_and_the_range),
        cmocka_unit_test(later_values_win),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
