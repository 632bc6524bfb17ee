/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada-agent: the one program of ours inside an image (docs/agent.md), static, in three roles.
 *
 *     /init in the initrd     loads drivers, finds and mounts the root, hands over to its init -
 * or, with posada.run on the kernel's command line, stays PID 1 posada-agent            runs the
 * host's commands, over vsock (service posada-agent) posada-agent initrd V   makes
 * /boot/initrd.img-V for a kernel that was installed inside
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include <stdbool.h>
#include <stddef.h>

/* The initrd's part. Returns only when it is to stay PID 1, with the root mounted and entered;
 * never when the system's own init took over. Ends the machine where there is no root. */
void agent_init(void);

/* Listens for the host's commands and runs them, until the connection to a host that has asked for
 * an end closes (`once`: PID 1 of a machine with one command). Returns an exit code. */
int agent_serve(bool once);

/* Loopback, and the first Ethernet card by DHCP as posada-net answers it. For PID 1 alone: a system
 * with an init of its own does that itself. */
void agent_network(void);

/* Makes the initrd of a kernel. Returns an exit code. */
int agent_initrd(const char *version);

/* "name=VALUE" on the kernel's command line: VALUE into `buf`. False: not there. "name" alone gives
 * an empty text. */
bool agent_cmdline(const char *name, char *buf, size_t len);

/* A line on standard error, which is the console in the initrd. */
void agent_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
