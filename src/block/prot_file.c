/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file protocol: a regular file or a block device.
 *
 * Invariants
 *   1. The descriptor is of a regular file or a block device, locked (prot_lock.c) for as long as
 *      it is open.
 *   2. Reads past the end deliver zeroes; writes are whole or fail (short ones are continued).
 *   3. With O_DIRECT, what is not aligned goes through a bounce buffer; a write that covers only a
 *      part of an alignment unit reads the unit first and holds `gate` for writing meanwhile, all
 *      other synchronous writes hold it for reading. Queued writes do not pass the gate: they are
 *      whole sectors, and map() denies them where the unit is larger than a sector.
 *   4. After a failed fdatasync() the kernel may have dropped the pages and would report success
 *      next time: the failure sticks, as EIO.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/blk_int.h"
#include "block/prot_lock.h"

/* A bounce buffer's size: large enough to keep a disk streaming, small beside a guest. */
#define BOUNCE_SIZE (256 * KIB)
/* Alignment assumed where the kernel does not tell, and of our own buffers. */
#define SAFE_ALIGN 4096U
#define SECTOR     512U

struct state {
    int fd;
    bool direct;
    uint32_t mem_align;    /* 1 without O_DIRECT */
    uint32_t offset_align; /* 1 without O_DIRECT */
    uint32_t space_align;  /* of fallocate(): 1, on a device its sector */
    pthread_rwlock_t gate; /* invariant 3 */
    bool gate_made;
    atomic_bool flush_failed; /* invariant 4 */
    atomic_bool no_punch;     /* fallocate said EOPNOTSUPP */
    atomic_bool no_zero_range;
};

/* Opening. */

static int refuse_kind(mode_t mode, struct err *err)
{
    if (S_ISREG(mode) || S_ISBLK(mode)) {
        return 0;
    }
    if (S_ISDIR(mode)) {
        return err_set(err, -EISDIR, "is a directory; a disk is a file or a block device");
    }
    return err_set(err, -EINVAL, "is a %s; a disk is a file or a block device",
                   S_ISFIFO(mode)   ? "named pipe"
                   : S_ISSOCK(mode) ? "socket"
                   : S_ISCHR(mode)  ? "character device"
                                    : "special file");
}

static int open_path(const struct blk *blk, int flags)
{
    if ((blk->open_flags & BLK_OPEN_BENEATH) == 0) {
        int fd = open(blk->path, flags, 0666);
        return fd < 0 ? -errno : fd;
    }
    struct open_how how = {
        .flags = (uint64_t)flags,
        .resolve = RESOLVE_NO_SYMLINKS,
    };
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, blk->path, &how, sizeof(how));
    return fd < 0 ? -errno : fd;
}

static int explain_open(const struct blk *blk, int code, struct err *err)
{
    switch (code) {
    case -EINVAL:
        if (blk->cache == BLK_CACHE_NONE) {
            return err_set(err, code,
                           "cache=none: this file system has no O_DIRECT; use "
                           "cache=writeback");
        }
        break;
    case -EACCES:
    case -EPERM:
        return err_set(err, code, "no permission to open it for %s",
                       blk->read_only ? "reading" : "writing (read-only may be allowed)");
    case -EROFS:
        return err_set(err, code, "lies on a read-only file system; open it read-only");
    case -ENOENT:
        return err_set(err, code, "no such file");
    case -EBUSY:
        return err_set(err, code,
                       "is in use by the host (mounted, swap, or part of another device)");
    case -ETXTBSY:
        return err_set(err, code, "is in use by the kernel (a running program or swap)");
    default:
        break;
    }
    return err_set_errno(err, code, "cannot open");
}

/* The kind is looked at before the open, since opening a device can have effects, and after it,
 * since the name may lead elsewhere by then. */
