/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the block layer: what a protocol, a format or a filter provides and may use.
 *
 *      fmt_raw | fmt_qcow2 ──backing──> fmt_... (read-only) ──> ...
 *            │ file
 *      flt_fault | flt_writelog            (0 or more)
 *            │ file
 *        prot_file
 *
 * To add one: a file exporting a `struct blk_class`, a row in blk_classes.def, a page in
 * docs/block/.
 *
 * I/O on any node, the child `blk->file` included, goes through the public blk_preadv(),
 * blk_pwrite(), ... : they check ranges and rights. Nodes of kind protocol and filter are
 * "growable": a write past the end makes the node longer, a read past the end delivers zeroes.
 * On a format node both are -EINVAL.
 */
#ifndef BLOCK_BLK_INT_H
#define BLOCK_BLK_INT_H

#include <stdatomic.h>

#include "block/blk.h"
#include "block/blk_iov.h"

/* Longest backing chain, nodes. Each costs a descriptor and a table cache; nobody needs more. */
#define BLK_MAX_CHAIN 64
/* Largest offset + 1 of anything: what off_t and pread(2) take, on a cluster boundary. */
#define BLK_MAX_SIZE (UINT64_C(1) << 62)

/* Where a piece of a node's data lies, for I/O that needs no metadata work. */
enum blk_map_kind {
    BLK_MAP_DATA, /* at `offset` of descriptor `fd` */
    BLK_MAP_ZERO, /* reads as zeroes */
    BLK_MAP_SLOW, /* needs preadv()/pwritev(): allocation, decompression, a filter ... */
};

struct blk_map {
    enum blk_map_kind kind;
    int fd;
    bool direct;        /* the descriptor has O_DIRECT */
    uint32_t mem_align; /* what the descriptor demands of buffer addresses and lengths, bytes */
    uint64_t offset;
    uint64_t len;       /* the answer holds for this many bytes from the asked offset, > 0 */
    struct blk *pinned; /* whose unmap() must be called once the I/O has ended, or NULL */
    uint64_t cookie;    /* for the pinning class */
};

enum blk_kind {
    BLK_KIND_PROTOCOL,
    BLK_KIND_FORMAT,
    BLK_KIND_FILTER,
};

/*
 * One kind of node. Functions may be called from several threads at once; each class has its own
 * lock. They return 0 or a negative errno. Ranges are already checked: len > 0, inside the virtual
 * size (growable: below BLK_MAX_SIZE); writes only on nodes that are not read_only. Optional
 * functions are NULL where that is said.
 *
 * Texts in `err` do not repeat blk->path: blk_open() puts it in front.
 */
struct blk_class {
    const char *name;
    const char *help;
    const char *suffix; /* of a format: the ending of file names that means it; optional */
    enum blk_kind kind;
    size_t state_size; /* blk->state: zeroed memory of this size */

    /* blk->file (the child below) is open, blk->read_only and blk->cache are set; fills blk->size
     * and blk->state. `arg` is the text after "NAME:" of a filter, else NULL. A format that finds a
     * backing name in its header calls blk_backing_open() unless opts->no_backing. close() also
     * runs after a failed open(), with whatever state that left behind. */
    int (*open)(struct blk *blk, const struct blk_opts *opts, const char *arg, struct err *err);
    /* Frees what hangs off blk->state. blk_flush() has been called; a class that writes here after
     * that (a clean mark) flushes blk->file itself. blk->file is still open; the core closes it
     * (and blk->backing) afterwards. Optional. Returns the first failure, which is logged only. */
    int (*close)(struct blk *blk);

    /* Synchronous; may block. `len` is the sum of the iov. */
    int (*preadv)(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                  uint64_t len);
    int (*pwritev)(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                   uint64_t len);
    int (*flush)(struct blk *blk);
    /* Optional: NULL = nothing is done, and 0 returned (a discard is a hint). */
    int (*discard)(struct blk *blk, uint64_t offset, uint64_t len);
    /* Optional: NULL = the core writes zeroes by pwritev(). -ENOTSUP asks for the same. */
    int (*write_zeroes)(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap);
    /* Sets blk->size when it succeeds. Optional. */
    int (*truncate)(struct blk *blk, uint64_t size, struct err *err);
    /* What lies at `offset`; may answer BLK_EXTENT_BACKING. Optional: NULL = all is data. */
    int (*status)(struct blk *blk, uint64_t offset, uint64_t len, struct blk_extent *ret_extent);

    /*
     * The fast path of queues: where do [offset, offset+len) lie, for a read or for an in-place
     * write? Never blocks on I/O (metadata not in memory, or a lock that is held across I/O:
     * BLK_MAP_SLOW). A format gets the final answer from blk_map(blk->file, ...), which keeps its
     * own pin-free promise, and adds its pin. A pinned place is not freed or reused before unmap().
     * Optional: NULL = always slow.
     */
    int (*map)(struct blk *blk, bool write, uint64_t offset, uint64_t len, struct blk_map *ret_map);
    /* The I/O on the place has ended. Any thread; does not block on I/O. */
    void (*unmap)(struct blk *blk, const struct blk_map *map);

