/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interrupt controllers without an engine: vCPUs are bare structures and polls are counted.
 */
#include "softkvm/irqchip/irqchip.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/phys.h"

#define NCPUS 3

struct fixture {
    struct sk_vm vm;
    struct sk_vcpu *c[NCPUS];
};

void sk_poll_set(struct sk_vcpu *c, uint32_t bits)
{
    atomic_fetch_or(&c->poll, bits);
}

static uint8_t guest_word[4];

uint8_t *sk_phys_ptr_normal(struct sk_vcpu *c, uint64_t gpa, bool write)
{
    (void)c;
    assert_true(write);
    return gpa == 0x1000 ? guest_word : NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->vm.irqchip = sk_irqchip_new(&f->vm, false);
    assert_non_null(f->vm.irqchip);
    for (unsigned i = 0; i < NCPUS; i++) {
        struct sk_vcpu *c = aligned_alloc(64, bits_align_up(sizeof(*c), 64));
        assert_non_null(c);
        memset(c, 0, sizeof(*c));
        c->vm = &f->vm;
        c->id = i;
        c->maxphyaddr = 40;
        c->apic_base = 0xfee00800 | (i == 0 ? 0x100 : 0);
        c->features[SK_FW_1_ECX] = BIT(21) | BIT(24);
        assert_true(sk_lapic_new(c, f->vm.irqchip));
        f->c[i] = c;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < NCPUS; i++) {
        sk_lapic_free(f->c[i]);
        free(f->c[i]);
    }
    sk_irqchip_free(f->vm.irqchip);
    free(f);
    return 0;
}

static void wr(struct sk_vcpu *c, uint32_t reg, uint32_t v)
{
    assert_true(sk_irqchip_mmio(c, 0xfee00000 + reg, &v, 4, true));
}

static uint32_t rd(struct sk_vcpu *c, uint32_t reg)
{
    uint32_t v = 0;
    assert_true(sk_irqchip_mmio(c, 0xfee00000 + reg, &v, 4, false));
    return v;
}

static void outb(struct fixture *f, uint16_t port, uint8_t v)
{
    assert_true(sk_irqchip_pio(f->c[0], port, &v, 1, true));
}

static uint8_t inb(struct fixture *f, uint16_t port)
{
    uint8_t v = 0;
    assert_true(sk_irqchip_pio(f->c[0], port, &v, 1, false));
    return v;
}

static void ioapic_write(struct fixture *f, uint8_t reg, uint32_t v)
{
    uint32_t sel = reg;
    assert_true(sk_irqchip_mmio(f->c[0], 0xfec00000, &sel, 4, true));
    assert_true(sk_irqchip_mmio(f->c[0], 0xfec00010, &v, 4, true));
}

static uint32_t ioapic_read(struct fixture *f, uint8_t reg)
{
    uint32_t sel = reg;
    uint32_t v = 0;
    assert_true(sk_irqchip_mmio(f->c[0], 0xfec00000, &sel, 4, true));
    assert_true(sk_irqchip_mmio(f->c[0], 0xfec00010, &v, 4, false));
    return v;
}

static void enable(struct sk_vcpu *c)
{
    wr(c, 0xf0, 0x1ff);
}

/* SDM 3A §11.8.3: classes of priority, TPR, nesting, EOI. */
static void priorities_and_nesting(void **state)
{
    struct fixture *f = *state;
    struct sk_vcpu *c = f->c[0];
    wr(c, 0x350, 0x10000);
    enable(c);
    struct sk_msg m = { .dest = 0, .vector = 0x41, .assert_ = true };
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 0); /* coalesced */
    assert_true(sk_lapic_pending(c));
    wr(c, 0x80, 0x40);
    assert_false(sk_lapic_pending(c)); /* the same class as TPR: held */
    wr(c, 0x80, 0x3f);
    assert_int_equal(sk_lapic_ack(c), 0x41);
    assert_int_equal(rd(c, 0x120), BIT(1)); /* ISR bit 41h */
    assert_int_equal(rd(c, 0xa0), 0x40);    /* PPR */
    m.vector = 0x4f;
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    assert_false(sk_lapic_pending(c));
    m.vector = 0x52;
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    assert_int_equal(sk_lapic_ack(c), 0x52);
    wr(c, 0xb0, 0);
    assert_false(sk_lapic_pending(c));
    wr(c, 0xb0, 0);
    assert_int_equal(sk_lapic_ack(c), 0x4f);
    assert_int_equal(sk_lapic_ack(c), -1);
    assert_int_equal(sk_lapic_get_cr8(c), 3);
}

