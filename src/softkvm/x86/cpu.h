/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of a virtual CPU (struct sk_vcpu) and of the machine it belongs to (struct sk_vm), as
 * the execution engine sees them. The ioctl layer embeds both in objects of its own; the engine
 * reaches it only through struct sk_vm_ops.
 *
 *  - General registers sit in r[0..15] in encoding order; r[16] is always 0 (an absent base or
 *    index) and r[17] is RIP, so that an effective address is three loads and two adds whatever
 *    its form. While an instruction runs, RIP already points behind it and insn_rip at it.
 *  - Arithmetic flags live in `af` as `lahf; seto al` leaves them in AX (flags.h); everything
 *    else of RFLAGS in `eflags`. Only flags.h touches either.
 *  - x87, MMX, XMM, YMM and MXCSR live in `xs`, in the standard (non-compacted) XSAVE layout, so
 *    that a host instruction can load from it, run, and store back.
 *  - Hidden parts of segments are kept beside the selector; `ebase`, `rlo`, `wlo`, `span` are
 *    derived from them by sk_mode_update() so that the check of an access is one compare.
 *  - Data accesses go through rtlb/wtlb (mem.h), which point at the supervisor or the user set.
 *
 * Threads: a vCPU is run, read and written by one thread at a time (the ioctl layer has a mutex
 * per vCPU); other threads may only touch `poll` and the `ev_*` words, with atomics.
 */
#ifndef SOFTKVM_X86_CPU_H
#define SOFTKVM_X86_CPU_H

#include <assert.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdatomic.h>

#include "base/bits.h"

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

enum sk_reg {
    SK_RAX,
    SK_RCX,
    SK_RDX,
    SK_RBX,
    SK_RSP,
    SK_RBP,
    SK_RSI,
    SK_RDI,
    SK_R8,
    SK_R15 = 15,
    SK_RZERO = 16, /* reads as zero, never written */
    SK_RIP = 17,
    SK_NREGS
};

enum sk_segno {
    SK_ES,
    SK_CS,
    SK_SS,
    SK_DS,
    SK_FS,
    SK_GS,
    SK_NSEGS,
    SK_LDTR = SK_NSEGS, /* not addressable, but loaded and saved the same way */
    SK_TR,
    SK_NSEGS_ALL
};

/* Bits of sk_seg.attr: bits 40 to 55 of a descriptor, shifted down to 0 (SDM 3A §3.4.5), plus one
 * of our own. The limit field's bits 8 to 11 are kept clear. */
enum {
    SK_ATTR_TYPE = 0x000f,
    SK_ATTR_ACCESSED = 0x0001,
    SK_ATTR_WRITABLE = 0x0002, /* data; for code: readable */
    SK_ATTR_EXPDOWN = 0x0004,  /* data; for code: conforming */
    SK_ATTR_CODE = 0x0008,
    SK_ATTR_S = 0x0010,
    SK_ATTR_DPL_SHIFT = 5,
    SK_ATTR_P = 0x0080,
    SK_ATTR_AVL = 0x1000,
    SK_ATTR_L = 0x2000,
    SK_ATTR_DB = 0x4000,
    SK_ATTR_G = 0x8000,
    SK_ATTR_NULL = 0x10000, /* unusable: loaded with a null selector */
};

struct sk_seg {
    uint64_t base;
    uint32_t limit; /* in bytes, already scaled by G */
    uint32_t attr;
    uint16_t sel;
    /* Derived (sk_mode_update): an access of n bytes at offset o is in order if
     * o - lo <= span - (n - 1), lo being rlo or wlo; its linear address is (ebase + o) & linmask.
     */
    uint64_t ebase;
    uint64_t rlo;
    uint64_t wlo;
    uint64_t span;
};

struct sk_dtable {
    uint64_t base;
    uint16_t limit;
};

#define SK_MXCSR_MASK 0xffff /* of every model */

