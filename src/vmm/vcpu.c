/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/thread.h"
#include "vmm/guest_cpuid.h"
#include "vmm/vcpu_int.h"

/* Interrupts KVM_RUN. All threads have it blocked but the vCPUs'. */
#define VCPU_KICK_SIGNAL SIGUSR1

static void vcpu_kick_handler(int sig)
{
    (void)sig; /* the interruption is the message */
}

/* ---- Parking ---- */

static void vcpu_kick(struct vcpu *v)
{
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELEASE);
    /* A vCPU whose device asks for the end kicks itself, too; it is outside of KVM_RUN already. Not
     * by pthread_kill(), which makes calls that the jail forbids. */
    pid_t tid = atomic_load_explicit(&v->tid, memory_order_acquire);
    if (tid != 0 && v->started && !pthread_equal(v->thread, pthread_self())) {
        (void)tgkill(v->set->pid, tid, VCPU_KICK_SIGNAL);
    }
}

/* `want` first, then the kick: a run loop that misses the first sees the second (it looks at
 * `want` after each return from KVM_RUN, and immediate_exit makes the next one return at once). */
static void vcpu_set_want(struct vcpu_set *set, enum vcpu_want want)
{
    pthread_mutex_lock(&set->lock);
    if (atomic_load_explicit(&set->want, memory_order_relaxed) != VCPU_WANT_QUIT) {
        atomic_store_explicit(&set->want, (int)want, memory_order_release);
    }
    if (want == VCPU_WANT_RUN) {
        pthread_cond_broadcast(&set->cond);
    } else {
        for (unsigned i = 0; i < set->count; i++) {
            vcpu_kick(&set->vcpu[i]);
        }
        pthread_cond_broadcast(&set->cond);
    }
    pthread_mutex_unlock(&set->lock);
}

void vcpu_set_run(struct vcpu_set *set)
{
    vcpu_set_want(set, VCPU_WANT_RUN);
}

void vcpu_set_park(struct vcpu_set *set)
{
    vcpu_set_want(set, VCPU_WANT_PARK);
}

void vcpu_set_wait_parked(struct vcpu_set *set)
{
    pthread_mutex_lock(&set->lock);
    while (set->parked < set->count) {
        pthread_cond_wait(&set->cond, &set->lock);
    }
    pthread_mutex_unlock(&set->lock);
}

/* Waits here while the set is parked. False: the thread is to end. */
static bool vcpu_park(struct vcpu *v)
{
    struct vcpu_set *set = v->set;
    pthread_mutex_lock(&set->lock);
    set->parked++;
    pthread_cond_broadcast(&set->cond);
    int want;
    while ((want = atomic_load_explicit(&set->want, memory_order_relaxed)) == VCPU_WANT_PARK ||
           (v->dead && want != VCPU_WANT_QUIT)) {
        pthread_cond_wait(&set->cond, &set->lock);
    }
    set->parked--;
    /* Under the lock: a later park() sets it again. */
    __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&set->lock);
    return want == VCPU_WANT_RUN;
}

/* ---- The run loop ---- */

static void vcpu_run_error(struct vcpu *v, int rc)
{
    if (rc == -EFAULT) {
        vcpu_fail(v, "guest memory cannot be had from the host (huge pages used up?)");
    } else {
        vcpu_fail(v, "KVM_RUN: %s", strerror(-rc));
    }
}

static void *vcpu_thread(void *opaque)
{
    struct vcpu *v = opaque;
    struct vcpu_set *set = v->set;
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, VCPU_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    atomic_store_explicit(&v->tid, gettid(), memory_order_release); /* pairs with vcpu_kick() */
    if (set->config.thread_init != NULL && !set->config.thread_init(set->config.opaque)) {
        vcpu_fail(v, "cannot install the system call filter");
    }
    /* An exit whose effect the engine has yet to put into registers: enter once more before
     * parking. immediate_exit makes that entry return without running the guest. */
    bool half_done = false;
    for (;;) {
        if (!half_done && atomic_load_explicit(&set->want, memory_order_acquire) != VCPU_WANT_RUN &&
            !vcpu_park(v)) {
            atomic_store_explicit(&v->tid, 0, memory_order_release);
            return NULL;
        }
        int rc = vcpu_ioctl(v, KVM_RUN, NULL);
        if (rc == -EINTR || rc == -EAGAIN) {
            half_done = false;
        } else if (rc < 0) {
            half_done = false;
            vcpu_run_error(v, rc);
        } else {
            atomic_fetch_add_explicit(&v->exits, 1, memory_order_relaxed);
            half_done = vcpu_exit(v);
        }
    }
}

