/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system call filters: syscalls.def as BPF programs (seccomp(2)).
 *
 * Each row is a comparison and a return, so no jump is longer than the rules of its row. A filter
 * is built with no allocation and no library: that costs less at start than one would.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <asm/prctl.h>

#include "vmm/sandbox/sandbox_int.h"

enum sandbox_rule {
    SANDBOX_ALLOW,
    SANDBOX_NO_EXEC,
    SANDBOX_UNIX,
    SANDBOX_SOFT,
    SANDBOX_FSTAT,
    SANDBOX_GS,
    SANDBOX_OWN,
    SANDBOX_FCNTL,
};

struct sandbox_syscall {
    uint32_t nr;
    uint32_t kinds;
    enum sandbox_rule rule;
};

struct sandbox_ioctl {
    uint32_t request;
    uint32_t kinds;
};

#define M BIT(SANDBOX_MAIN)
#define I BIT(SANDBOX_IO)
#define V BIT(SANDBOX_VCPU)
#define W BIT(SANDBOX_WORKER)
#define P SANDBOX_COMMON

static const struct sandbox_syscall sandbox_syscalls[] = {
#define SYSCALL(name, threads, rule) { SYS_##name, threads, rule },
#include "vmm/sandbox/syscalls.def"
};

static const struct sandbox_ioctl sandbox_ioctls[] = {
#define IOCTL(request, threads) { (uint32_t)(request), threads },
#include "vmm/sandbox/syscalls.def"
};

#undef M
#undef I
#undef V
#undef W
#undef P

/* The ioctl block is jumped over with an 8-bit offset, two instructions a row; and all rows fit. */
static_assert(2 * ARRAY_LEN(sandbox_ioctls) + 4 < 256, "too many ioctls for one block");
static_assert(16 + 2 * ARRAY_LEN(sandbox_ioctls) + 8 * ARRAY_LEN(sandbox_syscalls) <
                  SANDBOX_MAX_INSNS + 256,
              "SANDBOX_MAX_INSNS is too small");

#define SANDBOX_ARG_LOW(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#define SANDBOX_X32_BIT    0x40000000u

struct sandbox_prog {
    struct sock_filter *insn;
    unsigned n;
};

static void sandbox_put(struct sandbox_prog *p, uint16_t code, uint32_t k, unsigned jt, unsigned jf)
{
    assert(p->n < SANDBOX_MAX_INSNS);
    p->insn[p->n++] =
        (struct sock_filter){ .code = code, .jt = (uint8_t)jt, .jf = (uint8_t)jf, .k = k };
}

