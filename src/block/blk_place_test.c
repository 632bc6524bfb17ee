/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The formats over blk_place.c: images that are spoilt in one field each, and what blk_place.c
 * does. */
#include "block/blk_place.h"

#include "block/blk_place_fake.h"
#include "block/blk_test.h"
#include "spec/vmdk_disk.h"

enum base { VDI, VHD, VHD_FIXED, VHDX, VMDK, STREAM };

static const struct blk_class *const classes[] = {
    &fmt_vdi_class,  &fmt_vhd_class,  &fmt_vhd_class,
    &fmt_vhdx_class, &fmt_vmdk_class, &fmt_vmdk_class
};

static void make(struct qcow2_memfile *m, enum base base)
{
    static const char *const fixed[] = { "subformat=fixed", NULL };
    static const char *const stream[] = { "subformat=streamOptimized", NULL };
    struct err err = ERR_INIT;
    int rc = base == VDI         ? fake_vdi(m, &err)
             : base == VHD       ? fake_vhd(m, &err)
             : base == VHD_FIXED ? fake_create(m, &fmt_vhd_class, 64 * KIB, fixed, &err)
             : base == VHDX      ? fake_vhdx(m, &err)
             : base == VMDK      ? fake_create(m, &fmt_vmdk_class, 34 * MIB, NULL, &err)
                                 : fake_create(m, &fmt_vmdk_class, 34 * MIB, stream, &err);
    if (rc < 0) {
        fail_msg("base %d: %s", base, err.msg);
    }
}

/* Where things are in the images made here. */
#define VMDK_GD     (UINT64_C(30) * 512) /* header, descriptor, one directory with two tables */
#define VMDK_GT(n)  ((UINT64_C(31) + 4 * (n)) * 512)
#define STREAM_DATA (UINT64_C(128) * 512)
#define FROM_END(n) (UINT64_MAX - (n) + 1)

