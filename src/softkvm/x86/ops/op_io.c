/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * IN OUT INS OUTS. What the machine's own devices do not serve leaves sk_run() with RIP still on
 * the instruction; sk_pio_complete(), at the next sk_run() and before anything else, does the rest.
 * Repeated forms go out in batches: as many elements as fit in the data page and in one guest page.
 */
#include "softkvm/x86/crs.h"
#include "softkvm/x86/ops/ops.h"
#include "softkvm/x86/pio.h"
#include "softkvm/x86/seg.h"

#define PIO_PAGE 4096

/* I/O permission (SDM 1 §19.5): IOPL, or the bitmap of the TSS. */
static void io_check(struct sk_vcpu *c, uint16_t port, unsigned size)
{
    const struct sk_seg *tr = &c->seg[SK_TR];
    uint32_t at;
    uint16_t bits;

    if (!sk_pe(c) || (!sk_v86(c) && c->cpl <= sk_iopl(c))) {
        return;
    }
    if ((tr->attr & SK_ATTR_NULL) || !(tr->attr & 8) || tr->limit < 103) {
        sk_gp(c);
    }
    at = sk_ld_sys16(c, tr->base + 102) + port / 8u;
    if (at + 1 > tr->limit) {
        sk_gp(c);
    }
    bits = sk_ld_sys16(c, tr->base + at);
    if ((bits >> (port & 7)) & ((1u << size) - 1)) {
        sk_gp(c);
    }
}

/* I/O breakpoints (SDM 3B §17.2.4): remembered, taken when the access is complete. Only where the
 * access is sure to be made: a fault must come alone. */
static void io_watch(struct sk_vcpu *c, uint16_t port, unsigned size)
{
    const uint64_t *dr = sk_debug_regs(c);

    if (LIKELY(!(c->special & SK_SPECIAL_DR)) || !(c->cr4 & SK_CR4_DE)) {
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t lens[4] = { 1, 2, 8, 4 };
        unsigned len = lens[(dr[7] >> (18 + 4 * i)) & 3];
        uint64_t at = dr[i] & ~(uint64_t)(len - 1);

        if (((dr[7] >> (2 * i)) & 3) && ((dr[7] >> (16 + 4 * i)) & 3) == 2 &&
            at < (uint64_t)port + size && port < at + len) {
            c->db_pending |= BIT64(i);
        }
    }
}

static unsigned io_size(const struct sk_insn *in)
{
    return in->osize == 8 ? 4 : in->osize;
}

static uint16_t io_port(const struct sk_vcpu *c, const struct sk_insn *in)
{
    return in->imm2 & 8 ? (uint16_t)c->r[SK_RDX] : (uint8_t)in->imm;
}

static _Noreturn void io_leave(struct sk_vcpu *c, const struct sk_insn *in, uint16_t port,
                               unsigned size, bool input, uint32_t count)
{
    io_watch(c, port, size);
    c->exit.kind = SK_EXIT_IO;
    c->exit.io.port = port;
    c->exit.io.size = (uint8_t)size;
    c->exit.io.in = input;
    c->exit.io.count = count;
    c->pio_pending = true;
    c->pio = (struct sk_pio){ .rip = (c->seg[SK_CS].ebase + c->insn_rip) & c->linmask,
                              .count = count,
                              .size = (uint8_t)size,
                              .len = in->len,
                              .in = input,
                              .ash = in->ash,
                              .rep = (in->flags & (SK_IN_REP | SK_IN_REPNE)) != 0 };
    sk_leave_unfinished(c);
}

static void io_set_acc(struct sk_vcpu *c, unsigned size, uint32_t v)
{
    if (size == 1) {
        *sk_r8(c, 0) = (uint8_t)v;
    } else {
        sk_set_reg(c, SK_RAX, size, v);
    }
}

OP(op_in)
{
    unsigned size = io_size(in);
    uint16_t port = io_port(c, in);
    uint64_t v = 0;

    io_check(c, port, size);
    if (c->vm->ops->pio && c->vm->ops->pio(c, port, &v, size, false)) {
        io_watch(c, port, size);
        io_set_acc(c, size, (uint32_t)v);
        return;
    }
    io_leave(c, in, port, size, true, 1);
}
SK_HANDLER1(in, op_in);

OP(op_out)
{
    unsigned size = io_size(in);
    uint16_t port = io_port(c, in);
    uint64_t v = c->r[SK_RAX] & bits_mask_bytes(size);

    io_check(c, port, size);
    if (c->vm->ops->pio && c->vm->ops->pio(c, port, &v, size, true)) {
        io_watch(c, port, size);
        return;
    }
    memcpy(c->pio_data, &v, size);
    io_leave(c, in, port, size, false, 1);
}
SK_HANDLER1(out, op_out);

static uint64_t io_reg(const struct sk_vcpu *c, unsigned ash, unsigned r)
{
    return c->r[r] << ash >> ash;
}

static void io_add(struct sk_vcpu *c, unsigned ash, unsigned r, int64_t by)
{
    sk_set_reg(c, r, ash == 48 ? 2 : ash == 32 ? 4 : 8, c->r[r] + (uint64_t)by);
}

