/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/layout.h"
#include "vmm/vm.h"

#define IRQ_PIC_LINES    16
#define IRQ_FIXED_ROUTES (IRQ_PIC_LINES + LAYOUT_GSI_COUNT)

struct dev_msi {
    uint32_t gsi; /* 0 = has no route: KVM_SIGNAL_MSI */
    int fd;       /* eventfd, -1 = none */
    bool set;
    uint64_t addr;
    uint32_t data;
};

struct irq {
    const struct vm *vm;
    pthread_mutex_t lock;
    unsigned max_msi;
    struct dev_msi **slot; /* by GSI - LAYOUT_GSI_MSI_BASE */
    struct kvm_irq_routing *table;
};

static struct kvm_irq_routing_entry irq_chip_route(uint32_t gsi, uint32_t chip, uint32_t pin)
{
    return (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = {.irqchip = chip, .pin = pin},
    };
}

/* GSI n is PIC line n and I/O APIC pin n, but for the PIT: its line 0 is wired to pin 2, where the
 * cascade of the PICs leaves a pin free (the MADT's interrupt source override says so). */
static void irq_fixed_routes(struct kvm_irq_routing *table)
{
    for (uint32_t i = 0; i < IRQ_PIC_LINES; i++) {
        uint32_t chip = i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
        table->entries[table->nr++] = irq_chip_route(i, chip, i % 8);
    }
    for (uint32_t i = 0; i < LAYOUT_GSI_COUNT; i++) {
        if (i == 2) {
            continue; /* taken by GSI 0 */
        }
        table->entries[table->nr++] = irq_chip_route(i, KVM_IRQCHIP_IOAPIC, i == 0 ? 2 : i);
    }
}

/* Hands the whole table to the engine; the lock is held. */
static int irq_commit(struct irq *irq)
{
    irq->table->nr = 0;
    irq->table->flags = 0;
    irq_fixed_routes(irq->table);
    for (uint32_t i = 0; i < irq->max_msi; i++) {
        const struct dev_msi *msi = irq->slot[i];
        if (msi == NULL || !msi->set) {
            continue;
        }
        irq->table->entries[irq->table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = LAYOUT_GSI_MSI_BASE + i,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {
                .address_lo = (uint32_t)msi->addr,
                .address_hi = (uint32_t)(msi->addr >> 32),
                .data = msi->data,
            },
        };
    }
    return irq->vm->hv->ioctl(irq->vm->fd, KVM_SET_GSI_ROUTING, irq->table);
}

int irq_new(const struct vm *vm, struct irq **ret_irq, struct err *err)
{
    struct irq *irq = calloc(1, sizeof(*irq));
    if (irq == NULL) {
        return err_set(err, -ENOMEM, "interrupt routing: out of memory");
    }
    irq->vm = vm;
    pthread_mutex_init(&irq->lock, NULL);
    int max = vm_cap(vm, KVM_CAP_IRQ_ROUTING); /* the highest GSI + 1 */
    if (max > (int)LAYOUT_GSI_MSI_BASE && vm_cap(vm, KVM_CAP_IRQFD) > 0) {
        irq->max_msi = MIN((unsigned)max - LAYOUT_GSI_MSI_BASE, IRQ_MAX_MSI);
    }
    irq->slot = calloc(irq->max_msi + 1, sizeof(irq->slot[0]));
    /* Not zeroed: irq_commit() writes what it hands over, and that is a small part. */
    irq->table = malloc(sizeof(*irq->table) +
                        (IRQ_FIXED_ROUTES + irq->max_msi) * sizeof(irq->table->entries[0]));
    if (irq->slot == NULL || irq->table == NULL) {
        irq_free(irq);
        return err_set(err, -ENOMEM, "interrupt routing: out of memory");
    }
    int rc = irq_commit(irq);
    if (rc < 0) {
        irq_free(irq);
        return err_set_errno(err, rc, "engine '%s': interrupt routing", vm->hv->name);
    }
    *ret_irq = irq;
    return 0;
}

