/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What each ioctl says to a bad request: a row a case (KVM api.rst of Linux 6.1, and where it is
 * silent the answers of its x86 code).
 */
#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "softkvm/softkvm.h"

/* Which descriptor: BARE is a VM without anything, P one with a vCPU, C one with an irqchip, a PIT
 * and a vCPU, S one with a split irqchip and a vCPU. */
enum where { SYS, BARE, VM_P, CPU_P, VM_C, CPU_C, VM_S, CPU_S, NOWHERE, NPLACES };

struct bad {
    const char *what;
    enum where where;
    unsigned long request;
    const void *arg;
    int code;
};

#define ROW(...)                                                                                   \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define NUM(n)         ((const void *)(uintptr_t)(n))
#define ARG(type, ...) (&(const struct type){ __VA_ARGS__ })
#define HOLE           NUM(8) /* nobody's address */

static int place[NPLACES];
static int event_fd, other_fd;

static int ctl(int fd, unsigned long request, const void *arg)
{
    return softkvm_ioctl(fd, request, (unsigned long)arg);
}

static void run_rows(const struct bad *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        errno = 0;
        int rc = ctl(place[row[i].where], row[i].request, row[i].arg);
        if (rc != -1 || errno != row[i].code) {
            fail_msg("%s: returned %d, errno %d (%s), expected %s", row[i].what, rc, errno,
                     strerror(errno), strerror(row[i].code));
        }
    }
}
#define RUN_ROWS(rows) run_rows(rows, ARRAY_LEN(rows))

static int setup(void **state)
{
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
    struct kvm_pit_config pit = { 0 };
    (void)state;
    place[SYS] = softkvm_open();
    for (int i = BARE; i < NOWHERE; i++) {
        bool vm = i == BARE || i == VM_P || i == VM_C || i == VM_S;
        place[i] = vm ? ctl(place[SYS], KVM_CREATE_VM, NULL) : 0;
    }
    assert_int_equal(ctl(place[VM_C], KVM_CREATE_IRQCHIP, NULL), 0);
    assert_int_equal(ctl(place[VM_C], KVM_CREATE_PIT2, &pit), 0);
    assert_int_equal(ctl(place[VM_S], KVM_ENABLE_CAP, &split), 0);
    place[CPU_P] = ctl(place[VM_P], KVM_CREATE_VCPU, NULL);
    place[CPU_C] = ctl(place[VM_C], KVM_CREATE_VCPU, NULL);
    place[CPU_S] = ctl(place[VM_S], KVM_CREATE_VCPU, NULL);
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    other_fd = dup(STDIN_FILENO);
    place[NOWHERE] = event_fd;
    for (int i = 0; i < NPLACES; i++) {
        assert_true(place[i] >= 0);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NOWHERE; i++) {
        assert_int_equal(softkvm_close(place[i]), 0);
    }
    close(event_fd);
    close(other_fd);
    return 0;
}

/* An argument that cannot be read or written, whatever the ioctl would say of it. Where no address
 * is needed, or what is at fault comes first, there is a row in the tables below. */
