/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/net/unixsock.h"

#define CTL_IN_SIZE  (WIRE_HEADER_SIZE + WIRE_REQUEST_MAX)
#define CTL_OUT_SIZE (WIRE_HEADER_SIZE + WIRE_REPLY_MAX)

struct ctl_peer {
    struct ctl *ctl;
    int fd;
    struct loop_fd *w;
    size_t in_len;
    uint8_t in[CTL_IN_SIZE];
    uint8_t *out; /* the reply that the client has not taken yet; NULL = none */
    size_t out_len;
    size_t out_sent;
};

struct ctl {
    struct unixsock sock;
    struct loop *loop;
    struct loop_fd *w;
    ctl_handler *handler;
    void *opaque;
    unsigned npeers;
    struct ctl_peer *peer[CTL_MAX_CLIENTS];
    struct log_limit limit;
};

void ctl_error(struct wire_msg *msg, int code, const char *text)
{
    msg->type = WIRE_ERROR;
    msg->error.code = (uint32_t)(code < 0 ? -code : code);
    (void)snprintf(msg->error.text, sizeof(msg->error.text), "%s", text);
}

static void ctl_peer_free(struct ctl_peer *p)
{
    struct ctl *ctl = p->ctl;
    for (unsigned i = 0; i < CTL_MAX_CLIENTS; i++) {
        if (ctl->peer[i] == p) {
            ctl->peer[i] = NULL;
            ctl->npeers--;
        }
    }
    loop_fd_del(p->w);
    close(p->fd);
    free(p->out);
    free(p);
}

/* Sends what it takes. False: the peer is gone. */
static bool ctl_peer_flush(struct ctl_peer *p)
{
    while (p->out_sent < p->out_len) {
        ssize_t n = send(p->fd, p->out + p->out_sent, p->out_len - p->out_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            loop_fd_set_events(p->w, EPOLLOUT);
            return true;
        }
        if (n < 0) {
            return false;
        }
        p->out_sent += (size_t)n;
    }
    free(p->out);
    p->out = NULL;
    p->out_len = p->out_sent = 0;
    loop_fd_set_events(p->w, EPOLLIN);
    return true;
}

static bool ctl_peer_reply(struct ctl_peer *p, struct wire_msg *msg)
{
    uint8_t *buf = malloc(CTL_OUT_SIZE);
    if (buf == NULL) {
        return false;
    }
    int len = wire_encode(msg, buf, CTL_OUT_SIZE);
    if (len < 0) {
        ctl_error(msg, -EMSGSIZE, "the reply does not fit a message");
        len = wire_encode(msg, buf, CTL_OUT_SIZE);
    }
    /* Most replies are small: do not keep 64 KiB for a client that reads slowly. */
    uint8_t *cut = len > 0 ? realloc(buf, (size_t)len) : NULL;
    if (cut == NULL) {
        free(buf);
        return false;
    }
    p->out = cut;
    p->out_len = (size_t)len;
    p->out_sent = 0;
    return ctl_peer_flush(p);
}

/* Deals with one whole request in the buffer. False: cut the peer. */
static bool ctl_peer_request(struct ctl_peer *p, bool *ret_more)
{
    struct ctl *ctl = p->ctl;
    struct wire_msg *msg = calloc(1, sizeof(*msg));
    if (msg == NULL) {
        return false;
    }
    int n = wire_decode(p->in, p->in_len, WIRE_REQUEST_MAX, msg);
    bool ok = n >= 0;
    *ret_more = n > 0;
    if (n > 0) {
        memmove(p->in, p->in + n, p->in_len - (size_t)n);
        p->in_len -= (size_t)n;
        uint32_t serial = msg->serial;
        ctl->handler(ctl->opaque, msg);
        msg->serial = serial;
        ok = ctl_peer_reply(p, msg);
    } else if (n < 0) {
        log_limited(&ctl->limit, LOG_WARN, "ctl", "client breaks the protocol", "code='%d'", n);
        /* The reason as a last word; a client of another version learns it this way. */
        ctl_error(msg, n, n == -ENOMSG ? "unknown request" : "not a request of this protocol");
        (void)ctl_peer_reply(p, msg);
    }
    free(msg);
    return ok;
}

static void ctl_peer_ready(void *opaque, uint32_t events)
{
    struct ctl_peer *p = opaque;
    bool ok = true;
    if (p->out != NULL) {
        ok = (events & EPOLLOUT) != 0 ? ctl_peer_flush(p) : (events & (EPOLLERR | EPOLLHUP)) == 0;
    } else {
        ssize_t n = recv(p->fd, p->in + p->in_len, sizeof(p->in) - p->in_len, MSG_DONTWAIT);
        if (n > 0) {
            p->in_len += (size_t)n;
        } else {
            ok = n < 0 && (errno == EAGAIN || errno == EINTR);
        }
    }
    /* Also what came behind a request whose reply is out now. */
    bool more = true;
    while (ok && more && p->out == NULL) {
        ok = ctl_peer_request(p, &more);
    }
    if (!ok) {
        ctl_peer_free(p);
    }
}

static bool ctl_peer_allowed(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
           (cred.uid == 0 || cred.uid == geteuid());
}

static void ctl_accept(void *opaque, uint32_t events)
{
    (void)events;
    struct ctl *ctl = opaque;
    int fd = accept4(ctl->sock.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    struct ctl_peer *p = NULL;
    if (ctl->npeers < CTL_MAX_CLIENTS && ctl_peer_allowed(fd)) {
        p = calloc(1, sizeof(*p));
    }
    if (p == NULL) {
        log_limited(&ctl->limit, LOG_WARN, "ctl", "client refused", "clients='%u'", ctl->npeers);
        close(fd);
        return;
    }
    *p = (struct ctl_peer){ .ctl = ctl, .fd = fd };
    p->w = loop_fd_add(ctl->loop, fd, EPOLLIN, ctl_peer_ready, p);
    if (p->w == NULL) {
        close(fd);
        free(p);
        return;
    }
    for (unsigned i = 0; i < CTL_MAX_CLIENTS; i++) {
        if (ctl->peer[i] == NULL) {
            ctl->peer[i] = p;
            ctl->npeers++;
            break;
        }
    }
}

int ctl_new(const char *path, struct loop *loop, ctl_handler *handler, void *opaque,
            struct ctl **ret_ctl, struct err *err)
{
    struct ctl *ctl = calloc(1, sizeof(*ctl));
    if (ctl == NULL) {
        return err_set(err, -ENOMEM, "control socket: out of memory");
    }
    ctl->loop = loop;
    ctl->handler = handler;
    ctl->opaque = opaque;
    int rc = unixsock_listen(&ctl->sock, path, err);
    if (rc < 0) {
        free(ctl);
        return err_prefix(err, "control socket: ");
    }
    ctl->w = loop_fd_add(loop, ctl->sock.fd, EPOLLIN, ctl_accept, ctl);
    if (ctl->w == NULL) {
        rc = -errno;
        unixsock_close(&ctl->sock);
        free(ctl);
        return err_set_errno(err, rc, "control socket '%s'", path);
    }
    *ret_ctl = ctl;
    return 0;
}

void ctl_free(struct ctl *ctl)
{
    if (ctl == NULL) {
        return;
    }
    for (unsigned i = 0; i < CTL_MAX_CLIENTS; i++) {
        if (ctl->peer[i] != NULL) {
            ctl_peer_free(ctl->peer[i]);
        }
    }
    loop_fd_del(ctl->w);
    unixsock_close(&ctl->sock);
    free(ctl);
}

unsigned ctl_clients(const struct ctl *ctl)
{
    return ctl->npeers;
}
