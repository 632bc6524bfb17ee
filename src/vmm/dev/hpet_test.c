/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/hpet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/dev/dev_harness.h"
#include "vmm/layout.h"

#define US  UINT64_C(1000) /* ns */
#define GSI 10

struct fixture {
    struct dev_harness h;
    struct dev *dev;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    dev_harness_init(&f->h, MIB);
    f->dev = dev_harness_add(&f->h, &hpet_class, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    dev_harness_done(&f->h);
    free(f);
    return 0;
}

static uint64_t rd(struct fixture *f, unsigned reg)
{
    return dev_harness_mmio_read(&f->h, LAYOUT_HPET_BASE + reg, 8);
}

static void wr(struct fixture *f, unsigned reg, uint64_t value)
{
    dev_harness_mmio_write(&f->h, LAYOUT_HPET_BASE + reg, 8, value);
}

static void advance_us(struct fixture *f, uint64_t us)
{
    f->h.now_ns += us * US;
    (void)rd(f, 0xf0);
}

static void capabilities_and_counter(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(rd(f, 0), UINT64_C(0x0098968080862201));
    assert_int_equal(dev_harness_mmio_read(&f->h, LAYOUT_HPET_BASE + 4, 4), 10000000);
    assert_int_equal(rd(f, 0x100), UINT64_C(0x00000c0000000030));
    advance_us(f, 50);
    assert_int_equal(rd(f, 0xf0), 0); /* halted */
    wr(f, 0xf0, 1000);
    wr(f, 0x10, 3); /* legacy replacement is not there */
    assert_int_equal(rd(f, 0x10), 1);
    advance_us(f, 50);
    assert_int_equal(rd(f, 0xf0), 6000);
    assert_int_equal(dev_harness_mmio_read(&f->h, LAYOUT_HPET_BASE + 0xf0, 4), 6000);
    wr(f, 0x10, 0);
    advance_us(f, 50);
    assert_int_equal(rd(f, 0xf0), 6000);
    wr(f, 0, 0);
    assert_int_equal(rd(f, 0) & 0xff, 1);
    assert_int_equal(dev_harness_mmio_read(&f->h, LAYOUT_HPET_BASE + 2, 4), 0); /* misaligned */
}

static void one_shot_edge(void **state)
{
    struct fixture *f = *state;
    wr(f, 0x120, GSI << 9 | 4);
    wr(f, 0x128, 1000);
    wr(f, 0x10, 1);
    advance_us(f, 9);
    assert_int_equal(f->h.gsi_rises[GSI], 0);
    advance_us(f, 1);
    assert_int_equal(f->h.gsi_rises[GSI], 1);
    assert_int_equal(f->h.gsi_level[GSI], 0);
    assert_int_equal(rd(f, 0x20), 0); /* edge: no status */
    advance_us(f, 1000);
    assert_int_equal(f->h.gsi_rises[GSI], 1);
}

static void one_shot_level_until_cleared(void **state)
{
    struct fixture *f = *state;
    wr(f, 0x100, GSI << 9 | 6);
    wr(f, 0x108, 1000);
    wr(f, 0x10, 1);
    advance_us(f, 10);
    assert_int_equal(f->h.gsi_level[GSI], 1);
    assert_int_equal(rd(f, 0x20), 1);
    wr(f, 0x20, 2);
    assert_int_equal(f->h.gsi_level[GSI], 1);
    dev_harness_mmio_write(&f->h, LAYOUT_HPET_BASE + 0x20, 4, 1);
    assert_int_equal(f->h.gsi_level[GSI], 0);
    assert_int_equal(rd(f, 0x20), 0);
}

static void periodic_with_accumulator(void **state)
{
    struct fixture *f = *state;
    wr(f, 0x100, GSI << 9 | 0x4c); /* periodic, VAL_SET */
    wr(f, 0x108, 5000);            /* first at 5000 ... */
    assert_int_equal(rd(f, 0x100) & 0x40, 0);
    wr(f, 0x108, 1000); /* ... then every 1000 */
    assert_int_equal(rd(f, 0x108), 5000);
    wr(f, 0x10, 1);
    advance_us(f, 49);
    assert_int_equal(f->h.gsi_rises[GSI], 0);
    advance_us(f, 1);
    assert_int_equal(f->h.gsi_rises[GSI], 1);
    assert_int_equal(rd(f, 0x108), 6000);
    for (unsigned i = 0; i < 5; i++) {
        advance_us(f, 10);
    }
    assert_int_equal(f->h.gsi_rises[GSI], 6);
    advance_us(f, 95); /* late: one interrupt, and the beat is kept */
    assert_int_equal(f->h.gsi_rises[GSI], 7);
    assert_int_equal(rd(f, 0x108), 20000);
}

static void comparator_of_32_bits_wraps(void **state)
{
    struct fixture *f = *state;
    wr(f, 0xf0, UINT64_C(0x1fffffc18));
    wr(f, 0x100, GSI << 9 | 0x104);
    wr(f, 0x108, UINT64_C(0xff00000000000000));
    assert_int_equal(rd(f, 0x108), 0);
    wr(f, 0x10, 1);
    advance_us(f, 9);
    assert_int_equal(f->h.gsi_rises[GSI], 0);
    advance_us(f, 1);
    assert_int_equal(f->h.gsi_rises[GSI], 1);
}

static void routes_that_do_not_exist_do_nothing(void **state)
{
    struct fixture *f = *state;
    for (unsigned route = 0; route < 32; route++) {
        wr(f, 0x100, route << 9 | 4);
        wr(f, 0x108, rd(f, 0xf0) + 100);
        wr(f, 0x10, 1);
        advance_us(f, 2);
    }
    assert_int_equal(f->h.gsi_rises[10], 1);
    assert_int_equal(f->h.gsi_rises[11], 1);
    assert_int_equal(f->h.gsi_rises[0] + f->h.gsi_rises[2] + f->h.gsi_rises[16], 0);
}

static void a_period_of_one_tick_is_bearable(void **state)
{
    struct fixture *f = *state;
    wr(f, 0x100, GSI << 9 | 0x4c);
    wr(f, 0x108, 1);
    wr(f, 0x10, 1);
    uint64_t start = loop_now_ns();
    unsigned rounds = 0;
    while (loop_now_ns() - start < 20000000) {
        f->h.now_ns += 100 * US;
        (void)loop_run_once(f->h.env.loop, 1);
        rounds++;
    }
    assert_in_range(f->h.gsi_rises[GSI], 1, rounds + 1);
    wr(f, 0x108, 0); /* a period of nothing */
    advance_us(f, 10);
}

static void the_timer_fires_without_an_access_but_not_while_paused(void **state)
{
    struct fixture *f = *state;
    wr(f, 0x100, GSI << 9 | 4);
    wr(f, 0x108, 100000); /* 1 ms */
    wr(f, 0x10, 1);
    dev_stop(f->dev);
    f->h.now_ns += 2000 * US;
    for (unsigned i = 0; i < 5; i++) {
        (void)loop_run_once(f->h.env.loop, 1);
    }
    assert_int_equal(f->h.gsi_rises[GSI], 0);
    dev_start(f->dev);
    assert_int_equal(f->h.gsi_rises[GSI], 1);
    wr(f, 0x108, rd(f, 0xf0) + 100000);
    f->h.now_ns += 2000 * US;
    for (unsigned i = 0; i < 500 && f->h.gsi_rises[GSI] == 1; i++) {
        (void)loop_run_once(f->h.env.loop, 1);
    }
    assert_int_equal(f->h.gsi_rises[GSI], 2);
}

static void reset_lowers_the_line(void **state)
{
    struct fixture *f = *state;
    wr(f, 0x100, GSI << 9 | 6);
    wr(f, 0x108, 1000);
    wr(f, 0x10, 1);
    advance_us(f, 10);
    assert_int_equal(f->h.gsi_level[GSI], 1);
    dev_reset(f->dev);
    assert_int_equal(f->h.gsi_level[GSI], 0);
    assert_int_equal(rd(f, 0x10), 0);
    assert_int_equal(rd(f, 0xf0), 0);
    assert_int_equal(rd(f, 0x108), UINT64_MAX);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(capabilities_and_counter),
        T(one_shot_edge),
        T(one_shot_level_until_cleared),
        T(periodic_with_accumulator),
        T(comparator_of_32_bits_wraps),
        T(routes_that_do_not_exist_do_nothing),
        T(a_period_of_one_tick_is_bearable),
        T(the_timer_fires_without_an_access_but_not_while_paused),
        T(reset_lowers_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
