/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_place_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct qcow2_memfile base;
    struct err err = ERR_INIT;
    if (base.data == NULL && fake_vhdx(&base, &err) < 0) {
        abort();
    }
    fuzz_run(&base, &fmt_vhdx_class, true, fake_vhdx_sums, data, size);
    return 0;
}
