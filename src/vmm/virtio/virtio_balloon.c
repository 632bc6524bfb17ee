/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The balloon. Pages that the guest puts in it, or reports as free, are given back to the host at
 * once; reading them afterwards gives zeroes. A deflated page needs nothing: the first touch
 * brings memory.
 *
 *   inflate:   chain of 4-byte page numbers -> runs of pages -> virtio_balloon_discard()
 *   deflate:   taken note of by the driver's own `actual`
 *   stats:     the driver leaves one buffer with us; returning it asks for newer numbers
 *   reporting: writable chain, its very pieces are what is free
 *
 * Both working queues are served in turns of a bounded size, so a chain may stay popped between
 * two turns. Only whole host pages are given back: with 2 MiB pages a 4 KiB page alone stays.
 *
 * QUIRK: virtio 1.2 §5.5.2 numbers the reporting queue 4, always; Linux counts only the queues it
 * has (3 with statistics, 2 without). Both are served, see virtio_balloon_role().
 */
#include "vmm/virtio/virtio_balloon.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "spec/virtio_balloon_defs.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio.h"

#define VIRTIO_BALLOON_QUEUES      5
#define VIRTIO_BALLOON_QUEUE_SIZE  128
#define VIRTIO_BALLOON_CLASS       0x00ff00 /* unclassified, as the field's balloons */
#define VIRTIO_BALLOON_PAGE        (UINT64_C(1) << VIRTIO_BALLOON_PFN_SHIFT)
#define VIRTIO_BALLOON_BATCH       256         /* page numbers read at a time */
#define VIRTIO_BALLOON_TURN_PAGES  4096        /* madvise(2) of one page takes some us */
#define VIRTIO_BALLOON_TURN_BYTES  (256 * MIB) /* and of a large run some 100 us a MiB */
#define VIRTIO_BALLOON_TURN_CHAINS 256
#define VIRTIO_BALLOON_STATS_MAX   64 /* entries read of a statistics buffer */
#define VIRTIO_BALLOON_IOV         GMEM_MAX_REGIONS

enum virtio_balloon_role {
    VIRTIO_BALLOON_INFLATE,
    VIRTIO_BALLOON_DEFLATE,
    VIRTIO_BALLOON_STATISTICS,
    VIRTIO_BALLOON_REPORT,
    VIRTIO_BALLOON_NONE,
};

/* A queue that is served in turns: the chain at work and how far it is. */
struct virtio_balloon_work {
    struct virtq_elem *elem;
    uint64_t done; /* bytes of e->out (inflate) or of e->in (reporting) */
};

struct virtio_balloon {
    struct virtio_dev vdev;
    struct dev *dev;
    bool shared;
    uint64_t page_size;
    struct virtio_balloon_work inflate, report;
    struct virtq_elem *stats; /* the driver's buffer, kept until somebody asks */
    struct loop_timer turn;
    struct log_limit limit;
    struct virtio_balloon_info info;
};

static enum virtio_balloon_role virtio_balloon_role(const struct virtio_balloon *b, unsigned index)
{
    bool stats = virtio_has(&b->vdev, VIRTIO_BALLOON_F_STATS_VQ);
    bool report = virtio_has(&b->vdev, VIRTIO_BALLOON_F_PAGE_REPORTING);
    if (index <= 1) {
        return index == 0 ? VIRTIO_BALLOON_INFLATE : VIRTIO_BALLOON_DEFLATE;
    }
    if (index == 2 && stats) {
        return VIRTIO_BALLOON_STATISTICS;
    }
    return report ? VIRTIO_BALLOON_REPORT : VIRTIO_BALLOON_NONE;
}

/* Gives the whole host pages within [host, host+len) back. `host` is guest RAM, checked. */
static void virtio_balloon_discard(struct virtio_balloon *b, void *host, uint64_t len)
{
    uint64_t from = bits_align_up((uintptr_t)host, b->page_size);
    uint64_t to = bits_align_down((uintptr_t)host + len, b->page_size);
    if (from >= to) {
        return;
    }
    void *p = (uint8_t *)host + (from - (uintptr_t)host);
    if (madvise(p, to - from, b->shared ? MADV_REMOVE : MADV_DONTNEED) < 0) {
        log_limited(&b->limit, LOG_WARN, b->dev->id, "cannot give memory back",
                    "bytes='%llu' errno='%d'", (unsigned long long)(to - from), errno);
        return;
    }
    gmem_mark_written(b->dev->env->mem, p, to - from);
    b->info.discarded += to - from;
}

