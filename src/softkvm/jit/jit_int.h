/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside the JIT. Words used below and in docs/softkvm-jit.md:
 *
 *   page    a physical page with translated code: which of its lines were used, a copy of them
 *   view    a page seen at a linear address in a mode with a CS base; has a token, a number never
 *           used twice. c->jit.token[set][linear page % 256] == token means: that mapping is in
 *           force, that mode is, and the bytes are those that were translated
 *   region  translated code with one entry: instructions in a row up to a jump that is always
 *           taken; conditional ones are exits on the way. Two ways in: `checked` compares the
 *           token first, `entry` is for who comes from the same view
 *   link    a direct exit; its jump goes to a stub until the target exists
 *   record  a decoded instruction that generated code may hand to the interpreter
 */
#ifndef SOFTKVM_JIT_JIT_INT_H
#define SOFTKVM_JIT_JIT_INT_H

#include "softkvm/jit/jit.h"
#include "softkvm/jit/jit_emit.h"
#include "softkvm/run/blocks.h"

#define JIT_CODE_SIZE  (16 * MIB) /* of all vCPUs of a machine */
#define JIT_DATA_SIZE  JIT_CODE_SIZE
#define JIT_SHARE_MIN  (1 * MIB)
#define JIT_VIEW_HASH  4096
#define JIT_PAGE_HASH  4096
#define JIT_REG_HASH   32768
#define JIT_REGION_MAX 48          /* instructions */
#define JIT_ROOM       (64 * 1024) /* code bytes a region cannot exceed */
#define JIT_DATA_ROOM  (32 * 1024) /* the same of data, two pages included */

/* Register map: guest registers keep their names, but RSP lives in R9, and R9 to R11 in the vCPU.
 */
enum { H_GSP = H_R9, H_T0 = H_R10, H_T1 = H_R11 };

/* Bits of sk_jit_state.mode. */
enum {
    JM_SIZE = 0x0003, /* 0: 16 bit, 1: 32, 2: 64 */
    JM_USER = 0x0004,
    JM_REAL = 0x0008,
    JM_SET_SHIFT = 4, /* enum sk_tlbset */
    JM_SS_BIG = 0x0040,
    JM_FIT = 0x0080,   /* the JIT may run at all: ordinary CS limit, tables in use */
    JM_FLAT_SHIFT = 8, /* bit of each segment register: base 0, no limit, read and write */
    JM_SSE = 0x4000,
    JM_AVX = 0x8000,
    JM_X87 = 0x10000,
    JM_MMX = 0x20000
};

struct jit_view;
struct jit_rec;
struct jit_replay;

struct jit_page {
    uint64_t gpa;
    uint64_t lines;
    uint64_t epoch; /* in which the bytes were last compared */
    struct jit_view *views;
    struct jit_page *next;
    uint8_t copy[4096];
};

struct jit_view {
    uint64_t lin; /* page address */
    uint64_t csbase;
    struct jit_page *page;
    uint32_t mode;
    uint32_t token;
    bool dead;
    struct jit_view *hash_next;
    struct jit_view *page_next;
};

struct jit_region {
    uint64_t rip;
    struct jit_view *view;
    uint8_t *checked; /* in the writable view of the cache */
    uint8_t *entry;
    struct jit_rec **rec; /* lock-step: its instructions; */
    unsigned n;           /* 0: cannot be done twice */
    struct jit_region *hash_next;
};

struct jit_link {
    uint64_t rip;
    uint8_t *site;          /* the jump to point elsewhere; NULL: none */
    struct jit_view *view;  /* of the code that leaves */
    struct jit_view *cross; /* JX_T0: the instruction's second page, whose token was missing */
};

struct jit_rec {
    struct sk_insn in;
    uint64_t rip;
};

/* Place of a page's token. */
static inline unsigned jit_slot(uint64_t lin)
{
    return (lin >> 12) % SK_JIT_TOKENS;
}

/* Why generated code came back. */
enum jit_exit { JX_LEAVE, JX_LINK, JX_POLL, JX_TOKEN, JX_T0 };

typedef unsigned jit_enter_fn(struct sk_vcpu *c, const uint8_t *code);

struct sk_jit {
    uint8_t *rw;
    ptrdiff_t rx; /* added to a writable address */
    uint8_t *code_start, *code_p;
    uint8_t *data, *data_p;
    jit_enter_fn *enter;
    uint8_t *th_interp, *th_interp_end, *th_vec_load, *th_x87_load, *th_exit[JX_T0 + 1];
    bool avx, fsgsbase;
    struct jit_replay *replay; /* NULL: no lock-step (jit_replay.c) */
    bool verify;               /* look through all that is translated: jit_verify.c */
    struct jit_tr *tr;         /* jit_tr.h; made at the first translation */
    uint32_t next_token;
    uint64_t flush_gen;
    uint32_t set_mode[SK_TLB_NSETS];
    uint64_t set_base[SK_TLB_NSETS];
    struct jit_view *views[JIT_VIEW_HASH];
    struct jit_page *pages[JIT_PAGE_HASH];
    struct jit_region *regions[JIT_REG_HASH];
};

