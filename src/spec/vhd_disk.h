/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The on-disk format of VHD: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0
 * (October 2006). All numbers are big-endian and named by their byte offsets.
 */
#ifndef SPEC_VHD_DISK_H
#define SPEC_VHD_DISK_H

/* The footer: the file's last 512 bytes; in dynamic images a copy is at the file's beginning. */
#define VHD_F_COOKIE      0  /* "conectix" */
#define VHD_F_FEATURES    8  /* u32 */
#define VHD_F_VERSION     12 /* u32 */
#define VHD_F_DATA_OFFSET 16 /* u64, of the dynamic header; all ones in fixed images */
#define VHD_F_TIMESTAMP   24 /* u32, seconds since 2000 */
#define VHD_F_CREATOR     28 /* 4 bytes */
#define VHD_F_CREATOR_VER 32 /* u32 */
#define VHD_F_CREATOR_OS  36 /* 4 bytes */
#define VHD_F_ORIG_SIZE   40 /* u64 */
#define VHD_F_SIZE        48 /* u64 */
#define VHD_F_CYLINDERS   56 /* u16 */
#define VHD_F_HEADS       58 /* u8 */
#define VHD_F_SECTORS     59 /* u8 */
#define VHD_F_TYPE        60 /* u32 */
#define VHD_F_CHECKSUM    64 /* u32, one's complement of the sum of all other bytes */
#define VHD_F_UUID        68 /* 16 bytes */
#define VHD_F_LEN         512

#define VHD_F_FEATURES_RESERVED 2 /* always set */
#define VHD_VERSION             0x00010000U

#define VHD_TYPE_FIXED   2
#define VHD_TYPE_DYNAMIC 3
#define VHD_TYPE_DIFF    4

/* The dynamic header. */
#define VHD_D_COOKIE      0  /* "cxsparse" */
#define VHD_D_DATA_OFFSET 8  /* u64, all ones */
#define VHD_D_BAT_OFFSET  16 /* u64 */
#define VHD_D_VERSION     24 /* u32 */
#define VHD_D_ENTRIES     28 /* u32, of the block allocation table */
#define VHD_D_BLOCK_SIZE  32 /* u32, bytes, without the bitmap */
#define VHD_D_CHECKSUM    36 /* u32 */
#define VHD_D_LEN         1024

/* The block allocation table: u32, sector of a block's bitmap, or */
#define VHD_BAT_NONE 0xffffffffU

#define VHD_COOKIE_LEN 8
#define VHD_MAX_SIZE   (UINT64_C(2040) << 30) /* what other programs take: 2040 GiB */

#endif