/* A run of guest pages; what of it is no RAM is the guest's fault and left alone. */
static void virtio_balloon_discard_run(struct virtio_balloon *b, uint64_t pfn, uint64_t n)
{
    struct iovec iov[VIRTIO_BALLOON_IOV];
    int pieces = gmem_iov(b->dev->env->mem, GPA(pfn * VIRTIO_BALLOON_PAGE), n * VIRTIO_BALLOON_PAGE,
                          true, iov, VIRTIO_BALLOON_IOV);
    if (pieces < 0 && n > 1) {
        for (uint64_t i = 0; i < n; i++) { /* n is at most a batch */
            virtio_balloon_discard_run(b, pfn + i, 1);
        }
        return;
    }
    if (pieces < 0) {
        dev_guest_bug(b->dev, "page %llu in the balloon is no RAM", (unsigned long long)pfn);
        return;
    }
    for (int i = 0; i < pieces; i++) {
        virtio_balloon_discard(b, iov[i].iov_base, iov[i].iov_len);
    }
}

/* Joins neighbours, in rising or falling order, to one run each. */
static void virtio_balloon_pages(struct virtio_balloon *b, const uint8_t *pfns, unsigned n)
{
    uint64_t first = 0;
    uint64_t count = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t pfn = le32_get(pfns + 4 * (size_t)i);
        if (count > 0 && pfn == first + count) {
            count++;
        } else if (count > 0 && pfn + 1 == first) {
            first = pfn;
            count++;
        } else {
            if (count > 0) {
                virtio_balloon_discard_run(b, first, count);
            }
            first = pfn;
            count = 1;
        }
    }
    if (count > 0) {
        virtio_balloon_discard_run(b, first, count);
    }
}

/* Goes on with the chain for at most *budget pages. True = the chain is done. */
static bool virtio_balloon_inflate_chain(struct virtio_balloon *b, unsigned *budget)
{
    struct virtio_balloon_work *w = &b->inflate;
    uint8_t pfns[4 * VIRTIO_BALLOON_BATCH];
    while (*budget > 0) {
        size_t got = virtq_out_copy(w->elem, w->done, pfns,
                                    4 * (size_t)MIN(*budget, (unsigned)VIRTIO_BALLOON_BATCH));
        unsigned n = (unsigned)(got / 4);
        if (n == 0) {
            return true;
        }
        virtio_balloon_pages(b, pfns, n);
        w->done += 4 * (uint64_t)n;
        *budget -= n;
    }
    return false;
}

/* The same for reported pieces and bytes. */
static bool virtio_balloon_report_chain(struct virtio_balloon *b, uint64_t *budget)
{
    struct virtio_balloon_work *w = &b->report;
    uint64_t at = 0;
    for (unsigned i = 0; i < w->elem->nin; i++) {
        const struct iovec *iov = &w->elem->in[i];
        uint64_t skip = w->done > at ? MIN(w->done - at, (uint64_t)iov->iov_len) : 0;
        at += iov->iov_len;
        uint64_t len = iov->iov_len - skip;
        if (len == 0) {
            continue;
        }
        if (*budget == 0) {
            return false;
        }
        /* A cut within a piece falls on a page, or the page there would never be given back. */
        uint64_t base = (uintptr_t)iov->iov_base + skip;
        if (len > *budget && len > b->page_size) {
            uint64_t part = MAX(*budget, b->page_size);
            len = MIN(bits_align_up(base + part, b->page_size) - base, len);
        }
        virtio_balloon_discard(b, (uint8_t *)iov->iov_base + skip, len);
        w->done = at - iov->iov_len + skip + len;
        *budget -= MIN(*budget, len);
        if (skip + len < iov->iov_len) {
            return false;
        }
    }
    return true;
}

/* Serves one of the two working queues for a turn; what is left waits for the next. */
static void virtio_balloon_serve(struct virtio_balloon *b, struct virtq *vq, bool report)
{
    struct virtio_balloon_work *w = report ? &b->report : &b->inflate;
    unsigned pages = VIRTIO_BALLOON_TURN_PAGES;
    uint64_t bytes = VIRTIO_BALLOON_TURN_BYTES;
    unsigned i;
    if (!b->vdev.live || b->vdev.stopped || (w->elem != NULL && w->elem->vq != vq)) {
        return;
    }
    for (i = 0; i < VIRTIO_BALLOON_TURN_CHAINS; i++) {
        if (w->elem == NULL) {
            w->done = 0;
            if (virtq_pop(vq, &w->elem) <= 0) {
                w->elem = NULL;
                break;
            }
        }
        bool done = report ? virtio_balloon_report_chain(b, &bytes)
                           : virtio_balloon_inflate_chain(b, &pages);
        if (!done) {
            break;
        }
        virtq_push(vq, take_ptr(&w->elem), 0);
    }
    virtq_flush(vq);
    if (w->elem != NULL || i == VIRTIO_BALLOON_TURN_CHAINS) {
        loop_timer_set(&b->turn, loop_now_ns());
    }
}

