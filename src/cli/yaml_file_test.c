/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/yaml_file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/vmconfig.h"

static int parse(const char *text, struct vmconfig *c, struct err *err)
{
    schema_init(&vmconfig_schema, c);
    return yaml_file_parse("t.yaml", text, strlen(text), &vmconfig_schema, c, err);
}

static void options_lists_and_groups(void **state)
{
    (void)state;
    struct vmconfig c;
    struct err err = ERR_INIT;
    assert_int_equal(parse("kernel: /boot/vmlinuz\n"
                           "memory: 2G\n"
                           "no-reboot: true\n"
                           "disk:\n"
                           "  - file: \"a,b.qcow2\"\n"
                           "    cache: none\n"
                           "  - data.raw,readonly\n"
                           "net:\n"
                           "  - kind: user\n"
                           "    hostfwd: [\"tcp:127.0.0.1:1-:2\", \"tcp:127.0.0.1:3-:4\"]\n",
                           &c, &err),
                     0);
    assert_string_equal(c.kernel, "/boot/vmlinuz");
    assert_int_equal(c.memory, 2 * GIB);
    assert_true(c.no_reboot);
    const struct vmconfig_disk *d = c.disk.items;
    assert_int_equal(c.disk.count, 2);
    assert_string_equal(d[0].file, "a,b.qcow2");
    assert_int_equal(d[0].cache, 1);
    assert_true(d[1].readonly);
    const struct vmconfig_net *n = c.net.items;
    assert_int_equal(c.net.count, 1);
    assert_int_equal(n[0].hostfwd.count, 2);
    assert_string_equal(((char **)n[0].hostfwd.items)[1], "tcp:127.0.0.1:3-:4");
    schema_done(&vmconfig_schema, &c);
}

static void faults_name_file_line_and_value(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"- a\n- b\n",                            "line 1: a mapping"                },
        { "",                                     "a mapping"                        },
        { "kernel: x\nmemory: huge\n",            "line 2: memory: 'huge'"           },
        { "kernel: x\nfoo: 1\n",                  "line 2: run: unknown option 'foo'"},
        { "kernel: [a, b]\n",                     "one value, not a list"            },
        { "a: &x 1\nb: *x\n",                     "unknown option 'a'"               },
        { "kernel: &x k\ninitrd: *x\n",           "line 2: aliases"                  },
        { "kernel: \"unclosed\n",                 "not valid YAML"                   },
        { "disk:\n - {file: a, cache: {b: c}}\n", "line 2: a value or a list"        },
        { "net:\n - {kind: wifi}\n",              "'wifi' is unknown"                },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct vmconfig c;
        struct err err = ERR_INIT;
        assert_true(parse(bad[i].text, &c, &err) < 0);
        if (strstr(err.msg, bad[i].says) == NULL || strncmp(err.msg, "t.yaml: ", 8) != 0) {
            fail_msg("%s gave: %s", bad[i].text, err.msg);
        }
        schema_done(&vmconfig_schema, &c);
    }
}

static void files_are_checked(void **state)
{
    (void)state;
    struct vmconfig c;
    struct err err = ERR_INIT;
    schema_init(&vmconfig_schema, &c);
    assert_int_equal(yaml_file_load("/nonexistent.yaml", &vmconfig_schema, &c, &err), -ENOENT);
    assert_int_equal(yaml_file_load("/", &vmconfig_schema, &c, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "not a regular file"));
    schema_done(&vmconfig_schema, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_lists_and_groups),
        cmocka_unit_test(faults_name_file_line_and_value),
        cmocka_unit_test(files_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
