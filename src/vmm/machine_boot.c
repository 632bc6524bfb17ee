/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loading the guest, at the first start and at each reset. */
#include <stdio.h>

#include "vmm/acpi/acpi.h"
#include "vmm/machine_int.h"

int machine_boot_open(struct machine *m, struct err *err)
{
    int rc = boot_file_open(m->config->kernel, &m->kernel, err);
    if (rc < 0) {
        return err_prefix(err, "kernel: ");
    }
    if (m->config->initrd != NULL) {
        rc = boot_file_open(m->config->initrd, &m->initrd, err);
        if (rc < 0) {
            return err_prefix(err, "initrd: ");
        }
    }
    return 0;
}

int machine_boot(struct machine *m, struct err *err)
{
    const struct acpi_config acpi = { .layout = &m->layout,
                                      .env = &m->env,
                                      .ncpus = (unsigned)m->config->cpus };
    int rc = acpi_install(&acpi, m->gmem, &m->rsdp, err);
    if (rc < 0) {
        return rc;
    }
    struct boot_req req = {
        .mem = m->gmem,
        .layout = &m->layout,
        .kernel = &m->kernel,
        .initrd = m->initrd.fd >= 0 ? &m->initrd : NULL,
        .cmdline = m->config->append,
        .rsdp = m->rsdp,
    };
    m->env.ops->random(&m->env, req.seed, sizeof(req.seed));
    struct boot_state state = { 0 };
    rc = boot_load(&req, &state, err);
    if (rc < 0) {
        return rc;
    }
    rc = vm_chips_restore(&m->vm, m->chips, err);
    return rc < 0 ? rc : vcpu_set_reset(m->vcpus, &state, err);
}
