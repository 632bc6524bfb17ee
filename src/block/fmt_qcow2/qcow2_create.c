/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New images. Layout, each part on a cluster boundary and right after the one before:
 *
 *      header | refcount table | refcount blocks | L1 table [| L2 tables | data]
 *
 * The parts in brackets only with preallocation=metadata, where the data are a hole of the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/schema.h"
#include "block/fmt_qcow2/qcow2_int.h"

enum { QCOW2_CREATE_COMPAT_1_1, QCOW2_CREATE_COMPAT_0_10 };
enum { QCOW2_CREATE_OFF, QCOW2_CREATE_ON };

struct qcow2_create_params {
    uint64_t cluster_size;
    uint64_t refcount_bits;
    uint64_t compat;
    uint64_t lazy_refcounts;
    uint64_t preallocation;
    uint64_t compression_type;
    uint64_t extended_l2;
};

static const char *const qcow2_create_compats[] = { "1.1", "0.10", NULL };
static const char *const qcow2_create_off_on[] = { "off", "on", NULL };
static const char *const qcow2_create_preallocs[] = { "off", "metadata", NULL };
static const char *const qcow2_create_compressions[] = { "zlib", "zstd", NULL };

#define QCOW2_PARAM(member) .offset = offsetof(struct qcow2_create_params, member)
static const struct schema_field qcow2_create_fields[] = {
    {.name = "cluster_size",
     .arg = "SIZE",
     .type = SCHEMA_SIZE,
     .min = 512,
     .max = 2 * MIB,
     .deflt = "64K",
     QCOW2_PARAM(cluster_size),
     .help = "the unit of allocation, a power of two" },
    { .name = "refcount_bits",
     .arg = "N",
     .type = SCHEMA_UINT,
     .min = 1,
     .max = 64,
     .deflt = "16",
     QCOW2_PARAM(refcount_bits),
     .help = "width of a refcount: 1, 2, 4, 8, 16, 32 or 64" },
    { .name = "compat",
     .arg = "1.1|0.10",
     .type = SCHEMA_ENUM,
     .choices = qcow2_create_compats,
     .deflt = "1.1",
     QCOW2_PARAM(compat),
     .help = "1.1 is format version 3, 0.10 is version 2" },
    { .name = "lazy_refcounts",
     .arg = "on|off",
     .type = SCHEMA_ENUM,
     .choices = qcow2_create_off_on,
     .deflt = "off",
     QCOW2_PARAM(lazy_refcounts),
     .help = "write refcounts late; after a crash they are computed anew" },
    { .name = "preallocation",
     .arg = "off|metadata",
     .type = SCHEMA_ENUM,
     .choices = qcow2_create_preallocs,
     .deflt = "off",
     QCOW2_PARAM(preallocation),
     .help = "metadata: all tables are written now, the data stay a hole" },
    { .name = "compression_type",
     .arg = "zlib|zstd",
     .type = SCHEMA_ENUM,
     .choices = qcow2_create_compressions,
     .deflt = "zlib",
     QCOW2_PARAM(compression_type),
     .help = "what compressed clusters would use" },
    { .name = "extended_l2",
     .arg = "on|off",
     .type = SCHEMA_ENUM,
     .choices = qcow2_create_off_on,
     .deflt = "off",
     QCOW2_PARAM(extended_l2),
     .help = "allocate in 32nd parts of a cluster; clusters of 16K at least" },
    { 0            },
};

static int qcow2_create_check(const void *obj, struct err *err)
{
    const struct qcow2_create_params *p = obj;
    if (!bits_is_pow2(p->cluster_size)) {
        return err_set(err, -EINVAL,
                       "cluster_size %" PRIu64 " is not a power of two from 512 to 2M",
                       p->cluster_size);
    }
    if (!bits_is_pow2(p->refcount_bits)) {
        return err_set(err, -EINVAL,
                       "refcount_bits %" PRIu64 " is not one of 1, 2, 4, 8, 16, 32, 64",
                       p->refcount_bits);
    }
    if (p->compat == QCOW2_CREATE_COMPAT_0_10 &&
        (p->refcount_bits != 16 || p->lazy_refcounts != 0 || p->compression_type != 0 ||
         p->extended_l2 != 0)) {
        return err_set(err, -EINVAL,
                       "compat=0.10 has neither refcount_bits other than 16, nor lazy_refcounts, "
                       "nor compression_type=zstd, nor extended_l2; they need compat=1.1");
    }
    if (p->extended_l2 != 0 && p->cluster_size < BIT64(QCOW2_CLUSTER_BITS_SUB)) {
        return err_set(err, -EINVAL,
                       "extended_l2 needs a cluster_size of 16K at least, not %" PRIu64,
                       p->cluster_size);
    }
    return 0;
}

static const struct schema qcow2_create_schema = {
    .name = "qcow2 options",
    .size = sizeof(struct qcow2_create_params),
    .fields = qcow2_create_fields,
    .check = qcow2_create_check,
};