/* A number at a place: `width` bytes, negative: big-endian. */
static const struct spoil {
    enum base base;
    uint64_t at;
    int width;
    uint64_t value;
    int code;
    const char *text;
} spoils[] = {
    {VDI,        VDI_H_SIGNATURE,                                    4,  0,                    -EINVAL,  "no VDI"              },
    { VDI,       VDI_H_VERSION,                                      4,  0x10000,              -EINVAL,  "version"             },
    { VDI,       VDI_H_TYPE,                                         4,  4,                    -ENOTSUP, "difference"          },
    { VDI,       VDI_H_UUID_LINK,                                    4,  1,                    -ENOTSUP, "difference"          },
    { VDI,       VDI_H_BLOCK_SIZE,                                   4,  0,                    -EINVAL,  "block size is 0"     },
    { VDI,       VDI_H_BLOCK_SIZE,                                   4,  5000,                 -EINVAL,  "powers of two"       },
    { VDI,       VDI_H_BLOCK_EXTRA,                                  4,  512,                  -EINVAL,  "block extra"         },
    { VDI,       VDI_H_SECTOR_SIZE,                                  4,  4096,                 -EINVAL,  "sector size"         },
    { VDI,       VDI_H_DISK_SIZE,                                    8,  0,                    -EINVAL,  "disk size is 0"      },
    { VDI,       VDI_H_DISK_SIZE,                                    8,  UINT64_MAX - 511,     -EINVAL,  "disk size"           },
    { VDI,       VDI_H_BLOCKS,                                       4,  0xffffffff,           -EINVAL,  "map offset"          },
    { VDI,       VDI_H_MAP_OFFSET,                                   4,  0,                    -EINVAL,  "map offset"          },
    { VDI,       VDI_H_MAP_OFFSET,                                   4,  0xfffffe00,           -EINVAL,  "map offset"          },
    { VDI,       VDI_H_DATA_OFFSET,                                  4,  512,                  -EINVAL,  "data offset"         },
    { VDI,       VDI_H_SIZE,                                         4,  3,                    -EINVAL,  "block 0 of the disk" },
    { VDI,       VDI_H_SIZE,                                         4,  0xfffffffd,           -EINVAL,  "block 0 of the disk" },
    { VDI,       VDI_H_SIZE,                                         4,  1,                    -EINVAL,  "overlap"             },
    { VHD,       FROM_END(512 - VHD_F_TYPE),                         -4, VHD_TYPE_DIFF,        -ENOTSUP, "difference"          },
    { VHD,       FROM_END(512 - VHD_F_TYPE),                         -4, 9,                    -EINVAL,  "disk type is 9"      },
    { VHD,       FROM_END(512 - VHD_F_VERSION),                      -4, 0x20000,              -EINVAL,  "version"             },
    { VHD,       FROM_END(512 - VHD_F_SIZE),                         -8, 0,                    -EINVAL,  "current size"        },
    { VHD,       FROM_END(512 - VHD_F_SIZE),                         -8, UINT64_C(1) << 62,    -EINVAL,  "2040 GiB"            },
    { VHD,       FROM_END(512 - VHD_F_SIZE),                         -8, 16 * MIB,             -EINVAL,  "max table entries"   },
    { VHD,       FROM_END(512 - VHD_F_DATA_OFFSET),                  -8, UINT64_MAX - 511,     -EINVAL,  "data offset"         },
    { VHD,       512,                                                -8, 0,                    -EINVAL,  "dynamic header"      },
    { VHD,       512 + VHD_D_BLOCK_SIZE,                             -4, 0,                    -EINVAL,  "block size"          },
    { VHD,       512 + VHD_D_BAT_OFFSET,                             -8, 512,                  -EINVAL,  "table offset"        },
    { VHD,       512 + VHD_D_BAT_OFFSET,                             -8, UINT64_MAX - 511,     -EINVAL,  "table offset"        },
    { VHD,       1536,                                               -4, 0,                    -EINVAL,  "block 0 of the disk" },
    { VHD,       1536,                                               -4, 0xfffffffe,           -EINVAL,  "block 0 of the disk" },
    { VHD,       1536,                                               -4, 5,                    -EINVAL,  "overlap"             },
    { VHD_FIXED, FROM_END(512 - VHD_F_SIZE),                         -8, 65 * KIB,             -EINVAL,  "current size"        },
    { VHDX,      0,                                                  4,  0,                    -EINVAL,  "no VHDX"             },
    { VHDX,      VHDX_H_OFFSET(1) + VHDX_H_VERSION,                  2,  2,                    -EINVAL,  "version is 2"        },
    { VHDX,      VHDX_H_OFFSET(1) + VHDX_H_LOG_GUID,                 4,  1,                    -ENOTSUP, "log"                 },
    { VHDX,      VHDX_R_OFFSET(0) + VHDX_R_COUNT,                    4,  9999,                 -EINVAL,  "region tables"       },
    { VHDX,      VHDX_R_OFFSET(0) + VHDX_R_COUNT,                    4,  1,                    -EINVAL,  "missing"             },
    { VHDX,      VHDX_R_OFFSET(0) + VHDX_R_ENTRIES,                  4,  1,                    -ENOTSUP, "not supported"       },
    { VHDX,      VHDX_R_OFFSET(0) + VHDX_R_ENTRIES + VHDX_RE_OFFSET, 8,  UINT64_C(1) << 62,    -EINVAL,
     "table offset"                                                                                                            },
    { VHDX,      2 * MIB,                                            4,  0,                    -EINVAL,  "metadata table"      },
    { VHDX,      2 * MIB + VHDX_M_ENTRIES + VHDX_ME_OFFSET,          4,  0xffffffff,           -EINVAL,  "item offset"         },
    { VHDX,      2 * MIB + VHDX_M_LEN,                               4,  1000,                 -EINVAL,  "block size"          },
    { VHDX,      2 * MIB + VHDX_M_LEN + 4,                           4,  2,                    -ENOTSUP, "difference"          },
    { VHDX,      2 * MIB + VHDX_M_LEN + 16,                          8,  UINT64_C(1) << 60,    -EINVAL,  "virtual disk size"   },
    { VHDX,      2 * MIB + VHDX_M_LEN + 16,                          8,  UINT64_C(1) << 46,    -EFBIG,   "limit is 33554432"   },
    { VHDX,      2 * MIB + VHDX_M_LEN + 32,                          4,  1,                    -EINVAL,  "sector size"         },
    { VHDX,      MIB,                                                8,  7,                    -EINVAL,  "state 7"             },
    { VHDX,      MIB,                                                8,  5 * MIB | 6,          -EINVAL,  "block 0 of the disk" },
    { VHDX,      MIB,                                                8,  ~UINT64_C(1),         -EINVAL,  "block 0 of the disk" },
    { VHDX,      MIB,                                                8,  4 * MIB | 6,          -EINVAL,  "overlap"             },
    { VMDK,      VMDK_H_MAGIC,                                       4,  0,                    -EINVAL,  "no VMDK"             },
    { VMDK,      VMDK_H_MAGIC,                                       4,  VMDK_MAGIC_ESX,       -ENOTSUP, "COWD"                },
    { VMDK,      VMDK_H_VERSION,                                     4,  4,                    -EINVAL,  "version"             },
    { VMDK,      VMDK_H_CAPACITY,                                    8,  0,                    -EINVAL,  "capacity"            },
    { VMDK,      VMDK_H_CAPACITY,                                    8,  UINT64_MAX,           -EINVAL,  "capacity"            },
    { VMDK,      VMDK_H_CAPACITY,                                    8,  UINT64_C(1) << 40,    -EFBIG,   "limit is 33554432"   },
    { VMDK,      VMDK_H_CAPACITY,                                    8,  UINT64_C(1) << 31,    -EINVAL,  "grain table"         },
    { VMDK,      VMDK_H_GRAIN,                                       8,  0,                    -EINVAL,  "grainSize"           },
    { VMDK,      VMDK_H_GRAIN,                                       8,  8192,                 -EINVAL,  "grainSize"           },
    { VMDK,      VMDK_H_GT_ENTRIES,                                  4,  0,                    -EINVAL,  "numGTEsPerGT"        },
    { VMDK,      VMDK_H_GD_OFFSET,                                   8,  0,                    -EINVAL,  "gdOffset"            },
    { VMDK,      VMDK_H_GD_OFFSET,                                   8,  VMDK_GD_AT_END,       -EINVAL,  "footer"              },
    { VMDK,      VMDK_H_DESC_SIZE,                                   8,  UINT64_MAX,           -EINVAL,  "descriptorSize"      },
    { VMDK,      VMDK_H_DESC_OFFSET,                                 8,  UINT64_C(1) << 60,    -EINVAL,  "descriptorOffset"    },
    { VMDK,      VMDK_H_NEWLINES,                                    1,  ' ',                  -EINVAL,  "as text"             },
    { VMDK,      VMDK_H_FLAGS,                                       4,  VMDK_FLAG_COMPRESSED, -EINVAL,  "compressAlgorithm"   },
    { VMDK,      VMDK_GD,                                            4,  0xffffffff,           -EINVAL,  "grain table 0"       },
    { VMDK,      VMDK_GD,                                            4,  34,                   -EINVAL,  "grain tables overlap"},
    { VMDK,      VMDK_GT(0),                                         4,  0xffffffff,           -EINVAL,  "block 0 of the disk" },
    { VMDK,      VMDK_GT(0) + 4,                                     4,  129,                  -EINVAL,  "overlap"             },
    { STREAM,    VMDK_H_COMPRESSION,                                 2,  7,                    -EINVAL,  "compressAlgorithm"   },
    { STREAM,    FROM_END(1024 - VMDK_H_CAPACITY),                   8,  0,                    -EINVAL,  "capacity"            },
    { STREAM,    FROM_END(512),                                      1,  1,                    0,        ""                    },
    { STREAM,    FROM_END(500),                                      4,  1,                    -EINVAL,  "footer"              },
};

