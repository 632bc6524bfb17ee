/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada-net: the TCP/IP stack (libslirp) behind a NIC of user networking, in a process of its own
 * because it parses what guest and network send. Started by netbe_user.c with a seqpacket socket
 * as descriptor 3, one Ethernet frame a packet; the first packet is "K", or "E" and why not.
 *
 *   guest -> descriptor 3 -> slirp_input() -> sockets of the host
 *   sockets of the host -> slirp -> pn_send() -> queue -> descriptor 3 -> guest
 *
 * Back-pressure: while the guest takes no frames and the queue is half full, sockets of the host
 * are not read; frames beyond the full queue are dropped (answers to the guest's own frames).
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/lang.h"
#include "vmm/net/hostfwd.h"
#include "vmm/net/posada_net_jail.h"

#define PN_FD        3
#define PN_FRAME_MAX 65536 /* libslirp refuses more than 65521 bytes */
#define PN_FRAME_MIN 14
#define PN_QUEUE     512
#define PN_BATCH     64 /* frames from the guest before the sockets have their turn */
#define PN_POLLS     (POSADA_NET_MAX_FILES + 1)

struct pn_frame {
    size_t len;
    uint8_t *data;
};

struct pn_timer {
    SlirpTimerId id;
    void *cb_opaque;
    int64_t expire_ms; /* INT64_MAX: not armed */
    LIST_ENTRY(pn_timer) link;
};

struct pn {
    Slirp *slirp;
    LIST_HEAD(, pn_timer) timers;
    struct pn_frame queue[PN_QUEUE];
    unsigned head, count;
    bool congested;
    bool end;
    nfds_t npolls;
    struct pollfd polls[PN_POLLS]; /* [0] is the guest */
    uint8_t buf[PN_FRAME_MAX];
};

static int64_t pn_now_ns(void *opaque)
{
    struct timespec ts;
    (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t pn_now_ms(void)
{
    return pn_now_ns(NULL) / 1000000;
}

/* True when the frame is gone (sent, or the guest's end is closed). */
static bool pn_try_send(struct pn *pn, const void *buf, size_t len)
{
    ssize_t n;
    do {
        n = send(PN_FD, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)) {
        return false;
    }
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
        pn->end = true;
    }
    return true;
}

static ssize_t pn_send(const void *buf, size_t len, void *opaque)
{
    struct pn *pn = opaque;
    if (pn->count == 0 && pn_try_send(pn, buf, len)) {
        return (ssize_t)len;
    }
    uint8_t *copy = pn->count < PN_QUEUE ? malloc(len) : NULL;
    if (copy != NULL) {
        memcpy(copy, buf, len);
        pn->queue[(pn->head + pn->count) % PN_QUEUE] = (struct pn_frame){ len, copy };
        pn->count++;
    }
    return (ssize_t)len; /* a dropped frame is the network's right */
}

static void pn_flush(struct pn *pn)
{
    while (pn->count > 0) {
        struct pn_frame *f = &pn->queue[pn->head];
        if (!pn_try_send(pn, f->data, f->len)) {
            return;
        }
        free(f->data);
        pn->head = (pn->head + 1) % PN_QUEUE;
        pn->count--;
    }
}

static void pn_guest_error(const char *msg, void *opaque)
{
    (void)msg; /* the guest may cause any number of them, and nobody can act on them */
    (void)opaque;
}

static void *pn_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    struct pn *pn = opaque;
    struct pn_timer *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        abort(); /* libslirp has no way to be told */
    }
    *t = (struct pn_timer){ .id = id, .cb_opaque = cb_opaque, .expire_ms = INT64_MAX };
    LIST_INSERT_HEAD(&pn->timers, t, link);
    return t;
}

static void pn_timer_free(void *timer, void *opaque)
{
    struct pn_timer *t = timer;
    (void)opaque;
    if (t != NULL) {
        LIST_REMOVE(t, link);
        free(t);
    }
}

