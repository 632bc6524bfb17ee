/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tar archive: POSIX.1-2017 "ustar Interchange Format", with what programs that write OVAs add
 * for large files: numbers in base 256 (GNU), records "size" and "path" of pax headers.
 *
 * Members follow each other, so none can overlap or form a loop; each header costs 512 bytes of the
 * file, and OVA_MAX_HEADERS bounds their number.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/ova/ova_int.h"

/* Fields of a header. */
#define NAME       0 /* 100 bytes */
#define MODE       100
#define UID        108
#define GID        116
#define SIZE       124 /* 12 bytes */
#define MTIME      136
#define CHECKSUM   148 /* 8 bytes */
#define TYPE       156
#define MAGIC      257
#define PREFIX     345 /* 155 bytes */
#define PAX_MAX    (64 * KIB)
#define NAME_LEN   100
#define PREFIX_LEN 155

/* What a header of its own says about the next member. */
struct ahead {
    bool has_name, has_size;
    char name[OVA_NAME_MAX];
    uint64_t size;
};

static uint32_t checksum(const uint8_t *h)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < OVA_BLOCK; i++) {
        sum += i >= CHECKSUM && i < CHECKSUM + 8 ? ' ' : h[i];
    }
    return sum;
}

/* Octal digits, after spaces and up to a space or NUL; or base 256 when the first bit is set. */
static bool parse_number(const uint8_t *p, size_t len, uint64_t *ret)
{
    uint64_t value = 0;
    if ((p[0] & 0x80) != 0) {
        for (size_t i = 1; i < len; i++) {
            if (value >> 54 != 0) {
                return false;
            }
            value = value << 8 | p[i];
        }
        *ret = value;
        return p[0] == 0x80;
    }
    size_t i = 0;
    while (i < len && p[i] == ' ') {
        i++;
    }
    for (; i < len && p[i] >= '0' && p[i] <= '7'; i++) {
        value = value << 3 | (uint64_t)(p[i] - '0');
    }
    *ret = value;
    return i == len || p[i] == ' ' || p[i] == '\0';
}

static int bad_header(uint64_t at, struct err *err)
{
    return err_set(err, -EINVAL, "archive: the header at %" PRIu64 " is damaged", at);
}

/* One record of a pax header: "LENGTH KEY=VALUE\n". Returns its length, 0 when it is wrong. */
static size_t pax_record(const char *text, size_t len, struct ahead *ahead)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno != 0 || *end != ' ' || n > len || n < 5 || text[n - 1] != '\n') {
        return 0;
    }
    const char *key = end + 1;
    const char *stop = text + n - 1;
    const char *equals = memchr(key, '=', key < stop ? (size_t)(stop - key) : 0);
    if (equals == NULL) {
        return 0;
    }
    size_t value_len = (size_t)(stop - equals - 1);
    if (strncmp(key, "path=", 5) == 0) {
        if (value_len >= OVA_NAME_MAX) {
            return 0;
        }
        memcpy(ahead->name, equals + 1, value_len);
        ahead->name[value_len] = '\0';
        ahead->has_name = true;
    } else if (strncmp(key, "size=", 5) == 0) {
        ahead->size = strtoull(equals + 1, &end, 10);
        ahead->has_size = true;
        return errno == 0 && end == stop ? n : 0;
    }
    return n;
}

/* A pax header ('x') or a long name of GNU ('L') of `size` bytes at `at`. */
static int read_ahead(struct blk *file, char type, uint64_t at, uint64_t size, struct ahead *ahead,
                      struct err *err)
{
    if (size > PAX_MAX) {
        return err_set(err, -EFBIG,
                       "archive: the header at %" PRIu64 " has %" PRIu64
                       " bytes, the limit is %llu",
                       at, size, (unsigned long long)PAX_MAX);
    }
    CLEANUP_FREE char *text = calloc(1, size + 1);
    int rc = text == NULL ? -ENOMEM : blk_pread(file, at, text, size);
    if (rc < 0) {
        return err_set_errno(err, rc, "archive: reading at offset %" PRIu64, at);
    }
    if (type == 'L') {
        if (strlen(text) >= OVA_NAME_MAX) {
            return bad_header(at, err);
        }
        strcpy(ahead->name, text);
        ahead->has_name = true;
        return 0;
    }
    for (size_t pos = 0; pos < size;) {
        size_t n = pax_record(text + pos, size - pos, ahead);
        if (n == 0) {
            return bad_header(at, err);
        }
        pos += n;
    }
    return 0;
}

static void own_name(const uint8_t *h, char *name)
{
    int prefix = memcmp(h + MAGIC, "ustar\0", 6) == 0
                     ? (int)strnlen((const char *)h + PREFIX, PREFIX_LEN)
                     : 0;
    (void)snprintf(name, OVA_NAME_MAX, "%.*s%s%.*s", prefix, (const char *)h + PREFIX,
                   prefix > 0 ? "/" : "", NAME_LEN, (const char *)h + NAME);
}