static void virtio_balloon_deflate(struct virtio_balloon *b, struct virtq *vq)
{
    struct virtq_elem *e = NULL;
    unsigned i;
    for (i = 0; i < VIRTIO_BALLOON_TURN_CHAINS && virtq_pop(vq, &e) > 0; i++) {
        virtq_push(vq, e, 0);
    }
    virtq_flush(vq);
    if (i == VIRTIO_BALLOON_TURN_CHAINS) {
        loop_timer_set(&b->turn, loop_now_ns());
    }
}

static void virtio_balloon_parse_stats(struct virtio_balloon *b, const struct virtq_elem *e)
{
    uint8_t buf[VIRTIO_BALLOON_STAT_SIZE * VIRTIO_BALLOON_STATS_MAX];
    size_t len = virtq_out_copy(e, 0, buf, sizeof(buf));
    for (size_t at = 0; at + VIRTIO_BALLOON_STAT_SIZE <= len; at += VIRTIO_BALLOON_STAT_SIZE) {
        unsigned tag = le16_get(buf + at);
        if (tag < VIRTIO_BALLOON_STATS) { /* later tags: not known to us */
            b->info.stat[tag] = le64_get(buf + at + VIRTIO_BALLOON_STAT_OFF_VALUE);
            b->info.valid |= BIT(tag);
        }
    }
    b->info.stat_ns = b->dev->env->ops->now_ns(b->dev->env);
}

/* The driver has one buffer in this queue; if it adds more the older ones go back. */
static void virtio_balloon_take_stats(struct virtio_balloon *b, struct virtq *vq)
{
    struct virtq_elem *e = NULL;
    for (unsigned i = 0; i < VIRTIO_BALLOON_QUEUE_SIZE && virtq_pop(vq, &e) > 0; i++) {
        if (b->stats != NULL) {
            virtq_push(vq, take_ptr(&b->stats), 0);
        }
        virtio_balloon_parse_stats(b, e);
        b->stats = e;
    }
    virtq_flush(vq);
}

static void virtio_balloon_notify(struct virtio_dev *vdev, struct virtq *vq)
{
    struct virtio_balloon *b = container_of(vdev, struct virtio_balloon, vdev);
    switch (virtio_balloon_role(b, vq->index)) {
    case VIRTIO_BALLOON_INFLATE:
        virtio_balloon_serve(b, vq, false);
        break;
    case VIRTIO_BALLOON_DEFLATE:
        virtio_balloon_deflate(b, vq);
        break;
    case VIRTIO_BALLOON_STATISTICS:
        virtio_balloon_take_stats(b, vq);
        break;
    case VIRTIO_BALLOON_REPORT:
        virtio_balloon_serve(b, vq, true);
        break;
    case VIRTIO_BALLOON_NONE:
        break;
    }
}

static void virtio_balloon_on_turn(void *opaque)
{
    struct virtio_balloon *b = opaque;
    dev_lock(b->dev);
    for (unsigned i = 0; i < VIRTIO_BALLOON_QUEUES && b->vdev.live && !b->vdev.stopped; i++) {
        if (b->vdev.queue[i].ready) {
            virtio_balloon_notify(&b->vdev, &b->vdev.queue[i]);
        }
    }
    dev_unlock(b->dev);
}

static void virtio_balloon_config_write(struct virtio_dev *vdev, unsigned offset, unsigned size,
                                        uint64_t value)
{
    /* Only `actual` is the driver's (§5.5.4); it may come in parts. */
    for (unsigned i = 0; i < size; i++, value >>= 8) {
        if (offset + i >= VIRTIO_BALLOON_CFG_ACTUAL && offset + i < VIRTIO_BALLOON_CFG_SIZE) {
            vdev->config[offset + i] = (uint8_t)value;
        }
    }
}

static void virtio_balloon_drop(struct virtio_balloon *b)
{
    virtq_elem_free(take_ptr(&b->inflate.elem));
    virtq_elem_free(take_ptr(&b->report.elem));
    virtq_elem_free(take_ptr(&b->stats));
}

static void virtio_balloon_type_reset(struct virtio_dev *vdev)
{
    struct virtio_balloon *b = container_of(vdev, struct virtio_balloon, vdev);
    virtio_balloon_drop(b);
    /* The next driver starts with an empty balloon, and has not told any number. */
    le32_put(vdev->config + VIRTIO_BALLOON_CFG_ACTUAL, 0);
    b->info.valid = 0;
    b->info.stat_ns = 0;
}

