/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The console device. Queues: 0 and 1 receive and transmit of port 0, 2 and 3 control, then a pair
 * a port (virtio 1.2 §5.3.2). One port without a name goes without the multiport feature.
 *
 *   chr -> port->in (a few KiB) -> receive buffers        room for the chr = what is free in `in`
 *   transmit chain -> chr_write(); what it does not take waits in port->tx until `writable`
 *   control to the driver: a set of events a port is due, sent in order as buffers come; so the
 *   driver cannot make us keep more than a word a port
 *
 * QUIRK: a resize message has columns first (§5.3.6.2); Linux before its commit 5326ab737a47 takes
 * rows first. Without multiport the size is in the configuration, where all agree.
 */
#include "vmm/virtio/virtio_console.h"

#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "spec/virtio_console_defs.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio.h"

#define VIRTIO_CONSOLE_QUEUE_SIZE 128
#define VIRTIO_CONSOLE_CLASS      0x078000 /* communication controller, other */
#define VIRTIO_CONSOLE_IN         4096
#define VIRTIO_CONSOLE_CHUNK      4096
#define VIRTIO_CONSOLE_TURN       256       /* chains of one turn */
#define VIRTIO_CONSOLE_TURN_BYTES (1 * MIB) /* copied to the chr in one turn */
#define VIRTIO_CONSOLE_CTRL_RX    2
#define VIRTIO_CONSOLE_CTRL_TX    3

/* Events due to the driver, in the order of sending. */
static const uint16_t virtio_console_order[] = {
    VIRTIO_CONSOLE_DEVICE_ADD, VIRTIO_CONSOLE_CONSOLE_PORT, VIRTIO_CONSOLE_PORT_NAME,
    VIRTIO_CONSOLE_RESIZE,     VIRTIO_CONSOLE_PORT_OPEN,
};

struct virtio_console_port {
    struct virtio_console *con;
    unsigned index;
    struct chr *chr;
    bool console;
    char name[VIRTIO_CONSOLE_NAME_MAX];
    uint16_t cols, rows; /* 0: not known */
    bool ready;          /* the driver has it */
    bool guest_open;
    bool host_open;
    uint32_t due;          /* bit n: event n is to be sent */
    struct virtq_elem *tx; /* a chain that the chr has not taken whole */
    uint64_t tx_done;
    size_t in_len;
    uint8_t in[VIRTIO_CONSOLE_IN];
};

struct virtio_console {
    struct virtio_dev vdev;
    struct dev *dev;
    unsigned nports;
    struct loop_timer turn;
    struct virtio_console_port port[VIRTIO_CONSOLE_MAX_PORTS];
};

static bool virtio_console_running(const struct virtio_console *con)
{
    return con->vdev.live && !con->vdev.stopped;
}

static bool virtio_console_multiport(const struct virtio_console *con)
{
    return virtio_has(&con->vdev, VIRTIO_CONSOLE_F_MULTIPORT);
}

static struct virtq *virtio_console_rxq(struct virtio_console_port *port)
{
    return &port->con->vdev.queue[port->index == 0 ? 0 : 2 + 2 * port->index];
}

static struct virtq *virtio_console_txq(struct virtio_console_port *port)
{
    return virtio_console_rxq(port) + 1;
}

/* Tells the chr what fits. A channel that nobody in the guest has open takes nothing; a terminal
 * takes what is typed ahead. */
static void virtio_console_room(struct virtio_console_port *port)
{
    if (port->chr != NULL) {
        bool takes = port->console || port->guest_open;
        chr_set_ready(port->chr, takes ? sizeof(port->in) - port->in_len : 0);
    }
}

