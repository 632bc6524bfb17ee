/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/layout.h"

static void small_ram_has_no_high_piece(void **state)
{
    (void)state;
    struct layout l;
    struct err err = ERR_INIT;
    assert_int_equal(layout_init(&l, 512 * MIB, 40, &err), 0);
    assert_int_equal(l.low_ram.base, 0);
    assert_int_equal(l.low_ram.end, 512 * MIB);
    assert_int_equal(layout_size(&l.high_ram), 0);
    assert_int_equal(l.mem64.base, 4 * GIB);
    assert_int_equal(layout_size(&l.mem64), LAYOUT_MEM64_SIZE);
}

static void ram_is_split_at_the_hole(void **state)
{
    (void)state;
    struct layout l;
    struct err err = ERR_INIT;
    assert_int_equal(layout_init(&l, LAYOUT_LOW_RAM_END, 40, &err), 0);
    assert_int_equal(layout_size(&l.high_ram), 0);
    assert_int_equal(layout_init(&l, LAYOUT_LOW_RAM_END + 2 * MIB, 40, &err), 0);
    assert_int_equal(l.low_ram.end, LAYOUT_LOW_RAM_END);
    assert_int_equal(l.high_ram.base, 4 * GIB);
    assert_int_equal(l.high_ram.end, 4 * GIB + 2 * MIB);
    assert_int_equal(l.mem64.base, 8 * GIB);
}

/* Whatever is accepted adds up, does not overlap and stays below the address width. */
static void every_accepted_layout_is_sound(void **state)
{
    (void)state;
    unsigned accepted = 0;
    for (unsigned bits = 32; bits <= 52; bits++) {
        for (unsigned shift = 21; shift < 52; shift++) {
            for (int delta = -1; delta <= 1; delta++) {
                uint64_t ram = BIT64(shift) + (uint64_t)((int64_t)delta * (int64_t)(2 * MIB));
                struct layout l;
                struct err err = ERR_INIT;
                if (layout_init(&l, ram, bits, &err) < 0) {
                    assert_int_equal(err.code, -EINVAL);
                    continue;
                }
                accepted++;
                assert_int_equal(layout_size(&l.low_ram) + layout_size(&l.high_ram), ram);
                assert_true(l.low_ram.end <= LAYOUT_LOW_RAM_END);
                assert_true(l.mem64.base >= l.high_ram.end);
                assert_true(l.mem64.end >= l.mem64.base);
                if (bits > 32) {
                    assert_true(l.mem64.end <= BIT64(bits));
                }
                if (layout_size(&l.high_ram) != 0) {
                    assert_true(layout_size(&l.mem64) >= LAYOUT_MEM64_MIN);
                }
            }
        }
    }
    assert_true(accepted > 500);
}

static void bad_sizes_name_the_range(void **state)
{
    (void)state;
    struct layout l;
    struct err err = ERR_INIT;
    assert_int_equal(layout_init(&l, 0, 40, &err), -EINVAL);
    assert_int_equal(layout_init(&l, 3 * MIB + 512, 40, &err), -EINVAL);
    assert_int_equal(layout_init(&l, 64 * MIB, 31, &err), -EINVAL);
    assert_int_equal(layout_init(&l, 64 * GIB, 36, &err), -EINVAL);
    /* 64 GiB of addresses, less 4 GiB below, 4 GiB of alignment and 4 GiB of window, plus low. */
    assert_non_null(strstr(err.msg, "at most 55296 MiB"));
    assert_int_equal(layout_init(&l, 54 * GIB, 36, &err), 0);
    assert_int_equal(layout_init(&l, 54 * GIB + 4 * KIB, 36, &err), -EINVAL);
    assert_int_equal(layout_init(&l, BIT64(63), 52, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_ram_has_no_high_piece),
        cmocka_unit_test(ram_is_split_at_the_hole),
        cmocka_unit_test(every_accepted_layout_is_sound),
        cmocka_unit_test(bad_sizes_name_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
