/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * State that is read from one VM and set into a fresh one continues: a guest of tests/guest is
 * moved to a new VM, with a copy of its memory, at random moments until it ends. What it prints
 * must be what it prints when it is left alone.
 *
 *     sk_state IMAGE EXPECTED CPUS [ROUNDS [SEED]]
 */
#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bits.h"
#include "softkvm/softkvm.h"

enum { CPUS = 4, RAM = 4 * MIB, OUT_SIZE = 65536, LOAD = 0x100000, MOVES = 20 };

struct cpu {
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    struct vm *vm;
};

struct vm {
    int fd;
    unsigned n;
    uint8_t *ram;
    struct cpu cpu[CPUS];
};

/* All of a vCPU. */
struct cpu_state {
    struct kvm_mp_state mp;
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debug;
    struct kvm_vcpu_events events;
    struct kvm_lapic_state lapic;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry e[256];
    } msrs;
};

static int sys;
static struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 e[100];
} cpuid;
static struct {
    struct kvm_msr_list head;
    uint32_t index[256];
} msr_list;
static char out[OUT_SIZE];
static size_t out_len;
static atomic_bool stopping, ended;
static atomic_long exits_left; /* to the next stop */
static atomic_long exits;
static unsigned moves;
static uint64_t rng;

static uint64_t rnd(uint64_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % below;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "sk_state: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int ctl(int fd, unsigned long request, const void *arg, const char *what)
{
    int rc = softkvm_ioctl(fd, request, (unsigned long)arg);

    if (rc < 0) {
        die(what);
    }
    return rc;
}
#define CTL(fd, request, arg) ctl(fd, request, arg, #request)

/* MTRRs and the deadline are not in the list (KVM api.rst 4.3 leaves it to the client). */
static void init_lists(void)
{
    static const uint32_t fixed[] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                      0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x2ff };

    cpuid.head.nent = ARRAY_LEN(cpuid.e);
    CTL(sys, KVM_GET_SUPPORTED_CPUID, &cpuid);
    msr_list.head.nmsrs = 200;
    CTL(sys, KVM_GET_MSR_INDEX_LIST, &msr_list);
    for (unsigned i = 0; i < ARRAY_LEN(fixed); i++) {
        msr_list.index[msr_list.head.nmsrs++] = fixed[i];
    }
    for (uint32_t m = 0x200; m < 0x210; m++) {
        msr_list.index[msr_list.head.nmsrs++] = m;
    }
}

static void vm_make(struct vm *vm, unsigned cpus)
{
    struct kvm_userspace_memory_region r = { .memory_size = RAM };
    struct kvm_pit_config pit = { 0 };

    vm->fd = CTL(sys, KVM_CREATE_VM, NULL);
    vm->n = cpus;
    vm->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vm->ram == MAP_FAILED) {
        die("mmap");
    }
    r.userspace_addr = (uintptr_t)vm->ram;
    CTL(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
    CTL(vm->fd, KVM_CREATE_IRQCHIP, NULL);
    CTL(vm->fd, KVM_CREATE_PIT2, &pit);
    for (unsigned i = 0; i < cpus; i++) {
        struct cpu *c = &vm->cpu[i];

        c->vm = vm;
        c->fd = ctl(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)i, "KVM_CREATE_VCPU");
        c->run = softkvm_mmap(c->fd, 3 * 4096);
        if (c->run == MAP_FAILED) {
            die("mmap of kvm_run");
        }
        for (unsigned k = 0; k < cpuid.head.nent; k++) {
            if (cpuid.e[k].function == 1) {
                cpuid.e[k].ebx = (cpuid.e[k].ebx & 0xffffff) | i << 24;
            }
        }
        CTL(c->fd, KVM_SET_CPUID2, &cpuid);
    }
}

static void vm_free(struct vm *vm)
{
    for (unsigned i = 0; i < vm->n; i++) {
        (void)munmap(vm->cpu[i].run, 3 * 4096);
        (void)softkvm_close(vm->cpu[i].fd);
    }
    (void)softkvm_close(vm->fd);
    (void)munmap(vm->ram, RAM);
}

