/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's entry points: finding the handler of an ioctl and moving its argument.
 */
#include "softkvm/softkvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/jit/jit.h"

static const struct ioctl_row {
    enum abi_kind kind;
    bool locked;
    unsigned long request;
    abi_handler *fn;
} ioctls[] = {
#define IOCTL(kind, request, name, locked) { ABI_##kind, locked, request, abi_##name },
#include "softkvm/abi/ioctls.def"
#undef IOCTL
};

static const struct ioctl_row *find(enum abi_kind kind, unsigned long request)
{
    for (size_t i = 0; i < ARRAY_LEN(ioctls); i++) {
        if (ioctls[i].request == request && ioctls[i].kind == kind) {
            return &ioctls[i];
        }
    }
    return NULL;
}

static int dispatch(struct abi_obj *obj, unsigned long request, unsigned long arg)
{
    /* The kernel looks at the low 32 bits: a sign-extended int is what old programs pass. */
    const struct ioctl_row *row = find(obj->kind, (uint32_t)request);
    if (obj->kind != ABI_SYSTEM && obj->generation != abi_generation()) {
        return -EIO;
    }
    if (row == NULL) { /* as x86's handlers end */
        return obj->kind == ABI_VM ? -ENOTTY : -EINVAL;
    }
    if (row->fn == abi_run) {
        return abi_run(obj, NULL, arg);
    }
    _Alignas(64) uint8_t buf[ABI_ARG_MAX];
    size_t size = _IOC_SIZE(row->request);
    bool in = (_IOC_DIR(row->request) & _IOC_WRITE) != 0;
    bool out = (_IOC_DIR(row->request) & _IOC_READ) != 0;
    assert(size <= sizeof(buf));
    memset(buf, 0, size);
    if (in && abi_copy_in(buf, (const void *)arg, size) < 0) {
        return -EFAULT;
    }
    struct abi_vcpu *v = row->locked ? ABI_VCPU_OF(obj) : NULL;
    if (v != NULL) {
        pthread_mutex_lock(&v->lock);
    }
    int rc = row->fn(obj, size != 0 ? buf : NULL, arg);
    if (v != NULL) {
        pthread_mutex_unlock(&v->lock);
    }
    if (rc >= 0 && out && abi_copy_out((void *)arg, buf, size) < 0) {
        return -EFAULT;
    }
    return rc;
}

int softkvm_ioctl(int fd, unsigned long request, unsigned long arg)
{
    struct abi_obj *obj = abi_fd_get(fd);
    if (obj == NULL) {
        errno = EBADF;
        return -1;
    }
    int rc = dispatch(obj, request, arg);
    abi_obj_unref(obj);
    if (rc < 0) {
        errno = -rc;
        return -1;
    }
    return rc;
}

static void system_free(struct abi_obj *obj)
{
    free(obj);
}

int softkvm_open(void)
{
    struct abi_obj *obj = calloc(1, sizeof(*obj));
    if (obj == NULL) {
        errno = ENOMEM;
        return -1;
    }
    obj->kind = ABI_SYSTEM;
    obj->free = system_free;
    atomic_store_explicit(&obj->refs, 1, memory_order_relaxed);
    int fd = abi_fd_new(obj, "softkvm", 0);
    if (fd < 0) {
        errno = -fd;
        return -1;
    }
    return fd;
}

void *softkvm_mmap(int fd, size_t size)
{
    struct abi_obj *obj = abi_fd_get(fd);
    void *p = MAP_FAILED;
    if (obj == NULL || obj->kind != ABI_VCPU) {
        errno = obj == NULL ? EBADF : ENODEV;
    } else {
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    abi_obj_unref(obj);
    return p;
}

int softkvm_kick(int vcpu_fd)
{
    struct abi_obj *obj = abi_fd_get(vcpu_fd);
    if (obj == NULL || obj->kind != ABI_VCPU) {
        abi_obj_unref(obj);
        errno = EBADF;
        return -1;
    }
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    if (atomic_load_explicit(&v->in_run, memory_order_acquire)) {
        sk_poll_set(v->c, SK_POLL_EXIT);
    }
    abi_obj_unref(obj);
    return 0;
}

int softkvm_set_jit(const char *mode)
{
    if (!sk_jit_choose_text(mode)) {
        errno = EINVAL;
        return -1;
    }
    return 0;
}

_Atomic uint64_t *softkvm_writes(int vm_fd)
{
    struct abi_obj *obj = abi_fd_get(vm_fd);
    _Atomic uint64_t *count = NULL;
    if (obj == NULL || obj->kind != ABI_VM) {
        errno = EBADF;
    } else {
        count = &ABI_VM_OF(obj)->written;
        atomic_store_explicit(&ABI_VM_OF(obj)->sk.others, count, memory_order_release);
    }
    abi_obj_unref(obj);
    return count;
}

int softkvm_counters(int vcpu_fd, struct softkvm_counter *ret, unsigned max)
{
    struct abi_obj *obj = abi_fd_get(vcpu_fd);
    unsigned n = 0;
    if (obj == NULL || obj->kind != ABI_VCPU) {
        abi_obj_unref(obj);
        errno = EBADF;
        return -1;
    }
    const struct sk_jit_state *j = &ABI_VCPU_OF(obj)->c->jit;
    const struct softkvm_counter all[] = {
#define SK_JIT_COUNTER(name) { #name, atomic_load_explicit(&j->st.name, memory_order_relaxed) },
        SK_JIT_COUNTERS
#undef SK_JIT_COUNTER
    };
    for (; j->jit != NULL && n < ARRAY_LEN(all) && n < max; n++) {
        ret[n] = all[n];
    }
    abi_obj_unref(obj);
    return (int)n;
}

bool softkvm_signal_held(int sig)
{
    return abi_signal_held(sig);
}

void softkvm_signal_caught(void)
{
    abi_signal_caught();
}

int softkvm_memory_written(int vm_fd, unsigned long long gpa, unsigned long long len)
{
    struct abi_obj *obj = abi_fd_get(vm_fd);
    if (obj == NULL || obj->kind != ABI_VM) {
        abi_obj_unref(obj);
        errno = EBADF;
        return -1;
    }
    abi_dirty_mark(ABI_VM_OF(obj), gpa, len);
    abi_obj_unref(obj);
    return 0;
}
