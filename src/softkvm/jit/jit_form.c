/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which template an instruction has. The table goes by handler, which is what rows of one meaning
 * share; a handler that is not here is done by the interpreter's body.
 *
 * To add one: a line below. JK_GEN and JK_VEC take operands, sizes and immediate from the row, so
 * that usually nothing more is needed.
 */
#include <pthread.h>

#include "softkvm/jit/jit_tr.h"

/* clang-format off */
#define JIT_GEN(F)                                                                                 \
    F(add_E_G, JA_RW) F(add_G_E, JA_RW) F(add_E_I, JA_RW) F(or_E_G, JA_RW) F(or_G_E, JA_RW)        \
    F(or_E_I, JA_RW) F(adc_E_G, JA_RW) F(adc_G_E, JA_RW) F(adc_E_I, JA_RW) F(sbb_E_G, JA_RW)       \
    F(sbb_G_E, JA_RW) F(sbb_E_I, JA_RW) F(and_E_G, JA_RW) F(and_G_E, JA_RW) F(and_E_I, JA_RW)      \
    F(sub_E_G, JA_RW) F(sub_G_E, JA_RW) F(sub_E_I, JA_RW) F(xor_E_G, JA_RW) F(xor_G_E, JA_RW)      \
    F(xor_E_I, JA_RW) F(cmp_E_G, JA_R) F(cmp_G_E, JA_R) F(cmp_E_I, JA_R) F(test_E_G, JA_R)         \
    F(test_E_I, JA_R) F(inc_E, JA_RW) F(dec_E, JA_RW) F(neg_E, JA_RW) F(not_E, JA_RW)              \
    F(mov_E_G, JA_W) F(mov_G_E, JA_W) F(mov_E_I, JA_W) F(xchg_E_G, JA_RW | JA_2W)                  \
    F(xadd, JA_RW | JA_2W) F(cmpxchg, JA_RW) F(cmpxchg8b, JA_RW) F(movzx_G_Eb, JA_W)               \
    F(movzx_G_Ew, JA_W) F(movsx_G_Eb, JA_W) F(movsx_G_Ew, JA_W) F(movsxd, JA_W) F(cmov, JA_RW)     \
    F(setcc, JA_W) F(cbw, JA_R) F(cwd, JA_R) F(bswap, JA_RW) F(movbe_G_M, JA_W)                    \
    F(movbe_M_G, JA_W) F(imul_G_E, JA_RW) F(imul_G_E_I, JA_W) F(mul_E, JA_R) F(imul_E, JA_R)       \
    F(rol_E_I, JA_RW) F(ror_E_I, JA_RW) F(rcl_E_I, JA_RW) F(rcr_E_I, JA_RW) F(shl_E_I, JA_RW)      \
    F(shr_E_I, JA_RW) F(sar_E_I, JA_RW) F(rol_E_CL, JA_RW) F(ror_E_CL, JA_RW) F(rcl_E_CL, JA_RW)   \
    F(rcr_E_CL, JA_RW) F(shl_E_CL, JA_RW) F(shr_E_CL, JA_RW) F(sar_E_CL, JA_RW) F(shld_I, JA_RW)   \
    F(shld_CL, JA_RW) F(shrd_I, JA_RW) F(shrd_CL, JA_RW) F(bt_E_G, JA_R) F(bts_E_G, JA_RW)         \
    F(btr_E_G, JA_RW) F(btc_E_G, JA_RW) F(bt_E_I, JA_R) F(bts_E_I, JA_RW) F(btr_E_I, JA_RW)        \
    F(btc_E_I, JA_RW) F(popcnt, JA_W) F(tzcnt, JA_W) F(lzcnt, JA_W) F(bsf, JA_RW) F(bsr, JA_RW)    \
    F(crc32_Eb, JA_RW) F(crc32_Ev, JA_RW) F(andn, JA_W) F(blsr, JA_W) F(blsmsk, JA_W)              \
    F(blsi, JA_W) F(bzhi, JA_W) F(pext, JA_W) F(pdep, JA_W) F(mulx, JA_W | JA_2W) F(bextr, JA_W)   \
    F(shlx, JA_W) F(sarx, JA_W) F(shrx, JA_W) F(rorx, JA_W) F(adcx, JA_RW) F(adox, JA_RW)          \
    F(cmc, JA_R) F(clc, JA_R) F(stc, JA_R) F(lahf, JA_R) F(sahf, JA_R)

