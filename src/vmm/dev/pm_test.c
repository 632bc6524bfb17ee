/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/pm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/acpi_defs.h"
#include "vmm/dev/dev_harness.h"
#include "vmm/layout.h"

#define STS  LAYOUT_PORT_PM1_EVT
#define EN   (LAYOUT_PORT_PM1_EVT + 2)
#define CNT  LAYOUT_PORT_PM1_CNT
#define TMR  LAYOUT_PORT_PM_TMR
#define GPE0 LAYOUT_PORT_GPE0

struct fixture {
    struct dev_harness h;
    struct dev *pm;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    dev_harness_init(&f->h, MIB);
    f->pm = dev_harness_add(&f->h, &pm_class, NULL);
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

static void timer_counts_at_its_rate(void **state)
{
    struct fixture *f = *state;
    uint32_t a = (uint32_t)dev_harness_in(&f->h, TMR, 4);
    dev_harness_advance(&f->h, 1000000000);
    uint32_t b = (uint32_t)dev_harness_in(&f->h, TMR, 4);
    assert_int_equal(b - a, 3579545);
    dev_harness_advance(&f->h, 1000);
    assert_in_range((uint32_t)dev_harness_in(&f->h, TMR, 4) - b, 3, 4); /* 3.58 ticks a us */
    dev_harness_out(&f->h, TMR, 4, 0);
    assert_in_range((uint32_t)dev_harness_in(&f->h, TMR, 4) - b, 3, 4); /* read-only */
}

static void timer_carry_sets_its_status(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(dev_harness_in(&f->h, STS, 2) & 1, 0);
    dev_harness_advance(&f->h, UINT64_C(601) * 1000000000); /* 2^31 ticks are 599.9 s */
    assert_int_equal(dev_harness_in(&f->h, STS, 2) & 1, 1);
    assert_int_equal(f->h.gsi_level[9], 0);
    dev_harness_out(&f->h, EN, 2, 1);
    assert_int_equal(f->h.gsi_level[9], 1);
    dev_harness_out(&f->h, STS, 2, 1);
    assert_int_equal(f->h.gsi_level[9], 0);
}

static void power_button_raises_the_sci(void **state)
{
    struct fixture *f = *state;
    assert_false(pm_power_button(f->pm)); /* nobody listens */
    assert_int_equal(f->h.gsi_level[9], 0);
    dev_harness_out(&f->h, EN, 2, ACPI_PM1_PWRBTN_STS);
    assert_int_equal(f->h.gsi_level[9], 1); /* it is remembered */
    dev_harness_out(&f->h, STS, 2, ACPI_PM1_PWRBTN_STS);
    assert_int_equal(f->h.gsi_level[9], 0);
    assert_true(pm_power_button(f->pm));
    assert_int_equal(f->h.gsi_level[9], 1);
    /* Only the bits written as one are cleared, by bytes as well. */
    dev_harness_outb(&f->h, STS, 0xff);
    assert_int_equal(f->h.gsi_level[9], 1);
    dev_harness_outb(&f->h, STS + 1, 0x01);
    assert_int_equal(f->h.gsi_level[9], 0);
}

static void s5_powers_off(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(dev_harness_in(&f->h, CNT, 2), ACPI_PM1_CNT_SCI_EN);
    dev_harness_out(&f->h, CNT, 2, PM_SLP_TYP_S5 << 10); /* the type alone does nothing */
    assert_int_equal(f->h.events, 0);
    assert_int_equal(dev_harness_in(&f->h, CNT, 2), PM_SLP_TYP_S5 << 10 | 1);
    dev_harness_out(&f->h, CNT, 2, PM_SLP_TYP_S5 << 10 | ACPI_PM1_CNT_SLP_EN);
    assert_int_equal(f->h.events, 1);
    assert_int_equal(f->h.last_event, DEV_EVENT_POWEROFF);
    dev_harness_out(&f->h, CNT, 2, 3 << 10 | ACPI_PM1_CNT_SLP_EN); /* no such state */
    assert_int_equal(f->h.events, 1);
    assert_int_equal(f->pm->guest_bugs, 1);
    dev_harness_out(&f->h, CNT, 2, ACPI_PM1_CNT_SLP_EN); /* firmware's type 0 */
    assert_int_equal(f->h.events, 2);
}

static void gpe_status_and_enable(void **state)
{
    struct fixture *f = *state;
    pm_gpe_raise(f->pm, 5);
    assert_int_equal(f->h.gsi_level[9], 0);
    dev_harness_outb(&f->h, GPE0 + 8, 0x20);
    assert_int_equal(f->h.gsi_level[9], 1);
    assert_int_equal(dev_harness_inb(&f->h, GPE0), 0x20);
    dev_harness_outb(&f->h, GPE0, 0x20);
    assert_int_equal(f->h.gsi_level[9], 0);
    pm_gpe_raise(f->pm, 63);
    dev_harness_outb(&f->h, GPE0 + 15, 0x80);
    assert_int_equal(f->h.gsi_level[9], 1);
    assert_int_equal(dev_harness_inb(&f->h, GPE0 + 7), 0x80);
}

static void reset_and_move(void **state)
{
    struct fixture *f = *state;
    dev_harness_out(&f->h, EN, 2, ACPI_PM1_PWRBTN_STS);
    (void)pm_power_button(f->pm);
    pm_move(f->pm, 0x800, true);
    assert_int_equal(dev_harness_in(&f->h, STS, 2), 0xffff); /* nobody is there any more */
    assert_int_equal(dev_harness_in(&f->h, 0x800, 2), ACPI_PM1_PWRBTN_STS);
    pm_move(f->pm, 0x800, false);
    assert_int_equal(dev_harness_in(&f->h, 0x800, 2), 0xffff);
    dev_reset(f->pm);
    assert_int_equal(f->h.gsi_level[9], 0);
    assert_int_equal(dev_harness_in(&f->h, EN, 2), 0);
    assert_int_equal(dev_harness_in(&f->h, CNT, 2), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(timer_counts_at_its_rate),    T(timer_carry_sets_its_status),
        T(power_button_raises_the_sci), T(s5_powers_off),
        T(gpe_status_and_enable),       T(reset_and_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
