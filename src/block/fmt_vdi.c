/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VDI, VirtualBox's disk images: a header, a map, blocks (spec/vdi_disk.h, docs/block/vdi.md).
 * Dynamic and static images are read and written alike; those with a parent are refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/blk_param.h"
#include "block/blk_place.h"
#include "spec/vdi_disk.h"

#define BLOCK_SIZE MIB /* of images that are made here: the only one that QEMU reads */
#define BLOCK_MIN  (4 * KIB)
#define BLOCK_MAX  (256 * MIB)
#define SECTOR     512

struct vdi {
    struct blk_place place;
    uint64_t map_offset;
    uint8_t head[VDI_H_SIZE];
};

static uint32_t field(const struct vdi *v, unsigned offset)
{
    return le32_get(v->head + offset);
}

static int check_kind(const struct vdi *v, struct err *err)
{
    static const uint8_t no_uuid[BLK_PARAM_UUID_LEN];
    uint32_t type = field(v, VDI_H_TYPE);
    if (field(v, VDI_H_SIGNATURE) != VDI_SIGNATURE) {
        return err_set(err, -EINVAL, "this is no %s image: its mark is missing", "VDI");
    }
    if (field(v, VDI_H_VERSION) != VDI_VERSION) {
        return blk_place_bad(err, "version", field(v, VDI_H_VERSION), "65537 (1.1)");
    }
    if ((type != VDI_TYPE_DYNAMIC && type != VDI_TYPE_STATIC) ||
        memcmp(v->head + VDI_H_UUID_LINK, no_uuid, sizeof(no_uuid)) != 0) {
        return err_set(err, -ENOTSUP,
                       "the image is a difference to another one (type %u); such images are not "
                       "supported, merge them with the program that made them",
                       type);
    }
    return 0;
}

static int check_sizes(const struct vdi *v, uint64_t file_size, struct err *err)
{
    uint64_t size = le64_get(v->head + VDI_H_DISK_SIZE);
    uint32_t block_size = field(v, VDI_H_BLOCK_SIZE);
    uint64_t map = field(v, VDI_H_MAP_OFFSET);
    uint64_t data = field(v, VDI_H_DATA_OFFSET);
    uint64_t blocks = field(v, VDI_H_BLOCKS);
    if (!bits_is_pow2(block_size) || block_size < BLOCK_MIN || block_size > BLOCK_MAX) {
        return blk_place_bad(err, "block size", block_size, "powers of two, 4K to 256M");
    }
    if (field(v, VDI_H_SECTOR_SIZE) != SECTOR) {
        return blk_place_bad(err, "sector size", field(v, VDI_H_SECTOR_SIZE), "512");
    }
    if (field(v, VDI_H_BLOCK_EXTRA) != 0) {
        return blk_place_bad(err, "block extra", field(v, VDI_H_BLOCK_EXTRA), "0");
    }
    if (size == 0 || size % SECTOR != 0 || size > blocks * block_size) {
        return blk_place_bad(err, "disk size", size,
                             "multiples of 512, up to blocks in image x block size");
    }
    if (map < VDI_H_SIZE || map % SECTOR != 0 || map + blocks * 4 > file_size) {
        return blk_place_bad(err, "map offset", map,
                             "multiples of 512 behind the header, the map inside of the file");
    }
    if (data < map + blocks * 4 || data % SECTOR != 0) {
        return blk_place_bad(err, "data offset", data, "multiples of 512 behind the map");
    }
    return 0;
}

static int read_map(struct blk *blk, struct err *err)
{
    const struct vdi *v = blk->state;
    uint8_t raw[BLK_PLACE_CHUNK * 8];
    for (uint64_t i = 0; i < v->place.nblocks;) {
        size_t n = MIN(v->place.nblocks - i, sizeof(raw) / 4);
        int rc = blk_pread(blk->file, v->map_offset + i * 4, raw, n * 4);
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot read the table of blocks");
        }
        for (size_t k = 0; k < n; k++, i++) {
            uint32_t entry = le32_get(raw + k * 4);
            v->place.table[i] = entry == VDI_MAP_NONE   ? BLK_PLACE_NONE
                                : entry == VDI_MAP_ZERO ? BLK_PLACE_ZERO
                                                        : entry + BLK_PLACE_FIRST;
        }
    }
    return 0;
}