static void put(struct qcow2_memfile *m, const struct spoil *s)
{
    uint64_t at = s->at > UINT64_MAX / 2 ? m->size + s->at : s->at; /* FROM_END */
    uint8_t *p = m->data + at;
    assert_in_range(at, 0, m->size - 8);
    switch (s->width) {
    case 1:
        *p = (uint8_t)s->value;
        break;
    case 2:
        le16_put(p, (uint16_t)s->value);
        break;
    case 4:
        le32_put(p, (uint32_t)s->value);
        break;
    case 8:
        le64_put(p, s->value);
        break;
    case -4:
        be32_put(p, (uint32_t)s->value);
        break;
    default:
        be64_put(p, s->value);
        break;
    }
}

static void test_spoilt(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(spoils); i++) {
        const struct spoil *s = &spoils[i];
        struct qcow2_memfile m = { 0 };
        struct err err = ERR_INIT;
        struct blk *blk = NULL;
        make(&m, s->base);
        if (fake_open(&m, classes[s->base], true, &blk, &err) < 0) {
            fail_msg("row %zu: the image is not good: %s", i, err.msg);
        }
        blk_close(blk);
        put(&m, s);
        if (s->base == VHD || s->base == VHD_FIXED) {
            fake_vhd_sums(&m);
        } else if (s->base == VHDX) {
            fake_vhdx_sums(&m);
        }
        blk = NULL;
        int rc = fake_open(&m, classes[s->base], true, &blk, &err);
        if (rc != s->code || strstr(err.msg, s->text) == NULL) {
            fail_msg("row %zu: got %d '%s', expected %d '%s'", i, rc, err.msg, s->code, s->text);
        }
        blk_close(blk);
        free(m.data);
    }
}

