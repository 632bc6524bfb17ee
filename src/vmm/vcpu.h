/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vCPUs of a VM: their threads, their run loop and their power-on state.
 *
 *            start()              run()
 *   created ---------> parked <=========> running        quit() from any state
 *                             park() + wait_parked()
 *
 * park() only asks and may come from any thread, a vCPU's own included: whoever has seen the end
 * of the guest asks, so that no further instruction of it runs. run(), wait_parked(), reset() and
 * the register functions belong to one controlling thread.
 *
 * A vCPU parks with no exit half done: what the engine still has to finish (the register that a
 * port read fills) is finished first (KVM api.rst 5, "KVM_EXIT_IO ... re-enter the kernel").
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <linux/kvm.h>
#include <stdio.h>

#include "base/bits.h"
#include "base/err.h"
#include "vmm/boot_state.h"
#include "vmm/bus/bus.h"
#include "vmm/vm.h"

struct vcpu_set;

/* What a vCPU cannot deal with itself. */
enum vcpu_event {
    VCPU_EVENT_TRIPLE_FAULT,
    VCPU_EVENT_POWEROFF, /* the engine saw it (KVM_EXIT_SYSTEM_EVENT) */
    VCPU_EVENT_RESET,
    VCPU_EVENT_PANIC,
    VCPU_EVENT_FAILED, /* the engine cannot go on; text says why */
};

struct vcpu_config {
    const struct vm *vm;
    const struct kvm_cpuid2 *cpuid; /* guest_cpuid_build(); copied a vCPU */
    unsigned count;                 /* 1 to 255 */
    const int *pin;                 /* host CPU of each, or NULL */
    struct bus *pio;
    struct bus *mmio;
    /* On the vCPU's thread; must not wait. The vCPUs are asked to park before it is called. */
    void (*event)(void *opaque, unsigned index, enum vcpu_event event, const char *text);
    /* First thing on each thread (system call filter); false = the vCPU fails. May be NULL. */
    bool (*thread_init)(void *opaque);
    void *opaque;
};

struct vcpu_stats {
    uint64_t exits;
    uint64_t io;
    uint64_t mmio;
};

MUST_USE int vcpu_set_new(const struct vcpu_config *config, struct vcpu_set **ret_set,
                          struct err *err);
/* Ends the threads and waits for them. Accepts NULL. */
void vcpu_set_free(struct vcpu_set *set);

/* Starts the threads, parked. */
MUST_USE int vcpu_set_start(struct vcpu_set *set, struct err *err);
void vcpu_set_run(struct vcpu_set *set);
void vcpu_set_park(struct vcpu_set *set);        /* any thread, does not wait */
void vcpu_set_wait_parked(struct vcpu_set *set); /* not from a vCPU thread */

/* Power-on state of all, then `boot` for vCPU 0. Parked, or before start(). */
MUST_USE int vcpu_set_reset(struct vcpu_set *set, const struct boot_state *boot, struct err *err);

/* Stops the guest's time: remembers the time stamp counters and kvm-clock; and lets it go on from
 * there, telling the guest's watchdogs (KVM_KVMCLOCK_CTRL). An engine without these clocks keeps
 * them running. Parked. */
void vcpu_set_clock_stop(struct vcpu_set *set);
void vcpu_set_clock_start(struct vcpu_set *set);

unsigned vcpu_set_count(const struct vcpu_set *set);
struct vcpu_stats vcpu_set_stats(const struct vcpu_set *set, unsigned index);

/* What the engine counted of one vCPU: at most `max`; returns their number. Any thread. */
unsigned vcpu_set_counters(const struct vcpu_set *set, unsigned index, struct hv_counter *ret,
                           unsigned max);

/* Registers of one vCPU as text. Parked. */
void vcpu_set_print(struct vcpu_set *set, unsigned index, FILE *out);

#endif
