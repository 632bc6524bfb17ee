/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the configuration to the devices: the builders of devices.def. A builder opens the back
 * ends that its devices need and leaves them in m->back, where machine_free_devices() finds them
 * once the devices are gone.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "block/blk.h"
#include "vmm/dev/debugcon.h"
#include "vmm/dev/fwcfg.h"
#include "vmm/dev/lpc.h"
#include "vmm/dev/pm.h"
#include "vmm/dev/rtc.h"
#include "vmm/dev/serial.h"
#include "vmm/dev/vmgenid.h"
#include "vmm/fs/share_wire.h"
#include "vmm/machine_int.h"
#include "vmm/virtio/virtio_balloon.h"
#include "vmm/virtio/virtio_blk.h"
#include "vmm/virtio/virtio_console.h"
#include "vmm/virtio/virtio_fs.h"
#include "vmm/virtio/virtio_net.h"
#include "vmm/virtio/virtio_vsock.h"

struct machine_row {
    const struct dev_class *cls;
    const char *id;
    int (*build)(struct machine *m, const struct machine_row *row, struct err *err);
};

static int machine_plain(struct machine *m, const struct machine_row *row, struct err *err)
{
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, NULL, &dev, err);
}

static int machine_add_fwcfg(struct machine *m, const struct machine_row *row, struct err *err)
{
    int rc = machine_plain(m, row, err);
    if (rc < 0) {
        return rc;
    }
    uint8_t size[8];
    uint8_t cpus[2];
    le64_put(size, m->layout.ram_size);
    le16_put(cpus, (uint16_t)m->config->cpus);
    rc = fwcfg_add_key(m->env.fwcfg, FWCFG_KEY_RAM_SIZE, size, sizeof(size), err);
    if (rc == 0) {
        rc = fwcfg_add_key(m->env.fwcfg, FWCFG_KEY_NB_CPUS, cpus, sizeof(cpus), err);
    }
    if (rc == 0) {
        rc = fwcfg_add_key(m->env.fwcfg, FWCFG_KEY_MAX_CPUS, cpus, sizeof(cpus), err);
    }
    return rc;
}

static int machine_add_pm(struct machine *m, const struct machine_row *row, struct err *err)
{
    return dev_new(&m->env, row->cls, row->id, NULL, &m->pm, err);
}

