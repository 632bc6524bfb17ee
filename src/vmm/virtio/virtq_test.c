/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Virtqueues and the device core by an echo device: what the driver writes comes back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_echo.h"
#include "vmm/virtio/virtio_harness.h"

struct fixture {
    struct virtio_harness vh;
    struct virtio_echo *echo;
    struct virtio_hq *q;
};

static void set_up(struct fixture *f, uint64_t features, uint16_t size)
{
    virtio_harness_init(&f->vh, 1 * MIB);
    f->echo = virtio_harness_add(&f->vh, &virtio_echo_class, NULL)->state;
    virtio_harness_start(&f->vh, features, size);
    f->q = f->vh.queue[0];
}

#define F_PACKED   BIT64(VIRTIO_F_RING_PACKED)
#define F_EVENT    BIT64(VIRTIO_F_EVENT_IDX)
#define F_INDIRECT BIT64(VIRTIO_F_INDIRECT_DESC)

/* Every combination of ring layout, event index and indirect tables. */
static const uint64_t combinations[] = {
    0,
    F_EVENT,
    F_INDIRECT,
    F_EVENT | F_INDIRECT,
    F_PACKED,
    F_PACKED | F_EVENT,
    F_PACKED | F_INDIRECT,
    F_PACKED | F_EVENT | F_INDIRECT,
};

static void echo_once(struct fixture *f, unsigned pieces, unsigned seed)
{
    struct virtio_hbuf bufs[8];
    uint64_t out = virtio_harness_alloc(&f->vh, 8 * pieces, 1);
    uint64_t in = virtio_harness_alloc(&f->vh, 8 * pieces, 1);
    assert_true(2 * pieces <= ARRAY_LEN(bufs));
    for (unsigned i = 0; i < pieces; i++) {
        bufs[i] = (struct virtio_hbuf){ out + 8 * i, 8, false };
        bufs[pieces + i] = (struct virtio_hbuf){ in + 8 * i, 8, true };
        memset(virtio_harness_ptr(&f->vh, out + 8 * i), (int)(seed + i), 8);
    }
    assert_int_equal(virtio_hq_roundtrip(f->q, bufs, 2 * pieces), 8 * pieces);
    assert_memory_equal(virtio_harness_ptr(&f->vh, in), virtio_harness_ptr(&f->vh, out),
                        8 * pieces);
}

/* virtio 1.2 §2.7.13, §2.8.21: chains of several lengths, round and round the ring, past the wrap
 * of the 16-bit indices' low bits and of the packed wrap counters. */
static void test_echo_round_the_ring(void **state)
{
    (void)state;
    for (unsigned c = 0; c < ARRAY_LEN(combinations); c++) {
        struct fixture f;
        set_up(&f, combinations[c], 8);
        assert_int_equal(f.vh.features, combinations[c] | BIT64(VIRTIO_F_VERSION_1));
        f.q->use_indirect = (combinations[c] & F_INDIRECT) != 0;
        for (unsigned i = 0; i < 200; i++) {
            echo_once(&f, 1 + i % 4, i);
        }
        assert_int_equal(f.echo->served, 200);
        assert_int_equal(f.vh.dev->guest_bugs, 0);
        virtio_harness_done(&f.vh);
    }
}

/* §2.7.10, §2.8.10: a batch gives one interrupt, none when the driver does not want it. */
static void test_interrupt_suppression(void **state)
{
    (void)state;
    for (unsigned c = 0; c < ARRAY_LEN(combinations); c++) {
        struct fixture f;
        unsigned id;
        uint32_t len;
        set_up(&f, combinations[c], 16);
        uint64_t buf = virtio_harness_alloc(&f.vh, 32, 1);
        const struct virtio_hbuf bufs[] = {
            {buf,       16, false},
            { buf + 16, 16, true }
        };
        for (unsigned round = 0; round < 40; round++) {
            bool on = round % 2 == 0;
            unsigned before = virtio_harness_irqs(&f.vh, 0);
            virtio_hq_set_interrupts(f.q, on);
            for (unsigned i = 0; i < 5; i++) {
                assert_true(virtio_hq_add(f.q, bufs, 2) >= 0);
            }
            assert_true(virtio_hq_kick(f.q));
            dev_harness_poll(&f.vh.h);
            for (unsigned i = 0; i < 5; i++) {
                assert_true(virtio_hq_used(f.q, &id, &len));
            }
            assert_int_equal(virtio_harness_irqs(&f.vh, 0) - before, on ? 1 : 0);
        }
        virtio_harness_done(&f.vh);
    }
}

