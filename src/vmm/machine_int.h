/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside of a machine, shared by machine.c (building), machine_devices.c (rows of devices.def),
 * machine_env.c (what devices see), machine_boot.c (kernel, reset) and machine_run.c (states).
 */
#ifndef VMM_MACHINE_INT_H
#define VMM_MACHINE_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/loop.h"
#include "vmm/boot/boot.h"
#include "vmm/chr/chr.h"
#include "vmm/ctl/ctl.h"
#include "vmm/ctl/prompt.h"
#include "vmm/dev/dev.h"
#include "vmm/engine.h"
#include "vmm/helper.h"
#include "vmm/irq.h"
#include "vmm/layout.h"
#include "vmm/machine.h"
#include "vmm/mem/ram.h"
#include "vmm/net/netbe.h"
#include "vmm/net/unixsock.h"
#include "vmm/sandbox/sandbox.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define MACHINE_REASON_MAX 256

enum machine_state {
    MACHINE_PAUSED,
    MACHINE_RUNNING,
    MACHINE_ENDED,
};

/* Why a machine ends or starts anew, as devices, vCPUs and users report it. */
enum machine_cause {
    MACHINE_CAUSE_POWEROFF,
    MACHINE_CAUSE_RESET,
    MACHINE_CAUSE_TRIPLE_FAULT,
    MACHINE_CAUSE_PANIC,
    MACHINE_CAUSE_DEBUG_EXIT,
    MACHINE_CAUSE_ENGINE,
    MACHINE_CAUSE_TIMEOUT,
    MACHINE_CAUSE_QUIT,
    MACHINE_CAUSE_HOST_ERROR,
};

/* What the devices stand on; closed after them. */
enum machine_chr {
    MACHINE_CHR_CONSOLE,
    MACHINE_CHR_HVC,
    MACHINE_CHR_DEBUGCON,
    MACHINE_CHRS,
};

struct machine_back {
    struct chr *chr[MACHINE_CHRS]; /* NULL = none */
    struct netbe *net[VMCONFIG_MAX_NETS];
    unsigned nnet;
    struct blk *blk[VMCONFIG_MAX_DISKS];
    unsigned nblk;
    struct helper share[VMCONFIG_MAX_SHARES]; /* servers of the shared folders */
    unsigned nshare;
    struct unixsock vsock; /* until the device takes it */
};

struct machine_notice {
    bool set;
    enum machine_cause cause;
    uint32_t code; /* MACHINE_CAUSE_DEBUG_EXIT */
    int vcpu;      /* whose registers are worth showing, or -1 */
    char text[MACHINE_REASON_MAX];
};

struct machine {
    const struct vmconfig *config;
    struct engine_choice engine;
    struct kvm_cpuid2 *cpuid;
    struct layout layout;
    struct ram ram;
    struct gmem *gmem;
    struct vm vm;
    struct vm_chips *chips;
    struct irq *irq;
    struct bus *pio;
    struct bus *mmio;
    struct boot_file kernel;
    struct boot_file initrd;
    uint64_t rsdp;
    int *pin;
    struct vcpu_set *vcpus;

    struct dev_env env;
    struct machine_back back;
    struct dev *pm;           /* the power button */
    struct dev *balloon;      /* NULL = none */
    const char *console_name; /* of the first serial port */
    char *vsock_path;         /* of the listening socket; NULL = no vsock */
    struct prompt *prompt;    /* on the stdio console; NULL = none */
    struct loop *loop;        /* main thread */
    struct loop *io_loop;     /* io thread */
    pthread_t io_thread;
    bool io_started;

    /* Main thread only. */
    struct ctl *ctl; /* NULL = no control socket */
    int signal_fd;
    unsigned terms; /* SIGTERMs seen */
    enum machine_state state;
    char pause_reason[MACHINE_REASON_MAX]; /* "" while running */
    bool io_error_pause;
    int exit_code;
    char end_reason[2 * MACHINE_REASON_MAX];
    struct err *run_err;
    struct loop_timer timeout;
    uint64_t started_ns;
    uint64_t resets;

