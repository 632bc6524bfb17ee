/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ABI as a client sees it, with guests of a few bytes.
 */
#include "softkvm/softkvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "softkvm/abi/abi_test.h"

static void expect_errno(int rc, int code)
{
    assert_int_equal(rc, -1);
    assert_int_equal(errno, code);
}

/* The guest's CPU is all that the engine offers. */
static void set_supported_cpuid(struct fixture *f)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 e[100];
    } c = { .head = { .nent = 1 } };
    expect_errno(ctl(f->sys, KVM_GET_SUPPORTED_CPUID, &c), E2BIG);
    c.head.nent = 100;
    assert_int_equal(ctl(f->sys, KVM_GET_SUPPORTED_CPUID, &c), 0);
    assert_int_equal(ctl(f->cpu, KVM_SET_CPUID2, &c), 0);
}

static int run(struct fixture *f)
{
    return ctl(f->cpu, KVM_RUN, NULL);
}

static int setup(void **state)
{
    static struct fixture f;
    make_vm(&f, false);
    *state = &f;
    return 0;
}

static int setup_irqchip(void **state)
{
    static struct fixture f;
    make_vm(&f, true);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    end_vm(*state);
    return 0;
}

static void port_and_memory_exits_and_hlt(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = {
        0xb0, 0x41,             /* mov al, 'A' */
        0xe6, 0x10,             /* out 0x10, al */
        0xe4, 0x11,             /* in al, 0x11 */
        0xb9, 0x00, 0xf0,       /* mov cx, 0xf000 */
        0x8e, 0xd9,             /* mov ds, cx */
        0xa2, 0x34, 0x12,       /* mov [0x1234], al: f1234 is no RAM */
        0x8a, 0x1e, 0x35, 0x12, /* mov bl, [0x1235] */
        0xf4,                   /* hlt */
    };
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_IO);
    assert_int_equal(f->run->io.direction, KVM_EXIT_IO_OUT);
    assert_int_equal(f->run->io.port, 0x10);
    assert_int_equal(f->run->io.size, 1);
    assert_int_equal(f->run->io.count, 1);
    uint8_t *data = (uint8_t *)f->run + f->run->io.data_offset;
    assert_int_equal(*data, 'A');
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->io.direction, KVM_EXIT_IO_IN);
    assert_int_equal(f->run->io.port, 0x11);
    *data = 0x77;
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_MMIO);
    assert_int_equal(f->run->mmio.phys_addr, 0xf1234);
    assert_true(f->run->mmio.is_write);
    assert_int_equal(f->run->mmio.len, 1);
    assert_int_equal(f->run->mmio.data[0], 0x77);
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_MMIO);
    assert_false(f->run->mmio.is_write);
    f->run->mmio.data[0] = 0x99;
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_HLT);
    struct kvm_regs r;
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rax & 0xff, 0x77);
    assert_int_equal(r.rbx & 0xff, 0x99);
    assert_int_equal(r.rip, 0x1000 + sizeof(code));
}

/* KVM api.rst 5: immediate_exit completes pending I/O and returns EINTR. */
static void immediate_exit_completes_what_is_pending(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = { 0xe4, 0x11, 0x88, 0xc3, 0xf4 }; /* in al,0x11; mov bl,al; hlt */
    struct kvm_regs r;
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    *((uint8_t *)f->run + f->run->io.data_offset) = 0x5a;
    f->run->immediate_exit = 1;
    expect_errno(run(f), EINTR);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_IO); /* no exit of its own */
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rip, 0x1002);
    assert_int_equal(r.rax & 0xff, 0x5a);
    f->run->immediate_exit = 0;
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_HLT);
}

static void shutdown_after_a_triple_fault(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = { 0x0f, 0x0b }; /* ud2 */
    struct kvm_sregs s;
    start_at(f, code, sizeof(code));
    assert_int_equal(ctl(f->cpu, KVM_GET_SREGS, &s), 0);
    s.idt.limit = 0; /* no room for any vector */
    assert_int_equal(ctl(f->cpu, KVM_SET_SREGS, &s), 0);
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_SHUTDOWN);
}

