/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory slots, dirty log and dirty ring (KVM api.rst 4.35, 4.8, 4.117, 8.29).
 *
 * The engine reads an immutable struct sk_memmap. A change builds a new one, publishes it, and
 * waits until no vCPU can hold a pointer made from the old one: those outside KVM_RUN hold none,
 * those inside are polled (SK_POLL_TLB) and answer before their next block.
 *
 * Dirty log: a page whose bit is clear has no write entry in any TLB, so the first store takes the
 * slow path, which sets the bit. GET_DIRTY_LOG takes the bits and makes the vCPUs drop their
 * write entries before it returns.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "softkvm/abi/abi_int.h"

#define SLOT_ID(as, id) ((as) << 16 | (id))

static size_t bitmap_bytes(uint64_t size)
{
    return bits_align_up(size / ABI_PAGE, 64) / 8;
}

int abi_slots_init(struct abi_vm *vm)
{
    pthread_mutex_init(&vm->slots_lock, NULL);
    struct sk_memmap *map = calloc(1, sizeof(*map));
    struct sk_memmap *smm = calloc(1, sizeof(*smm));
    if (map == NULL || smm == NULL) {
        free(map);
        free(smm);
        return -ENOMEM;
    }
    atomic_store_explicit(&vm->sk.memmap, map, memory_order_release);
    atomic_store_explicit(&vm->sk.memmap_smm, smm, memory_order_release);
    return 0;
}

static void slot_free(struct abi_slot *s)
{
    free((void *)s->dirty);
    free((void *)s->seen[0]);
    free((void *)s->seen[1]);
}

void abi_slots_free(struct abi_vm *vm)
{
    free(atomic_load_explicit(&vm->sk.memmap, memory_order_relaxed));
    free(atomic_load_explicit(&vm->sk.memmap_smm, memory_order_relaxed));
    for (unsigned as = 0; as < 2; as++) {
        for (unsigned i = 0; i < ABI_MAX_SLOTS; i++) {
            slot_free(&vm->slot[as][i]);
        }
    }
    pthread_mutex_destroy(&vm->slots_lock);
}

void abi_slots_sync(struct abi_vm *vm)
{
    for (unsigned i = 0; i < ABI_MAX_VCPUS; i++) {
        struct abi_vcpu *v = vm->vcpu[i];
        if (v != NULL) {
            sk_poll_set(v->c, SK_POLL_TLB);
        }
    }
    for (unsigned i = 0; i < ABI_MAX_VCPUS; i++) {
        struct abi_vcpu *v = vm->vcpu[i];
        if (v == NULL) {
            continue;
        }
        /* A vCPU that is not in KVM_RUN drops its translations when it comes back in. The caller
         * itself may be a vCPU thread, between two runs. */
        uint32_t poll;
        while (atomic_load_explicit(&v->in_run, memory_order_acquire) &&
               ((poll = atomic_load_explicit(&v->c->poll, memory_order_acquire)) & SK_POLL_TLB) !=
                   0) {
            /* Nobody wakes us: a sleep of 20 us that ends early when the word has changed. */
            struct timespec pause = { .tv_nsec = 20000 };
            (void)syscall(SYS_futex, &v->c->poll, FUTEX_WAIT_PRIVATE, poll, &pause, NULL, 0);
        }
    }
}

static int by_gpa(const void *a, const void *b)
{
    const struct sk_slot *x = a;
    const struct sk_slot *y = b;
    return x->gpa < y->gpa ? -1 : x->gpa > y->gpa;
}

/* The next free entry of a vCPU's ring gets the page. Runs on the vCPU's thread. */
static void ring_push(struct sk_vcpu *c, struct sk_slot *s, uint64_t page)
{
    struct abi_vcpu *v = abi_vcpu_of(c);
    struct abi_vm *vm = v->vm;
    uint32_t entries = vm->dirty_ring_size / (uint32_t)sizeof(struct kvm_dirty_gfn);
    uint32_t head = atomic_load_explicit(&v->dirty_head, memory_order_relaxed);
    struct kvm_dirty_gfn *e = &v->dirty_gfn[head % entries];
    e->slot = s->id;
    e->offset = page;
    __atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
    atomic_store_explicit(&v->dirty_head, head + 1, memory_order_relaxed);
    /* Nearly full: leave KVM_RUN with KVM_EXIT_DIRTY_RING_FULL before it overflows. */
    if (head + 1 - v->dirty_reset >= entries - 64) {
        sk_poll_set(c, SK_POLL_EXIT);
    }
}

