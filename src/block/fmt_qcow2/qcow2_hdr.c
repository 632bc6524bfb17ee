/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The qcow2 header and its extensions: parse and validate, change, build.
 *
 * Nothing read here is trusted: each offset and size is checked once, so that the rest of the
 * format may add and multiply header fields without a further look. Spec: qcow2.txt of QEMU 7.2,
 * "Header" and "Header extensions".
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/fmt_qcow2/qcow2_int.h"

static const struct {
    uint8_t type;
    uint8_t bit;
    const char *name;
} qcow2_hdr_features[] = {
    {QCOW2_FEATURE_INCOMPAT,   0, "dirty bit"          },
    { QCOW2_FEATURE_INCOMPAT,  1, "corrupt bit"        },
    { QCOW2_FEATURE_INCOMPAT,  2, "external data file" },
    { QCOW2_FEATURE_INCOMPAT,  3, "compression type"   },
    { QCOW2_FEATURE_INCOMPAT,  4, "extended L2 entries"},
    { QCOW2_FEATURE_COMPAT,    0, "lazy refcounts"     },
    { QCOW2_FEATURE_AUTOCLEAR, 0, "bitmaps"            },
    { QCOW2_FEATURE_AUTOCLEAR, 1, "raw external data"  },
};

/* What the extensions said that is needed only while parsing. */
struct qcow2_hdr_ext {
    const uint8_t *features;
    uint32_t features_len;
    bool crypto;
};

int qcow2_hdr_probe_len(const uint8_t *head, size_t len, size_t *ret_len, struct err *err)
{
    if (len < QCOW2_H_V2_LEN || be32_get(head + QCOW2_H_MAGIC) != QCOW2_MAGIC) {
        return err_set(err, -EINVAL, "not a qcow2 image: it does not begin with \"QFI\\xfb\"");
    }
    uint32_t bits = be32_get(head + QCOW2_H_CLUSTER_BITS);
    if (bits < QCOW2_CLUSTER_BITS_MIN || bits > QCOW2_CLUSTER_BITS_MAX) {
        return err_set(err, -EINVAL, "cluster_bits is %" PRIu32 ", it must be %d to %d", bits,
                       QCOW2_CLUSTER_BITS_MIN, QCOW2_CLUSTER_BITS_MAX);
    }
    *ret_len = (size_t)1 << bits;
    return 0;
}

static int qcow2_hdr_parse_bitmaps(struct qcow2_hdr *h, const uint8_t *data, uint32_t len,
                                   struct err *err)
{
    if (len != QCOW2_BM_EXT_LEN) {
        return err_set(err, -EINVAL, "the bitmaps extension has %" PRIu32 " bytes, not %d", len,
                       QCOW2_BM_EXT_LEN);
    }
    h->has_bitmaps = true;
    h->nb_bitmaps = be32_get(data + QCOW2_BM_EXT_COUNT);
    h->bm_dir_size = be64_get(data + QCOW2_BM_EXT_DIR_SIZE);
    h->bm_dir_offset = be64_get(data + QCOW2_BM_EXT_DIR_OFFSET);
    return 0;
}

static int qcow2_hdr_parse_ext(struct qcow2_hdr *h, struct qcow2_hdr_ext *ext, uint32_t type,
                               const uint8_t *data, uint32_t len, struct err *err)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FMT:
        if (len >= sizeof(h->backing_fmt)) {
            return err_set(err, -EINVAL,
                           "the backing format's name has %" PRIu32 " bytes, at most %zu", len,
                           sizeof(h->backing_fmt) - 1);
        }
        memcpy(h->backing_fmt, data, len);
        h->backing_fmt[len] = '\0';
        return 0;
    case QCOW2_EXT_FEATURE_NAMES:
        ext->features = data;
        ext->features_len = len;
        return 0;
    case QCOW2_EXT_BITMAPS:
        return qcow2_hdr_parse_bitmaps(h, data, len, err);
    case QCOW2_EXT_CRYPTO:
        ext->crypto = true;
        return 0;
    case QCOW2_EXT_DATA_FILE:
        if (len >= sizeof(h->data_name)) {
            return err_set(err, -EINVAL, "the data file's name has %" PRIu32 " bytes, at most %zu",
                           len, sizeof(h->data_name) - 1);
        }
        memcpy(h->data_name, data, len);
        h->data_name[len] = '\0';
        return 0;
    default:
        return 0; /* unknown ones are safe to ignore, and header updates leave them alone */
    }
}

