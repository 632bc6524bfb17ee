/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The on-disk format of VMDK: VMware, "Virtual Disk Format 5.0" (1.1, December 2011). Numbers are
 * little-endian and named by their byte offsets; places are in sectors of 512 bytes.
 */
#ifndef SPEC_VMDK_DISK_H
#define SPEC_VMDK_DISK_H

#define VMDK_SECTOR 512

/* The header of a hosted sparse extent, one sector. */
#define VMDK_H_MAGIC       0  /* u32 */
#define VMDK_H_VERSION     4  /* u32 */
#define VMDK_H_FLAGS       8  /* u32, VMDK_FLAG_* */
#define VMDK_H_CAPACITY    12 /* u64, sectors of the disk */
#define VMDK_H_GRAIN       20 /* u64, sectors of a grain */
#define VMDK_H_DESC_OFFSET 28 /* u64; 0 = no embedded descriptor */
#define VMDK_H_DESC_SIZE   36 /* u64 */
#define VMDK_H_GT_ENTRIES  44 /* u32, entries of a grain table */
#define VMDK_H_RGD_OFFSET  48 /* u64, the redundant grain directory */
#define VMDK_H_GD_OFFSET   56 /* u64, the grain directory, or VMDK_GD_AT_END */
#define VMDK_H_OVERHEAD    64 /* u64, sectors before the grains */
#define VMDK_H_UNCLEAN     72 /* u8 */
#define VMDK_H_NEWLINES    73 /* 4 bytes, spoilt by a transfer as text */
#define VMDK_H_COMPRESSION 77 /* u16 */
#define VMDK_H_LEN         512

#define VMDK_MAGIC        0x564d444bU /* "KDMV" */
#define VMDK_MAGIC_ESX    0x44574f43U /* "COWD" */
#define VMDK_GD_AT_END    UINT64_MAX
#define VMDK_GT_ENTRIES   512
#define VMDK_GT_SECTORS   4
#define VMDK_NEWLINES     "\n \r\n"
#define VMDK_NEWLINES_LEN 4
#define VMDK_DEFLATE      1

#define VMDK_FLAG_NEWLINES   BIT(0)
#define VMDK_FLAG_REDUNDANT  BIT(1)
#define VMDK_FLAG_ZERO_GRAIN BIT(2) /* grain table entry 1: reads as zeroes */
#define VMDK_FLAG_COMPRESSED BIT(16)
#define VMDK_FLAG_MARKERS    BIT(17)

/* A marker of a stream-optimised extent, one sector. That of a grain is only a head: the compressed
 * data begin where others have the type. */
#define VMDK_M_VALUE 0  /* u64, sectors of what follows; of a grain: its sector of the disk */
#define VMDK_M_SIZE  8  /* u32, 0; of a grain: bytes of data */
#define VMDK_M_TYPE  12 /* u32, VMDK_MARKER_* */
#define VMDK_M_DATA  12

#define VMDK_MARKER_END    0
#define VMDK_MARKER_TABLE  1
#define VMDK_MARKER_DIR    2
#define VMDK_MARKER_FOOTER 3

#endif
