/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the console, a terminal and a channel over Unix sockets whose peers write, read,
 * come and go. The sockets have a loop of their own: the device's belongs to the harness.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "spec/virtio_console_defs.h"
#include "vmm/net/unixsock.h"
#include "vmm/virtio/virtio_console.h"
#include "vmm/virtio/virtio_fuzz.h"

#define PORTS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct loop *loop;
static char path[PORTS][64];
static int peer[PORTS];

static void run(void)
{
    for (unsigned i = 0; i < 3; i++) {
        if (loop_run_once(loop, 0) < 0) {
            abort();
        }
    }
}

static void op(struct virtio_harness *vh, uint8_t which, uint32_t value)
{
    static uint8_t buf[65536];
    unsigned i = which & 1;
    switch (which >> 1 & 7) {
    case 0:
        if (peer[i] >= 0) {
            close(peer[i]);
        }
        peer[i] = unixsock_connect(path[i]);
        break;
    case 1:
    case 2:
        (void)!send(peer[i], buf, value % 9000, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 3:
    case 4:
        (void)!recv(peer[i], buf, sizeof(buf), MSG_DONTWAIT);
        break;
    case 5:
        virtio_console_resize(vh->dev, i, (uint16_t)value, (uint16_t)(value >> 16));
        break;
    default:
        break;
    }
    run();
}

static void header(uint8_t *h, size_t len, uint8_t which, uint32_t value)
{
    (void)len; /* much more than 8 */
    le32_put(h, which & 0x80 ? value : which >> 4 & 1);
    le16_put(h + 4, which & 7);
    le16_put(h + 6, value & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const names[PORTS] = { "", "org.posada.fuzz" };
    struct virtio_console_port_params port[PORTS];
    struct err err = ERR_INIT;
    if (loop_new(&loop, &err) < 0) {
        abort();
    }
    for (unsigned i = 0; i < PORTS; i++) {
        char spec[80];
        (void)snprintf(path[i], sizeof(path[i]), "/tmp/fuzz_console.%d.%u", (int)getpid(), i);
        (void)snprintf(spec, sizeof(spec), "unix:%s", path[i]);
        port[i] = (struct virtio_console_port_params){ .name = names[i] };
        if (chr_open(spec, loop, NULL, NULL, &port[i].chr, &err) < 0) {
            abort();
        }
        peer[i] = unixsock_connect(path[i]);
    }
    const struct virtio_console_params params = { .nports = PORTS, .port = port };
    run();
    virtio_fuzz_run(&(struct virtio_fuzz_target){ &virtio_console_class, &params, op, header },
                    data, len);
    for (unsigned i = 0; i < PORTS; i++) {
        if (peer[i] >= 0) {
            close(peer[i]);
        }
        chr_close(port[i].chr);
    }
    loop_free(loop);
    return 0;
}
