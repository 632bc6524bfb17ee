/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The on-disk format of VDI, VirtualBox's disk images, version 1.1.
 *
 * There is no published specification; the fields are as in VirtualBox's documentation and forum
 * article "All about VDIs" (t=8046), and as qemu-img 7.2 writes and accepts them. All numbers are
 * little-endian and named by their byte offsets.
 */
#ifndef SPEC_VDI_DISK_H
#define SPEC_VDI_DISK_H

#define VDI_TEXT      "<<< Oracle VM VirtualBox Disk Image >>>\n"
#define VDI_SIGNATURE 0xbeda107fU
#define VDI_VERSION   0x00010001U

#define VDI_H_TEXT         0x000 /* 64 bytes, for people */
#define VDI_H_SIGNATURE    0x040 /* u32 */
#define VDI_H_VERSION      0x044 /* u32 */
#define VDI_H_LENGTH       0x048 /* u32, from here to the header's end */
#define VDI_H_TYPE         0x04c /* u32, VDI_TYPE_* */
#define VDI_H_FLAGS        0x050 /* u32 */
#define VDI_H_DESCRIPTION  0x054 /* 256 bytes */
#define VDI_H_MAP_OFFSET   0x154 /* u32 */
#define VDI_H_DATA_OFFSET  0x158 /* u32 */
#define VDI_H_SECTOR_SIZE  0x168 /* u32 */
#define VDI_H_DISK_SIZE    0x170 /* u64 */
#define VDI_H_BLOCK_SIZE   0x178 /* u32 */
#define VDI_H_BLOCK_EXTRA  0x17c /* u32, bytes before each block */
#define VDI_H_BLOCKS       0x180 /* u32, entries of the map */
#define VDI_H_ALLOCATED    0x184 /* u32, blocks in the file */
#define VDI_H_UUID         0x188 /* 16 bytes, the first three fields little-endian */
#define VDI_H_UUID_SNAP    0x198 /* 16 bytes, changes with the content */
#define VDI_H_UUID_LINK    0x1a8 /* 16 bytes, of the parent, else 0 */
#define VDI_H_UUID_PARENT  0x1b8 /* 16 bytes */
#define VDI_H_SIZE         512   /* up to the first byte that may be the map */
#define VDI_H_LENGTH_VALUE 0x190

#define VDI_TYPE_DYNAMIC 1
#define VDI_TYPE_STATIC  2

/* Entries of the map, u32: the number of a block in the file, or */
#define VDI_MAP_NONE 0xffffffffU
#define VDI_MAP_ZERO 0xfffffffeU

#endif
