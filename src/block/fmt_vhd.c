/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHD, fixed and dynamic (spec/vhd_disk.h, docs/block/vhd.md); vhd_create.c makes new ones.
 *
 *      fixed     | disk ............................ | footer |
 *      dynamic   | footer copy | header | table | bitmap, block | bitmap, block | ... | footer |
 *
 * A new block overwrites the footer at the end, which the next flush writes anew behind it; after a
 * crash in between the copy at the beginning serves.
 *
 * A block's bitmap tells which sectors were ever written; the others read as zeroes whatever lies
 * there. Most writers set all bits, so that is looked up once for each block (`full`); a block with
 * bits clear is read with the bitmap, and made full before it is written.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/blk_param.h"
#include "block/blk_place.h"
#include "block/vhd_create.h"
#include "spec/vhd_disk.h"

#define SECTOR    512
#define BLOCK_MIN (64 * KIB)
#define BLOCK_MAX (256 * MIB)

enum { UNKNOWN, FULL, PARTIAL };

struct vhd {
    struct blk_place place;
    uint64_t bat_offset;
    uint64_t footer_offset;
    _Atomic uint8_t *full; /* for each block, of dynamic images */
    uint8_t footer[VHD_F_LEN];
    uint8_t head[VHD_D_LEN];
};

/* The footer, and the dynamic header. */

static bool footer_good(const uint8_t *footer)
{
    return memcmp(footer + VHD_F_COOKIE, "conectix", VHD_COOKIE_LEN) == 0 &&
           be32_get(footer + VHD_F_CHECKSUM) ==
               vhd_create_checksum(footer, VHD_F_LEN, VHD_F_CHECKSUM);
}

/* The end's footer counts; the copy serves when that one is damaged. */
static int read_footer(struct blk *blk, struct err *err)
{
    struct vhd *v = blk->state;
    uint64_t size = blk->file->size;
    if (size < VHD_F_LEN) {
        return err_set(err, -EINVAL, "this is no %s image: its mark is missing", "VHD");
    }
    v->footer_offset = bits_align_down(size, SECTOR) - VHD_F_LEN;
    int rc = blk_pread(blk->file, v->footer_offset, v->footer, VHD_F_LEN);
    if (rc == 0 && footer_good(v->footer)) {
        return 0;
    }
    v->footer_offset = bits_align_up(size, SECTOR);
    v->place.any_dirty = true; /* a writer puts a new one there */
    if (rc == 0) {
        rc = blk_pread(blk->file, 0, v->footer, VHD_F_LEN);
    }
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    if (memcmp(v->footer + VHD_F_COOKIE, "conectix", VHD_COOKIE_LEN) != 0) {
        return err_set(err, -EINVAL, "this is no %s image: its mark is missing", "VHD");
    }
    if (!footer_good(v->footer) || be32_get(v->footer + VHD_F_TYPE) != VHD_TYPE_DYNAMIC) {
        return err_set(err, -EINVAL, "the footer is missing or damaged, the file may be cut short");
    }
    return 0;
}

static int check_footer(const struct vhd *v, struct err *err)
{
    uint32_t type = be32_get(v->footer + VHD_F_TYPE);
    uint64_t size = be64_get(v->footer + VHD_F_SIZE);
    if (be32_get(v->footer + VHD_F_VERSION) >> 16 != VHD_VERSION >> 16) {
        return blk_place_bad(err, "version", be32_get(v->footer + VHD_F_VERSION), "65536 (1.0)");
    }
    if (type == VHD_TYPE_DIFF) {
        return err_set(err, -ENOTSUP,
                       "the image is a difference to another one (type %u); such images are not "
                       "supported, merge them with the program that made them",
                       type);
    }
    if (type != VHD_TYPE_FIXED && type != VHD_TYPE_DYNAMIC) {
        return blk_place_bad(err, "disk type", type, "2 (fixed), 3 (dynamic)");
    }
    if (size == 0 || size % SECTOR != 0 || size > VHD_MAX_SIZE) {
        return blk_place_bad(err, "current size", size, "multiples of 512, up to 2040 GiB");
    }
    return 0;
}

