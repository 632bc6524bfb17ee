/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registers of a vCPU: the power-on state, what a boot loader asks for, and their printed form.
 *
 * The engine creates a vCPU in the state after RESET (SDM 3A §9.1). That state is read once and
 * put back at each reset of the machine, so there is no second copy of the manual's table here.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "vmm/layout.h"
#include "vmm/vcpu_int.h"

#define VCPU_MAX_MSRS 1024

#define MSR_TSC            0x10
#define MSR_MISC_ENABLE    0x1a0
#define MSR_MTRR_PHYSBASE0 0x200
#define MSR_MTRR_PHYSMASK0 0x201
#define MSR_MTRR_DEF_TYPE  0x2ff

#define MISC_ENABLE_FAST_STRINGS 1u
#define MTRR_TYPE_UC             0u
#define MTRR_TYPE_WB             6u
#define MTRR_ENABLE              BIT64(11)

#define CR0_PE   BIT64(0)
#define CR0_ET   BIT64(4)
#define CR0_PG   BIT64(31)
#define CR4_PAE  BIT64(5)
#define EFER_LME BIT64(8)
#define EFER_LMA BIT64(10)

#define RFLAGS_FIXED 2u

/* struct kvm_msrs with room for a few. */
struct vcpu_few_msrs {
    uint32_t nmsrs;
    uint32_t pad;
    struct kvm_msr_entry entries[4];
};

static_assert(offsetof(struct vcpu_few_msrs, entries) == sizeof(struct kvm_msrs), "KVM's layout");

/* ---- Power-on state ---- */

static int vcpu_msr_list(const struct vcpu *v, struct kvm_msr_list **ret_list, struct err *err)
{
    const struct vm *vm = v->set->config.vm;
    struct kvm_msr_list probe = { .nmsrs = 0 };
    int rc = vm->hv->ioctl(vm->sys_fd, KVM_GET_MSR_INDEX_LIST, &probe);
    if (rc < 0 && rc != -E2BIG) {
        return err_set_errno(err, rc, "engine '%s': list of MSRs", vm->hv->name);
    }
    uint32_t n = MIN(probe.nmsrs, (uint32_t)VCPU_MAX_MSRS);
    struct kvm_msr_list *list = calloc(1, sizeof(*list) + n * sizeof(list->indices[0]));
    if (list == NULL) {
        return err_set(err, -ENOMEM, "MSRs: out of memory");
    }
    list->nmsrs = n;
    rc = n == 0 ? 0 : vm->hv->ioctl(vm->sys_fd, KVM_GET_MSR_INDEX_LIST, list);
    if (rc < 0) {
        free(list);
        return err_set_errno(err, rc, "engine '%s': list of MSRs", vm->hv->name);
    }
    list->nmsrs = MIN(list->nmsrs, n);
    *ret_list = list;
    return 0;
}

/* Reads or writes all of `msrs`. The engine stops at one it refuses: that one is taken out. */
static int vcpu_msrs_io(const struct vcpu *v, unsigned long request, struct kvm_msrs *msrs)
{
    struct kvm_msrs *part = calloc(1, sizeof(*part) + (msrs->nmsrs + 1) * sizeof(part->entries[0]));
    if (part == NULL) {
        return -ENOMEM;
    }
    int rc = 0;
    uint32_t done = 0;
    while (done < msrs->nmsrs) {
        uint32_t left = msrs->nmsrs - done;
        part->nmsrs = left;
        memcpy(part->entries, &msrs->entries[done], left * sizeof(part->entries[0]));
        rc = vcpu_ioctl(v, request, part);
        if (rc < 0) {
            break;
        }
        uint32_t ok = MIN((uint32_t)rc, left);
        memcpy(&msrs->entries[done], part->entries, ok * sizeof(part->entries[0]));
        done += ok;
        if (ok < left) {
            memmove(&msrs->entries[done], &msrs->entries[done + 1],
                    (left - ok - 1) * sizeof(msrs->entries[0]));
            msrs->nmsrs--;
        }
    }
    free(part);
    return rc < 0 ? rc : 0;
}