static void bad_pointers(void **state)
{
    static const struct {
        enum where where;
        unsigned long request;
    } rows[] = {
        {SYS,    KVM_GET_SUPPORTED_CPUID       },
        { SYS,   KVM_GET_EMULATED_CPUID        },
        { SYS,   KVM_GET_MSR_INDEX_LIST        },
        { SYS,   KVM_GET_MSR_FEATURE_INDEX_LIST},
        { SYS,   KVM_GET_MSRS                  },
        { SYS,   KVM_X86_GET_MCE_CAP_SUPPORTED },
        { BARE,  KVM_SET_USER_MEMORY_REGION    },
        { BARE,  KVM_GET_DIRTY_LOG             },
        { BARE,  KVM_CLEAR_DIRTY_LOG           },
        { BARE,  KVM_SET_IDENTITY_MAP_ADDR     },
        { BARE,  KVM_ENABLE_CAP                },
        { BARE,  KVM_GET_CLOCK                 },
        { BARE,  KVM_SET_CLOCK                 },
        { BARE,  KVM_IOEVENTFD                 },
        { BARE,  KVM_REGISTER_COALESCED_MMIO   },
        { BARE,  KVM_UNREGISTER_COALESCED_MMIO },
        { BARE,  KVM_X86_SET_MSR_FILTER        },
        { VM_C,  KVM_GET_IRQCHIP               },
        { VM_C,  KVM_SET_IRQCHIP               },
        { VM_C,  KVM_GET_PIT                   },
        { VM_C,  KVM_SET_PIT                   },
        { VM_C,  KVM_GET_PIT2                  },
        { VM_C,  KVM_SET_PIT2                  },
        { VM_C,  KVM_REINJECT_CONTROL          },
        { VM_C,  KVM_IRQ_LINE                  },
        { VM_C,  KVM_IRQ_LINE_STATUS           },
        { VM_C,  KVM_SET_GSI_ROUTING           },
        { VM_C,  KVM_SIGNAL_MSI                },
        { VM_C,  KVM_IRQFD                     },
        { CPU_C, KVM_GET_REGS                  },
        { CPU_C, KVM_SET_REGS                  },
        { CPU_C, KVM_GET_SREGS                 },
        { CPU_C, KVM_SET_SREGS                 },
        { CPU_C, KVM_GET_SREGS2                },
        { CPU_C, KVM_SET_SREGS2                },
        { CPU_C, KVM_GET_FPU                   },
        { CPU_C, KVM_SET_FPU                   },
        { CPU_C, KVM_GET_XSAVE                 },
        { CPU_C, KVM_GET_XSAVE2                },
        { CPU_C, KVM_SET_XSAVE                 },
        { CPU_C, KVM_GET_XCRS                  },
        { CPU_C, KVM_SET_XCRS                  },
        { CPU_C, KVM_GET_DEBUGREGS             },
        { CPU_C, KVM_SET_DEBUGREGS             },
        { CPU_C, KVM_GET_VCPU_EVENTS           },
        { CPU_C, KVM_SET_VCPU_EVENTS           },
        { CPU_C, KVM_GET_MP_STATE              },
        { CPU_C, KVM_SET_MP_STATE              },
        { CPU_C, KVM_GET_MSRS                  },
        { CPU_C, KVM_SET_MSRS                  },
        { CPU_C, KVM_SET_CPUID                 },
        { CPU_C, KVM_SET_CPUID2                },
        { CPU_C, KVM_GET_CPUID2                },
        { CPU_C, KVM_GET_LAPIC                 },
        { CPU_C, KVM_SET_LAPIC                 },
        { CPU_C, KVM_INTERRUPT                 },
        { CPU_C, KVM_SET_SIGNAL_MASK           },
        { CPU_C, KVM_SET_GUEST_DEBUG           },
        { CPU_C, KVM_TRANSLATE                 },
        { CPU_C, KVM_TPR_ACCESS_REPORTING      },
        { CPU_C, KVM_SET_VAPIC_ADDR            },
        { CPU_C, KVM_X86_SETUP_MCE             },
        { CPU_C, KVM_X86_SET_MCE               },
        { CPU_C, KVM_ENABLE_CAP                },
        { CPU_C, KVM_GET_DEVICE_ATTR           },
        { CPU_C, KVM_SET_DEVICE_ATTR           },
        { CPU_C, KVM_HAS_DEVICE_ATTR           },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        errno = 0;
        int rc = ctl(place[rows[i].where], rows[i].request, HOLE);
        if (rc != -1 || errno != EFAULT) {
            fail_msg("request %#lx: returned %d, errno %d (%s), expected EFAULT", rows[i].request,
                     rc, errno, strerror(errno));
        }
    }
}

