/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/x86/hostexec.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "softkvm/x86/decode.h"

#define ARENA_SIZE (1 * MIB) /* some 6,000 stubs; a guest uses hundreds */
#define SLOTS      4096
#define STUB_MAX   256

struct slot {
    uint64_t key; /* never 0 */
    sk_hx_fn *fn;
};

struct sk_hostexec {
    uint8_t *rw;
    uint8_t *rx;
    size_t used;
    bool avx;
    struct slot slot[SLOTS];
};

struct emit {
    uint8_t *p;
    bool avx, mmx;
};

struct sk_hostexec *sk_hostexec_new(void)
{
    /* Zero pages: most slots stay empty. */
    struct sk_hostexec *h =
        mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = memfd_create("softkvm-stubs", MFD_CLOEXEC);
    void *rw = MAP_FAILED, *rx = MAP_FAILED;

    if (h != MAP_FAILED && fd >= 0 && ftruncate(fd, ARENA_SIZE) == 0) {
        rw = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rx = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (rw == MAP_FAILED || rx == MAP_FAILED) {
        if (rw != MAP_FAILED) {
            munmap(rw, ARENA_SIZE);
        }
        if (h != MAP_FAILED) {
            munmap(h, sizeof(*h));
        }
        return NULL;
    }
    h->rw = rw;
    h->rx = rx;
    h->avx = __builtin_cpu_supports("avx");
    return h;
}

void sk_hostexec_free(struct sk_hostexec *h)
{
    if (h) {
        munmap(h->rw, ARENA_SIZE);
        munmap(h->rx, ARENA_SIZE);
        munmap(h, sizeof(*h));
    }
}

static void put(struct emit *e, const char *bytes, size_t n)
{
    memcpy(e->p, bytes, n);
    e->p += n;
}
#define PUT(e, s) put(e, s, sizeof(s) - 1)

static void put8(struct emit *e, unsigned v)
{
    *e->p++ = (uint8_t)v;
}

/* ModRM with [rdi + disp32]. */
static void put_rdi(struct emit *e, unsigned reg, size_t disp)
{
    uint32_t d = (uint32_t)disp;

    put8(e, 0x87 | reg << 3);
    memcpy(e->p, &d, 4);
    e->p += 4;
}
#define HX(f) offsetof(struct sk_hx, f)

static void put_vec(struct emit *e, bool store, unsigned reg, size_t disp)
{
    if (e->avx) {
        PUT(e, "\xc5\xfe");
    } else {
        PUT(e, "\xf3\x0f");
    }
    put8(e, store ? 0x7f : 0x6f); /* (v)movdqu */
    put_rdi(e, reg, disp);
}

static void put_mmx(struct emit *e, bool store, unsigned reg, size_t disp)
{
    put8(e, 0x0f);
    put8(e, store ? 0x7f : 0x6f); /* movq */
    put_rdi(e, reg, disp);
}

static void put_gpr(struct emit *e, bool store, unsigned reg, size_t disp)
{
    put8(e, 0x48);
    put8(e, store ? 0x89 : 0x8b);
    put_rdi(e, reg, disp);
}

static void put_mxcsr(struct emit *e, bool store, size_t disp)
{
    PUT(e, "\x0f\xae");
    put_rdi(e, store ? 3 : 2, disp);
}

/* Operands to registers, or back; ModRM.rm only if it is a register. */
static void put_operands(struct emit *e, bool store, bool rm)
{
    if (e->mmx) {
        put_mmx(e, store, 3, HX(mreg));
        if (rm) {
            put_mmx(e, store, 2, HX(mrm));
        }
    }
    put_vec(e, store, 3, HX(reg));
    put_vec(e, store, 1, HX(vreg));
    put_vec(e, store, 0, HX(x0));
    if (rm) {
        put_vec(e, store, 2, HX(rm));
    }
    if (!store) {
        put_vec(e, store, 4, HX(is4));
    }
}

/* ModRM.reg and whether ModRM.rm is a general register, by the operands of the row. */
static void vec_fields(const struct sk_insn *in, const struct sk_row *r, unsigned *reg,
                       unsigned *rm)
{
    *reg = r->ext & X_DIGIT ? r->ext & 7u : 3;
    *rm = 2;
    for (int i = 0; i < 4; i++) {
        switch (r->op[i] & 0xff00) {
        case K_G:
            *reg = 0;
            break;
        case K_E:
        case K_R:
            *rm = 1;
            break;
        default:
            break;
        }
    }
    (void)in;
}

static void put_opcode(struct emit *e, const struct sk_insn *in, const struct sk_row *r)
{
    static const uint8_t pp[] = { [P_NO] = 0, [P_66] = 0x66, [P_F3] = 0xf3, [P_F2] = 0xf2 };
    static const uint8_t vpp[] = { [P_NO] = 0, [P_66] = 1, [P_F3] = 2, [P_F2] = 3 };
    bool w = in->flags & SK_IN_W;

    if (r->map >= M_V1) {
        unsigned v = r->vex & V_NOV ? 15 : 14; /* register 1, inverted */

        put8(e, 0xc4);
        put8(e, 0xe0u | (unsigned)(r->map - M_V1 + 1));
        put8(e, (w ? 0x80u : 0) | v << 3 | (in->flags & SK_IN_L ? 4u : 0) | vpp[r->pfx]);
    } else {
        if (pp[r->pfx]) {
            put8(e, pp[r->pfx]);
        }
        if (w) {
            put8(e, 0x48);
        }
        put8(e, 0x0f);
        if (r->map != M_0F) {
            put8(e, r->map == M_0F38 ? 0x38 : 0x3a);
        }
    }
    put8(e, r->opcode);
}

static bool vec_has_imm(const struct sk_row *r)
{
    for (int i = 0; i < 4; i++) {
        if (r->op[i] == O_Ib) {
            return true;
        }
    }
    return false;
}

static bool vec_has_is4(const struct sk_row *r)
{
    return (r->op[3] & 0xff00) == K_L;
}

static void emit_vec(struct emit *e, const struct sk_insn *in, const struct sk_row *r)
{
    unsigned reg, rm;

    put_operands(e, false, !(in->flags & SK_IN_MEM));
    put_gpr(e, false, 0, HX(rax));
    put_gpr(e, false, 1, HX(rcx));
    put_gpr(e, false, 2, HX(rdx));
    if (r->attr & A_FP) {
        put_mxcsr(e, false, HX(mxcsr_in));
    }
    vec_fields(in, r, &reg, &rm);
    put_opcode(e, in, r);
    if (in->flags & SK_IN_MEM) {
        put_rdi(e, reg, HX(rm));
    } else {
        put8(e, 0xc0 | reg << 3 | rm);
    }
    if (vec_has_is4(r)) {
        put8(e, 4 << 4);
    } else if (vec_has_imm(r)) {
        put8(e, (uint8_t)in->imm);
    }
    put_gpr(e, true, 0, HX(rax));
    put_gpr(e, true, 1, HX(rcx));
    if (r->attr & A_CMP) {
        PUT(e, "\x9f\x0f\x90\xc0\x66\x89"); /* lahf; seto al; mov [af],ax */
        put_rdi(e, 0, HX(af));
    }
    if (r->attr & A_FP) {
        put_mxcsr(e, true, HX(mxcsr_out));
        put_mxcsr(e, false, HX(mxcsr_host));
    }
    put_operands(e, true, !(in->flags & SK_IN_MEM));
    if (e->mmx) {
        PUT(e, "\x0f\x77"); /* emms */
    }
    if (e->avx) {
        PUT(e, "\xc5\xf8\x77"); /* vzeroupper */
    }
    put8(e, 0xc3);
}

/* x87: the whole state goes in and comes out, so that the stack, tags and exceptions are the
 * host's. */
static void emit_x87(struct emit *e, const struct sk_insn *in, const struct sk_row *r)
{
    PUT(e, "\x48\x0f\xae\x0e"); /* fxrstor64 [rsi] */
    PUT(e, "\x0f\xb7");         /* movzx eax,word [af]; sahf: FCMOVcc looks at flags */
    put_rdi(e, 0, HX(af));
    put8(e, 0x9e);
    if ((r->attr & A_ENV) && in->osize == 2) {
        put8(e, 0x66);
    }
    put8(e, r->opcode);
    if (in->flags & SK_IN_MEM) {
        put_rdi(e, in->reg & 7, HX(env));
    } else {
        put8(e, 0xc0u | (in->reg & 7u) << 3 | (in->rm & 7u));
    }
    if (r->attr & A_CMP) {
        put_gpr(e, true, 0, HX(rax));
        PUT(e, "\x9f\x0f\x90\xc0\x66\x89");
        put_rdi(e, 0, HX(af));
    }
    PUT(e, "\x48\x0f\xae\x06\xdb\xe3"); /* fxsave64 [rsi]; fninit */
    put_mxcsr(e, false, HX(mxcsr_host));
    put8(e, 0xc3);
}

/* The stub for `key`, made by `make` at first use. */
static sk_hx_fn *hostexec_get(struct sk_vcpu *c, const struct sk_insn *in, uint64_t key, bool mmx,
                              void (*make)(struct emit *, const struct sk_insn *,
                                           const struct sk_row *))
{
    struct sk_hostexec *h = c->hostexec;
    struct slot *s = &h->slot[(key * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
    struct emit e = { .avx = h->avx, .mmx = mmx };

    if (LIKELY(s->key == key)) {
        return s->fn;
    }
    if (h->used + STUB_MAX > ARENA_SIZE) {
        memset(h->slot, 0, sizeof(h->slot));
        h->used = 0;
    }
    e.p = h->rw + h->used;
    make(&e, in, &sk_rows[in->row]);
    s->key = key;
    s->fn = (sk_hx_fn *)(uintptr_t)(h->rx + h->used);
    h->used = bits_align_up((uint64_t)(e.p - h->rw), 16);
    return s->fn;
}

sk_hx_fn *sk_hostexec_vec(struct sk_vcpu *c, const struct sk_insn *in, bool mmx)
{
    const struct sk_row *r = &sk_rows[in->row];
    uint64_t key = BIT64(63) | (uint64_t)in->row << 16 |
                   (uint64_t)(in->flags & (SK_IN_MEM | SK_IN_W | SK_IN_L)) << 32;

    if (vec_has_imm(r) && !vec_has_is4(r)) {
        key |= (uint8_t)in->imm;
    }
    return hostexec_get(c, in, key, mmx, emit_vec);
}

sk_hx_fn *sk_hostexec_x87(struct sk_vcpu *c, const struct sk_insn *in)
{
    uint64_t key = BIT64(62) | (uint64_t)in->row << 16 | (in->reg & 7u) << 3 | (in->rm & 7u) |
                   (in->osize == 2 ? 64u : 0) | (in->flags & SK_IN_MEM ? 128u : 0);

    return hostexec_get(c, in, key, false, emit_x87);
}