static int check_dynamic(const struct blk *blk, struct err *err)
{
    const struct vhd *v = blk->state;
    uint32_t block_size = be32_get(v->head + VHD_D_BLOCK_SIZE);
    uint64_t entries = be32_get(v->head + VHD_D_ENTRIES);
    uint64_t head_end = be64_get(v->footer + VHD_F_DATA_OFFSET) + VHD_D_LEN;
    if (memcmp(v->head + VHD_D_COOKIE, "cxsparse", VHD_COOKIE_LEN) != 0 ||
        be32_get(v->head + VHD_D_CHECKSUM) !=
            vhd_create_checksum(v->head, VHD_D_LEN, VHD_D_CHECKSUM)) {
        return err_set(err, -EINVAL, "the dynamic header is missing or damaged");
    }
    if (!bits_is_pow2(block_size) || block_size < BLOCK_MIN || block_size > BLOCK_MAX) {
        return blk_place_bad(err, "block size", block_size, "powers of two, 64K to 256M");
    }
    if (entries * block_size < blk->size) {
        return blk_place_bad(err, "max table entries", entries, "enough for the current size");
    }
    if (v->bat_offset % SECTOR != 0 || v->bat_offset < head_end ||
        v->bat_offset > v->footer_offset || entries * 4 > v->footer_offset - v->bat_offset) {
        return blk_place_bad(err, "table offset", v->bat_offset,
                             "multiples of 512 behind the dynamic header, the table inside of the "
                             "file");
    }
    return 0;
}

static int read_dynamic(struct blk *blk, struct err *err)
{
    struct vhd *v = blk->state;
    uint64_t at = be64_get(v->footer + VHD_F_DATA_OFFSET);
    if (at < VHD_F_LEN || at % SECTOR != 0 || at > blk->file->size ||
        blk->file->size - at < VHD_D_LEN) {
        return blk_place_bad(err, "data offset", at, "multiples of 512 inside of the file");
    }
    int rc = blk_pread(blk->file, at, v->head, sizeof(v->head));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    v->bat_offset = be64_get(v->head + VHD_D_BAT_OFFSET);
    return check_dynamic(blk, err);
}

/* The table of blocks. */

static int read_bat(struct blk *blk, struct err *err)
{
    const struct vhd *v = blk->state;
    uint8_t raw[BLK_PLACE_CHUNK * 8];
    for (uint64_t i = 0; i < v->place.nblocks;) {
        size_t n = MIN(v->place.nblocks - i, sizeof(raw) / 4);
        int rc = blk_pread(blk->file, v->bat_offset + i * 4, raw, n * 4);
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot read the table of blocks");
        }
        for (size_t k = 0; k < n; k++, i++) {
            uint32_t entry = be32_get(raw + k * 4);
            /* The last but one number cannot be told from "none" here, and is out of range. */
            v->place.table[i] = entry == VHD_BAT_NONE
                                    ? BLK_PLACE_NONE
                                    : MIN(entry, UINT32_MAX - 2) + BLK_PLACE_FIRST;
        }
    }
    return 0;
}

static int store(struct blk *blk, uint64_t first, uint32_t n)
{
    const struct vhd *v = blk->state;
    uint8_t raw[BLK_PLACE_CHUNK * 4];
    for (uint32_t k = 0; k < n; k++) {
        uint32_t entry = v->place.table[first + k];
        be32_put(raw + (size_t)k * 4,
                 entry == BLK_PLACE_NONE ? VHD_BAT_NONE : entry - BLK_PLACE_FIRST);
    }
    return blk_pwrite(blk->file, v->bat_offset + first * 4, raw, (size_t)n * 4);
}

static int finish(struct blk *blk)
{
    struct vhd *v = blk->state;
    v->footer_offset = MAX(bits_align_up(v->place.end, SECTOR), v->footer_offset);
    return blk_pwrite(blk->file, v->footer_offset, v->footer, VHD_F_LEN);
}

