/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Our queues against `qemu-img bench` on the same file, in turn.
 *
 *     blkbench [-f raw|qcow2] [-t none|writeback] [-c REQUESTS] [-r ROUNDS] [FILE]
 *
 * For sequential 128 KiB and scattered 4 KiB requests, reads and writes, 32 in flight, on each of
 * our engines, the two programs run alternately; the best of ROUNDS counts (the machine is shared,
 * and disturbance only ever slows down). Scattered means steps of SCATTER_STEP around the end of
 * the disk, the only scatter that qemu-img can do, and the same on both sides. Without FILE an
 * image of DISK_SIZE is made, written full and removed. The last column is our speed divided by
 * qemu-img's. The disk's size must be a multiple of 128 KiB.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/blk.h"

#define DISK_SIZE    (256 * MIB)
#define DEPTH        32
#define SCATTER_STEP (7 * MIB + 4 * KIB)

struct load {
    const char *name;
    size_t size;
    uint64_t step;
    bool write;
};

static const struct load loads[] = {
    {"seq 128K read",     128 * KIB, 128 * KIB,    false},
    { "seq 128K write",   128 * KIB, 128 * KIB,    true },
    { "scatter 4K read",  4 * KIB,   SCATTER_STEP, false},
    { "scatter 4K write", 4 * KIB,   SCATTER_STEP, true },
};

struct settings {
    const char *format;
    const char *cache;
    unsigned long count;
    unsigned rounds;
};

struct bench {
    struct blk_queue *q;
    const struct load *load;
    uint64_t offset;
    uint64_t disk;
    unsigned long left; /* to be submitted */
    unsigned inflight;
    int rc;
};

struct slot {
    struct blk_req req;
    struct iovec iov;
};

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void submit_next(struct bench *b, struct blk_req *req)
{
    req->offset = b->offset;
    b->offset += b->load->step;
    b->offset %= b->disk;
    b->left--;
    b->inflight++;
    blk_queue_submit(b->q, req);
}

static void on_done(struct blk_req *req, int rc)
{
    struct bench *b = req->opaque;
    b->inflight--;
    if (rc < 0) {
        b->rc = rc;
    }
    if (b->left > 0) {
        submit_next(b, req);
    }
}

/* Seconds for all requests; negative on failure. */
static double run_ours(struct blk *blk, const struct load *load, const char *engine,
                       unsigned long count)
{
    struct err err = ERR_INIT;
    static struct slot slots[DEPTH];
    struct bench b = { .load = load, .disk = blk_size(blk), .left = count };
    struct blk_queue_opts opts = { .depth = DEPTH, .engine = engine };
    CLEANUP_FREE void *memory = NULL;
    if (posix_memalign(&memory, 4096, DEPTH * load->size) != 0) {
        return -1;
    }
    memset(memory, 0x5a, DEPTH * load->size);
    if (blk_queue_new(blk, &opts, &b.q, &err) < 0) {
        fprintf(stderr, "blkbench: %s\n", err.msg);
        return -1;
    }
    double start = now_s();
    for (unsigned i = 0; i < DEPTH && b.left > 0; i++) {
        slots[i].iov = (struct iovec){ (char *)memory + i * load->size, load->size };
        slots[i].req = (struct blk_req){
            .op = load->write ? BLK_OP_WRITE : BLK_OP_READ,
            .len = load->size,
            .iov = &slots[i].iov,
            .niov = 1,
            .done = on_done,
            .opaque = &b,
        };
        submit_next(&b, &slots[i].req);
    }
    blk_queue_kick(b.q);
    while (b.inflight > 0) {
        struct pollfd pfd = { .fd = blk_queue_fd(b.q), .events = POLLIN };
        (void)poll(&pfd, 1, -1);   /* EINTR: reap finds nothing */
        (void)blk_queue_reap(b.q); /* kicks what the done()s submitted */
    }
    double seconds = now_s() - start;
    blk_queue_free(b.q);
    return b.rc < 0 ? -1 : seconds;
}

static double run_qemu(const char *path, const struct load *load, const struct settings *s)
{
    char cmd[1024];
    char line[256];
    double seconds = -1;
    (void)snprintf(cmd, sizeof(cmd),
                   "qemu-img bench -f %s -t %s -i io_uring -c %lu -d %d -s %zu -S %llu %s '%s'",
                   s->format, s->cache, s->count, DEPTH, load->size, (unsigned long long)load->step,
                   load->write ? "-w" : "", path);
    FILE *p = popen(cmd, "re");
    while (p != NULL && fgets(line, sizeof(line), p) != NULL) {
        (void)!sscanf(line, "Run completed in %lf seconds", &seconds);
    }
    if (p != NULL && pclose(p) != 0) {
        return -1;
    }
    return seconds;
}