static void errors_are_those_of_kvm(void **state)
{
    struct fixture *f = *state;
    struct kvm_userspace_memory_region r = { .slot = 1,
                                             .guest_phys_addr = 0x8000,
                                             .memory_size = 0x1000,
                                             .userspace_addr = (uintptr_t)f->ram };
    expect_errno(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, &r), EEXIST);
    r.guest_phys_addr = 0x100010;
    expect_errno(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, &r), EINVAL);
    r.guest_phys_addr = 0x100000;
    r.slot = 512;
    expect_errno(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, &r), EINVAL);
    r.slot = 1;
    r.flags = 8;
    expect_errno(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, &r), EINVAL);
    expect_errno(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, (void *)8), EFAULT);
    expect_errno(ctl(f->vm, KVM_CREATE_VCPU, NULL), EEXIST);
    expect_errno(ctl(f->vm, KVM_CREATE_VCPU, (void *)100000), EINVAL);
    expect_errno(ctl(f->vm, KVM_GET_REGS, NULL), ENOTTY);
    expect_errno(ctl(f->cpu, KVM_GET_REGS, NULL), EFAULT);
    expect_errno(ctl(f->sys, KVM_CREATE_VM, (void *)1), EINVAL);
    expect_errno(ctl(f->vm, KVM_CREATE_IRQCHIP, NULL), EINVAL); /* a vCPU exists */
    expect_errno(ctl(1, KVM_GET_API_VERSION, NULL), EBADF);
    assert_int_equal(ctl(f->sys, KVM_GET_API_VERSION, NULL), 12);
    assert_int_equal(ctl(f->sys, KVM_CHECK_EXTENSION, (void *)KVM_CAP_USER_MEMORY), 1);
    assert_int_equal(ctl(f->sys, KVM_CHECK_EXTENSION, (void *)99999), 0);
    struct kvm_irqchip chip = { .chip_id = 0 };
    expect_errno(ctl(f->vm, KVM_GET_IRQCHIP, &chip), ENXIO);
    struct kvm_sregs s;
    assert_int_equal(ctl(f->cpu, KVM_GET_SREGS, &s), 0);
    s.cr0 |= UINT64_C(0x80000000); /* paging without protection */
    expect_errno(ctl(f->cpu, KVM_SET_SREGS, &s), EINVAL);
}

static void state_goes_out_and_in(void **state)
{
    struct fixture *f = *state;
    struct kvm_regs r = { .rax = 1, .rbx = 2, .rsi = 3, .r15 = 4, .rip = 0x1234, .rflags = 0x246 };
    struct kvm_regs r2;
    assert_int_equal(ctl(f->cpu, KVM_SET_REGS, &r), 0);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r2), 0);
    assert_memory_equal(&r, &r2, sizeof(r));
    struct kvm_sregs s;
    struct kvm_sregs s2;
    assert_int_equal(ctl(f->cpu, KVM_GET_SREGS, &s), 0);
    s.gs.base = 0x5000;
    s.cr2 = 0x77;
    assert_int_equal(ctl(f->cpu, KVM_SET_SREGS, &s), 0);
    assert_int_equal(ctl(f->cpu, KVM_GET_SREGS, &s2), 0);
    assert_memory_equal(&s, &s2, sizeof(s));
    struct kvm_fpu p;
    struct kvm_fpu p2;
    assert_int_equal(ctl(f->cpu, KVM_GET_FPU, &p), 0);
    p.fcw = 0x37f;
    p.xmm[3][5] = 9;
    assert_int_equal(ctl(f->cpu, KVM_SET_FPU, &p), 0);
    assert_int_equal(ctl(f->cpu, KVM_GET_FPU, &p2), 0);
    assert_memory_equal(&p, &p2, sizeof(p));
    set_supported_cpuid(f);
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry e[2];
    } m = {
        .head = {.nmsrs = 2              },
          .e = { { .index = 0x174, .data = 0x10 }, { .index = 0xdeadbeef } }
    };
    assert_int_equal(ctl(f->cpu, KVM_SET_MSRS, &m), 1); /* the second one is unknown */
    m.e[0].data = 0;
    assert_int_equal(ctl(f->cpu, KVM_GET_MSRS, &m), 1);
    assert_int_equal(m.e[0].data, 0x10);
}

