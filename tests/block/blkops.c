/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A test program: random operations on an image, with a model of the disk in memory that says what
 * each read must deliver.
 *
 *   blkops run IMAGE MODEL seed=N ops=N [reopen=N] [queue=ENGINE] [threads=N] [flush=N] [resize]
 *              [writelog=PATH] [trace=PATH] [format=F] [fault=RULES]
 *       MODEL (a raw file) holds the contents of the disk and is rewritten at the end. With
 *       `trace`, each operation is noted for `blkops crash`, with the length of the log so far.
 * With `fault` (rules of the fault filter) operations may fail: what a failed one covered is old or
 *       new, sector by sector, and the image is whole in the end.
 *              [data=FILE]
 *   blkops dump IMAGE RAW [snapshot=S] [format=F] [data=FILE]     the contents of the disk, to a
 * raw file blkops check IMAGE [fix=leaks|all]                prints counts; exit code 0 when clean
 *   blkops create IMAGE size=N [backing=F backing_format=F] [param=K=V]...
 *   blkops crash BEFORE LOG TRACE MODEL points=N seed=N scratch=PATH [keep=PATH]
 *       Replays power losses (tests/block/crash.c).
 *
 * Exit code 1 and a line on stderr when anything is not as it must be.
 */
#include "blkops.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"

void blkops_die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "blkops: ");
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

const char *blkops_arg(int argc, char **argv, const char *key)
{
    size_t len = strlen(key);
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], key, len) == 0 && (argv[i][len] == '=' || argv[i][len] == '\0')) {
            return argv[i][len] == '=' ? argv[i] + len + 1 : argv[i] + len;
        }
    }
    return NULL;
}

uint64_t blkops_num(int argc, char **argv, const char *key, uint64_t deflt)
{
    const char *text = blkops_arg(argc, argv, key);
    return text == NULL ? deflt : strtoull(text, NULL, 0);
}

uint64_t blkops_rand(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint8_t *blkops_load(const char *path, size_t *ret_size)
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL || fseek(f, 0, SEEK_END) < 0) {
        blkops_die("%s: %s", path, strerror(errno));
    }
    *ret_size = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*ret_size + 1);
    if (data == NULL || fread(data, 1, *ret_size, f) != *ret_size) {
        blkops_die("%s: cannot read", path);
    }
    fclose(f);
    return data;
}

static void save(const char *path, const uint8_t *data, size_t size)
{
    FILE *f = fopen(path, "wbe");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        blkops_die("%s: cannot write", path);
    }
}

/* More than a filter has rules. */
#define MAX_FAULTS 64

struct run {
    const char *image;
    const char *format;
    const char *data;   /* the external data file */
    const char *engine; /* NULL = synchronous */
    const char *writelog;
    const char *fault;
    FILE *trace;
    struct blk *blk;
    struct blk_queue *queue;
    uint8_t *model;
    uint64_t size;
    uint64_t rng;
    uint64_t stamp;
};

static void open_image(struct run *r)
{
    char spec[512];
    const char *filters[] = { spec, NULL };
    struct err err = ERR_INIT;
    struct blk_opts opts = { .path = r->image, .format = r->format, .data_file = r->data };
    if (r->writelog != NULL || r->fault != NULL) {
        (void)snprintf(spec, sizeof(spec), "%s:%s", r->writelog != NULL ? "writelog" : "fault",
                       r->writelog != NULL ? r->writelog : r->fault);
        opts.filters = filters;
    }
    if (blk_open(&opts, &r->blk, &err) < 0) {
        blkops_die("open: %s", err.msg);
    }
    if (blk_size(r->blk) != r->size) {
        blkops_die("the disk has %" PRIu64 " bytes, the model %" PRIu64, blk_size(r->blk), r->size);
    }
    struct blk_queue_opts qopts = { .depth = 8, .engine = r->engine };
    if (r->engine != NULL && blk_queue_new(r->blk, &qopts, &r->queue, &err) < 0) {
        blkops_die("queue: %s", err.msg);
    }
}

static void close_image(struct run *r)
{
    blk_queue_free(r->queue);
    r->queue = NULL;
    blk_close(r->blk);
    r->blk = NULL;
}

static void on_done(struct blk_req *req, int rc)
{
    *(int *)req->opaque = rc;
}

