/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New VHD images, for fmt_vhd.c. */
#ifndef BLOCK_VHD_CREATE_H
#define BLOCK_VHD_CREATE_H

#include "block/blk.h"

/* Where blocks' data begin in images that we write to, so that O_DIRECT does not have to copy. */
#define VHD_CREATE_ALIGN 4096

/* Of a footer or dynamic header of `len` bytes, the checksum at `field` not counted. */
uint32_t vhd_create_checksum(const uint8_t *data, size_t len, size_t field);

/* The class's create(). */
MUST_USE int vhd_create(struct blk *file, const struct blk_create_opts *opts, struct err *err);

#endif
