/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the qcow2 format. qcow2_flush.c has the invariants and the order of flushes, which
 * everything here obeys; read it first.
 *
 * Locks, in the order they are taken:
 *   meta_lock  held by whoever changes metadata or loads some into a cache, also across the
 *              metadata's I/O; never across the I/O of guest data;
 *   map_lock   short, never across I/O: guards what the fast path looks at (l1[], the index and
 *              the contents of the L2 cache, epochs). Changing those needs both locks, so that
 *              a holder of meta_lock may read them without map_lock.
 *
 *   file                what it does
 *   qcow2_hdr.c         the header and its extensions: parse, validate, write
 *   qcow2_io.c          the file below; overlap check; a found corruption
 *   qcow2_data.c        where guest data lie: in that file, or in an external data file
 *   qcow2_cache.c       slices of L2 tables and refcount blocks in memory
 *   qcow2_ref.c         refcounts: look up, allocate; qcow2_grow.c: new refcount blocks and table
 *   qcow2_free.c        clusters on their way to being free: flush, then epochs, then decrement
 *   qcow2_map.c         guest offset -> place; the fast path
 *   qcow2_l2.c          changing L2 and L1 tables
 *   qcow2_sub.c         extended L2 entries: subclusters
 *   qcow2_read.c        reads, backing; qcow2_unpack.c: decompression
 *   qcow2_write.c       writes: in place, or allocate, copy, link
 *   qcow2_zero.c        write zeroes, discard
 *   qcow2_resize.c      truncate
 *   qcow2_flush.c       the order of flushes
 *   qcow2_snap.c        the snapshot table
 *   qcow2_check.c       consistency check and repair; qcow2_refmap.c: its reference counts
 *   qcow2_create.c      new images
 *   qcow2_info.c        facts about an image
 *   fmt_qcow2.c         open, close, the class
 */
#ifndef BLOCK_FMT_QCOW2_QCOW2_INT_H
#define BLOCK_FMT_QCOW2_QCOW2_INT_H

#include <pthread.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "block/blk_int.h"
#include "spec/qcow2_disk.h"

/* Limits of this implementation. The sizes of L1 and refcount table are QEMU's limits too, so no
 * image in use is larger. */
#define QCOW2_MAX_L1_BYTES        (32 * MIB)
#define QCOW2_MAX_REFTABLE_BYTES  (8 * MIB)
#define QCOW2_MAX_SNAPSHOTS       65536
#define QCOW2_MAX_SNAPTABLE_BYTES (16 * MIB)
#define QCOW2_MAX_SNAP_EXTRA      1024
#define QCOW2_MAX_BITMAPS         65535
#define QCOW2_MAX_BITMAP_DIR      (16 * MIB)
#define QCOW2_MAX_BITMAP_TABLE    (32 * MIB)
#define QCOW2_MAX_EXTENSIONS      256
#define QCOW2_MAX_HOST_OFFSET     BIT64(56) /* what an L2 entry can hold (bits 9 to 55) */
/* Memory for metadata, allocated as it is used: 768 KiB of L2 maps 6 GiB at 64 KiB clusters. */
#define QCOW2_L2_CACHE_BYTES  (768 * KIB)
#define QCOW2_REF_CACHE_BYTES (256 * KIB)
#define QCOW2_SLICE_BYTES     4096
/* Freed runs that may wait for a flush before one is made for them. */
#define QCOW2_MAX_PENDING 1024
/* zstd frames may ask for a window of 8 MiB at most, where the library's own limit is 128 MiB. */
#define QCOW2_ZSTD_WINDOW_LOG 23

/* The header, checked. Offsets are cluster-aligned, sizes within the limits above. */
struct qcow2_hdr {
    uint32_t version;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t l1_size;
    uint64_t l1_offset;
    uint64_t rt_offset;
    uint32_t rt_clusters;
    uint32_t nb_snapshots;
    uint64_t snap_offset;
    uint64_t incompat;
    uint64_t compat;
    uint64_t autoclear;
    uint32_t refcount_order;
    uint32_t header_len;
    uint8_t compression;
    char backing_name[QCOW2_BACKING_NAME_MAX + 1]; /* "" = none */
    char backing_fmt[16];                          /* "" = not stated */
    char data_name[QCOW2_BACKING_NAME_MAX + 1];    /* of the external data file, for messages */
    bool has_bitmaps;
    uint32_t nb_bitmaps;
    uint64_t bm_dir_offset;
    uint64_t bm_dir_size;
};

