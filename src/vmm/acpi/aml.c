/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AML encoder. Blocks begin with a PkgLength of 1 to 4 bytes that counts itself (ACPI 6.5 §20.2.4):
 * when a block ends, its content is moved up by the bytes that the length needs.
 */
#include "vmm/acpi/aml.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#define AML_MAX_SIZE  MIB
#define AML_MAX_DEPTH 16
#define RES_MAX       1024

struct aml {
    uint8_t *buf;
    size_t len, cap;
    int error;
    size_t open[AML_MAX_DEPTH]; /* where the PkgLength of an open block goes */
    unsigned depth;
    uint8_t res[RES_MAX];
    size_t res_len;
    bool in_res;
    struct {
        const struct aml_area *area;
        size_t pos;
    } area[AML_MAX_AREAS];
    unsigned nareas;
};

struct aml *aml_new(void)
{
    return calloc(1, sizeof(struct aml));
}

void aml_free(struct aml *a)
{
    if (a != NULL) {
        free(a->buf);
        free(a);
    }
}

/* Room for `n` more bytes, or NULL with the error noted. */
static uint8_t *reserve(struct aml *a, size_t n)
{
    if (a->error != 0) {
        return NULL;
    }
    if (n > AML_MAX_SIZE - a->len) {
        a->error = -E2BIG;
        return NULL;
    }
    if (a->len + n > a->cap) {
        size_t cap = MAX(a->cap * 2, a->len + n + 1024);
        uint8_t *buf = realloc(a->buf, cap);
        if (buf == NULL) {
            a->error = -ENOMEM;
            return NULL;
        }
        a->buf = buf;
        a->cap = cap;
    }
    uint8_t *p = a->buf + a->len;
    a->len += n;
    return p;
}

static void put(struct aml *a, const void *buf, size_t len)
{
    uint8_t *p = reserve(a, len);
    if (p != NULL) {
        memcpy(p, buf, len);
    }
}

static void put8(struct aml *a, unsigned v)
{
    uint8_t b = (uint8_t)v;
    put(a, &b, 1);
}

static void put_le(struct aml *a, uint64_t v, unsigned bytes)
{
    uint8_t b[8];
    le64_put(b, v);
    put(a, b, bytes);
}

int aml_finish(struct aml *a, const uint8_t **ret_code, size_t *ret_len)
{
    assert(a->error != 0 || (a->depth == 0 && !a->in_res));
    if (a->error != 0) {
        return a->error;
    }
    *ret_code = a->buf;
    *ret_len = a->len;
    return 0;
}

/* §20.2.4: value counts the length bytes themselves. Returns how many were written. */
static unsigned encode_length(uint8_t out[4], size_t content, bool count_self)
{
    for (unsigned n = 1; n <= 4; n++) {
        size_t v = content + (count_self ? n : 0);
        if (n == 1 ? v < 64 : v < (size_t)1 << (4 + 8 * (n - 1))) {
            if (n == 1) {
                out[0] = (uint8_t)v;
                return 1;
            }
            out[0] = (uint8_t)((n - 1) << 6 | (v & 0xf));
            for (unsigned i = 1; i < n; i++) {
                out[i] = (uint8_t)(v >> (4 + 8 * (i - 1)));
            }
            return n;
        }
    }
    return 0;
}

static void begin(struct aml *a)
{
    assert(a->depth < AML_MAX_DEPTH);
    a->open[a->depth++] = a->len;
}

void aml_end(struct aml *a)
{
    assert(a->depth > 0);
    size_t start = a->open[--a->depth];
    if (a->error != 0) {
        return;
    }
    uint8_t length[4];
    size_t content = a->len - start;
    unsigned n = encode_length(length, content, true);
    assert(n != 0); /* the code is at most AML_MAX_SIZE */
    if (reserve(a, n) == NULL) {
        return;
    }
    memmove(a->buf + start + n, a->buf + start, content);
    memcpy(a->buf + start, length, n);
    for (unsigned i = 0; i < a->nareas; i++) {
        a->area[i].pos += a->area[i].pos >= start ? n : 0;
    }
}

