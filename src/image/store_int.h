/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by the files of the store. */
#ifndef IMAGE_STORE_INT_H
#define IMAGE_STORE_INT_H

#include <jansson.h>

#include "image/store.h"

struct store {
    char dir[STORE_PATH_MAX - 512]; /* absolute; room for what comes behind it */
};

/* Takes the store's lock until the descriptor is closed. */
MUST_USE int store_lock(const struct store *s, struct err *err);

/* A folder's names but "." and "..", sorted; an absent folder has none. NULL-terminated, for
 * store_names_free(). Aborts on no memory. */
char **store_names(const char *path);
void store_names_free(char **names);

/* The file's text without the end of line, at most 64 KiB; for free(). */
MUST_USE int store_read_text(const char *path, char **ret_text, struct err *err);
/* Replaces the file in one step. */
MUST_USE int store_write_text(const char *path, const char *text, struct err *err);

MUST_USE int store_image_load(const struct store *s, const char *id, struct store_image *ret_image,
                              struct err *err);
MUST_USE int store_image_save(const char *path, const struct store_image *image, struct err *err);

/* Calls `fn` for each reference and its ID; a result other than 0 ends the walk and is returned. */
typedef int store_ref_fn(void *opaque, const char *name, const char *tag, const char *id);
int store_each_ref(const struct store *s, store_ref_fn *fn, void *opaque);

/* Who stands on the image: "VM 'web'" or "a running VM or build" in `who`. Store's lock held. */
bool store_in_use(const struct store *s, const char *id, char *who, size_t len);

#endif
