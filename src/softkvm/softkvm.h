/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libsoftkvm: the Linux KVM ioctl ABI (Documentation/virt/kvm/api.rst, Linux 6.1) in user space.
 *
 * Use it as /dev/kvm, with these calls in the place of open, ioctl, mmap and close:
 *
 *     int sys = softkvm_open();
 *     int vm = softkvm_ioctl(sys, KVM_CREATE_VM, 0);
 *     int cpu = softkvm_ioctl(vm, KVM_CREATE_VCPU, 0);
 *     struct kvm_run *run = softkvm_mmap(cpu, size);   (size: KVM_GET_VCPU_MMAP_SIZE)
 *     softkvm_ioctl(cpu, KVM_RUN, 0);
 *
 * The descriptors are real ones (memfd), so numbers never clash with other files and mmap(2),
 * dup(2) and poll(2) work on them; what each stands for is kept in a table inside the library, the
 * only process-wide state there is.
 *
 * Errors: -1 with errno, as the system calls. Threads: any; KVM_RUN on one vCPU excludes the other
 * ioctls of that vCPU, as in the kernel.
 */
#ifndef SOFTKVM_SOFTKVM_H
#define SOFTKVM_SOFTKVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SOFTKVM_EXPORT __attribute__((visibility("default")))

/* Opens a system descriptor, as open("/dev/kvm"). errno: EMFILE, ENOMEM. */
SOFTKVM_EXPORT int softkvm_open(void);

/* ioctl(2) on a descriptor of ours. errno as KVM documents; EBADF if `fd` is none of ours. */
SOFTKVM_EXPORT int softkvm_ioctl(int fd, unsigned long request, unsigned long arg);

/* For a client that links the library and confines itself: promises that every pointer it will pass
 * is good, and that after the vCPUs exist a system call filter may be in force. Arguments are then
 * copied without asking the kernel (a bad pointer crashes instead of giving EFAULT), and no file
 * is opened any more (the guest's steal time stays 0). For the whole process, for good. */
SOFTKVM_EXPORT void softkvm_embed(void);

/* How vCPUs made from now on run their code: "off" (interpreter), "t1" (template JIT) or "t1:N"
 * (the JIT, once a block has run N times). Without it the environment's SOFTKVM_JIT decides. 0; -1
 * and EINVAL: no such text. Not while another thread makes vCPUs. */
SOFTKVM_EXPORT int softkvm_set_jit(const char *mode);

/* For a client that can tell when it writes to the guest's memory: the returned counter is to be
 * raised by one after each such write and before the guest can learn of it; what is written while
 * no vCPU is in KVM_RUN is seen in any case. A guest with one vCPU then need not have its code
 * compared with memory at each instruction that serialises. The counter lives as long as the VM.
 * NULL and EBADF: no VM. Calling it is the promise to count. Any thread may count, by atomic
 * additions with release order. */
SOFTKVM_EXPORT _Atomic uint64_t *softkvm_writes(int vm_fd);

struct softkvm_counter {
    const char *name;
    uint64_t value;
};

/* What the JIT of a vCPU has done: at most `max` counters. Returns their number, 0 where the JIT is
 * off; -1 and EBADF: no vCPU. Any thread, also while the vCPU runs. */
SOFTKVM_EXPORT int softkvm_counters(int vcpu_fd, struct softkvm_counter *ret, unsigned max);

/* Maps the run area of a vCPU descriptor. MAP_FAILED and errno on failure. Unmap with munmap(2). */
SOFTKVM_EXPORT void *softkvm_mmap(int fd, size_t size);

/* Closes a descriptor; objects live until the last descriptor to them or their children is gone. */
SOFTKVM_EXPORT int softkvm_close(int fd);

/* The same without closing the number: for who does that himself. 0; -1 and EBADF: none of ours. */
SOFTKVM_EXPORT int softkvm_forget(int fd);

/* True if `fd` is a descriptor of ours. */
SOFTKVM_EXPORT bool softkvm_owns(int fd);

/* Another number for the same object (after dup(2) gave new_fd). */
SOFTKVM_EXPORT int softkvm_dup(int fd, int new_fd);

/* Makes a vCPU that is in KVM_RUN return with EINTR, as a caught signal does for the kernel's KVM.
 * Any thread, also from a signal handler. */
SOFTKVM_EXPORT int softkvm_kick(int vcpu_fd);

/* To be called at the end of a signal handler: if the handler ran on a thread that is in KVM_RUN,
 * the ioctl returns with EINTR, as the kernel's does. The `softkvm` launcher sees to it for
 * programs that know nothing of this library. Async-signal-safe. */
SOFTKVM_EXPORT void softkvm_signal_caught(void);

/* For a handler of somebody else's signals: true if `sig` was blocked on this thread and is let in
 * only by KVM_SET_SIGNAL_MASK for the time of KVM_RUN. The kernel then ends KVM_RUN and leaves the
 * signal pending, no handler runs; so should the caller. Async-signal-safe. */
SOFTKVM_EXPORT bool softkvm_signal_held(int sig);

/* Tells that memory of a VM was written behind the vCPUs' backs (device emulation), so that code
 * decoded from it is looked at again. Not needed if an interrupt or an exit follows. */
SOFTKVM_EXPORT int softkvm_memory_written(int vm_fd, unsigned long long gpa,
                                          unsigned long long len);

#endif
