/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stream-optimised image while it is written.
 *
 *      | header, descriptor | grain | grain | ... | table | grain | ... | table | directory |
 * footer |
 *                            `-----------------------------' `--- tail -------------------------'
 *
 * Grains are compressed and appended, so writes go from the disk's beginning to its end: the
 * present grain is collected in memory, and goes to the file when a later one is written. A table
 * follows its grains. A flush writes the tail behind what is there, so that the image is complete;
 * more grains overwrite it. Writing before the present grain is -ESPIPE, reading -ENOTSUP.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "block/fmt_vmdk/vmdk_int.h"

struct vmdk_stream {
    uint64_t pos;   /* where the next grain or table goes, bytes */
    uint64_t block; /* the present grain ... */
    bool open;      /* ... may still be written */
    bool dirty;     /* there is more than the last flush has written */
    uint64_t table; /* of the grain written last; UINT64_MAX: none */
    uint8_t *grain;
    uint8_t *out; /* marker, compressed data, padding */
    size_t out_size;
};

int vmdk_stream_begin(struct blk *blk, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    struct vmdk_stream *s = calloc(1, sizeof(*s));
    v->stream = s;
    v->gd = calloc(vmdk_tables(v), sizeof(*v->gd));
    if (s != NULL) {
        s->out_size = bits_align_up(VMDK_M_DATA + compressBound(vmdk_grain_bytes(v)), VMDK_SECTOR);
        s->grain = calloc(1, vmdk_grain_bytes(v));
        s->out = malloc(s->out_size);
    }
    if (s == NULL || v->gd == NULL || s->grain == NULL || s->out == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    s->pos = v->hdr.overhead * VMDK_SECTOR;
    s->table = UINT64_MAX;
    s->dirty = true;
    s->open = true;
    return 0;
}

void vmdk_stream_free(struct vmdk_stream *s)
{
    if (s != NULL) {
        free(s->grain);
        free(s->out);
        free(s);
    }
}

/* A marker and what it announces, `len` bytes of whole sectors, at *pos; moves it on. */
static int put_marked(struct blk *blk, uint64_t *pos, uint32_t type, const uint8_t *data,
                      size_t len)
{
    uint8_t marker[VMDK_SECTOR] = { 0 };
    le64_put(marker + VMDK_M_VALUE, len / VMDK_SECTOR);
    le32_put(marker + VMDK_M_TYPE, type);
    int rc = blk_pwrite(blk->file, *pos, marker, sizeof(marker));
    if (rc == 0) {
        rc = blk_pwrite(blk->file, *pos + VMDK_SECTOR, data, len);
    }
    *pos += VMDK_SECTOR + len;
    return rc;
}

/* The table of the grain that was written last, at *pos; its place goes into the directory. */
static int put_table(struct blk *blk, uint64_t *pos)
{
    struct vmdk *v = vmdk_of(blk);
    uint8_t raw[VMDK_GT_ENTRIES * 4] = { 0 };
    uint64_t t = v->stream->table;
    if (t == UINT64_MAX) {
        return 0;
    }
    uint64_t first = t * VMDK_GT_ENTRIES;
    for (uint64_t k = 0; k < VMDK_GT_ENTRIES && first + k < v->place.nblocks; k++) {
        uint32_t entry = v->place.table[first + k];
        le32_put(raw + k * 4, entry < BLK_PLACE_FIRST ? 0 : entry - BLK_PLACE_FIRST);
    }
    if (*pos / VMDK_SECTOR + 1 > UINT32_MAX) {
        return -EFBIG;
    }
    v->gd[t] = (uint32_t)(*pos / VMDK_SECTOR + 1);
    return put_marked(blk, pos, VMDK_MARKER_TABLE, raw, sizeof(raw));
}

static int pack(struct vmdk *v, size_t *ret_len)
{
    struct vmdk_stream *s = v->stream;
    uLongf len = s->out_size - VMDK_M_DATA;
    if (compress2(s->out + VMDK_M_DATA, &len, s->grain, vmdk_grain_bytes(v),
                  Z_DEFAULT_COMPRESSION) != Z_OK) {
        return -ENOMEM; /* the room is enough for anything */
    }
    le64_put(s->out + VMDK_M_VALUE, s->block * v->hdr.grain);
    le32_put(s->out + VMDK_M_SIZE, (uint32_t)len);
    *ret_len = bits_align_up(VMDK_M_DATA + len, VMDK_SECTOR);
    memset(s->out + VMDK_M_DATA + len, 0, *ret_len - VMDK_M_DATA - len);
    return 0;
}

/* The present grain goes to the file, unless it is all zero. */
static int end_grain(struct blk *blk)
{
    struct vmdk *v = vmdk_of(blk);
    struct vmdk_stream *s = v->stream;
    size_t len = 0;
    int rc = 0;
    if (!s->open || blk_iov_buf_is_zero(s->grain, vmdk_grain_bytes(v))) {
        s->open = false;
        return 0;
    }
    uint64_t table = s->block / VMDK_GT_ENTRIES;
    if (s->table != table) {
        rc = put_table(blk, &s->pos);
        s->table = rc == 0 ? table : s->table;
    }
    if (rc == 0) {
        rc = pack(v, &len);
    }
    uint64_t entry = s->pos / VMDK_SECTOR + BLK_PLACE_FIRST;
    if (rc == 0 && entry > UINT32_MAX - 1) {
        rc = -EFBIG;
    }
    if (rc == 0) {
        rc = blk_pwrite(blk->file, s->pos, s->out, len);
    }
    if (rc < 0) {
        return rc;
    }
    v->place.table[s->block] = (uint32_t)entry;
    v->place.allocated++;
    s->pos += len;
    s->open = false;
    s->dirty = true;
    memset(s->grain, 0, vmdk_grain_bytes(v));
    return 0;
}

/* The lock is held. */
static int put(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov, uint64_t len)
{
    struct vmdk *v = vmdk_of(blk);
    struct vmdk_stream *s = v->stream;
    uint64_t size = vmdk_grain_bytes(v);
    for (uint64_t done = 0; done < len;) {
        uint64_t at = offset + done;
        uint64_t block = at / size;
        size_t part = MIN(len - done, size - at % size);
        if (block < s->block || (block == s->block && !s->open)) {
            return -ESPIPE;
        }
        if (block != s->block) {
            int rc = end_grain(blk);
            if (rc < 0) {
                return rc;
            }
            s->block = block;
            s->open = true;
        }
        blk_iov_to_buf(iov, niov, done, s->grain + at % size, part);
        done += part;
    }
    return 0;
}

int vmdk_stream_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                        uint64_t len)
{
    struct vmdk *v = vmdk_of(blk);
    pthread_mutex_lock(&v->place.lock);
    int rc = put(blk, offset, iov, niov, len);
    pthread_mutex_unlock(&v->place.lock);
    return rc;
}

