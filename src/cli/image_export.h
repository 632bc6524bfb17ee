/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing an image's disk to a file of any format. */
#ifndef CLI_IMAGE_EXPORT_H
#define CLI_IMAGE_EXPORT_H

#include "image/store.h"

/* NULL-terminated. */
extern const char *const image_export_formats[];

/* -EINVAL: not one of them. */
MUST_USE int image_export_format(const char *format, struct err *err);
/* `name`: of the machine, in an OVA. -EEXIST without `force`. */
MUST_USE int image_export_write(struct store *s, const struct store_image *image, const char *name,
                                const char *path, const char *format, bool force, struct err *err);

#endif
