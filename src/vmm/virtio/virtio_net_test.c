/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/virtio/virtio_net.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/virtio_defs.h"
#include "spec/virtio_net_defs.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_harness.h"

#define HDR   ((uint32_t)sizeof(struct virtio_net_hdr))
#define QSIZE 64

/* A back end whose other ends are in `peer`. */
struct fake {
    struct netbe be;
    int peer[NETBE_MAX_QUEUES];
    unsigned offload;
    unsigned queues;
};

struct rig {
    struct virtio_harness vh;
    struct fake fake;
    struct dev *dev;
};

static int fake_set_offload(struct netbe *be, unsigned tun_flags)
{
    container_of(be, struct fake, be)->offload = tun_flags;
    return 0;
}

static int fake_set_queues(struct netbe *be, unsigned n)
{
    container_of(be, struct fake, be)->queues = n;
    return 0;
}

static const struct netbe_class fake_class = {
    .name = "fake",
    .set_offload = fake_set_offload,
    .set_queues = fake_set_queues,
};

static void rig_init(struct rig *r, unsigned queues, bool vnet_hdr)
{
    memset(r, 0, sizeof(*r));
    r->fake.be = (struct netbe){ .cls = &fake_class, .nqueues = queues, .sock = true };
    r->fake.be.vnet_hdr = vnet_hdr;
    r->fake.be.offloads = vnet_hdr ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0;
    for (unsigned i = 0; i < queues; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
        r->fake.be.fd[i] = pair[0];
        r->fake.peer[i] = pair[1];
    }
    virtio_harness_init(&r->vh, 8 * MIB);
    struct virtio_net_params p = {
        .be = &r->fake.be, .mac = {0x52, 0x54, 0, 0xaa, 0xbb, 0xcc},
             .mtu = 1400
    };
    r->dev = virtio_harness_add(&r->vh, &virtio_net_class, &p);
}

static void rig_done(struct rig *r)
{
    virtio_harness_done(&r->vh);
    for (unsigned i = 0; i < r->fake.be.nqueues; i++) {
        close(r->fake.be.fd[i]);
        if (r->fake.peer[i] >= 0) {
            close(r->fake.peer[i]);
        }
    }
}

static struct virtio_net_stats stats_of(struct rig *r)
{
    struct virtio_net_stats s;
    virtio_net_get_stats(r->dev, &s);
    return s;
}

static void make_frame(uint8_t *f, size_t len, uint8_t seed)
{
    for (size_t i = 0; i < len; i++) {
        f[i] = (uint8_t)(seed + i * 7);
    }
}

/* Offers a receive buffer of `len` bytes; returns its address. */
static uint64_t add_rx(struct virtio_hq *q, uint32_t len)
{
    uint64_t gpa = virtio_harness_alloc(q->vh, len, 1);
    assert_true(virtio_hq_add(q,
                              (struct virtio_hbuf[]){
                                  {gpa, len, true}
    },
                              1) >= 0);
    (void)virtio_hq_kick(q);
    return gpa;
}

static void send_frame(struct virtio_hq *q, const struct virtio_net_hdr *hdr, size_t len,
                       uint8_t seed)
{
    uint64_t gpa = virtio_harness_alloc(q->vh, HDR + len, 1);
    uint8_t *p = virtio_harness_ptr(q->vh, gpa);
    memcpy(p, hdr, HDR);
    make_frame(p + HDR, len, seed);
    struct virtio_hbuf bufs[] = {
        {gpa,        HDR,           false},
        { gpa + HDR, (uint32_t)len, false}
    };
    assert_true(virtio_hq_add(q, bufs, 2) >= 0);
    (void)virtio_hq_kick(q);
}

static const struct virtio_net_hdr plain = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };

