/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The small initial RAM disk of our images: one static program as /init and the modules that a disk
 * and its file system need, in the order of loading. About 2 MiB, a fraction of a second to start.
 *
 * The archive is written directly (newc format, Linux Documentation/driver-api/early-userspace/
 * buffer-format.rst of 6.1), uncompressed, and depends on nothing but its input.
 *
 *     /init             the program (src/agent)
 *     /modules/NN-name  NN: the place in the order
 *
 * Used by the image builder and, when a kernel is upgraded inside an image, by the agent.
 */
#ifndef IMAGE_INITRD_H
#define IMAGE_INITRD_H

#include "base/bits.h"
#include "base/err.h"

/* Reads a whole file of the system that the initrd is for: "lib/modules/VERSION/modules.dep".
 * malloc()ed with a 0 behind it; -ENOENT. */
typedef int initrd_read_fn(void *opaque, const char *path, char **ret_data, size_t *ret_len,
                           struct err *err);

struct initrd_params {
    const char *version; /* of the kernel: "6.1.0-56-cloud-amd64" */
    const void *init;    /* the static program */
    size_t init_len;
    initrd_read_fn *read;
    void *opaque;
};

/* The archive, malloc()ed. -ENOENT: no modules for that kernel. */
MUST_USE int initrd_make(const struct initrd_params *p, void **ret_data, size_t *ret_len,
                         struct err *err);

#endif