static void enable_vm(struct fixture *f, uint32_t cap, uint64_t value)
{
    struct kvm_enable_cap e = { .cap = cap, .args = { value } };
    assert_int_equal(ctl(f->vm, KVM_ENABLE_CAP, &e), 0);
}

/* KVM api.rst 5, KVM_EXIT_X86_RDMSR: the client's answer becomes the result, or #GP. */
static void msr_accesses_go_to_a_client_that_asks(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = {
        0x66, 0xb9, 0xef, 0xbe, 0xad, 0xde, /* mov ecx, 0xdeadbeef */
        0x0f, 0x32, 0x0f, 0x30,             /* rdmsr; wrmsr */
        0x0f, 0x32, 0xf4,                   /* rdmsr; hlt */
    };
    enable_vm(f, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN);
    le16_put(f->ram + 13 * 4, 0x2000); /* #GP */
    le16_put(f->ram + 13 * 4 + 2, 0);
    f->ram[0x2000] = 0xf4;
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_X86_RDMSR);
    assert_int_equal(f->run->msr.index, 0xdeadbeef);
    assert_int_equal(f->run->msr.reason, KVM_MSR_EXIT_REASON_UNKNOWN);
    f->run->msr.data = UINT64_C(0x1122334455667788);
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_X86_WRMSR);
    assert_true(f->run->msr.data == UINT64_C(0x1122334455667788));
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_X86_RDMSR);
    f->run->msr.error = 1;
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_HLT);
    struct kvm_regs r;
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rip, 0x2001); /* behind the HLT of the handler */
}

/* A vCPU's TSC begins at 0, and one that is set nearly like the last is in step with it. */
static void tscs_are_in_step(void **state)
{
    struct fixture *f = *state;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry e[1];
    } m = {
        .head = { .nmsrs = 1 },
        .e = { { .index = 0x10 } },
    };
    const uint64_t offset_attr = KVM_VCPU_TSC_OFFSET;
    uint64_t offset[2] = { 1, 2 };
    struct kvm_device_attr a = { .group = KVM_VCPU_TSC_CTRL, .attr = offset_attr };
    int khz = ctl(f->cpu, KVM_GET_TSC_KHZ, NULL);
    assert_int_equal(ctl(f->cpu, KVM_GET_MSRS, &m), 1);
    assert_true(m.e[0].data < (uint64_t)khz * 1000 * 60);
    int cpu2 = ctl(f->vm, KVM_CREATE_VCPU, (void *)1);
    assert_true(cpu2 >= 0);
    const int cpu[2] = { f->cpu, cpu2 };
    for (int i = 0; i < 2; i++) {
        m.e[0].data = UINT64_C(1) << 50;
        assert_int_equal(ctl(cpu[i], KVM_SET_MSRS, &m), 1);
        a.addr = (uintptr_t)&offset[i];
        assert_int_equal(ctl(cpu[i], KVM_GET_DEVICE_ATTR, &a), 0);
    }
    assert_true(offset[0] == offset[1]);
    m.e[0].data = UINT64_C(1) << 51;
    assert_int_equal(ctl(cpu2, KVM_SET_MSRS, &m), 1);
    assert_int_equal(ctl(cpu2, KVM_GET_DEVICE_ATTR, &a), 0);
    assert_true(offset[0] != offset[1]);
    assert_int_equal(softkvm_close(cpu2), 0);
}

