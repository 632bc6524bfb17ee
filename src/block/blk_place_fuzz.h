/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fuzz targets of the formats over blk_place.c. Each makes a good image and spoils it as the
 * input says: bytes at places. Then the image is opened, looked at, read, and written where that is
 * allowed. What must hold: no crash, no hang, and an image that was opened for writing can be
 * opened again after it was written and closed.
 *
 * Input: one byte of choices, then patches: place (3 bytes), length (1 byte, 0 to 31), bytes.
 */
#ifndef BLOCK_BLK_PLACE_FUZZ_H
#define BLOCK_BLK_PLACE_FUZZ_H

#include "base/log.h"
#include "block/blk_place_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_info(void *opaque, const struct blk_info_item *item)
{
    size_t *n = opaque;
    *n += item->string != NULL ? strlen(item->string) : 1;
}

/* Applies the patches to `m`, or takes them back where `base` is given. */
static void fuzz_patch(struct qcow2_memfile *m, const struct qcow2_memfile *base,
                       const uint8_t *data, size_t size)
{
    while (size >= 4) {
        size_t at = data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16;
        size_t len = MIN((size_t)(data[3] & 31), size - 4);
        if (data[3] == 0xff && at >= 512 && base == NULL) { /* cut the file short */
            m->size = MIN(m->size, at);
        }
        if (at < m->size) {
            memcpy(m->data + at, base != NULL ? base->data + at : data + 4, MIN(len, m->size - at));
        }
        data += 4 + len;
        size -= 4 + len;
    }
}

/* Results do not matter: a hostile image may refuse anything. */
static void fuzz_use(struct blk *blk, unsigned choice)
{
    static uint8_t buf[140000];
    struct err err = ERR_INIT;
    struct blk_extent ext;
    struct blk_map map;
    uint64_t size = blk_size(blk);
    size_t n = 0;
    (void)blk_info(blk, fuzz_info, &n, &err);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t at = i < 4 ? i * (choice + 1) * UINT64_C(512) : size / 12 * i;
        at = at % size / 512 * 512;
        uint64_t len = MIN(sizeof(buf) / 512 * 512, size - at);
        (void)blk_status(blk, at, len, &ext);
        (void)blk_pread(blk, at, buf, i % 3 == 0 ? len : MIN(len, UINT64_C(512)));
        (void)blk_map(blk, (i & 1) != 0, at, len, &map);
        if (blk_read_only(blk)) {
            continue;
        }
        switch ((choice + i) & 3) {
        case 0:
            (void)blk_pwrite(blk, at, buf, MIN(len, UINT64_C(1536)));
            break;
        case 1:
            (void)blk_write_zeroes(blk, at, len, (choice & 1) != 0);
            break;
        case 2:
            (void)blk_discard(blk, at, len);
            break;
        default:
            (void)blk_flush(blk);
            break;
        }
    }
}

/* Opens, uses, closes, opens again. */
static void fuzz_image(struct qcow2_memfile *m, const struct blk_class *cls, bool read_only,
                       unsigned choice)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct blk_check check = { 0 };
    if (fake_open(m, cls, read_only, &blk, &err) < 0) {
        return;
    }
    fuzz_use(blk, choice);
    bool flushed = blk_flush(blk) == 0;
    (void)blk_check(blk, 0, &check, &err);
    blk_close(blk);
    if (flushed && fake_open(m, cls, true, &blk, &err) < 0) {
        abort();
    }
    if (flushed) {
        blk_close(blk);
    }
}

/* Runs one input over `base`, which stays. `sums` mends checksums, or is NULL; whether it is called
 * is the input's choice. */
static void fuzz_run(const struct qcow2_memfile *base, const struct blk_class *cls, bool read_only,
                     void (*sums)(struct qcow2_memfile *m), const uint8_t *data, size_t size)
{
    static struct qcow2_memfile kept[4]; /* copies of the bases that are only read */
    static unsigned n;
    struct qcow2_memfile m = { .size = base->size };
    struct qcow2_memfile *copy = NULL;
    if (size < 1) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        copy = kept[i].size == base->size ? &kept[i] : copy;
    }
    m.data = copy != NULL ? copy->data : malloc(base->size);
    if (m.data == NULL || n == ARRAY_LEN(kept)) {
        abort();
    }
    if (copy == NULL) {
        memcpy(m.data, base->data, base->size);
    }
    if (copy == NULL && read_only) {
        kept[n++] = m;
    }
    log_set_level(LOG_ERROR);
    fuzz_patch(&m, NULL, data + 1, size - 1);
    if (sums != NULL && (data[0] & 1) == 0) {
        sums(&m);
    }
    fuzz_image(&m, cls, read_only || (data[0] & 2) != 0, data[0] >> 2);
    if (!read_only) {
        free(m.data);
        return;
    }
    m.size = base->size;
    fuzz_patch(&m, base, data + 1, size - 1);
    if (sums != NULL) {
        sums(&m);
    }
}

#endif
