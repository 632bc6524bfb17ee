/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The irqchip as a whole: life, dispatch of accesses, state by ioctl, and the timer thread.
 *
 * Lock order: chip->lock, then a LAPIC's timer_lock, then chip->timer_lock. Timer functions run
 * with none of them held.
 */
#include "softkvm/irqchip/irqchip.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "softkvm/irqchip/irqchip_int.h"

uint64_t sk_irqchip_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* --- the timer thread --- */

static void *timer_main(void *opaque)
{
    struct sk_irqchip *chip = opaque;
    (void)prctl(PR_SET_TIMERSLACK, 1); /* the default of 50 us would show in every guest tick */
    pthread_mutex_lock(&chip->timer_lock);
    chip->timer_up = true;
    pthread_cond_broadcast(&chip->timer_cond);
    while (!chip->timer_quit) {
        struct sk_timer *t = TAILQ_FIRST(&chip->timers);
        if (t == NULL) {
            pthread_cond_wait(&chip->timer_cond, &chip->timer_lock);
            continue;
        }
        uint64_t now = sk_irqchip_now_ns();
        if (t->deadline_ns > now) {
            struct timespec ts = { .tv_sec = (time_t)(t->deadline_ns / 1000000000),
                                   .tv_nsec = (long)(t->deadline_ns % 1000000000) };
            (void)pthread_cond_timedwait(&chip->timer_cond, &chip->timer_lock, &ts);
            continue;
        }
        TAILQ_REMOVE(&chip->timers, t, link);
        t->deadline_ns = UINT64_MAX;
        chip->timer_running = t;
        pthread_mutex_unlock(&chip->timer_lock);
        t->fn(t, now);
        pthread_mutex_lock(&chip->timer_lock);
        chip->timer_running = NULL;
        pthread_cond_broadcast(&chip->timer_cond);
    }
    pthread_mutex_unlock(&chip->timer_lock);
    return NULL;
}

static void timer_set_locked(struct sk_irqchip *chip, struct sk_timer *t, uint64_t deadline_ns)
{
    if (t->deadline_ns != UINT64_MAX) {
        TAILQ_REMOVE(&chip->timers, t, link);
    }
    t->deadline_ns = deadline_ns;
    if (deadline_ns == UINT64_MAX) {
        return;
    }
    struct sk_timer *at;
    TAILQ_FOREACH(at, &chip->timers, link)
    {
        if (at->deadline_ns > deadline_ns) {
            TAILQ_INSERT_BEFORE(at, t, link);
            break;
        }
    }
    if (at == NULL) {
        TAILQ_INSERT_TAIL(&chip->timers, t, link);
    }
    if (TAILQ_FIRST(&chip->timers) == t) {
        pthread_cond_broadcast(&chip->timer_cond);
    }
}

void sk_irqchip_timer_set(struct sk_irqchip *chip, struct sk_timer *t, uint64_t deadline_ns)
{
    pthread_mutex_lock(&chip->timer_lock);
    timer_set_locked(chip, t, deadline_ns);
    pthread_mutex_unlock(&chip->timer_lock);
}

void sk_irqchip_timer_off(struct sk_irqchip *chip, struct sk_timer *t)
{
    pthread_mutex_lock(&chip->timer_lock);
    while (chip->timer_running == t) {
        pthread_cond_wait(&chip->timer_cond, &chip->timer_lock);
    }
    timer_set_locked(chip, t, UINT64_MAX);
    pthread_mutex_unlock(&chip->timer_lock);
}

static int timer_thread_start(struct sk_irqchip *chip)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&chip->timer_cond, &attr);
    pthread_condattr_destroy(&attr);
    /* The client's signals are for the client's threads. */
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&chip->timer_thread, NULL, timer_main, chip);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0) {
        pthread_setname_np(chip->timer_thread, "softkvm-timer");
        /* The client may close a system call filter next: the thread's own set-up is done first. */
        pthread_mutex_lock(&chip->timer_lock);
        while (!chip->timer_up) {
            pthread_cond_wait(&chip->timer_cond, &chip->timer_lock);
        }
        pthread_mutex_unlock(&chip->timer_lock);
    }
    return rc;
}

/* --- life --- */

struct sk_irqchip *sk_irqchip_new(struct sk_vm *vm, bool split)
{
    struct sk_irqchip *chip = calloc(1, sizeof(*chip));
    if (chip == NULL) {
        return NULL;
    }
    chip->vm = vm;
    chip->split = split;
    pthread_mutex_init(&chip->lock, NULL);
    pthread_mutex_init(&chip->timer_lock, NULL);
    TAILQ_INIT(&chip->notifiers);
    TAILQ_INIT(&chip->timers);
    sk_pic_reset(chip);
    sk_ioapic_reset(chip);
    int rc = split ? sk_irqchip_set_routing(chip, NULL, 0) : sk_gsi_set_default(chip);
    if (rc < 0 || timer_thread_start(chip) != 0) {
        free(chip->route);
        free(chip);
        return NULL;
    }
    return chip;
}

