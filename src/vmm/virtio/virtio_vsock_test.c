/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/virtio/virtio_vsock.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/virtio_defs.h"
#include "spec/virtio_vsock_defs.h"
#include "vmm/net/unixsock.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_harness.h"

#define QSIZE  64
#define CID    5
#define HDR    VIRTIO_VSOCK_HDR_SIZE
#define CREDIT 65536 /* what the device gives */
#define RXBUF  4096

/* The guest's side is played here: packets by hand, receive buffers of 4 KiB as Linux has them. */
struct rig {
    struct virtio_harness vh;
    struct dev *dev;
    char dir[64];
    char path[96];
    uint64_t rx[QSIZE];
    unsigned rx_count;
    uint32_t fwd, alloc; /* in what the guest sends */
};

struct packet {
    uint32_t src_port, dst_port, len, flags, buf_alloc, fwd_cnt;
    uint16_t op;
    uint8_t data[RXBUF];
};

static void add_rx(struct rig *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t gpa = virtio_harness_alloc(&r->vh, RXBUF, 1);
        int id = virtio_hq_add(r->vh.queue[0],
                               (struct virtio_hbuf[]){
                                   {gpa, RXBUF, true}
        },
                               1);
        assert_true(id >= 0 && id < QSIZE);
        r->rx[id] = gpa;
    }
    (void)virtio_hq_kick(r->vh.queue[0]);
    dev_harness_poll(&r->vh.h);
}

static void rig_init(struct rig *r, uint64_t features, unsigned rx)
{
    memset(r, 0, sizeof(*r));
    r->alloc = 262144;
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/vsock_test.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    (void)snprintf(r->path, sizeof(r->path), "%s/v", r->dir);
    virtio_harness_init(&r->vh, 16 * MIB);
    struct virtio_vsock_params p = { .cid = CID, .path = r->path };
    r->dev = virtio_harness_add(&r->vh, &virtio_vsock_class, &p);
    virtio_harness_start(&r->vh, features, QSIZE);
    if (rx > 0) {
        add_rx(r, rx);
    }
}

static void rig_done(struct rig *r)
{
    virtio_harness_done(&r->vh);
    assert_int_equal(rmdir(r->dir), 0);
}

/* Sends a packet with any header; the payload is `data`. */
static void send_raw(struct rig *r, const uint8_t head[HDR], const void *data, uint32_t len)
{
    uint64_t gpa = virtio_harness_alloc(&r->vh, HDR + len, 1);
    uint8_t *p = virtio_harness_ptr(&r->vh, gpa);
    memcpy(p, head, HDR);
    memcpy(p + HDR, data, len);
    struct virtio_hbuf bufs[] = {
        {gpa,        HDR, false},
        { gpa + HDR, len, false}
    };
    assert_int_equal(virtio_hq_roundtrip(r->vh.queue[1], bufs, len > 0 ? 2 : 1), 0);
}

static void make_head(struct rig *r, uint8_t head[HDR], uint16_t op, uint32_t src, uint32_t dst,
                      uint32_t len)
{
    memset(head, 0, HDR);
    le64_put(head + VIRTIO_VSOCK_HDR_SRC_CID, CID);
    le64_put(head + VIRTIO_VSOCK_HDR_DST_CID, VIRTIO_VSOCK_CID_HOST);
    le32_put(head + VIRTIO_VSOCK_HDR_SRC_PORT, src);
    le32_put(head + VIRTIO_VSOCK_HDR_DST_PORT, dst);
    le32_put(head + VIRTIO_VSOCK_HDR_LEN, len);
    le16_put(head + VIRTIO_VSOCK_HDR_TYPE, VIRTIO_VSOCK_TYPE_STREAM);
    le16_put(head + VIRTIO_VSOCK_HDR_OP, op);
    le32_put(head + VIRTIO_VSOCK_HDR_BUF_ALLOC, r->alloc);
    le32_put(head + VIRTIO_VSOCK_HDR_FWD_CNT, r->fwd);
}

static void guest_sends(struct rig *r, uint16_t op, uint32_t src, uint32_t dst, const char *data,
                        uint32_t len)
{
    uint8_t head[HDR];
    make_head(r, head, op, src, dst, len);
    if (op == VIRTIO_VSOCK_OP_SHUTDOWN) { /* `len` carries the flags */
        le32_put(head + VIRTIO_VSOCK_HDR_LEN, 0);
        le32_put(head + VIRTIO_VSOCK_HDR_FLAGS, len);
        len = 0;
    }
    send_raw(r, head, data, len);
}

