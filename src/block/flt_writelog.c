/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records what is written to the node below, for replaying power losses (writelog.h).
 *
 *     writelog:PATH
 *
 * A lock is held over recording and doing, so that the log's order is the order on the disk. A
 * write is recorded before it is done, a flush after it has succeeded: what the log calls durable
 * is. A write that could not be done is in the log all the same - a power loss may leave it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/blk_int.h"
#include "block/writelog.h"

struct state {
    int fd;
    bool lock_made;
    pthread_mutex_t lock;
};

static int writelog_open(struct blk *blk, const struct blk_opts *opts, const char *arg,
                         struct err *err)
{
    (void)opts;
    struct state *s = blk->state;
    s->fd = -1;
    int rc = -pthread_mutex_init(&s->lock, NULL);
    if (rc < 0) {
        return err_set_errno(err, rc, "lock");
    }
    s->lock_made = true;
    s->fd = open(arg, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (s->fd < 0) {
        int code = -errno;
        return err_set_errno(err, code, "log file '%s'", arg);
    }
    return 0;
}

static int writelog_close(struct blk *blk)
{
    struct state *s = blk->state;
    if (s->fd >= 0) {
        close(s->fd);
    }
    if (s->lock_made) {
        pthread_mutex_destroy(&s->lock);
    }
    return 0;
}

static int append(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* With the lock held. */
static int record(const struct state *s, enum writelog_op op, uint64_t offset, uint64_t len,
                  const struct iovec *iov, int niov)
{
    unsigned char head[WRITELOG_ENTRY_SIZE];
    le32_put(head, WRITELOG_MAGIC);
    le32_put(head + 4, op);
    le64_put(head + 8, offset);
    le64_put(head + 16, len);
    int rc = append(s->fd, head, sizeof(head));
    for (int i = 0; i < niov && rc == 0; i++) {
        rc = append(s->fd, iov[i].iov_base, iov[i].iov_len);
    }
    return rc;
}

static int writelog_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                           uint64_t len)
{
    (void)len;
    return blk_preadv(blk->file, offset, iov, niov);
}

static int writelog_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                            uint64_t len)
{
    struct state *s = blk->state;
    pthread_mutex_lock(&s->lock);
    int rc = record(s, WRITELOG_WRITE, offset, len, iov, niov);
    if (rc == 0) {
        rc = blk_pwritev(blk->file, offset, iov, niov);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int writelog_flush(struct blk *blk)
{
    struct state *s = blk->state;
    pthread_mutex_lock(&s->lock);
    int rc = blk_flush(blk->file);
    if (rc == 0) {
        rc = record(s, WRITELOG_FLUSH, 0, 0, NULL, 0);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int writelog_discard(struct blk *blk, uint64_t offset, uint64_t len)
{
    struct state *s = blk->state;
    pthread_mutex_lock(&s->lock);
    int rc = record(s, WRITELOG_DISCARD, offset, len, NULL, 0);
    if (rc == 0) {
        rc = blk_discard(blk->file, offset, len);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int writelog_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct state *s = blk->state;
    pthread_mutex_lock(&s->lock);
    int rc = record(s, WRITELOG_ZERO, offset, len, NULL, 0);
    if (rc == 0) {
        rc = blk_write_zeroes(blk->file, offset, len, may_unmap);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int writelog_truncate(struct blk *blk, uint64_t size, struct err *err)
{
    struct state *s = blk->state;
    pthread_mutex_lock(&s->lock);
    int rc = record(s, WRITELOG_TRUNCATE, size, 0, NULL, 0);
    if (rc < 0) {
        err_set_errno(err, rc, "write log");
    } else {
        rc = blk->file->cls->truncate(blk->file, size, err);
    }
    if (rc == 0) {
        blk->size = size;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int writelog_status(struct blk *blk, uint64_t offset, uint64_t len,
                           struct blk_extent *ret_extent)
{
    return blk_status(blk->file, offset, len, ret_extent);
}

const struct blk_class flt_writelog_class = {
    .name = "writelog",
    .help = "records writes and flushes for replaying a power loss",
    .kind = BLK_KIND_FILTER,
    .state_size = sizeof(struct state),
    .open = writelog_open,
    .close = writelog_close,
    .preadv = writelog_preadv,
    .pwritev = writelog_pwritev,
    .flush = writelog_flush,
    .discard = writelog_discard,
    .write_zeroes = writelog_write_zeroes,
    .truncate = writelog_truncate,
    .status = writelog_status,
};
