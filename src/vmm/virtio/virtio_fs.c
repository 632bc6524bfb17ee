/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File system device (virtio 1.2 §5.11): carries FUSE requests from the guest to the server, a
 * process of its own, and the answers back. It looks into neither.
 *
 *   queue -> chain -> packet -> server            a chain with room for an answer takes a slot
 *   server -> packet -> slot -> chain -> queue    and is given back with it
 *
 * A chain without that room (FORGET) is given back once it is sent. When the socket is full the
 * queues rest until it takes more. When the server is gone each request is answered by ENOTCONN.
 * After a reset late answers find no slot with their number and are dropped; the server forgets the
 * old guest when the new one says INIT.
 */
#include "vmm/virtio/virtio_fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <sys/socket.h>

#include "spec/virtio_defs.h"
#include "spec/virtio_fs_defs.h"
#include "vmm/fs/share_wire.h"
#include "vmm/virtio/virtio.h"

#define VIRTIO_FS_QUEUES     2
#define VIRTIO_FS_QUEUE_SIZE 128
#define VIRTIO_FS_SLOTS      32 /* at the server at the same time; it takes one after the other */
#define VIRTIO_FS_BATCH      64 /* packets of one turn of the loop, each way */
#define VIRTIO_FS_CLASS      0x018000 /* mass storage, other */

struct virtio_fs_slot {
    struct virtq_elem *elem; /* NULL: free */
    uint32_t number;         /* in the packet: never used twice in a row */
};

struct virtio_fs {
    struct virtio_dev vdev;
    struct dev *dev;
    int fd;
    struct loop_fd *w; /* NULL while stopped, and when the server is gone */
    struct loop_timer turn;
    bool blocked; /* the socket is full */
    bool gone;    /* the server has ended */
    uint64_t served;
    struct virtio_fs_slot slot[VIRTIO_FS_SLOTS];
    uint8_t buf[SHARE_WIRE_MAX];
};

static struct virtio_fs_slot *virtio_fs_free_slot(struct virtio_fs *fs)
{
    for (unsigned i = 0; i < VIRTIO_FS_SLOTS; i++) {
        if (fs->slot[i].elem == NULL) {
            return &fs->slot[i];
        }
    }
    return NULL;
}

/* An answer that says ENOTCONN, in place of the server's. */
static void virtio_fs_refuse(struct virtio_fs *fs, struct virtq_elem *take_elem)
{
    struct fuse_in_header in = { 0 };
    struct fuse_out_header out = { .len = sizeof(out), .error = -ENOTCONN };
    size_t n = 0;
    if (virtq_out_copy(take_elem, 0, &in, sizeof(in)) == sizeof(in) &&
        take_elem->in_len >= sizeof(out)) {
        out.unique = in.unique;
        n = virtq_in_copy(take_elem, 0, &out, sizeof(out));
    }
    fs->served++;
    virtq_push(take_elem->vq, take_elem, (uint32_t)n);
}

/* 0: it is on its way or given back; -EAGAIN: the socket is full, the element is still ours. */
static int virtio_fs_send(struct virtio_fs *fs, struct virtio_fs_slot *slot, struct virtq_elem *e)
{
    struct share_wire_head head = {
        .slot = slot->number,
        .room = (uint32_t)MIN(e->in_len, (uint64_t)SHARE_MAX_MESSAGE),
    };
    if (e->out_len < sizeof(struct fuse_in_header) || e->out_len > SHARE_MAX_MESSAGE) {
        dev_guest_bug(fs->dev, "request of %llu bytes", (unsigned long long)e->out_len);
        virtq_push(e->vq, e, 0);
        return 0;
    }
    /* Copied, so that the server sees one version of it, whole. */
    memcpy(fs->buf, &head, sizeof(head));
    size_t len = virtq_out_copy(e, 0, fs->buf + sizeof(head), SHARE_MAX_MESSAGE);
    ssize_t n = send(fs->fd, fs->buf, sizeof(head) + len, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == EINTR)) {
        return -EAGAIN;
    }
    if (n < 0) {
        fs->gone = true;
        virtio_fs_refuse(fs, e);
    } else if (head.room == 0) {
        fs->served++;
        virtq_push(e->vq, e, 0);
    } else {
        slot->elem = e;
    }
    return 0;
}

