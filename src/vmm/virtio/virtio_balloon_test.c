/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest RAM of the harness is ordinary heap: page-aligned runs of it may be given back like any
 * private memory, and then read as zeroes.
 */
#include "vmm/virtio/virtio_balloon.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/virtio_balloon_defs.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_harness.h"

#define PAGE  4096
#define EXTRA UINT64_C(0x100000000) /* a second region: 8 MiB, above 4 GiB */

struct rig {
    struct virtio_harness vh;
    struct dev *dev;
    uint8_t *extra;
    int fd;
    uint64_t marked;
};

#define EXTRA_SIZE (8 * MIB)
#define ALL_FEATURES                                                                               \
    (BIT64(VIRTIO_BALLOON_F_STATS_VQ) | BIT64(VIRTIO_BALLOON_F_PAGE_REPORTING) |                   \
     BIT64(VIRTIO_BALLOON_F_DEFLATE_ON_OOM))

static void on_written(void *opaque, gpa_t gpa, uint64_t len)
{
    if (gpa.v >= EXTRA) {
        ((struct rig *)opaque)->marked += len;
    }
}

static void rig_init(struct rig *r, bool shared, uint64_t page_size, uint64_t features)
{
    memset(r, 0, sizeof(*r));
    virtio_harness_init(&r->vh, 2 * MIB);
    r->fd = shared ? memfd_create("ram", MFD_CLOEXEC) : -1;
    if (shared) {
        assert_int_equal(ftruncate(r->fd, EXTRA_SIZE), 0);
    }
    /* Aligned to 2 MiB, as huge pages would be. */
    uint8_t *area = mmap(NULL, EXTRA_SIZE + 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(area != MAP_FAILED);
    uint8_t *at = (uint8_t *)bits_align_up((uintptr_t)area, 2 * MIB);
    int flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    r->extra = mmap(at, EXTRA_SIZE, PROT_READ | PROT_WRITE, flags, r->fd, 0);
    assert_true(r->extra == at);
    memset(r->extra, 0xaa, EXTRA_SIZE);
    assert_int_equal(gmem_add(r->vh.h.env.mem, GPA(EXTRA), EXTRA_SIZE, r->extra, true), 0);
    struct virtio_balloon_params p = {
        .shared = shared, .page_size = page_size, .reporting = true, .deflate_on_oom = true
    };
    r->dev = virtio_harness_add(&r->vh, &virtio_balloon_class, &p);
    virtio_harness_start(&r->vh, features, 64);
    gmem_set_written_hook(r->vh.h.env.mem, on_written, r);
}

static void rig_done(struct rig *r)
{
    virtio_harness_done(&r->vh);
    munmap(r->extra, EXTRA_SIZE);
    if (r->fd >= 0) {
        close(r->fd);
    }
}

static struct virtio_balloon_info info_of(struct rig *r)
{
    struct virtio_balloon_info info;
    virtio_balloon_get_info(r->dev, &info);
    return info;
}

static void inflate(struct rig *r, const uint64_t *pfns, unsigned n)
{
    uint64_t gpa = virtio_harness_alloc(&r->vh, 4 * (uint64_t)n, 4);
    for (unsigned i = 0; i < n; i++) {
        le32_put((uint8_t *)virtio_harness_ptr(&r->vh, gpa) + 4 * i, (uint32_t)pfns[i]);
    }
    struct virtio_hbuf b = { gpa, 4 * n, false };
    assert_int_equal(virtio_hq_roundtrip(r->vh.queue[0], &b, 1), 0);
}

static bool page_is(const struct rig *r, uint64_t page, uint8_t byte)
{
    const uint8_t *p = r->extra + page * PAGE;
    return p[0] == byte && memcmp(p, p + 1, PAGE - 1) == 0;
}

static void inflated_pages_are_given_back(bool shared)
{
    struct rig r;
    rig_init(&r, shared, 0, ALL_FEATURES);
    const uint64_t base = EXTRA / PAGE;
    const uint64_t pfns[] = { base + 5, base + 6, base + 7, base + 3, base + 2, base + 2000, base };
    inflate(&r, pfns, ARRAY_LEN(pfns));
    for (uint64_t i = 0; i < EXTRA_SIZE / PAGE; i++) {
        bool gone = i == 0 || i == 2 || i == 3 || (i >= 5 && i <= 7) || i == 2000;
        assert_true(page_is(&r, i, gone ? 0 : 0xaa));
    }
    assert_int_equal(info_of(&r).discarded, 7 * PAGE);
    assert_int_equal(r.marked, 7 * PAGE);
    r.extra[0] = 1; /* still RAM: the guest may take it back by touching it */
    assert_int_equal(r.extra[0], 1);
    rig_done(&r);
}

static void private_memory(void **state)
{
    (void)state;
    inflated_pages_are_given_back(false);
}

static void shared_memory(void **state)
{
    (void)state;
    inflated_pages_are_given_back(true);
}

static void pages_outside_ram_are_left_alone(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, false, 0, ALL_FEATURES);
    log_set_level(LOG_ERROR);
    const uint64_t end = (EXTRA + EXTRA_SIZE) / PAGE;
    /* A run over the end of a region, the hole below 4 GiB, the largest number. */
    const uint64_t pfns[] = { end - 1, end, end + 1, EXTRA / PAGE - 1, UINT32_MAX, 0x80000 };
    inflate(&r, pfns, ARRAY_LEN(pfns));
    assert_int_equal(info_of(&r).discarded, PAGE);
    assert_true(page_is(&r, EXTRA_SIZE / PAGE - 1, 0));
    assert_true(page_is(&r, EXTRA_SIZE / PAGE - 2, 0xaa));
    assert_int_equal(r.dev->guest_bugs, 5);
    assert_false(virtio_harness_status(&r.vh) & VIRTIO_STATUS_NEEDS_RESET);
    rig_done(&r);
}

