/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_place.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define SECTOR 512

static struct blk_place *place_of(const struct blk *blk)
{
    return blk->state;
}

int blk_place_bad(struct err *err, const char *field, uint64_t value, const char *allowed)
{
    return err_set(err, -EINVAL, "%s is %" PRIu64 " (0x%" PRIx64 "); allowed: %s", field, value,
                   value, allowed);
}

void blk_place_init(struct blk_place *p, const struct blk_place_ops *ops)
{
    /* The default attributes cannot fail (pthread_mutex_init(3)). */
    (void)pthread_mutex_init(&p->lock, NULL);
    p->lock_made = true;
    p->ops = ops;
    p->align = SECTOR;
}

void blk_place_done(struct blk_place *p)
{
    if (p->lock_made) {
        pthread_mutex_destroy(&p->lock);
    }
    free(p->table);
    free(p->dirty);
}

int blk_place_make_table(struct blk *blk, unsigned block_bits, struct err *err)
{
    struct blk_place *p = place_of(blk);
    uint64_t block_size = UINT64_C(1) << block_bits;
    p->block_bits = block_bits;
    p->nblocks = blk->size / block_size + (blk->size % block_size != 0);
    if (p->nblocks > BLK_PLACE_MAX_BLOCKS) {
        return err_set(err, -EFBIG,
                       "the disk has %" PRIu64 " blocks of %" PRIu64
                       " bytes, the limit is %" PRIu64,
                       p->nblocks, block_size, BLK_PLACE_MAX_BLOCKS);
    }
    p->table = calloc(MAX(p->nblocks, UINT64_C(1)), sizeof(*p->table));
    p->dirty = calloc(p->nblocks / BLK_PLACE_CHUNK + 1, 1);
    return p->table == NULL || p->dirty == NULL ? err_set(err, -ENOMEM, "out of memory") : 0;
}

/* Checking. */

/* Bytes that block `i` takes in the file at least. The last one may be cut to the disk's end. */
static uint64_t span_of(const struct blk *blk, uint64_t i, uint32_t least)
{
    const struct blk_place *p = blk->state;
    uint64_t start = i << p->block_bits;
    return least != 0 ? least : p->head + MIN(UINT64_C(1) << p->block_bits, blk->size - start);
}

