/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The harness starts at 2023-11-14 22:13:20 UTC, a Tuesday. */
#include "vmm/dev/rtc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/dev/dev_harness.h"

#define SEC UINT64_C(1000000000)
#define MS  UINT64_C(1000000)
#define IRQ 8

struct fixture {
    struct dev_harness h;
    struct dev *rtc;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    static const struct rtc_params p = { .low_ram = 2 * GIB, .high_ram = 5 * GIB, .ncpus = 3 };
    dev_harness_init(&f->h, MIB);
    f->rtc = dev_harness_add(&f->h, &rtc_class, &p);
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

static uint8_t rd(struct fixture *f, uint8_t reg)
{
    dev_harness_outb(&f->h, 0x70, reg);
    return dev_harness_inb(&f->h, 0x71);
}

static void wr(struct fixture *f, uint8_t reg, uint8_t value)
{
    dev_harness_outb(&f->h, 0x70, reg);
    dev_harness_outb(&f->h, 0x71, value);
}

static void expect_time(struct fixture *f, const char *expect)
{
    uint8_t t[] = { rd(f, 0x32), rd(f, 9), rd(f, 8), rd(f, 7), rd(f, 4), rd(f, 2), rd(f, 0) };
    assert_memory_equal(t, expect, sizeof(t));
}

static void time_in_bcd_and_binary(void **state)
{
    struct fixture *f = *state;
    expect_time(f, "\x20\x23\x11\x14\x22\x13\x20");
    assert_int_equal(rd(f, 6), 3); /* Tuesday */
    wr(f, 11, 0x06);
    expect_time(f, "\x14\x17\x0b\x0e\x16\x0d\x14");
    wr(f, 11, 0x00);                                /* BCD, 12 hours */
    expect_time(f, "\x20\x23\x11\x14\x90\x13\x20"); /* 10 PM */
    dev_harness_advance(&f->h, 2 * 3600 * SEC);
    expect_time(f, "\x20\x23\x11\x15\x12\x13\x20"); /* 12 AM */
}

static void registers_d_a_and_index(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(rd(f, 13), 0x80);
    assert_int_equal(rd(f, 10), 0x26);
    dev_harness_outb(&f->h, 0x70, 0x80 | 13); /* bit 7 masks NMIs */
    assert_int_equal(dev_harness_inb(&f->h, 0x71), 0x80);
    assert_int_equal(dev_harness_inb(&f->h, 0x70), 0xff);
}

static void update_in_progress_before_the_second_ends(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(rd(f, 10) & 0x80, 0);
    dev_harness_advance(&f->h, SEC - 100000);
    assert_int_equal(rd(f, 10) & 0x80, 0x80);
    wr(f, 11, 0x82); /* SET: no update happens */
    assert_int_equal(rd(f, 10) & 0x80, 0);
}

static void set_holds_the_clock_and_sets_it(void **state)
{
    struct fixture *f = *state;
    wr(f, 11, 0x82);
    dev_harness_advance(&f->h, 10 * SEC);
    expect_time(f, "\x20\x23\x11\x14\x22\x13\x20");
    static const uint8_t regs[] = { 0x32, 9, 8, 7, 4, 2, 0 };
    static const uint8_t vals[] = { 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58 };
    for (unsigned i = 0; i < sizeof(regs); i++) {
        wr(f, regs[i], vals[i]);
    }
    wr(f, 11, 0x02);
    expect_time(f, "\x19\x99\x12\x31\x23\x59\x58");
    dev_harness_advance(&f->h, 2 * SEC);
    expect_time(f, "\x20\x00\x01\x01\x00\x00\x00");
    assert_int_equal(rd(f, 6), 7); /* a Saturday */
    wr(f, 7, 0x29);                /* without SET: takes effect at once */
    expect_time(f, "\x20\x00\x01\x29\x00\x00\x00");
}

static void divider_reset_starts_half_a_second_on(void **state)
{
    struct fixture *f = *state;
    dev_harness_advance(&f->h, 300 * MS);
    wr(f, 10, 0x76);
    wr(f, 0, 0x30);
    dev_harness_advance(&f->h, 5 * SEC);
    wr(f, 10, 0x26);
    assert_int_equal(rd(f, 0), 0x30);
    dev_harness_advance(&f->h, 499 * MS);
    assert_int_equal(rd(f, 0), 0x30);
    dev_harness_advance(&f->h, 2 * MS);
    assert_int_equal(rd(f, 0), 0x31);
}

static void nonsense_dates_do_no_harm(void **state)
{
    struct fixture *f = *state;
    wr(f, 11, 0x86);
    for (unsigned reg = 0; reg < 10; reg++) {
        wr(f, (uint8_t)reg, 0xff);
    }
    wr(f, 0x32, 0xff);
    wr(f, 11, 0x12);
    (void)rd(f, 9);
    wr(f, 11, 0x72);
    dev_harness_advance(&f->h, 86400 * SEC);
    (void)rd(f, 12);
}

static void update_interrupt(void **state)
{
    struct fixture *f = *state;
    wr(f, 11, 0x12);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    dev_harness_advance(&f->h, SEC);
    (void)rd(f, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    assert_int_equal(rd(f, 12), 0x80 | 0x10 | 0x40); /* the periodic flag comes along, unasked */
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    assert_int_equal(rd(f, 12), 0);
}

static void alarm_matches_and_dont_care(void **state)
{
    struct fixture *f = *state;
    wr(f, 10, 0x20); /* no periodic flag */
    wr(f, 5, 0x22);
    wr(f, 3, 0x14);
    wr(f, 1, 0x05);
    wr(f, 11, 0x22);
    dev_harness_advance(&f->h, 44 * SEC); /* 22:14:04 */
    (void)rd(f, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    dev_harness_advance(&f->h, SEC);
    (void)rd(f, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    assert_int_equal(rd(f, 12), 0xb0);
    wr(f, 5, 0xff); /* every hour, every minute */
    wr(f, 3, 0xc0);
    dev_harness_advance(&f->h, 59 * SEC);
    (void)rd(f, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    dev_harness_advance(&f->h, SEC);
    (void)rd(f, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    (void)rd(f, 12);
    wr(f, 5, 0x77);    /* an hour that never comes */
    wr(f, 0x32, 0x18); /* also long ago */
    dev_harness_advance(&f->h, 3 * 86400 * SEC);
    (void)rd(f, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
}

static void periodic_interrupt_at_its_rate(void **state)
{
    struct fixture *f = *state;
    wr(f, 10, 0x2a); /* 64 Hz */
    wr(f, 11, 0x42);
    unsigned n = 0;
    for (unsigned i = 0; i < 1000; i++) {
        dev_harness_advance(&f->h, MS);
        if ((rd(f, 12) & 0x40) != 0) {
            n++;
        }
    }
    assert_in_range(n, 63, 65);
    wr(f, 10, 0x20); /* rate 0: off */
    (void)rd(f, 12);
    dev_harness_advance(&f->h, SEC);
    assert_int_equal(rd(f, 12) & 0x40, 0);
}

/* The loop's timers run on the host's clock, and so does this test's guest for a moment. */
static void the_timer_fires_without_an_access(void **state)
{
    struct fixture *f = *state;
    wr(f, 10, 0x26);
    wr(f, 11, 0x42); /* 1024 Hz */
    for (unsigned i = 0; i < 500 && f->h.gsi_level[IRQ] == 0; i++) {
        f->h.now_ns += MS;
        (void)loop_run_once(f->h.env.loop, 1);
    }
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    (void)rd(f, 12);
    dev_stop(f->rtc);
    for (unsigned i = 0; i < 20; i++) {
        f->h.now_ns += MS;
        (void)loop_run_once(f->h.env.loop, 1);
    }
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    dev_start(f->rtc);
    assert_int_equal(f->h.gsi_level[IRQ], 1);
}

static void cmos_tells_the_memory(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(rd(f, 0x15) | rd(f, 0x16) << 8, 640);
    assert_int_equal(rd(f, 0x17) | rd(f, 0x18) << 8, 0xffff);
    assert_int_equal(rd(f, 0x34) | rd(f, 0x35) << 8, (2 * GIB - 16 * MIB) / 65536);
    assert_int_equal(rd(f, 0x5b) | rd(f, 0x5c) << 8 | rd(f, 0x5d) << 16, 5 * GIB / 65536);
    assert_int_equal(rd(f, 0x5f), 2);
    unsigned sum = 0;
    for (unsigned i = 0x10; i <= 0x2d; i++) {
        sum += rd(f, (uint8_t)i);
    }
    assert_int_equal(rd(f, 0x2e) << 8 | rd(f, 0x2f), sum);
}

static void reset_keeps_clock_and_memory(void **state)
{
    struct fixture *f = *state;
    wr(f, 0x40, 0x77);
    wr(f, 4, 0x05);
    wr(f, 11, 0x52);
    dev_harness_advance(&f->h, SEC);
    (void)rd(f, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    dev_reset(f->rtc);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    assert_int_equal(rd(f, 11), 0x02);
    assert_int_equal(rd(f, 0x40), 0x77);
    assert_int_equal(rd(f, 4), 0x05);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(time_in_bcd_and_binary),
        T(registers_d_a_and_index),
        T(update_in_progress_before_the_second_ends),
        T(set_holds_the_clock_and_sets_it),
        T(divider_reset_starts_half_a_second_on),
        T(nonsense_dates_do_no_harm),
        T(update_interrupt),
        T(alarm_matches_and_dont_care),
        T(periodic_interrupt_at_its_rate),
        T(the_timer_fires_without_an_access),
        T(cmos_tells_the_memory),
        T(reset_keeps_clock_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
