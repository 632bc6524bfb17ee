/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the socket device. Host programs connect, ask, write, read and close; one listens
 * for the guest at port 80.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "spec/virtio_vsock_defs.h"
#include "vmm/net/unixsock.h"
#include "vmm/virtio/virtio_fuzz.h"
#include "vmm/virtio/virtio_vsock.h"

#define CID   3
#define PEERS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char path[64];
static struct unixsock listener;
static int peer[PEERS];

static void op(struct virtio_harness *vh, uint8_t which, uint32_t value)
{
    static const char *const lines[] = { "CONNECT 1\n", "CONNECT 2\nmore", "CONNECT ", "x\n" };
    static uint8_t buf[65536];
    int *fd = &peer[which % PEERS];
    switch (which >> 2 & 7) {
    case 0:
    case 1:
        if (*fd >= 0) {
            close(*fd);
        }
        *fd = which & 4 ? accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK) : unixsock_connect(path);
        break;
    case 2:
        (void)!send(*fd, lines[value % 4], strlen(lines[value % 4]), MSG_NOSIGNAL);
        break;
    case 3:
        (void)!send(*fd, buf, value % sizeof(buf), MSG_NOSIGNAL);
        break;
    case 4:
        (void)!recv(*fd, buf, value % sizeof(buf), 0);
        break;
    case 5:
        (void)shutdown(*fd, value % 2 ? SHUT_WR : SHUT_RD);
        break;
    case 6:
        if (*fd >= 0) {
            close(*fd);
            *fd = -1;
        }
        break;
    default:
        if (virtio_vsock_conns(vh->dev) > VIRTIO_VSOCK_MAX_CONNS) {
            abort();
        }
        break;
    }
    if (loop_run_once(vh->h.env.loop, 0) < 0) {
        abort();
    }
}

static void header(uint8_t *h, size_t len, uint8_t which, uint32_t value)
{
    (void)len; /* much more than a header */
    memset(h, 0, VIRTIO_VSOCK_HDR_SIZE);
    le64_put(h + VIRTIO_VSOCK_HDR_SRC_CID, value >> 28 == 15 ? value : CID);
    le64_put(h + VIRTIO_VSOCK_HDR_DST_CID, VIRTIO_VSOCK_CID_HOST);
    le32_put(h + VIRTIO_VSOCK_HDR_SRC_PORT, 1 + (which >> 3 & 1));
    /* Port 80, or one that the device chose for a connection of the host's. */
    le32_put(h + VIRTIO_VSOCK_HDR_DST_PORT, which & 0x10 ? 80 : 0x40000001 + (which >> 5));
    le32_put(h + VIRTIO_VSOCK_HDR_LEN, value & 0x800 ? value & 0x7ff : value & 0xf);
    le16_put(h + VIRTIO_VSOCK_HDR_TYPE, value >> 27 == 31 ? 2 : 1);
    le16_put(h + VIRTIO_VSOCK_HDR_OP, which & 7);
    le32_put(h + VIRTIO_VSOCK_HDR_FLAGS, value & 3);
    le32_put(h + VIRTIO_VSOCK_HDR_BUF_ALLOC, value >> 8);
    le32_put(h + VIRTIO_VSOCK_HDR_FWD_CNT, value >> 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct err err = ERR_INIT;
    char port[72];
    (void)snprintf(path, sizeof(path), "/tmp/fuzz_vsock.%d", (int)getpid());
    (void)snprintf(port, sizeof(port), "%s_80", path);
    if (unixsock_listen(&listener, port, &err) < 0) {
        abort();
    }
    for (unsigned i = 0; i < PEERS; i++) {
        peer[i] = -1;
    }
    const struct virtio_vsock_params params = { .cid = CID, .path = path };
    virtio_fuzz_run(&(struct virtio_fuzz_target){ &virtio_vsock_class, &params, op, header }, data,
                    len);
    for (unsigned i = 0; i < PEERS; i++) {
        if (peer[i] >= 0) {
            close(peer[i]);
        }
    }
    unixsock_close(&listener);
    return 0;
}
