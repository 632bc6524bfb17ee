/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A stream of frames from a hostile peer. What decodes must encode to the same bytes. */
#include <stdlib.h>

#include "proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wire_msg msg;
    static uint8_t again[WIRE_HEADER_SIZE + WIRE_REPLY_MAX];
    while (size > 0) {
        int n = wire_decode(data, size, WIRE_REPLY_MAX, &msg);
        if (n <= 0) {
            return 0;
        }
        if ((size_t)n > size || wire_encode(&msg, again, sizeof(again)) != n ||
            memcmp(again, data, (size_t)n) != 0) {
            abort();
        }
        data += n;
        size -= (size_t)n;
    }
    return 0;
}
