/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Uses each evil image and judges: what is said about it, CPU time, memory, which files were
 * opened, what is left behind.
 *
 *     SCRATCH/vm/      the image, and what it may name
 *     SCRATCH/other/   what it must never reach
 */
#include "evil.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/inotify.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/blk_convert.h"

/* For one image. S13 has 60 s and 256 MiB; sanitizers take several times of both. */
#define LIMIT_SECONDS 60
#define LIMIT_MEMORY  (256 * MIB)
#define READ_ALL      (64 * MIB)
#define MAX_EXTENTS   4096

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

static struct evil {
    char said[16384];
    size_t len;
    int watch;
    double began;
    double slowest;
    uint64_t largest;
    const char *slow_row, *large_row;
    unsigned images, wrong;
} evil;

static const char *const names[EVIL_BASES] = {
    [EVIL_TEXT] = "vmdk",       [EVIL_QCOW2] = "qcow2", [EVIL_QCOW2_V2] = "qcow2",
    [EVIL_QCOW2_SUB] = "qcow2", [EVIL_VDI] = "vdi",     [EVIL_VHD] = "vhd",
    [EVIL_VHD_FIXED] = "vhd",   [EVIL_VHDX] = "vhdx",   [EVIL_VMDK] = "vmdk",
    [EVIL_STREAM] = "vmdk",
};

static int make_base(struct qcow2_memfile *m, enum evil_base base, struct err *err)
{
    static const char *const small[] = { "cluster_size=4K", NULL };
    static const char *const old[] = { "cluster_size=4K", "compat=0.10", NULL };
    static const char *const sub[] = { "cluster_size=16K", "extended_l2=on", NULL };
    static const char *const fixed[] = { "subformat=fixed", NULL };
    static const char *const stream[] = { "subformat=streamOptimized", NULL };
    switch (base) {
    case EVIL_QCOW2:
        return fake_create(m, &fmt_qcow2_class, MIB, small, err);
    case EVIL_QCOW2_V2:
        return fake_create(m, &fmt_qcow2_class, MIB, old, err);
    case EVIL_QCOW2_SUB:
        return fake_create(m, &fmt_qcow2_class, MIB, sub, err);
    case EVIL_VDI:
        return fake_vdi(m, err);
    case EVIL_VHD:
        return fake_vhd(m, err);
    case EVIL_VHD_FIXED:
        return fake_create(m, &fmt_vhd_class, 64 * KIB, fixed, err);
    case EVIL_VHDX:
        return fake_vhdx(m, err);
    case EVIL_VMDK:
        return fake_create(m, &fmt_vmdk_class, 34 * MIB, NULL, err);
    case EVIL_STREAM:
        return fake_create(m, &fmt_vmdk_class, 34 * MIB, stream, err);
    default:
        return 0;
    }
}

static void put_number(uint8_t *p, int width, uint64_t value)
{
    for (int i = 0; i < abs(width); i++) {
        p[width > 0 ? i : abs(width) - 1 - i] = (uint8_t)(value >> 8 * i);
    }
}

static void put(struct qcow2_memfile *m, const struct evil_patch *p)
{
    uint64_t at = p->at > UINT64_MAX / 2 ? m->size + p->at : p->at; /* EVIL_END */
    size_t len = p->width != 0 ? (size_t)abs(p->width) : strlen(p->text);
    if (p->width == EVIL_CUT) {
        m->size = (size_t)at;
        return;
    }
    assert_int_equal(qcow2_memfile_fit(m, at + len), 0);
    if (p->width != 0) {
        put_number(m->data + at, p->width, p->value);
    } else {
        memcpy(m->data + at, p->text, len);
    }
}

static void make(struct qcow2_memfile *m, const struct evil_row *row, const char *path)
{
    struct err err = ERR_INIT;
    if (make_base(m, row->base, &err) < 0) {
        fail_msg("%s: %s", names[row->base], err.msg);
    }
    for (size_t i = 0; i < ARRAY_LEN(row->patch); i++) {
        if (row->patch[i].width != 0 || row->patch[i].text != NULL) {
            put(m, &row->patch[i]);
        }
    }
    if (row->make != NULL) {
        row->make(m);
    }
    if (!row->raw_sums && (row->base == EVIL_VHD || row->base == EVIL_VHD_FIXED)) {
        fake_vhd_sums(m);
    } else if (!row->raw_sums && row->base == EVIL_VHDX) {
        fake_vhdx_sums(m);
    }
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(m->data, 1, m->size, f), m->size);
    assert_int_equal(fclose(f), 0);
}

