/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Back ends from end to end without a virtual machine: raw frames to and from the helper process
 * of user networking, and a real tap interface where the host allows one.
 */
#include "vmm/net/netbe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The helper has no system call filter in such builds: posada_net_jail.c. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define GUEST_IP 0x0a00020fU /* 10.0.2.15 */
#define HOST_IP  0x0a000202U
#define ETH      14
#define L4       (ETH + 20)

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };
static const uint8_t host_mac[6] = { 0x52, 0x55, 10, 0, 2, 2 };

static struct netbe *open_user(const char *const *hostfwd)
{
    struct err err = ERR_INIT;
    struct netbe *be = NULL;
    if (netbe_open(&(struct netbe_opts){ .kind = "user", .hostfwd = hostfwd }, &be, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(be->nqueues, 1);
    assert_false(be->vnet_hdr);
    assert_int_equal(be->offloads, 0);
    return be;
}

static uint16_t checksum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i += 2) {
        sum += (uint32_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0U);
    }
    while (sum >> 16 != 0) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

static size_t make_eth(uint8_t *f, uint16_t type, bool broadcast)
{
    memset(f, 0, 60);
    memcpy(f, host_mac, 6);
    if (broadcast) {
        memset(f, 0xff, 6);
    }
    memcpy(f + 6, guest_mac, 6);
    be16_put(f + 12, type);
    return ETH;
}

/* Fills the IPv4 header for `len` bytes of payload at f + L4, and the TCP or UDP checksum. */
static size_t make_ip(uint8_t *f, uint8_t proto, uint32_t src, uint32_t dst, size_t len)
{
    uint8_t *ip = f + ETH;
    ip[0] = 0x45;
    be16_put(ip + 2, (uint16_t)(20 + len));
    ip[8] = 64;
    ip[9] = proto;
    be32_put(ip + 12, src);
    be32_put(ip + 16, dst);
    be16_put(ip + 10, checksum(ip, 20, 0));
    uint32_t pseudo =
        (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + proto + (uint32_t)len;
    uint8_t *l4 = f + L4;
    size_t at = proto == IPPROTO_TCP ? 16 : 6;
    be16_put(l4 + at, checksum(l4, len, pseudo));
    return L4 + len;
}

static size_t make_udp(uint8_t *f, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport,
                       size_t len)
{
    uint8_t *udp = f + L4;
    be16_put(udp, sport);
    be16_put(udp + 2, dport);
    be16_put(udp + 4, (uint16_t)(8 + len));
    return make_ip(f, IPPROTO_UDP, src, dst, 8 + len);
}

static size_t make_tcp(uint8_t *f, uint32_t dst, const uint16_t port[2], uint32_t seq, uint32_t ack,
                       uint8_t flags, const char *data)
{
    uint8_t *tcp = f + make_eth(f, ETH_P_IP, false) + 20;
    be16_put(tcp, port[0]);
    be16_put(tcp + 2, port[1]);
    be32_put(tcp + 4, seq);
    be32_put(tcp + 8, ack);
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    be16_put(tcp + 14, 65000);
    memcpy(tcp + 20, data, strlen(data));
    return make_ip(f, IPPROTO_TCP, GUEST_IP, dst, 20 + strlen(data));
}

static void send_frame(struct netbe *be, const uint8_t *f, size_t len)
{
    struct pollfd p = { .fd = be->fd[0], .events = POLLOUT };
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_int_equal(write(be->fd[0], f, len), len);
}

typedef bool match_fn(const uint8_t *f, size_t len);

/* The next frame that `match` likes; others are passed over. */
static size_t want_frame(struct netbe *be, match_fn *match, uint8_t *buf, size_t size)
{
    for (int i = 0; i < 200; i++) {
        struct pollfd p = { .fd = be->fd[0], .events = POLLIN };
        assert_int_equal(poll(&p, 1, 10000), 1);
        ssize_t n = read(be->fd[0], buf, size);
        assert_true(n > 0);
        if (match(buf, (size_t)n)) {
            return (size_t)n;
        }
    }
    fail_msg("the frame did not come");
    return 0;
}

static bool is_arp(const uint8_t *f, size_t len)
{
    return len >= 42 && be16_get(f + 12) == ETH_P_ARP;
}

static bool is_dhcp(const uint8_t *f, size_t len)
{
    return len > L4 + 8 + 240 && be16_get(f + 12) == ETH_P_IP && f[ETH + 9] == IPPROTO_UDP &&
           be16_get(f + L4 + 2) == 68;
}

static bool is_tcp(const uint8_t *f, size_t len)
{
    return len >= L4 + 20 && be16_get(f + 12) == ETH_P_IP && f[ETH + 9] == IPPROTO_TCP;
}

static bool is_tcp_data(const uint8_t *f, size_t len)
{
    return is_tcp(f, len) && be16_get(f + ETH + 2) > 40;
}

static bool is_udp(const uint8_t *f, size_t len)
{
    return len >= L4 + 8 && be16_get(f + 12) == ETH_P_IP && f[ETH + 9] == IPPROTO_UDP;
}

/* Tells the stack who 10.0.2.15 is, and checks who 10.0.2.2 is. */
static void exchange_arp(struct netbe *be)
{
    uint8_t f[2048];
    make_eth(f, ETH_P_ARP, true);
    uint8_t *arp = f + ETH;
    be16_put(arp, 1);
    be16_put(arp + 2, ETH_P_IP);
    arp[4] = 6;
    arp[5] = 4;
    be16_put(arp + 6, 1);
    memcpy(arp + 8, guest_mac, 6);
    be32_put(arp + 14, GUEST_IP);
    be32_put(arp + 24, HOST_IP);
    send_frame(be, f, 60);
    do {
        (void)want_frame(be, is_arp, f, sizeof(f));
    } while (be16_get(f + ETH + 6) != 2);
    assert_memory_equal(f + ETH + 8, host_mac, 6);
    assert_int_equal(be32_get(f + ETH + 14), HOST_IP);
}

/* One DHCP turn (RFC 2131): sends message `type`, returns the type of the answer. */
static uint8_t dhcp_turn(struct netbe *be, uint8_t type, uint8_t *f, size_t size)
{
    make_eth(f, ETH_P_IP, true);
    uint8_t *d = f + L4 + 8;
    memset(d, 0, 300);
    d[0] = 1;
    d[1] = 1;
    d[2] = 6;
    be32_put(d + 4, 0xabad1dea);
    memcpy(d + 28, guest_mac, 6);
    be32_put(d + 236, 0x63825363);
    const uint8_t options[] = { 53, 1, type, 50, 4, 10, 0, 2, 15, 255 };
    memcpy(d + 240, options, sizeof(options));
    send_frame(be, f, make_udp(f, 0, 0xffffffff, 68, 67, 300));
    (void)want_frame(be, is_dhcp, f, size);
    assert_int_equal(be32_get(d + 4), 0xabad1dea);
    assert_int_equal(be32_get(d + 16), GUEST_IP);
    assert_int_equal(d[240], 53);
    return d[242];
}

static void user_gives_an_address(void **state)
{
    (void)state;
    struct netbe *be = open_user(NULL);
    uint8_t f[2048];
    assert_int_equal(dhcp_turn(be, 1, f, sizeof(f)), 2); /* discover, offer */
    assert_int_equal(dhcp_turn(be, 3, f, sizeof(f)), 5); /* request, ack */
    bool router = false;
    bool dns = false;
    const uint8_t *o = f + L4 + 8 + 240;
    while (o < f + sizeof(f) && *o != 255) {
        router |= o[0] == 3 && be32_get(o + 2) == HOST_IP;
        dns |= o[0] == 6 && be32_get(o + 2) == 0x0a000203;
        o += 2 + o[1];
    }
    assert_true(router);
    assert_true(dns);
    exchange_arp(be);
    netbe_close(be);
}

/* A loopback socket that listens or is bound; its port in *port. */
static int bound_socket(int type, uint16_t *port)
{
    int fd = socket(AF_INET, type, 0);
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sa);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    if (type == SOCK_STREAM) {
        assert_int_equal(listen(fd, 4), 0);
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

static uint16_t free_port(int type)
{
    uint16_t port;
    close(bound_socket(type, &port));
    return port;
}

static int connect_to(int type, uint16_t port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, type, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    struct timeval tv = { .tv_sec = 10 };
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
    return fd;
}

/* A client of the host reaches the guest, data both ways: the guest's TCP is played here. */
static void user_forwards_tcp_to_the_guest(void **state)
{
    (void)state;
    char spec[64];
    uint16_t port = free_port(SOCK_STREAM);
    (void)snprintf(spec, sizeof(spec), "tcp:127.0.0.1:%u-:22", port);
    struct netbe *be = open_user((const char *const[]){ spec, NULL });
    exchange_arp(be);
    int client = connect_to(SOCK_STREAM, port);
    uint8_t f[2048];
    (void)want_frame(be, is_tcp, f, sizeof(f));
    assert_int_equal(f[L4 + 13], 0x02); /* SYN */
    assert_int_equal(be16_get(f + L4 + 2), 22);
    uint32_t ack = be32_get(f + L4 + 4) + 1;
    uint32_t peer = be32_get(f + ETH + 12);
    const uint16_t ports[2] = { 22, be16_get(f + L4) };
    send_frame(be, f, make_tcp(f, peer, ports, 1000, ack, 0x12, ""));
    assert_int_equal(send(client, "hello", 5, 0), 5);
    (void)want_frame(be, is_tcp_data, f, sizeof(f));
    assert_memory_equal(f + L4 + (f[L4 + 12] >> 4) * 4, "hello", 5);
    send_frame(be, f, make_tcp(f, peer, ports, 1001, ack + 5, 0x18, "world"));
    char buf[8];
    assert_int_equal(recv(client, buf, sizeof(buf), 0), 5);
    assert_memory_equal(buf, "world", 5);
    close(client);
    netbe_close(be);
}

static void user_forwards_udp_to_the_guest(void **state)
{
    (void)state;
    char spec[64];
    uint16_t port = free_port(SOCK_DGRAM);
    (void)snprintf(spec, sizeof(spec), "udp:127.0.0.1:%u-10.0.2.15:5000", port);
    struct netbe *be = open_user((const char *const[]){ spec, NULL });
    exchange_arp(be);
    int client = connect_to(SOCK_DGRAM, port);
    assert_int_equal(send(client, "ping", 4, 0), 4);
    uint8_t f[2048];
    (void)want_frame(be, is_udp, f, sizeof(f));
    assert_int_equal(be16_get(f + L4 + 2), 5000);
    assert_memory_equal(f + L4 + 8, "ping", 4);
    uint32_t peer = be32_get(f + ETH + 12);
    uint16_t peer_port = be16_get(f + L4);
    make_eth(f, ETH_P_IP, false);
    memcpy(f + L4 + 8, "pong", 4);
    send_frame(be, f, make_udp(f, GUEST_IP, peer, 5000, peer_port, 4));
    char buf[8];
    assert_int_equal(recv(client, buf, sizeof(buf), 0), 4);
    assert_memory_equal(buf, "pong", 4);
    close(client);
    netbe_close(be);
}

/* The guest reaches a server of the host. */
static void user_connects_out(void **state)
{
    (void)state;
    uint16_t port;
    int server = bound_socket(SOCK_STREAM, &port);
    struct netbe *be = open_user(NULL);
    exchange_arp(be);
    uint8_t f[2048];
    const uint16_t ports[2] = { 40000, port };
    send_frame(be, f, make_tcp(f, HOST_IP, ports, 7, 0, 0x02, ""));
    (void)want_frame(be, is_tcp, f, sizeof(f));
    assert_int_equal(f[L4 + 13], 0x12);
    uint32_t ack = be32_get(f + L4 + 4) + 1;
    int peer = accept(server, NULL, NULL);
    assert_true(peer >= 0);
    send_frame(be, f, make_tcp(f, HOST_IP, ports, 8, ack, 0x18, "up"));
    char buf[8];
    assert_int_equal(recv(peer, buf, sizeof(buf), 0), 2);
    assert_memory_equal(buf, "up", 2);
    close(peer);
    close(server);
    netbe_close(be);
}

static void user_reports_a_taken_port(void **state)
{
    (void)state;
    uint16_t port;
    int taken = bound_socket(SOCK_STREAM, &port);
    char spec[64];
    char number[16];
    (void)snprintf(spec, sizeof(spec), "tcp::%u-:22", port);
    (void)snprintf(number, sizeof(number), "port %u", port);
    struct err err = ERR_INIT;
    struct netbe *be = NULL;
    struct netbe_opts opts = {
        .kind = "user", .hostfwd = (const char *const[]){spec, NULL}
    };
    assert_true(netbe_open(&opts, &be, &err) < 0);
    assert_non_null(strstr(err.msg, number));
    assert_non_null(strstr(err.msg, "in use"));
    close(taken);
}

static void user_options_are_checked_first(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct netbe *be = NULL;
    struct netbe_opts opts = {
        .kind = "user", .hostfwd = (const char *const[]){"x", NULL}
    };
    assert_int_equal(netbe_open(&opts, &be, &err), -EINVAL);
    opts = (struct netbe_opts){ .kind = "user", .helper = "/nonexistent/posada-net" };
    assert_int_equal(netbe_open(&opts, &be, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent/posada-net"));
    opts.helper = "/bin/true";
    assert_int_equal(netbe_open(&opts, &be, &err), -EPIPE);
    assert_non_null(strstr(err.msg, "/bin/true"));
    opts.kind = "bridge";
    assert_int_equal(netbe_open(&opts, &be, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "bridge"));
}

/* Pid of our only child. */
static pid_t only_child(void)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "r");
    int pid = 0;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    (void)fclose(f);
    return pid;
}

static void user_helper_has_given_up_its_rights(void **state)
{
    (void)state;
    struct netbe *be = open_user(NULL);
    char path[64];
    char line[256];
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)only_child());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    unsigned seen = 0;
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "NoNewPrivs:", 11) == 0) {
            assert_int_equal(line[12], '1');
            seen++;
        }
        if (strncmp(line, "Uid:", 4) == 0) {
            assert_true(strtoul(line + 4, NULL, 10) != 0);
            seen++;
        }
        if (strncmp(line, "CapEff:", 7) == 0) {
            assert_int_equal(strtoull(line + 7, NULL, 16), 0);
            seen++;
        }