static void virtio_fs_watch(struct virtio_fs *fs)
{
    if (fs->w != NULL) {
        loop_fd_set_events(fs->w, EPOLLIN | (fs->blocked ? (uint32_t)EPOLLOUT : 0));
    }
}

/* Takes what the queue has, as far as there are slots and room in the socket. */
static void virtio_fs_pump(struct virtio_fs *fs, struct virtq *vq)
{
    struct virtio_fs_slot *slot;
    struct virtq_elem *e = NULL;
    unsigned n = 0;
    for (; n < VIRTIO_FS_BATCH && !fs->blocked && vq->ready; n++) {
        slot = virtio_fs_free_slot(fs);
        if (slot == NULL || virtq_pop(vq, &e) <= 0) {
            break;
        }
        if (fs->gone) {
            virtio_fs_refuse(fs, e);
        } else if (virtio_fs_send(fs, slot, e) < 0) {
            virtq_unpop(vq, e);
            fs->blocked = true;
        }
    }
    virtq_flush(vq);
    if (n == VIRTIO_FS_BATCH) {
        virtio_notify_again(&fs->vdev, vq);
    }
}

static void virtio_fs_pump_all(struct virtio_fs *fs)
{
    for (unsigned i = 0; i < VIRTIO_FS_QUEUES && fs->vdev.live && !fs->vdev.stopped; i++) {
        virtio_fs_pump(fs, &fs->vdev.queue[i]);
    }
    virtio_fs_watch(fs);
}

static void virtio_fs_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_fs *fs = container_of(vdev, struct virtio_fs, vdev);
    virtio_fs_pump(fs, vq);
    virtio_fs_watch(fs);
}

static void virtio_fs_lost(struct virtio_fs *fs)
{
    log_warn(fs->dev->id, "the server of the shared folder has ended", "");
    fs->gone = true;
    fs->blocked = false;
    loop_fd_del(fs->w);
    fs->w = NULL;
    for (unsigned i = 0; i < VIRTIO_FS_SLOTS; i++) {
        if (fs->slot[i].elem != NULL) {
            virtio_fs_refuse(fs, fs->slot[i].elem);
            fs->slot[i].elem = NULL;
            fs->slot[i].number += VIRTIO_FS_SLOTS;
        }
    }
    for (unsigned i = 0; i < VIRTIO_FS_QUEUES; i++) {
        virtq_flush(&fs->vdev.queue[i]);
    }
}