/* Elements of one batch: within the page of the first one, upwards only if DF is clear. */
static uint32_t io_batch(const struct sk_vcpu *c, const struct sk_insn *in, uint64_t lin,
                         unsigned size)
{
    uint64_t n = 1;

    if (in->flags & (SK_IN_REP | SK_IN_REPNE)) {
        n = io_reg(c, in->ash, SK_RCX);
    }
    if ((c->eflags & SK_FL_DF) || c->special) {
        return 1;
    }
    n = MIN(n, (4096 - (lin & 4095)) / size);
    return (uint32_t)MAX(MIN(n, (uint64_t)(PIO_PAGE / size)), (uint64_t)1);
}

/* rSI or rDI and rCX move on; RIP too when the count is used up. */
static void io_advance(struct sk_vcpu *c, unsigned ash, bool rep, unsigned r, unsigned size,
                       uint32_t n)
{
    int64_t by = (int64_t)size * n;

    io_add(c, ash, r, c->eflags & SK_FL_DF ? -by : by);
    if (rep) {
        io_add(c, ash, SK_RCX, -(int64_t)n);
    }
}

static void io_again(struct sk_vcpu *c, const struct sk_insn *in)
{
    if ((in->flags & (SK_IN_REP | SK_IN_REPNE)) && io_reg(c, in->ash, SK_RCX) != 0) {
        c->r[SK_RIP] = c->insn_rip;
    }
}

static void io_put(struct sk_vcpu *c, uint64_t lin, unsigned size, const void *p)
{
    sk_st_slow(c, lin, p, size, SK_ACC_WRITE);
}

OP(op_ins)
{
    unsigned size = io_size(in);
    uint16_t port = (uint16_t)c->r[SK_RDX];
    bool rep = in->flags & (SK_IN_REP | SK_IN_REPNE);
    uint64_t lin, v = 0;
    unsigned left;
    bool ram;

    io_check(c, port, size);
    if (rep && io_reg(c, in->ash, SK_RCX) == 0) {
        return;
    }
    lin = sk_seg_lin(c, SK_ES, io_reg(c, in->ash, SK_RDI), size, true);
    ram = sk_ptr(c, lin, size, true, &left) != NULL; /* faults come before the port is read */
    if (c->vm->ops->pio && c->vm->ops->pio(c, port, &v, size, false)) {
        io_put(c, lin, size, &v);
        io_watch(c, port, size);
        io_advance(c, in->ash, rep, SK_RDI, size, 1);
        io_again(c, in);
        return;
    }
    c->pio_string = true;
    /* Into device memory one by one: the queue of device writes is short. */
    io_leave(c, in, port, size, true, ram ? io_batch(c, in, lin, size) : 1);
}
SK_HANDLER1(ins, op_ins);

OP(op_outs)
{
    unsigned size = io_size(in);
    uint16_t port = (uint16_t)c->r[SK_RDX];
    bool rep = in->flags & (SK_IN_REP | SK_IN_REPNE);
    uint64_t lin;
    uint32_t n;

    io_check(c, port, size);
    if (rep && io_reg(c, in->ash, SK_RCX) == 0) {
        return;
    }
    lin = sk_seg_lin(c, in->seg, io_reg(c, in->ash, SK_RSI), size, false);
    n = io_batch(c, in, lin, size);
    sk_ld_slow(c, lin, c->pio_data, size, SK_ACC_READ);
    if (c->vm->ops->pio && c->vm->ops->pio(c, port, c->pio_data, size, true)) {
        io_watch(c, port, size);
        io_advance(c, in->ash, rep, SK_RSI, size, 1);
        io_again(c, in);
        return;
    }
    /* The rest of the batch lies in the page just read. */
    for (uint32_t i = 1; i < n; i++) {
        uint64_t at = sk_seg_lin(c, in->seg, io_reg(c, in->ash, SK_RSI) + i * size, size, false);

        sk_ld_slow(c, at, c->pio_data + i * size, size, SK_ACC_READ);
    }
    c->pio_string = true;
    io_leave(c, in, port, size, false, n);
}
SK_HANDLER1(outs, op_outs);

/* INS: the data goes to ES:rDI. */
static void pio_complete_ins(struct sk_vcpu *c, const struct sk_pio *p)
{
    uint32_t n = p->count;

    if (p->rep) { /* the client may have changed the count */
        n = (uint32_t)MIN((uint64_t)n, io_reg(c, p->ash, SK_RCX));
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t lin = sk_seg_lin(c, SK_ES, io_reg(c, p->ash, SK_RDI), p->size, true);

        io_put(c, lin, p->size, c->pio_data + i * p->size);
        io_advance(c, p->ash, p->rep, SK_RDI, p->size, 1);
    }
}

bool sk_pio_complete(struct sk_vcpu *c)
{
    struct sk_pio p = c->pio;
    bool string = c->pio_string;
    uint32_t v = 0;

    c->pio_pending = c->pio_string = false;
    if (((c->seg[SK_CS].ebase + c->r[SK_RIP]) & c->linmask) != p.rip) {
        return false; /* the client went elsewhere (reset) */
    }
    c->insn_rip = c->r[SK_RIP];
    if (string && p.in) {
        pio_complete_ins(c, &p);
    } else if (string) {
        io_advance(c, p.ash, p.rep, SK_RSI, p.size, p.count);
    } else if (p.in) {
        memcpy(&v, c->pio_data, p.size);
        io_set_acc(c, p.size, v);
    }
    if (!(string && p.rep && io_reg(c, p.ash, SK_RCX) != 0)) {
        c->r[SK_RIP] += p.len;
    }
    return true;
}
