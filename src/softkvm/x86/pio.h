/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SOFTKVM_X86_PIO_H
#define SOFTKVM_X86_PIO_H

#include "softkvm/x86/cpu.h"

/* Completes the port access the client has just performed (c->pio): stores what was read, moves
 * RIP. May fault (INS), so only inside sk_run(). False if the client has moved RIP: nothing done.
 */
bool sk_pio_complete(struct sk_vcpu *c);

#endif