/* Descriptors that are not ours, or of another kind. */
static void wrong_descriptors(void **state)
{
    static const struct bad rows[] = {
        ROW("an eventfd", NOWHERE, KVM_GET_API_VERSION, NULL, EBADF),
        ROW("of a VM to the system", SYS, KVM_CREATE_IRQCHIP, NULL, EINVAL),
        ROW("of a vCPU to the system", SYS, KVM_RUN, NULL, EINVAL),
        ROW("unknown to the system", SYS, _IO(KVMIO, 0xff), NULL, EINVAL),
        ROW("of the system to a VM", BARE, KVM_GET_API_VERSION, NULL, ENOTTY),
        ROW("of a vCPU to a VM", BARE, KVM_RUN, NULL, ENOTTY),
        ROW("unknown to a VM", BARE, _IO(KVMIO, 0xff), NULL, ENOTTY),
        ROW("of the system to a vCPU", CPU_P, KVM_CREATE_VM, NULL, EINVAL),
        ROW("of a VM to a vCPU", CPU_P, KVM_CREATE_VCPU, NULL, EINVAL),
        ROW("unknown to a vCPU", CPU_P, _IO(KVMIO, 0xff), NULL, EINVAL),
        ROW("not KVM's, to a vCPU", CPU_P, 0x5401, NULL, EINVAL),
    };
    (void)state;
    RUN_ROWS(rows);
    errno = 0;
    assert_int_equal(ctl(-1, KVM_GET_API_VERSION, NULL), -1);
    assert_int_equal(errno, EBADF);
}

static void system_rows(void **state)
{
    static const struct bad rows[] = {
        ROW("API_VERSION", SYS, KVM_GET_API_VERSION, NUM(1), EINVAL),
        ROW("CREATE_VM type", SYS, KVM_CREATE_VM, NUM(1), EINVAL),
        ROW("VCPU_MMAP_SIZE", SYS, KVM_GET_VCPU_MMAP_SIZE, NUM(1), EINVAL),
    };
    struct kvm_msrs msrs = { .nmsrs = 256 };
    struct kvm_msr_list list = { .nmsrs = 1 };
    struct kvm_cpuid2 cpuid = { .nent = 0 };
    const struct bad written[] = {
        ROW("GET_MSRS, too many", SYS, KVM_GET_MSRS, &msrs, E2BIG),
        ROW("MSR_INDEX_LIST, no room", SYS, KVM_GET_MSR_INDEX_LIST, &list, E2BIG),
        ROW("SUPPORTED_CPUID, no room", SYS, KVM_GET_SUPPORTED_CPUID, &cpuid, E2BIG),
    };
    (void)state;
    RUN_ROWS(rows);
    RUN_ROWS(written);
}

