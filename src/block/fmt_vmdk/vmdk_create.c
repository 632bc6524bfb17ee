/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New images, in one file with the descriptor inside:
 *
 *      monolithicSparse   | header | descriptor | directory, tables (redundant) | directory, tables
 * | streamOptimized    | header | descriptor |
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "block/blk_param.h"
#include "block/fmt_vmdk/vmdk_int.h"

#define GRAIN        128 /* sectors: 64 KiB, as VMware makes them */
#define DESC_SECTORS 20

static const char *const subformats[] = { "monolithicSparse", "streamOptimized", NULL };
static const char *const adapters[] = { "ide", "lsilogic", "buslogic", NULL };

enum { SPARSE, STREAM };

struct plan {
    int kind;
    int adapter;
    uint32_t cid;
    uint64_t sectors;    /* of the disk */
    uint64_t tables;     /* grain tables */
    uint64_t dir;        /* sectors of a directory */
    uint64_t rgd, gd;    /* sectors */
    uint64_t overhead;   /* sectors */
    const char *name;    /* of the file */
    const char *subname; /* of the kind */
};

static int parse_cid(const char *text, uint32_t *ret_cid, struct err *err)
{
    char *end;
    if (text == NULL) {
        if (getrandom(ret_cid, sizeof(*ret_cid), 0) != sizeof(*ret_cid)) {
            return err_set_errno(err, -EIO, "cannot get random bytes");
        }
        *ret_cid &= 0x7fffffff; /* all ones would mean "none" */
        return 0;
    }
    unsigned long value = strtoul(text, &end, 16);
    if (strlen(text) != 8 || *end != '\0' || value >= UINT32_MAX) {
        return err_set(err, -EINVAL, "option '%s': '%s' is no number of 8 hexadecimal digits",
                       "cid", text);
    }
    *ret_cid = (uint32_t)value;
    return 0;
}

/* The file's name as the descriptor may hold it. */
static const char *plain_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    for (const char *p = name; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == '"') {
            return "disk.vmdk";
        }
    }
    return name;
}