static int store(struct blk *blk, uint64_t first, uint32_t n)
{
    const struct vdi *v = blk->state;
    uint8_t raw[BLK_PLACE_CHUNK * 4];
    for (uint32_t k = 0; k < n; k++) {
        uint32_t entry = v->place.table[first + k];
        le32_put(raw + (size_t)k * 4, entry == BLK_PLACE_NONE   ? VDI_MAP_NONE
                                      : entry == BLK_PLACE_ZERO ? VDI_MAP_ZERO
                                                                : entry - BLK_PLACE_FIRST);
    }
    return blk_pwrite(blk->file, v->map_offset + first * 4, raw, (size_t)n * 4);
}

/* The number of blocks in the file is where other programs put the next one. */
static int finish(struct blk *blk)
{
    struct vdi *v = blk->state;
    le32_put(v->head + VDI_H_ALLOCATED,
             (uint32_t)((v->place.end - v->place.bias) >> v->place.block_bits));
    return blk_pwrite(blk->file, 0, v->head, sizeof(v->head));
}

static const struct blk_place_ops ops = { .store = store, .finish = finish };

static int vdi_open(struct blk *blk, const struct blk_opts *opts, const char *arg, struct err *err)
{
    struct vdi *v = blk->state;
    (void)arg;
    blk_place_init(&v->place, &ops);
    int rc = blk_refuse_snapshot(blk, opts, err);
    if (rc < 0) {
        return rc;
    }
    rc = blk_pread(blk->file, 0, v->head, sizeof(v->head));
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot read the header");
    }
    rc = check_kind(v, err);
    if (rc == 0) {
        rc = check_sizes(v, blk->file->size, err);
    }
    if (rc < 0) {
        return rc;
    }
    blk->size = le64_get(v->head + VDI_H_DISK_SIZE);
    v->map_offset = field(v, VDI_H_MAP_OFFSET);
    v->place.bias = field(v, VDI_H_DATA_OFFSET);
    v->place.unit = field(v, VDI_H_BLOCK_SIZE);
    v->place.align = v->place.unit;
    rc = blk_place_make_table(blk, (unsigned)__builtin_ctz(v->place.unit), err);
    if (rc == 0) {
        rc = read_map(blk, err);
    }
    if (rc == 0) {
        rc = blk_place_check_table(blk, v->place.bias, blk->file->size, 0, err);
    }
    return rc;
}

static int vdi_close(struct blk *blk)
{
    struct vdi *v = blk->state;
    blk_place_done(&v->place);
    return 0;
}

static void fill_header(uint8_t *head, uint64_t size, uint64_t blocks)
{
    uint64_t data = bits_align_up(VDI_H_SIZE + blocks * 4, BLOCK_SIZE);
    memcpy(head + VDI_H_TEXT, VDI_TEXT, sizeof(VDI_TEXT) - 1);
    le32_put(head + VDI_H_SIGNATURE, VDI_SIGNATURE);
    le32_put(head + VDI_H_VERSION, VDI_VERSION);
    le32_put(head + VDI_H_LENGTH, VDI_H_LENGTH_VALUE);
    le32_put(head + VDI_H_TYPE, VDI_TYPE_DYNAMIC);
    le32_put(head + VDI_H_MAP_OFFSET, VDI_H_SIZE);
    le32_put(head + VDI_H_DATA_OFFSET, (uint32_t)data);
    le32_put(head + VDI_H_SECTOR_SIZE, SECTOR);
    le64_put(head + VDI_H_DISK_SIZE, size);
    le32_put(head + VDI_H_BLOCK_SIZE, BLOCK_SIZE);
    le32_put(head + VDI_H_BLOCKS, (uint32_t)blocks);
}

