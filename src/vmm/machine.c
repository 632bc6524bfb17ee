/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/bus/pci.h"
#include "vmm/guest_cpuid.h"
#include "vmm/machine_int.h"

#define MACHINE_MAX_HOST_CPU 1023 /* CPU_SETSIZE - 1 */

/* One decimal number of a list; *p is moved behind it. */
static int machine_parse_number(const char **p, unsigned max, unsigned *ret)
{
    char *end;
    if (**p < '0' || **p > '9') {
        return -EINVAL;
    }
    unsigned long v = strtoul(*p, &end, 10);
    if (v > max) {
        return -ERANGE;
    }
    *p = end;
    *ret = (unsigned)v;
    return 0;
}

/* "0,2-3" for `n` vCPUs: the first n host CPUs of the list. */
static int machine_parse_pin(const char *list, unsigned n, int *pin, struct err *err)
{
    unsigned filled = 0;
    for (const char *p = list; filled < n;) {
        unsigned first;
        unsigned last;
        if (machine_parse_number(&p, MACHINE_MAX_HOST_CPU, &first) < 0) {
            break;
        }
        last = first;
        if (*p == '-') {
            p++;
            if (machine_parse_number(&p, MACHINE_MAX_HOST_CPU, &last) < 0 || last < first) {
                break;
            }
        }
        for (unsigned cpu = first; cpu <= last && filled < n; cpu++) {
            pin[filled++] = (int)cpu;
        }
        if (filled == n) {
            return 0;
        }
        if (*p == '\0') {
            return err_set(err, -EINVAL, "--pin: '%s' names %u host CPUs for %u vCPUs", list,
                           filled, n);
        }
        if (*p++ != ',') {
            break;
        }
    }
    return err_set(err, -EINVAL, "--pin: '%s' is not a list of host CPUs (0 to %d) such as 0,2-3",
                   list, MACHINE_MAX_HOST_CPU);
}

static int machine_init_cpu(struct machine *m, struct err *err)
{
    const struct vmconfig *c = m->config;
    int rc =
        engine_choose(&engine_this_host, (enum vmconfig_engine)c->engine.name, &m->engine, err);
    if (rc == 0 && c->engine.jit != NULL && m->engine.hv->set_jit != NULL) {
        rc = m->engine.hv->set_jit(c->engine.jit, err);
    }
    if (rc < 0) {
        return rc;
    }
    log_info("engine", "chosen", "name='%s' reason='%s'", m->engine.hv->name,
             m->engine.finding.reason);
    rc = guest_cpuid_build(m->engine.hv, m->engine.sys_fd, c->cpu, (unsigned)c->cpus, &m->cpuid,
                           err);
    if (rc < 0) {
        return rc;
    }
    if (c->pin != NULL) {
        m->pin = calloc((size_t)c->cpus, sizeof(m->pin[0]));
        if (m->pin == NULL) {
            return err_set(err, -ENOMEM, "vCPUs: out of memory");
        }
        return machine_parse_pin(c->pin, (unsigned)c->cpus, m->pin, err);
    }
    return 0;
}

static void machine_count_write(void *opaque, gpa_t gpa, uint64_t len)
{
    _Atomic uint64_t *writes = opaque;
    (void)gpa;
    (void)len;
    atomic_fetch_add_explicit(writes, 1, memory_order_release);
}

static int machine_init_memory(struct machine *m, struct err *err)
{
    const struct vmconfig *c = m->config;
    int rc = layout_init(&m->layout, c->memory, guest_cpuid_phys_bits(m->cpuid), err);
    if (rc < 0) {
        return rc;
    }
    struct ram_opts opts = {
        .pages = c->hugepages ? RAM_PAGES_2M : RAM_PAGES_NORMAL,
        .numa_node = -1,
    };
    if (c->numa_node != NULL) {
        const char *p = c->numa_node;
        unsigned node;
        if (machine_parse_number(&p, MACHINE_MAX_HOST_CPU, &node) < 0 || *p != '\0') {
            return err_set(err, -EINVAL, "--numa: '%s' is not a node number (0 to %d)",
                           c->numa_node, MACHINE_MAX_HOST_CPU);
        }
        opts.numa_node = (int)node;
    }
    rc = ram_init(&m->ram, c->memory, &opts, err);
    if (rc < 0) {
        return rc;
    }
    m->gmem = gmem_new();
    if (m->gmem == NULL) {
        return err_set(err, -ENOMEM, "guest memory: out of memory");
    }
    rc = vm_init(&m->vm, m->engine.hv, m->engine.sys_fd, err);
    if (rc < 0) {
        return rc;
    }
    m->engine.sys_fd = -1; /* the VM's now */
    _Atomic uint64_t *writes = vm_writes(&m->vm);
    if (writes != NULL) {
        gmem_set_written_hook(m->gmem, machine_count_write, writes);
    }
    const struct layout_range *pieces[] = { &m->layout.low_ram, &m->layout.high_ram };
    uint64_t offset = 0;
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        uint64_t size = layout_size(pieces[i]);
        if (size == 0) {
            continue;
        }
        char *host = (char *)m->ram.addr + offset;
        rc = vm_add_memory(&m->vm, pieces[i]->base, size, host, false, err);
        if (rc < 0) {
            return rc;
        }
        rc = gmem_add(m->gmem, GPA(pieces[i]->base), size, host, true);
        if (rc < 0) {
            return err_set_errno(err, rc, "guest memory");
        }
        offset += size;
    }
    return 0;
}