static int compare_entries(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Are the places apart, `span` bytes each? The table is in order in most images; a copy is sorted
 * only where it is not. (The last block may be shorter: that is no overlap that does harm, since
 * `span` is what a writer would use.) */
static int check_overlap(const struct blk_place *p, uint64_t span, struct err *err)
{
    uint64_t gap = (span + p->unit - 1) / p->unit;
    uint64_t next = 0;
    uint64_t i = 0;
    for (; i < p->nblocks; i++) {
        uint32_t entry = p->table[i];
        if (entry >= BLK_PLACE_FIRST && entry < next) {
            break;
        }
        next = entry >= BLK_PLACE_FIRST ? entry + gap : next;
    }
    if (i == p->nblocks) {
        return 0;
    }
    CLEANUP_FREE uint32_t *sorted = calloc(p->allocated, sizeof(*sorted));
    if (sorted == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    uint64_t n = 0;
    for (i = 0; i < p->nblocks; i++) {
        if (p->table[i] >= BLK_PLACE_FIRST) {
            sorted[n++] = p->table[i];
        }
    }
    qsort(sorted, n, sizeof(*sorted), compare_entries);
    for (i = 1; i < n; i++) {
        if (sorted[i] - sorted[i - 1] < gap) {
            return err_set(err, -EINVAL,
                           "two blocks of the disk overlap in the file, at %" PRIu64
                           " and %" PRIu64,
                           blk_place_offset(p, sorted[i - 1]), blk_place_offset(p, sorted[i]));
        }
    }
    return 0;
}

int blk_place_check_table(struct blk *blk, uint64_t low, uint64_t high, uint32_t least,
                          struct err *err)
{
    struct blk_place *p = place_of(blk);
    uint64_t span = least != 0 ? least : p->head + (UINT64_C(1) << p->block_bits);
    p->end = low;
    p->allocated = 0;
    for (uint64_t i = 0; i < p->nblocks; i++) {
        uint32_t entry = p->table[i];
        if (entry < BLK_PLACE_FIRST) {
            continue;
        }
        uint64_t at = blk_place_offset(p, entry);
        uint64_t end = at + span_of(blk, i, least);
        if (at < low || end > high) {
            return err_set(err, -EINVAL,
                           "block %" PRIu64 " of the disk is said to lie at %" PRIu64 " to %" PRIu64
                           " of the file; allowed: %" PRIu64 " to %" PRIu64,
                           i, at, end, low, high);
        }
        p->end = MAX(p->end, at + span); /* of a last block that is cut short, too */
        p->allocated++;
    }
    return check_overlap(p, span, err);
}

/* Finding. */

struct found {
    bool data;
    uint64_t offset; /* in the file */
    uint64_t len;
    uint64_t block;
};

/* What lies at `offset`: blocks that are alike are taken together, data only where they need no
 * preparation and lie one behind the other. */
static struct found find(const struct blk_place *p, uint64_t offset, uint64_t len)
{
    if (p->linear) {
        return (struct found){ .data = true, .offset = p->bias + offset, .len = len };
    }
    uint64_t size = UINT64_C(1) << p->block_bits;
    uint64_t inside = offset & (size - 1);
    uint64_t i = offset >> p->block_bits;
    uint32_t entry = atomic_load_explicit(&p->table[i], memory_order_acquire);
    struct found f = { .data = entry >= BLK_PLACE_FIRST, .len = size - inside, .block = i };
    bool together = !f.data || (p->head == 0 && p->ops->prepare == NULL && size % p->unit == 0);
    if (f.data) {
        f.offset = blk_place_offset(p, entry) + p->head + inside;
    }
    while (together && f.len < len) {
        uint32_t next = atomic_load_explicit(&p->table[++i], memory_order_acquire);
        if (f.data ? next != entry + size / p->unit : next >= BLK_PLACE_FIRST) {
            break;
        }
        entry = next;
        f.len += size;
    }
    f.len = MIN(f.len, len);
    return f;
}

static int prepare(struct blk *blk, const struct found *f, bool write, bool wait)
{
    const struct blk_place *p = blk->state;
    if (p->linear || p->ops->prepare == NULL) {
        return 0;
    }
    return p->ops->prepare(blk, f->block, write, wait);
}

static int read_piece(struct blk *blk, const struct found *f, uint64_t offset,
                      const struct iovec *iov, int niov)
{
    if (!f->data) {
        blk_iov_zero(iov, niov, 0, f->len);
        return 0;
    }
    int rc = prepare(blk, f, false, true);
    if (rc == 1) {
        return place_of(blk)->ops->read_odd(blk, offset, iov, niov, f->len);
    }
    return rc < 0 ? rc : blk_preadv(blk->file, f->offset, iov, niov);
}

int blk_place_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                     uint64_t len)
{
    struct found f = find(blk->state, offset, len);
    if (f.len == len) {
        return read_piece(blk, &f, offset, iov, niov);
    }
    CLEANUP_FREE struct iovec *part = calloc((size_t)niov, sizeof(*part));
    if (part == NULL) {
        return -ENOMEM;
    }
    for (uint64_t done = 0; done < len; done += f.len) {
        f = find(blk->state, offset + done, len - done);
        int n = blk_iov_slice(part, iov, niov, done, f.len);
        int rc = read_piece(blk, &f, offset + done, part, n);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Writing. */

static int write_head(struct blk *blk, uint64_t at)
{
    const struct blk_place *p = blk->state;
    if (p->head == 0) {
        return 0;
    }
    CLEANUP_FREE void *head = malloc(p->head);
    if (head == NULL) {
        return -ENOMEM;
    }
    memset(head, p->head_fill, p->head);
    return blk_pwrite(blk->file, at, head, p->head);
}

/* Writes block `f->block` of the disk at the end of the file. The lock is held. */
static int allocate(struct blk *blk, const struct found *f, uint64_t offset,
                    const struct iovec *iov, int niov)
{
    static const uint8_t zeroes[SECTOR];
    struct blk_place *p = place_of(blk);
    uint64_t size = UINT64_C(1) << p->block_bits;
    uint64_t data = p->bias + bits_align_up(p->end - p->bias + p->head, p->align);
    uint64_t at = data - p->head;
    uint64_t entry = (at - p->bias) / p->unit + BLK_PLACE_FIRST;
    if (entry > UINT32_MAX - 1) {
        return -EFBIG; /* the format's numbers end here */
    }
    int rc = 0;
    if (blk->file->size > at) { /* left by a crash, or a footer */
        rc = blk_write_zeroes(blk->file, at, p->head + size, true);
    }
    if (rc == 0) {
        rc = write_head(blk, at);
    }
    if (rc == 0) {
        rc = blk_pwritev(blk->file, data + (offset & (size - 1)), iov, niov);
    }
    if (rc == 0 && blk->file->size < data + size) {
        rc = blk_pwrite(blk->file, data + size - SECTOR, zeroes, SECTOR);
    }
    if (rc < 0) {
        return rc;
    }
    p->end = data + size;
    p->allocated++;
    p->dirty[f->block / BLK_PLACE_CHUNK] = 1;
    p->any_dirty = true;
    /* With the acquire in find(): who sees the place sees the data in the page cache. */
    atomic_store_explicit(&p->table[f->block], (uint32_t)entry, memory_order_release);
    return 0;
}

static int write_piece(struct blk *blk, struct found *f, uint64_t offset, const struct iovec *iov,
                       int niov)
{
    struct blk_place *p = place_of(blk);
    int rc = 0;
    if (!f->data) {
        pthread_mutex_lock(&p->lock);
        *f = find(p, offset, f->len); /* another thread may have been first */
        if (!f->data) {
            rc = allocate(blk, f, offset, iov, niov);
            pthread_mutex_unlock(&p->lock);
            return rc;
        }
        pthread_mutex_unlock(&p->lock);
    }
    rc = prepare(blk, f, true, true);
    return rc < 0 ? rc : blk_pwritev(blk->file, f->offset, iov, niov);
}

int blk_place_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                      uint64_t len)
{
    const struct blk_place *p = blk->state;
    CLEANUP_FREE struct iovec *part = calloc((size_t)niov, sizeof(*part));
    if (part == NULL) {
        return -ENOMEM;
    }
    uint64_t done = 0;
    while (done < len) {
        uint64_t at = offset + done;
        struct found f = find(p, at, len - done);
        if (!f.data) { /* blocks are made one by one */
            f.len = MIN(f.len, (UINT64_C(1) << p->block_bits) -
                                   (at & ((UINT64_C(1) << p->block_bits) - 1)));
        }
        int n = blk_iov_slice(part, iov, niov, done, f.len);
        int rc = write_piece(blk, &f, at, part, n);
        if (rc < 0) {
            return rc;
        }
        done += f.len;
    }
    return 0;
}

static int store_dirty(struct blk *blk)
{
    struct blk_place *p = place_of(blk);
    for (uint64_t chunk = 0; chunk * BLK_PLACE_CHUNK < p->nblocks; chunk++) {
        if (p->dirty[chunk] == 0) {
            continue;
        }
        uint64_t first = chunk * BLK_PLACE_CHUNK;
        uint32_t n = (uint32_t)MIN(p->nblocks - first, (uint64_t)BLK_PLACE_CHUNK);
        int rc = p->ops->store(blk, first, n);
        if (rc < 0) {
            return rc;
        }
    }
    return p->ops->finish != NULL ? p->ops->finish(blk) : 0;
}

int blk_place_flush(struct blk *blk)
{
    struct blk_place *p = place_of(blk);
    pthread_mutex_lock(&p->lock);
    int rc = blk_flush(blk->file);
    if (rc == 0 && p->any_dirty) {
        rc = store_dirty(blk);
        if (rc == 0) {
            rc = blk_flush(blk->file);
        }
        if (rc == 0) {
            memset(p->dirty, 0, p->nblocks / BLK_PLACE_CHUNK + 1);
            p->any_dirty = false;
        }
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* Calls one of the file's functions for each piece that has data. */
static int each_data(struct blk *blk, uint64_t offset, uint64_t len, bool zero, bool may_unmap)
{
    const struct blk_place *p = blk->state;
    while (len > 0) {
        struct found f = find(p, offset, len);
        int rc = f.data ? prepare(blk, &f, true, true) : 0;
        if (rc == 0 && f.data) {
            rc = zero ? blk_write_zeroes(blk->file, f.offset, f.len, may_unmap)
                      : blk_discard(blk->file, f.offset, f.len);
        }
        if (rc < 0) {
            return rc;
        }
        offset += f.len;
        len -= f.len;
    }
    return 0;
}

int blk_place_discard(struct blk *blk, uint64_t offset, uint64_t len)
{
    return each_data(blk, offset, len, false, false);
}

int blk_place_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    return each_data(blk, offset, len, true, may_unmap);
}

/* Asking. */

int blk_place_status(struct blk *blk, uint64_t offset, uint64_t len, struct blk_extent *ret_extent)
{
    struct found f = find(blk->state, offset, len);
    *ret_extent = (struct blk_extent){ .kind = BLK_EXTENT_ZERO, .len = f.len };
    if (!f.data) {
        return 0;
    }
    int rc = prepare(blk, &f, false, true);
    if (rc == 0) {
        return blk_status(blk->file, f.offset, f.len, ret_extent);
    }
    ret_extent->kind = BLK_EXTENT_DATA;
    return rc < 0 ? rc : 0;
}

int blk_place_map(struct blk *blk, bool write, uint64_t offset, uint64_t len,
                  struct blk_map *ret_map)
{
    struct found f = find(blk->state, offset, len);
    if (!f.data) {
        *ret_map = (struct blk_map){
            .kind = write ? BLK_MAP_SLOW : BLK_MAP_ZERO,
            .fd = -1,
            .len = f.len,
        };
        return 0;
    }
    int rc = prepare(blk, &f, write, false);
    if (rc == 0) {
        return blk_map(blk->file, write, f.offset, f.len, ret_map);
    }
    *ret_map = (struct blk_map){ .kind = BLK_MAP_SLOW, .fd = -1, .len = f.len };
    return rc == 1 || rc == -EAGAIN ? 0 : rc;
}

int blk_place_check(struct blk *blk, unsigned fix, struct blk_check *check, struct err *err)
{
    const struct blk_place *p = blk->state;
    (void)fix; /* an image with errors is not opened at all */
    if (p->linear) {
        return err_set(err, -ENOTSUP, "an image of this kind has nothing to check");
    }
    check->clusters_total = p->nblocks;
    check->clusters_allocated = p->allocated;
    return 0;
}
