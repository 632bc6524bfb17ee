/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests and fuzz targets of the formats over blk_place.c: images in memory, to be spoilt. */
#ifndef BLOCK_BLK_PLACE_FAKE_H
#define BLOCK_BLK_PLACE_FAKE_H

#include "block/blk_param.h"
#include "block/fmt_qcow2/qcow2_memfile.h"
#include "block/vhd_create.h"
#include "spec/vdi_disk.h"
#include "spec/vhd_disk.h"
#include "spec/vhdx_disk.h"

/* Opens `m` as an image of `cls`. */
static inline int fake_open(struct qcow2_memfile *m, const struct blk_class *cls, bool read_only,
                            struct blk **ret_blk, struct err *err)
{
    struct blk_opts opts = { .path = "memory", .read_only = read_only, .no_backing = true };
    struct blk *file = NULL;
    int rc = qcow2_memfile_node(m, &opts, &file, err);
    return rc < 0 ? rc : blk_node_new(cls, &opts, NULL, file, NULL, 0, ret_blk, err);
}

/* A new image of `size` bytes with three pieces of data in it. */
static inline int fake_create(struct qcow2_memfile *m, const struct blk_class *cls, uint64_t size,
                              const char *const *params, struct err *err)
{
    struct blk_opts opts = { .path = "memory", .no_backing = true };
    struct blk_create_opts create = {
        .path = "memory", .format = cls->name, .size = size, .params = params
    };
    struct blk *file = NULL;
    struct blk *blk = NULL;
    uint8_t data[1024];
    m->size = 0;
    int rc = qcow2_memfile_node(m, &opts, &file, err);
    if (rc < 0) {
        return rc;
    }
    rc = cls->create(file, &create, err);
    if (rc < 0) {
        blk_close(file);
        return rc;
    }
    rc = blk_node_new(cls, &opts, NULL, file, NULL, BLK_OPEN_CREATE, &blk, err);
    for (unsigned i = 0; i < 3 && rc == 0; i++) {
        memset(data, 'a' + (int)i, sizeof(data));
        rc = blk_pwrite(blk, i * (size / 3 / 512 * 512), data, sizeof(data));
    }
    if (blk != NULL) {
        rc = rc < 0 ? rc : blk_flush(blk);
        blk_close(blk);
    }
    return rc;
}

static inline uint32_t fake_crc32c(const uint8_t *data, size_t len)
{
    static uint32_t table[256];
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; i < 256 && table[255] == 0; i++) {
        uint32_t value = i;
        for (unsigned bit = 0; bit < 8; bit++) {
            value = value >> 1 ^ ((value & 1) != 0 ? UINT32_C(0x82f63b78) : 0U);
        }
        table[i] = value;
    }
    for (size_t i = 0; i < len; i++) {
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    }
    return ~crc;
}

/* Makes the checksums of a VHDX image right again. */
static inline void fake_vhdx_sums(struct qcow2_memfile *m)
{
    const struct {
        uint64_t at;
        size_t len;
    } parts[] = {
        {VHDX_H_OFFSET(0),  VHDX_H_LEN},
        { VHDX_H_OFFSET(1), VHDX_H_LEN},
        { VHDX_R_OFFSET(0), VHDX_R_LEN},
        { VHDX_R_OFFSET(1), VHDX_R_LEN},
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].at + parts[i].len <= m->size) {
            uint8_t *p = m->data + parts[i].at;
            le32_put(p + 4, 0);
            le32_put(p + 4, fake_crc32c(p, parts[i].len));
        }
    }
}

static inline void fake_guid(uint8_t *p, const char *text)
{
    struct err err = ERR_INIT;
    if (blk_param_uuid(text, p, &err) < 0) {
        abort();
    }
    /* The swap is its own reverse. */
    blk_param_uuid_swap(p);
}

