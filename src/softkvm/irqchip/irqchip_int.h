/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the interrupt controllers: the structures that lapic*.c, ioapic.c, pic8259.c,
 * pit8254.c, gsi.c and irqchip.c share.
 */
#ifndef SOFTKVM_IRQCHIP_IRQCHIP_INT_H
#define SOFTKVM_IRQCHIP_IRQCHIP_INT_H

#include <pthread.h>

#include "softkvm/irqchip/irqchip.h"

#define SK_IRQCHIP_CPUS   256  /* vCPUs of a VM with an irqchip of ours */
#define SK_GSI_MAX        4096 /* KVM_MAX_IRQ_ROUTES of Linux 6.1 on x86 */
#define SK_SOURCE_PIT     30   /* who drives a line: the in-chip PIT */
#define SK_SOURCE_CLIENT  0
#define SK_IOAPIC_DEFAULT UINT64_C(0xfec00000)

/* Local APIC registers, offset / 16 (SDM 3A §11.4.1, table 11-1). */
enum sk_lapic_reg {
    SK_LAPIC_ID = 0x02,
    SK_LAPIC_VERSION = 0x03,
    SK_LAPIC_TPR = 0x08,
    SK_LAPIC_APR = 0x09,
    SK_LAPIC_PPR = 0x0a,
    SK_LAPIC_EOI = 0x0b,
    SK_LAPIC_LDR = 0x0d,
    SK_LAPIC_DFR = 0x0e,
    SK_LAPIC_SVR = 0x0f,
    SK_LAPIC_ISR = 0x10,
    SK_LAPIC_TMR = 0x18,
    SK_LAPIC_IRR = 0x20,
    SK_LAPIC_ESR = 0x28,
    SK_LAPIC_LVT_CMCI = 0x2f,
    SK_LAPIC_ICR = 0x30,
    SK_LAPIC_ICR2 = 0x31,
    SK_LAPIC_LVT_TIMER = 0x32,
    SK_LAPIC_LVT_THERMAL = 0x33,
    SK_LAPIC_LVT_PERF = 0x34,
    SK_LAPIC_LVT_LINT0 = 0x35,
    SK_LAPIC_LVT_LINT1 = 0x36,
    SK_LAPIC_LVT_ERROR = 0x37,
    SK_LAPIC_TIMER_INIT = 0x38,
    SK_LAPIC_TIMER_CUR = 0x39,
    SK_LAPIC_TIMER_DIV = 0x3e,
    SK_LAPIC_SELF_IPI = 0x3f,
    SK_LAPIC_NREGS = 0x40,
};

enum {
    SK_LVT_MASKED = 1 << 16,
    SK_LVT_TIMER_PERIODIC = 1 << 17,
    SK_LVT_TIMER_DEADLINE = 2 << 17,
    SK_LVT_TIMER_MODE = 3 << 17,
    SK_SVR_ENABLE = 1 << 8,
    SK_APIC_BASE_BSP = 1 << 8,
    SK_APIC_BASE_EXTD = 1 << 10,
    SK_APIC_BASE_ENABLE = 1 << 11,
};

/* A deadline of the chip's timer thread. */
struct sk_timer {
    uint64_t deadline_ns;       /* CLOCK_MONOTONIC; UINT64_MAX = off; under the chip's timer lock */
    TAILQ_ENTRY(sk_timer) link; /* while armed; sorted */
    void (*fn)(struct sk_timer *t, uint64_t now_ns); /* on the timer thread, without locks */
};

struct sk_lapic {
    struct sk_vcpu *c;
    struct sk_irqchip *chip;
    _Atomic uint32_t reg[SK_LAPIC_NREGS];
    _Atomic uint32_t esr_pending; /* errors since the last write of ESR */
    uint64_t pv_eoi;              /* MSR_KVM_PV_EOI_EN */
    bool pv_eoi_offered;          /* the guest may end the vector in service there */
    _Atomic int eoi_exit;         /* split irqchip: vector for the client, or -1 */
    struct sk_timer timer;
    pthread_mutex_t timer_lock; /* covers the four below */
    uint64_t timer_start_ns;
    uint64_t timer_period_ns;
    uint64_t tsc_deadline;
};