/* With slots_lock: a new map from vm->slot[as]. The old one is freed once no vCPU uses it. */
static int slots_publish(struct abi_vm *vm, unsigned as)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ABI_MAX_SLOTS; i++) {
        n += vm->slot[as][i].used ? 1 : 0;
    }
    struct sk_memmap *map = calloc(1, sizeof(*map) + n * sizeof(map->slot[0]));
    if (map == NULL) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < ABI_MAX_SLOTS; i++) {
        const struct abi_slot *s = &vm->slot[as][i];
        if (!s->used) {
            continue;
        }
        map->slot[map->n++] = (struct sk_slot){
            .gpa = s->gpa,
            .size = s->size,
            .host = (uint8_t *)s->user,
            .flags = ((s->flags & KVM_MEM_READONLY) != 0 ? (uint32_t)SK_SLOT_READONLY : 0u) |
                     (s->dirty != NULL ? (uint32_t)SK_SLOT_LOG : 0u),
            .id = SLOT_ID(as, i),
            .dirty = s->dirty,
            .seen = {s->seen[0], s->seen[1]},
            .on_dirty = vm->dirty_ring_size != 0 ? ring_push : NULL,
        };
    }
    qsort(map->slot, map->n, sizeof(map->slot[0]), by_gpa);
    struct sk_memmap *old = atomic_exchange_explicit(as == 0 ? &vm->sk.memmap : &vm->sk.memmap_smm,
                                                     map, memory_order_acq_rel);
    abi_slots_sync(vm);
    free(old);
    return 0;
}

static bool overlaps(const struct abi_vm *vm, unsigned as, unsigned id, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < ABI_MAX_SLOTS; i++) {
        const struct abi_slot *s = &vm->slot[as][i];
        if (s->used && i != id && gpa < s->gpa + s->size && s->gpa < gpa + size) {
            return true;
        }
    }
    return false;
}