#if !SANITIZED
        if (strncmp(line, "Seccomp:", 8) == 0) {
            assert_int_equal(line[9], '2');
            seen++;
        }
#else
        seen += strncmp(line, "Seccomp:", 8) == 0;
#endif
    }
    (void)fclose(f);
    assert_int_equal(seen, 4);
    netbe_close(be);
}

/* However the parent ends, the helper does not stay behind. */
static void user_helper_dies_with_its_parent(void **state)
{
    (void)state;
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t parent = fork();
    if (parent == 0) {
        (void)open_user(NULL);
        pid_t helper = only_child();
        (void)!write(out[1], &helper, sizeof(helper));
        (void)pause();
        _exit(0);
    }
    pid_t helper = 0;
    assert_int_equal(read(out[0], &helper, sizeof(helper)), sizeof(helper));
    assert_int_equal(kill(helper, 0), 0);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    char path[64];
    char line[256] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)helper);
    bool gone = false;
    for (int i = 0; i < 200 && !gone; i++) {
        usleep(10000);
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
        gone = n <= 0 || strstr(line, ") Z ") != NULL;
        close(fd);
    }
    assert_true(gone);
    close(out[0]);
    close(out[1]);
}

/* Frames of all sizes and any content do not end the helper. */
static void user_survives_rubbish(void **state)
{
    (void)state;
    struct netbe *be = open_user(NULL);
    uint8_t f[9000];
    uint32_t x = 1;
    for (int i = 0; i < 3000; i++) {
        for (size_t k = 0; k < 128; k++) {
            x = x * 1664525 + 1013904223;
            f[k] = (uint8_t)(x >> 24);
        }
        if (i % 2 == 0) {
            make_eth(f, i % 4 == 0 ? ETH_P_IP : ETH_P_IPV6, false);
        }
        (void)!write(be->fd[0], f, 1 + (x >> 8) % sizeof(f)); /* a full socket drops it */
        uint8_t in[2048];
        while (read(be->fd[0], in, sizeof(in)) > 0) {
        }
    }
    exchange_arp(be);
    netbe_close(be);
}