/* Directory, footer (the header with the directory's place), end. */
static int put_tail(struct blk *blk, uint64_t pos)
{
    struct vmdk *v = vmdk_of(blk);
    uint8_t head[VMDK_SECTOR];
    const uint8_t end[VMDK_SECTOR] = { 0 };
    size_t len = bits_align_up(vmdk_tables(v) * 4, VMDK_SECTOR);
    CLEANUP_FREE uint8_t *raw = calloc(1, len);
    int rc = raw == NULL ? -ENOMEM : blk_pread(blk->file, 0, head, sizeof(head));
    if (rc < 0) {
        return rc;
    }
    for (uint64_t t = 0; t < vmdk_tables(v); t++) {
        le32_put(raw + t * 4, v->gd[t]);
    }
    le64_put(head + VMDK_H_GD_OFFSET, pos / VMDK_SECTOR + 1);
    rc = put_marked(blk, &pos, VMDK_MARKER_DIR, raw, len);
    if (rc == 0) {
        rc = put_marked(blk, &pos, VMDK_MARKER_FOOTER, head, sizeof(head));
    }
    return rc < 0 ? rc : blk_pwrite(blk->file, pos, end, sizeof(end));
}

int vmdk_stream_flush(struct blk *blk)
{
    struct vmdk *v = vmdk_of(blk);
    struct vmdk_stream *s = v->stream;
    pthread_mutex_lock(&v->place.lock);
    int rc = end_grain(blk);
    uint64_t pos = s->pos;
    if (rc == 0 && s->dirty) {
        rc = put_table(blk, &pos);
        if (rc == 0) {
            rc = put_tail(blk, pos);
        }
        s->dirty = rc < 0;
    }
    if (rc == 0) {
        rc = blk_flush(blk->file);
    }
    pthread_mutex_unlock(&v->place.lock);
    return rc;
}