    /* The first report of an end wins until the main thread has dealt with it. */
    pthread_mutex_t notice_lock;
    struct machine_notice notice;
    bool io_error;
    char io_error_text[MACHINE_REASON_MAX];

    /* Threads wait before their first work until the sandbox is closed around the process. */
    pthread_mutex_t seal_lock;
    pthread_cond_t seal_cond;
    bool sealed;
    unsigned waiting;

    /* Guest time = CLOCK_MONOTONIC - offset, or `frozen` when that is not 0. Written by the main
     * thread, read by any: each is one word, and a reader between the two writes of a resume sees
     * the frozen value. */
    _Atomic uint64_t clock_offset;
    _Atomic uint64_t clock_frozen;
};

/* machine_env.c */
extern const struct dev_env_ops machine_env_ops;
uint64_t machine_clock_now(const struct machine *m);
void machine_clock_freeze(struct machine *m);
void machine_clock_thaw(struct machine *m);
/* Any thread: remembers the report and wakes the main thread. The vCPUs are asked to park. */
void machine_notify(struct machine *m, enum machine_cause cause, uint32_t code, int vcpu,
                    const char *text);
void machine_vcpu_event(void *opaque, unsigned index, enum vcpu_event event, const char *text);
/* Runs fn(opaque) on the io thread and waits for it (directly while that thread is not there). */
void machine_io_call(struct machine *m, loop_fn *fn, void *opaque);

/* chr_open(): Ctrl-A x and Ctrl-A c. On the io thread. */
void machine_on_escape(void *opaque, enum chr_escape what);

/* machine_backs.c: what has a name on the host; the control socket, too. */
MUST_USE int machine_open_backs(struct machine *m, struct err *err);
void machine_close_backs(struct machine *m);

/* machine_devices.c */
MUST_USE int machine_add_devices(struct machine *m, struct err *err);
void machine_free_devices(struct machine *m);

/* machine_boot.c: everything that a reset does anew, with the vCPUs parked and devices stopped. */
MUST_USE int machine_boot_open(struct machine *m, struct err *err);
MUST_USE int machine_boot(struct machine *m, struct err *err);

/* machine_sandbox.c */
/* Whether there is a jail (no --no-jail). */
bool machine_jailed(const struct machine *m);
/* The walls around the process: when all files are open, before there is a second thread. */
MUST_USE int machine_enter_jail(struct machine *m, struct err *err);
/* The system call filters: when all threads are there. Main thread. */
MUST_USE int machine_seal(struct machine *m, struct err *err);
/* First thing on each other thread: waits for machine_seal(), then narrows itself. */
MUST_USE int machine_seal_thread(struct machine *m, enum sandbox_kind kind, struct err *err);
/* Lets threads go that wait still, after a failed start. */
void machine_unseal(struct machine *m);
bool machine_vcpu_init(void *opaque);   /* vcpu_config.thread_init */
void machine_worker_init(void *opaque); /* virtio_blk_params.worker_init */

/* machine_run.c; main thread. */
void machine_on_notice(void *opaque);
/* Whether the cause starts the machine anew; the others end it. Any thread. */
bool machine_cause_resets(const struct machine *m, enum machine_cause cause);
int machine_pause(struct machine *m, const char *reason, struct err *err);
int machine_resume(struct machine *m, struct err *err);
/* Presses the power button; -EAGAIN when the guest does not listen. */
int machine_powerdown(struct machine *m, struct err *err);
/* Lets the vCPUs run again, unless a report waits that ends or pauses the machine. */
void machine_unpark(struct machine *m);

/* machine_ctl.c: ctl_handler of a machine. */
void machine_ctl(void *opaque, struct wire_msg *msg);

#endif