static int add_member(struct ova_tar *tar, const uint8_t *h, const struct ova_member *m,
                      struct err *err)
{
    char printable[OVA_NAME_MAX];
    char type = (char)h[TYPE];
    blk_printable(m->name, printable, sizeof(printable));
    if (type != '0' && type != '\0' && type != '7') {
        return err_set(err, -EINVAL,
                       "archive: '%s' is no plain file (type '%c'); an OVA has only plain files",
                       printable, type >= ' ' && type < 0x7f ? type : '?');
    }
    if (ova_tar_find(tar, m->name) != NULL) {
        return err_set(err, -EINVAL, "archive: '%s' is there twice", printable);
    }
    if (tar->count == OVA_MAX_MEMBERS) {
        return err_set(err, -EFBIG, "archive: there are more than %d files", OVA_MAX_MEMBERS);
    }
    tar->members[tar->count++] = *m;
    return 0;
}

/* The header at *at, and on to the next one. *ret_end: that was the end. */
static int read_one(struct blk *file, uint64_t *at, struct ahead *ahead, struct ova_tar *tar,
                    bool *ret_end, struct err *err)
{
    uint8_t h[OVA_BLOCK];
    struct ova_member m = { .offset = *at + OVA_BLOCK };
    uint64_t sum;
    int rc = blk_pread(file, *at, h, sizeof(h));
    if (rc < 0) {
        return err_set_errno(err, rc, "archive: reading at offset %" PRIu64, *at);
    }
    *ret_end = blk_iov_buf_is_zero(h, sizeof(h)); /* one is enough, also at the end of the file */
    if (*ret_end) {
        return 0;
    }
    if (memcmp(h + MAGIC, "ustar", 5) != 0 || !parse_number(h + CHECKSUM, 8, &sum) ||
        sum != checksum(h) || !parse_number(h + SIZE, 12, &m.size)) {
        return bad_header(*at, err);
    }
    char type = (char)h[TYPE];
    bool extra = type == 'x' || type == 'g' || type == 'L';
    if (!extra && ahead->has_size) {
        m.size = ahead->size;
    }
    if (m.offset > file->size || m.size > file->size - m.offset) {
        return err_set(err, -EINVAL,
                       "archive: the file at %" PRIu64 " has %" PRIu64
                       " bytes, the archive ends at %" PRIu64 "; it may be cut short",
                       m.offset, m.size, (uint64_t)file->size);
    }
    *at = bits_align_up(m.offset + m.size, OVA_BLOCK);
    if (type == 'g') {
        return 0; /* nothing in it matters here */
    }
    if (extra) {
        return read_ahead(file, type, m.offset, m.size, ahead, err);
    }
    if (ahead->has_name) {
        strcpy(m.name, ahead->name);
    } else {
        own_name(h, m.name);
    }
    *ahead = (struct ahead){ 0 };
    return add_member(tar, h, &m, err);
}

int ova_tar_read(struct blk *file, struct ova_tar *tar, struct err *err)
{
    struct ahead ahead = { 0 };
    uint64_t at = 0;
    bool end = false;
    tar->count = 0;
    for (unsigned i = 0; !end && at < file->size; i++) {
        if (i == OVA_MAX_HEADERS) {
            return err_set(err, -EFBIG, "archive: there are more than %d headers", OVA_MAX_HEADERS);
        }
        int rc = read_one(file, &at, &ahead, tar, &end, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

const struct ova_member *ova_tar_find(const struct ova_tar *tar, const char *name)
{
    for (unsigned i = 0; i < tar->count; i++) {
        if (strcmp(tar->members[i].name, name) == 0) {
            return &tar->members[i];
        }
    }
    return NULL;
}

void ova_tar_header(uint8_t header[static OVA_BLOCK], const char *name, uint64_t size)
{
    char *h = (char *)header;
    memset(h, 0, OVA_BLOCK);
    memcpy(h + NAME, name, strnlen(name, NAME_LEN));
    strcpy(h + MODE, "0000644");
    strcpy(h + UID, "0000000");
    strcpy(h + GID, "0000000");
    strcpy(h + MTIME, "00000000000"); /* the same disks give the same archive */
    if (size >> 33 == 0) {
        (void)snprintf(h + SIZE, 12, "%011" PRIo64, size);
    } else {
        header[SIZE] = 0x80;
        be64_put(header + SIZE + 4, size);
    }
    h[TYPE] = '0';
    memcpy(h + MAGIC, "ustar\00000", 8);
    (void)snprintf(h + CHECKSUM, 8, "%06o", checksum(header));
    h[CHECKSUM + 7] = ' ';
}
