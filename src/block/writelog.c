/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/writelog.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SECTOR 512

struct writelog {
    void *map;
    size_t map_len;
    struct writelog_entry *entries;
    size_t count;
};

/* xorshift64*: small, seeded, good enough to choose subsets. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

static bool coin(uint64_t *state)
{
    return (next_random(state) >> 63) != 0;
}

/* Loading. */

static int add_entry(struct writelog *log, size_t *room, const struct writelog_entry *entry)
{
    if (log->count == *room) {
        size_t more = *room == 0 ? 256 : *room * 2;
        void *grown = reallocarray(log->entries, more, sizeof(*log->entries));
        if (grown == NULL) {
            return -ENOMEM;
        }
        log->entries = grown;
        *room = more;
    }
    log->entries[log->count++] = *entry;
    return 0;
}

static int parse(struct writelog *log, struct err *err)
{
    const char *base = log->map;
    size_t at = 0;
    size_t room = 0;
    while (log->map_len - at >= WRITELOG_ENTRY_SIZE) {
        const char *p = base + at;
        uint32_t op = le32_get(p + 4);
        struct writelog_entry entry = {
            .op = (enum writelog_op)op,
            .offset = le64_get(p + 8),
            .len = le64_get(p + 16),
        };
        if (le32_get(p) != WRITELOG_MAGIC || op > WRITELOG_TRUNCATE || entry.offset > INT64_MAX ||
            entry.len > INT64_MAX) {
            return err_set(err, -EINVAL, "not a write log: bad entry at offset %zu", at);
        }
        at += WRITELOG_ENTRY_SIZE;
        if (entry.op == WRITELOG_WRITE) {
            if (entry.len > log->map_len - at) {
                break; /* cut off */
            }
            entry.data = base + at;
            at += entry.len;
        }
        if (add_entry(log, &room, &entry) < 0) {
            return err_set(err, -ENOMEM, "out of memory");
        }
    }
    return 0;
}

int writelog_load(const char *path, struct writelog **ret_log, struct err *err)
{
    struct stat st;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int code = -errno;
        return err_set_errno(err, code, "write log '%s'", path);
    }
    struct writelog *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = 0;
    if (st.st_size > 0) {
        log->map_len = (size_t)st.st_size;
        log->map = mmap(NULL, log->map_len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (log->map == MAP_FAILED) {
            log->map = NULL;
            int code = -errno;
            rc = err_set_errno(err, code, "mmap");
        } else {
            rc = parse(log, err);
        }
    }
    if (rc < 0) {
        writelog_free(log);
        return err_prefix(err, "write log '%s': ", path);
    }
    *ret_log = log;
    return 0;
}

void writelog_free(struct writelog *log)
{
    if (log == NULL) {
        return;
    }
    if (log->map != NULL) {
        munmap(log->map, log->map_len);
    }
    free(log->entries);
    free(log);
}

size_t writelog_count(const struct writelog *log)
{
    return log->count;
}

const struct writelog_entry *writelog_get(const struct writelog *log, size_t i)
{
    assert(i < log->count);
    return &log->entries[i];
}

/* Replaying. */

static int write_all(int fd, const char *data, uint64_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, data, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        data += n;
        len -= (size_t)n;
        offset += (size_t)n;
    }
    return 0;
}

static int zero_range(int fd, uint64_t offset, uint64_t len, bool grow)
{
    static const char zeroes[65536];
    struct stat st;
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    uint64_t size = (uint64_t)st.st_size;
    if (grow && size < offset + len && ftruncate(fd, (off_t)(offset + len)) < 0) {
        return -errno;
    }
    if (fallocate(fd, mode, (off_t)offset, (off_t)len) == 0) {
        return 0;
    }
    uint64_t end = grow ? offset + len : MIN(offset + len, size);
    int rc = 0;
    while (rc == 0 && offset < end) {
        uint64_t part = MIN(end - offset, sizeof(zeroes));
        rc = write_all(fd, zeroes, part, offset);
        offset += part;
    }
    return rc;
}