/* --- state --- */

static void cpu_get(const struct cpu *c, struct cpu_state *s)
{
    memset(s, 0, sizeof(*s));
    CTL(c->fd, KVM_GET_MP_STATE, &s->mp);
    CTL(c->fd, KVM_GET_REGS, &s->regs);
    CTL(c->fd, KVM_GET_VCPU_EVENTS, &s->events); /* may move a payload to CR2 or DR6 */
    CTL(c->fd, KVM_GET_SREGS2, &s->sregs);
    CTL(c->fd, KVM_GET_XSAVE, &s->xsave);
    CTL(c->fd, KVM_GET_XCRS, &s->xcrs);
    CTL(c->fd, KVM_GET_DEBUGREGS, &s->debug);
    CTL(c->fd, KVM_GET_LAPIC, &s->lapic);
    s->msrs.head.nmsrs = msr_list.head.nmsrs;
    for (unsigned i = 0; i < msr_list.head.nmsrs; i++) {
        s->msrs.e[i].index = msr_list.index[i];
    }
    if (CTL(c->fd, KVM_GET_MSRS, &s->msrs) != (int)msr_list.head.nmsrs) {
        die("KVM_GET_MSRS stopped");
    }
}

static void cpu_set(const struct cpu *c, struct cpu_state *s)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry e[1];
    } deadline = { .head = { .nmsrs = 1 } };
    int n;

    CTL(c->fd, KVM_SET_REGS, &s->regs);
    CTL(c->fd, KVM_SET_XSAVE, &s->xsave);
    CTL(c->fd, KVM_SET_XCRS, &s->xcrs);
    CTL(c->fd, KVM_SET_SREGS2, &s->sregs);
    n = CTL(c->fd, KVM_SET_MSRS, &s->msrs);
    if (n != (int)s->msrs.head.nmsrs) {
        fprintf(stderr, "sk_state: MSR %#x refused\n", s->msrs.e[n].index);
        exit(2);
    }
    CTL(c->fd, KVM_SET_LAPIC, &s->lapic);
    CTL(c->fd, KVM_SET_VCPU_EVENTS, &s->events);
    CTL(c->fd, KVM_SET_MP_STATE, &s->mp);
    CTL(c->fd, KVM_SET_DEBUGREGS, &s->debug);
    for (unsigned i = 0; i < s->msrs.head.nmsrs; i++) {
        if (s->msrs.e[i].index == 0x6e0) { /* counts only once the LAPIC is in deadline mode */
            deadline.e[0] = s->msrs.e[i];
            CTL(c->fd, KVM_SET_MSRS, &deadline);
        }
    }
}

/* The new VM says of itself what it was told; time alone goes on (TSC, local APIC). */
static void cpu_same(unsigned cpu, const struct cpu_state *a, const struct cpu_state *b)
{
    const char *what = memcmp(&a->mp, &b->mp, sizeof(a->mp)) != 0               ? "mp_state"
                       : memcmp(&a->regs, &b->regs, sizeof(a->regs)) != 0       ? "regs"
                       : memcmp(&a->sregs, &b->sregs, sizeof(a->sregs)) != 0    ? "sregs2"
                       : memcmp(&a->xsave, &b->xsave, sizeof(a->xsave)) != 0    ? "xsave"
                       : memcmp(&a->xcrs, &b->xcrs, sizeof(a->xcrs)) != 0       ? "xcrs"
                       : memcmp(&a->debug, &b->debug, sizeof(a->debug)) != 0    ? "debugregs"
                       : memcmp(&a->events, &b->events, sizeof(a->events)) != 0 ? "vcpu_events"
                                                                                : NULL;
    if (what != NULL) {
        fprintf(stderr, "sk_state: CPU %u: %s is not the same when read again\n", cpu, what);
        exit(1);
    }
    for (unsigned i = 0; i < a->msrs.head.nmsrs; i++) {
        if (a->msrs.e[i].data != b->msrs.e[i].data && a->msrs.e[i].index != 0x10) {
            fprintf(stderr, "sk_state: CPU %u: MSR %#x is not the same when read again\n", cpu,
                    a->msrs.e[i].index);
            exit(1);
        }
    }
}

