/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the PVH and multiboot loaders need of ELF files (System V ABI, ELF-32 and ELF-64): program
 * headers, loading, Xen notes. Every number of the file is checked before use.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "spec/boot_defs.h"
#include "vmm/boot/boot_int.h"

#define MAX_PHNUM 128                  /* kernels have fewer than 10 */
#define MAX_NOTES (UINT64_C(64) * KIB) /* bytes of one PT_NOTE segment that we look at */

bool boot_elf_magic(const uint8_t *head, size_t len)
{
    return len >= EI_NIDENT && memcmp(head, ELFMAG, SELFMAG) == 0 &&
           (head[EI_CLASS] == ELFCLASS32 || head[EI_CLASS] == ELFCLASS64) &&
           head[EI_DATA] == ELFDATA2LSB;
}

int boot_elf_open(const struct boot_file *file, struct boot_elf *ret_elf, struct err *err)
{
    union {
        Elf32_Ehdr e32;
        Elf64_Ehdr e64;
        uint8_t ident[EI_NIDENT];
    } h;
    int rc = boot_read(file, 0, &h.e32, sizeof(h.e32), err);
    if (rc < 0) {
        return rc;
    }
    unsigned machine, phentsize, want;
    struct boot_elf elf = { .is64 = h.ident[EI_CLASS] == ELFCLASS64 };
    if (elf.is64) {
        rc = boot_read(file, 0, &h.e64, sizeof(h.e64), err);
        if (rc < 0) {
            return rc;
        }
        machine = h.e64.e_machine;
        phentsize = h.e64.e_phentsize;
        want = sizeof(Elf64_Phdr);
        elf.entry = h.e64.e_entry;
        elf.phoff = h.e64.e_phoff;
        elf.phnum = h.e64.e_phnum;
    } else {
        machine = h.e32.e_machine;
        phentsize = h.e32.e_phentsize;
        want = sizeof(Elf32_Phdr);
        elf.entry = h.e32.e_entry;
        elf.phoff = h.e32.e_phoff;
        elf.phnum = h.e32.e_phnum;
    }
    if (machine != EM_386 && machine != EM_X86_64) {
        return err_set(err, -EINVAL, "'%s' is an ELF file for another processor (machine %u)",
                       file->name, machine);
    }
    if (phentsize != want || elf.phnum == 0 || elf.phnum > MAX_PHNUM) {
        return err_set(err, -EINVAL,
                       "'%s' has %u program headers of %u bytes; 1 to %u of %u bytes are expected",
                       file->name, elf.phnum, phentsize, MAX_PHNUM, want);
    }
    *ret_elf = elf;
    return 0;
}

int boot_elf_seg(const struct boot_file *file, const struct boot_elf *elf, unsigned i,
                 struct boot_elf_seg *ret_seg, struct err *err)
{
    uint64_t size = elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    uint64_t offset;
    if (ckd_add(&offset, elf->phoff, i * size)) {
        return err_set(err, -EINVAL, "'%s' has its program headers at %#" PRIx64, file->name,
                       elf->phoff);
    }
    if (elf->is64) {
        Elf64_Phdr p;
        int rc = boot_read(file, offset, &p, sizeof(p), err);
        if (rc < 0) {
            return rc;
        }
        *ret_seg = (struct boot_elf_seg){ p.p_type,   p.p_offset, p.p_paddr, p.p_vaddr,
                                          p.p_filesz, p.p_memsz,  p.p_align };
        return 0;
    }
    Elf32_Phdr p;
    int rc = boot_read(file, offset, &p, sizeof(p), err);
    if (rc < 0) {
        return rc;
    }
    *ret_seg = (struct boot_elf_seg){ p.p_type,   p.p_offset, p.p_paddr, p.p_vaddr,
                                      p.p_filesz, p.p_memsz,  p.p_align };
    return 0;
}

