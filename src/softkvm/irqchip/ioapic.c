/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The I/O APIC: 24 pins, redirection table (Intel 82093AA data sheet, 290566-001, §3).
 *
 * A level-triggered pin sets Remote IRR when its message is accepted and sends nothing until the
 * EOI comes back; if the line is still up then, it fires again. IRR holds edges that came while the
 * pin was masked, and levels that are up.
 */
#include "softkvm/irqchip/irqchip_int.h"

#define IOAPIC_VERSION 0x11
#define IOREGSEL       0x00
#define IOWIN          0x10

#define REDIR_POLARITY_LOW BIT64(13)
#define REDIR_REMOTE_IRR   BIT64(14)
#define REDIR_LEVEL        BIT64(15)
#define REDIR_MASKED       BIT64(16)
#define REDIR_WRITABLE     UINT64_C(0xff0000000001afff)

static void ioapic_update_handled(struct sk_ioapic *io)
{
    uint32_t handled[8] = { 0 };
    for (unsigned i = 0; i < SK_IRQCHIP_PINS; i++) {
        if ((io->redir[i] & (REDIR_MASKED | REDIR_REMOTE_IRR)) != REDIR_MASKED) {
            handled[(uint8_t)io->redir[i] >> 5] |= BIT(io->redir[i] & 31);
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        atomic_store_explicit(&io->handled[i], handled[i], memory_order_relaxed);
    }
}

void sk_ioapic_reset(struct sk_irqchip *chip)
{
    struct sk_ioapic *io = &chip->ioapic;
    *io = (struct sk_ioapic){ .base = SK_IOAPIC_DEFAULT };
    for (unsigned i = 0; i < SK_IRQCHIP_PINS; i++) {
        io->redir[i] = REDIR_MASKED;
    }
}

/* Sends the message of a pin that is active. Result as sk_irqchip_set_irq(). */
static int ioapic_service(struct sk_irqchip *chip, unsigned pin)
{
    struct sk_ioapic *io = &chip->ioapic;
    uint64_t e = io->redir[pin];
    bool level = (e & REDIR_LEVEL) != 0;
    if ((e & REDIR_MASKED) != 0 || (level && (e & REDIR_REMOTE_IRR) != 0)) {
        return -1;
    }
    struct sk_msg m = {
        .dest = (uint32_t)(e >> 56),
        .vector = (uint8_t)e,
        .mode = (e >> 8) & 7,
        .logical = (e & BIT64(11)) != 0,
        .level = level,
        .assert_ = true,
    };
    int rc = sk_lapic_deliver(chip, &m);
    if (level) {
        if (rc >= 0) {
            io->redir[pin] |= REDIR_REMOTE_IRR;
        }
    } else {
        io->irr &= ~BIT(pin); /* the edge is used up */
    }
    return rc;
}

int sk_ioapic_set_pin(struct sk_irqchip *chip, unsigned pin, unsigned source, bool level)
{
    struct sk_ioapic *io = &chip->ioapic;
    if (pin >= SK_IRQCHIP_PINS) {
        return -1;
    }
    bool was = io->line[pin] != 0;
    io->line[pin] = level ? io->line[pin] | BIT(source) : io->line[pin] & ~BIT(source);
    bool is = io->line[pin] != 0;
    bool level_mode = (io->redir[pin] & REDIR_LEVEL) != 0;
    if (!is) {
        io->irr &= ~BIT(pin); /* an edge too: what came and went while masked is gone */
        return 1;
    }
    if (was && !level_mode) {
        return 0; /* no edge */
    }
    bool was_pending = (io->irr & BIT(pin)) != 0;
    io->irr |= BIT(pin);
    if (level_mode && was_pending && (io->redir[pin] & REDIR_REMOTE_IRR) != 0) {
        return 0;
    }
    return ioapic_service(chip, pin);
}

void sk_ioapic_eoi(struct sk_irqchip *chip, uint8_t vector)
{
    struct sk_ioapic *io = &chip->ioapic;
    uint32_t word = atomic_load_explicit(&io->handled[vector >> 5], memory_order_relaxed);
    if ((word & BIT(vector & 31)) == 0) {
        return;
    }
    pthread_mutex_lock(&chip->lock);
    for (unsigned pin = 0; pin < SK_IRQCHIP_PINS; pin++) {
        if ((uint8_t)io->redir[pin] != vector) {
            continue;
        }
        if ((io->redir[pin] & REDIR_LEVEL) == 0) {
            sk_gsi_notify_ack(chip, KVM_IRQCHIP_IOAPIC, pin); /* the PIT's ticks */
            continue;
        }
        io->redir[pin] &= ~REDIR_REMOTE_IRR;
        /* The notifiers may lower the line (resampling): look at it after them. */
        sk_gsi_notify_ack(chip, KVM_IRQCHIP_IOAPIC, pin);
        if ((io->irr & BIT(pin)) != 0) {
            (void)ioapic_service(chip, pin);
        }
    }
    pthread_mutex_unlock(&chip->lock);
}

static uint32_t ioapic_reg_read(const struct sk_ioapic *io)
{
    switch (io->select) {
    case 0: /* id */
    case 2: /* arbitration id */
        return io->id << 24;
    case 1:
        return (SK_IRQCHIP_PINS - 1) << 16 | IOAPIC_VERSION;
    default:
        if (io->select >= 0x10 && io->select < 0x10 + 2 * SK_IRQCHIP_PINS) {
            uint64_t e = io->redir[(io->select - 0x10) / 2];
            return (uint32_t)((io->select & 1) != 0 ? e >> 32 : e);
        }
        return 0;
    }
}

static void ioapic_redir_write(struct sk_irqchip *chip, unsigned pin, bool high, uint32_t value)
{
    struct sk_ioapic *io = &chip->ioapic;
    uint64_t old = io->redir[pin];
    uint64_t e =
        high ? (old & 0xffffffff) | (uint64_t)value << 32 : (old & ~UINT64_C(0xffffffff)) | value;
    e = (e & REDIR_WRITABLE) | (old & ~REDIR_WRITABLE);
    if ((e & REDIR_LEVEL) == 0) {
        /* Linux 6.1 and others end a stuck level interrupt by switching to edge and back. */
        e &= ~REDIR_REMOTE_IRR;
    }
    io->redir[pin] = e;
    ioapic_update_handled(io);
    if ((e & REDIR_LEVEL) != 0) { /* a level is what the line says now; an old edge is void */
        io->irr = io->line[pin] != 0 ? io->irr | BIT(pin) : io->irr & ~BIT(pin);
    }
    if ((io->irr & BIT(pin)) != 0 && (old & REDIR_MASKED) != 0 && (e & REDIR_MASKED) == 0) {
        (void)ioapic_service(chip, pin);
    }
}

static void ioapic_reg_write(struct sk_irqchip *chip, uint32_t value)
{
    struct sk_ioapic *io = &chip->ioapic;
    if (io->select == 0) {
        io->id = (value >> 24) & 15;
    } else if (io->select >= 0x10 && io->select < 0x10 + 2 * SK_IRQCHIP_PINS) {
        ioapic_redir_write(chip, (io->select - 0x10) / 2, (io->select & 1) != 0, value);
    }
}

bool sk_ioapic_mmio(struct sk_irqchip *chip, uint64_t gpa, void *data, unsigned len, bool write)
{
    struct sk_ioapic *io = &chip->ioapic;
    uint64_t offset = gpa - io->base;
    if (offset >= 0x100) {
        return false;
    }
    uint32_t value = 0;
    if (write) {
        memcpy(&value, data, MIN(len, 4u));
        if (offset == IOREGSEL) {
            io->select = value & 0xff;
        } else if (offset == IOWIN) {
            ioapic_reg_write(chip, value);
        }
        return true;
    }
    if (offset == IOREGSEL) {
        value = io->select;
    } else if (offset == IOWIN) {
        value = ioapic_reg_read(io);
    }
    memset(data, 0, len);
    memcpy(data, &value, MIN(len, 4u));
    return true;
}

void sk_ioapic_get_state(struct sk_irqchip *chip, struct kvm_ioapic_state *ret)
{
    const struct sk_ioapic *io = &chip->ioapic;
    *ret = (struct kvm_ioapic_state){
        .base_address = io->base,
        .ioregsel = io->select,
        .id = io->id,
        .irr = io->irr,
    };
    for (unsigned i = 0; i < SK_IRQCHIP_PINS; i++) {
        ret->redirtbl[i].bits = io->redir[i];
    }
}

void sk_ioapic_set_state(struct sk_irqchip *chip, const struct kvm_ioapic_state *s)
{
    struct sk_ioapic *io = &chip->ioapic;
    io->base = s->base_address;
    io->select = s->ioregsel & 0xff;
    io->id = s->id & 15;
    io->irr = 0;
    for (unsigned i = 0; i < SK_IRQCHIP_PINS; i++) {
        io->redir[i] = s->redirtbl[i].bits & (REDIR_WRITABLE | REDIR_REMOTE_IRR | BIT64(12));
    }
    ioapic_update_handled(io);
    /* What was pending is sent again: a message lost is worse than one too many. */
    for (unsigned i = 0; i < SK_IRQCHIP_PINS; i++) {
        if ((s->irr & BIT(i)) != 0) {
            io->irr |= BIT(i);
            (void)ioapic_service(chip, i);
        }
    }
}
