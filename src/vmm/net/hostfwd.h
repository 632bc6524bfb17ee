/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host forwards of the user network: "tcp:127.0.0.1:2222-:22" = connections to port 2222 of the
 * host's loopback reach port 22 of the guest.
 */
#ifndef NET_HOSTFWD_H
#define NET_HOSTFWD_H

#include <netinet/in.h>

#include "base/bits.h"
#include "base/err.h"

#define HOSTFWD_MAX 64 /* of one NIC; each holds a descriptor of the helper */

struct hostfwd {
    bool udp;
    struct in_addr host;  /* empty = 127.0.0.1: say 0.0.0.0 to serve every interface */
    uint16_t host_port;   /* 1 to 65535 */
    struct in_addr guest; /* empty = 0.0.0.0 = the address that DHCP gives */
    uint16_t guest_port;  /* 1 to 65535 */
};

/* Parses PROTO:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT; PROTO is tcp or udp, addresses are IPv4.
 * 0, or -EINVAL with the part that is wrong. */
MUST_USE int hostfwd_parse(const char *text, struct hostfwd *ret_fwd, struct err *err);

#endif