static void vm_move(const struct vm *from, struct vm *to)
{
    struct kvm_clock_data clock;
    struct kvm_pit_state2 pit;

    memcpy(to->ram, from->ram, RAM);
    for (uint32_t i = 0; i < 3; i++) {
        struct kvm_irqchip chip = { .chip_id = i };

        CTL(from->fd, KVM_GET_IRQCHIP, &chip);
        CTL(to->fd, KVM_SET_IRQCHIP, &chip);
    }
    CTL(from->fd, KVM_GET_PIT2, &pit);
    CTL(to->fd, KVM_SET_PIT2, &pit);
    CTL(from->fd, KVM_GET_CLOCK, &clock);
    clock.flags = 0;
    CTL(to->fd, KVM_SET_CLOCK, &clock);
    for (unsigned i = 0; i < from->n; i++) {
        static struct cpu_state s, again;

        cpu_get(&from->cpu[i], &s);
        cpu_set(&to->cpu[i], &s);
        cpu_get(&to->cpu[i], &again);
        cpu_same(i, &s, &again);
    }
    moves++;
}

/* --- running --- */

static void port(const struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)(uintptr_t)run + run->io.data_offset;

    if (run->io.direction == KVM_EXIT_IO_IN) {
        memset(data, run->io.port == 0x3fd ? 0x60 : 0xff, run->io.size * run->io.count);
    } else if (run->io.port == 0x3f8 && out_len < OUT_SIZE - 1) {
        out[out_len++] = (char)*data;
    } else if (run->io.port == 0xf4) {
        atomic_store(&ended, true);
    }
}

static void stop_all(struct vm *vm)
{
    atomic_store(&stopping, true);
    for (unsigned i = 0; i < vm->n; i++) {
        *(volatile uint8_t *)&vm->cpu[i].run->immediate_exit = 1;
        (void)softkvm_kick(vm->cpu[i].fd);
    }
}

/* A vCPU until it is stopped: then what it left for has been completed (KVM api.rst 5). */
static void *cpu_thread(void *arg)
{
    const struct cpu *c = arg;

    for (;;) {
        if (softkvm_ioctl(c->fd, KVM_RUN, 0) < 0) {
            if (errno != EINTR) {
                die("KVM_RUN");
            }
            if (atomic_load(&stopping)) {
                return NULL;
            }
            continue;
        }
        atomic_fetch_add(&exits, 1);
        if (c->run->exit_reason == KVM_EXIT_IO) {
            port(c->run);
        } else if (c->run->exit_reason == KVM_EXIT_MMIO) {
            memset(c->run->mmio.data, 0xff, 8);
        } else {
            fprintf(stderr, "sk_state: exit %u\n", c->run->exit_reason);
            exit(1);
        }
        if (atomic_fetch_sub(&exits_left, 1) == 1 || atomic_load(&ended)) {
            stop_all(c->vm);
        }
    }
}

/* Lets the VM run until some exits have happened or some time is over. */
static void run_for(struct vm *vm, uint64_t ns, long max_exits)
{
    uint64_t end = now_ns() + ns;

    atomic_store(&stopping, false);
    atomic_store(&exits_left, max_exits);
    for (unsigned i = 0; i < vm->n; i++) {
        vm->cpu[i].run->immediate_exit = 0;
    }
    for (unsigned i = 0; i < vm->n; i++) {
        if (pthread_create(&vm->cpu[i].thread, NULL, cpu_thread, &vm->cpu[i]) != 0) {
            die("pthread_create");
        }
    }
    while (!atomic_load(&stopping) && now_ns() < end) {
        struct timespec t = { .tv_nsec = 10000 };

        (void)nanosleep(&t, NULL);
    }
    stop_all(vm);
    for (unsigned i = 0; i < vm->n; i++) {
        (void)pthread_join(vm->cpu[i].thread, NULL);
    }
}

