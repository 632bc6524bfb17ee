/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/wire.h"

static const uint16_t types[] = {
#define MESSAGE_BEGIN(stem, STEM, number) number,
#define FIELD_U32(stem, m)
#define FIELD_U64(stem, m)
#define FIELD_STR(stem, m, max)
#define FIELD_PAIRS(stem, m, max)
#define MESSAGE_END(stem)
#include "proto/messages.def"
};

static void numbers_and_names_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(types[i], types[j]);
            assert_string_not_equal(wire_type_name(types[i]), wire_type_name(types[j]));
        }
    }
    assert_null(wire_type_name(0));
}

static struct wire_msg *filled(void)
{
    struct wire_msg *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    return m;
}

static void every_message_survives_the_wire(void **state)
{
    (void)state;
    static uint8_t buf[WIRE_HEADER_SIZE + WIRE_REPLY_MAX];
    static uint8_t again[sizeof(buf)];
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct wire_msg *m = filled();
        struct wire_msg *back = filled();
        m->type = types[i];
        m->serial = 77;
        int len = wire_encode(m, buf, sizeof(buf));
        assert_true(len >= (int)WIRE_HEADER_SIZE);
        assert_int_equal(wire_decode(buf, (size_t)len, WIRE_REPLY_MAX, back), len);
        assert_int_equal(back->type, types[i]);
        assert_int_equal(back->serial, 77);
        assert_int_equal(wire_encode(back, again, sizeof(again)), len);
        assert_memory_equal(buf, again, (size_t)len);
        free(m);
        free(back);
    }
}

static void fields_arrive(void **state)
{
    (void)state;
    uint8_t buf[4096];
    struct wire_msg *m = filled();
    struct wire_msg *back = filled();
    m->type = WIRE_STATUS_REPLY;
    (void)snprintf(m->status_reply.name, sizeof(m->status_reply.name), "web1");
    (void)snprintf(m->status_reply.state, sizeof(m->status_reply.state), "running");
    m->status_reply.pid = 4711;
    m->status_reply.memory_bytes = UINT64_C(0x123456789abcdef0);
    int len = wire_encode(m, buf, sizeof(buf));
    assert_true(len > 0);
    assert_int_equal(wire_decode(buf, (size_t)len, WIRE_REPLY_MAX, back), len);
    assert_string_equal(back->status_reply.name, "web1");
    assert_string_equal(back->status_reply.state, "running");
    assert_int_equal(back->status_reply.pid, 4711);
    assert_true(back->status_reply.memory_bytes == UINT64_C(0x123456789abcdef0));

    m->type = WIRE_STATS_REPLY;
    m->stats_reply.value_count = 2;
    (void)snprintf(m->stats_reply.value[1].name, WIRE_NAME_MAX + 1, "disk0.reads");
    m->stats_reply.value[1].value = 9;
    len = wire_encode(m, buf, sizeof(buf));
    assert_int_equal(wire_decode(buf, (size_t)len, WIRE_REPLY_MAX, back), len);
    assert_int_equal(back->stats_reply.value_count, 2);
    assert_string_equal(back->stats_reply.value[1].name, "disk0.reads");
    assert_int_equal(back->stats_reply.value[1].value, 9);
    free(m);
    free(back);
}

static void a_frame_may_arrive_in_pieces(void **state)
{
    (void)state;
    uint8_t buf[64];
    struct wire_msg *m = filled();
    m->type = WIRE_BALLOON;
    m->balloon.memory_bytes = 1;
    int len = wire_encode(m, buf, sizeof(buf));
    assert_int_equal(len, 24);
    for (int n = 0; n < len; n++) {
        assert_int_equal(wire_decode(buf, (size_t)n, WIRE_REQUEST_MAX, m), 0);
    }
    assert_int_equal(wire_decode(buf, sizeof(buf), WIRE_REQUEST_MAX, m), len);
    free(m);
}

static void broken_frames_are_refused(void **state)
{
    (void)state;
    uint8_t good[64] = { 0 };
    uint8_t bad[64];
    struct wire_msg *m = filled();
    m->type = WIRE_ERROR;
    (void)snprintf(m->error.text, sizeof(m->error.text), "no");
    int len = wire_encode(m, good, sizeof(good));
    assert_true(len > 0);

    memcpy(bad, good, sizeof(bad));
    bad[0] ^= 1;
    assert_int_equal(wire_decode(bad, sizeof(bad), WIRE_REPLY_MAX, m), -EPROTO);
    memcpy(bad, good, sizeof(bad));
    bad[4]++;
    assert_int_equal(wire_decode(bad, sizeof(bad), WIRE_REPLY_MAX, m), -EPROTONOSUPPORT);
    memcpy(bad, good, sizeof(bad));
    le16_put(bad + 6, 9999);
    le32_put(bad + 8, 5);
    assert_int_equal(wire_decode(bad, sizeof(bad), WIRE_REPLY_MAX, m), -ENOMSG);
    assert_int_equal(m->serial, 5);
    /* Longer than the receiver wants, at once and not after waiting for it. */
    memcpy(bad, good, sizeof(bad));
    le32_put(bad + 12, WIRE_REQUEST_MAX + 1);
    assert_int_equal(wire_decode(bad, WIRE_HEADER_SIZE, WIRE_REQUEST_MAX, m), -EMSGSIZE);
    /* A string that is longer than the frame, than its field, or that has a 0 in it. */
    memcpy(bad, good, sizeof(bad));
    le32_put(bad + 20, 3);
    assert_int_equal(wire_decode(bad, sizeof(bad), WIRE_REPLY_MAX, m), -EPROTO);
    le32_put(bad + 20, UINT32_MAX);
    assert_int_equal(wire_decode(bad, sizeof(bad), WIRE_REPLY_MAX, m), -EPROTO);
    memcpy(bad, good, sizeof(bad));
    bad[24] = 0;
    assert_int_equal(wire_decode(bad, sizeof(bad), WIRE_REPLY_MAX, m), -EPROTO);
    /* Bytes behind the last field. */
    memcpy(bad, good, sizeof(bad));
    le32_put(bad + 12, le32_get(bad + 12) + 1);
    assert_int_equal(wire_decode(bad, sizeof(bad), WIRE_REPLY_MAX, m), -EPROTO);
    free(m);
}

static void encoding_checks_its_input(void **state)
{
    (void)state;
    uint8_t buf[64];
    struct wire_msg *m = filled();
    m->type = 9999;
    assert_int_equal(wire_encode(m, buf, sizeof(buf)), -EINVAL);
    m->type = WIRE_STATS_REPLY;
    m->stats_reply.value_count = 513;
    assert_int_equal(wire_encode(m, buf, sizeof(buf)), -EINVAL);
    m->stats_reply.value_count = 100;
    assert_int_equal(wire_encode(m, buf, sizeof(buf)), -ENOSPC);
    assert_int_equal(wire_encode(m, buf, 3), -ENOSPC);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_names_are_unique),
        cmocka_unit_test(every_message_survives_the_wire),
        cmocka_unit_test(fields_arrive),
        cmocka_unit_test(a_frame_may_arrive_in_pieces),
        cmocka_unit_test(broken_frames_are_refused),
        cmocka_unit_test(encoding_checks_its_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
