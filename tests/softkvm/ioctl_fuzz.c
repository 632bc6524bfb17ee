/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random ioctls in plausible and implausible orders: several VMs, vCPUs and threads, arguments
 * valid, mutated and wild, guests of random code, slots on memory that is not there. The process
 * must live; sanitizers say the rest.
 *
 *     sk_ioctl_fuzz CALLS|SECONDSs [SEED [THREADS]]
 *
 * The guests may write all memory their slots name, so a slot lies only in an arena of this
 * program, or where nothing is mapped.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "softkvm/softkvm.h"

enum { SYSTEM, VM, VCPU };

static const struct {
    uint8_t kind;
    unsigned long request;
    const char *name;
} ioctls[] = {
#define IOCTL(kind, request, name, locked) { kind, request, #request },
#include "softkvm/abi/ioctls.def"
#undef IOCTL
};

#define NFDS       48
#define ARENA      (4u << 20)
#define ARENA_HOLE (3u << 20) /* the last quarter comes and goes */

struct slot_fd {
    _Atomic int fd; /* -1: none */
    uint8_t kind;
    struct kvm_run *run;
};

static struct slot_fd fds[NFDS];
static pthread_rwlock_t fds_lock = PTHREAD_RWLOCK_INITIALIZER; /* written to when one is closed */
static uint8_t *arena;
static uint64_t limit;
static double seconds;
static _Atomic uint64_t calls, good, runs;
static _Atomic bool stop;
static _Atomic uint64_t by_ioctl[ARRAY_LEN(ioctls)][2];
static long run_size;

static _Thread_local uint64_t rng;
static _Thread_local int made_fd; /* an eventfd for the next call, or -1 */

static uint64_t rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng >> 3;
}

static bool one_in(unsigned n)
{
    return rnd() % n == 0;
}

static uint64_t number(void)
{
    static const uint64_t special[] = { 0,
                                        1,
                                        2,
                                        0xff,
                                        0x1000,
                                        0xffff,
                                        0x10000,
                                        0x7fffffff,
                                        0xffffffff,
                                        0xfee00000,
                                        0xfec00000,
                                        UINT64_C(0x7fffffffffff),
                                        UINT64_C(0x8000000000000000),
                                        UINT64_C(0xffffffffffffffff) };

    return one_in(2) ? special[rnd() % ARRAY_LEN(special)] : rnd() >> (rnd() % 61);
}

static void keep(int fd, uint8_t kind)
{
    struct kvm_run *run = NULL;

    if (kind == VCPU) {
        run = softkvm_mmap(fd, (size_t)run_size);
        run = run == MAP_FAILED ? NULL : run;
    }
    pthread_rwlock_wrlock(&fds_lock);
    for (unsigned i = 0; i < NFDS; i++) {
        if (fds[i].fd < 0) {
            fds[i].kind = kind;
            fds[i].run = run;
            fds[i].fd = fd;
            pthread_rwlock_unlock(&fds_lock);
            return;
        }
    }
    pthread_rwlock_unlock(&fds_lock);
    if (run) {
        munmap(run, (size_t)run_size);
    }
    (void)softkvm_close(fd);
}

static void drop(unsigned i)
{
    pthread_rwlock_wrlock(&fds_lock);
    if (fds[i].fd >= 0) {
        if (fds[i].run) {
            munmap(fds[i].run, (size_t)run_size);
        }
        (void)softkvm_close(fds[i].fd);
        fds[i].fd = -1;
    }
    pthread_rwlock_unlock(&fds_lock);
}