/* §2.7.10, §2.8.10: no kick is asked for while the device works; a device that never says so is
 * kicked for each batch that finds the ring empty. */
static void test_kick_suppression(void **state)
{
    (void)state;
    for (unsigned c = 0; c < ARRAY_LEN(combinations); c++) {
        struct fixture f;
        set_up(&f, combinations[c], 16);
        uint64_t buf = virtio_harness_alloc(&f.vh, 32, 1);
        const struct virtio_hbuf bufs[] = {
            {buf, 16, false}
        };
        f.echo->keep_kicks = true;
        dev_harness_poll(&f.vh.h);
        for (unsigned i = 0; i < 50; i++) {
            unsigned id;
            uint32_t len;
            assert_true(virtio_hq_add(f.q, bufs, 1) >= 0);
            assert_true(virtio_hq_kick(f.q));
            dev_harness_poll(&f.vh.h);
            assert_true(virtio_hq_used(f.q, &id, &len));
            assert_int_equal(len, 0);
        }
        struct virtq *vq = &f.echo->vdev.queue[0];
        assert_false(virtq_set_kicks(vq, false));
        assert_true(virtio_hq_add(f.q, bufs, 1) >= 0);
        assert_false(virtio_hq_kick(f.q));
        assert_true(virtq_set_kicks(vq, true)); /* and the buffer is seen */
        virtio_harness_done(&f.vh);
    }
}

