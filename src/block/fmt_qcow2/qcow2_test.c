/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Headers of every bad kind, refcount widths, options of creation, pins, the guard around metadata,
 * full disks, resize, check and repair. What other programs make of our images, and we of theirs:
 * tests/e2e/test_qcow2_*.py.
 */
#include "block/blk_test.h"

#include "block/fmt_qcow2/qcow2_int.h"
#include "block/fmt_qcow2/qcow2_memfile.h"

#define CS UINT64_C(4096)

static struct blk *image_of(struct qcow2_memfile *m, struct blk_opts opts)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    if (qcow2_memfile_image(m, opts, &blk, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return blk;
}

static void image_fails(struct qcow2_memfile *m, bool read_only, int code, const char *text)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct qcow2_memfile copy = { .data = malloc(m->size), .size = m->size };
    memcpy(copy.data, m->data, m->size);
    int rc = qcow2_memfile_image(&copy, (struct blk_opts){ .read_only = read_only }, &blk, &err);
    if (rc != code || strstr(err.msg, text) == NULL) {
        fail_msg("got %d '%s', expected %d '%s'", rc, err.msg, code, text);
    }
    free(copy.data);
}

/* 1 MiB with 4 KiB clusters: header, refcount table, one block, L1 in the first four clusters. */
static struct qcow2_memfile fresh(const char *const *params)
{
    static const char *const deflt[] = { "cluster_size=4K", NULL };
    struct qcow2_memfile m = { 0 };
    struct err err = ERR_INIT;
    if (qcow2_memfile_create(&m, MIB, params == NULL ? deflt : params, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return m;
}

static struct blk_check check_image(struct blk *blk, unsigned fix)
{
    struct blk_check check = { 0 };
    struct err err = ERR_INIT;
    if (blk_check(blk, fix, &check, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return check;
}

static void test_bad_headers(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        unsigned bytes;
        uint64_t value;
        int code;
        const char *text;
    } rows[] = {
        {QCOW2_H_MAGIC,              4, 0x514649fa,        -EINVAL,  "not a qcow2 image"           },
        { QCOW2_H_VERSION,           4, 4,                 -ENOTSUP, "version 4"                   },
        { QCOW2_H_VERSION,           4, 1,                 -ENOTSUP, "version 1"                   },
        { QCOW2_H_CLUSTER_BITS,      4, 8,                 -EINVAL,  "cluster_bits is 8"           },
        { QCOW2_H_CLUSTER_BITS,      4, 22,                -EINVAL,  "cluster_bits is 22"          },
        { QCOW2_H_SIZE,              8, UINT64_MAX,        -EFBIG,   "virtual size"                },
        { QCOW2_H_SIZE,              8, UINT64_C(1) << 50, -EFBIG,   "level 1 table over the limit"},
        { QCOW2_H_SIZE,              8, 64 * MIB,          -EINVAL,  "level 1 table has 1 entries" },
        { QCOW2_H_CRYPT,             4, 2,                 -ENOTSUP, "encrypted (method 2)"        },
        { QCOW2_H_L1_SIZE,           4, 0xffffffff,        -EFBIG,   "level 1 table has"           },
        { QCOW2_H_L1_OFFSET,         8, 12289,             -EINVAL,  "offset of the level 1 table" },
        { QCOW2_H_L1_OFFSET,         8, UINT64_C(1) << 63, -EINVAL,  "offset of the level 1 table" },
        { QCOW2_H_REFTABLE_OFFSET,   8, 100,               -EINVAL,  "offset of the refcount table"},
        { QCOW2_H_REFTABLE_CLUSTERS, 4, 0,                 -EINVAL,  "no refcount table"           },
        { QCOW2_H_REFTABLE_CLUSTERS, 4, 0x7fffffff,        -EFBIG,   "refcount table has"          },
        { QCOW2_H_NB_SNAPSHOTS,      4, 65537,             -EFBIG,   "65537 snapshots"             },
        { QCOW2_H_NB_SNAPSHOTS,      4, 1,                 -EINVAL,  "offset of the snapshot table"},
        { QCOW2_H_REFCOUNT_ORDER,    4, 7,                 -EINVAL,  "refcount order is 7"         },
        { QCOW2_H_HEADER_LEN,        4, 96,                -EINVAL,  "header length is 96"         },
        { QCOW2_H_HEADER_LEN,        4, 108,               -EINVAL,  "header length is 108"        },
        { QCOW2_H_HEADER_LEN,        4, 8192,              -EINVAL,  "header length is 8192"       },
        { QCOW2_H_INCOMPATIBLE,      8, 16,                -EINVAL,  "extended L2"                 },
        { QCOW2_H_INCOMPATIBLE,      8, 8,                 -EINVAL,  "contradict"                  },
        { QCOW2_H_INCOMPATIBLE,      8, UINT64_C(1) << 40, -ENOTSUP, "not known here: bit 40"      },
        { QCOW2_H_COMPRESSION,       1, 1,                 -EINVAL,  "contradict"                  },
        { QCOW2_H_BACKING_OFFSET,    8, 4090,              -EINVAL,  "backing file's name"         },
        { QCOW2_H_BACKING_OFFSET,    8, UINT64_MAX,        -EINVAL,  "backing file's name"         },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct qcow2_memfile m = fresh(NULL);
        be32_put(m.data + QCOW2_H_BACKING_SIZE, 10);
        if (rows[i].bytes == 8) {
            be64_put(m.data + rows[i].offset, rows[i].value);
        } else if (rows[i].bytes == 4) {
            be32_put(m.data + rows[i].offset, (uint32_t)rows[i].value);
        } else {
            m.data[rows[i].offset] = (uint8_t)rows[i].value;
        }
        image_fails(&m, true, rows[i].code, rows[i].text);
        image_fails(&m, false, rows[i].code, rows[i].text);
        free(m.data);
    }
}

static void test_header_extensions(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    uint8_t *ext = m.data + QCOW2_H_V3_COMPRESSION_LEN;
    /* The feature name table comes first in our images: rename bit 4 to 17 and set that bit. */
    assert_int_equal(be32_get(ext), QCOW2_EXT_FEATURE_NAMES);
    uint8_t *row = ext + 8 + 4 * QCOW2_FEATURE_LEN;
    row[1] = 17;
    memcpy(row + 2, "flux\x1b", 6);
    be64_put(m.data + QCOW2_H_INCOMPATIBLE, BIT(17));
    image_fails(&m, true, -ENOTSUP, "bit 17 (flux?");
    be64_put(m.data + QCOW2_H_INCOMPATIBLE, 0);
    be32_put(ext + 4, 5000);
    image_fails(&m, true, -EINVAL, "has 5000 bytes, only");
    be32_put(ext, QCOW2_EXT_CRYPTO);
    be32_put(ext + 4, 16);
    image_fails(&m, true, -ENOTSUP, "encrypted");
    be32_put(ext, QCOW2_EXT_BACKING_FMT);
    image_fails(&m, true, -EINVAL, "backing format's name");
    free(m.data);
}

static void test_autoclear_bits_are_cleared_by_writers_only(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    be64_put(m.data + QCOW2_H_AUTOCLEAR, BIT64(63) | 1);
    blk_close(image_of(&m, (struct blk_opts){ .read_only = true }));
    assert_int_equal(be64_get(m.data + QCOW2_H_AUTOCLEAR), BIT64(63) | 1);
    blk_close(image_of(&m, (struct blk_opts){ 0 }));
    assert_int_equal(be64_get(m.data + QCOW2_H_AUTOCLEAR), 0);
    free(m.data);
}

static void test_refcount_widths(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= QCOW2_REFCOUNT_ORDER_MAX; order++) {
        uint8_t block[512] = { 0 };
        uint64_t max = ~UINT64_C(0) >> (64 - (1U << order));
        uint64_t n = sizeof(block) * 8 >> order;
        for (uint64_t i = 0; i < n; i++) {
            qcow2_ref_store(block, order, i, (i * 7) & max);
        }
        qcow2_ref_store(block, order, 3, max);
        qcow2_ref_store(block, order, 5, 0);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t want = i == 3 ? max : i == 5 ? 0 : (i * 7) & max;
            assert_int_equal(qcow2_ref_load(block, order, i), want);
        }
    }
    /* Bit 0 is the least significant one: the format's order for widths below a byte. */
    uint8_t byte = 0;
    qcow2_ref_store(&byte, 0, 0, 1);
    assert_int_equal(byte, 1);
    qcow2_ref_store(&byte, 1, 3, 2);
    assert_int_equal(byte, 0x81);
}

static void test_create_options(void **state)
{
    (void)state;
    static const struct {
        const char *params[3];
        uint64_t size;
        const char *text;
    } rows[] = {
        {{ "cluster_size=3K" },                   MIB,               "not a power of two"        },
        { { "cluster_size=256" },                 MIB,               "cluster_size"              },
        { { "cluster_size=4M" },                  MIB,               "cluster_size"              },
        { { "refcount_bits=3" },                  MIB,               "refcount_bits 3"           },
        { { "compat=2" },                         MIB,               "compat"                    },
        { { "compat=0.10", "refcount_bits=8" },   MIB,               "need compat=1.1"           },
        { { "compat=0.10", "lazy_refcounts=on" }, MIB,               "need compat=1.1"           },
        { { "preallocation=full" },               MIB,               "preallocation"             },
        { { "sparkle=on" },                       MIB,               "sparkle"                   },
        { { "cluster_size" },                     MIB,               "has no value"              },
        { { "cluster_size=4K" },                  MIB + 1,           "not a multiple of 512"     },
        { { "cluster_size=512" },                 UINT64_C(1) << 40, "take a larger cluster_size"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct qcow2_memfile m = { 0 };
        struct err err = ERR_INIT;
        int rc = qcow2_memfile_create(&m, rows[i].size, rows[i].params, &err);
        if (rc >= 0 || strstr(err.msg, rows[i].text) == NULL) {
            fail_msg("row %zu: %d '%s', expected '%s'", i, rc, err.msg, rows[i].text);
        }
        free(m.data);
    }
}

static void test_pinned_place_is_not_reused(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
    struct qcow2 *q = qcow2_of(blk);
    uint8_t buf[CS];
    uint64_t count = 0;
    memset(buf, 1, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 0, buf, CS), 0);
    struct qcow2_run run;
    assert_int_equal(qcow2_map_peek(q, 0, CS, &run), 0);
    assert_int_equal(run.kind, QCOW2_NORMAL);
    uint64_t cluster = run.host / CS;
    uint64_t cookie = qcow2_free_enter(q);
    assert_int_equal(blk_discard(blk, 0, CS), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(blk_flush(blk), 0);
        assert_int_equal(qcow2_ref_get(q, cluster, &count), 0);
        assert_int_equal(count, 1); /* the pin holds it */
        assert_int_equal(blk_pwrite(blk, (uint64_t)(i + 4) * CS, buf, CS), 0);
        assert_int_equal(qcow2_map_peek(q, (uint64_t)(i + 4) * CS, CS, &run), 0);
        assert_int_not_equal(run.host / CS, cluster);
    }
    qcow2_free_leave(q, cookie);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(qcow2_ref_get(q, cluster, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(blk_pwrite(blk, 100 * CS, buf, CS), 0);
    assert_int_equal(qcow2_map_peek(q, 100 * CS, CS, &run), 0);
    assert_int_equal(run.host / CS, cluster); /* the lowest free one again */
    blk_close(blk);
    free(m.data);
}

static void test_freed_cluster_waits_for_a_flush(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
    struct qcow2 *q = qcow2_of(blk);
    uint8_t buf[CS] = { 1 };
    struct qcow2_run run;
    assert_int_equal(blk_pwrite(blk, 0, buf, CS), 0);
    assert_int_equal(qcow2_map_peek(q, 0, CS, &run), 0);
    uint64_t host = run.host;
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_discard(blk, 0, CS), 0);
    assert_int_equal(blk_pwrite(blk, 5 * CS, buf, CS), 0);
    assert_int_equal(qcow2_map_peek(q, 5 * CS, CS, &run), 0);
    assert_int_not_equal(run.host, host); /* the disk still refers to it */
    blk_close(blk);
    free(m.data);
}

/* An L2 entry that leads into a table: the write must not get there. */
static void test_metadata_is_guarded(void **state)
{
    (void)state;
    static const uint64_t targets[] = { 0, CS, 2 * CS, 3 * CS, 5 * CS };
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        struct qcow2_memfile m = fresh(NULL);
        uint8_t buf[CS];
        memset(buf, 0xee, sizeof(buf));
        struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
        assert_int_equal(blk_pwrite(blk, 0, buf, CS), 0);
        blk_close(blk);
        uint64_t l2 = be64_get(m.data + 3 * CS) & QCOW2_OFFSET_MASK;
        assert_int_equal(l2, 5 * CS);
        be64_put(m.data + l2, targets[i] | QCOW2_COPIED);
        blk = image_of(&m, (struct blk_opts){ 0 });
        uint8_t before[CS];
        memcpy(before, m.data + 3 * CS, CS);
        struct blk_map map;
        assert_int_equal(blk_map(blk, true, 0, CS, &map), 0);
        assert_int_equal(map.kind, BLK_MAP_SLOW);
        assert_int_equal(blk_pwrite(blk, 0, buf, CS), -EIO);
        assert_int_equal(blk_pwrite(blk, 8 * CS, buf, CS), -EIO); /* no more writes at all */
        blk_close(blk);
        assert_memory_equal(before, m.data + 3 * CS, CS);
        assert_int_equal(be64_get(m.data + QCOW2_H_INCOMPATIBLE), QCOW2_INCOMPAT_CORRUPT);
        free(m.data);
    }
}

static void test_malformed_entries(void **state)
{
    (void)state;
    static const struct {
        bool l1;
        uint64_t entry;
    } rows[] = {
        {true,   QCOW2_COPIED | (4 * CS + 512)                },
        { true,  QCOW2_COPIED | BIT64(60) | 4 * CS            },
        { false, QCOW2_COPIED | (5 * CS + 512)                },
        { false, QCOW2_COPIED | 5 * CS | 2                    },
        { false, QCOW2_COPIED | 5 * CS | BIT64(58)            },
        { false, QCOW2_COPIED                                 },
        { false, QCOW2_L2_COMPRESSED | UINT64_C(0x3ffffffffff)},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct qcow2_memfile m = fresh(NULL);
        uint8_t buf[CS] = { 1 };
        struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
        assert_int_equal(blk_pwrite(blk, 0, buf, CS), 0);
        blk_close(blk);
        be64_put(m.data + (rows[i].l1 ? 3 * CS : 5 * CS), rows[i].entry);
        blk = image_of(&m, (struct blk_opts){ .read_only = true });
        assert_int_equal(blk_pread(blk, 0, buf, 512), -EIO);
        assert_true(check_image(blk, 0).errors > 0);
        blk_close(blk);
        free(m.data);
    }
}

static void test_full_disk_loses_nothing(void **state)
{
    (void)state;
    struct qcow2_memfile m = { 0 };
    struct err err = ERR_INIT;
    uint8_t *buf = malloc(64 * KIB);
    memset(buf, 0x5a, 64 * KIB);
    assert_int_equal(qcow2_memfile_create(&m, 64 * MIB, NULL, &err), 0);
    struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
    uint64_t at = 0;
    int rc = 0;
    while (rc == 0) { /* the file in memory ends at 16 MiB */
        rc = blk_pwrite(blk, at, buf, 64 * KIB);
        at += rc == 0 ? 64 * KIB : 0;
    }
    assert_int_equal(rc, -ENOSPC);
    assert_true(at > 12 * MIB && at < 16 * MIB);
    assert_int_equal(blk_pwrite(blk, at, buf, 512), -ENOSPC);
    assert_int_equal(blk_discard(blk, 0, MIB), 0); /* makes room after a flush */
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_pwrite(blk, at, buf, 64 * KIB), 0);
    blk_close(blk);
    blk = image_of(&m, (struct blk_opts){ .read_only = true });
    struct blk_check check = check_image(blk, 0);
    assert_int_equal(check.errors, 0);
    assert_int_equal(check.leaks, 0);
    uint8_t *got = malloc(64 * KIB);
    for (uint64_t i = MIB; i <= at; i += 64 * KIB) {
        assert_int_equal(blk_pread(blk, i, got, 64 * KIB), 0);
        assert_memory_equal(got, buf, 64 * KIB);
    }
    blk_close(blk);
    free(got);
    free(buf);
    free(m.data);
}

