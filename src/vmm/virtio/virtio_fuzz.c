/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/virtio/virtio_fuzz.h"

#include <stdlib.h>

#include "spec/virtio_defs.h"

#define VIRTIO_FUZZ_RAM (256 * KIB)
/* Operations of one input: enough for several resets, and a bound for the slowest. */
#define VIRTIO_FUZZ_OPS 256
#define VIRTIO_FUZZ_BUF (32 * KIB)

struct virtio_fuzz {
    struct virtio_harness vh;
    const struct virtio_fuzz_target *target;
    struct virtio_fuzz_input in;
    uint64_t features;
    uint16_t size;
    uint64_t buf;
    bool stopped;
};

uint64_t virtio_fuzz_take(struct virtio_fuzz_input *in, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && in->left > 0; i++) {
        value |= (uint64_t)*in->data++ << (8 * i);
        in->left--;
    }
    return value;
}

static uint32_t take(struct virtio_fuzz *f, unsigned bytes)
{
    return (uint32_t)virtio_fuzz_take(&f->in, bytes);
}

static struct virtio_hq *take_queue(struct virtio_fuzz *f)
{
    return f->vh.queue[take(f, 1) % f->vh.nqueues];
}

static void poll_loop(struct virtio_fuzz *f)
{
    for (unsigned i = 0; i < 3; i++) {
        if (loop_run_once(f->vh.h.env.loop, 0) < 0) {
            abort();
        }
    }
}

/* Does not wait for buffers that a back end still has, as a driver should: ours must stand it. */
static void restart(struct virtio_fuzz *f)
{
    struct virtio_harness *vh = &f->vh;
    virtio_harness_place(vh); /* the input may have moved BARs or turned decoding off */
    virtio_harness_start(vh, f->features, f->size);
    f->buf = virtio_harness_alloc(vh, VIRTIO_FUZZ_BUF, 4096);
}

/* ---- Operands that mean something ---- */

static uint64_t take_address(struct virtio_fuzz *f)
{
    struct virtio_harness *vh = &f->vh;
    const struct virtio_hq *q = take_queue(f);
    uint32_t offset = take(f, 2);
    switch (take(f, 1) % 10) {
    case 0:
        return q->desc + offset % 256;
    case 1:
        return q->driver + offset % 64;
    case 2:
        return q->device + offset % 64;
    case 3:
        return vh->h.ram_size - offset % 64;
    case 4:
        return UINT64_MAX - offset % 64;
    case 5:
        return vh->common + offset % 0x4000;
    case 6:
        return q->table + offset % 256;
    default:
        return f->buf + offset % VIRTIO_FUZZ_BUF;
    }
}

static uint32_t take_length(struct virtio_fuzz *f)
{
    static const uint32_t lengths[] = { 0, 1, 15, 16, 17, 32, 512, 513, 4096, 65536, UINT32_MAX };
    uint32_t which = take(f, 1);
    return which < ARRAY_LEN(lengths) ? lengths[which] : which * 16;
}

/* ---- Operations ---- */

static void op_common(struct virtio_fuzz *f)
{
    unsigned offset = take(f, 1);
    unsigned size = 1u << (take(f, 1) % 4);
    (void)virtio_harness_common_read(&f->vh, offset, size);
    virtio_harness_common_write(&f->vh, offset, size, virtio_fuzz_take(&f->in, size));
}

static void op_config(struct virtio_fuzz *f)
{
    unsigned offset = take(f, 1);
    unsigned size = 1u << (take(f, 1) % 4);
    (void)virtio_harness_config_read(&f->vh, offset, size);
    virtio_harness_config_write(&f->vh, offset, size, virtio_fuzz_take(&f->in, size));
}

static void op_pci(struct virtio_fuzz *f)
{
    unsigned offset = take(f, 1);
    unsigned size = 1u << (take(f, 1) % 3);
    (void)virtio_harness_pci_read(&f->vh, offset, size);
    virtio_harness_pci_write(&f->vh, offset, size, take(f, size));
}

static void op_msix(struct virtio_fuzz *f)
{
    uint64_t at = f->vh.msix + (take(f, 2) & 0xfff);
    (void)dev_harness_mmio_read(&f->vh.h, at, 4);
    dev_harness_mmio_write(&f->vh.h, at, 4, take(f, 4));
}

static void op_poke(struct virtio_fuzz *f)
{
    uint64_t at = take_address(f);
    unsigned len = take(f, 1) % 32;
    for (unsigned i = 0; i < len && at + i < f->vh.h.ram_size; i++) {
        f->vh.h.ram[at + i] = (uint8_t)take(f, 1);
    }
}

static void op_desc(struct virtio_fuzz *f)
{
    const struct virtio_hq *q = take_queue(f);
    uint64_t at = q->desc + 16 * (uint64_t)(take(f, 1) % q->size);
    uint8_t *p = virtio_harness_ptr(&f->vh, at);
    le64_put(p, take_address(f));
    le32_put(p + 8, take_length(f));
    le32_put(p + 12, take(f, 4));
    if (take(f, 1) % 4 != 0) {
        /* Mostly small: `next` and flags in range. */
        p[q->packed ? 13 : 15] = 0;
        p[q->packed ? 12 : 14] %= (uint8_t)q->size;
    }
}

