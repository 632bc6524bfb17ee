/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Multiboot 1 kernels (specification 0.6.96): ELF, or any file with the address fields ("a.out
 * kludge"). 32-bit protected mode, paging off, EAX = magic, EBX = information. The initrd is the
 * one module.
 *
 *     LAYOUT_MB_INFO: | boot_mb_info | module | loader name | memory map | ... module string |
 */
#include <errno.h>
#include <inttypes.h>

#include "spec/boot_defs.h"
#include "vmm/boot/boot_int.h"

#define INFO_MODULE    (LAYOUT_MB_INFO + 0x80)
#define INFO_NAME      (LAYOUT_MB_INFO + 0x90)
#define INFO_MAP       (LAYOUT_MB_INFO + 0x100)
#define INFO_STRING    (LAYOUT_MB_INFO + 0x800)
#define INFO_STRING_SZ 0x400
#define LOADER_NAME    "posada"

_Static_assert(0x100 + BOOT_MAX_MAP * BOOT_MB_MMAP_ENTRY <= 0x800,
               "the map ends before the string");

/* The header in the first 8 KiB, 4-byte aligned, with a right checksum. */
static bool find_header(const uint8_t *head, size_t len, struct boot_mb_header *ret_hdr,
                        uint64_t *ret_offset)
{
    for (size_t i = 0; i + 12 <= len; i += 4) {
        if (le32_get(head + i) != BOOT_MB_HEADER_MAGIC ||
            le32_get(head + i) + le32_get(head + i + 4) + le32_get(head + i + 8) != 0) {
            continue;
        }
        struct boot_mb_header hdr = { 0 };
        memcpy(&hdr, head + i, MIN(sizeof(hdr), len - i));
        if ((hdr.flags & BOOT_MB_F_ADDRESSES) != 0 && i + sizeof(hdr) > len) {
            continue;
        }
        *ret_hdr = hdr;
        *ret_offset = i;
        return true;
    }
    return false;
}

static bool probe(const struct boot_req *req, const uint8_t *head, size_t len)
{
    struct boot_mb_header hdr;
    uint64_t offset;
    (void)req;
    return find_header(head, len, &hdr, &offset);
}

/* Loading by the header's address fields (§3.1.3). */
static int load_by_addresses(const struct boot_req *req, const struct boot_mb_header *h,
                             uint64_t offset, uint64_t *ret_end, struct err *err)
{
    const struct boot_file *k = req->kernel;
    if (h->load_addr > h->header_addr || h->header_addr - h->load_addr > offset) {
        return err_set(
            err, -EINVAL,
            "the multiboot header of '%s' gives load address %#x, which is not before its"
            " own address %#x by at most its offset %" PRIu64,
            k->name, h->load_addr, h->header_addr, offset);
    }
    uint64_t from = offset - (h->header_addr - h->load_addr);
    uint64_t size = k->size - from;
    if (h->load_end_addr != 0) {
        if (h->load_end_addr < h->load_addr || h->load_end_addr - h->load_addr > size) {
            return err_set(err, -EINVAL,
                           "the multiboot header of '%s' asks for bytes up to address %#x; the file"
                           " ends at %#" PRIx64,
                           k->name, h->load_end_addr, h->load_addr + size);
        }
        size = h->load_end_addr - h->load_addr;
    }
    uint64_t end = h->load_addr + size;
    uint64_t bss_end = h->bss_end_addr != 0 ? h->bss_end_addr : end;
    if (bss_end < end) {
        return err_set(err, -EINVAL,
                       "the multiboot header of '%s' ends its bss at %#x, inside the"
                       " loaded part",
                       k->name, h->bss_end_addr);
    }
    int rc = boot_check_range(req, h->load_addr, bss_end - h->load_addr, "the kernel", err);
    if (rc == 0) {
        rc = boot_copy(req, k, from, GPA(h->load_addr), size, err);
    }
    if (rc == 0 && gmem_fill(req->mem, GPA(end), 0, bss_end - end) < 0) {
        rc = err_set(err, -EFAULT, "the bss of '%s' lies outside RAM", k->name);
    }
    *ret_end = bss_end;
    return rc;
}

/* An ELF's entry is a virtual address when the segments' two addresses differ; multiboot starts
 * without paging, so it is translated through the segment that holds it. */
static int elf_entry(const struct boot_req *req, const struct boot_elf *elf, uint64_t *ret_entry,
                     struct err *err)
{
    for (unsigned i = 0; i < elf->phnum; i++) {
        struct boot_elf_seg seg;
        int rc = boot_elf_seg(req->kernel, elf, i, &seg, err);
        if (rc < 0) {
            return rc;
        }
        if (seg.type == 1 && elf->entry >= seg.vaddr && elf->entry - seg.vaddr < seg.memsz) {
            *ret_entry = elf->entry - seg.vaddr + seg.paddr;
            return 0;
        }
    }
    *ret_entry = elf->entry;
    return 0;
}

static int put_map(const struct boot_req *req, struct boot_mb_info *info, struct err *err)
{
    struct boot_range map[BOOT_MAX_MAP];
    unsigned n = boot_map(req, map);
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        uint8_t e[BOOT_MB_MMAP_ENTRY];
        le32_put(e, sizeof(e) - 4);
        le64_put(e + 4, map[i].base);
        le64_put(e + 12, map[i].size);
        le32_put(e + 20, map[i].type);
        rc = boot_put(req, INFO_MAP + i * sizeof(e), e, sizeof(e), err);
    }
    info->flags |= BOOT_MB_I_MMAP | BOOT_MB_I_MEMORY;
    info->mmap_addr = (uint32_t)INFO_MAP;
    info->mmap_length = n * BOOT_MB_MMAP_ENTRY;
    info->mem_lower = (uint32_t)(LAYOUT_CONV_RAM_END / KIB);
    info->mem_upper = (uint32_t)((req->layout->low_ram.end - MIB) / KIB);
    return rc;
}

