/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_window.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct window {
    struct blk *base;
    uint64_t offset;
    uint64_t len; /* 0 = open-ended, for writing */
};

static int window_open(struct blk *blk, const struct blk_opts *opts, const char *arg,
                       struct err *err)
{
    struct window *w = blk->state;
    (void)opts;
    (void)err;
    *w = *(const struct window *)(const void *)arg;
    blk->size = w->len;
    blk->dev = w->base->dev;
    blk->ino = w->base->ino;
    blk->regular = w->base->regular;
    return 0;
}

/* How much of a range is inside of the window. */
static uint64_t inside(const struct blk *blk, uint64_t offset, uint64_t len)
{
    uint64_t size = blk->size;
    return offset >= size ? 0 : MIN(len, size - offset);
}

static int window_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                         uint64_t len)
{
    const struct window *w = blk->state;
    uint64_t n = inside(blk, offset, len);
    if (n == len) {
        return blk_preadv(w->base, w->offset + offset, iov, niov);
    }
    blk_iov_zero(iov, niov, n, len - n);
    if (n == 0) {
        return 0;
    }
    CLEANUP_FREE struct iovec *part = calloc((size_t)niov, sizeof(*part));
    if (part == NULL) {
        return -ENOMEM;
    }
    int count = blk_iov_slice(part, iov, niov, 0, n);
    return blk_preadv(w->base, w->offset + offset, part, count);
}

static int window_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                          uint64_t len)
{
    const struct window *w = blk->state;
    (void)len;
    return blk_pwritev(w->base, w->offset + offset, iov, niov);
}

static int window_flush(struct blk *blk)
{
    const struct window *w = blk->state;
    return blk_flush(w->base);
}

static int window_status(struct blk *blk, uint64_t offset, uint64_t len,
                         struct blk_extent *ret_extent)
{
    const struct window *w = blk->state;
    uint64_t n = inside(blk, offset, len);
    if (n == 0) {
        *ret_extent = (struct blk_extent){ .kind = BLK_EXTENT_ZERO, .len = len };
        return 0;
    }
    return blk_status(w->base, w->offset + offset, n, ret_extent);
}

static const struct blk_class window_class = {
    .name = "window",
    .help = "a part of a file",
    .kind = BLK_KIND_FILTER, /* growable */
    .state_size = sizeof(struct window),
    .open = window_open,
    .preadv = window_preadv,
    .pwritev = window_pwritev,
    .flush = window_flush,
    .status = window_status,
};

int blk_window_new(struct blk *base, const char *path, uint64_t offset, uint64_t len,
                   struct blk **ret_node, struct err *err)
{
    struct window w = { .base = base, .offset = offset, .len = len };
    struct blk_opts opts = { .path = path, .read_only = len != 0 };
    return blk_node_new(&window_class, &opts, (const char *)&w, NULL, NULL, 0, ret_node, err);
}
