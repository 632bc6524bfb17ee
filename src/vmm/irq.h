/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interrupts from the devices to the engine: lines (GSI) and messages (MSI).
 *
 * The engine's routing table has the fixed routes of the PICs and the I/O APIC and, behind
 * LAYOUT_GSI_MSI_BASE, one entry for each message slot with an irqfd. A slot whose route or irqfd
 * cannot be had (descriptors, table full) is fired by KVM_SIGNAL_MSI instead; the guest sees no
 * difference.
 *
 * Any thread. irq->lock covers the table; it is a leaf lock.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include "base/bits.h"
#include "base/err.h"

struct dev_msi;
struct irq;
struct vm;

/* Routes that irq_new() can hand to messages, bound by what KVM_CAP_IRQ_ROUTING offers. */
#define IRQ_MAX_MSI 1000u

MUST_USE int irq_new(const struct vm *vm, struct irq **ret_irq, struct err *err);
void irq_free(struct irq *irq); /* all messages are freed before; accepts NULL */

/* Level of GSI 0 to 23 (0 or 1); others are ignored. */
void irq_set(struct irq *irq, unsigned gsi, int level);

MUST_USE int irq_msi_new(struct irq *irq, struct dev_msi **ret_msi, struct err *err);
/* Address and data as the guest wrote them into its MSI-X table. 0, or a negative errno. */
int irq_msi_set(struct irq *irq, struct dev_msi *msi, uint64_t addr, uint32_t data);
void irq_msi_fire(struct irq *irq, struct dev_msi *msi);
/* The eventfd that fires it, or -1. Valid after the first irq_msi_set(). */
int irq_msi_fd(const struct dev_msi *msi);
void irq_msi_free(struct irq *irq, struct dev_msi *msi);

#endif