static void huge_pages_go_only_whole(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, false, 2 * MIB, ALL_FEATURES);
    uint64_t pfns[256];
    const uint64_t base = EXTRA / PAGE;
    for (unsigned i = 0; i < 256; i++) {
        pfns[i] = base + i; /* half of the first 2 MiB */
    }
    inflate(&r, pfns, 256);
    assert_int_equal(info_of(&r).discarded, 0);
    /* Reported: from the middle of a huge page to the middle of another one. */
    struct virtio_hbuf b = { EXTRA + MIB, 5 * MIB, true };
    assert_int_equal(virtio_hq_roundtrip(r.vh.queue[3], &b, 1), 0);
    assert_int_equal(info_of(&r).discarded, 4 * MIB);
    assert_true(page_is(&r, 511, 0xaa));
    assert_true(page_is(&r, 512, 0));
    assert_true(page_is(&r, 1535, 0));
    assert_true(page_is(&r, 1536, 0xaa));
    rig_done(&r);
}

static void reported_memory(uint64_t features, unsigned queue)
{
    struct rig r;
    rig_init(&r, true, 0, features);
    struct virtio_hbuf bufs[] = {
        {EXTRA + 4 * PAGE,   8 * PAGE, true},
        { EXTRA + MIB + 100, 2 * PAGE, true}, /* not aligned: one whole page */
    };
    assert_int_equal(virtio_hq_roundtrip(r.vh.queue[queue], bufs, 2), 0);
    assert_int_equal(info_of(&r).discarded, 9 * PAGE);
    assert_true(page_is(&r, 3, 0xaa));
    assert_true(page_is(&r, 4, 0));
    assert_true(page_is(&r, 11, 0));
    assert_true(page_is(&r, 12, 0xaa));
    rig_done(&r);
}

/* As the specification numbers the queue, and as Linux does. */
static void reporting_queue_by_either_number(void **state)
{
    (void)state;
    reported_memory(ALL_FEATURES, 4);
    reported_memory(ALL_FEATURES, 3);
    reported_memory(BIT64(VIRTIO_BALLOON_F_PAGE_REPORTING), 2);
}

