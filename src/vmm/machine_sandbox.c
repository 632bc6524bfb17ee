/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Closing the sandbox around a machine, in an order that leaves no gap:
 *
 *   main      capabilities, limits, file system (inherited by the threads started now)
 *   main      starts io and vCPU threads, waits until they wait
 *   main      the common filter, on all threads at once, workers of the block layer too
 *   each      its own filter, then its work; the guest's first instruction comes after that
 */
#include "vmm/machine_int.h"

static bool machine_sandboxed(const struct machine *m)
{
    return m->config->sandbox == 0; /* vmconfig.h: 0 is on */
}

static bool machine_has_vsock(const struct machine *m)
{
    return m->config->vsock != 0;
}

int machine_seal_prepare(struct machine *m, struct err *err)
{
    if (!machine_sandboxed(m)) {
        return 0;
    }
    sandbox_warm();
    return sandbox_drop(err);
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
    if (!machine_sandboxed(m)) {
        log_warn("sandbox", "off: whoever breaks out of the guest has all rights of this user", "");
        machine_unseal(m);
        return 0;
    }
    pthread_mutex_lock(&m->seal_lock);
    while (m->waiting < 1 + vcpu_set_count(m->vcpus)) {
        pthread_cond_wait(&m->seal_cond, &m->seal_lock);
    }
    pthread_mutex_unlock(&m->seal_lock);
    int rc = sandbox_filter_process(machine_has_vsock(m), err);
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
    return machine_sandboxed(m) ? sandbox_filter_thread(kind, machine_has_vsock(m), err) : 0;
}

bool machine_vcpu_init(void *opaque)
{
    struct err err = ERR_INIT;
    if (machine_seal_thread(opaque, SANDBOX_VCPU, &err) < 0) {
        log_error("sandbox", "vCPU thread", "error='%s'", err.msg);
        return false;
    }
    return true;
}