/* A valid argument to start from, for those where random bytes get nowhere. */
static void sensible(unsigned long request, uint8_t *b)
{
    switch (request) {
    case KVM_SET_USER_MEMORY_REGION: {
        struct kvm_userspace_memory_region *r = (void *)b;

        r->slot = (uint32_t)(rnd() % 6) | (one_in(4) ? 1u << 16 : 0);
        r->flags = one_in(3) ? (uint32_t)(rnd() % 4) : 0;
        r->guest_phys_addr = (rnd() % 8) << (one_in(2) ? 20 : 16);
        r->memory_size = one_in(4) ? 0 : (1 + rnd() % 256) << 12;
        r->userspace_addr = (uintptr_t)arena + ((rnd() % 768) << 12);
        break;
    }
    case KVM_CLEAR_DIRTY_LOG: {
        struct kvm_clear_dirty_log *r = (void *)b;

        r->slot = (uint32_t)(rnd() % 6);
        r->first_page = (rnd() % 3) * 64;
        r->num_pages = (uint32_t)(rnd() % 3) * 64;
        break;
    }
    case KVM_ENABLE_CAP: {
        static const uint32_t caps[] = { KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_DIRTY_LOG_RING,
                                         KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_SPLIT_IRQCHIP };
        struct kvm_enable_cap *r = (void *)b;

        memset(r, 0, sizeof(*r));
        r->cap = caps[rnd() % ARRAY_LEN(caps)];
        r->args[0] = r->cap == KVM_CAP_DIRTY_LOG_RING ? 4096u << (rnd() % 3) : rnd() % 32;
        break;
    }
    case KVM_GET_SUPPORTED_CPUID:
    case KVM_GET_EMULATED_CPUID:
    case KVM_SET_CPUID2:
    case KVM_GET_CPUID2:
    case KVM_GET_MSR_INDEX_LIST:
    case KVM_GET_MSR_FEATURE_INDEX_LIST:
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
        memset(b + 4, 0, 4);
        b[1] = b[2] = b[3] = 0;
        break;
    case KVM_SET_REGS: {
        struct kvm_regs *r = (void *)b;

        r->rip = rnd() % 0x100000;
        r->rflags = 2 | (rnd() & 0x40ed5);
        break;
    }
    case KVM_IRQFD: {
        struct kvm_irqfd *r = (void *)b;

        memset(r, 0, sizeof(*r));
        r->gsi = (uint32_t)(rnd() % 26);
        break;
    }
    case KVM_IOEVENTFD: {
        struct kvm_ioeventfd *r = (void *)b;

        memset(r, 0, sizeof(*r));
        r->addr = rnd() % 0x10000;
        r->len = 1u << (rnd() % 4);
        r->flags = (uint32_t)(rnd() & 7);
        break;
    }
    case KVM_SET_GSI_ROUTING:
        memset(b, 0, 8);
        b[0] = (uint8_t)(rnd() % 8);
        break;
    case KVM_SET_MP_STATE:
        memset(b, 0, 4);
        b[0] = (uint8_t)(rnd() % 5);
        break;
    case KVM_SET_SIGNAL_MASK:
        memset(b, 0, 4);
        b[0] = 8;
        memset(b + 4, 0, 8);
        break;
    default:
        break;
    }
}

/* Reads the state of the same kind and changes a little of it. */
static void near_truth(int fd, unsigned long request, uint8_t *b)
{
    static const unsigned long pairs[][2] = {
        {KVM_SET_SREGS,        KVM_GET_SREGS      },
        { KVM_SET_SREGS2,      KVM_GET_SREGS2     },
        { KVM_SET_REGS,        KVM_GET_REGS       },
        { KVM_SET_FPU,         KVM_GET_FPU        },
        { KVM_SET_XSAVE,       KVM_GET_XSAVE      },
        { KVM_SET_XCRS,        KVM_GET_XCRS       },
        { KVM_SET_DEBUGREGS,   KVM_GET_DEBUGREGS  },
        { KVM_SET_VCPU_EVENTS, KVM_GET_VCPU_EVENTS},
        { KVM_SET_LAPIC,       KVM_GET_LAPIC      },
        { KVM_SET_IRQCHIP,     KVM_GET_IRQCHIP    },
        { KVM_SET_PIT2,        KVM_GET_PIT2       },
        { KVM_SET_CLOCK,       KVM_GET_CLOCK      },
    };

    for (unsigned i = 0; i < ARRAY_LEN(pairs); i++) {
        if (pairs[i][0] == request) {
            (void)softkvm_ioctl(fd, pairs[i][1], (unsigned long)(uintptr_t)b);
        }
    }
    for (unsigned n = (unsigned)(rnd() % 4); n > 0; n--) {
        b[rnd() % MIN(_IOC_SIZE(request), 8192u)] ^= (uint8_t)(1u << (rnd() % 8));
    }
}