static int vcpu_msrs_save(struct vcpu *v, struct err *err)
{
    CLEANUP_FREE struct kvm_msr_list *list = NULL;
    int rc = vcpu_msr_list(v, &list, err);
    if (rc < 0) {
        return rc;
    }
    struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + (list->nmsrs + 1) * sizeof(msrs->entries[0]));
    if (msrs == NULL) {
        return err_set(err, -ENOMEM, "MSRs: out of memory");
    }
    v->power_on.msrs = msrs;
    for (uint32_t i = 0; i < list->nmsrs; i++) {
        /* The time stamp counter runs on over a reset: written back, the vCPUs would disagree. */
        if (list->indices[i] != MSR_TSC) {
            msrs->entries[msrs->nmsrs++].index = list->indices[i];
        }
    }
    rc = vcpu_msrs_io(v, KVM_GET_MSRS, msrs);
    if (rc < 0) {
        return err_set_errno(err, rc, "engine '%s': MSRs of vCPU %u", v->set->config.vm->hv->name,
                             v->index);
    }
    return 0;
}

int vcpu_state_save(struct vcpu *v, struct err *err)
{
    struct vcpu_power_on *s = &v->power_on;
    const struct vm *vm = v->set->config.vm;
    const struct {
        unsigned long request;
        void *arg;
    } reads[] = {
        {KVM_GET_REGS,         &s->regs    },
        { KVM_GET_SREGS,       &s->sregs   },
        { KVM_GET_FPU,         &s->fpu     },
        { KVM_GET_LAPIC,       &s->lapic   },
        { KVM_GET_VCPU_EVENTS, &s->events  },
        { KVM_GET_MP_STATE,    &s->mp_state},
    };
    for (size_t i = 0; i < ARRAY_LEN(reads); i++) {
        int rc = vcpu_ioctl(v, reads[i].request, reads[i].arg);
        if (rc < 0) {
            return err_set_errno(err, rc, "engine '%s': cannot read the state of vCPU %u (0x%lx)",
                                 vm->hv->name, v->index, reads[i].request);
        }
    }
    s->has_debugregs = vcpu_ioctl(v, KVM_GET_DEBUGREGS, &s->debugregs) == 0;
    s->has_xcrs = vcpu_ioctl(v, KVM_GET_XCRS, &s->xcrs) == 0;
    s->xsave = calloc(1, sizeof(*s->xsave));
    if (s->xsave == NULL) {
        return err_set(err, -ENOMEM, "vCPU %u: out of memory", v->index);
    }
    if (vcpu_ioctl(v, KVM_GET_XSAVE, s->xsave) < 0) {
        free(s->xsave);
        s->xsave = NULL;
    }
    return vcpu_msrs_save(v, err);
}

void vcpu_state_free(struct vcpu *v)
{
    free(v->power_on.msrs);
    free(v->power_on.xsave);
    v->power_on.msrs = NULL;
    v->power_on.xsave = NULL;
}

/* ---- Boot ---- */

static struct kvm_segment vcpu_flat(uint16_t selector, uint8_t type, bool code64)
{
    bool code = (type & 8) != 0;
    return (struct kvm_segment){
        .base = 0,
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .s = 1,
        .g = 1,
        .l = code64 && code ? 1 : 0,
        .db = code64 && code ? 0 : 1,
    };
}

/* Flat protected or long mode, with the loader's GDT and page tables (boot_state.h). */
static void vcpu_boot_protected(struct kvm_sregs *sregs, bool long64)
{
    struct kvm_segment data = vcpu_flat(LAYOUT_BOOT_DS, 3, false);
    sregs->cs = vcpu_flat(LAYOUT_BOOT_CS, 11, long64);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->tr =
        (struct kvm_segment){ .limit = 0x67, .selector = LAYOUT_BOOT_TR, .type = 11, .present = 1 };
    sregs->gdt = (struct kvm_dtable){ .base = LAYOUT_BOOT_GDT, .limit = LAYOUT_BOOT_GDT_SIZE - 1 };
    sregs->idt = (struct kvm_dtable){ .base = LAYOUT_BOOT_IDT, .limit = 0 };
    sregs->cr0 = CR0_PE | CR0_ET;
    if (long64) {
        sregs->cr0 |= CR0_PG;
        sregs->cr3 = LAYOUT_BOOT_PML4;
        sregs->cr4 = CR4_PAE;
        sregs->efer = EFER_LME | EFER_LMA;
    }
}

