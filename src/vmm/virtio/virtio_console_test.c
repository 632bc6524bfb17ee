/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/virtio/virtio_console.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/virtio_console_defs.h"
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_attack.h"
#include "vmm/virtio/virtio_harness.h"

#define QSIZE 32
#define MULTI BIT64(VIRTIO_CONSOLE_F_MULTIPORT)

/* A device whose ports are Unix sockets; the peers are played by the test. */
struct rig {
    struct virtio_harness vh;
    struct dev *dev;
    char dir[64];
    unsigned nports;
    struct chr *chr[3];
    int peer[3];
};

static int connect_peer(struct rig *r, unsigned i)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    const char *path = chr_name(r->chr[i]) + strlen("unix:");
    assert_true(strlen(path) < sizeof(sa.sun_path));
    memcpy(sa.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    dev_harness_poll(&r->vh.h);
    return fd;
}

static void rig_init(struct rig *r, unsigned nports)
{
    static const char *const names[] = { "", "org.posada.agent", "second" };
    memset(r, 0, sizeof(*r));
    r->nports = nports;
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/console_test.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    virtio_harness_init(&r->vh, 4 * MIB);
    struct virtio_console_port_params port[3] = { 0 };
    for (unsigned i = 0; i < nports; i++) {
        char spec[100];
        struct err err = ERR_INIT;
        (void)snprintf(spec, sizeof(spec), "unix:%s/%u", r->dir, i);
        assert_int_equal(chr_open(spec, r->vh.h.env.loop, NULL, NULL, &r->chr[i], &err), 0);
        port[i].chr = r->chr[i];
        port[i].name = names[i];
        r->peer[i] = -1;
    }
    struct virtio_console_params p = { .nports = nports, .port = port };
    r->dev = virtio_harness_add(&r->vh, &virtio_console_class, &p);
}

static void rig_done(struct rig *r)
{
    dev_free(r->dev); /* before the back ends; the harness frees what is left */
    for (unsigned i = 0; i < r->nports; i++) {
        if (r->peer[i] >= 0) {
            close(r->peer[i]);
        }
        chr_close(r->chr[i]);
    }
    virtio_harness_done(&r->vh);
    assert_int_equal(rmdir(r->dir), 0);
}

static void add_rx(struct virtio_hq *q, uint64_t gpa, uint32_t len)
{
    assert_true(virtio_hq_add(q,
                              (struct virtio_hbuf[]){
                                  {gpa, len, true}
    },
                              1) >= 0);
    (void)virtio_hq_kick(q);
    dev_harness_poll(&q->vh->h);
}

static void guest_writes(struct virtio_hq *q, const char *text)
{
    uint64_t gpa = virtio_harness_alloc(q->vh, strlen(text), 1);
    memcpy(virtio_harness_ptr(q->vh, gpa), text, strlen(text));
    struct virtio_hbuf b = { gpa, (uint32_t)strlen(text), false };
    assert_int_equal(virtio_hq_roundtrip(q, &b, 1), 0);
}

static void expect_peer(struct rig *r, unsigned i, const char *text)
{
    char buf[256] = "";
    dev_harness_poll(&r->vh.h);
    assert_int_equal(read(r->peer[i], buf, sizeof(buf) - 1), strlen(text));
    assert_string_equal(buf, text);
}

static void expect_guest(struct rig *r, struct virtio_hq *q, uint64_t gpa, const char *text)
{
    unsigned id;
    uint32_t len;
    assert_true(virtio_hq_wait(q, &id, &len));
    assert_int_equal(len, strlen(text));
    assert_memory_equal(virtio_harness_ptr(&r->vh, gpa), text, len);
}