static void take(struct fixture *f, uint8_t vector)
{
    struct sk_msg m = { .dest = 0, .vector = vector, .assert_ = true };
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    assert_true(sk_lapic_pending(f->c[0]));
    assert_int_equal(sk_lapic_ack(f->c[0]), vector);
}

/* Documentation/virt/kvm/x86/msr.rst, MSR_KVM_PV_EOI_EN. */
static void eoi_in_memory(void **state)
{
    struct fixture *f = *state;
    struct sk_vcpu *c = f->c[0];
    struct sk_msg m = { .dest = 0, .vector = 0x41, .assert_ = true };
    enable(c);
    assert_int_equal(sk_lapic_set_pv_eoi(c, 0x1003), 1); /* not aligned */
    assert_int_equal(sk_lapic_set_pv_eoi(c, 0x1001), 0);
    assert_int_equal(sk_lapic_get_pv_eoi(c), 0x1001);
    /* The guest clears the bit: that was the EOI. */
    take(f, 0x41);
    assert_int_equal(guest_word[0], 1);
    guest_word[0] = 0;
    assert_int_equal(rd(c, 0x120), 0);
    /* Somebody looks before: the offer is taken back, the register must be written. */
    take(f, 0x41);
    assert_int_equal(rd(c, 0x120), BIT(1));
    assert_int_equal(guest_word[0], 0);
    wr(c, 0xb0, 0);
    assert_int_equal(rd(c, 0x120), 0);
    /* The next one waits already: it must come right behind the EOI. */
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    m.vector = 0x52;
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    assert_int_equal(sk_lapic_ack(c), 0x52);
    assert_int_equal(guest_word[0], 0);
    wr(c, 0xb0, 0);
    /* A higher one in between is ended in memory; then the first by the register. */
    assert_int_equal(sk_lapic_ack(c), 0x41);
    assert_int_equal(guest_word[0], 1);
    take(f, 0x61);
    assert_int_equal(guest_word[0], 1);
    guest_word[0] = 0;
    wr(c, 0xb0, 0);
    assert_int_equal(rd(c, 0x120), 0);
    assert_int_equal(rd(c, 0x130), 0);
    /* One that comes while an EOI lies in memory is delivered. */
    take(f, 0x52);
    guest_word[0] = 0;
    take(f, 0x41);
    guest_word[0] = 0;
    /* Level-triggered: the IOAPIC must hear of it. */
    assert_false(sk_lapic_pending(c));
    m = (struct sk_msg){ .dest = 0, .vector = 0x44, .assert_ = true, .level = true };
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    assert_int_equal(sk_lapic_ack(c), 0x44);
    assert_int_equal(guest_word[0], 0);
    /* INIT ends it all; so does a word outside of memory. */
    sk_lapic_init_reset(c);
    assert_int_equal(sk_lapic_get_pv_eoi(c), 0);
    enable(c);
    assert_int_equal(sk_lapic_set_pv_eoi(c, 0x2001), 0);
    take(f, 0x41);
    assert_int_equal(rd(c, 0x120), BIT(1));
}

