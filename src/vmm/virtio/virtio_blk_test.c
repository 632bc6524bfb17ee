/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The disk over a raw file in a scratch directory, with the fault filter where errors are wanted.
 */
#include "block/blk_test.h"

#include <errno.h>

#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_blk.h"
#include "vmm/virtio/virtio_harness.h"

#define DISK_SIZE (4 * MIB)
#define F_PACKED  (BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_EVENT_IDX))
#define F_ALL     UINT64_MAX

struct fixture {
    struct virtio_harness vh;
    struct blk *blk;
    struct dev *dev;
    struct virtio_hq *q;
    uint64_t header, data, status; /* guest addresses for one request */
};

struct setup {
    bool read_only;
    const char *fault;
    const char *engine;
    unsigned queues;
    uint64_t features;
};

static void open_disk(struct fixture *f, void **state, const struct setup *su)
{
    const char *path = scratch_file(state, "disk.raw", "posada", DISK_SIZE);
    const char *filters[] = { su->fault, NULL };
    const struct blk_opts opts = { .path = path,
                                   .format = "raw",
                                   .read_only = su->read_only,
                                   .filters = su->fault != NULL ? filters : NULL };
    f->blk = open_ok(&opts);
    const struct virtio_blk_params params = {
        .blk = f->blk,
        .serial = "serial-1",
        .num_queues = su->queues,
        .engine = su->engine,
    };
    virtio_harness_init(&f->vh, 4 * MIB);
    f->dev = virtio_harness_add(&f->vh, &virtio_blk_class, &params);
}

static void negotiate(struct fixture *f, uint64_t features)
{
    virtio_harness_start(&f->vh, features, 64);
    f->q = f->vh.queue[0];
    f->header = virtio_harness_alloc(&f->vh, 16, 16);
    f->data = virtio_harness_alloc(&f->vh, 64 * KIB, 4096);
    f->status = virtio_harness_alloc(&f->vh, 1, 1);
}

static void set_up(struct fixture *f, void **state, const struct setup *su)
{
    open_disk(f, state, su);
    negotiate(f, su->features);
}

static void close_disk(struct fixture *f)
{
    virtio_harness_done(&f->vh);
    blk_close(f->blk);
}

static void put_header(struct fixture *f, uint32_t type, uint64_t sector)
{
    uint8_t *h = virtio_harness_ptr(&f->vh, f->header);
    le32_put(h, type);
    le32_put(h + 4, 0);
    le64_put(h + 8, sector);
    *(uint8_t *)virtio_harness_ptr(&f->vh, f->status) = 0xee;
}

static uint8_t status_of(struct fixture *f)
{
    return *(uint8_t *)virtio_harness_ptr(&f->vh, f->status);
}

/* One request with `len` data bytes at f->data; returns its status, or -1 when it did not end. */
static int request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len)
{
    bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    struct virtio_hbuf bufs[3] = {
        {f->header, 16, false}
    };
    unsigned n = 1;
    put_header(f, type, sector);
    if (len > 0) {
        bufs[n++] = (struct virtio_hbuf){ f->data, len, in };
    }
    bufs[n++] = (struct virtio_hbuf){ f->status, 1, true };
    int64_t written = virtio_hq_roundtrip(f->q, bufs, n);
    if (written < 0) {
        return -1;
    }
    assert_int_equal(written, in ? len + 1 : 1);
    return status_of(f);
}

static int range(struct fixture *f, uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
    uint8_t *p = virtio_harness_ptr(&f->vh, f->data);
    le64_put(p, sector);
    le32_put(p + 8, count);
    le32_put(p + 12, flags);
    return request(f, type, 0, 16);
}

static void fill(struct fixture *f, int byte, size_t len)
{
    memset(virtio_harness_ptr(&f->vh, f->data), byte, len);
}

static void expect_data(struct fixture *f, int byte, size_t len)
{
    const uint8_t *p = virtio_harness_ptr(&f->vh, f->data);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(p[i], byte);
    }
}

