/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The states of a machine. All of this runs on the main thread. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "vmm/dev/pm.h"
#include "vmm/machine_int.h"

/* How each cause ends a VM. A cause without an exit code of its own takes it from the notice. */
static const struct {
    int exit_code;
    const char *reason;
} machine_ends[] = {
    [MACHINE_CAUSE_POWEROFF] = {VMCONFIG_EXIT_OK,            "the guest powered off"                 },
    [MACHINE_CAUSE_RESET] = { VMCONFIG_EXIT_RESET,        "the guest asked for a reset"           },
    [MACHINE_CAUSE_TRIPLE_FAULT] = { VMCONFIG_EXIT_TRIPLE_FAULT, "triple fault"                          },
    [MACHINE_CAUSE_PANIC] = { VMCONFIG_EXIT_PANIC,        "the guest reported a panic"            },
    [MACHINE_CAUSE_DEBUG_EXIT] = { 0,                          "the guest ended through isa-debug-exit"},
    [MACHINE_CAUSE_ENGINE] = { VMCONFIG_EXIT_ENGINE,       "the engine failed"                     },
    [MACHINE_CAUSE_TIMEOUT] = { VMCONFIG_EXIT_TIMEOUT,      "the time limit passed"                 },
    [MACHINE_CAUSE_QUIT] = { VMCONFIG_EXIT_QUIT,         "ended from outside"                    },
    [MACHINE_CAUSE_HOST_ERROR] = { VMCONFIG_EXIT_FAILED,       "host error"                            },
};

static void machine_devices_stop(void *opaque)
{
    struct machine *m = opaque;
    struct dev *dev;
    TAILQ_FOREACH(dev, &m->env.devs, link)
    {
        dev_stop(dev);
    }
}

static void machine_devices_start(void *opaque)
{
    struct machine *m = opaque;
    struct dev *dev;
    TAILQ_FOREACH(dev, &m->env.devs, link)
    {
        dev_start(dev);
    }
}

static void machine_devices_reset(void *opaque)
{
    struct machine *m = opaque;
    struct dev *dev;
    TAILQ_FOREACH(dev, &m->env.devs, link)
    {
        dev_reset(dev);
    }
}

/* Stops the guest, then its devices: nobody then writes guest memory. */
static void machine_halt(struct machine *m)
{
    vcpu_set_park(m->vcpus);
    vcpu_set_wait_parked(m->vcpus);
    machine_io_call(m, machine_devices_stop, m);
    machine_clock_freeze(m);
}

static void machine_go(struct machine *m)
{
    machine_clock_thaw(m);
    machine_io_call(m, machine_devices_start, m);
    m->state = MACHINE_RUNNING;
    m->pause_reason[0] = '\0';
    m->io_error_pause = false;
    machine_unpark(m);
}

/* Under the lock: a report that comes now is set before it parks, so its park is the last word. */
void machine_unpark(struct machine *m)
{
    pthread_mutex_lock(&m->notice_lock);
    if (!m->notice.set && !m->io_error) {
        vcpu_set_run(m->vcpus);
    }
    pthread_mutex_unlock(&m->notice_lock);
}

int machine_pause(struct machine *m, const char *reason, struct err *err)
{
    if (m->state != MACHINE_RUNNING) {
        return err_set(err, -EALREADY, "the VM is not running");
    }
    machine_halt(m);
    vcpu_set_clock_stop(m->vcpus);
    m->state = MACHINE_PAUSED;
    (void)snprintf(m->pause_reason, sizeof(m->pause_reason), "%s", reason);
    log_info("machine", "paused", "reason='%s'", reason);
    return 0;
}

int machine_resume(struct machine *m, struct err *err)
{
    if (m->state != MACHINE_PAUSED) {
        return err_set(err, -EALREADY, "the VM is not paused");
    }
    vcpu_set_clock_start(m->vcpus);
    machine_go(m);
    log_info("machine", "resumed", "");
    return 0;
}

int machine_powerdown(struct machine *m, struct err *err)
{
    if (!pm_power_button(m->pm)) {
        return err_set(err, -EAGAIN,
                       "the guest does not listen to its power button (not booted far enough, or "
                       "no ACPI): use quit to end it at once");
    }
    return 0;
}

static void machine_end(struct machine *m, const struct machine_notice *n)
{
    machine_halt(m);
    m->state = MACHINE_ENDED;
    m->exit_code = n->cause == MACHINE_CAUSE_DEBUG_EXIT ? vmconfig_debug_exit_code(n->code)
                                                        : machine_ends[n->cause].exit_code;
    (void)snprintf(m->end_reason, sizeof(m->end_reason), "%s%s%s", machine_ends[n->cause].reason,
                   n->text[0] != '\0' ? ": " : "", n->text);
    if (n->vcpu >= 0 &&
        (n->cause == MACHINE_CAUSE_ENGINE || n->cause == MACHINE_CAUSE_TRIPLE_FAULT)) {
        vcpu_set_print(m->vcpus, (unsigned)n->vcpu, stderr);
    }
    if (m->exit_code == VMCONFIG_EXIT_FAILED && n->cause == MACHINE_CAUSE_HOST_ERROR) {
        (void)err_set(m->run_err, -EIO, "%s", m->end_reason);
    }
    loop_stop(m->loop);
}

