/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scatter lists against flat memory, for every cut of a small list. */
#include "block/blk_test.h"

enum { TOTAL = 12 };

struct list {
    char mem[4][8];
    struct iovec iov[5];
};

/* Lengths 3, 0, 5, 4 and 0: 12 bytes with empty entries between and at the end. */
static void list_init(struct list *l, char first)
{
    static const size_t lens[] = { 3, 0, 5, 4, 0 };
    memset(l, 0, sizeof(*l));
    for (size_t i = 0; i < 5; i++) {
        l->iov[i] = (struct iovec){ i < 4 ? l->mem[i] : NULL, lens[i] };
    }
    char flat[TOTAL];
    for (int i = 0; i < TOTAL; i++) {
        flat[i] = (char)(first + i);
    }
    blk_iov_from_buf(l->iov, 5, 0, flat, TOTAL);
}

static void flatten(const struct list *l, char *flat)
{
    blk_iov_to_buf(l->iov, 5, 0, flat, TOTAL);
}

static void test_copies(void **state)
{
    (void)state;
    for (size_t skip = 0; skip <= TOTAL; skip++) {
        for (size_t len = 0; skip + len <= TOTAL; len++) {
            struct list l;
            char flat[TOTAL];
            char want[TOTAL];
            char part[TOTAL] = { 0 };
            list_init(&l, 'a');
            assert_int_equal(blk_iov_len(l.iov, 5), TOTAL);
            flatten(&l, want);
            blk_iov_to_buf(l.iov, 5, skip, part, len);
            assert_memory_equal(part, want + skip, len);
            memset(part, '#', len);
            memset(want + skip, '#', len);
            blk_iov_from_buf(l.iov, 5, skip, part, len);
            flatten(&l, flat);
            assert_memory_equal(flat, want, TOTAL);
            blk_iov_zero(l.iov, 5, skip, len);
            memset(want + skip, 0, len);
            flatten(&l, flat);
            assert_memory_equal(flat, want, TOTAL);
        }
    }
}

static void test_slices_and_advances(void **state)
{
    (void)state;
    for (size_t skip = 0; skip <= TOTAL; skip++) {
        for (size_t len = 0; skip + len <= TOTAL; len++) {
            struct list l;
            struct iovec cut[5];
            char want[TOTAL];
            char got[TOTAL] = { 0 };
            list_init(&l, 'a');
            flatten(&l, want);
            int n = blk_iov_slice(cut, l.iov, 5, skip, len);
            assert_int_equal(blk_iov_len(cut, n), len);
            blk_iov_to_buf(cut, n, 0, got, len);
            assert_memory_equal(got, want + skip, len);
            struct iovec *rest = l.iov;
            int nrest = 5;
            blk_iov_advance(&rest, &nrest, skip);
            assert_int_equal(blk_iov_len(rest, nrest), TOTAL - skip);
            blk_iov_to_buf(rest, nrest, 0, got, TOTAL - skip);
            assert_memory_equal(got, want + skip, TOTAL - skip);
        }
    }
}

static void test_alignment(void **state)
{
    (void)state;
    _Alignas(4096) static char mem[8192];
    struct iovec iov[2] = {
        {mem,         512 },
        { mem + 4096, 1024}
    };
    assert_true(blk_iov_aligned(iov, 2, 1));
    assert_true(blk_iov_aligned(iov, 2, 512));
    assert_false(blk_iov_aligned(iov, 2, 1024));
    iov[1].iov_base = mem + 4097;
    assert_false(blk_iov_aligned(iov, 2, 2));
    assert_true(blk_iov_aligned(iov, 0, 4096));
}

static void test_is_zero(void **state)
{
    (void)state;
    char buf[200] = { 0 };
    for (size_t len = 0; len <= sizeof(buf); len++) {
        assert_true(blk_iov_buf_is_zero(buf, len));
        for (size_t at = 0; at < len; at++) {
            buf[at] = 1;
            assert_false(blk_iov_buf_is_zero(buf, len));
            buf[at] = 0;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_slices_and_advances),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_is_zero),
    };
    return cmocka_run_group_tests_name("blk_iov", tests, NULL, NULL);
}
