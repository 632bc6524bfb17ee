/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "softkvm/jit/jit.h"
#include "softkvm/run/blocks.h"
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/flags.h"
#include "softkvm/x86/hostexec.h"
#include "softkvm/x86/mmu_int.h"
#include "softkvm/x86/msr.h"

#define NEVER BIT64(63)

static const _Atomic uint8_t no_exit;

struct sk_vcpu *sk_vcpu_new(struct sk_vm *vm, uint32_t id, uint8_t *pio_data)
{
    /* Zero pages: the JIT's jump cache takes memory only as it is used. */
    struct sk_vcpu *c =
        mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (c == MAP_FAILED) {
        return NULL;
    }
    c->vm = vm;
    atomic_fetch_add(&vm->vcpus, 1);
    c->id = id;
    c->pio_data = pio_data;
    c->immediate_exit = &no_exit;
    c->wait_word = &c->own_wait_word;
    c->mmu = calloc(1, sizeof(*c->mmu));
    c->hostexec = sk_hostexec_new();
    if (!c->mmu || !c->hostexec || sk_blocks_init(c) < 0) {
        sk_vcpu_free(c);
        errno = ENOMEM;
        return NULL;
    }
    sk_jit_init(c);
    c->maxphyaddr = 40;
    sk_cpuid_unset(c);
    sk_tlb_init(c);
    sk_vcpu_reset(c, false);
    return c;
}

void sk_vcpu_free(struct sk_vcpu *c)
{
    if (!c) {
        return;
    }
    sk_jit_done(c);
    sk_blocks_done(c);
    sk_hostexec_free(c->hostexec);
    free(c->mmu);
    free((void *)(uintptr_t)c->cpuid);
    munmap(c, sizeof(*c));
}

static void reset_segments(struct sk_vcpu *c)
{
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        c->seg[i] = (struct sk_seg){ .limit = 0xffff, .attr = 0x93 };
    }
    c->seg[SK_CS].sel = 0xf000;
    c->seg[SK_CS].base = 0xffff0000;
    c->seg[SK_CS].attr = 0x9b;
    c->seg[SK_LDTR] = (struct sk_seg){ .limit = 0xffff, .attr = 0x82 };
    c->seg[SK_TR] = (struct sk_seg){ .limit = 0xffff, .attr = 0x8b };
    c->gdtr = c->idtr = (struct sk_dtable){ .limit = 0xffff };
}

static void reset_power_on(struct sk_vcpu *c)
{
    c->xs = (struct sk_xsave){ .fcw = 0x40, .mxcsr = 0x1f80, .mxcsr_mask = SK_MXCSR_MASK };
    c->xcr0 = 1;
    c->pat = UINT64_C(0x0007040600070406);
    c->misc_enable = 1;
    c->apic_base = 0xfee00800 | (c->id == 0 ? 0x100u : 0u);
    c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = 0;
    c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
    c->tsc_aux = c->tsc_adjust = c->debugctl = c->feature_control = c->spec_ctrl = c->xss = 0;
    c->ucode_rev = UINT64_C(0x100000000);
    (void)sk_msr_feature(0x10a, &c->arch_cap); /* IA32_ARCH_CAPABILITIES: always there */
    c->smbase = 0x30000;
    c->smi_count = 0;
    c->power_ctl = c->misc_features = 0;
    c->platform_info = BIT64(31); /* CPUID faulting */
    c->mcg_status = 0;
    c->mtrr = (struct sk_mtrr){ 0 };
    c->mp_state = c->id == 0 ? SK_MP_RUNNABLE : SK_MP_UNINITIALIZED;
}

void sk_vcpu_reset(struct sk_vcpu *c, bool init)
{
    memset(c->r, 0, sizeof(c->r));
    c->r[SK_RDX] = 0x600;
    c->r[SK_RIP] = 0xfff0;
    c->af = 0;
    c->eflags = SK_FL_ONE;
    c->cpl = 0;
    reset_segments(c);
    c->cr0 = 0x60000010 | (init ? c->cr0 & 0x60000000 : 0);
    c->cr2 = c->cr3 = c->cr4 = c->cr8 = 0;
    c->efer = 0;
    memset(c->dr, 0, sizeof(c->dr));
    c->dr[6] = 0xffff0ff0;
    c->dr[7] = 0x400;
    c->special = 0;
    c->exc_pending = c->exc_injected = c->delivering = false;
    c->intr_injected = c->nmi_injected = c->nmi_masked = false;
    c->in_smm = c->smm_inside_nmi = c->smi_pending = c->init_latched = false;
    atomic_store_explicit(&c->ev_nmi, 0, memory_order_relaxed);
    c->pio_pending = false;
    c->msr_len = 0;
    c->mmio_n = c->mmio_pos = 0;
    c->db_pending = 0;
    if (!init) {
        reset_power_on(c);
    }
    sk_vcpu_changed(c);
}

