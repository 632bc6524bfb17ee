/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pair of 8259A interrupt controllers with the PIIX/ICH edge/level control registers
 * (Intel 8259A data sheet 231468-003; ICH9 §13.4, §13.5 for 4D0h/4D1h).
 *
 * pic[1] hangs on input 2 of pic[0]. The output of pic[0] is INTR of the CPUs that listen on LINT0.
 */
#include "softkvm/irqchip/irqchip_int.h"

#define PIC_CASCADE 2

enum { PIC_ICW2 = 1, PIC_ICW3, PIC_ICW4 }; /* what init_state waits for */

static bool pic_is_master(const struct sk_irqchip *chip, const struct sk_pic *p)
{
    return p == &chip->pic[0];
}

/* Highest-priority bit of `mask` as a distance from the top priority: 0 to 7, 8 = none. */
static unsigned pic_priority(const struct sk_pic *p, uint8_t mask)
{
    if (mask == 0) {
        return 8;
    }
    unsigned n = 0;
    while ((mask & BIT((n + p->priority_add) & 7)) == 0) {
        n++;
    }
    return n;
}

/* The input to serve next, or -1: unmasked, requested, above what is in service. */
static int pic_next(const struct sk_irqchip *chip, const struct sk_pic *p)
{
    unsigned request = pic_priority(p, p->irr & (uint8_t)~p->imr);
    if (request == 8) {
        return -1;
    }
    uint8_t serving = p->isr;
    if (p->special_mask) {
        serving &= (uint8_t)~p->imr;
    }
    /* In special fully nested mode a slave in service does not block itself. */
    if (p->special_fully_nested && pic_is_master(chip, p)) {
        serving &= (uint8_t)~BIT(PIC_CASCADE);
    }
    return request < pic_priority(p, serving) ? (int)((request + p->priority_add) & 7) : -1;
}

static int pic_set_input(struct sk_pic *p, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)BIT(input);
    int result = 1;
    if ((p->elcr & bit) != 0) { /* level triggered */
        if (level) {
            result = (p->irr & bit) != 0 ? 0 : 1;
            p->irr |= bit;
            p->last_irr |= bit;
        } else {
            p->irr &= (uint8_t)~bit;
            p->last_irr &= (uint8_t)~bit;
        }
    } else if (level) {
        if ((p->last_irr & bit) == 0) {
            result = (p->irr & bit) != 0 ? 0 : 1;
            p->irr |= bit;
        }
        p->last_irr |= bit;
    } else {
        p->last_irr &= (uint8_t)~bit;
    }
    return (p->imr & bit) != 0 ? -1 : result;
}

static void pic_update(struct sk_irqchip *chip)
{
    /* The cascade input follows the slave's output. */
    (void)pic_set_input(&chip->pic[0], PIC_CASCADE, false);
    if (pic_next(chip, &chip->pic[1]) >= 0) {
        (void)pic_set_input(&chip->pic[0], PIC_CASCADE, true);
    } else {
        chip->pic[0].irr &= (uint8_t)~BIT(PIC_CASCADE);
    }
    bool output = pic_next(chip, &chip->pic[0]) >= 0;
    bool rose = output && !chip->pic_output;
    chip->pic_output = output;
    if (rose) {
        sk_lapic_pic_raised(chip);
    }
}

int sk_pic_set_pin(struct sk_irqchip *chip, unsigned pin, unsigned source, bool level)
{
    if (pin >= 16 || pin == PIC_CASCADE) {
        return -1;
    }
    chip->pic_line[pin] =
        level ? chip->pic_line[pin] | BIT(source) : chip->pic_line[pin] & ~BIT(source);
    int rc = pic_set_input(&chip->pic[pin >> 3], pin & 7, chip->pic_line[pin] != 0);
    pic_update(chip);
    return rc;
}

static void pic_end(struct sk_irqchip *chip, struct sk_pic *p, unsigned input)
{
    p->isr &= (uint8_t)~BIT(input);
    unsigned pin = (unsigned)(p - chip->pic) * 8 + input;
    sk_gsi_notify_ack(chip, pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, input);
}

