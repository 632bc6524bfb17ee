/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the disk, over a raw file of 1 MiB in memory whose every 13th write finds no room
 * and every 17th read fails.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/blk.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_blk.h"
#include "vmm/virtio/virtio_fuzz.h"

#define DISK_SIZE (1 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void op(struct virtio_harness *vh, uint8_t which, uint32_t value)
{
    struct virtio_blk_stats st;
    (void)value;
    if (which % 2 == 0) {
        virtio_blk_get_stats(vh->dev, &st);
    } else if (loop_run_once(vh->h.env.loop, 1) < 0) { /* gives the back end time to finish */
        abort();
    }
}

static void header(uint8_t *h, size_t len, uint8_t which, uint32_t value)
{
    static const uint32_t types[] = { VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_OUT,
                                      VIRTIO_BLK_T_FLUSH,   VIRTIO_BLK_T_GET_ID,
                                      VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };
    (void)len; /* much more than the 32 bytes written here */
    le32_put(h, which < 250 ? types[which % ARRAY_LEN(types)] : value);
    le64_put(h + 8, value % 4 == 0 ? UINT64_MAX / (value + 1) : value % (DISK_SIZE / 512 + 4));
    le64_put(h + 16, value >> 16);
    le32_put(h + 24, value & 0xfff);
    le32_put(h + 28, which >> 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const filters[] = { "fault:write.13=ENOSPC,read.17=EIO", NULL };
    static char path[64];
    struct err err = ERR_INIT;
    struct blk *blk;
    if (path[0] == '\0') {
        int fd = memfd_create("disk", 0);
        if (fd < 0 || ftruncate(fd, DISK_SIZE) < 0) {
            abort();
        }
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    bool faults = len > 0 && (data[len - 1] & 1) != 0;
    const struct blk_opts opts = { .path = path,
                                   .format = "raw",
                                   .filters = faults ? filters : NULL };
    if (blk_open(&opts, &blk, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    const struct virtio_blk_params params = { .blk = blk, .num_queues = 2, .serial = "fuzz" };
    const struct virtio_fuzz_target target = {
        .cls = &virtio_blk_class, .params = &params, .op = op, .header = header
    };
    virtio_fuzz_run(&target, data, len);
    blk_close(blk);
    return 0;
}
