/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm_para.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "softkvm/irqchip/irqchip.h"
#include "softkvm/pv/pv.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/phys.h"
#include "softkvm/x86/tsc.h"

#define NSEC            UINT64_C(1000000000)
#define STEAL_PERIOD_NS UINT64_C(100000)

/* struct pvclock_vcpu_time_info (msr.rst, MSR_KVM_SYSTEM_TIME_NEW). */
struct time_info {
    uint32_t version;
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad[2];
};
static_assert(sizeof(struct time_info) == 32, "pvclock_vcpu_time_info");

#define TIME_TSC_STABLE    1
#define TIME_GUEST_STOPPED 2

static uint64_t host_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec;
}

uint64_t pv_clock_now(const struct pv_clock_vm *vm)
{
    return host_ns() + (uint64_t)atomic_load_explicit(&vm->offset_ns, memory_order_relaxed);
}

void pv_clock_set(struct pv_clock_vm *vm, uint64_t ns)
{
    atomic_store_explicit(&vm->offset_ns, (int64_t)(ns - host_ns()), memory_order_relaxed);
}

uint64_t pv_realtime_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec;
}

void pv_clock_sample(const struct pv_clock_vm *vm, uint64_t *ret_ns, uint64_t *ret_realtime_ns,
                     uint64_t *ret_tsc)
{
    *ret_ns = pv_clock_now(vm);
    *ret_realtime_ns = pv_realtime_ns();
    *ret_tsc = __rdtsc();
}

bool pv_offered(const struct sk_vcpu *c, const struct pv_clock_vcpu *v, unsigned feature)
{
    for (unsigned i = 0; v->enforce && i < c->cpuid_n; i++) {
        if (c->cpuid[i].function == KVM_CPUID_FEATURES) {
            return (c->cpuid[i].eax >> feature & 1) != 0;
        }
    }
    return !v->enforce;
}

unsigned pv_cpuid(struct sk_cpuid_entry *ret)
{
    ret[0] = (struct sk_cpuid_entry){ .function = KVM_CPUID_SIGNATURE,
                                      .eax = KVM_CPUID_FEATURES,
                                      .ebx = 0x4b4d564b, /* "KVMKVMKVM\0\0\0" */
                                      .ecx = 0x564b4d56,
                                      .edx = 0x4d };
    ret[1] = (struct sk_cpuid_entry){
        .function = KVM_CPUID_FEATURES,
        .eax = BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_NOP_IO_DELAY) |
               BIT(KVM_FEATURE_CLOCKSOURCE2) | BIT(KVM_FEATURE_STEAL_TIME) |
               BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_POLL_CONTROL) |
               BIT(KVM_FEATURE_PV_SEND_IPI) | BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT),
    };
    return 2;
}

/* Multiplier and shift by which a guest turns TSC ticks into ns: ns = (ticks << shift) * mul >> 32.
 */
static void scale_for(uint32_t tsc_khz, uint32_t *ret_mul, int8_t *ret_shift)
{
    uint64_t hz = (uint64_t)tsc_khz * 1000;
    int shift = 0;
    while (hz > 2 * NSEC) {
        hz >>= 1;
        shift--;
    }
    while (hz <= NSEC) {
        hz <<= 1;
        shift++;
    }
    *ret_mul = (uint32_t)((NSEC << 32) / hz);
    *ret_shift = (int8_t)shift;
}

