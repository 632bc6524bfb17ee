/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The write log and its replayer: whatever the mode and the moment, flushed data is there, and
 * what is there was written.
 */
#include "block/blk_test.h"

#include <errno.h>
#include <fcntl.h>

#include "block/writelog.h"

enum { SECTORS = 64, STEPS = 60 };

/* What each step of the run did: sectors [first, first + n) got the stamp step + 1. */
struct step {
    bool flush;
    unsigned first, n;
    bool zero;
};

static void fill(char *buf, unsigned n, uint32_t stamp)
{
    for (unsigned i = 0; i < n * 128; i++) {
        le32_put(buf + i * 4, stamp);
    }
}

/* A random run on a raw disk under the filter; the log goes to `log_path`. */
static void record(void **state, const char *log_path, struct step *steps)
{
    static char buf[SECTORS * 512];
    char spec[4300];
    unsigned seed = 11;
    (void)snprintf(spec, sizeof(spec), "writelog:%s", log_path);
    const char *const filters[] = { spec, NULL };
    const char *path = scratch_file(state, "disk", "", SECTORS * 512);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path, .filters = filters });
    for (unsigned i = 0; i < STEPS; i++) {
        steps[i].flush = rand_r(&seed) % 6 == 0;
        steps[i].first = (unsigned)rand_r(&seed) % SECTORS;
        steps[i].n = 1 + (unsigned)rand_r(&seed) % MIN(SECTORS - steps[i].first, 8U);
        steps[i].zero = rand_r(&seed) % 5 == 0;
        if (steps[i].flush) {
            assert_int_equal(blk_flush(blk), 0);
        } else if (steps[i].zero) {
            assert_int_equal(
                blk_write_zeroes(blk, steps[i].first * 512, steps[i].n * 512, rand_r(&seed) & 1),
                0);
        } else {
            fill(buf, steps[i].n, i + 1);
            assert_int_equal(blk_pwrite(blk, steps[i].first * 512, buf, steps[i].n * 512), 0);
        }
    }
    blk_close(blk); /* one more flush */
}

static bool covers(const struct step *s, unsigned sector)
{
    return !s->flush && sector >= s->first && sector < s->first + s->n;
}

/* May `sector` hold `stamp` after a crash at `point`? */
static bool possible(const struct step *steps, size_t point, unsigned sector, uint32_t stamp)
{
    size_t durable = 0;
    uint32_t base = 0;
    for (size_t i = 0; i < MIN(point, (size_t)STEPS); i++) {
        durable = steps[i].flush ? i + 1 : durable;
    }
    for (size_t i = 0; i < durable; i++) {
        if (covers(&steps[i], sector)) {
            base = steps[i].zero ? 0 : (uint32_t)i + 1;
        }
    }
    bool found = stamp == base;
    for (size_t i = durable; i < MIN(point, (size_t)STEPS); i++) {
        found |= covers(&steps[i], sector) && stamp == (steps[i].zero ? 0 : i + 1);
    }
    return found;
}

/* Replays on an empty disk and reads the result. */
static void replay(void **state, const struct writelog *log, enum writelog_mode mode, size_t point,
                   uint64_t seed, char *disk)
{
    struct err err = ERR_INIT;
    int fd = open(scratch_path(state, "crashed"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, SECTORS * 512), 0);
    assert_int_equal(writelog_replay(log, mode, point, seed, fd, &err), 0);
    assert_int_equal(pread(fd, disk, SECTORS * 512, 0), SECTORS * 512);
    close(fd);
}

static void check_disk(const struct step *steps, size_t point, const char *disk)
{
    for (unsigned s = 0; s < SECTORS; s++) {
        uint32_t stamp = le32_get(disk + s * 512);
        for (unsigned i = 1; i < 128; i++) {
            assert_int_equal(le32_get(disk + s * 512 + i * 4), stamp); /* sectors are atomic */
        }
        if (!possible(steps, point, s, stamp)) {
            fail_msg("point %zu: sector %u holds stamp %u", point, s, stamp);
        }
    }
}

static void test_every_crash_is_possible(void **state)
{
    static struct step steps[STEPS];
    static char disk[SECTORS * 512];
    static char again[SECTORS * 512];
    struct err err = ERR_INIT;
    struct writelog *log = NULL;
    const char *path = scratch_path(state, "run.log");
    record(state, path, steps);
    assert_int_equal(writelog_load(path, &log, &err), 0);
    assert_int_equal(writelog_count(log), STEPS + 1);
    for (size_t point = 0; point <= writelog_count(log); point++) {
        for (int mode = WRITELOG_PREFIX; mode <= WRITELOG_REORDER; mode++) {
            for (uint64_t seed = 0; seed < (mode == WRITELOG_PREFIX ? 1 : 4); seed++) {
                replay(state, log, mode, point, seed, disk);
                check_disk(steps, point, disk);
                replay(state, log, mode, point, seed, again);
                assert_memory_equal(disk, again, sizeof(disk));
            }
        }
    }
    writelog_free(log);
}

