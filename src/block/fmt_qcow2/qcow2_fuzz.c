/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target: any bytes as a qcow2 image. It is opened, looked at, read, written, checked,
 * mended and opened again. What must hold: no crash, no hang, no write past the file's limit, and
 * an image that was mended without a rest of errors is clean and can be written.
 *
 * Input: one byte of choices, then the image.
 */
#include "base/log.h"
#include "block/fmt_qcow2/qcow2_memfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_info(void *opaque, const struct blk_info_item *item)
{
    size_t *n = opaque;
    *n += item->string != NULL ? strlen(item->string) : 1;
}

/* Results do not matter: a hostile image may refuse anything. */
static void use(struct blk *blk, unsigned choice)
{
    static uint8_t buf[70000];
    struct err err = ERR_INIT;
    struct blk_extent ext;
    struct blk_map map;
    uint64_t size = blk_size(blk);
    size_t n = 0;
    (void)blk_info(blk, on_info, &n, &err);
    for (unsigned i = 0; i < 12 && size >= 512; i++) {
        uint64_t at = i < 8 ? i * (choice + 1) * UINT64_C(512) : size / 12 * i;
        at = at % size / 512 * 512;
        uint64_t len = MIN(sizeof(buf) / 512 * 512, size - at);
        (void)blk_status(blk, at, len, &ext);
        (void)blk_pread(blk, at, buf, i % 3 == 0 ? len : MIN(len, UINT64_C(512)));
        if (blk_map(blk, (i & 1) != 0, at, len, &map) == 0 && map.pinned != NULL) {
            map.pinned->cls->unmap(map.pinned, &map);
        }
        if (blk_read_only(blk)) {
            continue;
        }
        switch ((choice >> 2) + i & 3) {
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

static void mend(struct qcow2_memfile *m)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct blk_check check = { 0 };
    if (qcow2_memfile_image(m, (struct blk_opts){ 0 }, &blk, &err) < 0) {
        return;
    }
    unsigned all = BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS;
    int rc = blk_check(blk, all, &check, &err);
    blk_close(blk);
    if (rc < 0 || check.errors != check.errors_fixed || check.leaks != check.leaks_fixed) {
        return;
    }
    struct blk_check again = { 0 };
    if (qcow2_memfile_image(m, (struct blk_opts){ .read_only = true }, &blk, &err) < 0 ||
        blk_check(blk, 0, &again, &err) < 0 || again.errors != 0 || again.leaks != 0) {
        abort(); /* it said that all is well now */
    }
    blk_close(blk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    if (size < 1 || size > MIB) {
        return 0;
    }
    log_set_level(LOG_ERROR);
    struct qcow2_memfile m = { .data = malloc(size), .size = size - 1 };
    if (m.data == NULL) {
        return 0;
    }
    memcpy(m.data, data + 1, size - 1);
    struct blk_opts opts = { .read_only = (data[0] & 1) != 0 };
    if ((data[0] & 2) != 0 && opts.read_only) {
        opts.snapshot = "1";
    }
    if (qcow2_memfile_image(&m, opts, &blk, &err) == 0) {
        use(blk, data[0] >> 2);
        if ((data[0] & 0x80) != 0 && !opts.read_only) {
            (void)blk_resize(blk, (blk_size(blk) + 70000) / 512 * 512, &err);
            (void)blk_resize(blk, 1536, &err);
        }
        blk_close(blk);
    }
    mend(&m);
    free(m.data);
    return 0;
}