/* The next packet to the guest; its buffer is offered again. */
static bool guest_hears(struct rig *r, struct packet *p)
{
    unsigned id;
    uint32_t len;
    dev_harness_poll(&r->vh.h);
    if (!virtio_hq_used(r->vh.queue[0], &id, &len)) {
        return false;
    }
    const uint8_t *b = virtio_harness_ptr(&r->vh, r->rx[id]);
    assert_true(len >= HDR);
    assert_int_equal(le64_get(b + VIRTIO_VSOCK_HDR_SRC_CID), VIRTIO_VSOCK_CID_HOST);
    assert_int_equal(le64_get(b + VIRTIO_VSOCK_HDR_DST_CID), CID);
    assert_int_equal(le16_get(b + VIRTIO_VSOCK_HDR_TYPE), VIRTIO_VSOCK_TYPE_STREAM);
    p->src_port = le32_get(b + VIRTIO_VSOCK_HDR_SRC_PORT);
    p->dst_port = le32_get(b + VIRTIO_VSOCK_HDR_DST_PORT);
    p->len = le32_get(b + VIRTIO_VSOCK_HDR_LEN);
    p->flags = le32_get(b + VIRTIO_VSOCK_HDR_FLAGS);
    p->op = le16_get(b + VIRTIO_VSOCK_HDR_OP);
    p->buf_alloc = le32_get(b + VIRTIO_VSOCK_HDR_BUF_ALLOC);
    p->fwd_cnt = le32_get(b + VIRTIO_VSOCK_HDR_FWD_CNT);
    assert_int_equal(len, HDR + p->len);
    memcpy(p->data, b + HDR, p->len);
    int again = virtio_hq_add(r->vh.queue[0],
                              (struct virtio_hbuf[]){
                                  {r->rx[id], RXBUF, true}
    },
                              1);
    assert_true(again >= 0);
    r->rx[again] = r->rx[id];
    (void)virtio_hq_kick(r->vh.queue[0]);
    return true;
}

static void expect(struct rig *r, struct packet *p, uint16_t op, uint32_t src, uint32_t dst)
{
    assert_true(guest_hears(r, p));
    assert_int_equal(p->op, op);
    assert_int_equal(p->src_port, src);
    assert_int_equal(p->dst_port, dst);
}

/* A host program that asks for guest port `port`. */
static int host_asks(struct rig *r, const char *line)
{
    int fd = unixsock_connect(r->path);
    assert_true(fd >= 0);
    assert_int_equal(send(fd, line, strlen(line), 0), strlen(line));
    dev_harness_poll(&r->vh.h);
    return fd;
}

static ssize_t host_reads(struct rig *r, int fd, void *buf, size_t size)
{
    dev_harness_poll(&r->vh.h);
    return recv(fd, buf, size, MSG_DONTWAIT);
}

/* An open connection asked for by the host; returns the socket, *port is the host port. */
static int open_from_host(struct rig *r, uint32_t *port)
{
    struct packet p;
    char buf[64] = "";
    char want[64];
    int fd = host_asks(r, "CONNECT 1234\n");
    assert_true(guest_hears(r, &p));
    assert_int_equal(p.op, VIRTIO_VSOCK_OP_REQUEST);
    assert_int_equal(p.dst_port, 1234);
    assert_int_equal(p.buf_alloc, CREDIT);
    *port = p.src_port;
    assert_int_equal(host_reads(r, fd, buf, sizeof(buf)), -1);
    guest_sends(r, VIRTIO_VSOCK_OP_RESPONSE, 1234, *port, "", 0);
    assert_true(host_reads(r, fd, buf, sizeof(buf) - 1) > 0);
    (void)snprintf(want, sizeof(want), "OK %u\n", *port);
    assert_string_equal(buf, want);
    return fd;
}