/* Where reads (writes) are not allowed or the segment is tiny, the lower bound is out of reach of
 * any 32-bit offset, so that every access goes to sk_seg_lin_slow(). */
static void mode_segment(struct sk_seg *s, bool prot)
{
    bool code = s->attr & SK_ATTR_CODE, bit1 = s->attr & SK_ATTR_WRITABLE;
    uint64_t lo = 0, hi = s->limit;

    s->ebase = s->base;
    if (!code && (s->attr & SK_ATTR_EXPDOWN)) {
        lo = hi + 1;
        hi = s->attr & SK_ATTR_DB ? 0xffffffff : 0xffff;
    }
    s->rlo = s->wlo = NEVER;
    s->span = 63;
    if ((s->attr & SK_ATTR_NULL) || !(s->attr & SK_ATTR_P) || hi < lo + 63) {
        return;
    }
    s->span = hi - lo;
    if (!prot || !code || bit1) {
        s->rlo = lo;
    }
    if (!prot || (!code && bit1)) {
        s->wlo = lo;
    }
}

static void mode_segments64(struct sk_vcpu *c)
{
    for (unsigned i = 0; i < SK_NSEGS; i++) {
        struct sk_seg *s = &c->seg[i];

        s->ebase = i == SK_FS || i == SK_GS ? s->base : 0;
        s->rlo = s->wlo = 0;
        s->span = ~UINT64_C(0);
    }
}

static enum sk_tlbset mode_tlbset(const struct sk_vcpu *c)
{
    bool ac = c->eflags & SK_FL_AC;
    uint64_t dr7 = sk_debug_regs(c)[7];

    if ((dr7 & 0xff) && (dr7 & 0x33330000)) {
        return SK_TLB_EMPTY; /* data breakpoints: every access goes the slow way */
    }
    if (c->cpl == 3) {
        return ac && (c->cr0 & BIT(18)) ? SK_TLB_EMPTY : SK_TLB_USER;
    }
    return ac && (c->cr4 & BIT(21)) ? SK_TLB_SUP_AC : SK_TLB_SUP;
}

void sk_mode_update(struct sk_vcpu *c)
{
    bool prot = sk_protected(c);
    const struct sk_seg *cs = &c->seg[SK_CS];
    enum sk_tlbset set = mode_tlbset(c);
    unsigned mode;

    c->code_size = sk_lma(c) && (cs->attr & SK_ATTR_L) ? 8 : cs->attr & SK_ATTR_DB ? 4 : 2;
    if (c->code_size == 8) {
        c->linmask = c->spmask = ~UINT64_C(0);
        mode_segments64(c);
    } else {
        c->linmask = 0xffffffff;
        c->spmask = c->seg[SK_SS].attr & SK_ATTR_DB ? 0xffffffff : 0xffff;
        for (unsigned i = 0; i < SK_NSEGS; i++) {
            mode_segment(&c->seg[i], prot);
        }
    }
    mode = c->code_size == 8 ? SK_MODE_64 : c->code_size == 4 ? SK_MODE_32 : SK_MODE_16;
    mode |= (c->cpl == 3 ? SK_MODE_USER : 0u) | (prot ? 0u : SK_MODE_REAL);
    c->jkey = (c->jkey & ~UINT64_C(0xff)) | mode;
    c->rtlb = &c->tlb_r[set];
    c->wtlb = &c->tlb_w[set];
    c->jit.mode = sk_jit_mode(c, mode, set);
}

void sk_special_update(struct sk_vcpu *c)
{
    c->special &= SK_SPECIAL_SHADOW_STI | SK_SPECIAL_SHADOW_SS | SK_SPECIAL_DB;
    c->special |= (c->eflags & SK_FL_TF ? SK_SPECIAL_TF : 0u) |
                  (c->eflags & SK_FL_RF ? SK_SPECIAL_RF : 0u) |
                  (sk_debug_regs(c)[7] & 0xff ? SK_SPECIAL_DR : 0u) |
                  (c->guest_debug & 2 ? SK_SPECIAL_GUESTDBG_STEP : 0u);
}

void sk_vcpu_changed(struct sk_vcpu *c)
{
    sk_mode_update(c);
    sk_special_update(c);
    sk_tlb_flush_all(c);
    c->leave = 1;
}
