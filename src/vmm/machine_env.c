/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What devices see of a real machine, and how reports reach the main thread. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "vmm/machine_int.h"

/* ---- Guest time ---- */

uint64_t machine_clock_now(const struct machine *m)
{
    uint64_t frozen = atomic_load_explicit(&m->clock_frozen, memory_order_acquire);
    if (frozen != 0) {
        return frozen;
    }
    return loop_now_ns() - atomic_load_explicit(&m->clock_offset, memory_order_relaxed);
}

void machine_clock_freeze(struct machine *m)
{
    atomic_store_explicit(&m->clock_frozen, MAX(machine_clock_now(m), UINT64_C(1)),
                          memory_order_release);
}

void machine_clock_thaw(struct machine *m)
{
    uint64_t frozen = atomic_load_explicit(&m->clock_frozen, memory_order_relaxed);
    if (frozen == 0) {
        return;
    }
    atomic_store_explicit(&m->clock_offset, loop_now_ns() - frozen, memory_order_relaxed);
    /* Pairs with the acquire in machine_clock_now(): whoever sees 0 sees the new offset. */
    atomic_store_explicit(&m->clock_frozen, 0, memory_order_release);
}

static uint64_t machine_env_now_ns(struct dev_env *env)
{
    return machine_clock_now(env->opaque);
}