static int open_fd(struct blk *blk, struct state *s, struct stat *ret_st, struct err *err)
{
    bool create = (blk->open_flags & BLK_OPEN_CREATE) != 0;
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (blk->read_only ? O_RDONLY : O_RDWR);
    if (!create && stat(blk->path, ret_st) == 0) {
        int rc = refuse_kind(ret_st->st_mode, err);
        if (rc < 0) {
            return rc;
        }
        /* On a device, O_EXCL without O_CREAT: not while the host itself uses it (open(2)). */
        flags |= S_ISBLK(ret_st->st_mode) && !blk->read_only ? O_EXCL : 0;
    }
    flags |= create ? O_CREAT | O_EXCL : 0;
    flags |= blk->cache == BLK_CACHE_NONE ? O_DIRECT : 0;
    int fd = open_path(blk, flags);
    if (fd < 0) {
        return explain_open(blk, fd, err);
    }
    s->fd = fd;
    if (fstat(fd, ret_st) < 0) {
        int code = -errno;
        return err_set_errno(err, code, "fstat");
    }
    return refuse_kind(ret_st->st_mode, err);
}

/* How must O_DIRECT requests be aligned? statx(2) tells since Linux 6.1. */
static void find_alignment(const struct blk *blk, struct state *s)
{
    s->mem_align = 1;
    s->offset_align = 1;
    s->direct = blk->cache == BLK_CACHE_NONE;
    if (!s->direct) {
        return;
    }
    s->mem_align = SAFE_ALIGN;
    s->offset_align = SAFE_ALIGN;
    int logical;
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(s->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) != 0 && bits_is_pow2(stx.stx_dio_mem_align) &&
        bits_is_pow2(stx.stx_dio_offset_align)) {
        s->mem_align = stx.stx_dio_mem_align;
        s->offset_align = stx.stx_dio_offset_align;
        return;
    }
#endif
    if (ioctl(s->fd, BLKSSZGET, &logical) == 0 && logical > 0 && bits_is_pow2((uint64_t)logical)) {
        s->mem_align = (uint32_t)logical;
        s->offset_align = (uint32_t)logical;
    }
}

static uint32_t find_space_alignment(const struct blk *blk, int fd)
{
    int logical;
    if (!blk->regular && ioctl(fd, BLKSSZGET, &logical) == 0 && bits_is_pow2((uint64_t)logical)) {
        return (uint32_t)logical;
    }
    return 1;
}

static int file_open(struct blk *blk, const struct blk_opts *opts, const char *arg, struct err *err)
{
    (void)opts;
    (void)arg;
    struct state *s = blk->state;
    s->fd = -1;
    int rc = -pthread_rwlock_init(&s->gate, NULL);
    if (rc < 0) {
        return err_set_errno(err, rc, "lock");
    }
    s->gate_made = true;
    struct stat st;
    rc = open_fd(blk, s, &st, err);
    if (rc < 0) {
        return rc;
    }
    rc = prot_lock_take(s->fd, !blk->read_only, err);
    if (rc < 0) {
        return rc;
    }
    uint64_t size = (uint64_t)st.st_size;
    if (S_ISBLK(st.st_mode) && ioctl(s->fd, BLKGETSIZE64, &size) < 0) {
        int code = -errno;
        return err_set_errno(err, code, "cannot find the size of the device");
    }
    blk->size = size;
    blk->dev = st.st_dev;
    blk->ino = st.st_ino;
    blk->regular = S_ISREG(st.st_mode);
    blk->discard_align = MAX((uint32_t)st.st_blksize, SECTOR);
    find_alignment(blk, s);
    s->space_align = find_space_alignment(blk, s->fd);
    return 0;
}

static int file_close(struct blk *blk)
{
    struct state *s = blk->state;
    if (s->fd >= 0) {
        close(s->fd); /* the locks go with it */
    }
    if (s->gate_made) {
        pthread_rwlock_destroy(&s->gate);
    }
    return 0;
}

/* Plain I/O: whole, or an error. */