/* A piece of an L2 table or refcount block: QCOW2_SLICE_BYTES, or the cluster where that is less.
 */
struct qcow2_slice {
    uint64_t offset; /* in the file; 0 = slot not in use */
    uint8_t *data;   /* big-endian, as on disk */
    bool dirty;
    unsigned pins;
    LIST_ENTRY(qcow2_slice) hash_link;
    TAILQ_ENTRY(qcow2_slice) lru_link; /* head = next to be evicted */
};

LIST_HEAD(qcow2_slice_list, qcow2_slice);
TAILQ_HEAD(qcow2_slice_tailq, qcow2_slice);

struct qcow2_cache {
    uint32_t slice_size;
    uint32_t nslots;
    uint32_t nbuckets; /* power of two */
    uint32_t ndirty;
    bool is_l2;
    struct qcow2_slice *slots;
    struct qcow2_slice_list *buckets;
    struct qcow2_slice_tailq lru;
};

/* A span [lo, hi) of table entries that the file does not have yet; lo >= hi = none. */
struct qcow2_span {
    uint32_t lo;
    uint32_t hi;
};

/* Guest clusters that a writer is filling; others wait until it is done. */
struct qcow2_busy {
    uint64_t first; /* guest cluster numbers */
    uint64_t last;
    TAILQ_ENTRY(qcow2_busy) link;
};

/* Clusters whose reference has gone, to be decremented later (qcow2_free.c). */
struct qcow2_freed {
    uint64_t first; /* host cluster */
    uint64_t count;
    uint64_t epoch; /* I/O of this and older epochs may still go there */
    uint64_t gen;   /* durable once a flush of a later generation has succeeded */
    bool punch;
};

struct qcow2_meta_range {
    uint64_t offset;
    uint64_t len;
};

struct qcow2 {
    struct blk *blk;
    struct blk *file;
    /* Where guest data lie: `file`, or the external data file, or NULL where that was not opened
     * (qcow2_data.c). */
    struct blk *data;
    struct qcow2_hdr hdr;
    uint8_t hdr_sector[512]; /* as on disk; all fields that change are in it */
    bool read_only;
    bool opened;          /* open() has succeeded: close() writes back */
    _Atomic bool corrupt; /* found corrupt: no more writes */

    uint64_t cluster_size;
    unsigned sub_bits; /* log2 of a subcluster's size; without extended L2 entries the cluster's */
    unsigned l2_shift; /* log2 of the size of an L2 entry */
    unsigned l2_bits;  /* log2 of the entries of an L2 table */
    unsigned rb_bits;  /* log2 of the entries of a refcount block */

    pthread_mutex_t meta_lock;
    pthread_mutex_t map_lock;
    pthread_cond_t busy_cond; /* with meta_lock */
    TAILQ_HEAD(, qcow2_busy) busy;

    uint64_t *l1; /* host byte order */
    uint32_t l1_size;
    struct qcow2_span l1_dirty;
    struct qcow2_cache l2c;

    uint64_t *rt; /* refcount table, host byte order */
    uint32_t rt_size;
    struct qcow2_span rt_dirty;
    struct qcow2_cache rbc;
    uint64_t free_hint; /* no free cluster below this one */
    /* Host clusters from here on have never been written: they read zero. meta_lock to change. */
    _Atomic uint64_t file_end;

    struct qcow2_freed *freed;
    size_t nfreed;
    size_t cap_freed;
    uint64_t flush_gen;   /* of the last writeback begun */
    uint64_t durable_gen; /* of the last writeback known to be on the disk */
    uint64_t epoch;       /* map_lock */
    uint64_t in_io[2];    /* pins by epoch & 1; map_lock */

    /* The last decompressed cluster, for small sequential reads. An entry is never given a second
     * meaning while the image is open, since compressed clusters are never written. */
    pthread_mutex_t comp_lock;
    uint64_t comp_entry;
    uint8_t *comp_data;

