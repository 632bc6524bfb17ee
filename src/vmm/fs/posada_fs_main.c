/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada-fs: a shared folder of a VM, in a process of its own because the requests are the guest's
 * and need open(2), which the VM's process has not. Started by machine_devices.c with a
 * seqpacket socket as descriptor 3 (helper.h, share_wire.h); one request at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/lang.h"
#include "vmm/fs/posada_fs_jail.h"
#include "vmm/fs/share_wire.h"
#include "vmm/helper.h"

static union {
    struct share_wire_head head;
    uint8_t bytes[SHARE_WIRE_MAX];
} request, answer;

static int start(int argc, char **argv, struct share **ret_share, struct err *err)
{
    pid_t parent = 0;
    const char *dir = NULL;
    bool writable = false;
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--parent") == 0) {
            parent = (pid_t)strtol(argv[++i], NULL, 10);
        } else if (i + 1 < argc && strcmp(argv[i], "--dir") == 0) {
            dir = argv[++i];
        } else if (strcmp(argv[i], "--writable") == 0) {
            writable = true;
        } else {
            return err_set(err, -EINVAL, "unknown option '%s'", argv[i]);
        }
    }
    if (dir == NULL) {
        return err_set(err, -EINVAL, "no folder");
    }
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot open the folder '%s'", dir);
    }
    int rc = share_new(fd, writable, ret_share, err);
    return rc < 0 ? rc : posada_fs_jail(parent, fd, writable, err);
}

/* Until the VM's process closes its end. */
static int serve(struct share *s)
{
    for (;;) {
        ssize_t n = recv(HELPER_FD, request.bytes, sizeof(request), 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < (ssize_t)sizeof(request.head)) {
            return n != 0;
        }
        size_t room = MIN((size_t)request.head.room, (size_t)SHARE_MAX_MESSAGE);
        size_t len =
            share_handle(s, request.bytes + sizeof(request.head), (size_t)n - sizeof(request.head),
                         answer.bytes + sizeof(answer.head), room);
        if (room == 0) {
            continue;
        }
        answer.head = (struct share_wire_head){ .slot = request.head.slot };
        do {
            n = send(HELPER_FD, answer.bytes, sizeof(answer.head) + len, MSG_NOSIGNAL);
        } while (n < 0 && errno == EINTR);
        if (n < 0) {
            return 0; /* the VM has ended */
        }
    }
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct share *s = NULL;
    int type = 0;
    socklen_t len = sizeof(type);
    lang_init();
    if (getsockopt(HELPER_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET) {
        (void)fprintf(stderr, "posada-fs is started by posada-vmm for --share; "
                              "it is of no use by itself\n");
        return 2;
    }
    /* Ctrl-C at a terminal is for the virtual machine, whose end we see on our socket. */
    (void)signal(SIGINT, SIG_IGN);
    (void)close_range(HELPER_FD + 1, ~0U, 0); /* what a careless parent let us inherit */
    (void)umask(0);                           /* the guest's kernel has applied its own */
    int rc = start(argc, argv, &s, &err);
    char status[ERR_MSG_MAX + 1] = "K";
    if (rc < 0) {
        (void)snprintf(status, sizeof(status), "E%s", err.msg);
    }
    int flags = fcntl(HELPER_FD, F_GETFL);
    if (flags < 0 || fcntl(HELPER_FD, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
        send(HELPER_FD, status, strlen(status), MSG_NOSIGNAL) < 0 || rc < 0) {
        return 1;
    }
    return serve(s);
}