static void configuration_and_features(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 4, true);
    uint64_t f = virtio_harness_offered(&r.vh);
    assert_true((f & BIT64(VIRTIO_NET_F_MQ)) && (f & BIT64(VIRTIO_NET_F_HOST_TSO4)) &&
                (f & BIT64(VIRTIO_NET_F_GUEST_CSUM)) && (f & BIT64(VIRTIO_NET_F_MTU)));
    assert_false(f & BIT64(VIRTIO_NET_F_HOST_UFO));
    assert_int_equal(virtio_harness_config_read(&r.vh, 0, 1), 0x52);
    assert_int_equal(virtio_harness_config_read(&r.vh, 5, 1), 0xcc);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_NET_CFG_STATUS, 2), 1);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_NET_CFG_MAX_PAIRS, 2), 4);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_NET_CFG_MTU, 2), 1400);
    rig_done(&r);
    rig_init(&r, 1, false);
    f = virtio_harness_offered(&r.vh);
    assert_false(f & BIT64(VIRTIO_NET_F_CSUM));
    assert_false(f & BIT64(VIRTIO_NET_F_GUEST_CSUM));
    assert_false(f & BIT64(VIRTIO_NET_F_MQ));
    rig_done(&r);
}

/* virtio 1.2 §5.1.3.1: features that need another one. */
static void features_without_their_base_are_refused(void **state)
{
    (void)state;
    static const uint64_t bad[] = {
        BIT64(VIRTIO_NET_F_GUEST_TSO4),
        BIT64(VIRTIO_NET_F_HOST_TSO6),
        BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_ECN),
        BIT64(VIRTIO_NET_F_MQ),
        BIT64(VIRTIO_NET_F_CTRL_MAC_ADDR),
    };
    struct rig r;
    rig_init(&r, 2, true);
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        (void)virtio_harness_negotiate(&r.vh, BIT64(VIRTIO_F_VERSION_1) | bad[i]);
        assert_false(virtio_harness_status(&r.vh) & VIRTIO_STATUS_FEATURES_OK);
    }
    (void)virtio_harness_negotiate(&r.vh, BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_NET_F_CTRL_VQ) |
                                              BIT64(VIRTIO_NET_F_MQ));
    assert_true(virtio_harness_status(&r.vh) & VIRTIO_STATUS_FEATURES_OK);
    rig_done(&r);
}

static void transmit(uint64_t ring, bool vnet)
{
    struct rig r;
    rig_init(&r, 1, vnet);
    virtio_harness_start(&r.vh, ring, QSIZE);
    uint8_t want[1500];
    uint8_t got[2048];
    size_t skip = vnet ? HDR : 0;
    for (unsigned i = 0; i < 200; i++) {
        size_t len = 14 + (i * 37) % 1486;
        send_frame(r.vh.queue[1], &plain, len, (uint8_t)i);
        unsigned id;
        uint32_t used;
        assert_true(virtio_hq_wait(r.vh.queue[1], &id, &used));
        assert_int_equal(used, 0);
        assert_int_equal(recv(r.fake.peer[0], got, sizeof(got), 0), len + skip);
        make_frame(want, len, (uint8_t)i);
        assert_memory_equal(got + skip, want, len);
    }
    assert_int_equal(stats_of(&r).tx_frames, 200);
    assert_int_equal(stats_of(&r).tx_dropped, 0);
    rig_done(&r);
}

static void transmit_split(void **state)
{
    (void)state;
    transmit(0, false);
    transmit(BIT64(VIRTIO_F_EVENT_IDX) | BIT64(VIRTIO_F_INDIRECT_DESC), true);
}

static void transmit_packed(void **state)
{
    (void)state;
    transmit(BIT64(VIRTIO_F_RING_PACKED), true);
    transmit(BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_EVENT_IDX), false);
}

