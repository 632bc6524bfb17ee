/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/run_vm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "proto/agent_wire.h"

#define RETRY_MS  20
#define KINDLY_MS 60000 /* for a guest that shuts down */
#define END_MS    10000 /* for posada-vmm to end, then SIGKILL */
#define ANSWER_MS 2000  /* for an agent that is there to say so */

/* ---- The process ---- */

int run_vm_start(struct run_vm *vm, char **args, bool own_group, struct err *err)
{
    CLEANUP_FREE char *program = cli_program_path("posada-vmm");
    *vm = (struct run_vm){ .pid = -1, .pidfd = -1, .code = -1, .stop = { .fd = -1 } };
    int rc = child_stop_init(&vm->stop, err);
    if (rc < 0) {
        return rc;
    }
    pid_t us = getpid();
    vm->pid = fork();
    if (vm->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGINT);
        if (own_group) {
            (void)setpgid(0, 0);
        }
        (void)sigprocmask(SIG_SETMASK, &vm->stop.before, NULL);
        if (getppid() == us) {
            (void)execvp(program, args);
        }
        fprintf(stderr, "posada run: %s: %s\n", program, strerror(errno));
        _exit(1);
    }
    if (vm->pid < 0 || (vm->pidfd = (int)syscall(SYS_pidfd_open, vm->pid, 0)) < 0) {
        return err_set_errno(err, -errno, "cannot start '%s'", program);
    }
    return 0;
}