/* Checks of KVM_SET_USER_MEMORY_REGION that do not look at other slots. */
static int region_check(const struct kvm_userspace_memory_region *r)
{
    uint64_t end;
    unsigned as = r->slot >> 16;
    unsigned id = r->slot & 0xffff;
    if (as > 1 || id >= ABI_MAX_SLOTS ||
        (r->flags & ~(uint32_t)(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) != 0) {
        return -EINVAL;
    }
    if (((r->memory_size | r->guest_phys_addr | r->userspace_addr) & (ABI_PAGE - 1)) != 0 ||
        ckd_add(&end, r->guest_phys_addr, r->memory_size) ||
        ckd_add(&end, r->userspace_addr, r->memory_size) || end > BIT64(47) ||
        r->memory_size / ABI_PAGE > UINT64_C(0x7fffffff)) {
        return -EINVAL;
    }
    return 0;
}

static int dirty_new(struct abi_vm *vm, uint64_t size, _Atomic uint64_t **ret)
{
    size_t bytes = bitmap_bytes(size);
    *ret = calloc(1, bytes);
    if (*ret == NULL) {
        return -ENOMEM;
    }
    if ((vm->log_protect & KVM_DIRTY_LOG_INITIALLY_SET) != 0) {
        for (uint64_t page = 0; page < size / ABI_PAGE; page++) {
            (*ret)[page >> 6] |= BIT64(page & 63);
        }
    }
    return 0;
}

static int region_delete(struct abi_vm *vm, unsigned as, struct abi_slot *s)
{
    if (!s->used) {
        return -EINVAL;
    }
    struct abi_slot old = *s;
    *s = (struct abi_slot){ 0 };
    int rc = slots_publish(vm, as);
    if (rc < 0) {
        *s = old;
        return rc;
    }
    slot_free(&old);
    return 0;
}

/* Where each page is to be looked at once before the guest has it. */
static int seen_new(struct abi_slot *s)
{
    if (abi_embedded() || !sk_phys_can_look()) {
        return 0;
    }
    s->seen[0] = calloc(1, bitmap_bytes(s->size));
    s->seen[1] = calloc(1, bitmap_bytes(s->size));
    return s->seen[0] != NULL && s->seen[1] != NULL ? 0 : -ENOMEM;
}

static int region_set(struct abi_vm *vm, const struct kvm_userspace_memory_region *r)
{
    unsigned as = r->slot >> 16;
    unsigned id = r->slot & 0xffff;
    struct abi_slot *s = &vm->slot[as][id];
    if (r->memory_size == 0) {
        return region_delete(vm, as, s);
    }
    /* A slot may move, and change its flags; not its size, its memory or READONLY. */
    if (s->used && (s->size != r->memory_size || s->user != r->userspace_addr ||
                    ((s->flags ^ r->flags) & KVM_MEM_READONLY) != 0)) {
        return -EINVAL;
    }
    if (overlaps(vm, as, id, r->guest_phys_addr, r->memory_size)) {
        return -EEXIST;
    }
    struct abi_slot old = *s;
    struct abi_slot fresh = {
        .used = true,
        .flags = r->flags,
        .gpa = r->guest_phys_addr,
        .size = r->memory_size,
        .user = r->userspace_addr,
        .seen = {old.seen[0], old.seen[1]},
    };
    int rc = old.used ? 0 : seen_new(&fresh);
    if (rc == 0 && (r->flags & KVM_MEM_LOG_DIRTY_PAGES) != 0) {
        fresh.dirty = old.dirty;
        rc = fresh.dirty == NULL ? dirty_new(vm, fresh.size, &fresh.dirty) : 0;
    }
    if (rc == 0) {
        *s = fresh;
        rc = slots_publish(vm, as);
    }
    if (rc < 0) {
        *s = old;
        if (fresh.dirty != old.dirty) {
            free((void *)fresh.dirty);
        }
        if (!old.used) {
            free((void *)fresh.seen[0]);
            free((void *)fresh.seen[1]);
        }
        return rc;
    }
    if (fresh.dirty == NULL) {
        free((void *)old.dirty);
    }
    return 0;
}

int abi_set_user_memory_region(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    int rc = region_check(arg);
    if (rc < 0) {
        return rc;
    }
    pthread_mutex_lock(&vm->slots_lock);
    rc = region_set(vm, arg);
    pthread_mutex_unlock(&vm->slots_lock);
    return rc;
}

/* The slot with a log. -EINVAL: no such slot, -ENOENT: no log. slots_lock is held. */
static int logged_slot(struct abi_vm *vm, uint32_t slot, struct abi_slot **ret_slot)
{
    unsigned as = slot >> 16;
    unsigned id = slot & 0xffff;
    if (as > 1 || id >= ABI_MAX_SLOTS) {
        return -EINVAL;
    }
    *ret_slot = &vm->slot[as][id];
    return (*ret_slot)->used && (*ret_slot)->dirty != NULL ? 0 : -ENOENT;
}

int abi_get_dirty_log(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_dirty_log *log = arg;
    if (vm->dirty_ring_size != 0) {
        return -ENXIO;
    }
    pthread_mutex_lock(&vm->slots_lock);
    struct abi_slot *s = NULL;
    int rc = logged_slot(vm, log->slot, &s);
    if (rc == 0) {
        size_t bytes = bitmap_bytes(s->size);
        uint64_t *copy = malloc(bytes);
        rc = copy == NULL ? -ENOMEM : 0;
        bool keep = (vm->log_protect & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) != 0;
        for (size_t i = 0; rc == 0 && i < bytes / 8; i++) {
            copy[i] = keep ? atomic_load_explicit(&s->dirty[i], memory_order_relaxed)
                           : atomic_exchange_explicit(&s->dirty[i], 0, memory_order_relaxed);
        }
        if (rc == 0 && !keep) {
            abi_slots_sync(vm);
        }
        if (rc == 0) {
            rc = abi_copy_out(log->dirty_bitmap, copy, bytes);
        }
        free(copy);
    }
    pthread_mutex_unlock(&vm->slots_lock);
    return rc;
}

int abi_clear_dirty_log(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    const struct kvm_clear_dirty_log *log = arg;
    if (vm->dirty_ring_size != 0) {
        return -ENXIO;
    }
    if (log->first_page % 64 != 0) {
        return -EINVAL;
    }
    pthread_mutex_lock(&vm->slots_lock);
    struct abi_slot *s = NULL;
    int rc = logged_slot(vm, log->slot, &s);
    uint64_t pages = rc == 0 ? s->size / ABI_PAGE : 0;
    if (rc == 0 && (log->first_page > pages || log->num_pages > pages - log->first_page ||
                    (log->num_pages % 64 != 0 && log->num_pages < pages - log->first_page))) {
        rc = -EINVAL;
    }
    size_t bytes = bits_align_up(log->num_pages, 64) / 8;
    uint64_t *mask = rc == 0 ? malloc(MAX(bytes, (size_t)8)) : NULL;
    if (rc == 0) {
        rc = mask == NULL ? -ENOMEM : abi_copy_in(mask, log->dirty_bitmap, bytes);
    }
    for (size_t i = 0; rc == 0 && i < bytes / 8; i++) {
        atomic_fetch_and_explicit(&s->dirty[log->first_page / 64 + i], ~mask[i],
                                  memory_order_relaxed);
    }
    if (rc == 0) {
        abi_slots_sync(vm);
    }
    free(mask);
    pthread_mutex_unlock(&vm->slots_lock);
    return rc;
}

int abi_reset_dirty_rings(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)arg;
    (void)user;
    struct abi_vm *vm = ABI_VM_OF(obj);
    if (vm->dirty_ring_size == 0) {
        return -EINVAL;
    }
    uint32_t entries = vm->dirty_ring_size / (uint32_t)sizeof(struct kvm_dirty_gfn);
    int given_back = 0;
    pthread_mutex_lock(&vm->slots_lock);
    for (unsigned i = 0; i < ABI_MAX_VCPUS; i++) {
        struct abi_vcpu *v = vm->vcpu[i];
        for (; v != NULL && v->dirty_gfn != NULL; v->dirty_reset++) {
            struct kvm_dirty_gfn *e = &v->dirty_gfn[v->dirty_reset % entries];
            if ((__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_RESET) == 0) {
                break;
            }
            /* The entry is in memory that the client can write: check before use. */
            struct abi_slot *s = NULL;
            if (logged_slot(vm, e->slot, &s) == 0 && e->offset < s->size / ABI_PAGE) {
                atomic_fetch_and_explicit(&s->dirty[e->offset >> 6], ~BIT64(e->offset & 63),
                                          memory_order_relaxed);
            }
            __atomic_store_n(&e->flags, 0, __ATOMIC_RELEASE);
            given_back++;
        }
    }
    if (given_back > 0) {
        abi_slots_sync(vm);
    }
    pthread_mutex_unlock(&vm->slots_lock);
    return given_back;
}

void abi_dirty_mark(struct abi_vm *vm, uint64_t gpa, uint64_t len)
{
    pthread_mutex_lock(&vm->slots_lock);
    for (unsigned i = 0; i < ABI_MAX_SLOTS; i++) {
        struct abi_slot *s = &vm->slot[0][i];
        if (!s->used || s->dirty == NULL || gpa >= s->gpa + s->size || s->gpa >= gpa + len) {
            continue;
        }
        uint64_t first = gpa > s->gpa ? (gpa - s->gpa) / ABI_PAGE : 0;
        uint64_t last = MIN(gpa + len - s->gpa, s->size) - 1;
        for (uint64_t page = first; page <= last / ABI_PAGE; page++) {
            atomic_fetch_or_explicit(&s->dirty[page >> 6], BIT64(page & 63), memory_order_relaxed);
        }
    }
    pthread_mutex_unlock(&vm->slots_lock);
}