static void receive(uint64_t features, bool vnet, uint32_t buf_len, size_t frame_len)
{
    struct rig r;
    rig_init(&r, 1, vnet);
    virtio_harness_start(&r.vh, features, QSIZE);
    struct virtio_hq *q = r.vh.queue[0];
    uint64_t gpa[QSIZE];
    unsigned need = (unsigned)((frame_len + HDR + buf_len - 1) / buf_len);
    uint8_t frame[HDR + 4096] = { 0 };
    size_t skip = vnet ? HDR : 0;
    for (unsigned turn = 0; turn < 5; turn++) {
        unsigned ids[QSIZE];
        for (unsigned i = 0; i < need; i++) {
            gpa[i] = virtio_harness_alloc(&r.vh, buf_len, 1);
            int id = virtio_hq_add(q,
                                   (struct virtio_hbuf[]){
                                       {gpa[i], buf_len, true}
            },
                                   1);
            assert_true(id >= 0);
            ids[i] = (unsigned)id;
        }
        (void)virtio_hq_kick(q);
        dev_harness_poll(&r.vh.h);
        make_frame(frame + skip, frame_len, (uint8_t)turn);
        assert_int_equal(send(r.fake.peer[0], frame, frame_len + skip, 0), frame_len + skip);
        uint8_t all[HDR + 4096 + 2048];
        size_t len = 0;
        for (unsigned i = 0; i < need; i++) {
            unsigned id;
            uint32_t used;
            assert_true(virtio_hq_wait(q, &id, &used));
            assert_int_equal(id, ids[i]);
            memcpy(all + len, virtio_harness_ptr(&r.vh, gpa[i]), used);
            len += used;
        }
        assert_int_equal(len, frame_len + HDR);
        assert_int_equal(le16_get(all + offsetof(struct virtio_net_hdr, num_buffers)), need);
        assert_memory_equal(all + HDR, frame + skip, frame_len);
    }
    assert_int_equal(stats_of(&r).rx_frames, 5);
    rig_done(&r);
}

static void receive_one_buffer(void **state)
{
    (void)state;
    receive(0, false, 2048, 1000);
    receive(0, true, 2048, 1000);
    receive(BIT64(VIRTIO_F_RING_PACKED), false, 1512 + HDR, 1512);
}

static void receive_merges_buffers(void **state)
{
    (void)state;
    receive(BIT64(VIRTIO_NET_F_MRG_RXBUF), false, 256, 4000);
    receive(BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_F_RING_PACKED), true, 300, 4000);
    receive(BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_F_EVENT_IDX), true, 100, 2000);
}

/* Frames stay in the back end while the guest has no buffer; none is lost or reordered. */
static void receive_waits_for_buffers(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, false);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_F_EVENT_IDX), QSIZE);
    uint8_t frame[600];
    for (unsigned i = 0; i < 20; i++) {
        make_frame(frame, sizeof(frame), (uint8_t)i);
        assert_int_equal(send(r.fake.peer[0], frame, sizeof(frame), 0), sizeof(frame));
        dev_harness_poll(&r.vh.h);
    }
    assert_int_equal(stats_of(&r).rx_frames, 0);
    struct virtio_hq *q = r.vh.queue[0];
    for (unsigned i = 0; i < 20; i++) {
        /* Two buffers a frame, one kick each: after the first the frame waits half fitted. */
        uint64_t a = add_rx(q, 400);
        dev_harness_poll(&r.vh.h);
        assert_int_equal(stats_of(&r).rx_frames, i);
        uint64_t b = add_rx(q, 400);
        unsigned id;
        uint32_t used;
        assert_true(virtio_hq_wait(q, &id, &used));
        assert_int_equal(used, 400);
        assert_true(virtio_hq_wait(q, &id, &used));
        assert_int_equal(used, sizeof(frame) + HDR - 400);
        make_frame(frame, sizeof(frame), (uint8_t)i);
        assert_memory_equal((uint8_t *)virtio_harness_ptr(&r.vh, a) + HDR, frame, 400 - HDR);
        assert_memory_equal(virtio_harness_ptr(&r.vh, b), frame + 400 - HDR,
                            sizeof(frame) - 400 + HDR);
    }
    assert_int_equal(stats_of(&r).rx_dropped, 0);
    assert_true(stats_of(&r).rx_stalls > 0);
    rig_done(&r);
}