static int qcow2_hdr_parse_exts(struct qcow2_hdr *h, struct qcow2_hdr_ext *ext, const uint8_t *head,
                                size_t end, struct err *err)
{
    size_t at = h->header_len;
    for (unsigned n = 0; at + QCOW2_EXT_HEAD_LEN <= end; n++) {
        uint32_t type = be32_get(head + at);
        uint32_t len = be32_get(head + at + 4);
        at += QCOW2_EXT_HEAD_LEN;
        if (type == QCOW2_EXT_END) {
            break;
        }
        if (n >= QCOW2_MAX_EXTENSIONS) {
            return err_set(err, -EINVAL, "more than %d header extensions", QCOW2_MAX_EXTENSIONS);
        }
        if (len > end - at) {
            return err_set(err, -EINVAL,
                           "header extension 0x%08" PRIx32 " has %" PRIu32
                           " bytes, only %zu are left for it",
                           type, len, end - at);
        }
        int rc = qcow2_hdr_parse_ext(h, ext, type, head + at, len, err);
        if (rc < 0) {
            return rc;
        }
        at += bits_align_up(len, 8);
    }
    return 0;
}

static int qcow2_hdr_parse_backing(struct qcow2_hdr *h, const uint8_t *head, size_t len,
                                   size_t *ext_end, struct err *err)
{
    uint64_t off = be64_get(head + QCOW2_H_BACKING_OFFSET);
    uint32_t size = be32_get(head + QCOW2_H_BACKING_SIZE);
    if (off == 0) {
        return 0;
    }
    if (size > QCOW2_BACKING_NAME_MAX || off < h->header_len || off > len || size > len - off) {
        return err_set(err, -EINVAL,
                       "the backing file's name (%" PRIu32 " bytes at offset %" PRIu64
                       ") must be at most %d bytes and inside the first cluster",
                       size, off, QCOW2_BACKING_NAME_MAX);
    }
    if (memchr(head + off, '\0', size) != NULL) {
        return err_set(err, -EINVAL, "the backing file's name has a zero byte in it");
    }
    memcpy(h->backing_name, head + off, size);
    h->backing_name[size] = '\0';
    *ext_end = MIN(*ext_end, (size_t)off);
    return 0;
}

/* Appends the names of the incompatible bits in `bits` to buf. */
static void qcow2_hdr_name_bits(const struct qcow2_hdr_ext *ext, uint64_t bits, char *buf,
                                size_t size)
{
    size_t used = 0;
    for (unsigned bit = 0; bit < 64; bit++) {
        if ((bits & BIT64(bit)) == 0) {
            continue;
        }
        char name[QCOW2_FEATURE_NAME_LEN + 1] = "";
        for (uint32_t at = 0; at + QCOW2_FEATURE_LEN <= ext->features_len;
             at += QCOW2_FEATURE_LEN) {
            const uint8_t *f = ext->features + at;
            if (f[0] == QCOW2_FEATURE_INCOMPAT && f[1] == bit) {
                memcpy(name, f + 2, QCOW2_FEATURE_NAME_LEN);
                break;
            }
        }
        for (char *c = name; *c != '\0'; c++) {
            if (*c < ' ' || *c > '~') {
                *c = '?'; /* it is going to a terminal */
            }
        }
        int n = snprintf(buf + used, size - used, "%sbit %u%s%s%s", used == 0 ? "" : ", ", bit,
                         name[0] != '\0' ? " (" : "", name, name[0] != '\0' ? ")" : "");
        used += (size_t)n;
        if (used >= size) {
            return;
        }
    }
}

