/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the JIT and what is in it: pages, views, regions.
 *
 * The code lies in one memfd mapped twice, once to write and once to execute. Everything is
 * allocated by moving a pointer; when code or data is full, all is dropped. Dropping a page only
 * takes its views out of the hash: their tokens are never set again, so nothing enters their
 * regions, and the one that may be running leaves by c->leave.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "softkvm/jit/jit_int.h"

enum { CHOICE_ENV = -1, CHOICE_OFF, CHOICE_ON };

static int choice = CHOICE_ENV;
static unsigned choice_hot;

void sk_jit_choose(bool on, unsigned hot)
{
    choice = on ? CHOICE_ON : CHOICE_OFF;
    choice_hot = hot;
}

bool sk_jit_choose_text(const char *text)
{
    char *end = NULL;
    unsigned long hot = 0;

    if (strcmp(text, "off") == 0) {
        sk_jit_choose(false, 0);
        return true;
    }
    if (strncmp(text, "t1:", 3) == 0) {
        hot = strtoul(text + 3, &end, 10);
        if (*end != '\0' || hot == 0 || hot > UINT16_MAX) {
            return false;
        }
    } else if (strcmp(text, "t1") != 0) {
        return false;
    }
    sk_jit_choose(true, (unsigned)hot);
    return true;
}

static bool jit_wanted(void)
{
    const char *s = choice == CHOICE_ENV ? getenv("SOFTKVM_JIT") : NULL;

    if (s && !sk_jit_choose_text(s)) {
        return false;
    }
    return choice == CHOICE_ON;
}

/* What templates use unasked: LAHF in 64-bit mode, XSAVE. */
static bool jit_host_fits(void)
{
    uint32_t a = 0x80000001, b, c = 0, d;

    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c & 1)) {
        return false;
    }
    a = 1;
    c = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (c >> 27) & 1;
}

