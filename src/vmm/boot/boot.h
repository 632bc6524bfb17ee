/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Direct boot: puts a kernel, its initrd, command line and memory map into guest RAM without
 * firmware, and says with which registers the first CPU starts.
 *
 *     struct boot_file kernel, initrd;
 *     boot_file_open(path, &kernel, &err);
 *     struct boot_req req = { .mem = mem, .layout = &layout, .kernel = &kernel, ... };
 *     struct boot_state state;
 *     boot_load(&req, &state, &err);
 *
 * Loaders are rows of boots.def and are chosen by the file's content, in this order: bzImage
 * (64-bit entry, else 32-bit), ELF with a PVH note, multiboot 1. All files are hostile. Where the
 * structures lie is in layout.h; kernels lie from 1 MiB on, the initrd as high as it may below 4
 * GiB.
 */
#ifndef BOOT_BOOT_H
#define BOOT_BOOT_H

#include "base/bits.h"
#include "base/err.h"
#include "vmm/boot_state.h"
#include "vmm/layout.h"
#include "vmm/mem/gmem.h"

#define BOOT_MAX_MAP  8
#define BOOT_SEED_LEN 32

/* An open regular file. `name` is for messages (not owned). */
struct boot_file {
    int fd;
    const char *name;
    uint64_t size;
};

struct boot_range {
    uint64_t base;
    uint64_t size;
    uint32_t type; /* BOOT_E820_* */
};

struct boot_req {
    struct gmem *mem;
    const struct layout *layout;
    const struct boot_file *kernel;
    const struct boot_file *initrd; /* NULL = none */
    const char *cmdline;            /* NULL = empty */
    uint64_t rsdp;                  /* guest address of the RSDP; 0 = none */
    uint8_t seed[BOOT_SEED_LEN];    /* random bytes for the guest's generator */
};

/* Opens `path` read-only for booting. 0; a negative errno with a text that says what is wrong: no
 * such file, a directory, not a regular file, empty. Close with boot_file_close(). */
MUST_USE int boot_file_open(const char *path, struct boot_file *ret_file, struct err *err);
void boot_file_close(struct boot_file *file); /* accepts one that was never opened: fd -1 */

/* Loads. 0 and *ret_state; else -EINVAL (not a kernel, broken file, command line too long),
 * -ENOSPC (RAM too small; sizes in the text), or the errno of a failed read. Any thread while no
 * vCPU runs; blocks on file reads. Linux boot protocol 2.15, PVH, Multiboot 0.6.96. */
MUST_USE int boot_load(const struct boot_req *req, struct boot_state *ret_state, struct err *err);

/* The memory map that loaders report, sorted. Returns the number of entries. */
unsigned boot_map(const struct boot_req *req, struct boot_range map[BOOT_MAX_MAP]);

#endif