/* The same by the guest, to host port 80. */
static int open_from_guest(struct rig *r, struct unixsock *listener, uint32_t guest_port)
{
    struct packet p;
    struct err err = ERR_INIT;
    char path[112];
    (void)snprintf(path, sizeof(path), "%s_80", r->path);
    assert_int_equal(unixsock_listen(listener, path, &err), 0);
    guest_sends(r, VIRTIO_VSOCK_OP_REQUEST, guest_port, 80, "", 0);
    expect(r, &p, VIRTIO_VSOCK_OP_RESPONSE, 80, guest_port);
    int fd = accept(listener->fd, NULL, NULL);
    assert_true(fd >= 0);
    return fd;
}

static void host_connects_and_talks(uint64_t features)
{
    struct rig r;
    struct packet p;
    uint32_t port;
    char buf[64];
    rig_init(&r, features, 8);
    assert_int_equal(virtio_harness_config_read(&r.vh, 0, 4), CID);
    int fd = open_from_host(&r, &port);
    assert_int_equal(virtio_vsock_conns(r.dev), 1);
    assert_int_equal(send(fd, "ping", 4, 0), 4);
    expect(&r, &p, VIRTIO_VSOCK_OP_RW, port, 1234);
    assert_int_equal(p.len, 4);
    assert_memory_equal(p.data, "ping", 4);
    guest_sends(&r, VIRTIO_VSOCK_OP_RW, 1234, port, "pong!", 5);
    assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "pong!", 5);
    close(fd);
    expect(&r, &p, VIRTIO_VSOCK_OP_SHUTDOWN, port, 1234);
    if (p.flags != VIRTIO_VSOCK_SHUTDOWN_BOTH) {
        expect(&r, &p, VIRTIO_VSOCK_OP_SHUTDOWN, port, 1234);
    }
    assert_int_equal(p.flags, VIRTIO_VSOCK_SHUTDOWN_BOTH);
    guest_sends(&r, VIRTIO_VSOCK_OP_RST, 1234, port, "", 0);
    assert_int_equal(virtio_vsock_conns(r.dev), 0);
    assert_false(guest_hears(&r, &p));
    rig_done(&r);
}

static void host_connects(void **state)
{
    (void)state;
    host_connects_and_talks(0);
    host_connects_and_talks(BIT64(VIRTIO_F_EVENT_IDX) | BIT64(VIRTIO_F_INDIRECT_DESC));
    host_connects_and_talks(BIT64(VIRTIO_F_RING_PACKED));
}

static void data_behind_the_line_is_kept(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    rig_init(&r, 0, 8);
    int fd = host_asks(&r, "CONNECT 7\nearly");
    assert_true(guest_hears(&r, &p));
    assert_int_equal(p.op, VIRTIO_VSOCK_OP_REQUEST);
    assert_false(guest_hears(&r, &p));
    guest_sends(&r, VIRTIO_VSOCK_OP_RESPONSE, 7, p.src_port, "", 0);
    assert_true(guest_hears(&r, &p));
    assert_int_equal(p.op, VIRTIO_VSOCK_OP_RW);
    assert_memory_equal(p.data, "early", 5);
    close(fd);
    rig_done(&r);
}

static void bad_lines_are_turned_away(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "connect 1\n",
        "CONNECT\n",
        "CONNECT x\n",
        "CONNECT 1x\n",
        "CONNECT 4294967296\n",
        "CONNECT 99999999999\n",
        "CONNECT -1\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT                                  1\n",
        "\n",
    };
    struct rig r;
    struct packet p;
    char buf[8];
    rig_init(&r, 0, 8);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int fd = host_asks(&r, bad[i]);
        ssize_t n = host_reads(&r, fd, buf, sizeof(buf));
        assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
        close(fd);
    }
    assert_false(guest_hears(&r, &p));
    assert_int_equal(virtio_vsock_conns(r.dev), 0);
    rig_done(&r);
}

static void guest_refuses(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    char buf[8];
    rig_init(&r, 0, 8);
    int fd = host_asks(&r, "CONNECT 9\r\n");
    assert_true(guest_hears(&r, &p));
    guest_sends(&r, VIRTIO_VSOCK_OP_RST, 9, p.src_port, "", 0);
    assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 0);
    close(fd);
    rig_done(&r);
}