/* One operation, by the queue or without. */
static int do_op(struct run *r, enum blk_op op, uint64_t offset, uint64_t len, void *buf,
                 uint32_t flags)
{
    if (r->queue != NULL) {
        int rc = 1;
        /* Two pieces, so that scatter lists are seen. */
        struct iovec iov[2] = {
            {buf,   len / 1024 * 512},
            { NULL, 0               }
        };
        if (buf != NULL) {
            iov[1] =
                (struct iovec){ (uint8_t *)buf + iov[0].iov_len, (size_t)len - iov[0].iov_len };
        }
        bool split = buf != NULL && iov[0].iov_len > 0;
        struct blk_req req = {
            .op = op,
            .flags = flags,
            .offset = offset,
            .len = len,
            .iov = buf == NULL ? NULL
                   : split     ? iov
                               : iov + 1,
            .niov = buf == NULL ? 0 : 1 + split,
            .done = on_done,
            .opaque = &rc,
        };
        blk_queue_submit(r->queue, &req);
        blk_queue_drain(r->queue);
        return rc;
    }
    switch (op) {
    case BLK_OP_READ:
        return blk_pread(r->blk, offset, buf, len);
    case BLK_OP_WRITE:
        return blk_pwrite(r->blk, offset, buf, len);
    case BLK_OP_FLUSH:
        return blk_flush(r->blk);
    case BLK_OP_DISCARD:
        return blk_discard(r->blk, offset, len);
    default:
        return blk_write_zeroes(r->blk, offset, len, (flags & BLK_REQ_MAY_UNMAP) != 0);
    }
}

/* Each sector of a write carries its stamp, so that a wrong place shows. */
static void stamp_fill(uint8_t *buf, uint64_t offset, uint64_t len, uint64_t stamp)
{
    for (uint64_t i = 0; i + 16 <= len; i += 16) {
        le64_put(buf + i, stamp);
        le64_put(buf + i + 8, (offset + i) / 512);
    }
}

/* Reads into a new buffer. A fault of the filter passes: then it is read again. */
static uint8_t *read_some(struct run *r, uint64_t offset, uint64_t len, const char *when)
{
    uint8_t *buf = malloc(len);
    int rc = buf == NULL ? -ENOMEM : do_op(r, BLK_OP_READ, offset, len, buf, 0);
    for (int i = 0; rc < 0 && r->fault != NULL && i < MAX_FAULTS; i++) {
        rc = do_op(r, BLK_OP_READ, offset, len, buf, 0);
    }
    if (rc < 0) {
        blkops_die("read of %" PRIu64 "+%" PRIu64 " failed %s: %s", offset, len, when,
                   strerror(-rc));
    }
    return buf;
}

static void compare(struct run *r, uint64_t offset, uint64_t len, const char *when)
{
    uint8_t *buf = read_some(r, offset, len, when);
    for (uint64_t i = 0; i < len; i++) {
        if (buf[i] != r->model[offset + i]) {
            blkops_die("byte %" PRIu64 " is 0x%02x, must be 0x%02x, %s", offset + i, buf[i],
                       r->model[offset + i], when);
        }
    }
    free(buf);
}

static void trace(struct run *r, const char *op, uint64_t offset, uint64_t len, uint64_t stamp)
{
    struct stat st = { 0 };
    if (r->trace != NULL) {
        if (r->writelog != NULL && stat(r->writelog, &st) < 0) {
            blkops_die("%s: %s", r->writelog, strerror(errno));
        }
        fprintf(r->trace, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", op, offset, len,
                stamp, (uint64_t)st.st_size);
    }
}

/* Each sector is as in the model or as in `other`; what it is now it stays. */
static void adopt(struct run *r, uint64_t offset, uint64_t len, const uint8_t *other,
                  const char *when)
{
    uint8_t *buf = read_some(r, offset, len, when);
    for (uint64_t i = 0; i < len; i += 512) {
        if (memcmp(buf + i, r->model + offset + i, 512) != 0 &&
            memcmp(buf + i, other + i, 512) != 0) {
            blkops_die("sector %" PRIu64 " is neither old nor new %s", (offset + i) / 512, when);
        }
    }
    memcpy(r->model + offset, buf, len);
    free(buf);
}

