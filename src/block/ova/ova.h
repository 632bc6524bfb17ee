/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * OVA archives: a virtual machine in one file, for exchange with other systems (docs/block/ova.md).
 *
 *     NAME.ova, a tar archive (POSIX ustar)
 *       NAME.ovf           what the machine is: processors, memory, disks (XML)
 *       NAME-disk1.vmdk    a disk, stream-optimised VMDK
 *       NAME.mf            SHA-256 of the others
 *
 * An archive is hostile input. It is read in place: nothing is unpacked, no file beside it is
 * opened, and of what is in it only the descriptor, the manifest and the files that the descriptor
 * names.
 *
 *     struct ova *ova;
 *     rc = ova_open("a.ova", &ova, &err);
 *     rc = ova_verify(ova, &(struct blk_convert_opts){ 0 }, &err);
 *     rc = ova_disk_open(ova, 0, &blk, &err);      then blk_convert_from(blk, ...), blk_close(blk)
 *     ova_close(ova);
 *
 * Specs: OVF Specification DSP0243 1.1.1 (and 2.1.1 as far as said below), POSIX.1-2017 pax "ustar
 * Interchange Format". One thread at a time for each archive; functions may block.
 */
#ifndef BLOCK_OVA_OVA_H
#define BLOCK_OVA_OVA_H

#include "block/blk_convert.h"

#define OVA_MAX_DISKS 16

struct ova_disk {
    char *file;        /* its name in the archive */
    uint64_t capacity; /* bytes, as the descriptor says; 0 = it does not */
};

/* What the descriptor says. Texts may hold anything but control characters. */
struct ova_info {
    char *name;      /* of the machine; "" = it does not say */
    uint64_t cpus;   /* 0 = it does not say */
    uint64_t memory; /* bytes; 0 = it does not say */
    unsigned ndisks; /* 0 to OVA_MAX_DISKS, in the order of the descriptor */
    struct ova_disk disks[OVA_MAX_DISKS];
};

struct ova;

/* Opens the archive for reading and reads its descriptor and manifest. -EINVAL: it is no OVA, or it
 * breaks a limit; the text names the member, the value and the limit. */
MUST_USE int ova_open(const char *path, struct ova **ret_ova, struct err *err);
/* Accepts NULL. No disk of it may be open any more. */
void ova_close(struct ova *ova);
/* Valid until ova_close(). */
const struct ova_info *ova_info(const struct ova *ova);

/* Compares the members with the manifest's hashes. 0 also without a manifest, since that is
 * optional; *ret_checked says how many members were compared. -EILSEQ: one differs. */
MUST_USE int ova_verify(struct ova *ova, const struct blk_convert_opts *opts, unsigned *ret_checked,
                        struct err *err);

/* Opens disk `index` (below ndisks) as a read-only disk, until blk_close(). */
MUST_USE int ova_disk_open(struct ova *ova, unsigned index, struct blk **ret_blk, struct err *err);

/* ova_open(), ova_verify(), and one disk into a new image `dst` (dst->size 0: the disk's). */
MUST_USE int ova_import(const char *path, unsigned disk, const struct blk_create_opts *dst,
                        const struct blk_convert_opts *opts, struct err *err);

struct ova_export_opts {
    const char *path;
    bool force;       /* replace an existing file */
    const char *name; /* of the machine; letters, digits, "-", "_", ".": also names the members */
    uint64_t cpus;    /* at least 1 */
    uint64_t memory;  /* bytes, a multiple of 1 MiB */
    bool efi;         /* the machine starts by UEFI firmware */
    unsigned ndisks;  /* 1 to OVA_MAX_DISKS */
    struct blk *const *disks; /* open disks, read only; they stay open */
};

/* Writes an archive, under a temporary name until it is complete. The same disks and options give
 * the same bytes. opts->progress counts the bytes of all disks together. */
MUST_USE int ova_export(const struct ova_export_opts *export, const struct blk_convert_opts *opts,
                        struct err *err);

#endif
