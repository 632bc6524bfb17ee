/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Evil qcow2 images. The good ones, of 1 MiB in clusters of 4 KiB: header, refcount table, refcount
 * block, level 1 table, data, level 2 table, data, data. With extended entries, in clusters of
 * 16 KiB, in the same order.
 */
#include "evil.h"

#include <zlib.h>

#include "spec/qcow2_disk.h"

#define RT      0x1000 /* the refcount table's only entry */
#define RB      0x2000
#define L1      0x3000
#define L2      0x5000
#define L2_B    (L2 + 85 * 8)
#define MORE    0x8000 /* the first cluster past the end */
#define EXT     112    /* the first header extension */
#define SUB_L1  0xc000
#define SUB_L2  0x14000
#define COPIED  QCOW2_COPIED
#define PACKED  QCOW2_L2_COMPRESSED
#define BAD_EXT EVIL_B(8, QCOW2_H_BACKING_OFFSET, 600), EVIL_B(4, QCOW2_H_BACKING_SIZE, 8)

/* A backing file `name` of format raw: both in the header's cluster, in front of the feature names.
 */
#define BACKING(name, len, format, format_len)                                                     \
    EVIL_B(8, QCOW2_H_BACKING_OFFSET, 600), EVIL_B(4, QCOW2_H_BACKING_SIZE, len),                  \
        EVIL_T(600, name), EVIL_B(8, EXT, UINT64_C(0xe2792aca00000000) + (format_len)),            \
        EVIL_T(EXT + 8, format "\0\0\0\0\0\0\0\0\0\0")

/* One snapshot, its entry in the cluster past the end, its L1 table that of the image. */
#define SNAPSHOT                                                                                   \
    EVIL_B(4, QCOW2_H_NB_SNAPSHOTS, 1), EVIL_B(8, QCOW2_H_SNAPSHOTS_OFFSET, MORE),                 \
        EVIL_B(8, MORE, L1)
#define SN(field) (MORE + QCOW2_SN_##field)

/* A directory of bitmaps past the end, one bitmap in it. */
#define BITMAPS(count, size, offset)                                                               \
    EVIL_B(8, QCOW2_H_AUTOCLEAR, 1), EVIL_B(8, EXT, UINT64_C(0x2385287500000018)),                 \
        EVIL_B(8, EXT + 8, UINT64_C(count) << 32), EVIL_B(8, EXT + 16, size),                      \
        EVIL_B(8, EXT + 24, offset)

/* The cluster past the end is a deflate stream of `len` bytes of zeroes, and all entries of the
 * level 2 table lead to it. */
static void packed(struct qcow2_memfile *m, size_t len)
{
    static uint8_t zeroes[64 * KIB];
    z_stream z = { .next_out = m->data + MORE, .avail_out = 4096 };
    assert_int_equal(qcow2_memfile_fit(m, MORE + 4096), 0);
    z.next_out = m->data + MORE;
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    for (size_t done = 0; done < len; done += sizeof(zeroes)) {
        z.next_in = zeroes;
        z.avail_in = (uInt)MIN(sizeof(zeroes), len - done);
        assert_in_range(deflate(&z, done + sizeof(zeroes) >= len ? Z_FINISH : Z_NO_FLUSH), Z_OK,
                        Z_STREAM_END);
    }
    (void)deflateEnd(&z);
    for (size_t i = 0; i < 512; i++) {
        be64_put(m->data + L2 + i * 8, PACKED | UINT64_C(7) << 58 | MORE);
    }
}

static void packed_bomb(struct qcow2_memfile *m)
{
    packed(m, 3 * MIB); /* 3 KiB of data */
}

static void packed_short(struct qcow2_memfile *m)
{
    packed(m, 4095);
}

/* All level 1 entries lead to one table, all of its entries to one cluster. */
static void one_for_all(struct qcow2_memfile *m)
{
    be64_put(m->data + QCOW2_H_SIZE, UINT64_C(512) * 2 * MIB);
    be32_put(m->data + QCOW2_H_L1_SIZE, 512);
    for (size_t i = 0; i < 512; i++) {
        be64_put(m->data + L1 + i * 8, L2 | COPIED);
        be64_put(m->data + L2 + i * 8, 0x4000 | COPIED);
    }
}