/* A discarded sector is as before or zero. */
static void adopt_discard(struct run *r, uint64_t offset, uint64_t len)
{
    uint8_t *zero = calloc(1, len);
    if (zero == NULL) {
        blkops_die("out of memory");
    }
    adopt(r, offset, len, zero, "after a discard");
    free(zero);
}

static void do_resize(struct run *r)
{
    uint64_t size = (1 + blkops_rand(&r->rng) % (2 * r->size / 512)) * 512;
    struct err err = ERR_INIT;
    size = MIN(size, 64 * MIB);
    close_image(r);
    open_image(r);
    blk_queue_free(r->queue);
    r->queue = NULL;
    if (blk_resize(r->blk, size, &err) < 0) {
        blkops_die("resize: %s", err.msg);
    }
    r->model = realloc(r->model, size);
    if (r->model == NULL) {
        blkops_die("out of memory");
    }
    if (size > r->size) {
        memset(r->model + r->size, 0, size - r->size);
    }
    r->size = size;
    close_image(r);
    open_image(r);
    compare(r, 0, r->size, "after a resize");
}

static uint64_t pick_len(struct run *r, uint64_t offset)
{
    static const uint64_t scales[] = { 1, 8, 40, 200, 1000 };
    uint64_t len = (1 + blkops_rand(&r->rng) % scales[blkops_rand(&r->rng) % 5]) * 512;
    return MIN(len, r->size - offset);
}

/* A change that may fail under the fault filter: `data` is what it would make, NULL zeroes. */
static int change(struct run *r, enum blk_op op, uint64_t offset, uint64_t len, uint8_t *data,
                  uint32_t flags)
{
    int rc = do_op(r, op, offset, len, op == BLK_OP_WRITE ? data : NULL, flags);
    if (rc < 0 && r->fault != NULL) {
        adopt(r, offset, len, data, "after a failure");
        return 0;
    }
    memcpy(r->model + offset, data, len);
    return rc;
}

static void one_op(struct run *r, uint64_t flush_every)
{
    uint64_t offset = blkops_rand(&r->rng) % (r->size / 512) * 512;
    uint64_t len = pick_len(r, offset);
    uint64_t what = blkops_rand(&r->rng) % 100;
    bool unmap = (blkops_rand(&r->rng) & 1) != 0;
    int rc = 0;
    uint8_t *data = calloc(1, len);
    if (data == NULL) {
        blkops_die("out of memory");
    }
    if (blkops_rand(&r->rng) % flush_every == 0) {
        trace(r, "begin-flush", 0, 0, 0);
        rc = do_op(r, BLK_OP_FLUSH, 0, 0, NULL, 0);
        rc = r->fault != NULL ? 0 : rc;
        trace(r, "flush", 0, 0, 0);
    } else if (what < 50) {
        uint64_t stamp = ++r->stamp;
        stamp_fill(data, offset, len, stamp);
        trace(r, "write", offset, len, stamp);
        rc = change(r, BLK_OP_WRITE, offset, len, data, 0);
    } else if (what < 62) {
        trace(r, "zero", offset, len, 0);
        rc = change(r, BLK_OP_WRITE_ZEROES, offset, len, data, unmap ? BLK_REQ_MAY_UNMAP : 0);
    } else if (what < 72) {
        trace(r, "discard", offset, len, 0);
        rc = do_op(r, BLK_OP_DISCARD, offset, len, NULL, 0);
        rc = r->fault != NULL ? 0 : rc;
        if (rc == 0) {
            adopt_discard(r, offset, len);
        }
    } else {
        compare(r, offset, len, "in the run");
    }
    free(data);
    if (rc < 0) {
        blkops_die("operation failed at %" PRIu64 "+%" PRIu64 ": %s", offset, len, strerror(-rc));
    }
}

static void print_report(void *opaque, const char *text)
{
    (void)opaque;
    fprintf(stderr, "%s\n", text);
}

/* Closes an image that had faults and looks at what is left, without the filter. */
static void end_faults(struct run *r)
{
    struct err err = ERR_INIT;
    struct blk_check check = { .report = print_report };
    int rc = -EIO;
    for (int i = 0; rc < 0 && i < MAX_FAULTS; i++) {
        rc = blk_flush(r->blk);
    }
    close_image(r);
    r->fault = NULL;
    open_image(r);
    if (rc == 0) {
        compare(r, 0, r->size, "after the faults");
    } else {
        /* It has stopped writing; what was not flushed is lost, but the image is whole. */
        uint8_t *now = read_some(r, 0, r->size, "after the faults");
        memcpy(r->model, now, r->size);
        free(now);
    }
    if (blk_check(r->blk, 0, &check, &err) < 0 || check.errors > 0) {
        blkops_die("after the faults: %" PRIu64 " errors %s", check.errors, err.msg);
    }
}

