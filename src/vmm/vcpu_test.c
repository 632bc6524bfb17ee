/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vCPU threads over an engine of fakes: a script plays the guest. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/hv_fake.h"
#include "vmm/layout.h"
#include "vmm/vcpu.h"

static struct {
    struct vm vm;
    struct vcpu_set *set;
    struct bus *pio, *mmio;
    struct kvm_cpuid2 *cpuid;

    _Atomic unsigned step; /* of the script, vCPU 0 */
    _Atomic unsigned entries_with_immediate_exit;
    unsigned writes, reads;
    uint64_t last_offset, last_value;
    unsigned last_size;

    pthread_mutex_t lock;
    unsigned events;
    enum vcpu_event event;
    char text[256];
} t = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint64_t dev_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    t.reads++;
    t.last_offset = offset;
    t.last_size = size;
    return UINT64_C(0x8877665544332211) >> (8 * (offset & 7));
}

static void dev_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)opaque;
    t.writes++;
    t.last_offset = offset;
    t.last_size = size;
    t.last_value = value;
}

static const struct bus_ops dev_ops = { .read = dev_read, .write = dev_write };
static struct bus_region pio_region = { .name = "p", .size = 8, .ops = &dev_ops };
static struct bus_region mmio_region = { .name = "m", .size = 64, .ops = &dev_ops };

static void on_event(void *opaque, unsigned index, enum vcpu_event event, const char *text)
{
    (void)opaque;
    (void)index;
    pthread_mutex_lock(&t.lock);
    t.events++;
    t.event = event;
    (void)snprintf(t.text, sizeof(t.text), "%s", text != NULL ? text : "");
    pthread_mutex_unlock(&t.lock);
}

static void make(unsigned count)
{
    struct err err = ERR_INIT;
    int fd;
    hv_fake_reset();
    t.step = 0;
    t.entries_with_immediate_exit = 0;
    t.writes = t.reads = t.events = 0;
    hv_fake_state.mp_state[1] = KVM_MP_STATE_UNINITIALIZED;
    assert_int_equal(hv_fake.open(&fd, &err), 0);
    assert_int_equal(vm_init(&t.vm, &hv_fake, fd, &err), 0);
    t.pio = bus_new("p", 65536);
    t.mmio = bus_new("m", BIT64(40));
    assert_int_equal(bus_map(t.pio, &pio_region, 0x100, &err), 0);
    assert_int_equal(bus_map(t.mmio, &mmio_region, 0xd0000000, &err), 0);
    t.cpuid = calloc(1, sizeof(*t.cpuid));
    struct vcpu_config config = {
        .vm = &t.vm,
        .cpuid = t.cpuid,
        .count = count,
        .pio = t.pio,
        .mmio = t.mmio,
        .event = on_event,
    };
    assert_int_equal(vcpu_set_new(&config, &t.set, &err), 0);
}

static void unmake(void)
{
    vcpu_set_free(t.set);
    bus_unmap(&pio_region);
    bus_unmap(&mmio_region);
    bus_free(t.pio);
    bus_free(t.mmio);
    free(t.cpuid);
    vm_done(&t.vm);
}

/* Starts, lets the guest run until its script has `steps` behind it, and parks. */
static void play(int (*script)(unsigned index, struct kvm_run *run), unsigned steps)
{
    struct err err = ERR_INIT;
    hv_fake_state.run = script;
    assert_int_equal(vcpu_set_start(t.set, &err), 0);
    vcpu_set_run(t.set);
    for (unsigned i = 0; t.step < steps && i < 10000; i++) {
        usleep(1000);
    }
    assert_int_equal((unsigned)t.step, steps);
    vcpu_set_park(t.set);
    vcpu_set_wait_parked(t.set);
}

/* What an idle guest does: nothing until somebody kicks. */
static int idle(struct kvm_run *run)
{
    if (__atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE) == 0) {
        usleep(1000);
    }
    return -EINTR;
}

