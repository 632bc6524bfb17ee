/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block device: from chains to requests of the block layer and back.
 *
 *   kick -> pop all -> [check] -> blk_queue_submit ... one blk_queue_kick -> flush used (refused)
 *   blk_queue readable -> reap -> done() per request -> status byte, push -> flush used per queue
 *
 *   a request:  popped -> submitted -> done -> pushed
 *                            ^          |-- ENOSPC: held until the VM is started again, then again
 *                            +----------+
 *                            |          |-- written, cache is write-through: submitted as a flush
 *
 * Invariants: each popped chain is in exactly one of: the block layer, the list `held`, pushed. It
 * is pushed once. After a reset its buffers are not touched any more: it only is freed.
 *
 * One blk_queue serves all virtqueues, on the loop thread under the device's lock; stop() drains
 * it from whatever thread pauses the VM, under the same lock.
 *
 * Errors: no room on the host (ENOSPC, EDQUOT) is nothing a guest can handle, and its file system
 * would be lost over it; the request is kept, the machine told to pause, and start() tries again.
 * Anything else goes to the guest as VIRTIO_BLK_S_IOERR.
 */
#include "vmm/virtio/virtio_blk.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/blk.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio.h"

#define SECTOR_SIZE UINT64_C(512)
/* Requests in the block layer at once; what the rings hold beyond that waits inside it. */
#define VIRTIO_BLK_MAX_INFLIGHT 1024
/* Chains taken in one go before others have their turn on the loop thread. */
#define VIRTIO_BLK_BATCH 512
/* Header and status take two descriptors of a chain. */
#define VIRTIO_BLK_EXTRA_DESCS 2
#define VIRTIO_BLK_SIZE_MAX    (4 * MIB)
/* A discard is metadata only; zeroes may have to be written: keep one request short. */
#define VIRTIO_BLK_MAX_DISCARD (2 * GIB / SECTOR_SIZE)
#define VIRTIO_BLK_MAX_ZEROES  (256 * MIB / SECTOR_SIZE)
/* Offered topology: 512-byte blocks on 4 KiB ones, as most file systems of hosts are. */
#define VIRTIO_BLK_PHYSICAL_EXP 3

struct virtio_blk_req {
    struct blk_req breq;
    struct virtio_blk *s;
    struct virtq_elem *elem;
    uint32_t type;
    bool flushing;                    /* the write is done, its flush is under way */
    struct iovec *last_in;            /* the piece that ends in the status byte, shortened by it */
    TAILQ_ENTRY(virtio_blk_req) link; /* in held */
};

struct virtio_blk {
    struct virtio_dev vdev;
    struct blk *blk;
    struct blk_queue *bq;
    struct loop_fd *watch;
    char serial[VIRTIO_BLK_ID_SIZE];
    bool guest_write_through; /* the guest turned the writeback field off */
    uint64_t touched;         /* queues with pushed, unflushed entries; bit per index */
    bool told_io_error;       /* since the last start */
    TAILQ_HEAD(, virtio_blk_req) held;
    struct virtio_blk_stats stats;
};
_Static_assert(VIRTIO_BLK_MAX_QUEUES <= 64, "bits of touched");

static struct virtio_blk *virtio_blk_of(struct virtio_dev *vdev)
{
    return container_of(vdev, struct virtio_blk, vdev);
}

/* virtio 1.2 §5.2.6.2: writes reach stable storage before they are reported, unless the driver
 * negotiated a cache and left it on. */
static bool virtio_blk_write_through(const struct virtio_blk *s)
{
    return !virtio_has(&s->vdev, VIRTIO_BLK_F_FLUSH) ||
           (virtio_has(&s->vdev, VIRTIO_BLK_F_CONFIG_WCE) && s->guest_write_through);
}

/* ---- Completion ---- */