#define JIT_FN(F)                                                                                  \
    F(jcc0, jit_t_jcc, false) F(jcc1, jit_t_jcc, false) F(jcc2, jit_t_jcc, false)                  \
    F(jcc3, jit_t_jcc, false) F(jcc4, jit_t_jcc, false) F(jcc5, jit_t_jcc, false)                  \
    F(jcc6, jit_t_jcc, false) F(jcc7, jit_t_jcc, false) F(jcc8, jit_t_jcc, false)                  \
    F(jcc9, jit_t_jcc, false) F(jcc10, jit_t_jcc, false) F(jcc11, jit_t_jcc, false)                \
    F(jcc12, jit_t_jcc, false) F(jcc13, jit_t_jcc, false) F(jcc14, jit_t_jcc, false)               \
    F(jcc15, jit_t_jcc, false) F(jmp_J, jit_t_jmp, true) F(call_J, jit_t_call, true)               \
    F(jmp_E, jit_t_jmp_e, true) F(call_E, jit_t_call_e, true) F(ret, jit_t_ret, true)              \
    F(ret_I, jit_t_ret, true) F(loop, jit_t_loop, false) F(jcxz, jit_t_loop, false)                \
    F(push_Z, jit_t_push, false) F(push_I, jit_t_push_i, false) F(push_E, jit_t_push_e, false)     \
    F(pop_Z, jit_t_pop, false) F(leave, jit_t_leave, false) F(lea, jit_t_lea, false)               \
    F(nop, jit_t_nop, false) F(xchg_Z, jit_t_xchg_z, false) F(mov_A_O, jit_t_moffs, false)         \
    F(mov_O_A, jit_t_moffs, false) F(div_E, jit_t_div, false) F(idiv_E, jit_t_div, false)          \
    F(fence, jit_t_fence, false) F(vzeroupper, jit_t_vzeroupper, false) F(emms, jit_t_emms, false) \
    F(sti, jit_t_sti, false) F(cli, jit_t_cli, false) F(pushf, jit_t_pushf, false)                 \
    F(swapgs, jit_t_swapgs, false) F(rdtsc, jit_t_rdtsc, false) F(rdtscp, jit_t_rdtsc, false)
/* clang-format on */

struct entry {
    const struct sk_handler *h;
    struct jit_form form;
};

#define DECL(n, ...) extern const struct sk_handler sk_h_##n;
JIT_GEN(DECL)
JIT_FN(DECL)
DECL(vec)
DECL(x87)

/* clang-format off */
static const struct entry entries[] = {
#define GEN(n, a) { .h = &sk_h_##n, .form = { .kind = JK_GEN, .access = (a) } },
    JIT_GEN(GEN)
#undef GEN
#define FN(n, f, e) { .h = &sk_h_##n, .form = { .kind = JK_FN, .fn = (f), .ends = (e) } },
    JIT_FN(FN)
#undef FN
    { .h = &sk_h_vec, .form = { .kind = JK_VEC } },
    { .h = &sk_h_x87, .form = { .kind = JK_X87 } },
};
/* clang-format on */

static const struct jit_form by_interp = { .kind = JK_INTERP };
static const struct jit_form by_interp_end = { .kind = JK_INTERP, .ends = true };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const struct jit_form *by_row[2048];

static void form_init(void)
{
    for (unsigned r = 0; r < sk_rows_n && r < ARRAY_LEN(by_row); r++) {
        by_row[r] = sk_rows[r].attr & A_END ? &by_interp_end : &by_interp;
        for (unsigned i = 0; i < ARRAY_LEN(entries); i++) {
            if (entries[i].h == sk_row_handlers[r]) {
                by_row[r] = &entries[i].form;
            }
        }
    }
}

const struct jit_form *jit_form(unsigned row)
{
    pthread_once(&once, form_init);
    return row < ARRAY_LEN(by_row) ? by_row[row] : &by_interp_end;
}

/* Flags that condition `cc` looks at. */
uint16_t jit_cond_flags(unsigned cc)
{
    static const uint16_t by_cc[8] = { SK_FL_OF,
                                       SK_FL_CF,
                                       SK_FL_ZF,
                                       SK_FL_CF | SK_FL_ZF,
                                       SK_FL_SF,
                                       SK_FL_PF,
                                       SK_FL_SF | SK_FL_OF,
                                       SK_FL_SF | SK_FL_OF | SK_FL_ZF };

    return by_cc[(cc >> 1) & 7];
}

static bool form_named(const struct sk_row *r, const char *prefix)
{
    return strncmp(r->name, prefix, strlen(prefix)) == 0;
}

/* Shifts and rotates: a count of 0 leaves all flags alone. */
static bool form_shift(const struct sk_row *r)
{
    return (r->map == M_1 && ((r->opcode & 0xfe) == 0xc0 || (r->opcode & 0xfc) == 0xd0)) ||
           form_named(r, "SHLD") || form_named(r, "SHRD");
}

static bool form_by_cl(const struct sk_row *r)
{
    return r->op[1] == O_CL || r->op[2] == O_CL;
}

static bool form_conditional(const struct sk_row *r)
{
    return form_named(r, "CMOVcc") || form_named(r, "SETcc");
}

void jit_flags_of(struct jit_op *o)
{
    const struct sk_row *r = o->row;

    if (o->form->kind == JK_INTERP) { /* may be anything, PUSHF to INT */
        o->reads = SK_FL_ARITH;
        o->must = 0;
        o->may = SK_FL_ARITH;
        return;
    }
    o->reads = (uint16_t)r->fl_read;
    o->must = o->may = (uint16_t)r->fl_written;
    if (o->form->fn == jit_t_jcc || form_conditional(r)) {
        o->reads = jit_cond_flags(o->in.imm2);
    } else if (o->form->kind == JK_X87 && form_named(r, "FCMOV")) {
        o->reads = SK_FL_ARITH;
    } else if (o->form->fn == jit_t_sti) { /* may be the interpreter's, and the end */
        o->reads = SK_FL_ARITH;
    } else if (form_shift(r)) {
        unsigned mask = o->in.osize == 8 ? 63 : 31;

        if (form_by_cl(r) || (o->in.imm & mask) == 0) {
            o->must = 0;
        }
    }
}