static const struct virtio_type virtio_balloon_type = {
    .name = "balloon",
    .device_id = VIRTIO_ID_BALLOON,
    .pci_class_code = VIRTIO_BALLOON_CLASS,
    .features = BIT64(VIRTIO_BALLOON_F_STATS_VQ) | BIT64(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
                BIT64(VIRTIO_BALLOON_F_PAGE_REPORTING),
    .config_size = VIRTIO_BALLOON_CFG_SIZE,
    .config_write = virtio_balloon_config_write,
    .notify = virtio_balloon_notify,
    .reset = virtio_balloon_type_reset,
};

static int virtio_balloon_init(struct dev *dev, const void *params, struct err *err)
{
    struct virtio_balloon *b = dev->state;
    const struct virtio_balloon_params *p = params;
    uint64_t features = BIT64(VIRTIO_BALLOON_F_STATS_VQ);
    features |= p->deflate_on_oom ? BIT64(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) : 0;
    features |= p->reporting ? BIT64(VIRTIO_BALLOON_F_PAGE_REPORTING) : 0;
    b->dev = dev;
    b->shared = p->shared;
    b->page_size = MAX(p->page_size, VIRTIO_BALLOON_PAGE);
    if (!bits_is_pow2(b->page_size)) {
        return err_set(err, -EINVAL, "page size %llu is no power of two",
                       (unsigned long long)p->page_size);
    }
    loop_timer_init(&b->turn, dev->env->loop, virtio_balloon_on_turn, b);
    return virtio_dev_init(&b->vdev, dev, &virtio_balloon_type, VIRTIO_BALLOON_QUEUES,
                           VIRTIO_BALLOON_QUEUE_SIZE, features, err);
}

static void virtio_balloon_done(struct dev *dev)
{
    struct virtio_balloon *b = dev->state;
    loop_timer_cancel(&b->turn);
    virtio_balloon_drop(b);
    virtio_dev_done(&b->vdev);
}

static void virtio_balloon_reset(struct dev *dev)
{
    virtio_dev_reset(&((struct virtio_balloon *)dev->state)->vdev);
}

static void virtio_balloon_stop(struct dev *dev)
{
    virtio_dev_stop(&((struct virtio_balloon *)dev->state)->vdev);
}

static void virtio_balloon_start(struct dev *dev)
{
    virtio_dev_start(&((struct virtio_balloon *)dev->state)->vdev);
}

int virtio_balloon_set_target(struct dev *dev, uint64_t bytes, struct err *err)
{
    struct virtio_balloon *b = dev->state;
    uint64_t ram = gmem_size(dev->env->mem);
    uint64_t pages = bytes / VIRTIO_BALLOON_PAGE;
    if (bytes >= ram || pages > UINT32_MAX) {
        return err_set(err, -EINVAL,
                       "%s: a balloon of %llu MiB; the guest has %llu MiB and needs some of it",
                       dev->id, (unsigned long long)(bytes / MIB), (unsigned long long)(ram / MIB));
    }
    dev_lock(dev);
    b->info.target = pages * VIRTIO_BALLOON_PAGE;
    le32_put(b->vdev.config + VIRTIO_BALLOON_CFG_NUM_PAGES, (uint32_t)pages);
    virtio_config_changed(&b->vdev);
    dev_unlock(dev);
    return 0;
}

void virtio_balloon_get_info(struct dev *dev, struct virtio_balloon_info *ret_info)
{
    struct virtio_balloon *b = dev->state;
    dev_lock(dev);
    *ret_info = b->info;
    uint64_t actual = le32_get(b->vdev.config + VIRTIO_BALLOON_CFG_ACTUAL) * VIRTIO_BALLOON_PAGE;
    ret_info->actual = MIN(actual, gmem_size(dev->env->mem));
    ret_info->driver_ready = b->vdev.live;
    if (b->stats != NULL && b->vdev.live && !b->vdev.stopped) {
        struct virtq *vq = b->stats->vq;
        virtq_push(vq, take_ptr(&b->stats), 0);
        virtq_flush(vq);
    }
    dev_unlock(dev);
}

const struct dev_class virtio_balloon_class = {
    .name = "virtio-balloon",
    .help = "memory balloon, memory statistics and free page reporting",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct virtio_balloon),
    .init = virtio_balloon_init,
    .done = virtio_balloon_done,
    .reset = virtio_balloon_reset,
    .stop = virtio_balloon_stop,
    .start = virtio_balloon_start,
};
