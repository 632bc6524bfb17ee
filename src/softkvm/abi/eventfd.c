/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * irqfd, ioeventfd and coalesced MMIO (KVM api.rst 4.59, 4.75, 4.116).
 *
 * One thread a VM waits on the irqfds (epoll) and posts through the routing table. A resampling
 * irqfd drives its line high until the guest's EOI, then lowers it and signals the resample fd. A
 * removed irqfd is freed by the thread after its round, so that a fetched event never points at
 * freed memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "softkvm/abi/abi_int.h"

#define SOURCE_IRQFD          28
#define SOURCE_IRQFD_RESAMPLE 29
#define MAX_IOEVENTFDS        1000 /* NR_IOBUS_DEVS of Linux */
#define COALESCED_MAX                                                                              \
    ((ABI_PAGE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

struct abi_irqfd {
    struct abi_vm *vm;
    int fd, resample_fd; /* by hold_fd() */
    int user_fd;         /* the number that the client named */
    uint32_t gsi;
    struct sk_ack_notifier notifier;
    TAILQ_ENTRY(abi_irqfd) link;
};

void abi_eventfd_init(struct abi_vm *vm)
{
    pthread_rwlock_init(&vm->io_lock, NULL);
    pthread_mutex_init(&vm->irqfd_lock, NULL);
    pthread_mutex_init(&vm->ring_lock, NULL);
    TAILQ_INIT(&vm->ioeventfds);
    TAILQ_INIT(&vm->zones);
    TAILQ_INIT(&vm->irqfds);
    TAILQ_INIT(&vm->irqfds_dead);
    vm->irqfd_epoll = -1;
    vm->irqfd_wake = -1;
}

/* --- irqfd --- */

/* The guest ended the interrupt; the chip's lock is held. */
static void irqfd_acked(struct sk_ack_notifier *n)
{
    struct abi_irqfd *f = container_of(n, struct abi_irqfd, notifier);
    uint64_t one = 1;
    (void)sk_irqchip_set_irq_locked(f->vm->sk.irqchip, f->gsi, SOURCE_IRQFD_RESAMPLE, false);
    (void)!write(f->resample_fd, &one, sizeof(one)); /* EAGAIN: signalled already */
}

static void irqfd_signalled(struct abi_irqfd *f)
{
    uint64_t count;
    if (read(f->fd, &count, sizeof(count)) != sizeof(count)) {
        return;
    }
    if (f->resample_fd >= 0) {
        (void)sk_irqchip_set_irq(f->vm->sk.irqchip, f->gsi, SOURCE_IRQFD_RESAMPLE, true);
    } else {
        (void)sk_irqchip_set_irq(f->vm->sk.irqchip, f->gsi, SOURCE_IRQFD, true);
        (void)sk_irqchip_set_irq(f->vm->sk.irqchip, f->gsi, SOURCE_IRQFD, false);
    }
}

/* As the kernel, takes nothing but an eventfd: reading another file might block for ever. */
static bool is_eventfd(int fd)
{
    char path[32];
    char name[32] = { 0 };
    if (abi_embedded()) {
        return true;
    }
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return readlink(path, name, sizeof(name) - 1) > 0 && strstr(name, "[eventfd]") != NULL;
}

/* An eventfd stays good as long as it is assigned, whatever the client closes: so the kernel has
 * it, by its reference, and we by a duplicate. An embedded client keeps its own open and saves the
 * call. */
static int hold_fd(int fd)
{
    return abi_embedded() ? fd : dup(fd);
}

static void drop_fd(int fd)
{
    if (fd >= 0 && !abi_embedded()) {
        close(fd);
    }
}

static void irqfd_free(struct abi_irqfd *f)
{
    drop_fd(f->fd);
    drop_fd(f->resample_fd);
    free(f);
}

static void irqfd_bury(struct abi_vm *vm)
{
    struct abi_irqfd *f;
    pthread_mutex_lock(&vm->irqfd_lock);
    while ((f = TAILQ_FIRST(&vm->irqfds_dead)) != NULL) {
        TAILQ_REMOVE(&vm->irqfds_dead, f, link);
        irqfd_free(f);
    }
    pthread_mutex_unlock(&vm->irqfd_lock);
}

static void *irqfd_main(void *opaque)
{
    struct abi_vm *vm = opaque;
    struct epoll_event ev[32];
    for (;;) {
        int n = epoll_pwait2(vm->irqfd_epoll, ev, ARRAY_LEN(ev), NULL, NULL);
        if (n < 0 && errno != EINTR) {
            return NULL;
        }
        bool quit = false;
        /* The kernel orders this behind epoll_ctl(); said so in terms of the language, too. */
        (void)atomic_load_explicit(&vm->irqfd_made, memory_order_acquire);
        for (int i = 0; i < n; i++) {
            struct abi_irqfd *f = ev[i].data.ptr;
            uint64_t count;
            if (f != NULL) {
                irqfd_signalled(f);
            } else if (read(vm->irqfd_wake, &count, sizeof(count)) == sizeof(count)) {
                quit = count >= UINT32_MAX;
            }
        }
        irqfd_bury(vm);
        if (quit) {
            return NULL;
        }
    }
}

int abi_irqfd_start(struct abi_vm *vm)
{
    if (vm->irqfd_epoll >= 0) {
        return 0;
    }
    struct epoll_event ev = { .events = EPOLLIN };
    vm->irqfd_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    vm->irqfd_epoll = epoll_create1(EPOLL_CLOEXEC);
    int rc = 0;
    if (vm->irqfd_wake < 0 || vm->irqfd_epoll < 0 ||
        epoll_ctl(vm->irqfd_epoll, EPOLL_CTL_ADD, vm->irqfd_wake, &ev) < 0) {
        rc = -errno;
    } else {
        sigset_t all;
        sigset_t old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = -pthread_create(&vm->irqfd_thread, NULL, irqfd_main, vm);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    if (rc < 0) {
        close(vm->irqfd_wake);
        close(vm->irqfd_epoll);
        vm->irqfd_wake = vm->irqfd_epoll = -1;
    }
    return rc;
}

static int irqfd_assign(struct abi_vm *vm, const struct kvm_irqfd *arg)
{
    bool resample = (arg->flags & KVM_IRQFD_FLAG_RESAMPLE) != 0;
    struct abi_irqfd *f;
    /* Of an embedded client, epoll_ctl() below finds it out: its vCPU threads have no fcntl(). */
    if (!abi_embedded() && fcntl((int)arg->fd, F_GETFD) < 0) {
        return -EBADF;
    }
    if (!is_eventfd((int)arg->fd) || (resample && !is_eventfd((int)arg->resamplefd))) {
        return -EINVAL;
    }
    TAILQ_FOREACH(f, &vm->irqfds, link)
    {
        if (f->user_fd == (int)arg->fd) {
            return -EBUSY;
        }
    }
    int rc = abi_irqfd_start(vm);
    if (rc < 0) {
        return rc;
    }
    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return -ENOMEM;
    }
    f->vm = vm;
    f->gsi = arg->gsi;
    f->user_fd = (int)arg->fd;
    f->fd = hold_fd((int)arg->fd);
    f->resample_fd = resample ? hold_fd((int)arg->resamplefd) : -1;
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = f };
    atomic_fetch_add_explicit(&vm->irqfd_made, 1, memory_order_release);
    if (f->fd < 0 || (resample && f->resample_fd < 0) ||
        epoll_ctl(vm->irqfd_epoll, EPOLL_CTL_ADD, f->fd, &ev) < 0) {
        rc = errno == EPERM ? -EINVAL : -errno;
        irqfd_free(f);
        return rc;
    }
    TAILQ_INSERT_TAIL(&vm->irqfds, f, link);
    if (resample) {
        f->notifier = (struct sk_ack_notifier){ .gsi = f->gsi, .fn = irqfd_acked };
        sk_irqchip_add_ack_notifier(vm->sk.irqchip, &f->notifier);
    }
    return 0;
}

static void irqfd_remove(struct abi_vm *vm, struct abi_irqfd *f)
{
    uint64_t one = 1;
    (void)epoll_ctl(vm->irqfd_epoll, EPOLL_CTL_DEL, f->fd, NULL);
    if (f->resample_fd >= 0) {
        sk_irqchip_del_ack_notifier(vm->sk.irqchip, &f->notifier);
        (void)sk_irqchip_set_irq(vm->sk.irqchip, f->gsi, SOURCE_IRQFD_RESAMPLE, false);
    }
    TAILQ_REMOVE(&vm->irqfds, f, link);
    TAILQ_INSERT_TAIL(&vm->irqfds_dead, f, link);
    (void)!write(vm->irqfd_wake, &one, sizeof(one));
}

int abi_irqfd(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_irqfd *a = arg;
    if ((a->flags & ~(uint32_t)(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE)) != 0 ||
        vm->sk.irqchip == NULL) {
        return -EINVAL;
    }
    int rc = 0;
    pthread_mutex_lock(&vm->irqfd_lock);
    if ((a->flags & KVM_IRQFD_FLAG_DEASSIGN) != 0) {
        struct abi_irqfd *f;
        struct abi_irqfd *next;
        for (f = TAILQ_FIRST(&vm->irqfds); f != NULL; f = next) {
            next = TAILQ_NEXT(f, link);
            if (f->user_fd == (int)a->fd && f->gsi == a->gsi) {
                irqfd_remove(vm, f);
            }
        }
    } else {
        rc = irqfd_assign(vm, a);
    }
    pthread_mutex_unlock(&vm->irqfd_lock);
    return rc;
}

void abi_eventfd_free(struct abi_vm *vm)
{
    struct abi_irqfd *f;
    if (vm->irqfd_epoll >= 0) {
        uint64_t quit = UINT32_MAX;
        (void)!write(vm->irqfd_wake, &quit, sizeof(quit));
        pthread_join(vm->irqfd_thread, NULL);
        while ((f = TAILQ_FIRST(&vm->irqfds)) != NULL) {
            irqfd_remove(vm, f);
        }
        irqfd_bury(vm);
        close(vm->irqfd_epoll);
        close(vm->irqfd_wake);
    }
    struct abi_ioeventfd *e;
    while ((e = TAILQ_FIRST(&vm->ioeventfds)) != NULL) {
        TAILQ_REMOVE(&vm->ioeventfds, e, link);
        drop_fd(e->arg.fd);
        free(e);
    }
    struct abi_zone *z;
    while ((z = TAILQ_FIRST(&vm->zones)) != NULL) {
        TAILQ_REMOVE(&vm->zones, z, link);
        free(z);
    }
    pthread_rwlock_destroy(&vm->io_lock);
    pthread_mutex_destroy(&vm->irqfd_lock);
    pthread_mutex_destroy(&vm->ring_lock);
}

/* --- ioeventfd --- */

#define PLACE (KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH)

static bool same_place(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b)
{
    return a->addr == b->addr && a->len == b->len && ((a->flags ^ b->flags) & PLACE) == 0 &&
           ((a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) == 0 || a->datamatch == b->datamatch);
}

/* Two that one write could hit: what KVM refuses with EEXIST. */
static bool collide(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b)
{
    bool both_match = (a->flags & b->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) != 0;
    return a->addr == b->addr && ((a->flags ^ b->flags) & KVM_IOEVENTFD_FLAG_PIO) == 0 &&
           (a->len == 0 || b->len == 0 || a->len == b->len) &&
           (!both_match || a->datamatch == b->datamatch);
}

static int ioeventfd_assign(struct abi_vm *vm, const struct kvm_ioeventfd *a)
{
    struct abi_ioeventfd *e;
    unsigned n = 0;
    TAILQ_FOREACH(e, &vm->ioeventfds, link)
    {
        if (collide(&e->arg, a)) {
            return -EEXIST;
        }
        n++;
    }
    if (n >= MAX_IOEVENTFDS) {
        return -ENOSPC;
    }
    e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return -ENOMEM;
    }
    e->arg = *a;
    e->arg.fd = hold_fd(a->fd);
    if (e->arg.fd < 0 || !is_eventfd(a->fd)) {
        int rc = e->arg.fd < 0 ? -EBADF : -EINVAL;
        drop_fd(e->arg.fd);
        free(e);
        return rc;
    }
    TAILQ_INSERT_TAIL(&vm->ioeventfds, e, link);
    return 0;
}

