/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The requests of the control socket, answered from a machine. Main thread. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/dev/pm.h"
#include "vmm/machine_int.h"
#include "vmm/virtio/virtio_balloon.h"
#include "vmm/virtio/virtio_blk.h"
#include "vmm/virtio/virtio_net.h"
#include "vmm/virtio/virtio_rng.h"

static const char *machine_state_name(const struct machine *m)
{
    switch (m->state) {
    case MACHINE_RUNNING:
        return "running";
    case MACHINE_PAUSED:
        return "paused";
    case MACHINE_ENDED:
        break;
    }
    return "ended";
}

static void machine_ctl_reply(struct wire_msg *msg, int rc, const struct err *err)
{
    if (rc < 0) {
        ctl_error(msg, rc, err->msg);
    } else {
        msg->type = WIRE_OK;
    }
}

static void machine_ctl_status(struct machine *m, struct wire_msg *msg)
{
    struct wire_status_reply *r = &msg->status_reply;
    msg->type = WIRE_STATUS_REPLY;
    *r = (struct wire_status_reply){
        .pid = (uint32_t)getpid(),
        .vcpus = vcpu_set_count(m->vcpus),
        .memory_bytes = m->layout.ram_size,
        .uptime_ms = machine_uptime_ms(m),
        .resets = m->resets,
    };
    (void)snprintf(r->name, sizeof(r->name), "%s", m->config->name);
    (void)snprintf(r->state, sizeof(r->state), "%s", machine_state_name(m));
    (void)snprintf(r->reason, sizeof(r->reason), "%s", m->pause_reason);
    (void)snprintf(r->engine, sizeof(r->engine), "%s", m->engine.hv->name);
    (void)snprintf(r->console, sizeof(r->console), "%s", m->console_name);
}

static void machine_ctl_pause(struct machine *m, struct wire_msg *msg)
{
    struct err err = ERR_INIT;
    machine_ctl_reply(msg, machine_pause(m, "by request", &err), &err);
}

static void machine_ctl_resume(struct machine *m, struct wire_msg *msg)
{
    struct err err = ERR_INIT;
    machine_ctl_reply(msg, machine_resume(m, &err), &err);
}

static void machine_ctl_powerdown(struct machine *m, struct wire_msg *msg)
{
    struct err err = ERR_INIT;
    machine_ctl_reply(msg, machine_powerdown(m, &err), &err);
}

static void machine_ctl_reset(struct machine *m, struct wire_msg *msg)
{
    machine_notify(m, MACHINE_CAUSE_RESET, 0, -1, "by request");
    msg->type = WIRE_OK;
}

static void machine_ctl_quit(struct machine *m, struct wire_msg *msg)
{
    machine_notify(m, MACHINE_CAUSE_QUIT, 0, -1, "by request");
    msg->type = WIRE_OK;
}

static void machine_ctl_balloon(struct machine *m, struct wire_msg *msg)
{
    struct err err = ERR_INIT;
    uint64_t keep = msg->balloon.memory_bytes;
    int rc;
    if (m->balloon == NULL) {
        rc = err_set(&err, -ENODEV, "this VM has no balloon (start it with --balloon)");
    } else if (keep == 0 || keep > m->layout.ram_size) {
        rc = err_set(&err, -ERANGE, "%" PRIu64 " bytes cannot be left to the guest: 1 to %" PRIu64,
                     keep, m->layout.ram_size);
    } else {
        rc = virtio_balloon_set_target(m->balloon, m->layout.ram_size - keep, &err);
    }
    machine_ctl_reply(msg, rc, &err);
}

/* ---- Statistics ---- */