static void pn_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    (void)opaque;
    ((struct pn_timer *)timer)->expire_ms = expire_ms;
}

static void pn_ignore_fd(int fd, void *opaque)
{
    (void)fd; /* the set of descriptors is made anew each round */
    (void)opaque;
}

static void pn_ignore(void *opaque)
{
    (void)opaque; /* one thread: the next round sees it */
}

static void pn_run_timers(struct pn *pn)
{
    int64_t now = pn_now_ms();
    struct pn_timer *t;
    LIST_FOREACH (t, &pn->timers, link) {
        if (t->expire_ms <= now) {
            t->expire_ms = INT64_MAX;
            slirp_handle_timer(pn->slirp, t->id, t->cb_opaque);
            return; /* it may have changed the list; what else is due runs in the next round */
        }
    }
}

static int pn_add_poll(int fd, int events, void *opaque)
{
    struct pn *pn = opaque;
    if (pn->congested || pn->npolls == PN_POLLS) {
        return -1;
    }
    short ev = (short)(((events & SLIRP_POLL_IN) ? POLLIN : 0) |
                       ((events & SLIRP_POLL_OUT) ? POLLOUT : 0) |
                       ((events & SLIRP_POLL_PRI) ? POLLPRI : 0));
    pn->polls[pn->npolls] = (struct pollfd){ .fd = fd, .events = ev };
    return (int)pn->npolls++;
}

static int pn_get_revents(int idx, void *opaque)
{
    const struct pn *pn = opaque;
    if (idx < 0) {
        return 0;
    }
    short ev = pn->polls[idx].revents;
    return ((ev & POLLIN) ? SLIRP_POLL_IN : 0) | ((ev & POLLOUT) ? SLIRP_POLL_OUT : 0) |
           ((ev & POLLPRI) ? SLIRP_POLL_PRI : 0) | ((ev & POLLERR) ? SLIRP_POLL_ERR : 0) |
           ((ev & POLLHUP) ? SLIRP_POLL_HUP : 0);
}

static void pn_from_guest(struct pn *pn)
{
    for (unsigned i = 0; i < PN_BATCH; i++) {
        ssize_t n = recv(PN_FD, pn->buf, sizeof(pn->buf), MSG_DONTWAIT | MSG_TRUNC);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            pn->end = true; /* the virtual machine is gone */
            return;
        }
        if (n < 0) {
            return;
        }
        if (n >= PN_FRAME_MIN && (size_t)n <= sizeof(pn->buf)) {
            slirp_input(pn->slirp, pn->buf, (int)n);
        }
    }
}

/* How long to sleep: the least of slirp's wish and the next timer. */
static int pn_timeout(const struct pn *pn, uint32_t slirp_ms)
{
    int64_t ms = MIN((int64_t)slirp_ms, (int64_t)INT32_MAX);
    int64_t now = pn_now_ms();
    const struct pn_timer *t;
    LIST_FOREACH (t, &pn->timers, link) {
        if (t->expire_ms != INT64_MAX) {
            ms = MIN(ms, MAX(t->expire_ms - now, (int64_t)0));
        }
    }
    return (int)ms;
}