static void vm_rows(void **state)
{
    const struct bad rows[] = {
        ROW("CREATE_VCPU twice", VM_P, KVM_CREATE_VCPU, NULL, EEXIST),
        ROW("CREATE_VCPU id", VM_P, KVM_CREATE_VCPU, NUM(100000), EINVAL),
        ROW("MEMORY_REGION slot", BARE, KVM_SET_USER_MEMORY_REGION,
            ARG(kvm_userspace_memory_region, .slot = 0xffff, .memory_size = 4096), EINVAL),
        ROW("MEMORY_REGION flags", BARE, KVM_SET_USER_MEMORY_REGION,
            ARG(kvm_userspace_memory_region, .flags = 4, .memory_size = 4096), EINVAL),
        ROW("MEMORY_REGION size", BARE, KVM_SET_USER_MEMORY_REGION,
            ARG(kvm_userspace_memory_region, .memory_size = 100), EINVAL),
        ROW("MEMORY_REGION address", BARE, KVM_SET_USER_MEMORY_REGION,
            ARG(kvm_userspace_memory_region, .memory_size = 4096, .guest_phys_addr = 1), EINVAL),
        ROW("MEMORY_REGION wraps", BARE, KVM_SET_USER_MEMORY_REGION,
            ARG(kvm_userspace_memory_region, .memory_size = 8192,
                .guest_phys_addr = ~UINT64_C(0xfff)),
            EINVAL),
        ROW("MEMORY_REGION, none to delete", BARE, KVM_SET_USER_MEMORY_REGION,
            ARG(kvm_userspace_memory_region, .slot = 3), EINVAL),
        ROW("DIRTY_LOG of no slot", BARE, KVM_GET_DIRTY_LOG, ARG(kvm_dirty_log, .slot = 7), ENOENT),
        ROW("DIRTY_LOG slot", BARE, KVM_GET_DIRTY_LOG, ARG(kvm_dirty_log, .slot = 0xffff), EINVAL),
        ROW("CLEAR_DIRTY_LOG page", BARE, KVM_CLEAR_DIRTY_LOG,
            ARG(kvm_clear_dirty_log, .first_page = 1), EINVAL),
        ROW("RESET_DIRTY_RINGS, none", BARE, KVM_RESET_DIRTY_RINGS, NULL, EINVAL),
        ROW("TSS_ADDR", BARE, KVM_SET_TSS_ADDR, NUM(0xfffffffff), EINVAL),
        ROW("IDENTITY_MAP_ADDR late", VM_P, KVM_SET_IDENTITY_MAP_ADDR, &(uint64_t){ 0 }, EINVAL),
        ROW("NR_MMU_PAGES", BARE, KVM_SET_NR_MMU_PAGES, NUM(63), EINVAL),
        ROW("BOOT_CPU_ID late", VM_P, KVM_SET_BOOT_CPU_ID, NULL, EBUSY),
        ROW("ENABLE_CAP unknown", BARE, KVM_ENABLE_CAP, ARG(kvm_enable_cap, .cap = 9999), EINVAL),
        ROW("ENABLE_CAP flags", BARE, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_EXCEPTION_PAYLOAD, .flags = 1), EINVAL),
        ROW("SPLIT_IRQCHIP pins", BARE, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 4096 }), EINVAL),
        ROW("SPLIT_IRQCHIP late", VM_P, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 }), EINVAL),
        ROW("X2APIC_API flags", VM_C, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_X2APIC_API, .args = { 4 }), EINVAL),
        ROW("DIRTY_LOG_RING size", BARE, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_DIRTY_LOG_RING, .args = { 4097 }), EINVAL),
        ROW("DIRTY_LOG_RING late", VM_P, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_DIRTY_LOG_RING, .args = { 4096 }), EINVAL),
        ROW("USER_SPACE_MSR mask", BARE, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { 64 }), EINVAL),
        ROW("SET_CLOCK flags", BARE, KVM_SET_CLOCK, ARG(kvm_clock_data, .flags = 1), EINVAL),
        ROW("SET_TSC_KHZ late", VM_P, KVM_SET_TSC_KHZ, NUM(1000000), EINVAL),
        ROW("MSR_FILTER flags", BARE, KVM_X86_SET_MSR_FILTER, ARG(kvm_msr_filter, .flags = 2),
            EINVAL),
        ROW("COALESCED pio", BARE, KVM_REGISTER_COALESCED_MMIO,
            ARG(kvm_coalesced_mmio_zone, .pio = 2), EINVAL),
        ROW("IOEVENTFD length", BARE, KVM_IOEVENTFD, ARG(kvm_ioeventfd, .len = 3, .fd = event_fd),
            EINVAL),
        ROW("IOEVENTFD flags", BARE, KVM_IOEVENTFD,
            ARG(kvm_ioeventfd, .len = 4, .fd = event_fd, .flags = 0x80), EINVAL),
        ROW("IOEVENTFD bad fd", BARE, KVM_IOEVENTFD, ARG(kvm_ioeventfd, .len = 4, .fd = -1), EBADF),
        ROW("IOEVENTFD no eventfd", BARE, KVM_IOEVENTFD,
            ARG(kvm_ioeventfd, .len = 4, .fd = other_fd), EINVAL),
        ROW("IOEVENTFD none to remove", BARE, KVM_IOEVENTFD,
            ARG(kvm_ioeventfd, .len = 4, .fd = event_fd, .flags = KVM_IOEVENTFD_FLAG_DEASSIGN),
            ENOENT),
    };
    (void)state;
    RUN_ROWS(rows);
}