static void receive_drops_what_cannot_fit(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, false);
    virtio_harness_start(&r.vh, 0, QSIZE);
    struct virtio_hq *q = r.vh.queue[0];
    uint8_t frame[1000];
    make_frame(frame, sizeof(frame), 1);
    (void)add_rx(q, 500);
    assert_int_equal(send(r.fake.peer[0], frame, 1000, 0), 1000);
    assert_int_equal(send(r.fake.peer[0], frame, 10, 0), 10); /* no Ethernet frame */
    assert_int_equal(send(r.fake.peer[0], frame, 400, 0), 400);
    unsigned id;
    uint32_t used;
    assert_true(virtio_hq_wait(q, &id, &used));
    assert_int_equal(used, 400 + HDR);
    assert_int_equal(stats_of(&r).rx_dropped, 2);
    rig_done(&r);
}

/* A full back end stops the queue without losing a frame; reading it starts it again. */
static void transmit_waits_for_the_back_end(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, false);
    int small = 4096;
    assert_int_equal(setsockopt(r.fake.be.fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    virtio_harness_start(&r.vh, 0, QSIZE);
    for (unsigned i = 0; i < 30; i++) {
        send_frame(r.vh.queue[1], &plain, 1000, (uint8_t)i);
    }
    dev_harness_poll(&r.vh.h);
    assert_int_equal(stats_of(&r).tx_stalls, 1);
    assert_true(stats_of(&r).tx_frames < 30);
    uint8_t got[2048];
    uint8_t want[1000];
    for (unsigned i = 0; i < 30; i++) {
        for (unsigned turn = 0; turn < 200 && recv(r.fake.peer[0], got, 2048, MSG_PEEK) < 0;
             turn++) {
            dev_harness_poll(&r.vh.h);
        }
        assert_int_equal(recv(r.fake.peer[0], got, sizeof(got), 0), 1000);
        make_frame(want, sizeof(want), (uint8_t)i);
        assert_memory_equal(got, want, sizeof(want));
    }
    dev_harness_poll(&r.vh.h);
    assert_int_equal(stats_of(&r).tx_frames, 30);
    assert_int_equal(stats_of(&r).tx_dropped, 0);
    rig_done(&r);
}

/* The header is checked against what was negotiated, and cleaned. */
static void transmit_headers(void **state)
{
    (void)state;
    static const struct {
        struct virtio_net_hdr hdr;
        bool ok;
    } rows[] = {
        {{ .flags = 1, .csum_start = 34, .csum_offset = 16 },                            true },
        { { .flags = 1, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1448 },        true },
        { { .flags = 0xff, .num_buffers = 77 },                                          true },
        { { .flags = 0, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4 },                          false},
        { { .flags = 1, .gso_type = VIRTIO_NET_HDR_GSO_TCPV6 },                          false}, /* not negotiated */
        { { .flags = 1, .gso_type = VIRTIO_NET_HDR_GSO_UDP },                            false},
        { { .flags = 1, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN }, false},
        { { .flags = 1, .gso_type = 2 },                                                 false},
        { { .flags = 1, .gso_type = 0x7f },                                              false},
    };
    struct rig r;
    rig_init(&r, 1, true);
    log_set_level(LOG_ERROR);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_HOST_TSO4), QSIZE);
    uint64_t dropped = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        send_frame(r.vh.queue[1], &rows[i].hdr, 100, 0);
        unsigned id;
        uint32_t used;
        assert_true(virtio_hq_wait(r.vh.queue[1], &id, &used));
        struct virtio_net_hdr got[20];
        ssize_t n = recv(r.fake.peer[0], got, sizeof(got), 0);
        assert_int_equal(n, rows[i].ok ? 112 : -1);
        dropped += !rows[i].ok;
        assert_int_equal(stats_of(&r).tx_dropped, dropped);
        if (rows[i].ok) {
            assert_int_equal(got[0].flags, 1);
            assert_int_equal(got[0].gso_size, rows[i].hdr.gso_size);
            assert_int_equal(got[0].num_buffers, 0);
        }
    }
    assert_true(r.vh.dev->guest_bugs > 0);
    rig_done(&r);
}

