/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block devices: what the rest of Posada may do with a disk.
 *
 * A `struct blk` is a node: a format (raw, qcow2) over a protocol (file), possibly with filters
 * between the two and with a chain of backing nodes beside. Two ways to use one:
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
    /* "raw", "qcow2", ... or NULL. NULL never probes: the name's ending tells
     * (blk_format_of_name()), but a "raw" file that begins with another format's magic is refused
     * with the advice to state format= (a guest can write any header it likes into a raw disk). */
    const char *format;
    bool read_only;
    enum blk_cache cache;
    /* The backing chain: followed only by the rules of docs/block/README.md ("Backing files"):
     * each file read-only, and inside `backing_dir` (NULL: the directory of the image), or named by
     * the NULL-terminated list `backing_allow` (NULL = empty). */
    const char *backing_dir;
    const char *const *backing_allow;
    /* Leave the backing chain closed: what is not allocated reads as zeroes. For work on the image
     * file itself (info, check, resize). */
    bool no_backing;
    /* The external data file that the user names for a qcow2 image that has one; NULL = none, and
     * such an image is refused. The name in the image's header is never opened. */
    const char *data_file;
    /* An internal snapshot to read (its id or name); needs read_only. NULL = the active state. */
    const char *snapshot;
    /* Filters for tests, placed between format and file, the uppermost first: "writelog:PATH",
     * "fault:RULE" (docs/block/filters.md). NULL-terminated, or NULL. */
    const char *const *filters;
};

/* The format that a file of that name has by its ending (".qcow2", ".vmdk", ...); else "raw". */
const char *blk_format_of_name(const char *path);

/* The format that the file's content looks like, "raw" when it is like none; "ova" for a tar
 * archive that begins with an OVF descriptor. Only for tools whose user chose the file (import,
 * info): never for a disk that a guest has written to, since a guest can write any mark into its
 * disk. Images that only have a mark at the end (fixed VHD) are known by that. */
MUST_USE int blk_probe(const char *path, const char **ret_format, struct err *err);

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
MUST_USE int blk_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov);
MUST_USE int blk_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov);
MUST_USE int blk_pread(struct blk *blk, uint64_t offset, void *buf, size_t len);
MUST_USE int blk_pwrite(struct blk *blk, uint64_t offset, const void *buf, size_t len);
MUST_USE int blk_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap);
MUST_USE int blk_discard(struct blk *blk, uint64_t offset, uint64_t len);
MUST_USE int blk_flush(struct blk *blk);

/* What a range of the virtual disk holds. */
enum blk_extent_kind {
    BLK_EXTENT_DATA,
    BLK_EXTENT_ZERO,    /* reads as zeroes */
    BLK_EXTENT_BACKING, /* from a class's status() only: look in the backing node */
};

struct blk_extent {
    enum blk_extent_kind kind;
    uint64_t len; /* the answer holds for this many bytes from the asked offset, > 0 */
};

/* What lies at `offset`, at most `len` bytes of it (len > 0); the chain is followed, so the kind is
 * never BLK_EXTENT_BACKING. A hint for copying: DATA may still be zeroes. May block. */
MUST_USE int blk_status(struct blk *blk, uint64_t offset, uint64_t len,
                        struct blk_extent *ret_extent);

/* Changes the virtual size. -ENOTSUP where the format cannot. No queue may exist. */
MUST_USE int blk_resize(struct blk *blk, uint64_t size, struct err *err);

/* One fact about an image. With `list` set it belongs to element `index` of that list. */
struct blk_info_item {
    const char *list; /* NULL, or e.g. "snapshots" */
    unsigned index;
    const char *key; /* "cluster_size": lower case, no spaces; stable, it is the JSON key */
    enum blk_info_type { BLK_INFO_STRING, BLK_INFO_NUMBER, BLK_INFO_BYTES, BLK_INFO_BOOL } type;
    const char *string; /* may hold anything that an image can: quote before printing */
    uint64_t number;    /* BLK_INFO_BOOL: 0 or 1 */
};
typedef void blk_info_fn(void *opaque, const struct blk_info_item *item);

/* Calls `fn` for each fact: path, format, sizes, then those of the format. */
MUST_USE int blk_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err);

#define BLK_CHECK_FIX_LEAKS  BIT(0)
#define BLK_CHECK_FIX_ERRORS BIT(1)

struct blk_check {
    uint64_t errors; /* found: data may be lost or wrong */
    uint64_t leaks;  /* found: space lost, clusters */
    uint64_t errors_fixed;
    uint64_t leaks_fixed;
    uint64_t clusters_total;
    uint64_t clusters_allocated;
    /* One line of text for each finding; the caller sets them (report may be NULL). */
    void (*report)(void *opaque, const char *text);
    void *opaque;
};

/* Checks the image's metadata and mends what `fix` (BLK_CHECK_FIX_*) names. -ENOTSUP where the
 * format has nothing to check; else 0 with the counts, also when errors were found. */
MUST_USE int blk_check(struct blk *blk, unsigned fix, struct blk_check *check, struct err *err);

struct blk_create_opts {
    const char *path;
    const char *format;
    uint64_t size; /* virtual, bytes; with `backing` 0 means the size of the backing file */
    bool force;    /* replace an existing file */
    /* What goes into the header, or NULL. */
    const char *backing;
    const char *backing_format;
    /* "key=value" of the format (docs/block/FORMAT.md), NULL-terminated, or NULL. */
    const char *const *params;
};

/* Creates an image under a temporary name "PATH.posada-partial-PID" (in place on a block device)
 * and opens it for writing, its backing file left closed. -EEXIST without `force`. */
MUST_USE int blk_create_begin(const struct blk_create_opts *opts, struct blk **ret_blk,
                              struct err *err);
/* Makes all durable, closes `take_blk` and gives the image its name, in one step. */
MUST_USE int blk_create_commit(const struct blk_create_opts *opts, struct blk *take_blk,
                               struct err *err);
/* Closes `take_blk` and removes the temporary file. */
void blk_create_abort(const struct blk_create_opts *opts, struct blk *take_blk);
/* Begin and commit. */
MUST_USE int blk_create(const struct blk_create_opts *opts, struct err *err);

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
    /* Start every worker thread now and not with the first work: for a process that will not be
     * allowed to start threads. They have done their own set-up when blk_queue_new() returns. */
    bool workers_now;
    void (*worker_init)(void *opaque); /* in each worker before its first work; NULL = nothing */
    void *worker_opaque;
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
/* Runs done() of everything that has completed; returns their number. Not from a done(), which may
 * submit and kick only. */
unsigned blk_queue_reap(struct blk_queue *q);
/* Blocks until nothing is in flight or waiting (running done()s). For reset, pause and close; not
 * from a done(). */
void blk_queue_drain(struct blk_queue *q);

#endif
