/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options "key=value" of struct blk_create_opts, for formats. No state, any thread. */
#ifndef BLOCK_BLK_PARAM_H
#define BLOCK_BLK_PARAM_H

#include "block/blk.h"

#define BLK_PARAM_UUID_LEN 16

struct blk_param {
    const char *key;
    const char *value; /* set by blk_param_parse() when the option was given, else NULL */
};

/* Sorts opts->params into `table` (`n` rows). -EINVAL names an option that is not in it, or is
 * there twice, or has no value. */
MUST_USE int blk_param_parse(const struct blk_create_opts *opts, struct blk_param *table, size_t n,
                             struct err *err);

/* The index of `text` in the NULL-terminated `choices`; NULL is 0. -EINVAL lists them. */
MUST_USE int blk_param_choice(const char *key, const char *text, const char *const *choices,
                              struct err *err);

/* The 16 bytes of "01234567-89ab-cdef-0123-456789abcdef" in the order of the text, or a random UUID
 * (version 4, RFC 4122) for NULL. */
MUST_USE int blk_param_uuid(const char *text, uint8_t uuid[static BLK_PARAM_UUID_LEN],
                            struct err *err);

/* Between the order of the text and Microsoft's, which has the first three fields little-endian. */
void blk_param_uuid_swap(uint8_t uuid[static BLK_PARAM_UUID_LEN]);

/* The text of a UUID, 37 bytes with the end. */
void blk_param_uuid_text(const uint8_t uuid[static BLK_PARAM_UUID_LEN], char text[static 37]);

#endif
