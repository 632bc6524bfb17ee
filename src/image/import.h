/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks that others have made, as images of the store: recognised by their content, copied, and,
 * where they are appliances of ours, with kernel and initrd taken out for direct boot.
 */
#ifndef IMAGE_IMPORT_H
#define IMAGE_IMPORT_H

#include "block/blk_convert.h"
#include "image/store.h"

/* What a file's content says it is: a format's name, or "ova"; NULL: nothing known, which raw disks
 * are. A guest can write any header into a raw disk: only for files that the user hands over. */
MUST_USE int import_probe(const char *path, const char **ret_format, struct err *err);

struct import_opts {
    const char *path;
    const char *format; /* NULL: import_probe(), nothing known is refused */
    const char *ref;    /* NAME:TAG */
    const char *sha256; /* that the file must have; NULL: not looked at */
    struct blk_convert_opts convert;
};

/* -EILSEQ: the wrong hash. Nothing is left behind when it fails. */
MUST_USE int import_run(struct store *s, const struct import_opts *o, struct store_image *ret_image,
                        struct err *err);

#endif