/* Gives the chain back with `status`; frees the request. */
static void virtio_blk_finish(struct virtio_blk_req *r, uint8_t status)
{
    struct virtio_blk *s = r->s;
    struct virtq_elem *e = r->elem;
    if (!virtq_elem_current(e)) {
        virtq_elem_free(e);
        free(r);
        return;
    }
    uint8_t *at = (uint8_t *)r->last_in->iov_base + r->last_in->iov_len;
    *at = status;
    r->last_in->iov_len++;
    s->touched |= BIT64(e->vq->index);
    /* The status byte is the last one we may write: all before it counts as written, as the spec
     * has the length cover it. */
    virtq_push(e->vq, e, (uint32_t)MIN(e->in_len, (uint64_t)UINT32_MAX));
    free(r);
}

static void virtio_blk_flush_used(struct virtio_blk *s)
{
    for (unsigned i = 0; s->touched != 0; i++) {
        if ((s->touched & BIT64(i)) != 0) {
            s->touched &= ~BIT64(i);
            virtq_flush(&s->vdev.queue[i]);
        }
    }
}

static void virtio_blk_submit(struct virtio_blk_req *r)
{
    r->s->stats.inflight++;
    blk_queue_submit(r->s->bq, &r->breq);
}

static bool virtio_blk_hold(struct virtio_blk_req *r, int rc)
{
    struct virtio_blk *s = r->s;
    char text[128];
    if ((rc != -ENOSPC && rc != -EDQUOT) || r->breq.op == BLK_OP_READ ||
        !virtq_elem_current(r->elem)) {
        return false;
    }
    TAILQ_INSERT_TAIL(&s->held, r, link);
    s->stats.held++;
    s->stats.held_total++;
    if (!s->told_io_error) {
        s->told_io_error = true;
        (void)snprintf(text, sizeof(text), "%s: %s at byte %" PRIu64, s->vdev.dev->id,
                       strerrordesc_np(-rc), r->breq.offset);
        dev_event(s->vdev.dev, DEV_EVENT_IO_ERROR, -rc, text);
    }
    return true;
}

static void virtio_blk_count_error(struct virtio_blk_req *r, int rc)
{
    struct virtio_blk *s = r->s;
    if (r->type == VIRTIO_BLK_T_IN) {
        s->stats.read_errors++;
    } else {
        s->stats.write_errors++;
    }
    log_limited(&s->vdev.dev->bug_limit, LOG_WARN, s->vdev.dev->id, "request failed",
                "type='%" PRIu32 "' offset='%" PRIu64 "' length='%" PRIu64 "' error='%s'", r->type,
                r->breq.offset, r->breq.len, strerrordesc_np(-rc));
}

static void virtio_blk_count(struct virtio_blk_req *r)
{
    struct virtio_blk_stats *st = &r->s->stats;
    switch (r->type) {
    case VIRTIO_BLK_T_IN:
        st->read_ops++;
        st->read_bytes += r->breq.len;
        break;
    case VIRTIO_BLK_T_OUT:
        st->write_ops++;
        st->write_bytes += r->breq.len;
        break;
    case VIRTIO_BLK_T_FLUSH:
        st->flush_ops++;
        break;
    default:
        st->discard_ops++;
        break;
    }
}

/* Inside blk_queue_reap(). */
static void virtio_blk_done(struct blk_req *breq, int rc)
{
    struct virtio_blk_req *r = container_of(breq, struct virtio_blk_req, breq);
    struct virtio_blk *s = r->s;
    s->stats.inflight--;
    if (virtio_blk_hold(r, rc)) {
        return;
    }
    if (rc == -EOPNOTSUPP && r->type == VIRTIO_BLK_T_DISCARD) {
        rc = 0; /* advice that the host cannot take */
    }
    if (rc < 0) {
        virtio_blk_count_error(r, rc);
        virtio_blk_finish(r, VIRTIO_BLK_S_IOERR);
        return;
    }
    bool writes = r->type == VIRTIO_BLK_T_OUT || r->type == VIRTIO_BLK_T_WRITE_ZEROES;
    if (writes && !r->flushing && virtq_elem_current(r->elem) && virtio_blk_write_through(s)) {
        virtio_blk_count(r);
        r->flushing = true;
        r->breq.op = BLK_OP_FLUSH;
        virtio_blk_submit(r);
        return;
    }
    if (!r->flushing) {
        virtio_blk_count(r);
    }
    virtio_blk_finish(r, VIRTIO_BLK_S_OK);
}

