/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine under a VM, seen as the four system calls of the KVM ABI. hv_linux.c passes them to
 * the kernel's /dev/kvm; hv_soft.c to softkvm. Nothing above knows which one it is.
 */
#ifndef VMM_HV_H
#define VMM_HV_H

#include "base/bits.h"
#include "base/err.h"

struct hv {
    const char *name; /* "kvm", "soft" */
    /* Opens the system descriptor. 0 and *ret_fd, or a negative errno with the remedy in err. */
    int (*open)(int *ret_fd, struct err *err);
    /* As ioctl(2) on a system, VM or vCPU descriptor: a result >= 0 or a negative errno. */
    int (*ioctl)(int fd, unsigned long request, void *arg);
    /* Maps `size` bytes at `offset` of a vCPU descriptor, shared. NULL with errno set. */
    void *(*mmap)(int fd, size_t size, uint64_t offset);
    void (*munmap)(void *addr, size_t size);
    void (*close)(int fd);
};

extern const struct hv hv_linux;
extern const struct hv hv_soft;

/* ioctl with an integer argument. */
static inline int hv_ioctl_int(const struct hv *hv, int fd, unsigned long request, uintptr_t arg)
{
    return hv->ioctl(fd, request, (void *)arg);
}

#endif