/* Standard-format XSAVE area for x87, SSE and AVX (SDM 1 §13.4): what XSAVE64 would write. */
struct sk_xsave {
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged: bit n set if physical register n is not empty */
    uint8_t rsvd0;
    uint16_t fop;
    uint64_t fip; /* 64-bit form; FCS in bits 32 to 47 in the 32-bit form */
    uint64_t fdp;
    uint32_t mxcsr;
    uint32_t mxcsr_mask;
    uint8_t st[8][16]; /* ST(0)..ST(7), 10 bytes each */
    uint8_t xmm[16][16];
    uint8_t rsvd1[96];
    uint64_t xstate_bv;
    uint64_t xcomp_bv;
    uint8_t rsvd2[48];
    uint8_t ymmh[16][16]; /* upper halves */
};
/* Makes x87 state that came from outside what a processor would have loaded: ES and B follow from
 * what is pending and not masked (SDM 1 §8.1.3), reserved bits of the control word and the bytes
 * behind the registers read as ever. The interpreter relies on it: op_x87.c lets the host load it.
 */
void sk_x87_settle(struct sk_xsave *x);

static_assert(sizeof(struct sk_xsave) == 832, "XSAVE area of x87 + SSE + AVX");
static_assert(offsetof(struct sk_xsave, st) == 32 && offsetof(struct sk_xsave, ymmh) == 576,
              "layout");

/* One entry of a direct-mapped table. An access of n bytes at `lin` hits if
 * (lin ^ tag) <= 4096 - n; the byte is then at host + (lin ^ tag). An empty entry has a tag that no
 * linear address of its index matches. */
struct sk_tlbe {
    uint64_t tag;
    uint8_t *host;
};

#define SK_TLB_BITS 10
#define SK_TLB_SIZE (1u << SK_TLB_BITS)

struct sk_tlb {
    struct sk_tlbe e[SK_TLB_SIZE];
};

/* Sets of tables: supervisor accesses, the same with EFLAGS.AC set under SMAP, user accesses, and
 * one that is never filled, in force while alignment checks are on. sk_mode_update() chooses. */
enum sk_tlbset { SK_TLB_SUP, SK_TLB_SUP_AC, SK_TLB_USER, SK_TLB_EMPTY, SK_TLB_NSETS };

/* Why run() must look up between two blocks: bits of sk_vcpu.poll. Any thread may set them (with
 * release order, after the data they announce); only the vCPU's thread clears them. */
enum sk_poll {
    SK_POLL_INTR = 0x0001, /* ask vm->ops->intr_pending */
    SK_POLL_NMI = 0x0002,  /* ev_nmi > 0 */
    SK_POLL_SMI = 0x0004,
    SK_POLL_INIT = 0x0008,
    SK_POLL_SIPI = 0x0010,   /* vector in ev_sipi */
    SK_POLL_EXIT = 0x0020,   /* leave with SK_EXIT_INTR (signal, immediate_exit) */
    SK_POLL_TLB = 0x0040,    /* drop all translations (slots or dirty log changed), then ack */
    SK_POLL_WINDOW = 0x0080, /* the client wants to know when it may inject (own bit: sticky) */
    SK_POLL_LIMIT =
        0x0100 /* sk_run() has a limit: translated code comes back at each poll (sticky) */
};

/* Bits of sk_vcpu.special: one instruction at a time, with checks around it. */
enum sk_special {
    SK_SPECIAL_SHADOW_STI = 0x01,    /* interrupts held until after the next instruction */
    SK_SPECIAL_SHADOW_SS = 0x02,     /* the same, and debug traps too */
    SK_SPECIAL_TF = 0x04,            /* EFLAGS.TF is set */
    SK_SPECIAL_RF = 0x08,            /* EFLAGS.RF is set: no instruction breakpoints, then clear */
    SK_SPECIAL_DR = 0x10,            /* DR7 enables something */
    SK_SPECIAL_GUESTDBG_STEP = 0x20, /* KVM_GUESTDBG_SINGLESTEP */
    SK_SPECIAL_DB = 0x40 /* db_pending before the next instruction (task switch with T) */
};

enum sk_mp_state {
    SK_MP_RUNNABLE,
    SK_MP_UNINITIALIZED,
    SK_MP_INIT_RECEIVED,
    SK_MP_HALTED,
    SK_MP_SIPI_RECEIVED
};

