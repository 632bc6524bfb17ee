/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The software engine: softkvm, linked into the VM process.
 */
#include <errno.h>
#include <sys/mman.h>

#include "softkvm/softkvm.h"
#include "vmm/hv.h"

static int soft_open(int *ret_fd, struct err *err)
{
    softkvm_embed();
    int fd = softkvm_open();
    if (fd < 0) {
        return err_set_errno(err, -errno, "engine soft: cannot start");
    }
    *ret_fd = fd;
    return 0;
}

static int soft_ioctl(int fd, unsigned long request, void *arg)
{
    int rc = softkvm_ioctl(fd, request, (unsigned long)arg);
    return rc < 0 ? -errno : rc;
}

static void *soft_mmap(int fd, size_t size, uint64_t offset)
{
    /* The descriptor of a vCPU is a memfd: its run area maps as any file does. */
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    return p == MAP_FAILED ? NULL : p;
}

static void soft_munmap(void *addr, size_t size)
{
    (void)munmap(addr, size);
}

static void soft_close(int fd)
{
    (void)softkvm_close(fd);
}

static int soft_set_jit(const char *mode, struct err *err)
{
    if (softkvm_set_jit(mode) < 0) {
        return err_set(err, -errno, "engine soft: there is no JIT '%s'", mode);
    }
    return 0;
}

static unsigned soft_counters(int vcpu_fd, struct hv_counter *ret, unsigned max)
{
    struct softkvm_counter c[HV_COUNTERS];
    int n = softkvm_counters(vcpu_fd, c, MIN(max, (unsigned)HV_COUNTERS));
    for (int i = 0; i < n; i++) {
        ret[i] = (struct hv_counter){ .name = c[i].name, .value = c[i].value };
    }
    return n < 0 ? 0 : (unsigned)n;
}

const struct hv hv_soft = {
    .name = "soft",
    .open = soft_open,
    .ioctl = soft_ioctl,
    .mmap = soft_mmap,
    .munmap = soft_munmap,
    .close = soft_close,
    .set_jit = soft_set_jit,
    .writes = softkvm_writes,
    .counters = soft_counters,
};