/* The bitmaps. */

static uint8_t *read_bitmap(struct blk *blk, uint64_t block, uint64_t *ret_at)
{
    const struct vhd *v = blk->state;
    uint8_t *bitmap = malloc(v->place.head);
    *ret_at = blk_place_offset(&v->place, v->place.table[block]);
    if (bitmap != NULL && blk_pread(blk->file, *ret_at, bitmap, v->place.head) < 0) {
        free(bitmap);
        bitmap = NULL;
    }
    return bitmap;
}

/* Bit 7 of the first byte is sector 0. */
static bool has_sector(const uint8_t *bitmap, uint64_t sector)
{
    return (bitmap[sector / 8] & 0x80 >> sector % 8) != 0;
}

/* Writes zeroes where no sector was written, then sets all bits. */
static int make_full(struct blk *blk, const uint8_t *bitmap, uint64_t at)
{
    const struct vhd *v = blk->state;
    uint64_t sectors = (UINT64_C(1) << v->place.block_bits) / SECTOR;
    uint64_t data = at + v->place.head;
    for (uint64_t s = 0; s < sectors;) {
        uint64_t end = s;
        while (end < sectors && has_sector(bitmap, end) == has_sector(bitmap, s)) {
            end++;
        }
        if (!has_sector(bitmap, s)) {
            int rc = blk_write_zeroes(blk->file, data + s * SECTOR, (end - s) * SECTOR, true);
            if (rc < 0) {
                return rc;
            }
        }
        s = end;
    }
    int rc = blk_flush(blk->file); /* no bit may be there before its sector */
    CLEANUP_FREE uint8_t *ones = malloc(v->place.head);
    if (rc < 0 || ones == NULL) {
        return rc < 0 ? rc : -ENOMEM;
    }
    memset(ones, 0xff, v->place.head);
    return blk_pwrite(blk->file, at, ones, v->place.head);
}

/* The lock is held. */
static int look(struct blk *blk, uint64_t block, bool write)
{
    struct vhd *v = blk->state;
    uint64_t at;
    CLEANUP_FREE uint8_t *bitmap = read_bitmap(blk, block, &at);
    if (bitmap == NULL) {
        return -EIO;
    }
    uint64_t sectors = (UINT64_C(1) << v->place.block_bits) / SECTOR;
    uint64_t s = 0;
    while (s < sectors && has_sector(bitmap, s)) {
        s++;
    }
    if (s < sectors && write) {
        int rc = make_full(blk, bitmap, at);
        if (rc < 0) {
            return rc;
        }
        s = sectors;
    }
    v->full[block] = s == sectors ? FULL : PARTIAL;
    return s == sectors ? 0 : 1;
}

static int prepare(struct blk *blk, uint64_t block, bool write, bool wait)
{
    struct vhd *v = blk->state;
    uint8_t known = v->full[block];
    if (known == FULL) {
        return 0;
    }
    if (!wait) {
        return -EAGAIN;
    }
    if (known == PARTIAL && !write) {
        return 1;
    }
    pthread_mutex_lock(&v->place.lock);
    int rc = v->full[block] == FULL ? 0 : look(blk, block, write);
    pthread_mutex_unlock(&v->place.lock);
    return rc;
}

static int read_odd(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                    uint64_t len)
{
    const struct vhd *v = blk->state;
    uint64_t inside = offset & ((UINT64_C(1) << v->place.block_bits) - 1);
    uint64_t at;
    CLEANUP_FREE uint8_t *bitmap = read_bitmap(blk, offset >> v->place.block_bits, &at);
    if (bitmap == NULL) {
        return -EIO;
    }
    int rc = blk_preadv(blk->file, at + v->place.head + inside, iov, niov);
    uint64_t part;
    for (uint64_t done = 0; done < len && rc == 0; done += part) {
        uint64_t pos = inside + done;
        part = MIN(SECTOR - pos % SECTOR, len - done);
        if (!has_sector(bitmap, pos / SECTOR)) {
            blk_iov_zero(iov, niov, done, part);
        }
    }
    return rc;
}