static void none_has_no_descriptor(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct netbe *be = NULL;
    assert_int_equal(netbe_open(&(struct netbe_opts){ .kind = "none" }, &be, &err), 0);
    assert_int_equal(be->nqueues, 1);
    assert_int_equal(be->fd[0], -1);
    netbe_close(be);
}

static void tap_errors_name_the_interface(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct netbe *be = NULL;
    struct netbe_opts opts = { .kind = "tap", .ifname = "ptestnone0", .queues = 2 };
    assert_int_equal(netbe_open(&opts, &be, &err), -ENODEV);
    assert_non_null(strstr(err.msg, "ptestnone0"));
    assert_non_null(strstr(err.msg, "multi_queue"));
    opts.ifname = "sixteen-bytes-xx";
    assert_int_equal(netbe_open(&opts, &be, &err), -EINVAL);
    opts.ifname = NULL;
    assert_int_equal(netbe_open(&opts, &be, &err), -EINVAL);
    opts = (struct netbe_opts){ .kind = "tap", .ifname = "lo", .queues = 9 };
    assert_int_equal(netbe_open(&opts, &be, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "1 to 8"));
    opts.queues = 1;
    assert_true(netbe_open(&opts, &be, &err) < 0);
    assert_non_null(strstr(err.msg, "lo"));
}