    uint8_t *filter; /* Bloom filter of the clusters that hold metadata; map_lock */
    uint64_t filter_mask;
    struct qcow2_meta_range *snap_meta; /* snapshot table and inactive L1 tables */
    size_t nsnap_meta;

    struct log_limit log_limit;
};

static inline struct qcow2 *qcow2_of(const struct blk *blk)
{
    return blk->state;
}

/* ---- qcow2_hdr.c ---- */

/* Parses and validates `head`, the first `len` bytes of the file (up to one cluster, at least 512
 * where the file has them). Writes *ret_hdr also when it fails, as far as it got (for info). */
MUST_USE int qcow2_hdr_parse(const uint8_t *head, size_t len, struct qcow2_hdr *ret_hdr,
                             struct err *err);
/* Bytes of header that qcow2_hdr_parse() wants: reads cluster_bits out of the first 512 bytes. */
MUST_USE int qcow2_hdr_probe_len(const uint8_t *head, size_t len, size_t *ret_len, struct err *err);
/* Puts the fields that change in use into the 512-byte `sector`. */
void qcow2_hdr_patch(const struct qcow2_hdr *hdr, uint8_t *sector);
/* Builds a whole header with extensions into buf[len], zero-filled (len: one cluster). -ENOSPC when
 * the backing name does not fit. */
MUST_USE int qcow2_hdr_build(struct qcow2_hdr *hdr, uint8_t *buf, size_t len, struct err *err);
/* Writes the header sector as hdr says and makes it durable. meta_lock. */
MUST_USE int qcow2_hdr_update(struct qcow2 *q);

/* ---- qcow2_io.c ---- */

MUST_USE int qcow2_io_read(struct qcow2 *q, uint64_t offset, void *buf, uint64_t len);
MUST_USE int qcow2_io_write(struct qcow2 *q, uint64_t offset, const void *buf, uint64_t len);
MUST_USE int qcow2_io_flush(struct qcow2 *q);
/* Reads `n` big-endian u64 into host order. */
MUST_USE int qcow2_io_read_table(struct qcow2 *q, uint64_t offset, uint64_t *table, uint32_t n);
/* A buffer for I/O: aligned so that O_DIRECT takes it. NULL when out of memory. */
void *qcow2_io_buf(size_t len);
/* An image was found corrupt: logs, sets the corrupt bit on a writable image, refuses writes from
 * now on. Returns -EIO. meta_lock must be held. */
int qcow2_io_corrupt(struct qcow2 *q, const char *what, uint64_t offset);

/* Does [offset, offset + len) touch a cluster that holds metadata of the active image? map_lock. */
bool qcow2_io_is_meta(const struct qcow2 *q, uint64_t offset, uint64_t len);
/* A cluster range that holds metadata from now on. Any lock state before open ends, else both. */
void qcow2_io_add_meta(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Allocates the filter and enters all tables. -ENOMEM. */
MUST_USE int qcow2_io_init_meta(struct qcow2 *q);

/* ---- qcow2_data.c ---- */

/* Are guest data kept in another file? And does that file alone show the disk? */
static inline bool qcow2_data_external(const struct qcow2 *q)
{
    return (q->hdr.incompat & QCOW2_INCOMPAT_DATA_FILE) != 0;
}
static inline bool qcow2_data_raw(const struct qcow2 *q)
{
    return qcow2_data_external(q) && (q->hdr.autoclear & QCOW2_AUTOCLEAR_DATA_RAW) != 0;
}
/* Sets q->data. Opens the external file by the name in opts; -EACCES without one. */
MUST_USE int qcow2_data_open(struct qcow2 *q, const struct blk_opts *opts, struct err *err);
void qcow2_data_close(struct qcow2 *q);
MUST_USE int qcow2_data_read(struct qcow2 *q, uint64_t offset, const struct iovec *iov, int niov);
MUST_USE int qcow2_data_write(struct qcow2 *q, uint64_t offset, const struct iovec *iov, int niov);
/* The guest no longer refers to the cluster at `host` of an external file. */
void qcow2_data_release(struct qcow2 *q, uint64_t host);
/* A raw external file is as long as the disk. */
MUST_USE int qcow2_data_resize(struct qcow2 *q, uint64_t size, struct err *err);

/* ---- qcow2_cache.c (meta_lock, except peek) ---- */

MUST_USE int qcow2_cache_init(struct qcow2_cache *c, uint64_t bytes, uint32_t slice_size,
                              bool is_l2);
void qcow2_cache_done(struct qcow2_cache *c);
/* The slice at `offset` (a multiple of slice_size), loaded if need be and pinned until put. */
MUST_USE int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset,
                             struct qcow2_slice **ret_slice);
