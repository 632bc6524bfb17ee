/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHDX, read (spec/vhdx_disk.h, docs/block/vhdx.md). Sections are those of [MS-VHDX] 8.0.
 *
 *      | mark | headers | region tables | log | metadata | table of blocks | blocks ... |
 *
 * An image whose log has entries was not closed properly: it is refused, since its metadata are not
 * what they should be before the log is replayed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/blk_param.h"
#include "block/blk_place.h"
#include "spec/vhdx_disk.h"

struct region {
    uint64_t offset, length;
};

struct vhdx {
    struct blk_place place;
    struct region bat, metadata;
    uint32_t block_size;
    uint32_t params; /* VHDX_PARAM_* */
    uint32_t sector;
    uint64_t size;
};

/* CRC-32C (RFC 3720 §12.1), with the four bytes at `field` taken as zeroes. */
static uint32_t crc32c(const uint8_t *data, size_t len, size_t field)
{
    uint32_t table[256];
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; i < ARRAY_LEN(table); i++) {
        table[i] = i;
        for (unsigned bit = 0; bit < 8; bit++) {
            table[i] = table[i] >> 1 ^ ((table[i] & 1) != 0 ? UINT32_C(0x82f63b78) : 0U);
        }
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = i >= field && i < field + 4 ? 0 : data[i];
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xff];
    }
    return ~crc;
}

static bool is_guid(const uint8_t *p, const char *text)
{
    uint8_t guid[BLK_PARAM_UUID_LEN];
    char own[37];
    memcpy(guid, p, sizeof(guid));
    blk_param_uuid_swap(guid);
    blk_param_uuid_text(guid, own);
    return strcmp(own, text) == 0;
}

/* Reads `len` bytes at `offset` and checks signature and checksum; false when it is not good. */
static int read_structure(struct blk *blk, uint64_t offset, const char *signature, uint8_t *buf,
                          size_t len, bool *ret_good)
{
    int rc = blk_pread(blk->file, offset, buf, len);
    *ret_good =
        rc == 0 && memcmp(buf, signature, 4) == 0 && le32_get(buf + 4) == crc32c(buf, len, 4);
    return rc;
}

static int check_header(struct blk *blk, struct err *err)
{
    uint8_t heads[2][VHDX_H_LEN];
    bool good[2];
    int rc = 0;
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        rc = read_structure(blk, VHDX_H_OFFSET(i), "head", heads[i], VHDX_H_LEN, &good[i]);
    }
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    if (!good[0] && !good[1]) {
        return err_set(err, -EINVAL, "both headers are damaged");
    }
    const uint8_t *head = heads[!good[0] || (good[1] && le64_get(heads[1] + VHDX_H_SEQUENCE) >
                                                            le64_get(heads[0] + VHDX_H_SEQUENCE))];
    if (le16_get(head + VHDX_H_VERSION) != 1 || le16_get(head + VHDX_H_LOG_VERSION) != 0) {
        return blk_place_bad(err, "version", le16_get(head + VHDX_H_VERSION),
                             "1, with log version 0");
    }
    if (!blk_iov_buf_is_zero(head + VHDX_H_LOG_GUID, BLK_PARAM_UUID_LEN)) {
        return err_set(err, -ENOTSUP,
                       "the image was not closed properly, its log has to be replayed; let Windows "
                       "attach it once, or use 'qemu-img check -r all'");
    }
    return 0;
}

/* Regions and metadata are lists of the same make: `count` entries of 32 bytes. */

static int take_region(struct blk *blk, const uint8_t *entry, struct err *err)
{
    struct vhdx *v = blk->state;
    struct region r = { .offset = le64_get(entry + VHDX_RE_OFFSET),
                        .length = le32_get(entry + VHDX_RE_LENGTH) };
    bool bat = is_guid(entry, VHDX_REGION_BAT);
    if (!bat && !is_guid(entry, VHDX_REGION_METADATA)) {
        return (le32_get(entry + VHDX_RE_REQUIRED) & 1) == 0
                   ? 0
                   : err_set(err, -ENOTSUP, "the image needs a feature that is not supported");
    }
    if (r.offset % MIB != 0 || r.offset < MIB || r.offset > blk->file->size ||
        r.length > blk->file->size - r.offset) {
        return blk_place_bad(err, bat ? "table offset" : "metadata offset", r.offset,
                             "multiples of 1 MiB, the region inside of the file");
    }
    struct region *into = bat ? &v->bat : &v->metadata;
    if (into->length != 0) {
        return err_set(err, -EINVAL, "a region is there twice");
    }
    *into = r;
    return 0;
}