static const struct blk_place_ops fixed_ops = { 0 };
static const struct blk_place_ops dynamic_ops = {
    .prepare = prepare,
    .read_odd = read_odd,
    .store = store,
    .finish = finish,
};

static int open_dynamic(struct blk *blk, struct err *err)
{
    struct vhd *v = blk->state;
    int rc = read_dynamic(blk, err);
    if (rc < 0) {
        return rc;
    }
    struct blk_place *p = &v->place;
    unsigned bits = (unsigned)__builtin_ctz(be32_get(v->head + VHD_D_BLOCK_SIZE));
    p->unit = SECTOR;
    p->head = (uint32_t)bits_align_up((UINT64_C(1) << bits) / SECTOR / 8, SECTOR);
    p->head_fill = 0xff;
    p->align = VHD_CREATE_ALIGN;
    rc = blk_place_make_table(blk, bits, err);
    if (rc < 0) {
        return rc;
    }
    v->full = calloc(MAX(p->nblocks, UINT64_C(1)), sizeof(*v->full));
    if (v->full == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    rc = read_bat(blk, err);
    if (rc < 0) {
        return rc;
    }
    uint64_t low = bits_align_up(v->bat_offset + p->nblocks * 4, SECTOR);
    return blk_place_check_table(blk, low, v->footer_offset, 0, err);
}

static int vhd_open(struct blk *blk, const struct blk_opts *opts, const char *arg, struct err *err)
{
    struct vhd *v = blk->state;
    (void)arg;
    blk_place_init(&v->place, &dynamic_ops);
    int rc = blk_refuse_snapshot(blk, opts, err);
    if (rc == 0) {
        rc = read_footer(blk, err);
    }
    if (rc == 0) {
        rc = check_footer(v, err);
    }
    if (rc < 0) {
        return rc;
    }
    blk->size = be64_get(v->footer + VHD_F_SIZE);
    if (be32_get(v->footer + VHD_F_TYPE) == VHD_TYPE_DYNAMIC) {
        return open_dynamic(blk, err);
    }
    v->place.ops = &fixed_ops;
    v->place.linear = true;
    if (blk->size > v->footer_offset) {
        return blk_place_bad(err, "current size", blk->size, "what the file has before the footer");
    }
    return 0;
}

static int vhd_close(struct blk *blk)
{
    struct vhd *v = blk->state;
    blk_place_done(&v->place);
    free(v->full);
    return 0;
}

static int vhd_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err)
{
    const struct vhd *v = blk->state;
    char uuid[37];
    (void)err;
    blk_param_uuid_text(v->footer + VHD_F_UUID, uuid);
    const struct blk_info_item items[] = {
        {.key = "subformat",
         .type = BLK_INFO_STRING,
         .string = v->place.linear ? "fixed" : "dynamic"                             },
        { .key = "uuid",        .type = BLK_INFO_STRING, .string = uuid              },
        { .key = "block_size",
         .type = BLK_INFO_BYTES,
         .number = UINT64_C(1) << v->place.block_bits                                },
        { .key = "blocks_used", .type = BLK_INFO_NUMBER, .number = v->place.allocated},
    };
    for (size_t i = 0; i < (v->place.linear ? 2 : ARRAY_LEN(items)); i++) {
        fn(opaque, &items[i]);
    }
    return 0;
}

const struct blk_class fmt_vhd_class = {
    .name = "vhd",
    .help = "Microsoft's disk images of Virtual PC and older Hyper-V",
    .suffix = ".vhd",
    .kind = BLK_KIND_FORMAT,
    .state_size = sizeof(struct vhd),
    .open = vhd_open,
    .close = vhd_close,
    .preadv = blk_place_preadv,
    .pwritev = blk_place_pwritev,
    .flush = blk_place_flush,
    .discard = blk_place_discard,
    .write_zeroes = blk_place_write_zeroes,
    .status = blk_place_status,
    .map = blk_place_map,
    .create = vhd_create,
    .info = vhd_info,
    .check = blk_place_check,
};