static void guest_connects(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    struct unixsock listener;
    char buf[64];
    rig_init(&r, 0, 8);
    int fd = open_from_guest(&r, &listener, 5000);
    guest_sends(&r, VIRTIO_VSOCK_OP_RW, 5000, 80, "GET", 3);
    assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 3);
    assert_int_equal(send(fd, "200", 3, 0), 3);
    expect(&r, &p, VIRTIO_VSOCK_OP_RW, 80, 5000);
    assert_int_equal(p.fwd_cnt, 3);
    /* The guest is done sending; the host hears the end but may still answer. */
    guest_sends(&r, VIRTIO_VSOCK_OP_SHUTDOWN, 5000, 80, "", VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 0);
    assert_int_equal(send(fd, "late", 4, 0), 4);
    expect(&r, &p, VIRTIO_VSOCK_OP_RW, 80, 5000);
    assert_memory_equal(p.data, "late", 4);
    guest_sends(&r, VIRTIO_VSOCK_OP_SHUTDOWN, 5000, 80, "", VIRTIO_VSOCK_SHUTDOWN_BOTH);
    expect(&r, &p, VIRTIO_VSOCK_OP_RST, 80, 5000);
    assert_int_equal(virtio_vsock_conns(r.dev), 0);
    close(fd);
    unixsock_close(&listener);
    rig_done(&r);
}

static void host_half_closes(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    struct unixsock listener;
    char buf[8];
    rig_init(&r, 0, 8);
    int fd = open_from_guest(&r, &listener, 5000);
    assert_int_equal(send(fd, "end", 3, 0), 3);
    shutdown(fd, SHUT_WR);
    expect(&r, &p, VIRTIO_VSOCK_OP_RW, 80, 5000);
    expect(&r, &p, VIRTIO_VSOCK_OP_SHUTDOWN, 80, 5000);
    assert_int_equal(p.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
    guest_sends(&r, VIRTIO_VSOCK_OP_RW, 5000, 80, "ok", 2);
    assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 2);
    close(fd);
    expect(&r, &p, VIRTIO_VSOCK_OP_SHUTDOWN, 80, 5000);
    assert_int_equal(p.flags, VIRTIO_VSOCK_SHUTDOWN_BOTH);
    unixsock_close(&listener);
    rig_done(&r);
}

static void nobody_listens_on_the_host(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    rig_init(&r, 0, 8);
    guest_sends(&r, VIRTIO_VSOCK_OP_REQUEST, 5000, 81, "", 0);
    expect(&r, &p, VIRTIO_VSOCK_OP_RST, 81, 5000);
    guest_sends(&r, VIRTIO_VSOCK_OP_RW, 1, 2, "x", 1); /* no such connection */
    expect(&r, &p, VIRTIO_VSOCK_OP_RST, 2, 1);
    guest_sends(&r, VIRTIO_VSOCK_OP_RST, 1, 2, "", 0); /* and no RST for an RST */
    assert_false(guest_hears(&r, &p));
    rig_done(&r);
}

/* To the guest: never beyond its credit; a request for more, and on when it comes. */
static void credit_of_the_guest(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    struct unixsock listener;
    rig_init(&r, 0, 16);
    r.alloc = 10000;
    int fd = open_from_guest(&r, &listener, 5000);
    char big[50000];
    for (size_t i = 0; i < sizeof(big); i++) {
        big[i] = (char)(i % 101);
    }
    assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
    uint32_t got = 0;
    unsigned asked = 0;
    for (unsigned idle = 0; got < sizeof(big) && idle < 3;) {
        if (!guest_hears(&r, &p)) {
            assert_int_equal(got, r.fwd + r.alloc < sizeof(big) ? r.fwd + r.alloc : sizeof(big));
            assert_int_equal(asked, 1);
            asked = 0;
            r.fwd = got;
            guest_sends(&r, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 5000, 80, "", 0);
            idle++;
            continue;
        }
        idle = 0;
        asked += p.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST;
        if (p.op == VIRTIO_VSOCK_OP_RW) {
            assert_memory_equal(p.data, big + got, p.len);
            got += p.len;
            assert_true(got <= r.fwd + r.alloc);
        }
    }
    assert_int_equal(got, sizeof(big));
    close(fd);
    unixsock_close(&listener);
    rig_done(&r);
}

