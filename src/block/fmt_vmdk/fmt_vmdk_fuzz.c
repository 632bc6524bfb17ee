/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A sparse image, a stream-optimised one, and a descriptor. */
#include "block/blk_place_fuzz.h"

static const char text[] =
    "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
    "createType=\"twoGbMaxExtentSparse\"\nRW 4192256 SPARSE \"a-s001.vmdk\"\n"
    "RW 8 FLAT \"a-f002.vmdk\" 16\nRDONLY 16 ZERO\nddb.x = \"1\"\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const stream[] = { "subformat=streamOptimized", NULL };
    static struct qcow2_memfile bases[4];
    struct err err = ERR_INIT;
    if (bases[0].data == NULL) {
        if (fake_create(&bases[0], &fmt_vmdk_class, 34 * MIB, NULL, &err) < 0 ||
            fake_create(&bases[1], &fmt_vmdk_class, 34 * MIB, stream, &err) < 0) {
            abort();
        }
        bases[2] = bases[3] =
            (struct qcow2_memfile){ .data = (uint8_t *)(uintptr_t)text, .size = sizeof(text) - 1 };
    }
    if (size > 0) {
        fuzz_run(&bases[data[0] >> 6], &fmt_vmdk_class, true, NULL, data, size);
    }
    return 0;
}