static void virtio_blk_reapable(void *opaque, uint32_t events)
{
    struct virtio_blk *s = opaque;
    (void)events;
    dev_lock(s->vdev.dev);
    (void)blk_queue_reap(s->bq); /* the number does not matter; what is left signals again */
    virtio_blk_flush_used(s);
    dev_unlock(s->vdev.dev);
}

/* ---- From a chain to a request ---- */

/* Drops the first `n` bytes of the readable pieces; there are at least that many. */
static void virtio_blk_trim_out(struct virtq_elem *e, size_t n)
{
    while (n > 0) {
        size_t piece = MIN(n, e->out->iov_len);
        e->out->iov_base = (uint8_t *)e->out->iov_base + piece;
        e->out->iov_len -= piece;
        n -= piece;
        if (e->out->iov_len == 0) {
            e->out++;
            e->nout--;
        }
    }
}

/* Splits the status byte off the end; the chain has at least one writable byte. */
static struct iovec *virtio_blk_trim_status(struct virtq_elem *e)
{
    /* Pieces are never empty: virtq makes none of a buffer of length zero. */
    struct iovec *last = &e->in[e->nin - 1];
    last->iov_len--;
    return last;
}

/* Reads and writes: offset and length are checked by the block layer, which refuses what lies
 * outside of the disk or is no multiple of the sector. */
static int virtio_blk_prepare_rw(struct virtio_blk_req *r, uint64_t sector)
{
    bool read = r->type == VIRTIO_BLK_T_IN;
    struct virtq_elem *e = r->elem;
    if (sector > UINT64_MAX / SECTOR_SIZE) {
        return -EINVAL;
    }
    r->breq.op = read ? BLK_OP_READ : BLK_OP_WRITE;
    r->breq.offset = sector * SECTOR_SIZE;
    r->breq.len = read ? e->in_len - 1 : e->out_len - sizeof(struct virtio_blk_outhdr);
    r->breq.iov = read ? e->in : e->out;
    r->breq.niov = (int)(read ? e->nin : e->nout);
    if (read && r->last_in->iov_len == 0) {
        r->breq.niov--;
    }
    return 0;
}

/* Discard and write zeroes: one range (we offer no more), flags as the type allows. */
static int virtio_blk_prepare_range(struct virtio_blk_req *r)
{
    struct virtio_blk_range raw;
    struct virtq_elem *e = r->elem;
    bool zeroes = r->type == VIRTIO_BLK_T_WRITE_ZEROES;
    if (e->out_len != sizeof(struct virtio_blk_outhdr) + sizeof(raw) ||
        virtq_out_copy(e, 0, &raw, sizeof(raw)) != sizeof(raw)) {
        return -EINVAL;
    }
    uint64_t sector = le64toh(raw.sector);
    uint32_t count = le32toh(raw.num_sectors);
    uint32_t flags = le32toh(raw.flags);
    if ((flags & ~(zeroes ? VIRTIO_BLK_WZ_F_UNMAP : 0)) != 0) {
        return -EOPNOTSUPP; /* §5.2.6.2: unknown flags, and unmap of a discard */
    }
    if (count > (zeroes ? VIRTIO_BLK_MAX_ZEROES : VIRTIO_BLK_MAX_DISCARD) ||
        sector > UINT64_MAX / SECTOR_SIZE) {
        return -EINVAL;
    }
    r->breq.op = zeroes ? BLK_OP_WRITE_ZEROES : BLK_OP_DISCARD;
    r->breq.offset = sector * SECTOR_SIZE;
    r->breq.len = count * SECTOR_SIZE;
    r->breq.flags = (flags & VIRTIO_BLK_WZ_F_UNMAP) != 0 ? BLK_REQ_MAY_UNMAP : 0;
    return 0;
}