/* ---- Reports ---- */

void vcpu_report(struct vcpu *v, enum vcpu_event event, const char *text)
{
    vcpu_set_park(v->set);
    v->set->config.event(v->set->config.opaque, v->index, event, text);
}

void vcpu_fail(struct vcpu *v, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&v->set->lock);
    v->dead = true;
    pthread_mutex_unlock(&v->set->lock);
    vcpu_report(v, VCPU_EVENT_FAILED, text);
}

/* ---- Life ---- */

static int vcpu_create(struct vcpu *v, struct err *err)
{
    const struct vcpu_config *c = &v->set->config;
    const struct hv *hv = c->vm->hv;
    v->fd = hv_ioctl_int(hv, c->vm->fd, KVM_CREATE_VCPU, v->index);
    if (v->fd < 0) {
        return err_set_errno(err, v->fd, "engine '%s': cannot create vCPU %u", hv->name, v->index);
    }
    v->run = hv->mmap(v->fd, c->vm->run_size, 0);
    if (v->run == NULL) {
        return err_set_errno(err, -errno, "engine '%s': cannot map vCPU %u", hv->name, v->index);
    }
    size_t size = sizeof(*c->cpuid) + c->cpuid->nent * sizeof(c->cpuid->entries[0]);
    /* Room for the topology entries that guest_cpuid_set_vcpu() adds. */
    CLEANUP_FREE struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) + GUEST_CPUID_MAX_ENTRIES * sizeof(cpuid->entries[0]));
    if (cpuid == NULL) {
        return err_set(err, -ENOMEM, "vCPU %u: out of memory", v->index);
    }
    memcpy(cpuid, c->cpuid, size);
    guest_cpuid_set_vcpu(cpuid, v->index, c->count);
    int rc = vcpu_ioctl(v, KVM_SET_CPUID2, cpuid);
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': CPUID of vCPU %u", hv->name, v->index);
    }
    return vcpu_state_save(v, err);
}

int vcpu_set_new(const struct vcpu_config *config, struct vcpu_set **ret_set, struct err *err)
{
    struct vcpu_set *set = calloc(1, sizeof(*set) + config->count * sizeof(set->vcpu[0]));
    if (set == NULL) {
        return err_set(err, -ENOMEM, "vCPUs: out of memory");
    }
    set->config = *config;
    set->pid = getpid();
    pthread_mutex_init(&set->lock, NULL);
    pthread_cond_init(&set->cond, NULL);
    atomic_store_explicit(&set->want, VCPU_WANT_PARK, memory_order_relaxed);
    struct sigaction act = { .sa_handler = vcpu_kick_handler };
    sigaction(VCPU_KICK_SIGNAL, &act, NULL);
    for (unsigned i = 0; i < config->count; i++) {
        set->vcpu[i] = (struct vcpu){ .set = set, .index = i, .fd = -1 };
        set->count = i + 1;
        int rc = vcpu_create(&set->vcpu[i], err);
        if (rc < 0) {
            vcpu_set_free(set);
            return rc;
        }
    }
    *ret_set = set;
    return 0;
}

