/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/kvm_para.h>

#include "softkvm/pv/pv.h"

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
        default:
            /* None of the others is offered by CPUID (pv_cpuid). */
            ret = -KVM_ENOSYS;
            break;
        }
    }
    c->r[SK_RAX] = sk_code64(c) ? (uint64_t)ret : (uint32_t)ret;
    return true;
}
