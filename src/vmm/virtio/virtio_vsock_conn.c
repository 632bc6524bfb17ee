/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connections of the socket device and their Unix sockets; the model is in virtio_vsock_int.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/virtio/virtio_vsock_int.h"

static void virtio_vsock_on_fd(void *opaque, uint32_t events);

struct virtio_vsock_conn *virtio_vsock_find(struct virtio_vsock *vs, uint32_t host_port,
                                            uint32_t guest_port)
{
    struct virtio_vsock_conn *c;
    TAILQ_FOREACH(c, &vs->conns, link)
    {
        if (c->host_port == host_port && c->guest_port == guest_port &&
            c->state != VIRTIO_VSOCK_LINE) {
            return c;
        }
    }
    return NULL;
}

void virtio_vsock_bury(struct virtio_vsock_conn *c)
{
    if (c->buried) {
        return;
    }
    c->buried = true;
    TAILQ_REMOVE(&c->vs->conns, c, link);
    TAILQ_INSERT_TAIL(&c->vs->graves, c, link);
    c->vs->nconns--;
    loop_timer_set(&c->vs->turn, loop_now_ns());
}

void virtio_vsock_dig(struct virtio_vsock *vs)
{
    struct virtio_vsock_conn *c;
    while ((c = TAILQ_FIRST(&vs->graves)) != NULL) {
        TAILQ_REMOVE(&vs->graves, c, link);
        loop_fd_del(c->w);
        if (c->fd >= 0) {
            close(c->fd);
        }
        free(c);
    }
}

/* Gives up: the guest gets an RST as soon as it has a buffer for it. The socket closes with the
 * connection's burial; until then it is not looked at. */
static void virtio_vsock_kill(struct virtio_vsock_conn *c)
{
    if (c->state == VIRTIO_VSOCK_LINE) {
        virtio_vsock_bury(c); /* the guest has never heard of it */
        return;
    }
    c->state = VIRTIO_VSOCK_DYING;
    c->due = BIT(VIRTIO_VSOCK_OP_RST);
    c->buf_len = 0;
    (void)shutdown(c->fd, SHUT_RDWR); /* so the peer sees the end at once; it may be gone already */
}

/* Makes a connection of a socket. NULL: table full or no memory; the socket is closed. */
static struct virtio_vsock_conn *virtio_vsock_new(struct virtio_vsock *vs, int take_fd_,
                                                  enum virtio_vsock_state state)
{
    CLEANUP_FD int fd = take_fd_;
    if (vs->nconns >= VIRTIO_VSOCK_MAX_CONNS) {
        return NULL;
    }
    struct virtio_vsock_conn *c = malloc(sizeof(*c)); /* 64 KiB of it need no zeroes */
    if (c == NULL) {
        return NULL;
    }
    memset(c, 0, offsetof(struct virtio_vsock_conn, buf));
    c->vs = vs;
    c->state = state;
    c->w = loop_fd_add(vs->dev->env->loop, fd, 0, virtio_vsock_on_fd, c);
    if (c->w == NULL) {
        free(c);
        return NULL;
    }
    c->fd = take_fd(&fd);
    TAILQ_INSERT_TAIL(&vs->conns, c, link);
    vs->nconns++;
    return c;
}

/* The socket may be read: there is a place for what comes. */
bool virtio_vsock_wants(const struct virtio_vsock_conn *c)
{
    if (c->state == VIRTIO_VSOCK_LINE) {
        return true;
    }
    return c->state == VIRTIO_VSOCK_OPEN && virtio_vsock_running(c->vs) && !c->vs->rx_parked &&
           c->due == 0 && virtio_vsock_credit(c) > 0 &&
           (c->host_done & VIRTIO_VSOCK_SHUTDOWN_SEND) == 0 &&
           (c->guest_done & VIRTIO_VSOCK_SHUTDOWN_RECEIVE) == 0;
}

void virtio_vsock_watch(struct virtio_vsock_conn *c)
{
    uint32_t events = (virtio_vsock_wants(c) ? EPOLLIN : 0) | (c->buf_len > 0 ? EPOLLOUT : 0);
    if (c->w != NULL && events != c->events) {
        c->events = events;
        loop_fd_set_events(c->w, events);
    }
}