static void virtio_console_rx(struct virtio_console_port *port)
{
    struct virtq *vq = virtio_console_rxq(port);
    struct virtq_elem *e = NULL;
    if (!virtio_console_running(port->con) || !vq->ready) {
        return;
    }
    for (unsigned i = 0; i < VIRTIO_CONSOLE_TURN && port->in_len > 0; i++) {
        int rc = virtq_pop(vq, &e);
        if (rc == 0 && virtq_set_kicks(vq, true)) {
            continue;
        }
        if (rc <= 0) {
            break;
        }
        size_t n = virtq_in_copy(e, 0, port->in, port->in_len);
        virtq_push(vq, e, (uint32_t)n);
        port->in_len -= n;
        memmove(port->in, port->in + n, port->in_len);
    }
    virtq_flush(vq);
    virtio_console_room(port);
}

/* Gives the chr the rest of a chain. True = all of it is taken. */
static bool virtio_console_put(struct virtio_console_port *port, size_t *budget)
{
    uint8_t buf[VIRTIO_CONSOLE_CHUNK];
    while (*budget > 0 && port->chr != NULL) {
        size_t n = virtq_out_copy(port->tx, port->tx_done, buf, MIN(sizeof(buf), *budget));
        if (n == 0) {
            return true;
        }
        size_t taken = chr_write(port->chr, buf, n);
        port->tx_done += taken;
        *budget -= taken;
        if (taken < n) {
            return false;
        }
    }
    return port->chr == NULL;
}

static void virtio_console_tx(struct virtio_console_port *port)
{
    struct virtq *vq = virtio_console_txq(port);
    size_t budget = VIRTIO_CONSOLE_TURN_BYTES;
    unsigned i;
    if (!virtio_console_running(port->con) || !vq->ready) {
        return;
    }
    for (i = 0; i < VIRTIO_CONSOLE_TURN; i++) {
        if (port->tx == NULL) {
            port->tx_done = 0;
            if (virtq_pop(vq, &port->tx) <= 0) {
                port->tx = NULL;
                break;
            }
        }
        if (!virtio_console_put(port, &budget)) {
            break;
        }
        virtq_push(vq, take_ptr(&port->tx), 0);
    }
    virtq_flush(vq);
    if (i == VIRTIO_CONSOLE_TURN || budget == 0) {
        loop_timer_set(&port->con->turn, loop_now_ns());
    }
}

/* The message for `event` into buf; returns its length. */
static size_t virtio_console_message(const struct virtio_console_port *port, uint16_t event,
                                     uint8_t *buf)
{
    size_t len = sizeof(struct virtio_console_control);
    uint16_t value = 1;
    if (event == VIRTIO_CONSOLE_PORT_OPEN) {
        value = port->console || port->host_open;
    } else if (event == VIRTIO_CONSOLE_RESIZE) {
        le16_put(buf + len, port->cols);
        le16_put(buf + len + 2, port->rows);
        len += sizeof(struct virtio_console_resize);
    } else if (event == VIRTIO_CONSOLE_PORT_NAME) {
        memcpy(buf + len, port->name, strlen(port->name));
        len += strlen(port->name);
    }
    le32_put(buf + offsetof(struct virtio_console_control, id), port->index);
    le16_put(buf + offsetof(struct virtio_console_control, event), event);
    le16_put(buf + offsetof(struct virtio_console_control, value), value);
    return len;
}

/* Sends one event. False = the driver has given no buffer for it. */
static bool virtio_console_tell(struct virtio_console_port *port, uint16_t event)
{
    struct virtq *vq = &port->con->vdev.queue[VIRTIO_CONSOLE_CTRL_RX];
    uint8_t buf[sizeof(struct virtio_console_control) + VIRTIO_CONSOLE_NAME_MAX];
    struct virtq_elem *e = NULL;
    int rc = virtq_pop(vq, &e);
    if (rc == 0 && virtq_set_kicks(vq, true)) {
        rc = virtq_pop(vq, &e);
    }
    if (rc <= 0) {
        return false;
    }
    size_t len = virtio_console_message(port, event, buf);
    if (e->in_len < len) {
        dev_guest_bug(port->con->dev, "control buffer of %llu bytes",
                      (unsigned long long)e->in_len);
    }
    virtq_push(vq, e, (uint32_t)virtq_in_copy(e, 0, buf, len));
    port->due &= ~BIT(event);
    return true;
}