static void test_configuration(void **state)
{
    struct fixture f;
    open_disk(&f, state, &(struct setup){ .queues = 3 });
    uint64_t offered = virtio_harness_offered(&f.vh);
    assert_int_equal(f.vh.nqueues, 3);
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_BLK_CFG_CAPACITY, 8),
                     DISK_SIZE / 512);
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_BLK_CFG_NUM_QUEUES, 2), 3);
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_BLK_CFG_SEG_MAX, 4), 254);
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_BLK_CFG_BLK_SIZE, 4), 512);
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_BLK_CFG_WRITEBACK, 1), 1);
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_BLK_CFG_SIZE, 4), 0);
    assert_true((offered & BIT64(VIRTIO_BLK_F_MQ)) != 0);
    assert_true((offered & BIT64(VIRTIO_BLK_F_DISCARD)) != 0);
    assert_true((offered & BIT64(VIRTIO_BLK_F_RO)) == 0);
    assert_int_equal(virtio_harness_pci_read(&f.vh, 0, 4), 0x10421af4);
    close_disk(&f);
    open_disk(&f, state, &(struct setup){ .read_only = true });
    offered = virtio_harness_offered(&f.vh);
    assert_true((offered & BIT64(VIRTIO_BLK_F_MQ)) == 0);
    assert_true((offered & BIT64(VIRTIO_BLK_F_DISCARD)) == 0);
    assert_true((offered & BIT64(VIRTIO_BLK_F_RO)) != 0);
    close_disk(&f);
}

static void test_bad_parameters(void **state)
{
    struct fixture f;
    struct dev *dev;
    struct err err = ERR_INIT;
    open_disk(&f, state, &(struct setup){ 0 });
    struct virtio_blk_params p = { .blk = f.blk, .serial = "012345678901234567890" };
    assert_int_equal(dev_new(&f.vh.h.env, &virtio_blk_class, "disk1", &p, &dev, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "serial '0123"));
    p = (struct virtio_blk_params){ .blk = f.blk, .queue_size = 100 };
    assert_int_equal(dev_new(&f.vh.h.env, &virtio_blk_class, "disk1", &p, &dev, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "power of two"));
    p = (struct virtio_blk_params){ .blk = f.blk, .engine = "steam" };
    assert_int_equal(dev_new(&f.vh.h.env, &virtio_blk_class, "disk1", &p, &dev, &err), -EINVAL);
    close_disk(&f);
}

/* virtio 1.2 §5.2.6, on both engines and both ring layouts. */
static void test_read_write(void **state)
{
    static const struct setup setups[] = {
        {.features = 0,                  .engine = "threads"},
        { .features = F_PACKED,          .engine = "threads"},
        { .features = F_ALL & ~F_PACKED, .engine = NULL     },
        { .features = F_ALL,             .engine = NULL     },
    };
    for (unsigned i = 0; i < ARRAY_LEN(setups); i++) {
        struct fixture f;
        uint8_t disk[1024];
        set_up(&f, state, &setups[i]);
        assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
        assert_memory_equal(virtio_harness_ptr(&f.vh, f.data), "posada", 6);
        fill(&f, 0x5a, 1024);
        assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 100, 1024), VIRTIO_BLK_S_OK);
        fill(&f, 0, 1024);
        assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 100, 1024), VIRTIO_BLK_S_OK);
        expect_data(&f, 0x5a, 1024);
        assert_int_equal(request(&f, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
        assert_int_equal(blk_pread(f.blk, 100 * 512, disk, sizeof(disk)), 0);
        assert_memory_equal(disk, virtio_harness_ptr(&f.vh, f.data), sizeof(disk));
        struct virtio_blk_stats st;
        virtio_blk_get_stats(f.dev, &st);
        assert_int_equal(st.read_ops, 2);
        assert_int_equal(st.read_bytes, 1536);
        assert_int_equal(st.write_ops, 1);
        assert_int_equal(st.write_bytes, 1024);
        assert_int_equal(st.inflight, 0);
        assert_int_equal(f.dev->guest_bugs, 0);
        close_disk(&f);
    }
}

