/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands of the host: one connection, one command. See proto/agent_wire.h.
 *
 * The command has pipes, not a terminal. Its output goes out in frames as it comes; input is taken
 * from the connection only when the pipe has room, so nothing here grows. Writing to the connection
 * may block: the host always reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "proto/agent_wire.h"

#define SERVE_BACKLOG 16

struct serve {
    int conn; /* -1: the host has gone */
    int in;   /* the command's standard input; -1: closed */
    int out[2];
    int chld; /* signalfd of SIGCHLD */
    pid_t pid;
    int code;       /* -1: it runs */
    uint8_t *input; /* what waits for the pipe */
    uint32_t input_len, input_at;
};

/* ---- The connection ---- */

static bool serve_send_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static void serve_send(struct serve *s, enum agent_wire_type type, const void *data, uint32_t len)
{
    uint8_t header[AGENT_WIRE_HEADER];
    agent_wire_put_header(header, type, len);
    if (s->conn >= 0 &&
        !(serve_send_all(s->conn, header, sizeof(header)) && serve_send_all(s->conn, data, len))) {
        close(s->conn);
        s->conn = -1;
    }
}

static void serve_send_exit(struct serve *s, int code)
{
    uint8_t data[4];
    le32_put(data, (uint32_t)code);
    serve_send(s, AGENT_WIRE_EXIT, data, sizeof(data));
}