static void irqchip_rows(void **state)
{
    struct kvm_irqchip chip = { .chip_id = 3 };
    const struct bad rows[] = {
        ROW("CREATE_IRQCHIP late", VM_P, KVM_CREATE_IRQCHIP, NULL, EINVAL),
        ROW("CREATE_IRQCHIP twice", VM_C, KVM_CREATE_IRQCHIP, NULL, EEXIST),
        ROW("CREATE_IRQCHIP after split", VM_S, KVM_CREATE_IRQCHIP, NULL, EEXIST),
        ROW("GET_IRQCHIP, none", VM_P, KVM_GET_IRQCHIP, &chip, ENXIO),
        ROW("SET_IRQCHIP, none", VM_P, KVM_SET_IRQCHIP, &chip, ENXIO),
        ROW("GET_IRQCHIP split", VM_S, KVM_GET_IRQCHIP, &chip, ENXIO),
        ROW("GET_IRQCHIP number", VM_C, KVM_GET_IRQCHIP, &chip, EINVAL),
        ROW("SET_IRQCHIP number", VM_C, KVM_SET_IRQCHIP, &chip, EINVAL),
        ROW("CREATE_PIT, no irqchip", BARE, KVM_CREATE_PIT, NULL, ENOENT),
        ROW("CREATE_PIT2, no irqchip", BARE, KVM_CREATE_PIT2, ARG(kvm_pit_config, 0), ENOENT),
        ROW("CREATE_PIT2 twice", VM_C, KVM_CREATE_PIT2, ARG(kvm_pit_config, 0), EEXIST),
        ROW("GET_PIT2, none", BARE, KVM_GET_PIT2, &(struct kvm_pit_state2){ .flags = 0 }, ENXIO),
        ROW("SET_PIT2, none", BARE, KVM_SET_PIT2, ARG(kvm_pit_state2, .flags = 0), ENXIO),
        ROW("GET_PIT, none", BARE, KVM_GET_PIT, &(struct kvm_pit_state){ .channels = { { 0 } } },
            ENXIO),
        ROW("SET_PIT, none", BARE, KVM_SET_PIT, ARG(kvm_pit_state, .channels = { { 0 } }), ENXIO),
        ROW("REINJECT, no PIT", BARE, KVM_REINJECT_CONTROL, ARG(kvm_reinject_control, 1), ENXIO),
        ROW("IRQ_LINE, no irqchip", BARE, KVM_IRQ_LINE, ARG(kvm_irq_level, .irq = 1), ENXIO),
        ROW("IRQ_LINE_STATUS, no irqchip", BARE, KVM_IRQ_LINE_STATUS, ARG(kvm_irq_level, .irq = 1),
            ENXIO),
        ROW("GSI_ROUTING, no irqchip", BARE, KVM_SET_GSI_ROUTING, ARG(kvm_irq_routing, .nr = 0),
            EINVAL),
        ROW("GSI_ROUTING, too many", VM_C, KVM_SET_GSI_ROUTING, ARG(kvm_irq_routing, .nr = 4097),
            EINVAL),
        ROW("GSI_ROUTING flags", VM_C, KVM_SET_GSI_ROUTING, ARG(kvm_irq_routing, .flags = 1),
            EINVAL),
        ROW("SIGNAL_MSI, no irqchip", BARE, KVM_SIGNAL_MSI, ARG(kvm_msi, .data = 0x30), EINVAL),
        ROW("SIGNAL_MSI flags", VM_C, KVM_SIGNAL_MSI, ARG(kvm_msi, .flags = 1), EINVAL),
        ROW("IRQFD, no irqchip", BARE, KVM_IRQFD, ARG(kvm_irqfd, .fd = (uint32_t)event_fd), EINVAL),
        ROW("IRQFD flags", VM_C, KVM_IRQFD, ARG(kvm_irqfd, .fd = (uint32_t)event_fd, .flags = 0x80),
            EINVAL),
        ROW("IRQFD bad fd", VM_C, KVM_IRQFD, ARG(kvm_irqfd, .fd = 0xffff), EBADF),
        ROW("IRQFD no eventfd", VM_C, KVM_IRQFD, ARG(kvm_irqfd, .fd = (uint32_t)other_fd), EINVAL),
    };
    (void)state;
    RUN_ROWS(rows);
}

