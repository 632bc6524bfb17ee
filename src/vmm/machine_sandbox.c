/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Closing the jail around a machine, in an order that leaves no gap:
 *
 *   main      opens all that has a name (machine_backs.c), then enters the jail: the threads that
 *             are started from now on are in it
 *   main      makes the machine, starts io and vCPU threads, waits until they wait
 *   main      the common filter, on all threads at once
 *   each      its own filter, then its work; the guest's first instruction comes after that
 */
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "vmm/machine_int.h"

bool machine_jailed(const struct machine *m)
{
    return !m->config->no_jail;
}

static bool machine_has_vsock(const struct machine *m)
{
    return m->config->vsock != 0;
}

int machine_enter_jail(struct machine *m, struct err *err)
{
    if (!machine_jailed(m)) {
        log_warn("jail", "off: whoever breaks out of the guest has all rights of this user", "");
        return 0;
    }
    sandbox_warm();
    char path[PATH_MAX];
    struct sandbox_jail jail = { .folder = NULL };
    if (m->vsock_path != NULL) {
        (void)snprintf(path, sizeof(path), "%s", m->vsock_path);
        jail.folder = dirname(path);
    }
    int rc = sandbox_enter(&jail, err);
    if (rc == 0 && jail.missing[0] != '\0') {
        log_warn("jail", "the host refuses some walls", "missing='%s'", jail.missing);
    }
    return rc;
}

void machine_unseal(struct machine *m)
{
    pthread_mutex_lock(&m->seal_lock);
    m->sealed = true;
    pthread_cond_broadcast(&m->seal_cond);
    pthread_mutex_unlock(&m->seal_lock);
}

int machine_seal(struct machine *m, struct err *err)
{
    if (!machine_jailed(m)) {
        machine_unseal(m);
        return 0;
    }
    pthread_mutex_lock(&m->seal_lock);
    while (m->waiting < 1 + vcpu_set_count(m->vcpus)) {
        pthread_cond_wait(&m->seal_cond, &m->seal_lock);
    }
    pthread_mutex_unlock(&m->seal_lock);
    int rc = sandbox_limits(err);
    rc = rc < 0 ? rc : sandbox_filter_process(machine_has_vsock(m), err);
    if (rc == 0) {
        machine_unseal(m);
        rc = sandbox_filter_thread(SANDBOX_MAIN, machine_has_vsock(m), err);
    }
    return rc;
}

int machine_seal_thread(struct machine *m, enum sandbox_kind kind, struct err *err)
{
    pthread_mutex_lock(&m->seal_lock);
    m->waiting++;
    pthread_cond_broadcast(&m->seal_cond);
    while (!m->sealed) {
        pthread_cond_wait(&m->seal_cond, &m->seal_lock);
    }
    pthread_mutex_unlock(&m->seal_lock);
    return machine_jailed(m) ? sandbox_filter_thread(kind, machine_has_vsock(m), err) : 0;
}

bool machine_vcpu_init(void *opaque)
{
    struct err err = ERR_INIT;
    if (machine_seal_thread(opaque, SANDBOX_VCPU, &err) < 0) {
        log_error("jail", "vCPU thread", "error='%s'", err.msg);
        return false;
    }
    return true;
}

/* With the first work, which comes from a running machine. */
void machine_worker_init(void *opaque)
{
    struct machine *m = opaque;
    struct err err = ERR_INIT;
    if (machine_jailed(m) &&
        sandbox_filter_thread(SANDBOX_WORKER, machine_has_vsock(m), &err) < 0) {
        machine_notify(m, MACHINE_CAUSE_HOST_ERROR, 0, -1, err.msg);
    }
}
