/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What `posada run` and the agent in an image say to each other (docs/agent.md): frames over one
 * vsock stream a command. A frame is a type (1 byte), three zero bytes, the length of what follows
 * (4 bytes, little-endian), and that.
 *
 *     host                               guest
 *     RUN mounts, folder, arguments ->
 *     INPUT bytes ... END_OF_INPUT  ->   standard input
 *     SIGNAL number                 ->   to the command's session
 *                                   <-   OUTPUT bytes, ERRORS bytes ...
 *                                   <-   EXIT code, the last frame; or FAILED text
 *
 * No static state; any thread.
 */
#ifndef PROTO_AGENT_WIRE_H
#define PROTO_AGENT_WIRE_H

#include "base/bits.h"
#include "base/err.h"

#define AGENT_WIRE_PORT    5370 /* vsock port that the agent listens on */
#define AGENT_WIRE_HEADER  8
#define AGENT_WIRE_MAX     (256 * 1024) /* bytes of a frame after its header */
#define AGENT_WIRE_CHUNK   32768        /* of the streams: small beside the 64 KiB credit */
#define AGENT_WIRE_STRINGS 4096         /* arguments, mounts */

enum agent_wire_type {
    AGENT_WIRE_RUN = 1,
    AGENT_WIRE_INPUT,
    AGENT_WIRE_END_OF_INPUT,
    AGENT_WIRE_SIGNAL, /* 4 bytes */
    AGENT_WIRE_OUTPUT = 16,
    AGENT_WIRE_ERRORS,
    AGENT_WIRE_EXIT,   /* 4 bytes: the code, 128 + N for signal N */
    AGENT_WIRE_FAILED, /* text: the command could not be run; then EXIT */
};

void agent_wire_put_header(uint8_t out[AGENT_WIRE_HEADER], enum agent_wire_type type, uint32_t len);
/* -EPROTO: no frame of ours. */
MUST_USE int agent_wire_get_header(const uint8_t in[AGENT_WIRE_HEADER], unsigned *ret_type,
                                   uint32_t *ret_len, struct err *err);

/* The payload of RUN. Strings are inside of the decoded payload, or the caller's when encoding. */
struct agent_wire_run {
    const char *const *mounts; /* "TAG", "PATH", "TAG", "PATH", ... NULL-terminated */
    const char *const *argv;   /* NULL-terminated, at least one */
    const char *dir;           /* where it runs; "" = the user's home */
};

/* Encodes; malloc()ed. -E2BIG: more than AGENT_WIRE_MAX. */
MUST_USE int agent_wire_encode_run(const struct agent_wire_run *run, uint8_t **ret_data,
                                   uint32_t *ret_len, struct err *err);
/* Decodes `data`; the lists are freed with agent_wire_free_run(). -EPROTO. */
MUST_USE int agent_wire_decode_run(const uint8_t *data, uint32_t len,
                                   struct agent_wire_run *ret_run, struct err *err);
void agent_wire_free_run(struct agent_wire_run *run);

#endif