static void vcpu_rows(void **state)
{
    static struct kvm_xsave xsave;
    struct kvm_msrs msrs = { .nmsrs = 256 };
    struct kvm_cpuid2 cpuid = { .nent = 300 };
    static struct kvm_lapic_state lapic;
    const struct bad rows[] = {
        ROW("RUN", CPU_P, KVM_RUN, NUM(1), EINVAL),
        ROW("SREGS, PG without PE", CPU_P, KVM_SET_SREGS, ARG(kvm_sregs, .cr0 = 0x80000000),
            EINVAL),
        ROW("SREGS, LMA alone", CPU_P, KVM_SET_SREGS, ARG(kvm_sregs, .efer = 0x400), EINVAL),
        ROW("SREGS, CR4", CPU_P, KVM_SET_SREGS, ARG(kvm_sregs, .cr4 = UINT64_C(1) << 40), EINVAL),
        ROW("SREGS2 flags", CPU_P, KVM_SET_SREGS2, ARG(kvm_sregs2, .flags = 2), EINVAL),
        ROW("SREGS2 PDPTRs", CPU_P, KVM_SET_SREGS2, ARG(kvm_sregs2, .flags = 1), EINVAL),
        ROW("XSAVE", CPU_P, KVM_SET_XSAVE, &xsave, EINVAL),
        ROW("XCRS number", CPU_P, KVM_SET_XCRS, ARG(kvm_xcrs, .nr_xcrs = 17), EINVAL),
        ROW("XCRS flags", CPU_P, KVM_SET_XCRS, ARG(kvm_xcrs, .nr_xcrs = 1, .flags = 1), EINVAL),
        ROW("XCRS, no x87", CPU_P, KVM_SET_XCRS, ARG(kvm_xcrs, .nr_xcrs = 1), EINVAL),
        ROW("DEBUGREGS flags", CPU_P, KVM_SET_DEBUGREGS, ARG(kvm_debugregs, .flags = 1), EINVAL),
        ROW("DEBUGREGS DR6", CPU_P, KVM_SET_DEBUGREGS, ARG(kvm_debugregs, .dr6 = UINT64_C(1) << 32),
            EINVAL),
        ROW("DEBUGREGS DR7", CPU_P, KVM_SET_DEBUGREGS, ARG(kvm_debugregs, .dr7 = UINT64_C(1) << 32),
            EINVAL),
        ROW("EVENTS flags", CPU_P, KVM_SET_VCPU_EVENTS, ARG(kvm_vcpu_events, .flags = 0x8000),
            EINVAL),
        ROW("EVENTS vector", CPU_P, KVM_SET_VCPU_EVENTS,
            ARG(kvm_vcpu_events, .exception = { .injected = 1, .nr = 32 }), EINVAL),
        ROW("EVENTS NMI as exception", CPU_P, KVM_SET_VCPU_EVENTS,
            ARG(kvm_vcpu_events, .exception = { .injected = 1, .nr = 2 }), EINVAL),
        ROW("MP_STATE without LAPIC", CPU_P, KVM_SET_MP_STATE,
            ARG(kvm_mp_state, KVM_MP_STATE_HALTED), EINVAL),
        ROW("MP_STATE number", CPU_C, KVM_SET_MP_STATE, ARG(kvm_mp_state, 99), EINVAL),
        ROW("GET_MSRS, too many", CPU_P, KVM_GET_MSRS, &msrs, E2BIG),
        ROW("SET_MSRS, too many", CPU_P, KVM_SET_MSRS, &msrs, E2BIG),
        ROW("SET_CPUID2, too many", CPU_P, KVM_SET_CPUID2, &cpuid, E2BIG),
        ROW("GET_LAPIC, none", CPU_P, KVM_GET_LAPIC, &lapic, EINVAL),
        ROW("SET_LAPIC, none", CPU_P, KVM_SET_LAPIC, &lapic, EINVAL),
        ROW("INTERRUPT number", CPU_P, KVM_INTERRUPT, ARG(kvm_interrupt, 256), EINVAL),
        ROW("INTERRUPT with a PIC", CPU_C, KVM_INTERRUPT, ARG(kvm_interrupt, 32), ENXIO),
        ROW("SIGNAL_MASK length", CPU_P, KVM_SET_SIGNAL_MASK, ARG(kvm_signal_mask, .len = 4),
            EINVAL),
        ROW("TPR_ACCESS flags", CPU_C, KVM_TPR_ACCESS_REPORTING,
            &(struct kvm_tpr_access_ctl){ .flags = 1 }, EINVAL),
        ROW("VAPIC_ADDR, no LAPIC", CPU_P, KVM_SET_VAPIC_ADDR, ARG(kvm_vapic_addr, 0), EINVAL),
        ROW("SETUP_MCE, no banks", CPU_P, KVM_X86_SETUP_MCE, &(uint64_t){ 0 }, EINVAL),
        ROW("SETUP_MCE banks", CPU_P, KVM_X86_SETUP_MCE, &(uint64_t){ 33 }, EINVAL),
        ROW("SET_MCE bank", CPU_P, KVM_X86_SET_MCE,
            ARG(kvm_x86_mce, .bank = 200, .status = UINT64_C(1) << 63), EINVAL),
        ROW("SET_MCE invalid", CPU_P, KVM_X86_SET_MCE, ARG(kvm_x86_mce, .bank = 0), EINVAL),
        ROW("KVMCLOCK_CTRL, no clock", CPU_P, KVM_KVMCLOCK_CTRL, NULL, EINVAL),
        ROW("ENABLE_CAP unknown", CPU_P, KVM_ENABLE_CAP, ARG(kvm_enable_cap, .cap = 9999), EINVAL),
        ROW("ENABLE_CAP flags", CPU_P, KVM_ENABLE_CAP,
            ARG(kvm_enable_cap, .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .flags = 1), EINVAL),
        ROW("HAS_DEVICE_ATTR", CPU_P, KVM_HAS_DEVICE_ATTR, ARG(kvm_device_attr, .group = 77),
            ENXIO),
        ROW("GET_DEVICE_ATTR", CPU_P, KVM_GET_DEVICE_ATTR, ARG(kvm_device_attr, .group = 77),
            ENXIO),
        ROW("SET_DEVICE_ATTR", CPU_P, KVM_SET_DEVICE_ATTR, ARG(kvm_device_attr, .group = 77),
            ENXIO),
    };
    struct kvm_guest_debug inject = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB };
    const struct bad again = { "GUEST_DEBUG inject twice", CPU_P, KVM_SET_GUEST_DEBUG, &inject,
                               EBUSY };
    (void)state;
    memset(xsave.region, 0xff, sizeof(xsave.region));
    RUN_ROWS(rows);
    assert_int_equal(ctl(place[CPU_P], KVM_SET_GUEST_DEBUG, &inject), 0);
    run_rows(&again, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_pointers), cmocka_unit_test(wrong_descriptors),
        cmocka_unit_test(system_rows),  cmocka_unit_test(vm_rows),
        cmocka_unit_test(irqchip_rows), cmocka_unit_test(vcpu_rows),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