void irq_free(struct irq *irq)
{
    if (irq == NULL) {
        return;
    }
    free(irq->slot);
    free(irq->table);
    pthread_mutex_destroy(&irq->lock);
    free(irq);
}

void irq_set(struct irq *irq, unsigned gsi, int level)
{
    if (gsi >= LAYOUT_GSI_COUNT) {
        return;
    }
    struct kvm_irq_level line = { .irq = gsi, .level = level != 0 ? 1 : 0 };
    /* Nothing can be done about a line that the engine refuses; with valid numbers none does. */
    (void)irq->vm->hv->ioctl(irq->vm->fd, KVM_IRQ_LINE, &line);
}

int irq_msi_new(struct irq *irq, struct dev_msi **ret_msi, struct err *err)
{
    (void)irq;
    struct dev_msi *msi = calloc(1, sizeof(*msi));
    if (msi == NULL) {
        return err_set(err, -ENOMEM, "interrupt message: out of memory");
    }
    msi->fd = -1;
    *ret_msi = msi;
    return 0;
}

static int irq_irqfd(const struct irq *irq, const struct dev_msi *msi, bool assign)
{
    struct kvm_irqfd req = {
        .fd = (uint32_t)msi->fd,
        .gsi = msi->gsi,
        .flags = assign ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };
    return irq->vm->hv->ioctl(irq->vm->fd, KVM_IRQFD, &req);
}

/* Gives the message a route and an irqfd; leaves it without on failure. The lock is held. */
static void irq_msi_attach(struct irq *irq, struct dev_msi *msi)
{
    unsigned i = 0;
    while (i < irq->max_msi && irq->slot[i] != NULL) {
        i++;
    }
    if (i == irq->max_msi) {
        return;
    }
    CLEANUP_FD int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return;
    }
    irq->slot[i] = msi;
    msi->gsi = LAYOUT_GSI_MSI_BASE + i;
    msi->fd = fd;
    if (irq_commit(irq) < 0 || irq_irqfd(irq, msi, true) < 0) {
        irq->slot[i] = NULL;
        msi->gsi = 0;
        msi->fd = -1;
        return;
    }
    (void)take_fd(&fd);
}

int irq_msi_set(struct irq *irq, struct dev_msi *msi, uint64_t addr, uint32_t data)
{
    int rc = 0;
    pthread_mutex_lock(&irq->lock);
    if (!msi->set || msi->addr != addr || msi->data != data) {
        bool first = !msi->set;
        msi->addr = addr;
        msi->data = data;
        msi->set = true;
        if (first) {
            irq_msi_attach(irq, msi);
        } else if (msi->gsi != 0) {
            rc = irq_commit(irq);
        }
    }
    pthread_mutex_unlock(&irq->lock);
    return rc;
}

void irq_msi_fire(struct irq *irq, struct dev_msi *msi)
{
    pthread_mutex_lock(&irq->lock);
    bool set = msi->set;
    int fd = msi->fd;
    struct kvm_msi req = {
        .address_lo = (uint32_t)msi->addr,
        .address_hi = (uint32_t)(msi->addr >> 32),
        .data = msi->data,
    };
    pthread_mutex_unlock(&irq->lock);
    if (!set) {
        return;
    }
    if (fd >= 0) {
        uint64_t one = 1;
        (void)!write(fd, &one, sizeof(one)); /* EAGAIN: it is pending already */
    } else {
        (void)irq->vm->hv->ioctl(irq->vm->fd, KVM_SIGNAL_MSI, &req);
    }
}

int irq_msi_fd(const struct dev_msi *msi)
{
    return msi->fd;
}

void irq_msi_free(struct irq *irq, struct dev_msi *msi)
{
    if (msi == NULL) {
        return;
    }
    pthread_mutex_lock(&irq->lock);
    if (msi->gsi != 0) {
        (void)irq_irqfd(irq, msi, false);
        irq->slot[msi->gsi - LAYOUT_GSI_MSI_BASE] = NULL;
        (void)irq_commit(irq); /* a stale route does no harm: nothing fires it any more */
        close(msi->fd);
    }
    pthread_mutex_unlock(&irq->lock);
    free(msi);
}
