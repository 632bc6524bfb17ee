/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tar archives as the content of a file system (by libarchive), and a set of files of
 * our own that goes on top.
 *
 * One thread.
 */
#ifndef IMAGE_TARBALL_H
#define IMAGE_TARBALL_H

#include "image/rootfs.h"

/* ---- Files of our own ---- */

struct tarball_file {
    char *path; /* relative */
    mode_t mode;
    char *data; /* a symbolic link: its target */
    size_t len;
};

struct tarball_files {
    struct tarball_file *file;
    size_t count;
};

/* Adds a file; a later one of the same path replaces it. Aborts on no memory. */
void tarball_files_add(struct tarball_files *f, const char *path, mode_t mode, const void *data,
                       size_t len);
void tarball_files_print(struct tarball_files *f, const char *path, mode_t mode, const char *fmt,
                         ...) PRINTF_LIKE(4, 5);
void tarball_files_link(struct tarball_files *f, const char *path, const char *target);
void tarball_files_done(struct tarball_files *f);
/* All files as a tar archive, owned by root, with this time. */
MUST_USE int tarball_files_tar(const struct tarball_files *f, int64_t epoch, const char *path,
                               struct err *err);
MUST_USE int tarball_files_fill(const struct tarball_files *f, int64_t epoch, struct rootfs *fs,
                                struct err *err);

/* ---- Sources ---- */

struct tarball_source {
    const char *tar;     /* a file, compressed or not; else: */
    struct child *child; /* writes a tar archive */
    int64_t epoch;       /* no time is later than this */
    const struct child_stop *stop;
    /* What is left out: paths for which it is true. May be NULL. */
    bool (*skip)(void *opaque, const char *path);
    /* Called after each entry with the bytes so far. May be NULL. */
    void (*step)(void *opaque, uint64_t bytes);
    void *opaque;
};

/* Copies all of a source into the file system: folders, files, links, FIFOs, owners, capabilities.
 * Device nodes and sockets are left out (udev makes them), and what is there already. */
MUST_USE int tarball_fill(const struct tarball_source *src, struct rootfs *fs, struct err *err);

#endif