static void disabled_apics_take_nothing(void **state)
{
    struct fixture *f = *state;
    struct sk_msg m = { .dest = 1, .vector = 0x41, .assert_ = true };
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), -1); /* software-disabled after reset */
    enable(f->c[1]);
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), 1);
    m.vector = 5; /* illegal: ESR bit 6 after a write of ESR */
    assert_int_equal(sk_lapic_deliver(f->vm.irqchip, &m), -1);
    assert_int_equal(rd(f->c[1], 0x280), 0);
    wr(f->c[1], 0x280, 0);
    assert_int_equal(rd(f->c[1], 0x280), 0x40);
    /* Software disable masks the LVT, and it stays masked. */
    wr(f->c[1], 0x350, 0x700);
    wr(f->c[1], 0xf0, 0xff);
    assert_int_equal(rd(f->c[1], 0x350), 0x10700);
    wr(f->c[1], 0x350, 0x700);
    assert_int_equal(rd(f->c[1], 0x350), 0x10700);
}

static void destinations(void **state)
{
    struct fixture *f = *state;
    struct sk_irqchip *chip = f->vm.irqchip;
    for (unsigned i = 0; i < NCPUS; i++) {
        enable(f->c[i]);
        wr(f->c[i], 0xd0, BIT(i) << 24); /* flat logical ids */
    }
    struct sk_msg m = { .dest = 0xff, .vector = 0x61, .assert_ = true };
    assert_int_equal(sk_lapic_deliver(chip, &m), 3);
    m = (struct sk_msg){ .dest = 6, .vector = 0x62, .logical = true, .assert_ = true };
    assert_int_equal(sk_lapic_deliver(chip, &m), 2);
    assert_int_equal(sk_lapic_ack(f->c[0]), 0x61);
    assert_int_equal(sk_lapic_ack(f->c[1]), 0x62);
    /* Lowest priority: CPU 1 is the only one that is not busy. */
    wr(f->c[0], 0x80, 0x20);
    wr(f->c[2], 0x80, 0x20);
    m = (struct sk_msg){ .dest = 7, .vector = 0x72, .logical = true, .mode = 1 };
    assert_int_equal(sk_lapic_deliver(chip, &m), 1);
    assert_int_equal(rd(f->c[1], 0x230), BIT(18) | BIT(1)); /* IRR: 72h, and 61h from before */
    /* IPI to all but itself; NMI, INIT and start-up go to the poll word. */
    wr(f->c[0], 0x300, 0xc0081);
    assert_int_equal(rd(f->c[0], 0x240), 0);
    assert_int_equal(rd(f->c[2], 0x240), BIT(1));
    wr(f->c[0], 0x310, 2u << 24);
    wr(f->c[0], 0x300, 0x4500);
    assert_true(atomic_load(&f->c[2]->poll) & SK_POLL_INIT);
    wr(f->c[0], 0x300, 0x4609);
    assert_true(atomic_load(&f->c[2]->poll) & SK_POLL_SIPI);
    assert_int_equal(f->c[2]->ev_sipi, 9);
    wr(f->c[0], 0x300, 0x4400);
    assert_true(atomic_load(&f->c[2]->poll) & SK_POLL_NMI);
    assert_false(atomic_load(&f->c[1]->poll) & (SK_POLL_NMI | SK_POLL_INIT));
    /* MSI. */
    assert_int_equal(sk_irqchip_msi(chip, 0xfee01000, 0x91), 1);
    assert_int_equal(rd(f->c[1], 0x240), BIT(1) | BIT(17));
}