static int ioeventfd_deassign(struct abi_vm *vm, const struct kvm_ioeventfd *a)
{
    struct abi_ioeventfd *e;
    TAILQ_FOREACH(e, &vm->ioeventfds, link)
    {
        if (same_place(&e->arg, a)) {
            TAILQ_REMOVE(&vm->ioeventfds, e, link);
            drop_fd(e->arg.fd);
            free(e);
            return 0;
        }
    }
    return -ENOENT;
}

int abi_ioeventfd(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_ioeventfd *a = arg;
    uint64_t end;
    if ((a->flags & ~(uint32_t)(PLACE | KVM_IOEVENTFD_FLAG_DEASSIGN)) != 0 ||
        (a->len != 0 && (a->len > 8 || !bits_is_pow2(a->len))) ||
        ckd_add(&end, a->addr, (uint64_t)a->len) ||
        (a->len == 0 && (a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) != 0)) {
        return -EINVAL;
    }
    pthread_rwlock_wrlock(&vm->io_lock);
    int rc = (a->flags & KVM_IOEVENTFD_FLAG_DEASSIGN) != 0 ? ioeventfd_deassign(vm, a)
                                                           : ioeventfd_assign(vm, a);
    pthread_rwlock_unlock(&vm->io_lock);
    return rc;
}