/* KVM api.rst 7.28 (Linux 6.1): MWAIT does nothing where CPUID hides it, or raises #UD. */
static void quirks_can_be_disabled(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = {
        0x31, 0xc9, 0x0f, 0x01, 0xc9, 0xf4
    }; /* xor cx,cx; mwait; hlt */
    struct kvm_regs r;
    le16_put(f->ram + 6 * 4, 0x2000); /* #UD */
    le16_put(f->ram + 6 * 4 + 2, 0);
    f->ram[0x2000] = 0xf4;
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rip, 0x1000 + sizeof(code));
    enable_vm(f, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS);
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rip, 0x2001);
    struct kvm_enable_cap e = { .cap = KVM_CAP_DISABLE_QUIRKS2, .args = { UINT64_C(1) << 40 } };
    expect_errno(ctl(f->vm, KVM_ENABLE_CAP, &e), EINVAL);
}

/* KVM_CAP_MAX_VCPU_ID: the bound on vCPU ids can be set once; PLATFORM_INFO can be hidden. */
static void vm_capabilities_bind(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = { 0x66, 0xb9, 0xce, 0, 0, 0, 0x0f, 0x32, 0xf4 };
    struct kvm_enable_cap e = { .cap = KVM_CAP_MAX_VCPU_ID, .args = { 2 } };
    assert_int_equal(ctl(f->vm, KVM_ENABLE_CAP, &e), 0);
    e.args[0] = 3;
    expect_errno(ctl(f->vm, KVM_ENABLE_CAP, &e), EINVAL);
    expect_errno(ctl(f->vm, KVM_CREATE_VCPU, (void *)2), EINVAL);
    struct kvm_regs r;
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rax, UINT64_C(1) << 31); /* CPUID faulting is there */
    enable_vm(f, KVM_CAP_MSR_PLATFORM_INFO, 0);
    le16_put(f->ram + 13 * 4, 0x2000);
    le16_put(f->ram + 13 * 4 + 2, 0);
    f->ram[0x2000] = 0xf4;
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rip, 0x2001);
}

/* The client may change the count of a repeated input between its parts. */
static void a_shorter_count_ends_a_string_input(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = { 0xb9, 3, 0, 0xbf, 0, 0x30, 0xf3, 0x6c, 0xf4 }; /* rep insb */
    struct kvm_regs r;
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_IO);
    assert_int_equal(f->run->io.count, 3);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    r.rcx = 1;
    assert_int_equal(ctl(f->cpu, KVM_SET_REGS, &r), 0);
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_HLT);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &r), 0);
    assert_int_equal(r.rdi, 0x3001);
    assert_int_equal(r.rcx, 0);
}

