/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: a shared folder under hostile FUSE requests. The input is a list of requests: opcode
 * (1 byte), which node (1), length of the arguments (1), arguments. Each run begins with INIT and
 * a folder that has a file, a folder and a link to the outside; a file beside the folder must come
 * through untouched.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/fs/share.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char top[64];
static int top_fd = -1;
static int dir_fd = -1;

static void make_file(int dir, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        abort();
    }
    close(fd);
}

static void setup(void)
{
    if (dir_fd >= 0) {
        return;
    }
    (void)snprintf(top, sizeof(top), "/tmp/fuzz_share.XXXXXX");
    if (mkdtemp(top) == NULL) {
        abort();
    }
    top_fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top_fd < 0 || mkdirat(top_fd, "in", 0700) < 0) {
        abort();
    }
    dir_fd = openat(top_fd, "in", O_PATH | O_DIRECTORY | O_CLOEXEC);
    make_file(top_fd, "outside", "untouched");
    if (dir_fd < 0 || mkdirat(dir_fd, "d", 0700) < 0 || symlinkat("../outside", dir_fd, "l") < 0) {
        abort();
    }
}

static void check_outside(void)
{
    char buf[16] = "";
    struct stat st;
    int fd = openat(top_fd, "outside", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, buf, sizeof(buf)) != 9 || memcmp(buf, "untouched", 9) != 0 ||
        fstat(fd, &st) < 0 || st.st_nlink != 1 || (st.st_mode & 07777) != 0600) {
        abort();
    }
    close(fd);
}

static uint64_t send_request(struct share *s, uint32_t opcode, uint64_t node, const void *arg,
                             size_t arg_len)
{
    static uint8_t reply[SHARE_MAX_MESSAGE];
    struct fuse_in_header in = { .opcode = opcode, .nodeid = node, .unique = 1 };
    uint8_t *request = malloc(sizeof(in) + arg_len); /* its end is where a sanitizer sees it */
    struct fuse_out_header out;
    if (request == NULL) {
        abort();
    }
    in.len = (uint32_t)(sizeof(in) + arg_len);
    memcpy(request, &in, sizeof(in));
    memcpy(request + sizeof(in), arg, arg_len);
    size_t n = share_handle(s, request, in.len, reply, sizeof(reply));
    free(request);
    if (n == 0) {
        return 0;
    }
    memcpy(&out, reply, sizeof(out));
    if (n > sizeof(reply) || out.len != n || out.unique != 1 || out.error > 0) {
        abort();
    }
    /* What makes or finds a node, or opens, has its number first. */
    uint64_t first = 0;
    memcpy(&first, reply + sizeof(out), n >= sizeof(out) + 8 ? 8 : 0);
    return out.error == 0 ? first : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct err err = ERR_INIT;
    struct share *s = NULL;
    const struct fuse_init_in init = { .major = 7, .minor = 38, .flags = ~0U };
    uint64_t known[16] = { FUSE_ROOT_ID };
    unsigned nknown = 1;
    setup();
    make_file(dir_fd, "f", "file");
    if (share_new(dir_fd, len == 0 || data[0] % 4 != 0, &s, &err) < 0) {
        abort();
    }
    (void)send_request(s, FUSE_INIT, 0, &init, sizeof(init));
    while (len >= 3) {
        uint8_t arg[255];
        size_t arg_len = data[2] < len - 3 ? data[2] : len - 3;
        memcpy(arg, data + 3, arg_len);
        /* A number of ours in the place where handles and other folders are. */
        if ((data[1] & 0x80) != 0 && arg_len >= 8) {
            memcpy(arg, &known[data[1] >> 3 & 15], 8);
        }
        uint64_t got = send_request(s, data[0] & 63, known[(data[1] & 7) % nknown], arg, arg_len);
        if (got != 0) {
            known[nknown < 16 ? nknown++ : 1 + data[1] % 15] = got;
        }
        data += 3 + arg_len;
        len -= 3 + arg_len;
    }
    if (share_nodes(s) > SHARE_MAX_NODES || share_handles(s) > SHARE_MAX_HANDLES) {
        abort();
    }
    share_free(s);
    check_outside();
    return 0;
}