static int apply(int fd, const struct writelog_entry *e)
{
    switch (e->op) {
    case WRITELOG_WRITE:
        return write_all(fd, e->data, e->len, e->offset);
    case WRITELOG_FLUSH:
        return 0;
    case WRITELOG_DISCARD:
        return zero_range(fd, e->offset, e->len, false);
    case WRITELOG_ZERO:
        return zero_range(fd, e->offset, e->len, true);
    case WRITELOG_TRUNCATE:
        return ftruncate(fd, (off_t)e->offset) < 0 ? -errno : 0;
    }
    return -EINVAL;
}

/* Some of the sectors of a write. */
static int apply_torn(int fd, const struct writelog_entry *e, uint64_t *random)
{
    uint64_t at = 0;
    while (at < e->len) {
        /* To the next sector boundary of the disk. */
        uint64_t part = MIN(SECTOR - (e->offset + at) % SECTOR, e->len - at);
        if (coin(random)) {
            int rc = write_all(fd, (const char *)e->data + at, part, e->offset + at);
            if (rc < 0) {
                return rc;
            }
        }
        at += part;
    }
    return 0;
}

static bool overlap(const struct writelog_entry *a, const struct writelog_entry *b)
{
    if (a->op == WRITELOG_TRUNCATE || b->op == WRITELOG_TRUNCATE) {
        return true;
    }
    return a->offset < b->offset + b->len && b->offset < a->offset + a->len;
}

/* Shuffles `order` (indices of entries); then puts back in order what overlaps. */
static void shuffle(const struct writelog *log, size_t *order, size_t n, uint64_t *random)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)(next_random(random) % i);
        size_t tmp = order[i - 1];
        order[i - 1] = order[j];
        order[j] = tmp;
    }
    /* Insertion: an entry moves in front of those that it overlaps and precedes. */
    for (size_t i = 1; i < n; i++) {
        size_t at = i;
        for (size_t k = i; k-- > 0;) {
            if (order[k] > order[i] && overlap(&log->entries[order[k]], &log->entries[order[i]])) {
                at = k;
            }
        }
        size_t moved = order[i];
        memmove(&order[at + 1], &order[at], (i - at) * sizeof(*order));
        order[at] = moved;
    }
}

static int replay_reordered(const struct writelog *log, size_t first, size_t point,
                            uint64_t *random, int fd)
{
    size_t n = point - first;
    if (n == 0) {
        return 0;
    }
    CLEANUP_FREE size_t *order = calloc(n, sizeof(*order));
    if (order == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        order[i] = first + i;
    }
    shuffle(log, order, n, random);
    size_t cut = (size_t)(next_random(random) % (n + 1));
    int rc = 0;
    for (size_t i = 0; i < cut && rc == 0; i++) {
        rc = apply(fd, &log->entries[order[i]]);
    }
    return rc;
}

int writelog_replay(const struct writelog *log, enum writelog_mode mode, size_t point,
                    uint64_t seed, int fd, struct err *err)
{
    assert(point <= log->count);
    uint64_t random = seed * 2 + 1; /* never 0, which xorshift cannot leave */
    size_t durable = 0;
    int rc = 0;
    for (size_t i = 0; i < point; i++) {
        if (log->entries[i].op == WRITELOG_FLUSH) {
            durable = i + 1;
        }
    }
    for (size_t i = 0; i < durable && rc == 0; i++) {
        rc = apply(fd, &log->entries[i]);
    }
    if (mode == WRITELOG_REORDER && rc == 0) {
        rc = replay_reordered(log, durable, point, &random, fd);
        durable = point;
    }
    for (size_t i = durable; i < point && rc == 0; i++) {
        const struct writelog_entry *e = &log->entries[i];
        if (mode != WRITELOG_PREFIX && !coin(&random)) {
            continue;
        }
        bool torn = mode == WRITELOG_TORN && e->op == WRITELOG_WRITE;
        rc = torn ? apply_torn(fd, e, &random) : apply(fd, e);
    }
    return rc < 0 ? err_set_errno(err, rc, "write log: replay") : 0;
}