/* Why an MSR access of the guest fails: KVM_MSR_EXIT_REASON_*. */
enum sk_msr_reason { SK_MSR_INVALID = 1, SK_MSR_UNKNOWN = 2, SK_MSR_FILTERED = 4 };

/* KVM_X86_QUIRK_*: behaviour of KVM that a client may switch off (KVM api.rst 7.28, Linux 6.1). */
enum sk_quirk {
    SK_QUIRK_LINT0_REENABLED = 0x01, /* LINT0 passes the PIC through after a reset */
    SK_QUIRK_LAPIC_MMIO_HOLE = 0x04, /* with x2APIC on, the APIC's page is still the client's */
    SK_QUIRK_MISC_ENABLE_NO_MWAIT = 0x10, /* IA32_MISC_ENABLE does not switch MWAIT in CPUID */
    SK_QUIRK_MWAIT_NEVER_UD = 0x40 /* MONITOR and MWAIT are no-operations where CPUID hides them */
};

/* Why sk_run() came back. */
enum sk_exit_kind {
    SK_EXIT_NONE,
    SK_EXIT_IO,             /* pio: client performs it, then calls sk_run again */
    SK_EXIT_MMIO,           /* mmio */
    SK_EXIT_HLT,            /* halted and no irqchip in the kernel's place: RIP behind the HLT */
    SK_EXIT_SHUTDOWN,       /* triple fault */
    SK_EXIT_INTR,           /* SK_POLL_EXIT */
    SK_EXIT_IRQ_WINDOW,     /* SK_POLL_WINDOW and an interrupt could be taken now */
    SK_EXIT_DEBUG,          /* debug: guest debugging asked for it */
    SK_EXIT_HYPERCALL,      /* VMCALL the client asked to see */
    SK_EXIT_MSR,            /* c->msr: an MSR access for the client to answer */
    SK_EXIT_INTERNAL_ERROR, /* suberror as KVM_INTERNAL_ERROR_* */
    SK_EXIT_BUS_LOCK,
    SK_EXIT_BAD_MEMORY, /* the client has no memory where a slot says it has */
    SK_EXIT_SET_TPR,
    SK_EXIT_IOAPIC_EOI, /* split irqchip: mmio.gpa holds the vector */
};

#define SK_MMIO_MAX                                                                                \
    16 /* pieces one instruction may need: 64 bytes in 4s, or POPA across a border */

struct sk_mmio {
    uint64_t gpa;
    uint8_t len; /* 1 to 8 */
    bool write;
    bool done; /* a read whose data the client has given */
    uint8_t data[8];
};

/* A guest's access to an MSR that the client answers. */
struct sk_msr_exit {
    uint32_t index;
    uint32_t reason; /* enum sk_msr_reason */
    uint64_t data;
    bool write;
    bool error; /* set by the client: inject #GP */
};

struct sk_exit {
    enum sk_exit_kind kind;
    union {
        struct {
            uint16_t port;
            uint8_t size; /* 1, 2, 4 */
            bool in;
            uint32_t count; /* elements; data in vcpu->pio_data */
        } io;
        struct sk_mmio *mmio; /* one piece; for a read the client fills data */
        struct {
            uint64_t nr, args[6], ret;
            bool longmode;
        } hypercall;
        struct {
            uint32_t exception;
            uint64_t pc, dr6, dr7;
        } debug;
        struct {
            uint32_t suberror;
            uint8_t insn[15], insn_len;
        } internal;
        uint8_t eoi_vector;
    };
};

/* How an event came about: decides EXT, RIP pushed, DPL check (SDM 3A §6.12, §6.13). */
enum sk_event_kind { SK_EV_EXT, SK_EV_NMI, SK_EV_EXC, SK_EV_SOFT, SK_EV_SOFT_EXC, SK_EV_ICEBP };

struct sk_exception {
    uint8_t vec;
    bool has_err;
    uint32_t err;
    uint64_t payload; /* CR2 for #PF, DR6 bits for #DB */
    bool applied;     /* CR2 and DR6 have it already, or are the client's affair */
};

struct sk_mtrr {
    uint64_t def_type;
    uint64_t fixed[11];
    uint64_t base[8], mask[8];
};

