/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkops crash: power losses, replayed from a write log.
 *
 *   BEFORE   the image before the run         LOG    what the run wrote to the file
 *   TRACE    what the guest did               MODEL  the disk's contents before the run
 *
 * For each point: the image that the replayer leaves is opened for writing (which mends a dirty
 * one), checked (no errors; leaks are allowed) and read whole. Each sector must be what it was at
 * the guest's last completed flush before the point, or what an operation after that flush (and
 * begun before the point) made it. Which operation came before which entry of the log is told by
 * the length of the log, which the trace notes with each of them. With keep=PATH the images are
 * left as PATH.0, PATH.1, ... for other programs to judge.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkops.h"
#include "block/writelog.h"

enum kind { KIND_WRITE, KIND_ZERO, KIND_DISCARD, KIND_FLUSH_BEGIN, KIND_FLUSH };

struct step {
    enum kind kind;
    uint64_t offset;
    uint64_t len;
    uint64_t stamp;
    uint64_t log_len; /* bytes of log when the step was noted */
};

struct history {
    struct step *steps;
    size_t n;
    uint8_t *model;
    size_t size;
};

static void load_trace(const char *path, struct history *h)
{
    FILE *f = fopen(path, "re");
    char op[32];
    struct step s;
    if (f == NULL) {
        blkops_die("%s: %s", path, strerror(errno));
    }
    while (fscanf(f, "%31s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, op, &s.offset, &s.len,
                  &s.stamp, &s.log_len) == 5) {
        static const char *const names[] = { "write", "zero", "discard", "begin-flush", "flush" };
        size_t k = 0;
        while (k < ARRAY_LEN(names) && strcmp(op, names[k]) != 0) {
            k++;
        }
        if (k == ARRAY_LEN(names)) {
            blkops_die("%s: unknown operation '%s'", path, op);
        }
        s.kind = (enum kind)k;
        h->steps = realloc(h->steps, (h->n + 1) * sizeof(s));
        h->steps[h->n++] = s;
    }
    fclose(f);
}

/* Bytes of the log before entry `point`. */
static uint64_t log_bytes(const struct writelog *log, size_t point)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < point; i++) {
        const struct writelog_entry *e = writelog_get(log, i);
        bytes += WRITELOG_ENTRY_SIZE + (e->op == WRITELOG_WRITE ? e->len : 0);
    }
    return bytes;
}

static bool sector_is(const struct step *s, uint64_t sector, const uint8_t *data)
{
    static const uint8_t zero[512];
    if (s->kind == KIND_WRITE) {
        for (unsigned i = 0; i < 512; i += 16) {
            if (le64_get(data + i) != s->stamp || le64_get(data + i + 8) != sector) {
                return false;
            }
        }
        return true;
    }
    return memcmp(data, zero, 512) == 0;
}

/* The sectors of `disk` against the history up to a log of `bytes`. */
static void judge(const struct history *h, uint64_t bytes, const uint8_t *disk, const char *what)
{
    size_t end = 0;   /* steps begun before the point */
    size_t flush = 0; /* steps before the begin of the last flush that ended before the point */
    size_t begun = 0;
    while (end < h->n && h->steps[end].log_len <= bytes) {
        const struct step *s = &h->steps[end];
        begun = s->kind == KIND_FLUSH_BEGIN ? end : begun;
        flush = s->kind == KIND_FLUSH ? begun : flush;
        end++;
    }
    for (uint64_t sector = 0; sector < h->size / 512; sector++) {
        const uint8_t *data = disk + sector * 512;
        const uint8_t *old = h->model + sector * 512;
        bool ok = false;
        bool flushed = false;
        for (size_t i = end; i > 0 && !ok && !flushed; i--) {
            const struct step *s = &h->steps[i - 1];
            bool covers = s->kind <= KIND_DISCARD && s->offset / 512 <= sector &&
                          sector < (s->offset + s->len) / 512;
            if (covers) {
                ok = sector_is(s, sector, data);
                /* A flushed discard may have done nothing: what was before counts, too. */
                flushed = i <= flush && s->kind != KIND_DISCARD;
            }
        }
        if (!ok && !flushed) {
            ok = memcmp(data, old, 512) == 0;
        }
        if (!ok) {
            blkops_die("%s: sector %" PRIu64 " is neither flushed nor newer data", what, sector);
        }
    }
}

static void copy_file(const char *from, const char *to)
{
    size_t size;
    uint8_t *data = blkops_load(from, &size);
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) < 0) {
        blkops_die("%s: %s", to, strerror(errno));
    }
    free(data);
}

static void on_report(void *opaque, const char *text)
{
    (void)opaque;
    if (strncmp(text, "error", 5) == 0) {
        fprintf(stderr, "%s\n", text);
    }
}

static void examine(const struct history *h, const char *path, uint64_t bytes, const char *what)
{
    struct err err = ERR_INIT;
    struct blk *blk;
    struct blk_check check = { .report = on_report };
    struct blk_opts opts = { .path = path, .format = "qcow2" };
    uint8_t *disk = malloc(h->size);
    if (blk_open(&opts, &blk, &err) < 0 || blk_check(blk, 0, &check, &err) < 0) {
        blkops_die("%s: %s", what, err.msg);
    }
    if (check.errors != 0) {
        blkops_die("%s: %" PRIu64 " errors", what, check.errors);
    }
    if (disk == NULL || blk_pread(blk, 0, disk, h->size) < 0) {
        blkops_die("%s: cannot read the disk", what);
    }
    judge(h, bytes, disk, what);
    blk_close(blk);
    free(disk);
}

int blkops_crash_cmd(int argc, char **argv)
{
    struct history h = { 0 };
    struct writelog *log;
    struct err err = ERR_INIT;
    const char *scratch = blkops_arg(argc, argv, "scratch");
    const char *keep = blkops_arg(argc, argv, "keep");
    uint64_t points = blkops_num(argc, argv, "points", 100);
    uint64_t seed = blkops_num(argc, argv, "seed", 1);
    uint64_t rng = seed;
    if (scratch == NULL || writelog_load(argv[1], &log, &err) < 0) {
        blkops_die("%s", scratch == NULL ? "scratch= is missing" : err.msg);
    }
    load_trace(argv[2], &h);
    h.model = blkops_load(argv[3], &h.size);
    size_t count = writelog_count(log);
    for (uint64_t i = 0; i < points; i++) {
        /* Entries are the points that differ: each in turn when there are enough points. */
        size_t point = points > count ? i % (count + 1) : blkops_rand(&rng) % (count + 1);
        enum writelog_mode mode = (enum writelog_mode)(blkops_rand(&rng) % 4);
        uint64_t state = blkops_rand(&rng);
        char what[128];
        (void)snprintf(what, sizeof(what), "point %zu of %zu, mode %d, state %" PRIu64, point,
                       count, mode, state);
        copy_file(argv[0], scratch);
        int fd = open(scratch, O_RDWR | O_CLOEXEC);
        if (fd < 0 || writelog_replay(log, mode, point, state, fd, &err) < 0) {
            blkops_die("%s: replay: %s", what, err.msg);
        }
        close(fd);
        if (keep != NULL) {
            char name[512];
            (void)snprintf(name, sizeof(name), "%s.%" PRIu64, keep, i);
            copy_file(scratch, name);
        }
        examine(&h, scratch, log_bytes(log, point), what);
    }
    printf("%" PRIu64 " power losses, log of %zu entries\n", points, count);
    writelog_free(log);
    free(h.steps);
    free(h.model);
    return 0;
}