/* SDM 3A §11.12.5: legal changes of mode; x2APIC registers and their reserved bits. */
static void x2apic(void **state)
{
    struct fixture *f = *state;
    struct sk_vcpu *c = f->c[1];
    uint64_t v = 0;
    assert_int_equal(sk_lapic_rdmsr(c, 0x802, &v), 1); /* not in xAPIC mode */
    assert_int_equal(sk_lapic_wrmsr(c, 0x1b, 0xfee00400, false), 1);
    assert_int_equal(sk_lapic_wrmsr(c, 0x1b, 0xfee00c00, false), 0);
    assert_int_equal(sk_lapic_rdmsr(c, 0x802, &v), 0);
    assert_int_equal(v, 1);
    assert_int_equal(sk_lapic_rdmsr(c, 0x80d, &v), 0);
    assert_int_equal(v, 2);
    assert_int_equal(sk_lapic_wrmsr(c, 0x80f, 0x1ff, false), 0);
    assert_int_equal(sk_lapic_wrmsr(c, 0x80b, 1, false), 1); /* EOI takes 0 only */
    assert_int_equal(sk_lapic_wrmsr(c, 0x802, 1, false), 1); /* read-only */
    assert_int_equal(sk_lapic_wrmsr(c, 0x808, 0x100, false), 1);
    assert_int_equal(sk_lapic_rdmsr(c, 0x80e, &v), 1);            /* DFR is gone */
    assert_int_equal(sk_lapic_wrmsr(c, 0x835, 0x5700, false), 0); /* read-only bits: no fault */
    assert_int_equal(sk_lapic_rdmsr(c, 0x835, &v), 0);
    assert_int_equal(v, 0x700);
    assert_int_equal(sk_lapic_wrmsr(c, 0x835, 0x20700, false), 1); /* reserved */
    assert_int_equal(sk_lapic_wrmsr(c, 0x83f, 0x55, false), 0);
    assert_int_equal(sk_lapic_ack(c), 0x55);
    assert_int_equal(sk_lapic_wrmsr(c, 0x830, UINT64_C(0x100000000) | 0x66, false), 0);
    assert_int_equal(sk_lapic_ack(c), 0x66); /* class 6 beats class 5 in service */
    assert_int_equal(sk_lapic_wrmsr(c, 0x1b, 0xfee00800, false), 1);
    assert_int_equal(sk_lapic_wrmsr(c, 0x1b, 0xfee00000, false), 0);
    assert_int_equal(sk_lapic_wrmsr(c, 0x1b, 0xfee00c00, false), 1);
    assert_int_equal(sk_lapic_wrmsr(c, 0x1b, UINT64_C(1) << 45, false), 1);
}

static void sleep_ms(long ms)
{
    struct timespec ts = { .tv_nsec = ms * 1000000 };
    nanosleep(&ts, NULL);
}

static void apic_timer_modes(void **state)
{
    struct fixture *f = *state;
    struct sk_vcpu *c = f->c[0];
    wr(c, 0x350, 0x10000);
    enable(c);
    wr(c, 0x3e0, 0xb); /* divide by 1: 1 GHz */
    wr(c, 0x320, 0x40);
    wr(c, 0x380, 0xffffffff); /* 4.3 s: far enough away on any busy machine */
    uint32_t a = rd(c, 0x390);
    assert_in_range(a, 1000000000, 0xffffffff);
    assert_false(sk_lapic_pending(c));
    wr(c, 0x380, 1000000);
    for (int i = 0; i < 5000 && !sk_lapic_pending(c); i++) {
        sleep_ms(1);
    }
    assert_int_equal(sk_lapic_ack(c), 0x40);
    assert_int_equal(rd(c, 0x390), 0);
    wr(c, 0xb0, 0);
    sleep_ms(3);
    assert_false(sk_lapic_pending(c)); /* one shot */
    wr(c, 0x320, 0x20041);
    wr(c, 0x380, 1000000);
    for (int n = 0; n < 3; n++) {
        for (int i = 0; i < 5000 && !sk_lapic_pending(c); i++) {
            sleep_ms(1);
        }
        assert_int_equal(sk_lapic_ack(c), 0x41);
        wr(c, 0xb0, 0);
    }
    wr(c, 0x380, 0);
    wr(c, 0x320, 0x40042); /* TSC deadline */
    uint64_t v = 1;
    assert_int_equal(sk_lapic_wrmsr(c, 0x6e0, 1, false), 0); /* in the past: at once */
    while (sk_lapic_ack(c) != 0x42) {
        sleep_ms(1);
    }
    assert_int_equal(sk_lapic_rdmsr(c, 0x6e0, &v), 0);
    assert_int_equal(v, 0);
}