/* A port access the client is performing. */
struct sk_pio {
    uint64_t rip; /* linear, of the instruction: nothing to complete if the client moved it */
    uint32_t count;
    uint8_t size, len, ash;
    bool in, rep;
};

/* What generated code (jit/) reaches through the gs base besides the rest of struct sk_vcpu. */
#define SK_JIT_TOKENS 4096
#define SK_JIT_JUMPS  8192

struct sk_jit_jump {
    uint64_t rip;
    const uint8_t *code;
};

/* Tokens set since the last clearing, so that a clearing touches only those. */
#define SK_JIT_LOG 510
struct sk_jit_log {
    uint32_t n;             /* above SK_JIT_LOG: too many, clear everything */
    uint16_t e[SK_JIT_LOG]; /* set * SK_JIT_TOKENS + place */
};

struct sk_jit;

/* Counters of the JIT: SK_JIT_COUNTER(name). Written by the vCPU's thread, read by any. */
#define SK_JIT_COUNTERS                                                                            \
    SK_JIT_COUNTER(translations) /* regions made */                                                \
    SK_JIT_COUNTER(instructions) /* guest instructions in them */                                  \
    SK_JIT_COUNTER(bytes)        /* host code made of them */                                      \
    SK_JIT_COUNTER(flushes)      /* the cache was full or useless: all dropped */                  \
    SK_JIT_COUNTER(drops)        /* pages whose code has changed */                                \
    SK_JIT_COUNTER(enters)       /* from C into generated code */                                  \
    SK_JIT_COUNTER(bodies)       /* instructions that the interpreter did within it */             \
    SK_JIT_COUNTER(blocks)       /* blocks that were left to the interpreter */                    \
    SK_JIT_COUNTER(tokens)       /* pages looked up and compared */                                \
    SK_JIT_COUNTER(links)        /* exits that now jump to their target */                         \
    SK_JIT_COUNTER(compared)     /* regions run in lock-step with the interpreter */               \
    SK_JIT_COUNTER(exit_leave)   /* ways back to C, as enum jit_exit: an event, */                 \
    SK_JIT_COUNTER(exit_link)    /* no target yet, */                                              \
    SK_JIT_COUNTER(exit_poll)    /* the poll word, */                                              \
    SK_JIT_COUNTER(exit_token)   /* another token, */                                              \
    SK_JIT_COUNTER(exit_t0)      /* an instruction for the interpreter */

struct sk_jit_stats {
#define SK_JIT_COUNTER(name) _Atomic uint64_t name;
    SK_JIT_COUNTERS
#undef SK_JIT_COUNTER
};

struct sk_jit_state {
    struct sk_vcpu *self;
    struct sk_jit *jit; /* NULL: interpreter only */
    uint64_t arg;       /* what generated code leaves with */
    uint64_t tmp;
    uint64_t fip, fdp;   /* of the x87 image, while the host's are in the registers */
    uint32_t host_mxcsr; /* 0x1f80 */
    uint32_t mode;       /* key of the mode in force, sk_mode_update(); jit/jit_int.h */
    uint8_t vec_live;    /* guest's XMM/YMM and MXCSR are in the host's registers, not in xs */
    uint8_t x87_live;    /* the same of x87 and MMX */
    bool replaying;      /* lock-step: the interpreter runs ahead, what it stores is logged */
    uint16_t hot;        /* executions before translation */
    uint64_t epoch;      /* pages are compared with memory once in each */
    struct sk_jit_log log;
    uint32_t token[SK_TLB_NSETS][SK_JIT_TOKENS];
    struct sk_jit_jump jump[SK_TLB_NSETS][SK_JIT_JUMPS];
    struct sk_jit_stats st;
};

struct sk_block;
struct sk_blocks;
struct sk_insn;
struct sk_irqchip;
struct sk_lapic;
struct sk_vm;