/* A warm start: power-on state everywhere and the kernel loaded again. */
static void machine_reset(struct machine *m)
{
    machine_halt(m);
    machine_io_call(m, machine_devices_reset, m);
    struct err err = ERR_INIT;
    if (machine_boot(m, &err) < 0) {
        struct machine_notice n = { .cause = MACHINE_CAUSE_HOST_ERROR, .vcpu = -1 };
        (void)snprintf(n.text, sizeof(n.text), "reset: %.200s", err.msg);
        machine_end(m, &n);
        return;
    }
    m->resets++;
    log_info("machine", "reset", "count='%" PRIu64 "'", m->resets);
    machine_go(m);
}

bool machine_cause_resets(const struct machine *m, enum machine_cause cause)
{
    return !m->config->no_reboot &&
           (cause == MACHINE_CAUSE_RESET || cause == MACHINE_CAUSE_TRIPLE_FAULT);
}

/* What devices and vCPUs reported since the last look. */
void machine_on_notice(void *opaque)
{
    struct machine *m = opaque;
    pthread_mutex_lock(&m->notice_lock);
    struct machine_notice n = m->notice;
    bool io_error = m->io_error;
    char io_text[MACHINE_REASON_MAX];
    memcpy(io_text, m->io_error_text, sizeof(io_text));
    m->notice.set = false;
    m->io_error = false;
    pthread_mutex_unlock(&m->notice_lock);
    if (m->state == MACHINE_ENDED) {
        return;
    }
    if (n.set && machine_cause_resets(m, n.cause)) {
        machine_reset(m);
    } else if (n.set) {
        machine_end(m, &n);
    } else if (io_error && m->state == MACHINE_RUNNING) {
        struct err err = ERR_INIT;
        (void)machine_pause(m, io_text, &err); /* it is running, so it can be paused */
        m->io_error_pause = true;
        log_error("machine", "paused because a disk cannot be used: resume after mending it",
                  "reason='%s'", io_text);
    }
}

static void machine_on_timeout(void *opaque)
{
    struct machine *m = opaque;
    char text[64];
    (void)snprintf(text, sizeof(text), "%" PRIu64 " s", m->config->timeout_s);
    machine_notify(m, MACHINE_CAUSE_TIMEOUT, 0, -1, text);
}

static void *machine_io_thread(void *opaque)
{
    struct machine *m = opaque;
    struct err err = ERR_INIT;
    int rc = machine_seal_thread(m, SANDBOX_IO, &err);
    if (rc == 0) {
        rc = loop_run(m->io_loop);
    }
    if (rc < 0) {
        machine_notify(m, MACHINE_CAUSE_HOST_ERROR, 0, -1,
                       err.code != 0 ? err.msg : "the device loop failed");
    }
    return NULL;
}

/* SIGTERM asks the guest to power down, the second one ends it; SIGINT and SIGHUP end it. */
static void machine_on_signal(void *opaque, uint32_t events)
{
    (void)events;
    struct machine *m = opaque;
    struct signalfd_siginfo info;
    if (read(m->signal_fd, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    struct err err = ERR_INIT;
    if (info.ssi_signo == SIGTERM && m->terms++ == 0 && machine_powerdown(m, &err) == 0) {
        log_info("machine", "power button pressed", "why='SIGTERM'");
        return;
    }
    machine_notify(m, MACHINE_CAUSE_QUIT, 0, -1, strsignal((int)info.ssi_signo));
}

static int machine_watch_signals(struct machine *m, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (m->signal_fd < 0 ||
        loop_fd_add(m->loop, m->signal_fd, EPOLLIN, machine_on_signal, m) == NULL) {
        return err_set_errno(err, -errno, "cannot watch signals");
    }
    return 0;
}

static int machine_start(struct machine *m, struct err *err)
{
    int rc = machine_watch_signals(m, err);
    if (rc < 0) {
        return rc;
    }
    rc = thread_start(&m->io_thread, "io", -1, machine_io_thread, m, err);
    if (rc < 0) {
        return rc;
    }
    m->io_started = true;
    rc = vcpu_set_start(m->vcpus, err);
    if (rc == 0) {
        rc = machine_seal(m, err);
    }
    if (rc < 0) {
        return rc;
    }
    m->started_ns = loop_now_ns();
    if (m->config->timeout_s != 0) {
        loop_timer_init(&m->timeout, m->loop, machine_on_timeout, m);
        loop_timer_set(&m->timeout, m->started_ns + m->config->timeout_s * UINT64_C(1000000000));
    }
    machine_go(m);
    return 0;
}

int machine_run(struct machine *m, struct err *err)
{
    m->run_err = err;
    int rc = machine_start(m, err);
    if (rc < 0) {
        return VMCONFIG_EXIT_FAILED;
    }
    rc = loop_run(m->loop);
    if (rc < 0) {
        (void)err_set_errno(err, rc, "the control loop failed");
        return VMCONFIG_EXIT_FAILED;
    }
    return m->exit_code;
}

const char *machine_end_reason(const struct machine *m)
{
    return m->end_reason;
}

const char *machine_engine_name(const struct machine *m)
{
    return m->engine.hv->name;
}

uint64_t machine_uptime_ms(const struct machine *m)
{
    return m->started_ns == 0 ? 0 : (loop_now_ns() - m->started_ns) / 1000000;
}

uint64_t machine_resets(const struct machine *m)
{
    return m->resets;
}
