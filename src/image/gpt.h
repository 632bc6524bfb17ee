/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The partition table of an image: GPT with a protective MBR (UEFI 2.10 §5), for disks of 512-byte
 * sectors, the same bytes each time.
 *
 *     LBA 0        MBR: GRUB's first stage and the protective entry
 *     1            header;  2..33 128 entries
 *     2048         1: BIOS boot, 1 MiB, GRUB's second stage
 *     4096         2: EFI system partition, FAT, 28 MiB
 *     65536        3: the root, ext4, to the end
 *     last 33      entries and header again
 */
#ifndef IMAGE_GPT_H
#define IMAGE_GPT_H

#include "base/bits.h"
#include "base/err.h"

#define GPT_SECTOR     512
#define GPT_BIOS_START (2048 * UINT64_C(512))
#define GPT_BIOS_SIZE  (2048 * UINT64_C(512))
#define GPT_ESP_START  (4096 * UINT64_C(512))
#define GPT_ESP_SIZE   (57344 * UINT64_C(512))
#define GPT_ROOT_START (65536 * UINT64_C(512))
#define GPT_ROOT_PART  3
#define GPT_MIN_SIZE   (256 * MIB)

/* Bytes of the root partition of a disk of `size` bytes, a multiple of 4 KiB. */
uint64_t gpt_root_size(uint64_t size);

/* UUIDs in text, of the disk and of its three partitions. */
struct gpt_uuids {
    char disk[37];
    char part[3][37];
};

/* Writes both tables into `fd`, a file of `size` bytes (a multiple of 1 MiB). The first 440 bytes
 * of the MBR are not touched. */
MUST_USE int gpt_write(int fd, uint64_t size, const struct gpt_uuids *uuids, struct err *err);

/* Finds the first partition with an ext4 file system of the kinds that roots have, in a disk that
 * may be hostile: *ret_offset, bytes. -ENOENT. */
MUST_USE int gpt_find_linux(int fd, uint64_t *ret_offset, struct err *err);

#endif
