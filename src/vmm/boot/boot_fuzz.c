/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: a hostile kernel file. The input is the file; with the last byte odd there is an
 * initrd of up to 64 KiB as well.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/boot/boot.h"

#define RAM_SIZE (32 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t *ram;
    static struct gmem *mem;
    static int fd[2];
    struct err err = ERR_INIT;
    struct layout layout;
    struct boot_state state;

    if (len == 0) {
        return 0;
    }
    if (mem == NULL) {
        ram = malloc(RAM_SIZE); /* malloc: the sanitizer guards both ends */
        mem = gmem_new();
        fd[0] = memfd_create("kernel", 0);
        fd[1] = memfd_create("initrd", 0);
        if (ram == NULL || mem == NULL || gmem_add(mem, GPA(0), RAM_SIZE, ram, true) < 0) {
            abort();
        }
    }
    if (layout_init(&layout, RAM_SIZE, 40, &err) < 0 || ftruncate(fd[0], 0) < 0 ||
        pwrite(fd[0], data, len, 0) != (ssize_t)len) {
        abort();
    }
    struct boot_file kernel = { .fd = fd[0], .name = "kernel", .size = len };
    struct boot_file initrd = { .fd = fd[1], .name = "initrd", .size = data[len - 1] * 256u + 1 };
    if (ftruncate(fd[1], (off_t)initrd.size) < 0) {
        abort();
    }
    struct boot_req req = { .mem = mem,
                            .layout = &layout,
                            .kernel = &kernel,
                            .initrd = data[len - 1] % 2 != 0 ? &initrd : NULL,
                            .cmdline = "quiet",
                            .rsdp = LAYOUT_RSDP };
    int rc = boot_load(&req, &state, &err);
    /* What is accepted starts inside RAM, and what is refused says why. */
    if (rc == 0 ? state.entry < LAYOUT_KERNEL_MIN || state.entry >= RAM_SIZE + 0x200
                : err.msg[0] == '\0' || err.code != rc) {
        abort();
    }
    return 0;
}
