/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GSI routing: what a numbered interrupt line means (KVM api.rst 4.52), and the way back when an
 * interrupt is ended.
 */
#include <errno.h>
#include <stdlib.h>

#include "softkvm/irqchip/irqchip_int.h"

/* The routes before the client sets any, as KVM has them: GSI n to IOAPIC pin n, 0-15 to the PICs
 * too. (A client that describes a PC routes GSI 0 to IOAPIC pin 2.) */
int sk_gsi_set_default(struct sk_irqchip *chip)
{
    struct kvm_irq_routing_entry e[16 + SK_IRQCHIP_PINS];
    unsigned n = 0;
    memset(e, 0, sizeof(e));
    for (unsigned i = 0; i < SK_IRQCHIP_PINS; i++) {
        if (i < 16) {
            e[n].gsi = i;
            e[n].type = KVM_IRQ_ROUTING_IRQCHIP;
            e[n].u.irqchip.irqchip = i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
            e[n++].u.irqchip.pin = i & 7;
        }
        e[n].gsi = i;
        e[n].type = KVM_IRQ_ROUTING_IRQCHIP;
        e[n].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
        e[n++].u.irqchip.pin = i;
    }
    return sk_irqchip_set_routing(chip, e, n);
}

static int gsi_check(const struct sk_irqchip *chip, const struct kvm_irq_routing_entry *e)
{
    if (e->gsi >= SK_GSI_MAX) {
        return -EINVAL;
    }
    switch (e->type) {
    case KVM_IRQ_ROUTING_MSI:
        return (e->flags & ~(uint32_t)KVM_MSI_VALID_DEVID) != 0 ? -EINVAL : 0;
    case KVM_IRQ_ROUTING_IRQCHIP:
        if (chip->split || e->flags != 0) {
            return -EINVAL;
        }
        switch (e->u.irqchip.irqchip) {
        case KVM_IRQCHIP_PIC_MASTER:
        case KVM_IRQCHIP_PIC_SLAVE:
            return e->u.irqchip.pin < 8 ? 0 : -EINVAL;
        case KVM_IRQCHIP_IOAPIC:
            return e->u.irqchip.pin < SK_IRQCHIP_PINS ? 0 : -EINVAL;
        default:
            return -EINVAL;
        }
    default:
        return -EINVAL; /* Hyper-V and Xen routes: none of our capabilities says so */
    }
}

int sk_irqchip_set_routing(struct sk_irqchip *chip, const struct kvm_irq_routing_entry *e,
                           unsigned n)
{
    if (n > SK_GSI_MAX) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < n; i++) {
        if (gsi_check(chip, &e[i]) < 0) {
            return -EINVAL;
        }
    }
    struct kvm_irq_routing_entry *copy = calloc(MAX(n, 1u), sizeof(*copy));
    if (copy == NULL) {
        return -ENOMEM;
    }
    if (n > 0) {
        memcpy(copy, e, n * sizeof(*copy));
    }
    pthread_mutex_lock(&chip->lock);
    free(chip->route);
    chip->route = copy;
    chip->nroutes = n;
    pthread_mutex_unlock(&chip->lock);
    return 0;
}

static int gsi_fire(struct sk_irqchip *chip, const struct kvm_irq_routing_entry *e, unsigned source,
                    bool level)
{
    if (e->type == KVM_IRQ_ROUTING_MSI) {
        uint64_t addr = (uint64_t)e->u.msi.address_hi << 32 | e->u.msi.address_lo;
        return level ? sk_irqchip_msi(chip, addr, e->u.msi.data) : -1;
    }
    switch (e->u.irqchip.irqchip) {
    case KVM_IRQCHIP_PIC_MASTER:
        return sk_pic_set_pin(chip, e->u.irqchip.pin, source, level);
    case KVM_IRQCHIP_PIC_SLAVE:
        return sk_pic_set_pin(chip, e->u.irqchip.pin + 8, source, level);
    default:
        return sk_ioapic_set_pin(chip, e->u.irqchip.pin, source, level);
    }
}

int sk_gsi_set_irq(struct sk_irqchip *chip, uint32_t gsi, unsigned source, bool level)
{
    int result = -1;
    for (unsigned i = 0; i < chip->nroutes; i++) {
        if (chip->route[i].gsi == gsi) {
            int rc = gsi_fire(chip, &chip->route[i], source, level);
            if (rc >= 0) {
                result = (result < 0 ? 0 : result) + rc;
            }
        }
    }
    return result;
}

void sk_gsi_notify_ack(struct sk_irqchip *chip, uint32_t irqchip, uint32_t pin)
{
    struct sk_ack_notifier *n;
    for (unsigned i = 0; i < chip->nroutes; i++) {
        const struct kvm_irq_routing_entry *e = &chip->route[i];
        if (e->type != KVM_IRQ_ROUTING_IRQCHIP || e->u.irqchip.irqchip != irqchip ||
            e->u.irqchip.pin != pin) {
            continue;
        }
        TAILQ_FOREACH(n, &chip->notifiers, link)
        {
            if (n->gsi == e->gsi) {
                n->fn(n);
            }
        }
    }
}

bool sk_gsi_vector_routed(struct sk_irqchip *chip, uint8_t vector)
{
    bool routed = false;
    pthread_mutex_lock(&chip->lock);
    for (unsigned i = 0; i < chip->nroutes && !routed; i++) {
        const struct kvm_irq_routing_entry *e = &chip->route[i];
        routed = e->type == KVM_IRQ_ROUTING_MSI && e->gsi < SK_IRQCHIP_PINS &&
                 (uint8_t)e->u.msi.data == vector && (e->u.msi.data & BIT(15)) != 0;
    }
    pthread_mutex_unlock(&chip->lock);
    return routed;
}