static void code_outside_ram_is_an_internal_error(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = { 0xea, 0, 0, 0, 0x20 }; /* jmp 2000:0 */
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
    assert_int_equal(f->run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
}

/* A slot on addresses where the client has nothing, or nothing to write to: KVM_RUN says EFAULT,
 * with the guest's state as before the instruction, and goes on once the memory is there. */
static void absent_memory_is_efault(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = {
        0xb8, 0x00, 0x10, 0x8e, 0xd8, /* mov ax,1000h; mov ds,ax */
        0xa0, 0x00, 0x00, 0xf4,       /* mov al,[0]; hlt */
        0xa2, 0x00, 0x00, 0xf4,       /* mov [0],al; hlt */
    };
    struct kvm_userspace_memory_region r = { .slot = 1,
                                             .guest_phys_addr = RAM_SIZE,
                                             .memory_size = 4096 };
    struct kvm_regs regs;
    void *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    r.userspace_addr = (uintptr_t)hole;
    assert_int_equal(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
    start_at(f, code, sizeof(code));
    expect_errno(ctl(f->cpu, KVM_RUN, NULL), EFAULT);
    assert_int_equal(ctl(f->cpu, KVM_GET_REGS, &regs), 0);
    assert_int_equal(regs.rip, 0x1005);
    assert_int_equal(mprotect(hole, 4096, PROT_READ), 0);
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_HLT);
    expect_errno(ctl(f->cpu, KVM_RUN, NULL), EFAULT);
    assert_int_equal(mprotect(hole, 4096, PROT_READ | PROT_WRITE), 0);
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_HLT);
    r.memory_size = 0;
    assert_int_equal(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
    assert_int_equal(munmap(hole, 4096), 0);
}

static void dirty_log_tells_written_pages(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = { 0xa2, 0x00, 0x30, 0xf4, 0xa2, 0x00, 0x50, 0xf4 };
    uint64_t bits = 0;
    struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = &bits };
    struct kvm_userspace_memory_region r = { .memory_size = RAM_SIZE,
                                             .userspace_addr = (uintptr_t)f->ram,
                                             .flags = KVM_MEM_LOG_DIRTY_PAGES };
    expect_errno(ctl(f->vm, KVM_GET_DIRTY_LOG, &log), ENOENT);
    assert_int_equal(ctl(f->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(ctl(f->vm, KVM_GET_DIRTY_LOG, &log), 0);
    assert_int_equal(bits, BIT(3));
    assert_int_equal(ctl(f->vm, KVM_GET_DIRTY_LOG, &log), 0);
    assert_int_equal(bits, 0);
    assert_int_equal(run(f), 0);
    assert_int_equal(ctl(f->vm, KVM_GET_DIRTY_LOG, &log), 0);
    assert_int_equal(bits, BIT(5));
}

static void doorbells_do_not_exit(void **state)
{
    struct fixture *f = *state;
    /* mov al,7; out 0x20,al; mov al,8; out 0x20,al; hlt */
    static const uint8_t code[] = { 0xb0, 7, 0xe6, 0x20, 0xb0, 8, 0xe6, 0x20, 0xf4 };
    struct kvm_ioeventfd e = { .datamatch = 7,
                               .addr = 0x20,
                               .len = 1,
                               .fd = eventfd(0, EFD_NONBLOCK),
                               .flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH };
    uint64_t count = 0;
    assert_int_equal(ctl(f->vm, KVM_IOEVENTFD, &e), 0);
    expect_errno(ctl(f->vm, KVM_IOEVENTFD, &e), EEXIST);
    start_at(f, code, sizeof(code));
    assert_int_equal(run(f), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_IO);
    assert_int_equal(*((uint8_t *)f->run + f->run->io.data_offset), 8);
    assert_int_equal(read(e.fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);
    e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    assert_int_equal(ctl(f->vm, KVM_IOEVENTFD, &e), 0);
    expect_errno(ctl(f->vm, KVM_IOEVENTFD, &e), ENOENT);
    close(e.fd);
}

static void *run_thread(void *opaque)
{
    struct fixture *f = opaque;
    int rc = run(f);
    return (void *)(intptr_t)(rc < 0 ? -errno : (int)f->run->exit_reason);
}

/* An irqfd, through the PIC's default routes, wakes a halted vCPU into its handler. */
static void irqfd_wakes_a_halted_vcpu(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = {
        0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x40, 0xe6, 0x21, /* ICW1, ICW2: base 0x40 */
        0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, /* ICW3, ICW4 */
        0xb0, 0x00, 0xe6, 0x21,                         /* unmask */
        0xfb, 0xf4, 0xeb, 0xfd,                         /* sti; hlt; jmp -3 */
    };
    static const uint8_t handler[] = { 0xe6, 0x99, 0xcf }; /* out 0x99, al; iret */
    struct kvm_irqfd irq = { .fd = (uint32_t)eventfd(0, EFD_NONBLOCK), .gsi = 5 };
    uint64_t one = 1;
    void *result;
    pthread_t thread;
    start_at(f, code, sizeof(code));
    memcpy(f->ram + 0x2000, handler, sizeof(handler));
    le16_put(f->ram + 0x45 * 4, 0x2000);
    le16_put(f->ram + 0x45 * 4 + 2, 0);
    assert_int_equal(ctl(f->vm, KVM_IRQFD, &irq), 0);
    expect_errno(ctl(f->vm, KVM_IRQFD, &irq), EBUSY);
    assert_int_equal(pthread_create(&thread, NULL, run_thread, f), 0);
    struct timespec pause = { .tv_nsec = 50000000 };
    nanosleep(&pause, NULL);
    assert_int_equal(write((int)irq.fd, &one, sizeof(one)), sizeof(one));
    pthread_join(thread, &result);
    assert_int_equal((intptr_t)result, KVM_EXIT_IO);
    assert_int_equal(f->run->io.port, 0x99);
    close((int)irq.fd);
}

static void kick_ends_a_halt(void **state)
{
    struct fixture *f = *state;
    static const uint8_t code[] = { 0xf4 };
    void *result;
    pthread_t thread;
    start_at(f, code, sizeof(code));
    assert_int_equal(pthread_create(&thread, NULL, run_thread, f), 0);
    /* A kick before KVM_RUN has begun is nobody's: kick until it has ended. */
    do {
        struct timespec pause = { .tv_nsec = 50000000 };
        nanosleep(&pause, NULL);
        assert_int_equal(softkvm_kick(f->cpu), 0);
    } while (pthread_tryjoin_np(thread, &result) != 0);
    assert_int_equal((intptr_t)result, -EINTR);
    struct kvm_mp_state mp;
    assert_int_equal(ctl(f->cpu, KVM_GET_MP_STATE, &mp), 0);
    assert_int_equal(mp.mp_state, KVM_MP_STATE_HALTED);
}

static void objects_outlive_their_descriptors(void **state)
{
    (void)state;
    struct fixture f;
    static const uint8_t code[] = { 0xf4 };
    make_vm(&f, false);
    start_at(&f, code, sizeof(code));
    assert_int_equal(softkvm_close(f.sys), 0);
    assert_int_equal(softkvm_close(f.vm), 0);
    assert_int_equal(run(&f), 0); /* the vCPU keeps its VM */
    assert_int_equal(f.run->exit_reason, KVM_EXIT_HLT);
    int copy = dup(f.cpu);
    assert_int_equal(softkvm_dup(f.cpu, copy), 0);
    assert_int_equal(softkvm_close(f.cpu), 0);
    f.cpu = copy;
    start_at(&f, code, sizeof(code));
    assert_int_equal(run(&f), 0);
    pid_t child = fork();
    if (child == 0) {
        _exit(run(&f) < 0 && errno == EIO ? 0 : 1); /* another address space */
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(softkvm_close(copy), 0);
    expect_errno(softkvm_close(copy), EBADF);
    munmap(f.run, 3 * 4096);
    munmap(f.ram, RAM_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define I(name) cmocka_unit_test_setup_teardown(name, setup_irqchip, teardown)
        T(port_and_memory_exits_and_hlt),
        T(immediate_exit_completes_what_is_pending),
        T(shutdown_after_a_triple_fault),
        T(errors_are_those_of_kvm),
        T(state_goes_out_and_in),
        T(msr_accesses_go_to_a_client_that_asks),
        T(tscs_are_in_step),
        T(quirks_can_be_disabled),
        T(vm_capabilities_bind),
        T(a_shorter_count_ends_a_string_input),
        T(code_outside_ram_is_an_internal_error),
        T(absent_memory_is_efault),
        T(dirty_log_tells_written_pages),
        T(doorbells_do_not_exit),
        I(irqfd_wakes_a_halted_vcpu),
        I(kick_ends_a_halt),
        cmocka_unit_test(objects_outlive_their_descriptors),
#undef T
#undef I
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