/* §2.6.4.1 "framing": the device makes no assumption on how a request is cut into buffers. */
static void test_odd_framing(void **state)
{
    struct fixture f;
    set_up(&f, state, &(struct setup){ .features = F_PACKED });
    put_header(&f, VIRTIO_BLK_T_OUT, 7);
    fill(&f, 0x33, 512);
    /* The header in three pieces, the last with the first data byte; data in odd pieces. */
    uint64_t blob = virtio_harness_alloc(&f.vh, 16 + 512, 1);
    memcpy(virtio_harness_ptr(&f.vh, blob), virtio_harness_ptr(&f.vh, f.header), 16);
    memset(virtio_harness_ptr(&f.vh, blob + 16), 0x44, 512);
    const struct virtio_hbuf out[] = {
        {blob,        3,   false},
        { blob + 3,   0,   false},
        { blob + 3,   12,  false},
        { blob + 15,  2,   false},
        { blob + 17,  500, false},
        { blob + 517, 11,  false},
        { f.status,   1,   true },
    };
    assert_int_equal(virtio_hq_roundtrip(f.q, out, ARRAY_LEN(out)), 1);
    assert_int_equal(status_of(&f), VIRTIO_BLK_S_OK);
    /* The status in the same buffer as the data. */
    put_header(&f, VIRTIO_BLK_T_IN, 7);
    const struct virtio_hbuf in[] = {
        {f.header,     16,  false},
        { f.data,      11,  true },
        { f.data + 11, 502, true }
    };
    assert_int_equal(virtio_hq_roundtrip(f.q, in, ARRAY_LEN(in)), 513);
    expect_data(&f, 0x44, 512);
    assert_int_equal(*(uint8_t *)virtio_harness_ptr(&f.vh, f.data + 512), VIRTIO_BLK_S_OK);
    assert_int_equal(f.dev->guest_bugs, 0);
    close_disk(&f);
}

