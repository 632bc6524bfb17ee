/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/blk_iov.h"

struct digest {
    EVP_MD_CTX *ctx;
};

/* libcrypto fails here only without memory, which ends a process of this kind. */
static void digest_must(int ok)
{
    if (ok != 1) {
        abort();
    }
}

int digest_new(struct digest **ret_digest, struct err *err)
{
    struct digest *d = calloc(1, sizeof(*d));
    if (d == NULL || (d->ctx = EVP_MD_CTX_new()) == NULL ||
        EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1) {
        digest_free(d);
        return err_set(err, -ENOMEM, "out of memory");
    }
    *ret_digest = d;
    return 0;
}

void digest_add(struct digest *d, const void *data, size_t len)
{
    digest_must(EVP_DigestUpdate(d->ctx, data, len));
}

void digest_add_text(struct digest *d, const char *text)
{
    uint8_t len[8];
    le64_put(len, strlen(text));
    digest_add(d, len, sizeof(len));
    digest_add(d, text, strlen(text));
}

void digest_end(struct digest *d, uint8_t out[DIGEST_BYTES])
{
    digest_must(EVP_DigestFinal_ex(d->ctx, out, NULL));
    digest_must(EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL));
}

void digest_free(struct digest *d)
{
    if (d != NULL) {
        EVP_MD_CTX_free(d->ctx);
        free(d);
    }
}

void digest_hex(const uint8_t in[DIGEST_BYTES], char out[DIGEST_HEX + 1])
{
    for (unsigned i = 0; i < DIGEST_BYTES; i++) {
        (void)snprintf(out + (size_t)2 * i, 3, "%02x", in[i]);
    }
}

bool digest_is_hex(const char *text)
{
    return strspn(text, "0123456789abcdef") == DIGEST_HEX && text[DIGEST_HEX] == '\0';
}

int digest_file(const char *path, char out[DIGEST_HEX + 1], struct err *err)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot open '%s'", path);
    }
    struct digest *d = NULL;
    CLEANUP_FREE char *buf = malloc(DIGEST_BLOCK);
    int rc = buf == NULL ? err_set(err, -ENOMEM, "out of memory") : digest_new(&d, err);
    ssize_t n = rc < 0 ? 0 : 1;
    while (n > 0 && (n = read(fd, buf, DIGEST_BLOCK)) > 0) {
        digest_add(d, buf, (size_t)n);
    }
    if (rc == 0 && n < 0) {
        rc = err_set_errno(err, -errno, "cannot read '%s'", path);
    } else if (rc == 0) {
        uint8_t raw[DIGEST_BYTES];
        digest_end(d, raw);
        digest_hex(raw, out);
    }
    digest_free(d);
    return rc;
}

/* Moves on to the block with the next data; to the disk's size when there is none. */
static int digest_next(struct blk *blk, uint64_t *offset)
{
    if (*offset >= blk_size(blk)) {
        return 0;
    }
    struct blk_extent ext;
    int rc = blk_status(blk, *offset, blk_size(blk) - *offset, &ext);
    if (rc == 0 && ext.kind == BLK_EXTENT_ZERO) {
        uint64_t next = *offset + ext.len;
        *offset = next >= blk_size(blk) ? next : bits_align_down(next, DIGEST_BLOCK);
    }
    return rc;
}

static int digest_blocks(struct blk *blk, struct digest *d, char *buf,
                         int (*step)(void *opaque, uint64_t bytes, struct err *err), void *opaque,
                         struct err *err)
{
    uint64_t size = blk_size(blk);
    uint64_t done = 0;
    for (uint64_t at = 0;;) {
        int rc = digest_next(blk, &at);
        size_t len = at < size ? (size_t)MIN(size - at, (uint64_t)DIGEST_BLOCK) : 0;
        if (rc == 0 && len == 0) {
            return 0;
        }
        rc = rc < 0 ? rc : blk_pread(blk, at, buf, len);
        if (rc < 0) {
            return err_set_errno(err, rc, "reading the disk at offset %llu",
                                 (unsigned long long)at);
        }
        if (!blk_iov_buf_is_zero(buf, len)) {
            uint8_t number[8];
            le64_put(number, at / DIGEST_BLOCK);
            digest_add(d, number, sizeof(number));
            digest_add(d, buf, len);
        }
        at += len;
        done += len;
        rc = step != NULL ? step(opaque, done, err) : 0;
        if (rc < 0) {
            return rc;
        }
    }
}

int digest_disk(struct blk *blk, int (*step)(void *opaque, uint64_t bytes, struct err *err),
                void *opaque, char out[DIGEST_HEX + 1], struct err *err)
{
    CLEANUP_FREE char *buf = malloc(DIGEST_BLOCK);
    struct digest *d = NULL;
    int rc = buf == NULL ? err_set(err, -ENOMEM, "out of memory") : digest_new(&d, err);
    if (rc == 0) {
        uint8_t size[8];
        le64_put(size, blk_size(blk));
        digest_add(d, size, sizeof(size));
        rc = digest_blocks(blk, d, buf, step, opaque, err);
    }
    if (rc == 0) {
        uint8_t raw[DIGEST_BYTES];
        digest_end(d, raw);
        digest_hex(raw, out);
    }
    digest_free(d);
    return rc;
}

void digest_uuid(const uint8_t in[DIGEST_BYTES], const char *salt, char out[37])
{
    uint8_t b[DIGEST_BYTES];
    unsigned len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    digest_must(ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL));
    digest_must(EVP_DigestUpdate(ctx, in, DIGEST_BYTES));
    digest_must(EVP_DigestUpdate(ctx, salt, strlen(salt)));
    digest_must(EVP_DigestFinal_ex(ctx, b, &len));
    EVP_MD_CTX_free(ctx);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    (void)snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                   b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
                   b[13], b[14], b[15]);
}