static bool serve_receive_all(int fd, uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(fd, data, len, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* A whole frame; its payload is malloc()ed. False: the host has gone or talks nonsense. */
static bool serve_receive(int fd, unsigned *ret_type, uint8_t **ret_data, uint32_t *ret_len)
{
    uint8_t header[AGENT_WIRE_HEADER];
    struct err err = ERR_INIT;
    if (!serve_receive_all(fd, header, sizeof(header)) ||
        agent_wire_get_header(header, ret_type, ret_len, &err) < 0) {
        return false;
    }
    CLEANUP_FREE uint8_t *data = malloc((size_t)*ret_len + 1);
    if (data == NULL || !serve_receive_all(fd, data, *ret_len)) {
        return false;
    }
    *ret_data = take_ptr(&data);
    return true;
}

/* ---- The command ---- */

static bool serve_mount(const char *const *mounts, struct err *err)
{
    for (size_t i = 0; mounts[i] != NULL; i += 2) {
        char path[4096];
        (void)snprintf(path, sizeof(path), "%s/", mounts[i + 1]);
        for (char *p = path + 1; *p != '\0'; p++) {
            if (*p == '/') {
                *p = '\0';
                (void)mkdir(path, 0755);
                *p = '/';
            }
        }
        if (mount(mounts[i], mounts[i + 1], "virtiofs", MS_NOSUID | MS_NODEV, NULL) < 0 &&
            errno != EBUSY) {
            (void)err_set_errno(err, -errno, "cannot mount '%s' in the guest", mounts[i + 1]);
            return false;
        }
    }
    return true;
}

static void serve_exec(const struct agent_wire_run *run, const int in[2], const int out[2],
                       const int errs[2], int failed)
{
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGCHLD, SIG_DFL);
    (void)setsid();
    (void)dup2(in[0], 0);
    (void)dup2(out[1], 1);
    (void)dup2(errs[1], 2);
    (void)clearenv();
    (void)setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    (void)setenv("HOME", "/root", 1);
    (void)setenv("USER", "root", 1);
    (void)setenv("LOGNAME", "root", 1);
    (void)setenv("SHELL", "/bin/bash", 1);
    (void)setenv("LANG", "C.UTF-8", 1);
    if (chdir(run->dir[0] != '\0' ? run->dir : "/root") < 0 && chdir("/") < 0) {
        _exit(126);
    }
    (void)execvp(run->argv[0], (char *const *)(uintptr_t)run->argv);
    int code = errno;
    ssize_t n = write(failed, &code, sizeof(code));
    _exit(n == sizeof(code) ? 127 : 126);
}

static void serve_close_pipes(int (*pipes)[2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (unsigned k = 0; k < 2; k++) {
            if (pipes[i][k] >= 0) {
                close(pipes[i][k]);
            }
        }
    }
}

/* 0, or the exit code of a command that could not be started, with the reason in `err`. */
static int serve_start(struct serve *s, const struct agent_wire_run *run, struct err *err)
{
    int pipes[4][2] = {
        {-1,  -1},
        { -1, -1},
        { -1, -1},
        { -1, -1}
    };
    int code = 0;
    for (size_t i = 0; i < ARRAY_LEN(pipes); i++) {
        if (pipe2(pipes[i], O_CLOEXEC) < 0) {
            code = errno;
        }
    }
    if (code != 0 || (s->pid = fork()) < 0) {
        code = errno;
        serve_close_pipes(pipes, ARRAY_LEN(pipes));
        (void)err_set_errno(err, -code, "cannot start '%s'", run->argv[0]);
        return 126;
    }
    if (s->pid == 0) {
        serve_exec(run, pipes[0], pipes[1], pipes[2], pipes[3][1]);
    }
    s->in = take_fd(&pipes[0][1]);
    s->out[0] = take_fd(&pipes[1][0]);
    s->out[1] = take_fd(&pipes[2][0]);
    (void)fcntl(s->in, F_SETFL, O_NONBLOCK);
    (void)fcntl(s->out[0], F_SETFL, O_NONBLOCK);
    (void)fcntl(s->out[1], F_SETFL, O_NONBLOCK);
    close(take_fd(&pipes[3][1]));
    bool failed = read(pipes[3][0], &code, sizeof(code)) == sizeof(code);
    serve_close_pipes(pipes, ARRAY_LEN(pipes));
    if (failed) {
        (void)waitpid(s->pid, NULL, 0);
        s->pid = -1;
        (void)err_set_errno(err, -code, "cannot start '%s'", run->argv[0]);
        return code == ENOENT ? 127 : 126;
    }
    return 0;
}

/* Sends what a stream has now. False: nothing more at the moment. */
static bool serve_output(struct serve *s, unsigned which)
{
    uint8_t buf[AGENT_WIRE_CHUNK];
    ssize_t n = s->out[which] >= 0 ? read(s->out[which], buf, sizeof(buf)) : -1;
    if (n > 0) {
        serve_send(s, which == 0 ? AGENT_WIRE_OUTPUT : AGENT_WIRE_ERRORS, buf, (uint32_t)n);
        return true;
    }
    if (n == 0) {
        close(s->out[which]);
        s->out[which] = -1;
    }
    return false;
}

static void serve_close_input(struct serve *s)
{
    if (s->in >= 0) {
        close(s->in);
        s->in = -1;
    }
    free(s->input);
    s->input = NULL;
}

static void serve_input(struct serve *s)
{
    ssize_t n = write(s->in, s->input + s->input_at, s->input_len - s->input_at);
    if (n < 0 && errno != EAGAIN && errno != EINTR) { /* EPIPE: the command does not want it */
        serve_close_input(s);
        return;
    }
    s->input_at += n > 0 ? (uint32_t)n : 0;
    if (s->input_at == s->input_len) {
        free(s->input);
        s->input = NULL;
    }
}

/* The host has gone: so does the command. */
static void serve_hangup(struct serve *s)
{
    if (s->conn >= 0) {
        close(s->conn);
        s->conn = -1;
    }
    serve_close_input(s);
    if (s->pid > 0) {
        (void)kill(-s->pid, SIGHUP);
        (void)kill(-s->pid, SIGKILL);
    }
}

static void serve_frame(struct serve *s)
{
    unsigned type = 0;
    uint32_t len = 0;
    CLEANUP_FREE uint8_t *data = NULL;
    if (!serve_receive(s->conn, &type, &data, &len)) {
        serve_hangup(s);
    } else if (type == AGENT_WIRE_INPUT && s->in >= 0 && len > 0) {
        s->input = take_ptr(&data);
        s->input_len = len;
        s->input_at = 0;
        serve_input(s);
    } else if (type == AGENT_WIRE_END_OF_INPUT) {
        serve_close_input(s);
    } else if (type == AGENT_WIRE_SIGNAL && len == 4 && s->pid > 0) {
        uint32_t signo = le32_get(data);
        if (signo > 0 && signo < 32) {
            (void)kill(-s->pid, (int)signo);
        }
    }
}

/* Takes all that have ended: as PID 1, also those of others. */
static void serve_reap(struct serve *s)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;
    ssize_t n = read(s->chld, &info, sizeof(info));
    (void)n; /* several signals may be one: waitpid() tells */
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == s->pid) {
            s->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
}