static void virtio_console_send_control(struct virtio_console *con)
{
    struct virtq *vq = &con->vdev.queue[VIRTIO_CONSOLE_CTRL_RX];
    if (!virtio_console_running(con) || !virtio_console_multiport(con) || !vq->ready) {
        return;
    }
    bool more = true;
    for (unsigned i = 0; i < con->nports && more; i++) {
        for (size_t k = 0; k < ARRAY_LEN(virtio_console_order) && more; k++) {
            uint16_t event = virtio_console_order[k];
            if ((con->port[i].due & BIT(event)) != 0) {
                more = virtio_console_tell(&con->port[i], event);
            }
        }
    }
    virtq_flush(vq);
}

/* What a driver that has just taken a port wants to know. */
static void virtio_console_introduce(struct virtio_console_port *port)
{
    port->ready = true;
    port->due |= BIT(VIRTIO_CONSOLE_PORT_OPEN);
    port->due |= port->console ? BIT(VIRTIO_CONSOLE_CONSOLE_PORT) : 0;
    port->due |= port->name[0] != '\0' ? BIT(VIRTIO_CONSOLE_PORT_NAME) : 0;
    port->due |= port->console && port->cols != 0 ? BIT(VIRTIO_CONSOLE_RESIZE) : 0;
}

static void virtio_console_heard(struct virtio_console *con, const uint8_t *msg)
{
    uint32_t id = le32_get(msg + offsetof(struct virtio_console_control, id));
    uint16_t event = le16_get(msg + offsetof(struct virtio_console_control, event));
    bool on = le16_get(msg + offsetof(struct virtio_console_control, value)) == 1;
    if (event == VIRTIO_CONSOLE_DEVICE_READY) {
        for (unsigned i = 0; i < con->nports && on; i++) {
            con->port[i].due |= BIT(VIRTIO_CONSOLE_DEVICE_ADD);
        }
        return;
    }
    if (id >= con->nports ||
        (event != VIRTIO_CONSOLE_PORT_READY && event != VIRTIO_CONSOLE_PORT_OPEN)) {
        dev_guest_bug(con->dev, "control event %u for port %u", event, id);
        return;
    }
    struct virtio_console_port *port = &con->port[id];
    if (event == VIRTIO_CONSOLE_PORT_OPEN) {
        port->guest_open = on;
        if (!on && !port->console) {
            port->in_len = 0; /* was for whoever had it open */
        }
        virtio_console_room(port);
    } else if (on) {
        virtio_console_introduce(port);
    } else {
        port->ready = false; /* the driver could not set it up (§5.3.6.2) */
    }
}

static void virtio_console_control(struct virtio_console *con, struct virtq *vq)
{
    struct virtq_elem *e = NULL;
    unsigned i;
    for (i = 0; i < VIRTIO_CONSOLE_TURN && virtq_pop(vq, &e) > 0; i++) {
        uint8_t msg[sizeof(struct virtio_console_control)];
        if (virtq_out_copy(e, 0, msg, sizeof(msg)) == sizeof(msg)) {
            virtio_console_heard(con, msg);
        } else {
            dev_guest_bug(con->dev, "control message of %llu bytes",
                          (unsigned long long)e->out_len);
        }
        virtq_push(vq, e, 0);
    }
    virtq_flush(vq);
    if (i == VIRTIO_CONSOLE_TURN) {
        loop_timer_set(&con->turn, loop_now_ns());
    }
    virtio_console_send_control(con);
}

static void virtio_console_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_console *con = container_of(vdev, struct virtio_console, vdev);
    if (vq->index > 1 && !virtio_console_multiport(con)) {
        return;
    }
    if (vq->index == VIRTIO_CONSOLE_CTRL_RX) {
        virtio_console_send_control(con);
    } else if (vq->index == VIRTIO_CONSOLE_CTRL_TX) {
        virtio_console_control(con, vq);
    } else {
        struct virtio_console_port *port = &con->port[vq->index < 2 ? 0 : vq->index / 2 - 1];
        if (vq->index % 2 == 0) {
            virtio_console_rx(port);
        } else {
            virtio_console_tx(port);
        }
    }
}

