/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fuzz target: the file system device. The server answers well, ill, late, or goes. */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/fs/share_wire.h"
#include "vmm/virtio/virtio_fs.h"
#include "vmm/virtio/virtio_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int server = -1;

static void op(struct virtio_harness *vh, uint8_t which, uint32_t value)
{
    static uint8_t buf[SHARE_WIRE_MAX + 100];
    struct share_wire_head head = { .slot = value % 64 };
    ssize_t n;
    switch (which & 7) {
    case 0: /* takes requests and does not answer */
        (void)!recv(server, buf, sizeof(buf), MSG_DONTWAIT);
        break;
    case 1:
    case 2:
    case 3: /* answers */
        n = recv(server, buf, sizeof(buf), MSG_DONTWAIT);
        if (n >= (ssize_t)sizeof(head)) {
            (void)!send(server, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        break;
    case 4: /* answers what nobody asked, of any length */
        memcpy(buf, &head, sizeof(head));
        (void)!send(server, buf, value % sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 5:
        if (value % 8 == 0 && server >= 0) {
            close(server);
            server = -1;
        }
        break;
    default:
        (void)virtio_fs_served(vh->dev);
        break;
    }
    if (loop_run_once(vh->h.env.loop, 0) < 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        abort();
    }
    server = pair[1];
    const struct virtio_fs_params params = { .tag = "fuzz", .fd = pair[0] };
    virtio_fuzz_run(&(struct virtio_fuzz_target){ &virtio_fs_class, &params, op, NULL }, data, len);
    close(pair[0]);
    if (server >= 0) {
        close(server);
    }
    return 0;
}
