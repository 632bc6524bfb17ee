/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a vCPU does when the engine gives it back. Each handler returns true to enter again. */
#include <inttypes.h>
#include <stdlib.h>

#include "vmm/vcpu_int.h"

static uint64_t vcpu_load(const uint8_t *p, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, p, size); /* little-endian, as the guest */
    return value;
}

static bool vcpu_exit_io(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    unsigned size = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    atomic_fetch_add_explicit(&v->io, 1, memory_order_relaxed);
    /* INS and OUTS with REP: `count` units, all for the same port. */
    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        if (run->io.direction == KVM_EXIT_IO_IN) {
            uint64_t value = 0;
            (void)bus_read(v->set->config.pio, run->io.port, size, &value);
            memcpy(data, &value, size);
        } else {
            (void)bus_write(v->set->config.pio, run->io.port, size, vcpu_load(data, size));
        }
    }
    return true;
}

static bool vcpu_exit_mmio(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    atomic_fetch_add_explicit(&v->mmio, 1, memory_order_relaxed);
    uint64_t addr = run->mmio.phys_addr;
    unsigned left = MIN(run->mmio.len, (uint32_t)sizeof(run->mmio.data));
    uint8_t *data = run->mmio.data;
    /* An access that crosses a page comes in pieces of any length: the largest powers of two. */
    while (left > 0) {
        unsigned size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (run->mmio.is_write) {
            (void)bus_write(v->set->config.mmio, addr, size, vcpu_load(data, size));
        } else {
            uint64_t value = 0;
            (void)bus_read(v->set->config.mmio, addr, size, &value);
            memcpy(data, &value, size);
        }
        data += size;
        addr += size;
        left -= size;
    }
    return true;
}

static bool vcpu_exit_again(struct vcpu *v)
{
    (void)v;
    return true;
}

/* The engine's LAPIC keeps halted vCPUs inside KVM_RUN. */
static bool vcpu_exit_hlt(struct vcpu *v)
{
    vcpu_fail(v, "halt without an interrupt controller in the engine");
    return false;
}

static bool vcpu_exit_shutdown(struct vcpu *v)
{
    vcpu_report(v, VCPU_EVENT_TRIPLE_FAULT, NULL);
    return false;
}

static bool vcpu_exit_system_event(struct vcpu *v)
{
    switch (v->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        vcpu_report(v, VCPU_EVENT_POWEROFF, NULL);
        break;
    case KVM_SYSTEM_EVENT_RESET:
        vcpu_report(v, VCPU_EVENT_RESET, NULL);
        break;
    case KVM_SYSTEM_EVENT_CRASH:
        vcpu_report(v, VCPU_EVENT_PANIC, NULL);
        break;
    default:
        vcpu_fail(v, "system event of unknown type %u", v->run->system_event.type);
        break;
    }
    return false;
}

static bool vcpu_exit_fail_entry(struct vcpu *v)
{
    vcpu_fail(v, "the processor refuses to enter the guest: hardware reason 0x%llx",
              (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
    return false;
}

/* Suberror 1 is an instruction that the engine cannot emulate: its bytes are worth showing
 * (KVM api.rst 5, emulation_failure; the count is checked before the bytes are used). */
static bool vcpu_exit_internal_error(struct vcpu *v)
{
    const struct kvm_run *run = v->run;
    char bytes[3 * 15 + 1] = "";
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
        run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0) {
        unsigned n = MIN((unsigned)run->emulation_failure.insn_size, 15u);
        for (unsigned i = 0; i < n; i++) {
            (void)snprintf(&bytes[3 * i], 4, " %02x", run->emulation_failure.insn_bytes[i]);
        }
    }
    vcpu_fail(v, "internal error of the engine, suberror %u%s%s", run->internal.suberror,
              bytes[0] != '\0' ? ": it cannot emulate the instruction" : "", bytes);
    return false;
}

static const struct {
    uint32_t reason;
    bool (*handler)(struct vcpu *v);
} vcpu_exits[] = {
#define EXIT(reason, handler, name) { reason, handler },
#include "vmm/exits.def"
#undef EXIT
};

bool vcpu_exit(struct vcpu *v)
{
    for (size_t i = 0; i < ARRAY_LEN(vcpu_exits); i++) {
        if (vcpu_exits[i].reason == v->run->exit_reason) {
            return vcpu_exits[i].handler(v);
        }
    }
    vcpu_fail(v, "exit for a reason that is not known: %u", v->run->exit_reason);
    return false;
}
