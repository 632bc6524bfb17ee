/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block devices: what the rest of Posada may do with a disk.
 *
 * A `struct blk` is a node: a format (raw, qcow2) over a protocol (file), possibly under filters
 * and over a chain of backing nodes. Two ways to use one:
 *
 *   synchronous   blk_pread()/blk_pwrite()/...: any thread, may block (image tools, format code);
 *   queued        a `struct blk_queue` per submitting thread: blk_queue_submit() never blocks on
 *                 I/O, completions are delivered by blk_queue_reap() on the same thread when the
 *                 queue's descriptor is readable (device models).
 *
 * Every submitted request is completed exactly once. Bytes, not sectors, everywhere; offsets and
 * lengths from a guest are checked here against the virtual size (-EINVAL), so that no caller has
 * to. Requests may be unaligned in synchronous use; queued requests are multiples of 512.
 */
#ifndef BLOCK_BLK_H
#define BLOCK_BLK_H

#include <sys/queue.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"

struct blk;
struct blk_queue;

enum blk_cache {
    BLK_CACHE_WRITEBACK, /* host page cache; a guest flush is fdatasync() */
    BLK_CACHE_NONE,      /* O_DIRECT; a guest flush is fdatasync() */
    BLK_CACHE_UNSAFE,    /* host page cache; flushes are ignored (throw-away disks) */
};

struct blk_opts {
    const char *path;
    /* "raw", "qcow2" or NULL. NULL never probes: a name ending in ".qcow2" is qcow2, anything else
     * is raw, but a "raw" file that begins with another format's magic is refused with the advice
     * to state format= (a guest can write any header it likes into a raw disk). */
    const char *format;
    bool read_only;
    enum blk_cache cache;
    /* The backing chain: followed only when allowed (reliability S13), each file read-only, and
     * never outside `backing_dir` when that is set (NULL: the directory of the image itself and
     * absolute names that the user's own `backing_allow` list names). */
    const char *backing_dir;
    const char *const *backing_allow; /* NULL-terminated list of paths, or NULL */
    /* Filter specifications for tests, outermost first: "writelog:PATH", "fault:RULE". NULL = none.
     */
    const char *const *filters;
};

/* Opens with the locks that `read_only` asks for: OFD locks, exclusive for writers, shared for
 * readers; -EBUSY names who else has it open where that can be told. May block. */
MUST_USE int blk_open(const struct blk_opts *opts, struct blk **ret_blk, struct err *err);
/* Flushes, releases locks. Accepts NULL. No queue of it may exist any more. */
void blk_close(struct blk *blk);

uint64_t blk_size(const struct blk *blk); /* virtual size in bytes */
bool blk_read_only(const struct blk *blk);
const char *blk_format_name(const struct blk *blk);
/* Granularity and limits to offer to a guest, bytes. */
uint32_t blk_discard_align(const struct blk *blk);

/* Synchronous I/O, whole or not at all as far as the caller is told: 0 or a negative errno. */
MUST_USE int blk_pread(struct blk *blk, uint64_t offset, void *buf, size_t len);
MUST_USE int blk_pwrite(struct blk *blk, uint64_t offset, const void *buf, size_t len);
MUST_USE int blk_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap);
MUST_USE int blk_discard(struct blk *blk, uint64_t offset, uint64_t len);
MUST_USE int blk_flush(struct blk *blk);

enum blk_op {
    BLK_OP_READ,
    BLK_OP_WRITE,
    BLK_OP_FLUSH,
    BLK_OP_DISCARD,
    BLK_OP_WRITE_ZEROES,
};

#define BLK_REQ_MAY_UNMAP BIT(0) /* write zeroes: the space may be given back */

struct blk_req {
    enum blk_op op;
    uint32_t flags;
    uint64_t offset;
    uint64_t len;            /* sum of the iov for reads and writes */
    const struct iovec *iov; /* stays valid until done() */
    int niov;
    /* rc = 0 or a negative errno. Runs inside blk_queue_reap(); may submit more. */
    void (*done)(struct blk_req *req, int rc);
    void *opaque;
    /* private to the block layer */
    STAILQ_ENTRY(blk_req) link;
    uint64_t priv[8];
};

struct blk_queue_opts {
    unsigned depth;     /* requests in flight, 1 to 1024; more wait inside the queue */
    const char *engine; /* "uring", "threads", or NULL = uring where the host allows it */
};

MUST_USE int blk_queue_new(struct blk *blk, const struct blk_queue_opts *opts,
                           struct blk_queue **ret_queue, struct err *err);
/* Waits for what is in flight (their done() runs with its result), then frees. Accepts NULL. */
void blk_queue_free(struct blk_queue *q);
/* Readable when blk_queue_reap() has something to do. */
int blk_queue_fd(const struct blk_queue *q);
const char *blk_queue_engine_name(const struct blk_queue *q);
/* Takes over `req` until its done(). Nothing is guaranteed to start before blk_queue_kick(). */
void blk_queue_submit(struct blk_queue *q, struct blk_req *req);
/* Starts all that was submitted, as one batch. */
void blk_queue_kick(struct blk_queue *q);
/* Runs done() of everything that has completed; returns their number. */
unsigned blk_queue_reap(struct blk_queue *q);
/* Blocks until nothing is in flight (running done()s). For reset, pause and close. */
void blk_queue_drain(struct blk_queue *q);

#endif