static void vcpu_boot_real(struct kvm_sregs *sregs, struct kvm_regs *regs, uint64_t entry)
{
    uint64_t segment = (entry >> 4) & 0xf000;
    sregs->cs.selector = (uint16_t)segment;
    sregs->cs.base = segment << 4;
    regs->rip = entry - sregs->cs.base;
}

static void vcpu_boot_regs(const struct boot_state *boot, struct kvm_sregs *sregs,
                           struct kvm_regs *regs)
{
    if (boot->mode == BOOT_MODE_RESET) {
        return;
    }
    regs->rip = boot->entry;
    regs->rax = boot->rax;
    regs->rbx = boot->rbx;
    regs->rsi = boot->rsi;
    regs->rsp = boot->rsp != 0 ? boot->rsp : LAYOUT_BOOT_STACK;
    regs->rdx = 0; /* the processor signature after RESET; loaders promise nothing there */
    regs->rflags = RFLAGS_FIXED;
    if (boot->mode == BOOT_MODE_REAL16) {
        vcpu_boot_real(sregs, regs, boot->entry);
    } else {
        vcpu_boot_protected(sregs, boot->mode == BOOT_MODE_LONG64);
    }
}

/* What firmware does to memory types: write-back, but for the upper half of the first 4 GiB, where
 * devices are (SDM 3A §11.11). The same on all vCPUs. */
static void vcpu_boot_msrs(const struct vcpu *v)
{
    uint64_t phys_mask = bits_mask_bytes(8);
    for (uint32_t i = 0; i < v->set->config.cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &v->set->config.cpuid->entries[i];
        if (e->function == 0x80000008) {
            unsigned bits = e->eax & 0xff;
            phys_mask = bits < 64 ? BIT64(bits) - 1 : phys_mask;
        }
    }
    struct vcpu_few_msrs msrs = {
        .nmsrs = 4,
        .entries = {
            { .index = MSR_MTRR_PHYSBASE0, .data = LAYOUT_LOW_RAM_END | MTRR_TYPE_UC },
            { .index = MSR_MTRR_PHYSMASK0,
              .data = (phys_mask & ~(LAYOUT_LOW_RAM_END - 1)) | MTRR_ENABLE },
            { .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE | MTRR_TYPE_WB },
            { .index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRINGS },
        },
    };
    /* An engine without MTRRs says so in CPUID too, and the guest does not look. */
    (void)vcpu_ioctl(v, KVM_SET_MSRS, &msrs);
}

int vcpu_state_reset(struct vcpu *v, const struct boot_state *boot, struct err *err)
{
    const struct vcpu_power_on *s = &v->power_on;
    struct kvm_regs regs = s->regs;
    struct kvm_sregs sregs = s->sregs;
    struct kvm_fpu fpu = s->fpu;
    struct kvm_lapic_state lapic = s->lapic;
    struct kvm_vcpu_events events = s->events;
    struct kvm_mp_state mp_state = s->mp_state;
    struct kvm_debugregs debugregs = s->debugregs;
    struct kvm_xcrs xcrs = s->xcrs;
    if (boot != NULL) {
        vcpu_boot_regs(boot, &sregs, &regs);
    }
    const struct {
        unsigned long request;
        void *arg;
        bool use;
    } writes[] = {
        {KVM_SET_XCRS,         &xcrs,      s->has_xcrs     },
        { KVM_SET_SREGS,       &sregs,     true            },
        { KVM_SET_LAPIC,       &lapic,     true            },
        { KVM_SET_XSAVE,       s->xsave,   s->xsave != NULL},
        { KVM_SET_FPU,         &fpu,       s->xsave == NULL},
        { KVM_SET_DEBUGREGS,   &debugregs, s->has_debugregs},
        { KVM_SET_REGS,        &regs,      true            },
        { KVM_SET_VCPU_EVENTS, &events,    true            },
        { KVM_SET_MP_STATE,    &mp_state,  true            },
    };
    int rc = vcpu_msrs_io(v, KVM_SET_MSRS, s->msrs);
    if (rc < 0) {
        return err_set_errno(err, rc, "cannot reset the MSRs");
    }
    for (size_t i = 0; i < ARRAY_LEN(writes); i++) {
        rc = writes[i].use ? vcpu_ioctl(v, writes[i].request, writes[i].arg) : 0;
        if (rc < 0) {
            return err_set_errno(err, rc, "cannot reset the registers (request 0x%lx)",
                                 writes[i].request);
        }
    }
    vcpu_boot_msrs(v);
    return 0;
}

