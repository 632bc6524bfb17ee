/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/run/blocks.h"

#include <errno.h>
#include <stdlib.h>

#include "softkvm/jit/jit.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mmu_int.h"

#define PAGE_HASH 4096

struct jump {
    uint64_t lin;
    uint64_t key; /* epoch << 8 | mode */
    struct sk_block *block;
};

/* A physical page that blocks were decoded from. */
struct code_page {
    uint64_t gpa;
    uint64_t lines; /* bit n: bytes 64n to 64n+63 are part of a block */
    struct sk_block *blocks;
    struct code_page *next;
};

struct sk_blocks {
    struct jump jc[SK_JC_SIZE];
    struct sk_block *hash[SK_HASH_SIZE];
    struct code_page *page[PAGE_HASH];
    uint8_t *arena;
    size_t used;
    uint64_t scratch[(sizeof(struct sk_block) + sizeof(struct sk_insn)) / 8 + 1];
};

int sk_blocks_init(struct sk_vcpu *c)
{
    struct sk_blocks *b = calloc(1, sizeof(*b));

    if (!b) {
        return -ENOMEM;
    }
    b->arena = malloc(SK_ARENA_SIZE);
    if (!b->arena) {
        free(b);
        return -ENOMEM;
    }
    c->blocks = b;
    c->jkey = 1u << 8;
    return 0;
}

void sk_blocks_done(struct sk_vcpu *c)
{
    if (c->blocks) {
        free(c->blocks->arena);
        free(c->blocks);
        c->blocks = NULL;
    }
}

/* Nobody but this vCPU has written memory since the epoch began. */
static bool blocks_alone(const struct sk_vcpu *c)
{
    const _Atomic uint64_t *count = atomic_load_explicit(&c->vm->others, memory_order_acquire);

    return count && atomic_load_explicit(&c->vm->vcpus, memory_order_acquire) == 1 &&
           atomic_load_explicit(count, memory_order_acquire) == c->others;
}

void sk_blocks_epoch(struct sk_vcpu *c)
{
    const _Atomic uint64_t *count = atomic_load_explicit(&c->vm->others, memory_order_acquire);

    c->others = count ? atomic_load_explicit(count, memory_order_acquire) : 0;
    sk_blocks_forget(c);
    sk_jit_epoch(c);
}

void sk_blocks_serialise(struct sk_vcpu *c)
{
    if (!blocks_alone(c)) {
        sk_blocks_epoch(c);
    }
}

void sk_blocks_unmap(struct sk_vcpu *c)
{
    if (blocks_alone(c)) {
        c->jkey += 1u << 8;
        sk_jit_forget(c);
    } else {
        sk_blocks_epoch(c);
    }
}

void sk_blocks_forget(struct sk_vcpu *c)
{
    c->jkey += 1u << 8;
    c->epoch++;
}

void sk_blocks_flush(struct sk_vcpu *c)
{
    struct sk_blocks *b = c->blocks;

    if (b->used > 0) { /* else the tables are empty, and their pages untouched */
        memset(b->hash, 0, sizeof(b->hash));
        memset(b->page, 0, sizeof(b->page));
        memset(b->jc, 0, sizeof(b->jc));
        b->used = 0;
    }
    sk_blocks_forget(c);
    c->leave = 1;
}

static void *blocks_alloc(struct sk_vcpu *c, size_t size)
{
    struct sk_blocks *b = c->blocks;
    void *p;

    size = bits_align_up(size, 16);
    if (b->used + size > (c->jit.jit ? SK_ARENA_SIZE / 2 : SK_ARENA_SIZE)) {
        sk_blocks_flush(c);
    }
    p = b->arena + b->used;
    b->used += size;
    return p;
}

static unsigned blocks_hash(uint64_t key)
{
    return (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 50) & (SK_HASH_SIZE - 1);
}

static struct code_page **blocks_page_slot(struct sk_vcpu *c, uint64_t gpa)
{
    return &c->blocks->page[(gpa >> 12) % PAGE_HASH];
}

static struct code_page *blocks_page(struct sk_vcpu *c, uint64_t gpa)
{
    struct code_page *p = *blocks_page_slot(c, gpa);

    while (p && p->gpa != (gpa & ~UINT64_C(4095))) {
        p = p->next;
    }
    return p;
}

static uint64_t blocks_lines(uint64_t gpa, unsigned size)
{
    unsigned first = (gpa >> 6) & 63, last = ((gpa + size - 1) >> 6) & 63;

    return (~UINT64_C(0) >> (63 - (last - first))) << first;
}

