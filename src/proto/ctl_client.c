/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/ctl_client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct ctl_client {
    int fd;
    uint32_t serial;
    struct wire_msg msg;
    uint8_t buf[WIRE_HEADER_SIZE + WIRE_REPLY_MAX];
};

int ctl_client_open(const char *path, struct ctl_client **ret_client, struct err *err)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(addr.sun_path)) {
        return err_set(err, -ENAMETOOLONG,
                       "control socket '%s': the name has %zu bytes, %zu at most", path,
                       strlen(path), sizeof(addr.sun_path) - 1);
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    struct ctl_client *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return err_set(err, -ENOMEM, "control socket: out of memory");
    }
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int code = -errno;
        ctl_client_close(c);
        if (code == -ENOENT || code == -ECONNREFUSED) {
            return err_set(err, code,
                           "control socket '%s': no VM is there (was it started with --control "
                           "unix:%s?)",
                           path, path);
        }
        return err_set_errno(err, code, "control socket '%s'", path);
    }
    *ret_client = c;
    return 0;
}

void ctl_client_close(struct ctl_client *c)
{
    if (c == NULL) {
        return;
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    free(c);
}

struct wire_msg *ctl_client_msg(struct ctl_client *c)
{
    return &c->msg;
}

static int64_t ctl_client_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Waits until the socket is ready for `events`. */
static int ctl_client_wait(const struct ctl_client *c, short events, int64_t deadline_ms,
                           struct err *err)
{
    for (;;) {
        int64_t left = deadline_ms - ctl_client_now_ms();
        struct pollfd p = { .fd = c->fd, .events = events };
        int rc = left > 0 ? poll(&p, 1, (int)MIN(left, (int64_t)1000000)) : 0;
        if (rc > 0) {
            return 0;
        }
        if (rc < 0 && errno != EINTR) {
            return err_set_errno(err, -errno, "control socket");
        }
        if (left <= 0) {
            return err_set(err, -ETIMEDOUT, "the VM does not answer");
        }
    }
}

static int ctl_client_send(struct ctl_client *c, size_t len, int64_t deadline_ms, struct err *err)
{
    for (size_t sent = 0; sent < len;) {
        int rc = ctl_client_wait(c, POLLOUT, deadline_ms, err);
        if (rc < 0) {
            return rc;
        }
        ssize_t n = send(c->fd, c->buf + sent, len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return err_set_errno(err, -errno, "the VM closed the control socket");
        }
        sent += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int ctl_client_receive(struct ctl_client *c, int64_t deadline_ms, struct err *err)
{
    size_t have = 0;
    for (;;) {
        int rc = wire_decode(c->buf, have, WIRE_REPLY_MAX, &c->msg);
        if (rc > 0 && c->msg.serial == c->serial && (size_t)rc == have) {
            return 0;
        }
        if (rc != 0) {
            return err_set(err, -EPROTO,
                           "control socket: the answer is not of this protocol (version %d)",
                           WIRE_VERSION);
        }
        rc = ctl_client_wait(c, POLLIN, deadline_ms, err);
        if (rc < 0) {
            return rc;
        }
        ssize_t n = recv(c->fd, c->buf + have, sizeof(c->buf) - have, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            return err_set(err, -ECONNRESET, "the VM closed the control socket");
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return err_set_errno(err, -errno, "control socket");
        }
        have += n > 0 ? (size_t)n : 0;
    }
}

int ctl_client_call(struct ctl_client *c, uint16_t expect, int timeout_ms, struct err *err)
{
    int64_t deadline_ms = ctl_client_now_ms() + timeout_ms;
    c->msg.serial = ++c->serial;
    int len = wire_encode(&c->msg, c->buf, sizeof(c->buf));
    if (len < 0) {
        return err_set_errno(err, len, "control request");
    }
    int rc = ctl_client_send(c, (size_t)len, deadline_ms, err);
    if (rc == 0) {
        rc = ctl_client_receive(c, deadline_ms, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (c->msg.type == WIRE_ERROR) {
        uint32_t code = c->msg.error.code;
        return err_set(err, code > 0 && code < 4096 ? -(int)code : -EPROTO, "%s",
                       c->msg.error.text);
    }
    if (c->msg.type != expect) {
        return err_set(err, -EPROTO, "control socket: unexpected answer '%s'",
                       wire_type_name(c->msg.type));
    }
    return 0;
}