/* Ends our sending side once everything is out; ends all when the guest closed both ways. */
static void virtio_vsock_settle(struct virtio_vsock_conn *c)
{
    if (c->state != VIRTIO_VSOCK_OPEN || c->buf_len > 0) {
        return;
    }
    if (c->guest_done == VIRTIO_VSOCK_SHUTDOWN_BOTH) {
        virtio_vsock_kill(c); /* §5.10.6.5: a clean disconnect ends with an RST */
    } else if ((c->guest_done & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0 && !c->half_closed) {
        c->half_closed = true;
        (void)shutdown(c->fd, SHUT_WR); /* the peer may be gone: its hang-up tells */
    }
}

/* Writes to the socket what the guest sent, and gives credit back once half of it is used. */
static void virtio_vsock_drain(struct virtio_vsock_conn *c)
{
    while (c->buf_len > 0) {
        size_t n = MIN(c->buf_len, VIRTIO_VSOCK_BUF - c->buf_at);
        ssize_t done = send(c->fd, c->buf + c->buf_at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0 && errno == EAGAIN) {
            break;
        }
        if (done < 0) {
            virtio_vsock_kill(c);
            return;
        }
        c->buf_at = (c->buf_at + (uint32_t)done) % VIRTIO_VSOCK_BUF;
        c->buf_len -= (uint32_t)done;
        c->fwd += (uint32_t)done;
    }
    if (c->fwd - c->fwd_told >= VIRTIO_VSOCK_BUF / 2) {
        c->due |= BIT(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    }
    virtio_vsock_settle(c);
}

/* The host's end is done with `ways`; the guest hears of it. */
static void virtio_vsock_host_done(struct virtio_vsock_conn *c, uint8_t ways)
{
    if ((c->host_done | ways) != c->host_done) {
        c->host_done |= ways;
        c->due |= BIT(VIRTIO_VSOCK_OP_SHUTDOWN);
    }
}

/* "CONNECT <port>" without its newline; false = something else. */
static bool virtio_vsock_parse_line(const char *line, uint32_t *ret_port)
{
    static const char word[] = "CONNECT ";
    if (strncmp(line, word, sizeof(word) - 1) != 0) {
        return false;
    }
    const char *p = line + sizeof(word) - 1;
    size_t digits = strspn(p, "0123456789");
    if (digits == 0 || digits > 10 || p[digits + strspn(p + digits, " \r")] != '\0') {
        return false;
    }
    unsigned long port = strtoul(p, NULL, 10);
    *ret_port = (uint32_t)port;
    return port <= UINT32_MAX;
}

static uint32_t virtio_vsock_free_port(struct virtio_vsock *vs, uint32_t guest_port)
{
    do {
        vs->next_port = vs->next_port == UINT32_MAX ? VIRTIO_VSOCK_PORT : vs->next_port + 1;
    } while (virtio_vsock_find(vs, vs->next_port, guest_port) != NULL);
    return vs->next_port;
}

/* Reads the request of a host program, byte by byte: what follows it is data. */
static void virtio_vsock_read_line(struct virtio_vsock_conn *c)
{
    uint32_t port = 0;
    char byte = 0;
    while (c->line_len < VIRTIO_VSOCK_LINE_MAX) {
        ssize_t n = recv(c->fd, &byte, 1, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0 || byte == '\n') {
            break;
        }
        c->line[c->line_len++] = byte;
    }
    c->line[c->line_len] = '\0';
    if (byte != '\n' || strlen(c->line) != c->line_len ||
        !virtio_vsock_parse_line(c->line, &port) || !c->vs->vdev.live) {
        virtio_vsock_bury(c);
        return;
    }
    c->guest_port = port;
    c->host_port = virtio_vsock_free_port(c->vs, port);
    c->state = VIRTIO_VSOCK_REQUESTED;
    c->due |= BIT(VIRTIO_VSOCK_OP_REQUEST);
}

/* One packet from the socket into a receive buffer. False: no more now. */
static bool virtio_vsock_read_packet(struct virtio_vsock_conn *c)
{
    struct virtio_vsock *vs = c->vs;
    struct virtq_elem *e = virtio_vsock_buffer(vs);
    if (e == NULL) {
        return false;
    }
    uint64_t room = MIN(e->in_len - VIRTIO_VSOCK_HDR_SIZE, (uint64_t)virtio_vsock_credit(c));
    ssize_t n = 0;
    if (room > 0) {
        n = recv(c->fd, vs->bounce, (size_t)MIN(room, sizeof(vs->bounce)), MSG_DONTWAIT);
    }
    if (n > 0) {
        virtio_vsock_send(c, e, VIRTIO_VSOCK_OP_RW, vs->bounce, (uint32_t)n);
        return true;
    }
    if (room == 0) {
        virtq_push(&vs->vdev.queue[0], e,
                   0); /* the driver's own short buffer: of no use for data */
        return true;
    }
    int code = errno;
    virtq_unpop(&vs->vdev.queue[0], e);
    if (n == 0) {
        virtio_vsock_host_done(c, VIRTIO_VSOCK_SHUTDOWN_SEND);
        if (c->w == NULL) { /* it has hung up before */
            virtio_vsock_host_done(c, VIRTIO_VSOCK_SHUTDOWN_RECEIVE);
        }
    } else if (code != EAGAIN && code != EINTR) {
        virtio_vsock_kill(c);
    }
    return false;
}

void virtio_vsock_read(struct virtio_vsock_conn *c)
{
    if (c->state == VIRTIO_VSOCK_LINE) {
        virtio_vsock_read_line(c);
        return;
    }
    for (unsigned i = 0; i < VIRTIO_VSOCK_READS && virtio_vsock_wants(c); i++) {
        if (!virtio_vsock_read_packet(c)) {
            return;
        }
    }
    if (c->state == VIRTIO_VSOCK_OPEN && virtio_vsock_credit(c) == 0 && !c->asked) {
        c->asked = true; /* until the next packet of the guest's says more */
        c->due |= BIT(VIRTIO_VSOCK_OP_CREDIT_REQUEST);
    }
}

/* The peer closed its socket. What it sent before is still to be read. */
static void virtio_vsock_hangup(struct virtio_vsock_conn *c)
{
    loop_fd_del(c->w);
    c->w = NULL;
    if (c->state == VIRTIO_VSOCK_DYING) {
        return;
    }
    if (c->state != VIRTIO_VSOCK_OPEN) {
        virtio_vsock_kill(c);
    } else if ((c->host_done & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0) {
        virtio_vsock_host_done(c, VIRTIO_VSOCK_SHUTDOWN_RECEIVE);
    }
}

static void virtio_vsock_on_fd(void *opaque, uint32_t events)
{
    struct virtio_vsock_conn *c = opaque;
    struct virtio_vsock *vs = c->vs;
    dev_lock(vs->dev);
    if (!c->buried) {
        if ((events & EPOLLOUT) != 0) {
            virtio_vsock_drain(c);
        }
        if ((events & EPOLLIN) != 0 && !c->buried && virtio_vsock_wants(c)) {
            virtio_vsock_read(c);
        }
        if ((events & (EPOLLHUP | EPOLLERR)) != 0 && !c->buried) {
            virtio_vsock_hangup(c);
        }
        virtio_vsock_pump(vs);
    }
    dev_unlock(vs->dev);
}

void virtio_vsock_on_accept(void *opaque, uint32_t events)
{
    struct virtio_vsock *vs = opaque;
    struct virtio_vsock_conn *c;
    (void)events;
    int fd = accept4(vs->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return; /* the peer gave up */
    }
    dev_lock(vs->dev);
    if (vs->nconns >= VIRTIO_VSOCK_MAX_CONNS) {
        /* Those that never say where they want to go make room. */
        TAILQ_FOREACH(c, &vs->conns, link)
        {
            if (c->state == VIRTIO_VSOCK_LINE) {
                virtio_vsock_bury(c);
                break;
            }
        }
    }
    c = virtio_vsock_new(vs, fd, VIRTIO_VSOCK_LINE);
    if (c != NULL) {
        virtio_vsock_watch(c);
    }
    dev_unlock(vs->dev);
}

bool virtio_vsock_connect(struct virtio_vsock *vs, const struct virtio_vsock_hdr *hdr)
{
    char path[UNIXSOCK_PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s_%u", vs->path, hdr->dst_port);
    int fd = vs->nconns < VIRTIO_VSOCK_MAX_CONNS ? unixsock_connect(path) : -EMFILE;
    if (fd < 0) {
        log_debug(vs->dev->id, "guest connection refused", "path='%s' errno='%d'", path, -fd);
        return false;
    }
    struct virtio_vsock_conn *c = virtio_vsock_new(vs, fd, VIRTIO_VSOCK_OPEN);
    if (c == NULL) {
        return false;
    }
    c->host_port = hdr->dst_port;
    c->guest_port = hdr->src_port;
    c->peer_alloc = hdr->buf_alloc;
    c->peer_fwd = hdr->fwd_cnt;
    c->due = BIT(VIRTIO_VSOCK_OP_RESPONSE);
    return true;
}

/* The guest accepted: tells the host program, whose socket is empty and takes the line whole. */
static void virtio_vsock_accepted(struct virtio_vsock_conn *c)
{
    char line[32];
    int len = snprintf(line, sizeof(line), "OK %u\n", c->host_port);
    if (send(c->fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) != len) {
        virtio_vsock_kill(c);
        return;
    }
    c->state = VIRTIO_VSOCK_OPEN;
}

static void virtio_vsock_payload(struct virtio_vsock_conn *c, const struct virtio_vsock_hdr *hdr,
                                 const struct virtq_elem *e)
{
    if (hdr->len > VIRTIO_VSOCK_BUF - c->buf_len ||
        (c->guest_done & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0) {
        dev_guest_bug(c->vs->dev, "%u bytes without credit for them, or after the end", hdr->len);
        virtio_vsock_kill(c);
        return;
    }
    uint32_t at = (c->buf_at + c->buf_len) % VIRTIO_VSOCK_BUF;
    uint32_t first = MIN(hdr->len, VIRTIO_VSOCK_BUF - at);
    size_t n = virtq_out_copy(e, VIRTIO_VSOCK_HDR_SIZE, c->buf + at, first);
    n += virtq_out_copy(e, VIRTIO_VSOCK_HDR_SIZE + first, c->buf, hdr->len - first);
    c->buf_len += (uint32_t)n;
    virtio_vsock_drain(c);
}

void virtio_vsock_packet(struct virtio_vsock_conn *c, const struct virtio_vsock_hdr *hdr,
                         const struct virtq_elem *e)
{
    if (hdr->op == VIRTIO_VSOCK_OP_RST) {
        virtio_vsock_bury(c);
        return;
    }
    if (c->state == VIRTIO_VSOCK_DYING) {
        return; /* an RST is on its way */
    }
    c->peer_alloc = hdr->buf_alloc;
    c->peer_fwd = hdr->fwd_cnt;
    c->asked = c->asked && virtio_vsock_credit(c) == 0;
    if (hdr->op == VIRTIO_VSOCK_OP_RESPONSE && c->state == VIRTIO_VSOCK_REQUESTED) {
        virtio_vsock_accepted(c);
        return;
    }
    if (c->state != VIRTIO_VSOCK_OPEN) {
        virtio_vsock_kill(c);
        return;
    }
    switch (hdr->op) {
    case VIRTIO_VSOCK_OP_RW:
        virtio_vsock_payload(c, hdr, e);
        break;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        break;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        c->due |= BIT(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
        break;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        c->guest_done |= (uint8_t)(hdr->flags & VIRTIO_VSOCK_SHUTDOWN_BOTH);
        virtio_vsock_settle(c);
        break;
    default: /* a second REQUEST or RESPONSE, or no operation at all */
        virtio_vsock_kill(c);
        break;
    }
}

void virtio_vsock_told(struct virtio_vsock_conn *c, uint16_t op)
{
    if (op == VIRTIO_VSOCK_OP_RST) {
        virtio_vsock_bury(c);
    }
}