static int load_seg(const struct boot_req *req, const struct boot_elf_seg *seg, struct err *err)
{
    if (seg->filesz > seg->memsz) {
        return err_set(err, -EINVAL,
                       "a segment of '%s' has %" PRIu64 " bytes in the file, but only"
                       " %" PRIu64 " in memory",
                       req->kernel->name, seg->filesz, seg->memsz);
    }
    int rc = boot_check_range(req, seg->paddr, seg->memsz, "a segment", err);
    if (rc < 0) {
        return rc;
    }
    rc = boot_copy(req, req->kernel, seg->offset, GPA(seg->paddr), seg->filesz, err);
    if (rc < 0) {
        return rc;
    }
    if (gmem_fill(req->mem, GPA(seg->paddr + seg->filesz), 0, seg->memsz - seg->filesz) < 0) {
        return err_set(err, -EFAULT, "a segment of '%s' lies outside RAM", req->kernel->name);
    }
    return 0;
}

int boot_elf_load(const struct boot_req *req, const struct boot_elf *elf, uint64_t *ret_end,
                  struct err *err)
{
    uint64_t end = 0;
    for (unsigned i = 0; i < elf->phnum; i++) {
        struct boot_elf_seg seg;
        int rc = boot_elf_seg(req->kernel, elf, i, &seg, err);
        if (rc < 0) {
            return rc;
        }
        if (seg.type != PT_LOAD || seg.memsz == 0) {
            continue;
        }
        rc = load_seg(req, &seg, err);
        if (rc < 0) {
            return rc;
        }
        end = MAX(end, seg.paddr + seg.memsz);
    }
    if (end == 0) {
        return err_set(err, -EINVAL, "'%s' has nothing to load", req->kernel->name);
    }
    *ret_end = end;
    return 0;
}

/* Looks through the notes in buf[0, len). Note fields are 4 bytes, name and descriptor are padded
 * to 4 (also in ELF-64 files as kernels make them). */
static bool find_note(const uint8_t *buf, size_t len, uint64_t *ret_entry)
{
    size_t pos = 0;
    while (len - pos >= 12) {
        uint64_t namesz = le32_get(buf + pos);
        uint64_t descsz = le32_get(buf + pos + 4);
        uint32_t type = le32_get(buf + pos + 8);
        uint64_t name = pos + 12;
        uint64_t desc = name + bits_align_up(namesz, 4);
        uint64_t next = desc + bits_align_up(descsz, 4);
        if (desc + descsz > len) {
            return false;
        }
        if (type == BOOT_XEN_NOTE_PHYS32_ENTRY && namesz == 4 &&
            memcmp(buf + name, "Xen", 4) == 0 && (descsz == 4 || descsz == 8)) {
            *ret_entry = descsz == 4 ? le32_get(buf + desc) : le64_get(buf + desc);
            return true;
        }
        if (next > len) {
            return false;
        }
        pos = (size_t)next;
    }
    return false;
}

int boot_elf_pvh_entry(const struct boot_file *file, uint64_t *ret_entry, struct err *err)
{
    struct boot_elf elf;
    int rc = boot_elf_open(file, &elf, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE uint8_t *buf = malloc(MAX_NOTES);
    if (buf == NULL) {
        return err_set(err, -ENOMEM, "no memory to read '%s'", file->name);
    }
    for (unsigned i = 0; i < elf.phnum; i++) {
        struct boot_elf_seg seg;
        rc = boot_elf_seg(file, &elf, i, &seg, err);
        if (rc < 0) {
            return rc;
        }
        if (seg.type != PT_NOTE) {
            continue;
        }
        size_t len = MIN(seg.filesz, (uint64_t)MAX_NOTES);
        rc = boot_read(file, seg.offset, buf, len, err);
        if (rc < 0) {
            return rc;
        }
        if (find_note(buf, len, ret_entry)) {
            return 1;
        }
    }
    return 0;
}