/* Numbers of clusters, in the order of the layout. */
struct qcow2_create_plan {
    uint64_t table;
    uint64_t blocks;
    uint64_t l1;
    uint64_t l2;
    uint64_t data;
    uint64_t total;
};

static int qcow2_create_parse(const struct blk_create_opts *opts, struct qcow2_create_params *p,
                              struct err *err)
{
    schema_init(&qcow2_create_schema, p);
    for (size_t i = 0; opts->params != NULL && opts->params[i] != NULL; i++) {
        const char *eq = strchr(opts->params[i], '=');
        if (eq == NULL) {
            return err_set(err, -EINVAL, "option '%s' has no value", opts->params[i]);
        }
        CLEANUP_FREE char *name = strndup(opts->params[i], (size_t)(eq - opts->params[i]));
        if (name == NULL) {
            return err_set(err, -ENOMEM, "out of memory");
        }
        int rc = schema_set(&qcow2_create_schema, p, name, eq + 1, err);
        if (rc < 0) {
            err->code = rc == -ENOENT ? -EINVAL : rc; /* blk_int.h: unknown params are -EINVAL */
            return err->code;
        }
    }
    int rc = schema_check(&qcow2_create_schema, p, err);
    if (rc == 0 && opts->backing != NULL && p->preallocation != QCOW2_CREATE_OFF) {
        rc = err_set(err, -EINVAL,
                     "preallocation cannot be used with a backing file, which it would hide");
    }
    if (rc == 0 && opts->size % 512 != 0) {
        rc = err_set(err, -EINVAL, "size %" PRIu64 " is not a multiple of 512", opts->size);
    }
    return rc;
}