static void virtio_console_on_turn(void *opaque)
{
    struct virtio_console *con = opaque;
    dev_lock(con->dev);
    for (unsigned i = 0; i < con->vdev.nqueues && virtio_console_running(con); i++) {
        if (con->vdev.queue[i].ready) {
            virtio_console_notify(&con->vdev, &con->vdev.queue[i]);
        }
    }
    dev_unlock(con->dev);
}

static void virtio_console_on_input(void *opaque, const uint8_t *buf, size_t len)
{
    struct virtio_console_port *port = opaque;
    dev_lock(port->con->dev);
    size_t n = MIN(len, sizeof(port->in) - port->in_len);
    memcpy(port->in + port->in_len, buf, n);
    port->in_len += n;
    virtio_console_room(port);
    virtio_console_rx(port);
    dev_unlock(port->con->dev);
}

static void virtio_console_on_writable(void *opaque)
{
    struct virtio_console_port *port = opaque;
    dev_lock(port->con->dev);
    virtio_console_tx(port);
    dev_unlock(port->con->dev);
}

static void virtio_console_on_opened(void *opaque, bool open)
{
    struct virtio_console_port *port = opaque;
    dev_lock(port->con->dev);
    port->host_open = open;
    if (port->ready) {
        port->due |= BIT(VIRTIO_CONSOLE_PORT_OPEN);
        virtio_console_send_control(port->con);
    }
    dev_unlock(port->con->dev);
}

static void virtio_console_set_size(struct virtio_console_port *port, uint16_t cols, uint16_t rows)
{
    struct virtio_console *con = port->con;
    port->cols = cols;
    port->rows = rows;
    if (port->index == 0) {
        le16_put(con->vdev.config + VIRTIO_CONSOLE_CFG_COLS, cols);
        le16_put(con->vdev.config + VIRTIO_CONSOLE_CFG_ROWS, rows);
        virtio_config_changed(&con->vdev);
    }
    if (port->ready && port->console) {
        port->due |= BIT(VIRTIO_CONSOLE_RESIZE);
        virtio_console_send_control(con);
    }
}

static void virtio_console_on_resized(void *opaque, uint16_t cols, uint16_t rows)
{
    struct virtio_console_port *port = opaque;
    dev_lock(port->con->dev);
    virtio_console_set_size(port, cols, rows);
    dev_unlock(port->con->dev);
}

void virtio_console_resize(struct dev *dev, unsigned port, uint16_t cols, uint16_t rows)
{
    struct virtio_console *con = dev->state;
    if (port < con->nports) {
        virtio_console_on_resized(&con->port[port], cols, rows);
    }
}

static void virtio_console_drop(struct virtio_console *con)
{
    for (unsigned i = 0; i < con->nports; i++) {
        virtq_elem_free(take_ptr(&con->port[i].tx));
    }
}

static void virtio_console_type_reset(struct virtio_dev *vdev)
{
    struct virtio_console *con = container_of(vdev, struct virtio_console, vdev);
    virtio_console_drop(con);
    for (unsigned i = 0; i < con->nports; i++) {
        struct virtio_console_port *port = &con->port[i];
        port->ready = false;
        port->guest_open = false;
        port->due = 0;
        port->in_len = 0;
        virtio_console_room(port);
    }
}

static const struct virtio_type virtio_console_type = {
    .name = "console",
    .device_id = VIRTIO_ID_CONSOLE,
    .pci_class_code = VIRTIO_CONSOLE_CLASS,
    .features = BIT64(VIRTIO_CONSOLE_F_SIZE) | BIT64(VIRTIO_CONSOLE_F_MULTIPORT),
    .config_size = VIRTIO_CONSOLE_CFG_SIZE,
    .notify = virtio_console_notify,
    .reset = virtio_console_type_reset,
};