/* More pages than a turn takes: the chain is finished over several turns. */
static void long_chain_is_served_in_turns(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, false, 0, ALL_FEATURES);
    uint64_t n = 20000;
    uint64_t gpa = virtio_harness_alloc(&r.vh, 4 * n + 3, 4);
    for (uint64_t i = 0; i < n; i++) {
        /* Every page of the region, each second first, so that runs stay short; then again. */
        uint64_t page = (i * 2 + i / 1024 % 2) % (EXTRA_SIZE / PAGE);
        le32_put((uint8_t *)virtio_harness_ptr(&r.vh, gpa) + 4 * i,
                 (uint32_t)(EXTRA / PAGE + page));
    }
    struct virtio_hbuf b = { gpa, (uint32_t)(4 * n + 3), false };
    (void)virtio_hq_add(r.vh.queue[0], &b, 1);
    (void)virtio_hq_kick(r.vh.queue[0]);
    unsigned id;
    uint32_t len;
    assert_int_equal(loop_run_once(r.vh.h.env.loop, 0), 0);
    assert_false(virtio_hq_used(r.vh.queue[0], &id, &len));
    assert_true(virtio_hq_wait(r.vh.queue[0], &id, &len));
    for (uint64_t i = 0; i < EXTRA_SIZE / PAGE; i++) {
        assert_true(page_is(&r, i, 0));
    }
    /* Reset in the middle of one. */
    (void)virtio_hq_add(r.vh.queue[0], &b, 1);
    (void)virtio_hq_kick(r.vh.queue[0]);
    assert_int_equal(loop_run_once(r.vh.h.env.loop, 0), 0);
    virtio_harness_set_status(&r.vh, 0);
    assert_int_equal(virtio_harness_status(&r.vh), 0);
    dev_harness_poll(&r.vh.h);
    rig_done(&r);
}

static void target_and_actual(void **state)
{
    (void)state;
    struct rig r;
    struct err err = ERR_INIT;
    rig_init(&r, false, 0, ALL_FEATURES);
    unsigned before = virtio_harness_irqs(&r.vh, r.vh.nqueues);
    assert_int_equal(virtio_balloon_set_target(r.dev, 3 * MIB + 5, &err), 0);
    assert_int_equal(virtio_harness_config_read(&r.vh, 0, 4), 3 * MIB / PAGE);
    assert_int_equal(virtio_harness_irqs(&r.vh, r.vh.nqueues), before + 1);
    assert_int_equal(info_of(&r).target, 3 * MIB);
    virtio_harness_config_write(&r.vh, VIRTIO_BALLOON_CFG_ACTUAL, 4, 256);
    assert_int_equal(info_of(&r).actual, MIB);
    virtio_harness_config_write(&r.vh, VIRTIO_BALLOON_CFG_NUM_PAGES, 4, 1); /* not the driver's */
    assert_int_equal(virtio_harness_config_read(&r.vh, 0, 4), 3 * MIB / PAGE);
    virtio_harness_config_write(&r.vh, VIRTIO_BALLOON_CFG_ACTUAL, 4, UINT32_MAX);
    assert_int_equal(info_of(&r).actual, 10 * MIB);
    assert_int_equal(virtio_balloon_set_target(r.dev, 10 * MIB, &err), -EINVAL);
    assert_int_equal(virtio_balloon_set_target(r.dev, UINT64_MAX, &err), -EINVAL);
    virtio_harness_set_status(&r.vh, 0);
    assert_int_equal(info_of(&r).actual, 0);
    assert_int_equal(info_of(&r).target, 3 * MIB);
    rig_done(&r);
}

static void put_stats(struct rig *r, uint64_t gpa, uint64_t free_bytes)
{
    uint8_t *p = virtio_harness_ptr(&r->vh, gpa);
    le16_put(p, VIRTIO_BALLOON_STAT_FREE);
    le64_put(p + 2, free_bytes);
    le16_put(p + 10, 999); /* of a later specification */
    le64_put(p + 12, 1);
    le16_put(p + 20, VIRTIO_BALLOON_STAT_TOTAL);
    le64_put(p + 22, 77);
    struct virtio_hbuf b = { gpa, 34, false }; /* with half an entry at the end */
    assert_true(virtio_hq_add(r->vh.queue[2], &b, 1) >= 0);
    (void)virtio_hq_kick(r->vh.queue[2]);
    dev_harness_poll(&r->vh.h);
}

