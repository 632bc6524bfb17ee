/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <linux/fuse.h>

#include "spec/virtio_defs.h"
#include "spec/virtio_fs_defs.h"
#include "vmm/fs/share_wire.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_fs.h"
#include "vmm/virtio/virtio_harness.h"

/* The test is the server. */
struct fx {
    struct virtio_harness vh;
    struct virtio_fs_params params;
    int server;
    uint64_t buf;
};

static void sockets(struct virtio_fs_params *params, int *ret_server)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
                     0);
    *params = (struct virtio_fs_params){ .tag = "home", .fd = pair[0] };
    *ret_server = pair[1];
}

static void begin(struct fx *f, uint64_t features)
{
    sockets(&f->params, &f->server);
    virtio_harness_init(&f->vh, 1 * MIB);
    (void)virtio_harness_add(&f->vh, &virtio_fs_class, &f->params);
    virtio_harness_start(&f->vh, features, 64);
    f->buf = virtio_harness_alloc(&f->vh, 256 * KIB, 4096);
    dev_harness_poll(&f->vh.h);
}

static void end(struct fx *f)
{
    virtio_harness_done(&f->vh);
    close(f->params.fd);
    if (f->server >= 0) {
        close(f->server);
    }
}

/* A request of 40 bytes with this number, room for `room` bytes behind it. */
static void request(struct fx *f, unsigned queue, uint32_t unique, uint32_t room)
{
    struct fuse_in_header in = { .len = sizeof(in), .opcode = FUSE_STATFS, .unique = unique };
    uint64_t at = f->buf + (uint64_t)unique * 1024;
    memcpy(virtio_harness_ptr(&f->vh, at), &in, sizeof(in));
    const struct virtio_hbuf bufs[] = {
        {at,        sizeof(in), false},
        { at + 512, room,       true }
    };
    assert_true(virtio_hq_add(f->vh.queue[queue], bufs, room > 0 ? 2 : 1) >= 0);
    (void)virtio_hq_kick(f->vh.queue[queue]);
    dev_harness_poll(&f->vh.h);
}

static ssize_t take(struct fx *f, struct share_wire_head *head, struct fuse_in_header *in)
{
    uint8_t buf[SHARE_WIRE_MAX];
    ssize_t n = recv(f->server, buf, sizeof(buf), 0);
    if (n >= (ssize_t)(sizeof(*head) + sizeof(*in))) {
        memcpy(head, buf, sizeof(*head));
        memcpy(in, buf + sizeof(*head), sizeof(*in));
    }
    return n;
}

static void answer(struct fx *f, uint32_t slot, const char *text)
{
    uint8_t buf[64];
    struct share_wire_head head = { .slot = slot };
    memcpy(buf, &head, sizeof(head));
    memcpy(buf + sizeof(head), text, strlen(text));
    size_t len = sizeof(head) + strlen(text);
    assert_int_equal(send(f->server, buf, len, 0), len);
    dev_harness_poll(&f->vh.h);
}

static void test_config(void **state)
{
    (void)state;
    struct fx f;
    begin(&f, 0);
    const char tag[8] = "home";
    for (unsigned i = 0; i < sizeof(tag); i++) {
        assert_int_equal(virtio_harness_config_read(&f.vh, i, 1), (uint8_t)tag[i]);
    }
    assert_int_equal(virtio_harness_config_read(&f.vh, VIRTIO_FS_CFG_QUEUES, 4), 1);
    const struct virtio_fs_params long_tag = { .tag = "1234567890123456789012345678901234567" };
    struct err err = ERR_INIT;
    struct dev *dev;
    assert_int_equal(dev_new(&f.vh.h.env, &virtio_fs_class, "s", &long_tag, &dev, &err), -EINVAL);
    end(&f);
}