/* ---- Time ---- */

int vcpu_tsc_get(const struct vcpu *v, uint64_t *ret_tsc)
{
    struct vcpu_few_msrs msr = { .nmsrs = 1, .entries[0].index = MSR_TSC };
    int rc = vcpu_ioctl(v, KVM_GET_MSRS, &msr);
    if (rc != 1) {
        return rc < 0 ? rc : -ENOENT;
    }
    *ret_tsc = msr.entries[0].data;
    return 0;
}

void vcpu_tsc_set(const struct vcpu *v, uint64_t tsc)
{
    struct vcpu_few_msrs msr = { .nmsrs = 1, .entries = { { .index = MSR_TSC, .data = tsc } } };
    (void)vcpu_ioctl(v, KVM_SET_MSRS, &msr); /* it could be read, so it can be written */
}

/* ---- Printing ---- */

static void vcpu_print_segment(FILE *out, const char *name, const struct kvm_segment *s)
{
    fprintf(out, "%-3s %04x base %016" PRIx64 " limit %08x type %x s %u dpl %u p %u l %u db %u\n",
            name, s->selector, (uint64_t)s->base, s->limit, s->type, s->s, s->dpl, s->present, s->l,
            s->db);
}

void vcpu_state_print(struct vcpu *v, FILE *out)
{
    struct kvm_regs r;
    struct kvm_sregs s;
    struct kvm_mp_state mp = { 0 };
    int rc = vcpu_ioctl(v, KVM_GET_REGS, &r);
    if (rc == 0) {
        rc = vcpu_ioctl(v, KVM_GET_SREGS, &s);
    }
    if (rc < 0) {
        fprintf(out, "vcpu%u: registers cannot be read: %s\n", v->index, strerror(-rc));
        return;
    }
    (void)vcpu_ioctl(v, KVM_GET_MP_STATE, &mp); /* 0 = runnable is what is printed without it */
    static const char *const mp_names[] = { "runnable", "uninitialized", "init", "halted", "sipi" };
    fprintf(out, "vcpu%u %s\n", v->index,
            mp.mp_state < ARRAY_LEN(mp_names) ? mp_names[mp.mp_state] : "?");
    const struct {
        const char *name;
        uint64_t value;
    } regs[] = {
        {"rax",   r.rax      },
        { "rbx",  r.rbx      },
        { "rcx",  r.rcx      },
        { "rdx",  r.rdx      },
        { "rsi",  r.rsi      },
        { "rdi",  r.rdi      },
        { "rbp",  r.rbp      },
        { "rsp",  r.rsp      },
        { "r8",   r.r8       },
        { "r9",   r.r9       },
        { "r10",  r.r10      },
        { "r11",  r.r11      },
        { "r12",  r.r12      },
        { "r13",  r.r13      },
        { "r14",  r.r14      },
        { "r15",  r.r15      },
        { "rip",  r.rip      },
        { "rfl",  r.rflags   },
        { "cr0",  s.cr0      },
        { "cr2",  s.cr2      },
        { "cr3",  s.cr3      },
        { "cr4",  s.cr4      },
        { "efer", s.efer     },
        { "apic", s.apic_base},
    };
    for (size_t i = 0; i < ARRAY_LEN(regs); i++) {
        fprintf(out, "%-4s %016" PRIx64 "%s", regs[i].name, regs[i].value,
                i % 4 == 3 ? "\n" : "  ");
    }
    vcpu_print_segment(out, "cs", &s.cs);
    vcpu_print_segment(out, "ss", &s.ss);
    vcpu_print_segment(out, "ds", &s.ds);
    vcpu_print_segment(out, "es", &s.es);
    vcpu_print_segment(out, "fs", &s.fs);
    vcpu_print_segment(out, "gs", &s.gs);
    vcpu_print_segment(out, "tr", &s.tr);
    vcpu_print_segment(out, "ldt", &s.ldt);
    fprintf(out, "gdt base %016" PRIx64 " limit %04x\nidt base %016" PRIx64 " limit %04x\n",
            (uint64_t)s.gdt.base, s.gdt.limit, (uint64_t)s.idt.base, s.idt.limit);
}