/* The map of an image without blocks: all bits set. */
static int write_empty_map(struct blk *file, uint64_t blocks)
{
    size_t len = bits_align_up(blocks * 4, SECTOR);
    size_t chunk = MIN(len, (size_t)MIB);
    CLEANUP_FREE uint8_t *raw = malloc(chunk);
    if (raw == NULL) {
        return -ENOMEM;
    }
    memset(raw, 0xff, chunk);
    for (size_t at = 0; at < len; at += chunk) {
        int rc = blk_pwrite(file, VDI_H_SIZE + at, raw, MIN(chunk, len - at));
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int vdi_create(struct blk *file, const struct blk_create_opts *opts, struct err *err)
{
    uint8_t head[VDI_H_SIZE] = { 0 };
    struct blk_param params[] = {
        {"uuid", NULL}
    };
    uint64_t blocks = opts->size / BLOCK_SIZE + (opts->size % BLOCK_SIZE != 0);
    int rc = blk_param_parse(opts, params, ARRAY_LEN(params), err);
    if (rc < 0) {
        return rc;
    }
    if (opts->backing != NULL) {
        return err_set(err, -EINVAL, "a %s image cannot have a backing file", "VDI");
    }
    if (opts->size % SECTOR != 0 || blocks > BLK_PLACE_MAX_BLOCKS) {
        return blk_place_bad(err, "size", opts->size, "multiples of 512, up to 32T");
    }
    fill_header(head, opts->size, blocks);
    rc = blk_param_uuid(params[0].value, head + VDI_H_UUID, err);
    if (rc < 0) {
        return rc;
    }
    blk_param_uuid_swap(head + VDI_H_UUID);
    memcpy(head + VDI_H_UUID_SNAP, head + VDI_H_UUID, BLK_PARAM_UUID_LEN);
    rc = write_empty_map(file, blocks);
    if (rc == 0) {
        rc = blk_pwrite(file, 0, head, sizeof(head));
    }
    return rc < 0 ? err_set_errno(err, rc, "cannot write the header") : 0;
}

static int vdi_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err)
{
    const struct vdi *v = blk->state;
    uint8_t raw[BLK_PARAM_UUID_LEN];
    char uuid[37];
    (void)err;
    memcpy(raw, v->head + VDI_H_UUID, sizeof(raw));
    blk_param_uuid_swap(raw);
    blk_param_uuid_text(raw, uuid);
    const struct blk_info_item items[] = {
        {.key = "subformat",
         .type = BLK_INFO_STRING,
         .string = field(v,                                                 VDI_H_TYPE) == VDI_TYPE_STATIC ? "static" : "dynamic" },
        { .key = "block_size",                 .type = BLK_INFO_BYTES,  .number = v->place.unit  },
        { .key = "blocks_used",                 .type = BLK_INFO_NUMBER, .number = v->place.allocated},
        { .key = "uuid",                 .type = BLK_INFO_STRING,        .string = uuid         },
    };
    for (size_t i = 0; i < ARRAY_LEN(items); i++) {
        fn(opaque, &items[i]);
    }
    return 0;
}

const struct blk_class fmt_vdi_class = {
    .name = "vdi",
    .help = "VirtualBox's disk images",
    .suffix = ".vdi",
    .kind = BLK_KIND_FORMAT,
    .state_size = sizeof(struct vdi),
    .open = vdi_open,
    .close = vdi_close,
    .preadv = blk_place_preadv,
    .pwritev = blk_place_pwritev,
    .flush = blk_place_flush,
    .discard = blk_place_discard,
    .write_zeroes = blk_place_write_zeroes,
    .status = blk_place_status,
    .map = blk_place_map,
    .create = vdi_create,
    .info = vdi_info,
    .check = blk_place_check,
};