/* Answers in another order than the requests, each to its own; from both queues. */
static void test_round_trip(void **state)
{
    (void)state;
    static const uint64_t layouts[] = { 0,
                                        BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_EVENT_IDX) };
    for (unsigned c = 0; c < ARRAY_LEN(layouts); c++) {
        struct fx f;
        struct share_wire_head head[2];
        struct fuse_in_header in;
        unsigned id;
        uint32_t len;
        begin(&f, layouts[c]);
        request(&f, 1, 1, 100);
        request(&f, 0, 2, 5);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(take(&f, &head[i], &in), sizeof(*head) + sizeof(in));
            assert_int_equal(in.unique, i + 1);
            assert_int_equal(head[i].room, i == 0 ? 100 : 5);
        }
        answer(&f, head[1].slot, "longer than its room");
        assert_true(virtio_hq_wait(f.vh.queue[0], &id, &len));
        assert_int_equal(len, 5);
        assert_memory_equal(virtio_harness_ptr(&f.vh, f.buf + 2048 + 512), "longe\0", 6);
        assert_false(virtio_hq_used(f.vh.queue[1], &id, &len));
        answer(&f, head[0].slot, "one");
        assert_true(virtio_hq_wait(f.vh.queue[1], &id, &len));
        assert_int_equal(len, 3);
        answer(&f, head[0].slot, "again"); /* nobody's */
        answer(&f, 12345, "what");
        assert_false(virtio_hq_used(f.vh.queue[1], &id, &len));
        request(&f, 0, 3, 0); /* FORGET has no answer */
        assert_true(virtio_hq_wait(f.vh.queue[0], &id, &len));
        assert_int_equal(len, 0);
        assert_int_equal(virtio_fs_served(f.vh.dev), 3);
        end(&f);
    }
}

/* An answer to a guest before the reset is nothing to the guest after it. */
static void test_reset(void **state)
{
    (void)state;
    struct fx f;
    struct share_wire_head head;
    struct fuse_in_header in;
    unsigned id;
    uint32_t len;
    begin(&f, 0);
    request(&f, 1, 1, 100);
    assert_true(take(&f, &head, &in) > 0);
    virtio_harness_set_status(&f.vh, 0);
    dev_harness_poll(&f.vh.h);
    assert_int_equal(virtio_harness_status(&f.vh), 0);
    virtio_harness_forget(&f.vh);
    virtio_harness_start(&f.vh, 0, 64);
    f.buf = virtio_harness_alloc(&f.vh, 64 * KIB, 4096);
    request(&f, 1, 2, 100);
    answer(&f, head.slot, "old");
    assert_false(virtio_hq_used(f.vh.queue[1], &id, &len));
    assert_true(take(&f, &head, &in) > 0);
    assert_int_equal(in.unique, 2);
    answer(&f, head.slot, "new");
    assert_true(virtio_hq_wait(f.vh.queue[1], &id, &len));
    assert_int_equal(len, 3);
    end(&f);
}

/* While paused no memory of the guest is touched; the answer comes when it goes on. */
static void test_pause(void **state)
{
    (void)state;
    struct fx f;
    struct share_wire_head head;
    struct fuse_in_header in;
    unsigned id;
    uint32_t len;
    begin(&f, 0);
    request(&f, 1, 1, 100);
    assert_true(take(&f, &head, &in) > 0);
    dev_stop(f.vh.dev);
    answer(&f, head.slot, "one");
    assert_int_equal(*(char *)virtio_harness_ptr(&f.vh, f.buf + 1024 + 512), 0);
    dev_start(f.vh.dev);
    assert_true(virtio_hq_wait(f.vh.queue[1], &id, &len));
    assert_int_equal(len, 3);
    end(&f);
}