void sk_irqchip_free(struct sk_irqchip *chip)
{
    if (chip == NULL) {
        return;
    }
    sk_pit_free(chip->pit);
    pthread_mutex_lock(&chip->timer_lock);
    chip->timer_quit = true;
    pthread_cond_broadcast(&chip->timer_cond);
    pthread_mutex_unlock(&chip->timer_lock);
    pthread_join(chip->timer_thread, NULL);
    pthread_cond_destroy(&chip->timer_cond);
    pthread_mutex_destroy(&chip->timer_lock);
    pthread_mutex_destroy(&chip->lock);
    free(chip->route);
    free(chip);
}

bool sk_irqchip_is_split(const struct sk_irqchip *chip)
{
    return chip->split;
}

void sk_irqchip_set_wide_ids(struct sk_irqchip *chip, bool wide, bool no_broadcast_quirk)
{
    chip->wide_ids |= wide;
    chip->no_broadcast_quirk |= no_broadcast_quirk;
}

/* --- accesses --- */

bool sk_irqchip_mmio(struct sk_vcpu *c, uint64_t gpa, void *data, unsigned len, bool write)
{
    if (c->lapic != NULL && sk_lapic_mmio(c->lapic, gpa, data, len, write)) {
        return true;
    }
    struct sk_irqchip *chip = c->vm->irqchip;
    if (chip == NULL || chip->split) {
        return false;
    }
    pthread_mutex_lock(&chip->lock);
    bool ours = sk_ioapic_mmio(chip, gpa, data, len, write);
    pthread_mutex_unlock(&chip->lock);
    return ours;
}

bool sk_irqchip_pio(struct sk_vcpu *c, uint16_t port, void *data, unsigned size, bool write)
{
    struct sk_irqchip *chip = c->vm->irqchip;
    if (chip == NULL || chip->split) {
        return false;
    }
    pthread_mutex_lock(&chip->lock);
    /* All of these are byte registers: a wider access reaches the first one only, as in KVM. */
    uint8_t byte = write ? *(uint8_t *)data : 0;
    bool ours = sk_pic_pio(chip, port, &byte, write) ||
                (chip->pit != NULL && sk_pit_pio(chip->pit, port, &byte, write));
    pthread_mutex_unlock(&chip->lock);
    if (ours && !write) {
        memset(data, 0, size);
        *(uint8_t *)data = byte;
    }
    return ours;
}

int sk_irqchip_set_irq_locked(struct sk_irqchip *chip, uint32_t gsi, unsigned source, bool level)
{
    return sk_gsi_set_irq(chip, gsi, source, level);
}

int sk_irqchip_set_irq(struct sk_irqchip *chip, uint32_t gsi, unsigned source, bool level)
{
    pthread_mutex_lock(&chip->lock);
    int rc = sk_gsi_set_irq(chip, gsi, source, level);
    pthread_mutex_unlock(&chip->lock);
    return rc;
}

void sk_irqchip_add_ack_notifier(struct sk_irqchip *chip, struct sk_ack_notifier *n)
{
    pthread_mutex_lock(&chip->lock);
    TAILQ_INSERT_TAIL(&chip->notifiers, n, link);
    pthread_mutex_unlock(&chip->lock);
}

void sk_irqchip_del_ack_notifier(struct sk_irqchip *chip, struct sk_ack_notifier *n)
{
    pthread_mutex_lock(&chip->lock);
    TAILQ_REMOVE(&chip->notifiers, n, link);
    pthread_mutex_unlock(&chip->lock);
}

/* --- state --- */

int sk_irqchip_get_state(struct sk_irqchip *chip, struct kvm_irqchip *io)
{
    int rc = 0;
    pthread_mutex_lock(&chip->lock);
    switch (io->chip_id) {
    case KVM_IRQCHIP_PIC_MASTER:
    case KVM_IRQCHIP_PIC_SLAVE:
        sk_pic_get_state(chip, io->chip_id, &io->chip.pic);
        break;
    case KVM_IRQCHIP_IOAPIC:
        sk_ioapic_get_state(chip, &io->chip.ioapic);
        break;
    default:
        rc = -EINVAL;
        break;
    }
    pthread_mutex_unlock(&chip->lock);
    return rc;
}

int sk_irqchip_set_state(struct sk_irqchip *chip, const struct kvm_irqchip *io)
{
    int rc = 0;
    pthread_mutex_lock(&chip->lock);
    switch (io->chip_id) {
    case KVM_IRQCHIP_PIC_MASTER:
    case KVM_IRQCHIP_PIC_SLAVE:
        sk_pic_set_state(chip, io->chip_id, &io->chip.pic);
        break;
    case KVM_IRQCHIP_IOAPIC:
        sk_ioapic_set_state(chip, &io->chip.ioapic);
        break;
    default:
        rc = -EINVAL;
        break;
    }
    pthread_mutex_unlock(&chip->lock);
    return rc;
}