struct sk_vcpu {
    uint64_t r[SK_NREGS];
    uint64_t insn_rip; /* of the running instruction: what a fault reports */
    uint16_t af;       /* see flags.h */
    uint8_t cpl;
    uint8_t code_size; /* 2, 4, 8: operand size default of CS, 8 meaning 64-bit mode */
    uint32_t leave;    /* set by an op: end the block after this instruction */
    uint32_t special;  /* enum sk_special */
    _Atomic uint32_t poll;
    uint32_t eflags; /* without the six arithmetic flags; bit 1 set */
    struct sk_tlb *rtlb;
    struct sk_tlb *wtlb;
    uint64_t linmask; /* 2^32-1, or all ones in 64-bit mode */
    uint64_t spmask;  /* stack pointer width: 2^16-1, 2^32-1, all ones */
    uint64_t jkey;    /* generation and mode of the jump cache, see run/blocks.h */
    uint64_t epoch;   /* decoded code is compared with memory once in each */
    uint64_t others;  /* *vm->others at its start */
    struct sk_seg seg[SK_NSEGS_ALL];
    struct sk_vm *vm;
    struct sk_blocks *blocks;
    struct sk_block *cur_block;
    const struct sk_insn *cur;

    alignas(64) struct sk_xsave xs;

    uint64_t cr0, cr2, cr3, cr4, cr8; /* cr8 only without an irqchip of ours */
    uint64_t xcr0;
    uint64_t efer;
    uint64_t dr[8]; /* 4 and 5 unused */
    struct sk_dtable gdtr, idtr;
    uint64_t pdpte[4]; /* PAE paging: loaded with CR3 (SDM 3A §4.4.1) */

    /* MSRs that are state of the CPU proper: rows of msrs.def name these fields. */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_aux, tsc_adjust, pat, misc_enable, apic_base, debugctl, feature_control;
    uint64_t spec_ctrl, xss, smbase, smi_count, ucode_rev, arch_cap, power_ctl;
    uint64_t platform_info, misc_features; /* CPUID faulting: SDM 3B (2023-12) §19.15 table */
    uint64_t mcg_cap, mcg_status, mcg_ctl, mc_bank[32][4];
    struct sk_mtrr mtrr;
    uint64_t tsc_offset; /* guest TSC = (host TSC * tsc_ratio >> 48) + tsc_offset */
    uint64_t tsc_ratio;  /* 16.48 fixed point; 0 means 1 */

    /* Events. */
    struct sk_exception exc; /* being raised, or pending across an exit when exc_pending */
    bool exc_pending, exc_injected;
    bool delivered;  /* an event was delivered within this instruction: no single-step trap */
    bool delivering; /* inside event delivery: a fault there may become #DF */
    uint8_t deliver_vec;
    enum sk_event_kind deliver_kind;
    bool intr_injected; /* KVM_INTERRUPT or an ack not yet delivered */
    bool intr_soft;
    bool intr_held; /* SK_POLL_INTR was seen with IF clear */
    uint8_t intr_vec;
    bool nmi_masked, nmi_injected;
    bool in_smm;
    bool smm_inside_nmi; /* NMIs were masked before SMM masked them */
    bool smi_pending;    /* taken from the poll word, not entered yet */
    bool init_latched;   /* INIT came in SMM: it is taken after RSM */
    enum sk_mp_state mp_state;
    _Atomic uint32_t ev_nmi;  /* pending count, at most 2 */
    _Atomic uint32_t ev_sipi; /* vector */
    uint64_t db_pending;      /* DR6 bits gathered by data breakpoints of this instruction */

    /* Exits. */
    struct sk_exit exit;
    uint8_t *pio_data; /* 4096 bytes, in the run area */
    bool pio_pending;
    struct sk_pio pio;
    bool pio_string;
    uint8_t msr_len; /* not 0: RDMSR or WRMSR of that length has left for exit.msr's answer */
    struct sk_msr_exit msr;
    struct sk_mmio mmio[SK_MMIO_MAX]; /* reads done and writes queued by this instruction */
    unsigned mmio_n, mmio_pos;
    bool mmio_draining; /* the instruction is complete, its writes go out one an exit */
    bool split_held;    /* sk_split_lock() */
    bool guarded;       /* inside sk_run(): an instruction may be left */
    const _Atomic uint8_t *immediate_exit; /* kvm_run byte, or a zero of ours */

