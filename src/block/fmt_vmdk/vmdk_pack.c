/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed grains: a marker with the grain's place on the disk and the length of the data, then a
 * zlib stream (RFC 1950). What comes out is one grain, never more; the grain that was unpacked last
 * is kept, since readers ask for it piece by piece.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "block/fmt_vmdk/vmdk_int.h"

/* Data that do not shrink grow a little; twice the grain is more than any compressor makes. */
static bool length_ok(const struct vmdk *v, uint32_t len)
{
    return len > 0 && len <= 2 * vmdk_grain_bytes(v);
}

static int unpack(const struct blk *blk, const uint8_t *in, uint32_t len, uint64_t block,
                  uint8_t *out)
{
    const struct vmdk *v = blk->state;
    uint64_t start = block * vmdk_grain_bytes(v);
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in,
        .avail_in = len,
        .next_out = out,
        .avail_out = vmdk_grain_bytes(v),
    };
    if (inflateInit(&z) != Z_OK) {
        return -ENOMEM;
    }
    int rc = inflate(&z, Z_FINISH);
    uint64_t got = z.total_out;
    (void)inflateEnd(&z);
    /* The last grain may end with the disk. */
    uint64_t need = MIN((uint64_t)vmdk_grain_bytes(v), blk->size - start);
    bool whole = rc == Z_STREAM_END || (rc == Z_BUF_ERROR && got == vmdk_grain_bytes(v));
    if (!whole || got < need) {
        return -EIO;
    }
    memset(out + got, 0, vmdk_grain_bytes(v) - got);
    return 0;
}

/* Fills v->packed. The lock is held. */
static int load(struct blk *blk, uint64_t block)
{
    struct vmdk *v = vmdk_of(blk);
    uint8_t head[VMDK_M_DATA];
    uint64_t at = blk_place_offset(&v->place, v->place.table[block]);
    if (v->packed_block == block) {
        return 0;
    }
    v->packed_block = UINT64_MAX;
    if (v->packed == NULL) {
        v->packed = malloc(vmdk_grain_bytes(v));
    }
    int rc = v->packed == NULL ? -ENOMEM : blk_pread(blk->file, at, head, sizeof(head));
    if (rc < 0) {
        return rc;
    }
    uint32_t len = le32_get(head + VMDK_M_SIZE);
    if (!length_ok(v, len) || le64_get(head + VMDK_M_VALUE) != block * v->hdr.grain) {
        return -EIO;
    }
    CLEANUP_FREE uint8_t *in = malloc(len);
    if (in == NULL) {
        return -ENOMEM;
    }
    rc = blk_pread(blk->file, at + VMDK_M_DATA, in, len);
    if (rc == 0) {
        rc = unpack(blk, in, len, block, v->packed);
    }
    if (rc == 0) {
        v->packed_block = block;
    }
    return rc;
}

int vmdk_pack_read(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                   uint64_t len)
{
    struct vmdk *v = vmdk_of(blk);
    uint64_t block = offset / vmdk_grain_bytes(v);
    pthread_mutex_lock(&v->pack_lock);
    int rc = load(blk, block);
    if (rc == 0) {
        blk_iov_from_buf(iov, niov, 0, v->packed + offset % vmdk_grain_bytes(v), len);
    }
    pthread_mutex_unlock(&v->pack_lock);
    return rc;
}