/* The acknowledge cycle for one chip. */
static void pic_accept(struct sk_irqchip *chip, struct sk_pic *p, unsigned input)
{
    p->isr |= (uint8_t)BIT(input);
    if ((p->elcr & BIT(input)) == 0) {
        p->irr &= (uint8_t)~BIT(input); /* an edge is used up */
    }
    if (p->auto_eoi) {
        if (p->rotate_on_auto_eoi) {
            p->priority_add = (input + 1) & 7;
        }
        pic_end(chip, p, input);
    }
}

uint8_t sk_pic_inta(struct sk_irqchip *chip)
{
    struct sk_pic *master = &chip->pic[0];
    struct sk_pic *slave = &chip->pic[1];
    int input = pic_next(chip, master);
    unsigned vector;
    if (input < 0) {
        vector = master->irq_base + 7u; /* spurious: the request went away */
    } else if (input == PIC_CASCADE) {
        int second = pic_next(chip, slave);
        pic_accept(chip, master, PIC_CASCADE);
        if (second >= 0) {
            pic_accept(chip, slave, (unsigned)second);
        }
        vector = slave->irq_base + (second >= 0 ? (unsigned)second : 7u);
    } else {
        pic_accept(chip, master, (unsigned)input);
        vector = master->irq_base + (unsigned)input;
    }
    pic_update(chip);
    return (uint8_t)vector;
}

static void pic_init_chip(struct sk_irqchip *chip, struct sk_pic *p)
{
    uint8_t elcr = p->elcr;
    /* A forgotten edge counts as ended: the PIT waits for that before it sends the next tick. */
    uint8_t ended = p->isr | (p->irr & (uint8_t)~elcr);
    uint8_t elcr_mask = p->elcr_mask;
    /* Levels that are up stay requests; edges are forgotten (8259A, ICW1). */
    uint8_t irr = p->irr & elcr;
    uint8_t last_irr = p->last_irr & elcr;
    *p = (struct sk_pic){ .elcr = elcr, .elcr_mask = elcr_mask, .irr = irr, .last_irr = last_irr };
    for (unsigned i = 0; i < 8; i++) {
        if ((ended & BIT(i)) != 0) {
            pic_end(chip, p, i);
        }
    }
}

void sk_pic_reset(struct sk_irqchip *chip)
{
    chip->pic[0] = (struct sk_pic){ .elcr_mask = 0xf8 };
    chip->pic[1] = (struct sk_pic){ .elcr_mask = 0xde };
    chip->pic_output = false;
}

static void pic_ocw2(struct sk_irqchip *chip, struct sk_pic *p, uint8_t value)
{
    unsigned command = value >> 5;
    unsigned input = value & 7;
    unsigned top = pic_priority(p, p->isr);
    switch (command) {
    case 0: /* rotate in automatic EOI mode: clear, set */
    case 4:
        p->rotate_on_auto_eoi = command == 4;
        break;
    case 1: /* non-specific EOI */
    case 5: /* ... and rotate */
        if (top < 8) {
            input = (top + p->priority_add) & 7;
            if (command == 5) {
                p->priority_add = (input + 1) & 7;
            }
            pic_end(chip, p, input);
        }
        break;
    case 7: /* specific EOI and rotate */
        p->priority_add = (input + 1) & 7;
        pic_end(chip, p, input);
        break;
    case 3: /* specific EOI */
        pic_end(chip, p, input);
        break;
    case 6: /* set priority */
        p->priority_add = (input + 1) & 7;
        break;
    default: /* 2: no operation */
        break;
    }
}

static void pic_write_command(struct sk_irqchip *chip, struct sk_pic *p, uint8_t value)
{
    if ((value & 0x10) != 0) { /* ICW1 */
        pic_init_chip(chip, p);
        p->init4 = (value & 1) != 0;
        p->init_state = PIC_ICW2;
    } else if ((value & 0x08) != 0) { /* OCW3 */
        p->poll = (value & 4) != 0;
        if ((value & 2) != 0) {
            p->read_isr = (value & 1) != 0;
        }
        if ((value & 0x40) != 0) {
            p->special_mask = (value & 0x20) != 0;
        }
    } else {
        pic_ocw2(chip, p, value);
    }
}