static void transmit_bad_lengths(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, false);
    log_set_level(LOG_ERROR);
    virtio_harness_start(&r.vh, 0, QSIZE);
    struct virtio_hq *q = r.vh.queue[1];
    uint64_t gpa = virtio_harness_alloc(&r.vh, 128 * KIB, 1);
    static const uint32_t lens[] = { 1, 11, 12, 25, 65536 + 30, 128 * 1024 };
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        struct virtio_hbuf b = { gpa, lens[i], false };
        assert_int_equal(virtio_hq_roundtrip(q, &b, 1), 0);
    }
    struct virtio_hbuf wrong = { gpa, 2000, true }; /* writable: no frame in it */
    assert_int_equal(virtio_hq_roundtrip(q, &wrong, 1), 0);
    assert_int_equal(stats_of(&r).tx_dropped, ARRAY_LEN(lens) + 1);
    assert_int_equal(stats_of(&r).tx_frames, 0);
    assert_false(virtio_harness_status(&r.vh) & VIRTIO_STATUS_NEEDS_RESET);
    rig_done(&r);
}

/* A frame in more pieces than the kernel takes at once. */
static void transmit_many_pieces(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, true);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_F_INDIRECT_DESC), 256);
    struct virtio_hq *q = r.vh.queue[1];
    uint64_t gpa = virtio_harness_alloc(&r.vh, 4096, 1);
    make_frame((uint8_t *)virtio_harness_ptr(&r.vh, gpa) + HDR, 1000, 3);
    struct virtio_hbuf bufs[250];
    for (unsigned i = 0; i < 250; i++) {
        bufs[i] = (struct virtio_hbuf){ gpa + i * 4, 4, false };
    }
    assert_int_equal(virtio_hq_roundtrip(q, bufs, 250), 0);
    uint8_t got[2048];
    assert_int_equal(recv(r.fake.peer[0], got, sizeof(got), 0), 1000);
    assert_memory_equal(got + HDR, (uint8_t *)virtio_harness_ptr(&r.vh, gpa) + HDR, 988);
    rig_done(&r);
}

static uint8_t ctrl(struct rig *r, unsigned queue, const void *data, uint32_t len)
{
    uint64_t gpa = virtio_harness_alloc(&r->vh, len + 1, 1);
    memcpy(virtio_harness_ptr(&r->vh, gpa), data, len);
    *((uint8_t *)virtio_harness_ptr(&r->vh, gpa) + len) = 0x55;
    struct virtio_hbuf bufs[] = {
        {gpa,        len, false},
        { gpa + len, 1,   true }
    };
    assert_int_equal(virtio_hq_roundtrip(r->vh.queue[queue], bufs, 2), 1);
    return *((uint8_t *)virtio_harness_ptr(&r->vh, gpa) + len);
}

