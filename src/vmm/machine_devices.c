/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the configuration to the devices: the builders of devices.def. What their devices stand on
 * is open by then, in m->back (machine_backs.c).
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "vmm/dev/debugcon.h"
#include "vmm/dev/fwcfg.h"
#include "vmm/dev/lpc.h"
#include "vmm/dev/pm.h"
#include "vmm/dev/rtc.h"
#include "vmm/dev/serial.h"
#include "vmm/dev/vmgenid.h"
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

static int machine_add_serial(struct machine *m, const struct machine_row *row, struct err *err)
{
    struct serial_params p = { .port = LAYOUT_PORT_SERIAL0, .irq = LAYOUT_GSI_SERIAL0 };
    p.chr = m->back.chr[MACHINE_CHR_CONSOLE];
    m->console_name = chr_name(p.chr);
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

static int machine_add_hvc(struct machine *m, const struct machine_row *row, struct err *err)
{
    if (m->config->hvc == NULL) {
        return 0;
    }
    struct virtio_console_port_params port = { .console = true,
                                               .chr = m->back.chr[MACHINE_CHR_HVC] };
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
    (void)snprintf(path, sizeof(path), "%s", m->vsock_path);
    /* The jail has made its folder the current one. */
    struct virtio_vsock_params p = { .cid = m->config->vsock,
                                     .path = machine_jailed(m) ? basename(path) : path,
                                     .take_listen = &m->back.vsock };
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

/* ---- Disks ---- */

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
        p.blk = m->back.blk[i];
        p.worker_init = machine_worker_init;
        p.worker_opaque = m;
        struct dev *dev;
        int rc = dev_new(&m->env, row->cls, id, &p, &dev, err);
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
    p.chr = m->back.chr[MACHINE_CHR_DEBUGCON];
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, &p, &dev, err);
}

/* ---- Networks ---- */

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
        p.be = m->back.net[i];
        struct dev *dev;
        int rc = dev_new(&m->env, row->cls, id, &p, &dev, err);
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
        struct dev *dev;
        char id[32];
        (void)snprintf(id, sizeof(id), "%s%u", row->id, i);
        struct virtio_fs_params p = { .tag = shares[i].tag, .fd = m->back.share[i].fd };
        int rc = dev_new(&m->env, row->cls, id, &p, &dev, err);
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

/* In reverse: a device may use one that was built before it. Then what they stand on. */
void machine_free_devices(struct machine *m)
{
    struct dev *dev;
    while ((dev = TAILQ_LAST(&m->env.devs, dev_list)) != NULL) {
        dev_free(dev);
    }
    machine_close_backs(m);
}