static void test_discard_and_write_zeroes(void **state)
{
    struct fixture f;
    set_up(&f, state, &(struct setup){ .features = F_ALL });
    fill(&f, 0x77, 8192);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 8192), VIRTIO_BLK_S_OK);
    assert_int_equal(range(&f, VIRTIO_BLK_T_WRITE_ZEROES, 1, 2, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(range(&f, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, VIRTIO_BLK_WZ_F_UNMAP),
                     VIRTIO_BLK_S_OK);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 1, 1024), VIRTIO_BLK_S_OK);
    expect_data(&f, 0, 1024);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 8, 4096), VIRTIO_BLK_S_OK);
    expect_data(&f, 0, 4096);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 3, 512), VIRTIO_BLK_S_OK);
    expect_data(&f, 0x77, 512);
    assert_int_equal(range(&f, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_OK);
    /* §5.2.6.2: unknown flags; unmap with a discard; too many sectors; beyond the end. */
    assert_int_equal(range(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(range(&f, VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(range(&f, VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(range(&f, VIRTIO_BLK_T_DISCARD, DISK_SIZE / 512, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(range(&f, VIRTIO_BLK_T_DISCARD, UINT64_MAX / 256, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_DISCARD, 0, 32), VIRTIO_BLK_S_IOERR); /* 2 ranges */
    close_disk(&f);
}

static void test_get_id(void **state)
{
    struct fixture f;
    set_up(&f, state, &(struct setup){ .features = 0 });
    fill(&f, 0x11, 32);
    assert_int_equal(request(&f, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
    assert_memory_equal(virtio_harness_ptr(&f.vh, f.data), "serial-1\0\0\0\0\0\0\0\0\0\0\0\0\x11",
                        21);
    fill(&f, 0x11, 32);
    assert_int_equal(request(&f, VIRTIO_BLK_T_GET_ID, 0, 4), VIRTIO_BLK_S_OK);
    assert_memory_equal(virtio_harness_ptr(&f.vh, f.data), "seri\x11", 5);
    close_disk(&f);
}

/* Refused with a status, the device goes on: range, alignment, unknown type, read-only. */
static void test_refused_requests(void **state)
{
    struct fixture f;
    set_up(&f, state, &(struct setup){ .features = F_PACKED });
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, DISK_SIZE / 512, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, UINT64_MAX / 512, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, DISK_SIZE / 512 - 1, 1024), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 511), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, 0x1234, 0, 512), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 0), VIRTIO_BLK_S_OK); /* nothing asked */
    struct virtio_blk_stats st;
    virtio_blk_get_stats(f.dev, &st);
    assert_int_equal(st.read_errors, 3);
    assert_int_equal(st.write_errors, 3);
    close_disk(&f);
    set_up(&f, state, &(struct setup){ .read_only = true });
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(range(&f, VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
    close_disk(&f);
}

static void test_broken_requests(void **state)
{
    struct fixture f;
    for (unsigned i = 0; i < 2; i++) {
        set_up(&f, state, &(struct setup){ .features = i == 0 ? 0 : F_PACKED });
        const struct virtio_hbuf no_status[] = {
            {f.header, 16,  false},
            { f.data,  512, false}
        };
        const struct virtio_hbuf short_header[] = {
            {f.header,  15, false},
            { f.status, 1,  true }
        };
        put_header(&f, VIRTIO_BLK_T_OUT, 0);
        assert_true(virtio_hq_add(f.q, i == 0 ? no_status : short_header, 2) >= 0);
        virtio_hq_ring(f.q);
        dev_harness_poll(&f.vh.h);
        assert_true((virtio_harness_status(&f.vh) & VIRTIO_STATUS_NEEDS_RESET) != 0);
        assert_int_equal(virtio_harness_irqs(&f.vh, f.vh.nqueues), 1);
        negotiate(&f, 0); /* and it works again */
        assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
        close_disk(&f);
    }
}

/* EIO goes to the guest at once. */
static void test_error_reported(void **state)
{
    struct fixture f;
    set_up(&f, state, &(struct setup){ .fault = "fault:write.1=EIO,read.2=EIO" });
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
    assert_int_equal(request(&f, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_IOERR);
    assert_int_equal(f.vh.h.events, 0);
    close_disk(&f);
}

/* ENOSPC: the machine is told once, the request is kept and done again at start(). */
static void test_no_space_is_retried(void **state)
{
    struct fixture f;
    struct virtio_blk_stats st;
    unsigned id;
    uint32_t len;
    set_up(&f, state, &(struct setup){ .fault = "fault:write.1-3=ENOSPC" });
    put_header(&f, VIRTIO_BLK_T_OUT, 9);
    fill(&f, 0x99, 512);
    const struct virtio_hbuf bufs[] = {
        {f.header,  16,  false},
        { f.data,   512, false},
        { f.status, 1,   true }
    };
    assert_true(virtio_hq_add(f.q, bufs, 3) >= 0);
    assert_true(virtio_hq_add(f.q, bufs, 3) >= 0);
    virtio_hq_ring(f.q);
    for (unsigned i = 0; i < 200 && f.vh.h.events == 0; i++) {
        assert_int_equal(loop_run_once(f.vh.h.env.loop, 10), 0);
    }
    assert_int_equal(f.vh.h.events, 1);
    assert_int_equal(f.vh.h.last_event, DEV_EVENT_IO_ERROR);
    assert_int_equal(f.vh.h.last_event_code, ENOSPC);
    assert_non_null(strstr(f.vh.h.last_event_detail, "virtio-blk"));
    dev_stop(f.dev);
    virtio_blk_get_stats(f.dev, &st);
    assert_int_equal(st.held, 2);
    assert_int_equal(f.vh.h.events, 1);
    assert_false(virtio_hq_used(f.q, &id, &len));
    dev_start(f.dev); /* write 3 fails again, 4 succeeds */
    assert_true(virtio_hq_wait(f.q, &id, &len));
    assert_int_equal(status_of(&f), VIRTIO_BLK_S_OK);
    assert_int_equal(f.vh.h.events, 2);
    dev_stop(f.dev);
    dev_start(f.dev);
    assert_true(virtio_hq_wait(f.q, &id, &len));
    virtio_blk_get_stats(f.dev, &st);
    assert_int_equal(st.held, 0);
    assert_int_equal(st.held_total, 3);
    assert_int_equal(st.write_ops, 2);
    close_disk(&f);
}

/* §5.2.6.2: without a negotiated cache, or with the field off, each write is flushed. The fault
 * filter proves the flush: it fails and takes the write with it. */
static void test_write_through(void **state)
{
    struct fixture f;
    set_up(&f, state, &(struct setup){ .fault = "fault:flush=EIO", .features = 0 });
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
    negotiate(&f, BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE));
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
    virtio_harness_config_write(&f.vh, VIRTIO_BLK_CFG_WRITEBACK, 1, 0);
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_BLK_CFG_WRITEBACK, 1), 0);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
    virtio_harness_config_write(&f.vh, VIRTIO_BLK_CFG_WRITEBACK, 1, 2);
    virtio_harness_config_write(&f.vh, VIRTIO_BLK_CFG_CAPACITY, 4, 2);
    assert_int_equal(f.dev->guest_bugs, 2);
    virtio_harness_config_write(&f.vh, VIRTIO_BLK_CFG_WRITEBACK, 1, 1);
    assert_int_equal(request(&f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
    close_disk(&f);
}

/* reliability S7 "reset during I/O": the late completion touches nothing and only frees. */
static void test_reset_during_io(void **state)
{
    struct fixture f;
    set_up(&f, state, &(struct setup){ .fault = "fault:read=delay:100", .features = F_PACKED });
    put_header(&f, VIRTIO_BLK_T_IN, 0);
    const struct virtio_hbuf bufs[] = {
        {f.header,  16,  false},
        { f.data,   512, true },
        { f.status, 1,   true }
    };
    assert_true(virtio_hq_add(f.q, bufs, 3) >= 0);
    virtio_hq_ring(f.q);
    assert_int_equal(loop_run_once(f.vh.h.env.loop, 0), 0);
    virtio_harness_set_status(&f.vh, 0);
    assert_int_not_equal(virtio_harness_status(&f.vh), 0);
    for (unsigned i = 0; i < 100 && virtio_harness_status(&f.vh) != 0; i++) {
        assert_int_equal(loop_run_once(f.vh.h.env.loop, 20), 0);
    }
    assert_int_equal(virtio_harness_status(&f.vh), 0);
    assert_int_equal(status_of(&f), 0xee);
    /* Freed with a request under way. */
    negotiate(&f, F_PACKED);
    put_header(&f, VIRTIO_BLK_T_IN, 0);
    const struct virtio_hbuf again[] = {
        {f.header,  16,  false},
        { f.data,   512, true },
        { f.status, 1,   true }
    };
    assert_true(virtio_hq_add(f.q, again, 3) >= 0);
    virtio_hq_ring(f.q);
    assert_int_equal(loop_run_once(f.vh.h.env.loop, 0), 0);
    close_disk(&f);
}

/* A pause waits for what is under way; the used entries are there before stop() returns. */
static void test_stop_drains(void **state)
{
    struct fixture f;
    unsigned id;
    uint32_t len;
    set_up(&f, state, &(struct setup){ .fault = "fault:write=delay:50", .queues = 2 });
    put_header(&f, VIRTIO_BLK_T_OUT, 0);
    const struct virtio_hbuf bufs[] = {
        {f.header,  16,  false},
        { f.data,   512, false},
        { f.status, 1,   true }
    };
    for (unsigned i = 0; i < 2; i++) {
        assert_true(virtio_hq_add(f.vh.queue[i], bufs, 3) >= 0);
        virtio_hq_ring(f.vh.queue[i]);
    }
    assert_int_equal(loop_run_once(f.vh.h.env.loop, 0), 0);
    dev_stop(f.dev);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(virtio_hq_used(f.vh.queue[i], &id, &len));
        assert_int_equal(virtio_harness_irqs(&f.vh, i), 1);
    }
    dev_start(f.dev);
    close_disk(&f);
}

/* Many requests at once, on several queues, all with their own data. */
static void test_many(void **state)
{
    struct fixture f;
    enum { QUEUES = 4, EACH = 20, ROUNDS = 10 };
    set_up(&f, state, &(struct setup){ .queues = QUEUES, .features = F_ALL });
    uint64_t base = virtio_harness_alloc(&f.vh, QUEUES * EACH * 1024, 512);
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool write = round % 2 == 0;
        for (unsigned i = 0; i < QUEUES * EACH; i++) {
            uint64_t at = base + i * 1024;
            uint8_t *p = virtio_harness_ptr(&f.vh, at);
            le32_put(p, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
            le32_put(p + 4, 0);
            le64_put(p + 8, 8 * i);
            memset(p + 512, write ? (int)(i + round) : 0, 512);
            const struct virtio_hbuf bufs[] = {
                {at,        16,  false },
                { at + 512, 512, !write},
                { at + 16,  1,   true  }
            };
            assert_true(virtio_hq_add(f.vh.queue[i % QUEUES], bufs, 3) >= 0);
            if (i % 7 == 0 || i + QUEUES >= QUEUES * EACH) {
                (void)virtio_hq_kick(f.vh.queue[i % QUEUES]);
            }
        }
        for (unsigned i = 0; i < QUEUES * EACH; i++) {
            unsigned id;
            uint32_t len;
            assert_true(virtio_hq_wait(f.vh.queue[i % QUEUES], &id, &len));
        }
        for (unsigned i = 0; i < QUEUES * EACH; i++) {
            const uint8_t *p = virtio_harness_ptr(&f.vh, base + i * 1024);
            assert_int_equal(p[16], VIRTIO_BLK_S_OK);
            assert_int_equal(p[512], (uint8_t)(i + (write ? round : round - 1)));
            assert_int_equal(p[1023], p[512]);
        }
    }
    close_disk(&f);
}

struct attacked {
    const char *path;
    struct blk *blk;
    struct virtio_blk_params params;
};

static const void *attack_open(void *opaque)
{
    struct attacked *a = opaque;
    a->blk = open_ok(&(struct blk_opts){ .path = a->path, .format = "raw" });
    a->params = (struct virtio_blk_params){ .blk = a->blk, .num_queues = 2 };
    return &a->params;
}

static void attack_close(void *opaque)
{
    struct attacked *a = opaque;
    blk_close(a->blk);
}

static bool attack_works(struct virtio_harness *vh, void *opaque)
{
    (void)opaque;
    uint64_t p = virtio_harness_alloc(vh, 1024, 512);
    const struct virtio_hbuf bufs[] = {
        {p,        16,  false},
        { p + 512, 512, true },
        { p + 16,  1,   true }
    };
    le64_put(virtio_harness_ptr(vh, p + 8), 1);
    return virtio_hq_roundtrip(vh->queue[1], bufs, 3) == 513 &&
           *(uint8_t *)virtio_harness_ptr(vh, p + 16) == VIRTIO_BLK_S_OK;
}

static void test_attacks(void **state)
{
    struct attacked a = { .path = scratch_file(state, "disk.raw", "", DISK_SIZE) };
    const struct virtio_attack_target target = { .cls = &virtio_blk_class,
                                                 .open = attack_open,
                                                 .close = attack_close,
                                                 .opaque = &a,
                                                 .queue = 1,
                                                 .works = attack_works };
    assert_int_equal(virtio_attack_all(&target), 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        T(test_configuration),
        T(test_bad_parameters),
        T(test_read_write),
        T(test_odd_framing),
        T(test_discard_and_write_zeroes),
        T(test_get_id),
        T(test_refused_requests),
        T(test_broken_requests),
        T(test_error_reported),
        T(test_no_space_is_retried),
        T(test_write_through),
        T(test_reset_during_io),
        T(test_stop_drains),
        T(test_many),
        T(test_attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
