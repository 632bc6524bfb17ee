/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registers by ioctl: general, special, FPU, XSAVE, XCR (KVM api.rst 4.11 to 4.14, 4.22, 4.42).
 */
#include <errno.h>

#include "softkvm/abi/abi_int.h"
#include "softkvm/x86/crs.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/mem.h"

/* The CPL is SS.DPL, as on hardware; real mode 0, V86 3. */
static uint8_t core_cpl(const struct sk_vcpu *c)
{
    return !sk_pe(c) ? 0 : sk_v86(c) ? 3 : (uint8_t)(c->seg[SK_SS].attr >> SK_ATTR_DPL_SHIFT & 3);
}

void abi_regs_get(struct sk_vcpu *c, struct kvm_regs *r)
{
    *r = (struct kvm_regs){
        .rax = c->r[SK_RAX],
        .rbx = c->r[SK_RBX],
        .rcx = c->r[SK_RCX],
        .rdx = c->r[SK_RDX],
        .rsi = c->r[SK_RSI],
        .rdi = c->r[SK_RDI],
        .rsp = c->r[SK_RSP],
        .rbp = c->r[SK_RBP],
        .r8 = c->r[8],
        .r9 = c->r[9],
        .r10 = c->r[10],
        .r11 = c->r[11],
        .r12 = c->r[12],
        .r13 = c->r[13],
        .r14 = c->r[14],
        .r15 = c->r[15],
        .rip = c->r[SK_RIP],
        .rflags = sk_flags_get(c),
    };
}

void abi_regs_set(struct sk_vcpu *c, const struct kvm_regs *r)
{
    c->r[SK_RAX] = r->rax;
    c->r[SK_RBX] = r->rbx;
    c->r[SK_RCX] = r->rcx;
    c->r[SK_RDX] = r->rdx;
    c->r[SK_RSI] = r->rsi;
    c->r[SK_RDI] = r->rdi;
    c->r[SK_RSP] = r->rsp;
    c->r[SK_RBP] = r->rbp;
    c->r[8] = r->r8;
    c->r[9] = r->r9;
    c->r[10] = r->r10;
    c->r[11] = r->r11;
    c->r[12] = r->r12;
    c->r[13] = r->r13;
    c->r[14] = r->r14;
    c->r[15] = r->r15;
    c->r[SK_RIP] = r->rip;
    sk_flags_set(c, (uint32_t)r->rflags | SK_FL_ONE);
    c->cpl = core_cpl(c);   /* VM may have changed */
    c->exc_pending = false; /* as KVM: setting registers drops what was to be raised */
    sk_vcpu_changed(c);
}

int abi_get_regs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    abi_regs_get(ABI_VCPU_OF(obj)->c, arg);
    return 0;
}

int abi_set_regs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    abi_regs_set(ABI_VCPU_OF(obj)->c, arg);
    return 0;
}

/* --- segments and control registers --- */

static void seg_get(const struct sk_seg *s, struct kvm_segment *k)
{
    *k = (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->sel,
        .type = s->attr & 15,
        .s = (s->attr & SK_ATTR_S) != 0,
        .dpl = (s->attr >> SK_ATTR_DPL_SHIFT) & 3,
        .present = (s->attr & SK_ATTR_P) != 0,
        .avl = (s->attr & SK_ATTR_AVL) != 0,
        .l = (s->attr & SK_ATTR_L) != 0,
        .db = (s->attr & SK_ATTR_DB) != 0,
        .g = (s->attr & SK_ATTR_G) != 0,
        .unusable = (s->attr & SK_ATTR_NULL) != 0,
    };
}

static void seg_set(struct sk_seg *s, const struct kvm_segment *k)
{
    s->base = k->base;
    s->limit = k->limit;
    s->sel = k->selector;
    s->attr = (k->type & 15u) | (k->s != 0 ? SK_ATTR_S : 0u) | (k->dpl & 3u) << SK_ATTR_DPL_SHIFT |
              (k->present != 0 ? SK_ATTR_P : 0u) | (k->avl != 0 ? SK_ATTR_AVL : 0u) |
              (k->l != 0 ? SK_ATTR_L : 0u) | (k->db != 0 ? SK_ATTR_DB : 0u) |
              (k->g != 0 ? SK_ATTR_G : 0u) | (k->unusable != 0 ? (unsigned)SK_ATTR_NULL : 0u);
}