struct sk_ioapic {
    uint64_t base;
    uint32_t id;
    uint32_t select;
    uint64_t redir[SK_IRQCHIP_PINS];
    uint32_t irr;
    uint32_t line[SK_IRQCHIP_PINS]; /* bit a source */
    /* Vectors that some unmasked pin sends: whose EOI must come here. Read without the lock. */
    _Atomic uint32_t handled[8];
};

struct sk_pic {
    uint8_t last_irr, irr, imr, isr;
    uint8_t priority_add; /* the lowest priority is this - 1 */
    uint8_t irq_base;
    uint8_t elcr, elcr_mask;
    bool read_isr, poll, special_mask, auto_eoi, rotate_on_auto_eoi, special_fully_nested;
    bool init4;
    uint8_t init_state;
};

struct sk_pit_channel {
    uint32_t count; /* 1 to 65536 */
    uint16_t latched_count;
    uint8_t count_latched; /* rw state while a latched count is being read, 0 = none */
    bool status_latched;
    uint8_t status;
    uint8_t read_state, write_state, write_latch;
    uint8_t rw_mode, mode;
    bool bcd, gate;
    uint64_t load_ns; /* CLOCK_MONOTONIC of the last load */
};

struct sk_pit {
    struct sk_irqchip *chip;
    struct sk_pit_channel ch[3];
    uint32_t flags; /* KVM_PIT_FLAGS_HPET_LEGACY */
    bool speaker_on, speaker_dummy, reinject;
    uint32_t pending; /* ticks the guest has not taken yet (reinject) */
    bool acked;
    uint64_t next_ns; /* of channel 0's next tick; UINT64_MAX = none */
    struct sk_timer timer;
    struct sk_ack_notifier notifier;
};

struct sk_irqchip {
    struct sk_vm *vm;
    bool split, wide_ids, no_broadcast_quirk;

    pthread_mutex_t lock; /* covers pic, ioapic, pit, routes, notifiers */
    struct sk_pic pic[2];
    bool pic_output;
    uint32_t pic_line[16]; /* bit a source */
    struct sk_ioapic ioapic;
    struct sk_pit *pit;
    struct kvm_irq_routing_entry *route;
    unsigned nroutes;
    TAILQ_HEAD(, sk_ack_notifier) notifiers;

    /* By APIC id at creation = vCPU id. Slots are written once. */
    _Atomic(struct sk_lapic *) lapic[SK_IRQCHIP_CPUS];
    _Atomic unsigned ncpus; /* highest used slot + 1 */
    _Atomic unsigned lowest_turn;

    pthread_t timer_thread;
    pthread_mutex_t timer_lock; /* covers the list and what follows */
    pthread_cond_t timer_cond;  /* CLOCK_MONOTONIC; also told when a function has ended */
    TAILQ_HEAD(, sk_timer) timers;
    struct sk_timer *timer_running;
    bool timer_up, timer_quit;
};

/* irqchip.c: (re)arms a timer; UINT64_MAX turns it off. Any thread. */
void sk_irqchip_timer_set(struct sk_irqchip *chip, struct sk_timer *t, uint64_t deadline_ns);
/* Turns it off for good: on return its function does not run and will not run. */
void sk_irqchip_timer_off(struct sk_irqchip *chip, struct sk_timer *t);
uint64_t sk_irqchip_now_ns(void);

/* lapic.c */
/* Posts a vector to one APIC. 1 newly pending, 0 coalesced, -1 not accepted. */
int sk_lapic_post(struct sk_lapic *l, uint8_t vector, bool level);
/* Processor priority, refreshed: on the vCPU's thread or while it does not run. */
uint32_t sk_lapic_ppr(struct sk_lapic *l);
bool sk_lapic_x2apic(const struct sk_lapic *l);
bool sk_lapic_hw_enabled(const struct sk_lapic *l);
bool sk_lapic_sw_enabled(const struct sk_lapic *l);
uint32_t sk_lapic_get(const struct sk_lapic *l, unsigned reg);
void sk_lapic_put(struct sk_lapic *l, unsigned reg, uint32_t value);
void sk_lapic_error(struct sk_lapic *l, uint32_t bits);
/* Fires a local vector table entry unless masked. */
void sk_lapic_fire_lvt(struct sk_lapic *l, unsigned reg);
void sk_lapic_power_on(struct sk_lapic *l);
/* Before ISR or PPR is looked at: does the EOI that the guest has left in memory, or takes the
 * offer back. On the vCPU's thread or while it does not run. */
