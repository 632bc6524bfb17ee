/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shim: preloaded under somebody else's program, it serves /dev/kvm from softkvm.
 *
 * It stands in front of the libc functions through which a program meets /dev/kvm: opening it,
 * ioctl, close, dup, fcntl and mmap on its descriptors, and questions about the file. poll and
 * fork need nothing: the descriptors are memfds. It also stands in front of sigaction and signal:
 * a handler that ran while its thread was in KVM_RUN must make that ioctl return EINTR.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <ucontext.h>
#include <unistd.h>

#include "softkvm/shim/virtflag.h"
#include "softkvm/softkvm.h"

#define KVM_PATH "/dev/kvm"
#define EXPORT   __attribute__((visibility("default")))

/* The libc's own function of that name; found at the first call. */
#define REAL(name)                                                                                 \
    ({                                                                                             \
        static _Atomic(void *) real_;                                                              \
        void *p_ = atomic_load_explicit(&real_, memory_order_relaxed);                             \
        if (p_ == NULL) {                                                                          \
            p_ = dlsym(RTLD_NEXT, #name);                                                          \
            if (p_ == NULL) {                                                                      \
                abort();                                                                           \
            }                                                                                      \
            atomic_store_explicit(&real_, p_, memory_order_relaxed);                               \
        }                                                                                          \
        (__typeof__(&name))p_;                                                                     \
    })

static int is_kvm(const char *path)
{
    return path != NULL && strcmp(path, KVM_PATH) == 0;
}

/* --- opening --- */

static int open_kvm(int flags)
{
    int fd = softkvm_open();
    if (fd >= 0 && (flags & O_CLOEXEC) == 0) {
        (void)REAL(fcntl)(fd, F_SETFD, 0);
    }
    return fd;
}

#define MODE_ARG(flags)                                                                            \
    ({                                                                                             \
        mode_t mode_ = 0;                                                                          \
        if (((flags) & (O_CREAT | O_TMPFILE)) != 0) {                                              \
            va_list ap_;                                                                           \
            va_start(ap_, flags);                                                                  \
            mode_ = va_arg(ap_, mode_t);                                                           \
            va_end(ap_);                                                                           \
        }                                                                                          \
        mode_;                                                                                     \
    })

EXPORT int open(const char *path, int flags, ...)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(open)(path, flags, MODE_ARG(flags));
}

EXPORT int open64(const char *path, int flags, ...)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(open64)(path, flags, MODE_ARG(flags));
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(openat)(dir, path, flags, MODE_ARG(flags));
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(openat64)(dir, path, flags, MODE_ARG(flags));
}

/* What _FORTIFY_SOURCE makes of an open() without O_CREAT. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags);
EXPORT int __openat_2(int dir, const char *path, int flags);
EXPORT int __openat64_2(int dir, const char *path, int flags);

EXPORT int __open_2(const char *path, int flags)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(__open_2)(path, flags);
}

EXPORT int __open64_2(const char *path, int flags)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(__open64_2)(path, flags);
}

EXPORT int __openat_2(int dir, const char *path, int flags)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(__openat_2)(dir, path, flags);
}

EXPORT int __openat64_2(int dir, const char *path, int flags)
{
    return is_kvm(path) ? open_kvm(flags) : REAL(__openat64_2)(dir, path, flags);
}

/* --- descriptors --- */

static void watch_held_signals(const struct kvm_signal_mask *m);

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    unsigned long arg = va_arg(ap, unsigned long);
    va_end(ap);
    if (!softkvm_owns(fd)) {
        return REAL(ioctl)(fd, request, arg);
    }
    int rc = softkvm_ioctl(fd, request, arg);
    if (rc == 0 && (uint32_t)request == KVM_SET_SIGNAL_MASK && arg != 0) {
        watch_held_signals((const struct kvm_signal_mask *)arg);
    }
    return rc;
}