static void core_get(struct sk_vcpu *c, struct kvm_sregs *s)
{
    seg_get(&c->seg[SK_CS], &s->cs);
    seg_get(&c->seg[SK_DS], &s->ds);
    seg_get(&c->seg[SK_ES], &s->es);
    seg_get(&c->seg[SK_FS], &s->fs);
    seg_get(&c->seg[SK_GS], &s->gs);
    seg_get(&c->seg[SK_SS], &s->ss);
    seg_get(&c->seg[SK_TR], &s->tr);
    seg_get(&c->seg[SK_LDTR], &s->ldt);
    s->gdt = (struct kvm_dtable){ .base = c->gdtr.base, .limit = c->gdtr.limit };
    s->idt = (struct kvm_dtable){ .base = c->idtr.base, .limit = c->idtr.limit };
    s->cr0 = c->cr0;
    s->cr2 = c->cr2;
    s->cr3 = c->cr3;
    s->cr4 = c->cr4;
    s->cr8 = c->lapic != NULL ? sk_lapic_get_cr8(c) : c->cr8;
    s->efer = c->efer;
    s->apic_base = c->apic_base;
}

void abi_sregs_get(struct sk_vcpu *c, struct kvm_sregs *s)
{
    memset(s, 0, sizeof(*s));
    core_get(c, s);
    if (c->intr_injected && !c->intr_soft) {
        s->interrupt_bitmap[c->intr_vec / 64] |= BIT64(c->intr_vec & 63);
    }
}

int abi_get_sregs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    abi_sregs_get(ABI_VCPU_OF(obj)->c, arg);
    return 0;
}

static bool pae_active(const struct sk_vcpu *c)
{
    return (c->cr0 & SK_CR0_PG) != 0 && (c->cr4 & SK_CR4_PAE) != 0 && !sk_lma(c);
}

/* Combinations that no processor can be in (kvm_is_valid_sregs is the model: KVM api.rst 4.14). */
static int sregs_check(struct sk_vcpu *c, const struct kvm_sregs *s)
{
    const uint64_t cr0_known = UINT64_C(0xe005003f);
    bool pg = (s->cr0 & BIT64(31)) != 0;
    bool pe = (s->cr0 & 1) != 0;
    bool lme = (s->efer & BIT64(8)) != 0;
    bool lma = (s->efer & BIT64(10)) != 0;
    if ((s->cr0 & ~UINT64_C(0xffffffff)) != 0 || (s->cr0 & ~cr0_known & 0xffffffff) != 0 ||
        (pg && !pe) || ((s->cr0 & BIT64(29)) != 0 && (s->cr0 & BIT64(30)) == 0)) {
        return -EINVAL;
    }
    if (lme && pg) {
        /* Long mode: PAE on, LMA set, CR3 within the physical width. */
        if ((s->cr4 & BIT64(5)) == 0 || !lma ||
            (s->cr3 & ~(BIT64(63)) & ~(BIT64(c->maxphyaddr) - 1)) != 0) {
            return -EINVAL;
        }
    } else if (lma || (s->cs.l != 0 && pg)) {
        return -EINVAL;
    }
    /* VME and PVI: a client may set them whatever CPUID says, as under KVM. */
    return (s->cr4 & ~(sk_cr4_allowed(c) | 3)) != 0 ? -EINVAL : 0;
}

