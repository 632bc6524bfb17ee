/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/agent_wire.h"

static void test_header(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint8_t h[AGENT_WIRE_HEADER];
    unsigned type;
    uint32_t len;
    agent_wire_put_header(h, AGENT_WIRE_OUTPUT, 1234);
    assert_int_equal(agent_wire_get_header(h, &type, &len, &err), 0);
    assert_int_equal(type, AGENT_WIRE_OUTPUT);
    assert_int_equal(len, 1234);
    h[2] = 1;
    assert_int_equal(agent_wire_get_header(h, &type, &len, &err), -EPROTO);
    agent_wire_put_header(h, AGENT_WIRE_OUTPUT, AGENT_WIRE_MAX + 1);
    assert_int_equal(agent_wire_get_header(h, &type, &len, &err), -EPROTO);
}

/* Words of every kind come out as they went in: nothing takes them for syntax. */
static void test_run(void **state)
{
    (void)state;
    static const char *const argv[] = { "sh", "-c", "echo \"$1\" '\n' \\", "", "a b", NULL };
    static const char *const mounts[] = { "tag", "/mnt/x y", NULL };
    struct err err = ERR_INIT;
    struct agent_wire_run in = { .argv = argv, .mounts = mounts, .dir = "/tmp" };
    struct agent_wire_run out;
    uint8_t *data;
    uint32_t len;
    assert_int_equal(agent_wire_encode_run(&in, &data, &len, &err), 0);
    assert_int_equal(agent_wire_decode_run(data, len, &out, &err), 0);
    assert_string_equal(out.dir, "/tmp");
    for (unsigned i = 0; argv[i] != NULL; i++) {
        assert_string_equal(out.argv[i], argv[i]);
    }
    assert_null(out.argv[5]);
    assert_string_equal(out.mounts[1], "/mnt/x y");
    assert_null(out.mounts[2]);
    agent_wire_free_run(&out);
    /* Any shorter text is refused, and so is one with something behind it. */
    for (uint32_t cut = 0; cut < len; cut++) {
        assert_int_equal(agent_wire_decode_run(data, cut, &out, &err), -EPROTO);
    }
    uint8_t *longer = calloc(1, (size_t)len + 1);
    memcpy(longer, data, len);
    assert_int_equal(agent_wire_decode_run(longer, len + 1, &out, &err), -EPROTO);
    free(longer);
    free(data);
}

static void test_counts(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct agent_wire_run out;
    uint8_t data[16] = { 0 };
    le32_put(data + 4, UINT32_MAX);
    assert_int_equal(agent_wire_decode_run(data, sizeof(data), &out, &err), -EPROTO);
    le32_put(data, 1); /* a mount has two words */
    le32_put(data + 4, 1);
    assert_int_equal(agent_wire_decode_run(data, sizeof(data), &out, &err), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
