/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libFuzzer target: any bytes as the headers of an archive, and as its descriptor. */
#include <stdio.h>

#include "base/log.h"
#include "block/fmt_qcow2/qcow2_memfile.h"
#include "block/ova/ova_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The checksums of the headers are made right, since no fuzzer finds them. */
static void mend(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + OVA_BLOCK <= size; at += OVA_BLOCK) {
        uint8_t *h = data + at;
        uint32_t sum = 0;
        if (memcmp(h + 257, "ustar", 5) != 0) {
            continue;
        }
        memset(h + 148, ' ', 8);
        for (unsigned i = 0; i < OVA_BLOCK; i++) {
            sum += h[i];
        }
        (void)snprintf((char *)h + 148, 8, "%06o", sum);
    }
}

static void fuzz_tar(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    struct blk_opts opts = { .path = "memory", .read_only = true };
    struct qcow2_memfile m = { .data = malloc(size + 1), .size = size };
    struct ova_tar *tar = calloc(1, sizeof(*tar));
    struct blk *file = NULL;
    if (m.data == NULL || tar == NULL || qcow2_memfile_node(&m, &opts, &file, &err) < 0) {
        abort();
    }
    memcpy(m.data, data, size);
    mend(m.data, size);
    if (ova_tar_read(file, tar, &err) == 0) {
        for (unsigned i = 0; i < tar->count; i++) {
            const struct ova_member *t = &tar->members[i];
            if (t->offset > size || t->size > size - t->offset || ova_tar_find(tar, t->name) != t) {
                abort();
            }
        }
    }
    blk_close(file);
    free(tar);
    free(m.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    struct ova_info info;
    if (size < 1 || size > MIB) {
        return 0;
    }
    log_set_level(LOG_ERROR);
    if ((data[0] & 1) != 0) {
        fuzz_tar(data + 1, size - 1);
    } else if (ova_ovf_parse((const char *)data + 1, size - 1, &info, &err) == 0) {
        ova_ovf_done(&info);
    }
    return 0;
}
