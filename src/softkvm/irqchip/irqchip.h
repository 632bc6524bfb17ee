/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interrupt controllers as the engine and the ioctl layer see them: one struct sk_irqchip per VM
 * (PIC pair, IOAPIC, PIT, routing) and one struct sk_lapic per vCPU.
 *
 *   device --> sk_irqchip_set_irq(gsi) --> routing --> PIC --INTR--> LAPIC0 (LINT0, ExtINT)
 *                                                  \-> IOAPIC --> sk_lapic_post --> IRR
 *   sk_lapic_post --> c->poll |= SK_POLL_INTR --> sk_run --> sk_lapic_ack --> sk_deliver
 *
 * How it plugs in: the ioctl layer fills struct sk_vm_ops (x86/cpu.h) with sk_lapic_pending,
 * sk_lapic_ack, sk_lapic_get_cr8, sk_lapic_set_cr8, sk_lapic_halt, sk_lapic_base_changed,
 * sk_lapic_init_reset and calls sk_irqchip_mmio/_pio, sk_lapic_rdmsr/_wrmsr from its own ops.
 *
 * Threads: everything may be called from any thread unless said otherwise; the chip has its own
 * lock, IRR/ISR/TMR words are atomics. After posting, sk_poll_set() and, if the target sleeps in
 * sk_lapic_halt(), a wake-up.
 */
#ifndef SOFTKVM_IRQCHIP_IRQCHIP_H
#define SOFTKVM_IRQCHIP_IRQCHIP_H

#include "softkvm/x86/cpu.h"

struct sk_irqchip;
struct sk_lapic;

/* A decoded message (SDM 3A §11.11 and the interrupt command register). */
struct sk_msg {
    uint32_t dest;
    uint8_t vector;
    uint8_t mode; /* delivery mode: 0 fixed, 1 lowest, 2 SMI, 4 NMI, 5 INIT, 6 SIPI, 7 ExtINT */
    bool logical;
    bool level;   /* trigger mode */
    bool assert_; /* level de-assert of INIT is ignored */
};

/* --- of the vCPU loop; called on the vCPU's thread --- */

/* True if an interrupt could be taken now as far as priorities go (IF and shadows are the
 * caller's business). */
bool sk_lapic_pending(struct sk_vcpu *c);

/* Takes the highest one: IRR to ISR (or INTA to the PIC for ExtINT). The vector, or -1. */
int sk_lapic_ack(struct sk_vcpu *c);

uint8_t sk_lapic_get_cr8(struct sk_vcpu *c);
void sk_lapic_set_cr8(struct sk_vcpu *c, uint8_t tpr);

/* Sleeps until c->poll is not 0 or the APIC timer has fired (and posted). */
void sk_lapic_halt(struct sk_vcpu *c);

void sk_lapic_base_changed(struct sk_vcpu *c);
void sk_lapic_init_reset(struct sk_vcpu *c);

/* x2APIC, TSC deadline and APIC base side of MSRs: 0 done, 1 not ours or #GP. */
int sk_lapic_rdmsr(struct sk_vcpu *c, uint32_t index, uint64_t *ret);
int sk_lapic_wrmsr(struct sk_vcpu *c, uint32_t index, uint64_t val);

/* LAPIC page (at the vCPU's APIC base), IOAPIC page; PIC, ELCR, PIT and port 61h ports. True if
 * the address was ours. */
bool sk_irqchip_mmio(struct sk_vcpu *c, uint64_t gpa, void *data, unsigned len, bool write);
bool sk_irqchip_pio(struct sk_vcpu *c, uint16_t port, void *data, unsigned size, bool write);

/* --- of interrupt sources; any thread --- */

/* Delivers a message to all vCPUs it addresses: sets IRR, or SK_POLL_NMI/SMI/INIT/SIPI. Returns how
 * many accepted it (0: nobody). */
int sk_lapic_deliver(struct sk_vm *vm, const struct sk_msg *m);

#endif