static void single_port_both_ways(uint64_t ring)
{
    struct rig r;
    rig_init(&r, 1);
    assert_int_equal(r.vh.nqueues, 2);
    assert_false(virtio_harness_offered(&r.vh) & MULTI);
    virtio_harness_start(&r.vh, ring, QSIZE);
    guest_writes(r.vh.queue[1], "nobody listens");
    r.peer[0] = connect_peer(&r, 0);
    guest_writes(r.vh.queue[1], "hello");
    expect_peer(&r, 0, "hello");
    /* Typed ahead: kept until the driver has buffers, and split over them. */
    assert_int_equal(write(r.peer[0], "abcdef", 6), 6);
    dev_harness_poll(&r.vh.h);
    uint64_t a = virtio_harness_alloc(&r.vh, 4, 1);
    uint64_t b = virtio_harness_alloc(&r.vh, 4, 1);
    add_rx(r.vh.queue[0], a, 4);
    expect_guest(&r, r.vh.queue[0], a, "abcd");
    add_rx(r.vh.queue[0], b, 4);
    expect_guest(&r, r.vh.queue[0], b, "ef");
    add_rx(r.vh.queue[0], a, 4);
    assert_int_equal(write(r.peer[0], "g", 1), 1);
    expect_guest(&r, r.vh.queue[0], a, "g");
    rig_done(&r);
}

static void single_port(void **state)
{
    (void)state;
    single_port_both_ways(0);
    single_port_both_ways(BIT64(VIRTIO_F_EVENT_IDX));
    single_port_both_ways(BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_EVENT_IDX));
}

/* The size of the terminal without multiport: in the configuration. */
static void size_in_configuration(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1);
    virtio_harness_start(&r.vh, BIT64(VIRTIO_CONSOLE_F_SIZE), QSIZE);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_CONSOLE_CFG_MAX_PORTS, 4), 1);
    unsigned before = virtio_harness_irqs(&r.vh, r.vh.nqueues);
    virtio_console_resize(r.dev, 0, 132, 50);
    virtio_console_resize(r.dev, 9, 1, 1); /* no such port: nothing */
    assert_int_equal(virtio_harness_irqs(&r.vh, r.vh.nqueues), before + 1);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_CONSOLE_CFG_COLS, 2), 132);
    assert_int_equal(virtio_harness_config_read(&r.vh, VIRTIO_CONSOLE_CFG_ROWS, 2), 50);
    rig_done(&r);
}

struct message {
    uint32_t id;
    uint16_t event;
    uint16_t value;
    uint8_t more[64];
    uint32_t more_len;
};

/* Receives one control message; false: none comes. */
static bool control_in(struct rig *r, struct message *m)
{
    struct virtio_hq *q = r->vh.queue[2];
    uint64_t gpa = virtio_harness_alloc(&r->vh, 128, 1);
    unsigned id;
    uint32_t len;
    add_rx(q, gpa, 128);
    if (!virtio_hq_used(q, &id, &len)) {
        return false;
    }
    const uint8_t *p = virtio_harness_ptr(&r->vh, gpa);
    assert_true(len >= 8);
    *m = (struct message){ le32_get(p), le16_get(p + 4), le16_get(p + 6), { 0 }, len - 8 };
    memcpy(m->more, p + 8, m->more_len);
    return true;
}

static void expect_control(struct rig *r, uint32_t id, uint16_t event, uint16_t value,
                           const void *more, uint32_t more_len)
{
    struct message m;
    assert_true(control_in(r, &m));
    assert_int_equal(m.id, id);
    assert_int_equal(m.event, event);
    assert_int_equal(m.value, value);
    assert_int_equal(m.more_len, more_len);
    assert_memory_equal(m.more, more, more_len);
}

static void control_out(struct rig *r, uint32_t id, uint16_t event, uint16_t value)
{
    uint64_t gpa = virtio_harness_alloc(&r->vh, 8, 1);
    uint8_t *p = virtio_harness_ptr(&r->vh, gpa);
    le32_put(p, id);
    le16_put(p + 4, event);
    le16_put(p + 6, value);
    struct virtio_hbuf b = { gpa, 8, false };
    assert_int_equal(virtio_hq_roundtrip(r->vh.queue[3], &b, 1), 0);
}