static bool core_set(struct abi_vcpu *v, const struct kvm_sregs *s)
{
    struct sk_vcpu *c = v->c;
    if (s->apic_base != c->apic_base) {
        if (c->lapic == NULL) {
            c->apic_base = s->apic_base;
        } else if (sk_lapic_wrmsr(c, 0x1b, s->apic_base, true) != 0) {
            return false;
        }
    }
    seg_set(&c->seg[SK_CS], &s->cs);
    seg_set(&c->seg[SK_DS], &s->ds);
    seg_set(&c->seg[SK_ES], &s->es);
    seg_set(&c->seg[SK_FS], &s->fs);
    seg_set(&c->seg[SK_GS], &s->gs);
    seg_set(&c->seg[SK_SS], &s->ss);
    seg_set(&c->seg[SK_TR], &s->tr);
    seg_set(&c->seg[SK_LDTR], &s->ldt);
    c->gdtr = (struct sk_dtable){ .base = s->gdt.base, .limit = s->gdt.limit };
    c->idtr = (struct sk_dtable){ .base = s->idt.base, .limit = s->idt.limit };
    c->cr0 = s->cr0 | 0x10; /* ET is always set */
    c->cr2 = s->cr2;
    c->cr3 = s->cr3;
    c->cr4 = s->cr4;
    c->efer = s->efer;
    if (c->lapic != NULL) {
        sk_lapic_set_cr8(c, (uint8_t)s->cr8);
    } else {
        c->cr8 = s->cr8 & 15;
    }
    c->cpl = core_cpl(c);
    return true;
}

/* After KVM's example: the boot CPU of a machine set to the reset vector starts to run. */
static void core_changed(struct sk_vcpu *c)
{
    if (c->lapic != NULL && c->mp_state == SK_MP_UNINITIALIZED && (c->apic_base & 0x100) != 0 &&
        c->seg[SK_CS].sel == 0xf000 && c->r[SK_RIP] == 0xfff0 && !sk_pe(c)) {
        c->mp_state = SK_MP_RUNNABLE;
    }
    sk_vcpu_changed(c);
}

int abi_sregs_set(struct abi_vcpu *v, const struct kvm_sregs *s)
{
    struct sk_vcpu *c = v->c;
    if (sregs_check(c, s) < 0 || !core_set(v, s)) {
        return -EINVAL;
    }
    if (pae_active(c)) {
        /* Reserved bits in them are the guest's affair: its next access faults. */
        (void)!sk_load_pdptes(c, c->cr3);
    }
    for (int i = 3; i >= 0; i--) {
        if (s->interrupt_bitmap[i] != 0) {
            c->intr_vec = (uint8_t)(i * 64 + 63 - __builtin_clzll(s->interrupt_bitmap[i]));
            c->intr_injected = true;
            c->intr_soft = false;
            sk_poll_set(c, SK_POLL_INTR);
            break;
        }
    }
    core_changed(c);
    return 0;
}

int abi_set_sregs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    return abi_sregs_set(ABI_VCPU_OF(obj), arg);
}

int abi_get_sregs2(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    struct kvm_sregs2 *s2 = arg;
    struct kvm_sregs s;
    memset(&s, 0, sizeof(s));
    core_get(c, &s);
    memset(s2, 0, sizeof(*s2));
    memcpy(s2, &s, offsetof(struct kvm_sregs, interrupt_bitmap)); /* the same fields up to there */
    static_assert(offsetof(struct kvm_sregs, interrupt_bitmap) ==
                      offsetof(struct kvm_sregs2, flags),
                  "common head");
    if (pae_active(c)) {
        s2->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        memcpy(s2->pdptrs, c->pdpte, sizeof(s2->pdptrs));
    }
    return 0;
}

