/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/ctl_client.h"
#include "vmm/ctl/ctl.h"

struct fixture {
    char dir[64];
    char path[96];
    struct loop *loop;
    struct ctl *ctl;
    pthread_t thread;
    unsigned handled;
};

static void handler(void *opaque, struct wire_msg *msg)
{
    struct fixture *f = opaque;
    f->handled++;
    switch (msg->type) {
    case WIRE_STATUS:
        msg->type = WIRE_STATUS_REPLY;
        (void)snprintf(msg->status_reply.state, sizeof(msg->status_reply.state), "running");
        break;
    case WIRE_REGISTERS:
        msg->type = WIRE_TEXT_REPLY;
        memset(msg->text_reply.text, 'r', sizeof(msg->text_reply.text) - 1);
        break;
    case WIRE_PAUSE:
        ctl_error(msg, -EALREADY, "it is paused");
        break;
    default:
        msg->type = WIRE_OK;
        break;
    }
}

static void *serve(void *opaque)
{
    struct fixture *f = opaque;
    int rc = loop_run(f->loop);
    return (void *)(intptr_t)rc;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/ctl-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
    assert_int_equal(loop_new(&f->loop, &err), 0);
    assert_int_equal(ctl_new(f->path, f->loop, handler, f, &f->ctl, &err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    ctl_free(f->ctl);
    assert_int_equal(access(f->path, F_OK), -1);
    loop_free(f->loop);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void requests_are_answered(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct ctl_client *c;
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(ctl_client_open(f->path, &c, &err), 0);
    struct wire_msg *m = ctl_client_msg(c);
    m->type = WIRE_STATUS;
    assert_int_equal(ctl_client_call(c, WIRE_STATUS_REPLY, 5000, &err), 0);
    assert_string_equal(m->status_reply.state, "running");
    m->type = WIRE_REGISTERS;
    m->registers.vcpu = 0;
    assert_int_equal(ctl_client_call(c, WIRE_TEXT_REPLY, 5000, &err), 0);
    assert_int_equal(strlen(m->text_reply.text), 16384);
    m->type = WIRE_PAUSE;
    assert_int_equal(ctl_client_call(c, WIRE_OK, 5000, &err), -EALREADY);
    assert_string_equal(err.msg, "it is paused");
    m->type = WIRE_RESUME;
    assert_int_equal(ctl_client_call(c, WIRE_OK, 5000, &err), 0);
    assert_int_equal(f->handled, 4);
    ctl_client_close(c);
}

static int connect_raw(const struct fixture *f)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    memcpy(sa.sun_path, f->path, strlen(f->path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
    struct timeval limit = { .tv_sec = 5 };
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    return fd;
}

/* Reads to the end of the stream; the bytes read. */
static size_t drain(int fd)
{
    char buf[4096];
    size_t sum = 0;
    ssize_t n;
    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
        sum += (size_t)n;
    }
    assert_true(n == 0 || errno == ECONNRESET);
    return sum;
}

static void noise_is_cut_off(void **state)
{
    struct fixture *f = *state;
    int fd = connect_raw(f);
    char noise[600];
    memset(noise, 'x', sizeof(noise));
    assert_int_equal(send(fd, noise, sizeof(noise), MSG_NOSIGNAL), sizeof(noise));
    (void)drain(fd);
    close(fd);
    assert_int_equal(f->handled, 0);
}

static void requests_behind_each_other_are_all_answered(void **state)
{
    struct fixture *f = *state;
    int fd = connect_raw(f);
    static struct wire_msg m;
    uint8_t buf[WIRE_HEADER_SIZE * 10];
    for (unsigned i = 0; i < 10; i++) {
        m.type = WIRE_QUIT;
        m.serial = i;
        assert_int_equal(wire_encode(&m, buf + i * WIRE_HEADER_SIZE, WIRE_HEADER_SIZE),
                         WIRE_HEADER_SIZE);
    }
    assert_int_equal(send(fd, buf, sizeof(buf), MSG_NOSIGNAL), sizeof(buf));
    shutdown(fd, SHUT_WR);
    assert_int_equal(drain(fd), 10 * WIRE_HEADER_SIZE);
    close(fd);
    assert_int_equal(f->handled, 10);
}

/* A client that never reads: its requests stop being read; others are served. */
static void a_client_that_does_not_read_hurts_nobody(void **state)
{
    struct fixture *f = *state;
    int fd = connect_raw(f);
    static struct wire_msg m;
    uint8_t buf[64];
    m.type = WIRE_REGISTERS;
    int len = wire_encode(&m, buf, sizeof(buf));
    assert_true(len > 0);
    unsigned sent = 0;
    while (send(fd, buf, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) == len && sent < 100000) {
        sent++;
    }
    assert_true(sent < 100000);
    assert_true(f->handled < sent);
    struct err err = ERR_INIT;
    struct ctl_client *c;
    assert_int_equal(ctl_client_open(f->path, &c, &err), 0);
    ctl_client_msg(c)->type = WIRE_STATUS;
    assert_int_equal(ctl_client_call(c, WIRE_STATUS_REPLY, 5000, &err), 0);
    ctl_client_close(c);
    close(fd);
}

static void clients_have_a_limit(void **state)
{
    struct fixture *f = *state;
    int fd[CTL_MAX_CLIENTS + 1];
    for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
        fd[i] = connect_raw(f);
    }
    assert_int_equal(drain(fd[CTL_MAX_CLIENTS]), 0);
    for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
        close(fd[i]);
    }
}

static void absence_is_told(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ctl_client *c;
    assert_int_equal(ctl_client_open("/nonexistent/x", &c, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "no VM is there"));
    char longer[300];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(ctl_client_open(longer, &c, &err), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(noise_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_behind_each_other_are_all_answered, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_read_hurts_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(clients_have_a_limit, setup, teardown),
        cmocka_unit_test(absence_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
