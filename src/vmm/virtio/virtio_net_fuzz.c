/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the network device, two queue pairs over socket pairs whose other ends send frames
 * of any length, read, or close.
 */
#include <linux/if_tun.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "spec/virtio_net_defs.h"
#include "vmm/virtio/virtio_fuzz.h"
#include "vmm/virtio/virtio_net.h"

#define PAIRS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int peer[PAIRS];

static int set_offload(struct netbe *be, unsigned tun_flags)
{
    (void)be;
    return (tun_flags & TUN_F_UFO) != 0 ? -1 : 0;
}

static int set_queues(struct netbe *be, unsigned n)
{
    if (n < 1 || n > be->nqueues) {
        abort();
    }
    return 0;
}

static void op(struct virtio_harness *vh, uint8_t which, uint32_t value)
{
    static uint8_t frame[70000];
    int *fd = &peer[which & 1];
    struct virtio_net_stats stats;
    switch (which >> 1 & 7) {
    case 0:
    case 1:
    case 2:
        /* A full socket drops it, as the network does. */
        (void)!send(*fd, frame, value % (which >> 4 == 15 ? sizeof(frame) : 2048), MSG_NOSIGNAL);
        break;
    case 3:
    case 4:
        (void)!recv(*fd, frame, sizeof(frame), 0);
        break;
    case 5:
        virtio_net_set_link(vh->dev, value % 4 != 0);
        break;
    case 6:
        virtio_net_get_stats(vh->dev, &stats);
        break;
    default:
        if (value % 64 == 0 && *fd >= 0) {
            close(*fd);
            *fd = -1;
        }
        break;
    }
}

/* A transmit header, or a control command. */
static void header(uint8_t *h, size_t len, uint8_t which, uint32_t value)
{
    static const uint8_t gso[] = { 0, 1, 3, 4, 0x81, 0x84, 5, 0x80 };
    memset(h, 0, MIN(len, (size_t)64));
    if (which < 128) {
        h[0] = which & 1;
        h[1] = gso[which >> 1 & 7];
        le32_put(h + 4, value);
    } else {
        h[0] = which % 6;
        h[1] = value & 1;
        le16_put(h + 2, (uint16_t)(value >> 1 & 3));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct netbe_class cls = { .name = "fuzz",
                                            .set_offload = set_offload,
                                            .set_queues = set_queues };
    struct netbe be = { .cls = &cls, .nqueues = PAIRS, .sock = true };
    be.vnet_hdr = len > 0 && (data[len - 1] & 1) != 0;
    be.offloads = be.vnet_hdr ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_UFO : 0;
    for (unsigned i = 0; i < PAIRS; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0) {
            abort();
        }
        be.fd[i] = pair[0];
        peer[i] = pair[1];
    }
    const struct virtio_net_params params = { .be = &be, .mtu = 1500 };
    virtio_fuzz_run(&(struct virtio_fuzz_target){ &virtio_net_class, &params, op, header }, data,
                    len);
    for (unsigned i = 0; i < PAIRS; i++) {
        close(be.fd[i]);
        if (peer[i] >= 0) {
            close(peer[i]);
        }
    }
    return 0;
}