static void machine_stat(struct wire_stats_reply *r, uint64_t value, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

static void machine_stat(struct wire_stats_reply *r, uint64_t value, const char *fmt, ...)
{
    if (r->value_count == ARRAY_LEN(r->value)) {
        return;
    }
    struct wire_pair *p = &r->value[r->value_count++];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(p->name, sizeof(p->name), fmt, ap);
    va_end(ap);
    p->value = value;
}

static void machine_stat_blk(struct wire_stats_reply *r, struct dev *dev)
{
    struct virtio_blk_stats s;
    virtio_blk_get_stats(dev, &s);
    machine_stat(r, s.read_ops, "%s.read_ops", dev->id);
    machine_stat(r, s.read_bytes, "%s.read_bytes", dev->id);
    machine_stat(r, s.write_ops, "%s.write_ops", dev->id);
    machine_stat(r, s.write_bytes, "%s.write_bytes", dev->id);
    machine_stat(r, s.flush_ops, "%s.flush_ops", dev->id);
    machine_stat(r, s.discard_ops, "%s.discard_ops", dev->id);
    machine_stat(r, s.read_errors, "%s.read_errors", dev->id);
    machine_stat(r, s.write_errors, "%s.write_errors", dev->id);
    machine_stat(r, s.held, "%s.held", dev->id);
    machine_stat(r, s.inflight, "%s.inflight", dev->id);
}

static void machine_stat_net(struct wire_stats_reply *r, struct dev *dev)
{
    struct virtio_net_stats s;
    virtio_net_get_stats(dev, &s);
    machine_stat(r, s.rx_frames, "%s.rx_frames", dev->id);
    machine_stat(r, s.rx_bytes, "%s.rx_bytes", dev->id);
    machine_stat(r, s.rx_dropped, "%s.rx_dropped", dev->id);
    machine_stat(r, s.tx_frames, "%s.tx_frames", dev->id);
    machine_stat(r, s.tx_bytes, "%s.tx_bytes", dev->id);
    machine_stat(r, s.tx_dropped, "%s.tx_dropped", dev->id);
}

static void machine_stat_balloon(struct wire_stats_reply *r, struct dev *dev)
{
    static const char *const names[VIRTIO_BALLOON_STATS] = {
        [VIRTIO_BALLOON_STAT_SWAP_IN] = "swap_in",
        [VIRTIO_BALLOON_STAT_SWAP_OUT] = "swap_out",
        [VIRTIO_BALLOON_STAT_MAJOR_FAULTS] = "major_faults",
        [VIRTIO_BALLOON_STAT_MINOR_FAULTS] = "minor_faults",
        [VIRTIO_BALLOON_STAT_FREE] = "free_bytes",
        [VIRTIO_BALLOON_STAT_TOTAL] = "total_bytes",
        [VIRTIO_BALLOON_STAT_AVAILABLE] = "available_bytes",
        [VIRTIO_BALLOON_STAT_CACHES] = "caches_bytes",
        [VIRTIO_BALLOON_STAT_HTLB_ALLOC] = "htlb_alloc",
        [VIRTIO_BALLOON_STAT_HTLB_FAIL] = "htlb_fail",
    };
    struct virtio_balloon_info info;
    virtio_balloon_get_info(dev, &info);
    machine_stat(r, info.target, "%s.target_bytes", dev->id);
    machine_stat(r, info.actual, "%s.actual_bytes", dev->id);
    machine_stat(r, info.discarded, "%s.discarded_bytes", dev->id);
    for (unsigned i = 0; i < VIRTIO_BALLOON_STATS; i++) {
        if ((info.valid & BIT(i)) != 0) {
            machine_stat(r, info.stat[i], "%s.guest.%s", dev->id, names[i]);
        }
    }
}

/* The engine's own figures: sums over the vCPUs, which number up to VMCONFIG_MAX_CPUS. */
static void machine_stat_engine(struct wire_stats_reply *r, const struct machine *m)
{
    struct hv_counter sum[HV_COUNTERS];
    unsigned n = vcpu_set_counters(m->vcpus, 0, sum, HV_COUNTERS);
    for (unsigned i = 1; i < vcpu_set_count(m->vcpus); i++) {
        struct hv_counter c[HV_COUNTERS];
        n = MIN(n, vcpu_set_counters(m->vcpus, i, c, HV_COUNTERS));
        for (unsigned k = 0; k < n; k++) {
            sum[k].value += c[k].value;
        }
    }
    for (unsigned k = 0; k < n; k++) {
        machine_stat(r, sum[k].value, "jit.%s", sum[k].name);
    }
}

static void machine_ctl_stats(struct machine *m, struct wire_msg *msg)
{
    struct wire_stats_reply *r = &msg->stats_reply;
    msg->type = WIRE_STATS_REPLY;
    r->value_count = 0;
    machine_stat(r, machine_uptime_ms(m), "uptime_ms");
    machine_stat(r, m->resets, "resets");
    for (unsigned i = 0; i < vcpu_set_count(m->vcpus); i++) {
        struct vcpu_stats s = vcpu_set_stats(m->vcpus, i);
        machine_stat(r, s.exits, "vcpu%u.exits", i);
        machine_stat(r, s.io, "vcpu%u.io_exits", i);
        machine_stat(r, s.mmio, "vcpu%u.mmio_exits", i);
    }
    machine_stat_engine(r, m);
    struct dev *dev;
    TAILQ_FOREACH(dev, &m->env.devs, link)
    {
        if (dev->cls == &virtio_net_class) {
            machine_stat_net(r, dev);
        } else if (dev->cls == &virtio_balloon_class) {
            machine_stat_balloon(r, dev);
        } else if (dev->cls == &virtio_blk_class) {
            machine_stat_blk(r, dev);
        } else if (dev->cls == &virtio_rng_class) {
            machine_stat(r, virtio_rng_served(dev), "%s.served_bytes", dev->id);
        }
        if (dev->guest_bugs != 0) {
            machine_stat(r, dev->guest_bugs, "%s.guest_errors", dev->id);
        }
    }
}

/* ---- Registers ---- */

static void machine_ctl_registers(struct machine *m, struct wire_msg *msg)
{
    uint32_t index = msg->registers.vcpu;
    if (index >= vcpu_set_count(m->vcpus)) {
        char text[64];
        (void)snprintf(text, sizeof(text), "there is no vCPU %u: 0 to %u", index,
                       vcpu_set_count(m->vcpus) - 1);
        ctl_error(msg, -ERANGE, text);
        return;
    }
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        ctl_error(msg, -ENOMEM, "out of memory");
        return;
    }
    vcpu_set_park(m->vcpus);
    vcpu_set_wait_parked(m->vcpus);
    vcpu_set_print(m->vcpus, index, out);
    if (m->state == MACHINE_RUNNING) {
        machine_unpark(m);
    }
    (void)fclose(out);
    msg->type = WIRE_TEXT_REPLY;
    (void)snprintf(msg->text_reply.text, sizeof(msg->text_reply.text), "%s",
                   text != NULL ? text : "");
    free(text);
}

/* ---- The table ---- */

static const struct {
    uint16_t type;
    void (*fn)(struct machine *m, struct wire_msg *msg);
} machine_ctl_requests[] = {
    {WIRE_STATUS,     machine_ctl_status   },
    { WIRE_PAUSE,     machine_ctl_pause    },
    { WIRE_RESUME,    machine_ctl_resume   },
    { WIRE_POWERDOWN, machine_ctl_powerdown},
    { WIRE_RESET,     machine_ctl_reset    },
    { WIRE_QUIT,      machine_ctl_quit     },
    { WIRE_BALLOON,   machine_ctl_balloon  },
    { WIRE_STATS,     machine_ctl_stats    },
    { WIRE_REGISTERS, machine_ctl_registers},
};

void machine_ctl(void *opaque, struct wire_msg *msg)
{
    for (size_t i = 0; i < ARRAY_LEN(machine_ctl_requests); i++) {
        if (machine_ctl_requests[i].type == msg->type) {
            machine_ctl_requests[i].fn(opaque, msg);
            return;
        }
    }
    ctl_error(msg, -ENOSYS, "that is no request");
}
