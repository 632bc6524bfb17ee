/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interrupt controllers as the engine and the ioctl layer see them: one struct sk_irqchip per VM
 * (PIC pair, IOAPIC, PIT, routing, timer thread) and one struct sk_lapic per vCPU.
 *
 *   device --> sk_irqchip_set_irq(gsi) --> gsi.c --> pic8259.c --INTR--> LAPIC (LINT0, ExtINT)
 *                                              \--> ioapic.c --> sk_lapic_deliver --> IRR
 *   IRR set --> c->poll |= SK_POLL_INTR --> sk_run --> sk_lapic_ack --> delivery
 *
 * How it plugs in: the ioctl layer fills struct sk_vm_ops (x86/cpu.h) with sk_lapic_pending,
 * sk_lapic_ack, sk_lapic_get_cr8, sk_lapic_set_cr8, sk_lapic_init_reset, sk_poll_wait and calls
 * sk_irqchip_mmio/_pio, sk_lapic_rdmsr/_wrmsr from its own ops.
 *
 * Threads: everything may be called from any thread unless said otherwise. PIC, IOAPIC, PIT and
 * routing share the chip's lock; registers of a LAPIC are relaxed atomics, written by their vCPU's
 * thread (and by the ioctl layer while the vCPU does not run), IRR and TMR by everybody.
 */
#ifndef SOFTKVM_IRQCHIP_IRQCHIP_H
#define SOFTKVM_IRQCHIP_IRQCHIP_H

#include <linux/kvm.h>
#include <sys/queue.h>

#include "softkvm/x86/cpu.h"

#define SK_IRQCHIP_PINS 24

enum sk_delivery_mode {
    SK_DM_FIXED,
    SK_DM_LOWEST,
    SK_DM_SMI,
    SK_DM_NMI = 4,
    SK_DM_INIT,
    SK_DM_SIPI,
    SK_DM_EXTINT,
};

/* A decoded message (SDM 3A §11.11 and the interrupt command register). */
struct sk_msg {
    uint32_t dest;
    uint8_t vector;
    uint8_t mode; /* delivery mode: 0 fixed, 1 lowest, 2 SMI, 4 NMI, 5 INIT, 6 SIPI, 7 ExtINT */
    bool logical;
    bool level;   /* trigger mode */
    bool assert_; /* level de-assert of INIT is ignored */
    bool wide;    /* dest has 32 bits (x2APIC ICR); else 8, with 0xff for all */
};

/* --- of the vCPU loop; called on the vCPU's thread --- */

/* True if an interrupt could be taken now as far as priorities go (IF and shadows are the
 * caller's business). */
bool sk_lapic_pending(struct sk_vcpu *c);

/* Takes the highest one: IRR to ISR (or INTA to the PIC for ExtINT). The vector, or -1. */
int sk_lapic_ack(struct sk_vcpu *c);

uint8_t sk_lapic_get_cr8(struct sk_vcpu *c);
void sk_lapic_set_cr8(struct sk_vcpu *c, uint8_t tpr);

/* INIT: all but the APIC id and base as after power-on. */
void sk_lapic_init_reset(struct sk_vcpu *c);

/* x2APIC, APIC base and TSC deadline MSRs: 0 done, 1 #GP, -1 none of ours. `host` = true: on
 * behalf of KVM_SET_MSRS, which may make any legal state from any other. */
int sk_lapic_rdmsr(struct sk_vcpu *c, uint32_t index, uint64_t *ret);
int sk_lapic_wrmsr(struct sk_vcpu *c, uint32_t index, uint64_t val, bool host);

/* MSR_KVM_PV_EOI_EN: address of the word | 1 when on. 0, or 1 = #GP. Without a local APIC of ours
 * it is forgotten. */
int sk_lapic_set_pv_eoi(struct sk_vcpu *c, uint64_t val);
uint64_t sk_lapic_get_pv_eoi(const struct sk_vcpu *c);

/* Write of the APIC base MSR: 0 done, 1 #GP. */
int sk_lapic_set_base(struct sk_vcpu *c, uint64_t val, bool host);

/* LAPIC page (at the vCPU's APIC base), IOAPIC page; PIC, ELCR, PIT and port 61h ports. True if
 * the address was ours. */
bool sk_irqchip_mmio(struct sk_vcpu *c, uint64_t gpa, void *data, unsigned len, bool write);
bool sk_irqchip_pio(struct sk_vcpu *c, uint16_t port, void *data, unsigned size, bool write);

