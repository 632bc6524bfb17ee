/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image convert SOURCE TARGET: the copying is in block/blk_convert.c. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/blk_convert.h"
#include "cli/image.h"

struct convert_opts {
    char *from_format;
    char *to_format;
    char *snapshot;
    struct schema_list params;
    struct schema_list backing_allow;
    char *data_file;
    bool force;
    bool quiet;
};

#define FIELD(member) .offset = offsetof(struct convert_opts, member)

static const struct schema_field fields[] = {
    {.name = "from-format",
     .letter = 'f',
     .arg = "FORMAT",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(from_format),
     .help = "the format of SOURCE; without it the ending of the name tells, such as .qcow2" },
    { .name = "to-format",
     .letter = 'O',
     .arg = "FORMAT",
     .type = SCHEMA_STR,
     .choices = image_formats,
     FIELD(to_format),
     .help = "the format of TARGET; without it the ending of the name tells, such as .qcow2" },
    IMAGE_FIELD_OPTION(struct convert_opts, params),
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
    { .name = "data-file",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .complete = "file",
     FIELD(data_file),
     .help = "where a qcow2 image that keeps its data in another file has them; the name in the "
              "image is not followed" },
    { .name = "force",                                                                         .type = SCHEMA_FLAG, FIELD(force), .help = "replace TARGET if it exists" },
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
    uint64_t total; /* 0 = not started */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void progress_start(struct progress *p, uint64_t total)
{
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

static bool on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct progress *p = opaque;
    if (p->total == 0) {
        progress_start(p, total);
    }
    progress_show(p, done);
    return interrupted == 0;
}

static int convert(void *obj, char **operands, struct err *err)
{
    const struct convert_opts *o = obj;
    CLEANUP_FREE const char **allow = image_strings(&o->backing_allow);
    CLEANUP_FREE const char **params = image_strings(&o->params);
    struct blk_opts src = {
        .path = operands[0],
        .format = o->from_format,
        .backing_allow = allow,
        .data_file = o->data_file,
        .snapshot = o->snapshot,
    };
    struct blk_create_opts dst = {
        .path = operands[1],
        .format = o->to_format != NULL ? o->to_format : blk_format_of_name(operands[1]),
        .force = o->force,
        .params = params,
    };
    struct progress progress = { .quiet = o->quiet };
    struct blk_convert_opts opts = { .progress = on_progress, .opaque = &progress };
    catch_signals();
    int rc = blk_convert(&src, &dst, &opts, err);
    progress_end(&progress);
    return rc;
}

int image_convert_main(int argc, char **argv)
{
    static const struct image_verb verb = {
        .name = "convert",
        .schema = &image_convert_schema,
        .min = 2,
        .max = 2,
        .work = convert,
    };
    struct convert_opts o;
    return image_run(&verb, &o, argc, argv);
}
