/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/mem/ram.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RAM_MAX_NODES 1024 /* the kernel's own limit (CONFIG_NODES_SHIFT 10) */

/* log2 of the page size, in the bits where mmap and memfd_create take it. */
#define RAM_HUGE_SHIFT_2M (21u << 26)
#define RAM_HUGE_SHIFT_1G (30u << 26)

static size_t ram_page_size(enum ram_pages pages)
{
    switch (pages) {
    case RAM_PAGES_2M:
        return 2 * MIB;
    case RAM_PAGES_1G:
        return GIB;
    case RAM_PAGES_NORMAL:
        break;
    }
    return 4 * KIB;
}

static unsigned ram_huge_flags(enum ram_pages pages, unsigned huge_flag)
{
    switch (pages) {
    case RAM_PAGES_2M:
        return huge_flag | RAM_HUGE_SHIFT_2M;
    case RAM_PAGES_1G:
        return huge_flag | RAM_HUGE_SHIFT_1G;
    case RAM_PAGES_NORMAL:
        break;
    }
    return 0;
}

/* At a multiple of 2 MiB, as guest addresses are: only then can the host back both sides by one
 * transparent huge page. Maps too much and gives the ends back. */
static void *ram_map_aligned(const struct ram *ram, int flags)
{
    size_t align = 2 * MIB;
    char *area = mmap(NULL, ram->mapped + align, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        return MAP_FAILED;
    }
    char *start = area + (bits_align_up((uintptr_t)area, align) - (uintptr_t)area);
    char *end = start + ram->mapped;
    char *area_end = area + ram->mapped + align;
    void *p = mmap(start, ram->mapped, PROT_READ | PROT_WRITE, flags | MAP_FIXED, ram->fd, 0);
    int saved = errno;
    if (p == MAP_FAILED) {
        (void)munmap(area, ram->mapped + align);
        errno = saved;
        return MAP_FAILED;
    }
    if (start > area) {
        (void)munmap(area, (size_t)(start - area));
    }
    if (area_end > end) {
        (void)munmap(end, (size_t)(area_end - end));
    }
    return p;
}

static int ram_map(struct ram *ram, const struct ram_opts *opts, struct err *err)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (opts->pages != RAM_PAGES_NORMAL) {
        /* Reserved now, so that a lack of huge pages is an error here and no SIGBUS later. */
        flags = MAP_PRIVATE | MAP_ANONYMOUS | (int)ram_huge_flags(opts->pages, MAP_HUGETLB);
    }
    if (opts->shared) {
        ram->fd = memfd_create("guest-ram", MFD_CLOEXEC | ram_huge_flags(opts->pages, MFD_HUGETLB));
        if (ram->fd < 0 || ftruncate(ram->fd, (off_t)ram->mapped) < 0) {
            return err_set_errno(err, -errno, "guest memory: memfd of %zu MiB",
                                 ram->mapped / (size_t)MIB);
        }
        flags = MAP_SHARED | (opts->pages == RAM_PAGES_NORMAL ? MAP_NORESERVE : 0);
    }
    void *p = opts->pages == RAM_PAGES_NORMAL
                  ? ram_map_aligned(ram, flags)
                  : mmap(NULL, ram->mapped, PROT_READ | PROT_WRITE, flags, ram->fd, 0);
    if (p == MAP_FAILED) {
        int code = -errno;
        if (opts->pages != RAM_PAGES_NORMAL) {
            return err_set_errno(err, code,
                                 "guest memory: %zu MiB in huge pages of %zu MiB (reserve them in "
                                 "/sys/kernel/mm/hugepages, or use less memory)",
                                 ram->mapped / (size_t)MIB,
                                 ram_page_size(opts->pages) / (size_t)MIB);
        }
        return err_set_errno(err, code, "guest memory: %zu MiB", ram->mapped / (size_t)MIB);
    }
    ram->addr = p;
    return 0;
}

/* The C library has no wrapper for mbind(2) (libnuma does). */
static int ram_bind(const struct ram *ram, int node, struct err *err)
{
    if (node >= RAM_MAX_NODES) {
        return err_set(err, -EINVAL, "guest memory: NUMA node %d is out of range (0 to %d)", node,
                       RAM_MAX_NODES - 1);
    }
    unsigned long mask[RAM_MAX_NODES / (8 * sizeof(unsigned long))] = { 0 };
    mask[(size_t)node / (8 * sizeof(mask[0]))] = 1UL << ((size_t)node % (8 * sizeof(mask[0])));
    /* The kernel takes one bit less than it is told. */
    if (syscall(SYS_mbind, ram->addr, ram->mapped, MPOL_BIND, mask, RAM_MAX_NODES + 1, 0) < 0) {
        return err_set_errno(err, -errno, "guest memory: cannot bind it to NUMA node %d", node);
    }
    return 0;
}

int ram_init(struct ram *ram, uint64_t size, const struct ram_opts *opts, struct err *err)
{
    *ram = (struct ram){ .fd = -1 };
    uint64_t page = ram_page_size(opts->pages);
    if (size == 0 || size % (4 * KIB) != 0 || size > SIZE_MAX - page) {
        return err_set(err, -EINVAL, "guest memory of %" PRIu64 " bytes cannot be mapped", size);
    }
    ram->size = size;
    ram->mapped = bits_align_up(size, page);
    int rc = ram_map(ram, opts, err);
    if (rc == 0 && opts->numa_node >= 0) {
        rc = ram_bind(ram, opts->numa_node, err);
    }
    if (rc < 0) {
        ram_done(ram);
        return rc;
    }
    /* Advice that a kernel may lack: guest RAM stays out of core dumps and of forked helpers, and
     * may become huge where the host does that by itself. */
    (void)madvise(ram->addr, ram->mapped, MADV_DONTDUMP);
    (void)madvise(ram->addr, ram->mapped, MADV_DONTFORK);
    if (opts->pages == RAM_PAGES_NORMAL) {
        (void)madvise(ram->addr, ram->mapped, MADV_HUGEPAGE);
    }
    return 0;
}

void ram_done(struct ram *ram)
{
    if (ram->addr != NULL) {
        (void)munmap(ram->addr, ram->mapped);
    }
    /* A zeroed struct has descriptor 0 and no memory; ram_init() sets -1 first. */
    if (ram->fd > 0) {
        close(ram->fd);
    }
    *ram = (struct ram){ .fd = -1 };
}
