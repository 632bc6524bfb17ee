/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MSRs by ioctl, and the filter (KVM api.rst 4.18, 4.19, 4.97).
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/x86/msr.h"
#include "softkvm/x86/tsc.h"

#define FILTER_MAX_BITMAP 0x600 /* KVM_MSR_FILTER_MAX_BITMAP_SIZE */

static int host_read(struct abi_vcpu *v, uint32_t index, uint64_t *ret)
{
    struct sk_vcpu *c = v->c;
    int rc = c->lapic != NULL ? sk_lapic_rdmsr(c, index, ret) : -1;
    if (rc < 0) {
        rc = pv_rdmsr(c, &v->vm->clock, &v->clock, index, ret);
    }
    return rc < 0 ? sk_msr_read(c, index, ret, true) : rc;
}

static int host_write(struct abi_vcpu *v, uint32_t index, uint64_t val)
{
    struct sk_vcpu *c = v->c;
    int rc = c->lapic != NULL ? sk_lapic_wrmsr(c, index, val, true) : -1;
    if (rc < 0) {
        rc = pv_wrmsr(c, &v->vm->clock, &v->clock, index, val);
    }
    if (rc < 0 && index == 0x10) { /* the TSC */
        abi_tsc_set(v->vm, c, val);
        return 0;
    }
    return rc < 0 ? sk_msr_write(c, index, val, true) : rc;
}

/* Runs over the entries up to the first that fails; returns how many went well. */
static int each(struct abi_vcpu *v, const struct kvm_msrs *head, unsigned long user, bool write)
{
    struct kvm_msr_entry e[ABI_MAX_MSRS];
    char *list = (char *)user + sizeof(*head);
    if (head->nmsrs >= ABI_MAX_MSRS) { /* as MAX_IO_MSRS */
        return -E2BIG;
    }
    if (abi_copy_in(e, list, head->nmsrs * sizeof(*e)) < 0) {
        return -EFAULT;
    }
    unsigned i;
    for (i = 0; i < head->nmsrs; i++) {
        uint64_t value = 0;
        int rc = write ? host_write(v, e[i].index, e[i].data) : host_read(v, e[i].index, &value);
        if (rc != 0) {
            break;
        }
        if (!write) {
            e[i].data = value;
        }
    }
    if (write) {
        sk_vcpu_changed(v->c); /* EFER and bases may be among them */
    } else if (abi_copy_out(list, e, i * sizeof(*e)) < 0) {
        return -EFAULT;
    }
    return (int)i;
}

int abi_get_msrs(struct abi_obj *obj, void *arg, unsigned long user)
{
    return each(ABI_VCPU_OF(obj), arg, user, false);
}

int abi_set_msrs(struct abi_obj *obj, void *arg, unsigned long user)
{
    return each(ABI_VCPU_OF(obj), arg, user, true);
}

/* --- the filter --- */

void abi_msr_filter_free(struct abi_msr_filter *f)
{
    for (unsigned i = 0; f != NULL && i < f->n; i++) {
        free(f->range[i].bitmap);
    }
    free(f);
}

bool abi_msr_allowed(struct sk_vcpu *c, uint32_t index, bool write)
{
    struct abi_vm *vm = abi_vm_of(c);
    const struct abi_msr_filter *f = atomic_load_explicit(&vm->msr_filter, memory_order_acquire);
    /* x2APIC MSRs cannot be filtered (4.97). */
    if (f == NULL || (index >= 0x800 && index <= 0x8ff)) {
        return true;
    }
    bool allowed = !f->default_deny;
    uint32_t kind = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ;
    for (unsigned i = 0; i < f->n; i++) {
        uint32_t bit = index - f->range[i].base;
        if ((f->range[i].flags & kind) != 0 && bit < f->range[i].nmsrs) {
            allowed = (f->range[i].bitmap[bit / 8] >> (bit % 8) & 1) != 0;
            break;
        }
    }
    return allowed;
}

static int filter_range(struct abi_msr_filter *f, const struct kvm_msr_filter_range *r)
{
    size_t bytes = bits_align_up(r->nmsrs, 64) / 8;
    if (r->nmsrs == 0) {
        return 0;
    }
    if ((r->flags & ~(uint32_t)(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)) != 0 ||
        r->flags == 0 || bytes > FILTER_MAX_BITMAP) {
        return -EINVAL;
    }
    uint8_t *bitmap = malloc(bytes);
    if (bitmap == NULL) {
        return -ENOMEM;
    }
    if (abi_copy_in(bitmap, r->bitmap, bytes) < 0) {
        free(bitmap);
        return -EFAULT;
    }
    f->range[f->n].flags = r->flags;
    f->range[f->n].base = r->base;
    f->range[f->n].nmsrs = r->nmsrs;
    f->range[f->n++].bitmap = bitmap;
    return 0;
}