static void run_vm_reap(struct run_vm *vm)
{
    int status = 0;
    if (vm->code < 0 && vm->pid > 0 && waitpid(vm->pid, &status, WNOHANG) == vm->pid) {
        vm->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

/* The signal that came, or 0. */
static int run_vm_signal(struct run_vm *vm)
{
    struct signalfd_siginfo info;
    return read(vm->stop.fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

int run_vm_wait(struct run_vm *vm)
{
    while (vm->code < 0) {
        struct pollfd p[2] = {
            {.fd = vm->pidfd,    .events = POLLIN},
            { .fd = vm->stop.fd, .events = POLLIN}
        };
        (void)poll(p, 2, -1);
        int signo = p[1].revents != 0 ? run_vm_signal(vm) : 0;
        if (signo != 0) {
            (void)kill(vm->pid, signo);
        }
        run_vm_reap(vm);
    }
    return vm->code;
}

static bool run_vm_ended_within(struct run_vm *vm, int ms)
{
    struct pollfd p = { .fd = vm->pidfd, .events = POLLIN };
    run_vm_reap(vm);
    if (vm->code < 0) {
        (void)poll(&p, 1, ms);
        run_vm_reap(vm);
    }
    return vm->code >= 0;
}

void run_vm_ends_itself(struct run_vm *vm)
{
    (void)run_vm_ended_within(vm, KINDLY_MS);
}

void run_vm_end(struct run_vm *vm, bool kindly)
{
    if (vm->pid <= 0 || vm->code >= 0) {
        return;
    }
    if (kindly) {
        (void)kill(vm->pid, SIGTERM); /* the power button */
        if (run_vm_ended_within(vm, KINDLY_MS)) {
            return;
        }
    }
    (void)kill(vm->pid, SIGINT);
    if (!run_vm_ended_within(vm, END_MS)) {
        (void)kill(vm->pid, SIGKILL);
        (void)run_vm_ended_within(vm, -1);
    }
}

void run_vm_done(struct run_vm *vm)
{
    run_vm_end(vm, false);
    if (vm->pidfd >= 0) {
        close(vm->pidfd);
    }
    child_stop_done(&vm->stop);
}

/* ---- Reaching the agent ---- */

/* One try: a descriptor, or -1 when nobody is there yet. */
static int run_vm_try(struct run_vm *vm, const char *path)
{
    static const char hello[] = "CONNECT 5370\n"; /* AGENT_WIRE_PORT */
    static_assert(AGENT_WIRE_PORT == 5370, "the text above");
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        send(fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL) != sizeof(hello) - 1) {
        return -1;
    }
    char line[64];
    size_t have = 0;
    while (have < sizeof(line) - 1) {
        struct pollfd p[2] = {
            {.fd = fd,         .events = POLLIN},
            { .fd = vm->pidfd, .events = POLLIN}
        };
        if (poll(p, 2, ANSWER_MS) <= 0 || p[1].revents != 0 || read(fd, line + have, 1) != 1) {
            return -1;
        }
        if (line[have++] == '\n') {
            return strncmp(line, "OK ", 3) == 0 ? take_fd(&fd) : -1;
        }
    }
    return -1;
}

int run_vm_connect(struct run_vm *vm, const char *path, unsigned seconds, struct err *err)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    time_t end = t.tv_sec + (time_t)seconds;
    for (;;) {
        int fd = run_vm_try(vm, path);
        if (fd >= 0) {
            return fd;
        }
        struct pollfd p[2] = {
            {.fd = vm->pidfd,    .events = POLLIN},
            { .fd = vm->stop.fd, .events = POLLIN}
        };
        (void)poll(p, 2, RETRY_MS);
        run_vm_reap(vm);
        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        if (vm->code >= 0) {
            return err_set(err, -ESHUTDOWN, "the VM ended (code %d) before the command could start",
                           vm->code);
        }
        if (p[1].revents != 0) {
            (void)run_vm_signal(vm);
            return err_set(err, -EINTR, "interrupted");
        }
        if (t.tv_sec >= end) {
            return err_set(err, -ETIMEDOUT, "the image's agent did not answer within %u s",
                           seconds);
        }
    }
}

/* ---- A command ---- */

struct run_command {
    struct run_vm *vm;
    int fd;
    int in;
    uint8_t *out; /* waits for the connection */
    size_t out_len, out_at, out_room;
    uint8_t header[AGENT_WIRE_HEADER];
    uint8_t *frame;
    size_t have; /* bytes of header and payload */
    uint32_t len;
    unsigned type;
    int code; /* -1: not ended */
};

static void command_queue(struct run_command *c, enum agent_wire_type type, const void *data,
                          uint32_t len)
{
    size_t need = c->out_len + AGENT_WIRE_HEADER + len;
    if (need > c->out_room) {
        c->out_room = need;
        c->out = realloc(c->out, need);
        if (c->out == NULL) {
            abort();
        }
    }
    agent_wire_put_header(c->out + c->out_len, type, len);
    if (len > 0) {
        memcpy(c->out + c->out_len + AGENT_WIRE_HEADER, data, len);
    }
    c->out_len = need;
}

static void command_input(struct run_command *c)
{
    uint8_t buf[AGENT_WIRE_CHUNK];
    ssize_t n = read(c->in, buf, sizeof(buf));
    if (n > 0) {
        command_queue(c, AGENT_WIRE_INPUT, buf, (uint32_t)n);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        command_queue(c, AGENT_WIRE_END_OF_INPUT, NULL, 0);
        c->in = -1;
    }
}

static int command_send(struct run_command *c, struct err *err)
{
    ssize_t n =
        send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return err_set_errno(err, -errno, "the connection to the command broke off");
    }
    c->out_at += n > 0 ? (size_t)n : 0;
    if (c->out_at == c->out_len) {
        c->out_at = 0;
        c->out_len = 0;
    }
    return 0;
}

/* Where the output goes may be gone (`| head`): then it is dropped, and the command learns nothing
 * of it, as with a terminal that was closed. */
static void command_print(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return;
        }
        data += n;
        len -= (size_t)n;
    }
}

static void command_frame(struct run_command *c)
{
    switch (c->type) {
    case AGENT_WIRE_OUTPUT:
        command_print(STDOUT_FILENO, c->frame, c->len);
        break;
    case AGENT_WIRE_ERRORS:
        command_print(STDERR_FILENO, c->frame, c->len);
        break;
    case AGENT_WIRE_FAILED:
        fprintf(stderr, "posada run: %.*s\n", (int)c->len, (const char *)c->frame);
        break;
    case AGENT_WIRE_EXIT:
        c->code = c->len == 4 ? (int)(le32_get(c->frame) & 255) : 125;
        break;
    default: /* of a newer agent */
        break;
    }
}