/* Cut short at any place, an image is refused or all that it says is there. */
static void test_cut_short(void **state)
{
    (void)state;
    for (enum base base = VDI; base <= STREAM; base++) {
        struct qcow2_memfile m = { 0 };
        struct err err = ERR_INIT;
        struct blk *blk = NULL;
        make(&m, base);
        m.size = m.size / 1024 * 512;
        if (fake_open(&m, classes[base], true, &blk, &err) == 0) {
            fail_msg("base %d was opened", base);
        }
        m.size = 100;
        assert_int_not_equal(fake_open(&m, classes[base], true, &blk, &err), 0);
        free(m.data);
    }
}

static void assert_byte(struct blk *blk, uint64_t at, uint8_t byte)
{
    uint8_t buf[512];
    assert_int_equal(blk_pread(blk, at, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0], byte);
    assert_int_equal(buf[511], byte);
}

/* The bitmap of a VHD block: what it does not name reads as zeroes, whatever lies there, also after
 * the block was written. */
static void test_vhd_bitmap(void **state)
{
    struct qcow2_memfile m = { 0 };
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    (void)state;
    make(&m, VHD);
    assert_int_equal(fake_open(&m, &fmt_vhd_class, false, &blk, &err), 0);
    assert_byte(blk, 0, 0);
    assert_byte(blk, 128 * KIB - 512, 'v');
    assert_byte(blk, 192 * KIB + 63 * 512, 'v');
    assert_byte(blk, 192 * KIB + 64 * 512, 0);
    uint8_t buf[512];
    memset(buf, 'w', sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 192 * KIB + 100 * 512, buf, sizeof(buf)), 0);
    assert_byte(blk, 192 * KIB + 99 * 512, 0);
    assert_byte(blk, 192 * KIB + 100 * 512, 'w');
    blk_close(blk);
    assert_int_equal(fake_open(&m, &fmt_vhd_class, true, &blk, &err), 0);
    assert_byte(blk, 192 * KIB + 99 * 512, 0);
    assert_byte(blk, 192 * KIB + 100 * 512, 'w');
    assert_byte(blk, 192 * KIB, 'v');
    blk_close(blk);
    free(m.data);
}

/* A crash after a new block has overwritten the footer. */
static void test_vhd_footer_copy(void **state)
{
    struct qcow2_memfile m = { 0 };
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    (void)state;
    make(&m, VHD);
    memset(m.data + m.size - VHD_F_LEN, 'x', VHD_F_LEN);
    assert_int_equal(fake_open(&m, &fmt_vhd_class, false, &blk, &err), 0);
    assert_byte(blk, 64 * KIB, 'v');
    blk_close(blk);
    memset(m.data, 0, VHD_F_LEN); /* now the one at the end serves alone */
    assert_int_equal(fake_open(&m, &fmt_vhd_class, true, &blk, &err), 0);
    assert_byte(blk, 64 * KIB, 'v');
    blk_close(blk);
    free(m.data);
}

