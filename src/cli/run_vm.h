/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada-vmm as a child, and the agent's connection to it (proto/agent_wire.h). One thread.
 */
#ifndef CLI_RUN_VM_H
#define CLI_RUN_VM_H

#include <sys/types.h>

#include "image/child.h"

struct run_vm {
    pid_t pid;
    int pidfd;
    int code; /* of posada-vmm, once it has ended; else -1 */
    struct child_stop stop;
};

/* Starts posada-vmm with `args` (from schema_to_argv). It ends when this process does. `own_group`:
 * Ctrl-C is ours alone. */
MUST_USE int run_vm_start(struct run_vm *vm, char **args, bool own_group, struct err *err);
/* Waits for its end, passing signals on; returns its exit code. */
int run_vm_wait(struct run_vm *vm);
/* Tells it to end (`kindly`: presses the power button and gives the guest time), and waits. */
void run_vm_end(struct run_vm *vm, bool kindly);
/* Gives a guest that powers itself off (one with a single command) the time to write its disk. */
void run_vm_ends_itself(struct run_vm *vm);
void run_vm_done(struct run_vm *vm);

/* Connects to the agent behind the vsock's socket `path`, as soon as it listens. -ESHUTDOWN: the VM
 * has ended, -EINTR: a signal, -ETIMEDOUT after `seconds`. */
MUST_USE int run_vm_connect(struct run_vm *vm, const char *path, unsigned seconds, struct err *err);

/* Runs a command over the connection `fd`, which is closed. Its input comes from `in` (-1: none),
 * its output goes to our standard output and standard error. Returns its exit code. */
MUST_USE int run_vm_command(struct run_vm *vm, int fd, const char *const *argv,
                            const char *const *mounts, int in, struct err *err);

/* Runs a program on our terminal until it ends; returns its exit code. -ENOENT names the package.
 */
MUST_USE int run_vm_terminal(struct run_vm *vm, const char *const *argv, const char *package,
                             struct err *err);

#endif
