/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/dev_harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DEV_HARNESS_MMIO_LIMIT BIT64(46)

static struct dev_harness *dev_harness_of(struct dev_env *env)
{
    return container_of(env, struct dev_harness, env);
}

static void fake_irq_set(struct dev_env *env, unsigned gsi, int level)
{
    struct dev_harness *h = dev_harness_of(env);
    if (gsi >= DEV_HARNESS_GSIS) {
        abort();
    }
    h->gsi_rises[gsi] += (level != 0 && h->gsi_level[gsi] == 0) ? 1 : 0;
    h->gsi_level[gsi] = level;
}

static int fake_msi_new(struct dev_env *env, struct dev_msi **ret_msi, struct err *err)
{
    struct dev_harness *h = dev_harness_of(env);
    for (unsigned i = 0; i < DEV_HARNESS_MSIS; i++) {
        if (!h->msi[i].used) {
            h->msi[i] = (struct dev_msi){ .used = true, .fd = -1 };
            *ret_msi = &h->msi[i];
            return 0;
        }
    }
    return err_set(err, -ENOSPC, "no MSI slot left (%d)", DEV_HARNESS_MSIS);
}

static int fake_msi_set(struct dev_env *env, struct dev_msi *msi, uint64_t addr, uint32_t data)
{
    (void)env;
    msi->addr = addr;
    msi->data = data;
    return 0;
}

static void fake_msi_fire(struct dev_env *env, struct dev_msi *msi)
{
    (void)env;
    msi->fired++;
}

static int fake_msi_fd(struct dev_env *env, struct dev_msi *msi)
{
    (void)env;
    if (msi->fd < 0) {
        msi->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    return msi->fd;
}

static void fake_msi_free(struct dev_env *env, struct dev_msi *msi)
{
    (void)env;
    if (msi->fd >= 0) {
        close(msi->fd);
    }
    msi->used = false;
    msi->fd = -1;
}

static void fake_event(struct dev_env *env, struct dev *dev, enum dev_event event, int code,
                       const char *detail)
{
    struct dev_harness *h = dev_harness_of(env);
    (void)dev;
    h->events++;
    h->last_event = event;
    h->last_event_code = code;
    (void)snprintf(h->last_event_detail, sizeof(h->last_event_detail), "%s",
                   detail != NULL ? detail : "");
}

static uint64_t fake_now_ns(struct dev_env *env)
{
    return dev_harness_of(env)->now_ns;
}

static uint64_t fake_wall_ns(struct dev_env *env)
{
    return dev_harness_of(env)->wall_ns;
}

/* xorshift64: repeatable, which is what a test wants of a random source. */
static void fake_random(struct dev_env *env, void *buf, size_t len)
{
    struct dev_harness *h = dev_harness_of(env);
    uint8_t *to = buf;
    for (size_t i = 0; i < len; i++) {
        h->random_state ^= h->random_state << 13;
        h->random_state ^= h->random_state >> 7;
        h->random_state ^= h->random_state << 17;
        to[i] = (uint8_t)h->random_state;
    }
}

static const struct dev_env_ops dev_harness_ops = {
    .irq_set = fake_irq_set,
    .msi_new = fake_msi_new,
    .msi_set = fake_msi_set,
    .msi_fire = fake_msi_fire,
    .msi_fd = fake_msi_fd,
    .msi_free = fake_msi_free,
    .event = fake_event,
    .now_ns = fake_now_ns,
    .wall_ns = fake_wall_ns,
    .random = fake_random,
};

void dev_harness_init(struct dev_harness *h, uint64_t ram_size)
{
    *h = (struct dev_harness){
        .ram_size = ram_size,
        .now_ns = 1000000000,
        .wall_ns = UINT64_C(1700000000) * 1000000000, /* 2023-11-14 22:13:20 UTC */
        .random_state = UINT64_C(0x9e3779b97f4a7c15),
    };
    struct err err = ERR_INIT;
    h->ram = calloc(1, ram_size);
    h->env.ops = &dev_harness_ops;
    h->env.mem = gmem_new();
    h->env.pio = bus_new("ports", 65536);
    h->env.mmio = bus_new("mmio", DEV_HARNESS_MMIO_LIMIT);
    TAILQ_INIT(&h->env.devs);
    if (h->ram == NULL || h->env.mem == NULL || h->env.pio == NULL || h->env.mmio == NULL ||
        loop_new(&h->env.loop, &err) < 0 ||
        gmem_add(h->env.mem, GPA(0), ram_size, h->ram, true) < 0) {
        abort();
    }
}

void dev_harness_done(struct dev_harness *h)
{
    struct dev *dev;
    while ((dev = TAILQ_LAST(&h->env.devs, dev_list)) != NULL) {
        dev_free(dev);
    }
    for (unsigned i = 0; i < DEV_HARNESS_MSIS; i++) {
        if (h->msi[i].used && h->msi[i].fd >= 0) {
            close(h->msi[i].fd);
        }
    }
    loop_free(h->env.loop);
    bus_free(h->env.mmio);
    bus_free(h->env.pio);
    gmem_free(h->env.mem);
    free(h->ram);
}

struct dev *dev_harness_add(struct dev_harness *h, const struct dev_class *cls, const void *params)
{
    struct err err = ERR_INIT;
    struct dev *dev = NULL;
    if (dev_new(&h->env, cls, cls->name, params, &dev, &err) < 0) {
        fprintf(stderr, "dev_harness_add: %s\n", err.msg);
        abort();
    }
    return dev;
}

void dev_harness_advance(struct dev_harness *h, uint64_t ns)
{
    h->now_ns += ns;
    h->wall_ns += ns;
    dev_harness_poll(h);
}

void dev_harness_poll(struct dev_harness *h)
{
    for (int i = 0; i < 64; i++) {
        if (loop_run_once(h->env.loop, 0) < 0) {
            abort();
        }
    }
}

unsigned dev_harness_msi_fired(struct dev_harness *h, uint32_t data)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < DEV_HARNESS_MSIS; i++) {
        struct dev_msi *msi = &h->msi[i];
        uint64_t count;
        if (!msi->used) {
            continue;
        }
        if (msi->fd >= 0 && read(msi->fd, &count, sizeof(count)) == sizeof(count)) {
            msi->fired += (unsigned)count;
        }
        sum += msi->data == data ? msi->fired : 0;
    }
    return sum;
}

uint64_t dev_harness_in(struct dev_harness *h, uint16_t port, unsigned size)
{
    uint64_t value;
    (void)bus_read(h->env.pio, port, size, &value); /* nobody there: all ones, as on hardware */
    return value;
}

void dev_harness_out(struct dev_harness *h, uint16_t port, unsigned size, uint64_t value)
{
    (void)bus_write(h->env.pio, port, size, value);
}

uint64_t dev_harness_mmio_read(struct dev_harness *h, uint64_t addr, unsigned size)
{
    uint64_t value;
    (void)bus_read(h->env.mmio, addr, size, &value);
    return value;
}

void dev_harness_mmio_write(struct dev_harness *h, uint64_t addr, unsigned size, uint64_t value)
{
    (void)bus_write(h->env.mmio, addr, size, value);
}
