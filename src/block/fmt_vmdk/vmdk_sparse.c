/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sparse extent: a directory of grain tables, whose entries are read into the table of
 * blk_place.c. Checked here: the directory and each table lie inside of the file, no two tables
 * overlap; so the work of opening is bounded by the file's size and by BLK_PLACE_MAX_BLOCKS.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/fmt_vmdk/vmdk_int.h"

/* The header. */

static int check_numbers(const uint8_t *head, struct err *err)
{
    uint32_t version = le32_get(head + VMDK_H_VERSION);
    uint64_t capacity = le64_get(head + VMDK_H_CAPACITY);
    uint64_t grain = le64_get(head + VMDK_H_GRAIN);
    if (version < 1 || version > 3) {
        return blk_place_bad(err, "version", version, "1 to 3");
    }
    if (capacity == 0 || capacity > BLK_MAX_SIZE / VMDK_SECTOR) {
        return blk_place_bad(err, "capacity", capacity, "1 to 2^53 sectors");
    }
    if (!bits_is_pow2(grain) || grain < VMDK_GRAIN_MIN || grain > VMDK_GRAIN_MAX) {
        return blk_place_bad(err, "grainSize", grain, "powers of two, 8 to 4096 sectors");
    }
    if (le32_get(head + VMDK_H_GT_ENTRIES) != VMDK_GT_ENTRIES) {
        return blk_place_bad(err, "numGTEsPerGT", le32_get(head + VMDK_H_GT_ENTRIES), "512");
    }
    return 0;
}

static int check_flags(const uint8_t *head, struct err *err)
{
    uint32_t flags = le32_get(head + VMDK_H_FLAGS);
    bool packed = (flags & VMDK_FLAG_COMPRESSED) != 0;
    if ((flags & VMDK_FLAG_NEWLINES) != 0 &&
        memcmp(head + VMDK_H_NEWLINES, VMDK_NEWLINES, VMDK_NEWLINES_LEN) != 0) {
        return err_set(err, -EINVAL,
                       "the file was spoilt by a transfer as text (its line ends were changed)");
    }
    if (packed && le16_get(head + VMDK_H_COMPRESSION) != VMDK_DEFLATE) {
        return blk_place_bad(err, "compressAlgorithm", le16_get(head + VMDK_H_COMPRESSION),
                             "1 (deflate)");
    }
    if (packed != ((flags & VMDK_FLAG_MARKERS) != 0)) {
        return blk_place_bad(err, "flags", flags, "compressed grains and markers together");
    }
    return 0;
}

static int parse_header(const uint8_t *head, struct vmdk_header *h, struct err *err)
{
    if (le32_get(head + VMDK_H_MAGIC) != VMDK_MAGIC) {
        return err_set(err, -EINVAL, "this is no %s image: its mark is missing", "VMDK");
    }
    int rc = check_numbers(head, err);
    if (rc == 0) {
        rc = check_flags(head, err);
    }
    if (rc < 0) {
        return rc;
    }
    *h = (struct vmdk_header){
        .flags = le32_get(head + VMDK_H_FLAGS),
        .capacity = le64_get(head + VMDK_H_CAPACITY),
        .grain = (uint32_t)le64_get(head + VMDK_H_GRAIN),
        .desc_offset = le64_get(head + VMDK_H_DESC_OFFSET),
        .desc_size = le64_get(head + VMDK_H_DESC_SIZE),
        .gd_offset = le64_get(head + VMDK_H_GD_OFFSET),
        .rgd_offset = le64_get(head + VMDK_H_RGD_OFFSET),
        .overhead = le64_get(head + VMDK_H_OVERHEAD),
    };
    return 0;
}

