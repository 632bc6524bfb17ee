/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The network of a machine with one command: posada.net=user on the kernel's command line says that
 * the card is joined to posada-net, whose addresses are fixed (docs/net.md).
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"

#define NETWORK_ADDRESS "10.0.2.15"
#define NETWORK_MASK    "255.255.255.0"
#define NETWORK_GATEWAY "10.0.2.2"
#define NETWORK_DNS     "10.0.2.3"

static void network_set(struct sockaddr *to, const char *text)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    (void)inet_pton(AF_INET, text, &a.sin_addr); /* constants of ours */
    memcpy(to, &a, sizeof(a));
}

static void network_up(int fd, const char *name, const char *address, const char *mask)
{
    struct ifreq r = { 0 };
    (void)snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    network_set(&r.ifr_addr, address);
    int bad = ioctl(fd, SIOCSIFADDR, &r);
    network_set(&r.ifr_netmask, mask);
    bad |= ioctl(fd, SIOCSIFNETMASK, &r);
    bad |= ioctl(fd, SIOCGIFFLAGS, &r);
    r.ifr_flags = (short)(r.ifr_flags | IFF_UP | IFF_RUNNING);
    bad |= ioctl(fd, SIOCSIFFLAGS, &r);
    if (bad != 0) {
        agent_say("network: %s cannot be set up", name);
    }
}

/* The first card; a machine may have none. */
static bool network_card(char name[IFNAMSIZ])
{
    DIR *dir = opendir("/sys/class/net");
    struct dirent *e;
    bool found = false;
    while (dir != NULL && !found && (e = readdir(dir)) != NULL) {
        found = e->d_name[0] == 'e';
        (void)snprintf(name, IFNAMSIZ, "%.15s", e->d_name);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return found;
}

static void network_dns(void)
{
    /* Where the image's /etc/resolv.conf leads to. */
    (void)mkdir("/run/systemd", 0755);
    (void)mkdir("/run/systemd/resolve", 0755);
    FILE *f = fopen("/run/systemd/resolve/stub-resolv.conf", "we");
    if (f != NULL) {
        fprintf(f, "nameserver %s\n", NETWORK_DNS);
        (void)fclose(f); /* without it names are not found, which says enough */
    }
}

void agent_network(void)
{
    char kind[16];
    char card[IFNAMSIZ];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    network_up(fd, "lo", "127.0.0.1", "255.0.0.0");
    if (agent_cmdline("posada.net", kind, sizeof(kind)) && strcmp(kind, "user") == 0 &&
        network_card(card)) {
        struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
        network_up(fd, card, NETWORK_ADDRESS, NETWORK_MASK);
        network_set(&route.rt_dst, "0.0.0.0");
        network_set(&route.rt_genmask, "0.0.0.0");
        network_set(&route.rt_gateway, NETWORK_GATEWAY);
        if (ioctl(fd, SIOCADDRT, &route) != 0) {
            agent_say("network: no default route");
        }
        network_dns();
    }
    close(fd);
}