/* The table is written by a flush alone, after the data. */
static void test_table_follows_flush(void **state)
{
    struct qcow2_memfile m = { 0 };
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    uint8_t buf[512] = { 'n' };
    (void)state;
    make(&m, VDI);
    assert_int_equal(fake_open(&m, &fmt_vdi_class, false, &blk, &err), 0);
    assert_int_equal(blk_pwrite(blk, 3 * 4096, buf, sizeof(buf)), 0);
    assert_int_equal(le32_get(m.data + VDI_H_SIZE + 12), VDI_MAP_NONE);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(le32_get(m.data + VDI_H_SIZE + 12), 3);
    assert_int_equal(le32_get(m.data + VDI_H_ALLOCATED), 4);
    blk_close(blk);
    free(m.data);
}

/* A stream-optimised image only grows; each flush leaves it complete. */
static void test_stream_order(void **state)
{
    static const char *const stream[] = { "subformat=streamOptimized", "cid=00000001", NULL };
    struct err err = ERR_INIT;
    struct blk_create_opts opts = {
        .path = scratch_path(state, "s.vmdk"), .format = "vmdk", .size = 40 * MIB, .params = stream
    };
    struct blk *blk = NULL;
    uint8_t buf[512];
    memset(buf, 's', sizeof(buf));
    assert_int_equal(blk_create_begin(&opts, &blk, &err), 0);
    assert_int_equal(blk_pwrite(blk, MIB, buf, sizeof(buf)), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_pwrite(blk, MIB - 512, buf, sizeof(buf)), -ESPIPE);
    assert_int_equal(blk_pwrite(blk, MIB, buf, sizeof(buf)), -ESPIPE);
    assert_int_equal(blk_pwrite(blk, 39 * MIB, buf, sizeof(buf)), 0);
    assert_int_equal(blk_pread(blk, 0, buf, sizeof(buf)), -ENOTSUP);
    assert_int_equal(blk_create_commit(&opts, blk, &err), 0);
    open_fails(&(struct blk_opts){ .path = opts.path }, -EROFS, "read-only");
    blk = open_ok(&(struct blk_opts){ .path = opts.path, .read_only = true });
    assert_byte(blk, MIB, 's');
    assert_byte(blk, 39 * MIB, 's');
    assert_byte(blk, 2 * MIB, 0);
    blk_close(blk);
}

/* Grains whose data are not what the marker says: an error for that grain, no more. */
static void test_bad_grain(void **state)
{
    const struct spoil rows[] = {
        {STREAM,  STREAM_DATA + VMDK_M_VALUE, 8, 5,          0, ""},
        { STREAM, STREAM_DATA + VMDK_M_SIZE,  4, 0xffffffff, 0, ""},
        { STREAM, STREAM_DATA + VMDK_M_SIZE,  4, 0,          0, ""},
        { STREAM, STREAM_DATA + VMDK_M_DATA,  4, 0,          0, ""},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct qcow2_memfile m = { 0 };
        struct err err = ERR_INIT;
        struct blk *blk = NULL;
        uint8_t buf[512];
        make(&m, STREAM);
        put(&m, &rows[i]);
        assert_int_equal(fake_open(&m, &fmt_vmdk_class, true, &blk, &err), 0);
        assert_int_equal(blk_pread(blk, 0, buf, sizeof(buf)), -EIO);
        assert_byte(blk, 34 * MIB / 3 / 512 * 512, 'b');
        blk_close(blk);
        free(m.data);
    }
}

