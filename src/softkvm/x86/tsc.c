/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/x86/tsc.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#define CALIBRATE_NS 20000000

static uint64_t monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* From CPUID, where the host (leaf 15h, SDM 2A CPUID) or its hypervisor (leaf 40000010h, the
 * timing leaf that VMware began and KVM hosts fill) tells it. 0 = not told. */
static uint32_t khz_from_cpuid(void)
{
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t c = 0;
    uint32_t d = 0;
    if (__get_cpuid(0x15, &a, &b, &c, &d) && a != 0 && b != 0 && c != 0) {
        return (uint32_t)((uint64_t)c * b / a / 1000);
    }
    __cpuid(1, a, b, c, d);
    if ((c & BIT(31)) != 0) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010) {
            __cpuid(0x40000010, a, b, c, d);
            return a;
        }
    }
    return 0;
}

/* A reading of both clocks at one moment: the closest of a few, since one may be interrupted. */
static void read_both(uint64_t *ns, uint64_t *tsc)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        uint64_t before = __rdtsc();
        uint64_t now = monotonic_ns();
        uint64_t apart = __rdtsc() - before;
        if (apart < best) {
            best = apart;
            *ns = now;
            *tsc = before + apart / 2;
        }
    }
}

/* Sleeping, not spinning: this is half of the CPU time that the start of a VM takes. */
static uint32_t khz_measured(void)
{
    uint64_t ns0 = 0;
    uint64_t tsc0 = 0;
    uint64_t ns1 = 0;
    uint64_t tsc1 = 0;
    read_both(&ns0, &tsc0);
    do {
        const struct timespec pause = { .tv_nsec = CALIBRATE_NS };
        nanosleep(&pause, NULL);
        read_both(&ns1, &tsc1);
    } while (ns1 - ns0 < CALIBRATE_NS);
    return (uint32_t)((tsc1 - tsc0) * 1000000 / (ns1 - ns0));
}

uint32_t sk_tsc_host_khz(void)
{
    /* A property of the host, the same for every VM: caching it is no state. */
    static _Atomic uint32_t cached;
    uint32_t khz = atomic_load_explicit(&cached, memory_order_relaxed);
    if (khz == 0) {
        khz = khz_from_cpuid();
        if (khz == 0) {
            khz = khz_measured();
        }
        atomic_store_explicit(&cached, khz, memory_order_relaxed);
    }
    return khz;
}

static uint64_t scale(uint64_t v, uint64_t ratio)
{
    return ratio == 0 ? v : (uint64_t)((unsigned __int128)v * ratio >> 48);
}

uint64_t sk_tsc_scale(const struct sk_vcpu *c, uint64_t host_tsc)
{
    return scale(host_tsc, c->tsc_ratio) + c->tsc_offset;
}

uint64_t sk_tsc_now(const struct sk_vcpu *c)
{
    return sk_tsc_scale(c, __rdtsc());
}

uint32_t sk_tsc_khz(const struct sk_vcpu *c)
{
    return (uint32_t)scale(sk_tsc_host_khz(), c->tsc_ratio);
}

uint64_t sk_tsc_ns_until(const struct sk_vcpu *c, uint64_t tsc)
{
    int64_t delta = (int64_t)(tsc - sk_tsc_now(c));
    if (delta <= 0) {
        return 0;
    }
    return (uint64_t)((unsigned __int128)(uint64_t)delta * 1000000 / sk_tsc_khz(c));
}