#define ALL_CTRL                                                                                   \
    (BIT64(VIRTIO_NET_F_CTRL_VQ) | BIT64(VIRTIO_NET_F_CTRL_RX) |                                   \
     BIT64(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT64(VIRTIO_NET_F_MQ))

static void control_commands(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 4, false);
    virtio_harness_start(&r.vh, ALL_CTRL, QSIZE);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(r.fake.queues, 1);
    assert_int_equal(ctrl(&r, 8, "\0\0\1", 3), VIRTIO_NET_CTRL_OK);
    assert_int_equal(ctrl(&r, 8, "\0\1\0", 3), VIRTIO_NET_CTRL_OK);
    assert_int_equal(ctrl(&r, 8, "\0\1", 2), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\0\2\1", 3), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\2\0\1\0", 4), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\1", 1), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\1\1\2\3\4\5\6\7", 8), VIRTIO_NET_CTRL_OK);
    assert_int_equal(virtio_harness_config_read(&r.vh, 0, 1), 2);
    assert_int_equal(virtio_harness_config_read(&r.vh, 5, 1), 7);
    assert_int_equal(ctrl(&r, 8, "\1\1\2\3\4\5\6", 7), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\4\0\0\0", 4), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\4\0\5\0", 4), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\4\0\1\1", 4), VIRTIO_NET_CTRL_ERR);
    assert_int_equal(ctrl(&r, 8, "\4\0\3\0", 4), VIRTIO_NET_CTRL_OK);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(r.fake.queues, 3);
    rig_done(&r);
}

/* Without VIRTIO_NET_F_MQ the control queue is the third, whatever the device has (§5.1.2). */
static void control_queue_without_mq(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 4, false);
    virtio_harness_start(&r.vh, ALL_CTRL & ~BIT64(VIRTIO_NET_F_MQ), QSIZE);
    assert_int_equal(ctrl(&r, 2, "\0\0\1", 3), VIRTIO_NET_CTRL_OK);
    assert_int_equal(ctrl(&r, 2, "\4\0\2\0", 4), VIRTIO_NET_CTRL_ERR);
    rig_done(&r);
}

static void every_pair_carries_frames(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 4, true);
    virtio_harness_start(&r.vh, ALL_CTRL | BIT64(VIRTIO_F_RING_PACKED), QSIZE);
    assert_int_equal(ctrl(&r, 8, "\4\0\4\0", 4), VIRTIO_NET_CTRL_OK);
    dev_harness_poll(&r.vh.h);
    uint8_t frame[HDR + 64] = { 0 };
    unsigned id;
    uint32_t used;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t got[256];
        send_frame(r.vh.queue[2 * i + 1], &plain, 64, (uint8_t)i);
        assert_true(virtio_hq_wait(r.vh.queue[2 * i + 1], &id, &used));
        assert_int_equal(recv(r.fake.peer[i], got, sizeof(got), 0), HDR + 64);
        (void)add_rx(r.vh.queue[2 * i], 256);
        assert_int_equal(send(r.fake.peer[i], frame, sizeof(frame), 0), sizeof(frame));
        assert_true(virtio_hq_wait(r.vh.queue[2 * i], &id, &used));
        assert_int_equal(used, sizeof(frame));
    }
    /* Back to one pair by a reset. */
    virtio_harness_set_status(&r.vh, 0);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(r.fake.queues, 1);
    rig_done(&r);
}

static void offloads_follow_the_driver(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, true);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_TSO6),
                         QSIZE);
    assert_int_equal(r.fake.offload, 0); /* not on the vCPU's thread */
    dev_harness_poll(&r.vh.h);
    assert_int_equal(r.fake.offload, TUN_F_CSUM | TUN_F_TSO6);
    virtio_harness_set_status(&r.vh, 0);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(r.fake.offload, 0);
    rig_done(&r);
}

static void link_down_stops_frames_and_tells(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, false);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_NET_F_STATUS), QSIZE);
    dev_harness_poll(&r.vh.h);
    unsigned before = virtio_harness_irqs(&r.vh, r.vh.nqueues);
    virtio_net_set_link(r.dev, false);
    assert_int_equal(virtio_harness_irqs(&r.vh, r.vh.nqueues), before + 1);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_NET_CFG_STATUS, 2), 0);
    assert_false(virtio_net_link(r.dev));
    send_frame(r.vh.queue[1], &plain, 64, 0);
    (void)add_rx(r.vh.queue[0], 256);
    uint8_t got[256] = { 0 };
    assert_int_equal(send(r.fake.peer[0], got, 64, 0), 64);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(recv(r.fake.peer[0], got, sizeof(got), 0), -1);
    assert_int_equal(stats_of(&r).tx_dropped, 1);
    virtio_net_set_link(r.dev, true);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_NET_CFG_STATUS, 2), 1);
    assert_int_equal(stats_of(&r).rx_frames, 1);
    rig_done(&r);
}