/* KVM_RUN that cannot last: main() kicks. */
static int run_it(int fd, struct kvm_run *run)
{
    if (run) {
        if (one_in(3)) {
            for (unsigned i = 0; i < 8; i++) { /* answers and requests at random */
                ((uint8_t *)run)[rnd() % 512] = (uint8_t)rnd();
            }
        }
        if (one_in(4)) {
            run->kvm_valid_regs = rnd() & 7;
            run->kvm_dirty_regs = rnd() & 7;
        }
        run->immediate_exit = one_in(2);
    }
    runs++;
    return softkvm_ioctl(fd, KVM_RUN, one_in(64) ? 1 : 0);
}

static unsigned long argument(int fd, unsigned long request, uint8_t *b)
{
    uint64_t mode = rnd() % 16;

    if (mode == 0) {
        return 0;
    }
    if (mode == 1) {
        return (uintptr_t)arena + ARENA; /* not mapped */
    }
    if (_IOC_SIZE(request) == 0) {
        return mode < 4 ? (unsigned long)number() : (unsigned long)(rnd() % 5);
    }
    for (unsigned i = 0; i < 8192; i += 8) {
        uint64_t v = mode < 6 ? number() : 0;

        memcpy(b + i, &v, 8);
    }
    b[0] = one_in(2) ? (uint8_t)rnd() : b[0];
    if (mode >= 4) {
        near_truth(fd, request, b);
    }
    if (mode >= 3) {
        sensible(request, b);
    }
    if (request == KVM_SET_USER_MEMORY_REGION) {
        struct kvm_userspace_memory_region *r = (void *)b;
        uint64_t at = r->userspace_addr - (uintptr_t)arena;

        if (at > ARENA || r->memory_size > ARENA - at) { /* only ours, or nothing at all */
            r->userspace_addr = one_in(2) ? 0x1000 : UINT64_C(0x7ff000000000);
            r->memory_size = MIN(r->memory_size, UINT64_C(0x100000));
        }
    }
    if (request == KVM_IRQFD || request == KVM_IOEVENTFD) {
        /* Never a number of the engine's own: the client would saw off the branch it sits on. */
        int bad = one_in(2) ? -1 : 0, event = one_in(8) ? bad : made_fd;

        memcpy(b + (request == KVM_IRQFD ? 0 : 20), &event, sizeof(event));
        memcpy(b + (request == KVM_IRQFD ? 12 : 20), &event, sizeof(event)); /* resamplefd */
    }
    if (request == KVM_GET_DIRTY_LOG || request == KVM_CLEAR_DIRTY_LOG) {
        uintptr_t at = (uintptr_t)(one_in(3) ? arena + ARENA - 4096 : arena + ARENA);

        memcpy(b + 8, &at, sizeof(at)); /* the bitmap: in the arena or nowhere; log in 16 */
        memcpy(b + 16, &at, sizeof(at));
    }
    return (uintptr_t)b;
}

/* Numbers that stand for our own process' memory must not be taken from random bytes. */
static bool refused(unsigned long request)
{
    return request == KVM_X86_SET_MSR_FILTER; /* pointers to bitmaps: read only, but long */
}

static void one_call(uint8_t *b)
{
    unsigned row = (unsigned)(rnd() % ARRAY_LEN(ioctls)), i = (unsigned)(rnd() % NFDS);
    unsigned long request = ioctls[row].request;
    int rc;

    if (one_in(5)) { /* more of those that make a guest run */
        request = KVM_RUN;
    }
    pthread_rwlock_rdlock(&fds_lock);
    for (unsigned tries = 0; tries < 16 && !one_in(64); tries++) {
        if (fds[i].fd >= 0 && (fds[i].kind == ioctls[row].kind || request == KVM_RUN)) {
            break;
        }
        i = (unsigned)(rnd() % NFDS);
    }
    if (fds[i].fd < 0 || refused(request)) {
        pthread_rwlock_unlock(&fds_lock);
        return;
    }
    calls++;
    if (request == KVM_RUN && fds[i].kind == VCPU) {
        rc = run_it(fds[i].fd, fds[i].run);
    } else {
        if (request == KVM_IRQFD || request == KVM_IOEVENTFD) {
            made_fd = eventfd(0, EFD_NONBLOCK);
        } else if (one_in(64)) {
            request ^= 1u << (rnd() % 30);
        }
        rc = softkvm_ioctl(fds[i].fd, request, argument(fds[i].fd, request, b));
    }
    pthread_rwlock_unlock(&fds_lock);
    good += rc >= 0;
    if (request == ioctls[row].request) {
        by_ioctl[row][rc >= 0]++;
    }
    if (rc >= 0 && request == KVM_CREATE_VM) {
        keep(rc, VM);
    } else if (rc >= 0 && request == KVM_CREATE_VCPU) {
        keep(rc, VCPU);
    } else if (made_fd >= 0) {
        close(made_fd); /* the VM holds its own reference, or has refused it */
        made_fd = -1;
    }
}