static int transfer(const struct state *s, bool write, uint64_t offset, struct iovec *iov, int niov)
{
    while (niov > 0) {
        int n = MIN(niov, IOV_MAX);
        ssize_t got =
            write ? pwritev(s->fd, iov, n, (off_t)offset) : preadv(s->fd, iov, n, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (got == 0 && write) {
            return -EIO; /* a device that has ended */
        }
        if (got == 0) {
            blk_iov_zero(iov, niov, 0, blk_iov_len(iov, niov));
            return 0;
        }
        offset += (size_t)got;
        blk_iov_advance(&iov, &niov, (size_t)got);
        if (s->direct && offset % s->offset_align != 0 && niov > 0) {
            /* A direct read ended inside a unit: that is the end of the file. A direct write that
             * did so cannot be continued. */
            if (write) {
                return -EIO;
            }
            blk_iov_zero(iov, niov, 0, blk_iov_len(iov, niov));
            return 0;
        }
    }
    return 0;
}

/* transfer() works on a copy, since it changes the entries. */
static int transfer_copy(const struct state *s, bool write, uint64_t offset,
                         const struct iovec *iov, int niov)
{
    struct iovec few[8];
    if (niov <= (int)ARRAY_LEN(few)) {
        memcpy(few, iov, (size_t)niov * sizeof(*iov));
        return transfer(s, write, offset, few, niov);
    }
    CLEANUP_FREE struct iovec *many = malloc((size_t)niov * sizeof(*iov));
    if (many == NULL) {
        return -ENOMEM;
    }
    memcpy(many, iov, (size_t)niov * sizeof(*iov));
    return transfer(s, write, offset, many, niov);
}

static bool fits_direct(const struct state *s, uint64_t offset, uint64_t len,
                        const struct iovec *iov, int niov)
{
    return !s->direct || (((offset | len) & (s->offset_align - 1)) == 0 &&
                          blk_iov_aligned(iov, niov, s->mem_align));
}

/* O_DIRECT, unaligned: piece by piece through `bounce`. For writes the caller holds the gate. */
static int bounce_piece(const struct state *s, bool write, uint64_t offset, size_t len,
                        const struct iovec *iov, int niov, uint64_t skip, char *bounce)
{
    uint64_t start = bits_align_down(offset, s->offset_align);
    uint64_t end = bits_align_up(offset + len, s->offset_align);
    struct iovec whole = { .iov_base = bounce, .iov_len = end - start };
    if (!write || start != offset || end != offset + len) {
        int rc = transfer_copy(s, false, start, &whole, 1);
        if (rc < 0) {
            return rc;
        }
    }
    if (!write) {
        blk_iov_from_buf(iov, niov, skip, bounce + (offset - start), len);
        return 0;
    }
    blk_iov_to_buf(iov, niov, skip, bounce + (offset - start), len);
    return transfer_copy(s, true, start, &whole, 1);
}

static int bounce_all(const struct state *s, bool write, uint64_t offset, uint64_t len,
                      const struct iovec *iov, int niov)
{
    CLEANUP_FREE void *bounce = NULL;
    size_t size = BOUNCE_SIZE + 2 * (size_t)s->offset_align;
    if (posix_memalign(&bounce, MAX(SAFE_ALIGN, s->mem_align), size) != 0) {
        return -ENOMEM;
    }
    uint64_t skip = 0;
    while (skip < len) {
        /* Pieces end on a unit, so that only the first and the last are partial. */
        uint64_t at = offset + skip;
        uint64_t stop = bits_align_down(at + BOUNCE_SIZE, s->offset_align);
        size_t part = MIN(stop - at, len - skip);
        int rc = bounce_piece(s, write, at, part, iov, niov, skip, bounce);
        if (rc < 0) {
            return rc;
        }
        skip += part;
    }
    return 0;
}

static int file_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                       uint64_t len)
{
    const struct state *s = blk->state;
    if (!fits_direct(s, offset, len, iov, niov)) {
        return bounce_all(s, false, offset, len, iov, niov);
    }
    return transfer_copy(s, false, offset, iov, niov);
}

