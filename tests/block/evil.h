/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Evil images (reliability S13, S14): a row each, made from a good image by changing some bytes.
 * Each is a file, used as `posada image info`, `check`, `convert` and a VM do.
 */
#ifndef TESTS_BLOCK_EVIL_H
#define TESTS_BLOCK_EVIL_H

#include "block/blk_place_fake.h"
#include "block/blk_test.h"

enum evil_base {
    EVIL_TEXT, /* an empty file: all of it comes from the row */
    EVIL_QCOW2,
    EVIL_QCOW2_V2,
    EVIL_QCOW2_SUB, /* extended L2 entries */
    EVIL_VDI,
    EVIL_VHD,
    EVIL_VHD_FIXED,
    EVIL_VHDX,
    EVIL_VMDK,
    EVIL_STREAM, /* stream-optimised VMDK */
    EVIL_BASES,
};

/* A number or a text at a place; a place past the end makes the image longer. */
struct evil_patch {
    uint64_t at;
    int width; /* bytes; negative: big-endian; 0: the text */
    uint64_t value;
    const char *text;
};

#define EVIL_END(n) (UINT64_MAX - (n) + 1) /* n bytes before the end */
#define EVIL_CUT    100                    /* as the width: the file ends at `at` */
#define EVIL_L(n, at, v)                                                                           \
    {                                                                                              \
        at, n, v, NULL                                                                             \
    }
#define EVIL_B(n, at, v)                                                                           \
    {                                                                                              \
        at, -(n), v, NULL                                                                          \
    }
#define EVIL_T(at, words)                                                                          \
    {                                                                                              \
        at, 0, 0, words                                                                            \
    }

struct evil_row {
    const char *what;
    const char *refusal; /* is in what is said about the image; NULL: it is used without trouble */
    enum evil_base base;
    struct evil_patch patch[5];
    void (*make)(struct qcow2_memfile *m); /* after the patches, or NULL */
    const char *opens;                     /* a file beside it that it may open, or NULL */
    bool raw_sums;                         /* leave the checksums as they are */
};

/* Writes the bytes of a row's image, and uses them. */
void evil_run(void **state, const struct evil_row *rows, size_t n);

/* Around the use of an image by another way: what was said is compared with `refusal`; time, memory
 * and the files that were opened with what is allowed. */
void evil_begin(void **state);
void evil_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void evil_end(const char *what, const char *refusal, const char *opens);
/* Reads all of a small disk, parts of a large one. */
void evil_read(struct blk *blk);

void evil_qcow2(void **state);
void evil_vmdk(void **state);
void evil_others(void **state);
void evil_ova(void **state);

#endif
