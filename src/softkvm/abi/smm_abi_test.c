/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SMM as a client of the ABI sees it: KVM_SMI, the second address space, vcpu_events.smi.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/bits.h"
#include "softkvm/abi/abi_test.h"

enum { SMRAM = 0x30000, SMM_SLOT = 1 << 16 };

static uint8_t *smram; /* what the vCPU sees at SMRAM in SMM */

/* Real mode code at 1000h that writes to ports 1 and 2; a handler that writes to port 3. */
static int setup(void **state)
{
    static struct fixture f;
    static const uint8_t code[] = { 0xe6, 1, 0xe6, 2, 0xf4 };
    static const uint8_t handler[] = { 0xe6, 3, 0x0f, 0xaa };
    make_vm(&f, true);
    smram = add_memory(f.vm, SMM_SLOT, SMRAM);
    memcpy(smram + 0x8000, handler, sizeof(handler));
    start_at(&f, code, sizeof(code));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    end_vm(*state);
    munmap(smram, RAM_SIZE);
    return 0;
}

static void expect_port(struct fixture *f, unsigned port, bool smm)
{
    assert_int_equal(ctl(f->cpu, KVM_RUN, NULL), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_IO);
    assert_int_equal(f->run->io.port, port);
    assert_int_equal(f->run->flags & KVM_RUN_X86_SMM, smm ? KVM_RUN_X86_SMM : 0);
}

static struct kvm_vcpu_events events(struct fixture *f)
{
    struct kvm_vcpu_events e;
    assert_int_equal(ctl(f->cpu, KVM_GET_VCPU_EVENTS, &e), 0);
    assert_true((e.flags & KVM_VCPUEVENT_VALID_SMM) != 0);
    return e;
}

static void an_smi_runs_the_handler(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ctl(f->vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_X86_SMM), 1);
    assert_int_equal(ctl(f->vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_MULTI_ADDRESS_SPACE), 2);
    expect_port(f, 1, false);
    assert_int_equal(ctl(f->cpu, KVM_SMI, NULL), 0);
    assert_int_equal(events(f).smi.pending, 1);
    expect_port(f, 3, true);
    assert_int_equal(events(f).smi.pending, 0);
    assert_int_equal(events(f).smi.smm, 1);
    assert_int_equal(le32_get(smram + 0xfefc) & 0xffff0000, 0x20000); /* the revision */
    expect_port(f, 2, false);
    assert_int_equal(events(f).smi.smm, 0);
}

static void events_ask_for_it_too(void **state)
{
    struct fixture *f = *state;
    struct kvm_vcpu_events e = events(f);
    struct kvm_mp_state m = { .mp_state = KVM_MP_STATE_INIT_RECEIVED };
    e.smi.pending = 1;
    assert_int_equal(ctl(f->cpu, KVM_SET_VCPU_EVENTS, &e), 0);
    assert_int_equal(ctl(f->cpu, KVM_SET_MP_STATE, &m), -1); /* SMM holds INIT back */
    assert_int_equal(errno, EINVAL);
    expect_port(f, 3, true);
    /* Taken out of SMM the vCPU runs on where it is, in the memory of everybody else. */
    e = events(f);
    e.smi.smm = 0;
    assert_int_equal(ctl(f->cpu, KVM_SET_VCPU_EVENTS, &e), 0);
    assert_int_equal(ctl(f->cpu, KVM_RUN, NULL), 0);
    assert_int_equal(f->run->exit_reason, KVM_EXIT_INTERNAL_ERROR); /* no memory at 38000h */
    assert_int_equal(ctl(f->cpu, KVM_SET_MP_STATE, &m), 0);
    e.smi.smm = 1;
    assert_int_equal(ctl(f->cpu, KVM_SET_VCPU_EVENTS, &e), -1);
    assert_int_equal(errno, EINVAL);
}

static void an_ipi_to_itself(void **state)
{
    struct fixture *f = *state;
    /* mov dword [fs:0],...: the ICR of the local APIC, reached by a flat FS */
    static const uint8_t code[] = { 0x64, 0x66, 0x67, 0xc7, 0x05, 0,    3, 0xe0,
                                    0xfe, 0x00, 0x42, 0x04, 0x00, 0xe6, 2, 0xf4 };
    struct kvm_sregs s;
    memcpy(f->ram + 0x1000, code, sizeof(code));
    assert_int_equal(ctl(f->cpu, KVM_GET_SREGS, &s), 0);
    s.fs.limit = 0xffffffff;
    s.fs.g = 1;
    assert_int_equal(ctl(f->cpu, KVM_SET_SREGS, &s), 0);
    expect_port(f, 3, true);
    expect_port(f, 2, false);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(an_smi_runs_the_handler),
        T(events_ask_for_it_too),
        T(an_ipi_to_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
