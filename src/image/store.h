/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The image store: finished disks that are never written again, and what is made from them.
 *
 *     STORE/lock                  flock: held for each change of what follows, for moments
 *     STORE/images/ID/            read-only: image.json, disk.raw, vmlinuz, initrd.img
 *     STORE/tags/NAME/TAG         the ID in one line
 *     STORE/vms/NAME/             a persistent VM: vm.json, disk.qcow2 (on its image's disk.raw)
 *     STORE/tmp/NAME/             somebody's work; flock on the folder while its owner lives
 *     STORE/names/REF             flock: one build of that reference at a time
 *     STORE/debs/                 packages downloaded before, with their digests
 *     STORE/bases/                what all images of a suite have in common (build_base.c)
 *
 * Invariants: 1. A folder in images/ is complete: it is made in tmp/ and renamed. 2. An ID is the
 * digest of its content, so the same content is there once. 3. A folder in tmp/ whose flock is free
 * has lost its owner and is removed by the next who opens the store. 4. An image that a VM or a
 * folder in tmp/ (its file `image`) stands on is not removed.
 *
 * Any number of processes; one thread a struct store.
 */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

#include "base/bits.h"
#include "base/err.h"
#include "image/digest.h"

#define STORE_NAME_MAX  64 /* characters of a name, of a tag */
#define STORE_PATH_MAX  3072
#define STORE_SHORT_HEX 12 /* digits of an ID that lists show */

struct store;

/* What is known of an image: the fields of image.json. Strings are owned; NULL where unknown. */
struct store_image {
    char id[DIGEST_HEX + 1];
    char *arch;      /* "amd64" or "i386" */
    char *os;        /* "Debian GNU/Linux 12 (bookworm)" */
    char *recipe;    /* name of what it was made from */
    char *created;   /* UTC, ISO 8601 */
    char *login;     /* one sentence on how to log in */
    char *append;    /* kernel command line for direct boot */
    bool kernel;     /* vmlinuz and initrd.img are there */
    bool agent;      /* commands can be run inside: docs/agent.md */
    uint64_t size;   /* of the disk, bytes */
    uint64_t used;   /* of the disk's data, bytes */
    uint64_t memory; /* bytes that a VM of it should have; 0: no wish */
};

void store_image_done(struct store_image *image);

/* `dir` NULL: $POSADA_STORE, else /var/lib/posada for root, else $XDG_DATA_HOME/posada
 * (~/.local/share/posada). Made where missing. Removes what dead processes left in tmp/. -EACCES,
 * -EROFS and the like name the folder. */
MUST_USE int store_open(const char *dir, struct store **ret_store, struct err *err);
void store_close(struct store *s); /* accepts NULL */
const char *store_dir(const struct store *s);

/* "STORE/" and a format into `buf` of STORE_PATH_MAX bytes. Returns `buf`. */
char *store_path(const struct store *s, char *buf, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Splits "debian:12" (or "debian": tag becomes ""). -EINVAL: a name has letters, digits, "._-" and
 * begins with a letter or digit. */
MUST_USE int store_parse_ref(const char *ref, char name[STORE_NAME_MAX + 1],
                             char tag[STORE_NAME_MAX + 1], struct err *err);

/* Finds an image by "NAME:TAG", "NAME" (its newest tag) or at least 4 digits of its ID. -ENOENT. */
MUST_USE int store_find(struct store *s, const char *ref, struct store_image *ret_image,
                        struct err *err);

/* Calls `fn` for each image, with its references ("debian:12", NULL-terminated), by name. */
typedef int store_image_fn(void *opaque, const struct store_image *image, char **refs,
                           struct err *err);
MUST_USE int store_list(struct store *s, store_image_fn *fn, void *opaque, struct err *err);

/* A folder of one's own in tmp/, locked until store_tmp_free(), which removes it. */
struct store_tmp {
    char path[STORE_PATH_MAX];
    int fd;
};

MUST_USE int store_tmp_new(struct store *s, struct store_tmp *ret_tmp, struct err *err);
/* Notes that this folder's owner uses an image (invariant 4). -ENOENT when it has just gone. */
MUST_USE int store_tmp_hold(struct store *s, struct store_tmp *tmp, const char *id,
                            struct err *err);
void store_tmp_free(struct store_tmp *tmp);

/* Makes the folder "image" in `tmp`, which has disk.raw and perhaps vmlinuz and initrd.img, an
 * image of the store: works out digest and ID (into `image`), writes image.json, moves it, sets the
 * tag if `ref` is not NULL. An image that is there already is left as it is. `step`: see
 * digest_disk().
 */
MUST_USE int store_add(struct store *s, struct store_tmp *tmp, struct store_image *image,
                       const char *ref, int (*step)(void *opaque, uint64_t bytes, struct err *err),
                       void *opaque, struct err *err);

/* Lets NAME:TAG mean the image `id`; moves it when it meant another. */
MUST_USE int store_tag(struct store *s, const char *ref, const char *id, struct err *err);
/* Takes a reference away, and the image when that was the last one (with an ID as `ref`: the image
 * with all its references). -EBUSY when a VM stands on it: the text names it. */
MUST_USE int store_rm(struct store *s, const char *ref, struct err *err);
/* Removes images without a reference that nobody uses and the kept packages and bases; tells the
 * bytes. */
MUST_USE int store_prune(struct store *s, uint64_t *ret_bytes, struct err *err);

/* Waits until nobody else builds `ref`; calls `waiting` once if it has to. A descriptor to close.
 */
MUST_USE int store_lock_name(struct store *s, const char *ref, void (*waiting)(void *opaque),
                             void *opaque, struct err *err);

/* Removes a folder and all that is in it; follows no link. Errors are ignored: what cannot be
 * removed stays. */
void store_remove_tree(const char *path);

#endif
