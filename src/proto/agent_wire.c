/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RUN is: count of mounts (4 bytes), count of arguments (4 bytes), then strings, each ended by a 0:
 * the folder, the mounts, the arguments. Nothing behind them.
 */
#include "proto/agent_wire.h"

#include <errno.h>
#include <stdlib.h>

void agent_wire_put_header(uint8_t out[AGENT_WIRE_HEADER], enum agent_wire_type type, uint32_t len)
{
    memset(out, 0, AGENT_WIRE_HEADER);
    out[0] = (uint8_t)type;
    le32_put(out + 4, len);
}

int agent_wire_get_header(const uint8_t in[AGENT_WIRE_HEADER], unsigned *ret_type,
                          uint32_t *ret_len, struct err *err)
{
    uint32_t len = le32_get(in + 4);
    if (in[1] != 0 || in[2] != 0 || in[3] != 0 || len > AGENT_WIRE_MAX) {
        return err_set(err, -EPROTO, "the agent's connection has bytes that are no frame");
    }
    *ret_type = in[0];
    *ret_len = len;
    return 0;
}

static size_t agent_wire_size(const char *const *list, uint32_t *count)
{
    size_t size = 0;
    *count = 0;
    for (; list != NULL && list[*count] != NULL; (*count)++) {
        size += strlen(list[*count]) + 1;
    }
    return size;
}

static uint8_t *agent_wire_put(uint8_t *p, const char *text)
{
    size_t len = strlen(text) + 1;
    memcpy(p, text, len);
    return p + len;
}

int agent_wire_encode_run(const struct agent_wire_run *run, uint8_t **ret_data, uint32_t *ret_len,
                          struct err *err)
{
    uint32_t nmounts;
    uint32_t nargs;
    size_t size = 8 + strlen(run->dir) + 1 + agent_wire_size(run->mounts, &nmounts) +
                  agent_wire_size(run->argv, &nargs);
    if (size > AGENT_WIRE_MAX || nmounts > AGENT_WIRE_STRINGS || nargs > AGENT_WIRE_STRINGS) {
        return err_set(err, -E2BIG, "the command line is too long: %d bytes and %d words at most",
                       AGENT_WIRE_MAX, AGENT_WIRE_STRINGS);
    }
    uint8_t *data = malloc(size);
    if (data == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    le32_put(data, nmounts);
    le32_put(data + 4, nargs);
    uint8_t *p = agent_wire_put(data + 8, run->dir);
    for (uint32_t i = 0; i < nmounts; i++) {
        p = agent_wire_put(p, run->mounts[i]);
    }
    for (uint32_t i = 0; i < nargs; i++) {
        p = agent_wire_put(p, run->argv[i]);
    }
    *ret_data = data;
    *ret_len = (uint32_t)size;
    return 0;
}

/* `count` strings from *p into a new list; NULL when they are not there. */
static const char **agent_wire_take(const uint8_t **p, const uint8_t *end, uint32_t count)
{
    const char **list = calloc((size_t)count + 1, sizeof(*list));
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        const uint8_t *stop = memchr(*p, 0, (size_t)(end - *p));
        if (stop == NULL) {
            free(list);
            return NULL;
        }
        list[i] = (const char *)*p;
        *p = stop + 1;
    }
    return list;
}

int agent_wire_decode_run(const uint8_t *data, uint32_t len, struct agent_wire_run *ret_run,
                          struct err *err)
{
    const uint8_t *p = data + 8;
    const uint8_t *end = data + len;
    if (len > 8 && le32_get(data) % 2 == 0 && le32_get(data) <= AGENT_WIRE_STRINGS &&
        le32_get(data + 4) >= 1 && le32_get(data + 4) <= AGENT_WIRE_STRINGS) {
        const char **dir = agent_wire_take(&p, end, 1);
        const char **mounts = dir != NULL ? agent_wire_take(&p, end, le32_get(data)) : NULL;
        const char **argv = mounts != NULL ? agent_wire_take(&p, end, le32_get(data + 4)) : NULL;
        *ret_run = (struct agent_wire_run){ .mounts = mounts,
                                            .argv = argv,
                                            .dir = dir != NULL ? dir[0] : "" };
        free(dir);
        if (argv != NULL && p == end) {
            return 0;
        }
        agent_wire_free_run(ret_run);
    }
    return err_set(err, -EPROTO, "the agent got a command that is not well-formed");
}

void agent_wire_free_run(struct agent_wire_run *run)
{
    free((void *)(uintptr_t)run->mounts);
    free((void *)(uintptr_t)run->argv);
    *run = (struct agent_wire_run){ 0 };
}