static int pn_run(struct pn *pn)
{
    while (!pn->end) {
        uint32_t slirp_ms = UINT32_MAX;
        pn->congested = pn->count >= PN_QUEUE / 2;
        pn->npolls = 1;
        pn->polls[0] = (struct pollfd){
            .fd = PN_FD,
            .events = (short)(POLLIN | (pn->count > 0 ? POLLOUT : 0)),
        };
        slirp_pollfds_fill(pn->slirp, &slirp_ms, pn_add_poll, pn);
        int rc = poll(pn->polls, pn->npolls, pn_timeout(pn, slirp_ms));
        if (rc < 0 && errno != EINTR) {
            return 1;
        }
        if (rc < 0) {
            continue;
        }
        pn_flush(pn);
        slirp_pollfds_poll(pn->slirp, 0, pn_get_revents, pn);
        if ((pn->polls[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            pn_from_guest(pn);
        }
        pn_run_timers(pn);
    }
    return 0;
}

static const SlirpCb pn_callbacks = {
    .send_packet = pn_send,
    .guest_error = pn_guest_error,
    .clock_get_ns = pn_now_ns,
    .timer_new_opaque = pn_timer_new,
    .timer_free = pn_timer_free,
    .timer_mod = pn_timer_mod,
    .register_poll_fd = pn_ignore_fd,
    .unregister_poll_fd = pn_ignore_fd,
    .notify = pn_ignore,
};

/* The network of docs/net.md: 10.0.2.0/24 and fec0::/64. */
static Slirp *pn_slirp_new(struct pn *pn)
{
    SlirpConfig cfg = {
        .version = 4,
        .in_enabled = true,
        .vnetwork.s_addr = htonl(0x0a000200),
        .vnetmask.s_addr = htonl(0xffffff00),
        .vhost.s_addr = htonl(0x0a000202),
        .vdhcp_start.s_addr = htonl(0x0a00020f),
        .vnameserver.s_addr = htonl(0x0a000203),
        .in6_enabled = true,
        .vprefix_len = 64,
    };
    if (inet_pton(AF_INET6, "fec0::", &cfg.vprefix_addr6) != 1 ||
        inet_pton(AF_INET6, "fec0::2", &cfg.vhost6) != 1 ||
        inet_pton(AF_INET6, "fec0::3", &cfg.vnameserver6) != 1) {
        return NULL;
    }
    return slirp_new(&cfg, &pn_callbacks, pn);
}

static int pn_forward(struct pn *pn, const char *text, struct err *err)
{
    struct hostfwd fwd;
    int rc = hostfwd_parse(text, &fwd, err);
    if (rc < 0) {
        return rc;
    }
    errno = 0;
    if (slirp_add_hostfwd(pn->slirp, fwd.udp, fwd.host, fwd.host_port, fwd.guest, fwd.guest_port) <
        0) {
        int code = errno != 0 ? -errno : -EADDRNOTAVAIL;
        return err_set_errno(err, code, "hostfwd '%s': cannot use port %u of the host", text,
                             fwd.host_port);
    }
    return 0;
}

static int pn_start(struct pn *pn, int argc, char **argv, struct err *err)
{
    pid_t parent = 0;
    LIST_INIT(&pn->timers);
    pn->slirp = pn_slirp_new(pn);
    if (pn->slirp == NULL) {
        return err_set(err, -ENOMEM, "cannot start the network stack");
    }
    for (int i = 1; i < argc; i += 2) {
        int rc = 0;
        if (i + 1 < argc && strcmp(argv[i], "--parent") == 0) {
            parent = (pid_t)strtol(argv[i + 1], NULL, 10);
        } else if (i + 1 < argc && strcmp(argv[i], "--hostfwd") == 0) {
            rc = pn_forward(pn, argv[i + 1], err);
        } else {
            rc = err_set(err, -EINVAL, "unknown option '%s'", argv[i]);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return posada_net_jail(parent, err);
}

int main(int argc, char **argv)
{
    static struct pn pn;
    struct err err = ERR_INIT;
    int type = 0;
    socklen_t len = sizeof(type);
    lang_init();
    if (getsockopt(PN_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET) {
        (void)fprintf(stderr, "posada-net is started by posada-vmm for --net user; "
                              "it is of no use by itself\n");
        return 2;
    }
    /* Ctrl-C at a terminal is for the virtual machine, whose end we see on our socket. */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)close_range(PN_FD + 1, ~0U, 0); /* what a careless parent let us inherit */
    int rc = pn_start(&pn, argc, argv, &err);
    char status[ERR_MSG_MAX + 1] = "K";
    if (rc < 0) {
        (void)snprintf(status, sizeof(status), "E%s", err.msg);
    }
    if (!pn_try_send(&pn, status, strlen(status)) || pn.end || rc < 0) {
        return 1;
    }
    return pn_run(&pn);
}