/* --- jit_cache.c --- */

/* How many bytes of code, and as many of data, this vCPU may have. */
size_t jit_share(const struct sk_vcpu *c);
void *jit_data(struct sk_jit *j, size_t size);
struct jit_page *jit_page_find(const struct sk_jit *j, uint64_t gpa);
struct jit_page *jit_page_get(struct sk_jit *j, uint64_t gpa);
struct jit_view *jit_view_get(struct sk_vcpu *c, uint64_t lin, struct jit_page *p);
void jit_region_add(struct sk_jit *j, struct jit_region *r);
/* The bytes of the page are still those of the copy. */
bool jit_page_same(const struct jit_page *p, const uint8_t *host);
/* The same, looked up once an epoch. */
bool jit_page_check(struct sk_vcpu *c, struct jit_page *p, const uint8_t *host);
void jit_page_drop(struct sk_vcpu *c, struct jit_page *p);

static inline unsigned jit_hash_page(uint64_t addr)
{
    return (unsigned)(((addr >> 12) * UINT64_C(0x9e3779b97f4a7c15)) >> 52) % JIT_PAGE_HASH;
}

static inline struct jit_view *jit_view_find(const struct sk_vcpu *c, uint64_t lin, uint64_t gpa)
{
    uint64_t page = lin & ~UINT64_C(4095), base = c->seg[SK_CS].ebase;
    struct jit_view *v = c->jit.jit->views[jit_hash_page(lin)];

    gpa &= ~UINT64_C(4095);
    while (v &&
           (v->lin != page || v->page->gpa != gpa || v->mode != c->jit.mode || v->csbase != base)) {
        v = v->hash_next;
    }
    return v;
}

/* Code of that view may run as things are, if its page is still mapped there and unchanged. */
static inline bool jit_view_fits(const struct sk_vcpu *c, const struct jit_view *v)
{
    return !v->dead && v->mode == c->jit.mode && v->csbase == c->seg[SK_CS].ebase;
}

static inline unsigned jit_hash_region(const struct jit_view *v, uint64_t rip)
{
    return (unsigned)((rip ^ (uint64_t)v->token << 12) * UINT64_C(0x9e3779b97f4a7c15) >> 49) %
           JIT_REG_HASH;
}

static inline struct jit_region *jit_region_find(const struct sk_jit *j, const struct jit_view *v,
                                                 uint64_t rip)
{
    struct jit_region *r = j->regions[jit_hash_region(v, rip)];

    while (r && (r->rip != rip || r->view != v)) {
        r = r->hash_next;
    }
    return r;
}

/* Sets the token of a view in the mode in force. */
static inline void jit_token_set(struct sk_vcpu *c, const struct jit_view *v)
{
    unsigned at = ((c->jit.mode >> JM_SET_SHIFT) & 3) * SK_JIT_TOKENS + jit_slot(v->lin);
    struct sk_jit_log *log = &c->jit.log;

    sk_jit_count(&c->jit.st.tokens, 1);
    if ((&c->jit.token[0][0])[at] == v->token) {
        return;
    }
    (&c->jit.token[0][0])[at] = v->token;
    if (LIKELY(log->n < SK_JIT_LOG)) {
        log->e[log->n] = (uint16_t)at;
    }
    log->n += log->n <= SK_JIT_LOG;
}

/* --- jit_fast.c: no vector registers in there --- */

/* The token of region `r` was not the one in force: sets it if that takes no walk and nothing has
 * changed. Where to go on, or NULL. */
const uint8_t *jit_fast_token(struct sk_vcpu *c, const struct jit_region *r);

/* --- jit_perf.c --- */

/* Opens the perf map if one is wanted: before a client's sandbox closes. */
void jit_perf_init(void);
void jit_perf_code(const void *at, size_t size, const char *kind, uint64_t rip);

/* --- jit_replay.c --- */

void jit_replay_init(struct sk_jit *j);
/* Runs a region after the interpreter has; ends the process if they differ. RIP is set, also for
 * exits that leave it to the caller. */
unsigned jit_replay_enter(struct sk_vcpu *c, const struct jit_region *r);

/* --- jit_verify.c --- */

/* Looks through the code of a region from `start` to `end`, in the writable view. NULL: in order;
 * else what is wrong, and with which instruction. */
const char *jit_verify(const struct sk_jit *j, const uint8_t *start, const uint8_t *end,
                       const uint8_t **ret_at);

/* --- jit_thunk.c --- */

/* Generates the routines that all translated code shares. */
void jit_thunks(struct sk_jit *j);

#define JIT_OFF(f) offsetof(struct sk_vcpu, f)
#define JIT_R(n)   (JIT_OFF(r) + 8u * (n))

#endif