static bool jit_map(struct sk_jit *j)
{
    int fd = memfd_create("softkvm-jit", MFD_CLOEXEC);
    void *rw = MAP_FAILED, *rx = MAP_FAILED, *data;

    data = mmap(NULL, JIT_DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fd >= 0 && ftruncate(fd, JIT_CODE_SIZE) == 0) {
        rw = mmap(NULL, JIT_CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rx = mmap(NULL, JIT_CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    j->rw = rw == MAP_FAILED ? NULL : rw;
    j->data = data == MAP_FAILED ? NULL : data;
    j->rx = rx == MAP_FAILED ? 0 : (uint8_t *)rx - (uint8_t *)rw;
    return rw != MAP_FAILED && rx != MAP_FAILED && data != MAP_FAILED;
}

static void jit_unmap(struct sk_jit *j)
{
    if (j->rw) {
        if (j->rx) {
            munmap(j->rw + j->rx, JIT_CODE_SIZE);
        }
        munmap(j->rw, JIT_CODE_SIZE);
    }
    if (j->data) {
        munmap(j->data, JIT_DATA_SIZE);
    }
    free(j->replay);
    free(j->tr);
    free(j);
}

void sk_jit_init(struct sk_vcpu *c)
{
    struct sk_jit *j;

    c->jit.self = c;
    c->jit.host_mxcsr = 0x1f80;
    if (!jit_wanted() || !jit_host_fits()) {
        return;
    }
    j = calloc(1, sizeof(*j));
    if (!j) {
        return;
    }
    if (!jit_map(j)) {
        jit_unmap(j);
        return;
    }
    jit_replay_init(j);
    j->verify = getenv("SOFTKVM_JIT_VERIFY") != NULL;
    j->avx = __builtin_cpu_supports("avx");
    j->fsgsbase = getauxval(AT_HWCAP2) & 2; /* HWCAP2_FSGSBASE, Linux 5.9 */
    j->code_p = j->rw;
    jit_thunks(j);
    j->code_start = j->code_p;
    jit_perf_init();
    jit_perf_code(j->rw + j->rx, (size_t)(j->code_start - j->rw), "softkvm_thunks", 0);
    j->data_p = j->data;
    j->next_token = 1;
    for (unsigned s = 0; s < SK_TLB_NSETS; s++) {
        c->jit.jump[s][0].rip = 1; /* as jit_jumps_clear() leaves it */
    }
    c->jit.hot = (uint16_t)(choice_hot ? choice_hot : SK_JIT_HOT);
    c->jit.jit = j;
}

void sk_jit_done(struct sk_vcpu *c)
{
    if (c->jit.jit) {
        jit_unmap(c->jit.jit);
        c->jit.jit = NULL;
    }
}

/* An empty entry must match no address: 0 belongs to the first alone. */
static void jit_jumps_clear(struct sk_vcpu *c)
{
    memset(c->jit.jump, 0, sizeof(c->jit.jump));
    for (unsigned s = 0; s < SK_TLB_NSETS; s++) {
        c->jit.jump[s][0].rip = 1;
    }
}

void sk_jit_flush(struct sk_vcpu *c)
{
    struct sk_jit *j = c->jit.jit;

    if (!j) {
        return;
    }
    if (j->data_p != j->data) { /* else the tables are empty, and their pages untouched */
        memset(j->views, 0, sizeof(j->views));
        memset(j->pages, 0, sizeof(j->pages));
        memset(j->regions, 0, sizeof(j->regions));
        jit_jumps_clear(c);
    }
    j->code_p = j->code_start;
    j->data_p = j->data;
    j->next_token = 1; /* no code that compares with one is left */
    j->flush_gen++;
    sk_jit_count(&c->jit.st.flushes, 1);
    sk_jit_epoch(c);
    c->leave = 1;
}

size_t jit_share(const struct sk_vcpu *c)
{
    return MAX(JIT_CODE_SIZE / atomic_load_explicit(&c->vm->vcpus, memory_order_relaxed),
               JIT_SHARE_MIN);
}

void *jit_data(struct sk_jit *j, size_t size)
{
    void *p = j->data_p;

    j->data_p += bits_align_up(size, 16);
    return p;
}

struct jit_page *jit_page_find(const struct sk_jit *j, uint64_t gpa)
{
    struct jit_page *p = j->pages[jit_hash_page(gpa)];

    while (p && p->gpa != (gpa & ~UINT64_C(4095))) {
        p = p->next;
    }
    return p;
}

struct jit_page *jit_page_get(struct sk_jit *j, uint64_t gpa)
{
    struct jit_page *p = jit_page_find(j, gpa);

    if (!p) {
        p = jit_data(j, sizeof(*p));
        p->gpa = gpa & ~UINT64_C(4095);
        p->lines = 0;
        p->epoch = 0;
        p->views = NULL;
        p->next = j->pages[jit_hash_page(gpa)];
        j->pages[jit_hash_page(gpa)] = p;
    }
    return p;
}

struct jit_view *jit_view_get(struct sk_vcpu *c, uint64_t lin, struct jit_page *p)
{
    struct sk_jit *j = c->jit.jit;
    struct jit_view *v = jit_view_find(c, lin, p->gpa);

    if (v) {
        return v;
    }
    v = jit_data(j, sizeof(*v));
    *v = (struct jit_view){ .lin = lin & ~UINT64_C(4095),
                            .csbase = c->seg[SK_CS].ebase,
                            .page = p,
                            .mode = c->jit.mode,
                            .token = j->next_token++,
                            .hash_next = j->views[jit_hash_page(lin)],
                            .page_next = p->views };
    j->views[jit_hash_page(lin)] = v;
    p->views = v;
    return v;
}

void jit_region_add(struct sk_jit *j, struct jit_region *r)
{
    struct jit_region **at = &j->regions[jit_hash_region(r->view, r->rip)];

    r->hash_next = *at;
    *at = r;
}

/* Lines in runs, so that the usual page is one or two comparisons. */
bool jit_page_same(const struct jit_page *p, const uint8_t *host)
{
    uint64_t left = p->lines;
    unsigned at = 0;

    while (left) {
        unsigned skip = (unsigned)__builtin_ctzll(left), n;

        at += skip;
        left >>= skip;
        n = ~left ? (unsigned)__builtin_ctzll(~left) : 64;
        if (memcmp(p->copy + 64 * at, host + 64 * at, 64 * n) != 0) {
            return false;
        }
        at += n;
        left = n < 64 ? left >> n : 0;
    }
    return true;
}

bool jit_page_check(struct sk_vcpu *c, struct jit_page *p, const uint8_t *host)
{
    if (p->epoch == c->jit.epoch) {
        return true;
    }
    if (!jit_page_same(p, host)) {
        jit_page_drop(c, p);
        return false;
    }
    p->epoch = c->jit.epoch;
    return true;
}

static void view_unhash(struct sk_jit *j, struct jit_view *v)
{
    struct jit_view **at = &j->views[jit_hash_page(v->lin)];

    while (*at && *at != v) {
        at = &(*at)->hash_next;
    }
    if (*at) {
        *at = v->hash_next;
    }
    v->dead = true;
}

void jit_page_drop(struct sk_vcpu *c, struct jit_page *p)
{
    for (struct jit_view *v = p->views; v; v = v->page_next) {
        uint32_t *token = &c->jit.token[(v->mode >> JM_SET_SHIFT) & 3][jit_slot(v->lin)];

        view_unhash(c->jit.jit, v);
        if (*token == v->token) {
            *token = 0;
        }
    }
    p->views = NULL;
    p->lines = 0;
    sk_jit_count(&c->jit.st.drops, 1);
    c->leave = 1;
}

bool sk_jit_written(struct sk_vcpu *c, uint64_t gpa, unsigned size)
{
    struct jit_page *p = c->jit.jit ? jit_page_find(c->jit.jit, gpa) : NULL;
    unsigned first = (gpa >> 6) & 63, last = ((gpa + size - 1) >> 6) & 63;

    if (!p || p->lines == 0) {
        return false;
    }
    if (p->lines & ((~UINT64_C(0) >> (63 - (last - first))) << first)) {
        jit_page_drop(c, p);
        return false;
    }
    return true;
}

void sk_jit_drop(struct sk_vcpu *c, uint64_t gpa)
{
    struct jit_page *p = c->jit.jit ? jit_page_find(c->jit.jit, gpa) : NULL;

    if (p && p->lines) {
        jit_page_drop(c, p);
    }
}

static bool mode_flat(const struct sk_seg *s)
{
    return s->ebase == 0 && s->rlo == 0 && s->wlo == 0 && s->span == 0xffffffff;
}

uint32_t sk_jit_mode(const struct sk_vcpu *c, unsigned mode, unsigned set)
{
    uint32_t m = mode | set << JM_SET_SHIFT, limit = c->seg[SK_CS].limit;
    bool usable = !(c->cr0 & 0xc), em = c->cr0 & 4; /* TS and EM clear */

    if (mode & SK_MODE_64) {
        m |= JM_SS_BIG | JM_FIT;
    } else {
        m |= c->spmask == 0xffffffff ? JM_SS_BIG : 0u;
        m |= limit == 0xffffffff || (!(mode & SK_MODE_32) && limit == 0xffff) ? JM_FIT : 0u;
        for (unsigned i = 0; i < SK_NSEGS; i++) {
            m |= mode_flat(&c->seg[i]) ? 1u << (JM_FLAT_SHIFT + i) : 0u;
        }
    }
    if (set == SK_TLB_EMPTY) {
        m &= ~(uint32_t)JM_FIT;
    }
    if (usable) {
        m |= JM_X87 | JM_MMX | (c->cr4 & 0x200 && !em ? JM_SSE : 0u) |
             ((c->cr4 & 0x40000) && (c->xcr0 & 6) == 6 ? JM_AVX : 0u);
    }
    return m;
}