void qcow2_cache_put(struct qcow2_slice *slice);
/* The slice if it is in memory, else NULL. map_lock or meta_lock. */
struct qcow2_slice *qcow2_cache_peek(struct qcow2_cache *c, uint64_t offset);
void qcow2_cache_touch(struct qcow2_cache *c, struct qcow2_slice *slice);
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slice *slice);
/* Forgets clean or dirty slices in [offset, offset + len): the cluster has a new use. */
void qcow2_cache_drop(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Writes all dirty slices, in no order. They stay dirty on an error. */
MUST_USE int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *c);

/* ---- qcow2_ref.c, qcow2_grow.c (meta_lock) ---- */

MUST_USE int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret_count);
/* The refcount block must exist (-ENOENT otherwise). */
MUST_USE int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
/* Takes up to `want` contiguous free clusters, or exactly that many; their refcount becomes 1.
 * *ret_fresh (may be NULL): nothing was ever written there, it reads as zeroes. -ENOSPC, -EFBIG
 * beyond the format's reach, -EIO. */
MUST_USE int qcow2_ref_alloc(struct qcow2 *q, uint64_t want, bool exact, uint64_t *ret_offset,
                             uint64_t *ret_n, bool *ret_fresh);
/* Takes one reference off each of `count` clusters; *ret_done of them when it fails. -EIO when one
 * has none: corrupt. */
MUST_USE int qcow2_ref_drop(struct qcow2 *q, uint64_t cluster, uint64_t count, bool punch,
                            uint64_t *ret_done);
/* Gives back what was allocated and never referenced: now, or where that fails after a flush. */
void qcow2_ref_undo(struct qcow2 *q, uint64_t offset, uint64_t n);
/* A refcount read out of, or put into, a block of `order`. */
uint64_t qcow2_ref_load(const uint8_t *block, unsigned order, uint64_t index);
void qcow2_ref_store(uint8_t *block, unsigned order, uint64_t index, uint64_t count);
/* Makes the refcount block for `cluster`, whose range has none: its own place is `cluster`. */
MUST_USE int qcow2_grow_block(struct qcow2 *q, uint64_t cluster);
/* Allocates `n` clusters past all that the refcount table covers, with refcount blocks for them and
 * a larger table if need be. n may be 0: only more room. */
MUST_USE int qcow2_grow_area(struct qcow2 *q, uint64_t n, uint64_t *ret_first);

/* ---- qcow2_free.c ---- */

/* The reference to these clusters was removed in memory: decrement once that is durable and no
 * I/O is under way to them. meta_lock; after the change of the entry. Never fails: without memory
 * the clusters leak. */
void qcow2_free_later(struct qcow2 *q, uint64_t cluster, uint64_t count, bool punch);
/* Decrements what may be. meta_lock. */
void qcow2_free_apply(struct qcow2 *q);
/* Pins: I/O to mapped places begins / has ended. map_lock. */
uint64_t qcow2_free_enter(struct qcow2 *q);
void qcow2_free_leave(struct qcow2 *q, uint64_t cookie);

/* ---- qcow2_map.c ---- */

enum qcow2_kind {
    QCOW2_UNALLOCATED,
    QCOW2_ZERO_PLAIN, /* reads zero, no cluster */
    QCOW2_ZERO_ALLOC, /* reads zero, has a cluster */
    QCOW2_NORMAL,
    QCOW2_COMPRESSED,
};

struct qcow2_run {
    enum qcow2_kind kind;
    bool copied;   /* refcount is one: may be written in place */
    uint64_t host; /* of the asked offset; for compressed clusters the raw entry */
    uint64_t len;  /* bytes from the asked offset on */
};

