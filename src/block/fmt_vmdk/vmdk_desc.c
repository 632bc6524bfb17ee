/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The descriptor: lines "key=value", extents ("RW 4192256 SPARSE "disk-s001.vmdk""), comments.
 * Unknown keys are skipped. A descriptor with a parent is refused by name.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <strings.h>

#include "base/cleanup.h"
#include "block/fmt_vmdk/vmdk_int.h"

#define NO_PARENT UINT32_MAX

/* A position in the text; the text ends with a NUL. */

static const char *skip_spaces(const char *p)
{
    return p + strspn(p, " \t");
}

/* Copies the word at *p and moves behind it; false when it is empty or does not fit. */
static bool take_word(const char **p, char *buf, size_t size)
{
    *p = skip_spaces(*p);
    size_t len = strcspn(*p, " \t");
    if (len == 0 || len >= size) {
        return false;
    }
    memcpy(buf, *p, len);
    buf[len] = '\0';
    *p += len;
    return true;
}

static bool take_number(const char **p, uint64_t *ret)
{
    char word[24];
    char *end;
    if (!take_word(p, word, sizeof(word)) || word[0] < '0' || word[0] > '9') {
        return false;
    }
    errno = 0;
    *ret = strtoull(word, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool take_quoted(const char **p, char *buf, size_t size)
{
    *p = skip_spaces(*p);
    const char *end = **p == '"' ? strchr(*p + 1, '"') : NULL;
    if (end == NULL || (size_t)(end - *p - 1) >= size) {
        return false;
    }
    size_t len = (size_t)(end - *p - 1);
    memcpy(buf, *p + 1, len);
    buf[len] = '\0';
    *p = end + 1;
    return true;
}

static int bad_line(const char *line, struct err *err)
{
    char printable[128];
    return err_set(err, -EINVAL, "descriptor: the line '%s' is not understood",
                   blk_printable(line, printable, sizeof(printable)));
}

/* Extents. */

static int extent_kind(const char *type, enum vmdk_extent_kind *ret_kind, struct err *err)
{
    char printable[64];
    if (strcmp(type, "FLAT") == 0 || strcmp(type, "VMFS") == 0) {
        *ret_kind = VMDK_EXTENT_FLAT;
    } else if (strcmp(type, "SPARSE") == 0) {
        *ret_kind = VMDK_EXTENT_SPARSE;
    } else if (strcmp(type, "ZERO") == 0) {
        *ret_kind = VMDK_EXTENT_ZERO;
    } else {
        return err_set(err, -ENOTSUP,
                       "descriptor: extents of type '%s' are not supported (there are: FLAT, VMFS, "
                       "SPARSE, ZERO)",
                       blk_printable(type, printable, sizeof(printable)));
    }
    return 0;
}

static int add_extent(struct vmdk_desc *desc, const struct vmdk_extent *e, uint64_t sectors,
                      struct err *err)
{
    struct vmdk_extent *last = desc->nextents == 0 ? NULL : &desc->extents[desc->nextents - 1];
    uint64_t start = last == NULL ? 0 : last->start + last->len;
    if (desc->nextents == VMDK_MAX_EXTENTS) {
        return err_set(err, -EFBIG, "descriptor: there are more than %d extents", VMDK_MAX_EXTENTS);
    }
    if (sectors == 0 || sectors > (BLK_MAX_SIZE - start) / VMDK_SECTOR) {
        return blk_place_bad(err, "extent size", sectors,
                             "1 to 2^53 sectors, all extents together");
    }
    if (desc->extents == NULL) {
        desc->extents = calloc(VMDK_MAX_EXTENTS, sizeof(*desc->extents));
        if (desc->extents == NULL) {
            return err_set(err, -ENOMEM, "out of memory");
        }
    }
    desc->extents[desc->nextents] = *e;
    desc->extents[desc->nextents].start = start;
    desc->extents[desc->nextents++].len = sectors * VMDK_SECTOR;
    return 0;
}

/* `p` is behind the access word. */
static int parse_extent(struct vmdk_desc *desc, const char *line, const char *p, struct err *err)
{
    struct vmdk_extent e = { 0 };
    char type[16];
    uint64_t sectors;
    uint64_t offset = 0;
    if (!take_number(&p, &sectors) || !take_word(&p, type, sizeof(type))) {
        return bad_line(line, err);
    }
    int rc = extent_kind(type, &e.kind, err);
    if (rc < 0) {
        return rc;
    }
    if (e.kind != VMDK_EXTENT_ZERO && !take_quoted(&p, e.name, sizeof(e.name))) {
        return bad_line(line, err);
    }
    p = skip_spaces(p);
    if (e.kind == VMDK_EXTENT_FLAT && *p != '\0' && !take_number(&p, &offset)) {
        return bad_line(line, err);
    }
    if (offset > BLK_MAX_SIZE / VMDK_SECTOR) {
        return blk_place_bad(err, "extent offset", offset, "up to 2^53 sectors");
    }
    e.offset = offset * VMDK_SECTOR;
    return add_extent(desc, &e, sectors, err);
}

/* Keys. */

static int parse_key(struct vmdk_desc *desc, const char *line, const char *value, struct err *err)
{
    size_t key_len = strcspn(line, " \t=");
    value = skip_spaces(value);
    if (key_len == 10 && strncasecmp(line, "createType", key_len) == 0) {
        const char *p = value;
        if (!take_quoted(&p, desc->type, sizeof(desc->type))) {
            return bad_line(line, err);
        }
    } else if (key_len == 3 && strncasecmp(line, "CID", key_len) == 0) {
        desc->cid = (uint32_t)strtoul(value, NULL, 16);
    } else if (key_len == 9 && strncasecmp(line, "parentCID", key_len) == 0) {
        desc->parent_cid = (uint32_t)strtoul(value, NULL, 16);
    }
    return 0;
}

static int parse_line(struct vmdk_desc *desc, const char *line, bool want_extents, struct err *err)
{
    char word[16];
    const char *p = line;
    const char *equals = strchr(line, '=');
    if (line[0] == '\0' || line[0] == '#') {
        return 0;
    }
    if (take_word(&p, word, sizeof(word)) &&
        (strcmp(word, "RW") == 0 || strcmp(word, "RDONLY") == 0 || strcmp(word, "NOACCESS") == 0)) {
        return want_extents ? parse_extent(desc, line, p, err) : 0;
    }
    return equals == NULL ? 0 : parse_key(desc, line, equals + 1, err);
}

int vmdk_desc_parse(const char *text, size_t len, bool want_extents, struct vmdk_desc *desc,
                    struct err *err)
{
    *desc = (struct vmdk_desc){ .parent_cid = NO_PARENT };
    CLEANUP_FREE char *copy = strndup(text, len);
    char *rest = copy;
    char *line;
    if (copy == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    while ((line = strsep(&rest, "\r\n")) != NULL) {
        line += strspn(line, " \t");
        int rc = parse_line(desc, line, want_extents, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (desc->parent_cid != NO_PARENT) {
        return err_set(err, -ENOTSUP,
                       "the image is a difference to another one (parentCID %08x); such images are "
                       "not supported, merge them with the program that made them",
                       desc->parent_cid);
    }
    if (want_extents && desc->nextents == 0) {
        return err_set(err, -EINVAL, "descriptor: there are no extents");
    }
    return 0;
}
