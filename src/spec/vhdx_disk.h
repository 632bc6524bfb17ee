/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The on-disk format of VHDX: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format",
 * version 8.0. Numbers are little-endian and named by their byte offsets; GUIDs have their first
 * three fields little-endian.
 */
#ifndef SPEC_VHDX_DISK_H
#define SPEC_VHDX_DISK_H

#include "base/bits.h"

#define VHDX_SIGNATURE "vhdxfile" /* at the file's beginning */

/* Headers (§2.2.2): two, that with the higher sequence number counts. */
#define VHDX_H_OFFSET(n)   ((UINT64_C(64) << (n)) * KIB) /* n = 0, 1 */
#define VHDX_H_SIGNATURE   0                             /* "head" */
#define VHDX_H_CHECKSUM    4                             /* u32, CRC-32C of VHDX_H_LEN bytes */
#define VHDX_H_SEQUENCE    8                             /* u64 */
#define VHDX_H_LOG_GUID    48                            /* 16 bytes; 0 = the log is empty */
#define VHDX_H_LOG_VERSION 64                            /* u16, 0 */
#define VHDX_H_VERSION     66                            /* u16, 1 */
#define VHDX_H_LEN         4096

/* Region tables (§2.2.3): two copies. */
#define VHDX_R_OFFSET(n) ((UINT64_C(192) + 64 * (n)) * KIB)
#define VHDX_R_SIGNATURE 0 /* "regi" */
#define VHDX_R_CHECKSUM  4 /* u32, CRC-32C of VHDX_R_LEN bytes */
#define VHDX_R_COUNT     8 /* u32, at most VHDX_MAX_ENTRIES */
#define VHDX_R_ENTRIES   16
#define VHDX_R_LEN       65536
/* An entry, 32 bytes: GUID, then */
#define VHDX_RE_OFFSET   16 /* u64, in the file */
#define VHDX_RE_LENGTH   24 /* u32 */
#define VHDX_RE_REQUIRED 28 /* u32, bit 0 */

#define VHDX_REGION_BAT      "2dc27766-f623-4200-9d64-115e9bfd4a08"
#define VHDX_REGION_METADATA "8b7ca206-4790-4b9a-b8fe-575f050f886e"

/* The metadata table (§2.6.1), at the beginning of its region. */
#define VHDX_M_SIGNATURE 0  /* "metadata" */
#define VHDX_M_COUNT     10 /* u16, at most VHDX_MAX_ENTRIES */
#define VHDX_M_ENTRIES   32
#define VHDX_M_LEN       65536
/* An entry, 32 bytes: GUID, then */
#define VHDX_ME_OFFSET   16 /* u32, in the region */
#define VHDX_ME_LENGTH   20 /* u32 */
#define VHDX_ME_FLAGS    24 /* u32 */
#define VHDX_ME_REQUIRED BIT(2)

#define VHDX_ITEM_PARAMETERS  "caa16737-fa36-4d43-b3b6-33f0aa44e76b" /* u32 size, u32 flags */
#define VHDX_ITEM_DISK_SIZE   "2fa54224-cd1b-4876-b211-5dbed83bf4b8" /* u64 */
#define VHDX_ITEM_DISK_ID     "beca12ab-b2e6-4523-93ef-c309e000c746" /* 16 bytes */
#define VHDX_ITEM_SECTOR      "8141bf1d-a96f-4709-ba47-f233a8faab5f" /* u32 */
#define VHDX_ITEM_PHYS_SECTOR "cda348c7-445d-4471-9cc9-e9885251c556" /* u32 */
#define VHDX_ITEM_PARENT      "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"

#define VHDX_PARAM_LEAVE_ALLOCATED BIT(0) /* a "fixed" image */
#define VHDX_PARAM_HAS_PARENT      BIT(1)

#define VHDX_ENTRY_LEN   32
#define VHDX_MAX_ENTRIES 2047
#define VHDX_MAX_SIZE    (UINT64_C(64) << 40)

/* The block allocation table (§2.5), u64 entries. After each VHDX_CHUNK_SECTORS sectors' worth of
 * blocks there is one entry for a bitmap, which only images with a parent use. */
#define VHDX_CHUNK_SECTORS     (UINT64_C(1) << 23)
#define VHDX_BAT_STATE(entry)  ((unsigned)((entry)&7))
#define VHDX_BAT_MIB(entry)    ((entry) >> 20) /* where the block lies, in MiB */
#define VHDX_STATE_NOT_PRESENT 0
#define VHDX_STATE_UNDEFINED   1
#define VHDX_STATE_ZERO        2
#define VHDX_STATE_UNMAPPED    3
#define VHDX_STATE_PRESENT     6
#define VHDX_STATE_PARTIAL     7

#endif