/* Judging. */

static double cpu_seconds(void)
{
    struct timespec ts;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The most memory since the last time; 0 where the kernel does not tell. */
static uint64_t peak_memory(void)
{
    char line[256];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "VmHWM: %lu", &kib) == 1) {
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "5", 1);
        close(fd);
    }
    return kib * KIB;
}

void evil_say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(evil.said + evil.len, sizeof(evil.said) - evil.len, fmt, ap);
    va_end(ap);
    evil.len = MIN(evil.len + (size_t)n, sizeof(evil.said) - 1);
}

static void report(void *opaque, const char *text)
{
    (void)opaque;
    evil_say("%s\n", text);
}

/* All rows are run, and all that are wrong are named. */
#define WRONG(...)                                                                                 \
    do {                                                                                           \
        print_error(__VA_ARGS__);                                                                  \
        evil.wrong++;                                                                              \
    } while (0)

/* Reads the names of what was opened; each must be allowed. NULL `opens` twice: do not look. */
static void take_events(const char *what, const char *opens, bool look)
{
    char buf[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t n;
    while ((n = read(evil.watch, buf, sizeof(buf))) > 0) {
        for (char *p = buf; look && p < buf + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(void *)p;
            if (e->len > 0 && strncmp(e->name, "evil.", 5) != 0 &&
                strncmp(e->name, "out.", 4) != 0 &&
                (opens == NULL || strcmp(e->name, opens) != 0)) {
                WRONG("%s: it made us open '%s'\n", what, e->name);
            }
            p += sizeof(*e) + e->len;
        }
    }
}

void evil_begin(void **state)
{
    (void)state;
    evil.len = 0;
    evil.said[0] = '\0';
    take_events("", NULL, false);
    (void)peak_memory();
    evil.began = cpu_seconds();
}

void evil_end(const char *what, const char *refusal, const char *opens)
{
    double seconds = cpu_seconds() - evil.began;
    uint64_t memory = peak_memory();
    evil.images++;
    if (getenv("EVIL_PRINT") != NULL) {
        fprintf(stderr, "%-60s %6.3f s %4" PRIu64 " MiB: %s\n", what, seconds, memory / MIB,
                evil.said);
    }
    take_events(what, opens, true);
    if (refusal == NULL ? evil.len != 0 : strstr(evil.said, refusal) == NULL) {
        WRONG("%s: it was said '%s', expected '%s'\n", what, evil.said,
              refusal == NULL ? "" : refusal);
    }
    if (seconds > LIMIT_SECONDS || (!SANITIZED && memory > LIMIT_MEMORY)) {
        WRONG("%s: took %.1f s and %" PRIu64 " MiB\n", what, seconds, memory / MIB);
    }
    if (seconds > evil.slowest) {
        evil.slowest = seconds;
        evil.slow_row = what;
    }
    if (memory > evil.largest) {
        evil.largest = memory;
        evil.large_row = what;
    }
}

/* Using. */

static void count_item(void *opaque, const struct blk_info_item *item)
{
    *(size_t *)opaque += item->string != NULL ? strlen(item->string) : 1;
}

void evil_read(struct blk *blk)
{
    uint64_t size = blk_size(blk);
    CLEANUP_FREE uint8_t *buf = malloc(MIB);
    assert_non_null(buf);
    struct blk_extent ext = { .len = 0 };
    uint64_t at = 0;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && at < size && i < MAX_EXTENTS; i++, at += ext.len) {
        rc = blk_status(blk, at, size - at, &ext);
        assert_true(rc < 0 || (ext.len > 0 && ext.len <= size - at));
    }
    if (rc < 0) {
        evil_say("looking at %" PRIu64 ": %s\n", at, strerror(-rc));
    }
    rc = 0;
    /* All of it, or the beginning, the middle, the end. */
    uint64_t step = size <= READ_ALL ? MIB : (size - MIB) / 2 / 512 * 512;
    for (at = 0; rc == 0 && at < size; at += step) {
        rc = blk_pread(blk, at, buf, MIN((uint64_t)MIB, size - at));
    }
    if (rc < 0) {
        evil_say("reading: %s\n", strerror(-rc));
    }
}

/* As a writer, where the format has one. What that says does not matter: it must end, and after it
 * the image is one that a reader refuses or reads. */