/* Reads what is there of the current frame. */
static int command_receive(struct run_command *c, struct err *err)
{
    uint8_t *to = c->have < AGENT_WIRE_HEADER ? c->header + c->have
                                              : c->frame + (c->have - AGENT_WIRE_HEADER);
    size_t want = c->have < AGENT_WIRE_HEADER ? AGENT_WIRE_HEADER - c->have
                                              : AGENT_WIRE_HEADER + c->len - c->have;
    ssize_t n = recv(c->fd, to, want, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        return err_set(err, -ECONNRESET, "the VM ended before the command did");
    }
    c->have += n > 0 ? (size_t)n : 0;
    if (c->have == AGENT_WIRE_HEADER) {
        int rc = agent_wire_get_header(c->header, &c->type, &c->len, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (c->have >= AGENT_WIRE_HEADER && c->have == AGENT_WIRE_HEADER + c->len) {
        command_frame(c);
        c->have = 0;
    }
    return 0;
}

/* Ctrl-C and the like are the command's; a second one is ours. */
static int command_signal(struct run_command *c, unsigned *count, struct err *err)
{
    uint8_t data[4];
    int signo = run_vm_signal(c->vm);
    if (signo == 0) {
        return 0;
    }
    if (++*count > 1) {
        return err_set(err, -EINTR, "interrupted");
    }
    le32_put(data, (uint32_t)signo);
    command_queue(c, AGENT_WIRE_SIGNAL, data, sizeof(data));
    return 0;
}

static int command_loop(struct run_command *c, struct err *err)
{
    unsigned signals = 0;
    int rc = 0;
    while (rc == 0 && c->code < 0) {
        bool idle = c->out_len == 0;
        struct pollfd p[3] = {
            {.fd = c->fd,              .events = (short)(POLLIN | (idle ? 0 : POLLOUT))},
            { .fd = idle ? c->in : -1, .events = POLLIN                                },
            { .fd = c->vm->stop.fd,    .events = POLLIN                                },
        };
        if (poll(p, ARRAY_LEN(p), -1) < 0) {
            continue;
        }
        if (p[2].revents != 0) {
            rc = command_signal(c, &signals, err);
        }
        if (rc == 0 && p[1].revents != 0) {
            command_input(c);
        }
        if (rc == 0 && c->out_len > 0) {
            rc = command_send(c, err);
        }
        if (rc == 0 && (p[0].revents & ~POLLOUT) != 0) {
            rc = command_receive(c, err);
        }
    }
    return rc < 0 ? rc : c->code;
}

int run_vm_command(struct run_vm *vm, int fd, const char *const *argv, const char *const *mounts,
                   int in, struct err *err)
{
    struct run_command c = { .vm = vm, .fd = fd, .in = in, .code = -1 };
    struct agent_wire_run run = { .argv = argv, .mounts = mounts, .dir = "" };
    CLEANUP_FREE uint8_t *data = NULL;
    uint32_t len = 0;
    c.frame = malloc(AGENT_WIRE_MAX);
    int rc = c.frame == NULL ? err_set(err, -ENOMEM, "out of memory")
                             : agent_wire_encode_run(&run, &data, &len, err);
    if (rc == 0) {
        (void)signal(SIGPIPE, SIG_IGN);
        command_queue(&c, AGENT_WIRE_RUN, data, len);
        if (in < 0) {
            command_queue(&c, AGENT_WIRE_END_OF_INPUT, NULL, 0);
        }
        rc = command_loop(&c, err);
    }
    free(c.frame);
    free(c.out);
    close(fd);
    return rc;
}

/* ---- Another program on our terminal ---- */

int run_vm_terminal(struct run_vm *vm, const char *const *argv, const char *package,
                    struct err *err)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        (void)sigprocmask(SIG_SETMASK, &vm->stop.before, NULL);
        (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (pid < 0) {
        return err_set_errno(err, -errno, "cannot start '%s'", argv[0]);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        return err_set(err, -ENOENT, "the program '%s' is missing: install the package %s", argv[0],
                       package);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