static void introduce_ports(struct rig *r)
{
    control_out(r, UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (unsigned i = 0; i < r->nports; i++) {
        expect_control(r, i, VIRTIO_CONSOLE_DEVICE_ADD, 1, "", 0);
    }
    control_out(r, 0, VIRTIO_CONSOLE_PORT_READY, 1);
    expect_control(r, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, "", 0);
    expect_control(r, 0, VIRTIO_CONSOLE_PORT_OPEN, 1, "", 0);
    control_out(r, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect_control(r, 1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.posada.agent", 16);
    expect_control(r, 1, VIRTIO_CONSOLE_PORT_OPEN, 0, "", 0);
}

static void ports_are_introduced(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 3);
    virtio_harness_start(&r.vh, MULTI, QSIZE);
    assert_int_equal(r.vh.nqueues, 8);
    introduce_ports(&r);
    virtio_console_resize(r.dev, 0, 0x1234, 0x50);
    expect_control(&r, 0, VIRTIO_CONSOLE_RESIZE, 1, "\x34\x12\x50\x00", 4);
    r.peer[1] = connect_peer(&r, 1);
    expect_control(&r, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, "", 0);
    /* Comings and goings while the driver has no buffer: only the last state is told. */
    close(r.peer[1]);
    dev_harness_poll(&r.vh.h);
    r.peer[1] = connect_peer(&r, 1);
    close(r.peer[1]);
    r.peer[1] = -1;
    struct message m;
    while (control_in(&r, &m)) {
        assert_int_equal(m.id, 1);
    }
    rig_done(&r);
}

static void channel_carries_bytes_while_open(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2);
    virtio_harness_start(&r.vh, MULTI, QSIZE);
    introduce_ports(&r);
    r.peer[1] = connect_peer(&r, 1);
    guest_writes(r.vh.queue[5], "to host");
    expect_peer(&r, 1, "to host");
    uint64_t gpa = virtio_harness_alloc(&r.vh, 64, 1);
    add_rx(r.vh.queue[4], gpa, 64);
    assert_int_equal(write(r.peer[1], "to guest", 8), 8);
    dev_harness_poll(&r.vh.h);
    unsigned id;
    uint32_t len;
    assert_false(virtio_hq_used(r.vh.queue[4], &id, &len)); /* nobody there has it open */
    control_out(&r, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    expect_guest(&r, r.vh.queue[4], gpa, "to guest");
    rig_done(&r);
}

/* The peer reads nothing: the chain stays with us, later bytes follow in order. */
static void slow_peer_holds_the_chain(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1);
    virtio_harness_start(&r.vh, 0, QSIZE);
    r.peer[0] = connect_peer(&r, 0);
    struct virtio_hq *q = r.vh.queue[1];
    uint32_t size = 1024 * 1024 + 77;
    uint64_t gpa = virtio_harness_alloc(&r.vh, size, 1);
    uint8_t *p = virtio_harness_ptr(&r.vh, gpa);
    for (uint32_t i = 0; i < size; i++) {
        p[i] = (uint8_t)(i % 253);
    }
    struct virtio_hbuf b = { gpa, size, false };
    assert_true(virtio_hq_add(q, &b, 1) >= 0);
    (void)virtio_hq_kick(q);
    dev_harness_poll(&r.vh.h);
    unsigned id;
    uint32_t len;
    assert_false(virtio_hq_used(q, &id, &len));
    uint32_t got = 0;
    for (int idle = 0; got < size && idle < 1000;) {
        uint8_t buf[8192];
        ssize_t n = read(r.peer[0], buf, sizeof(buf));
        idle = n > 0 ? 0 : idle + 1;
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(buf[i], (got + (uint32_t)i) % 253);
        }
        got += n > 0 ? (uint32_t)n : 0;
        assert_int_equal(loop_run_once(r.vh.h.env.loop, 0), 0);
    }
    assert_int_equal(got, size);
    assert_true(virtio_hq_wait(q, &id, &len));
    /* A reset while a chain is held gives it up. */
    assert_true(virtio_hq_add(q, &b, 1) >= 0);
    (void)virtio_hq_kick(q);
    dev_harness_poll(&r.vh.h);
    virtio_harness_set_status(&r.vh, 0);
    assert_int_equal(virtio_harness_status(&r.vh), 0);
    rig_done(&r);
}