static int qcow2_hdr_check_features(const struct qcow2_hdr *h, const struct qcow2_hdr_ext *ext,
                                    uint32_t crypt, struct err *err)
{
    uint64_t unknown =
        h->incompat & ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_COMPRESSION |
                        QCOW2_INCOMPAT_DATA_FILE | QCOW2_INCOMPAT_EXTENDED_L2);
    if (unknown != 0) {
        char names[512] = "";
        qcow2_hdr_name_bits(ext, unknown, names, sizeof(names));
        return err_set(err, -ENOTSUP, "the image uses incompatible features not known here: %s",
                       names);
    }
    if ((h->incompat & QCOW2_INCOMPAT_EXTENDED_L2) != 0 &&
        h->cluster_bits < QCOW2_CLUSTER_BITS_SUB) {
        return err_set(err, -EINVAL,
                       "the image has extended L2 entries and clusters of %u bytes, it must be "
                       "%u at least",
                       BIT(h->cluster_bits), BIT(QCOW2_CLUSTER_BITS_SUB));
    }
    if (crypt != QCOW2_CRYPT_NONE || ext->crypto) {
        return err_set(err, -ENOTSUP,
                       "the image is encrypted (method %" PRIu32
                       "), which is not supported; decrypt it with `qemu-img convert`",
                       crypt);
    }
    bool bit = (h->incompat & QCOW2_INCOMPAT_COMPRESSION) != 0;
    if (bit != (h->compression != QCOW2_COMPRESSION_ZLIB)) {
        return err_set(err, -EINVAL,
                       "compression type %u and its feature bit contradict each other",
                       h->compression);
    }
    if (h->compression > QCOW2_COMPRESSION_ZSTD) {
        return err_set(err, -ENOTSUP, "compression type %u is not known (0 zlib, 1 zstd)",
                       h->compression);
    }
    return 0;
}

/* A table of `len` bytes at `offset`: aligned, not over the header, within a file offset's range.
 */
static int qcow2_hdr_check_table(const struct qcow2_hdr *h, const char *name, uint64_t offset,
                                 uint64_t len, uint64_t max, struct err *err)
{
    uint64_t cs = UINT64_C(1) << h->cluster_bits;
    if (len > max) {
        return err_set(err, -EFBIG, "the %s has %" PRIu64 " bytes, the limit is %" PRIu64, name,
                       len, max);
    }
    if (offset % cs != 0 || offset == 0 || offset > (uint64_t)INT64_MAX - max) {
        return err_set(err, -EINVAL,
                       "the offset of the %s is %" PRIu64
                       ", it must be a multiple of the cluster size %" PRIu64 " and not zero",
                       name, offset, cs);
    }
    return 0;
}