/* 65,536 snapshots with the largest table each, all the same one. */
static void many_snapshots(struct qcow2_memfile *m)
{
    assert_int_equal(qcow2_memfile_fit(m, MORE + 65536 * QCOW2_SN_LEN), 0);
    be32_put(m->data + QCOW2_H_NB_SNAPSHOTS, 65536);
    be64_put(m->data + QCOW2_H_SNAPSHOTS_OFFSET, MORE);
    for (size_t i = 0; i < 65536; i++) {
        be64_put(m->data + MORE + i * QCOW2_SN_LEN, UINT64_C(1) << 40);
        be32_put(m->data + MORE + i * QCOW2_SN_LEN + QCOW2_SN_L1_SIZE, 4 << 20);
    }
}

/* Header extensions of no bytes, one behind the other. */
static void many_extensions(struct qcow2_memfile *m)
{
    for (size_t at = EXT; at + 8 < 4096; at += 8) {
        be64_put(m->data + at, UINT64_C(0x1234567800000000));
    }
}

/* clang-format off */
static const struct evil_row rows[] = {
    {"magic", "not a qcow2 image", EVIL_QCOW2, { EVIL_B(4, QCOW2_H_MAGIC, 0x514649fa) } },
    {"the magic of qcow", "qcow2 version 1", EVIL_QCOW2, { EVIL_B(4, QCOW2_H_VERSION, 1) } },
    {"version 4", "version 4", EVIL_QCOW2, { EVIL_B(4, QCOW2_H_VERSION, 4) } },
    {"version of all ones", "version 4294967295", EVIL_QCOW2, { EVIL_B(4, QCOW2_H_VERSION, -1) } },
    {"clusters of 256 bytes", "cluster_bits is 8", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_CLUSTER_BITS, 8) } },
    {"clusters of 4 MiB", "cluster_bits is 22", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_CLUSTER_BITS, 22) } },
    {"a shift by 64", "cluster_bits is 64", EVIL_QCOW2, { EVIL_B(4, QCOW2_H_CLUSTER_BITS, 64) } },
    {"a shift by 2^31", "cluster_bits is 2147483648", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_CLUSTER_BITS, 0x80000000) } },
    {"clusters of 2 MiB that are not there", "offset of the level 1 table", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_CLUSTER_BITS, 21) } },
    {"clusters of 512 bytes, tables too small for it", "level 1 table has 1 entries", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_CLUSTER_BITS, 9) } },
    {"size of all ones", "virtual size", EVIL_QCOW2, { EVIL_B(8, QCOW2_H_SIZE, -1) } },
    {"2^63 bytes", "limit is 2^63 - 1", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_SIZE, UINT64_C(1) << 63) } },
    {"2^50 bytes", "level 1 table over the limit", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_SIZE, UINT64_C(1) << 50) } },
    {"larger than its level 1 table", "level 1 table has 1 entries", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_SIZE, 64 * MIB) } },
    {"a disk of no bytes", "size 0 is not between", EVIL_QCOW2, { EVIL_B(8, QCOW2_H_SIZE, 0) } },
    {"a size that is no multiple of 512", "not a multiple of 512", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_SIZE, MIB - 1) } },
    {"encrypted by AES", "encrypted (method 1)", EVIL_QCOW2, { EVIL_B(4, QCOW2_H_CRYPT, 1) } },
    {"encrypted by LUKS", "encrypted (method 2)", EVIL_QCOW2, { EVIL_B(4, QCOW2_H_CRYPT, 2) } },
    {"encrypted by nobody knows what", "encrypted (method 99)", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_CRYPT, 99) } },
    {"a level 1 table of 32 GiB", "level 1 table has", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_L1_SIZE, -1) } },
    {"a level 1 table of the limit and one", "the limit is 33554432", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_L1_SIZE, (4 << 20) + 1) } },
    {"a level 1 table of the limit, past the end", "level 1 table lies past the end", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_L1_SIZE, 4 << 20) } },
    {"level 1 table at an odd place", "offset of the level 1 table", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_L1_OFFSET, L1 + 1) } },
    {"level 1 table at 0", "offset of the level 1 table", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_L1_OFFSET, 0) } },
    {"level 1 table at 2^63", "offset of the level 1 table", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_L1_OFFSET, UINT64_C(1) << 63) } },
    {"level 1 table at the last cluster of all", "offset of the level 1 table", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_L1_OFFSET, -4096) } },
    {"level 1 table past the end", "past the end", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_L1_OFFSET, UINT64_C(1) << 40) } },
    {"level 1 table is the refcount table", "past the end", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_L1_OFFSET, RT) } },
    {"no refcount table", "no refcount table", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_REFTABLE_CLUSTERS, 0) } },
    {"a refcount table of 8 TiB", "refcount table has", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_REFTABLE_CLUSTERS, 0x7fffffff) } },
    {"a refcount table of all ones", "refcount table has", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_REFTABLE_CLUSTERS, -1) } },
    {"refcount table at an odd place", "offset of the refcount table", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_REFTABLE_OFFSET, 100) } },
    {"refcount table at 0", "offset of the refcount table", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_REFTABLE_OFFSET, 0) } },
    {"refcount table of all ones", "offset of the refcount table", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_REFTABLE_OFFSET, -1) } },
    {"refcount table past the end", "refcount table lies past the end", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_REFTABLE_OFFSET, MIB) } },
    {"refcount block at an odd place", "malformed refcount table entry", EVIL_QCOW2,
     { EVIL_B(8, RT, RB + 512) } },
    {"refcount block past the end", "malformed refcount table entry", EVIL_QCOW2,
     { EVIL_B(8, RT, UINT64_C(1) << 50) } },
    {"refcount block is the level 2 table", "references 2", EVIL_QCOW2, { EVIL_B(8, RT, L2) } },
    {"refcount block is the table", "references 2", EVIL_QCOW2, { EVIL_B(8, RT, RT) } },
    {"data with the refcount 0", "refcount 0, references 1", EVIL_QCOW2, { EVIL_B(2, RB + 8, 0) } },
    {"data with the refcount 65535", "refcount 65535, references 1", EVIL_QCOW2,
     { EVIL_B(2, RB + 8, 65535) } },
    {"refcounts of 128 bits", "refcount order is 7", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_REFCOUNT_ORDER, 7) } },
    {"refcounts of 2^(2^32 - 1) bits", "refcount order is 4294967295", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_REFCOUNT_ORDER, -1) } },
    {"refcounts of another width", "references", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_REFCOUNT_ORDER, 0) } },
    {"65,537 snapshots", "65537 snapshots", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_NB_SNAPSHOTS, 65537) } },
    {"a snapshot nowhere", "offset of the snapshot table", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_NB_SNAPSHOTS, 1) } },
    {"snapshots at an odd place", "offset of the snapshot table", EVIL_QCOW2,
     { SNAPSHOT, EVIL_B(8, QCOW2_H_SNAPSHOTS_OFFSET, MORE + 8) } },
    {"a snapshot's table of all ones", "snapshot's level 1 table", EVIL_QCOW2,
     { SNAPSHOT, EVIL_B(4, SN(L1_SIZE), -1) } },
    {"a snapshot's table at an odd place", "snapshot's level 1 table", EVIL_QCOW2,
     { SNAPSHOT, EVIL_B(8, MORE, L1 + 8), EVIL_B(4, SN(L1_SIZE), 1) } },
    {"a snapshot's table past the end", "past the end", EVIL_QCOW2,
     { SNAPSHOT, EVIL_B(8, MORE, UINT64_C(1) << 40), EVIL_B(4, SN(L1_SIZE), 1) } },
    {"a snapshot's extra data of 4 GiB", "bytes of extra data", EVIL_QCOW2,
     { SNAPSHOT, EVIL_B(4, SN(EXTRA_SIZE), -1) } },
    {"a snapshot's names of 64 KiB each", "snapshot table lies past", EVIL_QCOW2,
     { SNAPSHOT, EVIL_B(4, SN(ID_SIZE), -1) } },
    {"65,536 snapshots with tables of 32 MiB past the end", "level 1 table lies past", EVIL_QCOW2,
     { { 0 } }, many_snapshots },
    {"a header of 96 bytes", "header length is 96", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_HEADER_LEN, 96) } },
    {"a header of 108 bytes", "header length is 108", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_HEADER_LEN, 108) } },
    {"a header larger than its cluster", "header length is 8192", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_HEADER_LEN, 8192) } },
    {"a header of all ones", "header length is 4294967288", EVIL_QCOW2,
     { EVIL_B(4, QCOW2_H_HEADER_LEN, 0xfffffff8) } },
    {"features of the future", "not known here: bit 40", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, UINT64_C(1) << 40) } },
    {"all features", "not known here", EVIL_QCOW2, { EVIL_B(8, QCOW2_H_INCOMPATIBLE, -1) } },
    {"a feature with an escape sequence for a name", "bit 17 (flux?[2J)", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 1 << 17), EVIL_B(2, EXT + 8, 17),
       EVIL_T(EXT + 10, "flux\x1b[2J"), EVIL_B(1, EXT + 18, 0) } },
    {"marked corrupt", NULL, EVIL_QCOW2, { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 2) } },
    {"not closed properly", NULL, EVIL_QCOW2, { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 1) } },
    {"data elsewhere, at a place that the image names", "keeps its data in another file", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 4), EVIL_B(8, EXT, UINT64_C(0x444154410000000a)),
       EVIL_T(EXT + 8, "good.raw\0\0") } },
    {"a data file's name of 5,000 bytes", "header extension 0x44415441", EVIL_QCOW2,
     { EVIL_B(8, EXT, UINT64_C(0x4441544100001388)) } },
    {"a data file's name of 2,000 bytes", "data file's name has 2000", EVIL_QCOW2,
     { EVIL_B(8, EXT, UINT64_C(0x44415441000007d0)) } },
    {"extended entries in small clusters", "extended L2", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 16) } },
    {"compression's bit without a type", "contradict", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 8) } },
    {"compression's type without its bit", "contradict", EVIL_QCOW2,
     { EVIL_B(1, QCOW2_H_COMPRESSION, 1) } },
    {"compression 255", "compression type 255", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 8), EVIL_B(1, QCOW2_H_COMPRESSION, 255) } },
    {"an extension longer than the header", "has 5000 bytes, only", EVIL_QCOW2,
     { EVIL_B(4, EXT + 4, 5000) } },
    {"an extension of 4 GiB", "has 4294967295 bytes, only", EVIL_QCOW2,
     { EVIL_B(4, EXT + 4, -1) } },
    {"more extensions than there is time for", "more than 256 header extensions", EVIL_QCOW2,
     { { 0 } }, many_extensions },
    {"encrypted by an extension", "encrypted", EVIL_QCOW2,
     { EVIL_B(8, EXT, UINT64_C(0x0537be7700000010)) } },
    {"a backing format of 200 bytes", "backing format's name has 200", EVIL_QCOW2,
     { EVIL_B(8, EXT, UINT64_C(0xe2792aca000000c8)) } },
    {"bitmaps of a wrong length", "bitmaps extension has 23", EVIL_QCOW2,
     { EVIL_B(8, EXT, UINT64_C(0x2385287500000017)) } },
    {"a bitmap directory of 2^60 bytes", "bitmap directory has", EVIL_QCOW2,
     { BITMAPS(1, UINT64_C(1) << 60, MORE) } },
    {"a bitmap directory at an odd place", "offset of the bitmap directory", EVIL_QCOW2,
     { BITMAPS(1, 64, MORE + 1) } },
    {"a bitmap directory past the end", "past the end", EVIL_QCOW2, { BITMAPS(1, 64, MORE) } },
    {"four billion bitmaps", "directory is too short", EVIL_QCOW2,
     { BITMAPS(0xffffffff, 64, 0x4000) } },
    {"a bitmap directory full of letters", "malformed bitmap table", EVIL_QCOW2,
     { BITMAPS(1, 64, 0x4000) } },
    {"level 2 table at an odd place", "malformed level 1 entry", EVIL_QCOW2,
     { EVIL_B(8, L1, (L2 + 512) | COPIED) } },
    {"level 2 table with reserved bits", "malformed level 1 entry", EVIL_QCOW2,
     { EVIL_B(8, L1, UINT64_C(0x4000000000005000)) } },
    {"level 2 table past the end", "level 2 table lies past the end", EVIL_QCOW2,
     { EVIL_B(8, L1, MIB | COPIED) } },
    {"level 2 table is the header", "references 0", EVIL_QCOW2, { EVIL_B(8, L1, COPIED) } },
    {"level 2 table is the level 1 table", "references 3", EVIL_QCOW2,
     { EVIL_B(8, L1, L1 | COPIED) } },
    {"level 2 table is the refcount block", "past the end", EVIL_QCOW2,
     { EVIL_B(8, L1, RB | COPIED) } },
    {"level 2 table is data", "malformed level 2 entry", EVIL_QCOW2,
     { EVIL_B(8, L1, 0x4000 | COPIED) } },
    {"data at an odd place", "malformed level 2 entry", EVIL_QCOW2,
     { EVIL_B(8, L2, 0x4200 | COPIED) } },
    {"data with reserved bits", "malformed level 2 entry", EVIL_QCOW2,
     { EVIL_B(8, L2, UINT64_C(0x8100000000004000)) } },
    {"data past the end", "data cluster lies past the end", EVIL_QCOW2,
     { EVIL_B(8, L2, (UINT64_C(1) << 40) | COPIED) } },
    {"data at the last cluster of all", "data cluster lies past the end", EVIL_QCOW2,
     { EVIL_B(8, L2, UINT64_C(0x80fffffffffff000)) } },
    {"data in the header", "reading: ", EVIL_QCOW2, { EVIL_B(8, L2, COPIED | 0) } },
    {"data in the refcount table", "references 2", EVIL_QCOW2, { EVIL_B(8, L2, RT | COPIED) } },
    {"data in the refcount block", "references 2", EVIL_QCOW2, { EVIL_B(8, L2, RB | COPIED) } },
    {"data in the level 1 table", "references 2", EVIL_QCOW2, { EVIL_B(8, L2, L1 | COPIED) } },
    {"data in the level 2 table", "references 2", EVIL_QCOW2, { EVIL_B(8, L2, L2 | COPIED) } },
    {"two clusters of the disk in one place", "references 2", EVIL_QCOW2,
     { EVIL_B(8, L2, 0x6000 | COPIED) } },
    {"a flag that contradicts the refcount", "its flag contradict", EVIL_QCOW2,
     { EVIL_B(8, L2, 0x4000) } },
    {"a zero flag in version 2", "malformed level 2 entry", EVIL_QCOW2_V2,
     { EVIL_B(8, L2, 0x4001 | COPIED) } },
    {"compressed data past the end", "compressed cluster lies past the end", EVIL_QCOW2,
     { EVIL_B(8, L2, PACKED | UINT64_C(1) << 50) } },
    {"compressed data in the header", "reading: ", EVIL_QCOW2, { EVIL_B(8, L2, PACKED | 4) } },
    {"compressed data that are none", "reading: ", EVIL_QCOW2, { EVIL_B(8, L2, PACKED | 0x4000) } },
    {"compressed data that inflate to 3 MiB each", "references 512", EVIL_QCOW2,
     { { 0 } }, packed_bomb },
    {"compressed data that are too short", "reading: ", EVIL_QCOW2, { { 0 } }, packed_short },
    {"zstd with the data of zlib", "reading: ", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 8), EVIL_B(1, QCOW2_H_COMPRESSION, 1) }, packed_bomb },
    {"a zstd frame with a window of 1 TiB", "reading: ", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 8), EVIL_B(1, QCOW2_H_COMPRESSION, 1),
       EVIL_B(8, L2, PACKED | MORE), EVIL_B(8, MORE, UINT64_C(0x28b52ffd00f80000)) } },
    {"a disk of 1 GiB that is one cluster", "references 262144", EVIL_QCOW2,
     { { 0 } }, one_for_all },
    {"subclusters that are data and zero", "malformed subclusters", EVIL_QCOW2_SUB,
     { EVIL_B(8, SUB_L2 + 8, -1) } },
    {"subclusters without a cluster", "malformed subclusters", EVIL_QCOW2_SUB,
     { EVIL_B(8, SUB_L2, 0) } },
    {"subclusters of a compressed cluster", "malformed subclusters", EVIL_QCOW2_SUB,
     { EVIL_B(8, SUB_L2, PACKED | 0x10000) } },
    {"the zero flag with extended entries", "malformed level 2 entry", EVIL_QCOW2_SUB,
     { EVIL_B(8, SUB_L2, 0x10001 | COPIED) } },
    {"extended table past the end", "level 2 table lies past the end", EVIL_QCOW2_SUB,
     { EVIL_B(8, SUB_L1, 16 * MIB | COPIED) } },
    {"extended entries read as plain ones", "reading: ", EVIL_QCOW2_SUB,
     { EVIL_B(8, QCOW2_H_INCOMPATIBLE, 0) } },
    {"backing name past its cluster", "backing file's name", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_BACKING_OFFSET, 4090), EVIL_B(4, QCOW2_H_BACKING_SIZE, 10) } },
    {"backing name at the end of all", "backing file's name", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_BACKING_OFFSET, -1), EVIL_B(4, QCOW2_H_BACKING_SIZE, 10) } },
    {"backing name inside of the header", "backing file's name", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_BACKING_OFFSET, 8), EVIL_B(4, QCOW2_H_BACKING_SIZE, 10) } },
    {"backing name of 4 GiB", "backing file's name", EVIL_QCOW2,
     { EVIL_B(8, QCOW2_H_BACKING_OFFSET, 600), EVIL_B(4, QCOW2_H_BACKING_SIZE, -1) } },
    {"backing name with a zero byte", "zero byte", EVIL_QCOW2,
     { BAD_EXT, EVIL_T(600, "a"), EVIL_B(1, 601, 0) } },
    {"backing file without a format", "does not record its format", EVIL_QCOW2,
     { BAD_EXT, EVIL_T(600, "good.raw") } },
    {"backing file of a format that is not", "unknown format 'r w'", EVIL_QCOW2,
     { BACKING("good.raw", 8, "r w", 3) }, NULL, "good.raw" },
    {"the password file", "lies outside", EVIL_QCOW2, { BACKING("/etc/passwd", 11, "raw", 3) } },
    {"another guest's disk", "lies outside", EVIL_QCOW2,
     { BACKING("../other/secret.raw", 19, "raw", 3) } },
    {"another guest's disk, by a link", "lies outside", EVIL_QCOW2,
     { BACKING("link.raw", 8, "raw", 3) } },
    {"another guest's disk, through a folder", "lies outside", EVIL_QCOW2,
     { BACKING("folder/../../other/secret.raw", 29, "raw", 3) } },
    {"the memory of the process", "lies outside", EVIL_QCOW2,
     { BACKING("/proc/self/mem", 14, "raw", 3) } },
    {"a device", "lies outside", EVIL_QCOW2, { BACKING("/dev/zero", 9, "raw", 3) } },
    {"a named pipe, which would hang", "not a regular file", EVIL_QCOW2,
     { BACKING("fifo", 4, "raw", 3) } },
    {"a folder", "not a regular file", EVIL_QCOW2, { BACKING("folder", 6, "raw", 3) } },
    {"a server", "names a protocol", EVIL_QCOW2, { BACKING("nbd:10.0.0.1:10809", 18, "raw", 3) } },
    {"a web server", "names a protocol", EVIL_QCOW2,
     { BACKING("http://10.0.0.1/x", 17, "raw", 3) } },
    {"JSON", "names a protocol", EVIL_QCOW2,
     { BACKING("json:{\"driver\":\"file\"}", 22, "raw", 3) } },
    {"itself", "is a loop", EVIL_QCOW2, { BACKING("evil.qcow2", 10, "qcow2", 5) } },
    {"a missing file, with an escape sequence", "\\x1b[2J", EVIL_QCOW2,
     { BACKING("x\x1b[2J", 5, "raw", 3) } },
    {"a raw file as qcow2", "not a qcow2 image", EVIL_QCOW2,
     { BACKING("good.raw", 8, "qcow2", 5) }, NULL, "good.raw" },
    {"the file ends in the header", "header length is 0", EVIL_QCOW2,
     { { 80, EVIL_CUT, 0, NULL } } },
    {"the file ends behind the header", "past the end", EVIL_QCOW2,
     { { 4096, EVIL_CUT, 0, NULL } } },
    {"the file ends before the level 2 table", "level 2 table lies past the end", EVIL_QCOW2,
     { { L2, EVIL_CUT, 0, NULL } } },
    {"the file ends in the data", "past the end", EVIL_QCOW2, { { 0x6000, EVIL_CUT, 0, NULL } } },
};
/* clang-format on */

void evil_qcow2(void **state)
{
    evil_run(state, rows, ARRAY_LEN(rows));
}
