/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scatter lists: walking, cutting, copying, filling. `skip` counts bytes from the list's beginning;
 * skip + len must lie inside the list. No state, any thread.
 */
#ifndef BLOCK_BLK_IOV_H
#define BLOCK_BLK_IOV_H

#include <sys/uio.h>

#include "base/bits.h"

/* Sum of the lengths in bytes. The caller knows that it cannot overflow. */
uint64_t blk_iov_len(const struct iovec *iov, int niov);
/* The list for [skip, skip + len) goes into `dst`, which has room for `niov` entries. Returns how
 * many are used. */
int blk_iov_slice(struct iovec *dst, const struct iovec *iov, int niov, uint64_t skip,
                  uint64_t len);
/* Moves *iov and *niov on by `done` bytes, changing the entries. */
void blk_iov_advance(struct iovec **iov, int *niov, size_t done);
void blk_iov_zero(const struct iovec *iov, int niov, uint64_t skip, uint64_t len);
void blk_iov_from_buf(const struct iovec *iov, int niov, uint64_t skip, const void *buf,
                      size_t len);
void blk_iov_to_buf(const struct iovec *iov, int niov, uint64_t skip, void *buf, size_t len);
/* True when each address and length is a multiple of `align` (a power of two). */
bool blk_iov_aligned(const struct iovec *iov, int niov, uint32_t align);
/* True when all `len` bytes are 0. */
bool blk_iov_buf_is_zero(const void *buf, size_t len);

#endif
