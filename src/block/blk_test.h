/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tests of the block layer share: a scratch directory and files in it. */
#ifndef BLOCK_BLK_TEST_H
#define BLOCK_BLK_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/blk_int.h"

/* cmocka setup and teardown: *state is the scratch directory's path, removed at the end. */
static inline int scratch_setup(void **state)
{
    char *dir = strdup("/var/tmp/posada-blk-XXXXXX"); /* a disk file system: tmpfs lacks O_DIRECT */
    *state = dir != NULL ? mkdtemp(dir) : NULL;
    return *state == NULL ? -1 : 0;
}

static inline int scratch_teardown(void **state)
{
    char cmd[128];
    (void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", (char *)*state);
    int rc = system(cmd);
    free(*state);
    return rc;
}

/* "DIR/NAME"; one of eight buffers in turn. */
static inline const char *scratch_path(void **state, const char *name)
{
    static char bufs[8][4200];
    static unsigned next;
    char *buf = bufs[next++ % 8];
    int len = snprintf(buf, sizeof(bufs[0]), "%s/%s", (char *)*state, name);
    assert_in_range(len, 1, sizeof(bufs[0]) - 1);
    return buf;
}

/* A file of `size` zero bytes with `text` at its beginning. */
static inline const char *scratch_file(void **state, const char *name, const char *text, off_t size)
{
    const char *path = scratch_path(state, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(truncate(path, size), 0);
    return path;
}

static inline struct blk *open_ok(const struct blk_opts *opts)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    if (blk_open(opts, &blk, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return blk;
}

/* The open must fail with `code` and a text that holds `text`. */
static inline void open_fails(const struct blk_opts *opts, int code, const char *text)
{
    struct err err = ERR_INIT;
    struct blk *blk = NULL;
    int rc = blk_open(opts, &blk, &err);
    if (rc != code || strstr(err.msg, text) == NULL) {
        fail_msg("got %d '%s', expected %d '%s'", rc, err.msg, code, text);
    }
    assert_null(blk);
    assert_int_equal(err.code, code);
}

#endif