static void write_time(struct sk_vcpu *c, struct pv_clock_vm *vm, struct pv_clock_vcpu *v)
{
    uint64_t gpa = v->system_time_msr & ~UINT64_C(1);
    struct time_info *shared = (struct time_info *)sk_phys_ptr_normal(c, gpa, true);
    if (shared == NULL || (gpa & 4095) + sizeof(*shared) > 4096) {
        return;
    }
    /* Both clocks at one moment, as near as user space gets: the middle of two TSC reads. */
    uint64_t t0 = __rdtsc();
    uint64_t ns = pv_clock_now(vm);
    uint64_t t1 = __rdtsc();
    struct time_info info = {
        .tsc_timestamp = sk_tsc_scale(c, t0 + (t1 - t0) / 2),
        .system_time = ns,
        .flags = (uint8_t)(TIME_TSC_STABLE | (v->guest_stopped ? TIME_GUEST_STOPPED : 0)),
    };
    v->guest_stopped = false;
    scale_for(sk_tsc_khz(c), &info.tsc_to_system_mul, &info.tsc_shift);
    /* Odd while it is being written; other vCPUs may read it. */
    uint32_t version = (le32_get(&shared->version) | 1) + 2;
    __atomic_store_n(&shared->version, version, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)shared + 8, (const char *)&info + 8, sizeof(info) - 8);
    __atomic_store_n(&shared->version, version + 1, __ATOMIC_RELEASE);
}

static void write_wall(struct sk_vcpu *c, struct pv_clock_vm *vm, uint64_t gpa)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t boot = (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec - pv_clock_now(vm);
    uint32_t wall[3] = { 0 };
    sk_phys_read(c, gpa, &wall[0], 4);
    uint32_t version = (wall[0] | 1) + 2;
    sk_phys_write(c, gpa, &version, 4);
    wall[1] = (uint32_t)(boot / NSEC);
    wall[2] = (uint32_t)(boot % NSEC);
    sk_phys_write(c, gpa + 4, &wall[1], 8);
    version++;
    sk_phys_write(c, gpa, &version, 4);
}

/* Time that this vCPU's thread was runnable and did not run: the second figure of schedstat. */
static uint64_t thread_run_delay_ns(int fd)
{
    char text[96];
    ssize_t n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : -1;
    uint64_t delay = 0;
    if (n > 0) {
        text[n] = '\0';
        if (sscanf(text, "%*u %" SCNu64, &delay) != 1) {
            delay = 0;
        }
    }
    return delay;
}