int abi_set_msr_filter(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_msr_filter *k = arg;
    if ((k->flags & ~(uint32_t)KVM_MSR_FILTER_DEFAULT_DENY) != 0) {
        return -EINVAL;
    }
    struct abi_msr_filter *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return -ENOMEM;
    }
    f->default_deny = (k->flags & KVM_MSR_FILTER_DEFAULT_DENY) != 0;
    int rc = 0;
    for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES && rc == 0; i++) {
        rc = filter_range(f, &k->ranges[i]);
    }
    if (rc == 0 && f->n == 0 && f->default_deny) {
        rc = -EINVAL; /* everything denied and nothing named: a mistake (4.97) */
    }
    if (rc < 0) {
        abi_msr_filter_free(f);
        return rc;
    }
    pthread_mutex_lock(&vm->slots_lock);
    struct abi_msr_filter *old = atomic_exchange_explicit(&vm->msr_filter, f, memory_order_acq_rel);
    abi_slots_sync(vm); /* nobody looks at the old one any more */
    pthread_mutex_unlock(&vm->slots_lock);
    abi_msr_filter_free(old);
    return 0;
}

/* --- the vCPU's TSC --- */

static uint64_t monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void abi_tsc_set(struct abi_vm *vm, struct sk_vcpu *c, uint64_t value)
{
    pthread_mutex_lock(&vm->lock);
    struct abi_tsc *t = &vm->tsc;
    uint64_t now = monotonic_ns();
    uint64_t second = (uint64_t)sk_tsc_khz(c) * 1000;
    uint64_t expected =
        t->value + (uint64_t)((unsigned __int128)(now - t->ns) * second / 1000000000);
    bool near = value == 0 || (value < expected + second && value + second > expected);
    c->tsc_offset += value - sk_tsc_now(c);
    if (t->valid && near && t->ratio == c->tsc_ratio) {
        c->tsc_offset = t->offset;
    }
    *t = (struct abi_tsc){
        .ns = now, .value = value, .offset = c->tsc_offset, .ratio = c->tsc_ratio, .valid = true
    };
    pthread_mutex_unlock(&vm->lock);
}

int abi_set_tsc_khz(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    uint32_t host = sk_tsc_host_khz();
    if (user > UINT32_MAX || user / 4096 > host) {
        return -EINVAL;
    }
    uint64_t now = sk_tsc_now(c);
    uint32_t khz = user != 0 ? (uint32_t)user : host;
    c->tsc_ratio = khz == host ? 0 : (uint64_t)(((unsigned __int128)khz << 48) / host);
    c->tsc_offset += now - sk_tsc_now(c); /* no jump */
    return 0;
}

int abi_get_tsc_khz(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    return (int)sk_tsc_khz(ABI_VCPU_OF(obj)->c);
}

static bool is_tsc_offset(const struct kvm_device_attr *a)
{
    return a->group == KVM_VCPU_TSC_CTRL && a->attr == KVM_VCPU_TSC_OFFSET && a->flags == 0;
}

/* The argument of these is input, whatever the request number says. */
static int attr_in(unsigned long user, struct kvm_device_attr *ret)
{
    if (abi_copy_in(ret, (const void *)user, sizeof(*ret)) < 0) {
        return -EFAULT;
    }
    return is_tsc_offset(ret) ? 0 : -ENXIO;
}

int abi_vcpu_has_attr(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)obj;
    (void)arg;
    struct kvm_device_attr a;
    return attr_in(user, &a);
}

int abi_vcpu_get_attr(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct kvm_device_attr a;
    int rc = attr_in(user, &a);
    uint64_t offset = ABI_VCPU_OF(obj)->c->tsc_offset;
    return rc < 0 ? rc : abi_copy_out((void *)a.addr, &offset, sizeof(offset));
}

int abi_vcpu_set_attr(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    struct kvm_device_attr a;
    uint64_t offset;
    int rc = attr_in(user, &a);
    if (rc == 0) {
        rc = abi_copy_in(&offset, (const void *)a.addr, sizeof(offset));
    }
    if (rc == 0) {
        v->c->tsc_offset = offset;
        atomic_store_explicit(&v->clock_stale, true, memory_order_release);
    }
    return rc;
}