static int file_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                        uint64_t len)
{
    struct state *s = blk->state;
    if (!s->direct) {
        return transfer_copy(s, true, offset, iov, niov);
    }
    bool partial = ((offset | len) & (s->offset_align - 1)) != 0;
    if (partial) {
        pthread_rwlock_wrlock(&s->gate);
    } else {
        pthread_rwlock_rdlock(&s->gate);
    }
    int rc = fits_direct(s, offset, len, iov, niov) ? transfer_copy(s, true, offset, iov, niov)
                                                    : bounce_all(s, true, offset, len, iov, niov);
    pthread_rwlock_unlock(&s->gate);
    return rc;
}

static int file_flush(struct blk *blk)
{
    struct state *s = blk->state;
    if (blk->cache == BLK_CACHE_UNSAFE) {
        return 0;
    }
    if (s->flush_failed) {
        return -EIO;
    }
    while (fdatasync(s->fd) < 0) {
        if (errno == EINTR) {
            continue;
        }
        int rc = -errno;
        s->flush_failed = true;
        return rc;
    }
    return 0;
}

/* Space. */

static int do_fallocate(int fd, int mode, uint64_t offset, uint64_t len)
{
    while (fallocate(fd, mode, (off_t)offset, (off_t)len) < 0) {
        if (errno != EINTR) {
            return errno == ENODEV || errno == ENOSYS ? -EOPNOTSUPP : -errno;
        }
    }
    return 0;
}

static int punch(struct state *s, uint64_t offset, uint64_t len)
{
    if (s->no_punch) {
        return -EOPNOTSUPP;
    }
    int rc = do_fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (rc == -EOPNOTSUPP) {
        s->no_punch = true;
    }
    return rc;
}

static int file_discard(struct blk *blk, uint64_t offset, uint64_t len)
{
    struct state *s = blk->state;
    uint64_t start = bits_align_up(offset, s->space_align);
    uint64_t end = bits_align_down(offset + len, s->space_align);
    int rc = start < end ? punch(s, start, end - start) : 0;
    return rc == -EOPNOTSUPP ? 0 : rc;
}

static int file_truncate(struct blk *blk, uint64_t size, struct err *err)
{
    const struct state *s = blk->state;
    if (!blk->regular) {
        if (size == blk->size) {
            return 0;
        }
        return err_set(err, size > blk->size ? -ENOSPC : -ENOTSUP,
                       "the size of a device (%llu bytes) cannot be changed to %llu",
                       (unsigned long long)blk->size, (unsigned long long)size);
    }
    while (ftruncate(s->fd, (off_t)size) < 0) {
        if (errno != EINTR) {
            int code = -errno;
            return err_set_errno(err, code, "cannot set the size to %llu",
                                 (unsigned long long)size);
        }
    }
    blk->size = size;
    return 0;
}

/* A hole may reach past the end, but does not move it. */
static int punch_and_grow(struct blk *blk, uint64_t offset, uint64_t len)
{
    struct state *s = blk->state;
    int rc = punch(s, offset, len);
    struct stat st;
    if (rc < 0 || !blk->regular) {
        return rc;
    }
    if (fstat(s->fd, &st) < 0) {
        return -errno;
    }
    /* Not by ftruncate(): another thread may be growing the file. Zeroing can only make it longer.
     */
    if ((uint64_t)st.st_size < offset + len) {
        return -EOPNOTSUPP;
    }
    return 0;
}

static int zero_aligned(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct state *s = blk->state;
    int rc = -EOPNOTSUPP;
    if (may_unmap) {
        rc = punch_and_grow(blk, offset, len);
    }
    if (rc == -EOPNOTSUPP && !s->no_zero_range) {
        rc = do_fallocate(s->fd, FALLOC_FL_ZERO_RANGE, offset, len);
        if (rc == -EOPNOTSUPP) {
            s->no_zero_range = true;
        }
    }
    return rc == -EOPNOTSUPP ? -ENOTSUP : rc;
}