static void write_steal(struct sk_vcpu *c, struct pv_clock_vcpu *v)
{
    uint64_t gpa = v->steal_msr & ~UINT64_C(63);
    struct kvm_steal_time *shared = (struct kvm_steal_time *)sk_phys_ptr_normal(c, gpa, true);
    if (shared == NULL) {
        return;
    }
    /* Asking the host takes a microsecond or two: every 100 us is enough. */
    uint64_t delay = v->last_delay_ns;
    uint64_t now = host_ns();
    if (now - v->steal_read_ns >= STEAL_PERIOD_NS) {
        delay = thread_run_delay_ns(v->schedstat_fd);
        v->steal_read_ns = now;
    }
    uint32_t version = (le32_get(&shared->version) | 1) + 2;
    __atomic_store_n(&shared->version, version, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    le64_put(&shared->steal, le64_get(&shared->steal) + (delay - v->last_delay_ns));
    le32_put(&shared->flags, 0);
    shared->preempted = 0;
    __atomic_store_n(&shared->version, version + 1, __ATOMIC_RELEASE);
    v->last_delay_ns = delay;
}

void pv_steal_refresh(struct sk_vcpu *c, struct pv_clock_vcpu *v)
{
    if ((v->steal_msr & KVM_MSR_ENABLED) != 0) {
        write_steal(c, v);
    }
}

static int enable_steal(struct sk_vcpu *c, struct pv_clock_vcpu *v, uint64_t val)
{
    if ((val & 0x3e) != 0) { /* reserved bits */
        return 1;
    }
    v->steal_msr = val;
    if ((val & KVM_MSR_ENABLED) != 0) {
        if (v->schedstat_fd < 0 && !v->no_files) {
            /* On the vCPU's own thread. Where /proc is out of reach the guest sees no steal. */
            v->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        }
        v->last_delay_ns = thread_run_delay_ns(v->schedstat_fd);
        write_steal(c, v);
    }
    return 0;
}

void pv_clock_vcpu_init(struct pv_clock_vcpu *v, bool no_files)
{
    *v = (struct pv_clock_vcpu){ .schedstat_fd = -1, .no_files = no_files, .poll_control = 1 };
}

void pv_clock_vcpu_done(struct pv_clock_vcpu *v)
{
    if (v->schedstat_fd >= 0) {
        close(v->schedstat_fd);
    }
}

void pv_clock_refresh(struct sk_vcpu *c, struct pv_clock_vm *vm, struct pv_clock_vcpu *v)
{
    if ((v->system_time_msr & 1) != 0) {
        write_time(c, vm, v);
    }
}

unsigned pv_msr_list(uint32_t *ret, unsigned max)
{
    static const uint32_t list[] = { MSR_KVM_WALL_CLOCK,     MSR_KVM_SYSTEM_TIME,
                                     MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW,
                                     MSR_KVM_STEAL_TIME,     MSR_KVM_PV_EOI_EN,
                                     MSR_KVM_POLL_CONTROL };
    for (unsigned i = 0; i < ARRAY_LEN(list) && i < max; i++) {
        ret[i] = list[i];
    }
    return ARRAY_LEN(list);
}

static bool msr_offered(const struct sk_vcpu *c, const struct pv_clock_vcpu *v, uint32_t index)
{
    switch (index) {
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_SYSTEM_TIME:
        return pv_offered(c, v, KVM_FEATURE_CLOCKSOURCE);
    case MSR_KVM_WALL_CLOCK_NEW:
    case MSR_KVM_SYSTEM_TIME_NEW:
        return pv_offered(c, v, KVM_FEATURE_CLOCKSOURCE2);
    case MSR_KVM_STEAL_TIME:
        return pv_offered(c, v, KVM_FEATURE_STEAL_TIME);
    case MSR_KVM_PV_EOI_EN:
        return pv_offered(c, v, KVM_FEATURE_PV_EOI);
    case MSR_KVM_POLL_CONTROL:
        return pv_offered(c, v, KVM_FEATURE_POLL_CONTROL);
    default:
        return true;
    }
}

int pv_rdmsr(struct sk_vcpu *c, struct pv_clock_vm *vm, struct pv_clock_vcpu *v, uint32_t index,
             uint64_t *ret)
{
    if (!msr_offered(c, v, index)) {
        return 1;
    }
    switch (index) {
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_NEW:
        *ret = atomic_load_explicit(&vm->wall_msr, memory_order_relaxed);
        return 0;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_NEW:
        *ret = v->system_time_msr;
        return 0;
    case MSR_KVM_STEAL_TIME:
        *ret = v->steal_msr;
        return 0;
    case MSR_KVM_PV_EOI_EN:
        *ret = sk_lapic_get_pv_eoi(c);
        return 0;
    case MSR_KVM_POLL_CONTROL:
        *ret = v->poll_control;
        return 0;
    default:
        return -1;
    }
}

int pv_wrmsr(struct sk_vcpu *c, struct pv_clock_vm *vm, struct pv_clock_vcpu *v, uint32_t index,
             uint64_t val)
{
    if (!msr_offered(c, v, index)) {
        return 1;
    }
    switch (index) {
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_NEW:
        atomic_store_explicit(&vm->wall_msr, val, memory_order_relaxed);
        if (val != 0) {
            write_wall(c, vm, val);
        }
        return 0;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_NEW:
        v->system_time_msr = val;
        pv_clock_refresh(c, vm, v);
        return 0;
    case MSR_KVM_STEAL_TIME:
        return enable_steal(c, v, val);
    case MSR_KVM_PV_EOI_EN:
        return sk_lapic_set_pv_eoi(c, val);
    case MSR_KVM_POLL_CONTROL:
        if ((val & ~UINT64_C(1)) != 0) {
            return 1;
        }
        v->poll_control = val;
        return 0;
    default:
        return -1;
    }
}