/* Where the directory stands at the end: footer marker, footer, end marker, a sector each. */
static int read_footer(struct blk *blk, uint8_t *head, struct err *err)
{
    uint8_t tail[3 * VMDK_SECTOR];
    uint64_t size = blk->file->size;
    if (size < sizeof(tail) + VMDK_SECTOR) {
        return err_set(err, -EINVAL, "the footer is missing or damaged, the file may be cut short");
    }
    int rc = blk_pread(blk->file, size - sizeof(tail), tail, sizeof(tail));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    const uint8_t *end = tail + 2 * VMDK_SECTOR;
    if (le32_get(tail + VMDK_M_SIZE) != 0 || le32_get(tail + VMDK_M_TYPE) != VMDK_MARKER_FOOTER ||
        le32_get(tail + VMDK_SECTOR) != VMDK_MAGIC || le32_get(end + VMDK_M_SIZE) != 0 ||
        le32_get(end + VMDK_M_TYPE) != VMDK_MARKER_END) {
        return err_set(err, -EINVAL, "the footer is missing or damaged, the file may be cut short");
    }
    memcpy(head, tail + VMDK_SECTOR, VMDK_SECTOR);
    return 0;
}

/* An embedded descriptor, for the parent above all. */
static int read_descriptor(struct blk *blk, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    if (v->hdr.desc_offset == 0 || v->hdr.desc_size == 0) {
        return 0;
    }
    if (v->hdr.desc_size > VMDK_DESC_MAX / VMDK_SECTOR) {
        return blk_place_bad(err, "descriptorSize", v->hdr.desc_size, "up to 256 sectors");
    }
    size_t len = v->hdr.desc_size * VMDK_SECTOR;
    if (v->hdr.desc_offset > blk->file->size / VMDK_SECTOR ||
        v->hdr.desc_offset * VMDK_SECTOR + len > blk->file->size) {
        return blk_place_bad(err, "descriptorOffset", v->hdr.desc_offset, "inside of the file");
    }
    CLEANUP_FREE char *text = malloc(len);
    if (text == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = blk_pread(blk->file, v->hdr.desc_offset * VMDK_SECTOR, text, len);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the descriptor");
    }
    return vmdk_desc_parse(text, len, false, &v->desc, err);
}

/* The tables. */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int check_directory(const struct blk *blk, const uint32_t *gd, uint64_t n, struct err *err)
{
    uint64_t sectors = blk->file->size / VMDK_SECTOR;
    CLEANUP_FREE uint32_t *sorted = calloc(n, sizeof(*sorted));
    if (sorted == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    uint64_t used = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (gd[i] != 0) {
            sorted[used++] = gd[i];
        }
        if (gd[i] != 0 && gd[i] + (uint64_t)VMDK_GT_SECTORS > sectors) {
            return err_set(err, -EINVAL,
                           "grain table %" PRIu64 " is said to lie at sector %u; the file has "
                           "%" PRIu64,
                           i, gd[i], sectors);
        }
    }
    qsort(sorted, used, sizeof(*sorted), compare_u32);
    for (uint64_t i = 1; i < used; i++) {
        if (sorted[i] - sorted[i - 1] < VMDK_GT_SECTORS) {
            return err_set(err, -EINVAL, "grain tables overlap in the file, at sectors %u and %u",
                           sorted[i - 1], sorted[i]);
        }
    }
    return 0;
}

/* Reads the directory at `offset` (sectors) into an allocated array. */
static int read_directory(struct blk *blk, const char *field, uint64_t offset, uint32_t **ret_gd,
                          struct err *err)
{
    const struct vmdk *v = blk->state;
    uint64_t n = vmdk_tables(v);
    uint64_t sectors = blk->file->size / VMDK_SECTOR;
    if (offset == 0 || offset > sectors || n * 4 > (sectors - offset) * VMDK_SECTOR) {
        return blk_place_bad(err, field, offset, "the directory inside of the file");
    }
    uint32_t *gd = calloc(n, sizeof(*gd));
    if (gd == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    *ret_gd = gd;
    int rc = blk_pread(blk->file, offset * VMDK_SECTOR, gd, n * sizeof(*gd));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the table of blocks");
    }
    for (uint64_t i = 0; i < n; i++) {
        gd[i] = le32_get(&gd[i]);
    }
    return check_directory(blk, gd, n, err);
}

static uint32_t entry_of(const struct vmdk *v, uint32_t sector)
{
    if (sector == 0) {
        return BLK_PLACE_NONE;
    }
    if (sector == 1 && (v->hdr.flags & VMDK_FLAG_ZERO_GRAIN) != 0) {
        return BLK_PLACE_ZERO;
    }
    /* The last but one number cannot be told from others here, and is out of range. */
    return MIN(sector, UINT32_MAX - 2) + BLK_PLACE_FIRST;
}