static int make_plan(const struct blk_create_opts *opts, struct plan *p, struct err *err)
{
    struct blk_param params[] = {
        {"subformat",     NULL},
        { "adapter_type", NULL},
        { "cid",          NULL},
    };
    int rc = blk_param_parse(opts, params, ARRAY_LEN(params), err);
    if (rc == 0) {
        rc = p->kind = blk_param_choice("subformat", params[0].value, subformats, err);
    }
    if (rc >= 0) {
        rc = p->adapter = blk_param_choice("adapter_type", params[1].value, adapters, err);
    }
    if (rc >= 0) {
        rc = parse_cid(params[2].value, &p->cid, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (opts->backing != NULL) {
        return err_set(err, -EINVAL, "a %s image cannot have a backing file", "VMDK");
    }
    if (opts->size % VMDK_SECTOR != 0 || opts->size > BLK_PLACE_MAX_BLOCKS * GRAIN * VMDK_SECTOR) {
        return blk_place_bad(err, "size", opts->size, "multiples of 512, up to 2T");
    }
    p->sectors = opts->size / VMDK_SECTOR;
    uint64_t grains = (p->sectors + GRAIN - 1) / GRAIN;
    p->tables = (grains + VMDK_GT_ENTRIES - 1) / VMDK_GT_ENTRIES;
    p->dir = (p->tables * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
    p->rgd = 1 + DESC_SECTORS;
    p->gd = p->rgd + p->dir + p->tables * VMDK_GT_SECTORS;
    uint64_t end = p->kind == STREAM ? p->rgd : p->gd + p->dir + p->tables * VMDK_GT_SECTORS;
    p->overhead = bits_align_up(end, GRAIN);
    p->name = plain_name(opts->path);
    p->subname = subformats[p->kind];
    return 0;
}

static int write_header(struct blk *file, const struct plan *p)
{
    uint8_t head[VMDK_H_LEN] = { 0 };
    bool stream = p->kind == STREAM;
    le32_put(head + VMDK_H_MAGIC, VMDK_MAGIC);
    le32_put(head + VMDK_H_VERSION, stream ? 3 : 1);
    le32_put(head + VMDK_H_FLAGS,
             VMDK_FLAG_NEWLINES |
                 (stream ? VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS : VMDK_FLAG_REDUNDANT));
    le64_put(head + VMDK_H_CAPACITY, p->sectors);
    le64_put(head + VMDK_H_GRAIN, GRAIN);
    le64_put(head + VMDK_H_DESC_OFFSET, 1);
    le64_put(head + VMDK_H_DESC_SIZE, DESC_SECTORS);
    le32_put(head + VMDK_H_GT_ENTRIES, VMDK_GT_ENTRIES);
    le64_put(head + VMDK_H_RGD_OFFSET, stream ? 0 : p->rgd);
    le64_put(head + VMDK_H_GD_OFFSET, stream ? VMDK_GD_AT_END : p->gd);
    le64_put(head + VMDK_H_OVERHEAD, p->overhead);
    memcpy(head + VMDK_H_NEWLINES, VMDK_NEWLINES, VMDK_NEWLINES_LEN);
    le16_put(head + VMDK_H_COMPRESSION, stream ? VMDK_DEFLATE : 0);
    return blk_pwrite(file, 0, head, sizeof(head));
}

static int write_descriptor(struct blk *file, const struct plan *p)
{
    char text[DESC_SECTORS * VMDK_SECTOR] = { 0 };
    unsigned heads = p->adapter == 0 ? 16 : 255; /* IDE; SCSI */
    (void)snprintf(text, sizeof(text),
                   "# Disk DescriptorFile\n"
                   "version=1\n"
                   "CID=%08x\n"
                   "parentCID=ffffffff\n"
                   "createType=\"%s\"\n"
                   "\n"
                   "# Extent description\n"
                   "RW %" PRIu64 " SPARSE \"%.200s\"\n"
                   "\n"
                   "# The Disk Data Base\n"
                   "#DDB\n"
                   "\n"
                   "ddb.virtualHWVersion = \"4\"\n"
                   "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
                   "ddb.geometry.heads = \"%u\"\n"
                   "ddb.geometry.sectors = \"63\"\n"
                   "ddb.adapterType = \"%s\"\n",
                   p->cid, p->subname, p->sectors, p->name,
                   MIN(p->sectors / (heads * 63), UINT64_C(16383)), heads, adapters[p->adapter]);
    return blk_pwrite(file, VMDK_SECTOR, text, sizeof(text));
}

/* A directory at sector `at` whose tables follow it. */
static int write_directory(struct blk *file, const struct plan *p, uint64_t at)
{
    CLEANUP_FREE uint8_t *raw = calloc(p->dir, VMDK_SECTOR);
    if (raw == NULL) {
        return -ENOMEM;
    }
    for (uint64_t t = 0; t < p->tables; t++) {
        le32_put(raw + t * 4, (uint32_t)(at + p->dir + t * VMDK_GT_SECTORS));
    }
    return blk_pwrite(file, at * VMDK_SECTOR, raw, p->dir * VMDK_SECTOR);
}

int vmdk_create(struct blk *file, const struct blk_create_opts *opts, struct err *err)
{
    static const uint8_t zeroes[VMDK_SECTOR];
    struct plan p = { 0 };
    int rc = make_plan(opts, &p, err);
    if (rc < 0) {
        return rc;
    }
    rc = write_header(file, &p);
    if (rc == 0) {
        rc = write_descriptor(file, &p);
    }
    if (rc == 0 && p.kind == SPARSE) {
        rc = write_directory(file, &p, p.rgd);
        if (rc == 0) {
            rc = write_directory(file, &p, p.gd);
        }
    }
    if (rc == 0) { /* the tables are a hole */
        rc = blk_pwrite(file, (p.overhead - 1) * VMDK_SECTOR, zeroes, sizeof(zeroes));
    }
    return rc < 0 ? err_set_errno(err, rc, "cannot write the header") : 0;
}