static void sandbox_load(struct sandbox_prog *p, size_t offset)
{
    sandbox_put(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* Skips `over` instructions unless the accumulator is `value`. */
static void sandbox_unless(struct sandbox_prog *p, uint32_t value, unsigned over)
{
    sandbox_put(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, over);
}

static void sandbox_return(struct sandbox_prog *p, uint32_t action)
{
    sandbox_put(p, BPF_RET | BPF_K, action, 0, 0);
}

static void sandbox_put_ioctls(struct sandbox_prog *p, uint32_t kinds)
{
    unsigned at = p->n;
    sandbox_unless(p, SYS_ioctl, 0); /* the distance is filled in below */
    sandbox_load(p, SANDBOX_ARG_LOW(1));
    for (size_t i = 0; i < ARRAY_LEN(sandbox_ioctls); i++) {
        if ((sandbox_ioctls[i].kinds & kinds) != 0) {
            sandbox_unless(p, sandbox_ioctls[i].request, 1);
            sandbox_return(p, SECCOMP_RET_ALLOW);
        }
    }
    sandbox_return(p, SECCOMP_RET_KILL_PROCESS);
    p->insn[at].jf = (uint8_t)(p->n - at - 1);
}

static void sandbox_put_fcntl(struct sandbox_prog *p)
{
    static const uint32_t commands[] = { F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, F_OFD_SETLK,
                                         F_OFD_GETLK };
    sandbox_unless(p, SYS_fcntl, 2 * ARRAY_LEN(commands) + 2);
    sandbox_load(p, SANDBOX_ARG_LOW(1));
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        sandbox_unless(p, commands[i], 1);
        sandbox_return(p, SECCOMP_RET_ALLOW);
    }
    sandbox_return(p, SECCOMP_RET_KILL_PROCESS);
}

static void sandbox_put_syscall(struct sandbox_prog *p, const struct sandbox_syscall *s, bool vsock)
{
    switch (s->rule) {
    case SANDBOX_ALLOW:
        sandbox_unless(p, s->nr, 1);
        sandbox_return(p, SECCOMP_RET_ALLOW);
        break;
    case SANDBOX_SOFT:
        sandbox_unless(p, s->nr, 1);
        sandbox_return(p, SECCOMP_RET_ERRNO | EPERM);
        break;
    case SANDBOX_NO_EXEC:
        sandbox_unless(p, s->nr, 4);
        sandbox_load(p, SANDBOX_ARG_LOW(2));
        sandbox_put(p, BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1);
        sandbox_return(p, SECCOMP_RET_KILL_PROCESS);
        sandbox_return(p, SECCOMP_RET_ALLOW);
        break;
    case SANDBOX_FSTAT:
        sandbox_unless(p, s->nr, 4);
        sandbox_load(p, SANDBOX_ARG_LOW(3));
        sandbox_put(p, BPF_JMP | BPF_JSET | BPF_K, AT_EMPTY_PATH, 0, 1);
        sandbox_return(p, SECCOMP_RET_ALLOW);
        sandbox_return(p, SECCOMP_RET_ERRNO | EPERM);
        break;
    case SANDBOX_GS:
        sandbox_unless(p, s->nr, 6);
        sandbox_load(p, SANDBOX_ARG_LOW(0));
        sandbox_unless(p, ARCH_SET_GS, 1);
        sandbox_return(p, SECCOMP_RET_ALLOW);
        sandbox_unless(p, ARCH_GET_GS, 1);
        sandbox_return(p, SECCOMP_RET_ALLOW);
        sandbox_return(p, SECCOMP_RET_KILL_PROCESS);
        break;
    case SANDBOX_OWN:
        sandbox_unless(p, s->nr, 4);
        sandbox_load(p, SANDBOX_ARG_LOW(0));
        sandbox_unless(p, (uint32_t)getpid(), 1);
        sandbox_return(p, SECCOMP_RET_ALLOW);
        sandbox_return(p, SECCOMP_RET_KILL_PROCESS);
        break;
    case SANDBOX_FCNTL:
        sandbox_put_fcntl(p);
        break;
    case SANDBOX_UNIX:
        if (!vsock) {
            break;
        }
        if (s->nr != SYS_socket) {
            sandbox_unless(p, s->nr, 1); /* of a socket that can only be AF_UNIX */
            sandbox_return(p, SECCOMP_RET_ALLOW);
            break;
        }
        sandbox_unless(p, s->nr, 4);
        sandbox_load(p, SANDBOX_ARG_LOW(0));
        sandbox_unless(p, AF_UNIX, 1);
        sandbox_return(p, SECCOMP_RET_ALLOW);
        sandbox_return(p, SECCOMP_RET_KILL_PROCESS);
        break;
    }
}

unsigned sandbox_build(uint32_t kinds, bool vsock, struct sock_filter prog[SANDBOX_MAX_INSNS])
{
    struct sandbox_prog p = { .insn = prog };
    sandbox_load(&p, offsetof(struct seccomp_data, arch));
    sandbox_put(&p, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    sandbox_return(&p, SECCOMP_RET_KILL_PROCESS);
    sandbox_load(&p, offsetof(struct seccomp_data, nr));
    sandbox_put(&p, BPF_JMP | BPF_JGE | BPF_K, SANDBOX_X32_BIT, 0, 1);
    sandbox_return(&p, SECCOMP_RET_KILL_PROCESS);
    sandbox_put_ioctls(&p, kinds);
    for (size_t i = 0; i < ARRAY_LEN(sandbox_syscalls); i++) {
        if ((sandbox_syscalls[i].kinds & kinds) != 0) {
            sandbox_put_syscall(&p, &sandbox_syscalls[i], vsock);
        }
    }
    sandbox_return(&p, SECCOMP_RET_KILL_PROCESS);
    return p.n;
}

unsigned sandbox_count_syscalls(uint32_t kinds)
{
    unsigned n = 1; /* ioctl */
    for (size_t i = 0; i < ARRAY_LEN(sandbox_syscalls); i++) {
        if ((sandbox_syscalls[i].kinds & kinds) != 0 && sandbox_syscalls[i].rule != SANDBOX_SOFT) {
            n++;
        }
    }
    return n;
}

static int sandbox_install(uint32_t kinds, bool vsock, unsigned flags, struct err *err)
{
    struct sock_filter insn[SANDBOX_MAX_INSNS];
    struct sock_fprog prog = { .filter = insn };
    prog.len = (unsigned short)sandbox_build(kinds, vsock, insn);
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
    if (rc < 0) {
        return err_set_errno(err, -errno, "jail: system call filter");
    }
    /* With TSYNC a positive result is a thread that cannot be synchronised. */
    return rc > 0 ? err_set(err, -EBUSY, "jail: thread %ld has another filter", rc) : 0;
}

int sandbox_filter_process(bool vsock, struct err *err)
{
    return sandbox_install(SANDBOX_ALL_KINDS, vsock, SECCOMP_FILTER_FLAG_TSYNC, err);
}

int sandbox_filter_thread(enum sandbox_kind kind, bool vsock, struct err *err)
{
    return sandbox_install(BIT(kind), vsock, 0, err);
}