static void one_step(uint8_t *b)
{
    switch (rnd() % 256) {
    case 0:
        drop((unsigned)(rnd() % NFDS));
        break;
    case 1:
        keep(softkvm_open(), SYSTEM);
        break;
    case 2: /* code and data of the guests */
        for (unsigned n = 0; n < 64; n++) {
            arena[rnd() % ARENA_HOLE] = (uint8_t)rnd();
        }
        break;
    case 3: /* memory comes and goes only where no guest has been: a page seen stays */
        (void)mprotect(arena + ARENA_HOLE, ARENA - ARENA_HOLE, PROT_READ | PROT_WRITE);
        break;
    default:
        one_call(b);
        break;
    }
}

static void *fuzzer(void *opaque)
{
    uint8_t *b = aligned_alloc(64, 65536); /* the largest list is 256 CPUID entries */

    made_fd = -1;
    rng = (uint64_t)(uintptr_t)opaque * UINT64_C(0x9e3779b97f4a7c15) + 1;
    while (b && !stop && (limit == 0 || calls < limit)) {
        one_step(b);
    }
    free(b);
    return NULL;
}

/* Ends guests that run for ever. */
static void kick_all(void)
{
    for (unsigned i = 0; i < NFDS; i++) {
        int fd = fds[i].fd;

        if (fd >= 0 && fds[i].kind == VCPU) {
            (void)softkvm_kick(fd);
        }
    }
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill_arena(void)
{
    arena = mmap(NULL, ARENA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED || mprotect(arena + ARENA_HOLE, ARENA + 4096 - ARENA_HOLE, PROT_NONE)) {
        exit(2);
    }
    for (unsigned i = 0; i < ARENA_HOLE; i++) {
        arena[i] = (uint8_t)rnd();
    }
}

int main(int argc, char **argv)
{
    unsigned nthreads = argc > 3 ? (unsigned)atoi(argv[3]) : 3;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    const char *what = argc > 1 ? argv[1] : "10s";
    pthread_t t[16];
    double begin = now();
    unsigned never = 0;

    if (what[strlen(what) - 1] == 's') {
        seconds = atof(what);
    } else {
        limit = strtoull(what, NULL, 0);
    }
    rng = seed * 77 + 5;
    fill_arena();
    for (unsigned i = 0; i < NFDS; i++) {
        fds[i].fd = -1;
    }
    keep(softkvm_open(), SYSTEM);
    run_size = softkvm_ioctl(fds[0].fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    for (unsigned i = 0; i < MIN(nthreads, 16u); i++) {
        pthread_create(&t[i], NULL, fuzzer, (void *)(uintptr_t)(seed * 16 + i + 1));
    }
    while ((limit == 0 || calls < limit) && (seconds == 0 || now() - begin < seconds)) {
        usleep(2000);
        kick_all();
    }
    stop = true;
    for (unsigned i = 0; i < MIN(nthreads, 16u); i++) {
        while (pthread_tryjoin_np(t[i], NULL) == EBUSY) {
            kick_all();
            usleep(1000);
        }
    }
    for (unsigned i = 0; i < NFDS; i++) {
        drop(i);
    }
    for (unsigned i = 0; i < ARRAY_LEN(ioctls); i++) {
        if (by_ioctl[i][1] == 0) {
            printf("never succeeded: %s (%" PRIu64 " tries)\n", ioctls[i].name, by_ioctl[i][0]);
            never++;
        }
    }
    printf("%" PRIu64 " calls, %" PRIu64 " good, %" PRIu64 " of KVM_RUN, %u ioctls never good\n",
           (uint64_t)calls, (uint64_t)good, (uint64_t)runs, never);
    return good == 0;
}
