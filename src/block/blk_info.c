/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Facts about an image, one at a time; the list of the core comes first, then the format's own. */
#include <errno.h>

#include "block/blk_int.h"

static void emit(blk_info_fn *fn, void *opaque, const char *key, enum blk_info_type type,
                 const char *string, uint64_t number)
{
    struct blk_info_item item = { .key = key, .type = type, .string = string, .number = number };
    fn(opaque, &item);
}

/* The protocol under `blk`. */
static struct blk *protocol_of(struct blk *blk)
{
    while (blk->file != NULL) {
        blk = blk->file;
    }
    return blk;
}

int blk_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err)
{
    struct blk *file = protocol_of(blk);
    emit(fn, opaque, "path", BLK_INFO_STRING, blk->path, 0);
    emit(fn, opaque, "format", BLK_INFO_STRING, blk->cls->name, 0);
    emit(fn, opaque, "virtual_size", BLK_INFO_BYTES, NULL, blk->size);
    int rc = file->cls->info == NULL ? 0 : file->cls->info(file, fn, opaque, err);
    if (rc == 0 && blk != file && blk->cls->info != NULL) {
        rc = blk->cls->info(blk, fn, opaque, err);
    }
    return rc < 0 ? err_prefix(err, "image '%s': ", blk->path) : 0;
}
