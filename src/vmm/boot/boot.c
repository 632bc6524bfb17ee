/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Direct boot: the choice of the loader, and what the loaders share.
 */
#include "vmm/boot/boot.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spec/boot_defs.h"
#include "vmm/boot/boot_int.h"

#define PAGE UINT64_C(4096)

static const struct boot_loader *const loaders[] = {
#define BOOT(stem) &boot_##stem##_loader,
#include "vmm/boot/boots.def"
#undef BOOT
};

int boot_file_open(const char *path, struct boot_file *ret_file, struct err *err)
{
    /* O_NONBLOCK: a FIFO must not hang us before fstat() tells that it is one. */
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot open '%s'", path);
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return err_set_errno(err, -errno, "cannot examine '%s'", path);
    }
    if (S_ISDIR(st.st_mode)) {
        return err_set(err, -EISDIR, "'%s' is a directory; name a file", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(err, -EINVAL, "'%s' is not a regular file", path);
    }
    if (st.st_size == 0) {
        return err_set(err, -EINVAL, "'%s' is empty", path);
    }
    ret_file->size = (uint64_t)st.st_size;
    ret_file->name = path;
    ret_file->fd = take_fd(&fd);
    return 0;
}

void boot_file_close(struct boot_file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
        file->fd = -1;
    }
}

