/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors and what they stand for: the only process-wide state of the library.
 *
 * Each is a real memfd, so that its number clashes with nothing, poll/dup/close work on it and a
 * vCPU's can be mapped. The table is indexed by number.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/softkvm.h"

#define FDS_MAX 65536 /* highest descriptor number served, as the usual hard limit of NOFILE */

static struct {
    pthread_rwlock_t lock;
    struct abi_obj *obj[FDS_MAX];
} fds = { .lock = PTHREAD_RWLOCK_INITIALIZER };

static _Atomic unsigned fds_generation;
static pthread_once_t fds_once = PTHREAD_ONCE_INIT;

static void fds_forked(void)
{
    atomic_fetch_add_explicit(&fds_generation, 1, memory_order_relaxed);
    /* Another thread of the parent may have held it. */
    pthread_rwlock_init(&fds.lock, NULL);
}

static void fds_watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, fds_forked);
}

unsigned abi_generation(void)
{
    return atomic_load_explicit(&fds_generation, memory_order_relaxed);
}

void abi_obj_ref(struct abi_obj *obj)
{
    atomic_fetch_add_explicit(&obj->refs, 1, memory_order_relaxed);
}

void abi_obj_unref(struct abi_obj *obj)
{
    /* In a forked child the threads of a VM do not exist: its memory goes with the process. */
    if (obj != NULL && atomic_fetch_sub_explicit(&obj->refs, 1, memory_order_acq_rel) == 1 &&
        obj->generation == abi_generation()) {
        obj->free(obj);
    }
}

/* Puts `obj` at `fd`; returns what was there. Both are the table's references. */
static struct abi_obj *fds_put(int fd, struct abi_obj *obj)
{
    pthread_rwlock_wrlock(&fds.lock);
    struct abi_obj *old = fds.obj[fd];
    fds.obj[fd] = obj;
    pthread_rwlock_unlock(&fds.lock);
    return old;
}

int abi_fd_new(struct abi_obj *take_obj, const char *name, size_t size)
{
    (void)pthread_once(&fds_once, fds_watch_forks);
    take_obj->generation = abi_generation();
    int fd = memfd_create(name, MFD_CLOEXEC);
    int rc = 0;
    if (fd < 0) {
        rc = -errno;
    } else if (fd >= FDS_MAX) {
        rc = -EMFILE;
    } else if (size != 0 && ftruncate(fd, (off_t)size) < 0) {
        rc = -errno;
    }
    if (rc < 0) {
        if (fd >= 0) {
            close(fd);
        }
        abi_obj_unref(take_obj);
        return rc;
    }
    /* Whatever the table still has there was closed behind our back. */
    abi_obj_unref(fds_put(fd, take_obj));
    return fd;
}

struct abi_obj *abi_fd_get(int fd)
{
    if (fd < 0 || fd >= FDS_MAX) {
        return NULL;
    }
    pthread_rwlock_rdlock(&fds.lock);
    struct abi_obj *obj = fds.obj[fd];
    if (obj != NULL) {
        abi_obj_ref(obj);
    }
    pthread_rwlock_unlock(&fds.lock);
    return obj;
}

bool softkvm_owns(int fd)
{
    struct abi_obj *obj = abi_fd_get(fd);
    abi_obj_unref(obj);
    return obj != NULL;
}

int softkvm_dup(int fd, int new_fd)
{
    struct abi_obj *obj = abi_fd_get(fd);
    if (obj == NULL || new_fd < 0 || new_fd >= FDS_MAX) {
        abi_obj_unref(obj);
        errno = EBADF;
        return -1;
    }
    abi_obj_unref(fds_put(new_fd, obj));
    return 0;
}

int softkvm_forget(int fd)
{
    struct abi_obj *obj = fd < 0 || fd >= FDS_MAX ? NULL : fds_put(fd, NULL);
    if (obj == NULL) {
        errno = EBADF;
        return -1;
    }
    abi_obj_unref(obj);
    return 0;
}

int softkvm_close(int fd)
{
    /* First forgotten, then closed: the number may be given out again at once. */
    return softkvm_forget(fd) < 0 ? -1 : close(fd);
}

static _Atomic bool fds_embedded;

void softkvm_embed(void)
{
    atomic_store_explicit(&fds_embedded, true, memory_order_relaxed);
}

bool abi_embedded(void)
{
    return atomic_load_explicit(&fds_embedded, memory_order_relaxed);
}

/* The kernel does the copy, so that a bad pointer of the client is EFAULT and no crash. */
static int copy(void *local, void *user, size_t len, bool out)
{
    if (len == 0) {
        return 0;
    }
    if (user == NULL) {
        return -EFAULT;
    }
    if (abi_embedded()) {
        memcpy(out ? user : local, out ? local : user, len);
        return 0;
    }
    struct iovec l = { .iov_base = local, .iov_len = len };
    struct iovec r = { .iov_base = user, .iov_len = len };
    ssize_t n = out ? process_vm_writev(getpid(), &l, 1, &r, 1, 0)
                    : process_vm_readv(getpid(), &l, 1, &r, 1, 0);
    return n == (ssize_t)len ? 0 : -EFAULT;
}

int abi_copy_in(void *to, const void *user, size_t len)
{
    return copy(to, (void *)(uintptr_t)user, len, false);
}

int abi_copy_out(void *user, const void *from, size_t len)
{
    return copy((void *)(uintptr_t)from, user, len, true);
}
