/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Evil VMDK images: descriptors that name files, and grains that inflate to more than they are.
 * Single fields out of range are in src/block/blk_place_test.c.
 */
#include "evil.h"

#include <zlib.h>

#include "spec/vmdk_disk.h"

#define HEAD        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
#define GD          (UINT64_C(30) * 512) /* of the sparse image: two tables, then the grains */
#define GT          (UINT64_C(31) * 512)
#define STREAM_DATA (UINT64_C(128) * 512)

/* The first grain's data are a zlib stream of several grains' worth of zeroes. */
static void grain_bomb(struct qcow2_memfile *m)
{
    static uint8_t zeroes[400 * KIB];
    uLongf len = VMDK_SECTOR - VMDK_M_DATA; /* where the next grain begins */
    uint8_t *grain = m->data + STREAM_DATA;
    assert_int_equal(compress2(grain + VMDK_M_DATA, &len, zeroes, sizeof(zeroes), 9), Z_OK);
    le32_put(grain + VMDK_M_SIZE, (uint32_t)len);
}

static void embedded_parent(struct qcow2_memfile *m)
{
    static const char key[] = "parentCID=";
    char *at = memmem(m->data, 8192, key, sizeof(key) - 1);
    assert_non_null(at);
    memcpy(at + sizeof(key) - 1, "12345678", 8);
}

/* More extents than there may be. */
static void many_extents(struct qcow2_memfile *m)
{
    static const char line[] = "RW 16 ZERO\n";
    for (unsigned i = 0; i < 10000; i++) {
        size_t at = m->size;
        assert_int_equal(qcow2_memfile_fit(m, at + sizeof(line) - 1), 0);
        memcpy(m->data + at, line, sizeof(line) - 1);
    }
}

/* A directory of a terabyte disk, all of its entries the same table. */
static void one_table(struct qcow2_memfile *m)
{
    assert_int_equal(qcow2_memfile_fit(m, 2 * MIB), 0);
    le64_put(m->data + VMDK_H_CAPACITY, UINT64_C(1) << 31);
    le64_put(m->data + VMDK_H_GD_OFFSET, 2048);
    assert_int_equal(qcow2_memfile_fit(m, MIB + (1 << 15) * 4), 0);
    for (size_t i = 0; i < 1 << 15; i++) {
        le32_put(m->data + MIB + i * 4, 31);
    }
}

#define DESC(what, refusal, lines)                                                                 \
    {                                                                                              \
        what, refusal, EVIL_TEXT,                                                                  \
        {                                                                                          \
            EVIL_T(0, HEAD lines)                                                                  \
        }                                                                                          \
    }

