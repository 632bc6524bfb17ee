/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What generated code calls with the guest's vector state in the registers: compiled for general
 * registers alone, and it calls nothing else while c->jit.vec_live.
 */
#include "softkvm/jit/jit_int.h"
#include "softkvm/x86/mmu_int.h"

/* Lines that translations stand on are those of the copy. */
static bool fast_same(const struct jit_page *p, const uint8_t *host)
{
    for (uint64_t left = p->lines; left; left &= left - 1) {
        size_t at = 64u * (unsigned)__builtin_ctzll(left);
        const uint64_t *a = (const uint64_t *)(const void *)(p->copy + at);
        const uint64_t *b = (const uint64_t *)(const void *)(host + at);
        uint64_t differ = 0;

        for (unsigned i = 0; i < 8; i++) {
            differ |= a[i] ^ b[i];
        }
        if (differ) {
            return false;
        }
    }
    return true;
}

const uint8_t *jit_fast_token(struct sk_vcpu *c, const struct jit_region *r)
{
    const struct sk_jit *j = c->jit.jit;
    const struct jit_view *v = r->view;
    const struct sk_ftlbe *e;

    if (!jit_view_fits(c, v)) {
        return NULL;
    }
    e = sk_ftlb_find(c, v->lin);
    if (!e || !e->host || e->gpa != v->page->gpa) {
        return NULL;
    }
    if (v->page->epoch != c->jit.epoch) {
        if (!(c->jit.vec_live ? fast_same(v->page, e->host) : jit_page_same(v->page, e->host))) {
            return NULL;
        }
        v->page->epoch = c->jit.epoch;
    }
    jit_token_set(c, v);
    return r->entry + j->rx;
}
