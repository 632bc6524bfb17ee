/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ext4 file system of an image: made by mke2fs, filled and read by libext2fs, at an offset of
 * the disk's file. No mount, no loop device, no privilege.
 *
 * mke2fs could fill it itself (-d), but takes inode change times and the order of names from the
 * folder it copies; here all comes from the entry, so the same entries make the same bytes.
 *
 *     rootfs_make(&params, &err);
 *     rootfs_open(path, offset, true, epoch, &fs, &err);
 *     rootfs_add_archive(fs, ...);
 *     rootfs_close(fs, &err);
 *
 * One thread. What is read may be hostile (an imported disk): sizes have limits.
 */
#ifndef IMAGE_ROOTFS_H
#define IMAGE_ROOTFS_H

#include <sys/types.h>

#include "image/child.h"

struct rootfs;

struct rootfs_params {
    const char *path;
    uint64_t offset; /* of the file system in the file, a multiple of 4 KiB */
    uint64_t size;   /* bytes, a multiple of 4 KiB */
    const char *uuid;
    const char *label; /* at most 16 characters */
    int64_t epoch;     /* the time of everything that has none of its own, seconds since 1970 */
    const struct child_stop *stop;
};

/* Makes an empty file system. */
MUST_USE int rootfs_make(const struct rootfs_params *p, struct err *err);

/* `epoch` is used for writing only. -EINVAL: no ext4 file system there. */
MUST_USE int rootfs_open(const char *path, uint64_t offset, bool writable, int64_t epoch,
                         struct rootfs **ret_fs, struct err *err);
/* Writes what is left. Accepts NULL. */
MUST_USE int rootfs_close(struct rootfs *take_fs, struct err *err);

struct rootfs_entry {
    const char *path; /* "etc/hostname"; parents that are missing are made, 0755 */
    mode_t mode;      /* with the type: file, folder, symbolic link or FIFO */
    uint32_t uid, gid;
    int64_t mtime;
    const char *target;   /* symbolic link: where to; else NULL */
    const char *hardlink; /* another path of the same file; NULL: none */
};

/* Gives up to `len` bytes of the file's content: 0 at its end, or a negative errno. */
typedef ssize_t rootfs_read_fn(void *opaque, void *buf, size_t len, struct err *err);

/* Adds an entry. A folder that is there gets the new owner, mode and time; a file that is there is
 * -EEXIST. -ENOSPC: the file system is full. `read` NULL: an empty file. */
MUST_USE int rootfs_add(struct rootfs *fs, const struct rootfs_entry *e, rootfs_read_fn *read,
                        void *opaque, struct err *err);
/* Sets an extended attribute of what was added last, such as "security.capability". */
MUST_USE int rootfs_set_xattr(struct rootfs *fs, const char *name, const void *value, size_t len,
                              struct err *err);

/* A file's content, links followed; malloc()ed with a 0 behind it. -ENOENT, -EFBIG over `max`. */
MUST_USE int rootfs_read_file(struct rootfs *fs, const char *path, size_t max, char **ret_data,
                              size_t *ret_len, struct err *err);
/* Calls `fn` for each name in a folder; a result other than 0 ends the walk. -ENOENT. */
MUST_USE int rootfs_list(struct rootfs *fs, const char *path,
                         int (*fn)(void *opaque, const char *name), void *opaque, struct err *err);
bool rootfs_exists(struct rootfs *fs, const char *path);

#endif