static void use_write(const char *path, const char *format)
{
    struct blk_opts opts = { .path = path, .format = format };
    struct blk_check check = { 0 };
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    uint8_t buf[1536] = { 'w' };
    if (blk_open(&opts, &blk, &err) == 0) {
        uint64_t size = blk_size(blk) / 512 * 512;
        (void)!blk_pwrite(blk, 0, buf, MIN(size, sizeof(buf)));
        (void)!blk_pwrite(blk, size / 2 / 512 * 512, buf, MIN(size / 2, UINT64_C(512)));
        (void)!blk_flush(blk);
        blk_close(blk);
    }
    opts.no_backing = true;
    if (blk_open(&opts, &blk, &err) == 0) {
        (void)!blk_check(blk, BLK_CHECK_FIX_LEAKS | BLK_CHECK_FIX_ERRORS, &check, &err);
        blk_close(blk);
    }
}

static void use_read(void **state, const char *path, const char *format)
{
    struct blk_opts opts = { .path = path, .format = format, .read_only = true };
    struct blk_check check = { .report = report };
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    size_t n = 0;
    if (blk_open(&opts, &blk, &err) < 0) {
        evil_say("%s\n", err.msg);
        return;
    }
    uint64_t size = blk_size(blk);
    if (blk_info(blk, count_item, &n, &err) < 0) {
        evil_say("info: %s\n", err.msg);
    }
    evil_read(blk);
    int rc = blk_check(blk, 0, &check, &err);
    if (rc < 0 && rc != -ENOTSUP) {
        evil_say("check: %s\n", err.msg);
    }
    blk_close(blk);
    struct blk_create_opts dst = { .path = scratch_path(state, "vm/out.raw"), .format = "raw" };
    struct stat st;
    if (size > READ_ALL) {
        return;
    }
    rc = blk_convert(&opts, &dst, &(struct blk_convert_opts){ 0 }, &err);
    if (rc < 0) {
        assert_int_equal(access(dst.path, F_OK), -1);
        evil_say("convert: %s\n", err.msg);
    } else {
        assert_int_equal(stat(dst.path, &st), 0);
        assert_int_equal(st.st_size, size);
        assert_int_equal(unlink(dst.path), 0);
    }
}

void evil_run(void **state, const struct evil_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct evil_row *row = &rows[i];
        char name[32];
        struct qcow2_memfile m = { 0 };
        (void)snprintf(name, sizeof(name), "vm/evil.%s", names[row->base]);
        const char *path = scratch_path(state, name);
        make(&m, row, path);
        evil_begin(state);
        use_read(state, path, names[row->base]);
        use_write(path, names[row->base]);
        evil_end(row->what, row->refusal, row->opens);
        free(m.data);
    }
}

static int setup(void **state)
{
    log_set_level(LOG_ERROR + 1);
    if (scratch_setup(state) < 0 || mkdir(scratch_path(state, "vm"), 0700) < 0 ||
        mkdir(scratch_path(state, "other"), 0700) < 0 ||
        mkdir(scratch_path(state, "vm/folder"), 0700) < 0 ||
        mkfifo(scratch_path(state, "vm/fifo"), 0600) < 0 ||
        symlink("../other/secret.raw", scratch_path(state, "vm/link.raw")) < 0) {
        return -1;
    }
    scratch_file(state, "vm/good.raw", "good", MIB);
    scratch_file(state, "other/secret.raw", "secret", MIB);
    evil.watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return inotify_add_watch(evil.watch, scratch_path(state, "vm"), IN_OPEN) < 0 ||
                   inotify_add_watch(evil.watch, scratch_path(state, "other"), IN_OPEN) < 0
               ? -1
               : 0;
}

static int teardown(void **state)
{
    close(evil.watch);
    return scratch_teardown(state);
}

#define EVIL_TEST(name)                                                                            \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        evil.wrong = 0;                                                                            \
        evil_##name(state);                                                                        \
        assert_int_equal(evil.wrong, 0);                                                           \
    }
EVIL_TEST(qcow2)
EVIL_TEST(vmdk)
EVIL_TEST(others)
EVIL_TEST(ova)

/* The number that docs/soak.md and the threat model speak of. */
static void enough(void **state)
{
    (void)state;
    print_message("%u images; slowest %.2f s: %s; largest %" PRIu64 " MiB: %s\n", evil.images,
                  evil.slowest, evil.slow_row, evil.largest / MIB, evil.large_row);
    assert_true(evil.images >= 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_qcow2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vmdk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ova, setup, teardown),
        cmocka_unit_test(enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