/* Makes a persistent tap interface, up, in a network namespace of its own. False: not allowed. */
static bool make_tap(const char *name, bool multi)
{
    static bool unshared;
    if (!unshared && unshare(CLONE_NEWNET) < 0) {
        return false;
    }
    unshared = true;
    int fd = open("/dev/net/tun", O_RDWR);
    if (fd < 0) {
        return false;
    }
    struct ifreq ifr = { 0 };
    (void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (multi ? IFF_MULTI_QUEUE : 0));
    bool ok = ioctl(fd, TUNSETIFF, &ifr) == 0 && ioctl(fd, TUNSETPERSIST, 1) == 0;
    close(fd);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    ok = ok && ioctl(sock, SIOCGIFFLAGS, &ifr) == 0;
    ifr.ifr_flags |= IFF_UP;
    ok = ok && ioctl(sock, SIOCSIFFLAGS, &ifr) == 0;
    close(sock);
    return ok;
}

/*
 * Waits until the kernel has noticed that the tap has a carrier. That happens on a kernel worker
 * some time after the tap was opened; what the host sends before is dropped without an error.
 * The flag comes first and the queue is opened behind it, both under the lock that SIOCSIFFLAGS
 * takes, too.
 */
static void wait_running(const char *name)
{
    struct ifreq ifr = { 0 };
    (void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    assert_true(sock >= 0);
    for (int i = 0; i < 3000 && (ifr.ifr_flags & IFF_RUNNING) == 0; i++) {
        assert_int_equal(ioctl(sock, SIOCGIFFLAGS, &ifr), 0);
        usleep((ifr.ifr_flags & IFF_RUNNING) == 0 ? 10000 : 0);
    }
    assert_true((ifr.ifr_flags & IFF_RUNNING) != 0);
    assert_int_equal(ioctl(sock, SIOCSIFFLAGS, &ifr), 0);
    close(sock);
}

static void tap_carries_frames_both_ways(void **state)
{
    (void)state;
    if (!make_tap("ptest0", true)) {
        skip();
    }
    for (unsigned queues = 1; queues <= 4; queues += 3) {
        struct err err = ERR_INIT;
        struct netbe *be = NULL;
        struct netbe_opts opts = { .kind = "tap", .ifname = "ptest0", .queues = queues };
        if (netbe_open(&opts, &be, &err) < 0) {
            fail_msg("%s", err.msg);
        }
        assert_int_equal(be->nqueues, queues);
        assert_true(be->vnet_hdr);
        assert_true((be->offloads & TUN_F_CSUM) != 0);
        assert_int_equal(be->cls->set_offload(be, be->offloads), 0);
        assert_int_equal(be->cls->set_queues(be, queues), 0);
        assert_int_equal(be->cls->set_queues(be, 1), 0);

        wait_running("ptest0");
        int raw = socket(AF_PACKET, SOCK_RAW, htons(0x88b5));
        assert_true(raw >= 0);
        struct sockaddr_ll ll = { .sll_family = AF_PACKET,
                                  .sll_protocol = htons(0x88b5),
                                  .sll_ifindex = (int)if_nametoindex("ptest0") };
        assert_int_equal(bind(raw, (struct sockaddr *)&ll, sizeof(ll)), 0);
        uint8_t f[NETBE_VNET_HDR_LEN + 64] = { 0 };
        make_eth(f + NETBE_VNET_HDR_LEN, 0x88b5, true);
        memcpy(f + NETBE_VNET_HDR_LEN + ETH, "to the host", 11);
        assert_int_equal(write(be->fd[0], f, sizeof(f)), sizeof(f));
        uint8_t buf[2048];
        assert_int_equal(recv(raw, buf, sizeof(buf), 0), 64);
        assert_memory_equal(buf + ETH, "to the host", 11);

        memcpy(f + NETBE_VNET_HDR_LEN + ETH, "to a guest!", 11);
        bool found = false;
        for (int i = 0; i < 100 && !found; i++) {
            /* Again when none came: one that meets the queue being set up is lost. */
            struct pollfd p = { .fd = be->fd[0], .events = POLLIN };
            assert_int_equal(send(raw, f + NETBE_VNET_HDR_LEN, 64, 0), 64);
            if (poll(&p, 1, 300) == 0) {
                continue;
            }
            ssize_t n = read(be->fd[0], buf, sizeof(buf));
            found = n == (ssize_t)sizeof(f) &&
                    memcmp(buf + NETBE_VNET_HDR_LEN + ETH, "to a guest!", 11) == 0;
        }
        assert_true(found);
        close(raw);
        netbe_close(be);
    }
}

static void tap_in_use_is_told(void **state)
{
    (void)state;
    if (!make_tap("ptest1", false)) {
        skip();
    }
    struct err err = ERR_INIT;
    struct netbe *be = NULL;
    struct netbe *second = NULL;
    struct netbe_opts opts = { .kind = "tap", .ifname = "ptest1", .queues = 1 };
    assert_int_equal(netbe_open(&opts, &be, &err), 0);
    assert_int_equal(netbe_open(&opts, &second, &err), -EBUSY);
    assert_non_null(strstr(err.msg, "in use"));
    netbe_close(be);
    opts.queues = 2;
    assert_int_equal(netbe_open(&opts, &second, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "multi_queue"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(user_gives_an_address),
        cmocka_unit_test(user_forwards_tcp_to_the_guest),
        cmocka_unit_test(user_forwards_udp_to_the_guest),
        cmocka_unit_test(user_connects_out),
        cmocka_unit_test(user_reports_a_taken_port),
        cmocka_unit_test(user_options_are_checked_first),
        cmocka_unit_test(user_helper_has_given_up_its_rights),
        cmocka_unit_test(user_helper_dies_with_its_parent),
        cmocka_unit_test(user_survives_rubbish),
        cmocka_unit_test(none_has_no_descriptor),
        cmocka_unit_test(tap_errors_name_the_interface),
        cmocka_unit_test(tap_carries_frames_both_ways),
        cmocka_unit_test(tap_in_use_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
