/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/kvm_para.h>

#include "softkvm/irqchip/irqchip.h"
#include "softkvm/pv/pv.h"

/* One interrupt to up to two words of APIC ids from `first` on; how many took it
 * (Documentation/virt/kvm/x86/hypercalls.rst, "KVM_HC_SEND_IPI"). */
static int64_t pv_send_ipi(struct sk_vcpu *c, const uint64_t ids[2], uint32_t first, uint32_t icr)
{
    unsigned bits = sk_code64(c) ? 64 : 32;
    struct sk_msg m = {
        .vector = (uint8_t)icr, .mode = (icr >> 8) & 7, .assert_ = true, .wide = true
    };
    int64_t count = 0;
    if (c->vm->irqchip == NULL || (icr & BIT(11)) != 0 ||
        (m.mode != SK_DM_FIXED && m.mode != SK_DM_NMI)) {
        return -KVM_EINVAL;
    }
    for (unsigned i = 0; i < 2 * bits; i++) {
        uint64_t id = (uint64_t)first + i;
        if ((ids[i / bits] & BIT64(i % bits)) == 0 || id >= UINT32_MAX) {
            continue; /* all ones would be a broadcast */
        }
        m.dest = (uint32_t)id;
        count += sk_lapic_deliver(c->vm->irqchip, &m) >= 0;
    }
    return count;
}

bool pv_hypercall(struct sk_vcpu *c)
{
    uint64_t nr = c->r[SK_RAX];
    int64_t ret;
    if (!sk_code64(c)) {
        nr &= 0xffffffff;
    }
    if (c->cpl != 0) {
        ret = -KVM_EPERM;
    } else {
        switch (nr) {
        case KVM_HC_VAPIC_POLL_IRQ:
            ret = 0; /* a reason to look at interrupts, which the engine does anyway */
            break;
        case KVM_HC_SEND_IPI: {
            const uint64_t ids[2] = { c->r[SK_RBX], c->r[SK_RCX] };
            ret = pv_send_ipi(c, ids, (uint32_t)c->r[SK_RDX], (uint32_t)c->r[SK_RSI]);
            break;
        }
        default:
            /* None of the others is offered by CPUID (pv_cpuid). */
            ret = -KVM_ENOSYS;
            break;
        }
    }
    c->r[SK_RAX] = sk_code64(c) ? (uint64_t)ret : (uint32_t)ret;
    return true;
}