static void op_publish(struct virtio_fuzz *f)
{
    struct virtio_hq *q = take_queue(f);
    uint8_t *avail = virtio_harness_ptr(&f->vh, q->driver);
    if (q->packed) {
        le32_put(avail, take(f, 4)); /* the driver's event word */
        return;
    }
    uint16_t idx = le16_get(avail + 2);
    unsigned count = take(f, 1) % 4;
    for (unsigned i = 0; i < count; i++) {
        le16_put(avail + 4 + 2 * ((idx + i) % q->size), (uint16_t)(take(f, 1) % (q->size + 1u)));
    }
    le16_put(avail + 2, (uint16_t)(idx + count + (take(f, 1) == 0xff ? 1000 : 0)));
}

static void op_chain(struct virtio_fuzz *f)
{
    struct virtio_hq *q = take_queue(f);
    struct virtio_hbuf bufs[6];
    unsigned nout = take(f, 1) % 4;
    unsigned nin = take(f, 1) % 3 + (nout == 0 ? 1 : 0);
    uint64_t at = f->buf;
    for (unsigned i = 0; i < nout + nin; i++) {
        uint32_t len = i == 0 ? 16 : take_length(f) % 2048;
        bufs[i] = (struct virtio_hbuf){ at, len, i >= nout };
        at += len;
    }
    if (f->target->header != NULL) {
        f->target->header(virtio_harness_ptr(&f->vh, f->buf), VIRTIO_FUZZ_BUF, (uint8_t)take(f, 1),
                          take(f, 4));
    }
    q->use_indirect = take(f, 1) % 4 == 0 &&
                      (f->vh.features & BIT64(VIRTIO_F_INDIRECT_DESC)) != 0 &&
                      nout + nin <= q->size;
    (void)virtio_hq_add(q, bufs, nout + nin); /* -1: the ring is full */
    if (take(f, 1) % 2 == 0) {
        virtio_hq_ring(q);
    }
}

static void op_life(struct virtio_fuzz *f)
{
    switch (take(f, 1) % 6) {
    case 0:
        virtio_harness_set_status(&f->vh, 0);
        restart(f);
        break;
    case 1:
        dev_reset(f->vh.dev);
        restart(f);
        break;
    case 2:
        dev_stop(f->vh.dev);
        f->stopped = true;
        break;
    case 3:
        if (f->stopped) {
            dev_start(f->vh.dev);
            f->stopped = false;
        }
        break;
    case 4:
        virtio_harness_common_write(&f->vh, VIRTIO_PCI_COMMON_QUEUE_SELECT, 2,
                                    take(f, 1) % f->vh.nqueues);
        virtio_harness_common_write(&f->vh, VIRTIO_PCI_COMMON_QUEUE_RESET, 2, 1);
        break;
    default:
        virtio_harness_set_status(&f->vh, (uint8_t)take(f, 1));
        break;
    }
}

static void one_op(struct virtio_fuzz *f)
{
    uint32_t op = take(f, 1);
    switch (op % 16) {
    case 0:
        op_common(f);
        break;
    case 1:
        op_config(f);
        break;
    case 2:
        op_pci(f);
        break;
    case 3:
        op_msix(f);
        break;
    case 4:
        op_poke(f);
        break;
    case 5:
    case 6:
        op_desc(f);
        break;
    case 7:
        op_publish(f);
        break;
    case 8:
    case 9:
        op_chain(f);
        break;
    case 10:
        virtio_hq_ring(take_queue(f));
        break;
    case 11:
    case 12:
        poll_loop(f);
        break;
    case 13:
        (void)dev_harness_mmio_read(&f->vh.h, f->vh.isr, 1);
        f->vh.h.now_ns += UINT64_C(1000000) * take(f, 1);
        break;
    case 14:
        op_life(f);
        break;
    default:
        if (f->target->op != NULL) {
            f->target->op(&f->vh, (uint8_t)take(f, 1), take(f, 4));
        }
        break;
    }
}

void virtio_fuzz_run(const struct virtio_fuzz_target *target, const uint8_t *data, size_t len)
{
    static const uint16_t sizes[] = { 2, 4, 8, 16 };
    struct virtio_fuzz f = {
        .target = target, .in = {data, len}
    };
    log_set_level(LOG_ERROR);
    virtio_harness_init(&f.vh, VIRTIO_FUZZ_RAM);
    (void)virtio_harness_add(&f.vh, target->cls, target->params);
    uint32_t setup = take(&f, 1);
    f.size = sizes[setup >> 6];
    f.features = UINT64_MAX;
    f.features &= (setup & 1) != 0 ? UINT64_MAX : ~BIT64(VIRTIO_F_RING_PACKED);
    f.features &= (setup & 2) != 0 ? UINT64_MAX : ~BIT64(VIRTIO_F_EVENT_IDX);
    f.features &= (setup & 4) != 0 ? UINT64_MAX : ~BIT64(VIRTIO_F_INDIRECT_DESC);
    f.features &= (setup & 8) != 0 ? UINT64_MAX : ~(uint64_t)0x00ffffff; /* of the type */
    restart(&f);
    for (unsigned i = 0; i < VIRTIO_FUZZ_OPS && f.in.left > 0; i++) {
        one_op(&f);
    }
    poll_loop(&f);
    virtio_harness_done(&f.vh);
}