static int read_regions(struct blk *blk, struct err *err)
{
    const struct vhdx *v = blk->state;
    CLEANUP_FREE uint8_t *table = malloc(VHDX_R_LEN);
    bool good = false;
    int rc = table == NULL ? -ENOMEM : 0;
    for (unsigned i = 0; i < 2 && rc == 0 && !good; i++) {
        rc = read_structure(blk, VHDX_R_OFFSET(i), "regi", table, VHDX_R_LEN, &good);
    }
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    uint32_t count = good ? le32_get(table + VHDX_R_COUNT) : 0;
    if (!good || count > VHDX_MAX_ENTRIES) {
        return err_set(err, -EINVAL, "both region tables are damaged");
    }
    for (uint32_t i = 0; i < count; i++) {
        rc = take_region(blk, table + VHDX_R_ENTRIES + (size_t)i * VHDX_ENTRY_LEN, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (v->bat.length == 0 || v->metadata.length < VHDX_M_LEN) {
        return err_set(err, -EINVAL, "a region that is needed is missing");
    }
    return 0;
}

static int take_item(struct blk *blk, const uint8_t *entry, struct err *err)
{
    struct vhdx *v = blk->state;
    uint64_t offset = le32_get(entry + VHDX_ME_OFFSET);
    uint32_t length = le32_get(entry + VHDX_ME_LENGTH);
    uint8_t value[16] = { 0 };
    if (offset + length > v->metadata.length) {
        return blk_place_bad(err, "metadata item offset", offset, "inside of the region");
    }
    int rc = blk_pread(blk->file, v->metadata.offset + offset, value, MIN(length, 16U));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    if (is_guid(entry, VHDX_ITEM_PARAMETERS)) {
        v->block_size = le32_get(value);
        v->params = le32_get(value + 4);
    } else if (is_guid(entry, VHDX_ITEM_DISK_SIZE)) {
        v->size = le64_get(value);
    } else if (is_guid(entry, VHDX_ITEM_SECTOR)) {
        v->sector = le32_get(value);
    } else if (is_guid(entry, VHDX_ITEM_PARENT)) {
        v->params |= VHDX_PARAM_HAS_PARENT;
    } else if (!is_guid(entry, VHDX_ITEM_DISK_ID) && !is_guid(entry, VHDX_ITEM_PHYS_SECTOR) &&
               (le32_get(entry + VHDX_ME_FLAGS) & VHDX_ME_REQUIRED) != 0) {
        return err_set(err, -ENOTSUP, "the image needs a feature that is not supported");
    }
    return 0;
}

static int read_metadata(struct blk *blk, struct err *err)
{
    struct vhdx *v = blk->state;
    CLEANUP_FREE uint8_t *table = malloc(VHDX_M_LEN);
    int rc = table == NULL ? -ENOMEM : blk_pread(blk->file, v->metadata.offset, table, VHDX_M_LEN);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    unsigned count = le16_get(table + VHDX_M_COUNT);
    if (memcmp(table, "metadata", 8) != 0 || count > VHDX_MAX_ENTRIES) {
        return err_set(err, -EINVAL, "the metadata table is damaged");
    }
    for (unsigned i = 0; i < count; i++) {
        rc = take_item(blk, table + VHDX_M_ENTRIES + (size_t)i * VHDX_ENTRY_LEN, err);
        if (rc < 0) {
            return rc;
        }
    }
    if ((v->params & VHDX_PARAM_HAS_PARENT) != 0) {
        return err_set(err, -ENOTSUP,
                       "the image is a difference to another one; such images are not supported, "
                       "merge them with the program that made them");
    }
    if (!bits_is_pow2(v->block_size) || v->block_size < MIB || v->block_size > 256 * MIB) {
        return blk_place_bad(err, "block size", v->block_size, "powers of two, 1M to 256M");
    }
    if (v->sector != 512 && v->sector != 4096) {
        return blk_place_bad(err, "logical sector size", v->sector, "512, 4096");
    }
    if (v->size == 0 || v->size % v->sector != 0 || v->size > VHDX_MAX_SIZE) {
        return blk_place_bad(err, "virtual disk size", v->size,
                             "multiples of the sector size, up to 64T");
    }
    return 0;
}

/* The table. */

static int take_entry(struct vhdx *v, uint64_t block, uint64_t entry, struct err *err)
{
    uint64_t at = VHDX_BAT_MIB(entry);
    switch (VHDX_BAT_STATE(entry)) {
    case VHDX_STATE_NOT_PRESENT:
    case VHDX_STATE_UNDEFINED:
    case VHDX_STATE_ZERO:
    case VHDX_STATE_UNMAPPED:
        return 0;
    case VHDX_STATE_PRESENT:
        /* What does not fit lies far outside of any file. */
        v->place.table[block] = (uint32_t)MIN(at, (uint64_t)UINT32_MAX - 2) + BLK_PLACE_FIRST;
        return 0;
    default:
        return err_set(err, -EINVAL,
                       "block %" PRIu64 " of the disk has the state %u; allowed: 0 to 3, 6", block,
                       VHDX_BAT_STATE(entry));
    }
}

static int read_bat(struct blk *blk, struct err *err)
{
    struct vhdx *v = blk->state;
    uint64_t ratio = VHDX_CHUNK_SECTORS * v->sector / v->block_size;
    uint64_t last = v->place.nblocks - 1;
    uint8_t raw[4096];
    if ((last + last / ratio + 1) * 8 > v->bat.length) {
        return blk_place_bad(err, "table length", v->bat.length, "enough for the disk size");
    }
    uint64_t have = UINT64_MAX; /* which part of the table is in `raw` */
    for (uint64_t i = 0; i <= last; i++) {
        uint64_t at = (i + i / ratio) * 8;
        if (at / sizeof(raw) != have) {
            have = at / sizeof(raw);
            int rc = blk_pread(blk->file, v->bat.offset + have * sizeof(raw), raw, sizeof(raw));
            if (rc < 0) {
                return err_set_errno(err, rc, "cannot read the table of blocks");
            }
        }
        int rc = take_entry(v, i, le64_get(raw + at % sizeof(raw)), err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static const struct blk_place_ops ops = { 0 };

static int vhdx_open(struct blk *blk, const struct blk_opts *opts, const char *arg, struct err *err)
{
    struct vhdx *v = blk->state;
    uint8_t mark[8];
    (void)arg;
    blk_place_init(&v->place, &ops);
    int rc = blk_refuse_snapshot(blk, opts, err);
    if (rc < 0) {
        return rc;
    }
    if (!blk->read_only) {
        return err_set(err, -EROFS,
                       "VHDX images are only read; open it read-only, or convert it to qcow2 to "
                       "write to it");
    }
    rc = blk_pread(blk->file, 0, mark, sizeof(mark));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    if (memcmp(mark, VHDX_SIGNATURE, sizeof(mark)) != 0) {
        return err_set(err, -EINVAL, "this is no %s image: its mark is missing", "VHDX");
    }
    rc = check_header(blk, err);
    if (rc == 0) {
        rc = read_regions(blk, err);
    }
    if (rc == 0) {
        rc = read_metadata(blk, err);
    }
    if (rc < 0) {
        return rc;
    }
    blk->size = v->size;
    v->place.unit = MIB;
    rc = blk_place_make_table(blk, (unsigned)__builtin_ctz(v->block_size), err);
    if (rc == 0) {
        rc = read_bat(blk, err);
    }
    return rc < 0 ? rc
                  : blk_place_check_table(blk, MIB, MAX(MIB, (uint64_t)blk->file->size), 0, err);
}

static int vhdx_close(struct blk *blk)
{
    struct vhdx *v = blk->state;
    blk_place_done(&v->place);
    return 0;
}

static int vhdx_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err)
{
    const struct vhdx *v = blk->state;
    (void)err;
    struct blk_info_item item = { .key = "subformat", .type = BLK_INFO_STRING };
    item.string = (v->params & VHDX_PARAM_LEAVE_ALLOCATED) != 0 ? "fixed" : "dynamic";
    fn(opaque, &item);
    item = (struct blk_info_item){ .key = "block_size", .type = BLK_INFO_BYTES };
    item.number = v->block_size;
    fn(opaque, &item);
    item = (struct blk_info_item){ .key = "blocks_used", .type = BLK_INFO_NUMBER };
    item.number = v->place.allocated;
    fn(opaque, &item);
    item = (struct blk_info_item){ .key = "sector_size", .type = BLK_INFO_BYTES };
    item.number = v->sector;
    fn(opaque, &item);
    return 0;
}

/* For the class: a node of it is never writable. */
static int no_write(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                    uint64_t len)
{
    (void)blk;
    (void)offset;
    (void)iov;
    (void)niov;
    (void)len;
    return -EROFS;
}

const struct blk_class fmt_vhdx_class = {
    .name = "vhdx",
    .help = "Microsoft's disk images of Hyper-V",
    .suffix = ".vhdx",
    .kind = BLK_KIND_FORMAT,
    .state_size = sizeof(struct vhdx),
    .open = vhdx_open,
    .close = vhdx_close,
    .preadv = blk_place_preadv,
    .pwritev = no_write,
    .flush = blk_place_flush,
    .status = blk_place_status,
    .map = blk_place_map,
    .info = vhdx_info,
    .check = blk_place_check,
};