static double best(double old, double now)
{
    return old < 0 || (now >= 0 && now < old) ? now : old;
}

static int bench_load(const char *path, const struct load *load, const struct settings *s)
{
    static const char *const engines[] = { "uring", "threads" };
    double ours[ARRAY_LEN(engines)] = { -1, -1 };
    double qemu = -1;
    struct blk_opts opts = {
        .path = path,
        .format = s->format,
        .cache = strcmp(s->cache, "none") == 0 ? BLK_CACHE_NONE : BLK_CACHE_WRITEBACK,
    };
    struct err err = ERR_INIT;
    for (unsigned round = 0; round < s->rounds; round++) {
        struct blk *blk = NULL;
        if (blk_open(&opts, &blk, &err) < 0) {
            fprintf(stderr, "blkbench: %s\n", err.msg);
            return 1;
        }
        for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
            ours[e] = best(ours[e], run_ours(blk, load, engines[e], s->count));
        }
        blk_close(blk);
        qemu = best(qemu, run_qemu(path, load, s));
    }
    double mib = (double)s->count * (double)load->size / (double)MIB;
    for (size_t e = 0; e < ARRAY_LEN(engines); e++) {
        printf("%-18s %-8s %9.0f IOPS %8.0f MiB/s   qemu-img %9.0f IOPS   ratio %.2f\n", load->name,
               engines[e], (double)s->count / ours[e], mib / ours[e], (double)s->count / qemu,
               qemu / ours[e]);
        if (ours[e] <= 0 || qemu <= 0) {
            fprintf(stderr, "blkbench: a run failed\n");
            return 1;
        }
    }
    return 0;
}

/* A full disk, so that nothing is a hole. */
static int make_disk(const char *path, const char *format)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    struct blk_create_opts opts = { .path = path, .format = format, .size = DISK_SIZE };
    CLEANUP_FREE char *buf = malloc(MIB);
    if (buf == NULL || blk_create_begin(&opts, &blk, &err) < 0) {
        fprintf(stderr, "blkbench: %s\n", err.msg);
        return 1;
    }
    memset(buf, 0x33, MIB);
    int rc = 0;
    for (uint64_t at = 0; at < DISK_SIZE && rc == 0; at += MIB) {
        rc = blk_pwrite(blk, at, buf, MIB);
    }
    if (rc < 0) {
        fprintf(stderr, "blkbench: writing '%s': %s\n", path, strerrordesc_np(-rc));
        blk_create_abort(&opts, blk);
        return 1;
    }
    if (blk_create_commit(&opts, blk, &err) < 0) {
        fprintf(stderr, "blkbench: %s\n", err.msg);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct settings s = { .format = "raw", .cache = "none", .count = 20000, .rounds = 3 };
    char dir[] = "/var/tmp/blkbench-XXXXXX";
    char own[64];
    int opt;
    while ((opt = getopt(argc, argv, "f:t:c:r:")) >= 0) {
        switch (opt) {
        case 'f':
            s.format = optarg;
            break;
        case 't':
            s.cache = optarg;
            break;
        case 'c':
            s.count = strtoul(optarg, NULL, 10);
            break;
        case 'r':
            s.rounds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        default:
            fprintf(stderr, "usage: blkbench [-f raw|qcow2] [-t none|writeback] [-c REQUESTS] "
                            "[-r ROUNDS] [FILE]\n");
            return 2;
        }
    }
    bool given = optind < argc;
    if (!given && mkdtemp(dir) == NULL) {
        perror("blkbench: /var/tmp");
        return 1;
    }
    (void)snprintf(own, sizeof(own), "%s/disk", dir);
    const char *path = given ? argv[optind] : own;
    int code = given ? 0 : make_disk(path, s.format);
    for (size_t i = 0; i < ARRAY_LEN(loads) && code == 0; i++) {
        code = bench_load(path, &loads[i], &s);
    }
    if (!given) {
        (void)unlink(path); /* may never have been made */
        (void)rmdir(dir);
    }
    return code;
}