/* A server that does not read: the queue waits and nothing is lost. */
static void test_full(void **state)
{
    (void)state;
    struct fx f;
    struct share_wire_head head;
    struct fuse_in_header in;
    unsigned sent = 0;
    unsigned answered = 0;
    unsigned id;
    uint32_t len;
    begin(&f, 0);
    const int few = 1; /* the kernel makes it a few KiB: a handful of packets */
    assert_int_equal(setsockopt(f.params.fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof(few)), 0);
    for (; sent < 30; sent++) {
        request(&f, 1, sent, 100);
    }
    for (; sent < 62; sent++) { /* more than slots */
        struct fuse_in_header h = { .unique = sent };
        memcpy(virtio_harness_ptr(&f.vh, f.buf + sent * 1024), &h, sizeof(h));
        const struct virtio_hbuf bufs[] = {
            {f.buf + sent * 1024, 512, false}
        };
        if (virtio_hq_add(f.vh.queue[0], bufs, 1) < 0) {
            break;
        }
    }
    (void)virtio_hq_kick(f.vh.queue[0]);
    for (unsigned i = 0; i < 500 && answered < sent; i++) {
        if (take(&f, &head, &in) > 0 && head.room > 0) {
            answer(&f, head.slot, "x");
        }
        dev_harness_poll(&f.vh.h);
        answered += virtio_hq_used(f.vh.queue[1], &id, &len) ? 1 : 0;
        answered += virtio_hq_used(f.vh.queue[0], &id, &len) ? 1 : 0;
    }
    assert_int_equal(answered, sent);
    end(&f);
}

static void test_server_ends(void **state)
{
    (void)state;
    struct fx f;
    struct fuse_out_header out;
    unsigned id;
    uint32_t len;
    begin(&f, 0);
    request(&f, 1, 1, 100);
    close(f.server);
    f.server = -1;
    assert_true(virtio_hq_wait(f.vh.queue[1], &id, &len));
    request(&f, 1, 2, 100); /* and all that come after */
    assert_true(virtio_hq_wait(f.vh.queue[1], &id, &len));
    assert_int_equal(len, sizeof(out));
    memcpy(&out, virtio_harness_ptr(&f.vh, f.buf + 2048 + 512), sizeof(out));
    assert_int_equal(out.error, -ENOTCONN);
    assert_int_equal(out.unique, 2);
    end(&f);
}

/* ---- Attacks ---- */

static int attack_server = -1;

static const void *attack_open(void *opaque)
{
    struct virtio_fs_params *params = opaque;
    sockets(params, &attack_server);
    return params;
}

static void attack_close(void *opaque)
{
    struct virtio_fs_params *params = opaque;
    close(params->fd);
    close(attack_server);
}

static bool attack_works(struct virtio_harness *vh, void *opaque)
{
    struct fx f = { .server = attack_server };
    struct share_wire_head head;
    struct fuse_in_header in = { .unique = 0 };
    unsigned id;
    uint32_t len;
    uint64_t buf = virtio_harness_alloc(vh, 4096, 4096);
    (void)opaque;
    in.unique = 4711;
    memcpy(virtio_harness_ptr(vh, buf), &in, sizeof(in));
    const struct virtio_hbuf bufs[] = {
        {buf,        sizeof(in), false},
        { buf + 512, 100,        true }
    };
    if (virtio_hq_add(vh->queue[VIRTIO_FS_QUEUE_REQUEST], bufs, 2) < 0) {
        return false;
    }
    virtio_hq_ring(vh->queue[VIRTIO_FS_QUEUE_REQUEST]);
    dev_harness_poll(&vh->h);
    in.unique = 0;
    while (in.unique != 4711 && take(&f, &head, &in) > 0) {
    }
    struct share_wire_head reply = { .slot = head.slot };
    return in.unique == 4711 && send(f.server, &reply, sizeof(reply), 0) > 0 &&
           virtio_hq_wait(vh->queue[VIRTIO_FS_QUEUE_REQUEST], &id, &len);
}

static void test_attacks(void **state)
{
    (void)state;
    struct virtio_fs_params params;
    const struct virtio_attack_target target = { .cls = &virtio_fs_class,
                                                 .open = attack_open,
                                                 .close = attack_close,
                                                 .opaque = &params,
                                                 .queue = VIRTIO_FS_QUEUE_REQUEST,
                                                 .works = attack_works };
    assert_int_equal(virtio_attack_all(&target), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),  cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_reset),   cmocka_unit_test(test_pause),
        cmocka_unit_test(test_full),    cmocka_unit_test(test_server_ends),
        cmocka_unit_test(test_attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