    uint32_t guest_debug; /* KVM_GUESTDBG_* */
    uint64_t guest_dr[8];
    uint32_t id;           /* vCPU id = initial APIC id */
    uint32_t features[16]; /* guest CPUID words the engine looks at: cpuid.h */
    const struct sk_cpuid_entry *cpuid;
    unsigned cpuid_n;
    uint8_t maxphyaddr;
    uint64_t insn_count; /* instructions retired, for bench and tests */
    uint64_t insn_limit;

    jmp_buf jb; /* where sk_raise() and the exits go */

    struct sk_lapic *lapic;      /* irqchip/: NULL without an irqchip of ours */
    _Atomic uint32_t sleeping;   /* in sk_poll_wait() */
    _Atomic uint32_t *wait_word; /* what it sleeps on: first dword of kvm_run, or own_wait_word */
    _Atomic uint32_t own_wait_word;

    struct sk_hostexec *hostexec; /* hostexec.h */
    struct sk_mmu *mmu;           /* tlb.c: fetch TLB, fill journal */
    struct sk_tlb tlb_r[SK_TLB_NSETS];
    struct sk_tlb tlb_w[SK_TLB_NSETS];
    struct sk_jit_state jit;
};

struct sk_memmap;

/* What the engine asks of the layer above. Every pointer may be NULL: then the machine has no such
 * thing. Called on the vCPU's thread without locks held. */
struct sk_vm_ops {
    /* Devices served in place (irqchip, ioeventfd, coalesced ring). True if done; for reads `data`
     * (len 1 to 8, little endian) has been filled. */
    bool (*mmio)(struct sk_vcpu *c, uint64_t gpa, void *data, unsigned len, bool write);
    bool (*pio)(struct sk_vcpu *c, uint16_t port, void *data, unsigned size, bool write);
    /* MSRs beyond msrs.def. 0 done, 1 #GP, -1 none of theirs. */
    int (*rdmsr)(struct sk_vcpu *c, uint32_t index, uint64_t *ret);
    int (*wrmsr)(struct sk_vcpu *c, uint32_t index, uint64_t val);
    /* Before msrs.def is looked at: may the guest access this MSR? */
    bool (*msr_allowed)(struct sk_vcpu *c, uint32_t index, bool write);
    /* An access of the guest ends in #GP for one of enum sk_msr_reason: true if the client wants to
     * answer it (SK_EXIT_MSR). */
    bool (*msr_exit)(struct sk_vcpu *c, uint32_t reason);
    /* irqchip: see irqchip/irqchip.h. */
    bool (*intr_pending)(struct sk_vcpu *c);
    int (*intr_ack)(struct sk_vcpu *c); /* vector, or -1 if it went away */
    uint8_t (*get_cr8)(struct sk_vcpu *c);
    void (*set_cr8)(struct sk_vcpu *c, uint8_t tpr);
    /* Returns with a reason to look at poll again, or SK_POLL_EXIT set. NULL: HLT exits. */
    void (*halt)(struct sk_vcpu *c);
    int (*apic_base)(struct sk_vcpu *c, uint64_t val, bool host); /* write of the MSR: 0, 1 = #GP */
    void (*init_reset)(struct sk_vcpu *c); /* INIT: reset the local APIC too */
    /* VMCALL/VMMCALL: true if handled in place (result in RAX). */
    bool (*hypercall)(struct sk_vcpu *c);
    /* After CPUID leaf lookup, for bits that follow state. */
    void (*cpuid_fixup)(struct sk_vcpu *c, uint32_t leaf, uint32_t sub, uint32_t reg[4]);
};

struct sk_vm {
    _Atomic(struct sk_memmap *) memmap;     /* phys.h */
    _Atomic(struct sk_memmap *) memmap_smm; /* what a vCPU in SMM sees; NULL: the same */
    const struct sk_vm_ops *ops;
    void *opaque;               /* the object of the layer above */
    struct sk_irqchip *irqchip; /* NULL: the client emulates the interrupt controllers */
    _Atomic uint32_t unknown_logged;
    _Atomic uint32_t vcpus; /* made so far: they share what the JIT may take */
    /* Counts writes to guest memory that no vCPU does. NULL: they are not told, and may come. */
    _Atomic(const _Atomic uint64_t *) others;
    _Atomic uint32_t split_lock; /* held over a locked access to device memory or across pages */
    _Atomic uint64_t quirks_off; /* enum sk_quirk: what the client has disabled */
    _Atomic bool platform_info_hidden; /* a guest's RDMSR of PLATFORM_INFO faults */
};