static void test_resize(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    struct err err = ERR_INIT;
    struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
    uint8_t buf[CS];
    memset(buf, 7, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, MIB - CS, buf, CS), 0);
    assert_int_equal(blk_resize(blk, MIB - CS + 512, &err), 0);
    assert_int_equal(blk_size(blk), MIB - CS + 512);
    assert_int_equal(blk_resize(blk, 100, &err), -EINVAL);
    assert_int_equal(blk_resize(blk, UINT64_C(1) << 50, &err), -EFBIG);
    assert_int_equal(blk_resize(blk, 40 * MIB, &err), 0); /* more L1 entries than before */
    memset(buf, 0, sizeof(buf));
    assert_int_equal(blk_pread(blk, MIB - CS, buf, CS), 0);
    for (size_t i = 0; i < CS; i++) {
        assert_int_equal(buf[i], i < 512 ? 7 : 0); /* what was cut off does not come back */
    }
    assert_int_equal(blk_pwrite(blk, 40 * MIB - 512, buf, 512), 0);
    blk_close(blk);
    blk = image_of(&m, (struct blk_opts){ .read_only = true });
    assert_int_equal(blk_size(blk), 40 * MIB);
    struct blk_check check = check_image(blk, 0);
    assert_int_equal(check.errors + check.leaks, 0);
    blk_close(blk);
    free(m.data);
}