/* Zeroes for what fallocate() cannot take: less than a sector. */
static int zero_edge(struct blk *blk, uint64_t offset, uint64_t len)
{
    static const char zeroes[SAFE_ALIGN];
    while (len > 0) {
        struct iovec iov = { (void *)(uintptr_t)zeroes, MIN(len, sizeof(zeroes)) };
        int rc = file_pwritev(blk, offset, &iov, 1, iov.iov_len);
        if (rc < 0) {
            return rc;
        }
        offset += iov.iov_len;
        len -= iov.iov_len;
    }
    return 0;
}

static int file_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct state *s = blk->state;
    uint64_t start = bits_align_up(offset, s->space_align);
    uint64_t end = bits_align_down(offset + len, s->space_align);
    if (start >= end) {
        return zero_edge(blk, offset, len);
    }
    int rc = zero_edge(blk, offset, start - offset);
    if (rc == 0) {
        rc = zero_edge(blk, end, offset + len - end);
    }
    return rc < 0 ? rc : zero_aligned(blk, start, end - start, may_unmap);
}

static int file_status(struct blk *blk, uint64_t offset, uint64_t len,
                       struct blk_extent *ret_extent)
{
    const struct state *s = blk->state;
    *ret_extent = (struct blk_extent){ .kind = BLK_EXTENT_DATA, .len = len };
    if (!blk->regular) {
        return 0;
    }
    off_t data = lseek(s->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) { /* a hole up to the end, or past it */
        ret_extent->kind = BLK_EXTENT_ZERO;
        return 0;
    }
    if (data < 0) {
        return 0; /* cannot tell: data */
    }
    if ((uint64_t)data > offset) {
        ret_extent->kind = BLK_EXTENT_ZERO;
        ret_extent->len = MIN(len, (uint64_t)data - offset);
        return 0;
    }
    off_t hole = lseek(s->fd, (off_t)offset, SEEK_HOLE);
    if (hole > 0 && (uint64_t)hole > offset) {
        ret_extent->len = MIN(len, (uint64_t)hole - offset);
    }
    return 0;
}

static int file_info(struct blk *blk, blk_info_fn *fn, void *opaque, struct err *err)
{
    const struct state *s = blk->state;
    struct stat st;
    if (fstat(s->fd, &st) < 0) {
        int code = -errno;
        return err_set_errno(err, code, "fstat");
    }
    struct blk_info_item item = { .type = BLK_INFO_BYTES };
    item.key = "file_size";
    item.number = blk->regular ? (uint64_t)st.st_size : blk->size;
    fn(opaque, &item);
    if (blk->regular) {
        item.key = "allocated_size";
        item.number = (uint64_t)st.st_blocks * SECTOR;
        fn(opaque, &item);
    }
    return 0;
}

static int file_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                    struct blk_map *ret_map)
{
    const struct state *s = blk->state;
    /* Invariant 3. Reads of a part of a unit need the bounce buffer, too. */
    if (((offset | len) & (s->offset_align - 1)) != 0 || (write && s->offset_align > SECTOR)) {
        *ret_map = (struct blk_map){ .kind = BLK_MAP_SLOW, .fd = -1, .len = len };
        return 0;
    }
    *ret_map = (struct blk_map){
        .kind = BLK_MAP_DATA,
        .fd = s->fd,
        .direct = s->direct,
        .mem_align = s->mem_align,
        .offset = offset,
        .len = len,
    };
    return 0;
}

const struct blk_class prot_file_class = {
    .name = "file",
    .help = "a regular file or a block device",
    .kind = BLK_KIND_PROTOCOL,
    .state_size = sizeof(struct state),
    .open = file_open,
    .close = file_close,
    .preadv = file_preadv,
    .pwritev = file_pwritev,
    .flush = file_flush,
    .discard = file_discard,
    .write_zeroes = file_write_zeroes,
    .truncate = file_truncate,
    .status = file_status,
    .map = file_map,
    .info = file_info,
};