int boot_read(const struct boot_file *file, uint64_t offset, void *buf, size_t len, struct err *err)
{
    uint64_t end;
    if (ckd_add(&end, offset, (uint64_t)len) || end > file->size) {
        return err_set(err, -EINVAL,
                       "'%s' is truncated: it has %" PRIu64 " bytes, but refers to byte %" PRIu64,
                       file->name, file->size, offset + (len > 0 ? len - 1 : 0));
    }
    uint8_t *p = buf;
    while (len > 0) {
        ssize_t n = pread(file->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_set_errno(err, -errno, "cannot read '%s'", file->name);
        }
        if (n == 0) {
            return err_set(err, -EINVAL, "'%s' became shorter while it was read", file->name);
        }
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int boot_copy(const struct boot_req *req, const struct boot_file *file, uint64_t offset, gpa_t gpa,
              uint64_t len, struct err *err)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iov(req->mem, gpa, len, true, iov, ARRAY_LEN(iov));
    if (n < 0) {
        return err_set(err, -EFAULT,
                       "'%s' wants to be at %#" PRIx64 "-%#" PRIx64 ", which is no RAM", file->name,
                       gpa.v, gpa.v + len);
    }
    for (int i = 0; i < n; i++) {
        int rc = boot_read(file, offset, iov[i].iov_base, iov[i].iov_len, err);
        if (rc < 0) {
            return rc;
        }
        gmem_mark_written(req->mem, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

int boot_put(const struct boot_req *req, uint64_t gpa, const void *buf, size_t len, struct err *err)
{
    if (gmem_write(req->mem, GPA(gpa), buf, len) < 0) {
        return err_set(err, -EFAULT, "no RAM at %#" PRIx64 " for boot data", gpa);
    }
    return 0;
}

int boot_put_cmdline(const struct boot_req *req, uint64_t max, struct err *err)
{
    const char *s = req->cmdline != NULL ? req->cmdline : "";
    size_t len = strlen(s);
    max = MIN(max, (uint64_t)(LAYOUT_CMDLINE_MAX - 1));
    if (len > max) {
        return err_set(err, -EINVAL,
                       "the kernel command line has %zu characters; '%s' takes at most %" PRIu64,
                       len, req->kernel->name, max);
    }
    return boot_put(req, LAYOUT_CMDLINE, s, len + 1, err);
}

int boot_put_initrd(const struct boot_req *req, uint64_t floor, uint64_t limit, uint64_t *ret_base,
                    struct err *err)
{
    const struct boot_file *f = req->initrd;
    limit = bits_align_down(MIN(limit, req->layout->low_ram.end), PAGE);
    floor = bits_align_up(floor, PAGE);
    uint64_t size = f->size;
    if (floor >= limit || size > limit - floor) {
        uint64_t room = floor < limit ? limit - floor : 0;
        return err_set(err, -ENOSPC,
                       "initrd '%s' is too large: it has %" PRIu64
                       " KiB, and the guest's memory has"
                       " room for %" PRIu64 " KiB behind the kernel; give the guest more memory",
                       f->name, (size + KIB - 1) / KIB, room / KIB);
    }
    uint64_t base = bits_align_down(limit - size, PAGE);
    int rc = boot_copy(req, f, 0, GPA(base), size, err);
    if (rc < 0) {
        return rc;
    }
    *ret_base = base;
    return 0;
}

int boot_put_gdt(const struct boot_req *req, enum boot_mode mode, struct err *err)
{
    /* SDM 3A §3.4.5: base 0, limit 4 GiB, present, ring 0, accessed; code is 64-bit (L) or 32-bit
     * (D). The task register needs a TSS that exists: a busy one at 0, of the minimal size. */
    uint8_t gdt[LAYOUT_BOOT_TR + 16] = { 0 };
    le64_put(gdt + LAYOUT_BOOT_CS, mode == BOOT_MODE_LONG64 ? UINT64_C(0x00af9b000000ffff)
                                                            : UINT64_C(0x00cf9b000000ffff));
    le64_put(gdt + LAYOUT_BOOT_DS, UINT64_C(0x00cf93000000ffff));
    le64_put(gdt + LAYOUT_BOOT_TR, UINT64_C(0x00008b0000000067));
    static_assert(sizeof(gdt) <= LAYOUT_BOOT_GDT_SIZE, "the GDT fits its place");
    return boot_put(req, LAYOUT_BOOT_GDT, gdt, sizeof(gdt), err);
}

int boot_check_range(const struct boot_req *req, uint64_t base, uint64_t size, const char *what,
                     struct err *err)
{
    uint64_t end;
    if (base < LAYOUT_KERNEL_MIN) {
        return err_set(err, -EINVAL, "%s of '%s' lies at %#" PRIx64 ", below 1 MiB", what,
                       req->kernel->name, base);
    }
    if (ckd_add(&end, base, size) || end > req->layout->low_ram.end) {
        return err_set(err, -ENOSPC,
                       "%s of '%s' needs %" PRIu64 " KiB at %#" PRIx64 ", but the guest's memory"
                       " below 4 GiB ends at %#" PRIx64 " (%" PRIu64 " MiB); give it more memory",
                       what, req->kernel->name, size / KIB, base, req->layout->low_ram.end,
                       req->layout->low_ram.end / MIB);
    }
    return 0;
}

unsigned boot_map(const struct boot_req *req, struct boot_range map[BOOT_MAX_MAP])
{
    const struct layout *l = req->layout;
    unsigned n = 0;
#define ADD(start, end, kind)                                                                      \
    map[n++] = (struct boot_range){ .base = (start), .size = (end) - (start), .type = (kind) }
    ADD(0, LAYOUT_CONV_RAM_END, BOOT_E820_RAM);
    ADD(LAYOUT_CONV_RAM_END, LAYOUT_VGA_BASE, BOOT_E820_RESERVED);
    ADD(LAYOUT_BIOS_BASE, LAYOUT_BIOS_END, BOOT_E820_RESERVED);
    ADD(LAYOUT_1MIB, l->low_ram.end, BOOT_E820_RAM);
    /* PCI Firmware 3.2 §4.1.2: the ECAM of the MCFG table must be reserved in the map. */
    ADD(LAYOUT_ECAM_BASE, LAYOUT_ECAM_BASE + LAYOUT_ECAM_SIZE, BOOT_E820_RESERVED);
    ADD(LAYOUT_IDENTITY_BASE, LAYOUT_TSS_END, BOOT_E820_RESERVED);
    if (layout_size(&l->high_ram) != 0) {
        ADD(l->high_ram.base, l->high_ram.end, BOOT_E820_RAM);
    }
#undef ADD
    return n;
}

int boot_load(const struct boot_req *req, struct boot_state *ret_state, struct err *err)
{
    const struct boot_file *k = req->kernel;
    uint8_t head[BOOT_MB_SEARCH];
    size_t len = MIN(k->size, (uint64_t)sizeof(head));
    int rc = boot_read(k, 0, head, len, err);
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < ARRAY_LEN(loaders); i++) {
        if (!loaders[i]->probe(req, head, len)) {
            continue;
        }
        log_debug("boot", "loader chosen", "loader='%s' kernel='%s'", loaders[i]->name, k->name);
        struct boot_state state = { 0 };
        rc = loaders[i]->load(req, &state, err);
        if (rc < 0) {
            return rc;
        }
        *ret_state = state;
        return 0;
    }
    if (boot_elf_magic(head, len)) {
        return err_set(err, -EINVAL,
                       "'%s' is an ELF file without a PVH note or a multiboot header; for Linux,"
                       " give the bzImage or a vmlinux built with CONFIG_PVH",
                       k->name);
    }
    return err_set(err, -EINVAL,
                   "'%s' is not a kernel: it is no bzImage, no ELF with a PVH note, and has no"
                   " multiboot header",
                   k->name);
}