static bool ioeventfd_write(struct abi_vm *vm, bool pio, uint64_t addr, unsigned len,
                            const void *data)
{
    uint64_t value = 0;
    memcpy(&value, data, len);
    struct abi_ioeventfd *e;
    TAILQ_FOREACH(e, &vm->ioeventfds, link)
    {
        bool is_pio = (e->arg.flags & KVM_IOEVENTFD_FLAG_PIO) != 0;
        bool match = (e->arg.flags & KVM_IOEVENTFD_FLAG_DATAMATCH) != 0;
        if (is_pio != pio || e->arg.addr != addr || (e->arg.len != 0 && e->arg.len != len) ||
            (match && e->arg.datamatch != value)) {
            continue;
        }
        uint64_t one = 1;
        (void)!write(e->arg.fd, &one, sizeof(one));
        return true;
    }
    return false;
}

/* --- coalesced writes --- */

int abi_register_coalesced(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_coalesced_mmio_zone *a = arg;
    if (a->pio > 1) {
        return -EINVAL;
    }
    struct abi_zone *z = calloc(1, sizeof(*z));
    if (z == NULL) {
        return -ENOMEM;
    }
    z->arg = *a;
    pthread_rwlock_wrlock(&vm->io_lock);
    TAILQ_INSERT_TAIL(&vm->zones, z, link);
    pthread_rwlock_unlock(&vm->io_lock);
    return 0;
}