/* What [offset, ...) is, up to `len` bytes, all of one kind and contiguous in the file. Compressed:
 * up to the end of the cluster. -EAGAIN: the L2 slice is not in memory; -EUCLEAN: the entry is
 * corrupt (ret->host is the entry). meta_lock or map_lock. */
MUST_USE int qcow2_map_peek(struct qcow2 *q, uint64_t offset, uint64_t len,
                            struct qcow2_run *ret_run);
/* The same, loading what it needs and reporting corruption (-EIO). meta_lock. */
MUST_USE int qcow2_map_load(struct qcow2 *q, uint64_t offset, uint64_t len,
                            struct qcow2_run *ret_run);
/* The kind of one entry. -EUCLEAN when it is malformed. Extended: of its first half, which says
 * only whether there is a cluster (QCOW2_NORMAL), a compressed one, or none (QCOW2_UNALLOCATED). */
MUST_USE int qcow2_map_kind(const struct qcow2 *q, uint64_t entry, enum qcow2_kind *ret_kind);
/* Place and bytes of a compressed cluster: whole sectors. */
void qcow2_map_compressed(const struct qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                          uint64_t *ret_len);
int qcow2_map(struct blk *blk, bool write, uint64_t offset, uint64_t len, struct blk_map *ret_map);
void qcow2_unmap(struct blk *blk, const struct blk_map *map);

/* ---- qcow2_l2.c (meta_lock) ---- */

/* The slice with the entry of guest `offset`, in an L2 table that is ours alone (allocated or
 * copied if need be). Pinned. */
MUST_USE int qcow2_l2_get(struct qcow2 *q, uint64_t offset, struct qcow2_slice **ret_slice,
                          uint32_t *ret_index);
/* Sets `n` entries from guest `offset` on (all in one slice): entry, entry + step, ... and frees
 * what they referred to, except the clusters that they refer to now. */
MUST_USE int qcow2_l2_set(struct qcow2 *q, uint64_t offset, uint64_t n, uint64_t entry,
                          uint64_t step, bool punch);
uint64_t qcow2_l2_slice_entries(const struct qcow2 *q);
/* What entry `old` referred to is free, unless `now` refers to the same cluster. */
void qcow2_l2_release(struct qcow2 *q, uint64_t old, uint64_t now, bool punch);
/* Before the first change of metadata since open: lazy refcounts set the dirty bit. */
MUST_USE int qcow2_l2_begin(struct qcow2 *q);

/* ---- qcow2_sub.c ---- */

/* Has the image extended L2 entries? */
static inline bool qcow2_sub(const struct qcow2 *q)
{
    return (q->hdr.incompat & QCOW2_INCOMPAT_EXTENDED_L2) != 0;
}

struct qcow2_sub_entry {
    uint64_t desc;
    uint64_t bits;
};

/* -EUCLEAN when an entry is malformed. */
MUST_USE int qcow2_sub_check(const struct qcow2 *q, const struct qcow2_sub_entry *e);
/* What a subcluster (0 to 31) of a well-formed entry is. */
enum qcow2_kind qcow2_sub_kind(const struct qcow2_sub_entry *e, unsigned n);
/* The run that begins with entry `index` of the slice. map_lock or meta_lock. */
MUST_USE int qcow2_sub_run(const struct qcow2 *q, const struct qcow2_slice *slice, uint32_t index,
                           uint64_t offset, uint64_t len, struct qcow2_run *ret);
/* The entry of guest `offset`; all zero where there is no table. *ret_ours: its cluster may be
 * written. meta_lock. */
MUST_USE int qcow2_sub_load(struct qcow2 *q, uint64_t offset, struct qcow2_sub_entry *ret,
                            bool *ret_ours);

/* A change of the subclusters of guest bytes [from, to), all of one L2 slice. */
struct qcow2_sub_change {
    uint64_t from;
    uint64_t to;
    bool link;     /* they have data now, in `host` and the clusters after it */
    uint64_t host; /* link: entry of the first cluster */
    bool zero;     /* not link: they read zero by their bit; else what lies below shows */
    bool drop;     /* not link: a cluster in which nothing has data any more is given up */
};

/* Compressed clusters must be covered as a whole. meta_lock. */
MUST_USE int qcow2_sub_set(struct qcow2 *q, const struct qcow2_sub_change *c, bool punch);

