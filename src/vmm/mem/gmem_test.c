/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/mem/gmem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Three regions: [0,0x2000) RAM, [0x2000,0x3000) ROM right behind it, [0x10000,0x11000) RAM. */
struct fixture {
    struct gmem *gm;
    uint8_t low[0x2000];
    uint8_t rom[0x1000];
    uint8_t high[0x1000];
    uint64_t written_at, written_len;
};

static int setup(void **state)
{
    static struct fixture f;
    f = (struct fixture){ .gm = gmem_new() };
    memset(f.rom, 0x55, sizeof(f.rom));
    assert_int_equal(gmem_add(f.gm, GPA(0x10000), sizeof(f.high), f.high, true), 0);
    assert_int_equal(gmem_add(f.gm, GPA(0x2000), sizeof(f.rom), f.rom, false), 0);
    assert_int_equal(gmem_add(f.gm, GPA(0), sizeof(f.low), f.low, true), 0);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    gmem_free(((struct fixture *)*state)->gm);
    return 0;
}

static void regions_refuse_overlap_wrap_and_nothing(void **state)
{
    struct fixture *f = *state;
    uint8_t more[16];
    assert_int_equal(gmem_add(f->gm, GPA(0x1fff), 2, more, true), -EEXIST);
    assert_int_equal(gmem_add(f->gm, GPA(0x10fff), 16, more, true), -EEXIST);
    assert_int_equal(gmem_add(f->gm, GPA(UINT64_MAX - 3), 8, more, true), -EINVAL);
    assert_int_equal(gmem_add(f->gm, GPA(0x5000), 0, more, true), -EINVAL);
    for (unsigned i = 3; i < GMEM_MAX_REGIONS; i++) {
        assert_int_equal(gmem_add(f->gm, GPA(0x20000 + i * 0x1000), 16, more, true), 0);
    }
    assert_int_equal(gmem_add(f->gm, GPA(0x90000), 16, more, true), -ENOSPC);
    assert_int_equal(gmem_size(f->gm), 0x3000 + (GMEM_MAX_REGIONS - 3) * 16);
}

static void reads_cross_regions_and_stop_at_holes(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[32] = { 0 };
    f->low[0x1fff] = 0x11;
    assert_int_equal(gmem_read(f->gm, GPA(0x1fff), buf, 2), 0);
    assert_int_equal(buf[0], 0x11);
    assert_int_equal(buf[1], 0x55);
    assert_int_equal(gmem_read(f->gm, GPA(0x2fff), buf, 2), -EFAULT);
    assert_int_equal(gmem_read(f->gm, GPA(UINT64_MAX), buf, 32), -EFAULT);
    assert_int_equal(gmem_read(f->gm, GPA(0x8000), buf, 0), 0);
}

static void rom_is_not_written(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(gmem_write(f->gm, GPA(0x2000), "x", 1), -EFAULT);
    assert_int_equal(gmem_fill(f->gm, GPA(0x1ff0), 7, 0x20), -EFAULT);
    assert_null(gmem_ptr(f->gm, GPA(0x2000), 1, true));
    assert_ptr_equal(gmem_ptr(f->gm, GPA(0x2010), 1, false), f->rom + 0x10);
    assert_int_equal(f->rom[0], 0x55);
}

static void pointers_do_not_cross_regions(void **state)
{
    struct fixture *f = *state;
    assert_ptr_equal(gmem_ptr(f->gm, GPA(0x10ff8), 8, true), f->high + 0xff8);
    assert_null(gmem_ptr(f->gm, GPA(0x10ff8), 9, true));
    assert_null(gmem_ptr(f->gm, GPA(0x1fff), 2, false));
    assert_null(gmem_ptr(f->gm, GPA(0x10000), UINT64_MAX, true));
    assert_null(gmem_ptr(f->gm, GPA(0x9000), 1, false));
}

static void iov_splits_and_honours_its_limit(void **state)
{
    struct fixture *f = *state;
    struct iovec iov[2];
    assert_int_equal(gmem_iov(f->gm, GPA(0x1ff0), 0x20, false, iov, 2), 2);
    assert_int_equal(iov[0].iov_len, 0x10);
    assert_int_equal(iov[1].iov_len, 0x10);
    assert_int_equal(gmem_iov(f->gm, GPA(0x1ff0), 0x20, false, iov, 1), -ENOSPC);
    assert_int_equal(gmem_iov(f->gm, GPA(0x1ff0), 0x20, true, iov, 2), -EFAULT);
    assert_int_equal(gmem_iov(f->gm, GPA(0), UINT64_MAX, false, iov, 2), -EFAULT);
}

static void on_written(void *opaque, gpa_t gpa, uint64_t len)
{
    struct fixture *f = opaque;
    f->written_at = gpa.v;
    f->written_len = len;
}

static void writes_are_told_to_the_hook(void **state)
{
    struct fixture *f = *state;
    gmem_set_written_hook(f->gm, on_written, f);
    assert_int_equal(gmem_write(f->gm, GPA(0x10020), "abc", 3), 0);
    assert_memory_equal(f->high + 0x20, "abc", 3);
    assert_int_equal(f->written_at, 0x10020);
    assert_int_equal(f->written_len, 3);
    gmem_mark_written(f->gm, f->low + 0x40, 8);
    assert_int_equal(f->written_at, 0x40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(regions_refuse_overlap_wrap_and_nothing),
        T(reads_cross_regions_and_stop_at_holes),
        T(rom_is_not_written),
        T(pointers_do_not_cross_regions),
        T(iov_splits_and_honours_its_limit),
        T(writes_are_told_to_the_hook),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