void vcpu_set_free(struct vcpu_set *set)
{
    if (set == NULL) {
        return;
    }
    const struct hv *hv = set->config.vm->hv;
    bool any = false;
    for (unsigned i = 0; i < set->count; i++) {
        any |= set->vcpu[i].started;
    }
    if (any) {
        vcpu_set_want(set, VCPU_WANT_QUIT);
    }
    for (unsigned i = 0; i < set->count; i++) {
        struct vcpu *v = &set->vcpu[i];
        if (v->started) {
            pthread_join(v->thread, NULL);
        }
        vcpu_state_free(v);
        if (v->run != NULL) {
            hv->munmap(v->run, set->config.vm->run_size);
        }
        if (v->fd >= 0) {
            hv->close(v->fd);
        }
    }
    pthread_cond_destroy(&set->cond);
    pthread_mutex_destroy(&set->lock);
    free(set);
}

int vcpu_set_start(struct vcpu_set *set, struct err *err)
{
    for (unsigned i = 0; i < set->count; i++) {
        struct vcpu *v = &set->vcpu[i];
        char name[16];
        (void)snprintf(name, sizeof(name), "vcpu%u", i);
        int cpu = set->config.pin != NULL ? set->config.pin[i] : -1;
        int rc = thread_start(&v->thread, name, cpu, vcpu_thread, v, err);
        if (rc < 0) {
            return rc;
        }
        v->started = true;
    }
    return 0;
}

int vcpu_set_reset(struct vcpu_set *set, const struct boot_state *boot, struct err *err)
{
    /* The application processors first: the engine counts the first one as the BSP. */
    for (unsigned i = set->count; i-- > 0;) {
        int rc = vcpu_state_reset(&set->vcpu[i], i == 0 ? boot : NULL, err);
        if (rc < 0) {
            return err_prefix(err, "vCPU %u: ", i);
        }
    }
    return 0;
}

void vcpu_set_clock_stop(struct vcpu_set *set)
{
    const struct vm *vm = set->config.vm;
    set->stopped_clock = (struct kvm_clock_data){ 0 };
    set->clock_stopped = vm->hv->ioctl(vm->fd, KVM_GET_CLOCK, &set->stopped_clock) == 0;
    for (unsigned i = 0; i < set->count && set->clock_stopped; i++) {
        set->clock_stopped = vcpu_tsc_get(&set->vcpu[i], &set->vcpu[i].stopped_tsc) == 0;
    }
}

void vcpu_set_clock_start(struct vcpu_set *set)
{
    const struct vm *vm = set->config.vm;
    if (!set->clock_stopped) {
        return;
    }
    set->clock_stopped = false;
    for (unsigned i = 0; i < set->count; i++) {
        vcpu_tsc_set(&set->vcpu[i], set->vcpu[i].stopped_tsc);
    }
    /* Without flags: the clock alone, not the host's times that came with it. */
    struct kvm_clock_data clock = { .clock = set->stopped_clock.clock };
    (void)vm->hv->ioctl(vm->fd, KVM_SET_CLOCK, &clock);
    for (unsigned i = 0; i < set->count && vm->clock_ctrl; i++) {
        /* -EINVAL: the guest does not use the clock. */
        (void)vcpu_ioctl(&set->vcpu[i], KVM_KVMCLOCK_CTRL, NULL);
    }
}

unsigned vcpu_set_count(const struct vcpu_set *set)
{
    return set->count;
}

struct vcpu_stats vcpu_set_stats(const struct vcpu_set *set, unsigned index)
{
    const struct vcpu *v = &set->vcpu[index];
    return (struct vcpu_stats){
        .exits = atomic_load_explicit(&v->exits, memory_order_relaxed),
        .io = atomic_load_explicit(&v->io, memory_order_relaxed),
        .mmio = atomic_load_explicit(&v->mmio, memory_order_relaxed),
    };
}

unsigned vcpu_set_counters(const struct vcpu_set *set, unsigned index, struct hv_counter *ret,
                           unsigned max)
{
    const struct hv *hv = set->config.vm->hv;
    return hv->counters != NULL ? hv->counters(set->vcpu[index].fd, ret, max) : 0;
}

void vcpu_set_print(struct vcpu_set *set, unsigned index, FILE *out)
{
    vcpu_state_print(&set->vcpu[index], out);
}