static int qcow2_create_header(const struct blk_create_opts *opts,
                               const struct qcow2_create_params *p, struct qcow2_hdr *h,
                               struct err *err)
{
    *h = (struct qcow2_hdr){ .size = opts->size };
    h->version = p->compat == QCOW2_CREATE_COMPAT_1_1 ? 3 : 2;
    h->cluster_bits = (uint32_t)__builtin_ctzll(p->cluster_size);
    h->refcount_order = (uint32_t)__builtin_ctzll(p->refcount_bits);
    h->compat = p->lazy_refcounts == QCOW2_CREATE_ON ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
    h->compression = (uint8_t)p->compression_type;
    h->incompat = (h->compression != QCOW2_COMPRESSION_ZLIB ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                  (p->extended_l2 == QCOW2_CREATE_ON ? QCOW2_INCOMPAT_EXTENDED_L2 : 0);
    if (opts->backing != NULL) {
        size_t len = strlen(opts->backing);
        size_t fmt_len = strlen(opts->backing_format);
        if (len > QCOW2_BACKING_NAME_MAX || fmt_len >= sizeof(h->backing_fmt)) {
            return err_set(err, -ENAMETOOLONG,
                           "the backing file's name has %zu bytes (at most %d), its format's name "
                           "%zu (at most %zu)",
                           len, QCOW2_BACKING_NAME_MAX, fmt_len, sizeof(h->backing_fmt) - 1);
        }
        memcpy(h->backing_name, opts->backing, len + 1);
        memcpy(h->backing_fmt, opts->backing_format, fmt_len + 1);
    }
    return 0;
}

static uint64_t qcow2_create_ceil(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static int qcow2_create_plan(struct qcow2_hdr *h, bool prealloc, struct qcow2_create_plan *p,
                             struct err *err)
{
    uint64_t cs = UINT64_C(1) << h->cluster_bits;
    uint64_t per_block = cs * 8 >> h->refcount_order;
    uint64_t guest = qcow2_create_ceil(h->size, cs);
    uint64_t per_l2 = cs >> ((h->incompat & QCOW2_INCOMPAT_EXTENDED_L2) != 0 ? 4 : 3);
    uint64_t l2 = qcow2_create_ceil(guest, per_l2);
    if (l2 > QCOW2_MAX_L1_BYTES / 8) {
        return err_set(err, -EFBIG,
                       "size %" PRIu64 " is too large for clusters of %" PRIu64
                       " bytes (at most %" PRIu64 "); take a larger cluster_size",
                       h->size, cs, QCOW2_MAX_L1_BYTES / 8 * per_l2 * cs);
    }
    h->l1_size = (uint32_t)l2;
    *p = (struct qcow2_create_plan){ .table = 1, .blocks = 1 };
    p->l1 = qcow2_create_ceil(l2 * 8, cs);
    p->l2 = prealloc ? l2 : 0;
    p->data = prealloc ? guest : 0;
    for (;;) {
        p->total = 1 + p->table + p->blocks + p->l1 + p->l2 + p->data;
        uint64_t blocks = qcow2_create_ceil(p->total, per_block);
        uint64_t table = qcow2_create_ceil(blocks * 8, cs);
        if (blocks <= p->blocks && table <= p->table) {
            break;
        }
        p->blocks = MAX(blocks, p->blocks);
        p->table = MAX(table, p->table);
    }
    if (p->table * cs > MAX(QCOW2_MAX_REFTABLE_BYTES, cs) ||
        p->total > QCOW2_MAX_HOST_OFFSET >> h->cluster_bits) {
        return err_set(
            err, -EFBIG,
            "size %" PRIu64
            " is too large to preallocate with these options; take a larger cluster_size",
            h->size);
    }
    h->rt_offset = cs;
    h->rt_clusters = (uint32_t)p->table;
    h->l1_offset = (1 + p->table + p->blocks) * cs;
    return 0;
}

/* Writes `count` table entries base, base + step, ... at `offset`, zeroes up to the cluster's end.
 * `extended`: each followed by the bits of subclusters that all have data. */
static int qcow2_create_table(struct blk *file, uint8_t *buf, uint64_t cs, uint64_t offset,
                              uint64_t count, uint64_t base, uint64_t step, bool extended)
{
    uint64_t size = extended ? 16 : 8;
    for (uint64_t done = 0; done < count; done += cs / size) {
        memset(buf, 0, cs);
        for (uint64_t i = 0; i < cs / size && done + i < count; i++) {
            be64_put(buf + i * size, base + (done + i) * step);
            if (extended) {
                be64_put(buf + i * size + 8, UINT32_MAX);
            }
        }
        int rc = blk_pwrite(file, offset + done * size, buf, cs);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int qcow2_create_blocks(struct blk *file, const struct qcow2_hdr *h,
                               const struct qcow2_create_plan *p, uint8_t *buf)
{
    uint64_t cs = UINT64_C(1) << h->cluster_bits;
    uint64_t per_block = cs * 8 >> h->refcount_order;
    for (uint64_t b = 0; b < p->blocks; b++) {
        uint64_t base = b * per_block;
        memset(buf, 0, cs);
        for (uint64_t i = 0; i < per_block && base + i < p->total; i++) {
            qcow2_ref_store(buf, h->refcount_order, i, 1);
        }
        int rc = blk_pwrite(file, (1 + p->table + b) * cs, buf, cs);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int qcow2_create_write(struct blk *file, const struct qcow2_hdr *h,
                              const struct qcow2_create_plan *p, struct err *err)
{
    uint64_t cs = UINT64_C(1) << h->cluster_bits;
    uint64_t l2_at = h->l1_offset + p->l1 * cs;
    CLEANUP_FREE uint8_t *buf = qcow2_io_buf(cs);
    if (buf == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = qcow2_create_table(file, buf, cs, cs, p->blocks, (1 + p->table) * cs, cs, false);
    if (rc == 0) {
        rc = qcow2_create_blocks(file, h, p, buf);
    }
    if (rc == 0 && p->l2 > 0) {
        rc =
            qcow2_create_table(file, buf, cs, h->l1_offset, p->l2, l2_at | QCOW2_COPIED, cs, false);
    } else if (rc == 0) {
        rc = qcow2_create_table(file, buf, cs, h->l1_offset, h->l1_size, 0, 0, false);
    }
    if (rc == 0 && p->l2 > 0) {
        rc = qcow2_create_table(file, buf, cs, l2_at, p->data, (l2_at + p->l2 * cs) | QCOW2_COPIED,
                                cs, (h->incompat & QCOW2_INCOMPAT_EXTENDED_L2) != 0);
    }
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot write the image");
    }
    if (p->data > 0 && file->cls->truncate != NULL && file->regular) {
        return file->cls->truncate(file, p->total * cs, err);
    }
    return 0;
}

int qcow2_create(struct blk *file, const struct blk_create_opts *opts, struct err *err)
{
    struct qcow2_create_params params;
    struct qcow2_create_plan plan = { 0 };
    struct qcow2_hdr h;
    int rc = qcow2_create_parse(opts, &params, err);
    if (rc == 0) {
        rc = qcow2_create_header(opts, &params, &h, err);
    }
    if (rc == 0) {
        rc = qcow2_create_plan(&h, params.preallocation != QCOW2_CREATE_OFF, &plan, err);
    }
    if (rc < 0) {
        return rc;
    }
    size_t len = (size_t)1 << h.cluster_bits;
    CLEANUP_FREE uint8_t *head = qcow2_io_buf(len);
    if (head == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    rc = qcow2_hdr_build(&h, head, len, err);
    if (rc == 0) {
        rc = qcow2_create_write(file, &h, &plan, err);
    }
    if (rc < 0) {
        return rc;
    }
    /* Last: until now the file is no qcow2 image. */
    rc = blk_pwrite(file, 0, head, len);
    if (rc == 0) {
        rc = blk_flush(file);
    }
    return rc < 0 ? err_set_errno(err, rc, "cannot write the header") : 0;
}