static int qcow2_hdr_check_tables(const struct qcow2_hdr *h, struct err *err)
{
    unsigned l2_shift = (h->incompat & QCOW2_INCOMPAT_EXTENDED_L2) != 0 ? 4 : 3;
    uint64_t l2_reach_bits =
        2 * h->cluster_bits - l2_shift; /* guest bytes an L2 table maps, as log2 */
    if (h->size > (uint64_t)INT64_MAX) {
        return err_set(err, -EFBIG, "the virtual size is %" PRIu64 ", the limit is 2^63 - 1",
                       h->size);
    }
    uint64_t need = h->size == 0 ? 0 : ((h->size - 1) >> l2_reach_bits) + 1;
    if (need > QCOW2_MAX_L1_BYTES / 8) {
        return err_set(err, -EFBIG,
                       "a virtual size of %" PRIu64
                       " needs a level 1 table over the limit of %" PRIu64 " bytes",
                       h->size, QCOW2_MAX_L1_BYTES);
    }
    if (h->l1_size < need) {
        return err_set(err, -EINVAL,
                       "the level 1 table has %" PRIu32 " entries, a virtual size of %" PRIu64
                       " needs %" PRIu64,
                       h->l1_size, h->size, need);
    }
    int rc = 0;
    if (h->l1_size > 0) {
        rc = qcow2_hdr_check_table(h, "level 1 table", h->l1_offset, (uint64_t)h->l1_size * 8,
                                   QCOW2_MAX_L1_BYTES, err);
    }
    if (rc == 0 && h->rt_clusters == 0) {
        rc = err_set(err, -EINVAL, "the image has no refcount table");
    }
    if (rc == 0) {
        rc = qcow2_hdr_check_table(h, "refcount table", h->rt_offset,
                                   (uint64_t)h->rt_clusters << h->cluster_bits,
                                   QCOW2_MAX_REFTABLE_BYTES, err);
    }
    if (rc == 0 && h->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        rc = err_set(err, -EFBIG, "the image has %" PRIu32 " snapshots, the limit is %d",
                     h->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
    }
    if (rc == 0 && h->nb_snapshots > 0) {
        rc = qcow2_hdr_check_table(h, "snapshot table", h->snap_offset,
                                   (uint64_t)h->nb_snapshots * QCOW2_SN_LEN,
                                   QCOW2_MAX_SNAPTABLE_BYTES, err);
    }
    if (rc == 0 && (h->autoclear & QCOW2_AUTOCLEAR_BITMAPS) != 0 && h->has_bitmaps) {
        rc = qcow2_hdr_check_table(h, "bitmap directory", h->bm_dir_offset, h->bm_dir_size,
                                   QCOW2_MAX_BITMAP_DIR, err);
    }
    return rc;
}

static int qcow2_hdr_parse_v3(struct qcow2_hdr *h, const uint8_t *head, size_t len, struct err *err)
{
    if (h->version == 2) {
        h->refcount_order = 4;
        h->header_len = QCOW2_H_V2_LEN;
        return 0;
    }
    if (len < QCOW2_H_V3_LEN) {
        return err_set(err, -EINVAL, "the file ends inside the header");
    }
    h->incompat = be64_get(head + QCOW2_H_INCOMPATIBLE);
    h->compat = be64_get(head + QCOW2_H_COMPATIBLE);
    h->autoclear = be64_get(head + QCOW2_H_AUTOCLEAR);
    h->refcount_order = be32_get(head + QCOW2_H_REFCOUNT_ORDER);
    h->header_len = be32_get(head + QCOW2_H_HEADER_LEN);
    if (h->header_len < QCOW2_H_V3_LEN || h->header_len % 8 != 0 || h->header_len > len) {
        return err_set(err, -EINVAL,
                       "the header length is %" PRIu32
                       ", it must be a multiple of 8 from %d to the cluster size",
                       h->header_len, QCOW2_H_V3_LEN);
    }
    if (h->header_len > QCOW2_H_COMPRESSION) {
        h->compression = head[QCOW2_H_COMPRESSION];
    }
    if (h->refcount_order > QCOW2_REFCOUNT_ORDER_MAX) {
        return err_set(err, -EINVAL, "the refcount order is %" PRIu32 ", it must be 0 to %d",
                       h->refcount_order, QCOW2_REFCOUNT_ORDER_MAX);
    }
    return 0;
}

int qcow2_hdr_parse(const uint8_t *head, size_t len, struct qcow2_hdr *ret_hdr, struct err *err)
{
    struct qcow2_hdr *h = ret_hdr;
    struct qcow2_hdr_ext ext = { 0 };
    size_t cluster = 0;
    memset(h, 0, sizeof(*h));
    int rc = qcow2_hdr_probe_len(head, len, &cluster, err);
    if (rc < 0) {
        return rc;
    }
    len = MIN(len, cluster);
    h->version = be32_get(head + QCOW2_H_VERSION);
    if (h->version != 2 && h->version != 3) {
        return err_set(err, -ENOTSUP, "qcow2 version %" PRIu32 ", it must be 2 or 3", h->version);
    }
    h->cluster_bits = be32_get(head + QCOW2_H_CLUSTER_BITS);
    h->size = be64_get(head + QCOW2_H_SIZE);
    h->l1_size = be32_get(head + QCOW2_H_L1_SIZE);
    h->l1_offset = be64_get(head + QCOW2_H_L1_OFFSET);
    h->rt_offset = be64_get(head + QCOW2_H_REFTABLE_OFFSET);
    h->rt_clusters = be32_get(head + QCOW2_H_REFTABLE_CLUSTERS);
    h->nb_snapshots = be32_get(head + QCOW2_H_NB_SNAPSHOTS);
    h->snap_offset = be64_get(head + QCOW2_H_SNAPSHOTS_OFFSET);
    rc = qcow2_hdr_parse_v3(h, head, len, err);
    size_t ext_end = len;
    if (rc == 0) {
        rc = qcow2_hdr_parse_backing(h, head, len, &ext_end, err);
    }
    if (rc == 0) {
        rc = qcow2_hdr_parse_exts(h, &ext, head, ext_end, err);
    }
    if (rc == 0) {
        rc = qcow2_hdr_check_features(h, &ext, be32_get(head + QCOW2_H_CRYPT), err);
    }
    return rc == 0 ? qcow2_hdr_check_tables(h, err) : rc;
}

void qcow2_hdr_patch(const struct qcow2_hdr *h, uint8_t *sector)
{
    be64_put(sector + QCOW2_H_SIZE, h->size);
    be32_put(sector + QCOW2_H_L1_SIZE, h->l1_size);
    be64_put(sector + QCOW2_H_L1_OFFSET, h->l1_offset);
    be64_put(sector + QCOW2_H_REFTABLE_OFFSET, h->rt_offset);
    be32_put(sector + QCOW2_H_REFTABLE_CLUSTERS, h->rt_clusters);
    if (h->version >= 3) {
        be64_put(sector + QCOW2_H_INCOMPATIBLE, h->incompat);
        be64_put(sector + QCOW2_H_AUTOCLEAR, h->autoclear);
    }
}

static size_t qcow2_hdr_put_ext(uint8_t *buf, size_t at, uint32_t type, const void *data,
                                size_t len)
{
    be32_put(buf + at, type);
    be32_put(buf + at + 4, (uint32_t)len);
    memcpy(buf + at + QCOW2_EXT_HEAD_LEN, data, len);
    return at + QCOW2_EXT_HEAD_LEN + (size_t)bits_align_up(len, 8);
}

int qcow2_hdr_build(struct qcow2_hdr *h, uint8_t *buf, size_t len, struct err *err)
{
    uint8_t table[ARRAY_LEN(qcow2_hdr_features) * QCOW2_FEATURE_LEN] = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(qcow2_hdr_features); i++) {
        uint8_t *f = table + i * QCOW2_FEATURE_LEN;
        f[0] = qcow2_hdr_features[i].type;
        f[1] = qcow2_hdr_features[i].bit;
        memcpy(f + 2, qcow2_hdr_features[i].name, strlen(qcow2_hdr_features[i].name));
    }
    size_t name_len = strlen(h->backing_name);
    size_t fmt_len = strlen(h->backing_fmt);
    memset(buf, 0, len);
    h->header_len = h->version >= 3 ? QCOW2_H_V3_COMPRESSION_LEN : QCOW2_H_V2_LEN;
    be32_put(buf + QCOW2_H_MAGIC, QCOW2_MAGIC);
    be32_put(buf + QCOW2_H_VERSION, h->version);
    be32_put(buf + QCOW2_H_CLUSTER_BITS, h->cluster_bits);
    qcow2_hdr_patch(h, buf);
    if (h->version >= 3) {
        be64_put(buf + QCOW2_H_COMPATIBLE, h->compat);
        be32_put(buf + QCOW2_H_REFCOUNT_ORDER, h->refcount_order);
        be32_put(buf + QCOW2_H_HEADER_LEN, h->header_len);
        buf[QCOW2_H_COMPRESSION] = h->compression;
    }
    size_t at = h->header_len;
    size_t need = at + (fmt_len > 0 ? QCOW2_EXT_HEAD_LEN + bits_align_up(fmt_len, 8) : 0) +
                  QCOW2_EXT_HEAD_LEN + name_len;
    if (need > len) {
        return err_set(err, -ENOSPC,
                       "the backing file's name has %zu bytes, too long for a header of %zu bytes",
                       name_len, len);
    }
    if (fmt_len > 0) {
        at = qcow2_hdr_put_ext(buf, at, QCOW2_EXT_BACKING_FMT, h->backing_fmt, fmt_len);
    }
    /* Only names for messages: left out where a small cluster has no room. */
    if (h->version >= 3 && need + QCOW2_EXT_HEAD_LEN + sizeof(table) <= len) {
        at = qcow2_hdr_put_ext(buf, at, QCOW2_EXT_FEATURE_NAMES, table, sizeof(table));
    }
    at += QCOW2_EXT_HEAD_LEN; /* the end marker: zeroes */
    if (name_len > 0) {
        be64_put(buf + QCOW2_H_BACKING_OFFSET, at);
        be32_put(buf + QCOW2_H_BACKING_SIZE, (uint32_t)name_len);
        memcpy(buf + at, h->backing_name, name_len);
    }
    return 0;
}

int qcow2_hdr_update(struct qcow2 *q)
{
    uint8_t *sector = qcow2_io_buf(sizeof(q->hdr_sector));
    if (sector == NULL) {
        return -ENOMEM;
    }
    memcpy(sector, q->hdr_sector, sizeof(q->hdr_sector));
    qcow2_hdr_patch(&q->hdr, sector);
    int rc = qcow2_io_write(q, 0, sector, sizeof(q->hdr_sector));
    if (rc == 0) {
        memcpy(q->hdr_sector, sector, sizeof(q->hdr_sector));
        rc = qcow2_io_flush(q);
    }
    free(sector);
    return rc;
}