int abi_set_sregs2(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct abi_vcpu *v = ABI_VCPU_OF(obj);
    const struct kvm_sregs2 *s2 = arg;
    struct kvm_sregs s;
    bool pdptrs = (s2->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
    if ((s2->flags & ~(uint64_t)KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0) {
        return -EINVAL;
    }
    memset(&s, 0, sizeof(s));
    memcpy(&s, s2, offsetof(struct kvm_sregs, interrupt_bitmap));
    bool pae = (s.cr0 & BIT64(31)) != 0 && (s.cr4 & BIT64(5)) != 0 && (s.efer & BIT64(10)) == 0;
    if (pdptrs && !pae) {
        return -EINVAL;
    }
    int rc = abi_sregs_set(v, &s);
    if (rc == 0 && pdptrs) {
        memcpy(v->c->pdpte, s2->pdptrs, sizeof(s2->pdptrs));
        sk_vcpu_changed(v->c);
    }
    return rc;
}

/* --- FPU and extended state --- */

int abi_get_fpu(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    const struct sk_xsave *x = &ABI_VCPU_OF(obj)->c->xs;
    struct kvm_fpu *f = arg;
    *f = (struct kvm_fpu){
        .fcw = x->fcw,
        .fsw = x->fsw,
        .ftwx = x->ftw,
        .last_opcode = x->fop,
        .last_ip = x->fip,
        .last_dp = x->fdp,
        .mxcsr = x->mxcsr,
    };
    memcpy(f->fpr, x->st, sizeof(f->fpr));
    memcpy(f->xmm, x->xmm, sizeof(f->xmm));
    return 0;
}

int abi_set_fpu(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_xsave *x = &ABI_VCPU_OF(obj)->c->xs;
    const struct kvm_fpu *f = arg;
    x->fcw = f->fcw;
    x->fsw = f->fsw;
    x->ftw = f->ftwx;
    x->fop = f->last_opcode;
    x->fip = f->last_ip;
    x->fdp = f->last_dp;
    x->mxcsr = f->mxcsr & 0xffff; /* reserved bits would fault in our own LDMXCSR */
    memcpy(x->st, f->fpr, sizeof(x->st));
    sk_x87_settle(x);
    memcpy(x->xmm, f->xmm, sizeof(x->xmm));
    return 0;
}

int abi_get_xsave(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    const struct sk_xsave *x = &ABI_VCPU_OF(obj)->c->xs;
    struct kvm_xsave *out = arg;
    memset(out, 0, sizeof(*out));
    memcpy(out->region, x, sizeof(*x));
    /* KVM reports all enabled components as present (XSTATE_BV of the image, 4.42). */
    le64_put((char *)out->region + offsetof(struct sk_xsave, xstate_bv), 7);
    return 0;
}

int abi_set_xsave(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    struct sk_xsave x;
    memcpy(&x, ((struct kvm_xsave *)arg)->region, sizeof(x));
    if ((x.xstate_bv & ~UINT64_C(7)) != 0 || x.xcomp_bv != 0 || (x.mxcsr & ~0xffffu) != 0) {
        return -EINVAL;
    }
    /* A component whose bit is clear is in its initial state (SDM 1 §13.8). */
    if ((x.xstate_bv & 1) == 0) {
        x.fcw = 0x37f;
        x.fsw = 0;
        x.ftw = 0;
        x.fop = 0;
        x.fip = x.fdp = 0;
        memset(x.st, 0, sizeof(x.st));
    }
    if ((x.xstate_bv & 2) == 0) {
        memset(x.xmm, 0, sizeof(x.xmm));
        x.mxcsr = (x.xstate_bv & 4) == 0 ? 0x1f80 : x.mxcsr;
    }
    if ((x.xstate_bv & 4) == 0) {
        memset(x.ymmh, 0, sizeof(x.ymmh));
    }
    sk_x87_settle(&x);
    x.mxcsr_mask = c->xs.mxcsr_mask;
    c->xs = x;
    return 0;
}

int abi_get_xcrs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct kvm_xcrs *x = arg;
    *x = (struct kvm_xcrs){ .nr_xcrs = 1 };
    x->xcrs[0].value = ABI_VCPU_OF(obj)->c->xcr0;
    return 0;
}

int abi_set_xcrs(struct abi_obj *obj, void *arg, unsigned long user)
{
    (void)user;
    struct sk_vcpu *c = ABI_VCPU_OF(obj)->c;
    const struct kvm_xcrs *x = arg;
    if (x->nr_xcrs > KVM_MAX_XCRS || x->flags != 0) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < x->nr_xcrs; i++) {
        if (x->xcrs[i].xcr != 0) {
            continue;
        }
        uint64_t v = x->xcrs[i].value;
        if ((v & 1) == 0 || (v & ~UINT64_C(7)) != 0 || (v & 6) == 4) {
            return -EINVAL;
        }
        c->xcr0 = v;
        sk_vcpu_changed(c);
    }
    return 0;
}
