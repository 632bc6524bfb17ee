/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The local APIC's timer: one-shot, periodic and TSC deadline (SDM 3A §11.5.4). The bus clock is
 * 1 GHz, as KVM's, so a count is nanoseconds times the divider.
 */
#include "softkvm/irqchip/irqchip_int.h"
#include "softkvm/x86/tsc.h"

/* A guest may ask for a period of a few ns; nothing on this host could follow. */
#define LAPIC_TIMER_MIN_PERIOD_NS 20000

static uint64_t timer_divider(const struct sk_lapic *l)
{
    uint32_t v = sk_lapic_get(l, SK_LAPIC_TIMER_DIV);
    unsigned shift = ((v & 3) | ((v >> 1) & 4)) + 1;
    return UINT64_C(1) << (shift & 7); /* 111b divides by 1 */
}

static uint32_t timer_mode(const struct sk_lapic *l)
{
    return sk_lapic_get(l, SK_LAPIC_LVT_TIMER) & SK_LVT_TIMER_MODE;
}

/* The deadline has passed, on the timer thread. */
static void timer_fire(struct sk_timer *t, uint64_t now_ns)
{
    struct sk_lapic *l = container_of(t, struct sk_lapic, timer);
    pthread_mutex_lock(&l->timer_lock);
    uint32_t mode = timer_mode(l);
    uint64_t next = UINT64_MAX;
    if (mode == SK_LVT_TIMER_PERIODIC && l->timer_period_ns != 0) {
        /* Keep the phase; what was missed is one interrupt, as on hardware with IRR set. */
        uint64_t late = now_ns - l->timer_start_ns;
        l->timer_start_ns += late / l->timer_period_ns * l->timer_period_ns;
        next = l->timer_start_ns + l->timer_period_ns;
    } else {
        l->timer_period_ns = 0;
        l->tsc_deadline = 0;
    }
    sk_irqchip_timer_set(l->chip, &l->timer, next);
    pthread_mutex_unlock(&l->timer_lock);
    sk_lapic_fire_lvt(l, SK_LAPIC_LVT_TIMER);
}

void sk_lapic_timer_init(struct sk_lapic *l)
{
    pthread_mutex_init(&l->timer_lock, NULL);
    l->timer = (struct sk_timer){ .deadline_ns = UINT64_MAX, .fn = timer_fire };
}

void sk_lapic_timer_stop(struct sk_lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    l->timer_period_ns = 0;
    l->tsc_deadline = 0;
    sk_irqchip_timer_set(l->chip, &l->timer, UINT64_MAX);
    pthread_mutex_unlock(&l->timer_lock);
}

/* With the timer lock: counts `count` down from now. */
static void timer_start(struct sk_lapic *l, uint32_t count)
{
    uint64_t initial = sk_lapic_get(l, SK_LAPIC_TIMER_INIT);
    uint64_t divider = timer_divider(l);
    l->timer_period_ns = initial * divider;
    if (timer_mode(l) == SK_LVT_TIMER_PERIODIC) {
        l->timer_period_ns = MAX(l->timer_period_ns, (uint64_t)LAPIC_TIMER_MIN_PERIOD_NS);
    }
    uint64_t left = MIN(count * divider, l->timer_period_ns);
    l->timer_start_ns = sk_irqchip_now_ns() + left - l->timer_period_ns;
    sk_irqchip_timer_set(l->chip, &l->timer, l->timer_start_ns + l->timer_period_ns);
}

void sk_lapic_timer_restart(struct sk_lapic *l)
{
    if (timer_mode(l) == SK_LVT_TIMER_DEADLINE) {
        return;
    }
    uint32_t initial = sk_lapic_get(l, SK_LAPIC_TIMER_INIT);
    if (initial == 0) {
        sk_lapic_timer_stop(l);
        return;
    }
    pthread_mutex_lock(&l->timer_lock);
    timer_start(l, initial);
    pthread_mutex_unlock(&l->timer_lock);
}

void sk_lapic_timer_mode_changed(struct sk_lapic *l, uint32_t old_lvt)
{
    uint32_t changed = (old_lvt ^ sk_lapic_get(l, SK_LAPIC_LVT_TIMER)) & SK_LVT_TIMER_MODE;
    /* Between TSC deadline and the others the timer is disarmed (SDM 3A §11.5.4.1). */
    if ((changed & SK_LVT_TIMER_DEADLINE) != 0) {
        sk_lapic_timer_stop(l);
        sk_lapic_put(l, SK_LAPIC_TIMER_INIT, 0);
    } else if (changed != 0 && timer_mode(l) == SK_LVT_TIMER_PERIODIC) {
        /* A count that has run out stays so, even if the timer thread is late to see it. */
        pthread_mutex_lock(&l->timer_lock);
        if (sk_irqchip_now_ns() - l->timer_start_ns >= l->timer_period_ns) {
            l->timer_period_ns = 0;
        }
        pthread_mutex_unlock(&l->timer_lock);
    }
}

uint32_t sk_lapic_timer_current(struct sk_lapic *l)
{
    if (timer_mode(l) == SK_LVT_TIMER_DEADLINE) {
        return 0;
    }
    pthread_mutex_lock(&l->timer_lock);
    uint64_t period = l->timer_period_ns;
    uint64_t passed = sk_irqchip_now_ns() - l->timer_start_ns;
    pthread_mutex_unlock(&l->timer_lock);
    if (period == 0) {
        return 0;
    }
    if (passed >= period) {
        if (timer_mode(l) != SK_LVT_TIMER_PERIODIC) {
            return 1; /* about to fire: a state that is read now must not lose it */
        }
        passed %= period;
    }
    uint64_t divider = timer_divider(l);
    return (uint32_t)((period - passed + divider - 1) / divider);
}

void sk_lapic_timer_set_state(struct sk_lapic *l, uint32_t current)
{
    if (timer_mode(l) == SK_LVT_TIMER_DEADLINE || current == 0) {
        return;
    }
    pthread_mutex_lock(&l->timer_lock);
    timer_start(l, current);
    pthread_mutex_unlock(&l->timer_lock);
}

uint64_t sk_lapic_timer_deadline(struct sk_lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    uint64_t tsc = timer_mode(l) == SK_LVT_TIMER_DEADLINE ? l->tsc_deadline : 0;
    pthread_mutex_unlock(&l->timer_lock);
    return tsc;
}

void sk_lapic_timer_set_deadline(struct sk_lapic *l, uint64_t tsc)
{
    if (timer_mode(l) != SK_LVT_TIMER_DEADLINE) {
        return; /* ignored in the other modes: SDM 3A §11.5.4.1 */
    }
    pthread_mutex_lock(&l->timer_lock);
    l->tsc_deadline = tsc;
    uint64_t deadline = UINT64_MAX;
    bool now = false;
    if (tsc != 0) {
        uint64_t ns = sk_tsc_ns_until(l->c, tsc);
        now = ns == 0;
        deadline = now ? UINT64_MAX : sk_irqchip_now_ns() + ns;
        if (now) {
            l->tsc_deadline = 0;
        }
    }
    sk_irqchip_timer_set(l->chip, &l->timer, deadline);
    pthread_mutex_unlock(&l->timer_lock);
    if (now) {
        sk_lapic_fire_lvt(l, SK_LAPIC_LVT_TIMER);
    }
}