static int machine_init_buses(struct machine *m, struct err *err)
{
    int rc = irq_new(&m->vm, &m->irq, err);
    if (rc < 0) {
        return rc;
    }
    m->pio = bus_new("ports", 65536);
    m->mmio = bus_new("memory", BIT64(m->layout.phys_bits));
    if (m->pio == NULL || m->mmio == NULL) {
        return err_set(err, -ENOMEM, "buses: out of memory");
    }
    if (vm_cap(&m->vm, KVM_CAP_IOEVENTFD) > 0) {
        bus_set_eventfd_hook(m->pio, vm_pio_eventfd, &m->vm);
        bus_set_eventfd_hook(m->mmio, vm_mmio_eventfd, &m->vm);
    }
    m->env.ops = &machine_env_ops;
    m->env.mem = m->gmem;
    m->env.pio = m->pio;
    m->env.mmio = m->mmio;
    m->env.loop = m->io_loop;
    m->env.opaque = m;
    return pci_bus_new(&m->env, LAYOUT_ECAM_BASE, &m->env.pci, err);
}

/* What firmware would do: addresses for the BARs. ACPI tables are placed by machine_boot(). */
static int machine_init_firmware(struct machine *m, struct err *err)
{
    const struct pci_windows windows = {
        .io_base = m->layout.pci_io.base,
        .io_end = m->layout.pci_io.end,
        .mem32_base = m->layout.mem32.base,
        .mem32_end = m->layout.mem32.end,
        .mem64_base = m->layout.mem64.base,
        .mem64_end = m->layout.mem64.end,
    };
    return pci_bus_assign(m->env.pci, &windows, err);
}

static int machine_init_vcpus(struct machine *m, struct err *err)
{
    struct vcpu_config config = {
        .vm = &m->vm,
        .cpuid = m->cpuid,
        .count = (unsigned)m->config->cpus,
        .pin = m->pin,
        .pio = m->pio,
        .mmio = m->mmio,
        .event = machine_vcpu_event,
        .thread_init = machine_vcpu_init,
        .opaque = m,
    };
    int rc = vcpu_set_new(&config, &m->vcpus, err);
    if (rc < 0) {
        return rc;
    }
    rc = vm_chips_save(&m->vm, &m->chips, err);
    return rc < 0 ? rc : machine_boot(m, err);
}

static int machine_init_loops(struct machine *m, struct err *err)
{
    int rc = loop_new(&m->loop, err);
    return rc < 0 ? rc : loop_new(&m->io_loop, err);
}

int machine_new(const struct vmconfig *config, struct machine **ret_machine, struct err *err)
{
    struct machine *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return err_set(err, -ENOMEM, "machine: out of memory");
    }
    m->config = config;
    m->engine.sys_fd = -1;
    m->signal_fd = -1;
    m->ram.fd = -1;
    m->kernel.fd = -1;
    m->initrd.fd = -1;
    m->back.vsock.fd = -1;
    TAILQ_INIT(&m->env.devs);
    pthread_mutex_init(&m->notice_lock, NULL);
    pthread_mutex_init(&m->seal_lock, NULL);
    pthread_cond_init(&m->seal_cond, NULL);
    static int (*const steps[])(struct machine * m, struct err * err) = {
        machine_boot_open,     machine_init_cpu,    machine_init_loops, machine_open_backs,
        machine_enter_jail,    machine_init_memory, machine_init_buses, machine_add_devices,
        machine_init_firmware, machine_init_vcpus,
    };
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        int rc = steps[i](m, err);
        if (rc < 0) {
            machine_free(m);
            return rc;
        }
    }
    machine_clock_freeze(m);
    *ret_machine = m;
    return 0;
}

void machine_free(struct machine *m)
{
    if (m == NULL) {
        return;
    }
    ctl_free(m->ctl);
    machine_unseal(m);
    vcpu_set_free(m->vcpus);
    if (m->io_started) {
        loop_stop(m->io_loop);
        pthread_join(m->io_thread, NULL);
        m->io_started = false;
    }
    machine_free_devices(m);
    pci_bus_free(m->env.pci);
    bus_free(m->pio);
    bus_free(m->mmio);
    irq_free(m->irq);
    loop_free(m->io_loop);
    loop_free(m->loop);
    vm_chips_free(m->chips);
    vm_done(&m->vm);
    gmem_free(m->gmem);
    ram_done(&m->ram);
    if (m->engine.sys_fd >= 0) {
        m->engine.hv->close(m->engine.sys_fd);
    }
    if (m->signal_fd >= 0) {
        close(m->signal_fd);
    }
    boot_file_close(&m->kernel);
    boot_file_close(&m->initrd);
    free(m->cpuid);
    free(m->pin);
    pthread_cond_destroy(&m->seal_cond);
    pthread_mutex_destroy(&m->seal_lock);
    pthread_mutex_destroy(&m->notice_lock);
    free(m);
}
