/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a device is, and what it sees of the machine.
 *
 * A device is one file that exports `NAME_class` and one row in devices.def. It reaches the rest
 * only through `struct dev_env`, so that the same code runs in a VM, in its unit test and in its
 * fuzz target (dev_harness.h fills the environment with fakes).
 *
 * Threads: handlers of bus regions, loop callbacks and control requests may come from different
 * threads. For a DEV_SERIAL class the core holds dev->lock around bus handlers and class
 * functions; loop callbacks of the device take it themselves (dev_lock/dev_unlock). A DEV_PARALLEL
 * class locks for itself. dev->lock is never held while waiting for a vCPU thread.
 */
#ifndef DEV_DEV_H
#define DEV_DEV_H

#include <pthread.h>
#include <sys/queue.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "base/loop.h"
#include "vmm/bus/bus.h"
#include "vmm/mem/gmem.h"

struct dev;
struct dev_env;
struct pci_bus;
struct fwcfg;
struct aml;

enum dev_threading {
    DEV_SERIAL,
    DEV_PARALLEL,
};

/* Why a guest stops or starts anew; `code` belongs to DEV_EVENT_DEBUG_EXIT. */
enum dev_event {
    DEV_EVENT_POWEROFF,   /* S5 */
    DEV_EVENT_RESET,      /* keyboard controller, port 0xcf9, ACPI reset register, triple fault */
    DEV_EVENT_PANIC,      /* pvpanic */
    DEV_EVENT_DEBUG_EXIT, /* isa-debug-exit */
    DEV_EVENT_IO_ERROR,   /* a disk cannot write (ENOSPC, EIO): pause, keep the request */
};

/* An interrupt message slot: one MSI-X vector. Engine: irqfd; harness: a counter. */
struct dev_msi;

struct dev_env_ops {
    /* Sets the level of a global system interrupt (ISA irq n is GSI n). Edge users pulse it. */
    void (*irq_set)(struct dev_env *env, unsigned gsi, int level);

    /* MSI: allocate a slot, (re)program its address/data, fire it, free it. */
    int (*msi_new)(struct dev_env *env, struct dev_msi **ret_msi, struct err *err);
    int (*msi_set)(struct dev_env *env, struct dev_msi *msi, uint64_t addr, uint32_t data);
    void (*msi_fire)(struct dev_env *env, struct dev_msi *msi);
    /* An eventfd that fires it when written, for back ends in other threads; -1 = none. */
    int (*msi_fd)(struct dev_env *env, struct dev_msi *msi);
    void (*msi_free)(struct dev_env *env, struct dev_msi *msi);

    /* Something for the whole machine. `detail` is a short text for the user or NULL. Never
     * blocks: the machine acts on its own thread. */
    void (*event)(struct dev_env *env, struct dev *dev, enum dev_event event, int code,
                  const char *detail);

    /* CLOCK_MONOTONIC-like guest time (stands still while the VM is paused) and wall time, ns. */
    uint64_t (*now_ns)(struct dev_env *env);
    uint64_t (*wall_ns)(struct dev_env *env);
    /* Fills `buf` with random bytes from the host. */
    void (*random)(struct dev_env *env, void *buf, size_t len);
};

struct dev_env {
    const struct dev_env_ops *ops;
    struct gmem *mem;
    struct bus *pio;
    struct bus *mmio;
    struct loop *loop; /* the device loop; its thread runs all device callbacks */
    struct pci_bus *pci;
    struct fwcfg *fwcfg;            /* NULL where the machine has none */
    void *opaque;                   /* of whoever provides the ops */
    TAILQ_HEAD(dev_list, dev) devs; /* in order of creation */
};

struct dev_class {
    const char *name;
    const char *help; /* one line */
    enum dev_threading threading;
    size_t state_size;

    /* Builds the device: dev->state is zeroed memory of state_size. `params` is the struct that
     * the class documents in its header (NULL where it takes none). On an error everything done is
     * undone (done() is not called). */
    int (*init)(struct dev *dev, const void *params, struct err *err);
    void (*done)(struct dev *dev);  /* NULL = nothing to free */
    void (*reset)(struct dev *dev); /* to the power-on state; NULL = stateless */
    /* Called around a pause of the VM: after stop() the device starts no I/O and touches no guest
     * memory until start(). NULL = has no activity of its own. */
    void (*stop)(struct dev *dev);
    void (*start)(struct dev *dev);
    /* Appends the device's part to the DSDT. NULL = none. */
    int (*acpi)(struct dev *dev, struct aml *dsdt, struct err *err);
};

struct dev {
    const struct dev_class *cls;
    struct dev_env *env;
    char id[32];          /* "serial0", "disk0": in messages and on the control socket */
    pthread_mutex_t lock; /* recursive: a handler may touch its own regions */
    void *state;
    uint64_t guest_bugs;
    struct log_limit bug_limit;
    TAILQ_ENTRY(dev) link;
};

/* Creates a device of class `cls` on `env`. 0 or a negative errno (err is prefixed by the id). */
MUST_USE int dev_new(struct dev_env *env, const struct dev_class *cls, const char *id,
                     const void *params, struct dev **ret_dev, struct err *err);
void dev_free(struct dev *dev); /* accepts NULL */

/* Class functions under the device's lock; those a class lacks do nothing. */
void dev_reset(struct dev *dev);
void dev_stop(struct dev *dev);
void dev_start(struct dev *dev);

static inline void dev_lock(struct dev *dev)
{
    pthread_mutex_lock(&dev->lock);
}

static inline void dev_unlock(struct dev *dev)
{
    pthread_mutex_unlock(&dev->lock);
}

/* The guest did what its specification forbids: counted, logged with a rate limit. The device
 * then does what the spec says (virtio: DEVICE_NEEDS_RESET). */
void dev_guest_bug(struct dev *dev, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Shorthands. */
static inline void dev_irq(struct dev *dev, unsigned gsi, int level)
{
    dev->env->ops->irq_set(dev->env, gsi, level);
}

static inline void dev_event(struct dev *dev, enum dev_event event, int code, const char *detail)
{
    dev->env->ops->event(dev->env, dev, event, code, detail);
}

#endif
