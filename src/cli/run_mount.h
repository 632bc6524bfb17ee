/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada run IMAGE --mount HOST:GUEST[:rw]: a shared folder of the VM, and what the agent mounts.
 */
#ifndef CLI_RUN_MOUNT_H
#define CLI_RUN_MOUNT_H

#include <limits.h>

#include "vmm/vmconfig.h"

struct run_mount {
    char tag[VMCONFIG_TAG_MAX + 1];
    char guest[PATH_MAX];
};

struct run_mounts {
    unsigned count;
    struct run_mount mount[VMCONFIG_MAX_SHARES];
    const char *words[2 * VMCONFIG_MAX_SHARES + 1]; /* for run_vm_command(): tag, path, ..., NULL */
};

/* Adds the share that `text` asks for to the configuration, and its mount. -EINVAL: not of that
 * form; -ENOTDIR, -ENOENT...: what the host's folder is. */
MUST_USE int run_mount_add(struct run_mounts *m, const char *text, struct vmconfig *config,
                           struct err *err);

#endif
