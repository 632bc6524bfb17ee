/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decompression of one cluster.
 *
 * The output is one cluster, never more, whatever the data say; the input is what the entry names,
 * at most two clusters. zlib clusters are raw deflate streams with a window of up to 4 KiB (QEMU
 * writes 12 bits; any window is accepted since 15 bits read all); zstd ones are one frame, whose
 * window, and so the memory, is limited. Specs: RFC 1951, RFC 8878.
 */
#include <errno.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "block/fmt_qcow2/qcow2_int.h"

static int qcow2_unpack_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in,
        .avail_in = (uInt)in_len,
        .next_out = out,
        .avail_out = (uInt)out_len,
    };
    if (inflateInit2(&z, -15) != Z_OK) {
        return -ENOMEM;
    }
    int rc = inflate(&z, Z_FINISH);
    bool whole = z.avail_out == 0 && (rc == Z_STREAM_END || rc == Z_BUF_ERROR || rc == Z_OK);
    (void)inflateEnd(&z);
    return whole ? 0 : -EIO;
}

static int qcow2_unpack_zstd(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    if (ctx == NULL) {
        return -ENOMEM;
    }
    ZSTD_inBuffer src = { .src = in, .size = in_len };
    ZSTD_outBuffer dst = { .dst = out, .size = out_len };
    size_t rc = ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, QCOW2_ZSTD_WINDOW_LOG);
    /* The input may go on after the frame (it is counted in sectors): stop when all is out. Each
     * round makes progress or ends. */
    while (!ZSTD_isError(rc) && dst.pos < dst.size) {
        size_t in_pos = src.pos;
        size_t out_pos = dst.pos;
        rc = ZSTD_decompressStream(ctx, &dst, &src);
        if (src.pos == in_pos && dst.pos == out_pos) {
            break;
        }
    }
    ZSTD_freeDCtx(ctx);
    return !ZSTD_isError(rc) && dst.pos == dst.size ? 0 : -EIO;
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry, void *out)
{
    uint64_t offset;
    uint64_t len;
    qcow2_map_compressed(q, entry, &offset, &len);
    if (offset == 0 || offset > QCOW2_MAX_HOST_OFFSET) {
        return -EIO;
    }
    CLEANUP_FREE uint8_t *in = malloc(len);
    if (in == NULL) {
        return -ENOMEM;
    }
    int rc = qcow2_io_read(q, offset, in, len);
    if (rc < 0) {
        return rc;
    }
    return q->hdr.compression == QCOW2_COMPRESSION_ZSTD
               ? qcow2_unpack_zstd(in, len, out, q->cluster_size)
               : qcow2_unpack_zlib(in, len, out, q->cluster_size);
}
