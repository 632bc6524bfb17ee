/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_place_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const fixed[] = { "subformat=fixed", NULL };
    static struct qcow2_memfile bases[2];
    struct err err = ERR_INIT;
    if (bases[0].data == NULL &&
        (fake_vhd(&bases[0], &err) < 0 ||
         fake_create(&bases[1], &fmt_vhd_class, 64 * KIB, fixed, &err) < 0)) {
        abort();
    }
    if (size > 0) {
        fuzz_run(&bases[data[0] >> 7], &fmt_vhd_class, false, fake_vhd_sums, data, size);
    }
    return 0;
}
