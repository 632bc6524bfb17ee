/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The on-disk format of qcow2, versions 2 and 3.
 *
 * Spec: "qcow2 image file format", docs/interop/qcow2.txt of QEMU 7.2. All numbers big-endian, so
 * fields are named by their byte offsets and read with be32_get()/be64_get(), never through a
 * struct overlay.
 */
#ifndef SPEC_QCOW2_DISK_H
#define SPEC_QCOW2_DISK_H

#include "base/bits.h"

#define QCOW2_MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */

/* Header fields: byte offsets. */
#define QCOW2_H_MAGIC              0   /* u32 */
#define QCOW2_H_VERSION            4   /* u32 */
#define QCOW2_H_BACKING_OFFSET     8   /* u64 */
#define QCOW2_H_BACKING_SIZE       16  /* u32 */
#define QCOW2_H_CLUSTER_BITS       20  /* u32 */
#define QCOW2_H_SIZE               24  /* u64 */
#define QCOW2_H_CRYPT              32  /* u32 */
#define QCOW2_H_L1_SIZE            36  /* u32, entries */
#define QCOW2_H_L1_OFFSET          40  /* u64 */
#define QCOW2_H_REFTABLE_OFFSET    48  /* u64 */
#define QCOW2_H_REFTABLE_CLUSTERS  56  /* u32 */
#define QCOW2_H_NB_SNAPSHOTS       60  /* u32 */
#define QCOW2_H_SNAPSHOTS_OFFSET   64  /* u64 */
#define QCOW2_H_V2_LEN             72  /* length of a version 2 header */
#define QCOW2_H_INCOMPATIBLE       72  /* u64 */
#define QCOW2_H_COMPATIBLE         80  /* u64 */
#define QCOW2_H_AUTOCLEAR          88  /* u64 */
#define QCOW2_H_REFCOUNT_ORDER     96  /* u32 */
#define QCOW2_H_HEADER_LEN         100 /* u32 */
#define QCOW2_H_V3_LEN             104 /* least length of a version 3 header */
#define QCOW2_H_COMPRESSION        104 /* u8 */
#define QCOW2_H_V3_COMPRESSION_LEN 112 /* with the compression type and its padding */

#define QCOW2_INCOMPAT_DIRTY       BIT64(0)
#define QCOW2_INCOMPAT_CORRUPT     BIT64(1)
#define QCOW2_INCOMPAT_DATA_FILE   BIT64(2)
#define QCOW2_INCOMPAT_COMPRESSION BIT64(3)
#define QCOW2_INCOMPAT_EXTENDED_L2 BIT64(4)

#define QCOW2_COMPAT_LAZY_REFCOUNTS BIT64(0)

#define QCOW2_AUTOCLEAR_BITMAPS  BIT64(0)
#define QCOW2_AUTOCLEAR_DATA_RAW BIT64(1)

#define QCOW2_CRYPT_NONE 0
#define QCOW2_CRYPT_AES  1
#define QCOW2_CRYPT_LUKS 2

#define QCOW2_COMPRESSION_ZLIB 0
#define QCOW2_COMPRESSION_ZSTD 1

/* Header extensions: u32 type, u32 length, data, padding to 8 bytes. */
#define QCOW2_EXT_HEAD_LEN      8
#define QCOW2_EXT_END           UINT32_C(0x00000000)
#define QCOW2_EXT_BACKING_FMT   UINT32_C(0xe2792aca)
#define QCOW2_EXT_FEATURE_NAMES UINT32_C(0x6803f857)
#define QCOW2_EXT_BITMAPS       UINT32_C(0x23852875)
#define QCOW2_EXT_CRYPTO        UINT32_C(0x0537be77)
#define QCOW2_EXT_DATA_FILE     UINT32_C(0x44415441)

/* An entry of the feature name table. */
#define QCOW2_FEATURE_LEN       48
#define QCOW2_FEATURE_NAME_LEN  46
#define QCOW2_FEATURE_INCOMPAT  0
#define QCOW2_FEATURE_COMPAT    1
#define QCOW2_FEATURE_AUTOCLEAR 2

/* The bitmaps extension and what it leads to. */
#define QCOW2_BM_EXT_LEN        24
#define QCOW2_BM_EXT_COUNT      0  /* u32 */
#define QCOW2_BM_EXT_DIR_SIZE   8  /* u64 */
#define QCOW2_BM_EXT_DIR_OFFSET 16 /* u64 */
#define QCOW2_BM_DIR_LEN        24 /* fixed part of a directory entry */
#define QCOW2_BM_DIR_TABLE      0  /* u64 */
#define QCOW2_BM_DIR_TABLE_SIZE 8  /* u32, entries */
#define QCOW2_BM_DIR_FLAGS      12 /* u32 */
#define QCOW2_BM_DIR_NAME_SIZE  18 /* u16 */
#define QCOW2_BM_DIR_EXTRA_SIZE 20 /* u32 */

#define QCOW2_COPIED        BIT64(63) /* L1 and L2 entries: the refcount is exactly one */
#define QCOW2_L2_COMPRESSED BIT64(62)
#define QCOW2_L2_ZERO       BIT64(0)                     /* version 3 */
#define QCOW2_OFFSET_MASK   UINT64_C(0x00fffffffffffe00) /* bits 9 to 55 */
#define QCOW2_L1_RESERVED   UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED   UINT64_C(0x3f000000000001fe) /* of a standard cluster descriptor */
/* Extended L2 entries: the descriptor above, then a u64 with a bit a subcluster in each half. */
#define QCOW2_SUBCLUSTERS     32
#define QCOW2_SUB_ALLOC(bits) ((uint32_t)(bits))         /* has data in the cluster */
#define QCOW2_SUB_ZERO(bits)  ((uint32_t)((bits) >> 32)) /* reads as zeroes */
#define QCOW2_REFTABLE_MASK   UINT64_C(0xfffffffffffffe00)
#define QCOW2_COMPRESSED_UNIT 512 /* compressed lengths are counted in these */

/* A snapshot table entry: fixed part, then extra data, id, name, padding to 8 bytes. */
#define QCOW2_SN_LEN           40
#define QCOW2_SN_L1_OFFSET     0  /* u64 */
#define QCOW2_SN_L1_SIZE       8  /* u32, entries */
#define QCOW2_SN_ID_SIZE       12 /* u16 */
#define QCOW2_SN_NAME_SIZE     14 /* u16 */
#define QCOW2_SN_DATE_SEC      16 /* u32 */
#define QCOW2_SN_DATE_NSEC     20 /* u32 */
#define QCOW2_SN_CLOCK_NSEC    24 /* u64 */
#define QCOW2_SN_VM_STATE_SIZE 32 /* u32 */
#define QCOW2_SN_EXTRA_SIZE    36 /* u32 */
#define QCOW2_SN_X_VM_STATE    40 /* u64, extra data */
#define QCOW2_SN_X_DISK_SIZE   48 /* u64, extra data */

/* Limits of the format. */
#define QCOW2_CLUSTER_BITS_MIN   9
#define QCOW2_CLUSTER_BITS_SUB   14 /* least with extended L2 entries: subclusters of 512 bytes */
#define QCOW2_CLUSTER_BITS_MAX   21 /* what QEMU opens; the format itself has no upper bound */
#define QCOW2_REFCOUNT_ORDER_MAX 6
#define QCOW2_BACKING_NAME_MAX   1023

#endif