/* Descriptors: what they may name. */
static void test_extents(void **state)
{
    static const struct {
        const char *lines;
        int code;
        const char *text;
    } rows[] = {
        {"RW 8 FLAT \"../outside.raw\" 0",                      -EACCES,  "outside"         },
        { "RW 8 FLAT \"/etc/hostname\" 0",                      -EACCES,  "outside"         },
        { "RW 8 FLAT \"nbd:localhost:1\" 0",                    -EACCES,  "protocol"        },
        { "RW 8 FLAT \"link.raw\" 0",                           -EACCES,  "outside"         },
        { "RW 8 FLAT \"x.vmdk\" 0",                             -ELOOP,   "loop"            },
        { "RW 8 SPARSE \"x.vmdk\"",                             -ELOOP,   "loop"            },
        { "RW 8 FLAT \"missing.raw\" 0",                        -ENOENT,  "missing.raw"     },
        { "RW 999 FLAT \"in.raw\" 0",                           -EINVAL,  "descriptor needs"},
        { "RW 8 FLAT \"in.raw\" 9007199254740990",              -EINVAL,  "descriptor needs"},
        { "RW 8 FLAT \"in.raw\" 99999999999999999999",          -EINVAL,  "not understood"  },
        { "RW 8 SPARSE \"in.raw\"",                             -EINVAL,  "no VMDK"         },
        { "RW 8 VMFSRDM \"in.raw\"",                            -ENOTSUP, "VMFSRDM"         },
        { "RW 8",                                               -EINVAL,  "not understood"  },
        { "RW 8 FLAT in.raw",                                   -EINVAL,  "not understood"  },
        { "RW 0 ZERO",                                          -EINVAL,  "extent size"     },
        { "RW 9007199254740992 ZERO\nRW 9007199254740992 ZERO", -EINVAL,  "extent size"     },
        { "",                                                   -EINVAL,  "no extents"      },
        { "parentCID=12345678\nRW 8 ZERO",                      -ENOTSUP, "difference"      },
        { "RW 8 ZERO\nRW 8 FLAT \"in.raw\" 1\nRDONLY 1 ZERO",   0,        ""                },
    };
    char text[512];
    char dir[4200];
    struct err err = ERR_INIT;
    (void)snprintf(dir, sizeof(dir), "%s", scratch_path(state, "d"));
    assert_int_equal(mkdir(dir, 0700), 0);
    scratch_file(state, "outside.raw", "secret", 8192);
    scratch_file(state, "d/in.raw", "inside", 8192);
    assert_int_equal(symlink("../outside.raw", scratch_path(state, "d/link.raw")), 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        (void)snprintf(text, sizeof(text), "# Disk DescriptorFile\n%s\n", rows[i].lines);
        const char *path = scratch_file(state, "d/x.vmdk", text, (off_t)strlen(text));
        struct blk_opts opts = { .path = path, .format = "vmdk", .read_only = true };
        struct blk *blk = NULL;
        int rc = blk_open(&opts, &blk, &err);
        if (rc != rows[i].code || strstr(err.msg, rows[i].text) == NULL) {
            fail_msg("row %zu: got %d '%s'", i, rc, err.msg);
        }
        if (rc == 0) {
            assert_int_equal(blk_size(blk), 17 * 512);
            assert_byte(blk, 8 * 512, 0);
        }
        blk_close(blk);
        err_clear(&err);
    }
}

static void test_probe(void **state)
{
    static const char *const names[] = { "vdi", "vhd", "vhd", "vhdx", "vmdk", "vmdk" };
    struct err err = ERR_INIT;
    const char *format;
    for (enum base base = VDI; base <= STREAM; base++) {
        struct qcow2_memfile m = { 0 };
        const char *path = scratch_path(state, "probed");
        make(&m, base);
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        assert_int_equal(fwrite(m.data, 1, m.size, f), m.size);
        assert_int_equal(fclose(f), 0);
        free(m.data);
        assert_int_equal(blk_probe(path, &format, &err), 0);
        assert_string_equal(format, names[base]);
        open_fails(&(struct blk_opts){ .path = path }, -EINVAL, names[base]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spoilt),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_vhd_bitmap),
        cmocka_unit_test(test_vhd_footer_copy),
        cmocka_unit_test(test_table_follows_flush),
        cmocka_unit_test_setup_teardown(test_stream_order, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_bad_grain),
        cmocka_unit_test_setup_teardown(test_extents, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_probe, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