/* Threads write and read each its own stripes of the disk, so that each knows what it must see. */
struct worker {
    struct run run;
    unsigned index;
    unsigned of;
    uint64_t ops;
};

static void *worker_main(void *opaque)
{
    struct worker *w = opaque;
    struct run *r = &w->run;
    uint64_t stripe = 8 * KIB; /* less than most clusters: neighbours fill the same cluster */
    uint64_t stripes = r->size / stripe / w->of;
    struct blk_queue_opts qopts = { .depth = 8, .engine = r->engine };
    struct err err = ERR_INIT;
    r->queue = NULL;
    if (r->engine != NULL && blk_queue_new(r->blk, &qopts, &r->queue, &err) < 0) {
        blkops_die("queue: %s", err.msg);
    }
    for (uint64_t i = 0; stripes > 0 && i < w->ops; i++) {
        uint64_t at = (blkops_rand(&r->rng) % stripes * w->of + w->index) * stripe;
        uint64_t offset = at + blkops_rand(&r->rng) % 8 * 512;
        uint64_t len = (1 + blkops_rand(&r->rng) % 8) * 512;
        uint64_t what = blkops_rand(&r->rng) % 100;
        int rc = 0;
        if (what < 50) {
            stamp_fill(r->model + offset, offset, len, i + 1);
            rc = do_op(r, BLK_OP_WRITE, offset, len, r->model + offset, 0);
        } else if (what < 60) {
            rc = do_op(r, BLK_OP_WRITE_ZEROES, offset, len, NULL, BLK_REQ_MAY_UNMAP);
            memset(r->model + offset, 0, len);
        } else if (what < 65) {
            rc = do_op(r, BLK_OP_FLUSH, 0, 0, NULL, 0);
        } else if (what < 70 && stripe >= 8 * KIB) {
            rc = do_op(r, BLK_OP_DISCARD, at, stripe, NULL, 0);
            if (rc == 0) {
                adopt_discard(r, at, stripe);
            }
        } else {
            compare(r, offset, len, "in a thread");
        }
        if (rc < 0) {
            blkops_die("thread: %s", strerror(-rc));
        }
    }
    blk_queue_free(r->queue);
    return NULL;
}

static void run_threads(struct run *r, unsigned n, uint64_t ops)
{
    struct worker *w = calloc(n, sizeof(*w));
    pthread_t *t = calloc(n, sizeof(*t));
    for (unsigned i = 0; i < n; i++) {
        w[i] = (struct worker){ .run = *r, .index = i, .of = n, .ops = ops / n };
        w[i].run.rng = blkops_rand(&r->rng);
        if (pthread_create(&t[i], NULL, worker_main, &w[i]) != 0) {
            blkops_die("no thread");
        }
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(t[i], NULL);
    }
    free(w);
    free(t);
}

static int cmd_run(int argc, char **argv)
{
    struct run r = {
        .image = argv[0],
        .format = blkops_arg(argc, argv, "format"),
        .data = blkops_arg(argc, argv, "data"),
        .engine = blkops_arg(argc, argv, "queue"),
        .writelog = blkops_arg(argc, argv, "writelog"),
        .fault = blkops_arg(argc, argv, "fault"),
        .rng = blkops_num(argc, argv, "seed", 1),
    };
    uint64_t ops = blkops_num(argc, argv, "ops", 100);
    uint64_t reopen = blkops_num(argc, argv, "reopen", 0);
    uint64_t flush_every = MAX(blkops_num(argc, argv, "flush", 12), UINT64_C(1));
    unsigned threads = (unsigned)blkops_num(argc, argv, "threads", 0);
    bool resize = blkops_arg(argc, argv, "resize") != NULL;
    size_t size;
    r.format = r.format == NULL ? "qcow2" : r.format;
    r.model = blkops_load(argv[1], &size);
    r.size = size;
    r.stamp = r.rng << 20;
    if (blkops_arg(argc, argv, "trace") != NULL) {
        r.trace = fopen(blkops_arg(argc, argv, "trace"), "we");
    }
    open_image(&r);
    compare(&r, 0, r.size, "at the beginning");
    if (threads > 0) {
        run_threads(&r, threads, ops);
    }
    for (uint64_t i = 0; threads == 0 && i < ops; i++) {
        one_op(&r, flush_every);
        if (reopen > 0 && blkops_rand(&r.rng) % reopen == 0) {
            close_image(&r);
            open_image(&r);
        }
        if (resize && blkops_rand(&r.rng) % 40 == 0) {
            do_resize(&r);
        }
    }
    compare(&r, 0, r.size, "at the end");
    if (r.fault != NULL) {
        end_faults(&r);
    }
    close_image(&r);
    trace(&r, "flush", 0, 0, 0);
    save(argv[1], r.model, r.size);
    free(r.model);
    if (r.trace != NULL) {
        fclose(r.trace);
    }
    return 0;
}