/* ---- qcow2_read.c, qcow2_write.c, qcow2_zero.c, qcow2_resize.c, qcow2_flush.c ---- */

int qcow2_read(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov, uint64_t len);
/* As qcow2_read() into one buffer, also past the virtual size (zeroes). */
MUST_USE int qcow2_read_buf(struct qcow2 *q, uint64_t offset, void *buf, uint64_t len);
/* Bytes from `offset` on, up to `len`, that lie over the backing file; 0 = none. */
uint64_t qcow2_read_backed(const struct qcow2 *q, uint64_t offset, uint64_t len);
int qcow2_read_status(struct blk *blk, uint64_t offset, uint64_t len,
                      struct blk_extent *ret_extent);
/* One compressed cluster into `out` (cluster_size bytes). -EIO when it does not decompress. */
MUST_USE int qcow2_unpack(struct qcow2 *q, uint64_t entry, void *out);
int qcow2_write(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov, uint64_t len);
/* Waits until no writer is filling a cluster of [first, last]. meta_lock, given up in between. */
void qcow2_write_wait(struct qcow2 *q, uint64_t first, uint64_t last);
int qcow2_zero(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap);
int qcow2_zero_discard(struct blk *blk, uint64_t offset, uint64_t len);
enum qcow2_zero_mode {
    QCOW2_ZERO_KEEP,    /* reads zero, clusters stay allocated */
    QCOW2_ZERO_UNMAP,   /* reads zero, clusters are freed */
    QCOW2_ZERO_DISCARD, /* a hint: freed where that leaves zeroes */
    QCOW2_ZERO_CUT,     /* freed, whatever shows then: past the end of the disk */
};
/* For whole clusters, not bounded by the virtual size. */
MUST_USE int qcow2_zero_clusters(struct qcow2 *q, uint64_t offset, uint64_t len,
                                 enum qcow2_zero_mode mode);
/* For a piece: writes zeroes where something else can be read. */
MUST_USE int qcow2_zero_part(struct qcow2 *q, uint64_t offset, uint64_t len);
int qcow2_resize(struct blk *blk, uint64_t size, struct err *err);
int qcow2_flush(struct blk *blk);
/* Brings L2 and L1 changes to the file with all that must be there before them. meta_lock. */
MUST_USE int qcow2_flush_writeback(struct qcow2 *q);
/* All of it, durable, and nothing waiting to be freed; for close, check, resize. meta_lock. */
MUST_USE int qcow2_flush_all(struct qcow2 *q);

/* ---- qcow2_snap.c ---- */

struct qcow2_snap {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint32_t date_sec;
    uint64_t disk_size; /* UINT64_MAX = not recorded: that of the image */
    uint64_t vm_state_size;
    char *id;
    char *name;
};

/* Reads the snapshot table: hdr.nb_snapshots entries. *ret_bytes (may be NULL): its length. */
MUST_USE int qcow2_snap_read(struct qcow2 *q, struct qcow2_snap **ret_snaps, uint64_t *ret_bytes,
                             struct err *err);
void qcow2_snap_free(struct qcow2_snap *snaps, uint32_t n);
/* The snapshot of that id, or else of that name. -ENOENT. */
MUST_USE int qcow2_snap_find(struct qcow2 *q, const char *which, struct qcow2_snap *ret_snap,
                             struct err *err);
/* Enters the tables of all snapshots as metadata that nobody may overwrite. */
MUST_USE int qcow2_snap_protect(struct qcow2 *q, struct err *err);

/* ---- qcow2_check.c, qcow2_create.c, qcow2_info.c ---- */

int qcow2_check(struct blk *blk, unsigned fix, struct blk_check *check, struct err *err);
/* meta_lock. */
MUST_USE int qcow2_check_locked(struct qcow2 *q, unsigned fix, struct blk_check *check,
                                struct err *err);
int qcow2_create(struct blk *file, const struct blk_create_opts *opts, struct err *err);
int qcow2_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err);

/* ---- fmt_qcow2.c ---- */

/* Reads the refcount table, where that was not done yet. */
MUST_USE int fmt_qcow2_load_reftable(struct qcow2 *q);

#endif