EXPORT int close(int fd)
{
    if (!softkvm_owns(fd)) {
        return REAL(close)(fd);
    }
    /* Forgets the object; the library closes the number by the call below this one. */
    return softkvm_forget(fd) < 0 ? -1 : REAL(close)(fd);
}

/* The kernel maps a vCPU's dirty ring only shared and not to be executed (KVM api.rst 8.29). */
static bool may_map(int fd, size_t size, int prot, int flags, off_t offset)
{
    const off_t ring = (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * 4096;
    return fd < 0 || !softkvm_owns(fd) || offset + (off_t)size <= ring ||
           ((flags & MAP_SHARED) != 0 && (prot & PROT_EXEC) == 0);
}

EXPORT void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
    if (!may_map(fd, size, prot, flags, offset)) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    return REAL(mmap)(addr, size, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *addr, size_t size, int prot, int flags, int fd, off64_t offset)
{
    if (!may_map(fd, size, prot, flags, offset)) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    return REAL(mmap64)(addr, size, prot, flags, fd, offset);
}

static int dup_done(int fd, int new_fd)
{
    if (new_fd >= 0 && new_fd != fd) {
        (void)softkvm_forget(new_fd); /* what dup2 closed there */
        if (softkvm_owns(fd)) {
            (void)softkvm_dup(fd, new_fd);
        }
    }
    return new_fd;
}

EXPORT int dup(int fd)
{
    return dup_done(fd, REAL(dup)(fd));
}

EXPORT int dup2(int fd, int new_fd)
{
    return dup_done(fd, REAL(dup2)(fd, new_fd));
}

EXPORT int dup3(int fd, int new_fd, int flags)
{
    return dup_done(fd, REAL(dup3)(fd, new_fd, flags));
}

EXPORT int fcntl(int fd, int cmd, ...)
{
    va_list ap;
    va_start(ap, cmd);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    int rc = REAL(fcntl)(fd, cmd, arg);
    return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? dup_done(fd, rc) : rc;
}

EXPORT int fcntl64(int fd, int cmd, ...)
{
    va_list ap;
    va_start(ap, cmd);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    int rc = REAL(fcntl64)(fd, cmd, arg);
    return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? dup_done(fd, rc) : rc;
}

/* --- questions about the file --- */

EXPORT int access(const char *path, int mode)
{
    return is_kvm(path) ? 0 : REAL(access)(path, mode);
}

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
    return is_kvm(path) ? 0 : REAL(faccessat)(dir, path, mode, flags);
}

/* A character device as the kernel's: major 10, minor 232 (Documentation/admin-guide/devices.txt).
 * struct stat and stat64 are the same on x86-64. */
static int stat_kvm(void *st)
{
    *(struct stat *)st = (struct stat){
        .st_mode = S_IFCHR | 0666,
        .st_nlink = 1,
        .st_rdev = makedev(10, 232),
        .st_blksize = 4096,
    };
    return 0;
}

EXPORT int stat(const char *path, struct stat *st)
{
    return is_kvm(path) ? stat_kvm(st) : REAL(stat)(path, st);
}

EXPORT int stat64(const char *path, struct stat64 *st)
{
    return is_kvm(path) ? stat_kvm(st) : REAL(stat64)(path, st);
}

EXPORT int lstat(const char *path, struct stat *st)
{
    return is_kvm(path) ? stat_kvm(st) : REAL(lstat)(path, st);
}

EXPORT int lstat64(const char *path, struct stat64 *st)
{
    return is_kvm(path) ? stat_kvm(st) : REAL(lstat64)(path, st);
}

EXPORT int fstatat(int dir, const char *path, struct stat *st, int flags)
{
    return is_kvm(path) ? stat_kvm(st) : REAL(fstatat)(dir, path, st, flags);
}

EXPORT int fstatat64(int dir, const char *path, struct stat64 *st, int flags)
{
    return is_kvm(path) ? stat_kvm(st) : REAL(fstatat64)(dir, path, st, flags);
}