static void pic_init(struct fixture *f)
{
    static const uint16_t ports[] = { 0x20, 0xa0 };
    for (int i = 0; i < 2; i++) {
        outb(f, ports[i], 0x11);
        outb(f, ports[i] + 1, (uint8_t)(0x20 + 8 * i));
        outb(f, ports[i] + 1, i == 0 ? 4 : 2);
        outb(f, ports[i] + 1, 1);
        outb(f, ports[i] + 1, 0);
    }
}

static void pic_priorities_cascade_and_spurious(void **state)
{
    struct fixture *f = *state;
    struct sk_irqchip *chip = f->vm.irqchip;
    pic_init(f);
    assert_int_equal(sk_irqchip_set_irq(chip, 4, 0, true) > 0, true);
    assert_true(sk_lapic_pending(f->c[0])); /* LINT0 of the BSP is ExtINT after power-on */
    assert_false(sk_lapic_pending(f->c[1]));
    assert_int_equal(sk_lapic_ack(f->c[0]), 0x24);
    sk_irqchip_set_irq(chip, 9, 0, true);
    assert_int_equal(sk_lapic_ack(f->c[0]), 0x29); /* above 4: input 2 of the master */
    sk_irqchip_set_irq(chip, 6, 0, true);
    assert_int_equal(sk_lapic_ack(f->c[0]), -1);
    outb(f, 0x20, 0x0b); /* read ISR */
    assert_int_equal(inb(f, 0x20), BIT(4) | BIT(2));
    outb(f, 0xa0, 0x20);
    outb(f, 0x20, 0x20);
    outb(f, 0x20, 0x20);
    assert_int_equal(sk_lapic_ack(f->c[0]), 0x26);
    outb(f, 0x20, 0x66); /* specific EOI */
    assert_int_equal(sk_lapic_ack(f->c[0]), -1);
    /* Level mode: fires again as long as the line is up, and only then. */
    outb(f, 0x4d1, 0x02);
    assert_int_equal(inb(f, 0x4d1), 0x02);
    outb(f, 0x4d0, 0xff);
    assert_int_equal(inb(f, 0x4d0), 0xf8);
    sk_irqchip_set_irq(chip, 9, 0, false);
    sk_irqchip_set_irq(chip, 9, 1, true);
    sk_irqchip_set_irq(chip, 9, 0, true);
    sk_irqchip_set_irq(chip, 9, 0, false);
    assert_int_equal(sk_lapic_ack(f->c[0]), 0x29); /* source 1 still holds it */
    outb(f, 0xa0, 0x20);
    outb(f, 0x20, 0x20);
    assert_int_equal(sk_lapic_ack(f->c[0]), 0x29);
    sk_irqchip_set_irq(chip, 9, 1, false);
    outb(f, 0xa0, 0x20);
    outb(f, 0x20, 0x20);
    assert_int_equal(sk_lapic_ack(f->c[0]), -1);
    outb(f, 0x21, 0xff);
    assert_int_equal(sk_irqchip_set_irq(chip, 3, 0, true) <= 0, true); /* masked */
}

static unsigned acked;

static void on_ack(struct sk_ack_notifier *n)
{
    (void)n;
    acked++;
}

