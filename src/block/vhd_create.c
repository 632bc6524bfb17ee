/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/vhd_create.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/blk_param.h"
#include "block/blk_place.h"
#include "spec/vhd_disk.h"

#define SECTOR     512
#define BLOCK_SIZE (2 * MIB) /* what all programs use */

uint32_t vhd_create_checksum(const uint8_t *data, size_t len, size_t field)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += i >= field && i < field + 4 ? 0U : data[i];
    }
    return ~sum;
}

/* Cylinders, heads, sectors a track: VHD 1.0, appendix "CHS calculation". */
static void put_geometry(uint8_t *footer, uint64_t sectors)
{
    uint32_t total = (uint32_t)MIN(sectors, UINT64_C(65535) * 16 * 255);
    uint32_t per_track = 255;
    uint32_t heads = 16;
    if (total < UINT32_C(65535) * 16 * 63) {
        per_track = 17;
        heads = MAX((total / per_track + 1023) / 1024, 4U);
        if (total / per_track >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
        }
        if (total / per_track >= heads * 1024) {
            per_track = 63;
            heads = 16;
        }
    }
    be16_put(footer + VHD_F_CYLINDERS, (uint16_t)(total / per_track / heads));
    footer[VHD_F_HEADS] = (uint8_t)heads;
    footer[VHD_F_SECTORS] = (uint8_t)per_track;
}

/* QUIRK: the creator is Windows's. Programs such as QEMU take the size of the disk from the
 * geometry, which is rarely exact, unless they know the creator as one that states exact sizes. */
static void fill_footer(uint8_t *footer, uint64_t size, bool dynamic)
{
    memcpy(footer + VHD_F_COOKIE, "conectix", VHD_COOKIE_LEN);
    be32_put(footer + VHD_F_FEATURES, VHD_F_FEATURES_RESERVED);
    be32_put(footer + VHD_F_VERSION, VHD_VERSION);
    be64_put(footer + VHD_F_DATA_OFFSET, dynamic ? VHD_F_LEN : UINT64_MAX);
    memcpy(footer + VHD_F_CREATOR, "win ", 4);
    be32_put(footer + VHD_F_CREATOR_VER, 0x00060001);
    memcpy(footer + VHD_F_CREATOR_OS, "Wi2k", 4);
    be64_put(footer + VHD_F_ORIG_SIZE, size);
    be64_put(footer + VHD_F_SIZE, size);
    put_geometry(footer, size / SECTOR);
    be32_put(footer + VHD_F_TYPE, dynamic ? VHD_TYPE_DYNAMIC : VHD_TYPE_FIXED);
}

static void put_checksum(uint8_t *data, size_t len, size_t field)
{
    be32_put(data + field, vhd_create_checksum(data, len, field));
}

/* Footer copy, header, empty table, footer. */
static int write_dynamic(struct blk *file, const uint8_t *footer, uint64_t size)
{
    uint8_t head[VHD_D_LEN] = { 0 };
    uint64_t entries = size / BLOCK_SIZE + (size % BLOCK_SIZE != 0);
    size_t bat_len = bits_align_up(entries * 4, SECTOR);
    memcpy(head + VHD_D_COOKIE, "cxsparse", VHD_COOKIE_LEN);
    be64_put(head + VHD_D_DATA_OFFSET, UINT64_MAX);
    be64_put(head + VHD_D_BAT_OFFSET, VHD_F_LEN + VHD_D_LEN);
    be32_put(head + VHD_D_VERSION, VHD_VERSION);
    be32_put(head + VHD_D_ENTRIES, (uint32_t)entries);
    be32_put(head + VHD_D_BLOCK_SIZE, BLOCK_SIZE);
    put_checksum(head, sizeof(head), VHD_D_CHECKSUM);
    CLEANUP_FREE uint8_t *bat = malloc(bat_len);
    if (bat == NULL) {
        return -ENOMEM;
    }
    memset(bat, 0xff, bat_len);
    int rc = blk_pwrite(file, 0, footer, VHD_F_LEN);
    if (rc == 0) {
        rc = blk_pwrite(file, VHD_F_LEN, head, sizeof(head));
    }
    if (rc == 0) {
        rc = blk_pwrite(file, VHD_F_LEN + VHD_D_LEN, bat, bat_len);
    }
    if (rc == 0) {
        rc = blk_pwrite(file, VHD_F_LEN + VHD_D_LEN + bat_len, footer, VHD_F_LEN);
    }
    return rc;
}

int vhd_create(struct blk *file, const struct blk_create_opts *opts, struct err *err)
{
    static const char *const kinds[] = { "dynamic", "fixed", NULL };
    struct blk_param params[] = {
        {"subformat", NULL},
        { "uuid",     NULL},
    };
    uint8_t footer[VHD_F_LEN] = { 0 };
    int rc = blk_param_parse(opts, params, ARRAY_LEN(params), err);
    int kind = rc < 0 ? rc : blk_param_choice("subformat", params[0].value, kinds, err);
    if (kind < 0) {
        return kind;
    }
    if (opts->backing != NULL) {
        return err_set(err, -EINVAL, "a %s image cannot have a backing file", "VHD");
    }
    if (opts->size % SECTOR != 0 || opts->size > VHD_MAX_SIZE) {
        return blk_place_bad(err, "size", opts->size, "multiples of 512, up to 2040 GiB");
    }
    fill_footer(footer, opts->size, kind == 0);
    rc = blk_param_uuid(params[1].value, footer + VHD_F_UUID, err);
    if (rc < 0) {
        return rc;
    }
    put_checksum(footer, sizeof(footer), VHD_F_CHECKSUM);
    rc = kind == 0 ? write_dynamic(file, footer, opts->size)
                   : blk_pwrite(file, opts->size, footer, sizeof(footer));
    return rc < 0 ? err_set_errno(err, rc, "cannot write the header") : 0;
}