void sk_lapic_pv_settle(struct sk_lapic *l);
/* True if PIC interrupts reach this CPU. */
bool sk_lapic_takes_pic(const struct sk_lapic *l);
/* The PIC's INTR rose: tells the vCPUs that take it. */
void sk_lapic_pic_raised(struct sk_irqchip *chip);

/* lapic_regs.c: register file as the guest reads and writes it. 0, or 1 = #GP (x2APIC). */
int sk_lapic_reg_read(struct sk_lapic *l, unsigned reg, uint64_t *ret);
int sk_lapic_reg_write(struct sk_lapic *l, unsigned reg, uint64_t value, bool x2apic);
bool sk_lapic_mmio(struct sk_lapic *l, uint64_t gpa, void *data, unsigned len, bool write);
void sk_lapic_eoi(struct sk_lapic *l);

/* lapic_ipi.c */
void sk_lapic_send_ipi(struct sk_lapic *l, uint32_t icr_low, uint32_t dest);

/* lapic_timer.c */
void sk_lapic_timer_init(struct sk_lapic *l);
void sk_lapic_timer_stop(struct sk_lapic *l);
void sk_lapic_timer_restart(struct sk_lapic *l); /* after a write of the initial count */
void sk_lapic_timer_mode_changed(struct sk_lapic *l, uint32_t old_lvt);
uint32_t sk_lapic_timer_current(struct sk_lapic *l);
void sk_lapic_timer_set_state(struct sk_lapic *l, uint32_t current);
uint64_t sk_lapic_timer_deadline(struct sk_lapic *l);
void sk_lapic_timer_set_deadline(struct sk_lapic *l, uint64_t tsc);

/* ioapic.c; the chip's lock is held. */
void sk_ioapic_reset(struct sk_irqchip *chip);
int sk_ioapic_set_pin(struct sk_irqchip *chip, unsigned pin, unsigned source, bool level);
bool sk_ioapic_mmio(struct sk_irqchip *chip, uint64_t gpa, void *data, unsigned len, bool write);
void sk_ioapic_get_state(struct sk_irqchip *chip, struct kvm_ioapic_state *ret);
void sk_ioapic_set_state(struct sk_irqchip *chip, const struct kvm_ioapic_state *s);
/* EOI of a vector by some LAPIC; takes the chip's lock if it is one of ours. */
void sk_ioapic_eoi(struct sk_irqchip *chip, uint8_t vector);

/* pic8259.c; the chip's lock is held. */
void sk_pic_reset(struct sk_irqchip *chip);
int sk_pic_set_pin(struct sk_irqchip *chip, unsigned pin, unsigned source, bool level);
/* INTA cycle: the vector (a spurious one if nothing is pending). */
uint8_t sk_pic_inta(struct sk_irqchip *chip);
bool sk_pic_pio(struct sk_irqchip *chip, uint16_t port, uint8_t *data, bool write);
void sk_pic_get_state(struct sk_irqchip *chip, unsigned n, struct kvm_pic_state *ret);
void sk_pic_set_state(struct sk_irqchip *chip, unsigned n, const struct kvm_pic_state *s);

/* pit8254.c; the chip's lock is held. */
bool sk_pit_pio(struct sk_pit *pit, uint16_t port, uint8_t *data, bool write);
void sk_pit_free(struct sk_pit *pit);

/* gsi.c; the chip's lock is held. */
int sk_gsi_set_default(struct sk_irqchip *chip);
int sk_gsi_set_irq(struct sk_irqchip *chip, uint32_t gsi, unsigned source, bool level);
/* A pin of a chip (KVM_IRQCHIP_*) was ended: runs the notifiers of the GSIs routed to it. */
void sk_gsi_notify_ack(struct sk_irqchip *chip, uint32_t irqchip, uint32_t pin);
/* Split irqchip: true if some MSI route of the client's IOAPIC pins uses this vector. */
bool sk_gsi_vector_routed(struct sk_irqchip *chip, uint8_t vector);

#endif
