/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/agent_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct err err = ERR_INIT;
    struct agent_wire_run run;
    if (len <= AGENT_WIRE_MAX && agent_wire_decode_run(data, (uint32_t)len, &run, &err) == 0) {
        agent_wire_free_run(&run);
    }
    return 0;
}