/* NameString, §20.2.2: "\\_SB.PCI0", "^FOO", "ABC" (padded with '_'). */
static void name_string(struct aml *a, const char *path)
{
    const char *p = path;
    while (*p == '\\' || *p == '^') {
        put8(a, (unsigned char)*p++);
    }
    unsigned segs = *p != '\0' ? 1 : 0;
    for (const char *q = p; *q != '\0'; q++) {
        segs += *q == '.' ? 1 : 0;
    }
    assert(segs < 256);
    if (segs == 0) {
        put8(a, 0x00);
    } else if (segs == 2) {
        put8(a, 0x2e);
    } else if (segs > 2) {
        put8(a, 0x2f);
        put8(a, segs);
    }
    while (segs-- > 0) {
        char seg[4] = { '_', '_', '_', '_' };
        unsigned n = 0;
        for (; *p != '\0' && *p != '.'; p++) {
            assert(n < 4 && (isupper((unsigned char)*p) || *p == '_' ||
                             (n > 0 && isdigit((unsigned char)*p))));
            seg[n++] = *p;
        }
        assert(n > 0);
        put(a, seg, sizeof(seg));
        p += *p == '.' ? 1 : 0;
    }
}

void aml_scope(struct aml *a, const char *path)
{
    put8(a, 0x10);
    begin(a);
    name_string(a, path);
}

void aml_device(struct aml *a, const char *path)
{
    put8(a, 0x5b);
    put8(a, 0x82);
    begin(a);
    name_string(a, path);
}

void aml_method(struct aml *a, const char *path, unsigned nargs, bool serialized)
{
    assert(nargs <= 7);
    put8(a, 0x14);
    begin(a);
    name_string(a, path);
    put8(a, nargs | (serialized ? 0x08 : 0));
}

void aml_package(struct aml *a, uint8_t count)
{
    put8(a, 0x12);
    begin(a);
    put8(a, count);
}

void aml_if(struct aml *a)
{
    put8(a, 0xa0);
    begin(a);
}

void aml_else(struct aml *a)
{
    put8(a, 0xa1);
    begin(a);
}

void aml_field(struct aml *a, const char *region, unsigned access)
{
    put8(a, 0x5b);
    put8(a, 0x81);
    begin(a);
    name_string(a, region);
    put8(a, access);
}

void aml_field_unit(struct aml *a, const char *name, uint32_t bits)
{
    uint8_t length[4];
    assert(strlen(name) == 4);
    put(a, name, 4);
    put(a, length, encode_length(length, bits, false));
}

void aml_field_skip(struct aml *a, uint32_t bits)
{
    uint8_t length[4];
    put8(a, 0x00);
    put(a, length, encode_length(length, bits, false));
}

void aml_op(struct aml *a, enum aml_opcode op)
{
    put8(a, op);
}

void aml_name(struct aml *a, const char *path)
{
    put8(a, 0x08);
    name_string(a, path);
}

void aml_path(struct aml *a, const char *path)
{
    name_string(a, path);
}

void aml_int(struct aml *a, uint64_t value)
{
    if (value <= 1) {
        put8(a, (unsigned)value); /* ZeroOp, OneOp */
    } else if (value <= UINT8_MAX) {
        put8(a, 0x0a);
        put_le(a, value, 1);
    } else if (value <= UINT16_MAX) {
        put8(a, 0x0b);
        put_le(a, value, 2);
    } else if (value <= UINT32_MAX) {
        put8(a, 0x0c);
        put_le(a, value, 4);
    } else {
        put8(a, 0x0e);
        put_le(a, value, 8);
    }
}

void aml_str(struct aml *a, const char *s)
{
    put8(a, 0x0d);
    put(a, s, strlen(s) + 1);
}

void aml_bytes(struct aml *a, const void *buf, size_t len)
{
    put8(a, 0x11);
    begin(a);
    aml_int(a, len);
    put(a, buf, len);
    aml_end(a);
}

/* §19.3.4 EISAID(): three letters of 5 bits and four hex digits, big-endian in a DWord. */
void aml_eisaid(struct aml *a, const char *id)
{
    assert(strlen(id) == 7);
    uint32_t v = 0;
    for (unsigned i = 0; i < 3; i++) {
        assert(isupper((unsigned char)id[i]));
        v = v << 5 | (uint32_t)(id[i] - 0x40);
    }
    char *end;
    v = v << 16 | (uint32_t)strtoul(id + 3, &end, 16);
    assert(*end == '\0');
    uint8_t be[4];
    be32_put(be, v);
    put8(a, 0x0c);
    put(a, be, sizeof(be));
}