/* From the guest: the host reads nothing, the credit holds all; a byte more is a violation. */
static void credit_of_the_host(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    struct unixsock listener;
    rig_init(&r, 0, 8);
    log_set_level(LOG_ERROR);
    int fd = open_from_guest(&r, &listener, 5000);
    static char chunk[32768];
    uint32_t sent = 0;
    uint32_t fwd = 0;
    /* First what the kernel's socket takes, then exactly the credit. */
    while (sent - fwd < CREDIT) {
        for (uint32_t i = 0; i < sizeof(chunk); i++) {
            chunk[i] = (char)((sent + i) % 97);
        }
        uint32_t n = MIN((uint32_t)sizeof(chunk), CREDIT - (sent - fwd));
        guest_sends(&r, VIRTIO_VSOCK_OP_RW, 5000, 80, chunk, n);
        sent += n;
        guest_sends(&r, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 5000, 80, "", 0);
        while (guest_hears(&r, &p)) {
            fwd = p.fwd_cnt;
        }
        assert_true(sent < 8 * MIB);
        if (r.vh.next_alloc > 14 * MIB) {
            r.vh.next_alloc = 2 * MIB; /* payloads done with */
        }
    }
    /* The host reads: everything comes, in order, and the guest hears of new credit by itself. */
    uint32_t got = 0;
    bool update = false;
    while (got < sent) {
        static char buf[20000];
        ssize_t n = host_reads(&r, fd, buf, sizeof(buf));
        assert_true(n > 0);
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(buf[i], (char)((got + (uint32_t)i) % 97));
        }
        got += (uint32_t)n;
        while (guest_hears(&r, &p)) {
            update |= p.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && p.fwd_cnt > fwd;
        }
    }
    assert_true(update);
    assert_int_equal(virtio_vsock_conns(r.dev), 1);
    /* Now fill it again and go one byte too far. */
    for (uint32_t n = 0; n < 16 * MIB && virtio_vsock_conns(r.dev) > 0; n += sizeof(chunk)) {
        guest_sends(&r, VIRTIO_VSOCK_OP_RW, 5000, 80, chunk, sizeof(chunk));
        if (r.vh.next_alloc > 14 * MIB) {
            r.vh.next_alloc = 2 * MIB;
        }
    }
    bool rst = false;
    while (guest_hears(&r, &p)) {
        rst |= p.op == VIRTIO_VSOCK_OP_RST;
    }
    assert_true(rst);
    assert_int_equal(virtio_vsock_conns(r.dev), 0);
    assert_true(r.dev->guest_bugs > 0);
    close(fd);
    unixsock_close(&listener);
    rig_done(&r);
}

/* Without receive buffers nothing is lost: not what is due, not RSTs to nobody. */
static void no_receive_buffers(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    rig_init(&r, 0, 0);
    int fd = host_asks(&r, "CONNECT 1234\n");
    assert_int_equal(virtio_vsock_conns(r.dev), 1);
    unsigned answered = 0;
    for (uint32_t i = 0; i < 100; i++) {
        uint8_t head[HDR];
        uint64_t gpa = virtio_harness_alloc(&r.vh, HDR, 1);
        make_head(&r, head, VIRTIO_VSOCK_OP_RW, i, 99, 0);
        memcpy(virtio_harness_ptr(&r.vh, gpa), head, HDR);
        struct virtio_hbuf b = { gpa, HDR, false };
        unsigned id;
        uint32_t len;
        if (virtio_hq_add(r.vh.queue[1], &b, 1) >= 0) {
            (void)virtio_hq_kick(r.vh.queue[1]);
        }
        dev_harness_poll(&r.vh.h);
        answered += virtio_hq_used(r.vh.queue[1], &id, &len);
    }
    assert_int_equal(answered, 64); /* the ring of RSTs is full: the rest is left in the queue */
    add_rx(&r, 4);
    unsigned rst = 0;
    bool request = false;
    while (guest_hears(&r, &p)) {
        rst += p.op == VIRTIO_VSOCK_OP_RST;
        request |= p.op == VIRTIO_VSOCK_OP_REQUEST;
    }
    assert_true(request);
    assert_int_equal(rst, 100);
    close(fd);
    rig_done(&r);
}