static int virtio_console_init_port(struct virtio_console *con, unsigned index,
                                    const struct virtio_console_port_params *p, struct err *err)
{
    struct virtio_console_port *port = &con->port[index];
    const char *name = p->name != NULL ? p->name : "";
    if (strlen(name) >= sizeof(port->name)) {
        return err_set(err, -EINVAL, "port name '%s' has %zu bytes; allowed are up to %zu", name,
                       strlen(name), sizeof(port->name) - 1);
    }
    port->con = con;
    port->index = index;
    port->chr = p->chr;
    port->console = p->console || index == 0;
    (void)snprintf(port->name, sizeof(port->name), "%s", name);
    return 0;
}

static void virtio_console_attach(struct virtio_console_port *port)
{
    const struct chr_front front = {
        .input = virtio_console_on_input,
        .writable = virtio_console_on_writable,
        .opened = virtio_console_on_opened,
        .resized = virtio_console_on_resized,
        .opaque = port,
    };
    if (port->chr == NULL) {
        return;
    }
    chr_attach(port->chr, &front);
    port->host_open = chr_is_open(port->chr);
    uint16_t cols;
    uint16_t rows;
    if (port->console && chr_size(port->chr, &cols, &rows)) {
        virtio_console_set_size(port, cols, rows);
    }
    virtio_console_room(port);
}

static int virtio_console_init(struct dev *dev, const void *params, struct err *err)
{
    struct virtio_console *con = dev->state;
    const struct virtio_console_params *p = params;
    if (p->nports < 1 || p->nports > VIRTIO_CONSOLE_MAX_PORTS) {
        return err_set(err, -EINVAL, "%u ports; allowed are 1 to %d", p->nports,
                       VIRTIO_CONSOLE_MAX_PORTS);
    }
    con->dev = dev;
    con->nports = p->nports;
    loop_timer_init(&con->turn, dev->env->loop, virtio_console_on_turn, con);
    for (unsigned i = 0; i < p->nports; i++) {
        int rc = virtio_console_init_port(con, i, &p->port[i], err);
        if (rc < 0) {
            return rc;
        }
    }
    bool multi = p->nports > 1 || con->port[0].name[0] != '\0';
    uint64_t features = BIT64(VIRTIO_CONSOLE_F_SIZE);
    features |= multi ? BIT64(VIRTIO_CONSOLE_F_MULTIPORT) : 0;
    int rc = virtio_dev_init(&con->vdev, dev, &virtio_console_type, multi ? 2 + 2 * p->nports : 2,
                             VIRTIO_CONSOLE_QUEUE_SIZE, features, err);
    if (rc < 0) {
        return rc;
    }
    le32_put(con->vdev.config + VIRTIO_CONSOLE_CFG_MAX_PORTS, p->nports);
    for (unsigned i = 0; i < p->nports; i++) {
        virtio_console_attach(&con->port[i]);
    }
    return 0;
}

static void virtio_console_done(struct dev *dev)
{
    struct virtio_console *con = dev->state;
    loop_timer_cancel(&con->turn);
    for (unsigned i = 0; i < con->nports; i++) {
        if (con->port[i].chr != NULL) {
            chr_attach(con->port[i].chr, NULL);
        }
    }
    virtio_console_drop(con);
    virtio_dev_done(&con->vdev);
}

static void virtio_console_reset(struct dev *dev)
{
    virtio_dev_reset(&((struct virtio_console *)dev->state)->vdev);
}

static void virtio_console_stop(struct dev *dev)
{
    virtio_dev_stop(&((struct virtio_console *)dev->state)->vdev);
}

static void virtio_console_start(struct dev *dev)
{
    virtio_dev_start(&((struct virtio_console *)dev->state)->vdev);
}

const struct dev_class virtio_console_class = {
    .name = "virtio-console",
    .help = "terminals and byte channels",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct virtio_console),
    .init = virtio_console_init,
    .done = virtio_console_done,
    .reset = virtio_console_reset,
    .stop = virtio_console_stop,
    .start = virtio_console_start,
};
