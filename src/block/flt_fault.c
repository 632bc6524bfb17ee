/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults on demand: makes chosen operations on the node below fail, tear or take long.
 *
 *     fault:RULE[,RULE...]
 *     RULE    OP[.WHICH]=EFFECT  or  space=BYTES
 *     OP      read write flush discard zero any
 *     WHICH   N (the Nth from 1), N+ (it and all after), N-M, * (each; the default)
 *     EFFECT  an errno name (EIO), torn:BYTES (a write of which only so much is done, then EIO),
 *             delay:MILLISECONDS
 *     space   after so many bytes written in all, writes do what still fits and give ENOSPC
 *
 * Operations are counted for each OP separately, and for "any" together. The first rule that
 * matches and is not a delay decides; delays add up.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "block/blk_int.h"

/* Rules in one specification; more than any test wants. */
#define MAX_RULES 32

enum op { OP_READ, OP_WRITE, OP_FLUSH, OP_DISCARD, OP_ZERO, OP_ANY, OP_COUNT };

static const char *const op_names[OP_COUNT] = {
    [OP_READ] = "read",       [OP_WRITE] = "write", [OP_FLUSH] = "flush",
    [OP_DISCARD] = "discard", [OP_ZERO] = "zero",   [OP_ANY] = "any",
};

static const struct {
    const char *name;
    int code;
} errnos[] = {
    {"EIO",        EIO      },
    { "ENOSPC",    ENOSPC   },
    { "EDQUOT",    EDQUOT   },
    { "EROFS",     EROFS    },
    { "ENOMEM",    ENOMEM   },
    { "ETIMEDOUT", ETIMEDOUT},
    { "EINVAL",    EINVAL   },
    { "EINTR",     EINTR    },
    { "EAGAIN",    EAGAIN   },
};

enum effect { EFFECT_ERRNO, EFFECT_TORN, EFFECT_DELAY };

struct rule {
    enum op op;
    uint64_t first, last;
    enum effect effect;
    uint64_t value; /* errno, bytes or milliseconds */
};

struct state {
    struct rule rules[MAX_RULES];
    size_t nrules;
    bool limited;
    _Atomic int64_t space; /* bytes left when `limited` */
    _Atomic uint64_t count[OP_COUNT];
};

/* Parsing. */

static bool parse_number(const char *text, const char **end, uint64_t *ret)
{
    char *stop;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *ret = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0;
}

static bool parse_which(const char *text, struct rule *rule)
{
    const char *end;
    rule->first = 1;
    rule->last = UINT64_MAX;
    if (strcmp(text, "*") == 0) {
        return true;
    }
    if (!parse_number(text, &end, &rule->first) || rule->first == 0) {
        return false;
    }
    if (strcmp(end, "+") == 0) {
        return true;
    }
    if (*end == '-') {
        return parse_number(end + 1, &end, &rule->last) && *end == '\0' &&
               rule->last >= rule->first;
    }
    rule->last = rule->first;
    return *end == '\0';
}

static bool parse_effect(const char *text, struct rule *rule)
{
    const char *end;
    bool torn = strncmp(text, "torn:", 5) == 0;
    if (torn || strncmp(text, "delay:", 6) == 0) {
        rule->effect = torn ? EFFECT_TORN : EFFECT_DELAY;
        return parse_number(strchr(text, ':') + 1, &end, &rule->value) && *end == '\0' &&
               (!torn || rule->op == OP_WRITE);
    }
    for (size_t i = 0; i < ARRAY_LEN(errnos); i++) {
        if (strcmp(text, errnos[i].name) == 0) {
            rule->effect = EFFECT_ERRNO;
            rule->value = (uint64_t)errnos[i].code;
            return true;
        }
    }
    return false;
}

/* `text` is changed. */
static bool parse_rule(struct state *s, char *text)
{
    char *effect = strchr(text, '=');
    char *which = strchr(text, '.');
    const char *end;
    uint64_t space;
    if (effect == NULL) {
        return false;
    }
    *effect++ = '\0';
    if (strcmp(text, "space") == 0) {
        s->limited = true;
        if (!parse_number(effect, &end, &space) || *end != '\0' || space > INT64_MAX) {
            return false;
        }
        s->space = (int64_t)space;
        return true;
    }
    if (which != NULL && which < effect) {
        *which++ = '\0';
    } else {
        which = NULL;
    }
    if (s->nrules == MAX_RULES) {
        return false;
    }
    struct rule *rule = &s->rules[s->nrules++];
    for (rule->op = OP_READ; rule->op < OP_COUNT; rule->op++) {
        if (strcmp(text, op_names[rule->op]) == 0) {
            return parse_which(which == NULL ? "*" : which, rule) && parse_effect(effect, rule);
        }
    }
    return false;
}

