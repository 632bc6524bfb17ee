/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record that the filter "writelog" makes, and the images that a power loss could leave.
 *
 *     struct writelog *log;
 *     writelog_load("run.log", &log, &err);
 *     for (size_t point = 0; point <= writelog_count(log); point++) {
 *         // copy the image as it was before the run to a file, open it as fd, then
 *         writelog_replay(log, WRITELOG_SUBSET, point, seed, fd, &err);
 *         // ... and check it
 *     }
 *
 * A log is a sequence of entries: WRITELOG_ENTRY_SIZE bytes of header (magic u32, operation u32,
 * offset u64, length u64, all little-endian), and after a write's header its data. An incomplete
 * last entry (the writer was killed) is ignored.
 */
#ifndef BLOCK_WRITELOG_H
#define BLOCK_WRITELOG_H

#include "base/bits.h"
#include "base/err.h"

#define WRITELOG_MAGIC      UINT32_C(0x314c5750) /* "PWL1" */
#define WRITELOG_ENTRY_SIZE 24

enum writelog_op {
    WRITELOG_WRITE,
    WRITELOG_FLUSH, /* it has ended: all entries before are durable */
    WRITELOG_DISCARD,
    WRITELOG_ZERO,
    WRITELOG_TRUNCATE, /* offset = the new size */
};

struct writelog_entry {
    enum writelog_op op;
    uint64_t offset;
    uint64_t len;
    const void *data; /* of a write: `len` bytes, owned by the log */
};

/* What of the entries after the last flush reaches the disk. */
enum writelog_mode {
    WRITELOG_PREFIX,  /* all of them, in order */
    WRITELOG_SUBSET,  /* any subset */
    WRITELOG_TORN,    /* any subset, and of each write any subset of its 512-byte sectors */
    WRITELOG_REORDER, /* a random order (overlapping ones keep theirs), cut at a random place */
};

struct writelog;

/* Reads a log. 0, or a negative errno (-EINVAL: not a log). */
MUST_USE int writelog_load(const char *path, struct writelog **ret_log, struct err *err);
/* Accepts NULL. */
void writelog_free(struct writelog *log);
size_t writelog_count(const struct writelog *log);
/* Entry `i`, 0 to count - 1. */
const struct writelog_entry *writelog_get(const struct writelog *log, size_t i);

/*
 * Brings `fd`, which holds the image as it was before the log began, to a state that is possible
 * when the power fails after entry `point` - 1 was issued (0 to count). The same seed gives the
 * same state. 0 or a negative errno with `err` filled.
 */
MUST_USE int writelog_replay(const struct writelog *log, enum writelog_mode mode, size_t point,
                             uint64_t seed, int fd, struct err *err);

#endif
