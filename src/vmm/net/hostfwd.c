/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/net/hostfwd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

#define HOSTFWD_TEXT_MAX 64 /* the longest valid one has 49 bytes */

static int hostfwd_bad(const char *text, const char *what, struct err *err)
{
    return err_set(err, -EINVAL,
                   "hostfwd '%s': %s; write PROTO:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT, such "
                   "as tcp:127.0.0.1:2222-:22",
                   text, what);
}

/* "[ADDRESS]:PORT" in `part`, which is cut at the colon. */
static const char *hostfwd_end(char *part, struct in_addr *addr, uint16_t *port)
{
    char *colon = strrchr(part, ':');
    if (colon == NULL) {
        return "a colon is missing before a port";
    }
    *colon = '\0';
    if (part[0] != '\0' && inet_pton(AF_INET, part, addr) != 1) {
        return "an address is not of the form 1.2.3.4";
    }
    const char *digits = colon + 1;
    size_t len = strspn(digits, "0123456789");
    unsigned long value = strtoul(digits, NULL, 10);
    if (len == 0 || len > 5 || digits[len] != '\0' || value < 1 || value > 65535) {
        return "a port is not a number from 1 to 65535";
    }
    *port = (uint16_t)value;
    return NULL;
}

int hostfwd_parse(const char *text, struct hostfwd *ret_fwd, struct err *err)
{
    struct hostfwd fwd = { .host = { .s_addr = htonl(INADDR_LOOPBACK) } };
    char buf[HOSTFWD_TEXT_MAX];
    if (strlen(text) >= sizeof(buf)) {
        return hostfwd_bad(text, "it is too long", err);
    }
    memcpy(buf, text, strlen(text) + 1);
    fwd.udp = strncmp(buf, "udp:", 4) == 0;
    if (!fwd.udp && strncmp(buf, "tcp:", 4) != 0) {
        return hostfwd_bad(text, "it does not begin with tcp: or udp:", err);
    }
    char *dash = strchr(buf, '-');
    if (dash == NULL) {
        return hostfwd_bad(text, "the dash between host and guest is missing", err);
    }
    *dash = '\0';
    const char *why = hostfwd_end(buf + 4, &fwd.host, &fwd.host_port);
    why = why != NULL ? why : hostfwd_end(dash + 1, &fwd.guest, &fwd.guest_port);
    if (why != NULL) {
        return hostfwd_bad(text, why, err);
    }
    *ret_fwd = fwd;
    return 0;
}