static void test_check_and_repair(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    uint8_t buf[CS] = { 1 };
    struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
    assert_int_equal(blk_pwrite(blk, 0, buf, CS), 0);
    assert_int_equal(blk_pwrite(blk, CS, buf, CS), 0);
    blk_close(blk);
    uint8_t *refs = m.data + 2 * CS; /* 16 bits: header, table, block, L1, data, L2, data */
    be16_put(refs + 2 * 100, 1);     /* a leak past the end of the file */
    be16_put(refs + 2 * 5, 3);       /* a leak, and a flag that contradicts it */
    be16_put(refs + 2 * 6, 0);       /* in use but not counted */
    blk = image_of(&m, (struct blk_opts){ 0 });
    struct blk_check check = check_image(blk, 0);
    assert_int_equal(check.leaks, 2);
    assert_int_equal(check.errors, 3);
    assert_int_equal(check.clusters_total, 256);
    assert_int_equal(check.clusters_allocated, 2);
    check = check_image(blk, BLK_CHECK_FIX_LEAKS);
    assert_int_equal(check.leaks_fixed, 2);
    check = check_image(blk, BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS);
    assert_int_equal(check.errors, check.errors_fixed);
    check = check_image(blk, 0);
    assert_int_equal(check.errors + check.leaks, 0);
    blk_close(blk);
    /* The refcount table is gone: all of it is built anew. */
    memset(m.data + CS, 0, 8);
    blk = image_of(&m, (struct blk_opts){ 0 });
    check = check_image(blk, BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS);
    assert_true(check.errors > 0);
    assert_int_equal(check.errors, check.errors_fixed);
    assert_int_equal(blk_pwrite(blk, 9 * CS, buf, CS), 0);
    check = check_image(blk, 0);
    assert_int_equal(check.errors + check.leaks, 0);
    blk_close(blk);
    free(m.data);
}

