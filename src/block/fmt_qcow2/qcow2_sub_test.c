/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended L2 entries: what is written into them, and malformed ones. That other programs read the
 * same: tests/e2e/test_qcow2_*.py.
 */
#include "block/blk_test.h"

#include "block/fmt_qcow2/qcow2_int.h"
#include "block/fmt_qcow2/qcow2_memfile.h"

/* Subclusters of 512 bytes. Header, refcount table, one block, L1, then the first data and the L2
 * table. */
#define CS   (16 * KIB)
#define SUB  (CS / 32)
#define DATA (4 * CS)
#define L2   (5 * CS)

static int create(struct qcow2_memfile *m, struct err *err, const char *a, const char *b)
{
    const char *params[] = { "extended_l2=on", a, b, NULL };
    return qcow2_memfile_create(m, MIB, params, err);
}

static struct qcow2_memfile fresh(void)
{
    struct qcow2_memfile m = { 0 };
    struct err err = ERR_INIT;
    if (create(&m, &err, "cluster_size=16K", NULL) < 0) {
        fail_msg("%s", err.msg);
    }
    return m;
}

static struct blk *image_of(struct qcow2_memfile *m, bool read_only)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct blk_opts opts = { .read_only = read_only };
    if (qcow2_memfile_image(m, opts, &blk, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return blk;
}

static void entry_is(struct blk *blk, const struct qcow2_memfile *m, uint64_t desc, uint64_t bits)
{
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(be64_get(m->data + L2), desc);
    assert_int_equal(be64_get(m->data + L2 + 8), bits);
}

static void test_parts_are_allocated_alone(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh();
    struct blk *blk = image_of(&m, false);
    uint8_t buf[2 * SUB];
    uint8_t got[6 * SUB];
    uint64_t own = DATA | QCOW2_COPIED;
    memset(buf, 7, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 2 * SUB, buf, SUB), 0);
    entry_is(blk, &m, own, BIT(2));
    uint64_t size = m.size;
    assert_int_equal(blk_pwrite(blk, 4 * SUB, buf, 2 * SUB), 0); /* into the same cluster */
    entry_is(blk, &m, own, BIT(2) | BIT(4) | BIT(5));
    assert_int_equal(m.size, size);
    assert_int_equal(blk_write_zeroes(blk, 2 * SUB, SUB, false), 0);
    entry_is(blk, &m, own, BIT64(34) | BIT(4) | BIT(5));
    assert_int_equal(blk_pread(blk, 0, got, sizeof(got)), 0);
    for (size_t i = 0; i < sizeof(got); i++) {
        assert_int_equal(got[i], i >= 4 * SUB ? 7 : 0);
    }
    assert_int_equal(blk_discard(blk, 4 * SUB, SUB), 0); /* nothing lies below: no bit is needed */
    entry_is(blk, &m, own, BIT64(34) | BIT(5));
    assert_int_equal(blk_write_zeroes(blk, 5 * SUB, SUB, true), 0);
    entry_is(blk, &m, 0, BIT64(34)); /* the cluster has gone with its last data */
    blk_close(blk);
    free(m.data);
}

static void test_whole_clusters(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh();
    struct blk *blk = image_of(&m, false);
    struct blk_extent ext;
    uint8_t *buf = calloc(1, 3 * CS);
    memset(buf, 9, 3 * CS);
    assert_int_equal(blk_pwrite(blk, 0, buf, SUB), 0); /* so that the table is where L2 says */
    assert_int_equal(blk_pwrite(blk, 0, buf, 2 * CS + SUB), 0);
    entry_is(blk, &m, DATA | QCOW2_COPIED, UINT32_MAX);
    assert_int_equal(be64_get(m.data + L2 + 24), UINT32_MAX);
    assert_int_equal(be64_get(m.data + L2 + 40), BIT(0));
    assert_int_equal(blk_status(blk, CS, MIB - CS, &ext), 0);
    assert_int_equal(ext.kind, BLK_EXTENT_DATA);
    assert_int_equal(ext.len, CS + SUB);
    assert_int_equal(blk_status(blk, 2 * CS + SUB, CS, &ext), 0);
    assert_int_not_equal(ext.kind, BLK_EXTENT_DATA);
    assert_int_equal(ext.len, CS - SUB);
    assert_int_equal(blk_write_zeroes(blk, SUB, 2 * CS, true), 0);
    entry_is(blk, &m, DATA | QCOW2_COPIED, BIT(0)); /* its end has nothing below: no bit */
    assert_int_equal(be64_get(m.data + L2 + 16), 0);
    blk_close(blk);
    free(buf);
    free(m.data);
}

static void test_malformed_entries(void **state)
{
    (void)state;
    static const struct {
        uint64_t desc;
        uint64_t bits;
    } rows[] = {
        {DATA | QCOW2_COPIED,                  BIT64(35) | BIT(3)}, /* both data and zero */
        { 0,                                   BIT(3)            }, /* data without a cluster */
        { DATA | QCOW2_COPIED | QCOW2_L2_ZERO, 0                 },
        { QCOW2_L2_COMPRESSED | DATA,          BIT64(35)         },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct qcow2_memfile m = fresh();
        struct err err = ERR_INIT;
        struct blk_check check = { 0 };
        uint8_t buf[SUB] = { 1 };
        struct blk *blk = image_of(&m, false);
        assert_int_equal(blk_pwrite(blk, 0, buf, SUB), 0);
        blk_close(blk);
        be64_put(m.data + L2, rows[i].desc);
        be64_put(m.data + L2 + 8, rows[i].bits);
        blk = image_of(&m, true);
        assert_int_equal(blk_pread(blk, 0, buf, SUB), -EIO);
        assert_int_equal(blk_check(blk, 0, &check, &err), 0);
        assert_true(check.errors > 0);
        blk_close(blk);
        free(m.data);
    }
}

static void test_create(void **state)
{
    (void)state;
    struct qcow2_memfile m = { 0 };
    struct err err = ERR_INIT;
    assert_int_equal(create(&m, &err, "cluster_size=8K", NULL), -EINVAL);
    assert_non_null(strstr(err.msg, "16K"));
    assert_int_equal(create(&m, &err, "compat=0.10", NULL), -EINVAL);
    assert_int_equal(create(&m, &err, "cluster_size=16K", "preallocation=metadata"), 0);
    struct blk *blk = image_of(&m, true);
    struct blk_extent ext;
    struct blk_check check = { 0 };
    assert_int_equal(blk_status(blk, 0, MIB, &ext), 0);
    assert_int_equal(ext.kind, BLK_EXTENT_DATA);
    assert_int_equal(ext.len, MIB);
    assert_int_equal(blk_check(blk, 0, &check, &err), 0);
    assert_int_equal(check.errors + check.leaks, 0);
    assert_int_equal(check.clusters_allocated, MIB / CS);
    blk_close(blk);
    free(m.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_are_allocated_alone),
        cmocka_unit_test(test_whole_clusters),
        cmocka_unit_test(test_malformed_entries),
        cmocka_unit_test(test_create),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
