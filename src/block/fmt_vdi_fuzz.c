/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_place_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct qcow2_memfile base;
    struct err err = ERR_INIT;
    if (base.data == NULL && fake_vdi(&base, &err) < 0) {
        abort();
    }
    fuzz_run(&base, &fmt_vdi_class, false, NULL, data, size);
    return 0;
}