static int read_tables(struct blk *blk, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    for (uint64_t t = 0; t < vmdk_tables(v); t++) {
        uint8_t raw[VMDK_GT_ENTRIES * 4];
        if (v->gd[t] == 0) {
            continue;
        }
        int rc = blk_pread(blk->file, (uint64_t)v->gd[t] * VMDK_SECTOR, raw, sizeof(raw));
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot read the table of blocks");
        }
        uint64_t first = t * VMDK_GT_ENTRIES;
        uint64_t n = MIN(v->place.nblocks - first, (uint64_t)VMDK_GT_ENTRIES);
        for (uint64_t k = 0; k < n; k++) {
            if (le32_get(raw + k * 4) != 0) { /* a table of zeroes costs no memory */
                v->place.table[first + k] = entry_of(v, le32_get(raw + k * 4));
            }
        }
    }
    return 0;
}

/* Both copies of a grain table. */
static int store(struct blk *blk, uint64_t first, uint32_t n)
{
    const struct vmdk *v = blk->state;
    uint8_t raw[VMDK_GT_ENTRIES * 4] = { 0 };
    uint64_t t = first / VMDK_GT_ENTRIES;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t entry = v->place.table[first + k];
        le32_put(raw + (size_t)k * 4, entry < BLK_PLACE_FIRST ? 0 : entry - BLK_PLACE_FIRST);
    }
    int rc = blk_pwrite(blk->file, (uint64_t)v->gd[t] * VMDK_SECTOR, raw, sizeof(raw));
    if (rc == 0) {
        rc = blk_pwrite(blk->file, (uint64_t)v->rgd[t] * VMDK_SECTOR, raw, sizeof(raw));
    }
    return rc;
}

static int prepare_packed(struct blk *blk, uint64_t block, bool write, bool wait)
{
    (void)blk;
    (void)block;
    (void)write;
    (void)wait;
    return 1;
}

static const struct blk_place_ops plain_ops = { .store = store };
static const struct blk_place_ops packed_ops = {
    .prepare = prepare_packed,
    .read_odd = vmdk_pack_read,
};

static int load(struct blk *blk, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    bool packed = (v->hdr.flags & VMDK_FLAG_COMPRESSED) != 0;
    uint64_t low = blk->read_only ? VMDK_SECTOR : v->hdr.overhead * VMDK_SECTOR;
    int rc = read_directory(blk, "gdOffset", v->hdr.gd_offset, &v->gd, err);
    if (rc == 0) {
        rc = read_tables(blk, err);
    }
    if (rc == 0) {
        rc = blk_place_check_table(blk, low, MAX(low, (uint64_t)blk->file->size),
                                   packed ? VMDK_SECTOR : 0, err);
    }
    if (rc == 0 && !blk->read_only) { /* our own, made a moment ago: it has both copies */
        rc = read_directory(blk, "rgdOffset", v->hdr.rgd_offset, &v->rgd, err);
    }
    return rc;
}

int vmdk_sparse_open(struct blk *blk, const uint8_t *head, bool extent, struct err *err)
{
    struct vmdk *v = vmdk_of(blk);
    uint8_t footer[VMDK_SECTOR];
    int rc = parse_header(head, &v->hdr, err);
    bool streaming = false;
    if (rc == 0 && v->hdr.gd_offset == VMDK_GD_AT_END) {
        streaming = !blk->read_only;
        if (!streaming) {
            rc = read_footer(blk, footer, err);
            if (rc == 0) {
                rc = parse_header(footer, &v->hdr, err);
            }
        }
    }
    if (rc == 0 && !extent) {
        rc = read_descriptor(blk, err);
    }
    if (rc < 0) {
        return rc;
    }
    blk->size = v->hdr.capacity * VMDK_SECTOR;
    v->place.ops = (v->hdr.flags & VMDK_FLAG_COMPRESSED) != 0 ? &packed_ops : &plain_ops;
    v->place.unit = VMDK_SECTOR;
    v->place.align = vmdk_grain_bytes(v);
    rc = blk_place_make_table(blk, (unsigned)__builtin_ctz(vmdk_grain_bytes(v)), err);
    if (rc < 0) {
        return rc;
    }
    return streaming ? vmdk_stream_begin(blk, err) : load(blk, err);
}