static void statistics_on_request(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, false, 0, ALL_FEATURES);
    assert_int_equal(info_of(&r).stat_ns, 0);
    uint64_t gpa = virtio_harness_alloc(&r.vh, 64, 1);
    r.vh.h.now_ns = 1000;
    put_stats(&r, gpa, 5 * MIB);
    unsigned id;
    uint32_t len;
    assert_false(virtio_hq_used(r.vh.queue[2], &id, &len)); /* kept until asked */
    struct virtio_balloon_info info = info_of(&r);
    assert_int_equal(info.valid, BIT(VIRTIO_BALLOON_STAT_FREE) | BIT(VIRTIO_BALLOON_STAT_TOTAL));
    assert_int_equal(info.stat[VIRTIO_BALLOON_STAT_FREE], 5 * MIB);
    assert_int_equal(info.stat_ns, 1000);
    assert_true(virtio_hq_used(r.vh.queue[2], &id, &len)); /* asked: the driver sends anew */
    assert_int_equal(info_of(&r).stat[VIRTIO_BALLOON_STAT_FREE], 5 * MIB);
    put_stats(&r, gpa, 6 * MIB);
    assert_int_equal(info_of(&r).stat[VIRTIO_BALLOON_STAT_FREE], 6 * MIB);
    /* A driver that sends without being asked gets its older buffers back. */
    assert_true(virtio_hq_used(r.vh.queue[2], &id, &len));
    put_stats(&r, gpa, 7 * MIB);
    put_stats(&r, gpa, 8 * MIB);
    assert_true(virtio_hq_used(r.vh.queue[2], &id, &len));
    assert_false(virtio_hq_used(r.vh.queue[2], &id, &len));
    /* While paused nothing is asked. */
    dev_stop(r.dev);
    assert_int_equal(info_of(&r).stat[VIRTIO_BALLOON_STAT_FREE], 8 * MIB);
    dev_start(r.dev);
    assert_false(virtio_hq_used(r.vh.queue[2], &id, &len));
    virtio_harness_set_status(&r.vh, 0);
    assert_int_equal(info_of(&r).valid, 0);
    assert_false(info_of(&r).driver_ready);
    rig_done(&r);
}

static void deflate_returns_the_chain(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, false, 0, ALL_FEATURES | BIT64(VIRTIO_F_RING_PACKED));
    uint64_t gpa = virtio_harness_alloc(&r.vh, 64, 4);
    struct virtio_hbuf b = { gpa, 64, false };
    assert_int_equal(virtio_hq_roundtrip(r.vh.queue[1], &b, 1), 0);
    rig_done(&r);
}

static bool attack_works(struct virtio_harness *vh, void *opaque)
{
    (void)opaque;
    struct virtio_hbuf b = { virtio_harness_alloc(vh, 64, 4), 64, false };
    return virtio_hq_roundtrip(vh->queue[0], &b, 1) == 0;
}

static void attacks(void **state)
{
    (void)state;
    static const struct virtio_balloon_params p = { .reporting = true };
    log_set_level(LOG_ERROR);
    for (unsigned queue = 0; queue < 4; queue++) {
        const struct virtio_attack_target target = {
            .cls = &virtio_balloon_class, .params = &p, .queue = queue, .works = attack_works
        };
        assert_int_equal(virtio_attack_all(&target), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(private_memory),
        cmocka_unit_test(shared_memory),
        cmocka_unit_test(pages_outside_ram_are_left_alone),
        cmocka_unit_test(huge_pages_go_only_whole),
        cmocka_unit_test(reporting_queue_by_either_number),
        cmocka_unit_test(long_chain_is_served_in_turns),
        cmocka_unit_test(target_and_actual),
        cmocka_unit_test(statistics_on_request),
        cmocka_unit_test(deflate_returns_the_chain),
        cmocka_unit_test(attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