static void bad_packets(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    uint8_t head[HDR];
    rig_init(&r, 0, 8);
    log_set_level(LOG_ERROR);
    /* Wrong source, payload longer than the chain, short header: dropped. */
    make_head(&r, head, VIRTIO_VSOCK_OP_REQUEST, 1, 2, 0);
    le64_put(head, CID + 1);
    send_raw(&r, head, "", 0);
    make_head(&r, head, VIRTIO_VSOCK_OP_RW, 1, 2, 100);
    send_raw(&r, head, "short", 5);
    make_head(&r, head, VIRTIO_VSOCK_OP_RW, 1, 2, UINT32_MAX);
    send_raw(&r, head, "short", 5);
    uint64_t gpa = virtio_harness_alloc(&r.vh, HDR, 1);
    struct virtio_hbuf b = { gpa, HDR - 1, false };
    assert_int_equal(virtio_hq_roundtrip(r.vh.queue[1], &b, 1), 0);
    assert_int_equal(r.dev->guest_bugs, 4);
    assert_false(guest_hears(&r, &p));
    /* Another destination or type: an RST. */
    make_head(&r, head, VIRTIO_VSOCK_OP_REQUEST, 1, 2, 0);
    le64_put(head + VIRTIO_VSOCK_HDR_DST_CID, 77);
    send_raw(&r, head, "", 0);
    expect(&r, &p, VIRTIO_VSOCK_OP_RST, 2, 1);
    make_head(&r, head, VIRTIO_VSOCK_OP_REQUEST, 1, 2, 0);
    le16_put(head + VIRTIO_VSOCK_HDR_TYPE, 2);
    send_raw(&r, head, "", 0);
    expect(&r, &p, VIRTIO_VSOCK_OP_RST, 2, 1);
    rig_done(&r);
}

/* Operations that do not belong to the state end the connection. */
static void operations_out_of_place(void **state)
{
    (void)state;
    static const uint16_t ops[] = { 0, VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, 8, 999 };
    struct rig r;
    struct packet p;
    uint32_t port;
    char buf[8];
    rig_init(&r, 0, 8);
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        int fd = open_from_host(&r, &port);
        guest_sends(&r, ops[i], 1234, port, "", 0);
        expect(&r, &p, VIRTIO_VSOCK_OP_RST, port, 1234);
        assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 0);
        assert_int_equal(virtio_vsock_conns(r.dev), 0);
        close(fd);
    }
    int fd = host_asks(&r, "CONNECT 1\n");
    assert_true(guest_hears(&r, &p));
    guest_sends(&r, VIRTIO_VSOCK_OP_RW, 1, p.src_port, "x", 1); /* before it accepted */
    assert_true(guest_hears(&r, &p));
    assert_int_equal(p.op, VIRTIO_VSOCK_OP_RST);
    close(fd);
    rig_done(&r);
}

static void connections_are_bounded(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    struct unixsock listener;
    int fd[VIRTIO_VSOCK_MAX_CONNS + 8];
    rig_init(&r, 0, 16);
    for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
        fd[i] = unixsock_connect(r.path); /* says nothing */
        assert_true(fd[i] >= 0);
        dev_harness_poll(&r.vh.h);
        assert_true(virtio_vsock_conns(r.dev) <= VIRTIO_VSOCK_MAX_CONNS);
    }
    /* The oldest silent ones have made room: the newest can still ask. */
    assert_int_equal(send(fd[ARRAY_LEN(fd) - 1], "CONNECT 1\n", 10, 0), 10);
    assert_true(guest_hears(&r, &p));
    assert_int_equal(p.op, VIRTIO_VSOCK_OP_REQUEST);
    /* The guest cannot push them out. */
    struct err err = ERR_INIT;
    char path[112];
    (void)snprintf(path, sizeof(path), "%s_80", r.path);
    assert_int_equal(unixsock_listen(&listener, path, &err), 0);
    guest_sends(&r, VIRTIO_VSOCK_OP_REQUEST, 5000, 80, "", 0);
    expect(&r, &p, VIRTIO_VSOCK_OP_RST, 80, 5000);
    for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
        close(fd[i]);
    }
    dev_harness_poll(&r.vh.h);
    assert_int_equal(virtio_vsock_conns(r.dev), 0);
    unixsock_close(&listener);
    rig_done(&r);
}

