/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared by the boot loaders: placement, copying from files, ELF segments.
 */
#ifndef BOOT_BOOT_INT_H
#define BOOT_BOOT_INT_H

#include "vmm/boot/boot.h"

struct boot_loader {
    const char *name;
    const char *help;
    /* Whether the file is of this kind. `head` is its first `len` bytes (at most 8 KiB). True
     * also for a broken one of this kind: load() then says what is wrong. */
    bool (*probe)(const struct boot_req *req, const uint8_t *head, size_t len);
    int (*load)(const struct boot_req *req, struct boot_state *state, struct err *err);
};

#define BOOT(stem) extern const struct boot_loader boot_##stem##_loader;
#include "vmm/boot/boots.def"
#undef BOOT

/* Reads exactly `len` bytes at `offset` of the file; a short file is -EINVAL "truncated". */
MUST_USE int boot_read(const struct boot_file *file, uint64_t offset, void *buf, size_t len,
                       struct err *err);
/* The same into guest RAM. -EFAULT when the target is not RAM. */
MUST_USE int boot_copy(const struct boot_req *req, const struct boot_file *file, uint64_t offset,
                       gpa_t gpa, uint64_t len, struct err *err);
MUST_USE int boot_put(const struct boot_req *req, uint64_t gpa, const void *buf, size_t len,
                      struct err *err);
/* Writes the command line at LAYOUT_CMDLINE; `max` characters are what the kernel takes. */
MUST_USE int boot_put_cmdline(const struct boot_req *req, uint64_t max, struct err *err);
/* Puts the initrd as high as it fits under `limit` (exclusive) and RAM's end, above `floor`, page
 * aligned. Only with req->initrd. *ret_base. */
MUST_USE int boot_put_initrd(const struct boot_req *req, uint64_t floor, uint64_t limit,
                             uint64_t *ret_base, struct err *err);
/* The GDT of layout.h: flat code (64-bit in BOOT_MODE_LONG64) and data segments, a TSS. */
MUST_USE int boot_put_gdt(const struct boot_req *req, enum boot_mode mode, struct err *err);
/* -ENOSPC with sizes unless [base, base+size) lies in low RAM from 1 MiB on. */
MUST_USE int boot_check_range(const struct boot_req *req, uint64_t base, uint64_t size,
                              const char *what, struct err *err);

/* What an ELF file of 32 or 64 bits says. */
struct boot_elf {
    bool is64;
    uint64_t entry;
    uint64_t phoff;
    uint16_t phnum;
};

struct boot_elf_seg {
    uint32_t type;
    uint64_t offset;
    uint64_t paddr;
    uint64_t vaddr;
    uint64_t filesz;
    uint64_t memsz;
    uint64_t align;
};

bool boot_elf_magic(const uint8_t *head, size_t len);
MUST_USE int boot_elf_open(const struct boot_file *file, struct boot_elf *ret_elf, struct err *err);
MUST_USE int boot_elf_seg(const struct boot_file *file, const struct boot_elf *elf, unsigned i,
                          struct boot_elf_seg *ret_seg, struct err *err);
/* Loads the PT_LOAD segments at their physical addresses; *ret_end is the end of the highest. */
MUST_USE int boot_elf_load(const struct boot_req *req, const struct boot_elf *elf,
                           uint64_t *ret_end, struct err *err);
/* The PVH entry point. 1 found, 0 none, negative errno. */
MUST_USE int boot_elf_pvh_entry(const struct boot_file *file, uint64_t *ret_entry, struct err *err);

#endif