/* Split irqchip: the vector of a level-triggered EOI that the client's IOAPIC must see, or -1.
 * Forgets it. It was announced by SK_POLL_EXIT. */
int sk_lapic_take_eoi_exit(struct sk_vcpu *c);
bool sk_lapic_has_eoi_exit(const struct sk_vcpu *c);

/* --- of interrupt sources; any thread --- */

/* Delivers a message to all vCPUs it addresses: sets IRR, or SK_POLL_NMI/SMI/INIT/SIPI. Returns how
 * many accepted it newly: 0 = coalesced with one that was pending, -1 = nobody is addressed. */
int sk_lapic_deliver(struct sk_irqchip *chip, const struct sk_msg *m);

/* An MSI write of `data` to `addr` (SDM 3A §11.11). `addr` bits 32 up hold destination bits 8 up
 * when the client asked for KVM_X2APIC_API_USE_32BIT_IDS. As sk_lapic_deliver(). */
int sk_irqchip_msi(struct sk_irqchip *chip, uint64_t addr, uint32_t data);

/* Level of a line, through the routing table. `source` (0 to 31) tells apart who drives it: the
 * line is the OR of all. Result as KVM_IRQ_LINE_STATUS: > 0 delivered, 0 coalesced, -1 ignored
 * (masked or not routed). */
int sk_irqchip_set_irq(struct sk_irqchip *chip, uint32_t gsi, unsigned source, bool level);

/* --- life, state; of the ioctl layer --- */

/* `split`: LAPICs only; PIC, IOAPIC and PIT are the client's. NULL: no memory or no thread. */
struct sk_irqchip *sk_irqchip_new(struct sk_vm *vm, bool split);
/* After the last vCPU is gone. Accepts NULL. */
void sk_irqchip_free(struct sk_irqchip *chip);
bool sk_irqchip_is_split(const struct sk_irqchip *chip);
void sk_irqchip_set_wide_ids(struct sk_irqchip *chip, bool wide, bool no_broadcast_quirk);

/* Gives the vCPU its local APIC; not while it runs. False: no memory, or id >= SK_IRQCHIP_CPUS. */
bool sk_lapic_new(struct sk_vcpu *c, struct sk_irqchip *chip);
void sk_lapic_free(struct sk_vcpu *c);

/* KVM_GET_LAPIC/SET_LAPIC: 0, or -EINVAL. The vCPU does not run. */
void sk_lapic_get_state(struct sk_vcpu *c, struct kvm_lapic_state *ret);
int sk_lapic_set_state(struct sk_vcpu *c, const struct kvm_lapic_state *s);

/* KVM_GET_IRQCHIP/SET_IRQCHIP by chip_id: 0, or -EINVAL for an unknown id. */
int sk_irqchip_get_state(struct sk_irqchip *chip, struct kvm_irqchip *io);
int sk_irqchip_set_state(struct sk_irqchip *chip, const struct kvm_irqchip *io);

/* KVM_CREATE_PIT2: 0, -EEXIST, -ENOENT without PIC and IOAPIC. `flags`: KVM_PIT_SPEAKER_DUMMY. */
int sk_pit_create(struct sk_irqchip *chip, uint32_t flags);
int sk_pit_get_state(struct sk_irqchip *chip, struct kvm_pit_state2 *ret); /* -ENXIO: no PIT */
int sk_pit_set_state(struct sk_irqchip *chip, const struct kvm_pit_state2 *s);
int sk_pit_set_reinject(struct sk_irqchip *chip, bool on);

/* KVM_SET_GSI_ROUTING: replaces the table. 0, -EINVAL (bad entry), -ENOMEM. */
int sk_irqchip_set_routing(struct sk_irqchip *chip, const struct kvm_irq_routing_entry *e,
                           unsigned n);

/* irqfd resampling: fn runs when the guest ends the interrupt (EOI) of `gsi`'s pin, with the
 * chip's lock held: it may only signal and call sk_irqchip_set_irq_locked(). */
struct sk_ack_notifier {
    uint32_t gsi;
    void (*fn)(struct sk_ack_notifier *n);
    TAILQ_ENTRY(sk_ack_notifier) link;
};
void sk_irqchip_add_ack_notifier(struct sk_irqchip *chip, struct sk_ack_notifier *n);
void sk_irqchip_del_ack_notifier(struct sk_irqchip *chip, struct sk_ack_notifier *n);
int sk_irqchip_set_irq_locked(struct sk_irqchip *chip, uint32_t gsi, unsigned source, bool level);

#endif
