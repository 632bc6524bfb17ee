/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/ova/ova_int.h"

#define CHUNK MIB

static const EVP_MD *find(const char *algorithm)
{
    return strcmp(algorithm, "SHA256") == 0   ? EVP_sha256()
           : strcmp(algorithm, "SHA1") == 0   ? EVP_sha1()
           : strcmp(algorithm, "SHA512") == 0 ? EVP_sha512()
                                              : NULL;
}

static int feed(EVP_MD_CTX *ctx, struct blk *file, uint64_t offset, uint64_t len,
                const struct blk_convert_opts *opts, uint64_t *done, uint64_t total,
                struct err *err)
{
    CLEANUP_FREE uint8_t *buf = malloc(CHUNK);
    if (buf == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    while (len > 0) {
        size_t n = MIN(len, CHUNK);
        int rc = blk_pread(file, offset, buf, n);
        if (rc < 0) {
            return err_set_errno(err, rc, "archive: reading at offset %" PRIu64, offset);
        }
        if (EVP_DigestUpdate(ctx, buf, n) != 1) {
            return err_set(err, -EIO, "libcrypto fails");
        }
        offset += n;
        len -= n;
        *done += n;
        if (opts->progress != NULL && !opts->progress(opts->opaque, *done, total)) {
            return err_set(err, -EINTR, "interrupted");
        }
    }
    return 0;
}

int ova_digest(struct blk *file, uint64_t offset, uint64_t len, const char *algorithm,
               char ret_hex[static OVA_DIGEST_MAX], const struct blk_convert_opts *opts,
               uint64_t *done, uint64_t total, struct err *err)
{
    const EVP_MD *md = find(algorithm);
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (md == NULL) {
        return err_set(err, -ENOTSUP,
                       "manifest: hashes by '%s' are not supported (there are: SHA1, SHA256, "
                       "SHA512)",
                       algorithm);
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int rc = 0;
    if (ctx == NULL || EVP_DigestInit_ex(ctx, md, NULL) != 1) {
        rc = err_set(err, -EIO, "libcrypto fails");
    } else {
        rc = feed(ctx, file, offset, len, opts, done, total, err);
    }
    if (rc == 0 && EVP_DigestFinal_ex(ctx, sum, &n) != 1) {
        rc = err_set(err, -EIO, "libcrypto fails");
    }
    EVP_MD_CTX_free(ctx);
    for (unsigned i = 0; rc == 0 && i < n; i++) {
        (void)snprintf(ret_hex + 2 * (size_t)i, 3, "%02x", sum[i]);
    }
    return rc;
}