static int port_io(unsigned index, struct kvm_run *run)
{
    (void)index;
    uint8_t *data = (uint8_t *)run + 4096;
    switch ((unsigned)t.step) {
    case 0: /* REP OUTSB of three bytes */
        run->exit_reason = KVM_EXIT_IO;
        run->io.direction = KVM_EXIT_IO_OUT;
        run->io.size = 1;
        run->io.port = 0x101;
        run->io.count = 3;
        run->io.data_offset = 4096;
        memcpy(data, "abc", 3);
        t.step++;
        return 0;
    case 1: /* IN of two bytes, then of a port where nobody is */
        run->exit_reason = KVM_EXIT_IO;
        run->io.direction = KVM_EXIT_IO_IN;
        run->io.size = 2;
        run->io.port = 0x102;
        run->io.count = 1;
        run->io.data_offset = 4096;
        t.step++;
        return 0;
    case 2:
        run->io.port = 0x9000;
        run->io.size = 4;
        if (data[0] != 0x33 || data[1] != 0x44) {
            return -EIO;
        }
        t.step++;
        return 0;
    case 3:
        if (memcmp(data, "\xff\xff\xff\xff", 4) != 0) {
            return -EIO;
        }
        t.step++;
        return -EINTR;
    default:
        return idle(run);
    }
}

static void ports_are_dispatched(void **state)
{
    (void)state;
    make(1);
    play(port_io, 4);
    assert_int_equal(t.writes, 3);
    assert_int_equal(t.last_value, 'c');
    assert_int_equal(t.reads, 1);
    assert_int_equal(t.events, 0);
    assert_int_equal(vcpu_set_stats(t.set, 0).io, 3);
    unmake();
}

static int memory_io(unsigned index, struct kvm_run *run)
{
    (void)index;
    run->exit_reason = KVM_EXIT_MMIO;
    switch ((unsigned)t.step) {
    case 0: /* three bytes, the tail of an access across a page: two and one */
        run->mmio.phys_addr = 0xd0000000;
        run->mmio.len = 3;
        run->mmio.is_write = 0;
        t.step++;
        return 0;
    case 1:
        if (memcmp(run->mmio.data, "\x11\x22\x33", 3) != 0) {
            return -EIO;
        }
        run->mmio.phys_addr = 0xd0000008;
        run->mmio.len = 8;
        run->mmio.is_write = 1;
        le64_put(run->mmio.data, UINT64_C(0x0123456789abcdef));
        t.step++;
        return 0;
    case 2:
        t.step++;
        return -EINTR;
    default:
        return idle(run);
    }
}

static void memory_is_dispatched(void **state)
{
    (void)state;
    make(1);
    play(memory_io, 3);
    assert_int_equal(t.reads, 2);
    assert_int_equal(t.writes, 1);
    assert_int_equal(t.last_size, 8);
    assert_int_equal(t.last_offset, 8);
    assert_true(t.last_value == UINT64_C(0x0123456789abcdef));
    assert_int_equal(t.events, 0);
    unmake();
}

/* The park is asked for while the exit is being handled: the engine is entered once more. */
static int read_and_park(unsigned index, struct kvm_run *run)
{
    (void)index;
    if (t.step == 0) {
        run->exit_reason = KVM_EXIT_IO;
        run->io.direction = KVM_EXIT_IO_IN;
        run->io.size = 1;
        run->io.port = 0x100;
        run->io.count = 1;
        run->io.data_offset = 4096;
        vcpu_set_park(t.set);
        t.step++;
        return 0;
    }
    if (run->immediate_exit != 0) {
        t.entries_with_immediate_exit++;
    }
    return idle(run);
}

static void no_exit_is_left_half_done(void **state)
{
    (void)state;
    make(1);
    play(read_and_park, 1);
    assert_int_equal(t.reads, 1);
    assert_int_equal(t.entries_with_immediate_exit, 1);
    unmake();
}

static int triple_fault(unsigned index, struct kvm_run *run)
{
    if (index == 0 && t.step == 0) {
        run->exit_reason = KVM_EXIT_SHUTDOWN;
        t.step++;
        return 0;
    }
    return idle(run);
}

static void a_triple_fault_parks_all(void **state)
{
    (void)state;
    make(2);
    play(triple_fault, 1);
    assert_int_equal(t.events, 1);
    assert_int_equal(t.event, VCPU_EVENT_TRIPLE_FAULT);
    /* It can go on, after a reset. */
    struct err err = ERR_INIT;
    struct boot_state boot = { .mode = BOOT_MODE_RESET };
    assert_int_equal(vcpu_set_reset(t.set, &boot, &err), 0);
    vcpu_set_run(t.set);
    vcpu_set_park(t.set);
    vcpu_set_wait_parked(t.set);
    assert_int_equal(t.events, 1);
    unmake();
}