/* §5.2.6: fills in breq. 0 = to be submitted, 1 = done already, or an error for the guest. */
static int virtio_blk_prepare(struct virtio_blk_req *r, uint64_t sector)
{
    struct virtio_blk *s = r->s;
    bool changes = r->type == VIRTIO_BLK_T_OUT || r->type == VIRTIO_BLK_T_DISCARD ||
                   r->type == VIRTIO_BLK_T_WRITE_ZEROES;
    if (changes && blk_read_only(s->blk)) {
        return -EROFS;
    }
    switch (r->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT:
        return virtio_blk_prepare_rw(r, sector);
    case VIRTIO_BLK_T_FLUSH:
        r->breq.op = BLK_OP_FLUSH;
        return 0;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return virtio_blk_prepare_range(r);
    case VIRTIO_BLK_T_GET_ID:
        (void)virtq_in_copy(r->elem, 0, s->serial, sizeof(s->serial)); /* cut to the room */
        return 1;
    default:
        return -EOPNOTSUPP;
    }
}

static void virtio_blk_start(struct virtio_blk *s, struct virtq_elem *e)
{
    struct virtio_blk_outhdr header;
    if (virtq_out_copy(e, 0, &header, sizeof(header)) != sizeof(header) || e->in_len == 0) {
        virtio_broken(&s->vdev, "queue %u: request without a whole header or a status byte",
                      e->vq->index);
        virtq_elem_free(e);
        return;
    }
    struct virtio_blk_req *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        virtio_broken(&s->vdev, "out of memory");
        virtq_elem_free(e);
        return;
    }
    r->s = s;
    r->elem = e;
    r->type = le32toh(header.type);
    r->breq.done = virtio_blk_done;
    virtio_blk_trim_out(e, sizeof(header));
    r->last_in = virtio_blk_trim_status(e);
    int rc = virtio_blk_prepare(r, le64toh(header.sector));
    if (rc == 0) {
        virtio_blk_submit(r);
        return;
    }
    if (rc < 0) {
        virtio_blk_count_error(r, rc);
    }
    virtio_blk_finish(r, rc > 0              ? VIRTIO_BLK_S_OK
                         : rc == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP
                                             : VIRTIO_BLK_S_IOERR);
}

static void virtio_blk_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_blk *s = virtio_blk_of(vdev);
    struct virtq_elem *e;
    unsigned n = 0;
    do {
        (void)virtq_set_kicks(vq, false); /* off: nothing to report */
        while (n < VIRTIO_BLK_BATCH && virtq_pop(vq, &e) > 0) {
            virtio_blk_start(s, e);
            n++;
        }
    } while (n < VIRTIO_BLK_BATCH && virtq_set_kicks(vq, true));
    if (n == VIRTIO_BLK_BATCH) {
        virtio_notify_again(vdev, vq);
    }
    blk_queue_kick(s->bq);
    virtio_blk_flush_used(s);
}

/* ---- Configuration and life ---- */

static void virtio_blk_fill_config(struct virtio_blk *s, uint16_t queue_size)
{
    uint8_t *c = s->vdev.config;
    uint32_t align = MAX(blk_discard_align(s->blk), (uint32_t)SECTOR_SIZE);
    le64_put(c + VIRTIO_BLK_CFG_CAPACITY, blk_size(s->blk) / SECTOR_SIZE);
    le32_put(c + VIRTIO_BLK_CFG_SIZE_MAX, (uint32_t)VIRTIO_BLK_SIZE_MAX);
    le32_put(c + VIRTIO_BLK_CFG_SEG_MAX, queue_size - VIRTIO_BLK_EXTRA_DESCS);
    le32_put(c + VIRTIO_BLK_CFG_BLK_SIZE, (uint32_t)SECTOR_SIZE);
    c[VIRTIO_BLK_CFG_PHYSICAL_EXP] = VIRTIO_BLK_PHYSICAL_EXP;
    le16_put(c + VIRTIO_BLK_CFG_MIN_IO_SIZE, BIT(VIRTIO_BLK_PHYSICAL_EXP));
    c[VIRTIO_BLK_CFG_WRITEBACK] = s->guest_write_through ? 0 : 1;
    le16_put(c + VIRTIO_BLK_CFG_NUM_QUEUES, (uint16_t)s->vdev.nqueues);
    le32_put(c + VIRTIO_BLK_CFG_MAX_DISCARD_SECTORS, (uint32_t)VIRTIO_BLK_MAX_DISCARD);
    le32_put(c + VIRTIO_BLK_CFG_MAX_DISCARD_SEG, 1);
    le32_put(c + VIRTIO_BLK_CFG_DISCARD_ALIGN, align / (uint32_t)SECTOR_SIZE);
    le32_put(c + VIRTIO_BLK_CFG_MAX_WRITE_ZEROES, (uint32_t)VIRTIO_BLK_MAX_ZEROES);
    le32_put(c + VIRTIO_BLK_CFG_MAX_WRITE_ZEROES_SEG, 1);
    c[VIRTIO_BLK_CFG_WRITE_ZEROES_MAY_UNMAP] = 1;
}

