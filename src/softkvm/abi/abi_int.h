/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the ioctl layer: objects behind descriptors, and the shape of an ioctl.
 *
 *   fd --(fds.c: table)--> struct abi_obj --+-- system: nothing of its own
 *                                           +-- struct abi_vm   (abi_vm.c)
 *                                           +-- struct abi_vcpu (abi_vcpu.c)
 *
 * To add an ioctl: a row in ioctls.def, a function abi_NAME() in the ioc_*.c file of its subject.
 * The dispatcher copies the fixed-size argument in and out; a function that has a variable part
 * gets the caller's pointer too (abi_copy_in, abi_copy_out: EFAULT instead of a crash).
 *
 * Life: a VM is freed, with its vCPUs, when the last descriptor to it and to them is closed: a
 * vCPU's descriptor holds the VM. Locks, in this order: vcpu->lock, vm->lock, vm->slots_lock, the
 * irqchip's.
 */
#ifndef SOFTKVM_ABI_ABI_INT_H
#define SOFTKVM_ABI_ABI_INT_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/queue.h>

#include "softkvm/irqchip/irqchip.h"
#include "softkvm/pv/pv.h"
#include "softkvm/x86/cpu.h"
#include "softkvm/x86/phys.h"

#define ABI_MAX_VCPUS      256
#define ABI_MAX_SLOTS      512   /* KVM_CAP_NR_MEMSLOTS */
#define ABI_MAX_CPUID      256   /* entries of KVM_SET_CPUID2, as KVM_MAX_CPUID_ENTRIES */
#define ABI_MAX_MSRS       256   /* entries of one KVM_GET/SET_MSRS, as MAX_IO_MSRS */
#define ABI_RUN_PAGES      3     /* kvm_run, PIO data, coalesced ring */
#define ABI_DIRTY_RING_MAX 65536 /* entries, KVM_DIRTY_RING_MAX_ENTRIES */
#define ABI_ARG_MAX        4096  /* largest fixed argument: struct kvm_xsave */
#define ABI_PAGE           4096
#define ABI_QUIRKS                                                                                 \
    (KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_LAPIC_MMIO_HOLE |                               \
     KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

enum abi_kind {
    ABI_SYSTEM,
    ABI_VM,
    ABI_VCPU,
};

struct abi_obj {
    enum abi_kind kind;
    _Atomic unsigned refs;
    unsigned generation; /* of the process that made it: see abi_generation() */
    void (*free)(struct abi_obj *obj);
};

struct abi_slot {
    bool used;
    uint32_t flags; /* KVM_MEM_* */
    uint64_t gpa, size, user;
    _Atomic uint64_t *dirty;   /* a bit a page, or NULL */
    _Atomic uint64_t *seen[2]; /* as sk_slot's */
};

struct abi_ioeventfd {
    struct kvm_ioeventfd arg;
    TAILQ_ENTRY(abi_ioeventfd) link;
};

struct abi_zone {
    struct kvm_coalesced_mmio_zone arg;
    TAILQ_ENTRY(abi_zone) link;
};

struct abi_irqfd;

struct abi_msr_filter {
    bool default_deny;
    unsigned n;
    struct {
        uint32_t flags, base, nmsrs;
        uint8_t *bitmap;
    } range[KVM_MSR_FILTER_MAX_RANGES];
};

struct abi_vcpu;

/* The last time a client set a vCPU's TSC: see abi_tsc_set(). */
struct abi_tsc {
    uint64_t ns, value, offset, ratio;
    bool valid;
};

struct abi_vm {
    struct abi_obj obj;
    struct sk_vm sk;
    _Atomic uint64_t written; /* counted by the client: softkvm_writes() */
    pthread_mutex_t lock;     /* vCPU list, capabilities, MSR filter */
    struct abi_vcpu *vcpu[ABI_MAX_VCPUS];
    unsigned nvcpus;
    uint32_t boot_cpu;
    uint32_t tsc_khz;
    uint32_t msr_exit_mask;   /* KVM_MSR_EXIT_REASON_* that go to the client */
    uint32_t max_vcpu_id;     /* KVM_CAP_MAX_VCPU_ID as enabled, 0 = not */
    struct abi_tsc tsc;       /* under lock */
    uint32_t dirty_ring_size; /* bytes of the ring of a vCPU, 0 = none */
    uint32_t log_protect;     /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
    _Atomic(struct abi_msr_filter *) msr_filter;
    struct pv_clock_vm clock;

    pthread_mutex_t slots_lock;
    struct abi_slot slot[2][ABI_MAX_SLOTS]; /* by address space: 0 normal, 1 SMM */

    pthread_rwlock_t io_lock; /* covers the two lists; readers are vCPUs */
    TAILQ_HEAD(, abi_ioeventfd) ioeventfds;
    TAILQ_HEAD(, abi_zone) zones;
    pthread_mutex_t ring_lock; /* the coalesced ring, shared by all vCPUs */
    struct kvm_coalesced_mmio_ring *ring;

    pthread_mutex_t irqfd_lock;
    TAILQ_HEAD(, abi_irqfd) irqfds;
    TAILQ_HEAD(, abi_irqfd) irqfds_dead; /* freed by the thread after its round */
    pthread_t irqfd_thread;
    int irqfd_epoll, irqfd_wake; /* -1 until the first irqfd */
    _Atomic unsigned irqfd_made; /* the thread reads it before what epoll tells it of */
};

struct abi_vcpu {
    struct abi_obj obj;
    struct abi_vm *vm;
    struct sk_vcpu *c;
    pthread_mutex_t lock; /* one ioctl or KVM_RUN at a time */
    int mem_fd;           /* backs the run area */
    struct kvm_run *run;
    size_t run_size;
    bool ran; /* KVM_RUN has begun once: CPUID is fixed */
    bool io_in, io_pending;
    bool mmio_read;
    bool sigmask_set;
    sigset_t sigmask;
    _Atomic bool in_run;
    struct kvm_dirty_gfn *dirty_gfn; /* the ring, or NULL */
    _Atomic uint32_t dirty_head;     /* next entry to fill */
    _Atomic uint32_t dirty_reset;    /* next entry that the client gives back */
    struct pv_clock_vcpu clock;
    _Atomic bool clock_stale;
};

/* The running vCPU of an engine callback. */
struct abi_vcpu *abi_vcpu_of(struct sk_vcpu *c);
static inline struct abi_vm *abi_vm_of(struct sk_vcpu *c)
{
    return c->vm->opaque;
}

/* The PIC is ours, so the client injects nothing. (With a split irqchip the PIC is the client's.)
 */
static inline bool abi_has_pic(const struct abi_vm *vm)
{
    return vm->sk.irqchip != NULL && !sk_irqchip_is_split(vm->sk.irqchip);
}

/* --- fds.c --- */

/* How many forks lie between the first process and this one. A VM works only in the process that
 * made it (EIO elsewhere, as KVM's check of the address space). Any thread. */
unsigned abi_generation(void);

/* Makes a descriptor for `obj` (takes its reference; drops it on failure). Negative errno. */
int abi_fd_new(struct abi_obj *take_obj, const char *name, size_t size);
/* The object with a reference of the caller's, or NULL. */
struct abi_obj *abi_fd_get(int fd);
void abi_obj_ref(struct abi_obj *obj);
void abi_obj_unref(struct abi_obj *obj);

/* softkvm_embed() was called. */
bool abi_embedded(void);

/* --- user memory: 0 or -EFAULT --- */
int abi_copy_in(void *to, const void *user, size_t len);
int abi_copy_out(void *user, const void *from, size_t len);

/* --- life of objects --- */
int abi_vm_create(void);
int abi_vcpu_create(struct abi_vm *vm, unsigned long id);
void abi_vcpu_destroy(struct abi_vcpu *v); /* when its VM goes */
void abi_vcpu_fill_ops(struct sk_vm *sk);

/* --- memslot.c --- */
int abi_slots_init(struct abi_vm *vm);
void abi_slots_free(struct abi_vm *vm);
/* Makes every vCPU drop its translations and waits until all have. slots_lock is held. */
void abi_slots_sync(struct abi_vm *vm);
void abi_dirty_mark(struct abi_vm *vm, uint64_t gpa, uint64_t len);

/* --- eventfd.c --- */
void abi_eventfd_init(struct abi_vm *vm);
void abi_eventfd_free(struct abi_vm *vm);
/* Starts the thread that serves irqfds, once: with the first irqfd, or, for a client that will
 * close its system call filter, with the irqchip. vm->irqfd_lock is held, or nobody else knows the
 * VM yet. */
int abi_irqfd_start(struct abi_vm *vm);
/* True if a doorbell or the coalesced ring took the write. */
bool abi_eventfd_write(struct abi_vm *vm, bool pio, uint64_t addr, unsigned len, const void *data);

/* --- ioc_run.c --- */
/* A signal handler of the client has run on this thread: if it is in KVM_RUN, leave with EINTR.
 * Async-signal-safe. */
void abi_signal_caught(void);
/* See softkvm_signal_held(). */
bool abi_signal_held(int sig);

/* --- ioc_msr.c --- */
/* Sets a vCPU's TSC as a client does by KVM_SET_MSRS, or with 0 as its creation does: a value that
 * is within a second of where the TSC set before stands now means "the same as there", so that
 * vCPUs set one after another are in step (KVM's rule, Linux 6.1). Takes vm->lock. */
void abi_tsc_set(struct abi_vm *vm, struct sk_vcpu *c, uint64_t value);
bool abi_msr_allowed(struct sk_vcpu *c, uint32_t index, bool write);
void abi_msr_filter_free(struct abi_msr_filter *f);

/* --- registers, shared by the ioctls and the sync area of kvm_run --- */
void abi_regs_get(struct sk_vcpu *c, struct kvm_regs *r);
void abi_regs_set(struct sk_vcpu *c, const struct kvm_regs *r);
void abi_sregs_get(struct sk_vcpu *c, struct kvm_sregs *s);
int abi_sregs_set(struct abi_vcpu *v, const struct kvm_sregs *s);
void abi_events_get(struct sk_vcpu *c, struct kvm_vcpu_events *e);
int abi_events_set(struct sk_vcpu *c, const struct kvm_vcpu_events *e);

/* Every handler: a result >= 0 or a negative errno. `arg` is the copied argument, or NULL where the
 * request has none of fixed size; `user` is the raw third argument of ioctl(2). */
typedef int abi_handler(struct abi_obj *obj, void *arg, unsigned long user);

#define IOCTL(kind, request, name, locked) abi_handler abi_##name;
#include "softkvm/abi/ioctls.def"
#undef IOCTL

#define ABI_VM_OF(o)   container_of((o), struct abi_vm, obj)
#define ABI_VCPU_OF(o) container_of((o), struct abi_vcpu, obj)

#endif
