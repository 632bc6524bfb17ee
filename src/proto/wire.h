/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control protocol's messages: structs and their form on the wire, both made of messages.def.
 *
 * A frame (all little-endian):
 *
 *     0   u32 magic    WIRE_MAGIC
 *     4   u16 version  WIRE_VERSION
 *     6   u16 type     number of the message
 *     8   u32 serial   chosen by the client, repeated in the reply
 *     12  u32 length   of what follows, at most the receiver's limit
 *     16  fields
 *
 * A frame that breaks a rule makes the stream useless: the receiver closes it. No pointers, no
 * allocation, no state; any thread.
 */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include "base/bits.h"

#define WIRE_MAGIC       UINT32_C(0x31445350) /* "PSD1" */
#define WIRE_VERSION     1
#define WIRE_HEADER_SIZE 16u
#define WIRE_NAME_MAX    63u
#define WIRE_REQUEST_MAX 256u   /* payload that a server accepts */
#define WIRE_REPLY_MAX   65536u /* payload that a client accepts */

struct wire_pair {
    char name[WIRE_NAME_MAX + 1];
    uint64_t value;
};

/* Requests and replies without fields still are a struct, for the sake of the table. */
#define MESSAGE_BEGIN(stem, STEM, number) struct wire_##stem {
#define FIELD_U32(stem, m)                uint32_t m;
#define FIELD_U64(stem, m)                uint64_t m;
#define FIELD_STR(stem, m, max)           char m[(max) + 1];
#define FIELD_PAIRS(stem, m, max)                                                                  \
    uint32_t m##_count;                                                                            \
    struct wire_pair m[max];
#define MESSAGE_END(stem)                                                                          \
    }                                                                                              \
    ;
#include "proto/messages.def"

enum wire_type {
#define MESSAGE_BEGIN(stem, STEM, number) WIRE_##STEM = (number),
#define FIELD_U32(stem, m)
#define FIELD_U64(stem, m)
#define FIELD_STR(stem, m, max)
#define FIELD_PAIRS(stem, m, max)
#define MESSAGE_END(stem)
#include "proto/messages.def"
};

struct wire_msg {
    uint16_t type;
    uint32_t serial;
    union {
#define MESSAGE_BEGIN(stem, STEM, number) struct wire_##stem stem;
#define FIELD_U32(stem, m)
#define FIELD_U64(stem, m)
#define FIELD_STR(stem, m, max)
#define FIELD_PAIRS(stem, m, max)
#define MESSAGE_END(stem)
#include "proto/messages.def"
    };
};

/* The frame of `msg` into `buf`. Its length; -ENOSPC when `cap` is too small; -EINVAL for an
 * unknown type or a count above its limit. */
MUST_USE int wire_encode(const struct wire_msg *msg, uint8_t *buf, size_t cap);

/* Reads one frame from the `len` bytes at `buf`. Its length; 0: more bytes are needed; -EPROTO:
 * no frame of this protocol; -EPROTONOSUPPORT: another version; -EMSGSIZE: longer than
 * `max_payload`; -ENOMSG: type unknown (msg->serial is valid). */
MUST_USE int wire_decode(const uint8_t *buf, size_t len, uint32_t max_payload,
                         struct wire_msg *msg);

/* "status" for WIRE_STATUS; NULL for an unknown type. */
const char *wire_type_name(uint16_t type);

#endif