static void back_end_that_ends_takes_the_link_down(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, false);
    log_set_level(LOG_ERROR);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_NET_F_STATUS), QSIZE);
    (void)add_rx(r.vh.queue[0], 256);
    dev_harness_poll(&r.vh.h);
    close(r.fake.peer[0]);
    r.fake.peer[0] = -1;
    dev_harness_poll(&r.vh.h);
    assert_false(virtio_net_link(r.dev));
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_NET_CFG_STATUS, 2), 0);
    send_frame(r.vh.queue[1], &plain, 64, 0);
    unsigned id;
    uint32_t used;
    assert_true(virtio_hq_wait(r.vh.queue[1], &id, &used));
    rig_done(&r);
}

/* While paused nothing moves; afterwards everything that waited does. */
static void pause_and_reset(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1, false);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_NET_F_MRG_RXBUF), QSIZE);
    dev_harness_poll(&r.vh.h);
    dev_stop(r.dev);
    uint8_t frame[64] = { 1 };
    (void)add_rx(r.vh.queue[0], 256);
    send_frame(r.vh.queue[1], &plain, 64, 0);
    assert_int_equal(send(r.fake.peer[0], frame, 64, 0), 64);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(stats_of(&r).tx_frames + stats_of(&r).rx_frames, 0);
    dev_start(r.dev);
    dev_harness_poll(&r.vh.h);
    assert_int_equal(stats_of(&r).tx_frames, 1);
    assert_int_equal(stats_of(&r).rx_frames, 1);

    /* A reset with a half fitted frame and a held buffer; then the device works again. */
    (void)add_rx(r.vh.queue[0], 32);
    assert_int_equal(send(r.fake.peer[0], frame, 64, 0), 64);
    dev_harness_poll(&r.vh.h);
    virtio_harness_set_status(&r.vh, 0);
    assert_int_equal(virtio_harness_status(&r.vh), 0);
    virtio_harness_forget(&r.vh);
    virtio_harness_start(&r.vh, 0, QSIZE);
    send_frame(r.vh.queue[1], &plain, 64, 0);
    unsigned id;
    uint32_t used;
    assert_true(virtio_hq_wait(r.vh.queue[1], &id, &used));
    assert_int_equal(stats_of(&r).tx_frames, 2);
    rig_done(&r);
}

static void no_back_end_drops_frames(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct netbe *be = NULL;
    struct virtio_harness vh;
    assert_int_equal(netbe_open(&(struct netbe_opts){ .kind = "none" }, &be, &err), 0);
    virtio_harness_init(&vh, 4 * MIB);
    struct dev *dev = virtio_harness_add(&vh, &virtio_net_class, &(struct virtio_net_params){ be });
    virtio_harness_start(&vh, 0, QSIZE);
    send_frame(vh.queue[1], &plain, 64, 0);
    unsigned id;
    uint32_t used;
    assert_true(virtio_hq_wait(vh.queue[1], &id, &used));
    struct virtio_net_stats s;
    virtio_net_get_stats(dev, &s);
    assert_int_equal(s.tx_dropped, 1);
    virtio_harness_done(&vh);
    netbe_close(be);
}

