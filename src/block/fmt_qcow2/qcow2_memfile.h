/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests and the fuzz target: a qcow2 image over a file in memory, made from and given as bytes.
 */
#ifndef BLOCK_FMT_QCOW2_QCOW2_MEMFILE_H
#define BLOCK_FMT_QCOW2_QCOW2_MEMFILE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/blk_int.h"

#define QCOW2_MEMFILE_MAX (16 * MIB)

/* The bytes outlive the node, so that an image can be opened again. */
struct qcow2_memfile {
    uint8_t *data;
    size_t size;
};

struct qcow2_memfile_state {
    struct qcow2_memfile *mem;
};

static inline struct qcow2_memfile *qcow2_memfile_of(const struct blk *blk)
{
    return ((struct qcow2_memfile_state *)blk->state)->mem;
}

static inline int qcow2_memfile_fit(struct qcow2_memfile *m, uint64_t end)
{
    if (end > QCOW2_MEMFILE_MAX) {
        return -ENOSPC;
    }
    if (end > m->size) {
        uint8_t *data = realloc(m->data, end);
        if (data == NULL) {
            return -ENOMEM;
        }
        memset(data + m->size, 0, end - m->size);
        m->data = data;
        m->size = end;
    }
    return 0;
}

/* `arg` is the address of the struct qcow2_memfile (blk_node_new() passes it through). */
static inline int qcow2_memfile_open(struct blk *blk, const struct blk_opts *opts, const char *arg,
                                     struct err *err)
{
    (void)opts;
    (void)err;
    struct qcow2_memfile_state *s = blk->state;
    s->mem = (struct qcow2_memfile *)(uintptr_t)arg;
    blk->size = s->mem->size;
    blk->regular = true;
    return 0;
}

static inline int qcow2_memfile_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov,
                                       int niov, uint64_t len)
{
    const struct qcow2_memfile *m = qcow2_memfile_of(blk);
    uint64_t inside = offset >= m->size ? 0 : MIN(len, m->size - offset);
    if (inside > 0) {
        blk_iov_from_buf(iov, niov, 0, m->data + offset, inside);
    }
    blk_iov_zero(iov, niov, inside, len - inside);
    return 0;
}

static inline int qcow2_memfile_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov,
                                        int niov, uint64_t len)
{
    struct qcow2_memfile *m = qcow2_memfile_of(blk);
    int rc = qcow2_memfile_fit(m, offset + len);
    if (rc == 0) {
        blk_iov_to_buf(iov, niov, 0, m->data + offset, len);
    }
    return rc;
}

static inline int qcow2_memfile_flush(struct blk *blk)
{
    (void)blk;
    return 0;
}

static inline int qcow2_memfile_truncate(struct blk *blk, uint64_t size, struct err *err)
{
    struct qcow2_memfile *m = qcow2_memfile_of(blk);
    int rc = qcow2_memfile_fit(m, size);
    if (rc < 0) {
        return err_set(err, rc, "no room in memory");
    }
    m->size = size;
    blk->size = size;
    return 0;
}

static const struct blk_class qcow2_memfile_class = {
    .name = "memory",
    .kind = BLK_KIND_PROTOCOL,
    .state_size = sizeof(struct qcow2_memfile_state),
    .open = qcow2_memfile_open,
    .preadv = qcow2_memfile_preadv,
    .pwritev = qcow2_memfile_pwritev,
    .flush = qcow2_memfile_flush,
    .truncate = qcow2_memfile_truncate,
};

/* A node over `m`; only for one open at a time. */
static inline int qcow2_memfile_node(struct qcow2_memfile *m, const struct blk_opts *opts,
                                     struct blk **ret_node, struct err *err)
{
    return blk_node_new(&qcow2_memfile_class, opts, (const char *)(uintptr_t)m, NULL, NULL, 0,
                        ret_node, err);
}

/* Opens `m` as a qcow2 image; opts->path is set here. */
static inline int qcow2_memfile_image(struct qcow2_memfile *m, struct blk_opts opts,
                                      struct blk **ret_blk, struct err *err)
{
    struct blk *file = NULL;
    opts.path = "memory";
    opts.no_backing = true;
    int rc = qcow2_memfile_node(m, &opts, &file, err);
    return rc < 0 ? rc : blk_node_new(&fmt_qcow2_class, &opts, NULL, file, NULL, 0, ret_blk, err);
}

/* Makes an empty image of `size` bytes; `params` as in struct blk_create_opts. */
static inline int qcow2_memfile_create(struct qcow2_memfile *m, uint64_t size,
                                       const char *const *params, struct err *err)
{
    struct blk_opts opts = { .path = "memory" };
    struct blk_create_opts create = { .path = "memory", .size = size, .params = params };
    struct blk *file = NULL;
    m->size = 0;
    int rc = qcow2_memfile_node(m, &opts, &file, err);
    if (rc == 0) {
        rc = fmt_qcow2_class.create(file, &create, err);
        blk_close(file);
    }
    return rc;
}

#endif