static void pause_and_reset(void **state)
{
    (void)state;
    struct rig r;
    struct packet p;
    uint32_t port;
    char buf[8];
    rig_init(&r, 0, 8);
    int fd = open_from_host(&r, &port);
    dev_stop(r.dev);
    assert_int_equal(send(fd, "wait", 4, 0), 4);
    assert_false(guest_hears(&r, &p));
    dev_start(r.dev);
    expect(&r, &p, VIRTIO_VSOCK_OP_RW, port, 1234);
    virtio_harness_set_status(&r.vh, 0);
    assert_int_equal(virtio_harness_status(&r.vh), 0);
    assert_int_equal(virtio_vsock_conns(r.dev), 0);
    assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 0);
    close(fd);
    fd = host_asks(&r, "CONNECT 1\n"); /* no driver: turned away */
    assert_int_equal(host_reads(&r, fd, buf, sizeof(buf)), 0);
    close(fd);
    virtio_harness_forget(&r.vh);
    virtio_harness_start(&r.vh, 0, QSIZE);
    add_rx(&r, 4);
    fd = open_from_host(&r, &port);
    close(fd);
    rig_done(&r);
}

static void bad_parameters(void **state)
{
    (void)state;
    static const uint64_t cids[] = { 0, 1, 2, UINT32_MAX, BIT64(32), UINT64_MAX };
    struct virtio_harness vh;
    struct dev *dev = NULL;
    virtio_harness_init(&vh, 1 * MIB);
    for (size_t i = 0; i < ARRAY_LEN(cids); i++) {
        struct err err = ERR_INIT;
        struct virtio_vsock_params p = { .cid = cids[i], .path = "/tmp/vsock_test_never" };
        assert_int_equal(dev_new(&vh.h.env, &virtio_vsock_class, "v", &p, &dev, &err), -EINVAL);
        assert_non_null(strstr(err.msg, "3 to 4294967294"));
    }
    struct err err = ERR_INIT;
    struct virtio_vsock_params p = { .cid = 3, .path = "/tmp" };
    assert_int_equal(dev_new(&vh.h.env, &virtio_vsock_class, "v", &p, &dev, &err), -EEXIST);
    virtio_harness_done(&vh);
}

/* A refused packet must be answered. */
static bool attack_works(struct virtio_harness *vh, void *opaque)
{
    struct rig r = { .alloc = 1 };
    uint8_t head[HDR];
    unsigned id;
    uint32_t len;
    (void)opaque;
    make_head(&r, head, VIRTIO_VSOCK_OP_RW, 1, 2, 0);
    uint64_t gpa = virtio_harness_alloc(vh, HDR, 1);
    memcpy(virtio_harness_ptr(vh, gpa), head, HDR);
    struct virtio_hbuf in = { virtio_harness_alloc(vh, 256, 1), 256, true };
    struct virtio_hbuf out = { gpa, HDR, false };
    return virtio_hq_add(vh->queue[0], &in, 1) >= 0 && virtio_hq_kick(vh->queue[0]) &&
           virtio_hq_roundtrip(vh->queue[1], &out, 1) == 0 &&
           virtio_hq_wait(vh->queue[0], &id, &len) && len == HDR;
}

static void attacks(void **state)
{
    (void)state;
    char dir[] = "/tmp/vsock_test.XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/v", dir);
    const struct virtio_vsock_params p = { .cid = CID, .path = path };
    log_set_level(LOG_ERROR);
    for (unsigned queue = 0; queue < 3; queue++) {
        const struct virtio_attack_target target = { .cls = &virtio_vsock_class,
                                                     .params = &p,
                                                     .queue = queue,
                                                     .idle = queue != 1,
                                                     .works = attack_works };
        assert_int_equal(virtio_attack_all(&target), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_connects),
        cmocka_unit_test(data_behind_the_line_is_kept),
        cmocka_unit_test(bad_lines_are_turned_away),
        cmocka_unit_test(guest_refuses),
        cmocka_unit_test(guest_connects),
        cmocka_unit_test(host_half_closes),
        cmocka_unit_test(nobody_listens_on_the_host),
        cmocka_unit_test(credit_of_the_guest),
        cmocka_unit_test(credit_of_the_host),
        cmocka_unit_test(no_receive_buffers),
        cmocka_unit_test(bad_packets),
        cmocka_unit_test(operations_out_of_place),
        cmocka_unit_test(connections_are_bounded),
        cmocka_unit_test(pause_and_reset),
        cmocka_unit_test(bad_parameters),
        cmocka_unit_test(attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
