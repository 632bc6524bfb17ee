/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of OVA archives: ova_tar.c the archive, ova_ovf.c the descriptor, ova_digest.c hashes,
 * ova.c and ova_export.c what others see. */
#ifndef BLOCK_OVA_OVA_INT_H
#define BLOCK_OVA_OVA_INT_H

#include "block/blk_int.h"
#include "block/ova/ova.h"

#define OVA_BLOCK       512
#define OVA_MAX_MEMBERS 64        /* disks, ISO images, and the three others */
#define OVA_MAX_HEADERS 256       /* with those that only carry a name or a size */
#define OVA_NAME_MAX    256       /* of a member, with the end */
#define OVA_TEXT_MAX    (1 * MIB) /* descriptor, manifest: those of large machines have 100 KiB */
#define OVA_XML_DEPTH   64
#define OVA_MAX_FILES   64 /* that a descriptor names */

struct ova_member {
    char name[OVA_NAME_MAX];
    uint64_t offset, size; /* of the content, bytes */
};

struct ova_tar {
    unsigned count;
    struct ova_member members[OVA_MAX_MEMBERS];
};

/* Reads all headers of the archive `file`. Only plain files are allowed, no name twice. */
MUST_USE int ova_tar_read(struct blk *file, struct ova_tar *tar, struct err *err);
const struct ova_member *ova_tar_find(const struct ova_tar *tar, const char *name);
/* A member's header, 512 bytes; `name` has at most 100 bytes. */
void ova_tar_header(uint8_t header[static OVA_BLOCK], const char *name, uint64_t size);

/* Fills `info` from the descriptor. File names are those in the descriptor, unchecked. */
MUST_USE int ova_ovf_parse(const char *text, size_t len, struct ova_info *info, struct err *err);
void ova_ovf_done(struct ova_info *info);

/* The longest digest in hexadecimal, with the end: SHA-512. */
#define OVA_DIGEST_MAX 129

/* The digest of a part of `file` by the algorithm "SHA1", "SHA256" or "SHA512". *done and `total`
 * are for opts->progress; -EINTR when that says so. */
MUST_USE int ova_digest(struct blk *file, uint64_t offset, uint64_t len, const char *algorithm,
                        char ret_hex[static OVA_DIGEST_MAX], const struct blk_convert_opts *opts,
                        uint64_t *done, uint64_t total, struct err *err);

#endif