static int bad_instruction(unsigned index, struct kvm_run *run)
{
    (void)index;
    if (t.step == 0) {
        run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
        run->emulation_failure.ndata = 4;
        run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
        run->emulation_failure.insn_size = 2;
        run->emulation_failure.insn_bytes[0] = 0x0f;
        run->emulation_failure.insn_bytes[1] = 0xc7;
        t.step++;
        return 0;
    }
    return idle(run);
}

static void an_engine_failure_shows_the_instruction(void **state)
{
    (void)state;
    make(1);
    play(bad_instruction, 1);
    assert_int_equal(t.event, VCPU_EVENT_FAILED);
    assert_non_null(strstr(t.text, "0f c7"));
    unmake();
}

static int unknown_exit(unsigned index, struct kvm_run *run)
{
    (void)index;
    if (t.step == 0) {
        run->exit_reason = 4242;
        t.step++;
        return 0;
    }
    return idle(run);
}

static void an_unknown_exit_is_named(void **state)
{
    (void)state;
    make(1);
    play(unknown_exit, 1);
    assert_int_equal(t.event, VCPU_EVENT_FAILED);
    assert_non_null(strstr(t.text, "4242"));
    unmake();
}

static int run_fails(unsigned index, struct kvm_run *run)
{
    (void)index;
    (void)run;
    return t.step++ == 0 ? -EFAULT : -EINTR;
}

static void a_failing_run_is_reported_once(void **state)
{
    (void)state;
    make(1);
    play(run_fails, 1);
    assert_int_equal(t.events, 1);
    assert_int_equal(t.event, VCPU_EVENT_FAILED);
    assert_int_equal(t.step, 1); /* a dead vCPU is not entered again */
    unmake();
}

static void boot_states_become_registers(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    make(2);
    struct boot_state boot = { .mode = BOOT_MODE_LONG64, .entry = 0x1000200, .rsi = 0x7000 };
    assert_int_equal(vcpu_set_reset(t.set, &boot, &err), 0);
    assert_int_equal(hv_fake_state.regs[0].rip, 0x1000200);
    assert_int_equal(hv_fake_state.regs[0].rsi, 0x7000);
    assert_int_equal(hv_fake_state.regs[0].rsp, LAYOUT_BOOT_STACK);
    assert_int_equal(hv_fake_state.regs[0].rflags, 2);
    assert_int_equal(hv_fake_state.sregs[0].cr3, LAYOUT_BOOT_PML4);
    assert_int_equal(hv_fake_state.sregs[0].efer, 0x500);
    assert_int_equal(hv_fake_state.sregs[0].cr0, 0x80000011);
    assert_int_equal(hv_fake_state.sregs[0].cs.l, 1);
    /* The other waits, in its power-on state. */
    assert_int_equal(hv_fake_state.mp_state[1], KVM_MP_STATE_UNINITIALIZED);
    assert_int_equal(hv_fake_state.sregs[1].cr0, 0);

    boot = (struct boot_state){ .mode = BOOT_MODE_PROT32, .entry = 0x100000, .rbx = 0x6000 };
    assert_int_equal(vcpu_set_reset(t.set, &boot, &err), 0);
    assert_int_equal(hv_fake_state.regs[0].rbx, 0x6000);
    assert_int_equal(hv_fake_state.regs[0].rsi, 0);
    assert_int_equal(hv_fake_state.sregs[0].cr0, 0x11);
    assert_int_equal(hv_fake_state.sregs[0].efer, 0);
    assert_int_equal(hv_fake_state.sregs[0].cs.l, 0);
    assert_int_equal(hv_fake_state.sregs[0].cs.db, 1);
    unmake();
}

static void exit_reasons_are_unique(void **state)
{
    (void)state;
    static const uint32_t reasons[] = {
#define EXIT(reason, handler, name) reason,
#include "vmm/exits.def"
#undef EXIT
    };
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(reasons[i], reasons[j]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_are_dispatched),
        cmocka_unit_test(memory_is_dispatched),
        cmocka_unit_test(no_exit_is_left_half_done),
        cmocka_unit_test(a_triple_fault_parks_all),
        cmocka_unit_test(an_engine_failure_shows_the_instruction),
        cmocka_unit_test(an_unknown_exit_is_named),
        cmocka_unit_test(a_failing_run_is_reported_once),
        cmocka_unit_test(boot_states_become_registers),
        cmocka_unit_test(exit_reasons_are_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
