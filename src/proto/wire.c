/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/wire.h"

#include <errno.h>

enum wire_kind {
    WIRE_END,
    WIRE_U32,
    WIRE_U64,
    WIRE_STR,
    WIRE_PAIRS,
};

struct wire_field {
    enum wire_kind kind;
    size_t offset; /* in the message's struct; of the count for WIRE_PAIRS */
    size_t items;  /* WIRE_PAIRS: offset of the array */
    uint32_t max;
};

#define MESSAGE_BEGIN(stem, STEM, number) static const struct wire_field wire_##stem##_fields[] = {
#define FIELD_U32(stem, m)                { WIRE_U32, offsetof(struct wire_##stem, m), 0, 0 },
#define FIELD_U64(stem, m)                { WIRE_U64, offsetof(struct wire_##stem, m), 0, 0 },
#define FIELD_STR(stem, m, max)           { WIRE_STR, offsetof(struct wire_##stem, m), 0, max },
#define FIELD_PAIRS(stem, m, max)                                                                  \
    { WIRE_PAIRS, offsetof(struct wire_##stem, m##_count), offsetof(struct wire_##stem, m), max },
#define MESSAGE_END(stem)                                                                          \
    {                                                                                              \
        WIRE_END, 0, 0, 0                                                                          \
    }                                                                                              \
    }                                                                                              \
    ;
#include "proto/messages.def"

static const struct {
    uint16_t type;
    const char *name;
    const struct wire_field *fields;
} wire_messages[] = {
#define MESSAGE_BEGIN(stem, STEM, number) { number, #stem, wire_##stem##_fields },
#define FIELD_U32(stem, m)
#define FIELD_U64(stem, m)
#define FIELD_STR(stem, m, max)
#define FIELD_PAIRS(stem, m, max)
#define MESSAGE_END(stem)
#include "proto/messages.def"
};

static const struct wire_field *wire_fields(uint16_t type)
{
    for (size_t i = 0; i < ARRAY_LEN(wire_messages); i++) {
        if (wire_messages[i].type == type) {
            return wire_messages[i].fields;
        }
    }
    return NULL;
}

const char *wire_type_name(uint16_t type)
{
    for (size_t i = 0; i < ARRAY_LEN(wire_messages); i++) {
        if (wire_messages[i].type == type) {
            return wire_messages[i].name;
        }
    }
    return NULL;
}

/* Where the fields lie: the members of the anonymous union all begin there. */
static size_t wire_body_offset(void)
{
    return offsetof(struct wire_msg, status);
}

/* ---- Writing ---- */

struct wire_out {
    uint8_t *buf;
    size_t cap;
    size_t used;
    bool full;
};

static void wire_put(struct wire_out *o, const void *data, size_t len)
{
    if (o->full || len > o->cap - o->used) {
        o->full = true;
        return;
    }
    memcpy(o->buf + o->used, data, len);
    o->used += len;
}

static void wire_put_u32(struct wire_out *o, uint32_t v)
{
    uint8_t b[4];
    le32_put(b, v);
    wire_put(o, b, sizeof(b));
}

static void wire_put_u64(struct wire_out *o, uint64_t v)
{
    uint8_t b[8];
    le64_put(b, v);
    wire_put(o, b, sizeof(b));
}

static void wire_put_str(struct wire_out *o, const char *s, uint32_t max)
{
    uint32_t len = (uint32_t)strnlen(s, max);
    wire_put_u32(o, len);
    wire_put(o, s, len);
}

static int wire_put_field(struct wire_out *o, const struct wire_field *f, const char *body)
{
    uint32_t u32;
    uint64_t u64;
    switch (f->kind) {
    case WIRE_U32:
        memcpy(&u32, body + f->offset, sizeof(u32));
        wire_put_u32(o, u32);
        break;
    case WIRE_U64:
        memcpy(&u64, body + f->offset, sizeof(u64));
        wire_put_u64(o, u64);
        break;
    case WIRE_STR:
        wire_put_str(o, body + f->offset, f->max);
        break;
    case WIRE_PAIRS:
        memcpy(&u32, body + f->offset, sizeof(u32));
        if (u32 > f->max) {
            return -EINVAL;
        }
        wire_put_u32(o, u32);
        for (uint32_t i = 0; i < u32; i++) {
            struct wire_pair pair;
            memcpy(&pair, body + f->items + i * sizeof(pair), sizeof(pair));
            wire_put_str(o, pair.name, WIRE_NAME_MAX);
            wire_put_u64(o, pair.value);
        }
        break;
    case WIRE_END:
        break;
    }
    return 0;
}

int wire_encode(const struct wire_msg *msg, uint8_t *buf, size_t cap)
{
    const struct wire_field *f = wire_fields(msg->type);
    if (f == NULL) {
        return -EINVAL;
    }
    if (cap < WIRE_HEADER_SIZE) {
        return -ENOSPC;
    }
    struct wire_out o = { .buf = buf, .cap = cap, .used = WIRE_HEADER_SIZE };
    for (; f->kind != WIRE_END; f++) {
        int rc = wire_put_field(&o, f, (const char *)msg + wire_body_offset());
        if (rc < 0) {
            return rc;
        }
    }
    if (o.full) {
        return -ENOSPC;
    }
    le32_put(buf, WIRE_MAGIC);
    le16_put(buf + 4, WIRE_VERSION);
    le16_put(buf + 6, msg->type);
    le32_put(buf + 8, msg->serial);
    le32_put(buf + 12, (uint32_t)(o.used - WIRE_HEADER_SIZE));
    return (int)o.used;
}

/* ---- Reading ---- */

struct wire_in {
    const uint8_t *buf;
    size_t left;
    bool broken;
};

static const uint8_t *wire_get(struct wire_in *in, size_t len)
{
    if (in->broken || len > in->left) {
        in->broken = true;
        return NULL;
    }
    const uint8_t *p = in->buf;
    in->buf += len;
    in->left -= len;
    return p;
}

static uint32_t wire_get_u32(struct wire_in *in)
{
    const uint8_t *p = wire_get(in, 4);
    return p != NULL ? le32_get(p) : 0;
}

static uint64_t wire_get_u64(struct wire_in *in)
{
    const uint8_t *p = wire_get(in, 8);
    return p != NULL ? le64_get(p) : 0;
}

/* `dst` has max + 1 bytes. */
static void wire_get_str(struct wire_in *in, char *dst, uint32_t max)
{
    uint32_t len = wire_get_u32(in);
    const uint8_t *p = len <= max ? wire_get(in, len) : NULL;
    if (p == NULL || memchr(p, 0, len) != NULL) {
        in->broken = true;
        return;
    }
    memcpy(dst, p, len);
    dst[len] = '\0';
}

static void wire_get_field(struct wire_in *in, const struct wire_field *f, char *body)
{
    uint32_t u32;
    uint64_t u64;
    switch (f->kind) {
    case WIRE_U32:
        u32 = wire_get_u32(in);
        memcpy(body + f->offset, &u32, sizeof(u32));
        break;
    case WIRE_U64:
        u64 = wire_get_u64(in);
        memcpy(body + f->offset, &u64, sizeof(u64));
        break;
    case WIRE_STR:
        wire_get_str(in, body + f->offset, f->max);
        break;
    case WIRE_PAIRS:
        u32 = wire_get_u32(in);
        if (u32 > f->max) {
            in->broken = true;
            return;
        }
        memcpy(body + f->offset, &u32, sizeof(u32));
        for (uint32_t i = 0; i < u32 && !in->broken; i++) {
            struct wire_pair pair = { .value = 0 };
            wire_get_str(in, pair.name, WIRE_NAME_MAX);
            pair.value = wire_get_u64(in);
            memcpy(body + f->items + i * sizeof(pair), &pair, sizeof(pair));
        }
        break;
    case WIRE_END:
        break;
    }
}

int wire_decode(const uint8_t *buf, size_t len, uint32_t max_payload, struct wire_msg *msg)
{
    if (len < WIRE_HEADER_SIZE) {
        return 0;
    }
    if (le32_get(buf) != WIRE_MAGIC) {
        return -EPROTO;
    }
    if (le16_get(buf + 4) != WIRE_VERSION) {
        return -EPROTONOSUPPORT;
    }
    uint32_t payload = le32_get(buf + 12);
    if (payload > max_payload || payload > WIRE_REPLY_MAX) {
        return -EMSGSIZE;
    }
    if (len - WIRE_HEADER_SIZE < payload) {
        return 0;
    }
    msg->type = le16_get(buf + 6);
    msg->serial = le32_get(buf + 8);
    const struct wire_field *f = wire_fields(msg->type);
    if (f == NULL) {
        return -ENOMSG;
    }
    struct wire_in in = { .buf = buf + WIRE_HEADER_SIZE, .left = payload };
    for (; f->kind != WIRE_END; f++) {
        wire_get_field(&in, f, (char *)msg + wire_body_offset());
    }
    if (in.broken || in.left != 0) {
        return -EPROTO;
    }
    return (int)(WIRE_HEADER_SIZE + payload);
}