static void serve_loop(struct serve *s)
{
    while (s->code < 0) {
        struct pollfd p[5] = {
            {.fd = s->chld,                          .events = POLLIN },
            { .fd = s->out[0],                       .events = POLLIN },
            { .fd = s->out[1],                       .events = POLLIN },
            { .fd = s->input == NULL ? s->conn : -1, .events = POLLIN },
            { .fd = s->input != NULL ? s->in : -1,   .events = POLLOUT},
        };
        if (poll(p, ARRAY_LEN(p), -1) < 0) {
            continue;
        }
        for (unsigned i = 0; i < 2; i++) {
            if (p[1 + i].revents != 0) {
                (void)serve_output(s, i);
            }
        }
        if (p[4].revents != 0) {
            serve_input(s);
        }
        if (p[3].revents != 0 && s->conn >= 0) {
            serve_frame(s);
        }
        if (p[0].revents != 0) {
            serve_reap(s);
        }
    }
    /* What it has written; not what its children go on to write. */
    while (serve_output(s, 0) || serve_output(s, 1)) {
    }
}

static void serve_connection(int conn, int chld)
{
    struct serve s = {
        .conn = conn, .in = -1, .out = {-1, -1},
                .chld = chld, .code = -1
    };
    struct agent_wire_run run = { 0 };
    struct err err = ERR_INIT;
    unsigned type = 0;
    uint32_t len = 0;
    CLEANUP_FREE uint8_t *data = NULL;
    if (!serve_receive(conn, &type, &data, &len) || type != AGENT_WIRE_RUN ||
        agent_wire_decode_run(data, len, &run, &err) < 0) {
        close(conn);
        return;
    }
    int code = serve_mount(run.mounts, &err) ? serve_start(&s, &run, &err) : 126;
    if (code != 0) {
        serve_send(&s, AGENT_WIRE_FAILED, err.msg, (uint32_t)strlen(err.msg));
        serve_send_exit(&s, code);
    } else {
        serve_loop(&s);
        serve_send_exit(&s, s.code);
    }
    agent_wire_free_run(&run);
    serve_close_input(&s);
    for (unsigned i = 0; i < 2; i++) {
        if (s.out[i] >= 0) {
            close(s.out[i]);
        }
    }
    /* The host closes when it has read everything; a reset before could overtake the last frames.
     */
    uint8_t drop[256];
    if (s.conn >= 0) {
        (void)shutdown(s.conn, SHUT_WR);
        while (recv(s.conn, drop, sizeof(drop), 0) > 0) {
        }
        close(s.conn);
    }
}

/* ---- Listening ---- */

static int serve_listen(void)
{
    struct sockaddr_vm addr = { .svm_family = AF_VSOCK,
                                .svm_cid = VMADDR_CID_ANY,
                                .svm_port = AGENT_WIRE_PORT };
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 &&
        (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, SERVE_BACKLOG) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int serve_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int agent_serve(bool once)
{
    int fd = serve_listen();
    if (fd < 0) {
        agent_say("no vsock: %s", strerror(errno));
        return once ? 1 : 0; /* a VM without one: nothing to do for the service */
    }
    if (once) {
        int chld = serve_signals();
        int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (conn >= 0 && chld >= 0) {
            serve_connection(conn, chld);
        }
        return 0;
    }
    (void)signal(SIGCHLD, SIG_IGN); /* those who serve a connection are not waited for */
    for (;;) {
        CLEANUP_FD int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (conn < 0) {
            (void)nanosleep(&(struct timespec){ .tv_nsec = 100000000L }, NULL);
            continue;
        }
        pid_t pid = fork();
        if (pid == 0) {
            close(fd);
            (void)signal(SIGCHLD, SIG_DFL);
            serve_connection(take_fd(&conn), serve_signals());
            _exit(0);
        }
    }
}