    /* The following are optional. */

    /* Writes an empty image into `file` (an empty growable node, opened for writing). The core has
     * settled opts->size (of the backing file if 0 was given); `backing` is not opened here, its
     * name and format only go into the header. Unknown params are -EINVAL. */
    int (*create)(struct blk *file, const struct blk_create_opts *opts, struct err *err);
    /* The class's own facts (the core adds path, format and sizes). */
    int (*info)(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err);
    int (*check)(struct blk *blk, unsigned fix, struct blk_check *check, struct err *err);
};

/* How a protocol opens its file. BENEATH: `path` is canonical, refuse it if a symbolic link
 * appeared in it; CREATE: create the file, -EEXIST when it is there. On a format: the image was
 * made a moment ago by its create() and is open for being filled. */
#define BLK_OPEN_BENEATH BIT(0)
#define BLK_OPEN_CREATE  BIT(1)

struct blk {
    const struct blk_class *cls;
    char *path;            /* of the file, as given by the user (canonical for backing files) */
    _Atomic uint64_t size; /* virtual size, bytes; of a growable node: the present end */
    bool read_only;
    enum blk_cache cache;
    uint32_t discard_align;
    uint32_t open_flags; /* BLK_OPEN_* */
    /* Identity of the file, set by the protocol; formats and filters inherit it. */
    uint64_t dev, ino;
    bool regular;        /* an ordinary file, not a device */
    struct blk *file;    /* the node below; NULL for a protocol */
    struct blk *backing; /* read-only node for what is not allocated here, or NULL */
    struct blk *overlay; /* whose backing this node is (during and after open), or NULL */
    void *state;
};

#define BLK_CLASS(name) extern const struct blk_class name;
#include "block/blk_classes.def"
#undef BLK_CLASS

/* The class of that name and kind, or NULL. */
const struct blk_class *blk_class_find(enum blk_kind kind, const char *name);
/* Names of all formats, for messages: "raw, qcow2". */
void blk_format_names(char *buf, size_t size);

/* What the content of a protocol node looks like; NULL = nothing known. See blk_probe(). */
MUST_USE int blk_probe_node(struct blk *file, const char **ret_format);

/* For open() of formats without internal snapshots: -EINVAL when one is asked for. */
MUST_USE int blk_refuse_snapshot(const struct blk *blk, const struct blk_opts *opts,
                                 struct err *err);

/* cls->map of `blk`, with the answer BLK_MAP_SLOW where there is none; 0 or a negative errno. */
MUST_USE int blk_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                     struct blk_map *ret_map);

/*
 * Opens the backing file that the header of `blk` names and sets blk->backing, by the rules of
 * reliability S13 (see blk_backing.c). `name` and `format` come from the image and are hostile;
 * `format` NULL or "" is refused. -EACCES: the rules forbid it; -ELOOP: loop or chain too long.
 */
MUST_USE int blk_backing_open(struct blk *blk, const struct blk_opts *opts, const char *name,
                              const char *format, struct err *err);
/* Opens another file of the image `blk`, which its content names (hostile), by the same rules, as a
 * protocol node, read-only. The class closes it. */
MUST_USE int blk_extent_open(struct blk *blk, const struct blk_opts *opts, const char *name,
                             struct blk **ret_node, struct err *err);
/* Reads from blk->backing as if it were endless: zeroes past its end, and without one at all. */
MUST_USE int blk_backing_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov,
                                int niov);

/* Opens opts->data_file as a second protocol node with the rights and cache mode of `blk`. The
 * class closes it with blk_close() in its close(). -EACCES with advice when the user named none. */
MUST_USE int blk_data_file_open(struct blk *blk, const struct blk_opts *opts, struct blk **ret_node,
                                struct err *err);

/* The internal opener: as blk_open(), for a node under `overlay` (may be NULL). */
MUST_USE int blk_open_chain(const struct blk_opts *opts, struct blk *overlay, uint32_t open_flags,
                            struct blk **ret_blk, struct err *err);
/* A protocol node alone. */
MUST_USE int blk_open_file(const struct blk_opts *opts, struct blk *overlay, uint32_t open_flags,
                           struct blk **ret_node, struct err *err);
/* A node of class `cls` over `take_file` (closed on failure; NULL for a protocol). */
MUST_USE int blk_node_new(const struct blk_class *cls, const struct blk_opts *opts, const char *arg,
                          struct blk *take_file, struct blk *overlay, uint32_t open_flags,
                          struct blk **ret_node, struct err *err);

/* blk_create_begin() for files that are no image: only a protocol node. blk_create_commit() and
 * blk_create_abort() end it. Of `opts` path and force count. */
MUST_USE int blk_create_begin_file(const struct blk_create_opts *opts, struct blk **ret_file,
                                   struct err *err);

/* A text from an image made fit for a terminal: control and non-ASCII bytes as \xNN, cut to fit. */
const char *blk_printable(const char *text, char *buf, size_t size);

#endif