static uint64_t machine_env_wall_ns(struct dev_env *env)
{
    (void)env;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static void machine_env_random(struct dev_env *env, void *buf, size_t len)
{
    (void)env;
    uint8_t *p = buf;
    while (len > 0) {
        /* Blocks at most until the host's generator is seeded; EINTR gives a short or no result. */
        ssize_t n = getrandom(p, len, 0);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
}

/* ---- Interrupts ---- */

static void machine_env_irq_set(struct dev_env *env, unsigned gsi, int level)
{
    struct machine *m = env->opaque;
    irq_set(m->irq, gsi, level);
}

static int machine_env_msi_new(struct dev_env *env, struct dev_msi **ret_msi, struct err *err)
{
    struct machine *m = env->opaque;
    return irq_msi_new(m->irq, ret_msi, err);
}

static int machine_env_msi_set(struct dev_env *env, struct dev_msi *msi, uint64_t addr,
                               uint32_t data)
{
    struct machine *m = env->opaque;
    return irq_msi_set(m->irq, msi, addr, data);
}

static void machine_env_msi_fire(struct dev_env *env, struct dev_msi *msi)
{
    struct machine *m = env->opaque;
    irq_msi_fire(m->irq, msi);
}

static int machine_env_msi_fd(struct dev_env *env, struct dev_msi *msi)
{
    (void)env;
    return irq_msi_fd(msi);
}

static void machine_env_msi_free(struct dev_env *env, struct dev_msi *msi)
{
    struct machine *m = env->opaque;
    irq_msi_free(m->irq, msi);
}

/* ---- Reports ---- */

/* A guest that resets all the time must not keep out what ends it. */
static bool machine_outranks(const struct machine *m, enum machine_cause cause)
{
    return !m->notice.set ||
           (machine_cause_resets(m, m->notice.cause) && !machine_cause_resets(m, cause));
}

void machine_notify(struct machine *m, enum machine_cause cause, uint32_t code, int vcpu,
                    const char *text)
{
    pthread_mutex_lock(&m->notice_lock);
    if (machine_outranks(m, cause)) {
        m->notice =
            (struct machine_notice){ .set = true, .cause = cause, .code = code, .vcpu = vcpu };
        (void)snprintf(m->notice.text, sizeof(m->notice.text), "%s", text != NULL ? text : "");
    }
    pthread_mutex_unlock(&m->notice_lock);
    if (m->vcpus != NULL) {
        vcpu_set_park(m->vcpus);
    }
    loop_post(m->loop, machine_on_notice, m);
}

static void machine_notify_io_error(struct machine *m, const char *id, const char *detail)
{
    pthread_mutex_lock(&m->notice_lock);
    if (!m->io_error) {
        m->io_error = true;
        (void)snprintf(m->io_error_text, sizeof(m->io_error_text), "%s: %s", id,
                       detail != NULL ? detail : "I/O error");
    }
    pthread_mutex_unlock(&m->notice_lock);
    if (m->vcpus != NULL) {
        vcpu_set_park(m->vcpus);
    }
    loop_post(m->loop, machine_on_notice, m);
}

static void machine_env_event(struct dev_env *env, struct dev *dev, enum dev_event event, int code,
                              const char *detail)
{
    struct machine *m = env->opaque;
    switch (event) {
    case DEV_EVENT_POWEROFF:
        machine_notify(m, MACHINE_CAUSE_POWEROFF, 0, -1, detail);
        break;
    case DEV_EVENT_RESET:
        machine_notify(m, MACHINE_CAUSE_RESET, 0, -1, detail);
        break;
    case DEV_EVENT_PANIC:
        machine_notify(m, MACHINE_CAUSE_PANIC, 0, -1, detail);
        break;
    case DEV_EVENT_DEBUG_EXIT:
        machine_notify(m, MACHINE_CAUSE_DEBUG_EXIT, (uint32_t)code, -1, detail);
        break;
    case DEV_EVENT_IO_ERROR:
        machine_notify_io_error(m, dev->id, detail);
        break;
    }
}

void machine_on_escape(void *opaque, enum chr_escape what)
{
    struct machine *m = opaque;
    switch (what) {
    case CHR_ESCAPE_QUIT:
        machine_notify(m, MACHINE_CAUSE_QUIT, 0, -1, "Ctrl-A x");
        break;
    case CHR_ESCAPE_MONITOR:
        prompt_toggle(m->prompt); /* only stdio has escapes, and it has a prompt */
        break;
    }
}

void machine_vcpu_event(void *opaque, unsigned index, enum vcpu_event event, const char *text)
{
    static const enum machine_cause causes[] = {
        [VCPU_EVENT_TRIPLE_FAULT] = MACHINE_CAUSE_TRIPLE_FAULT,
        [VCPU_EVENT_POWEROFF] = MACHINE_CAUSE_POWEROFF,
        [VCPU_EVENT_RESET] = MACHINE_CAUSE_RESET,
        [VCPU_EVENT_PANIC] = MACHINE_CAUSE_PANIC,
        [VCPU_EVENT_FAILED] = MACHINE_CAUSE_ENGINE,
    };
    machine_notify(opaque, causes[event], 0, (int)index, text);
}

const struct dev_env_ops machine_env_ops = {
    .irq_set = machine_env_irq_set,
    .msi_new = machine_env_msi_new,
    .msi_set = machine_env_msi_set,
    .msi_fire = machine_env_msi_fire,
    .msi_fd = machine_env_msi_fd,
    .msi_free = machine_env_msi_free,
    .event = machine_env_event,
    .now_ns = machine_env_now_ns,
    .wall_ns = machine_env_wall_ns,
    .random = machine_env_random,
};

/* ---- Calls to the io thread ---- */

struct machine_call {
    loop_fn *fn;
    void *opaque;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

static void machine_io_run(void *opaque)
{
    struct machine_call *call = opaque;
    call->fn(call->opaque);
    pthread_mutex_lock(&call->lock);
    call->done = true;
    pthread_cond_signal(&call->cond);
    pthread_mutex_unlock(&call->lock);
}

void machine_io_call(struct machine *m, loop_fn *fn, void *opaque)
{
    if (!m->io_started) {
        fn(opaque);
        return;
    }
    struct machine_call call = { .fn = fn, .opaque = opaque };
    pthread_mutex_init(&call.lock, NULL);
    pthread_cond_init(&call.cond, NULL);
    loop_post(m->io_loop, machine_io_run, &call);
    pthread_mutex_lock(&call.lock);
    while (!call.done) {
        pthread_cond_wait(&call.cond, &call.lock);
    }
    pthread_mutex_unlock(&call.lock);
    pthread_cond_destroy(&call.cond);
    pthread_mutex_destroy(&call.lock);
}