static void load(struct vm *vm, const char *image)
{
    FILE *f = fopen(image, "rbe");
    struct kvm_sregs s;
    struct kvm_regs r = { .rflags = 2, .rax = 0x2badb002 };

    if (f == NULL || fread(vm->ram + LOAD, 1, RAM - LOAD, f) < 32) {
        die(image);
    }
    (void)fclose(f);
    memcpy(&r.rip, vm->ram + LOAD + 28, 4); /* entry: Multiboot 0.6.96 §3.1.3 */
    CTL(vm->cpu[0].fd, KVM_GET_SREGS, &s);
    s.cr0 = 0x11;
    s.cs = (struct kvm_segment){
        .selector = 8, .limit = ~0u, .type = 11, .s = 1, .present = 1, .db = 1, .g = 1
    };
    s.ds = s.cs;
    s.ds.type = 3;
    s.ds.selector = 16;
    s.es = s.fs = s.gs = s.ss = s.ds;
    CTL(vm->cpu[0].fd, KVM_SET_SREGS, &s);
    CTL(vm->cpu[0].fd, KVM_SET_REGS, &r);
}

/* From start to end; with `move`, to a new VM after some time or some exits, MOVES times at most,
 * as a VM takes longer to make than some guests to run. */
static void one(const char *image, unsigned cpus, bool move)
{
    static uint64_t whole_ns = 1; /* of a run without moves */
    static long whole_exits = 1;
    const uint64_t ever = UINT64_C(1) << 60;
    struct vm vm[2];
    unsigned at = 0;

    out_len = 0;
    atomic_store(&ended, false);
    vm_make(&vm[0], cpus);
    load(&vm[0], image);
    if (!move) {
        uint64_t start = now_ns();

        run_for(&vm[0], ever, LONG_MAX);
        whole_ns += now_ns() - start;
        whole_exits += atomic_load(&exits);
    }
    for (unsigned left = MOVES; !atomic_load(&ended); left -= left > 0) {
        bool time = rnd(2);

        run_for(&vm[at], left > 0 && time ? rnd(whole_ns / 4 / MOVES + 1) : ever,
                left > 0 && !time ? 1 + (long)rnd((uint64_t)whole_exits / MOVES + 1) : LONG_MAX);
        if (left > 0 && !atomic_load(&ended)) {
            vm_make(&vm[1 - at], cpus);
            vm_move(&vm[at], &vm[1 - at]);
            vm_free(&vm[at]);
            at = 1 - at;
        }
    }
    out[out_len] = 0;
    vm_free(&vm[at]);
}

int main(int argc, char **argv)
{
    static char expected[OUT_SIZE];
    unsigned cpus, rounds;
    FILE *f;

    if (argc < 4) {
        fputs("usage: sk_state IMAGE EXPECTED CPUS [ROUNDS [SEED]]\n", stderr);
        return 2;
    }
    cpus = (unsigned)strtoul(argv[3], NULL, 0);
    rounds = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 1;
    rng = argc > 5 ? strtoull(argv[5], NULL, 0) | 1 : 88172645463325252;
    f = fopen(argv[2], "rbe");
    if (cpus < 1 || cpus > CPUS || f == NULL) {
        die(argv[2]);
    }
    (void)!fread(expected, 1, OUT_SIZE - 1, f);
    (void)fclose(f);
    sys = softkvm_open();
    if (sys < 0) {
        die("softkvm_open");
    }
    init_lists();
    for (unsigned i = 0; i <= rounds; i++) {
        one(argv[1], cpus, i != 0);
        if (strcmp(out + (*out == '\n'), expected) != 0) {
            printf("round %u, %u moves: other results:\n%s", i, moves, out);
            return 1;
        }
    }
    printf("%u rounds, %u moves\n", rounds, moves);
    return 0;
}
