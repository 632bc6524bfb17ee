/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The poll word: how other threads get a vCPU's attention, running or asleep.
 *
 * A sleeping vCPU waits (futex) on c->wait_word, the first dword of its kvm_run page, not on the
 * poll word: a signal handler of the client that sets kvm_run.immediate_exit between the last look
 * and the wait then makes the wait return at once. Byte 2 of that dword (padding in the ABI) is
 * ours: sk_poll_set() sets it so that the value has changed.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "softkvm/x86/cpu.h"

#define WAKE_BYTE 2

static _Atomic uint8_t *wake_byte(struct sk_vcpu *c)
{
    return (_Atomic uint8_t *)c->wait_word + WAKE_BYTE;
}

void sk_poll_set(struct sk_vcpu *c, uint32_t bits)
{
    /* Sequentially consistent with the stores and loads of sk_poll_wait(): either it sees the bit,
     * or we see that it sleeps. */
    atomic_fetch_or(&c->poll, bits);
    if (atomic_load(&c->sleeping) != 0) {
        atomic_store(wake_byte(c), 1);
        (void)syscall(SYS_futex, c->wait_word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

void sk_nmi_merge(struct sk_vcpu *c)
{
    uint32_t n = atomic_load_explicit(&c->ev_nmi, memory_order_relaxed);

    while (n > 1 && !atomic_compare_exchange_weak(&c->ev_nmi, &n, 1)) {
    }
}

void sk_poll_wait(struct sk_vcpu *c)
{
    /* A time-out, so that a signal with SA_RESTART ends the wait too (futex(2), ERRORS). */
    static const struct timespec limit = { .tv_sec = 3600 };
    atomic_store(wake_byte(c), 0);
    atomic_store(&c->sleeping, 1);
    uint32_t word = atomic_load(c->wait_word);
    if (atomic_load(&c->poll) == 0 && *c->immediate_exit == 0 &&
        (word >> (8 * WAKE_BYTE) & 0xff) == 0) {
        (void)syscall(SYS_futex, c->wait_word, FUTEX_WAIT, word, &limit, NULL, 0);
    }
    atomic_store(&c->sleeping, 0);
}
