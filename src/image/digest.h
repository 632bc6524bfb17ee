/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SHA-256 (FIPS 180-4), by libcrypto: of bytes, files and disks.
 *
 * A disk's digest depends on what the disk holds, not on how a format stores it: it is taken over
 * the virtual size and, in order, each 64 KiB block that is not all zero with its number in front
 * (both as 8 bytes, little-endian). So a sparse disk is read where it has data, and a disk exported
 * as VMDK and imported again has the digest that it had.
 */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

#include "block/blk.h"

#define DIGEST_BYTES 32
#define DIGEST_HEX   (2 * DIGEST_BYTES) /* characters, without the end */
#define DIGEST_BLOCK 65536

struct digest;

MUST_USE int digest_new(struct digest **ret_digest, struct err *err);
void digest_add(struct digest *d, const void *data, size_t len);
/* The text and its length, so that "ab","c" differs from "a","bc". */
void digest_add_text(struct digest *d, const char *text);
/* The digest of what was added. The object is empty afterwards. */
void digest_end(struct digest *d, uint8_t out[DIGEST_BYTES]);
void digest_free(struct digest *d); /* accepts NULL */

/* Lower-case hex. */
void digest_hex(const uint8_t in[DIGEST_BYTES], char out[DIGEST_HEX + 1]);
/* True for 64 lower-case hex digits. */
bool digest_is_hex(const char *text);

MUST_USE int digest_file(const char *path, char out[DIGEST_HEX + 1], struct err *err);
/* `step` (may be NULL) is told the bytes read so far; it ends the work by a negative errno with
 * `err` filled. */
MUST_USE int digest_disk(struct blk *blk,
                         int (*step)(void *opaque, uint64_t bytes, struct err *err), void *opaque,
                         char out[DIGEST_HEX + 1], struct err *err);

/* A version 4 style UUID (RFC 4122 §4.4) from a digest, in text; `salt` tells those apart that one
 * digest gives. */
void digest_uuid(const uint8_t in[DIGEST_BYTES], const char *salt, char out[37]);

#endif
