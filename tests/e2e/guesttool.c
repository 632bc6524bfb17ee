/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the test guests need and busybox lacks; linked statically, put into the test initrd.
 *
 *   guesttool blk FILE seqread|seqwrite|randread|randwrite SECONDS BLOCK   direct I/O, prints MB/s
 *   guesttool vsock-send CID PORT      standard input to a vsock port, its reply to standard output
 *   guesttool vsock-echo PORT          echoes one vsock connection
 *   guesttool outb PORT VALUE          one byte to an I/O port
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int die(const char *what)
{
    fprintf(stderr, "guesttool: %s: %s\n", what, strerror(errno));
    return 1;
}

static int blk(const char *file, const char *mode, double seconds, size_t block)
{
    int writes = strstr(mode, "write") != NULL;
    int random_order = strncmp(mode, "rand", 4) == 0;
    int fd = open(file, (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
    uint64_t size = 0;
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0) {
        return die(file);
    }
    void *buffer = NULL;
    if (posix_memalign(&buffer, 4096, block) != 0) {
        return die("memory");
    }
    memset(buffer, 0x5a, block);
    uint64_t blocks = size / block;
    uint64_t next = 0;
    uint64_t done = 0;
    uint64_t seed = 88172645463325252ull;
    double start = now();
    while (now() - start < seconds) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        uint64_t at = random_order ? seed % blocks : next++ % blocks;
        ssize_t n = writes ? pwrite(fd, buffer, block, (off_t)(at * block))
                           : pread(fd, buffer, block, (off_t)(at * block));
        if (n != (ssize_t)block) {
            return die(mode);
        }
        done += block;
    }
    printf("RATE %s %.3f MB/s\n", mode, (double)done / (now() - start) / 1e6);
    return 0;
}

/* Moves bytes between a socket and the standard streams until both sides are at their end. */
static int shuttle(int sock, int in)
{
    char buffer[65536];
    ssize_t n;
    while ((n = read(in, buffer, sizeof(buffer))) > 0) {
        for (ssize_t at = 0; at < n;) {
            ssize_t sent = write(sock, buffer + at, (size_t)(n - at));
            if (sent <= 0) {
                return die("send");
            }
            at += sent;
        }
    }
    shutdown(sock, SHUT_WR);
    while ((n = read(sock, buffer, sizeof(buffer))) > 0) {
        if (write(STDOUT_FILENO, buffer, (size_t)n) != n) {
            return die("standard output");
        }
    }
    return n < 0 ? die("receive") : 0;
}

static int vsock_send(unsigned cid, unsigned port)
{
    struct sockaddr_vm to = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
    int sock = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (sock < 0 || connect(sock, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return die("connect");
    }
    return shuttle(sock, STDIN_FILENO);
}

static int vsock_echo(unsigned port)
{
    struct sockaddr_vm at = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port };
    int sock = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (sock < 0 || bind(sock, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(sock, 1) < 0) {
        return die("listen");
    }
    puts("LISTENING");
    fflush(stdout);
    int peer = accept(sock, NULL, NULL);
    return peer < 0 ? die("accept") : shuttle(peer, peer);
}

/* /dev/port, since iopl() and then outb faults on an SVM that is itself emulated. */
static int port_write(long port, unsigned char value)
{
    int fd = open("/dev/port", O_RDWR);
    if (fd < 0 || pwrite(fd, &value, 1, port) != 1) {
        return die("/dev/port");
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "blk") == 0 && argc == 6) {
        return blk(argv[2], argv[3], atof(argv[4]), strtoul(argv[5], NULL, 0));
    }
    if (strcmp(what, "vsock-send") == 0 && argc == 4) {
        return vsock_send((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
    }
    if (strcmp(what, "vsock-echo") == 0 && argc == 3) {
        return vsock_echo((unsigned)atoi(argv[2]));
    }
    if (strcmp(what, "outb") == 0 && argc == 4) {
        return port_write(strtol(argv[2], NULL, 0), (unsigned char)strtoul(argv[3], NULL, 0));
    }
    fputs("guesttool: see the head of guesttool.c\n", stderr);
    return 2;
}
