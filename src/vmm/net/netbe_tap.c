/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tap interface that the administrator made (`ip tuntap add dev NAME mode tap [multi_queue]`),
 * one descriptor a queue, frames with a 12-byte virtio header (Linux tuntap.rst 6.1).
 *
 * Queues that the guest does not use are detached: the kernel would spread frames over them and
 * nobody would read those. A detached queue reports EPOLLERR for ever, so its descriptor must not
 * be watched.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/net/netbe_int.h"

#define NETBE_TAP_DEVICE "/dev/net/tun"

/* Offloads to try, from the most to none: the kernel refuses a set with one it does not know. */
static const unsigned netbe_tap_offloads[] = {
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
    TUN_F_CSUM,
};

static int netbe_tap_why(const char *ifname, int code, bool multi, struct err *err)
{
    switch (-code) {
    case EPERM:
        return err_set(err, code,
                       "tap '%s': not allowed; run as root, or as the user given to "
                       "`ip tuntap add dev %s mode tap user USER`",
                       ifname, ifname);
    case EBUSY:
        return err_set(err, code, "tap '%s': in use by another process", ifname);
    case EINVAL:
        return err_set(err, code,
                       multi ? "tap '%s': is no tap interface with the flag multi_queue, which "
                               "more than one queue needs"
                             : "tap '%s': is no tap interface",
                       ifname);
    case E2BIG:
        return err_set(err, code, "tap '%s': no more queues to be had", ifname);
    default:
        return err_set_errno(err, code, "tap '%s'", ifname);
    }
}

static int netbe_tap_queue(const char *ifname, bool multi)
{
    CLEANUP_FD int fd = open(NETBE_TAP_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    struct ifreq ifr = { 0 };
    memcpy(ifr.ifr_name, ifname, strlen(ifname));
    ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi ? IFF_MULTI_QUEUE : 0));
    int hdr = NETBE_VNET_HDR_LEN;
    int little = 1;
    if (ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &hdr) < 0 ||
        ioctl(fd, TUNSETVNETLE, &little) < 0) {
        return -errno;
    }
    return take_fd(&fd);
}

static int netbe_tap_set_offload(struct netbe *be, unsigned tun_flags)
{
    for (unsigned i = 0; i < be->nqueues; i++) {
        if (ioctl(be->fd[i], TUNSETOFFLOAD, (unsigned long)tun_flags) < 0) {
            /* Offloads belong to the interface: one attached queue is enough. */
            return i == 0 ? -errno : 0;
        }
    }
    return 0;
}

static int netbe_tap_set_queues(struct netbe *be, unsigned n)
{
    for (unsigned i = 1; i < be->nqueues; i++) {
        struct ifreq ifr = { 0 };
        ifr.ifr_flags = i < n ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
        /* EINVAL: it is so already. */
        if (ioctl(be->fd[i], TUNSETQUEUE, &ifr) < 0 && errno != EINVAL) {
            return -errno;
        }
    }
    return 0;
}

static void netbe_tap_close(struct netbe *be)
{
    for (unsigned i = 0; i < NETBE_MAX_QUEUES; i++) {
        if (be->fd[i] >= 0) {
            close(be->fd[i]);
            be->fd[i] = -1;
        }
    }
}

static int netbe_tap_check(const struct netbe_opts *opts, struct err *err)
{
    const char *ifname = opts->ifname != NULL ? opts->ifname : "";
    if (ifname[0] == '\0' || strlen(ifname) >= IFNAMSIZ) {
        return err_set(err, -EINVAL, "tap '%s': the name of an interface has 1 to %d bytes", ifname,
                       IFNAMSIZ - 1);
    }
    if (opts->queues > NETBE_MAX_QUEUES) {
        return err_set(err, -EINVAL, "tap '%s': %u queues; allowed are 1 to %d", ifname,
                       opts->queues, NETBE_MAX_QUEUES);
    }
    /* TUNSETIFF would make one that vanishes with us and that nothing is joined to. */
    if (if_nametoindex(ifname) == 0) {
        return err_set(err, -ENODEV,
                       "tap '%s': no such interface; make it with `ip tuntap add dev %s mode "
                       "tap%s && ip link set %s up`",
                       ifname, ifname, opts->queues > 1 ? " multi_queue" : "", ifname);
    }
    if (access(NETBE_TAP_DEVICE, R_OK | W_OK) < 0) {
        return err_set_errno(err, -errno, "tap '%s': cannot open '%s'", ifname, NETBE_TAP_DEVICE);
    }
    return 0;
}

static int netbe_tap_open(struct netbe *be, struct err *err)
{
    const char *ifname = be->opts.ifname;
    int rc = netbe_tap_check(&be->opts, err);
    if (rc < 0) {
        return rc;
    }
    unsigned n = MAX(be->opts.queues, 1U);
    bool multi = n > 1;
    for (be->nqueues = 0; be->nqueues < n; be->nqueues++) {
        int fd = netbe_tap_queue(ifname, multi);
        if (fd == -EINVAL && !multi) {
            fd = netbe_tap_queue(ifname, true); /* made with multi_queue: one queue will do */
        }
        if (fd < 0) {
            netbe_tap_close(be);
            return netbe_tap_why(ifname, fd, multi, err);
        }
        be->fd[be->nqueues] = fd;
    }
    be->vnet_hdr = true;
    for (size_t i = 0; i < ARRAY_LEN(netbe_tap_offloads) && be->offloads == 0; i++) {
        if (netbe_tap_set_offload(be, netbe_tap_offloads[i]) == 0) {
            be->offloads = netbe_tap_offloads[i];
        }
    }
    rc = netbe_tap_set_offload(be, 0);
    rc = rc < 0 ? rc : netbe_tap_set_queues(be, 1);
    if (rc < 0) {
        netbe_tap_close(be);
        return err_set_errno(err, rc, "tap '%s': cannot set it up", ifname);
    }
    return 0;
}

const struct netbe_class netbe_tap_class = {
    .name = "tap",
    .help = "a tap interface of the host",
    .open = netbe_tap_open,
    .close = netbe_tap_close,
    .set_offload = netbe_tap_set_offload,
    .set_queues = netbe_tap_set_queues,
};