/* clang-format off */
static const struct evil_row rows[] = {
    DESC("VMDK: the password file", "lies outside", "RW 8 FLAT \"/etc/passwd\" 0\n"),
    DESC("VMDK: another guest's disk", "lies outside", "RW 8 FLAT \"../other/secret.raw\" 0\n"),
    DESC("VMDK: another guest's disk, by a link", "lies outside", "RW 8 FLAT \"link.raw\" 0\n"),
    DESC("VMDK: the memory of the process", "lies outside", "RW 8 FLAT \"/proc/self/mem\" 0\n"),
    DESC("VMDK: a device", "lies outside", "RW 8 VMFS \"/dev/zero\" 0\n"),
    DESC("VMDK: a named pipe", "not a regular file", "RW 8 FLAT \"fifo\" 0\n"),
    DESC("VMDK: a folder", "not a regular file", "RW 8 SPARSE \"folder\"\n"),
    DESC("VMDK: a server", "names a protocol", "RW 8 FLAT \"nbd:10.0.0.1:1\" 0\n"),
    DESC("VMDK: itself", "is a loop", "RW 8 SPARSE \"evil.vmdk\"\n"),
    DESC("VMDK: no name", "file name is empty", "RW 8 FLAT \"\" 0\n"),
    DESC("VMDK: a missing file with an escape sequence", "\\x1b[2J", "RW 8 FLAT \"x\x1b[2J\" 0\n"),
    DESC("VMDK: a name without an end", "is not understood", "RW 8 FLAT \"x 0\n"),
    DESC("VMDK: no extents", "there are no extents", ""),
    DESC("VMDK: an extent of no sectors", "extent size is 0", "RW 0 ZERO\n"),
    DESC("VMDK: an extent of 2^64 sectors", "is not understood", "RW 18446744073709551616 ZERO\n"),
    DESC("VMDK: an extent of 2^63 sectors", "extent size", "RW 9223372036854775808 ZERO\n"),
    DESC("VMDK: extents of 2^54 sectors together", "extent size",
         "RW 9007199254740991 ZERO\nRW 9007199254740991 ZERO\n"),
    DESC("VMDK: an extent of -8 sectors", "is not understood", "RW -8 ZERO\n"),
    DESC("VMDK: an extent of hexadecimal sectors", "is not understood", "RW 0x10 ZERO\n"),
    DESC("VMDK: an extent past any file", "extent offset", "RW 8 FLAT \"good.raw\" 18446744073709551615\n"),
    DESC("VMDK: a kind that is not", "extents of type 'RAID'", "RW 8 RAID \"good.raw\"\n"),
    DESC("VMDK: a physical disk", "extents of type 'VMFSRDM'", "RW 8 VMFSRDM \"/dev/sda\"\n"),
    {"VMDK: an extent longer than its file", "the descriptor needs", EVIL_TEXT,
     { EVIL_T(0, HEAD "RW 9999 FLAT \"good.raw\" 0\n") }, .opens = "good.raw"},
    {"VMDK: an extent behind its file's end", "the descriptor needs", EVIL_TEXT,
     { EVIL_T(0, HEAD "RW 8 FLAT \"good.raw\" 2048\n") }, .opens = "good.raw"},
    {"VMDK: a raw file as sparse extent", "no VMDK image", EVIL_TEXT,
     { EVIL_T(0, HEAD "RW 8 SPARSE \"good.raw\"\n") }, .opens = "good.raw"},
    {"VMDK: a file in the folder, which it may name", NULL, EVIL_TEXT,
     { EVIL_T(0, HEAD "RW 8 FLAT \"good.raw\" 8\n") }, .opens = "good.raw"},
    {"VMDK: a parent in a descriptor", "parentCID 00000001", EVIL_TEXT,
     { EVIL_T(0, "# Disk DescriptorFile\nparentCID=1\nRW 8 ZERO\n") }},
    {"VMDK: 10,000 extents", "more than", EVIL_TEXT, { EVIL_T(0, HEAD) }, many_extents},
    {"VMDK: a descriptor of 1 MiB", "limit is", EVIL_TEXT, { EVIL_T(0, HEAD), EVIL_L(1, MIB, 0) }},
    {"VMDK: an empty file", "no VMDK image", EVIL_TEXT, { { 0 } }},
    {"VMDK: a terabyte of one table", "grain tables overlap", EVIL_VMDK, { { 0 } }, one_table},
    {"VMDK: directory in the header", "grain table", EVIL_VMDK, { EVIL_L(8, VMDK_H_GD_OFFSET, 1) }},
    {"VMDK: a grain in the header", NULL, EVIL_VMDK, { EVIL_L(4, GT, 1) }},
    {"VMDK: a parent in an embedded descriptor", "parentCID 12345678", EVIL_VMDK,
     { { 0 } }, embedded_parent},
    {"VMDK: a grain that inflates to 400 KiB", NULL, EVIL_STREAM, { { 0 } }, grain_bomb},
    {"VMDK: a grain of 4 GiB of data", "reading: ", EVIL_STREAM,
     { EVIL_L(4, STREAM_DATA + VMDK_M_SIZE, -1) }},
    {"VMDK: a grain of no data", "reading: ", EVIL_STREAM,
     { EVIL_L(4, STREAM_DATA + VMDK_M_SIZE, 0) }},
    {"VMDK: a grain that says it is another", "reading: ", EVIL_STREAM,
     { EVIL_L(8, STREAM_DATA, 5) }},
    {"VMDK: a grain that is no zlib stream", "reading: ", EVIL_STREAM,
     { EVIL_L(8, STREAM_DATA + VMDK_M_DATA, 0) }},
    {"VMDK: a stream cut short", "footer is missing or damaged", EVIL_STREAM,
     { { STREAM_DATA + 512, EVIL_CUT, 0, NULL } }},
};
/* clang-format on */

void evil_vmdk(void **state)
{
    evil_run(state, rows, ARRAY_LEN(rows));
}