/* A VHDX image of 5 MiB in blocks of 1 MiB, of which 0 and 3 are there. */
static inline int fake_vhdx(struct qcow2_memfile *m, struct err *err)
{
    struct blk_opts opts = { .path = "memory" };
    struct blk *file = NULL;
    m->size = 0;
    int rc = qcow2_memfile_node(m, &opts, &file, err);
    if (rc < 0 || (rc = file->cls->truncate(file, 5 * MIB, err)) < 0) {
        return rc;
    }
    blk_close(file);
    memset(m->data, 0, m->size);
    memcpy(m->data, VHDX_SIGNATURE, 8);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *h = m->data + VHDX_H_OFFSET(i);
        memcpy(h, "head", 4);
        le64_put(h + VHDX_H_SEQUENCE, i + 1);
        le16_put(h + VHDX_H_VERSION, 1);
        uint8_t *r = m->data + VHDX_R_OFFSET(i);
        memcpy(r, "regi", 4);
        le32_put(r + VHDX_R_COUNT, 2);
        for (unsigned k = 0; k < 2; k++) {
            uint8_t *e = r + VHDX_R_ENTRIES + k * VHDX_ENTRY_LEN;
            fake_guid(e, k == 0 ? VHDX_REGION_BAT : VHDX_REGION_METADATA);
            le64_put(e + VHDX_RE_OFFSET, (k + 1) * MIB);
            le32_put(e + VHDX_RE_LENGTH, MIB);
            le32_put(e + VHDX_RE_REQUIRED, 1);
        }
    }
    le64_put(m->data + MIB, 3 * MIB | VHDX_STATE_PRESENT);
    le64_put(m->data + MIB + 3 * 8, 4 * MIB | VHDX_STATE_PRESENT);
    uint8_t *t = m->data + 2 * MIB;
    static const char *const items[] = { VHDX_ITEM_PARAMETERS, VHDX_ITEM_DISK_SIZE,
                                         VHDX_ITEM_SECTOR };
    const uint64_t values[] = { MIB, 5 * MIB, 512 };
    memcpy(t, "metadata", 8);
    le16_put(t + VHDX_M_COUNT, ARRAY_LEN(items));
    for (unsigned k = 0; k < ARRAY_LEN(items); k++) {
        uint8_t *e = t + VHDX_M_ENTRIES + k * VHDX_ENTRY_LEN;
        fake_guid(e, items[k]);
        le32_put(e + VHDX_ME_OFFSET, VHDX_M_LEN + 16 * k);
        le32_put(e + VHDX_ME_LENGTH, 8);
        le32_put(e + VHDX_ME_FLAGS, VHDX_ME_REQUIRED);
        le64_put(t + VHDX_M_LEN + 16 * (size_t)k, values[k]);
    }
    memset(m->data + 3 * MIB, 'x', MIB);
    memset(m->data + 4 * MIB, 'y', MIB);
    fake_vhdx_sums(m);
    return 0;
}

/* A small VDI image: 6 blocks of 4 KiB, of which 0, 1 and 4 are there. */
static inline int fake_vdi(struct qcow2_memfile *m, struct err *err)
{
    int rc = fake_create(m, &fmt_vdi_class, 6 * MIB, NULL, err);
    if (rc < 0) {
        return rc;
    }
    le32_put(m->data + VDI_H_BLOCK_SIZE, 4096);
    le64_put(m->data + VDI_H_DISK_SIZE, UINT64_C(6) * 4096);
    le32_put(m->data + VDI_H_DATA_OFFSET, 1024);
    le32_put(m->data + VDI_H_SIZE + 4, 1);
    le32_put(m->data + VDI_H_SIZE + 8, VDI_MAP_ZERO);
    le32_put(m->data + VDI_H_SIZE + 16, 2);
    m->size = 1024 + 3 * 4096;
    memset(m->data + 1024, 'v', m->size - 1024);
    return 0;
}

/* The same for VHD: both footers and the dynamic header. */
static inline void fake_vhd_sums(struct qcow2_memfile *m)
{
    if (m->size < VHD_F_LEN + VHD_D_LEN) {
        return;
    }
    uint8_t *footer = m->data + (m->size - VHD_F_LEN) / 512 * 512;
    uint8_t *head = m->data + VHD_F_LEN;
    be32_put(head + VHD_D_CHECKSUM, vhd_create_checksum(head, VHD_D_LEN, VHD_D_CHECKSUM));
    be32_put(m->data + VHD_F_CHECKSUM, vhd_create_checksum(m->data, VHD_F_LEN, VHD_F_CHECKSUM));
    be32_put(footer + VHD_F_CHECKSUM, vhd_create_checksum(footer, VHD_F_LEN, VHD_F_CHECKSUM));
}

/* A small dynamic VHD image: 4 blocks of 64 KiB, 1 and 3 are there, the latter half written. */
static inline int fake_vhd(struct qcow2_memfile *m, struct err *err)
{
    static uint8_t footer[VHD_F_LEN];
    int rc = fake_create(m, &fmt_vhd_class, 8 * MIB, NULL, err);
    if (rc < 0) {
        return rc;
    }
    uint64_t at = 2048;
    const unsigned blocks[] = { 1, 3 };
    be64_put(m->data + VHD_F_SIZE, 4 * 64 * KIB);
    memcpy(footer, m->data, sizeof(footer));
    be32_put(m->data + VHD_F_LEN + VHD_D_BLOCK_SIZE, 64 * KIB);
    memset(m->data + 1536, 0xff, 512);
    for (unsigned i = 0; i < 2; i++) {
        be32_put(m->data + 1536 + (size_t)blocks[i] * 4, (uint32_t)(at / 512));
        memset(m->data + at, 0, 512);
        memset(m->data + at, 0xff, i == 0 ? 512 : 8);
        memset(m->data + at + 512, 'v', 64 * KIB);
        at += 512 + 64 * KIB;
    }
    memcpy(m->data + at, footer, sizeof(footer));
    m->size = at + VHD_F_LEN;
    fake_vhd_sums(m);
    return 0;
}

#endif