static int cmd_dump(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct blk *blk;
    const char *format = blkops_arg(argc, argv, "format");
    struct blk_opts opts = {
        .path = argv[0],
        .format = format == NULL ? "qcow2" : format,
        .read_only = true,
        .snapshot = blkops_arg(argc, argv, "snapshot"),
        .data_file = blkops_arg(argc, argv, "data"),
    };
    if (blk_open(&opts, &blk, &err) < 0) {
        blkops_die("%s", err.msg);
    }
    size_t size = blk_size(blk);
    uint8_t *buf = malloc(size + 1);
    int rc = buf == NULL ? -ENOMEM : blk_pread(blk, 0, buf, size);
    if (rc < 0) {
        blkops_die("read: %s", strerror(-rc));
    }
    save(argv[1], buf, size);
    free(buf);
    blk_close(blk);
    return 0;
}

static int cmd_check(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct blk *blk;
    const char *fix = blkops_arg(argc, argv, "fix");
    struct blk_opts opts = {
        .path = argv[0],
        .format = "qcow2",
        .read_only = fix == NULL,
        .no_backing = true,
    };
    struct blk_check check = { .report = print_report };
    unsigned flags = fix == NULL               ? 0
                     : strcmp(fix, "all") == 0 ? BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS
                                               : BLK_CHECK_FIX_LEAKS;
    if (blk_open(&opts, &blk, &err) < 0 || blk_check(blk, flags, &check, &err) < 0) {
        blkops_die("%s", err.msg);
    }
    printf("errors=%" PRIu64 " leaks=%" PRIu64 " errors_fixed=%" PRIu64 " leaks_fixed=%" PRIu64
           " total=%" PRIu64 " allocated=%" PRIu64 "\n",
           check.errors, check.leaks, check.errors_fixed, check.leaks_fixed, check.clusters_total,
           check.clusters_allocated);
    blk_close(blk);
    return check.errors > check.errors_fixed ? 2 : check.leaks > check.leaks_fixed ? 3 : 0;
}

static int cmd_create(int argc, char **argv)
{
    struct err err = ERR_INIT;
    const char *params[16] = { NULL };
    size_t n = 0;
    for (int i = 1; i < argc && n + 1 < ARRAY_LEN(params); i++) {
        if (strncmp(argv[i], "param=", 6) == 0) {
            params[n++] = argv[i] + 6;
        }
    }
    struct blk_create_opts opts = {
        .path = argv[0],
        .format = "qcow2",
        .size = blkops_num(argc, argv, "size", 0),
        .backing = blkops_arg(argc, argv, "backing"),
        .backing_format = blkops_arg(argc, argv, "backing_format"),
        .params = params,
    };
    if (blk_create(&opts, &err) < 0) {
        blkops_die("%s", err.msg);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int min;
        int (*fn)(int argc, char **argv);
    } cmds[] = {
        {"run",     2, cmd_run         },
        { "dump",   2, cmd_dump        },
        { "check",  1, cmd_check       },
        { "create", 2, cmd_create      },
        { "crash",  4, blkops_crash_cmd},
    };
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(cmds); i++) {
        if (strcmp(argv[1], cmds[i].name) == 0 && argc - 2 >= cmds[i].min) {
            return cmds[i].fn(argc - 2, argv + 2);
        }
    }
    blkops_die("see the head of tests/block/blkops.c for the usage");
}
