/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_harness.h"
#include "vmm/virtio/virtio_rng.h"

static const uint64_t layouts[] = { 0, BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_EVENT_IDX) };

/* virtio 1.2 §5.4.6: the buffer is filled, the used length says how far. */
static void test_fills_buffers(void **state)
{
    (void)state;
    for (unsigned c = 0; c < ARRAY_LEN(layouts); c++) {
        struct virtio_harness vh;
        virtio_harness_init(&vh, 1 * MIB);
        struct dev *dev = virtio_harness_add(&vh, &virtio_rng_class, NULL);
        virtio_harness_start(&vh, layouts[c], 8);
        uint64_t buf = virtio_harness_alloc(&vh, 8192, 1);
        const uint8_t zeroes[64] = { 0 };
        const uint8_t *p = virtio_harness_ptr(&vh, buf);
        const struct virtio_hbuf two[] = {
            {buf,       32, true},
            { buf + 64, 32, true}
        };
        assert_int_equal(virtio_hq_roundtrip(vh.queue[0], two, 2), 64);
        assert_memory_not_equal(p, zeroes, 32);
        assert_memory_equal(p + 32, zeroes, 32);
        assert_memory_not_equal(p + 64, zeroes, 32);
        assert_memory_equal(p + 96, zeroes, 32);
        const struct virtio_hbuf large[] = {
            {buf, 8192, true}
        };
        assert_int_equal(virtio_hq_roundtrip(vh.queue[0], large, 1), 4096);
        assert_memory_equal(p + 4096, zeroes, 64);
        assert_int_equal(virtio_rng_served(dev), 64 + 4096);
        virtio_harness_done(&vh);
    }
}

/* A buffer without room for the device is given back empty, and counted. */
static void test_readable_buffer(void **state)
{
    (void)state;
    struct virtio_harness vh;
    virtio_harness_init(&vh, 1 * MIB);
    struct dev *dev = virtio_harness_add(&vh, &virtio_rng_class, NULL);
    virtio_harness_start(&vh, 0, 8);
    uint64_t buf = virtio_harness_alloc(&vh, 64, 1);
    const struct virtio_hbuf bufs[] = {
        {buf, 64, false}
    };
    assert_int_equal(virtio_hq_roundtrip(vh.queue[0], bufs, 1), 0);
    assert_int_equal(dev->guest_bugs, 1);
    virtio_harness_done(&vh);
}

/* 10240 bytes/s are 1024 per 100 ms; the rest comes with the next period. */
static void test_rate(void **state)
{
    (void)state;
    struct virtio_harness vh;
    const struct virtio_rng_params params = { .bytes_per_second = 10240 };
    unsigned id;
    uint32_t len;
    virtio_harness_init(&vh, 1 * MIB);
    struct dev *dev = virtio_harness_add(&vh, &virtio_rng_class, &params);
    virtio_harness_start(&vh, 0, 8);
    struct virtio_hq *q = vh.queue[0];
    uint64_t buf = virtio_harness_alloc(&vh, 1000, 1);
    const struct virtio_hbuf bufs[] = {
        {buf, 1000, true}
    };
    assert_int_equal(virtio_hq_roundtrip(q, bufs, 1), 1000);
    assert_int_equal(virtio_hq_roundtrip(q, bufs, 1), 24);
    assert_true(virtio_hq_add(q, bufs, 1) >= 0);
    virtio_hq_ring(q);
    dev_harness_poll(&vh.h);
    assert_false(virtio_hq_used(q, &id, &len));
    dev_harness_advance(&vh.h, 100000000);
    assert_true(virtio_hq_wait(q, &id, &len)); /* by the timer */
    assert_int_equal(len, 1000);
    assert_int_equal(virtio_rng_served(dev), 2024);

    const struct virtio_rng_params low = { .bytes_per_second = 1023 };
    struct err err = ERR_INIT;
    struct dev *bad;
    assert_int_equal(dev_new(&vh.h.env, &virtio_rng_class, "rng1", &low, &bad, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "1024"));
    virtio_harness_done(&vh);
}

/* A driver that always refills is left for others after a ring full, and still served. */
static void test_more_than_a_batch(void **state)
{
    (void)state;
    struct virtio_harness vh;
    unsigned id;
    uint32_t len;
    virtio_harness_init(&vh, 1 * MIB);
    (void)virtio_harness_add(&vh, &virtio_rng_class, NULL);
    virtio_harness_start(&vh, BIT64(VIRTIO_F_EVENT_IDX), 64);
    struct virtio_hq *q = vh.queue[0];
    uint64_t buf = virtio_harness_alloc(&vh, 16, 1);
    const struct virtio_hbuf bufs[] = {
        {buf, 16, true}
    };
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 64; i++) {
            assert_true(virtio_hq_add(q, bufs, 1) >= 0);
        }
        (void)virtio_hq_kick(q);
        for (unsigned i = 0; i < 64; i++) {
            assert_true(virtio_hq_wait(q, &id, &len));
        }
    }
    virtio_harness_done(&vh);
}

static bool rng_works(struct virtio_harness *vh, void *opaque)
{
    (void)opaque;
    dev_harness_advance(&vh->h, 1000000000); /* the attack may have used the rate up */
    uint64_t buf = virtio_harness_alloc(vh, 64, 1);
    const struct virtio_hbuf bufs[] = {
        {buf, 64, true}
    };
    return virtio_hq_roundtrip(vh->queue[0], bufs, 1) == 64;
}

static void test_attacks(void **state)
{
    (void)state;
    const struct virtio_attack_target target = { .cls = &virtio_rng_class, .works = rng_works };
    assert_int_equal(virtio_attack_all(&target), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fills_buffers), cmocka_unit_test(test_readable_buffer),
        cmocka_unit_test(test_rate),          cmocka_unit_test(test_more_than_a_batch),
        cmocka_unit_test(test_attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