static void test_corrupt_mark(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    struct err err = ERR_INIT;
    struct blk *file = NULL;
    struct blk *blk = NULL;
    be64_put(m.data + QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_CORRUPT);
    struct blk_opts opts = { .path = "memory" };
    assert_int_equal(qcow2_memfile_node(&m, &opts, &file, &err), 0);
    assert_int_equal(blk_node_new(&fmt_qcow2_class, &opts, NULL, file, NULL, 0, &blk, &err), -EIO);
    assert_non_null(strstr(err.msg, "--repair all"));
    blk_close(image_of(&m, (struct blk_opts){ .read_only = true }));
    blk = image_of(&m, (struct blk_opts){ 0 }); /* for work on the image itself */
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), -EIO);
    struct blk_check check = check_image(blk, BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS);
    assert_int_equal(check.errors, 0);
    assert_int_equal(blk_pwrite(blk, 0, "x", 1), 0);
    blk_close(blk);
    assert_int_equal(be64_get(m.data + QCOW2_H_INCOMPATIBLE), 0);
    free(m.data);
}

static void test_lazy_refcounts(void **state)
{
    (void)state;
    static const char *const params[] = { "cluster_size=4K", "lazy_refcounts=on", NULL };
    struct qcow2_memfile m = fresh(params);
    struct blk *blk = image_of(&m, (struct blk_opts){ 0 });
    uint8_t buf[CS] = { 9 };
    assert_int_equal(be64_get(m.data + QCOW2_H_INCOMPATIBLE), 0);
    assert_int_equal(blk_pwrite(blk, 0, buf, CS), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(be64_get(m.data + QCOW2_H_INCOMPATIBLE), QCOW2_INCOMPAT_DIRTY);
    assert_int_equal(be16_get(m.data + 2 * CS + 2 * 5), 0); /* not written yet */
    struct qcow2_memfile crashed = { .data = malloc(m.size), .size = m.size };
    memcpy(crashed.data, m.data, m.size);
    blk_close(blk);
    assert_int_equal(be64_get(m.data + QCOW2_H_INCOMPATIBLE), 0);
    assert_int_equal(be16_get(m.data + 2 * CS + 2 * 5), 1);
    /* The image as a power loss would have left it. */
    blk = image_of(&crashed, (struct blk_opts){ 0 });
    struct blk_check check = check_image(blk, 0);
    assert_int_equal(check.errors + check.leaks, 0);
    blk_close(blk);
    assert_int_equal(be64_get(crashed.data + QCOW2_H_INCOMPATIBLE), 0);
    free(crashed.data);
    free(m.data);
}

static void test_missing_snapshot(void **state)
{
    (void)state;
    struct qcow2_memfile m = fresh(NULL);
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct blk_opts opts = { .snapshot = "s", .read_only = true };
    assert_int_equal(qcow2_memfile_image(&m, opts, &blk, &err), -ENOENT);
    opts.read_only = false;
    assert_int_equal(qcow2_memfile_image(&m, opts, &blk, &err), -EINVAL);
    free(m.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_header_extensions),
        cmocka_unit_test(test_autoclear_bits_are_cleared_by_writers_only),
        cmocka_unit_test(test_refcount_widths),
        cmocka_unit_test(test_create_options),
        cmocka_unit_test(test_pinned_place_is_not_reused),
        cmocka_unit_test(test_freed_cluster_waits_for_a_flush),
        cmocka_unit_test(test_metadata_is_guarded),
        cmocka_unit_test(test_malformed_entries),
        cmocka_unit_test(test_full_disk_loses_nothing),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_check_and_repair),
        cmocka_unit_test(test_corrupt_mark),
        cmocka_unit_test(test_lazy_refcounts),
        cmocka_unit_test(test_missing_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
