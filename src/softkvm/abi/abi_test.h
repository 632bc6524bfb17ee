/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tests of the ABI share: a VM with a vCPU and a little memory. After cmocka.h. */
#ifndef SOFTKVM_ABI_TEST_H
#define SOFTKVM_ABI_TEST_H

#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "softkvm/softkvm.h"

#define RAM_SIZE 0x10000

struct fixture {
    int sys, vm, cpu;
    struct kvm_run *run;
    uint8_t *ram;
};

static inline int ctl(int fd, unsigned long request, const void *arg)
{
    return softkvm_ioctl(fd, request, (unsigned long)arg);
}

/* RAM_SIZE bytes as a slot of the VM. */
static inline uint8_t *add_memory(int vm, uint32_t slot, uint64_t gpa)
{
    uint8_t *p = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    struct kvm_userspace_memory_region r = { .slot = slot,
                                             .guest_phys_addr = gpa,
                                             .memory_size = RAM_SIZE,
                                             .userspace_addr = (uintptr_t)p };
    assert_int_equal(ctl(vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
    return p;
}

static inline void make_vm(struct fixture *f, bool irqchip)
{
    f->sys = softkvm_open();
    assert_true(f->sys >= 0);
    f->vm = ctl(f->sys, KVM_CREATE_VM, NULL);
    assert_true(f->vm >= 0);
    f->ram = add_memory(f->vm, 0, 0);
    if (irqchip) {
        assert_int_equal(ctl(f->vm, KVM_CREATE_IRQCHIP, NULL), 0);
    }
    f->cpu = ctl(f->vm, KVM_CREATE_VCPU, NULL);
    assert_true(f->cpu >= 0);
    int size = ctl(f->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);
    assert_int_equal(size, 3 * 4096);
    f->run = softkvm_mmap(f->cpu, (size_t)size);
    assert_ptr_not_equal(f->run, MAP_FAILED);
}

static inline void end_vm(struct fixture *f)
{
    munmap(f->run, 3 * 4096);
    assert_int_equal(softkvm_close(f->cpu), 0);
    assert_int_equal(softkvm_close(f->vm), 0);
    assert_int_equal(softkvm_close(f->sys), 0);
    munmap(f->ram, RAM_SIZE);
}

/* Real mode at 0:0x1000 with flat-ish segments of base 0. */
static inline void start_at(struct fixture *f, const void *code, size_t len)
{
    struct kvm_sregs s;
    struct kvm_regs r = { .rip = 0x1000, .rsp = 0x8000, .rflags = 2 };
    memcpy(f->ram + 0x1000, code, len);
    assert_int_equal(ctl(f->cpu, KVM_GET_SREGS, &s), 0);
    s.cs.base = 0;
    s.cs.selector = 0;
    assert_int_equal(ctl(f->cpu, KVM_SET_SREGS, &s), 0);
    assert_int_equal(ctl(f->cpu, KVM_SET_REGS, &r), 0);
}

#endif
