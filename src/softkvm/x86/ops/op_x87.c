/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * x87: the host's instruction on the guest's image (hostexec.h). Instruction and data pointers are
 * the guest's; as AMD's processors do, they are recorded when an exception becomes pending.
 */
#include "softkvm/x86/crs.h"
#include "softkvm/x86/hostexec.h"
#include "softkvm/x86/ops/ops.h"

enum { FSW_ES = 0x80 };

static bool x87_named(const struct sk_row *r, const char *prefix)
{
    return strncmp(r->name, prefix, strlen(prefix)) == 0;
}

/* FN... forms and FENI and the like neither wait nor report. */
static bool x87_waits(const struct sk_row *r)
{
    return !(x87_named(r, "FN") && !x87_named(r, "FNOP")) && !x87_named(r, "FENI") &&
           !x87_named(r, "FDISI") && !x87_named(r, "FSETPM");
}

static bool x87_stores(const struct sk_row *r)
{
    return x87_named(r, "FST") || x87_named(r, "FIST") || x87_named(r, "FBSTP") ||
           x87_named(r, "FNST") || x87_named(r, "FNSAVE");
}

static unsigned x87_size(const struct sk_insn *in, const struct sk_row *r)
{
    bool state = x87_named(r, "FNSAVE") || x87_named(r, "FRSTOR");

    switch (r->op[0] & 0xff) {
    case 'w':
        return 2;
    case 'd':
        return 4;
    case 'q':
        return 8;
    case 't':
        return 10;
    default:
        return (in->osize == 2 ? 14 : 28) + (state ? 80 : 0);
    }
}

static void x87_store(struct sk_vcpu *c, const struct sk_insn *in, const struct sk_row *r,
                      const struct sk_hx *hx, unsigned size)
{
    uint16_t unmasked = c->xs.fsw & ~c->xs.fcw & 0x1f;

    /* An unmasked exception other than inexact leaves the destination alone. */
    if (!x87_named(r, "FN") && unmasked && (c->xs.fsw & FSW_ES)) {
        return;
    }
    sk_st_bytes(c, in, hx->env, size);
}

OP(op_x87)
{
    const struct sk_row *r = &sk_rows[in->row];
    bool mem = in->flags & SK_IN_MEM, stores = mem && x87_stores(r);
    unsigned size = mem ? x87_size(in, r) : 0;
    struct sk_xsave old;
    struct sk_hx hx;

    sk_check_x87(c);
    if ((c->xs.fsw & FSW_ES) && x87_waits(r)) {
        sk_raise(c, SK_MF);
    }
    hx.mxcsr_host = 0x1f80;
    hx.af = c->af;
    if (stores) { /* the fault first: the stack must not have been popped */
        unsigned left;
        uint64_t lin = sk_ea_lin(c, in, size, true);

        if (!sk_ptr(c, lin, size, true, &left) && left < size) {
            (void)sk_rmw_slow(c, lin, size);
        }
    } else if (mem) {
        sk_ld_bytes(c, in, hx.env, size);
    }
    memcpy(&old, &c->xs, 512);
    sk_hostexec_x87(c, in)(&hx, &c->xs);
    c->xs.mxcsr_mask = SK_MXCSR_MASK; /* the host stored its own */
    if (!x87_named(r, "FLDENV") && !x87_named(r, "FRSTOR") && !x87_named(r, "FNINIT") &&
        !x87_named(r, "FNSAVE")) {
        bool now = (c->xs.fsw & FSW_ES) && !(old.fsw & FSW_ES);

        c->xs.fip = now ? c->insn_rip : old.fip;
        c->xs.fdp = now && mem ? sk_ea(c, in) : old.fdp;
        c->xs.fop = now ? (uint16_t)((r->opcode & 7) << 8 | in->imm2) : old.fop;
    }
    if (stores) {
        x87_store(c, in, r, &hx, size);
    }
    if (r->attr & A_CMP) {
        if (x87_named(r, "FNSTSW")) {
            *sk_r16(c, SK_RAX) = (uint16_t)hx.rax;
        } else {
            c->af = hx.af & SK_AF_ALL;
        }
    }
    c->xs.xstate_bv |= 1;
}
SK_HANDLER1(x87, op_x87);