static void virtio_blk_config_write(struct virtio_dev *vdev, unsigned offset, unsigned size,
                                    uint64_t value)
{
    struct virtio_blk *s = virtio_blk_of(vdev);
    if (offset != VIRTIO_BLK_CFG_WRITEBACK || size != 1 ||
        !virtio_has(vdev, VIRTIO_BLK_F_CONFIG_WCE) || value > 1) {
        dev_guest_bug(vdev->dev, "write of %u bytes to configuration offset %u", size, offset);
        return;
    }
    s->guest_write_through = value == 0;
    vdev->config[VIRTIO_BLK_CFG_WRITEBACK] = (uint8_t)value;
}

/* Frees held requests of `vq`, or all; their chains are dropped. */
static void virtio_blk_drop_held(struct virtio_blk *s, const struct virtq *vq)
{
    struct virtio_blk_req *r = TAILQ_FIRST(&s->held);
    while (r != NULL) {
        struct virtio_blk_req *next = TAILQ_NEXT(r, link);
        if (vq == NULL || r->elem->vq == vq) {
            TAILQ_REMOVE(&s->held, r, link);
            s->stats.held--;
            virtq_elem_free(r->elem);
            free(r);
        }
        r = next;
    }
}

static void virtio_blk_reset(struct virtio_dev *vdev)
{
    struct virtio_blk *s = virtio_blk_of(vdev);
    virtio_blk_drop_held(s, NULL);
    s->guest_write_through = false;
    vdev->config[VIRTIO_BLK_CFG_WRITEBACK] = 1;
    s->touched = 0;
}

static void virtio_blk_queue_reset(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_blk *s = virtio_blk_of(vdev);
    virtio_blk_drop_held(s, vq);
    s->touched &= ~BIT64(vq->index);
}

#define VIRTIO_BLK_FEATURES                                                                        \
    (BIT64(VIRTIO_BLK_F_SIZE_MAX) | BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_BLK_SIZE) |   \
     BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_TOPOLOGY) | BIT64(VIRTIO_BLK_F_CONFIG_WCE))
#define VIRTIO_BLK_FEATURES_RW (BIT64(VIRTIO_BLK_F_DISCARD) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES))

static const struct virtio_type virtio_blk_type = {
    .name = "blk",
    .device_id = VIRTIO_ID_BLOCK,
    .pci_class_code = 0x010000, /* SCSI storage, as the field has it: firmware looks for it */
    .features = VIRTIO_BLK_FEATURES | VIRTIO_BLK_FEATURES_RW | BIT64(VIRTIO_BLK_F_RO) |
                BIT64(VIRTIO_BLK_F_MQ),
    .config_size = VIRTIO_BLK_CFG_SIZE,
    .config_write = virtio_blk_config_write,
    .notify = virtio_blk_notify,
    .reset = virtio_blk_reset,
    .queue_reset = virtio_blk_queue_reset,
};

static int virtio_blk_check_params(const struct virtio_blk_params *p, struct err *err)
{
    if (p->serial != NULL && strlen(p->serial) > VIRTIO_BLK_ID_SIZE) {
        return err_set(err, -EINVAL, "serial '%s' is too long (at most %d bytes)", p->serial,
                       VIRTIO_BLK_ID_SIZE);
    }
    if (p->queue_size != 0 &&
        (p->queue_size < 4 || p->queue_size > VIRTQ_MAX_SIZE || !bits_is_pow2(p->queue_size))) {
        return err_set(err, -EINVAL, "queue size %u (a power of two, 4 to %d)", p->queue_size,
                       VIRTQ_MAX_SIZE);
    }
    return 0;
}