/* PREFIX at the end is the disk as it was; the other modes do lose unflushed data. */
static void test_modes_differ(void **state)
{
    static struct step steps[STEPS];
    static char disk[SECTORS * 512];
    static char full[SECTORS * 512];
    struct err err = ERR_INIT;
    struct writelog *log = NULL;
    const char *path = scratch_path(state, "run.log");
    record(state, path, steps);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = scratch_path(state, "disk") });
    assert_int_equal(blk_pread(blk, 0, full, sizeof(full)), 0);
    blk_close(blk);
    assert_int_equal(writelog_load(path, &log, &err), 0);
    replay(state, log, WRITELOG_PREFIX, writelog_count(log), 0, disk);
    assert_memory_equal(disk, full, sizeof(full));
    /* The longest stretch without a flush. */
    size_t end = 0;
    size_t best = 0;
    for (size_t i = 0, run = 0; i < STEPS; i++) {
        run = steps[i].flush ? 0 : run + 1;
        if (run > best) {
            best = run;
            end = i + 1;
        }
    }
    assert_true(best >= 5);
    replay(state, log, WRITELOG_PREFIX, end, 0, full);
    for (int mode = WRITELOG_SUBSET; mode <= WRITELOG_REORDER; mode++) {
        int differ = 0;
        for (uint64_t seed = 0; seed < 20; seed++) {
            replay(state, log, mode, end, seed, disk);
            differ += memcmp(disk, full, sizeof(full)) != 0;
        }
        assert_true(differ > 5);
    }
    writelog_free(log);
}

static void test_growing_image(void **state)
{
    struct err err = ERR_INIT;
    struct writelog *log = NULL;
    struct blk *blk = NULL;
    struct stat st;
    char spec[4300];
    const char *log_path = scratch_path(state, "grow.log");
    (void)snprintf(spec, sizeof(spec), "writelog:%s", log_path);
    const char *const filters[] = { spec, NULL };
    const char *path = scratch_file(state, "grow", "x", 512);
    blk = open_ok(&(struct blk_opts){ .path = path, .filters = filters });
    assert_int_equal(blk_resize(blk, 65536, &err), 0);
    assert_int_equal(blk_pwrite(blk, 65024, "end", 3), 0);
    assert_int_equal(blk_discard(blk, 0, 4096), 0);
    blk_close(blk);
    assert_int_equal(writelog_load(log_path, &log, &err), 0);
    assert_int_equal(writelog_count(log), 4);
    assert_int_equal(writelog_get(log, 0)->op, WRITELOG_TRUNCATE);
    assert_int_equal(writelog_get(log, 1)->op, WRITELOG_WRITE);
    assert_memory_equal(writelog_get(log, 1)->data, "end", 3);
    assert_int_equal(writelog_get(log, 2)->op, WRITELOG_DISCARD);
    assert_int_equal(writelog_get(log, 3)->op, WRITELOG_FLUSH);
    int fd = open(scratch_file(state, "before", "x", 512), O_RDWR | O_CLOEXEC);
    char c;
    assert_true(fd >= 0);
    assert_int_equal(writelog_replay(log, WRITELOG_PREFIX, 2, 0, fd, &err), 0);
    assert_int_equal(pread(fd, &c, 1, 0), 1);
    assert_int_equal(c, 'x');
    assert_int_equal(writelog_replay(log, WRITELOG_PREFIX, 4, 0, fd, &err), 0);
    assert_int_equal(pread(fd, &c, 1, 0), 1);
    assert_int_equal(c, 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 65536);
    close(fd);
    writelog_free(log);
}

static void test_damaged_logs(void **state)
{
    static struct step steps[STEPS];
    struct err err = ERR_INIT;
    struct writelog *log = NULL;
    struct stat st;
    const char *path = scratch_path(state, "run.log");
    record(state, path, steps);
    assert_int_equal(stat(path, &st), 0);
    /* Cut off inside the last entry (a flush), as by a kill. */
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    assert_int_equal(writelog_load(path, &log, &err), 0);
    assert_int_equal(writelog_count(log), STEPS);
    writelog_free(log);
    assert_int_equal(writelog_load(scratch_file(state, "empty.log", "", 0), &log, &err), 0);
    assert_int_equal(writelog_count(log), 0);
    writelog_free(log);
    log = NULL;
    const char *text = scratch_file(state, "text.log", "this is no log at all, not a bit", 64);
    assert_int_equal(writelog_load(text, &log, &err), -EINVAL);
    assert_int_equal(writelog_load("/nonexistent", &log, &err), -ENOENT);
    assert_null(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_crash_is_possible),
        cmocka_unit_test(test_modes_differ),
        cmocka_unit_test(test_growing_image),
        cmocka_unit_test(test_damaged_logs),
    };
    return cmocka_run_group_tests_name("writelog", tests, scratch_setup, scratch_teardown);
}