static int fault_open(struct blk *blk, const struct blk_opts *opts, const char *arg,
                      struct err *err)
{
    (void)opts;
    CLEANUP_FREE char *copy = strdup(arg);
    if (copy == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    char *rest = copy;
    char *text;
    while ((text = strsep(&rest, ",")) != NULL) {
        CLEANUP_FREE char *shown = strdup(text);
        if (!parse_rule(blk->state, text)) {
            return err_set(err, -EINVAL,
                           "bad rule '%s' (OP[.WHICH]=EFFECT: see docs/block/filters.md)",
                           shown == NULL ? text : shown);
        }
    }
    return 0;
}

/* Running. */

static void delay(uint64_t ms)
{
    struct timespec left = {
        .tv_sec = (time_t)(ms / 1000),
        .tv_nsec = (long)(ms % 1000) * 1000000,
    };
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

/* Counts an operation and returns the rule that decides it, or NULL. */
static const struct rule *judge(struct state *s, enum op op)
{
    uint64_t nth = atomic_fetch_add(&s->count[op], 1) + 1;
    uint64_t nth_any = atomic_fetch_add(&s->count[OP_ANY], 1) + 1;
    for (size_t i = 0; i < s->nrules; i++) {
        const struct rule *rule = &s->rules[i];
        uint64_t n = rule->op == OP_ANY ? nth_any : nth;
        if ((rule->op != op && rule->op != OP_ANY) || n < rule->first || n > rule->last) {
            continue;
        }
        if (rule->effect != EFFECT_DELAY) {
            return rule;
        }
        delay(rule->value);
    }
    return NULL;
}

static int judge_simple(struct blk *blk, enum op op)
{
    const struct rule *rule = judge(blk->state, op);
    return rule == NULL ? 0 : -(int)rule->value;
}

/* Writes the first `len` bytes only. */
static int write_part(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                      uint64_t len)
{
    CLEANUP_FREE struct iovec *part = calloc((size_t)niov, sizeof(*part));
    if (part == NULL) {
        return -ENOMEM;
    }
    int n = blk_iov_slice(part, iov, niov, 0, len);
    return blk_pwritev(blk->file, offset, part, n);
}

static int fault_preadv(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                        uint64_t len)
{
    (void)len;
    int rc = judge_simple(blk, OP_READ);
    return rc < 0 ? rc : blk_preadv(blk->file, offset, iov, niov);
}

/* How many of `len` bytes still fit; takes them. */
static uint64_t take_space(struct state *s, uint64_t len)
{
    if (!s->limited) {
        return len;
    }
    int64_t left = atomic_fetch_sub(&s->space, (int64_t)len);
    if (left >= (int64_t)len) {
        return len;
    }
    atomic_fetch_add(&s->space, (int64_t)len - MAX(left, (int64_t)0));
    return (uint64_t)MAX(left, (int64_t)0);
}

static int fault_pwritev(struct blk *blk, uint64_t offset, const struct iovec *iov, int niov,
                         uint64_t len)
{
    struct state *s = blk->state;
    const struct rule *rule = judge(s, OP_WRITE);
    if (rule != NULL && rule->effect == EFFECT_ERRNO) {
        return -(int)rule->value;
    }
    uint64_t want = rule != NULL ? MIN(rule->value, len) : len;
    uint64_t fits = take_space(s, want);
    int rc = write_part(blk, offset, iov, niov, fits);
    if (rc < 0) {
        return rc;
    }
    if (fits < want) {
        return -ENOSPC;
    }
    return rule != NULL ? -EIO : 0;
}

static int fault_flush(struct blk *blk)
{
    int rc = judge_simple(blk, OP_FLUSH);
    return rc < 0 ? rc : blk_flush(blk->file);
}

static int fault_discard(struct blk *blk, uint64_t offset, uint64_t len)
{
    int rc = judge_simple(blk, OP_DISCARD);
    return rc < 0 ? rc : blk_discard(blk->file, offset, len);
}

static int fault_write_zeroes(struct blk *blk, uint64_t offset, uint64_t len, bool may_unmap)
{
    int rc = judge_simple(blk, OP_ZERO);
    return rc < 0 ? rc : blk_write_zeroes(blk->file, offset, len, may_unmap);
}

static int fault_truncate(struct blk *blk, uint64_t size, struct err *err)
{
    int rc = blk->file->cls->truncate(blk->file, size, err);
    if (rc == 0) {
        blk->size = size;
    }
    return rc;
}

static int fault_status(struct blk *blk, uint64_t offset, uint64_t len,
                        struct blk_extent *ret_extent)
{
    return blk_status(blk->file, offset, len, ret_extent);
}

const struct blk_class flt_fault_class = {
    .name = "fault",
    .help = "makes chosen operations fail, tear or take long",
    .kind = BLK_KIND_FILTER,
    .state_size = sizeof(struct state),
    .open = fault_open,
    .preadv = fault_preadv,
    .pwritev = fault_pwritev,
    .flush = fault_flush,
    .discard = fault_discard,
    .write_zeroes = fault_write_zeroes,
    .truncate = fault_truncate,
    .status = fault_status,
};