static int machine_add_lpc(struct machine *m, const struct machine_row *row, struct err *err)
{
    struct lpc_params p = { .pm = m->pm };
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

static int machine_add_rtc(struct machine *m, const struct machine_row *row, struct err *err)
{
    struct rtc_params p = { .low_ram = layout_size(&m->layout.low_ram),
                            .high_ram = layout_size(&m->layout.high_ram),
                            .ncpus = (unsigned)m->config->cpus };
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

static int machine_add_vmgenid(struct machine *m, const struct machine_row *row, struct err *err)
{
    struct vmgenid_params p = { .pm = m->pm };
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

/* ---- Consoles ---- */

static int machine_open_chr(struct machine *m, const char *what, const char *spec,
                            struct chr **ret_chr, struct err *err)
{
    if (m->back.nchr == ARRAY_LEN(m->back.chr)) {
        return err_set(err, -ENOSPC, "%s '%s': too many consoles", what, spec);
    }
    int rc = chr_open(spec, m->io_loop, machine_on_escape, m, ret_chr, err);
    if (rc < 0) {
        return err_prefix(err, "%s: ", what);
    }
    m->back.chr[m->back.nchr++] = *ret_chr;
    if (strcmp(spec, "pty") == 0) {
        /* Nobody can know the name before: it is part of the answer, no log line. */
        fprintf(stderr, "%s: %s\n", what, chr_name(*ret_chr));
    }
    if (strcmp(spec, "stdio") == 0) { /* at most one: chr_open() saw to that */
        return prompt_new(*ret_chr, m->io_loop, m->loop, machine_ctl, m, &m->prompt, err);
    }
    return 0;
}

static int machine_add_serial(struct machine *m, const struct machine_row *row, struct err *err)
{
    struct serial_params p = { .port = LAYOUT_PORT_SERIAL0, .irq = LAYOUT_GSI_SERIAL0 };
    int rc = machine_open_chr(m, "console", m->config->console, &p.chr, err);
    if (rc < 0) {
        return rc;
    }
    m->console_name = chr_name(p.chr);
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

static int machine_add_hvc(struct machine *m, const struct machine_row *row, struct err *err)
{
    if (m->config->hvc == NULL) {
        return 0;
    }
    struct virtio_console_port_params port = { .console = true };
    int rc = machine_open_chr(m, "hvc", m->config->hvc, &port.chr, err);
    if (rc < 0) {
        return rc;
    }
    struct virtio_console_params p = { .nports = 1, .port = &port };
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

static int machine_add_vsock(struct machine *m, const struct machine_row *row, struct err *err)
{
    if (m->config->vsock == 0) {
        return 0;
    }
    char path[PATH_MAX];
    if (m->config->vsock_path != NULL) {
        (void)snprintf(path, sizeof(path), "%s", m->config->vsock_path);
    } else {
        (void)snprintf(path, sizeof(path), "%s.vsock", m->config->name);
    }
    struct virtio_vsock_params p = { .cid = m->config->vsock, .path = path };
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

/* ---- Disks ---- */

static int machine_open_disk(struct machine *m, const struct vmconfig_disk *d, struct blk **ret_blk,
                             struct err *err)
{
    /* The list of the configuration with the NULL at its end that blk_opts asks for. */
    const char *allow[SCHEMA_MAX_LIST + 1] = { NULL };
    char *const *items = d->backing_allow.items;
    for (size_t i = 0; i < d->backing_allow.count && i < SCHEMA_MAX_LIST; i++) {
        allow[i] = items[i];
    }
    struct blk_opts opts = {
        .path = d->file,
        .format = d->format,
        .read_only = d->readonly,
        .cache = (enum blk_cache)d->cache,
        .backing_allow = allow,
        .data_file = d->data_file,
    };
    int rc = blk_open(&opts, ret_blk, err);
    if (rc == 0) {
        m->back.blk[m->back.nblk++] = *ret_blk;
    }
    return rc;
}

static int machine_add_disks(struct machine *m, const struct machine_row *row, struct err *err)
{
    const struct vmconfig_disk *disks = m->config->disk.items;
    for (unsigned i = 0; i < m->config->disk.count; i++) {
        struct virtio_blk_params p = {
            .serial = disks[i].serial,
            .num_queues = (unsigned)m->config->cpus,
        };
        char id[32];
        (void)snprintf(id, sizeof(id), "%s%u", row->id, i);
        int rc = machine_open_disk(m, &disks[i], &p.blk, err);
        if (rc < 0) {
            return err_prefix(err, "%s: ", id);
        }
        struct dev *dev;
        rc = dev_new(&m->env, row->cls, id, &p, &dev, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Only on request: firmware writes every line of its log with one exit a byte. */
static int machine_add_debugcon(struct machine *m, const struct machine_row *row, struct err *err)
{
    struct debugcon_params p = { 0 };
    if (m->config->debugcon == NULL) {
        return 0;
    }
    int rc = machine_open_chr(m, "debugcon", m->config->debugcon, &p.chr, err);
    if (rc < 0) {
        return rc;
    }
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

/* ---- Networks ---- */

static int machine_open_net(struct machine *m, const struct vmconfig_net *n, struct netbe **ret_be,
                            struct err *err)
{
    /* The list of the configuration with the NULL at its end that netbe_opts asks for. */
    const char *hostfwd[SCHEMA_MAX_LIST + 1] = { NULL };
    char *const *items = n->hostfwd.items;
    for (size_t i = 0; i < n->hostfwd.count && i < SCHEMA_MAX_LIST; i++) {
        hostfwd[i] = items[i];
    }
    struct netbe_opts opts = {
        .kind = n->tap != NULL ? "tap" : n->kind,
        .ifname = n->tap,
        .queues = (unsigned)n->queues,
        .hostfwd = hostfwd,
    };
    int rc = netbe_open(&opts, ret_be, err);
    if (rc == 0) {
        m->back.net[m->back.nnet++] = *ret_be;
    }
    return rc;
}

static int machine_add_nets(struct machine *m, const struct machine_row *row, struct err *err)
{
    const struct vmconfig_net *nets = m->config->net.items;
    for (unsigned i = 0; i < m->config->net.count; i++) {
        struct virtio_net_params p = { 0 };
        if (nets[i].mac != NULL) {
            int rc = virtio_net_parse_mac(nets[i].mac, p.mac, err);
            if (rc < 0) {
                return rc;
            }
        } else {
            virtio_net_default_mac(m->config->name, i, p.mac);
        }
        char id[32];
        (void)snprintf(id, sizeof(id), "%s%u", row->id, i);
        int rc = machine_open_net(m, &nets[i], &p.be, err);
        if (rc < 0) {
            return err_prefix(err, "%s: ", id);
        }
        struct dev *dev;
        rc = dev_new(&m->env, row->cls, id, &p, &dev, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- Shared folders ---- */

static int machine_add_shares(struct machine *m, const struct machine_row *row, struct err *err)
{
    const struct vmconfig_share *shares = m->config->share.items;
    for (unsigned i = 0; i < m->config->share.count; i++) {
        const char *args[] = { "--dir", shares[i].dir, shares[i].writable ? "--writable" : NULL,
                               NULL };
        const struct helper_opts o = { .name = "posada-fs",
                                       .args = args,
                                       .send_buffer = SHARE_WIRE_BUFFER };
        struct helper *h = &m->back.share[m->back.nshare];
        struct dev *dev;
        char id[32];
        (void)snprintf(id, sizeof(id), "%s%u", row->id, i);
        int rc = helper_start(&o, h, err);
        if (rc < 0) {
            return err_prefix(err, "%s: ", id);
        }
        m->back.nshare++;
        struct virtio_fs_params p = { .tag = shares[i].tag, .fd = h->fd };
        rc = dev_new(&m->env, row->cls, id, &p, &dev, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int machine_add_balloon(struct machine *m, const struct machine_row *row, struct err *err)
{
    if (!m->config->balloon) {
        return 0;
    }
    struct virtio_balloon_params p = {
        .deflate_on_oom = true,
        .reporting = true,
        .page_size = m->config->hugepages ? 2 * MIB : 4 * KIB,
    };
    return dev_new(&m->env, row->cls, row->id, &p, &m->balloon, err);
}

/* ---- The table ---- */

#define DEVICE(stem, id, builder) extern const struct dev_class stem##_class;
#include "vmm/devices.def"
#undef DEVICE

static const struct machine_row machine_rows[] = {
#define DEVICE(stem, id, builder) { &stem##_class, id, builder },
#include "vmm/devices.def"
#undef DEVICE
};

int machine_add_devices(struct machine *m, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(machine_rows); i++) {
        int rc = machine_rows[i].build(m, &machine_rows[i], err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* In reverse: a device may use one that was built before it. Then the back ends. */
void machine_free_devices(struct machine *m)
{
    struct dev *dev;
    while ((dev = TAILQ_LAST(&m->env.devs, dev_list)) != NULL) {
        dev_free(dev);
    }
    prompt_free(m->prompt);
    for (unsigned i = 0; i < m->back.nchr; i++) {
        chr_close(m->back.chr[i]);
    }
    for (unsigned i = 0; i < m->back.nshare; i++) {
        helper_end(&m->back.share[i]);
    }
    for (unsigned i = 0; i < m->back.nnet; i++) {
        netbe_close(m->back.net[i]);
    }
    for (unsigned i = 0; i < m->back.nblk; i++) {
        blk_close(m->back.blk[i]);
    }
}