int abi_unregister_coalesced(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_coalesced_mmio_zone *a = arg;
    if (a->pio > 1) {
        return -EINVAL;
    }
    pthread_rwlock_wrlock(&vm->io_lock);
    struct abi_zone *z;
    struct abi_zone *next;
    for (z = TAILQ_FIRST(&vm->zones); z != NULL; z = next) {
        next = TAILQ_NEXT(z, link);
        if (z->arg.pio == a->pio && z->arg.addr >= a->addr &&
            z->arg.addr + z->arg.size <= a->addr + a->size) {
            TAILQ_REMOVE(&vm->zones, z, link);
            free(z);
        }
    }
    pthread_rwlock_unlock(&vm->io_lock);
    return 0;
}

static bool coalesced_write(struct abi_vm *vm, bool pio, uint64_t addr, unsigned len,
                            const void *data)
{
    struct abi_zone *z;
    TAILQ_FOREACH(z, &vm->zones, link)
    {
        if ((z->arg.pio != 0) == pio && addr >= z->arg.addr &&
            addr - z->arg.addr + len <= z->arg.size) {
            break;
        }
    }
    if (z == NULL || vm->ring == NULL) {
        return false;
    }
    bool taken = false;
    pthread_mutex_lock(&vm->ring_lock);
    /* first and last are in memory that the client writes: reduce them before use. */
    uint32_t last = __atomic_load_n(&vm->ring->last, __ATOMIC_RELAXED) % (uint32_t)COALESCED_MAX;
    uint32_t first = __atomic_load_n(&vm->ring->first, __ATOMIC_ACQUIRE) % (uint32_t)COALESCED_MAX;
    if ((last + 1) % COALESCED_MAX != first) {
        struct kvm_coalesced_mmio *e = &vm->ring->coalesced_mmio[last];
        e->phys_addr = addr;
        e->len = len;
        e->pio = pio;
        memcpy(e->data, data, len);
        __atomic_store_n(&vm->ring->last, (uint32_t)((last + 1) % COALESCED_MAX), __ATOMIC_RELEASE);
        taken = true;
    }
    pthread_mutex_unlock(&vm->ring_lock);
    return taken;
}

bool abi_eventfd_write(struct abi_vm *vm, bool pio, uint64_t addr, unsigned len, const void *data)
{
    pthread_rwlock_rdlock(&vm->io_lock);
    bool taken =
        ioeventfd_write(vm, pio, addr, len, data) || coalesced_write(vm, pio, addr, len, data);
    pthread_rwlock_unlock(&vm->io_lock);
    return taken;
}