/* --- signals --- */

/* The program's handlers, by signal; the kernel has on_signal() in their place. Written under the
 * program's own ordering (sigaction before the signal can come), read in handlers. */
static struct sigaction actions[NSIG];

static void on_signal(int sig, siginfo_t *info, void *context)
{
    const struct sigaction *a = &actions[sig];
    int saved = errno;
    if (sig == SIGILL && virtflag_caught(context)) {
        return;
    }
    if (softkvm_signal_held(sig)) {
        /* It only ends KVM_RUN: blocked again when this returns, and pending again. */
        sigaddset(&((ucontext_t *)context)->uc_sigmask, sig);
        (void)syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sig, info);
    } else if ((a->sa_flags & SA_SIGINFO) == 0 && a->sa_handler == SIG_DFL) {
        /* Ours alone (watch_held_signals): what would have happened without us. */
        static const struct sigaction dfl = { .sa_handler = SIG_DFL };
        (void)REAL(sigaction)(sig, &dfl, NULL);
        (void)syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sig, info);
    } else if ((a->sa_flags & SA_SIGINFO) != 0) {
        a->sa_sigaction(sig, info, context);
    } else {
        a->sa_handler(sig);
    }
    softkvm_signal_caught();
    errno = saved;
}

EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    if (sig <= 0 || sig >= NSIG) {
        return REAL(sigaction)(sig, act, old);
    }
    struct sigaction before = actions[sig];
    struct sigaction mine;
    bool handler = act != NULL && act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN;
    if (handler) {
        mine = *act;
        mine.sa_sigaction = on_signal;
        mine.sa_flags |= SA_SIGINFO;
        actions[sig] = *act;
    }
    struct sigaction real_old;
    int rc = REAL(sigaction)(sig, handler ? &mine : act, &real_old);
    if (rc < 0) {
        actions[sig] = before;
        return rc;
    }
    if (old != NULL) {
        *old = real_old.sa_sigaction == on_signal && (real_old.sa_flags & SA_SIGINFO) != 0
                   ? before
                   : real_old;
    }
    return rc;
}

/* `softkvm --virt-flag`: the program is to find VMX or SVM in CPUID. */
__attribute__((constructor)) static void set_virt_flag(void)
{
    if (getenv("SOFTKVM_VIRT_FLAG") == NULL || virtflag_start() == 0) {
        return;
    }
    struct sigaction mine = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
    actions[SIGILL] = (struct sigaction){ .sa_handler = SIG_DFL };
    (void)REAL(sigaction)(SIGILL, &mine, NULL);
}

/* KVM_SET_SIGNAL_MASK lets blocked signals end KVM_RUN without being delivered. Where the program
 * has no handler, their default action would come instead: put ours there. */
static void watch_held_signals(const struct kvm_signal_mask *m)
{
    sigset_t blocked;
    uint64_t let_out;
    memcpy(&let_out, m->sigset, sizeof(let_out));
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    for (int sig = 1; sig < NSIG; sig++) {
        struct sigaction now;
        bool ignored = sig == SIGCHLD || sig == SIGURG || sig == SIGWINCH || sig == SIGCONT;
        if ((let_out >> (sig - 1) & 1) != 0 || sigismember(&blocked, sig) != 1 || ignored ||
            REAL(sigaction)(sig, NULL, &now) < 0 || now.sa_handler != SIG_DFL) {
            continue;
        }
        struct sigaction mine = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
        actions[sig] = (struct sigaction){ .sa_handler = SIG_DFL };
        (void)REAL(sigaction)(sig, &mine, NULL);
    }
}

EXPORT sighandler_t signal(int sig, sighandler_t handler)
{
    struct sigaction act = { .sa_handler = handler, .sa_flags = SA_RESTART };
    struct sigaction old;
    sigemptyset(&act.sa_mask);
    return sigaction(sig, &act, &old) < 0 ? SIG_ERR : old.sa_handler;
}
