/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by vcpu.c (threads, run loop), vcpu_exit.c (exits) and vcpu_state.c (registers). */
#ifndef VMM_VCPU_INT_H
#define VMM_VCPU_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/log.h"
#include "vmm/vcpu.h"

/* Registers and controller state after creation, put back at a reset. */
struct vcpu_power_on {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debugregs;
    struct kvm_xcrs xcrs;
    struct kvm_mp_state mp_state;
    struct kvm_xsave *xsave; /* NULL: the engine has none */
    bool has_debugregs;
    bool has_xcrs;
    struct kvm_msrs *msrs;
};

struct vcpu {
    struct vcpu_set *set;
    unsigned index;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    _Atomic pid_t tid; /* 0 = not there yet, or no longer */
    bool started;
    bool dead; /* the engine gave up on it: it only parks; under set->lock */
    struct vcpu_power_on power_on;
    uint64_t stopped_tsc; /* while the clocks stand */
    /* Written by the vCPU's thread, read by others. */
    _Atomic uint64_t exits;
    _Atomic uint64_t io;
    _Atomic uint64_t mmio;
};

enum vcpu_want {
    VCPU_WANT_PARK,
    VCPU_WANT_RUN,
    VCPU_WANT_QUIT,
};

struct vcpu_set {
    struct vcpu_config config;
    pthread_mutex_t lock; /* parked, want (writes); leaf */
    pthread_cond_t cond;
    _Atomic int want; /* enum vcpu_want: read by the run loops without the lock */
    unsigned parked;
    pid_t pid;
    bool clock_stopped; /* stopped_clock and stopped_tsc are valid; controlling thread */
    struct kvm_clock_data stopped_clock;
    unsigned count;
    struct vcpu vcpu[];
};

static inline int vcpu_ioctl(const struct vcpu *v, unsigned long request, void *arg)
{
    return v->set->config.vm->hv->ioctl(v->fd, request, arg);
}

/* Handles run->exit_reason. True: enter the guest again. */
bool vcpu_exit(struct vcpu *v);
/* Asks all to park and reports. */
void vcpu_report(struct vcpu *v, enum vcpu_event event, const char *text);
/* An engine failure: logs the registers, then reports. */
void vcpu_fail(struct vcpu *v, const char *fmt, ...) PRINTF_LIKE(2, 3);

MUST_USE int vcpu_state_save(struct vcpu *v, struct err *err);
MUST_USE int vcpu_state_reset(struct vcpu *v, const struct boot_state *boot, struct err *err);
void vcpu_state_free(struct vcpu *v);
/* The time stamp counter. 0 or a negative errno. */
MUST_USE int vcpu_tsc_get(const struct vcpu *v, uint64_t *ret_tsc);
void vcpu_tsc_set(const struct vcpu *v, uint64_t tsc);
void vcpu_state_print(struct vcpu *v, FILE *out);

#endif