static void ioapic_level_and_edge(void **state)
{
    struct fixture *f = *state;
    struct sk_irqchip *chip = f->vm.irqchip;
    struct sk_ack_notifier note = { .gsi = 17, .fn = on_ack };
    acked = 0;
    enable(f->c[2]);
    sk_irqchip_add_ack_notifier(chip, &note);
    assert_int_equal(ioapic_read(f, 1), 0x170011);
    assert_int_equal(sk_irqchip_set_irq(chip, 17, 0, true), -1); /* masked after reset */
    sk_irqchip_set_irq(chip, 17, 0, false);
    ioapic_write(f, 0x10 + 2 * 17 + 1, 2u << 24);
    ioapic_write(f, 0x10 + 2 * 17, 0x8000 | 0x71);
    assert_int_equal(sk_irqchip_set_irq(chip, 17, 0, true), 1);
    assert_int_equal(ioapic_read(f, 0x10 + 2 * 17) & 0x4000, 0x4000); /* remote IRR */
    assert_int_equal(sk_lapic_ack(f->c[2]), 0x71);
    assert_int_equal(sk_irqchip_set_irq(chip, 17, 0, true), 0);
    wr(f->c[2], 0xb0, 0);
    assert_int_equal(acked, 1);
    assert_int_equal(sk_lapic_ack(f->c[2]), 0x71); /* still up: again */
    sk_irqchip_set_irq(chip, 17, 0, false);
    wr(f->c[2], 0xb0, 0);
    assert_int_equal(sk_lapic_ack(f->c[2]), -1);
    assert_int_equal(ioapic_read(f, 0x10 + 2 * 17) & 0x4000, 0);
    /* Edge: a pulse is one interrupt; one while masked is ignored (82093AA §3.2.4, bit 16). */
    ioapic_write(f, 0x10 + 2 * 18 + 1, 2u << 24);
    ioapic_write(f, 0x10 + 2 * 18, 0x10000 | 0x81);
    sk_irqchip_set_irq(chip, 18, 0, true);
    sk_irqchip_set_irq(chip, 18, 0, false);
    assert_int_equal(sk_lapic_ack(f->c[2]), -1);
    ioapic_write(f, 0x10 + 2 * 18, 0x81);
    assert_int_equal(sk_lapic_ack(f->c[2]), -1);
    sk_irqchip_set_irq(chip, 18, 0, true);
    sk_irqchip_set_irq(chip, 18, 0, false);
    assert_int_equal(sk_lapic_ack(f->c[2]), 0x81);
    wr(f->c[2], 0xb0, 0);
    assert_int_equal(sk_lapic_ack(f->c[2]), -1);
    sk_irqchip_del_ack_notifier(chip, &note);
}

static void pit_counts_and_ticks(void **state)
{
    struct fixture *f = *state;
    struct sk_irqchip *chip = f->vm.irqchip;
    assert_int_equal(sk_pit_create(chip, KVM_PIT_SPEAKER_DUMMY), 0);
    assert_int_equal(sk_pit_create(chip, 0), -EEXIST);
    pic_init(f);
    /* A counter that nobody programmed is silent: 70 ms would be one tick of a PC's 18.2 Hz. */
    struct kvm_pit_state2 s;
    assert_int_equal(sk_pit_get_state(chip, &s), 0);
    assert_int_equal(s.channels[0].mode, 0xff);
    sleep_ms(70);
    assert_int_equal(sk_lapic_ack(f->c[0]), -1);
    /* Channel 2, mode 0, gate up: its output rises after 1193 clocks (1 ms). */
    outb(f, 0x61, 1);
    outb(f, 0x43, 0xb0);
    outb(f, 0x42, 1193 & 255);
    outb(f, 0x42, 1193 >> 8);
    assert_int_equal(inb(f, 0x61) & 0x20, 0);
    sleep_ms(3);
    assert_int_equal(inb(f, 0x61) & 0x20, 0x20);
    /* A latched count is read low byte, high byte, and does not move meanwhile. */
    outb(f, 0x43, 0x34);
    outb(f, 0x40, 0);
    outb(f, 0x40, 0);
    outb(f, 0x43, 0x00);
    unsigned lo = inb(f, 0x40);
    sleep_ms(2);
    unsigned first = lo | (unsigned)inb(f, 0x40) << 8;
    outb(f, 0x43, 0x00);
    lo = inb(f, 0x40);
    unsigned second = lo | (unsigned)inb(f, 0x40) << 8;
    assert_in_range(((first - second) & 0xffff), 2000, 60000);
    /* Read-back: status of channel 0. */
    outb(f, 0x43, 0xe2);
    assert_int_equal(inb(f, 0x40) & 0x3f, 0x34);
    /* 1 kHz on channel 0: interrupts keep coming as they are acknowledged. */
    outb(f, 0x43, 0x34);
    outb(f, 0x40, 1193 & 255);
    outb(f, 0x40, 1193 >> 8);
    for (int n = 0; n < 5; n++) {
        int vector = -1;
        for (int i = 0; i < 5000 && (vector = sk_lapic_ack(f->c[0])) < 0; i++) {
            sleep_ms(1);
        }
        assert_int_equal(vector, 0x20);
        outb(f, 0x20, 0x20);
    }
    /* A PIC that is set up anew forgets the tick that waits; the PIT goes on all the same. */
    sleep_ms(3);
    pic_init(f);
    int again = -1;
    for (int i = 0; i < 5000 && (again = sk_lapic_ack(f->c[0])) < 0; i++) {
        sleep_ms(1);
    }
    assert_int_equal(again, 0x20);
    assert_int_equal(sk_pit_get_state(chip, &s), 0);
    assert_int_equal(s.channels[0].count, 1193);
    s.channels[1].mode = 0xff; /* never programmed */
    assert_int_equal(sk_pit_set_state(chip, &s), 0);
    s.channels[1].mode = 9;
    assert_int_equal(sk_pit_set_state(chip, &s), -EINVAL);
}

