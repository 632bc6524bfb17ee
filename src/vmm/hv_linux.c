/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's KVM: the system calls as they are. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/hv.h"

#define HV_LINUX_PATH "/dev/kvm"

static int hv_linux_open(int *ret_fd, struct err *err)
{
    int fd = open(HV_LINUX_PATH, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        *ret_fd = fd;
        return 0;
    }
    int code = -errno;
    switch (code) {
    case -ENOENT:
        return err_set(err, code,
                       HV_LINUX_PATH " does not exist: load the module kvm_intel or kvm_amd, and "
                                     "turn virtualisation on in the firmware set-up");
    case -EACCES:
    case -EPERM:
        return err_set(err, code,
                       HV_LINUX_PATH " may not be opened by this user: join the group that owns it "
                                     "(usually 'kvm')");
    case -ENXIO:
    case -ENODEV:
        return err_set(err, code,
                       HV_LINUX_PATH " has no driver behind it: the processor or a hypervisor "
                                     "below does not offer virtualisation");
    default:
        return err_set_errno(err, code, "cannot open " HV_LINUX_PATH);
    }
}

static int hv_linux_ioctl(int fd, unsigned long request, void *arg)
{
    int rc = ioctl(fd, request, arg);
    return rc < 0 ? -errno : rc;
}

static void *hv_linux_mmap(int fd, size_t size, uint64_t offset)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    return p == MAP_FAILED ? NULL : p;
}

static void hv_linux_munmap(void *addr, size_t size)
{
    (void)munmap(addr, size); /* fails only for a range that was never mapped */
}

static void hv_linux_close(int fd)
{
    close(fd);
}

const struct hv hv_linux = {
    .name = "kvm",
    .open = hv_linux_open,
    .ioctl = hv_linux_ioctl,
    .mmap = hv_linux_mmap,
    .munmap = hv_linux_munmap,
    .close = hv_linux_close,
};