/* One packet of the server's: an answer. False: there is none now. */
static bool virtio_fs_receive(struct virtio_fs *fs)
{
    struct share_wire_head head;
    ssize_t n = recv(fs->fd, fs->buf, sizeof(fs->buf), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (n < (ssize_t)sizeof(head)) {
        virtio_fs_lost(fs);
        return false;
    }
    memcpy(&head, fs->buf, sizeof(head));
    struct virtio_fs_slot *slot = &fs->slot[head.slot % VIRTIO_FS_SLOTS];
    if (slot->elem == NULL || slot->number != head.slot) {
        return true; /* of a guest before the reset */
    }
    struct virtq_elem *e = slot->elem;
    size_t len = virtq_in_copy(e, 0, fs->buf + sizeof(head), (size_t)n - sizeof(head));
    fs->served++;
    slot->elem = NULL;
    slot->number += VIRTIO_FS_SLOTS;
    virtq_push(e->vq, e, (uint32_t)len);
    return true;
}

static void virtio_fs_on_fd(void *opaque, uint32_t events)
{
    struct virtio_fs *fs = opaque;
    dev_lock(fs->dev);
    for (unsigned n = 0; n < VIRTIO_FS_BATCH && fs->w != NULL && virtio_fs_receive(fs); n++) {
    }
    for (unsigned i = 0; i < VIRTIO_FS_QUEUES; i++) {
        virtq_flush(&fs->vdev.queue[i]);
    }
    if ((events & EPOLLOUT) != 0) {
        fs->blocked = false;
    }
    virtio_fs_pump_all(fs);
    dev_unlock(fs->dev);
}

/* On the loop thread, after init and each start: the watch belongs to the loop. */
static void virtio_fs_on_turn(void *opaque)
{
    struct virtio_fs *fs = opaque;
    dev_lock(fs->dev);
    if (fs->w == NULL && !fs->gone && !fs->vdev.stopped) {
        fs->w = loop_fd_add(fs->dev->env->loop, fs->fd, EPOLLIN, virtio_fs_on_fd, fs);
        if (fs->w == NULL) {
            log_warn(fs->dev->id, "cannot watch the server", "errno='%d'", errno);
        }
    }
    virtio_fs_pump_all(fs);
    dev_unlock(fs->dev);
}

static void virtio_fs_drop(struct virtio_fs *fs)
{
    for (unsigned i = 0; i < VIRTIO_FS_SLOTS; i++) {
        if (fs->slot[i].elem != NULL) {
            virtq_elem_free(fs->slot[i].elem);
            fs->slot[i].elem = NULL;
            fs->slot[i].number += VIRTIO_FS_SLOTS;
        }
    }
}

static void virtio_fs_type_reset(struct virtio_dev *vdev)
{
    virtio_fs_drop(container_of(vdev, struct virtio_fs, vdev));
}

static const struct virtio_type virtio_fs_type = {
    .name = "fs",
    .device_id = VIRTIO_ID_FS,
    .pci_class_code = VIRTIO_FS_CLASS,
    .config_size = VIRTIO_FS_CFG_SIZE,
    .notify = virtio_fs_notify,
    .reset = virtio_fs_type_reset,
};

static int virtio_fs_init(struct dev *dev, const void *params, struct err *err)
{
    const struct virtio_fs_params *p = params;
    struct virtio_fs *fs = dev->state;
    size_t len = strlen(p->tag);
    if (len == 0 || len > VIRTIO_FS_TAG_LEN) {
        return err_set(err, -EINVAL, "tag '%s': give 1 to %d bytes", p->tag, VIRTIO_FS_TAG_LEN);
    }
    fs->dev = dev;
    fs->fd = p->fd;
    for (unsigned i = 0; i < VIRTIO_FS_SLOTS; i++) {
        fs->slot[i].number = i;
    }
    int rc = virtio_dev_init(&fs->vdev, dev, &virtio_fs_type, VIRTIO_FS_QUEUES,
                             VIRTIO_FS_QUEUE_SIZE, 0, err);
    if (rc < 0) {
        return rc;
    }
    memcpy(fs->vdev.config + VIRTIO_FS_CFG_TAG, p->tag, len);
    le32_put(fs->vdev.config + VIRTIO_FS_CFG_QUEUES, VIRTIO_FS_QUEUES - 1);
    loop_timer_init(&fs->turn, dev->env->loop, virtio_fs_on_turn, fs);
    loop_timer_set(&fs->turn, loop_now_ns());
    return 0;
}

static void virtio_fs_done(struct dev *dev)
{
    struct virtio_fs *fs = dev->state;
    loop_timer_cancel(&fs->turn);
    loop_fd_del(fs->w);
    virtio_fs_drop(fs);
    virtio_dev_done(&fs->vdev);
}

static void virtio_fs_dev_reset(struct dev *dev)
{
    virtio_dev_reset(&((struct virtio_fs *)dev->state)->vdev);
}

/* On the loop thread. Answers wait in the socket. */
static void virtio_fs_stop(struct dev *dev)
{
    struct virtio_fs *fs = dev->state;
    virtio_dev_stop(&fs->vdev);
    loop_fd_del(fs->w);
    fs->w = NULL;
}

static void virtio_fs_start(struct dev *dev)
{
    struct virtio_fs *fs = dev->state;
    fs->blocked = false;
    virtio_dev_start(&fs->vdev);
    loop_timer_set(&fs->turn, loop_now_ns());
}

uint64_t virtio_fs_served(struct dev *dev)
{
    struct virtio_fs *fs = dev->state;
    dev_lock(dev);
    uint64_t served = fs->served;
    dev_unlock(dev);
    return served;
}

const struct dev_class virtio_fs_class = {
    .name = "virtio-fs",
    .help = "shared folder",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct virtio_fs),
    .init = virtio_fs_init,
    .done = virtio_fs_done,
    .reset = virtio_fs_dev_reset,
    .stop = virtio_fs_stop,
    .start = virtio_fs_start,
};