static void routing_is_checked(void **state)
{
    struct fixture *f = *state;
    struct sk_irqchip *chip = f->vm.irqchip;
    struct kvm_irq_routing_entry e = { .gsi = 40, .type = KVM_IRQ_ROUTING_MSI };
    enable(f->c[1]);
    e.u.msi.address_lo = 0xfee01000;
    e.u.msi.data = 0x5a;
    assert_int_equal(sk_irqchip_set_routing(chip, &e, 1), 0);
    assert_int_equal(sk_irqchip_set_irq(chip, 40, 0, true), 1);
    assert_int_equal(sk_lapic_ack(f->c[1]), 0x5a);
    assert_int_equal(sk_irqchip_set_irq(chip, 4, 0, true), -1); /* the old routes are gone */
    e.type = KVM_IRQ_ROUTING_IRQCHIP;
    e.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    e.u.irqchip.pin = 24;
    assert_int_equal(sk_irqchip_set_routing(chip, &e, 1), -EINVAL);
    e.type = 77;
    assert_int_equal(sk_irqchip_set_routing(chip, &e, 1), -EINVAL);
}

static void state_round_trips(void **state)
{
    struct fixture *f = *state;
    struct sk_irqchip *chip = f->vm.irqchip;
    struct kvm_lapic_state a;
    struct kvm_lapic_state b;
    enable(f->c[1]);
    wr(f->c[1], 0x80, 0x30);
    struct sk_msg m = { .dest = 1, .vector = 0x99, .assert_ = true };
    assert_int_equal(sk_lapic_deliver(chip, &m), 1);
    sk_lapic_get_state(f->c[1], &a);
    sk_lapic_init_reset(f->c[1]);
    assert_int_equal(sk_lapic_ack(f->c[1]), -1);
    assert_int_equal(sk_lapic_set_state(f->c[1], &a), 0);
    sk_lapic_get_state(f->c[1], &b);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(sk_lapic_ack(f->c[1]), 0x99);
    struct kvm_irqchip io = { .chip_id = KVM_IRQCHIP_IOAPIC };
    struct kvm_irqchip io2 = { .chip_id = KVM_IRQCHIP_IOAPIC };
    ioapic_write(f, 0x20, 0x8171);
    assert_int_equal(sk_irqchip_get_state(chip, &io), 0);
    ioapic_write(f, 0x20, 0x10000);
    assert_int_equal(sk_irqchip_set_state(chip, &io), 0);
    assert_int_equal(sk_irqchip_get_state(chip, &io2), 0);
    assert_memory_equal(&io, &io2, sizeof(io));
    io.chip_id = 9;
    assert_int_equal(sk_irqchip_get_state(chip, &io), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(priorities_and_nesting),
        T(eoi_in_memory),
        T(disabled_apics_take_nothing),
        T(destinations),
        T(x2apic),
        T(apic_timer_modes),
        T(pic_priorities_cascade_and_spurious),
        T(ioapic_level_and_edge),
        T(pit_counts_and_ticks),
        T(routing_is_checked),
        T(state_round_trips),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
