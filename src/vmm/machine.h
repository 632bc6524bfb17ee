/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One VM: built from a configuration, run to its end.
 *
 *     struct machine *m;
 *     machine_new(&config, &m, &err);
 *     int code = machine_run(m);      // an exit code of exitcodes.def
 *     machine_free(m);
 *
 * Threads:
 *   main    machine_run(): control loop (signals, control socket, timeout), the states below
 *   io      the device loop: all callbacks of devices and back ends, and their class functions
 *   vcpuN   the guest, and the devices' bus handlers
 *
 *             resume()                  poweroff, reset under --no-reboot, panic,
 *   PAUSED <===========> RUNNING  ----> debug exit, quit, timeout, engine failure ----> ENDED
 *             pause(), disk error
 *
 * Changes of state happen on the main thread only. What a device or a vCPU sees first parks the
 * vCPUs at once (machine_env.c) and is then acted on there.
 *
 * Order of building: engine, CPUID, address layout, RAM, VM with its chips, buses, devices
 * (devices.def, in order), BAR addresses, ACPI tables, kernel, vCPUs, control socket; then the
 * sandbox closes, and only then the first instruction of the guest runs.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "base/bits.h"
#include "base/err.h"
#include "vmm/vmconfig.h"

struct machine;

/* `config` stays valid as long as the machine. On an error everything done is undone, and err says
 * what to do. */
MUST_USE int machine_new(const struct vmconfig *config, struct machine **ret_machine,
                         struct err *err);
/* Runs the VM to its end. Returns the exit code; for a failure of ours err is filled. */
int machine_run(struct machine *m, struct err *err);
/* Why it ended, one sentence. Valid after machine_run(). */
const char *machine_end_reason(const struct machine *m);
const char *machine_engine_name(const struct machine *m);
uint64_t machine_uptime_ms(const struct machine *m); /* host time since the first start */
uint64_t machine_resets(const struct machine *m);
void machine_free(struct machine *m); /* accepts NULL */

#endif
