/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada image convert SOURCE TARGET
 *
 * Copies in pieces of COPY_SIZE, whatever the images' sizes. What the source knows to be zero is
 * not read, what turns out to be zero (in units of ZERO_UNIT) is not written where the target reads
 * as zero already. The target gets its name when it is complete and on the disk.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/blk_iov.h"
#include "cli/image.h"

#define COPY_SIZE (2 * MIB)
/* One page of the host and of most file systems: below that no space is saved. */
#define ZERO_UNIT (4 * KIB)

struct convert_opts {
    char *from_format;
    char *to_format;
    char *snapshot;
    struct schema_list params;
    struct schema_list backing_allow;
    bool force;
    bool quiet;
};

#define FIELD(member) .offset = offsetof(struct convert_opts, member)

static const struct schema_field fields[] = {
    {.name = "from-format",
     .letter = 'f',
     .arg = "raw|qcow2",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(from_format),
     .help = "the format of SOURCE; without it: qcow2 for a name ending in .qcow2, else raw" },
    { .name = "to-format",
     .letter = 'O',
     .arg = "raw|qcow2",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(to_format),
     .help = "the format of TARGET; without it: qcow2 for a name ending in .qcow2, else raw" },
    { .name = "option",
     .letter = 'o',
     .arg = "KEY=VALUE",
     .type = SCHEMA_STR,
     .min = 1,
     .list = true,
     FIELD(params),
     .help = "an option of the target's format, such as cluster_size=64K" },
    { .name = "snapshot",
     .letter = 's',
     .arg = "NAME",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(snapshot),
     .help = "copy this internal snapshot (its name or id)" },
    { .name = "backing-allow",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     .list = true,
     .complete = "file",
     FIELD(backing_allow),
     .help = "a backing file outside of the source's folder that the source may use" },
    { .name = "force",                                                                      .type = SCHEMA_FLAG, FIELD(force), .help = "replace TARGET if it exists" },
    { .name = "quiet",
     .letter = 'q',
     .type = SCHEMA_FLAG,
     FIELD(quiet),
     .help = "show no progress" },
    { 0},
};

const struct schema image_convert_schema = {
    .name = "image convert",
    .size = sizeof(struct convert_opts),
    .fields = fields,
};

/* Set by SIGINT and SIGTERM: the half-made target is removed before the end. */
static volatile sig_atomic_t interrupted;