static void blocks_unhash(struct sk_vcpu *c, struct sk_block *blk)
{
    struct sk_block **at = &c->blocks->hash[blocks_hash(blk->key)];

    while (*at && *at != blk) {
        at = &(*at)->hash_next;
    }
    if (*at) {
        *at = blk->hash_next;
    }
    blk->dead = true;
}

static void blocks_drop_page(struct sk_vcpu *c, struct code_page *p)
{
    for (struct sk_block *blk = p->blocks; blk; blk = blk->page_next) {
        blocks_unhash(c, blk);
        if (blk == c->cur_block) {
            c->leave = 1;
        }
    }
    p->blocks = NULL;
    p->lines = 0;
    sk_blocks_forget(c); /* the jump cache may hold some of them */
}

bool sk_blocks_written(struct sk_vcpu *c, uint64_t gpa, unsigned size)
{
    struct code_page *p = blocks_page(c, gpa);
    bool more = sk_jit_written(c, gpa, size);

    if (!p || p->lines == 0) {
        return more;
    }
    if (p->lines & blocks_lines(gpa, size)) {
        blocks_drop_page(c, p);
        return more;
    }
    return true;
}

void sk_blocks_invalidate(struct sk_vcpu *c, uint64_t gpa, uint64_t size)
{
    for (uint64_t a = gpa & ~UINT64_C(4095); a < gpa + size; a += 4096) {
        struct code_page *p = blocks_page(c, a);

        sk_jit_drop(c, a);
        if (p && p->lines) {
            blocks_drop_page(c, p);
        }
    }
}

static void blocks_env(const struct sk_vcpu *c, struct sk_decode_env *env)
{
    env->code_size = c->code_size;
    env->real_or_v86 = c->jkey & SK_MODE_REAL;
    env->features = c->features;
}

/* Linear address of CS:off, with the limit check for `n` bytes. */
static uint64_t blocks_lin(struct sk_vcpu *c, uint64_t off, unsigned n)
{
    if (sk_code64(c)) {
        return off;
    }
    if (off + n - 1 > c->seg[SK_CS].limit) {
        sk_gp(c);
    }
    return (c->seg[SK_CS].base + off) & 0xffffffff;
}

static _Noreturn void blocks_bad(struct sk_vcpu *c, int err)
{
    if (err == SK_DEC_LONG) {
        sk_gp(c);
    }
    sk_ud(c);
}

/* Code outside RAM: KVM fetches no instructions from devices. */
static _Noreturn void blocks_no_ram(struct sk_vcpu *c)
{
    if (c->cpl != 0) {
        sk_ud(c);
    }
    c->exit.kind = SK_EXIT_INTERNAL_ERROR;
    c->exit.internal.suberror = 1; /* KVM_INTERNAL_ERROR_EMULATION */
    c->exit.internal.insn_len = 0;
    sk_leave_unfinished(c);
}

/* One instruction, byte by byte, with every check at the byte it belongs to. */
static struct sk_block *blocks_single(struct sk_vcpu *c)
{
    struct sk_block *blk = (struct sk_block *)(void *)c->blocks->scratch;
    struct sk_decode_env env;
    uint8_t buf[15];
    int len = SK_DEC_SHORT;

    c->insn_rip = c->r[SK_RIP]; /* what a fault of the fetch reports */
    blocks_env(c, &env);
    for (unsigned n = 0; len == SK_DEC_SHORT && n < sizeof(buf);) {
        uint64_t gpa, lin = blocks_lin(c, c->r[SK_RIP] + n, 1);
        const uint8_t *p = sk_fetch_ptr(c, lin, &gpa);
        unsigned left = (unsigned)(4096 - (lin & 4095)), take;

        if (!p) {
            blocks_no_ram(c);
        }
        take = MIN(left, (unsigned)sizeof(buf) - n);
        if (!sk_code64(c)) {
            take = (unsigned)MIN((uint64_t)take,
                                 (uint64_t)c->seg[SK_CS].limit - (c->r[SK_RIP] + n) + 1);
        }
        memcpy(buf + n, p, take);
        n += take;
        len = sk_decode(&blk->insn[0], buf, n, &env);
    }
    if (len < 0) {
        blocks_bad(c, len == SK_DEC_SHORT ? SK_DEC_LONG : len);
    }
    blk->n = 1;
    blk->len = (uint16_t)len;
    blk->host = NULL;
    return blk;
}

/* Decodes from RAM as far as the page and the limit go. NULL: the first instruction needs the
 * careful way. */
