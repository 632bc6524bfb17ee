/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine under a VM, seen as the four system calls of the KVM ABI. hv_linux.c passes them to
 * the kernel's /dev/kvm; hv_soft.c to softkvm. Nothing above knows which one it is.
 */
#ifndef VMM_HV_H
#define VMM_HV_H

#include "base/bits.h"
#include "base/err.h"

#define HV_COUNTERS 32 /* an engine has no more */

/* One figure that an engine keeps of a vCPU. */
struct hv_counter {
    const char *name;
    uint64_t value;
};

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
    /* How vCPUs made from now on run their code ("off", "t1"). 0, or a negative errno with the
     * reason in err. NULL: the engine knows one way only. */
    int (*set_jit)(const char *mode, struct err *err);
    /* A counter to be raised after each write to guest memory that no vCPU does, and before the
     * guest can learn of it. NULL, or it returns NULL: the engine sees such writes by itself. */
    _Atomic uint64_t *(*writes)(int vm_fd);
    /* Figures of a vCPU, at most `max`, while it runs, too. Returns their number. NULL: none. */
    unsigned (*counters)(int vcpu_fd, struct hv_counter *ret, unsigned max);
};

extern const struct hv hv_linux;
extern const struct hv hv_soft;

/* ioctl with an integer argument. */
static inline int hv_ioctl_int(const struct hv *hv, int fd, unsigned long request, uintptr_t arg)
{
    return hv->ioctl(fd, request, (void *)arg);
}

#endif