/* §3.1.1: nothing is served before DRIVER_OK; features not offered are refused. */
static void test_status_machine(void **state)
{
    (void)state;
    struct virtio_harness vh;
    virtio_harness_init(&vh, 1 * MIB);
    (void)virtio_harness_add(&vh, &virtio_echo_class, NULL);
    uint64_t offered = virtio_harness_offered(&vh);
    assert_true((offered & BIT64(VIRTIO_F_VERSION_1)) != 0);
    assert_true((offered & BIT64(VIRTIO_F_RING_RESET)) != 0);
    assert_true((offered & BIT64(VIRTIO_F_ACCESS_PLATFORM)) == 0);

    (void)virtio_harness_negotiate(&vh, 0); /* without VERSION_1 */
    assert_int_equal(virtio_harness_status(&vh), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    virtio_harness_driver_ok(&vh);
    assert_int_equal(virtio_harness_status(&vh) & VIRTIO_STATUS_DRIVER_OK, 0);

    (void)virtio_harness_negotiate(&vh, BIT64(VIRTIO_F_VERSION_1));
    assert_true((virtio_harness_status(&vh) & VIRTIO_STATUS_FEATURES_OK) != 0);
    virtio_harness_common_write(&vh, VIRTIO_PCI_COMMON_DRIVER_FEATURE, 4, 0);
    struct virtio_hq *q = virtio_harness_queue(&vh, 0, 8);
    uint64_t buf = virtio_harness_alloc(&vh, 16, 1);
    const struct virtio_hbuf bufs[] = {
        {buf, 16, false}
    };
    unsigned id;
    uint32_t len;
    assert_true(virtio_hq_add(q, bufs, 1) >= 0);
    virtio_hq_ring(q);
    dev_harness_poll(&vh.h);
    assert_false(virtio_hq_used(q, &id, &len));
    virtio_harness_driver_ok(&vh);
    dev_harness_poll(&vh.h);
    assert_true(virtio_hq_used(q, &id, &len));
    virtio_harness_done(&vh);
}

/* §2.4.2: a reset while a back end has a buffer reads 0 only when it is back, which then touches
 * no ring; RING_RESET (§2.6.1) the same for one queue. */
static void test_reset_with_buffers_out(void **state)
{
    (void)state;
    for (unsigned c = 0; c < ARRAY_LEN(combinations); c++) {
        struct fixture f;
        set_up(&f, combinations[c] | BIT64(VIRTIO_F_RING_RESET), 8);
        uint64_t buf = virtio_harness_alloc(&f.vh, 32, 1);
        const struct virtio_hbuf bufs[] = {
            {buf,       16, false},
            { buf + 16, 16, true }
        };
        f.echo->hold = true;
        assert_true(virtio_hq_add(f.q, bufs, 2) >= 0);
        virtio_hq_ring(f.q);
        dev_harness_poll(&f.vh.h);
        assert_non_null(f.echo->held);
        virtio_harness_common_write(&f.vh, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2, 0);
        virtio_harness_common_write(&f.vh, VIRTIO_PCI_COMMON_QUEUE_RESET, 2, 1);
        assert_int_equal(virtio_harness_common_read(&f.vh, VIRTIO_PCI_COMMON_QUEUE_RESET, 2), 1);
        assert_int_equal(virtio_harness_common_read(&f.vh, VIRTIO_PCI_COMMON_QUEUE_ENABLE, 2), 0);
        virtio_harness_set_status(&f.vh, 0);
        assert_int_not_equal(virtio_harness_status(&f.vh), 0);
        struct virtq_elem *held = f.echo->held;
        f.echo->held = NULL;
        f.echo->hold = false;
        virtq_push(&f.echo->vdev.queue[0], held, 16);
        virtq_flush(&f.echo->vdev.queue[0]);
        assert_int_equal(virtio_harness_status(&f.vh), 0);
        assert_int_equal(f.echo->resets, 3); /* negotiate, queue, device */

        virtio_harness_start(&f.vh, combinations[c], 8);
        f.q = f.vh.queue[0];
        echo_once(&f, 2, 7);
        virtio_harness_done(&f.vh);
    }
}

/* After a pause nothing is served; what was kicked meanwhile is served at the start. */
static void test_stop_and_start(void **state)
{
    (void)state;
    struct fixture f;
    unsigned id;
    uint32_t len;
    set_up(&f, F_EVENT, 8);
    uint64_t buf = virtio_harness_alloc(&f.vh, 16, 1);
    const struct virtio_hbuf bufs[] = {
        {buf, 16, false}
    };
    dev_stop(f.vh.dev);
    assert_true(virtio_hq_add(f.q, bufs, 1) >= 0);
    virtio_hq_ring(f.q);
    dev_harness_poll(&f.vh.h);
    assert_false(virtio_hq_used(f.q, &id, &len));
    dev_start(f.vh.dev);
    dev_harness_poll(&f.vh.h);
    assert_true(virtio_hq_used(f.q, &id, &len));
    virtio_harness_done(&f.vh);
}

/* unpop puts the newest chain back; it is popped again, over the wrap of the packed ring too. */
static void test_unpop(void **state)
{
    (void)state;
    for (unsigned c = 0; c < ARRAY_LEN(combinations); c++) {
        struct fixture f;
        set_up(&f, combinations[c], 4);
        uint64_t buf = virtio_harness_alloc(&f.vh, 32, 1);
        const struct virtio_hbuf bufs[] = {
            {buf,       16, false},
            { buf + 16, 16, true }
        };
        for (unsigned i = 0; i < 9; i++) {
            struct virtq *vq = &f.echo->vdev.queue[0];
            struct virtq_elem *e;
            int id = virtio_hq_add(f.q, bufs, 1 + i % 2);
            assert_int_equal(virtq_pop(vq, &e), 1);
            virtq_unpop(vq, e);
            assert_false(virtq_empty(vq));
            assert_int_equal(virtq_pop(vq, &e), 1);
            assert_int_equal(e->id, id);
            assert_int_equal(virtq_pop(vq, &(struct virtq_elem *){ NULL }), 0);
            virtq_push(vq, e, 0);
            virtq_flush(vq);
            unsigned used_id;
            uint32_t len;
            assert_true(virtio_hq_used(f.q, &used_id, &len));
        }
        assert_int_equal(f.echo->vdev.queue[0].outstanding, 0);
        virtio_harness_done(&f.vh);
    }
}

static bool echo_works(struct virtio_harness *vh, void *opaque)
{
    (void)opaque;
    uint64_t buf = virtio_harness_alloc(vh, 64, 1);
    const struct virtio_hbuf bufs[] = {
        {buf,       32, false},
        { buf + 32, 32, true }
    };
    return virtio_hq_roundtrip(vh->queue[0], bufs, 2) == 32;
}

/* Each attack of virtio_attacks.def, named there by what it does (S7). */
static void test_attacks(void **state)
{
    (void)state;
    const struct virtio_attack_target target = { .cls = &virtio_echo_class, .works = echo_works };
    assert_true(virtio_attack_count >= 50);
    assert_int_equal(virtio_attack_all(&target), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_round_the_ring),
        cmocka_unit_test(test_interrupt_suppression),
        cmocka_unit_test(test_kick_suppression),
        cmocka_unit_test(test_status_machine),
        cmocka_unit_test(test_reset_with_buffers_out),
        cmocka_unit_test(test_stop_and_start),
        cmocka_unit_test(test_unpop),
        cmocka_unit_test(test_attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