static struct sk_block *blocks_make(struct sk_vcpu *c, const uint8_t *host, uint64_t gpa,
                                    uint64_t key)
{
    struct sk_insn tmp[SK_BLOCK_MAX];
    struct sk_decode_env env;
    unsigned left = (unsigned)(4096 - (gpa & 4095)), n = 0, len = 0;
    struct sk_block *blk;
    struct code_page *p;

    if (!sk_code64(c)) {
        uint64_t room = (uint64_t)c->seg[SK_CS].limit - c->r[SK_RIP] + 1;

        left = (unsigned)MIN((uint64_t)left, room);
    }
    blocks_env(c, &env);
    while (n < SK_BLOCK_MAX) {
        int r = sk_decode(&tmp[n], host + len, left - len, &env);

        if (r < 0) {
            break;
        }
        len += (unsigned)r;
        if (tmp[n++].flags & SK_IN_END) {
            break;
        }
    }
    if (n == 0) {
        return NULL;
    }
    blk = blocks_alloc(c, sizeof(*blk) + n * sizeof(struct sk_insn) + len);
    p = blocks_page(c, gpa);
    if (!p) {
        p = blocks_alloc(c, sizeof(*p));
        *p = (struct code_page){ .gpa = gpa & ~UINT64_C(4095) };
        if ((uint8_t *)p < (uint8_t *)blk) { /* the arena was emptied between the two */
            blk = blocks_alloc(c, sizeof(*blk) + n * sizeof(struct sk_insn) + len);
        }
        p->next = *blocks_page_slot(c, gpa);
        *blocks_page_slot(c, gpa) = p;
    }
    *blk = (struct sk_block){
        .key = key, .checked = c->epoch, .host = host, .len = (uint16_t)len, .n = (uint8_t)n
    };
    memcpy(blk->insn, tmp, n * sizeof(tmp[0]));
    blk->bytes = (uint8_t *)&blk->insn[n];
    memcpy(blk->bytes, host, len);
    if (p->lines == 0) {
        sk_tlb_protect(c, gpa);
    }
    p->lines |= blocks_lines(gpa, len);
    blk->page_next = p->blocks;
    p->blocks = blk;
    blk->hash_next = c->blocks->hash[blocks_hash(key)];
    c->blocks->hash[blocks_hash(key)] = blk;
    return blk;
}

/* By physical address; compares the bytes once an epoch. */
static struct sk_block *blocks_find(struct sk_vcpu *c, const uint8_t *host, uint64_t gpa)
{
    uint64_t key = gpa << 8 | (c->jkey & 0xff);
    struct sk_block *blk = c->blocks->hash[blocks_hash(key)];

    while (blk && blk->key != key) {
        blk = blk->hash_next;
    }
    if (blk && (blk->checked != c->epoch || blk->host != host)) {
        if (memcmp(host, blk->bytes, blk->len) != 0) {
            blocks_drop_page(c, blocks_page(c, gpa));
            blk = NULL;
        } else {
            blk->checked = c->epoch;
            blk->host = host;
        }
    }
    return blk ? blk : blocks_make(c, host, gpa, key);
}

static struct sk_block *blocks_miss(struct sk_vcpu *c, uint64_t lin, struct jump *j)
{
    uint64_t gpa;
    const uint8_t *host;
    struct sk_block *blk;

    c->insn_rip = c->r[SK_RIP]; /* what a fault of the fetch reports */
    (void)blocks_lin(c, c->r[SK_RIP], 1);
    host = sk_fetch_ptr(c, lin, &gpa);
    blk = host ? blocks_find(c, host, gpa) : NULL;
    if (!blk) {
        return blocks_single(c);
    }
    if (!sk_code64(c) && c->r[SK_RIP] + blk->len - 1 > c->seg[SK_CS].limit) {
        return blocks_single(c);
    }
    *j = (struct jump){ .lin = lin, .key = c->jkey, .block = blk };
    return blk;
}

struct sk_block *sk_blocks_get(struct sk_vcpu *c, bool single)
{
    uint64_t lin;
    struct jump *j;

    if (!sk_code64(c)) {
        c->r[SK_RIP] &= 0xffffffff;
    }
    if (UNLIKELY(single)) {
        return blocks_single(c);
    }
    lin = (c->seg[SK_CS].ebase + c->r[SK_RIP]) & c->linmask;
    j = &c->blocks->jc[(lin ^ (lin >> 12)) % SK_JC_SIZE];
    if (LIKELY(j->lin == lin && j->key == c->jkey)) {
        if (UNLIKELY(!sk_code64(c) && c->r[SK_RIP] + j->block->len - 1 > c->seg[SK_CS].limit)) {
            return blocks_single(c); /* the same bytes seen through a shorter segment */
        }
        return j->block;
    }
    return blocks_miss(c, lin, j);
}