static void pause_holds_both_ways(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1);
    virtio_harness_start(&r.vh, 0, QSIZE);
    r.peer[0] = connect_peer(&r, 0);
    uint64_t gpa = virtio_harness_alloc(&r.vh, 64, 1);
    add_rx(r.vh.queue[0], gpa, 64);
    dev_stop(r.dev);
    assert_int_equal(write(r.peer[0], "later", 5), 5);
    memcpy(virtio_harness_ptr(&r.vh, gpa), "GUEST", 5);
    dev_harness_poll(&r.vh.h);
    assert_memory_equal(virtio_harness_ptr(&r.vh, gpa), "GUEST", 5);
    dev_start(r.dev);
    expect_guest(&r, r.vh.queue[0], gpa, "later");
    rig_done(&r);
}

static void bad_control_messages(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2);
    log_set_level(LOG_ERROR);
    virtio_harness_start(&r.vh, MULTI, QSIZE);
    control_out(&r, 2, VIRTIO_CONSOLE_PORT_READY, 1);
    control_out(&r, UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
    control_out(&r, 0, 99, 1);
    control_out(&r, 0, VIRTIO_CONSOLE_RESIZE, 1);
    assert_int_equal(r.dev->guest_bugs, 4);
    uint64_t gpa = virtio_harness_alloc(&r.vh, 8, 1);
    struct virtio_hbuf b = { gpa, 7, false };
    assert_int_equal(virtio_hq_roundtrip(r.vh.queue[3], &b, 1), 0);
    assert_int_equal(r.dev->guest_bugs, 5);
    struct message m;
    assert_false(control_in(&r, &m));
    /* A buffer that is too small for the answer. */
    add_rx(r.vh.queue[2], gpa, 4);
    control_out(&r, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    assert_false(virtio_harness_status(&r.vh) & VIRTIO_STATUS_NEEDS_RESET);
    rig_done(&r);
}

static void bad_parameters(void **state)
{
    (void)state;
    struct virtio_harness vh;
    struct err err = ERR_INIT;
    struct dev *dev = NULL;
    char name[VIRTIO_CONSOLE_NAME_MAX + 1];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    struct virtio_console_port_params port = { .name = name };
    virtio_harness_init(&vh, 1 * MIB);
    struct virtio_console_params p = { .nports = 1, .port = &port };
    assert_int_equal(dev_new(&vh.h.env, &virtio_console_class, "c0", &p, &dev, &err), -EINVAL);
    assert_non_null(strstr(err.msg, name));
    p.nports = 0;
    assert_int_equal(dev_new(&vh.h.env, &virtio_console_class, "c0", &p, &dev, &err), -EINVAL);
    p.nports = VIRTIO_CONSOLE_MAX_PORTS + 1;
    assert_int_equal(dev_new(&vh.h.env, &virtio_console_class, "c0", &p, &dev, &err), -EINVAL);
    virtio_harness_done(&vh);
}

static bool attack_works(struct virtio_harness *vh, void *opaque)
{
    (void)opaque;
    struct virtio_hbuf b = { virtio_harness_alloc(vh, 64, 4), 64, false };
    return virtio_hq_roundtrip(vh->queue[1], &b, 1) == 0;
}

static void attacks(void **state)
{
    (void)state;
    static const struct virtio_console_port_params port[2] = { { .name = "a" }, { .name = "b" } };
    static const struct virtio_console_params p = { .nports = 2, .port = port };
    /* Receive queues are looked at when there is something to say. */
    static const struct {
        unsigned queue;
        bool idle;
    } rows[] = {
        {0,  true },
        { 1, false},
        { 2, true },
        { 3, false},
        { 5, false}
    };
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct virtio_attack_target target = { .cls = &virtio_console_class,
                                                     .params = &p,
                                                     .queue = rows[i].queue,
                                                     .idle = rows[i].idle,
                                                     .works = attack_works };
        assert_int_equal(virtio_attack_all(&target), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_port),
        cmocka_unit_test(size_in_configuration),
        cmocka_unit_test(ports_are_introduced),
        cmocka_unit_test(channel_carries_bytes_while_open),
        cmocka_unit_test(slow_peer_holds_the_chain),
        cmocka_unit_test(pause_holds_both_ways),
        cmocka_unit_test(bad_control_messages),
        cmocka_unit_test(bad_parameters),
        cmocka_unit_test(attacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