static int virtio_blk_open_queue(struct virtio_blk *s, const struct virtio_blk_params *p,
                                 unsigned depth, struct err *err)
{
    const struct blk_queue_opts opts = { .depth = MIN(depth, (unsigned)VIRTIO_BLK_MAX_INFLIGHT),
                                         .engine = p->engine,
                                         .workers_now = true,
                                         .worker_init = p->worker_init,
                                         .worker_opaque = p->worker_opaque };
    int rc = blk_queue_new(s->blk, &opts, &s->bq, err);
    if (rc < 0) {
        return rc;
    }
    s->watch =
        loop_fd_add(s->vdev.dev->env->loop, blk_queue_fd(s->bq), EPOLLIN, virtio_blk_reapable, s);
    return s->watch != NULL ? 0 : err_set_errno(err, -errno, "event loop");
}

static void virtio_blk_close(struct virtio_blk *s)
{
    loop_fd_del(s->watch);
    blk_queue_free(s->bq); /* runs the done() of what is in flight */
    virtio_blk_drop_held(s, NULL);
    virtio_dev_done(&s->vdev);
}

static int virtio_blk_init(struct dev *dev, const void *params, struct err *err)
{
    const struct virtio_blk_params *p = params;
    struct virtio_blk *s = dev->state;
    int rc = virtio_blk_check_params(p, err);
    if (rc < 0) {
        return rc;
    }
    unsigned queues = MIN(MAX(p->num_queues, 1U), (unsigned)VIRTIO_BLK_MAX_QUEUES);
    uint16_t size = p->queue_size != 0 ? p->queue_size : VIRTIO_BLK_DEFAULT_DEPTH;
    uint64_t features = VIRTIO_BLK_FEATURES;
    features |= blk_read_only(p->blk) ? BIT64(VIRTIO_BLK_F_RO) : VIRTIO_BLK_FEATURES_RW;
    features |= queues > 1 ? BIT64(VIRTIO_BLK_F_MQ) : 0;
    s->blk = p->blk;
    TAILQ_INIT(&s->held);
    if (p->serial != NULL) {
        memcpy(s->serial, p->serial, strlen(p->serial));
    }
    rc = virtio_dev_init(&s->vdev, dev, &virtio_blk_type, queues, size, features, err);
    if (rc < 0) {
        return rc;
    }
    virtio_blk_fill_config(s, size);
    rc = virtio_blk_open_queue(s, p, queues * size, err);
    if (rc < 0) {
        virtio_blk_close(s);
    }
    return rc;
}

static void virtio_blk_dev_done(struct dev *dev)
{
    virtio_blk_close(dev->state);
}

static void virtio_blk_dev_reset(struct dev *dev)
{
    struct virtio_blk *s = dev->state;
    virtio_dev_reset(&s->vdev);
}

static void virtio_blk_stop(struct dev *dev)
{
    struct virtio_blk *s = dev->state;
    /* Completions still go to the guest: it must not find a request lost when it is restored. */
    blk_queue_drain(s->bq);
    virtio_blk_flush_used(s);
    virtio_dev_stop(&s->vdev);
}

static void virtio_blk_dev_start(struct dev *dev)
{
    struct virtio_blk *s = dev->state;
    struct virtio_blk_req *r;
    s->told_io_error = false;
    virtio_dev_start(&s->vdev);
    while ((r = TAILQ_FIRST(&s->held)) != NULL) {
        TAILQ_REMOVE(&s->held, r, link);
        s->stats.held--;
        virtio_blk_submit(r);
    }
    blk_queue_kick(s->bq);
}

void virtio_blk_get_stats(struct dev *dev, struct virtio_blk_stats *ret_stats)
{
    struct virtio_blk *s = dev->state;
    dev_lock(dev);
    *ret_stats = s->stats;
    dev_unlock(dev);
}

const struct dev_class virtio_blk_class = {
    .name = "virtio-blk",
    .help = "disk",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct virtio_blk),
    .init = virtio_blk_init,
    .done = virtio_blk_dev_done,
    .reset = virtio_blk_dev_reset,
    .stop = virtio_blk_stop,
    .start = virtio_blk_dev_start,
};