static void on_signal(int signo)
{
    (void)signo;
    interrupted = 1;
}

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Progress: one line rewritten on a terminal, else a line every ten seconds. */
struct progress {
    bool quiet;
    bool terminal;
    uint64_t start_ns;
    uint64_t next_ns;
    uint64_t total;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void progress_start(struct progress *p, uint64_t total, bool quiet)
{
    p->quiet = quiet;
    p->terminal = isatty(STDERR_FILENO) == 1;
    p->total = total;
    p->start_ns = now_ns();
    p->next_ns = p->start_ns + (p->terminal ? 200000000 : UINT64_C(10000000000));
}

static void progress_show(struct progress *p, uint64_t done)
{
    uint64_t now = now_ns();
    if (p->quiet || now < p->next_ns || done == 0) {
        return;
    }
    double seconds = (double)(now - p->start_ns) / 1e9;
    double speed = (double)done / seconds;
    fprintf(stderr, _("%s%3d%%  %.0f MiB/s  %.0f s left%s"), p->terminal ? "\r" : "",
            (int)((double)done * 100 / (double)p->total), speed / (double)MIB,
            (double)(p->total - done) / speed, p->terminal ? "   " : "\n");
    p->next_ns = now + (p->terminal ? 200000000 : UINT64_C(10000000000));
}

static void progress_end(const struct progress *p)
{
    if (!p->quiet && p->terminal) {
        fputs("\r\033[K", stderr);
    }
}

/* Makes a range of the target read as zeroes, where it does not yet. */
static int put_zeroes(struct blk *dst, uint64_t offset, uint64_t len)
{
    while (len > 0) {
        struct blk_extent ext;
        int rc = blk_status(dst, offset, len, &ext);
        if (rc == 0 && ext.kind != BLK_EXTENT_ZERO) {
            rc = blk_write_zeroes(dst, offset, ext.len, true);
        }
        if (rc < 0) {
            return rc;
        }
        offset += ext.len;
        len -= ext.len;
    }
    return 0;
}

/* The end of the run at `at` that is all zero, or all not, in units. */
static size_t run_end(const char *buf, size_t at, size_t len, bool *ret_zero)
{
    *ret_zero = blk_iov_buf_is_zero(buf + at, MIN(len - at, (size_t)ZERO_UNIT));
    size_t end = at;
    while (end < len) {
        size_t part = MIN(len - end, (size_t)ZERO_UNIT);
        if (blk_iov_buf_is_zero(buf + end, part) != *ret_zero) {
            break;
        }
        end += part;
    }
    return end;
}

static int put_data(struct blk *dst, uint64_t offset, const char *buf, size_t len)
{
    for (size_t at = 0; at < len;) {
        bool zero;
        size_t end = run_end(buf, at, len, &zero);
        int rc = zero ? put_zeroes(dst, offset + at, end - at)
                      : blk_pwrite(dst, offset + at, buf + at, end - at);
        if (rc < 0) {
            return rc;
        }
        at = end;
    }
    return 0;
}

/* Copies at most COPY_SIZE bytes of data, or a whole range of zeroes; tells how many and, when it
 * fails, whether reading or writing did. */
static int copy_step(struct blk *src, struct blk *dst, uint64_t offset, char *buf,
                     uint64_t *ret_len, bool *ret_writing)
{
    struct blk_extent ext;
    *ret_writing = false;
    int rc = blk_status(src, offset, blk_size(src) - offset, &ext);
    if (rc < 0) {
        return rc;
    }
    if (ext.kind == BLK_EXTENT_ZERO) {
        *ret_len = ext.len;
        *ret_writing = true;
        return put_zeroes(dst, offset, ext.len);
    }
    /* Steps end on multiples of COPY_SIZE, so that they fit clusters and pages. */
    size_t len = MIN(ext.len, COPY_SIZE - offset % COPY_SIZE);
    rc = blk_pread(src, offset, buf, len);
    if (rc < 0) {
        return rc;
    }
    *ret_len = len;
    *ret_writing = true;
    return put_data(dst, offset, buf, len);
}

static int copy(struct blk *src, struct blk *dst, const char *const *names, bool quiet,
                struct err *err)
{
    CLEANUP_FREE void *buf = NULL;
    struct progress progress = { 0 };
    if (posix_memalign(&buf, ZERO_UNIT, COPY_SIZE) != 0) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    progress_start(&progress, blk_size(src), quiet);
    uint64_t offset = 0;
    int rc = 0;
    while (offset < blk_size(src) && rc == 0) {
        uint64_t len = 0;
        bool writing;
        rc = copy_step(src, dst, offset, buf, &len, &writing);
        if (rc < 0) {
            rc = err_set_errno(err, rc, _("'%s': %s at offset %" PRIu64), names[writing],
                               writing ? _("writing") : _("reading"), offset);
        } else if (interrupted) {
            rc = err_set(err, -EINTR, _("interrupted; nothing was written to '%s'"), names[1]);
        }
        offset += len;
        progress_show(&progress, offset);
    }
    progress_end(&progress);
    return rc;
}

static int convert(const struct convert_opts *o, char *const *names, struct err *err)
{
    CLEANUP_FREE const char **allow = image_strings(&o->backing_allow);
    CLEANUP_FREE const char **params = image_strings(&o->params);
    struct blk_opts src_opts = {
        .path = names[0],
        .format = o->from_format,
        .read_only = true,
        .backing_allow = allow,
        .snapshot = o->snapshot,
    };
    struct blk *src = NULL;
    struct blk *dst = NULL;
    int rc = blk_open(&src_opts, &src, err);
    if (rc < 0) {
        return rc;
    }
    struct blk_create_opts dst_opts = {
        .path = names[1],
        .format = o->to_format != NULL ? o->to_format : image_format_of(names[1]),
        .size = blk_size(src),
        .force = o->force,
        .params = params,
    };
    catch_signals();
    rc = blk_create_begin(&dst_opts, &dst, err);
    if (rc == 0 && blk_size(dst) < blk_size(src)) { /* a device keeps its own size */
        rc = err_set(err, -ENOSPC, _("'%s' has %" PRIu64 " bytes, the image needs %" PRIu64),
                     names[1], blk_size(dst), blk_size(src));
        blk_create_abort(&dst_opts, dst);
    } else if (rc == 0) {
        rc = copy(src, dst, (const char *const *)names, o->quiet, err);
        if (rc < 0) {
            blk_create_abort(&dst_opts, dst);
        } else {
            rc = blk_create_commit(&dst_opts, dst, err);
        }
    }
    blk_close(src);
    return rc;
}

int image_convert_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct convert_opts o;
    char *operands[IMAGE_MAX_OPERANDS] = { NULL };
    if (cli_wants_help(argc, argv)) {
        image_print_help("convert", &image_convert_schema);
        return CLI_EXIT_OK;
    }
    schema_init(&image_convert_schema, &o);
    int code = CLI_EXIT_OK;
    if (image_parse(&image_convert_schema, &o, argc, argv, operands, 2, 2, &err) < 0) {
        code = cli_usage("image convert", &err);
    } else if (convert(&o, operands, &err) < 0) {
        code = cli_fail("image convert", &err);
    }
    schema_done(&image_convert_schema, &o);
    return code;
}