/* §19.6.142 ToUUID(): the first three groups are little-endian. */
void aml_uuid(struct aml *a, const char *uuid)
{
    static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
    uint8_t bytes[16];
    const char *p = uuid;
    for (unsigned i = 0; i < 16; i++) {
        p += *p == '-' ? 1 : 0;
        assert(isxdigit((unsigned char)p[0]) && isxdigit((unsigned char)p[1]));
        char digits[3] = { p[0], p[1], '\0' };
        bytes[order[i]] = (uint8_t)strtoul(digits, NULL, 16);
        p += 2;
    }
    assert(*p == '\0');
    aml_bytes(a, bytes, sizeof(bytes));
}

void aml_arg(struct aml *a, unsigned n)
{
    assert(n <= 6);
    put8(a, 0x68 + n);
}

void aml_local(struct aml *a, unsigned n)
{
    assert(n <= 7);
    put8(a, 0x60 + n);
}

void aml_region(struct aml *a, const char *name, uint8_t space, uint64_t offset, uint64_t len)
{
    put8(a, 0x5b);
    put8(a, 0x80);
    name_string(a, name);
    put8(a, space);
    aml_int(a, offset);
    aml_int(a, len);
}

void aml_res_begin(struct aml *a)
{
    assert(!a->in_res);
    a->in_res = true;
    a->res_len = 0;
}

static uint8_t *res(struct aml *a, size_t len)
{
    assert(a->in_res && len <= RES_MAX - a->res_len);
    uint8_t *p = a->res + a->res_len;
    a->res_len += len;
    memset(p, 0, len);
    return p;
}

/* §6.4.2.5 */
void aml_res_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t len)
{
    uint8_t *p = res(a, 8);
    p[0] = 0x47;
    p[1] = 1; /* decodes 16 bits */
    le16_put(p + 2, min);
    le16_put(p + 4, max);
    p[6] = align;
    p[7] = len;
}

/* §6.4.2.1 without flags */
void aml_res_irq(struct aml *a, unsigned irq)
{
    assert(irq < 16);
    uint8_t *p = res(a, 3);
    p[0] = 0x22;
    le16_put(p + 1, (uint16_t)(1u << irq));
}

/* §6.4.3.4 */
void aml_res_mem32(struct aml *a, uint32_t base, uint32_t len)
{
    uint8_t *p = res(a, 12);
    p[0] = 0x86;
    le16_put(p + 1, 9);
    p[3] = 1; /* writable */
    le32_put(p + 4, base);
    le32_put(p + 8, len);
}

/* §6.4.3.5: address space descriptors of 2, 4 or 8 byte fields; producer, fixed ends. */
static void res_window(struct aml *a, uint8_t tag, unsigned width, uint8_t type, uint8_t type_flags,
                       uint64_t min, uint64_t max)
{
    uint64_t field[5] = { 0, min, max, 0, max - min + 1 };
    uint8_t *p = res(a, 6 + 5 * width);
    p[0] = tag;
    le16_put(p + 1, (uint16_t)(3 + 5 * width));
    p[3] = type;
    p[4] = 0x0c;
    p[5] = type_flags;
    for (unsigned i = 0; i < 5; i++) {
        uint8_t le[8];
        le64_put(le, field[i]);
        memcpy(p + 6 + i * width, le, width);
    }
}

void aml_res_bus_window(struct aml *a, uint16_t min, uint16_t max)
{
    res_window(a, 0x88, 2, 2, 0, min, max);
}

void aml_res_io_window(struct aml *a, uint16_t min, uint16_t max)
{
    res_window(a, 0x88, 2, 1, 3, min, max);
}

void aml_res_mem_window(struct aml *a, uint64_t min, uint64_t max)
{
    if (max <= UINT32_MAX) {
        res_window(a, 0x87, 4, 0, 1, min, max);
    } else {
        res_window(a, 0x8a, 8, 0, 1, min, max);
    }
}

void aml_res_end(struct aml *a)
{
    uint8_t *p = res(a, 2);
    p[0] = 0x79; /* checksum 0: "as if it were right", §6.4.2.9 */
    a->in_res = false;
    aml_bytes(a, a->res, a->res_len);
}

void aml_area(struct aml *a, const struct aml_area *area)
{
    assert(a->nareas < AML_MAX_AREAS && area->size <= AML_AREA_MAX);
    put8(a, 0x0e);
    a->area[a->nareas].area = area;
    a->area[a->nareas].pos = a->len;
    a->nareas++;
    put_le(a, 0, 8);
}

const struct aml_area *aml_area_at(const struct aml *a, unsigned i, size_t *ret_pos)
{
    if (i >= a->nareas) {
        return NULL;
    }
    *ret_pos = a->area[i].pos;
    return a->area[i].area;
}