static void mac_addresses(void **state)
{
    (void)state;
    uint8_t a[6];
    uint8_t b[6];
    virtio_net_default_mac("web1", 0, a);
    virtio_net_default_mac("web1", 0, b);
    assert_memory_equal(a, b, 6);
    assert_memory_equal(a, "\x52\x54\x00", 3);
    virtio_net_default_mac("web1", 1, b);
    assert_memory_not_equal(a, b, 6);
    virtio_net_default_mac("web2", 0, b);
    assert_memory_not_equal(a, b, 6);

    struct err err = ERR_INIT;
    assert_int_equal(virtio_net_parse_mac("52:54:00:AB:cd:0f", a, &err), 0);
    assert_memory_equal(a, "\x52\x54\x00\xab\xcd\x0f", 6);
    static const char *const bad[] = {
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:5",
        "52:54:00:12:34:567",
        "52-54-00-12-34-56",
        "52:54:00:12:34:5g",
        "5 :54:00:12:34:56",
        "00:00:00:00:00:00",
        "53:54:00:12:34:56",
        "52:54:00:12:34:56 ",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(virtio_net_parse_mac(bad[i], a, &err), -EINVAL);
    }
}

struct attacked {
    struct fake fake;
    struct virtio_net_params params;
};

/* The back end has frames waiting, so that the receive queue is looked at as well. */
static const void *attack_open(void *opaque)
{
    struct attacked *a = opaque;
    int pair[2];
    uint8_t frame[HDR + 300] = { 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    a->fake.be = (struct netbe){
        .cls = &fake_class,
        .nqueues = 1,
        .fd = { pair[0] },
        .sock = true,
        .vnet_hdr = true,
        .offloads = TUN_F_CSUM | TUN_F_TSO4,
    };
    a->fake.peer[0] = pair[1];
    while (send(pair[1], frame, sizeof(frame), 0) > 0) {
    }
    a->params = (struct virtio_net_params){ .be = &a->fake.be };
    return &a->params;
}

static void attack_close(void *opaque)
{
    struct attacked *a = opaque;
    close(a->fake.be.fd[0]);
    close(a->fake.peer[0]);
}

static bool attack_works(struct virtio_harness *vh, void *opaque)
{
    struct attacked *a = opaque;
    uint8_t got[256];
    while (recv(a->fake.peer[0], got, sizeof(got), 0) > 0) {
    }
    send_frame(vh->queue[1], &plain, 64, 1);
    unsigned id;
    uint32_t used;
    return virtio_hq_wait(vh->queue[1], &id, &used) &&
           recv(a->fake.peer[0], got, sizeof(got), 0) == HDR + 64;
}

static void attacks(void **state)
{
    (void)state;
    struct attacked a = { 0 };
    log_set_level(LOG_ERROR);
    for (unsigned queue = 0; queue < 3; queue++) {
        const struct virtio_attack_target target = { .cls = &virtio_net_class,
                                                     .open = attack_open,
                                                     .close = attack_close,
                                                     .opaque = &a,
                                                     .queue = queue,
                                                     .works = attack_works };
        assert_int_equal(virtio_attack_all(&target), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration_and_features),
        cmocka_unit_test(features_without_their_base_are_refused),
        cmocka_unit_test(transmit_split),
        cmocka_unit_test(transmit_packed),
        cmocka_unit_test(receive_one_buffer),
        cmocka_unit_test(receive_merges_buffers),
        cmocka_unit_test(receive_waits_for_buffers),
        cmocka_unit_test(receive_drops_what_cannot_fit),
        cmocka_unit_test(transmit_waits_for_the_back_end),
        cmocka_unit_test(transmit_headers),
        cmocka_unit_test(transmit_bad_lengths),
        cmocka_unit_test(transmit_many_pieces),
        cmocka_unit_test(control_commands),
        cmocka_unit_test(control_queue_without_mq),
        cmocka_unit_test(every_pair_carries_frames),
        cmocka_unit_test(offloads_follow_the_driver),
        cmocka_unit_test(link_down_stops_frames_and_tells),
        cmocka_unit_test(back_end_that_ends_takes_the_link_down),
        cmocka_unit_test(pause_and_reset),
        cmocka_unit_test(no_back_end_drops_frames),
        cmocka_unit_test(mac_addresses),
        cmocka_unit_test(attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