/* Creates a vCPU in its power-on state (SDM 3A §9.1.1). `pio_data` is 4096 bytes that outlive it.
 * Returns NULL with errno ENOMEM. Free with sk_vcpu_free (NULL is fine). */
struct sk_vcpu *sk_vcpu_new(struct sk_vm *vm, uint32_t id, uint8_t *pio_data);
void sk_vcpu_free(struct sk_vcpu *c);

/* Power-on (init false) or INIT (true) state. INIT leaves caches, FPU, MTRRs, TSC as they are. */
void sk_vcpu_reset(struct sk_vcpu *c, bool init);

/* To be called after any change of CR0, CR3, CR4, EFER, segments, CPL or RFLAGS.VM from outside
 * the engine: derives what the fast paths look at, flushes the TLBs, forgets the jump cache. */
void sk_vcpu_changed(struct sk_vcpu *c);

/* Recomputes derived segment and mode words only (segments or CPL changed, translations did not).
 */
void sk_mode_update(struct sk_vcpu *c);

/* Recomputes c->special from EFLAGS, DR7, shadows and guest debug. */
void sk_special_update(struct sk_vcpu *c);

/*
 * Runs until there is something for the caller, described in c->exit. After SK_EXIT_IO (in) the
 * caller has filled c->pio_data, after an MMIO read c->exit.mmio->data, before calling again.
 * `max_insns` bounds the run (0: no bound); reaching it reports SK_EXIT_NONE.
 */
void sk_run(struct sk_vcpu *c, uint64_t max_insns);

/* Sets bits of c->poll and wakes the vCPU if it sleeps (poll.c). Any thread, signal handlers too.
 */
void sk_poll_set(struct sk_vcpu *c, uint32_t bits);

/* For who reads the state between two runs: takes INIT and SIPI that have arrived, turns what waits
 * as a debug trap into a pending exception, puts its payload into CR2 or DR6. */
void sk_settle_events(struct sk_vcpu *c);

/* An NMI arrives: any thread. Two are kept: one to be taken, one behind it. */
static inline void sk_nmi_post(struct sk_vcpu *c)
{
    uint32_t n = atomic_load_explicit(&c->ev_nmi, memory_order_relaxed);

    while (n < 2 && !atomic_compare_exchange_weak(&c->ev_nmi, &n, n + 1)) {
    }
    sk_poll_set(c, SK_POLL_NMI);
}

/* Of NMIs that arrive while one is served, one is kept (SDM 3A §6.7.1). The vCPU's thread. */
void sk_nmi_merge(struct sk_vcpu *c);

/* Sleeps until c->poll or immediate_exit is not 0, or a signal was caught. */
void sk_poll_wait(struct sk_vcpu *c);

/* The debug registers in force: the client's when it uses hardware breakpoints. */
static inline const uint64_t *sk_debug_regs(const struct sk_vcpu *c)
{
    return c->guest_debug & 0x20000 ? c->guest_dr : c->dr; /* KVM_GUESTDBG_USE_HW_BP */
}

static inline bool sk_pe(const struct sk_vcpu *c)
{
    return c->cr0 & 1;
}

static inline bool sk_v86(const struct sk_vcpu *c)
{
    return c->eflags & (1u << 17);
}

static inline bool sk_protected(const struct sk_vcpu *c)
{
    return (c->cr0 & 1) && !(c->eflags & (1u << 17));
}

static inline bool sk_lma(const struct sk_vcpu *c)
{
    return c->efer & (1u << 10);
}

static inline bool sk_code64(const struct sk_vcpu *c)
{
    return c->code_size == 8;
}

static inline unsigned sk_iopl(const struct sk_vcpu *c)
{
    return (c->eflags >> 12) & 3;
}

#endif
