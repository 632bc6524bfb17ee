/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a disk bootable by BIOS and by UEFI: GRUB's two images, written where the partition table
 * (gpt.h) has room for them. Nothing is mounted; GRUB's modules are the Debian packages'
 * grub-pc-bin and grub-efi-amd64-bin.
 *
 * Both images read /boot/grub/grub.cfg of the file system with the given UUID.
 */
#ifndef IMAGE_GRUB_H
#define IMAGE_GRUB_H

#include "image/child.h"

struct grub_params {
    int fd;           /* the disk */
    const char *disk; /* its path */
    const char *dir;  /* a folder for what is made on the way */
    const char *root_uuid;
    uint32_t fat_id; /* serial number of the EFI system partition */
    int64_t epoch;   /* time of its files */
    const struct child_stop *stop;
};

/* -ENOENT names the package that is missing. */
MUST_USE int grub_install(const struct grub_params *p, struct err *err);

#endif