static void pic_write_data(struct sk_pic *p, uint8_t value)
{
    switch (p->init_state) {
    case PIC_ICW2:
        p->irq_base = value & 0xf8;
        p->init_state = PIC_ICW3;
        break;
    case PIC_ICW3:
        p->init_state = p->init4 ? PIC_ICW4 : 0;
        break;
    case PIC_ICW4:
        p->special_fully_nested = (value & 0x10) != 0;
        p->auto_eoi = (value & 2) != 0;
        p->init_state = 0;
        break;
    default:
        p->imr = value;
        break;
    }
}

static uint8_t pic_read(struct sk_irqchip *chip, struct sk_pic *p, bool data)
{
    if (p->poll) { /* a poll command makes the next read an acknowledge */
        p->poll = false;
        int input = pic_next(chip, p);
        if (input < 0) {
            return 7;
        }
        pic_accept(chip, p, (unsigned)input);
        pic_update(chip);
        return (uint8_t)(0x80 | input);
    }
    if (data) {
        return p->imr;
    }
    return p->read_isr ? p->isr : p->irr;
}

bool sk_pic_pio(struct sk_irqchip *chip, uint16_t port, uint8_t *data, bool write)
{
    struct sk_pic *p;
    switch (port) {
    case 0x20:
    case 0x21:
    case 0xa0:
    case 0xa1:
        p = &chip->pic[port >> 7];
        if (!write) {
            *data = pic_read(chip, p, (port & 1) != 0);
            return true;
        }
        if ((port & 1) != 0) {
            pic_write_data(p, *data);
        } else {
            pic_write_command(chip, p, *data);
        }
        pic_update(chip);
        return true;
    case 0x4d0:
    case 0x4d1:
        p = &chip->pic[port & 1];
        if (write) {
            p->elcr = *data & p->elcr_mask;
        } else {
            *data = p->elcr;
        }
        return true;
    default:
        return false;
    }
}

void sk_pic_get_state(struct sk_irqchip *chip, unsigned n, struct kvm_pic_state *ret)
{
    const struct sk_pic *p = &chip->pic[n];
    *ret = (struct kvm_pic_state){
        .last_irr = p->last_irr,
        .irr = p->irr,
        .imr = p->imr,
        .isr = p->isr,
        .priority_add = p->priority_add,
        .irq_base = p->irq_base,
        .read_reg_select = p->read_isr,
        .poll = p->poll,
        .special_mask = p->special_mask,
        .init_state = p->init_state,
        .auto_eoi = p->auto_eoi,
        .rotate_on_auto_eoi = p->rotate_on_auto_eoi,
        .special_fully_nested_mode = p->special_fully_nested,
        .init4 = p->init4,
        .elcr = p->elcr,
        .elcr_mask = p->elcr_mask,
    };
}

void sk_pic_set_state(struct sk_irqchip *chip, unsigned n, const struct kvm_pic_state *s)
{
    struct sk_pic *p = &chip->pic[n];
    uint8_t elcr_mask = p->elcr_mask;
    *p = (struct sk_pic){
        .last_irr = s->last_irr,
        .irr = s->irr,
        .imr = s->imr,
        .isr = s->isr,
        .priority_add = s->priority_add & 7,
        .irq_base = s->irq_base,
        .read_isr = s->read_reg_select != 0,
        .poll = s->poll != 0,
        .special_mask = s->special_mask != 0,
        .init_state = s->init_state <= PIC_ICW4 ? s->init_state : 0,
        .auto_eoi = s->auto_eoi != 0,
        .rotate_on_auto_eoi = s->rotate_on_auto_eoi != 0,
        .special_fully_nested = s->special_fully_nested_mode != 0,
        .init4 = s->init4 != 0,
        .elcr = s->elcr & elcr_mask,
        .elcr_mask = elcr_mask,
    };
    chip->pic_output = false; /* so that a pending request is told anew */
    pic_update(chip);
}