static int put_module(const struct boot_req *req, uint64_t end, struct boot_mb_info *info,
                      struct err *err)
{
    uint64_t base;
    int rc = boot_put_initrd(req, end, 4 * GIB, &base, err);
    if (rc < 0) {
        return rc;
    }
    size_t len = strlen(req->initrd->name);
    const char *name = len < INFO_STRING_SZ ? req->initrd->name : "initrd";
    struct boot_mb_module m = { .start = (uint32_t)base,
                                .end = (uint32_t)(base + req->initrd->size),
                                .string = (uint32_t)INFO_STRING };
    info->flags |= BOOT_MB_I_MODS;
    info->mods_count = 1;
    info->mods_addr = (uint32_t)INFO_MODULE;
    rc = boot_put(req, INFO_MODULE, &m, sizeof(m), err);
    if (rc == 0) {
        rc = boot_put(req, INFO_STRING, name, strlen(name) + 1, err);
    }
    return rc;
}

static int put_info(const struct boot_req *req, uint64_t end, struct err *err)
{
    struct boot_mb_info info = {
        .flags = BOOT_MB_I_CMDLINE | BOOT_MB_I_LOADER_NAME,
        .cmdline = (uint32_t)LAYOUT_CMDLINE,
        .boot_loader_name = (uint32_t)INFO_NAME,
    };
    int rc = boot_put_cmdline(req, LAYOUT_CMDLINE_MAX - 1, err);
    if (rc == 0) {
        rc = boot_put(req, INFO_NAME, LOADER_NAME, sizeof(LOADER_NAME), err);
    }
    if (rc == 0) {
        rc = put_map(req, &info, err);
    }
    if (rc == 0 && req->initrd != NULL) {
        rc = put_module(req, end, &info, err);
    }
    if (rc == 0) {
        rc = boot_put(req, LAYOUT_MB_INFO, &info, sizeof(info), err);
    }
    return rc;
}

static int load_image(const struct boot_req *req, uint64_t *ret_entry, uint64_t *ret_end,
                      struct err *err)
{
    const struct boot_file *k = req->kernel;
    uint8_t head[BOOT_MB_SEARCH];
    size_t len = MIN(k->size, (uint64_t)sizeof(head));
    struct boot_mb_header hdr;
    uint64_t offset;
    int rc = boot_read(k, 0, head, len, err);
    if (rc < 0) {
        return rc;
    }
    if (!find_header(head, len, &hdr, &offset)) {
        return err_set(err, -EINVAL, "'%s' changed while it was read", k->name);
    }
    uint32_t unknown = hdr.flags & BOOT_MB_F_REQUIRED & ~(BOOT_MB_F_PAGE_ALIGN | BOOT_MB_F_MEMORY);
    if (unknown != 0) {
        return err_set(err, -EINVAL,
                       "the multiboot header of '%s' requires features %#x (0x4 is a video mode),"
                       " which are not provided",
                       k->name, unknown);
    }
    if ((hdr.flags & BOOT_MB_F_ADDRESSES) != 0) {
        *ret_entry = hdr.entry_addr;
        return load_by_addresses(req, &hdr, offset, ret_end, err);
    }
    if (!boot_elf_magic(head, len)) {
        return err_set(err, -EINVAL,
                       "'%s' has a multiboot header without addresses (flag bit 16) and"
                       " is no ELF file",
                       k->name);
    }
    struct boot_elf elf;
    rc = boot_elf_open(k, &elf, err);
    if (rc == 0) {
        rc = boot_elf_load(req, &elf, ret_end, err);
    }
    if (rc == 0) {
        rc = elf_entry(req, &elf, ret_entry, err);
    }
    return rc;
}

static int load(const struct boot_req *req, struct boot_state *state, struct err *err)
{
    uint64_t entry = 0, end = 0;
    int rc = load_image(req, &entry, &end, err);
    if (rc == 0) {
        rc = boot_check_range(req, entry, 1, "the entry point", err);
    }
    if (rc == 0) {
        rc = put_info(req, end, err);
    }
    if (rc < 0) {
        return rc;
    }
    state->mode = BOOT_MODE_PROT32;
    state->entry = entry;
    state->rax = BOOT_MB_LOADER_MAGIC;
    state->rbx = LAYOUT_MB_INFO;
    state->rsp = LAYOUT_BOOT_STACK;
    return boot_put_gdt(req, state->mode, err);
}

const struct boot_loader boot_multiboot_loader = {
    .name = "multiboot",
    .help = "multiboot 1 kernel, ELF or with address fields",
    .probe = probe,
    .load = load,
};
